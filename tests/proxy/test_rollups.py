"""Sums of usage: they equal the rows at every moment, are made anew from them, and outlive them."""

import random
import threading
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from pytest_django import Settings

from proxy import rollups, usage
from proxy.models import UsageDay, UsageQuarter, UsageRecord, UsageSum
from proxy.usage import Record
from tests.proxy.told import Told, ids, record

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDNIGHT = NOON.replace(hour=0)
DAY = timedelta(days=1)
KEY = ("start", "account_id", "key_id", "model", "provider")
NAMES = ("account", "key_prefix", "key_name")
TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def used(number: int, moment: datetime = NOON, **values: Any) -> Record:
    return record(number, created=moment.timestamp(), **{"model": "m", "provider": "p", **values})


def store(*records: Record) -> None:
    usage.land(list(records), Told())


def sums(**of: Any) -> dict[str, Any]:
    (found,) = UsageQuarter.objects.filter(**of).values()
    return found


def table(model: type[UsageSum], *names: str) -> list[tuple[Any, ...]]:
    return list(model._default_manager.order_by("start", *names).values_list("start", *names))


def rebuild() -> int:
    return rollups.rebuild(NOON - DAY, NOON + DAY)


def test_it_works() -> None:
    whose = {"account_id": 3, "account": "a", "key_id": 7, "key_prefix": "sk-kodna-x", "key_name": "mine"}
    tokens = {"prompt_tokens": 10, "completion_tokens": 2, "cached_tokens": 3, "cache_write_tokens": 4}
    store(used(1, cost=5, shortfall=1, reasoning_tokens=1, **tokens, **whose), used(2, cost=7, **tokens, **whose))
    found = sums()
    day = UsageDay.objects.values().get()
    del found["id"], day["id"], day["seen"]
    assert day == {**found, "start": MIDNIGHT}
    assert found == {
        **whose,
        "start": NOON,
        "model": "m",
        "provider": "p",
        "requests": 2,
        "errors": 0,
        "reasoning_tokens": 1,
        **{name: 2 * count for name, count in tokens.items()},
        "cost": Decimal(12).scaleb(-12),
        "shortfall": Decimal(1).scaleb(-12),
    }


def test_more_is_added() -> None:
    store(used(1, cost=5, key_name="old"))
    store(used(2, cost=None, key_name="new"))
    assert (sums()["requests"], sums()["cost"], sums()["key_name"]) == (2, Decimal(5).scaleb(-12), "new")
    assert table(UsageDay, "requests", "cost", "key_name") == [(MIDNIGHT, 2, Decimal(5).scaleb(-12), "new")]


@pytest.mark.parametrize(
    ("outcome", "errors"), [("complete", 0), ("cancelled", 0), ("incomplete", 1), ("failed", 1), ("refused", 1)]
)
def test_what_is_an_error(outcome: str, errors: int) -> None:
    store(used(1, outcome=outcome))
    assert sums()["errors"] == errors


@pytest.mark.parametrize(
    ("after", "start"), [(0, 0), (899.999, 0), (900, 15), (1799, 15), (1800, 30), (2700, 45), (3599.9, 45), (3600, 60)]
)
def test_quarters(after: float, start: int) -> None:
    store(used(1, NOON + timedelta(seconds=after)))
    assert sums()["start"] == NOON + timedelta(minutes=start)
    assert rebuild() == 0


@pytest.mark.parametrize(("after", "day"), [(-43200.001, -1), (-43200, 0), (43199.999, 0), (43200, 1)])
def test_days(after: float, day: int) -> None:
    store(used(1, NOON + timedelta(seconds=after)))
    assert table(UsageDay, "requests") == [(MIDNIGHT + day * DAY, 1)]
    assert rebuild() == 0


def test_what_is_told_apart() -> None:
    kinds = [{}, {"account_id": 1}, {"key_id": 1}, {"model": "n"}, {"provider": "q"}]
    store(*(used(number, **values) for number, values in enumerate(kinds)))
    assert (UsageQuarter.objects.count(), UsageDay.objects.count()) == (5, 5)
    assert sums(account_id=0, key_id=0, model="m", provider="p")["requests"] == 1


def test_sums_of_much_equal_its_rows() -> None:
    records = [
        used(number, NOON + timedelta(seconds=random.uniform(-50_000, 50_000)), **values)
        for number in range(500)
        for values in [{"key_id": random.choice((None, 1, 2)), "cost": random.randrange(10**15), "account_id": 4}]
    ]
    for start in range(0, 500, 100):
        store(*records[start : start + 100], records[start])
    assert UsageQuarter.objects.count() > 100
    wanted: Counter[int] = Counter()
    for each in records:
        wanted[each.key_id or 0] += each.cost or 0
    assert UsageDay.objects.count() == 9
    assert [costs(UsageQuarter), costs(UsageDay)] == [wanted, wanted]
    assert rebuild() == 0


