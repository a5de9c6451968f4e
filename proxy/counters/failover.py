"""The store of a gateway of several processes: `shared` in Redis, and `database` while Redis is away.

Time is cut into epochs, numbered by a row in the database; each has its holds in one store. Whoever finds Redis away,
emptied, or back for good *moves*: it sets the row to the next number and its store (only one can: the number is
compared), and where that is Redis, begins it there with an empty hash. From then on every process, as it learns of the
number (`watch`), goes through

    closed         nobody is admitted; those that are just being admitted come to their end
    told           the new store has been told of all that this process's requests hold
    acknowledged   its row says so
    open           once the row of every other process says so too, or nothing of that process is left

Why no fund is ever overspent: what is charged to it, with what is held of it, fits at every moment.

1. Within an epoch one store decides, each time atomically, over all its holds and the ledger.
2. At the beginning of an epoch, its store is told of every hold before anybody is admitted to it, and nobody is
   admitted to the one before any more: each process closes before it tells, and tells before it acknowledges. All that
   is told fitted before. A move that comes before the last one is done changes nothing of this: holds are told again.
3. A process that does not acknowledge is waited for as long as it lives, however still it stands. One that has been
   killed has left a journal: it is gone when `adopt` has entered all of that in the ledger (`remains`). Until then what
   it may have used is held by whoever adopts it, who tells of it like of his own.
4. What the ledger says of a fund is told to Redis only as it was read after the epoch's beginning. What had been
   entered before, and is held nowhere any more, is in it; what is entered later is held until it is told (`landed`).
5. Who has not heard of a move cannot do harm: Redis and the database compare the epoch that each admission names with
   their own, and he has not acknowledged, so nobody else has begun.
6. A Redis that was emptied, or has read from a disk what it knew once, or slept while the others moved on, does not
   have the epoch's mark, which names the number and the run of the server; only the mover makes one, once.

Processes on other machines have their journals there: one that is silent for `Times.silent` counts as gone here, and a
machine that is lost together with Redis takes with it what had not reached the ledger.

Redis there, the database away: it goes on in Redis, and no move can be made. Both away: `Unreachable`. Requests without
funds never wait: their limits are counted in Redis, or else in this process.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from django.conf import settings
from django.db import DatabaseError, OperationalError

from accounts.credits import read
from accounts.keys import Limit
from proxy.counters import database
from proxy.counters.base import HOLD_SECONDS, Amounts, EpochLost, Grant, UnknownFunds, Unreachable, Wish
from proxy.counters.database import Holds, in_database
from proxy.counters.mirror import Keeper, Mirror
from proxy.counters.shared import Shared
from proxy.models import CounterEpoch

logger = logging.getLogger(__name__)

Where = CounterEpoch.Store
TOO_LATE = "the counters have not come to rest in time"
T = TypeVar("T")


class Times(NamedTuple):
    """Seconds."""

    away: float = 0.5  # that Redis must be away for a move to the database
    back: float = 3.0  # that it must be back for a move to it; twice as long after each epoch there that was short
    longest_back: float = 60.0
    short: float = 10.0
    begun: float = 1.0  # after which a mover that has not begun its epoch in Redis is taken for dead
    beat: float = 1.0
    quiet: float = 3.0  # without a beat, after which a process may have died
    silent: float = HOLD_SECONDS
    patience: float = 10.0  # of an admission, with a move
    hope: float = 2.0  # that the database, which is away, comes back while an admission waits
    answer: float = 1.0  # of the database, to `watch`
    telling: float = 30.0  # all holds to the database


def worker_name() -> str:
    """Of this process, for its life. Processes with the same data dir have the same beginning, up to the hyphen."""
    place = f"{socket.gethostname()} {settings.DATA_DIR.stat().st_ino}"
    return f"{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}-{os.getpid()}-{secrets.token_hex(4)}"


class _Gate:
    """Admissions pass while it is open. Who closes it can wait for the last one to have passed."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._inside = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._hopeless = False
        self.is_open = False

    async def enter(self, until: float) -> None:
        """Raises `Unreachable`. Each time it has been passed, `leave` must follow."""
        while True:
            with self._change:
                if self.is_open:
                    self._inside += 1
                    return
                if self._hopeless:
                    raise Unreachable("neither Redis nor the database answers")
                waiting = asyncio.get_running_loop().create_future()
                self._waiting.append(waiting)
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await waiting
            except TimeoutError:
                raise Unreachable(TOO_LATE) from None

    def leave(self) -> None:
        with self._change:
            self._inside -= 1
            if not self._inside:
                self._change.notify_all()

    def close(self) -> None:
        with self._change:
            self.is_open = False

    def is_clear(self, seconds: float) -> bool:
        """After `close`: whether nobody is inside any more."""
        with self._change:
            return self._change.wait_for(lambda: not self._inside, seconds)

    def open(self) -> None:
        with self._change:
            self.is_open, self._hopeless = True, False
            self._wake()

    def expect(self, *, hope: bool) -> None:
        """Whether it is worth while to wait for it to open."""
        with self._change:
            self._hopeless = not hope and not self.is_open
            if self._hopeless:
                self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            with suppress(RuntimeError):  # its loop has ended
                each.get_loop().call_soon_threadsafe(_wake, each)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class _Pulse:
    """Whether Redis, or the database, answers, and since when."""

    def __init__(self) -> None:
        self.is_up = False
        self._since = time.monotonic()

    def note(self, *, is_up: bool, since: float) -> None:
        if is_up != self.is_up:
            self.is_up, self._since = is_up, since

    def is_away(self, seconds: float) -> bool:
        return not self.is_up and time.monotonic() - self._since >= seconds

    def is_back(self, seconds: float) -> bool:
        return self.is_up and time.monotonic() - self._since >= seconds


