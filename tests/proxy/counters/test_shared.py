"""Counters in Redis: exact over several processes, and never an answer from a lost truth.

`test_same_answers` holds them to the answers of those in memory.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
import redis as client

from accounts.credits import Fund
from accounts.keys import Limit
from proxy.counters.base import (
    HOLD_SECONDS,
    EpochLost,
    Grant,
    Holding,
    Left,
    LimitReached,
    NotAffordable,
    UnknownFunds,
    Unreachable,
    Wish,
)
from proxy.counters.memory import FORGET_SECONDS
from proxy.counters.shared import Shared
from tests.processes import HOST, free_port
from tests.proxy.counters.stores import (
    BUDGET,
    LIMITS,
    MINE,
    PLACES,
    RPM,
    RPS,
    START,
    TPM,
    Clock,
    dump,
    holds,
    outcome,
    processes,
    settled,
    wish,
)

# --- several processes -----------------------------------------------------------------------------------------------


async def test_it_works(url: str, clock: Clock) -> None:
    async with processes(url, 2) as (one, other):
        grant = await one.admit(wish("a", *LIMITS, funds=(MINE, BUDGET), tokens=40, amount=30, least=1))
        assert grant == Grant(30, 20, Left(3, 2, 61), Left(100, 60, 61))
        one.settle("a", 10, 20)
        await settled(one)
        assert (await other.admit(wish("b", TPM, amount=1000, least=1))).held == 90
        assert await other.left((RPM, TPM)) == Grant(0, 0, Left(3, 2, 61), Left(100, 80, 61))


@pytest.mark.parametrize(
    ("limit", "passing"),
    [(RPM._replace(value=40), 40), (PLACES._replace(value=7), 7), (TPM, 33), (RPS._replace(value=40), 40)],
)
async def test_a_thousand_at_once(url: str, clock: Clock, limit: Limit, passing: int) -> None:
    async with processes(url, 4) as stores:
        turns = zip(range(1000), itertools.cycle(stores), strict=False)
        asked = (store.admit(wish(f"r{number}", limit, funds=(), tokens=3)) for number, store in turns)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(answer, Grant) for answer in answers) == passing
    assert sum(isinstance(answer, LimitReached) for answer in answers) == 1000 - passing


async def test_no_credit_is_held_twice(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url, 4, {"a3": 1000}) as stores:
        turns = list(zip([f"r{number}" for number in range(200)], itertools.cycle(stores), strict=False))
        answers = await asyncio.gather(
            *(store.admit(wish(name, amount=10, least=10)) for name, store in turns), return_exceptions=True
        )
        assert sum(isinstance(answer, Grant) for answer in answers) == 100
        assert sum(isinstance(answer, NotAffordable) for answer in answers) == 100
        assert sum(holds(database).values()) == 1000
        for name, store in turns:
            store.settle(name, 7, None)
        for store in stores:
            await settled(store)
        assert sum(holds(database).values()) == 700
        stores[0].landed([name for name, _ in turns], {"a3": (2, 300)})
        assert holds(database) == {}
        assert (await stores[1].admit(wish("x", amount=1000, least=1))).held == 300


async def test_nothing_is_left_of_a_refused_request(url: str, database: "client.Redis[bytes]", clock: Clock) -> None:
    async with processes(url) as (store,):
        before = dump(database)
        for refused in (
            wish("x", *LIMITS, Limit("model:m", "tpm", 1), tokens=5, amount=10, least=1),
            wish("x", *LIMITS, funds=(MINE, BUDGET), tokens=5, amount=60, least=60),
            wish("x", *LIMITS, funds=(MINE, Fund("a4", 0)), tokens=5, amount=10, least=1),
        ):
            with pytest.raises((LimitReached, NotAffordable, UnknownFunds)):
                await store.admit(refused)
        assert dump(database) == before
        store.settle("x", 5, 5)
        assert not store._leases
        assert not store._holds


async def test_a_request_that_has_ended_leaves_no_place_and_no_hold(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url) as (store,):
        for name in ("a", "b"):
            await store.admit(wish(name, PLACES, amount=10))
            for _ in range(2):
                store.settle(name, None, None)
        await settled(store)
        assert holds(database) == {}
        assert not database.exists("kodna:concurrency:key:7")
        store._renew_places([(b"kodna:concurrency:key:7", "a")])  # it was about to, when the request ended
        assert not database.exists("kodna:concurrency:key:7"), "renewing brings nothing back"


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancelled_admission_leaves_nothing(url: str, database: "client.Redis[bytes]", late: bool) -> None:
    async with processes(url) as (store,):
        await settled(store)
        task = asyncio.create_task(store.admit(wish("a", PLACES, TPM, tokens=50, amount=10)))
        await asyncio.sleep(0)
        if late:  # its answer comes in the same round of the loop as the cancellation
            done = store._wire._pending[0][0]
            store._wire._pending[0] = (lambda reply: (done(reply), task.cancel()), 0)
        else:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(2):
            await settled(store)
        assert holds(database) == {}
        assert not database.exists("kodna:concurrency:key:7")
        assert (await store.left((TPM,))).tokens[1] == 100


async def test_a_cancelled_adjustment_gives_back_what_limits_counted(url: str, database: "client.Redis[bytes]") -> None:
    other = Limit("model:m", "concurrency", 1)
    async with processes(url) as (store,):
        await store.admit(wish("a", PLACES, amount=10))
        task = asyncio.create_task(store.adjust(wish("a", PLACES, other, TPM, tokens=50, amount=60)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store.settle("a", 20, None)
        for _ in range(2):
            await settled(store)
        assert holds(database) == {"a": 20}, "the settlement wins"
        assert not database.exists("kodna:concurrency:key:7", "kodna:concurrency:model:m")
        assert (await store.left((TPM,))).tokens[1] == 100


async def test_what_is_settled_stays_so(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url) as (store,):
        await store.admit(wish("a", PLACES, amount=70, least=70))
        store.settle("a", 60, None)
        store.settle("a", 5, None)
        assert await store.adjust(wish("a", PLACES, amount=1, least=1)) == Grant(60), "it came too late"
        assert holds(database) == {"a": 60}
        assert not database.exists("kodna:concurrency:key:7")
        assert not store._holds
        store.landed(["a"], {"a3": (3, 40)})
        store.landed(["a"], {"a3": (2, 100)})
        store.learn({"a3": (3, 1000)})
        assert await store.admit(wish("b", amount=100, least=1)) == Grant(40, 0)


async def test_what_lands_makes_no_fund_known(url: str, database: "client.Redis[bytes]") -> None:
    """Another process's later word may have gone to the store that was before; the ledger is to be read anew."""
    fund = Fund("a9", 1)
    async with processes(url) as (store,):
        store.landed([], {"a9": (5, 7)})
        for older in (3, 4):
            store.learn({"a9": (older, 1000)})
            with pytest.raises(UnknownFunds):
                await store.admit(wish("a", funds=(fund,)))
        store.learn({"a9": (5, 7)})
        store.learn({"a9": (4, 1000)})
        assert await store.admit(wish("a", funds=(fund,), amount=100)) == Grant(8, 0)


