"""All the waiting of one request on one handle of the event loop: for the client's body, the provider, and silence.

A handle costs as much as parsing a small body: it is set once, at the beginning, and moved without being set anew. When
a wait lasts too long the request's task is cancelled, and `spent` tells it that this was why. Called by `relay`,
`ingress` and `upstream`.
"""

import asyncio
from collections.abc import Callable

from django.conf import settings

SOON = 0.02  # seconds
_KEEPALIVE = settings.KEEPALIVE_SECONDS
_NEVER = float("inf")


class Timer:
    """`wait(seconds)` before each wait, `rest()` after it; `limit(seconds)` bounds all of them from now on.

    While it waits, `on_silence` is called every `settings.KEEPALIVE_SECONDS`. `heard` False: what comes does not reach
    the client yet, so that it does not end the client's silence.
    """

    __slots__ = ("_at", "_due", "_end", "_handle", "_loop", "_since", "_soon", "_spent", "_task", "heard", "on_silence")

    def __init__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        self._task = task
        self._since = now = loop.time()
        self._due = self._end = _NEVER
        self._soon: Callable[[], None] | None = None
        self._spent = False
        self.heard = False
        self.on_silence: Callable[[], None] | None = None
        self._at = now + SOON  # when the handle fires
        self._handle: asyncio.TimerHandle | None = loop.call_at(self._at, self._tick)

    @property
    def task(self) -> asyncio.Task[object]:
        return self._task

    def wait(self, seconds: float) -> None:
        now = self._loop.time()
        if self.heard:
            self._since = now
        self._due = now + seconds
        if self._handle is None or self._due < self._at:
            self._arm()

    def rest(self) -> None:
        self._due = _NEVER

    def limit(self, seconds: float) -> None:
        self._end = self._loop.time() + seconds
        if self._handle is None or self._end < self._at:
            self._arm()

    def unlimit(self) -> None:
        self._due = self._end = _NEVER

    def soon(self, call: Callable[[], None]) -> None:
        """Call this within `SOON`, if the request lasts so long."""
        self._soon = call
        if self._handle is None or self._at > self._loop.time() + SOON:
            self._arm()

    def spent(self) -> bool:
        """Whether it is this timer that has cancelled the task; the task goes on then."""
        spent, self._spent = self._spent, False
        if spent:
            self._task.uncancel()
        return spent

    def stop(self) -> None:
        """At the end. What it would have called holds the request, and the request this timer: let go of it."""
        self._disarm()
        self._soon = self.on_silence = None

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        self._disarm()
        self._at = due = self._next()
        if due < _NEVER:
            self._handle = self._loop.call_at(due, self._tick)

    def _next(self) -> float:
        due = min(self._due, self._end)
        if self.on_silence is not None and self._due < _NEVER:
            due = min(due, self._since + _KEEPALIVE)
        return due if self._soon is None else min(due, self._loop.time() + SOON)

    def _tick(self) -> None:
        self._handle = None
        now = self._loop.time()
        if self._soon is not None:
            call, self._soon = self._soon, None
            call()
        if now >= self._due or now >= self._end:
            self._spent = True
            self._due = self._end = _NEVER
            self._task.cancel()
            return
        if self.on_silence is not None and self._due < _NEVER and now - self._since >= _KEEPALIVE:
            self.on_silence()
            self._since = now
        self._arm()
