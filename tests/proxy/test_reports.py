"""The report: exact sums over days and quarters, by what is asked, in days of any zone."""

import csv
import io
import json
import random
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from proxy import reports, usage
from proxy.models import UsageQuarter
from proxy.reports import Question, Unreadable
from proxy.usage import Record
from tests.proxy.sums import sum_days
from tests.proxy.told import Told, record

PICO = Decimal("0.000000000001")


def quarter(start: str = "2026-11-20T12:00", **fields: object) -> UsageQuarter:
    values = {
        "account_id": 1,
        "account": "acme",
        "key_id": 7,
        "key_prefix": "sk-kodna-AAAAaaaa",
        "key_name": "laptop",
        "model": "m",
        "provider": "openai",
        "requests": 1,
        "cost": PICO,
    }
    moment = datetime.fromisoformat(start).replace(tzinfo=UTC)
    made = UsageQuarter.objects.create(start=moment, **{**values, **fields})
    sum_days()
    return made


def asked(**words: str) -> reports.Report:
    return reports.answer(reports.read(**words))


def lines(report: reports.Report) -> list[tuple[object, ...]]:
    """Names, requests, cost."""
    return [(*row.names.values(), row.figures[0], reports.money(row.figures[-2])) for row in report.rows]


@pytest.mark.django_db
def test_it_works():
    quarter(requests=3, errors=1, prompt_tokens=10, cached_tokens=4, cost=Decimal("0.1"), shortfall=PICO)
    quarter("2026-11-20T12:15", requests=2, completion_tokens=5, reasoning_tokens=2, cache_write_tokens=1)
    (row,) = asked().rows
    assert row.names == {"model": "m"}
    assert dict(zip(reports.FIGURES, row.figures, strict=True)) == {
        "requests": 5,
        "errors": 1,
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "cache_write_tokens": 1,
        "completion_tokens": 5,
        "reasoning_tokens": 2,
        "cost": 10**11 + 1,
        "shortfall": 1,
    }


@pytest.mark.django_db
def test_every_dimension_and_the_dearest_first():
    quarter(cost=Decimal(1))
    quarter(model="dear", provider="other", key_id=8, key_prefix="sk-kodna-B", key_name="", cost=Decimal(2))
    assert lines(asked(by="model")) == [("dear", 1, "2"), ("m", 1, "1")]
    assert lines(asked(by="provider")) == [("other", 1, "2"), ("openai", 1, "1")]
    assert lines(asked(by="account")) == [("acme", 2, "3")]
    assert lines(asked(by="day")) == [("2026-11-20", 2, "3")]
    assert lines(asked(by="key, model,key")) == [
        ("sk-kodna-B", "", "dear", 1, "2"),
        ("sk-kodna-AAAAaaaa", "laptop", "m", 1, "1"),
    ]


@pytest.mark.django_db
def test_one_name_for_what_was_renamed_meanwhile():
    quarter("2026-11-20T12:15", key_name="new", account="Acme Ltd")
    quarter("2026-11-20T12:00", key_name="old", account="acme")
    assert lines(asked(by="account,key")) == [("Acme Ltd", "sk-kodna-AAAAaaaa", "new", 2, "0.000000000002")]


@pytest.mark.django_db
@pytest.mark.parametrize("models", ["mn", "nm"])
def test_one_name_for_what_was_renamed_on_the_day(models):
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
    for number, (model, name) in enumerate(zip(models, ("old", "new"), strict=True)):
        usage.land([record(number, created=noon + number, model=model, key_id=7, key_name=name)], Told())
    for _ in range(2):
        assert [name for _, name, *_ in lines(asked(by="key"))] == ["new"]
        UsageQuarter.objects.filter(model=models[0]).update(start=datetime(2026, 11, 20, 11, tzinfo=UTC))
        sum_days()


@pytest.mark.django_db
def test_nothing():
    report = asked(by="key,day", tz="Asia/Kathmandu")
    assert (report.rows, report.total) == ([], (0,) * 9)


@pytest.mark.django_db
def test_what_no_float_can_hold():
    quarter(cost=Decimal(9000000))
    quarter(model="n", cost=PICO)
    assert reports.money(asked().total[-2]) == "9000000.000000000001"


