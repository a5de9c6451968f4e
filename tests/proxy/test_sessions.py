"""Where a conversation is at home: remembered for ten minutes, in all processes alike while there is Redis."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import redis as client

from proxy import sessions
from proxy.sessions import Sessions
from tests.processes import HOST, free_port
from tests.proxy.inside import provider
from tests.services import Redis

FIRST, SECOND = provider(id=1, credential=0), provider(id=1, credential=5)
AT_FIRST, AT_SECOND = (1, 0), (1, 5)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """One that a test may stop."""
    server = Redis(tmp_path).start()
    yield server
    server.stop()


@asynccontextmanager
async def processes(url: str, clock: Clock, count: int = 2) -> AsyncIterator[list[Sessions]]:
    found = [Sessions(url, clock) for _ in range(count)]
    try:
        yield found
    finally:
        for each in found:
            each.close()
        await asyncio.sleep(0.01)  # the loop closes what it has been told to


async def told(process: Sessions, url: str, home: bytes) -> None:
    """What it has said of the conversation `a` has come to Redis: on one connection, nothing overtakes."""
    await process.home("whatever")
    with client.Redis.from_url(url) as redis:
        assert redis.get("kodna:session:a") == home


# --- in memory -------------------------------------------------------------------------------------------------------


async def test_it_works(clock: Clock) -> None:
    found = Sessions(clock=clock)
    assert await found.home("a") is None
    found.keep("a", FIRST)
    found.keep("b", SECOND)
    assert (await found.home("a"), await found.home("b")) == (AT_FIRST, AT_SECOND)
    found.keep("a", SECOND)
    assert await found.home("a") == AT_SECOND


async def test_no_name() -> None:
    found = Sessions()
    found.keep("", FIRST)
    assert await found.home("") is None


async def test_ten_minutes_after_the_last_answer(clock: Clock) -> None:
    found = Sessions(clock=clock)
    found.keep("a", FIRST)
    clock.now += 599
    assert await found.home("a") == AT_FIRST
    clock.now += 2
    assert await found.home("a") is None
    found.keep("a", FIRST)
    clock.now += 599
    found.keep("a", FIRST)
    clock.now += 599
    assert await found.home("a") == AT_FIRST


async def test_the_least_recent_goes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST", 3)
    found = Sessions(clock=clock)
    for name in "abcad":
        found.keep(name, FIRST)
    assert [name for name in "abcd" if await found.home(name)] == ["a", "c", "d"]
    clock.now += 601
    found.keep("e", FIRST)
    assert len(found._places) == 1, "nothing is kept for longer than it lasts"


# --- in Redis --------------------------------------------------------------------------------------------------------


async def test_another_process_knows(redis_url: str, clock: Clock) -> None:
    async with processes(redis_url, clock) as (one, other):
        assert (await one.home("a"), await other.home("a")) == (None, None)
        one.keep("a", SECOND)
        assert await one.home("a") == AT_SECOND
        await told(one, redis_url, b"1.5")
        assert await other.home("a") == AT_SECOND
        other.keep("a", FIRST)
        await told(other, redis_url, b"1.0")
        clock.now += 3  # what was told so recently is not asked for
        assert await one.home("a") == AT_FIRST
    async with processes(redis_url, clock, 1) as (later,):
        assert await later.home("a") == AT_FIRST


async def test_it_lives_in_redis_for_ten_minutes_at_least(redis_url: str, clock: Clock) -> None:
    async with processes(redis_url, clock, 1) as (one,):
        await one.home("a")
        one.keep("a", FIRST)
        await told(one, redis_url, b"1.0")
        with client.Redis.from_url(redis_url) as redis:
            assert 600 < redis.ttl("kodna:session:a") <= 660
            redis.expire("kodna:session:a", 30)
            clock.now += 59
            one.keep("a", FIRST)
            await told(one, redis_url, b"1.0")
            assert redis.ttl("kodna:session:a") <= 30, "not for every answer"
            clock.now += 2
            one.keep("a", FIRST)
            await told(one, redis_url, b"1.0")
            assert redis.ttl("kodna:session:a") > 600


async def test_redis_has_lost_it(redis_url: str, clock: Clock) -> None:
    async with processes(redis_url, clock, 1) as (one,):
        await one.home("a")
        one.keep("a", FIRST)
        await told(one, redis_url, b"1.0")
        with client.Redis.from_url(redis_url) as redis:
            redis.flushdb()
        clock.now += 3
        assert await one.home("a") == AT_FIRST
        one.keep("a", FIRST)
        await told(one, redis_url, b"1.0")


@pytest.mark.parametrize("value", [b"", b"x", b"1", b"1.", b"1.2.3", b"-1.2", b"9" * 5000 + b".1", b"\xff"])
async def test_what_is_not_ours(redis_url: str, clock: Clock, value: bytes) -> None:
    with client.Redis.from_url(redis_url) as redis:
        redis.set("kodna:session:a", value)
    async with processes(redis_url, clock, 1) as (one,):
        assert await one.home("a") is None


async def test_two_requests_of_a_conversation_at_once(redis_url: str, clock: Clock) -> None:
    """What an answer has told meanwhile is newer than what Redis says."""
    async with processes(redis_url, clock, 1) as (one,):
        await one.home("a")
        one.keep("a", FIRST)
        await told(one, redis_url, b"1.0")
        clock.now += 3
        asking = asyncio.create_task(one.home("a"))
        await asyncio.sleep(0)
        clock.now += 0.01
        one.keep("a", SECOND)
        assert await asking == AT_SECOND
        await told(one, redis_url, b"1.5")


# --- Redis away ------------------------------------------------------------------------------------------------------


async def test_redis_stopped_in_the_middle(own_redis: Redis, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with processes(own_redis.url, clock) as (one, other):
        await one.home("a")
        one.keep("a", FIRST)
        await told(one, own_redis.url, b"1.0")
        assert await other.home("a") == AT_FIRST
        own_redis.stop()
        for _ in range(20):
            clock.now += 3
            assert (await one.home("a"), await other.home("b")) == (AT_FIRST, None)
            one.keep("a", FIRST)
        other.keep("b", SECOND)
        assert await other.home("b") == AT_SECOND
        assert [record.getMessage()[:52] for record in caplog.records] == [
            "conversations find their way in this process only: R"
        ] * 2, "one line of each process"


async def test_redis_comes_back(own_redis: Redis, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    own_redis.stop()
    again = Redis(own_redis._folder)
    async with processes(own_redis.url, clock) as (one, other):
        one.keep("a", FIRST)
        assert await one.home("a") == AT_FIRST
        again.port = own_redis.port
        again.start()
        try:
            clock.now += 2
            assert await one.home("a") == AT_FIRST
            one.keep("a", FIRST)
            await told(one, own_redis.url, b"1.0")
            assert await other.home("a") == AT_FIRST
        finally:
            again.stop()
    assert "again" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 2


async def test_nobody_listens(clock: Clock) -> None:
    async with processes(f"redis://{HOST}:{free_port()}/0", clock, 1) as (one,):
        one.keep("a", FIRST)
        assert await one.home("a") == AT_FIRST


class Silent(asyncio.Protocol):
    """Takes connections and says nothing."""

    connections: ClassVar[list[asyncio.BaseTransport]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connections.append(transport)


async def test_a_redis_that_says_nothing(clock: Clock) -> None:
    """It delays one request a second, by 50 ms."""
    server = await asyncio.get_running_loop().create_server(Silent, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, processes(f"redis://{HOST}:{port}/0", clock, 1) as (one,):
        began = time.monotonic()
        assert await one.home("a") is None
        assert 0.04 < time.monotonic() - began < 0.4
        began = time.monotonic()
        for _ in range(100):
            assert await one.home("a") is None
        assert time.monotonic() - began < 0.04
        for connection in Silent.connections:
            connection.close()
        await asyncio.sleep(0.01)


async def test_a_redis_that_falls_silent(redis_url: str, clock: Clock) -> None:
    async with processes(redis_url, clock, 1) as (one,):
        await one.home("a")
        one.keep("a", FIRST)
        with client.Redis.from_url(redis_url) as redis:
            redis.execute_command("CLIENT", "PAUSE", 400, "ALL")
        clock.now += 3
        began = time.monotonic()
        assert await one.home("a") == AT_FIRST
        assert 0.04 < time.monotonic() - began < 0.3


@asynccontextmanager
async def pauses(url: str, clock: Clock) -> AsyncIterator[tuple[Sessions, client.Redis]]:
    """A process that has its connection, and who makes Redis pause. Before and after it, Redis answers."""
    with client.Redis.from_url(url) as redis:
        redis.ping()
        async with processes(url, clock, 1) as (one,):
            await one.home("a")
            yield one, redis
            redis.ping()


async def test_a_slow_redis_is_left_alone_for_a_second(redis_url: str, clock: Clock) -> None:
    """Else each request of a conversation would wait for it."""
    async with pauses(redis_url, clock) as (one, redis):
        redis.execute_command("CLIENT", "PAUSE", 350, "ALL")
        began = time.monotonic()
        for name in range(1000):
            assert await one.home(f"{name}") is None
        assert 0.14 < time.monotonic() - began < 0.25, "three have waited"
        clock.now += 1.1
        for name in range(1000):
            assert await one.home(f"{name}") is None
        assert 0.19 < time.monotonic() - began < 0.3, "one more: it is slow still"
        redis.set("kodna:session:a", "1.5")  # when it is over
        clock.now += 1.1
        assert await one.home("a") == AT_SECOND


async def test_single_silences_are_borne(redis_url: str, clock: Clock) -> None:
    async with pauses(redis_url, clock) as (one, redis):
        for _ in range(3):
            redis.execute_command("CLIENT", "PAUSE", 60, "ALL")
            assert await one.home("a") is None
            redis.set("kodna:session:b", "1.5")  # when it is over
            assert await one.home("b") == AT_SECOND
            one._places.clear()
