"""Counters and holds in Redis, for all processes that share it. `failover` asks it, and tells it the epoch.

Every decision is one Lua script (`*.lua`): nothing comes between its checks and what it counts. Credit lies in one
hash, stamped with the epoch of the last move and the run of Redis in which that was made; every script that touches
credit compares the stamp first. A Redis that was emptied, or came back with an old snapshot, is no truth any more
(`EpochLost`). Limits need no epoch: what is lost of them would be forgotten within a minute. Their windows are 60
buckets and the one that has begun: a request counts for up to a sixtieth longer than the window, never shorter.
"""

import asyncio
import functools
import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import hiredis

from accounts.keys import Limit
from proxy.counters.base import (
    HOLD_SECONDS,
    Amounts,
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
from proxy.counters.memory import FORGET_SECONDS, PLACE_WAIT
from proxy.counters.redis_wire import Command, Line, Server, Wire

logger = logging.getLogger(__name__)

TIMEOUT = 0.5  # seconds without an answer: Redis is away
FUNDS = b"kodna:funds"
_REAPER = b"kodna:reaper"
_REAP_SECONDS = 15  # one process at a time goes through the holds
_AT_ONCE = 500  # holds in one script: Redis does nothing else meanwhile

_COMMON = f"""\
local HOLD, PLACE_WAIT, FORGET = {HOLD_SECONDS * 1e6:.0f}, {PLACE_WAIT * 1e6:.0f}, {FORGET_SECONDS:.0f}
{Path(__file__).with_name("common.lua").read_text()}
"""


class Script(NamedTuple):
    text: bytes
    sha: bytes


def _read(name: str) -> Script:
    text = (_COMMON + Path(__file__).with_name(f"{name}.lua").read_text()).encode()
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


_ADMIT, _LEFT, _SETTLE = _read("admit"), _read("left"), _read("settle")
_BEGIN, _REGISTER, _LANDED, _RENEW, _REAP = map(_read, ("begin", "register", "landed", "renew", "reap"))
_ON_THE_LOOP = (_ADMIT, _LEFT, _SETTLE)


class _Names(NamedTuple):
    """Of some limits: their keys, and what the scripts are told of them; those of places; those of limits of tokens."""

    keys: tuple[bytes, ...]
    words: tuple[str | int, ...]
    places: tuple[bytes, ...]
    tokens: tuple[bytes, ...]


@functools.lru_cache(10_000)
def _names(limits: tuple[Limit, ...]) -> _Names:
    keys = [(limit.kind, f"kodna:{limit.kind}:{limit.subject}".encode()) for limit in limits]
    return _Names(
        tuple(key for _, key in keys),
        tuple(chain.from_iterable((limit.kind, limit.value) for limit in limits)),
        tuple(key for kind, key in keys if kind == "concurrency"),
        tuple(key for kind, key in keys if kind == "tpm"),
    )


class _Lease(NamedTuple):
    """What a request has taken of limits. `tokens`: key, bucket, estimate."""

    places: tuple[bytes, ...] = ()
    tokens: tuple[tuple[bytes, int, int], ...] = ()


class _Settlement(NamedTuple):
    request_id: str
    lease: _Lease
    is_held: bool
    charge: int
    tokens: int  # -1: as estimated

    def words(self, stamp: str) -> Command:
        keys = (FUNDS, *self.lease.places, *(key for key, _, _ in self.lease.tokens))
        counted = chain.from_iterable((bucket, estimate) for _, bucket, estimate in self.lease.tokens)
        stamp = stamp if self.is_held else ""
        words = (stamp, self.request_id, self.charge, self.tokens, len(self.lease.places))
        return (len(keys), *keys, *words, *counted)

    def again(self) -> "_Settlement":
        """For it may have been done: tokens are not given back twice."""
        too_few = any(self.tokens > estimate for _, _, estimate in self.lease.tokens)
        return self if too_few else self._replace(tokens=-1)


class Shared:
    """A `base.Store`. `epoch`: the move since which Redis keeps the holds; scripts on credit raise `EpochLost` for
    another. `breaks`: rises whenever holds may not be in Redis as they were told: then they are to be registered again.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self._wire = Wire(url, timeout, [("SCRIPT", "LOAD", script.text) for script in _ON_THE_LOOP])
        self._line = Line(url, timeout)
        self.epoch = 0
        self._lost = 0
        self._is_closed = False
        self._returning: asyncio.Task[None] | None = None
        self._leases: dict[str, _Lease] = {}
        self._holds: dict[str, None] = {}  # of requests that run: theirs are renewed
        self._kept: dict[str, _Settlement] = {}  # that were perhaps not written

    @property
    def breaks(self) -> int:
        return self._wire.breaks + self._lost

    # --- on the event loop -------------------------------------------------------------------------------------------

    async def admit(self, wish: Wish, /) -> Grant:
        return await self._ask(wish, self._admitted_in_vain)

    async def adjust(self, wish: Wish, /) -> Grant:
        return await self._ask(wish, self._adjusted_in_vain)

    async def left(self, limits: tuple[Limit, ...], /) -> Grant:
        names = _names(limits)
        if not names.keys:
            return Grant()
        await self._connect()
        words = (len(names.keys) + 1, FUNDS, *names.keys, "", *names.words)
        return _grant(await self._call(_LEFT, words, lambda _: None))

    async def _ask(self, wish: Wish, in_vain: Callable[[Wish, Any], None]) -> Grant:
        if not wish.limits and not wish.funds:
            return Grant()
        server = self._wire.server or await self._connect()
        names = _names(wish.limits)
        words = (
            *(len(names.keys) + 1, FUNDS, *names.keys),
            *(self._stamp(server), wish.id, wish.tokens, wish.amount, wish.least),
            *names.words,
            *chain.from_iterable(wish.funds),
        )
        reply = await self._call(_ADMIT, words, functools.partial(in_vain, wish))
        if reply[0] == 5:
            return Grant(held=reply[1])
        if reply[0] != 1:
            raise _refusal(wish, reply)
        self._took(wish, reply)
        return _grant(reply)

    async def _connect(self) -> Server:
        server = await self._wire.connect()
        for _ in range(len(self._kept)):
            if settlement := self._taken():
                self._settle(settlement)
        return server

    async def _call(self, script: Script, words: Command, in_vain: Callable[[Any], None]) -> list[Any]:
        """`in_vain` gets the answer for which nobody waits any longer: Redis has done all the same what was asked."""
        future = asyncio.get_running_loop().create_future()

        def done(reply: Any) -> None:
            if future.done():
                in_vain(reply)
            else:
                future.set_result(reply)

        self._send(script, words, done)
        try:
            reply = await future
        except asyncio.CancelledError:
            if not future.cancelled():  # the answer and the cancellation came in one round
                in_vain(future.result())
            raise
        if isinstance(reply, list):
            return reply
        raise Unreachable(str(reply))

    def _send(self, script: Script, words: Command, done: Callable[[Any], None]) -> None:
        def answered(reply: Any) -> None:
            if _is_unknown(reply):
                self._wire.send(hiredis.pack_command(("EVAL", script.text, *words)), done)
            else:
                done(reply)

        self._wire.send(hiredis.pack_command(("EVALSHA", script.sha, *words)), answered)

    def _stamp(self, server: Server) -> str:
        return f"{self.epoch}-{server.run_id}"

    def _took(self, wish: Wish, reply: list[Any]) -> None:
        if wish.funds:
            self._holds[wish.id] = None
        lease = _lease(wish, reply)
        if lease is not None:
            before = self._leases.get(wish.id, _Lease())
            self._leases[wish.id] = _Lease(before.places + lease.places, before.tokens + lease.tokens)

    def _admitted_in_vain(self, wish: Wish, reply: Any) -> None:
        if isinstance(reply, list) and reply[0] == 1:
            self._took(wish, reply)
            self.settle(wish.id, None, 0)

    def _adjusted_in_vain(self, wish: Wish, reply: Any) -> None:
        """The hold is settled by the request's end, as ever; what limits have counted is given back."""
        if isinstance(reply, list) and reply[0] == 1 and (lease := _lease(wish, reply)) is not None:
            had = self._leases.get(wish.id, _Lease()).places
            places = tuple(place for place in lease.places if place not in had)
            self._settle(_Settlement(wish.id, lease._replace(places=places), False, 0, 0))

    def settle(self, request_id: str, charge: int | None, tokens: int | None, /) -> None:
        lease = self._leases.pop(request_id, None)
        is_held = request_id in self._holds
        self._holds.pop(request_id, None)
        if lease is not None or is_held:
            truth = -1 if tokens is None else tokens
            self._settle(_Settlement(request_id, lease or _Lease(), is_held, charge or 0, truth))

    def _settle(self, settlement: _Settlement) -> None:
        server = self._wire.server
        if server is None:
            self._keep(settlement, "there is no connection")
            self._lost += settlement.is_held
            if self._returning is None:
                self._returning = asyncio.create_task(self._return())
            return

        def done(reply: Any) -> None:
            if not isinstance(reply, list):  # of another epoch: whoever moved has registered what he knows
                self._keep(settlement.again(), reply)

        self._send(_SETTLE, settlement.words(self._stamp(server)), done)

    def _keep(self, settlement: _Settlement, why: object) -> None:
        """Until there is a connection, or `renew` tells it."""
        if not self._kept and not self._is_closed:  # of many in one round, one is enough
            logger.warning("the end of a request could not be told to Redis, it will be told later: %s", why)
        self._kept[settlement.request_id] = settlement

    def _taken(self) -> _Settlement | None:
        """One that was kept, for one of those who ask."""
        try:
            return self._kept.popitem()[1]
        except KeyError:
            return None

    async def _return(self) -> None:
        try:
            await self._connect()
        except Unreachable as error:
            logger.warning("Redis is away: %s", error)
        self._returning = None

    # --- from any thread ---------------------------------------------------------------------------------------------

    def ping(self) -> int | None:
        """The epoch that this very run of Redis keeps, if it does. Raises `Unreachable`, as all that follow."""
        asked: list[Server] = []

        def ask(server: Server) -> Command:
            asked.append(server)
            return ("HGET", FUNDS, "epoch")

        found = self._line.call(ask)
        if isinstance(found, hiredis.ReplyError):
            raise Unreachable(str(found))
        number, _, run = (found or b"").decode().partition("-")
        return int(number) if run == asked[-1].run_id else None

    def begin(self, epoch: int) -> None:
        """Clear away all holds: `epoch` begins. Raises `EpochLost` where it has begun already, or a later one."""
        _check(self._do(_BEGIN, lambda server: (1, FUNDS, f"{epoch}-{server.run_id}")))

    def register(self, holds: Mapping[str, Holding | None]) -> None:
        """Each hold becomes exactly that, whatever it was; None: it goes. Raises `EpochLost`, as all that follow."""
        for some in _pieces(list(holds.items())) or [[]]:
            words: list[str | int] = []
            for request_id, holding in some:
                if holding is None or holding.settled:
                    self._holds.pop(request_id, None)
                else:
                    self._holds[request_id] = None
                words += _registration(request_id, holding)
            self._tell(_REGISTER, words)

    def held(self, request_id: str, charge: int, funds: Sequence[str], /) -> None:
        self.register({request_id: Holding(tuple(funds), charge, True)})

    def landed(self, request_ids: Iterable[str], amounts: Amounts, /) -> None:
        """The amounts come first: until all holds have gone the funds seem to have less, never more."""
        told = _told(amounts)
        for some in _pieces(list(request_ids)) or [[]]:
            self._tell(_LANDED, [0, len(some), *some, *told])
            told = []
            for request_id in some:
                self._holds.pop(request_id, None)

    def learn(self, amounts: Amounts, /) -> None:
        self._tell(_LANDED, [1, 0, *_told(amounts)])

    def renew(self) -> None:
        while settlement := self._taken():
            self._settle_again(settlement)
        for some in _pieces([(key, name) for name, lease in list(self._leases.items()) for key in lease.places]):
            self._renew_places(some)
        if self.epoch:
            self._renew_holds()
            self._reap()

    def _settle_again(self, settlement: _Settlement) -> None:
        try:
            self._do(_SETTLE, lambda server: settlement.words(self._stamp(server)))
        except Unreachable as error:
            self._keep(settlement.again(), error)
            raise

    def _renew_places(self, places: list[tuple[bytes, str]]) -> None:
        keys, names = [key for key, _ in places], [name for _, name in places]
        self._do(_RENEW, lambda _: (len(keys) + 1, FUNDS, *keys, "", *names))

    def _renew_holds(self) -> None:
        for some in _pieces(list(self._holds)):
            missing = self._tell(_RENEW, some)
            if any(name.decode() in self._holds for name in missing):
                self._lost += 1

    def _reap(self) -> None:
        if self._line.call(lambda _: ("SET", _REAPER, "1", "NX", "EX", _REAP_SECONDS)) is None:
            return  # another process does it
        cursor = b"0"
        while True:
            (cursor,) = self._tell(_REAP, [cursor])
            if cursor == b"0":
                return

    def _tell(self, script: Script, words: Sequence[str | int | bytes]) -> list[Any]:
        return _check(self._do(script, lambda server: (1, FUNDS, self._stamp(server), *words)))

    def _do(self, script: Script, words: Callable[[Server], Command]) -> list[Any]:
        reply = self._line.call(lambda server: ("EVALSHA", script.sha, *words(server)))
        if _is_unknown(reply):
            reply = self._line.call(lambda server: ("EVAL", script.text, *words(server)))
        if isinstance(reply, list):
            return reply
        raise Unreachable(str(reply))

    def drop(self) -> None:
        """Nothing that was sent on connections that broke will run later."""
        for suspect in list(self._wire.suspects):
            reply = self._line.call(functools.partial(_kill, suspect))
            if isinstance(reply, hiredis.ReplyError) and not str(reply).startswith("ERR No such client"):
                logger.warning("Redis does not let a connection be closed: %s", reply)
            self._wire.suspects.discard(suspect)

    def close(self) -> None:
        """What was sent on the event loop still goes out."""
        self._is_closed = True
        self._line.close()
        loop = self._wire.loop
        if loop is None or loop.is_closed():
            return
        if loop is asyncio._get_running_loop():  # noqa: SLF001  # None in a thread without one
            self._wire.close()
        else:
            loop.call_soon_threadsafe(self._wire.close)


# --- what the scripts take and answer --------------------------------------------------------------------------------


def _is_unknown(reply: Any) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")


def _pieces(things: list[Any]) -> list[list[Any]]:
    return [things[start : start + _AT_ONCE] for start in range(0, len(things), _AT_ONCE)]


def _told(amounts: Amounts) -> list[str | int]:
    return list(chain.from_iterable((name, *amount) for name, amount in amounts.items()))


def _check(reply: list[Any]) -> list[Any]:
    if reply[0] == 0:
        raise EpochLost(reply[1])
    return reply[1:]


def _kill(suspect: Server, server: Server) -> Command:
    """A Redis that was restarted has given the number to somebody else."""
    return ("CLIENT", "KILL", "ID", suspect.client_id) if server.run_id == suspect.run_id else ("PING",)


def _registration(request_id: str, holding: Holding | None) -> list[str | int]:
    if holding is None:
        return [request_id, -1, 0, 0]
    return [request_id, holding.amount, int(holding.settled), len(holding.funds), *holding.funds]


def _lease(wish: Wish, reply: list[Any]) -> _Lease | None:
    names = _names(wish.limits)
    if not names.places and not names.tokens:
        return None
    bucket = reply[1] // 1_000_000
    return _Lease(names.places, tuple((key, bucket, wish.tokens) for key in names.tokens))


def _grant(reply: list[Any]) -> Grant:
    _, _, held, spare, *lefts = reply
    return Grant(held, spare, _left(*lefts[:3]), _left(*lefts[3:]))


def _left(limit: int, remaining: int, reset: int) -> Left | None:
    return None if limit < 0 else Left(limit, remaining, reset / 1e6)


def _refusal(wish: Wish, reply: list[Any]) -> Exception:
    kind, *words = reply
    if kind == 2:
        place, wait, *left = words
        limit = wish.limits[place - 1]
        return LimitReached(limit, math.inf if wait < 0 else wait / 1e6, _left(*left))
    if kind == 3:
        place, available, others = words
        return NotAffordable(wish.funds[place - 1], available, others)
    if kind == 4:
        return UnknownFunds([wish.funds[place - 1].name for place in words])
    return EpochLost(*words)