@pytest.mark.django_db
def test_only_these():
    quarter()
    quarter(account_id=2, account="other", key_id=8, key_prefix="sk-kodna-aaaaAAAA", model="n", provider="p")
    for narrowed in (
        Question(accounts=reports.account_ids("other")),
        Question(keys=reports.key_ids("sk-kodna-aaaa")),
        Question(models=frozenset({"n"})),
        Question(providers=frozenset({"p"})),
    ):
        assert lines(reports.answer(narrowed)) == [("n", 1, "0.000000000001")]
    assert reports.answer(Question(accounts=reports.account_ids("nobody"))).rows == []


@pytest.mark.django_db
def test_a_key_by_its_start():
    quarter()
    whole = "sk-kodna-AAAAaaaa" + "x" * 35
    for text in ("sk-kodna-AAAAaaaa…", "AAAAa", whole):
        assert reports.key_ids(text) == {7}
    assert reports.key_ids("sk-kodna-aaaaAAAA") == frozenset(), "SQLite's LIKE takes A for a"
    for text in ("", "sk-kodna-", "%", "a\x00"):
        with pytest.raises(Unreadable):
            reports.key_ids(text)


# --- days of other zones ---------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(("zone", "start", "day"), [
    ("UTC", "2026-11-20T23:45", "2026-11-20"),
    ("Asia/Kathmandu", "2026-11-20T18:15", "2026-11-21"), ("Asia/Kathmandu", "2026-11-20T18:00", "2026-11-20"),
    ("Asia/Kolkata", "2026-11-20T18:30", "2026-11-21"), ("Asia/Kolkata", "2026-11-20T18:15", "2026-11-20"),
    ("America/St_Johns", "2026-11-21T03:15", "2026-11-20"), ("America/St_Johns", "2026-11-21T03:30", "2026-11-21"),
    ("Pacific/Kiritimati", "2026-12-31T10:00", "2027-01-01"), ("Pacific/Chatham", "2026-11-20T10:15", "2026-11-21"),
])  # fmt: skip
def test_a_day_begins_at_the_zones_midnight(zone, start, day):
    quarter(start)
    assert lines(asked(by="day", tz=zone)) == [(day, 1, "0.000000000001")]
    assert asked(since=day, until=day, tz=zone).rows
    after, before = (str(date.fromisoformat(day) + timedelta(days=days)) for days in (1, -1))
    assert not asked(since=after, tz=zone).rows
    assert not asked(until=before, tz=zone).rows


@pytest.mark.django_db
@pytest.mark.parametrize(("zone", "day", "quarters"), [
    ("Europe/Berlin", "2026-10-25", 100), ("Europe/Berlin", "2027-03-28", 92),
    ("Australia/Lord_Howe", "2026-10-04", 94), ("America/Santiago", "2026-09-06", 92),
    ("America/Havana", "2026-11-01", 100), ("Asia/Gaza", "2026-10-24", 100),
])  # fmt: skip
def test_a_day_on_which_the_clocks_change(zone, day, quarters):
    """Also at midnight: in Santiago it is skipped, in Havana it comes twice."""
    noon = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
    starts = [noon + reports.QUARTER * step for step in range(-200, 200)]
    UsageQuarter.objects.bulk_create(UsageQuarter(start=start, requests=1) for start in starts)
    sum_days()
    by_day = {name: requests for name, requests, _ in lines(asked(by="day", tz=zone))}
    expected: dict[str, int] = {}
    for start in starts:
        local = str(start.astimezone(ZoneInfo(zone)).date())
        expected[local] = expected.get(local, 0) + 1
    assert by_day == expected
    assert by_day[day] == quarters == asked(since=day, until=day, tz=zone).total[0]


@given(st.sampled_from(sorted(reports.zones())), st.integers(0, 365 * 24 * 15))
def test_every_zones_change_is_found(zone, hours):
    info, moment = ZoneInfo(zone), datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    change = reports._change(info, moment)
    offset = reports._offset(info, moment)
    if reports._offset(info, moment + reports.DAY) != offset:
        assert reports._offset(info, change - reports.QUARTER) == offset != reports._offset(info, change)


# --- parts of days ---------------------------------------------------------------------------------------------------


