"""One process's counters: exact to the moment, nothing left behind, nothing remembered for ever.

`test_same_answers` holds both stores to the same answers.
"""

import asyncio
import itertools
import math
from collections.abc import Coroutine
from typing import Any

import pytest

from accounts.credits import Fund
from accounts.keys import Limit
from proxy.counters.base import HOLD_SECONDS, Grant, Left, LimitReached, NotAffordable, UnknownFunds, Wish
from proxy.counters.memory import FORGET_SECONDS, Memory

RPS, RPM, TPM = Limit("key:7", "rps", 3), Limit("key:7", "rpm", 3), Limit("key:7", "tpm", 100)
PLACES = Limit("key:7", "concurrency", 2)
NUMBERS = itertools.count()
MINE, BUDGET = Fund("a3", 0), Fund("k7:total", 50)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Memory:
    found = Memory(clock)
    found.learn({"a3": (1, 100), "k7:total": (1, 0)})
    return found


def run(asked: Coroutine[Any, Any, Grant]) -> Grant:
    """These coroutines wait for nothing."""
    with pytest.raises(StopIteration) as ended:
        asked.send(None)
    grant: Grant = ended.value.value
    return grant


def admit(memory: Memory, name: str, *limits: Limit, funds: tuple[Fund, ...] = (), **more: int) -> Grant:
    return run(memory.admit(Wish(name, limits, funds=funds, **more)))


def admitted(memory: Memory, times: int, *limits: Limit, **more: Any) -> int:
    count = 0
    for _ in range(times):
        try:
            admit(memory, f"n{next(NUMBERS)}", *limits, **more)
        except (LimitReached, NotAffordable):
            continue
        count += 1
    return count


def test_it_works(memory: Memory) -> None:
    wish = Wish("a", (PLACES, RPS, RPM, TPM), 40, (MINE, BUDGET), 30, 1)
    assert run(memory.admit(wish)) == Grant(30, 20, Left(3, 2, 60), Left(100, 60, 60))
    memory.settle("a", 10, 20)
    assert admit(memory, "b", TPM, funds=(MINE,), amount=1000, least=1).held == 90
    assert run(memory.left((RPM, TPM))) == Grant(0, 0, Left(3, 2, 60), Left(100, 80, 60))


def test_what_a_long_request_used_counts_when_it_has_ended(memory: Memory, clock: Clock) -> None:
    """Nobody else has asked for so long that its limit could be forgotten."""
    admit(memory, "long", TPM, tokens=1)
    clock.now += 100
    memory.renew()
    memory.settle("long", None, 30)
    assert run(memory.left((TPM,))).tokens == Left(100, 71, 60), "what it had been estimated at has left the window"


@pytest.mark.parametrize(("limit", "seconds"), [(RPS, 1.0), (RPM, 60.0)])
def test_a_window(memory: Memory, clock: Clock, limit: Limit, seconds: float) -> None:
    assert admitted(memory, 10, limit) == 3
    clock.now += seconds * 0.99
    assert admitted(memory, 10, limit) == 0
    clock.now += seconds * 0.02
    assert admitted(memory, 10, limit) == 3, "what was refused used nothing up"


def test_no_window_of_a_second_holds_more(memory: Memory, clock: Clock) -> None:
    """Not at the border of two seconds either."""
    passed = []
    for _ in range(400):
        clock.now += 0.01
        passed += [clock.now] * admitted(memory, 1, RPS)
    assert max(sum(1 for other in passed if start <= other < start + 1) for start in passed) == 3
    assert len(passed) == 12


def test_a_refusal_says_which_limit_and_how_long(memory: Memory, clock: Clock) -> None:
    admitted(memory, 3, RPM)
    clock.now += 10
    with pytest.raises(LimitReached) as caught:
        admit(memory, "x", PLACES, RPM)
    assert (caught.value.limit, caught.value.wait, caught.value.left) == (RPM, 50, Left(3, 0, 50))


def test_a_limit_that_was_lowered(memory: Memory) -> None:
    assert admitted(memory, 3, RPM) == 3
    with pytest.raises(LimitReached) as caught:
        admit(memory, "x", RPM._replace(value=1))
    assert caught.value.wait == 60


def test_tokens_wait_until_enough_are_free(memory: Memory, clock: Clock) -> None:
    for _ in range(3):
        admitted(memory, 1, TPM, tokens=30)
        clock.now += 10
    with pytest.raises(LimitReached) as caught:
        admit(memory, "x", TPM, tokens=50)
    assert (caught.value.wait, caught.value.left) == (40, Left(100, 10, 50)), "two of the three must have gone"


