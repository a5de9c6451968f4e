"""What a client was told has a row, once, whatever dies: processes, the database, the disk of the journal."""

import os
import random
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.exact import checks
from tests.exact.checks import Verdict
from tests.exact.client import Seen
from tests.exact.fleet import (
    STARTERS,
    Fleet,
    House,
    Issued,
    Killer,
    MortalPostgres,
    Plan,
    Variant,
    closed_database,
    key,
)
from tests.exact.settled import until_landed, until_released
from tests.exact.traffic import at_once, brief, quick, run_load

KILLS = 20
PRICE = {"input": 1, "cached_input": 0.25, "output": 4}
ROOM = 48 * 1024  # bytes that the journal's disk has left
RECOVERY_SECONDS = 30
CAP_SYS_ADMIN = 21  # capabilities(7)

Outage = Callable[[Fleet, House], AbstractContextManager[None]]


def killed(house: House, plan: Plan, verdict: Verdict) -> None:
    """`kill -9` at random moments."""
    kills = 4 if plan.quick else KILLS
    with house.fleet(plan) as fleet:
        issued = _begin(fleet)
        with Killer(fleet, (0.5, 2.5) if plan.processes > 1 else (2, 5), kills) as killer:
            seen = run_load(fleet.ports, issued.text, plan.streams, lambda: killer.is_done, brief, plan.seed)
        verdict.facts.append(f"{fleet.kills} kills; {len(seen)} requests")
        verdict.check(fleet.kills == kills, f"only {fleet.kills} of {kills} kills")
        _judge(fleet, seen, verdict)


def database_away(outage: Outage, house: House, plan: Plan, verdict: Verdict) -> None:
    """The database is away for `plan.seconds` under load: who has a known key notices nothing."""
    with house.fleet(plan) as fleet:
        issued = _begin(fleet)
        over = threading.Event()
        worker = threading.Thread(target=_outage, args=[outage, fleet, house, plan.seconds, over])
        worker.start()
        seen = run_load(fleet.ports, issued.text, plan.streams, over.is_set, quick, plan.seed)
        worker.join()
        failed = [one for one in seen if one.status != 200 or not one.whole]
        for one in failed[:5]:
            verdict.problems.append(
                f"{one.ask.marker} at {checks.at(one.begun)}: {one.status} {one.error} {one.trouble}"
            )
        verdict.facts.append(f"{len(seen)} requests, {len(failed)} failed")
        verdict.check(len(failed) <= 5, f"{len(failed)} requests failed")
        _judge(fleet, seen, verdict)


def _outage(outage: Outage, fleet: Fleet, house: House, seconds: float, over: threading.Event) -> None:
    try:
        time.sleep(1)
        with outage(fleet, house):
            time.sleep(seconds)
        time.sleep(1)
    finally:
        over.set()


@contextmanager
def frozen(_: Fleet, house: House) -> Iterator[None]:
    """SIGSTOP: connections stay open, and nobody answers."""
    postgres = house.postgres
    assert isinstance(postgres, MortalPostgres)
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


@contextmanager
def stopped(_: Fleet, house: House) -> Iterator[None]:
    postgres = house.postgres
    assert isinstance(postgres, MortalPostgres)
    postgres.shut()
    try:
        yield
    finally:
        STARTERS.submit(postgres.open).result()


def closed(fleet: Fleet, house: House) -> AbstractContextManager[None]:
    """As `stopped`, to this fleet alone."""
    return closed_database(house.postgres, fleet.database_url)


# --- a disk without room ---------------------------------------------------------------------------------------------


class Shortage:
    """Why the journal cannot grow. `fill` takes its room away, `free` gives it back."""

    env: Mapping[str, str] = {}

    @contextmanager
    def prepared(self, fleet: Fleet, house: House) -> Iterator[None]:
        yield

    def fill(self, fleet: Fleet) -> None: ...
    def free(self, fleet: Fleet) -> None: ...


class Bound(Shortage):
    """The database is away until the journal has reached the bound that the operator has set."""

    env = {"KODNA_JOURNAL_MAX_MB": str(ROOM / 1024**2)}

    @contextmanager
    def prepared(self, fleet: Fleet, house: House) -> Iterator[None]:
        with ExitStack() as self._closed:
            self._house = house
            yield

    def fill(self, fleet: Fleet) -> None:
        self._closed.enter_context(closed_database(self._house.postgres, fleet.database_url))

    def free(self, fleet: Fleet) -> None:
        self._closed.close()


def may_mount() -> bool:
    """Root outside a container, mostly."""
    lines = Path("/proc/self/status").read_text().splitlines()
    rights = next(line for line in lines if line.startswith("CapEff:")).split()[1]
    return bool(int(rights, 16) >> CAP_SYS_ADMIN & 1)


