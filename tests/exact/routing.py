"""A model with two routes, of which one fails sometimes, is dead for a while, then comes back. No client sees it."""

import random
import statistics
import time
from collections import Counter

from tests.exact.checks import Verdict
from tests.exact.client import Ask, Seen
from tests.exact.fleet import Fleet, House, Issued, Plan, Variant, key
from tests.exact.provider import Script
from tests.exact.settled import until_landed
from tests.exact.traffic import Maker, marker, run_load

PRICE = {"input": 1, "output": 2}
FIRST = "b-one"  # the first route's name for the model `b`
SOMETIMES = 0.3
OPENS = 5  # failures, in one process
DEAD = 0.01  # of requests that may find out that a dead route is dead
SLOWER = 1.05  # times the latency of a route that does not fail
WINDOW = 60.0  # seconds in which a route that answers again is back
LEARNS = 0.5  # seconds until the other processes know


def failing(house: House, plan: Plan, verdict: Verdict) -> None:
    """Three of ten fail; then none, then all, then none."""
    with house.fleet(plan, {"KODNA_PROBE_SECONDS": "5"}) as fleet:
        (issued,) = fleet.set_up(PRICE, key(billing="prepaid", granted="100"))
        fleet.start()
        if plan.quick:
            _dead(fleet, issued, plan, 300, verdict)
        else:
            _sometimes(fleet, issued, plan, 2000, verdict)
            _back(fleet, issued, plan, verdict)
            _dead(fleet, issued, plan, 2000, verdict)
            _back(fleet, issued, plan, verdict)
        _nothing_but_requests(fleet, verdict)


def _sometimes(fleet: Fleet, issued: Issued, plan: Plan, requests: int, verdict: Verdict) -> None:
    """Beside requests for a model whose only route never fails."""
    flaky, never = _asks("b", SOMETIMES), _asks("m")
    seen = _ask(fleet, issued, plan, 2 * requests, lambda *words: random.choice((flaky, never))(*words), verdict)
    some, none = ([one for one in seen if one.ask.model == name] for name in ("b", "m"))
    slower = _median(some) / _median(none)
    verdict.facts.append(
        f"30 % errors: p50 {_median(some) * 1000:.1f} ms, of a route without any {_median(none) * 1000:.1f} ms"
        f" ({slower:.3f} times); {_reached(fleet, some)} of {len(some)} reached the first route"
    )
    verdict.check(slower <= SLOWER, f"30 % errors make the median {slower:.3f} times as long")


def _asks(model: str, fails: float = 0.0) -> Maker:
    def make(dice: random.Random, text: str) -> Ask:
        status = {FIRST: 500} if dice.random() < fails else {}
        script = Script(tokens=5, wait=0.02, fail=status)
        return Ask(marker(), text, model, script, stream=dice.random() < 0.5, max_tokens=30)

    return make


def _ask(
    fleet: Fleet, issued: Issued, plan: Plan, requests: int, make: Maker, verdict: Verdict, pause: float = 0.0
) -> list[Seen]:
    """So many requests; each must get its whole answer."""
    made = Counter[str]()

    def counted(dice: random.Random, text: str) -> Ask:
        made["asks"] += 1
        if pause:
            time.sleep(pause)
        return make(dice, text)

    seen = run_load(fleet.ports, issued.text, plan.streams, lambda: made["asks"] >= requests, counted, plan.seed)
    failed = Counter((one.status, one.code, one.trouble) for one in seen if not one.whole)
    verdict.check(not failed, f"clients saw {dict(failed)}")
    return seen


def _median(seen: list[Seen]) -> float:
    return statistics.median(one.ended - one.begun for one in seen)


def _reached(fleet: Fleet, seen: list[Seen]) -> int:
    """Of these requests, how many the first route was asked for."""
    markers = {one.ask.marker for one in seen}
    return sum(1 for entry in fleet.provider.account() if entry.model == FIRST and entry.marker in markers)


def _dead(fleet: Fleet, issued: Issued, plan: Plan, requests: int, verdict: Verdict) -> None:
    """Until it is known to be dead it costs a few; then at most one in a hundred."""
    opening = _ask(fleet, issued, plan, 20 * plan.processes, _asks("b", 1.0), verdict)
    time.sleep(2 * LEARNS)
    seen = _ask(fleet, issued, plan, requests, _asks("b", 1.0), verdict)
    first, then = _reached(fleet, opening), _reached(fleet, seen)
    verdict.facts.append(f"dead: {first} of the first {len(opening)} found out, then {then} of {len(seen)}")
    most = OPENS * plan.processes + plan.streams  # those that had been sent by then
    verdict.check(first <= most, f"{first} requests found out that a route is dead")
    verdict.check(then <= DEAD * len(seen), f"a dead route cost {then} of {len(seen)} requests")


def _back(fleet: Fleet, issued: Issued, plan: Plan, verdict: Verdict) -> None:
    begun = time.monotonic()
    while time.monotonic() < begun + 2 * WINDOW:
        seen = _ask(fleet, issued, plan, plan.streams * 4, _asks("b"), verdict, pause=0.002)
        if _reached(fleet, seen) >= 0.9 * len(seen):
            took = time.monotonic() - begun
            verdict.facts.append(f"back {took:.0f} s after it had begun to answer again")
            verdict.check(took <= WINDOW, f"it was back after {took:.0f} s only")
            return
    verdict.problems.append(f"it is not back {2 * WINDOW:g} s after it had begun to answer again")


def _nothing_but_requests(fleet: Fleet, verdict: Verdict) -> None:
    """Whoever looks whether a route is back costs nothing: every charge is that of a client's request."""
    until_landed(fleet, verdict)
    rows = {row.request_id for row in fleet.books.rows() if row.marker.startswith("exact-")}
    (entries,) = fleet.books.select("SELECT request_id, amount FROM accounts_ledgerentry WHERE kind = 'charge'")
    others = [entry for entry in entries if entry["request_id"] not in rows]
    verdict.check(not others, f"charges of nobody's request: {others[:3]}")
    (strangers,) = fleet.books.select("SELECT count(*) AS n FROM proxy_usagerecord WHERE client NOT LIKE 'exact-%'")
    verdict.check(not strangers[0]["n"], f"{strangers[0]['n']} rows of nobody's request")
    verdict.facts.append(f"{len(entries)} charges, each of a client's request")


SCENARIO = {
    "redis": Variant(Plan(processes=2, streams=10), failing),
    "alone": Variant(Plan(processes=1, streams=10, database="sqlite", redis=False), failing),
}
