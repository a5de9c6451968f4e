"""One dollar, many streams, processes that are killed: never is more than the dollar charged, nor less than was used.

Every run gives the dollar in one of three ways, in turn: an account's credit, a key's budget, both.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import partial

from tests.exact import checks
from tests.exact.books import PICODOLLARS, usd
from tests.exact.checks import Verdict
from tests.exact.client import Ask, Seen
from tests.exact.fleet import OUTPUT, STARTERS, Fleet, House, Issued, Killer, Plan, Variant, key
from tests.exact.provider import Entry, Script
from tests.exact.settled import until_landed, until_released
from tests.exact.traffic import at_once, marker, mixed, run_load

DOLLAR = PICODOLLARS
LONG, SHORT = 400, 80  # tokens of an answer, at most
WAYS = ("credit", "budget", "both")
TOKENS_A_SECOND = 20  # that one of the clients would use
USED_AFTER = 0.25  # of the time, at that pace, the dollar is gone
LEFT_TOKENS = OUTPUT // 2
# How much less of what is left may be offered: the prompt is counted from above. Less than the smallest hold.
SLACK_TOKENS = 200


def price(plan: Plan) -> dict[str, float]:
    tokens = plan.streams * TOKENS_A_SECOND * plan.seconds * USED_AFTER
    output = round(1e6 / tokens, 3)
    return {"input": round(output / 5, 3), "cached_input": round(output / 20, 3), "output": output}


def run(house: House, plan: Plan, verdict: Verdict) -> None:
    with house.fleet(plan) as fleet:
        make = partial(mixed, SHORT if plan.quick else LONG)
        way = WAYS[plan.seed % len(WAYS)]
        (issued,) = fleet.set_up(price(plan), _key(way))
        fleet.start()
        with ExitStack() as stack:
            stack.enter_context(Killer(fleet, (6, 14) if plan.processes == 1 else (1.5, 4)))
            stack.enter_context(_watched(fleet, issued, verdict))
            if plan.redis_dies:
                stack.enter_context(redis_dies(fleet, plan.seconds))
            seen = run_load(fleet.ports, issued.text, plan.streams, plan.seconds, make, plan.seed)
        verdict.facts.append(f"{way}; {fleet.kills} kills; {len(seen)} requests")
        _judge(fleet, issued, seen, verdict)
        spend_the_rest(fleet, issued, way, plan, verdict)


def _key(way: str) -> dict[str, object]:
    if way == "budget":
        return key(budget="1.00")
    if way == "credit":
        return key(billing="prepaid", granted="1.00")
    return key(billing="prepaid", granted="5.00", budget="1.00")


def _judge(fleet: Fleet, issued: Issued, seen: list[Seen], verdict: Verdict) -> None:
    entries = until_landed(fleet, verdict)
    until_released(fleet, verdict)
    books = fleet.books
    rows = books.rows()
    spent = checks.cap(books, issued.account_id, issued.key_id, DOLLAR, verdict)
    checks.ledger(books, verdict)
    checks.prices(rows, verdict)
    checks.audit(fleet.operator, verdict)
    tally = checks.compare(rows, entries, seen, verdict)
    enough = DOLLAR * 9 // 10 if not fleet.plan.quick else DOLLAR // 10
    wanting = tally.bounded + tally.codes["402 insufficient_credits"]
    verdict.check(spent > enough, f"only {usd(spent)} USD were spent: the run proves nothing")
    verdict.check(wanting > 0, "there was credit for everything: the run proves nothing")
    short = sum(row.shortfall for row in rows)
    bill = worth(entries, price(fleet.plan))
    told = f"{usd(spent)} USD of 1.00 charged, {usd(bill)} by the provider's own count"
    verdict.facts += [f"{told}; by the rows {usd(short)} were used and charged to nobody", str(tally)]


def worth(entries: list[Entry], figures: dict[str, float]) -> int:
    """What the provider's own tokens cost, in picodollars: also those of processes that died before they had them."""
    of = {name: int(Decimal(str(figure)) * 10**6) for name, figure in figures.items()}
    return sum(
        (entry.prompt - entry.cached) * of["input"] + entry.cached * of["cached_input"] + entry.written * of["output"]
        for entry in entries
    )


@contextmanager
def _watched(fleet: Fleet, issued: Issued, verdict: Verdict) -> Iterator[None]:
    """Looks at the ledger all the time, not only at the end."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1):
            spent = max(fleet.books.spent(issued.account_id), fleet.books.spent_by_key(issued.key_id))
            verdict.check(spent <= DOLLAR, f"{usd(spent)} USD spent at {checks.at(time.time())}")

    thread = threading.Thread(target=watch, name="watch")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def redis_dies(fleet: Fleet, seconds: float) -> Iterator[None]:
    """Twice: away for a while after a third of the time, and gone and back again, empty, after two thirds."""
    over = threading.Event()
    redis = fleet.redis
    assert redis, "without Redis"

    def kill() -> None:
        for away in (seconds / 6, 0.0):
            if over.wait(seconds / 3 - away):
                return
            redis.kill()
            over.wait(away)
            STARTERS.submit(redis.start).result()

    thread = threading.Thread(target=kill, name="redis-killer")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def spend_the_rest(fleet: Fleet, issued: Issued, way: str, plan: Plan, verdict: Verdict) -> None:
    """No hold is in the way: what is left, made `LEFT_TOKENS` tokens, can be held by one request, to the token."""
    each = int(Decimal(str(price(plan)["output"])) * 10**6)
    _leave(fleet, issued, way, LEFT_TOKENS * each)
    deadline, offered = time.monotonic() + 10, None
    while time.monotonic() < deadline:
        what = Ask(marker(), issued.text, script=Script(tokens=0), stream=False, words=1)
        (seen,) = at_once([(fleet.ports[0], what)])
        told = [entry.most for entry in fleet.provider.account() if entry.marker == what.marker]
        offered = told[0] if told else f"{seen.status} {seen.error or seen.trouble}"
        if isinstance(offered, int) and LEFT_TOKENS - SLACK_TOKENS <= offered <= LEFT_TOKENS:
            return
        time.sleep(0.5)  # the news of the grant are on their way
    verdict.problems.append(f"of {LEFT_TOKENS} tokens that are left, a request was offered {offered}")


def _leave(fleet: Fleet, issued: Issued, way: str, rest: int) -> None:
    """Grant, or raise the budget, so that exactly `rest` picodollars are left."""
    if way == "credit":
        left = DOLLAR - fleet.books.spent(issued.account_id)
        fleet.run(_GRANT, account_id=issued.account_id, amount=usd(rest - left))
    else:
        spent = fleet.books.spent_by_key(issued.key_id)
        fleet.run(_BUDGET, key_id=issued.key_id, budget=usd(spent + rest))


_BUDGET = """
from decimal import Decimal
from functools import partial
from accounts.models import ApiKey
key = ApiKey.objects.get(pk=key_id)
key.budget = Decimal(budget)
key.save(update_fields=["budget"])
"""
_GRANT = """
from decimal import Decimal
from functools import partial
from accounts import credits
from accounts.models import Account
credits.grant(Account.objects.get(pk=account_id), Decimal(amount))
"""

SCENARIO = {
    "redis": Variant(Plan(), run),
    "sqlite": Variant(Plan(processes=1, database="sqlite", redis=False), run),
    "redis-killed": Variant(Plan(redis_dies=True), run),
}
