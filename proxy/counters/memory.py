"""Counters and holds of one process, in its memory: exact to the moment. `admission` asks it where there is no Redis.

A window holds the moments of the requests in it, so that in no 60 seconds (or one) more than the limit pass. Tokens are
counted as estimated at first; at the end what was too much is given back where it was counted, and what was too little
is a debt from then on. What holds a place or credit is one `_Request`; a fund knows the sum of what is held in it.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from accounts.credits import Fund
from accounts.keys import Limit
from proxy.counters.base import (
    Amounts,
    Grant,
    Left,
    LimitReached,
    NotAffordable,
    UnknownFunds,
    Wish,
)

FORGET_SECONDS = 86400.0  # a fund that nobody asked for; far above the hour that may pass without the database
WINDOWS = {"rps": 1.0, "rpm": 60.0, "tpm": 60.0}
PLACE_WAIT = 1.0  # nobody knows when a place will be free
_AT_ONCE = 500  # gauges and funds that are looked at in one go: the event loop waits for the lock meanwhile


class _Moments:
    """A limit of requests: when they came."""

    __slots__ = ("_moments", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._moments: deque[float] = deque()

    def wait(self, limit: int, _: Wish, now: float) -> float:
        """Seconds until the request may pass; 0: now."""
        moments, gone = self._moments, now - self._seconds
        while moments and moments[0] <= gone:
            moments.popleft()
        count = len(moments)
        return 0.0 if count < limit else moments[count - limit] - gone

    def add(self, request: "_Request", _: Wish, now: float) -> None:
        self._moments.append(now)
        request.counted.append((self, now))

    def end(self, _: str, __: object, ___: int | None, ____: float) -> None:
        """It has come, however it ends."""

    def undo(self, _: str, moment: float) -> None:
        if moment in self._moments:
            self._moments.remove(moment)

    def left(self, limit: int, now: float) -> Left | None:
        """After `wait`, or `is_idle`."""
        moments = self._moments
        reset = moments[-1] + self._seconds - now if moments else 0.0
        return Left(limit, max(0, limit - len(moments)), reset)

    def is_idle(self, now: float) -> bool:
        moments, gone = self._moments, now - self._seconds
        while moments and moments[0] <= gone:
            moments.popleft()
        return not moments


class _Tokens:
    """A limit of tokens: [moment, tokens] of each request, and of what was found later to have been too little."""

    __slots__ = ("_entries", "_seconds", "_total")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: deque[list[float]] = deque()
        self._total = 0.0

    def _forget(self, now: float) -> None:
        entries, gone = self._entries, now - self._seconds
        while entries and entries[0][0] <= gone:
            self._total -= entries.popleft()[1]

    def wait(self, limit: int, wish: Wish, now: float) -> float:
        self._forget(now)
        excess = self._total + wish.tokens - limit
        if excess <= 0:
            return 0.0
        for moment, tokens in self._entries:
            excess -= tokens
            if excess <= 0:
                return moment + self._seconds - now
        return math.inf

    def add(self, request: "_Request", wish: Wish, now: float) -> None:
        entry = [now, wish.tokens]
        self._entries.append(entry)
        self._total += wish.tokens
        request.counted.append((self, entry))

    def end(self, _: str, entry: list[float], tokens: int | None, now: float) -> None:
        """The truth. What has left the window stays out; what comes to it counts from now on."""
        if tokens is None:
            return
        more = tokens - entry[1]
        if more > 0:
            self._entries.append([now, more])
        elif entry[0] > now - self._seconds:
            entry[1] = tokens
        else:
            return
        self._total += more

    def undo(self, _: str, entry: list[float]) -> None:
        for place, other in enumerate(self._entries):
            if other is entry:
                del self._entries[place]
                self._total -= entry[1]
                return

    def left(self, limit: int, now: float) -> Left | None:
        reset = self._entries[-1][0] + self._seconds - now if self._entries else 0.0
        return Left(limit, max(0, limit - int(self._total)), reset)

    def is_idle(self, now: float) -> bool:
        self._forget(now)
        return not self._entries


class _Places:
    """A limit of requests at once: who they are."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def wait(self, limit: int, wish: Wish, _: float) -> float:
        return 0.0 if len(self._ids) < limit or wish.id in self._ids else PLACE_WAIT

    def add(self, request: "_Request", wish: Wish, _: float) -> None:
        if wish.id not in self._ids:
            self._ids.add(wish.id)
            request.counted.append((self, None))

    def end(self, request_id: str, _: object, __: int | None, ___: float) -> None:
        self._ids.discard(request_id)

    def undo(self, request_id: str, _: object) -> None:
        self._ids.discard(request_id)

    def left(self, _: int, __: float) -> Left | None:
        return None

    def is_idle(self, _: float) -> bool:
        return not self._ids


