"""Gateways in processes of their own that share a database, a Redis and a data dir; and how they are killed.

`House` has the services: `__main__` builds one per run of the program, the tests one on their fixtures.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import yaml

from tests import services
from tests.exact.books import Books
from tests.exact.checks import Verdict
from tests.exact.provider import Provider
from tests.gateway import Gateway, catalog, model, provider
from tests.processes import Process, clean_environment
from tests.services import Postgres, Redis

START_SECONDS = 120  # of a gateway on a machine that is loaded on purpose
OUTPUT = 4000  # the models' output limit
# A child is ended with the thread that started it: these threads live as long as this process.
STARTERS = ThreadPoolExecutor(16, "starter")


@dataclass(frozen=True)
class Plan:
    """What to run a scenario on, and how large."""

    processes: int = 8
    streams: int = 500
    seconds: float = 60.0
    database: str = "postgresql"
    redis: bool = True
    redis_dies: bool = False
    seed: int = 0
    quick: bool = False
    server: str = "uvicorn"

    def __str__(self) -> str:
        store = "+redis" if self.redis else ""
        killed = " (killed)" if self.redis_dies else ""
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return f"{self.database}{store}{killed}, {processes}, {self.streams} at once, {self.seconds:g} s"


class MortalRedis(Redis):
    """It can be killed; what starts again on its port knows nothing."""

    def kill(self) -> None:
        assert self._process, "not started"
        self._process.stop(signal.SIGKILL)
        self._process = None

    def command(self, *words: str) -> Any:
        import redis  # here: whoever only needs PostgreSQL must not load it

        with redis.Redis.from_url(self.url, decode_responses=True) as connection:
            return connection.execute_command(*words)


class MortalPostgres(Postgres):
    """It can be stopped with its sessions, frozen, and brought back with what it held."""

    def shut(self) -> None:
        self.stop()

    def open(self) -> None:
        user = services._unprivileged()
        owner: dict[str, int | None] = {"user": user.pw_uid, "group": user.pw_gid} if user else {}
        options = [word for name, value in services._POSTGRES_SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [self._programs_for(user) / "postgres", "-D", self.folder / "data", "-k", self.folder, *options]
        log = self.folder.with_suffix(".log")
        self._process = Process(command, log=log, env=clean_environment(TZ="UTC"), cwd=self.folder, **owner)
        self._process.until_ready(self._answers)

    def freeze(self, number: int = signal.SIGSTOP) -> None:
        """Every process of it: connections stay open, and nobody answers."""
        assert self._process, "not started"
        for pid in [self._process.pid, *_children(self._process.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def thaw(self) -> None:
        self.freeze(signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass
class Fleet:
    """One or more gateways of one installation. `kills`: how often one of them was killed."""

    folder: Path
    plan: Plan
    provider: Provider
    database_url: str
    redis: MortalRedis | None
    env: Mapping[str, str] = field(default_factory=dict)
    gateways: list[Gateway] = field(default_factory=list)
    kills: int = 0

    def __post_init__(self) -> None:
        for _ in range(self.plan.processes):
            self.gateways.append(
                Gateway(
                    self.folder / "data",
                    server=self.plan.server,  # type: ignore[arg-type]
                    database_url=self.database_url,
                    redis_url=self.redis.url if self.redis else "",
                    env=self.env,
                )
            )

    @property
    def ports(self) -> list[int]:
        return [gateway.port for gateway in self.gateways]

    @property
    def operator(self) -> Gateway:
        """Whom commands go through."""
        return self.gateways[0]

    @property
    def books(self) -> Books:
        return Books(self.database_url or f"sqlite:///{self.folder / 'data' / 'kodna.sqlite3'}")

    @property
    def journal(self) -> Path:
        return self.folder / "data" / "journal"

    @property
    def log(self) -> str:
        return self.operator.log

    def start(self) -> None:
        list(STARTERS.map(lambda gateway: gateway.start(START_SECONDS), self.gateways))
        for gateway in self.gateways:
            with gateway.client() as client:
                _until(lambda this=client: this.get("/health/ready").status_code == 200, START_SECONDS)

    def stop(self) -> None:
        list(STARTERS.map(lambda gateway: gateway.is_running and gateway.stop(), self.gateways))

    def crash(self, gateway: Gateway) -> None:
        """`kill -9`, and start it again; returns when it is dead."""
        gateway.kill(signal.SIGKILL)
        self.kills += 1
        STARTERS.submit(gateway.start, START_SECONDS)

    def until_up(self) -> None:
        for gateway in self.gateways:
            _until(lambda this=gateway: this.is_running and this.is_live(), START_SECONDS)

    def run(self, script: str, **values: object) -> Any:
        """Python in an operator's shell, with `values` as names; what it says with `tell(…)`."""
        lines = ["import json", *(f"{name} = {value!r}" for name, value in values.items())]
        lines += ["def tell(value): print('TOLD ' + json.dumps(value))", script]
        output = self.operator.manage("shell", "-v", "0", "-c", "\n".join(lines))
        told = [line.removeprefix("TOLD ") for line in output.splitlines() if line.startswith("TOLD ")]
        return json.loads(told[-1]) if told else None

    def set_up(self, price: Mapping[str, object], *wanted: dict[str, object], **rates: int) -> list["Issued"]:
        """The catalog, and the keys that are `wanted`. `rates`: the limits of the model `c`."""
        path = self.folder / "catalog.yaml"
        path.write_text(yaml.safe_dump(standard_catalog(self.provider.base_url, price, rates)))
        return [Issued(**issued) for issued in self.run(_SET_UP, path=str(path), wanted=wanted)]