async def test_a_charge_may_land_before_the_request_is_settled(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url) as (store,):
        await store.admit(wish("a", PLACES, amount=70, least=70))
        store.landed(["a"], {"a3": (2, 30)})
        store.settle("a", 70, None)
        await settled(store)
        assert holds(database) == {}
        assert not database.exists("kodna:concurrency:key:7")


async def test_tokens_are_corrected(url: str, clock: Clock) -> None:
    async with processes(url) as (store,):
        for name, estimate, truth in (("little", 80, 10), ("as estimated", 20, None), ("much", 20, 300)):
            await store.admit(wish(name, TPM, tokens=estimate))
            clock.set(clock.now + 29.5)
            store.settle(name, None, truth)
        assert (await store.left((TPM,))).tokens == Left(100, 0, 60.5), "a debt, from the moment when it was known"
        with pytest.raises(LimitReached) as caught:
            await store.admit(wish("x", TPM, tokens=1))
        assert caught.value.wait == 60.5
        with pytest.raises(LimitReached) as caught:
            await store.admit(wish("x", TPM, tokens=101))
        assert caught.value.wait == math.inf


async def test_tokens_that_have_left_the_window_are_not_given_back(url: str, clock: Clock) -> None:
    async with processes(url) as (store,):
        await store.admit(wish("old", TPM, tokens=90))
        clock.set(START + 70)
        await store.admit(wish("new", TPM, tokens=90))
        store.settle("old", None, 0)
        assert (await store.left((TPM,))).tokens == Left(100, 10, 61)


