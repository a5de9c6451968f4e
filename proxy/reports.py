"""Who used what, which model, which day: sums over `UsageDay` and `UsageQuarter`, as a table, CSV or JSON.

Callers: `manage.py usage report`, `GET /v1/usage` and the console. Sums are whole picodollars, and never pass through
floating point. A day is a day of the asker's time zone; the zones' offsets are whole quarters of an hour.
"""

import csv
import functools
import io
import operator
import zoneinfo
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, NamedTuple

import msgspec
from django.db import connection
from django.db.models import BigIntegerField, Case, DateField, F, Func, Max, Min, QuerySet, Sum, Value, When
from django.db.models.functions import Cast

from accounts import keys
from accounts.usd import usd
from proxy.models import UsageDay, UsageQuarter

QUARTER, DAY = timedelta(minutes=15), timedelta(days=1)
# What a row can be of: the column that tells it apart.
DIMENSIONS = {"day": "day", "account": "account_id", "key": "key_id", "model": "model", "provider": "provider"}
FIGURES = (
    *("requests", "errors", "prompt_tokens", "cached_tokens", "cache_write_tokens"),
    *("completion_tokens", "reasoning_tokens", "cost", "shortfall"),
)
MONEY = ("cost", "shortfall")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COST, _REQUESTS = FIGURES.index("cost"), FIGURES.index("requests")
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
)  # what a spreadsheet would run: https://owasp.org/www-community/attacks/CSV_Injection


class Unreadable(ValueError):
    """A part of the question: `name` is the option or parameter that cannot be read."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name, self.message = name, message


@dataclass(frozen=True, slots=True)
class Question:
    """`since` and `until` (not included) in UTC, on quarters of an hour; None: from the beginning, until now.

    `accounts`, `keys`, `models`, `providers`: only these; None: all.
    """

    by: tuple[str, ...] = ("model",)
    since: datetime | None = None
    until: datetime | None = None
    zone: tzinfo = UTC
    accounts: frozenset[int] | None = None
    keys: frozenset[int] | None = None
    models: frozenset[str] | None = None
    providers: frozenset[str] | None = None


class Row(NamedTuple):
    """`names`: what it is of, by column. `figures`: as `FIGURES`, money in picodollars."""

    names: dict[str, str]
    figures: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    question: Question
    rows: list[Row]
    total: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        columns = zip(*(row.figures for row in self.rows), strict=True)
        object.__setattr__(self, "total", tuple(map(sum, columns)) or (0,) * len(FIGURES))

    @property
    def columns(self) -> list[str]:
        """Of the names."""
        return [column for name in self.question.by for column in (("key", "key_name") if name == "key" else (name,))]


# --- what is asked ---------------------------------------------------------------------------------------------------


def read(by: str = "", since: str = "", until: str = "", tz: str = "") -> Question:
    """The parts that are text everywhere. Raises `Unreadable`.

    A date means the whole day: `until` its end. A moment is taken to the quarter of an hour that it is in.
    """
    zone = read_zone(tz)
    first = _moment("since", since, zone, last=False) if since else None
    last = _moment("until", until, zone, last=True) if until else None
    if first and last and first >= last:
        raise Unreadable("until", f"{until!r} is before {since!r}: nothing is between them.")
    return Question(_dimensions(by or "model"), first, last, zone)


def _dimensions(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in found:
        if name not in DIMENSIONS:
            raise Unreadable("by", f"{name[:60]!r} is none of {', '.join(DIMENSIONS)}.")
    return found


@functools.cache
def zones() -> frozenset[str]:
    """IANA's names, as far as this machine knows them."""
    return frozenset(zoneinfo.available_timezones())


def read_zone(name: str) -> tzinfo:
    if name in {"", "UTC"}:
        return UTC
    if name not in zones():
        raise Unreadable("tz", f"{name[:60]!r} is no time zone, such as Europe/Berlin.")
    return zoneinfo.ZoneInfo(name)