def test_more_tokens_than_the_limit_never_pass(memory: Memory) -> None:
    with pytest.raises(LimitReached) as caught:
        admit(memory, "x", TPM, tokens=101)
    assert caught.value.wait == math.inf


def test_tokens_are_corrected(memory: Memory, clock: Clock) -> None:
    admit(memory, "little", TPM, tokens=80)
    memory.settle("little", None, 10)
    admit(memory, "as estimated", TPM, tokens=20)
    memory.settle("as estimated", None, None)
    admit(memory, "much", TPM, tokens=20)
    clock.now += 59
    memory.settle("much", None, 300)
    assert run(memory.left((TPM,))).tokens == Left(100, 0, 60), "a debt, from the moment when it was known"
    clock.now += 59
    with pytest.raises(LimitReached) as caught:
        admit(memory, "x", TPM, tokens=1)
    assert caught.value.wait == 1


def test_places_are_given_back_once(memory: Memory) -> None:
    assert (admitted(memory, 1, PLACES), admitted(memory, 1, PLACES)) == (1, 1)
    with pytest.raises(LimitReached) as caught:
        admit(memory, "x", PLACES)
    assert (caught.value.wait, caught.value.left) == (1, None)
    first, _ = memory._requests
    for _ in range(2):
        memory.settle(first, None, None)
    assert admitted(memory, 5, PLACES) == 1


def test_nothing_is_counted_of_a_refused_request(memory: Memory) -> None:
    limits = (PLACES, RPS, RPM, TPM)
    before = run(memory.left(limits))
    for wish in (
        Wish("x", (*limits, Limit("model:m", "tpm", 1)), 5, (MINE,), 10, 1),
        Wish("x", limits, 5, (MINE, BUDGET), 60, 60),
        Wish("x", limits, 5, (MINE, Fund("a4", 0)), 10, 1),
    ):
        with pytest.raises((LimitReached, NotAffordable, UnknownFunds)):
            run(memory.admit(wish))
    assert run(memory.left(limits)) == before
    assert admit(memory, "y", funds=(MINE,), amount=100, least=100).held == 100
    assert set(memory._requests) == {"y"}


def test_credit_is_held_as_far_as_it_goes(memory: Memory) -> None:
    assert admit(memory, "a", funds=(MINE,), amount=70, least=70) == Grant(70, 30)
    assert admit(memory, "b", funds=(MINE,), amount=70, least=20) == Grant(30, 0)
    with pytest.raises(NotAffordable) as caught:
        admit(memory, "c", funds=(MINE,), amount=70, least=1)
    assert (caught.value.fund, caught.value.available, caught.value.held) == (MINE, 0, 100)
    assert admit(memory, "free", funds=(MINE,)) == Grant(0, 0), "what costs nothing is never blocked"


def test_the_first_fund_that_has_not_enough_is_named(memory: Memory) -> None:
    with pytest.raises(NotAffordable) as caught:
        admit(memory, "a", funds=(MINE, BUDGET, Fund("k7:total", 0)), amount=60, least=60)
    assert caught.value.fund == BUDGET
    with pytest.raises(UnknownFunds) as unknown:
        admit(memory, "a", funds=(MINE, Fund("a4", 0), Fund("a5", 0)))
    assert unknown.value.names == ["a4", "a5"]


def test_a_hold_grows_and_shrinks(memory: Memory) -> None:
    admit(memory, "a", funds=(MINE,), amount=20, least=20)
    admit(memory, "b", funds=(MINE,), amount=50, least=50)
    assert run(memory.adjust(Wish("a", funds=(MINE,), amount=40, least=40))) == Grant(40, 10)
    with pytest.raises(NotAffordable) as caught:
        run(memory.adjust(Wish("a", funds=(MINE,), amount=60, least=51)))
    assert (caught.value.available, caught.value.held) == (50, 50)
    assert run(memory.adjust(Wish("a", funds=(MINE,), amount=10, least=10))) == Grant(10, 40)


def test_a_hold_that_nobody_took_before_is_taken(memory: Memory) -> None:
    """A free model failed; its fallback costs."""
    admit(memory, "a", PLACES)
    assert run(memory.adjust(Wish("a", (RPM,), 0, (MINE,), 60, 1))).held == 60
    assert run(memory.adjust(Wish("b", (), 0, (MINE,), 60, 1))).held == 40
    memory.settle("a", 50, None)
    memory.settle("b", None, None)
    assert admit(memory, "c", PLACES, funds=(MINE,), amount=100, least=1).held == 50


