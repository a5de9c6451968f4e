"""How often models and their providers have answered, by the hour: from the attempts of the rows of usage.

`usage` adds to the sums in its transaction, so that they are as exact as the rows; `tasks` deletes old hours;
`standing` reads them. What the client is to blame for, or nobody (a refused request, one that was left, a provider that
was not asked), counts neither as good nor as bad. A model of which nobody could be asked has failed all the same.
"""

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from accounts import bulk
from proxy.models import UptimeHour, UsageRecord

logger = logging.getLogger(__name__)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DAYS = 7  # that are shown, today among them
KEPT = 8 * DAY
FRESH_SECONDS = 10.0
PATIENCE = 1.0  # seconds for another's look at the database: after that, what is known has to do

COLUMNS = ("created_at", "model", "outcome", "error_code", "attempts")
CLIENTS = ""  # in the place of the provider: the model as its clients saw it
_TABLE = UptimeHour._meta.db_table  # noqa: SLF001
_TYPES = {"start": "timestamptz", "model": "text", "provider": "text", "good": "bigint", "bad": "bigint"}
_MORE = ", ".join(f"{name} = {_TABLE}.{name} + excluded.{name}" for name in ("good", "bad"))
_THEN = f"ON CONFLICT (provider, start, model) DO UPDATE SET {_MORE}"

_FAULTS = frozenset({"connect", "timeout", "broken", "status", "malformed", "error"})  # of `ProviderFault`, but busy
_NOT_MADE = frozenset({"busy", "lossy", "not_allowed", "rests", "skipped"})
_BROKEN_OFF = "incomplete"
_BY_PROVIDER = "provider_"  # begins the codes of what is a provider's doing, not the gateway's: it was stopped, say


class _Tried(msgspec.Struct, frozen=True, gc=False):
    """Of `usage.Attempt`, what is looked at."""

    provider: str = ""
    reason: str = ""
    of: str = ""


_read = msgspec.json.Decoder(tuple[_Tried, ...]).decode


# --- adding ----------------------------------------------------------------------------------------------------------


def add(rows: Iterable[Sequence[str]]) -> None:
    """Rows that have just been stored: of each its `COLUMNS`. Inside the caller's transaction.

    Most rows of an hour tell the same story: each is looked at once. Hours that `forget` would delete are left out.
    """
    oldest = bulk.moment(time.time() - KEPT.total_seconds())
    stories = Counter(
        (moment[:13], model, outcome, code, _read(attempts))
        for moment, model, outcome, code, attempts in rows
        if attempts != "[]" and moment > oldest
    )
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for (hour, named, outcome, code, tried), times in stories.items():
        for model, provider, good in _verdicts(named, outcome, code, tried):
            sums[f"{hour}:00:00", model, provider][not good] += times
    bulk.insert(_TABLE, _TYPES, [(*key, *counts) for key, counts in sorted(sums.items())], _THEN)


def _verdicts(model: str, outcome: str, code: str, tried: Sequence[_Tried]) -> Iterator[tuple[str, str, bool]]:
    """(model, provider, whether it was good). Of a model, its last attempt is what its clients saw."""
    last: dict[str, bool | None] = {}
    for attempt in tried:
        if attempt.reason in _NOT_MADE:
            continue
        name = attempt.of or model
        last[name] = good = _verdict(attempt.reason, outcome, code)
        if good is not None:
            yield name, attempt.provider, good
    for name, good in last.items():
        if good is not None:
            yield name, CLIENTS, good
    if not last and outcome == UsageRecord.Outcome.FAILED:  # nobody could be asked: its clients got no answer
        yield model, CLIENTS, False


def _verdict(reason: str, outcome: str, code: str) -> bool | None:
    if reason in _FAULTS:
        return False
    if not reason and outcome == UsageRecord.Outcome.COMPLETE:
        return True
    return False if reason == _BROKEN_OFF and code.startswith(_BY_PROVIDER) else None


def forget() -> int:
    """Delete hours that are older than `KEPT`; returns how many."""
    return UptimeHour.objects.filter(start__lt=timezone.now() - KEPT - HOUR).delete()[0]


# --- reading ---------------------------------------------------------------------------------------------------------


class Count(NamedTuple):
    good: int = 0
    bad: int = 0

    @property
    def requests(self) -> int:
        return self.good + self.bad

    @property
    def uptime(self) -> float | None:
        """The part that was answered; None: there was nothing."""
        return self.good / self.requests if self.requests else None


_NOTHING = Count()


@dataclass(frozen=True, slots=True, eq=False)
class Week:
    """What clients saw in the last days (UTC), today among them: of models that were asked for.

    `hours`: by the number of hours since `start`.
    """

    start: datetime
    hours: Mapping[str, Mapping[int, Count]]
    days: Mapping[str, tuple[Count, ...]]
    whole: Mapping[str, Count]

    def of(self, model: str) -> Count:
        return self.whole.get(model, _NOTHING)

    def recent(self, model: str, now: float) -> tuple[float, float]:
        """(good, bad) of the last hour: of the one before this one, as large a part as is not an hour ago."""
        hours = self.hours.get(model, {})
        hour, passed = divmod((now - self.start.timestamp()) / 3600, 1)
        this, before = hours.get(int(hour), _NOTHING), hours.get(int(hour) - 1, _NOTHING)
        return this.good + (1 - passed) * before.good, this.bad + (1 - passed) * before.bad


def summed(hours: Mapping[int, Count], span: int) -> tuple[Count, ...]:
    """By so many hours each."""
    found = [[0, 0] for _ in range(DAYS * 24 // span)]
    for hour, (good, bad) in hours.items():
        if hour < DAYS * 24:  # another host's clock may be in tomorrow
            found[hour // span][0] += good
            found[hour // span][1] += bad
    return tuple(Count(*each) for each in found)


def week(now: datetime) -> Week:
    """Raises `DatabaseError`."""
    start = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - (DAYS - 1) * DAY
    hours: dict[str, dict[int, Count]] = defaultdict(dict)
    rows = UptimeHour.objects.filter(provider=CLIENTS, start__gte=start)
    for model, moment, *counts in rows.values_list("model", "start", "good", "bad"):
        hours[model][(moment - start) // HOUR] = Count(*counts)
    days = {model: summed(of, 24) for model, of in hours.items()}
    whole = {model: Count(*map(sum, zip(*of, strict=True))) for model, of in days.items()}
    return Week(start, hours, days, whole)


class Latest:
    """The week as it was read last, some seconds ago at most, for all who ask in this process. None: never yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        self.known: Week | None = None
        self._until = 0.0
        self._trouble = ""

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() < self._until

    def read(self) -> Week | None:
        """Not on the event loop. While the database is away, what is known stays, and few wait for it."""
        if not self.is_fresh and self._lock.acquire(timeout=PATIENCE):
            try:
                if not self.is_fresh:
                    self._look()
            finally:
                self._lock.release()
        return self.known

    def _look(self) -> None:
        try:
            self.known, self._trouble = week(timezone.now()), ""
        except (DatabaseError, InterfaceError) as error:
            self._complain(f"{type(error).__name__}: {error}".splitlines()[0])
        self._until = time.monotonic() + FRESH_SECONDS

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning("uptime cannot be read: %s", trouble)
        self._trouble = trouble


latest = Latest()
