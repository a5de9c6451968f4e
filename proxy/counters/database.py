"""What the database keeps of the counters: the epochs, and the holds while Redis is away. Caller: `failover`.

`Holds` is the store of such an epoch. Limits are those of this process alone, by a `Memory`. An admission is one
transaction: it stands in the epoch (whoever moves on waits for it), is the only one at its funds, and sums what is
held *before* it reads the ledger. A charge that lands between the two, with its hold deleted in the same transaction
(`release`), then counts twice and never not at all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Q, Sum
from django.db.models.functions import Now
from django.utils import timezone

from accounts.credits import Fund, read
from accounts.keys import Limit
from proxy.counters.base import (
    HOLD_SECONDS,
    Amounts,
    EpochLost,
    Grant,
    Holding,
    NotAffordable,
    Unreachable,
    Wish,
)
from proxy.counters.memory import Memory
from proxy.models import CounterEpoch, CounterWorker, Hold

logger = logging.getLogger(__name__)

THREADS = 4  # database connections at once, of the pool's ten
CHUNK = 500  # requests in a transaction
WAIT_SECONDS = 10.0  # for an admission
_LOCKS = 0x6B6F  # our class of PostgreSQL's advisory locks
_TABLE = CounterEpoch._meta.db_table  # noqa: SLF001
_EPOCH_ROW = 1

P = ParamSpec("P")
T = TypeVar("T")


def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """For a thread that is not the caller's own: its connection goes back to the pool at once."""
    try:
        return function(*args, **kwargs)
    finally:
        connection.close()


# --- epochs ----------------------------------------------------------------------------------------------------------


def current() -> tuple[int, str]:
    """The epoch's number and its store."""
    found = CounterEpoch.objects.filter(pk=_EPOCH_ROW).values_list("number", "store").first()
    return found or (0, CounterEpoch.Store.REDIS.value)


def join(worker: str) -> tuple[int, str]:
    """A process begins. Whoever moves on from the epoch that it is told of sees its row and waits for it."""
    CounterEpoch.objects.bulk_create([CounterEpoch(pk=_EPOCH_ROW)], ignore_conflicts=True)
    with transaction.atomic():
        number = _stand_in_epoch()
        CounterWorker.objects.update_or_create(name=worker, defaults={"epoch": number, "seen_at": Now()})
        return current()


def move(number: int, new: int, store: str) -> bool:
    """From an epoch to a new one, which is in `store`. False: somebody else was quicker."""
    with transaction.atomic():
        here = CounterEpoch.objects.filter(pk=_EPOCH_ROW, number=number)
        if not here.update(number=new, store=store):
            return False
        if store == CounterEpoch.Store.DATABASE:
            Hold.objects.all().delete()  # of an epoch long past
        return True


def acknowledge(worker: str, number: int) -> bool:
    """It lives, and all that it holds is in the epoch's store. False: the others have written it off."""
    return bool(CounterWorker.objects.filter(name=worker).update(epoch=number, seen_at=Now()))


def others(worker: str) -> dict[str, tuple[int, float]]:
    """The epoch that each has acknowledged, and for how many seconds it has not been heard of."""
    rows = CounterWorker.objects.exclude(name=worker).annotate(now=Now())
    return {row.name: (row.epoch, (row.now - row.seen_at).total_seconds()) for row in rows}


def forget(workers: Iterable[str]) -> None:
    CounterWorker.objects.filter(name__in=list(workers)).delete()


def _stand_in_epoch() -> int:
    """Inside a transaction: its number, which stays as long as the transaction lasts."""
    alone = "" if connection.vendor == "sqlite" else " FOR SHARE"  # SQLite's transactions are IMMEDIATE
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT number FROM {_TABLE} WHERE id = %s{alone}", [_EPOCH_ROW])  # noqa: S608  # our own names
        found = cursor.fetchone()
    return int(found[0]) if found else 0


def _must_be(epoch: int) -> None:
    if _stand_in_epoch() != epoch:
        raise EpochLost