def key(
    account: str = "tests",
    *,
    billing: str = "unmetered",
    granted: str = "",
    rates: Mapping[str, int] | None = None,
    **rights: object,
) -> dict[str, object]:
    """A key for `Fleet.set_up`, without limits but those of `rights`. The rest is of its account."""
    none = {"rps": 0, "rpm": 0, "tpm": 0, "concurrency": 0}
    of_account = {"billing": billing, **(rates or {})}
    return {"account": account, "of_account": of_account, "granted": granted, "rights": {**none, **rights}}


@dataclass(frozen=True)
class Issued:
    text: str
    key_id: int
    account_id: int
    prefix: str


_SET_UP = """
from decimal import Decimal
from django.core.management import call_command
from accounts import credits, keys
from accounts.models import Account
call_command("catalog", "load", path, verbosity=0)
issued = []
for one in wanted:
    account, _ = Account.objects.get_or_create(name=one["account"])
    for name, value in one["of_account"].items():
        setattr(account, name, value)
    account.save()
    if one["granted"]:
        credits.grant(account, Decimal(one["granted"]), note="for the run")
    rights = one["rights"]
    if "budget" in rights:
        rights["budget"] = Decimal(rights["budget"])
    key, text = keys.issue(account, **rights)
    issued.append({"text": text, "key_id": key.pk, "account_id": account.pk, "prefix": key.prefix})
tell(issued)
"""


def standard_catalog(base_url: str, price: Mapping[str, object], rates: Mapping[str, int]) -> dict[str, object]:
    """`m` at one provider; `b`, with two routes, falls back to `c` at another price. `fast` is another name of `b`."""
    limits = {"connect": 5, "first_byte": 60, "idle": 60, "total": 600}
    dearer = {name: round(float(str(value)) * 1.5, 6) for name, value in price.items()}
    sizes = {"context": 100_000, "output": OUTPUT}
    return catalog(
        {name: provider(base_url, timeout=limits) for name in ("one", "two")},
        {
            "m": model(("one", "m-there"), price=dict(price), **sizes),
            "b": model(("one", "b-one"), ("two", "b-two"), price=dict(price), fallbacks=["c"], **sizes),
            "c": model(("two", "c-there"), price=dearer, rate=dict(rates), **sizes),
        },
        aliases={"fast": "b"},
    )


class Killer:
    """Kills one of the fleet's processes at random moments, until it is told to stop. Use it in `with`."""

    def __init__(self, fleet: Fleet, pause: tuple[float, float], most: int | None = None) -> None:
        self._fleet, self._pause, self._most = fleet, pause, most
        self._random = random.Random(fleet.plan.seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer")

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._fleet.until_up()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._most is None or self._fleet.kills < self._most:
            if self._stop.wait(self._random.uniform(*self._pause)):
                return
            alive = [gateway for gateway in self._fleet.gateways if gateway.is_running and gateway.is_live()]
            if alive:
                self._fleet.crash(self._random.choice(alive))


@dataclass
class House:
    """PostgreSQL with a migrated database to copy, and a migrated data dir; each fleet gets its own of them."""

    folder: Path
    postgres: Postgres
    template: str  # the name of a migrated database
    migrated: Path  # a data dir with a migrated SQLite database
    count: int = 0
    last: Fleet | None = None

    @contextmanager
    def fleet(self, plan: Plan, env: Mapping[str, str] | None = None) -> Iterator[Fleet]:
        """Not started yet: make keys first, then `start`."""
        self.count += 1
        folder = self.folder / f"fleet{self.count}"
        shutil.copytree(self.migrated, folder / "data")
        url = self.postgres.new_database(self.template) if plan.database == "postgresql" else ""
        redis = MortalRedis(folder) if plan.redis else None
        with Provider(folder) as provider:
            if redis:
                redis.start()
            fleet = self.last = Fleet(folder, plan, provider, url, redis, env or {})
            try:
                yield fleet
            finally:
                fleet.stop()
                if redis and redis._process:
                    redis.stop()


@dataclass(frozen=True)
class Variant:
    """A scenario on one kind of installation. `run` writes into the verdict what it finds."""

    plan: Plan
    run: Callable[[House, Plan, Verdict], None]


@contextmanager
def own_house() -> Iterator[House]:
    """With servers of its own, in a temporary folder that goes away."""
    home = Path(tempfile.mkdtemp(prefix="kodna-exact-"))
    home.chmod(0o711)  # PostgreSQL's user must get in
    postgres = MortalPostgres(home / "pg")
    try:
        postgres.start()
        (home / "template").mkdir()
        postgres.execute("CREATE DATABASE kodna_template")
        Gateway(home / "template", database_url=postgres.database_url("kodna_template")).migrate()
        Gateway(home / "template").migrate()
        yield House(home, postgres, "kodna_template", home / "template")
    finally:
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def closed_database(postgres: Postgres, url: str) -> Iterator[None]:
    """To whoever uses it, this database's server is away; others on the server notice nothing."""
    name = url.partition("@/")[2].partition("?")[0]
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    with psycopg.connect(postgres.database_url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    try:
        yield
    finally:
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def _until(ready: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not seen after {seconds:g} s")
        time.sleep(0.1)
