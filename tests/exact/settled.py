"""After the load: when is everything in the books, and does nothing hold credit any more?"""

import time

from tests.exact.books import Books
from tests.exact.checks import Verdict
from tests.exact.fleet import Fleet
from tests.exact.provider import Entry

LAND_SECONDS = 60  # for what dead processes left behind too
RELEASE_SECONDS = 120  # a hold of a process that died before its journal knew of it expires after 90
STILL = 1.0  # seconds: twice as long as a line is on its way
REAP_SECONDS = 30


def until_landed(fleet: Fleet, verdict: Verdict, seconds: float = LAND_SECONDS) -> list[Entry]:
    """The provider's account, once every request of it has its row and no more rows come."""
    deadline = time.monotonic() + seconds
    while True:
        entries = fleet.provider.account()
        running = sum(1 for entry in entries if not entry.end)
        asked = {entry.marker for entry in entries}
        found = {row.marker for row in fleet.books.rows()}
        missing = asked - found
        if not running and not missing and _is_still(fleet.books):
            return entries
        if time.monotonic() > deadline:
            verdict.problems.append(
                f"after {seconds:g} s {len(missing)} of {len(asked)} requests have no row "
                f"({', '.join(sorted(missing)[:4])}), the provider still answers {running}"
            )
            return entries
        time.sleep(0.5)


def _is_still(books: Books) -> bool:
    def count() -> int:
        ((row,),) = books.select("SELECT count(*) AS n FROM proxy_usagerecord")
        return int(row["n"])

    before = count()
    time.sleep(STILL)
    return count() == before


def until_released(fleet: Fleet, verdict: Verdict, seconds: float = RELEASE_SECONDS) -> None:
    """No hold is left, in the database or in Redis; then the counters know what the ledger says."""
    begun = reaped = time.monotonic()
    while found := holds(fleet):
        if time.monotonic() > begun + seconds:
            verdict.problems.append(f"{len(found)} holds are left after {seconds:g} s: {found[:4]}")
            return
        if time.monotonic() > reaped + REAP_SECONDS:  # as Celery's beat has it done, which does not run here
            fleet.operator.manage("jobs", "run", "reap-holds")
            reaped = time.monotonic()
        time.sleep(0.5)
    verdict.facts.append(f"the last hold was free after {time.monotonic() - begun:.0f} s")
    if fleet.redis:
        _counters_agree(fleet, verdict)


def holds(fleet: Fleet) -> list[str]:
    (rows,) = fleet.books.select("SELECT request_id, fund, amount FROM proxy_hold")
    found = [f"{row['request_id']} {row['fund']} {row['amount']}" for row in rows]
    for name, value in funds(fleet).items():
        if name.startswith("h:") or (name.startswith("f:") and value.split()[2] != "0"):
            found.append(f"{name} {value}")
    return found


def funds(fleet: Fleet) -> dict[str, str]:
    """What Redis keeps: `f:FUND` → "seq amount held used", `h:REQUEST` → what it holds."""
    return dict(fleet.redis.command("HGETALL", "kodna:funds")) if fleet.redis else {}


def _counters_agree(fleet: Fleet, verdict: Verdict) -> None:
    (balances,) = fleet.books.select("SELECT account_id, amount FROM accounts_balance")
    ledger = {f"f:a{row['account_id']}": int(row["amount"]) // 1000 for row in balances}
    for name, value in funds(fleet).items():
        seq, amount, *_ = value.split() if name.startswith("f:a") else ("-1", "0")
        if int(seq) >= 0 and int(amount) != ledger.get(name, 0):
            verdict.problems.append(f"Redis says {name} is {amount}, the ledger {ledger.get(name, 0)}")