def test_a_settled_hold_stays_until_it_has_landed(memory: Memory, clock: Clock) -> None:
    admit(memory, "a", funds=(MINE,), amount=70, least=70)
    memory.settle("a", 60, None)
    memory.settle("a", 5, None)
    assert run(memory.adjust(Wish("a", funds=(MINE,), amount=1, least=1))) == Grant(60), "it came too late"
    clock.now += 10 * HOLD_SECONDS
    assert admit(memory, "b", funds=(MINE,), amount=100, least=1).held == 40
    memory.landed(["a"], {"a3": (2, 40)})
    memory.landed(["a"], {"a3": (1, 100)})
    assert run(memory.adjust(Wish("b", funds=(MINE,), amount=100, least=1))) == Grant(40, 0)


def test_a_charge_may_land_before_the_request_is_settled(memory: Memory) -> None:
    admit(memory, "a", PLACES, funds=(MINE,), amount=70, least=70)
    memory.landed(["a"], {"a3": (2, 30)})
    memory.settle("a", 70, None)
    assert admitted(memory, 5, PLACES) == 2
    assert admit(memory, "b", funds=(MINE,), amount=100, least=1) == Grant(30, 0)


def test_the_later_word_of_the_ledger_holds(memory: Memory) -> None:
    memory.landed([], {"a9": (5, 7)})
    for older in (3, 4):
        memory.learn({"a9": (older, 1000)})
        with pytest.raises(UnknownFunds):
            admit(memory, "a", funds=(Fund("a9", 1),))
    memory.learn({"a9": (5, 7)})
    memory.learn({"a9": (4, 1000)})
    assert admit(memory, "a", funds=(Fund("a9", 1),), amount=100) == Grant(8, 0)


def test_what_a_dead_process_owes(memory: Memory, clock: Clock) -> None:
    for _ in range(2):
        memory.held("dead", 30, ["a3", "a8"])
    clock.now += 10 * HOLD_SECONDS
    assert admit(memory, "a", funds=(MINE,), amount=100).held == 70
    with pytest.raises(UnknownFunds):
        admit(memory, "b", funds=(Fund("a8", 0),))
    memory.learn({"a8": (1, 100)})
    assert admit(memory, "b", funds=(Fund("a8", 0),), amount=100).held == 70
    memory.landed(["dead"], {})
    assert run(memory.adjust(Wish("b", funds=(Fund("a8", 0),), amount=100))).held == 100


def test_a_process_that_stood_still_keeps_what_it_holds(memory: Memory, clock: Clock) -> None:
    """Stopped by a signal or with its machine: its requests go on afterwards, and will be charged."""
    admit(memory, "a", PLACES, funds=(MINE,), amount=100, least=100)
    clock.now += 10 * HOLD_SECONDS
    with pytest.raises(NotAffordable):
        admit(memory, "b", funds=(MINE,), amount=100, least=100)
    assert admitted(memory, 5, PLACES) == 1, "of two"
    memory.settle("a", 50, None)
    assert admit(memory, "c", funds=(MINE,), amount=50, least=50).held == 50


def test_a_request_that_was_refused_elsewhere_is_withdrawn(memory: Memory) -> None:
    limits = (PLACES, RPS, RPM, TPM)
    admit(memory, "a", *limits, tokens=10)
    memory.withdraw("a")
    assert run(memory.left(limits)) == Grant(requests=Left(3, 3, 0), tokens=Left(100, 100, 0))
    assert not memory._requests
    admit(memory, "a", *limits, tokens=10)
    run(memory.adjust(Wish("a", (PLACES, Limit("model:m", "concurrency", 1), TPM), 20)))
    memory.withdraw("a")
    assert run(memory.left(limits)).tokens == Left(100, 90, 60), "its admission stands"
    assert admitted(memory, 5, PLACES) == 1
    assert admitted(memory, 5, Limit("model:m", "concurrency", 1)) == 1


async def test_a_thousand_at_once(clock: Clock) -> None:
    memory = Memory(clock)
    limit = RPM._replace(value=40)
    wishes = [Wish(str(number), (limit,)) for number in range(1000)]
    answers = await asyncio.gather(*map(memory.admit, wishes), return_exceptions=True)
    assert sum(isinstance(answer, Grant) for answer in answers) == 40


def test_keys_come_and_go(memory: Memory, clock: Clock) -> None:
    for number in range(10_000):
        limits = (RPM._replace(subject=f"key:{number}"), PLACES._replace(subject=f"key:{number}"))
        fund = Fund(f"k{number}:day:2026-11-20", 10)
        memory.learn({fund.name: (1, 0)})
        run(memory.admit(Wish("r", limits, 0, (fund,), 5, 5)))
        memory.settle("r", 5, None)
        memory.landed(["r"], {fund.name: (2, -5)})
    clock.now += 61
    memory.renew()
    assert (len(memory._gauges), len(memory._requests)) == (0, 0)
    clock.now += FORGET_SECONDS
    memory.renew()
    assert not memory._funds