def anything(number: int) -> Record:
    """Also what a column cannot hold, and names that change."""
    return used(
        number,
        NOON + timedelta(seconds=random.uniform(-40_000, 90_000)),
        account_id=random.choice((None, 1)),
        key_id=random.choice((None, 1, 2)),
        model=random.choice(("", "m")),
        outcome=random.choice(UsageRecord.Outcome.values),
        cost=random.choice((None, 0, random.randrange(10**15))),
        shortfall=random.randrange(10**12),
        **{name: random.choice("aBé") for name in (*NAMES, "provider")},
        **{name: random.choice((0, random.randrange(10**5), 2**31 - 1, 10**12)) for name in TOKENS},
    )


def test_what_is_added_is_what_the_rows_make() -> None:
    store(*map(anything, range(2000)))
    assert len(ids()) == 2000
    added = [everything(model) for model in (UsageQuarter, UsageDay)]
    assert len(added[0]) > 500
    assert added == [made(timedelta(minutes=15)), made(DAY, "seen")]
    for start in UsageQuarter.objects.values_list("start", flat=True).distinct():
        rollups._QUARTERS_OF_ROWS.replace(start)
    assert everything(UsageQuarter) == added[0]
    assert rebuild() == 0


Key = tuple[Any, ...]


def everything(model: type[UsageSum]) -> dict[Key, dict[str, Any]]:
    rows = model._default_manager.values()
    return {tuple(row.pop(name) for name in KEY): row for row in rows if row.pop("id")}


def made(span: timedelta, *more: str) -> dict[Key, dict[str, Any]]:
    """Of all rows, without a line of SQL."""
    parts: defaultdict[Key, list[dict[str, Any]]] = defaultdict(list)
    for row in UsageRecord.objects.values():
        row["start"] = row["created_at"] - (row["created_at"] - MIDNIGHT) % span
        row |= {"account_id": row["account_id"] or 0, "key_id": row["key_id"] or 0, "cost": row["cost"] or Decimal(0)}
        row |= {"seen": row["created_at"], "requests": 1, "errors": row["outcome"] not in {"complete", "cancelled"}}
        parts[tuple(row[name] for name in KEY)].append(row)
    return {
        key: {name: max(row[name] for row in part) for name in (*NAMES, *more)}
        | {name: sum(row[name] for row in part) for name in ("requests", "errors", "cost", "shortfall", *TOKENS)}
        for key, part in parts.items()
    }


def costs(model: type[UsageSum]) -> Counter[int]:
    found: Counter[int] = Counter()
    for key, cost in model._default_manager.values_list("key_id", "cost"):
        found[key] += int(cost * 10**12)
    return found


# --- made anew -------------------------------------------------------------------------------------------------------


def test_what_differs_is_made_anew(caplog: pytest.LogCaptureFixture) -> None:
    store(used(1, cost=5, key_id=7), used(2, NOON + timedelta(hours=1)), used(3, NOON + timedelta(hours=9), cost=1))
    names = ("key_id", "requests", "cost")
    before = table(UsageQuarter, *names), table(UsageDay, *names)
    UsageQuarter.objects.filter(key_id=7).update(requests=F("requests") + 3)
    UsageQuarter.objects.filter(start=NOON + timedelta(hours=1)).delete()
    UsageQuarter.objects.create(start=NOON + timedelta(hours=2), model="nobody's", requests=1)
    assert rebuild() == 3
    assert (table(UsageQuarter, *names), table(UsageDay, *names)) == before
    assert rebuild() == 0
    assert "quarter from 2026-03-01 12:00:00+00:00 [0, 7, 'm', 'p']: requests +3" in caplog.text
    assert "requests -1" in caplog.text


def test_days_are_made_anew_from_their_quarters(caplog: pytest.LogCaptureFixture) -> None:
    """Also where the rows have been deleted; with the last names that the quarters have."""
    store(used(1, NOON - DAY, cost=5), used(2, NOON, key_id=7, key_name="old"))
    store(used(3, NOON + timedelta(hours=1), key_id=7, key_name="new"))
    UsageRecord.objects.all().delete()
    names = ("key_id", "requests", "cost", "key_name")
    before = table(UsageDay, *names)
    UsageDay.objects.filter(start=MIDNIGHT).update(requests=F("requests") + 3)
    UsageDay.objects.filter(start=MIDNIGHT - DAY).delete()
    assert rebuild() == 2
    assert table(UsageDay, *names) == before
    assert rebuild() == 0
    assert "day from 2026-03-01 00:00:00+00:00 [0, 7, 'm', 'p']: requests +3" in caplog.text