# --- holds -----------------------------------------------------------------------------------------------------------


def release(request_ids: Iterable[str]) -> None:
    """Their charges land: called inside the transaction that enters them. Nothing is there where no Redis is used."""
    if not settings.REDIS_URL:
        return
    _release(request_ids)


def _release(request_ids: Iterable[str]) -> None:
    ids = iter(request_ids)
    while part := list(islice(ids, CHUNK)):
        _delete(part)


def reap() -> int:
    """A job: take away what nobody has renewed; admissions do not count it any more. Returns how many."""
    return Hold.objects.filter(expires_at__lt=timezone.now()).delete()[0]


def _delete(request_ids: Sequence[str]) -> None:
    """In one order, in every process: two that delete the same do not wait for each other."""
    rows = Hold.objects.select_for_update().filter(request_id__in=request_ids).order_by("request_id", "fund")
    with transaction.atomic():
        if found := list(rows.values_list("pk", flat=True)):
            Hold.objects.filter(pk__in=found).delete()


def _hold(epoch: int, worker: str, wish: Wish) -> tuple[int, int]:
    """In place of what the request held: what it holds now, and what could be held beyond it."""
    with transaction.atomic():
        _must_be(epoch)
        _lock(wish.funds)
        others = _held_by_others(wish)
        amounts = read(fund.name for fund in wish.funds)
        available, fund = _least_of(wish, amounts, others)
        if available < wish.least:
            raise NotAffordable(fund, available, others.get(fund.name, 0))
        held = max(0, min(wish.amount, available))
        _write(worker, {wish.id: Holding(tuple(fund.name for fund in wish.funds), held, settled=False)})
    return held, max(0, available - held)


