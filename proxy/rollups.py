"""Sums of usage by quarter of an hour and by day: moved with the rows, made anew from them, and kept when the rows go.

`usage` adds to them in its transaction, so that they equal the rows at every moment; `tasks` checks and mends them, and
deletes rows that are old; reports, and the ledger's audit (`settings.KEY_SPENDING`), read them.

Everywhere the quarters are locked first, then the days, each in the order of their keys: processes that move the same
sums do not wait for each other in a circle.
"""

import functools
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Min
from django.utils import timezone

from accounts import bulk
from proxy.models import UsageDay, UsageQuarter, UsageRecord

logger = logging.getLogger(__name__)

QUARTER, DAY = timedelta(minutes=15), timedelta(days=1)
STRIDE = timedelta(hours=6)  # of rows that are compared at once
BATCH = 2000  # rows that are deleted at once

_ROWS, _QUARTERS, _DAYS = (model._meta.db_table for model in (UsageRecord, UsageQuarter, UsageDay))  # noqa: SLF001
_KEY = ("start", "account_id", "key_id", "model", "provider")
_NAMES = ("account", "key_prefix", "key_name")
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_FIGURES = ("requests", "errors", "cost", "shortfall", *_TOKENS)
COLUMNS = ("created_at", *_KEY[1:], *_NAMES, "outcome", *_FIGURES[2:])
_TYPES = {"start": "timestamptz", "seen": "timestamptz", **dict.fromkeys(("model", "provider", *_NAMES), "text")}
_NO_ERRORS = ("complete", "cancelled")
_BY_ROWS = {
    "requests": "COUNT(*)",
    "errors": f"SUM(CASE WHEN outcome IN {_NO_ERRORS} THEN 0 ELSE 1 END)",
    "cost": "COALESCE(SUM(cost), 0)",
    "shortfall": "SUM(shortfall)",
    **{name: f"SUM({name})" for name in _TOKENS},
}
_BY_SUMS = {name: f"SUM({name})" for name in _FIGURES}
# The beginning of the quarter or day of {0}. SQLite's is text, in Django's way of writing it.
_QUARTER_OF = {
    "postgresql": "date_bin('15 minutes', {0}, timestamptz '2000-01-01 00:00:00+00')",
    "sqlite": "substr({0}, 1, 14) || CASE WHEN substr({0}, 15, 2) < '15' THEN '00:00' "
    "WHEN substr({0}, 15, 2) < '30' THEN '15:00' WHEN substr({0}, 15, 2) < '45' THEN '30:00' ELSE '45:00' END",
}
_DAY_OF = {
    "postgresql": "date_bin('1 day', {0}, timestamptz '2000-01-01 00:00:00+00')",
    "sqlite": "substr({0}, 1, 10) || ' 00:00:00'",
}
_LATEST = {"postgresql": "(array_agg({0} ORDER BY start DESC))[1]", "sqlite": "substr(MAX(start || {0}), 20)"}
_DATE = {"postgresql": "CAST(CAST(start AT TIME ZONE 'UTC' AS date) AS text)", "sqlite": "substr(start, 1, 10)"}

_Parts = dict[tuple[Any, ...], list[tuple[Any, ...]]]  # what is summed, by `_KEY`


@dataclass(frozen=True)
class _Sums:
    """A table of sums of a span each, and what they are made of. `moment`: the column there that says when."""

    table: str
    span: timedelta
    start: dict[str, str]
    source: str
    moment: str
    figures: dict[str, str]

    def made(self) -> list[str]:
        """The columns of `_KEY`."""
        start = self.start[connection.vendor].format(self.moment)
        return [start, "COALESCE(account_id, 0)", "COALESCE(key_id, 0)", "model", "provider"]

    def names(self) -> dict[str, str]:
        name_of = "MAX({0})" if self.source == _ROWS else _LATEST[connection.vendor]
        names = {name: name_of.format(name) for name in _NAMES}
        return {**names, "seen": f"MAX({self.moment})"} if self.table == _DAYS else names

    def insert(self, where: str) -> str:
        made = [*self.made(), *self.names().values(), *self.figures.values()]
        return (
            f"INSERT INTO {self.table} ({', '.join([*_KEY, *self.names(), *self.figures])}) "  # noqa: S608  # our own
            f"SELECT {', '.join(made)} FROM {self.source} WHERE {where} GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
        )

    def replace(self, start: datetime) -> None:
        _run(f"DELETE FROM {self.table} WHERE start = %s", [start])  # noqa: S608
        _run(self.insert(f"{self.moment} >= %s AND {self.moment} < %s"), [start, start + self.span])