def test_a_quarter_takes_its_day_with_it() -> None:
    """Both are wrong by as much, which nobody would see of the day alone."""
    store(used(1))
    for model in (UsageQuarter, UsageDay):
        model._default_manager.update(requests=F("requests") + 3)
    assert rebuild() == 1
    assert table(UsageDay, "requests") == [(MIDNIGHT, 1)]


def test_only_the_span_that_was_asked_for() -> None:
    store(used(1, NOON - DAY), used(2), used(3, NOON + DAY))
    for model in (UsageQuarter, UsageDay):
        model._default_manager.update(requests=9)
    assert rollups.rebuild(NOON + timedelta(minutes=10), NOON + timedelta(minutes=1, hours=11)) == 1
    for model in (UsageQuarter, UsageDay):
        assert [requests for _, requests in table(model, "requests")] == [9, 1, 9]


def test_the_end_of_the_span_is_a_whole_quarter() -> None:
    store(used(1, NOON + timedelta(minutes=14)), used(2, NOON + timedelta(minutes=15)))
    UsageQuarter.objects.update(requests=9)
    assert rollups.rebuild(NOON, NOON + timedelta(minutes=3)) == 1
    assert table(UsageDay, "requests") == [(MIDNIGHT, 10)]
    assert list(UsageQuarter.objects.order_by("start").values_list("requests", flat=True)) == [1, 9]


def test_nothing_to_make() -> None:
    assert rebuild() == 0


@pytest.mark.django_db(transaction=True)
def test_made_anew_while_rows_are_stored() -> None:
    """A row is in the sums once, whether it comes before they are made or after."""
    over = threading.Event()

    def write() -> None:
        for number in range(40):
            store(used(number, cost=1))
        over.set()
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        rollups._make(NOON, rollups._QUARTERS_OF_ROWS)
    writer.join()
    assert (sums()["requests"], len(ids())) == (40, 40)
    assert table(UsageDay, "requests") == [(MIDNIGHT, 40)]
    assert rebuild() == 0


# --- rows that are old -----------------------------------------------------------------------------------------------


@pytest.fixture
def two_days(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings.USAGE_DAYS = 2
    monkeypatch.setattr(rollups.timezone, "now", lambda: NOON + timedelta(minutes=20))
    return settings


def test_old_rows_are_deleted_and_their_sums_stay(two_days: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "BATCH", 3)
    store(*(used(number, NOON - 3 * DAY, cost=1) for number in range(10)))
    store(used(10, NOON - 2 * DAY), used(11, NOON - 2 * DAY + timedelta(minutes=15)), used(12))
    assert rollups.retain() == 11
    assert ids() == ["req_11", "req_12"]
    assert sums(start=NOON - 3 * DAY)["requests"] == 10
    assert table(UsageDay, "requests") == [(MIDNIGHT - 3 * DAY, 10), (MIDNIGHT - 2 * DAY, 2), (MIDNIGHT, 1)]
    assert rollups.retain() == 0


def test_rows_are_kept_for_ever(two_days: Settings) -> None:
    two_days.USAGE_DAYS = 0
    store(used(1, NOON - 1000 * DAY))
    assert rollups.retain() == 0
    assert ids() == ["req_1"]


@pytest.mark.parametrize("days", [0, 2, 9])
def test_sums_of_rows_that_are_gone_are_left_alone(two_days: Settings, days: int) -> None:
    """Also where the setting has been changed meanwhile, or the deleting was broken off in the middle of a quarter."""
    store(used(1, NOON - 4 * DAY), *(used(number, NOON - 3 * DAY) for number in (2, 3, 4)), used(5))
    UsageRecord.objects.filter(request_id__in=["req_1", "req_2"]).delete()
    two_days.USAGE_DAYS = days
    assert rollups.rebuild(NOON - 9 * DAY, NOON + DAY) == 0
    assert sums(start=NOON - 3 * DAY)["requests"] == 3


def test_a_row_that_comes_late(two_days: Settings) -> None:
    """From a journal that nobody had found: older than what is kept."""
    store(used(1, NOON - 4 * DAY), used(2, NOON - 3 * DAY), used(3))
    rollups.retain()
    store(used(4, NOON - 4 * DAY))
    assert rollups.rebuild(NOON - 9 * DAY, NOON + DAY) == 0
    assert [sums(start=NOON - days * DAY)["requests"] for days in (4, 3, 0)] == [2, 1, 1]


# --- spending --------------------------------------------------------------------------------------------------------


def test_spending() -> None:
    midnight = NOON + timedelta(hours=12)
    store(used(1, midnight - timedelta(seconds=1), key_id=7, cost=5), used(2, midnight, key_id=7, cost=6))
    store(used(3, key_id=7, cost=1, model="n"), used(4, key_id=8), used(5, cost=9))
    found = {(key, day): amount for key, day, amount in rollups.spending()}
    assert found == {(7, date(2026, 3, 1)): 6, (7, date(2026, 3, 2)): 6, (8, date(2026, 3, 1)): 0}