async def test_amounts_are_exact(url: str, database: "client.Redis[bytes]") -> None:
    most = 9_000_000_000_000_000
    async with processes(url, 1, {"a3": most - 1, "a5": 1_000_000_000_000_000}) as (store,):
        assert await store.admit(wish("a", amount=1, least=1)) == Grant(1, most - 2)
        assert (await store.adjust(wish("a", amount=most, least=1))).held == most - 1
        assert (await store.admit(wish("b", funds=(Fund("a5", 0),), amount=most))).held == 1_000_000_000_000_000
        assert holds(database) == {"a": most - 1, "b": 1_000_000_000_000_000}
        store.landed(["a"], {"a3": (2_000_000_000_000_000, -most)})
        with pytest.raises(NotAffordable) as caught:
            await store.admit(wish("c", least=1))
        assert caught.value.available == -most


# --- time ------------------------------------------------------------------------------------------------------------


async def test_no_window_holds_more(url: str, clock: Clock) -> None:
    """Not at the border of two seconds, or of two buckets, either; and it is full again a bucket later."""
    async with processes(url) as (store,):
        passed = []
        for number in range(250):
            clock.set(START + number * 0.013)
            _, kind, pause = await outcome(store.admit(wish(f"r{number}", RPS, funds=())))
            assert 0 <= pause <= 1.017
            passed += [] if kind else [clock.now]
    assert max(sum(1 for other in passed if start <= other < start + 1) for start in passed) == 3
    assert len(passed) == 12


async def test_the_wait_is_long_enough_and_no_longer(url: str, clock: Clock) -> None:
    async with processes(url) as (store,):
        for number, moment in enumerate((0, 10.5, 20)):
            clock.set(START + moment)
            await store.admit(wish(f"r{number}", TPM, funds=(), tokens=30))
        with pytest.raises(LimitReached) as caught:
            await store.admit(wish("x", TPM, funds=(), tokens=60))
        assert caught.value.wait == 51
        assert caught.value.left == Left(100, 10, 61)
        for early, refused in ((0.001, True), (0, False)):
            clock.set(START + 20 + caught.value.wait - early)
            answer = await outcome(store.admit(wish(f"x{early}", TPM, funds=(), tokens=60)))
            assert (answer[0][0] == "limit") is refused


async def test_a_clock_that_was_set_back_locks_nobody_out(url: str, clock: Clock) -> None:
    async with processes(url) as (store,):
        for moment in (START, START - 10, START - 3600):
            clock.set(moment)
            assert (await store.admit(wish(f"r{moment}", RPM, funds=()))).requests.reset <= 72
        assert (await store.left((RPM,))).requests == Left(3, 2, 61)


async def test_windows_go_by_themselves(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url) as (store,):
        await store.admit(wish("a", *LIMITS))
        lives = {kind: database.pttl(f"kodna:{kind}:key:7") for kind in ("rps", "rpm", "tpm", "concurrency")}
    assert 0 < lives["rps"] <= 1034
    assert 60_000 < lives["rpm"] <= 62_000
    assert 60_000 < lives["tpm"] <= 62_000
    assert HOLD_SECONDS * 1000 < lives["concurrency"] <= HOLD_SECONDS * 2000


