"""Many rows at once: in order, once each, with what the two databases keep of every kind of value."""

import json
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import DataError, IntegrityError, transaction

from accounts import bulk
from accounts.models import Account, Balance, KeySpend, LedgerEntry, Notice

ENTRIES = LedgerEntry._meta.db_table
COLUMNS = {
    "request_id": "text",
    "account_id": "bigint",
    "kind": "text",
    "amount": "bigint",
    "created_at": "timestamptz",
}
PICO = Decimal(1).scaleb(-12)
NOON = "2026-03-01 12:00:00.000005"


def entry(name: str, amount: int = -5) -> tuple[Any, ...]:
    return name, 1, "charge", amount, NOON


def enter(*names: str) -> set[Any]:
    with transaction.atomic():
        return bulk.insert_new(ENTRIES, COLUMNS, [entry(name) for name in names])


def names() -> list[str | None]:
    return list(LedgerEntry.objects.order_by("pk").values_list("request_id", flat=True))


@pytest.mark.django_db
def test_it_works() -> None:
    assert enter("c", "a", "b") == {"a", "b", "c"}
    assert names() == ["c", "a", "b"], "in their order"
    found = LedgerEntry.objects.values("account_id", "kind", "amount", "created_at", "note").first()
    moment = datetime(2026, 3, 1, 12, microsecond=5, tzinfo=UTC)
    assert found == {"account_id": 1, "kind": "charge", "amount": -5 * PICO, "created_at": moment, "note": ""}


@pytest.mark.django_db
def test_what_is_there_already() -> None:
    enter("a", "b")
    assert enter("b", "c", "a", "d", "d") == {"c", "d"}
    assert enter("a", "b", "c") == set()
    assert names() == ["a", "b", "c", "d"]


@pytest.mark.django_db
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 39, 40, 43, 399, 400, 887])
def test_any_number_of_rows(count: int) -> None:
    made = [f"{number:03}" for number in range(count)]
    assert enter(*made[::3]) == set(made[::3])
    assert enter(*made) == set(made) - set(made[::3])
    assert sorted(names()) == made


@pytest.mark.django_db
def test_rows_that_change() -> None:
    columns = {"account_id": "bigint", "amount": "bigint", "seq": "bigint"}
    table = Balance._meta.db_table
    more = f"ON CONFLICT (account_id) DO UPDATE SET amount = {table}.amount + excluded.amount, seq = excluded.seq"
    for number in (1, 2):
        with transaction.atomic():
            bulk.insert(table, columns, [(account, account, number) for account in range(50)], more)
            bulk.insert(table, columns, [], more)
    found = Balance.objects.order_by("pk").values_list("pk", "amount", "seq")
    assert list(found) == [(account, 2 * account * PICO, 2) for account in range(50)]


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["", "%s", "é\"\\'\n", "null", "😀", "[1]", "?"])
def test_text_and_json(text: str) -> None:
    columns = {
        "id": "uuid",
        "kind": "text",
        "subject": "text",
        "account_id": "bigint",
        "text": "text",
        "data": "jsonb",
        "created_at": "timestamptz",
        "ended_at": "timestamptz",
    }
    account = Account.objects.create(name="a")
    row = (uuid.uuid4().hex, "key.budget", text, account.pk, text, json.dumps({"it": [text, 1.5]}), NOON, None)
    with transaction.atomic():
        bulk.insert(Notice._meta.db_table, columns, [row], "ON CONFLICT DO NOTHING")
    found = Notice.objects.get()
    assert (found.text, found.subject, found.data, found.ended_at) == (text, text, {"it": [text, 1.5]}, None)


@pytest.mark.django_db
def test_dates() -> None:
    columns = {"spender": "bigint", "key_id": "bigint", "day": "date"}
    days = [date.min, date(2026, 11, 20)]
    with transaction.atomic():
        rows = [(1, 2, day.isoformat()) for day in days]
        bulk.insert(KeySpend._meta.db_table, columns, rows, "ON CONFLICT DO NOTHING")
    assert list(KeySpend.objects.order_by("day").values_list("day", flat=True)) == days


@pytest.mark.django_db
@pytest.mark.parametrize("count", [1, 60])
def test_a_row_that_is_refused(count: int) -> None:
    """All of them go, with an error that Django knows."""
    with pytest.raises(IntegrityError), transaction.atomic():
        bulk.insert_new(ENTRIES, COLUMNS, [*(entry(f"{number}") for number in range(count)), (None, None, "", 0, NOON)])
    assert names() == []


@pytest.mark.parametrize("amount", [10**40, 2**63])
@pytest.mark.django_db
def test_a_number_that_no_column_holds(amount: int) -> None:
    with pytest.raises((OverflowError, DataError)), transaction.atomic():
        bulk.insert_new(ENTRIES, COLUMNS, [entry("a"), entry("b", amount)])
    assert names() == []


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1_700_000_000.0, 1_700_000_000.000001, 1_799_999_999.9999998])
def test_a_moment(seconds: float) -> None:
    found = datetime.fromisoformat(bulk.moment(seconds)).replace(tzinfo=UTC)
    exact = datetime.fromtimestamp(seconds, UTC)
    assert timedelta(0) <= exact - found <= timedelta(microseconds=1), "never later"
    assert len(bulk.moment(seconds)) == len(NOON)
