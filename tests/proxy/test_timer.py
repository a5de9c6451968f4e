"""The one timer of a request: it ends waits that last too long, and says of silence.

The clock of these tests is the event loop's own, and jumps: they take no time, and a busy machine is no fault.
"""

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from proxy import timer as module
from proxy.timer import SOON, Timer


class Jumping(selectors.DefaultSelector):
    """Where the loop would sleep until its next timer, the time has passed already."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += (timeout or 0) + 1e-6  # each round takes a moment
        return super().select(0)


class Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def in_no_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        async def main() -> None:
            await test(**fixtures)

        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(main())

    return run


def clock() -> float:
    return asyncio.get_running_loop().time()


async def waited(timer: Timer, seconds: float = 2) -> float:
    """Wait for nothing, until the timer ends it; how long that took."""
    started = clock()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(seconds)
    assert timer.spent()
    return clock() - started


def is_cancelled() -> bool:
    task = asyncio.current_task()
    assert task
    return bool(task.cancelling())


@in_no_time
async def test_it_works() -> None:
    timer = Timer()
    timer.wait(0.05)
    assert 0.05 <= await waited(timer) < 0.051
    assert not is_cancelled(), "the task goes on"
    assert not timer.spent(), "once is enough"


@in_no_time
async def test_a_wait_that_ended_in_time() -> None:
    timer = Timer()
    timer.wait(0.03)
    timer.rest()
    await asyncio.sleep(0.08)
    assert not timer.spent()
    timer.stop()


@in_no_time
async def test_a_shorter_wait_after_a_longer_one() -> None:
    """The handle that was set for the longer one must not keep it waiting."""
    timer = Timer()
    timer.wait(10)
    timer.rest()
    await asyncio.sleep(2 * SOON)
    timer.wait(0.05)
    assert 0.05 <= await waited(timer) < 0.051


@in_no_time
async def test_a_longer_wait_after_a_shorter_one() -> None:
    timer = Timer()
    timer.wait(0.04)
    timer.rest()
    timer.wait(0.15)
    assert 0.15 <= await waited(timer) < 0.151


@in_no_time
async def test_the_limit_of_all_waits() -> None:
    timer = Timer()
    timer.limit(0.12)
    started = clock()
    for _ in range(3):
        timer.wait(0.06)
        await asyncio.sleep(0.03)
        timer.rest()
    await waited(timer)
    assert 0.12 <= clock() - started < 0.121, "also while it rests"


@in_no_time
async def test_no_limit_any_more() -> None:
    timer = Timer()
    timer.limit(0.03)
    timer.wait(0.03)
    timer.unlimit()
    await asyncio.sleep(0.08)
    assert not timer.spent()
    timer.wait(0.03)
    await waited(timer)


@in_no_time
async def test_a_stopped_timer() -> None:
    timer = Timer()
    timer.wait(0.02)
    timer.stop()
    await asyncio.sleep(0.05)
    assert not timer.spent()


@in_no_time
async def test_another_cancellation_is_not_the_timers() -> None:
    timer = Timer()
    timer.wait(5)
    timer.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(1)
    assert not timer.spent()
    timer.task.uncancel()
    timer.stop()


@in_no_time
async def test_soon() -> None:
    timer, called = Timer(), asyncio.Event()
    timer.soon(called.set)
    await asyncio.wait_for(called.wait(), 0.5)
    timer.stop()


@in_no_time
async def test_soon_in_a_long_wait() -> None:
    timer, called = Timer(), asyncio.Event()
    await asyncio.sleep(2 * SOON)
    timer.wait(10)
    timer.soon(called.set)
    await asyncio.wait_for(called.wait(), 0.5)
    timer.stop()


@pytest.fixture
def keepalive(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(module, "_KEEPALIVE", 0.1)
    return 0.1


def listening(timer: Timer) -> list[float]:
    heard: list[float] = []
    timer.on_silence = lambda: heard.append(clock())
    return heard


@in_no_time
async def test_silence(keepalive: float) -> None:
    timer = Timer()
    silences = listening(timer)
    timer.wait(5)
    await asyncio.sleep(3.5 * keepalive)
    assert len(silences) == 3
    timer.rest()
    await asyncio.sleep(1.5 * keepalive)
    assert len(silences) == 3, "nobody waits for the provider now"
    timer.stop()


@in_no_time
async def test_what_is_heard_ends_the_silence(keepalive: float) -> None:
    timer = Timer()
    silences = listening(timer)
    timer.heard = True
    for _ in range(6):
        timer.wait(5)
        await asyncio.sleep(0.4 * keepalive)
        timer.rest()
    assert silences == []
    timer.stop()


@in_no_time
async def test_what_is_not_heard_does_not(keepalive: float) -> None:
    """The provider's own comments, before the first event."""
    timer = Timer()
    silences = listening(timer)
    for _ in range(6):
        timer.wait(5)
        await asyncio.sleep(0.4 * keepalive)
        timer.rest()
    assert len(silences) == 2
    timer.stop()


@in_no_time
async def test_silence_after_a_rest(keepalive: float) -> None:
    """A client that read slowly: the timer was set for the limit of all, far away."""
    timer = Timer()
    silences = listening(timer)
    timer.limit(20)
    timer.heard = True
    timer.wait(5)
    timer.rest()
    await asyncio.sleep(1.5 * keepalive)
    timer.wait(5)
    await asyncio.sleep(1.5 * keepalive)
    assert len(silences) == 1
    timer.stop()
