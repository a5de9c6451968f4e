"""Limits over several processes: exactly so many pass, refused requests use nothing up, no place is lost."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from threading import Timer
from typing import Any

import httpx
import openai

from tests.exact import checks
from tests.exact.books import Row
from tests.exact.checks import Verdict
from tests.exact.client import Ask
from tests.exact.fleet import Fleet, House, Issued, Plan, Variant, key
from tests.exact.provider import Entry, Script
from tests.exact.settled import until_landed
from tests.exact.traffic import Maker, at_once, marker, run_load

PRICE = {"input": 1, "output": 2}
RPM = 40
PLACES = 5
WINDOW = 60.0
LONGEST_WINDOW = 62.0  # with Redis a request may count for a sixtieth longer
ABORTS = 10_000
LEASE_SECONDS = 120  # a place of a dead process expires after 90


# --- so many a minute ------------------------------------------------------------------------------------------------


def a_minute(house: House, plan: Plan, verdict: Verdict) -> None:
    """Of many requests at the same moment exactly 40 pass: by the key's limit, by the account's, by the model's."""
    with house.fleet(plan) as fleet:
        wanted = [key("one", rpm=RPM), *[key("two", rates={"rpm": RPM})] * 2, key("three"), key("four")]
        issued = fleet.set_up(PRICE, *wanted, rpm=RPM)
        keys = {"key": issued[:1], "account": issued[1:3], "model": issued[3:]}
        fleet.start()
        for whose, issued in keys.items():
            _burst(fleet, whose, issued, plan, verdict)
        if not plan.quick:
            time.sleep(LONGEST_WINDOW)
            for whose, issued in keys.items():  # the refused ones have used nothing up
                _burst(fleet, whose, issued, plan, verdict)


def _burst(fleet: Fleet, whose: str, issued: list[Issued], plan: Plan, verdict: Verdict) -> None:
    dice = random.Random(plan.seed)
    name = "c" if whose == "model" else "m"
    asks = [
        (dice.choice(fleet.ports), Ask(marker(), dice.choice(issued).text, name, stream=False, max_tokens=8))
        for _ in range(plan.streams)
    ]
    begun = time.monotonic()
    seen = at_once(asks)
    took = time.monotonic() - begun
    counts = Counter((one.status, one.code if one.status != 200 else "") for one in seen)
    expected = {(200, ""): RPM, (429, "rate_limit_exceeded"): plan.streams - RPM}
    verdict.check(dict(counts) == expected, f"{whose}: {dict(counts)}, not {expected}")
    verdict.check(took < WINDOW, f"{whose}: the requests took {took:.0f} s: the run proves nothing")
    refused = [one for one in seen if one.status == 429]
    for one in refused:
        message, wait = one.error["message"], float(one.headers.get("retry-after-ms", 0)) / 1000
        if whose not in message or str(RPM) not in message or not 0 < wait <= LONGEST_WINDOW:
            verdict.problems.append(f"{whose}: {message!r}, retry after {wait} s")
            break
    reached = {entry.marker for entry in fleet.provider.account()} & {one.ask.marker for one in refused}
    verdict.check(not reached, f"{whose}: {len(reached)} refused requests reached the provider")
    verdict.facts.append(f"by the {whose}'s limit {counts[200, '']} of {plan.streams} passed in {took:.1f} s")


# --- tokens a minute -------------------------------------------------------------------------------------------------


def tokens(house: House, plan: Plan, verdict: Verdict) -> None:
    """In no 60 seconds do requests pass that used more than the limit, by what they did use."""
    limit = 60 * plan.streams
    with house.fleet(plan) as fleet:
        (issued,) = fleet.set_up(PRICE, key(tpm=limit))
        fleet.start()
        seen = run_load(fleet.ports, issued.text, plan.streams, plan.seconds, _bounded, plan.seed)
        entries = until_landed(fleet, verdict)
        rows = fleet.books.rows()
        verdict.facts.append(str(checks.compare(rows, entries, seen, verdict)))
        codes = {(one.status, one.code) for one in seen if one.status not in {0, 200}}
        verdict.check(codes == {(429, "rate_limit_exceeded")}, f"refused with {sorted(codes)}")
        most = most_in_a_window(rows, entries)
        verdict.check(most <= limit, f"{most} tokens in 60 s with a limit of {limit}")
        verdict.check(most > limit / 2, f"only {most} tokens in 60 s with a limit of {limit}: the run proves nothing")
        used = sum(row.prompt + row.completion for row in rows)
        verdict.facts.append(f"at most {most} tokens in 60 s, limit {limit}; {used} in all")


