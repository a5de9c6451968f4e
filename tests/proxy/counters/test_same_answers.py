"""The law of the stores: whatever happens, `Shared` and `Memory` give the same answers."""

import asyncio
import math
from typing import Any

import hypothesis
import redis as client
from hypothesis import strategies as st

from accounts.credits import Fund
from accounts.keys import Limit
from proxy.counters.base import Wish
from proxy.counters.memory import WINDOWS, Memory
from proxy.counters.shared import Shared
from tests.proxy.counters.stores import BUDGET, LIMITS, MINE, START, Clock, holds, outcome, processes, settled

IDS = st.integers(0, 7)
FUNDS = st.sampled_from([[], [MINE], [BUDGET], [MINE, BUDGET], [Fund("a4", 9)], [Fund("a4", 9), MINE]])
ASKED = st.tuples(
    *(st.sets(st.sampled_from([*LIMITS, Limit("account:3", "tpm", 60), Limit("account:3", "rpm", 2)])), FUNDS),
    *(st.integers(0, 70), st.integers(0, 60), st.integers(0, 20)),
)
AMOUNTS = st.dictionaries(st.sampled_from(["a3", "a4", "k7:total"]), st.tuples(st.integers(0, 5), st.integers(-20, 99)))
# Such steps that no age lies between a window's end and that of its last bucket: there the two differ by design.
STEPS = st.tuples(st.just("step"), st.sampled_from([0.3, 7, 100]))
OPERATIONS = st.one_of(
    st.tuples(st.just("admit"), ASKED),
    st.tuples(st.just("admit"), ASKED),
    st.tuples(st.just("adjust"), IDS, ASKED),
    st.tuples(st.just("settle"), IDS, st.none() | st.integers(0, 30), st.none() | st.integers(0, 150)),
    st.tuples(st.just("landed"), st.lists(IDS, max_size=3), AMOUNTS),
    st.tuples(st.just("held"), st.integers(0, 30), st.sampled_from([[MINE], [MINE, BUDGET]])),
    st.tuples(st.just("left")),
    STEPS,
)


class Both:
    """Memory, and two processes with Redis, of which a request has one."""

    def __init__(self, memory: Memory, stores: list[Shared], clock: Clock) -> None:
        self.memory, self.stores, self.clock = memory, stores, clock
        self.funds: list[tuple[Fund, ...]] = []

    def store(self, number: int) -> Shared:
        return self.stores[number % 2]

    async def same(self, store: Shared, name: str, *arguments: Any) -> None:
        ours = await outcome(getattr(self.memory, name)(*arguments))
        theirs = await outcome(getattr(store, name)(*arguments))
        assert theirs[:2] == ours[:2]
        if ours[2] not in {0, math.inf}:
            assert 0 <= theirs[2] - ours[2] + 1e-5 <= WINDOWS.get(ours[1], 0) / 60 + 1e-3

    def wish(self, number: int, asked: Any) -> Wish:
        limits, _, tokens, amount, least = asked
        in_order = tuple(sorted(limits))
        return Wish(f"r{number}", in_order, tokens, self.funds[number], max(amount, least), least)

    async def do(self, operation: str, *words: Any) -> None:
        await getattr(self, operation)(*words)

    async def admit(self, asked: Any) -> None:
        self.funds.append(tuple(asked[1]))
        number = len(self.funds) - 1
        await self.same(self.store(number), "admit", self.wish(number, asked))

    async def adjust(self, number: int, asked: Any) -> None:
        if number < len(self.funds):
            await self.same(self.store(number), "adjust", self.wish(number, asked))

    async def settle(self, number: int, charge: int | None, tokens: int | None) -> None:
        self.memory.settle(f"r{number}", charge, tokens)
        self.store(number).settle(f"r{number}", charge, tokens)
        await settled(self.store(number))

    async def landed(self, numbers: list[int], amounts: dict[str, tuple[int, int]]) -> None:
        for number in numbers:
            for store in (self.memory, self.store(number)):
                store.landed([f"r{number}"], amounts)
        for store in (self.memory, self.stores[0]):
            store.learn(amounts)

    async def held(self, charge: int, funds: list[Fund]) -> None:
        for store in (self.memory, self.stores[1]):
            store.held("dead", charge, [fund.name for fund in funds])

    async def left(self) -> None:
        await self.same(self.stores[0], "left", LIMITS)

    async def step(self, seconds: float) -> None:
        for _ in range(2):  # all renew in time
            self.clock.set(self.clock.now + seconds / 2)
            for store in (self.memory, *self.stores):
                store.renew()


@hypothesis.settings(max_examples=100, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(operations=st.lists(OPERATIONS, min_size=6, max_size=20))
def test_the_same_answers_as_in_memory(
    url: str, database: "client.Redis[bytes]", clock: Clock, operations: list[tuple[Any, ...]]
) -> None:
    async def compare() -> None:
        async with processes(url, 2) as stores:
            memory = Memory(clock)
            memory.learn({"a3": (1, 100), "k7:total": (1, 0)})
            both = Both(memory, stores, clock)
            for operation in operations:
                await both.do(*operation)
            expected = {name: r.amount for name, r in memory._requests.items() if r.funds}
            assert holds(database) == expected

    database.flushdb()
    clock.set(START)
    asyncio.run(compare())