_QUARTERS_OF_ROWS = _Sums(_QUARTERS, QUARTER, _QUARTER_OF, _ROWS, "created_at", _BY_ROWS)
_DAYS_OF_QUARTERS = _Sums(_DAYS, DAY, _DAY_OF, _QUARTERS, "start", _BY_SUMS)  # rows are deleted, quarters are not


def add(rows: Iterable[Sequence[Any]]) -> None:
    """Rows that have just been stored: of each its `COLUMNS`. Inside the caller's transaction."""
    parts: _Parts = defaultdict(list)
    for moment, account_id, key_id, model, provider, account, prefix, name, outcome, cost, *figures in rows:
        key = (_quarter(moment[:16]), account_id or 0, key_id or 0, model, provider)
        parts[key].append((moment, account, prefix, name, 1, outcome not in _NO_ERRORS, cost or 0, *figures))
    quarters = _summed(parts)
    days: _Parts = defaultdict(list)
    for (start, *whose), sums in quarters:
        days[f"{start[:10]} 00:00:00", *whose].append(sums)
    _add(_QUARTERS, (*_NAMES, *_FIGURES), [(*key, *sums[1:]) for key, sums in quarters])
    _add(_DAYS, ("seen", *_NAMES, *_FIGURES), [(*key, *sums) for key, sums in _summed(days)])


def _summed(parts: _Parts) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """In the order of their keys. Of what is seen and of names, the greatest; of figures, the sums."""
    found = []
    for key, part in sorted(parts.items()):
        columns = list(zip(*part, strict=True))
        first = 1 + len(_NAMES)
        found.append((key, (*map(max, columns[:first]), *map(sum, columns[first:]))))
    return found