def _lock(funds: Sequence[Fund]) -> None:
    """Until the transaction's end nobody else is admitted there. In one order: no deadlock."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            for name in sorted(fund.name for fund in funds):
                cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [_LOCKS, name])


def _held_by_others(wish: Wish) -> dict[str, int]:
    alive = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
    rows = Hold.objects.filter(alive, fund__in=[fund.name for fund in wish.funds]).exclude(request_id=wish.id)
    return {name: int(held) for name, held in rows.values_list("fund").annotate(Sum("amount")).order_by()}


def _least_of(wish: Wish, amounts: Amounts, others: Mapping[str, int]) -> tuple[int, Fund]:
    """What is available in the fund that has the least, or in the first that has too little."""
    least: tuple[int, Fund] | None = None
    for fund in wish.funds:
        available = amounts[fund.name][1] + fund.room - others.get(fund.name, 0)
        if least is None or (available < least[0] and least[0] >= wish.least):
            least = available, fund
    assert least is not None, "a wish for credit names its funds"
    return least


def _write(worker: str, holds: Mapping[str, Holding | None]) -> None:
    """Inside a transaction: each becomes exactly that; None: it goes."""
    _delete(list(holds))
    expires = timezone.now() + timedelta(seconds=HOLD_SECONDS)
    Hold.objects.bulk_create(
        Hold(
            request_id=request_id,
            fund=fund,
            amount=hold.amount,
            worker=worker,
            expires_at=None if hold.settled else expires,
        )
        for request_id, hold in sorted(holds.items())
        if hold is not None
        for fund in hold.funds
    )


def _register(epoch: int, worker: str, holds: Mapping[str, Holding | None]) -> None:
    items = iter(sorted(holds.items(), key=lambda item: item[0]))
    part: dict[str, Holding | None] = {}
    while part := dict(islice(items, CHUNK)):
        with transaction.atomic():
            _must_be(epoch)
            _write(worker, part)
    if not holds:
        with transaction.atomic():
            _must_be(epoch)


def _settle(request_id: str, charge: int | None) -> None:
    """Only what is there: the charge may have landed already."""
    rows = Hold.objects.filter(request_id=request_id)
    if charge:
        rows.update(amount=charge, expires_at=None)
    else:
        rows.delete()


def _renew(worker: str) -> None:
    expires = timezone.now() + timedelta(seconds=HOLD_SECONDS)
    Hold.objects.filter(worker=worker, expires_at__isnull=False).update(expires_at=expires)


class Holds:
    """A `base.Store` of epochs in the database, which is asked in `threads`. `breaks`: how often one has failed."""

    def __init__(self, worker: str) -> None:
        self.epoch = 0
        self.breaks = 0
        self._worker = worker
        self._limits = Memory()
        self._known: set[str] = set()  # requests that hold something here
        self._asking: dict[str, Future[Any]] = {}  # requests whose hold is being decided
        self.threads = ThreadPoolExecutor(THREADS, "kodna-holds")
        self._closed = False

    async def admit(self, wish: Wish, /) -> Grant:
        return await self._decide(wish, self._limits.admit)

    async def adjust(self, wish: Wish, /) -> Grant:
        return await self._decide(wish, self._limits.adjust)

    async def _decide(self, wish: Wish, count: Callable[[Wish], Awaitable[Grant]]) -> Grant:
        grant = await count(replace(wish, funds=(), amount=0, least=0)) if wish.limits else Grant()
        if not wish.funds:
            return grant
        try:
            held, spare = await self._hold(wish)
        except BaseException:
            if wish.limits:
                self._limits.withdraw(wish.id)
            raise
        return grant._replace(held=held, spare=spare)

    async def _hold(self, wish: Wish) -> tuple[int, int]:
        before = self._asking.get(wish.id)
        if before is not None and not before.done():
            raise Unreachable("the database still does not answer")
        job = self.threads.submit(in_database, _hold, self.epoch, self._worker, wish)
        self._asking[wish.id] = job
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                found = await asyncio.wrap_future(job)
        except (DatabaseError, TimeoutError) as error:
            raise Unreachable(f"the database: {error}") from error
        finally:
            if job.done():  # else this task does not wait for it any more: `settle` does
                self._asking.pop(wish.id, None)
        self._known.add(wish.id)
        return found

    def settle(self, request_id: str, charge: int | None, tokens: int | None, /) -> None:
        self._limits.settle(request_id, None, tokens)
        asking = self._asking.pop(request_id, None)
        if asking is not None:
            asking.add_done_callback(lambda _: self._later(_settle, request_id, charge))
        elif request_id in self._known:
            self._later(_settle, request_id, charge)
        self._known.discard(request_id)

    def _later(self, function: Callable[..., None], *args: object) -> None:
        if not self._closed:  # else it expires, or lands
            self.threads.submit(in_database, function, *args).add_done_callback(self._look)

    def _look(self, done: Future[None]) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            logger.warning("a hold could not be changed: %s", error)
            self.breaks += 1

    def register(self, holds: Mapping[str, Holding | None], /) -> None:
        """What a process holds, after a move or a failure: each becomes exactly that; None: it goes."""
        _register(self.epoch, self._worker, holds)
        for request_id, hold in holds.items():
            if hold is None or hold.settled:
                self._known.discard(request_id)
            else:
                self._known.add(request_id)

    def held(self, request_id: str, charge: int, funds: Sequence[str], /) -> None:
        self.register({request_id: Holding(tuple(funds), charge, settled=True)})

    def landed(self, request_ids: Iterable[str], amounts: Amounts, /) -> None:
        """Again, after `release`: it may have been registered meanwhile. Amounts are read where they are needed."""
        _release(request_ids)

    def learn(self, amounts: Amounts, /) -> None:
        """Nothing is kept here."""

    def renew(self) -> None:
        self._limits.renew()
        if self._known:
            self._later(_renew, self._worker)

    async def left(self, limits: tuple[Limit, ...], /) -> Grant:
        return await self._limits.left(limits)

    def close(self) -> None:
        """What has been asked for is still done."""
        self._closed = True
        self.threads.shutdown()
