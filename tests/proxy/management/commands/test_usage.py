"""`manage.py usage report`."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command

from proxy.models import UsageQuarter
from tests.proxy.sums import sum_days

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def quarters() -> None:
    for number, (account, key, model, hour) in enumerate(
        [("acme", "sk-kodna-AAAAaaaa", "m", 11), ("acme", "sk-kodna-BBBBbbbb", "n", 23), ("other", "", "m", 12)], 1
    ):
        UsageQuarter.objects.create(
            start=datetime(2026, 11, 20, hour, tzinfo=UTC),
            account_id=1 if account == "acme" else 2,
            account=account,
            key_id=number if key else 0,
            key_prefix=key,
            model=model,
            provider="p",
            requests=number,
            cost=Decimal(number) / 10,
        )
    sum_days()


def report(*words: str) -> str:
    out = io.StringIO()
    call_command("usage", "report", *words, stdout=out)
    return out.getvalue()


def lines(*words: str) -> list[tuple[str, ...]]:
    rows = csv.DictReader(io.StringIO(report("--format", "csv", *words)))
    return [tuple(row.values()) for row in rows]


def test_it_works():
    table = report().splitlines()
    assert [line.split()[0] for line in table] == ["model", "m", "n", "total"]
    assert table[-1].split()[-2] == "0.6"


@pytest.mark.parametrize("by", ["model", "key", "account", "provider", "day", "key,model,day"])
def test_every_way_sums_to_the_same(by):
    told = json.loads(report("--by", by, "--format", "json"))
    assert told["by"] == by.split(",")
    assert told["total"]["cost"] == "0.6"
    assert sum(Decimal(row["cost"]) for row in told["data"]) == Decimal("0.6")


@pytest.mark.parametrize(("words", "requests"), [
    (["--account", "acme"], 3), (["--key", "BBBB"], 2), (["--account", "other", "--key", "BBBB"], 0),
    (["--since", "2026-11-20T12:00", "--until", "2026-11-20"], 5), (["--until", "2026-11-19"], 0),
    (["--since", "2026-11-21", "--tz", "Europe/Berlin"], 2),
])  # fmt: skip
def test_a_part_of_it(words, requests):
    assert json.loads(report("--format", "json", *words))["total"]["requests"] == requests


def test_days_of_a_zone():
    assert [(line[0], line[1]) for line in lines("--by", "day", "--tz", "Europe/Berlin")] == [
        ("2026-11-20", "4"),
        ("2026-11-21", "2"),
    ]


def test_csv_ends_with_one_line_break():
    text = report("--format", "csv")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize(("words", "said"), [
    (["--account", "nobody"], "'nobody'"), (["--key", "CCCC"], "a key that starts so"),
])  # fmt: skip
def test_a_name_that_used_nothing_is_said(words, said, capsys):
    report(*words)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("words", "option"), [
    (["--by", "colour"], "--by"), (["--since", "x"], "--since"), (["--until", "x"], "--until"), (["--tz", "x"], "--tz"),
    (["--key", "%"], "--key"), (["--format", "xml"], "--format"),
])  # fmt: skip
def test_an_option_that_cannot_be_read(words, option):
    with pytest.raises(CommandError, match=f"^{option}: "):
        report(*words)