def _add(table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    moved = [f"{name} = {table}.{name} + excluded.{name}" for name in _FIGURES]
    moved += [f"{name} = excluded.{name}" for name in names if name not in _FIGURES]
    columns = {name: _TYPES.get(name, "bigint") for name in (*_KEY, *names)}
    bulk.insert(table, columns, rows, f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {', '.join(moved)}")


@functools.lru_cache(64)
def _quarter(minute: str) -> str:
    return f"{minute[:14]}{int(minute[14:]) // 15 * 15:02d}:00"


def rebuild(since: datetime, until: datetime) -> int:
    """Make the sums of these quarters of an hour, and of their days, anew where they differ; returns how many did.

    Each difference is logged. Quarters whose rows have been deleted, or may have been, are left as they are; days are
    compared with their quarters.
    """
    start, count = _first(since), 0
    while start is not None and start < until:
        end = min(start + STRIDE, _floor(until - timedelta(microseconds=1)) + QUARTER)
        count += _mend(_QUARTERS_OF_ROWS, start, end)
        start = end
    day = _floor(since, DAY)
    while day < until:
        count += _mend(_DAYS_OF_QUARTERS, day, day + DAY)
        day += DAY
    return count


def _mend(sums: _Sums, start: datetime, end: datetime) -> int:
    differing = list(_differing(sums, start, end))
    for moment in sorted({moment for moment, _ in differing}):
        _make(moment, sums)
    for moment, words in differing:
        logger.error("sums of usage differed and were made anew: %s from %s %s", sums.table, moment, words)
    return len(differing)


def _first(since: datetime) -> datetime | None:
    """The first quarter from `since` on whose rows are all there."""
    oldest = UsageRecord.objects.aggregate(oldest=Min("created_at"))["oldest"]
    if oldest is None:
        return None
    first = _floor(oldest)
    if UsageQuarter.objects.filter(start__lt=first).exists():  # older rows have been deleted, perhaps some of these
        first += QUARTER
    return max(_floor(since), first, _cutoff() or first)


def _differing(sums: _Sums, start: datetime, end: datetime) -> Iterator[tuple[datetime, str]]:
    """In one statement, which sees both as they stood at one moment."""
    kept = ", ".join(("CAST(start AS text) AS start", *_KEY[1:], *_FIGURES))
    made_start, *made = sums.made()
    less = [f"-{sums.figures[name]}" for name in _FIGURES]
    rows = _run(
        f"SELECT {', '.join(_KEY)}, {', '.join(f'SUM({name})' for name in _FIGURES)} FROM ("  # noqa: S608
        f"SELECT {kept} FROM {sums.table} WHERE start >= %s AND start < %s "
        f"UNION ALL SELECT {', '.join([f'CAST({made_start} AS text)', *made, *less])} FROM {sums.source} "
        f"WHERE {sums.moment} >= %s AND {sums.moment} < %s "
        "GROUP BY 1, 2, 3, 4, 5) both_of_them GROUP BY 1, 2, 3, 4, 5 "
        f"HAVING {' OR '.join(f'SUM({name}) <> 0' for name in _FIGURES)} ORDER BY 1, 2, 3, 4, 5",
        [start, end, start, end],
    )
    for text, *whose in rows:
        wrong = (f"{name} {more:+}" for name, more in zip(_FIGURES, map(int, whose[4:]), strict=True) if more)
        yield datetime.fromisoformat(text).replace(tzinfo=UTC), f"{whose[:4]}: {', '.join(wrong)}"


def _make(start: datetime, sums: _Sums) -> None:
    """Anew, and of a quarter its day with it, while nobody adds to any sum."""
    with transaction.atomic():
        if connection.vendor == "postgresql":  # a transaction of SQLite is alone anyway
            _run(f"LOCK TABLE {_QUARTERS} IN SHARE ROW EXCLUSIVE MODE")
        sums.replace(start)
        if sums is _QUARTERS_OF_ROWS:
            _DAYS_OF_QUARTERS.replace(_floor(start, DAY))


def retain() -> int:
    """Delete rows that are older than `settings.USAGE_DAYS`, of whole quarters; returns how many. Sums stay."""
    cutoff, count = _cutoff(), 0
    while cutoff is not None:
        oldest = UsageRecord.objects.filter(created_at__lt=cutoff).order_by("created_at")
        found = list(oldest.values_list("pk", flat=True)[:BATCH])
        if not found:
            break
        count += UsageRecord.objects.filter(pk__in=found).delete()[0]
    return count


def spending() -> list[tuple[int, date, int]]:
    """What each key has spent on each day (UTC), in picodollars, by these sums."""
    rows = _run(f"SELECT key_id, {_DATE[connection.vendor]}, SUM(cost) FROM {_QUARTERS} WHERE key_id > 0 GROUP BY 1, 2")  # noqa: S608
    return [(key_id, date.fromisoformat(day), int(amount)) for key_id, day, amount in rows]


def _cutoff() -> datetime | None:
    days = settings.USAGE_DAYS
    return _floor(timezone.now() - timedelta(days=days)) if days else None


def _floor(moment: datetime, span: timedelta = QUARTER) -> datetime:
    return moment - (moment - datetime(2000, 1, 1, tzinfo=UTC)) % span


def _run(statement: str, values: Sequence[str | datetime] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        adapt = connection.ops.adapt_datetimefield_value
        cursor.execute(statement, [adapt(each) if isinstance(each, datetime) else each for each in values])
        return cursor.fetchall() if cursor.description else []