def rows_of(report: reports.Report) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Requests, tokens in, cost."""
    at = [reports.FIGURES.index(name) for name in ("requests", "prompt_tokens", "cost")]
    return {tuple(row.names.values()): tuple(row.figures[place] for place in at) for row in report.rows}


@pytest.fixture
def stored(db: None) -> list[Record]:
    """Over eight days, on one of which the clocks change in New York."""
    dice, first = random.Random(4), datetime(2026, 10, 28, tzinfo=UTC).timestamp()
    records = [
        record(number, created=first + dice.uniform(0, 8 * 86400), model=dice.choice("mn"), provider=dice.choice("pq"))
        for number in range(400)
    ]
    for each in records:
        each.prompt_tokens, each.cost = dice.randrange(5000), dice.randrange(10**12)
    for start in range(0, 400, 40):
        usage.land(records[start : start + 40], Told())
    return records


@pytest.mark.parametrize("zone", [
    "UTC", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Africa/Abidjan",
])  # fmt: skip
def test_any_period_is_what_its_rows_are(zone, stored):
    dice, info = random.Random(zone), ZoneInfo(zone)
    starts = [datetime(2026, 10, 27, 12, tzinfo=UTC) + reports.QUARTER * dice.randrange(900) for _ in range(16)]
    midnights = [datetime(2026, 10, 27 + day, tzinfo=info).astimezone(UTC) for day in range(5)]
    for _ in range(12):
        since, until = sorted(dice.sample([*starts, *midnights], 2))
        since, until = dice.choice([(since, until), (since, until), (None, until), (since, None), (None, None)])
        for by in (("day",), ("model",), ("provider", "day", "model")):
            wanted: dict[tuple[str, ...], tuple[int, ...]] = {}
            for each in stored:
                moment = datetime.fromtimestamp(each.created, UTC)
                if (since is None or since <= moment) and (until is None or moment < until):
                    names = {"day": str(moment.astimezone(info).date()), "model": each.model, "provider": each.provider}
                    whose = tuple(names[name] for name in by)
                    before = wanted.get(whose, (0, 0, 0))
                    wanted[whose] = (before[0] + 1, before[1] + each.prompt_tokens, before[2] + (each.cost or 0))
            assert rows_of(reports.answer(Question(by, since, until, info))) == wanted


@pytest.mark.django_db
def test_whole_days_are_read_as_such():
    """Of the days in the middle, the quarters are not looked at: here they are gone."""
    for day in (19, 20, 21):
        quarter(f"2026-11-{day}T12:00")
    UsageQuarter.objects.filter(start__day=20).delete()
    for words in ({}, {"by": "day"}, {"tz": "Asia/Tokyo"}, {"since": "2026-11-19T12:00", "until": "2026-11-21T12:15"}):
        assert asked(**words).total[0] == 3
    assert asked(since="2026-11-20T06:00", until="2026-11-20T18:00").total[0] == 0


# --- what is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "since", "until"), [
    ({"since": "2026-11-20", "until": "2026-11-20"}, "2026-11-20T00:00", "2026-11-21T00:00"),
    ({"since": "2026-11-20", "until": "2026-11-20", "tz": "Asia/Kathmandu"}, "2026-11-19T18:15", "2026-11-20T18:15"),
    ({"since": "2026-11-20T12:07", "until": "2026-11-20T12:07"}, "2026-11-20T12:00", "2026-11-20T12:15"),
    ({"since": "2026-11-20T12:00", "until": "2026-11-20T12:15"}, "2026-11-20T12:00", "2026-11-20T12:15"),
    ({"since": "2026-11-20T12:00+02:00", "until": "2026-11-20 12:00", "tz": "Europe/Berlin"},
     "2026-11-20T10:00", "2026-11-20T11:00"),
    ({"since": "2026-09-06", "tz": "America/Santiago"}, "2026-09-06T04:00", None),
])  # fmt: skip
def test_periods(words, since, until):
    question = reports.read(**words)
    expected = [text and datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (since, until)]
    assert [question.since, question.until] == expected


@pytest.mark.parametrize(("words", "name"), [
    ({"by": "colour"}, "by"), ({"by": "model,,day"}, "by"),
    ({"since": "yesterday"}, "since"), ({"until": "2026-13-01"}, "until"), ({"until": "9999-12-31"}, "until"),
    ({"since": "9999-12-31T23:50"}, "since"), ({"since": "0001-01-01T00:00+00:00", "tz": "America/New_York"}, "since"),
    ({"since": "0001-01-01", "tz": "Asia/Tokyo"}, "since"), ({"since": "\x00"}, "since"),
    ({"since": "2026-11-20", "until": "2026-11-19"}, "until"),
    ({"tz": "Mars/Olympus"}, "tz"), ({"tz": "../../etc/passwd"}, "tz"), ({"tz": "Europe"}, "tz"),
    ({"tz": "\x00"}, "tz"),
])  # fmt: skip
def test_what_cannot_be_read(words, name):
    with pytest.raises(Unreadable) as raised:
        reports.read(**words)
    assert raised.value.name == name


def test_a_text_that_is_no_name():
    with pytest.raises(Unreadable):
        reports.only("model", "a\x00")


# --- how it is written -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_formats_say_the_same():
    quarter(cost=Decimal("1234.5"), prompt_tokens=1000)
    quarter("2026-11-21T00:00", model='a,"b"\n', cost=PICO)
    report = asked(by="key,model,day")
    told = json.loads(reports.as_json(report))
    assert (told["by"], told["since"], told["tz"]) == (["key", "model", "day"], None, "UTC")
    assert told["total"]["cost"] == "1234.500000000001"
    read = list(csv.DictReader(io.StringIO(reports.as_csv(report))))
    assert read == [{name: str(value) for name, value in row.items()} for row in told["data"]]
    assert sum(Decimal(row["cost"]) for row in read) == Decimal("1234.500000000001")
    table = reports.as_table(report).replace('b"\n', 'b"').splitlines()
    assert table[0].split()[:4] == ["key", "key", "name", "model"]
    assert table[1].split() == [
        *("sk-kodna-AAAAaaaa", "laptop", "m", "2026-11-20", "1", "0", "1,000", "0", "0", "0", "0", "1234.5", "0")
    ]
    assert table[-1].split() == ["total", "2", "0", "1,000", "0", "0", "0", "0", "1234.500000000001", "0"]


@pytest.mark.django_db
def test_the_period_is_said_in_the_zone():
    told = json.loads(reports.as_json(asked(since="2026-11-20", until="2026-11-20", tz="Asia/Kathmandu")))
    period = (told["since"], told["until"], told["tz"])
    assert period == ("2026-11-20T00:00:00+05:45", "2026-11-21T00:00:00+05:45", "Asia/Kathmandu")


@pytest.mark.django_db
def test_a_spreadsheet_is_given_no_formula():
    quarter(model="=1+1")
    report = asked()
    assert "\n'=1+1," in reports.as_csv(report, for_spreadsheets=True)
    assert "\n=1+1," in reports.as_csv(report)


# --- a great many ----------------------------------------------------------------------------------------------------

_MANY = """
INSERT INTO proxy_usagequarter (start, account_id, account, key_id, key_prefix, key_name, model, provider, requests,
  errors, prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, cost, shortfall)