def _moment(name: str, text: str, zone: tzinfo, *, last: bool) -> datetime:
    try:
        try:
            found = datetime.combine(date.fromisoformat(text) + (DAY if last else timedelta()), time())
        except ValueError:
            found = datetime.fromisoformat(text)
        # A midnight that the clocks skip is the moment in which they do.
        moment = (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
        if not MINYEAR < moment.year < MAXYEAR:  # no day before or after it
            raise OverflowError
        beyond = (moment - _EPOCH) % QUARTER
        return moment - beyond + (QUARTER if last and beyond else timedelta())
    except (ValueError, OverflowError):
        words = f"{text[:60]!r} is no date or time, such as 2026-11-20 or 2026-11-20T12:30+01:00."
        raise Unreadable(name, words) from None


def only(name: str, text: str) -> frozenset[str] | None:
    """This one alone, in a column of text; None: all of them."""
    if "\x00" in text:  # PostgreSQL takes none
        raise Unreadable(name, f"{text[:60]!r} cannot be a name.")
    return frozenset({text}) if text else None


def account_ids(name: str) -> frozenset[int]:
    """The accounts that used something under this name."""
    found = UsageQuarter.objects.filter(account=name).values_list("account_id", flat=True).distinct()
    return frozenset(found)


def key_ids(text: str, accounts: frozenset[int] | None = None) -> frozenset[int]:
    """The keys that used something and start like this: of a whole key what is kept of it. Raises `Unreadable`."""
    characters = text.strip().removeprefix(keys.MARK).rstrip("….")
    if not (characters.isascii() and characters.isalnum()):
        raise Unreadable("key", "This is not the start of a key, as lists of keys show it.")
    start = (keys.MARK + characters)[: keys.SHOWN]
    asked = days(Question(accounts=accounts)).filter(key_prefix__startswith=start)
    found = asked.values_list("key_id", "key_prefix").distinct()
    return frozenset(key_id for key_id, prefix in found if prefix.startswith(start))  # SQLite's LIKE takes A for a


# --- the answer ------------------------------------------------------------------------------------------------------


def quarters(question: Question) -> QuerySet[UsageQuarter]:
    """What the question is about."""
    return UsageQuarter.objects.filter(**_wanted(question))


def days(question: Question) -> QuerySet[UsageDay]:
    """The days (UTC) that the question touches, as a whole."""
    since = question.since and _midnight(question.since)
    return UsageDay.objects.filter(**_wanted(replace(question, since=since)))


def _wanted(question: Question) -> dict[str, Any]:
    wanted = {
        "start__gte": question.since,
        "start__lt": question.until,
        "account_id__in": question.accounts,
        "key_id__in": question.keys,
        "model__in": question.models,
        "provider__in": question.providers,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _midnight(moment: datetime) -> datetime:
    """The one before, in UTC."""
    return moment - (moment - _EPOCH) % DAY


def answer(question: Question) -> Report:
    """The database adds up; the names of accounts and keys are looked up in one more walk through the days."""
    found: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for whose, figures in _sums(question):
        found[whose] = tuple(map(operator.add, found[whose], figures)) if whose in found else figures
    known = _latest(days(question)) if {"account", "key"} & set(question.by) else {}
    rows = [Row(_named(question.by, whose, known), figures) for whose, figures in found.items() if any(figures)]
    return Report(question, sorted(rows, key=_order))


def _sums(question: Question) -> Iterator[tuple[tuple[Any, ...], tuple[int, ...]]]:
    """In parts, whose sum it is; of one statement, which sees all of them as they stood at one moment.

    Whole days (UTC) are read as such, only the rest of the period by quarters. Where another zone's days are asked for,
    the quarters that are of another day there are read too: they are added to that day, and taken from UTC's.
    """
    columns = [DIMENSIONS[name] for name in question.by]
    width, place = len(columns), columns.index("day") if "day" in columns else 0
    utc = _day(timedelta())
    parts = [part.annotate(day=utc, taken_from=Cast(Value(None), DateField())) for part in _parts(question)]
    if "day" in columns and (local := _local_day(question)):
        parts.append(quarters(question).annotate(day=local, taken_from=utc).exclude(day=F("taken_from")))
    first, *others = (_grouped(part, [*columns, "taken_from"]) for part in parts)
    for row in first.union(*others, all=True) if others else first:
        whose, day, figures = row[:width], row[width], row[width + 1 :]
        yield whose, figures
        if day:
            yield (*whose[:place], day, *whose[place + 1 :]), tuple(map(operator.neg, figures))


def _parts(question: Question) -> list[QuerySet[Any]]:
    """What the question is about: whole days as far as it can be, and the quarters before and after them."""
    since, until = question.since, question.until
    first, last = since and _midnight(since + DAY - QUARTER), until and _midnight(until)
    if first and last and first >= last:
        return [quarters(question)]
    parts: list[QuerySet[Any]] = [days(replace(question, since=first, until=last))]
    if first != since:
        parts.append(quarters(replace(question, until=first)))
    if last != until:
        parts.append(quarters(replace(question, since=last)))
    return parts


def _grouped(part: QuerySet[Any], columns: list[str]) -> QuerySet[Any]:
    sums = {f"sum_{name}": Sum(name, output_field=BigIntegerField()) for name in FIGURES}
    grouped: QuerySet[Any] = part.values(*columns).annotate(**sums).values_list(*columns, *sums)
    return grouped


def _order(row: Row) -> tuple[Any, ...]:
    """By day; then what cost most."""
    return (row.names.get("day", ""), -row.figures[_COST], -row.figures[_REQUESTS], *row.names.values())


_Names = Mapping[str, Mapping[int, dict[str, str]]]
_NAMELESS = {"account": {"account": ""}, "key": {"key": "", "key_name": ""}}  # its days came or went meanwhile


def _latest(asked: QuerySet[UsageDay]) -> _Names:
    """Accounts and keys by the last names that were seen: they change."""
    columns = ("account_id", "account", "key_id", "key_prefix", "key_name")
    accounts, own = {}, {}
    for account_id, account, key_id, prefix, name, _ in (
        asked.values_list(*columns).annotate(last=Max("seen")).order_by("last")
    ):
        accounts[account_id] = {"account": account}
        own[key_id] = {"key": prefix, "key_name": name}
    return {"account": accounts, "key": own}


def _named(by: tuple[str, ...], values: tuple[Any, ...], known: _Names) -> dict[str, str]:
    names: dict[str, str] = {}
    for name, value in zip(by, values, strict=True):
        names |= known[name].get(value, _NAMELESS[name]) if name in known else {name: str(value)}
    return names


def _local_day(question: Question) -> Case | Func | None:
    """The day of a quarter in the question's zone, unless it is UTC's all the time.

    The database is told the zone's offsets: SQLite has no zones.
    """
    spans = _offsets(question)
    if not any(offset for _, offset in spans):
        return None
    whens = [When(start__lt=end, then=_day(offset)) for end, offset in spans[:-1]]
    return Case(*whens, default=_day(spans[-1][1])) if whens else _day(spans[-1][1])


def _day(offset: timedelta) -> Func:
    template = "((%(expressions)s AT TIME ZONE 'UTC') + make_interval(secs => %(seconds)d))::date"
    if connection.vendor == "sqlite":
        template = "date(%(expressions)s, '%(seconds)+d seconds')"
    return Func(F("start"), template=template, seconds=int(offset.total_seconds()), output_field=DateField())


def _offsets(question: Question) -> list[tuple[datetime, timedelta]]:
    """The zone's offsets from UTC where there is something to report, each with the moment until which it holds."""
    found = days(question).aggregate(first=Min("start"), last=Max("start"))
    now = datetime.now(UTC)
    moment, last = found["first"] or now, (found["last"] or now) + DAY
    spans = []
    while moment < last:
        before = _offset(question.zone, moment)
        if _offset(question.zone, moment + DAY) != before:
            spans.append((_change(question.zone, moment), before))
        moment += DAY
    return [*spans, (last, _offset(question.zone, last))]


def _offset(zone: tzinfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _change(zone: tzinfo, moment: datetime) -> datetime:
    """The quarter with which the zone's offset changes, within a day from this moment."""
    before = _offset(zone, moment)
    steps = [moment + step * QUARTER for step in range(1, DAY // QUARTER)]
    change = bisect_left(steps, True, key=lambda step: _offset(zone, step) != before)
    return [*steps, moment + DAY][change]


# --- how it is written -----------------------------------------------------------------------------------------------


def money(amount: int) -> str:
    return f"{usd(amount):f}"


def _written(figures: Iterable[int]) -> dict[str, int | str]:
    return {name: money(value) if name in MONEY else value for name, value in zip(FIGURES, figures, strict=True)}


def as_json(report: Report) -> bytes:
    """Money as strings: JSON's numbers are floating point to most who read them."""
    question = report.question
    since, until = (
        moment and moment.astimezone(question.zone).isoformat() for moment in (question.since, question.until)
    )
    return msgspec.json.encode(
        {
            "object": "usage",
            "by": question.by,
            "since": since,
            "until": until,
            "tz": str(question.zone),
            "data": [row.names | _written(row.figures) for row in report.rows],
            "total": _written(report.total),
        }
    )


def as_csv(report: Report, *, for_spreadsheets: bool = False) -> str:
    """Without a line of totals, which a sum over the column would count again."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*report.columns, *FIGURES])
    for row in report.rows:
        names = row.names.values()
        texts = [f"'{text}" if text.startswith(_FORMULA) else text for text in names] if for_spreadsheets else names
        writer.writerow([*texts, *_written(row.figures).values()])
    return out.getvalue()


def as_table(report: Report) -> str:
    """For people: names to the left, figures to the right, the totals below."""
    head = [name.replace("_", " ") for name in (*report.columns, *FIGURES)]
    blank = ["total", *[""] * (len(report.columns) - 1)]
    lines = [
        head,
        *([*(name or "-" for name in row.names.values()), *shown(row.figures)] for row in report.rows),
        [*blank, *shown(report.total)],
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = len(report.columns)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def shown(figures: Iterable[int]) -> list[str]:
    return [f"{value:,}" if isinstance(value, int) else value for value in _written(figures).values()]