_Gauge = _Moments | _Tokens | _Places


class _Gauges:
    """`all` of a request's limits; and those that it hears of: `requests` (per minute, else per second), `tokens`."""

    __slots__ = ("all", "requests", "tokens")

    def __init__(self, gauges: list[tuple[Limit, _Gauge]]) -> None:
        def kind(name: str) -> list[tuple[Limit, _Gauge]]:
            return [each for each in gauges if each[0].kind == name]

        self.all = gauges
        self.requests = kind("rpm") or kind("rps")
        self.tokens = kind("tpm")


class _Fund:
    """`seq` below 0: not known. -1 - seq is how new what is learned must be, for so much has landed already."""

    __slots__ = ("amount", "held", "seq", "used")

    def __init__(self, now: float) -> None:
        self.seq = -1
        self.amount = self.held = 0
        self.used = now


class _Request:
    """What a request has: what limits have `counted`, and credit in each of `funds` until its charge has landed.

    `last`: how much had been counted before it asked last.
    """

    __slots__ = ("amount", "counted", "funds", "is_settled", "last")

    def __init__(self) -> None:
        self.counted: list[tuple[_Gauge, Any]] = []
        self.last = 0
        self.funds: Sequence[_Fund] = ()
        self.amount = 0
        self.is_settled = False

    def hold(self, funds: Sequence[_Fund], amount: int) -> None:
        """In place of what it held."""
        for fund in self.funds:
            fund.held -= self.amount
        for fund in funds:
            fund.held += amount
        self.funds, self.amount = funds, amount

    def release(self) -> None:
        self.hold((), 0)

    def end(self, request_id: str, tokens: int | None, now: float) -> None:
        """Of its limits: the places are free."""
        for gauge, entry in self.counted:
            gauge.end(request_id, entry, tokens, now)
        self.counted = []