class TinyDisk(Shortage):
    """A disk of its own for the journal, which something else fills. Not everybody may mount one: see `may_mount`."""

    size = 16 * 1024 * 1024

    @contextmanager
    def prepared(self, fleet: Fleet, house: House) -> Iterator[None]:
        fleet.journal.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", fleet.journal], check=True)
        try:
            yield
        finally:
            fleet.stop()
            subprocess.run(["umount", fleet.journal], check=True)

    def fill(self, fleet: Fleet) -> None:
        with (fleet.journal / "filler").open("wb") as file:
            disk = os.statvfs(fleet.journal)
            file.write(bytes(disk.f_bavail * disk.f_frsize - ROOM))

    def free(self, fleet: Fleet) -> None:
        (fleet.journal / "filler").unlink()


class SizeLimit(Shortage):
    """No process may make a file larger than the largest of the journal's lines and `ROOM` more."""

    def fill(self, fleet: Fleet) -> None:
        self._limit(fleet, max(path.stat().st_size for path in fleet.journal.rglob("*.jsonl")) + ROOM)

    def free(self, fleet: Fleet) -> None:
        self._limit(fleet, resource.RLIM_INFINITY)

    def _limit(self, fleet: Fleet, size: int) -> None:
        for gateway in fleet.gateways:
            resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def disk_full(shortage: Shortage, house: House, plan: Plan, verdict: Verdict) -> None:
    """503 that says so, then all goes on, and nothing is lost."""
    with house.fleet(plan, shortage.env) as fleet, shortage.prepared(fleet, house):
        issued = _begin(fleet)
        before = _until_served(fleet, issued, verdict)
        shortage.fill(fleet)
        seen = run_load(fleet.ports, issued.text, plan.streams, plan.seconds, quick, plan.seed)
        shortage.free(fleet)
        refused = sum(one.status == 503 for one in seen)
        verdict.facts.append(f"{len(seen)} requests while there was no room, {refused} refused")
        codes = {(one.status, one.code) for one in seen if one.status not in {0, 200}}
        verdict.check(
            codes == {(503, "journal_full")}, f"refused with {sorted(codes)}, not with 503 journal_full alone"
        )
        broken = [one for one in seen if not one.status or (one.status == 200 and not one.whole)]
        for one in broken[:5]:
            verdict.problems.append(
                f"{one.ask.marker} at {checks.at(one.begun)}: {one.status} {one.trouble} {one.error}"
            )
        after = _until_served(fleet, issued, verdict)
        _judge(fleet, [*before, *seen, *after], verdict)


def _until_served(fleet: Fleet, issued: Issued, verdict: Verdict) -> list[Seen]:
    """By every process."""
    seen: list[Seen] = []
    begun, waiting = time.monotonic(), set(fleet.ports)
    while waiting and time.monotonic() < begun + RECOVERY_SECONDS:
        asked = at_once([(port, quick(random.Random(port), issued.text)) for port in waiting])
        seen += asked
        waiting -= {one.port for one in asked if one.whole}
        time.sleep(0.2)
    verdict.check(not waiting, f"{len(waiting)} processes do not serve again after {RECOVERY_SECONDS} s")
    verdict.facts.append(f"all serve {time.monotonic() - begun:.1f} s after there is room")
    return seen


# --- all of them -----------------------------------------------------------------------------------------------------


def _begin(fleet: Fleet) -> Issued:
    (issued,) = fleet.set_up(PRICE, key(billing="prepaid", granted="1000"))
    fleet.start()
    return issued


def _judge(fleet: Fleet, seen: list[Seen], verdict: Verdict) -> None:
    entries = until_landed(fleet, verdict)
    until_released(fleet, verdict)
    rows = fleet.books.rows()
    checks.ledger(fleet.books, verdict)
    checks.prices(rows, verdict)
    checks.audit(fleet.operator, verdict)
    verdict.facts.append(str(checks.compare(rows, entries, seen, verdict)))


_ALONE = Plan(processes=1, streams=40, redis=False)
_DISK = Plan(processes=2, streams=40, seconds=15)
SCENARIO = {
    "killed": Variant(Plan(processes=4, streams=100), killed),
    "killed-sqlite": Variant(Plan(processes=1, streams=100, database="sqlite", redis=False), killed),
    "frozen": Variant(Plan(processes=4, streams=40), partial(database_away, frozen)),
    "stopped": Variant(Plan(processes=4, streams=40), partial(database_away, stopped)),
    "stopped-alone": Variant(_ALONE, partial(database_away, stopped)),
    "bound": Variant(_DISK, partial(disk_full, Bound())),
    "size-limit": Variant(_DISK, partial(disk_full, SizeLimit())),
    **({"tiny-disk": Variant(_DISK, partial(disk_full, TinyDisk()))} if may_mount() else {}),
}