def _bounded(dice: random.Random, text: str) -> Ask:
    """Their bound is often far above what they say: the estimate must give back what is not used."""
    said = dice.randrange(1, 60)
    script = Script(tokens=said, pace=0.02, burst=3, usage=dice.random() > 0.1)
    bound = dice.choice([said, said + 50, said * 4])
    leave = dice.uniform(0.05, 0.5) if dice.random() < 0.1 else None
    return Ask(marker(), text, script=script, words=dice.randrange(1, 40), max_tokens=bound, leave=leave)


def most_in_a_window(rows: list[Row], entries: list[Entry], window: float = WINDOW) -> int:
    """The most tokens of requests that were all let in within a window.

    A request was let in after it had come (its row says when) and before the provider was asked (which says when): only
    where both lie in the window is it certain that the request counts there.
    """
    asked = {entry.marker: entry.begun for entry in entries}
    spans = sorted((row.created, asked[row.marker], row.prompt + row.completion) for row in rows if row.marker in asked)
    most = 0
    for place, (start, _, _) in enumerate(spans):
        inside = 0
        for come, sent, used in spans[place:]:
            if come >= start + window:
                break
            inside += used if sent < start + window else 0
        most = max(most, inside)
    return most


# --- places ----------------------------------------------------------------------------------------------------------


def places(house: House, plan: Plan, verdict: Verdict) -> None:
    """Thousands of refused, aborted and failed requests, and a process that is killed, leave no place taken."""
    with house.fleet(plan) as fleet:
        (issued,) = fleet.set_up(PRICE, key(concurrency=PLACES))
        fleet.start()
        made, most = Counter[str](), 1000 if plan.quick else ABORTS
        seen = run_load(
            fleet.ports, issued.text, plan.streams, lambda: made["asks"] >= most, _counted(made, _hopeless), plan.seed
        )
        counts = Counter("left" if one.left else f"{one.status}" for one in seen)
        verdict.facts.append(f"{len(seen)} requests: {dict(counts)}")
        for kind in ("left", "429", "400"):
            verdict.check(counts[kind] > most / 50, f"hardly any was {kind}: the run proves nothing")
        _all_places(fleet, issued, "afterwards", 5, verdict)
        if not plan.quick and plan.processes > 1:
            _places_of_the_dead(fleet, issued, verdict)


def _counted(made: Counter[str], make: Maker) -> Maker:
    def counted(dice: random.Random, text: str) -> Ask:
        made["asks"] += 1
        return make(dice, text)

    return counted


def _hopeless(dice: random.Random, text: str) -> Ask:
    found = Ask(marker(), text, script=Script(tokens=8, pace=0.02), stream=dice.random() < 0.5)
    found.leave = dice.uniform(0.01, 0.3) if dice.random() < 0.5 else None
    found.script.wait = dice.choice([0, 0, 0.2])
    kind = dice.random()
    if kind < 0.1:
        found.script.fail = {"m-there": dice.choice([400, 500])}
    elif kind < 0.2:
        found.script.cut = 5
    elif kind < 0.3:
        found.more = {"messages": "not a list"}
    elif kind < 0.4:
        found.model = "unknown"
    return found


