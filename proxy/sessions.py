"""Where a conversation is at home: the provider's credential that has answered it last, and holds its prompt cache.

In memory and, where there is Redis, shared with the other processes; for ten minutes after its last answer. `relay`
asks before it plans, and tells who has answered. Nothing here can fail a request: what cannot be learned is not known.
"""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis
import msgspec

from models_catalog.snapshot import Provider
from proxy.counters.base import Unreachable
from proxy.counters.redis_wire import Wire

logger = logging.getLogger(__name__)

LASTS = 600.0  # seconds after the last answer
REWRITE = 60.0  # Redis is told again after so long: there a home lives by that longer
FRESH = 2.0  # what was told or learned so recently is not asked for
MOST = 100_000  # conversations in memory
WAIT = 0.05  # for Redis to say where a conversation is at home
PAUSE = 1.0  # in which a Redis that cannot be reached, or is slow, is not asked
SLOW = 3  # replies in a row that did not come in time
TIMEOUT = 0.5  # of the connection

_EXPIRES = b"%d" % (LASTS + REWRITE)
_HOME = re.compile(rb"(\d{1,19})\.(\d{1,19})")
_NEVER = float("-inf")
_SILENT = object()

Home = tuple[int, int]
"""The numbers of a provider and of its credential, as `snapshot.Provider` has them."""


class _Place(msgspec.Struct, gc=False):
    """`answered`: the last answer. `known`: when Redis last said or was told so. `written`: when it was told."""

    home: Home
    answered: float
    known: float = _NEVER
    written: float = _NEVER


class Sessions:
    """For one event loop. `session`: what `ingress.session_name` gives; an empty one has no home."""

    def __init__(self, url: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._wire = Wire(url, TIMEOUT) if url else None
        self._clock = clock
        self._places: OrderedDict[str, _Place] = OrderedDict()  # in the order of their last answers
        self._rests_until = _NEVER
        self._silences = 0  # in a row
        self._is_away = False

    async def home(self, session: str) -> Home | None:
        if not session:
            return None
        asked, place = self._clock(), self._places.get(session)
        if self._wire is not None and not (place is not None and asked - place.known < FRESH):
            await self._learn(self._wire, session, asked)
            place = self._places.get(session)
        if place is None or self._clock() - place.answered > LASTS:
            return None
        return place.home

    def keep(self, session: str, provider: Provider) -> None:
        """It has answered. Redis hears of it in the background."""
        if not session:
            return
        home, now = (provider.id, provider.credential), self._clock()
        place = self._at(session, home, now)
        if self._wire is not None and (place.home != home or now - place.written >= REWRITE):
            self._tell(self._wire, session, place, home, now)
        place.home = home

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()

    def _at(self, session: str, home: Home, now: float) -> _Place:
        """The conversation's place, now the latest; those that are over, or too many, go."""
        places = self._places
        place = places.get(session)
        if place is None:
            place = places[session] = _Place(home, now)
        places.move_to_end(session)
        place.answered = now
        while len(places) > MOST or now - next(iter(places.values())).answered > LASTS:
            places.popitem(last=False)
        return place

    # --- Redis -------------------------------------------------------------------------------------------------------

    async def _learn(self, wire: Wire, session: str, asked: float) -> None:
        """What the other processes know, if it can be had at once."""
        if asked < self._rests_until:
            return
        try:
            if wire.server is None:
                async with asyncio.timeout(WAIT):
                    await wire.connect()
        except (TimeoutError, Unreachable) as trouble:
            self._fails(trouble)
            return
        reply = await self._get(wire, session)
        if reply is _SILENT:  # whether it is slow or away, the wire finds out
            self._silences += 1
            if self._silences >= SLOW:
                self._rests_until = self._clock() + PAUSE
            return
        self._silences = 0
        if isinstance(reply, Exception):
            self._fails(reply)
            return
        self._hears(session, _read(reply), asked)

    async def _get(self, wire: Wire, session: str) -> Any:
        """What Redis replies, or `_SILENT`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def replied(reply: Any) -> None:
            if not answer.done():
                answer.set_result(reply)
            elif isinstance(reply, Unreachable):  # after a silence
                self._fails(reply)

        wire.send(_command("GET", _key(session)), replied)
        loop.call_later(WAIT / 2, _lose_patience, answer)
        return await answer

    def _hears(self, session: str, found: Home | None, asked: float) -> None:
        place = self._places.get(session)
        if place is not None and place.known > asked:
            return  # another request of the conversation has been answered meanwhile
        if found is None:
            if place is not None:
                place.written = _NEVER  # Redis has lost it: tell it again
            return
        if place is None or place.home != found:
            place = self._at(session, found, asked)
            place.home, place.written = found, asked
        place.known = asked

    def _tell(self, wire: Wire, session: str, place: _Place, home: Home, now: float) -> None:
        if wire.server is None:
            place.written = _NEVER  # with the next answer, perhaps
            return

        def done(reply: Any) -> None:
            if isinstance(reply, Exception):
                place.written = _NEVER
                self._fails(reply)
            elif self._is_away:
                self._is_away = False
                logger.warning("conversations find their way in all processes again")

        place.known = place.written = now
        wire.send(_command("SET", _key(session), b"%d.%d" % home, "EX", _EXPIRES), done)

    def _fails(self, trouble: Exception) -> None:
        """Said once, until Redis has taken something again."""
        self._rests_until = self._clock() + PAUSE
        if not self._is_away:
            self._is_away = True
            words = str(trouble) or "Redis does not answer"
            logger.warning("conversations find their way in this process only: %s", words)


def _lose_patience(answer: asyncio.Future[Any], *, again: bool = True) -> None:
    """In two steps: after a pause of this whole process a reply that is there already comes first."""
    if answer.done():
        return
    if again:
        answer.get_loop().call_later(WAIT / 2, partial(_lose_patience, answer, again=False))
    else:
        answer.set_result(_SILENT)


def _command(*words: Any) -> bytes:
    packed: bytes = hiredis.pack_command(words)
    return packed


def _key(session: str) -> str:
    return f"kodna:session:{session}"


def _read(reply: bytes | None) -> Home | None:
    found = _HOME.fullmatch(reply or b"")
    return (int(found[1]), int(found[2])) if found is not None else None
