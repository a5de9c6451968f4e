"""Sums of usage by quarter of an hour: moved with the rows, made anew from them, and kept when the rows go.

`usage` adds to them in its transaction, so that they equal the rows at every moment; `tasks` checks and mends them, and
deletes rows that are old; reports, and the ledger's audit (`settings.KEY_SPENDING`), read them.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Min
from django.utils import timezone

from proxy.models import UsageQuarter, UsageRecord

logger = logging.getLogger(__name__)

QUARTER = timedelta(minutes=15)
STRIDE = timedelta(hours=6)  # that are compared at once
BATCH = 2000  # rows that are deleted at once

_ROWS, _SUMS = (model._meta.db_table for model in (UsageRecord, UsageQuarter))  # noqa: SLF001
_KEY = ("start", "account_id", "key_id", "model", "provider")
_NAMES = ("account", "key_prefix", "key_name")
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_FIGURES = ("requests", "errors", *_TOKENS, "cost", "shortfall")
_MADE = {
    "requests": "COUNT(*)",
    "errors": "SUM(CASE WHEN outcome IN ('complete', 'cancelled') THEN 0 ELSE 1 END)",
    **{name: f"SUM({name})" for name in _TOKENS},
    "cost": "COALESCE(SUM(cost), 0)",
    "shortfall": "SUM(shortfall)",
}
_START = {
    "postgresql": "date_bin('15 minutes', created_at, timestamptz '2000-01-01 00:00:00+00')",
    # Text, in Django's way of writing it.
    "sqlite": "substr(created_at, 1, 14) || CASE WHEN substr(created_at, 15, 2) < '15' THEN '00:00' "
    "WHEN substr(created_at, 15, 2) < '30' THEN '15:00' WHEN substr(created_at, 15, 2) < '45' THEN '30:00' "
    "ELSE '45:00' END",
}
# As one value: hundreds of them take the drivers longer than the database.
_IDS = {"postgresql": "SELECT json_array_elements_text(%s)", "sqlite": "SELECT value FROM json_each(%s)"}
_DAY = {"postgresql": "CAST(CAST(start AT TIME ZONE 'UTC' AS date) AS text)", "sqlite": "substr(start, 1, 10)"}


def _insert(where: str) -> str:
    """In one order everywhere, so that processes which move the same sums do not wait for each other in a circle."""
    made = [_START[connection.vendor], "COALESCE(account_id, 0)", "COALESCE(key_id, 0)", "model", "provider"]
    made += [f"MAX({name})" for name in _NAMES] + [_MADE[name] for name in _FIGURES]
    return (
        f"INSERT INTO {_SUMS} ({', '.join([*_KEY, *_NAMES, *_FIGURES])}) "  # noqa: S608  # names of our own
        f"SELECT {', '.join(made)} FROM {_ROWS} WHERE {where} GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
    )


def add(request_ids: Sequence[str]) -> None:
    """Rows that have just been stored; inside the caller's transaction."""
    if request_ids:
        moved = [f"{name} = {_SUMS}.{name} + excluded.{name}" for name in _FIGURES]
        moved += [f"{name} = excluded.{name}" for name in _NAMES]
        once = f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {', '.join(moved)}"
        _run(f"{_insert(f'request_id IN ({_IDS[connection.vendor]})')} {once}", [json.dumps(request_ids)])


def rebuild(since: datetime, until: datetime) -> int:
    """Make the sums of these quarters of an hour anew where they differ from the rows; returns how many differed.

    Each difference is logged. Quarters whose rows have been deleted, or may have been, are left as they are.
    """
    start, count = _first(since), 0
    while start is not None and start < until:
        end = min(start + STRIDE, _floor(until - timedelta(microseconds=1)) + QUARTER)
        differing = list(_differing(start, end))
        for quarter in sorted({quarter for quarter, _ in differing}):
            _make(quarter)
        for quarter, words in differing:
            logger.error("sums of usage differed from the rows and were made anew: %s %s", quarter, words)
        count += len(differing)
        start = end
    return count


def _first(since: datetime) -> datetime | None:
    """The first quarter from `since` on whose rows are all there."""
    oldest = UsageRecord.objects.aggregate(oldest=Min("created_at"))["oldest"]
    if oldest is None:
        return None
    first = _floor(oldest)
    if UsageQuarter.objects.filter(start__lt=first).exists():  # older rows have been deleted, perhaps some of these
        first += QUARTER
    return max(_floor(since), first, _cutoff() or first)


def _differing(start: datetime, end: datetime) -> Iterator[tuple[datetime, str]]:
    """In one statement, which sees rows and sums as they stood at one moment."""
    kept = ", ".join(("CAST(start AS text) AS start", *_KEY[1:], *_FIGURES))
    made = [f"CAST({_START[connection.vendor]} AS text)", "COALESCE(account_id, 0)", "COALESCE(key_id, 0)", *_KEY[3:]]
    less = [f"-{_MADE[name]}" for name in _FIGURES]
    rows = _run(
        f"SELECT {', '.join(_KEY)}, {', '.join(f'SUM({name})' for name in _FIGURES)} FROM ("  # noqa: S608
        f"SELECT {kept} FROM {_SUMS} WHERE start >= %s AND start < %s "
        f"UNION ALL SELECT {', '.join([*made, *less])} FROM {_ROWS} WHERE created_at >= %s AND created_at < %s "
        "GROUP BY 1, 2, 3, 4, 5) both_of_them GROUP BY 1, 2, 3, 4, 5 "
        f"HAVING {' OR '.join(f'SUM({name}) <> 0' for name in _FIGURES)} ORDER BY 1, 2, 3, 4, 5",
        [start, end, start, end],
    )
    for text, *whose in rows:
        wrong = (f"{name} {more:+}" for name, more in zip(_FIGURES, map(int, whose[4:]), strict=True) if more)
        yield datetime.fromisoformat(text).replace(tzinfo=UTC), f"{whose[:4]}: {', '.join(wrong)}"


def _make(quarter: datetime) -> None:
    """Anew from its rows, while nobody adds to any sum."""
    with transaction.atomic():
        if connection.vendor == "postgresql":  # a transaction of SQLite is alone anyway
            _run(f"LOCK TABLE {_SUMS} IN SHARE ROW EXCLUSIVE MODE")
        _run(f"DELETE FROM {_SUMS} WHERE start = %s", [quarter])  # noqa: S608
        _run(_insert("created_at >= %s AND created_at < %s"), [quarter, quarter + QUARTER])


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
    rows = _run(f"SELECT key_id, {_DAY[connection.vendor]}, SUM(cost) FROM {_SUMS} WHERE key_id > 0 GROUP BY 1, 2")  # noqa: S608
    return [(key_id, date.fromisoformat(day), int(amount)) for key_id, day, amount in rows]


def _cutoff() -> datetime | None:
    days = settings.USAGE_DAYS
    return _floor(timezone.now() - timedelta(days=days)) if days else None


def _floor(moment: datetime) -> datetime:
    return moment - (moment - datetime(2000, 1, 1, tzinfo=UTC)) % QUARTER


def _run(statement: str, values: Sequence[str | datetime] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        adapt = connection.ops.adapt_datetimefield_value
        cursor.execute(statement, [adapt(each) if isinstance(each, datetime) else each for each in values])
        return cursor.fetchall() if cursor.description else []