def _all_places(fleet: Fleet, issued: Issued, when: str, seconds: float, verdict: Verdict) -> None:
    """All places can be taken, and not one more."""
    begun = time.monotonic()
    while True:
        script = Script(tokens=3, wait=1.5)
        asks = [Ask(marker(), issued.text, script=script, stream=False) for _ in range(PLACES * 2)]
        seen = at_once([(fleet.ports[place % len(fleet.ports)], what) for place, what in enumerate(asks)])
        passed = sum(one.status == 200 for one in seen)
        refused = sum((one.status, one.code) == (429, "concurrency_exceeded") for one in seen)
        if (passed, refused) == (PLACES, PLACES):
            verdict.facts.append(f"{when} all {PLACES} places are free, seen after {time.monotonic() - begun:.0f} s")
            return
        if time.monotonic() > begun + seconds or passed > PLACES:
            found = Counter(f"{one.status} {one.code}" for one in seen)
            verdict.problems.append(f"{when}: of {PLACES * 2} requests for {PLACES} places: {dict(found)}")
            return


def _places_of_the_dead(fleet: Fleet, issued: Issued, verdict: Verdict) -> None:
    """All places are taken by a process that is killed."""
    victim = fleet.gateways[0]
    asks = [(victim.port, Ask(marker(), issued.text, script=Script(tokens=2000, pace=0.1))) for _ in range(PLACES)]

    timer = Timer(2, fleet.crash, [victim])
    timer.start()
    seen = at_once(asks)
    timer.join()
    verdict.check(
        all(one.status == 200 and not one.whole for one in seen), "the process was not killed under its streams"
    )
    fleet.until_up()
    _all_places(fleet, issued, "after a kill", LEASE_SECONDS, verdict)


# --- what an SDK makes of it -----------------------------------------------------------------------------------------


def retries(house: House, plan: Plan, verdict: Verdict) -> None:
    """openai-python's own retry: one wait, as long as it was told, and it passes. A 402 it does not try again."""
    with house.fleet(plan) as fleet:
        wanted = [key(rps=2), key(rpm=RPM), key("poor", billing="prepaid", granted="0.000001")]
        a_second, a_minute, poor = fleet.set_up(PRICE, *wanted)
        fleet.start()
        _passes_at_second(fleet, a_second, 2, "a second", verdict)
        if not plan.quick:
            _passes_at_second(fleet, a_minute, RPM, "a minute", verdict)
        statuses = _statuses(fleet, poor)
        verdict.check(statuses == [402], f"without credit the SDK saw {statuses}")
        verdict.facts.append(f"without credit: {statuses}")


def _passes_at_second(fleet: Fleet, issued: Issued, limit: int, what: str, verdict: Verdict) -> None:
    """Where the limit was already reached when the SDK asks; on a slow machine it may have to be filled again."""
    for _ in range(5):
        at_once([(random.choice(fleet.ports), Ask(marker(), issued.text, stream=False)) for _ in range(limit * 2)])
        begun = time.monotonic()
        statuses = _statuses(fleet, issued)
        if statuses != [200]:
            verdict.check(statuses == [429, 200], f"requests {what}: the SDK saw {statuses}")
            verdict.facts.append(f"requests {what}: {statuses} in {time.monotonic() - begun:.1f} s")
            return
    verdict.problems.append(f"requests {what}: the limit was never reached: the run proves nothing")


def _statuses(fleet: Fleet, issued: Issued) -> list[int]:
    """What openai-python saw, with its own retries; the last is what it gave to its caller."""
    statuses: list[int] = []
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [lambda response: statuses.append(response.status_code)]}
    with httpx.Client(event_hooks=hooks, trust_env=False, timeout=90) as http:
        url = random.choice(fleet.gateways).base_url
        client = openai.OpenAI(api_key=issued.text, base_url=url, http_client=http, max_retries=4, timeout=90)
        with suppress(openai.APIStatusError):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "apple"}])
    return statuses


_ALONE = Plan(processes=1, streams=1000, database="sqlite", redis=False)
SCENARIO = {
    "requests": Variant(Plan(processes=4, streams=1000), a_minute),
    "requests-alone": Variant(_ALONE, a_minute),
    "tokens": Variant(Plan(processes=4, streams=60, seconds=150), tokens),
    "tokens-alone": Variant(Plan(processes=1, streams=60, seconds=150, database="sqlite", redis=False), tokens),
    "places": Variant(Plan(processes=4, streams=200), places),
    "places-alone": Variant(Plan(processes=1, streams=200, database="sqlite", redis=False), places),
    "retries": Variant(Plan(processes=4), retries),
}