class Counters:
    """A `base.Store`. `watch` and `renew` are called by one background thread.

    `adopt` enters what dead processes of this machine have left in the ledger; `remains` says whether something of a
    process (by its `worker_name`) is not there yet, or it lives.
    """

    def __init__(
        self,
        url: str,
        name: str,
        adopt: Callable[[], object],
        remains: Callable[[str], bool],
        times: Times | None = None,
    ) -> None:
        self._name = name
        self._adopt = adopt
        self._remains = remains
        self._times = times or Times()
        self._shared = Shared(url)
        self._holds = Holds(name)
        self._gate = _Gate()
        self._mirror = Mirror()
        self._pulse = _Pulse()
        self._database_pulse = _Pulse()
        # The epoch, since when this process knows of it, and how far it has come in it.
        self._number = -1
        self._store: Keeper = self._shared
        self._entered = 0.0
        self._is_begun = self._is_acknowledged = self._is_complete = self._is_lost = False
        self._is_answering = self._is_refused = False  # Redis: to a PING; as a store
        self._in_redis = 0  # the number of the epoch that it knows
        self._breaks = 0
        self._short_epochs = 0
        self._beat = 0.0
        self._missing: list[str] = []  # who is waited for
        self._is_closed = False
        self._trouble = "nothing is known yet"
        self._reading: dict[tuple[str, ...], asyncio.Task[str]] = {}
        self._database = ThreadPoolExecutor(1, "kodna-epochs")
        self._asked: Future[Any] | None = None

    # --- the store ---------------------------------------------------------------------------------------------------

    async def admit(self, wish: Wish, /) -> Grant:
        return await self._ask(wish, is_new=True)

    async def adjust(self, wish: Wish, /) -> Grant:
        return await self._ask(wish, is_new=False)

    async def _ask(self, wish: Wish, *, is_new: bool) -> Grant:
        if not wish.funds:
            return await self._count(wish, is_new=is_new)
        until = time.monotonic() + self._times.patience
        while time.monotonic() < until:
            await self._gate.enter(until)
            store = self._store
            try:
                grant = await (store.admit(wish) if is_new else store.adjust(wish))
                self._mirror.hold(wish, grant.held)
                return grant
            except (EpochLost, Unreachable) as trouble:
                self._doubt(store, trouble, wish.id)  # what it has been granted unheard goes
                continue
            except UnknownFunds as unknown:
                names = tuple(unknown.names)
            except asyncio.CancelledError:
                if is_new:
                    store.settle(wish.id, None, None)
                raise
            finally:
                self._gate.leave()
            await self._informed(names)
        raise Unreachable(TOO_LATE)

    async def _informed(self, names: tuple[str, ...]) -> None:
        """One reads for all who ask for the same. Raises `Unreachable`."""
        reading = self._reading.get(names)
        if reading is None:
            reading = self._reading[names] = asyncio.create_task(self._read(names))
            reading.add_done_callback(lambda _: self._reading.pop(names))
        if why := await asyncio.shield(reading):
            raise Unreachable(why)

    async def _read(self, names: tuple[str, ...]) -> str:
        """Tell the store what the ledger says; what went wrong. No move begins before that has ended."""
        try:
            await self._gate.enter(time.monotonic() + self._times.patience)
        except Unreachable as trouble:
            return str(trouble)
        store = self._store
        job = self._holds.threads.submit(in_database, lambda: store.learn(read(names)))
        job.add_done_callback(lambda _: self._gate.leave())
        try:
            await asyncio.wrap_future(job)
        except DatabaseError as error:
            return f"the database: {error}"
        except (EpochLost, Unreachable) as trouble:
            self._doubt(store, trouble)
        return ""

    async def _count(self, wish: Wish, *, is_new: bool) -> Grant:
        """Limits alone: at once, wherever it can be."""
        if self._pulse.is_up:
            try:
                return await (self._shared.admit(wish) if is_new else self._shared.adjust(wish))
            except Unreachable:
                pass  # counted here, then
        return await (self._holds.admit(wish) if is_new else self._holds.adjust(wish))

    def settle(self, request_id: str, charge: int | None, tokens: int | None, /) -> None:
        self._mirror.settle(request_id, charge)
        self._shared.settle(request_id, charge, tokens)  # each has its limits, wherever the hold is
        self._holds.settle(request_id, charge, tokens)

    def held(self, request_id: str, charge: int, funds: Sequence[str], /) -> None:
        store = self._mirror.held(request_id, charge, funds)
        self._tell(store, lambda keeper: keeper.held(request_id, charge, funds), [request_id])

    def landed(self, request_ids: Iterable[str], amounts: Amounts, /) -> None:
        ids = list(request_ids)
        self._tell(self._mirror.landed(ids, amounts), lambda keeper: keeper.landed(ids, amounts), ids, amounts)

    def learn(self, amounts: Amounts, /) -> None:
        """Of funds that the store knows: when these were read, the epoch may have been another."""
        self.landed((), amounts)

    def _tell(
        self,
        store: Keeper | None,
        say: Callable[[Keeper], None],
        request_ids: Sequence[str],
        amounts: Amounts | None = None,
    ) -> None:
        if store is None:  # then `watch` tells of it, while there is one
            if not self._is_closed:
                return
            store = self._store
        try:
            say(store)
        except (EpochLost, Unreachable, DatabaseError) as trouble:
            self._mirror.missed(request_ids, amounts)
            self._doubt(store, trouble)

    def _doubt(self, store: Keeper, trouble: Exception, *request_ids: str) -> None:
        """Nobody is admitted until `watch` has looked, and has told again what is held."""
        if store is not self._store:
            return
        if self._gate.is_open:
            logger.info("counters: %s: %s", type(trouble).__name__, trouble)
        self._gate.close()
        self._mirror.missed(request_ids)

    def renew(self) -> None:
        """Raises `DatabaseError`."""
        self._holds.renew()
        if self._pulse.is_up:
            try:
                self._shared.renew()
            except (EpochLost, Unreachable) as trouble:
                self._doubt(self._shared, trouble)
        rows = self._ask_database(database.others, self._name)
        self._forget({name: silent for name, (_, silent) in rows.items() if silent > self._times.silent})

    async def left(self, limits: tuple[Limit, ...], /) -> Grant:
        if self._pulse.is_up:
            with suppress(Unreachable):
                return await self._shared.left(limits)
        return await self._holds.left(limits)

    def close(self) -> None:
        """Its row stays, until others find that nothing of its journal is left. Charges may still land."""
        self._is_closed = True
        self._gate.close()
        self._gate.expect(hope=False)
        self._shared.close()
        self._holds.close()
        self._database.shutdown(wait=False, cancel_futures=True)

    # --- the watch ---------------------------------------------------------------------------------------------------

    @property
    def degraded(self) -> str:
        """Why the counters are not in Redis; empty: they are."""
        if not self._gate.is_open:
            why = f"waiting for {', '.join(self._missing)}" if self._missing else self._trouble
            return f"no credit can be held at the moment: {why or 'the counters are being moved'}"
        if self._store is self._holds:
            return "Redis is away: each process counts limits by itself, credit is held in the database"
        return self._trouble

    def watch(self) -> None:
        """Several times a second: does Redis answer, has anybody moved, must somebody?"""
        self._ping()
        self._check()
        try:
            self._look()
            self._trouble = ""
        except DatabaseError as error:
            self._trouble = f"the database is away: {error}".splitlines()[0]
            self._go_on()
        self._database_pulse.note(is_up=not self._trouble, since=time.monotonic())
        self._gate.expect(hope=not self._database_pulse.is_away(self._times.hope))

    def _ping(self) -> None:
        begun = time.monotonic()
        try:
            self._in_redis = self._shared.ping() or 0
            self._is_answering = True
        except Unreachable:
            self._is_answering = False
        self._pulse.note(is_up=self._is_answering and not self._is_refused, since=begun)

    def _check(self) -> None:
        """Something that nobody waits for has failed, or Redis was emptied: all is told again."""
        breaks = self._store.breaks
        is_emptied = self._store is self._shared and self._is_answering and self._in_redis != self._number
        if breaks != self._breaks or is_emptied:
            self._breaks = breaks
            self._gate.close()
            self._mirror.missed()

    def _look(self) -> None:
        """Raises `DatabaseError`."""
        if self._number < 0:
            number, where = self._ask_database(database.join, self._name)
        else:
            number, where = self._ask_database(database.current)
        if number != self._number:
            self._arrive(number, where)
        is_told = self._is_told()
        if (wanted := self._wanted()) is not None:
            is_told = self._move(wanted) and self._is_told()
        if is_told:
            self._open()

    def _wanted(self) -> Where | None:
        """Where to move to; None: all is well."""
        times = self._times
        if self._store is self._holds:
            back = min(times.longest_back, times.back * 2**self._short_epochs)
            if self._pulse.is_back(back):
                return Where.REDIS
            return Where.DATABASE if self._is_lost else None
        if self._pulse.is_away(times.away):
            return Where.DATABASE
        if self._is_lost and self._pulse.is_up:
            return Where.DATABASE if self._short_epochs > 1 and self._is_short() else Where.REDIS
        return None

    def _is_short(self) -> bool:
        return time.monotonic() - self._entered < self._times.short

    def _move(self, where: Where) -> bool:
        number = max(self._number, self._in_redis) + 1  # a database that was made anew counts from the beginning
        if not self._ask_database(database.move, self._number, number, where.value):
            return False  # somebody else was quicker
        logger.warning("counters: epoch %d begins in %s", number, where.value)
        if where is Where.REDIS:
            with suppress(EpochLost, Unreachable):  # seen in a moment, when it is told
                self._shared.begin(number)
        self._arrive(number, where.value)
        return True

    def _arrive(self, number: int, where: str) -> None:
        self._gate.close()
        self._mirror.missed()
        if self._store is self._shared and self._number > 0:
            self._short_epochs = self._short_epochs + 1 if self._is_short() else 0
        self._store = self._shared if where == Where.REDIS else self._holds
        self._number = number
        self._breaks = self._store.breaks
        self._entered = time.monotonic()
        self._missing = []
        self._is_begun = self._is_acknowledged = self._is_complete = self._is_lost = self._is_refused = False

    def _is_told(self) -> bool:
        """The store knows what this process's requests hold; else it is told now. Raises `DatabaseError`."""
        if self._mirror.direct is not None:
            return True
        self._gate.close()
        if not self._gate.is_clear(self._times.answer) or (self._store is self._shared and not self._is_answering):
            return False
        self._store.epoch = self._number
        try:
            if isinstance(self._store, Shared):
                self._store.drop()  # what has not been answered must not be done after this
                self._breaks = self._store.breaks
                self._mirror.tell(self._store)
            else:
                self._ask_database(self._mirror.tell, self._store, seconds=self._times.telling)
        except EpochLost:
            late = time.monotonic() - self._entered >= self._times.begun
            self._is_lost = self._is_begun or late or self._number == 0
            return False
        except Unreachable as error:
            self._is_refused = True  # it may well say PONG: it is no store
            self._pulse.note(is_up=False, since=time.monotonic())
            logger.info("counters: Redis: %s", error)
            return False
        self._is_begun, self._is_refused = True, False
        return True

    def _open(self) -> None:
        """Once all others have come as far. Raises `DatabaseError`."""
        now = time.monotonic()
        if not self._is_acknowledged or now - self._beat >= self._times.beat:
            self._beat = now
            self._is_acknowledged = self._ask_database(database.acknowledge, self._name, self._number)
            if not self._is_acknowledged:  # the others have gone on without us: all is told again
                self._ask_database(database.join, self._name)
                self._is_lost = True
                return
        if not self._is_complete:
            self._missing = self._wait_for()
            self._is_complete = not self._missing
        if self._is_complete and not self._gate.is_open and self._mirror.direct is not None:
            self._gate.open()

    def _wait_for(self) -> list[str]:
        """Who has not acknowledged the epoch, or may have been killed and has left something."""
        late = self._late()
        if late:
            self._adopt()
            late = self._late()
        return sorted(late.keys() - self._forget(late))

    def _late(self) -> dict[str, float]:
        rows, quiet = self._ask_database(database.others, self._name), self._times.quiet
        # Who is beyond this epoch may never have been in it.
        return {name: silent for name, (epoch, silent) in rows.items() if epoch != self._number or silent > quiet}

    def _forget(self, silent: Mapping[str, float]) -> set[str]:
        gone = {name for name, seconds in silent.items() if self._is_gone(name, seconds)}
        if gone:
            self._ask_database(database.forget, gone)
        return gone

    def _is_gone(self, name: str, silent: float) -> bool:
        if self._remains(name):
            return False
        return name.split("-")[0] == self._name.split("-")[0] or silent > self._times.silent

    def _go_on(self) -> None:
        """Without the database: in Redis, where that had been agreed upon."""
        if self._store is self._shared and self._is_complete and self._is_told():
            self._gate.open()

    def _ask_database(self, function: Callable[..., T], *args: object, seconds: float | None = None) -> T:
        """In a thread of its own, one question at a time. Raises `DatabaseError`, also where there is no answer."""
        if self._asked is not None and not self._asked.done():
            raise OperationalError("it still does not answer")
        self._asked = asked = self._database.submit(in_database, function, *args)
        try:
            found: T = asked.result(seconds or self._times.answer)
        except TimeoutError:
            raise OperationalError("it does not answer in time") from None
        return found