async def test_what_a_dead_process_held_expires(url: str, database: "client.Redis[bytes]", clock: Clock) -> None:
    async with processes(url, 2) as (dead, alive):
        await dead.admit(wish("a", PLACES, amount=60))
        await dead.admit(wish("settled", amount=30))
        dead.settle("settled", 20, None)
        await settled(dead)
        await alive.admit(wish("b", PLACES, amount=10))
        for seconds in (60, 120):
            clock.set(START + seconds)
            database.delete("kodna:reaper")  # it lasts for seconds of a clock that is not ours
            alive.renew()
        assert holds(database) == {"settled": 20, "b": 10}
        assert (await alive.admit(wish("c", PLACES))).held == 0
        with pytest.raises(LimitReached):
            await alive.admit(wish("d", PLACES))


async def test_funds_that_nobody_asks_for_are_forgotten(
    url: str, database: "client.Redis[bytes]", clock: Clock
) -> None:
    async with processes(url, 1, {f"a{number}": 10 for number in range(1000)}) as (store,):
        await store.admit(wish("a", amount=1))
        clock.set(START + FORGET_SECONDS + 1)
        store.renew()
        assert set(database.hkeys("kodna:funds")) == {b"epoch", b"f:a3", b"h:a"}


async def test_a_hold_that_expired_under_us_is_told(url: str, clock: Clock) -> None:
    async with processes(url, 2) as (paused, other):
        await paused.admit(wish("a", amount=60))
        clock.set(START + HOLD_SECONDS)
        other.renew()
        assert paused.breaks == 0
        paused.renew()
        assert paused.breaks == 1


# --- the epoch -------------------------------------------------------------------------------------------------------


def uses_of_credit(store: Shared) -> list[Callable[[], Any]]:
    return [
        lambda: store.register({}),
        lambda: store.register({"b": Holding(("a3",), 5, False)}),
        lambda: store.held("b", 5, ["a3"]),
        lambda: store.landed(["a"], {"a3": (2, 50)}),
        lambda: store.learn({"a3": (2, 50)}),
        store.renew,
    ]


@pytest.mark.parametrize("loss", ["emptied", "another run", "moved on", "never begun"])
async def test_a_truth_that_is_lost_is_not_used(url: str, database: "client.Redis[bytes]", loss: str) -> None:
    async with processes(url) as (store,):
        await store.admit(wish("a", PLACES, amount=10))
        if loss == "emptied":
            database.flushdb()
        elif loss == "another run":  # it was restarted from a snapshot on disk
            database.hset("kodna:funds", "epoch", "1-0123456789abcdef")
        elif loss == "moved on":
            mover = Shared(url, 5)
            mover.begin(2)
            mover.close()
        else:
            store.epoch = 2
        before = dump(database).get(b"kodna:funds")
        with pytest.raises(EpochLost):
            await store.admit(wish("b", amount=10))
        with pytest.raises(EpochLost):
            await store.adjust(wish("a", amount=20))
        for use in uses_of_credit(store):
            with pytest.raises(EpochLost):
                use()
        store.settle("a", 5, None)
        await settled(store)
        assert dump(database).get(b"kodna:funds") == before
        assert not database.exists("kodna:concurrency:key:7"), "places are free whatever the epoch"
        assert (await store.admit(wish("b", RPM, funds=()))).requests, "limits need no epoch"


async def test_an_epoch_begins_once(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url, 2) as (mover, other):
        await other.admit(wish("a", amount=10))
        assert mover.ping() == 1
        mover.begin(5)
        assert database.hkeys("kodna:funds") == [b"epoch"]
        for late in (5, 4):
            with pytest.raises(EpochLost):
                other.begin(late)
        assert other.ping() == 5
        database.hset("kodna:funds", "epoch", "5-0123456789abcdef")
        assert other.ping() is None
        database.flushdb()
        assert other.ping() is None