class Memory:
    """A `base.Store` for one process. A lock, for the background thread reports what has landed meanwhile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._gauges: dict[tuple[str, ...], _Gauge] = {}
        self._known: dict[tuple[Limit, ...], _Gauges] = {}  # of them, those of each request
        self._funds: dict[str, _Fund] = {}
        self._requests: dict[str, _Request] = {}

    async def admit(self, wish: Wish, /) -> Grant:
        with self._lock:
            return self._take(wish, self._clock())

    async def adjust(self, wish: Wish, /) -> Grant:
        with self._lock:
            return self._take(wish, self._clock())

    async def left(self, limits: tuple[Limit, ...], /) -> Grant:
        with self._lock:
            now = self._clock()
            gauges = self._of(limits)
            for _, gauge in gauges.all:
                gauge.is_idle(now)
            return _granted(0, 0, gauges, now)

    def _take(self, wish: Wish, now: float) -> Grant:
        """Nothing is changed before everything is known to pass."""
        request = self._requests.get(wish.id)
        if request is not None and request.is_settled:
            return Grant(held=request.amount)
        gauges = self._of(wish.limits)
        for limit, gauge in gauges.all:
            wait = gauge.wait(limit.value, wish, now)
            if wait:
                raise LimitReached(limit, wait, gauge.left(limit.value, now))
        funds, held, spare = self._afford(wish, request, now) if wish.funds else ((), 0, 0)
        if request is None:
            request = self._requests[wish.id] = _Request()
        request.last = len(request.counted)
        for _, gauge in gauges.all:
            gauge.add(request, wish, now)
        if funds:
            request.hold(funds, held)
        return _granted(held, spare, gauges, now)

    def _of(self, limits: tuple[Limit, ...]) -> _Gauges:
        found = self._known.get(limits)
        if found is None:
            found = self._known[limits] = _Gauges([(limit, self._gauge(limit)) for limit in limits])
        return found

    def _gauge(self, limit: Limit) -> _Gauge:
        name = limit[:2]
        gauge = self._gauges.get(name)
        if gauge is None:
            gauge = self._gauges[name] = _new_gauge(limit.kind)
        return gauge

    def _afford(self, wish: Wish, request: _Request | None, now: float) -> tuple[list[_Fund], int, int]:
        """The funds, what is held in each, and what is left in the one that has the least."""
        funds: list[_Fund] = []
        unknown: list[str] = []
        least: tuple[int, Fund, int] | None = None
        for fund in wish.funds:
            found = self._funds.get(fund.name)
            if found is None or found.seq < 0:
                unknown.append(fund.name)
                continue
            found.used = now
            funds.append(found)
            others = found.held - (request.amount if request is not None and found in request.funds else 0)
            available = found.amount + fund.room - others
            if least is None or (available < least[0] and least[0] >= wish.least):
                least = available, fund, others
        if unknown or least is None:
            raise UnknownFunds(unknown)
        available, fund, others = least
        if available < wish.least:
            raise NotAffordable(fund, available, others)
        held = max(0, min(wish.amount, available))
        return funds, held, max(0, available - held)

    def withdraw(self, request_id: str) -> None:
        """For a caller who holds the credit elsewhere and was refused there: its last `admit` or `adjust` never was."""
        with self._lock:
            request = self._requests.get(request_id)
            if request is None:
                return
            for gauge, entry in request.counted[request.last :]:
                gauge.undo(request_id, entry)
            del request.counted[request.last :]
            if not request.counted and not request.funds:
                del self._requests[request_id]

    def settle(self, request_id: str, charge: int | None, tokens: int | None, /) -> None:
        with self._lock:
            request = self._requests.get(request_id)
            if request is None or request.is_settled:
                return
            request.end(request_id, tokens, self._clock())
            if charge and request.funds:
                self._close(request, request.funds, charge)
            else:
                request.release()
                del self._requests[request_id]

    def held(self, request_id: str, charge: int, funds: Sequence[str], /) -> None:
        with self._lock:
            now = self._clock()
            request = self._requests.setdefault(request_id, _Request())
            request.end(request_id, None, now)
            self._close(request, [self._fund(name, now) for name in funds], charge)

    def _close(self, request: _Request, funds: Sequence[_Fund], charge: int) -> None:
        request.hold(funds, charge)
        request.is_settled = True

    def landed(self, request_ids: Iterable[str], amounts: Amounts, /) -> None:
        with self._lock:
            for request_id in request_ids:
                request = self._requests.get(request_id)
                if request is not None:
                    request.release()
                    if request.is_settled:  # else the request's last step is still to come: `settle`
                        del self._requests[request_id]
            now = self._clock()
            for name, (seq, amount) in amounts.items():
                fund = self._fund(name, now)
                if fund.seq < 0:
                    fund.seq = min(fund.seq, -1 - seq)
                elif seq > fund.seq:
                    fund.seq, fund.amount = seq, amount

    def learn(self, amounts: Amounts, /) -> None:
        with self._lock:
            now = self._clock()
            for name, (seq, amount) in amounts.items():
                fund = self._fund(name, now)
                if seq > fund.seq and seq >= -1 - fund.seq:
                    fund.seq, fund.amount = seq, amount

    def _fund(self, name: str, now: float) -> _Fund:
        fund = self._funds.get(name)
        if fund is None:
            fund = self._funds[name] = _Fund(now)
        return fund

    def renew(self) -> None:
        """Nothing expires: what ends this process ends its requests. Tidies up."""
        self._forget(self._clock())

    def _forget(self, now: float) -> None:
        """Whoever has not been here for long: keys come and go. A request that lasts is still to be counted."""
        with self._lock:
            running = {gauge for request in self._requests.values() for gauge, _ in request.counted}
        gauges, funds = list(self._gauges), list(self._funds)
        for start in range(0, len(gauges), _AT_ONCE):
            with self._lock:
                for name in gauges[start : start + _AT_ONCE]:
                    if self._gauges[name] not in running and self._gauges[name].is_idle(now):
                        del self._gauges[name]
                        self._known.clear()  # what is counted in a gauge that is no more would be lost
        for start in range(0, len(funds), _AT_ONCE):
            with self._lock:
                for fund in funds[start : start + _AT_ONCE]:
                    if not self._funds[fund].held and self._funds[fund].used <= now - FORGET_SECONDS:
                        del self._funds[fund]

    def close(self) -> None:
        """Nothing outlives the process."""


def _granted(held: int, spare: int, gauges: _Gauges, now: float) -> Grant:
    return Grant(held, spare, _least(gauges.requests, now), _least(gauges.tokens, now))


def _least(gauges: Sequence[tuple[Limit, _Gauge]], now: float) -> Left | None:
    """Of limits of one kind, what is left of the one that has the least."""
    least: Left | None = None
    for limit, gauge in gauges:
        left = gauge.left(limit.value, now)
        if left is not None and (least is None or left.remaining < least.remaining):
            least = left
    return least


def _new_gauge(kind: str) -> _Gauge:
    if kind == "concurrency":
        return _Places()
    return _Tokens(WINDOWS[kind]) if kind == "tpm" else _Moments(WINDOWS[kind])
