"""Requests per second, per minute and at once, per key, in this process: all pass together, or nothing is counted.

A window holds the moments of the requests in it, so that in no 60 seconds (or one) more than the limit pass; a refused
request uses nothing up. Called by `relay`.
"""

import time
from collections import deque
from typing import NamedTuple

from accounts.keys import Key
from proxy.errors import RateLimited


class Window:
    """A limit's last `seconds`."""

    __slots__ = ("moments", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.moments: deque[float] = deque()

    def wait(self, limit: int, now: float) -> float:
        """Seconds until one more may pass; 0: now."""
        self.forget(now)
        moments = self.moments
        if len(moments) < limit:
            return 0.0
        return moments[len(moments) - limit] + self.seconds - now

    def forget(self, now: float) -> None:
        """What is older than the window."""
        moments, gone = self.moments, now - self.seconds
        while moments and moments[0] <= gone:
            moments.popleft()

    def reset(self, now: float) -> float:
        """Seconds until the window is empty, as OpenAI's `x-ratelimit-reset-requests` has it."""
        return self.moments[-1] + self.seconds - now if self.moments else 0.0


class Gauge:
    """What one key is doing."""

    __slots__ = ("active", "minute", "second")

    def __init__(self) -> None:
        self.second = Window(1.0)
        self.minute = Window(60.0)
        self.active = 0


class Lease:
    """A request that was let in: it holds one place until `release`, which may be called again without effect."""

    __slots__ = ("_gauge", "_key", "_now", "_open")

    def __init__(self, key: Key, gauge: Gauge, now: float) -> None:
        self._key, self._gauge, self._now, self._open = key, gauge, now, True
        gauge.active += 1

    def release(self) -> None:
        if self._open:
            self._open = False
            self._gauge.active -= 1

    def left(self) -> "Left | None":
        return _left(self._key, self._gauge, self._now)


class Limiter:
    def __init__(self) -> None:
        self._gauges: dict[int, Gauge] = {}

    def admit(self, key: Key) -> Lease:
        """Count the request and hold its place. Raises `RateLimited`, which names the limit, its value and the wait."""
        now = time.monotonic()
        gauge = self._gauges.get(key.id)
        if gauge is None:
            gauge = self._gauges[key.id] = Gauge()
        if key.concurrency and gauge.active >= key.concurrency:
            raise RateLimited(
                f"Your key's limit of {key.concurrency} concurrent requests is reached. Try again when one has ended.",
                code="concurrency_exceeded",
                retry_after=1.0,
            )
        if key.rps and (wait := gauge.second.wait(key.rps, now)):
            raise _exceeded(key.rps, "second", wait)
        if key.rpm and (wait := gauge.minute.wait(key.rpm, now)):
            raise _exceeded(key.rpm, "minute", wait)
        if key.rps:
            gauge.second.moments.append(now)
        if key.rpm:
            gauge.minute.moments.append(now)
        return Lease(key, gauge, now)

    def left(self, key: Key) -> "Left | None":
        """What is left to a key, for an answer that counted nothing."""
        gauge = self._gauges.get(key.id)
        if gauge is None:
            return None
        now = time.monotonic()
        for window in (gauge.second, gauge.minute):
            window.forget(now)
        return _left(key, gauge, now)

    def active(self, key: Key) -> int:
        gauge = self._gauges.get(key.id)
        return gauge.active if gauge else 0


def _exceeded(limit: int, unit: str, wait: float) -> RateLimited:
    return RateLimited(
        f"Your key's limit of {limit} requests per {unit} is reached. Try again in {duration(wait)}.", retry_after=wait
    )


class Left(NamedTuple):
    """What is left of a key's limit of requests. `reset`: seconds until all of it is there again."""

    limit: int
    remaining: int
    reset: float


def _left(key: Key, gauge: Gauge, now: float) -> Left | None:
    if key.rpm:
        limit, window = key.rpm, gauge.minute
    elif key.rps:
        limit, window = key.rps, gauge.second
    else:
        return None
    return Left(limit, max(0, limit - len(window.moments)), window.reset(now))


def duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(seconds // 60)}m{int(seconds % 60)}s"