async def test_holds_are_registered_as_they_are(url: str, database: "client.Redis[bytes]", clock: Clock) -> None:
    mirror = {f"r{number}": Holding(("a3", "k7:total"), 10, number % 2 == 0) for number in range(1200)}
    async with processes(url) as (store,):
        store.register(mirror)
        store.register({**mirror, "r0": None, "r1": Holding(("a3",), 7, False)})
        expected = {**dict.fromkeys(mirror, 10), "r1": 7}
        del expected["r0"]
        assert holds(database) == expected
        store.settle("r1", 3, None)
        store.settle("r3", None, None)
        store.settle("r2", 1, None)
        await settled(store)
        found = holds(database)
        assert (found["r1"], found["r2"], "r0" in found, "r3" in found) == (3, 10, False, False)
        clock.set(START + HOLD_SECONDS - 1)
        store.renew()
        clock.set(START + 2 * HOLD_SECONDS - 2)
        database.delete("kodna:reaper")
        store.renew()
        assert len(holds(database)) == 1198, "those that are not settled are renewed"


# --- trouble ---------------------------------------------------------------------------------------------------------


async def test_redis_forgets_the_scripts(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url) as (store,):
        await store.admit(wish("a", PLACES, amount=10))
        database.script_flush()
        store.settle("a", 5, None)
        await settled(store)
        assert holds(database) == {"a": 5}
        database.script_flush()
        assert (await store.admit(wish("b", amount=10))).held == 10
        store.landed(["a", "b"], {})
        assert holds(database) == {}


async def test_nobody_there() -> None:
    store = Shared(f"redis://{HOST}:{free_port()}/0", 0.5)
    for asked in (store.admit(wish("a")), store.adjust(wish("a")), store.left((RPM,))):
        with pytest.raises(Unreachable):
            await asked
    for use in (store.ping, lambda: store.begin(1), *uses_of_credit(store)[:-1]):
        with pytest.raises(Unreachable):
            use()
    store.settle("a", 1, 1)
    assert await store.admit(Wish("free")) == Grant(), "what has no limits and no funds does not ask"
    store.close()


async def broken(store: Shared) -> None:
    """The connection of the event loop breaks: what was sent on it was done, or not."""
    link = store._wire._link
    assert link
    assert link._transport
    link._transport.abort()
    await asyncio.sleep(0.01)


async def test_a_settlement_that_was_perhaps_lost_is_told_again(
    url: str, database: "client.Redis[bytes]", caplog: pytest.LogCaptureFixture
) -> None:
    places = PLACES._replace(value=9)
    async with processes(url) as (store,):
        for name in "abcd":
            await store.admit(wish(name, TPM, places, tokens=20, amount=10))
        store.settle("a", 5, 1)
        store.settle("b", None, 30)
        await broken(store)
        assert (store.breaks, len(store._kept)) == (1, 2)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        store.renew()
        assert not store._kept
        assert holds(database) == {"a": 5, "c": 10, "d": 10}
        assert {name for name, _ in database.zscan_iter("kodna:concurrency:key:7")} == {b"c", b"d"}
        left = (await store.left((TPM,))).tokens
        assert left
        assert left.remaining <= 100 - 1 - 30 - 20 - 20, "never more than there is"


async def test_a_settlement_without_a_connection_makes_one(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url) as (store,):
        await store.admit(wish("a", PLACES, amount=10))
        await broken(store)
        assert store.breaks == 0
        store.settle("a", 5, 1)
        assert store.breaks == 1
        await settled(store)
        await settled(store)
        assert holds(database) == {"a": 5}
        assert not store._kept


async def test_nothing_of_a_broken_connection_runs_later(url: str, database: "client.Redis[bytes]") -> None:
    async with processes(url) as (store,):
        await settled(store)
        (before,) = [store._wire.server]
        assert before
        store._wire.suspects |= {before, before._replace(run_id="another")}
        await asyncio.to_thread(store.drop)
        assert not store._wire.suspects
        assert before.client_id not in {int(each["id"]) for each in database.client_list()}
        await asyncio.to_thread(store.drop)