SELECT {start}, i % 5, 'account ' || (i % 5), i % 20, 'sk-kodna-' || (i % 20), 'key', 'model ' || (i / 20 % 10),
  'provider ' || (i / 200 % 2), 3, 1, 1000, 100, 10, 0, 5, 123456789012, 0
"""
_SQLITE = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) " + _MANY.format(
    start="strftime('%%Y-%%m-%%d %%H:%%M:%%S', '2026-01-01', '+' || (i / 200 * 15) || ' minutes')"
) + "FROM n"  # fmt: skip
_POSTGRESQL = (
    _MANY.format(start="timestamptz '2026-01-01 00:00+00' + make_interval(mins => i / 200 * 15)")
    + "FROM generate_series(0, 99999) i"
)


@pytest.mark.django_db
def test_a_report_over_100_000_quarters():
    """Alone on a machine it takes a tenth of a second; others may work beside this test."""
    with connection.cursor() as cursor:
        cursor.execute(_SQLITE.replace("%%", "%") if connection.vendor == "sqlite" else _POSTGRESQL)
    sum_days()
    begun = time.monotonic()
    report = asked(by="key,model,day", tz="Asia/Kathmandu")
    assert time.monotonic() - begun < 3
    assert len(report.rows) == 20 * 10 * 6
    assert report.total[0] == 300_000
    assert reports.money(report.total[-2]) == "12345.6789012"
