"""Rows of the release before keep their cost to the last digit, and are found in the sums."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from pytest_django import DjangoDbBlocker

from accounts.credits import EVER
from accounts.models import KeySpend
from proxy.models import UsageDay, UsageQuarter, UsageRecord, UsageSum

BEFORE = ("proxy", "0002_losses_and_formats")
MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = 3000
FIGURES = ("requests", "errors", "prompt_tokens", "cost")


@dataclass
class Seen:
    """What the tables held: before, after, and after the way back."""

    rows: list[Any]
    costs: dict[str, Decimal | None] = field(default_factory=dict)
    types: set[type] = field(default_factory=set)
    added: set[tuple[Any, ...]] = field(default_factory=set)
    quarters: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    days: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    spent: dict[tuple[int, date], Decimal] = field(default_factory=dict)
    costs_again: dict[str, Decimal | None] = field(default_factory=dict)
    spent_again: int = 0


def migrate(*targets: tuple[str, str]) -> Apps:
    """To these migrations; without any, to the newest of all."""
    executor = MigrationExecutor(connection)
    wanted = list(targets) or executor.loader.graph.leaf_nodes()
    return executor.migrate(wanted).apps


def amounts() -> Iterator[Decimal | None]:
    """With twelve decimals; in fifteen digits, as many as the release before could read on SQLite."""
    yield from (None, Decimal(0), Decimal("1e-12"), Decimal("999.999999999999"), Decimal(5), Decimal("0.1"))
    while True:
        yield Decimal(random.randrange(10 ** random.randint(1, 15))).scaleb(-12)


def name_at(moment: float) -> str:
    """Another in each quarter of an hour; the last of a day is neither its first in the alphabet nor its last."""
    if moment < 0:
        return "yesterday's" if moment >= -900 else random.choice(("a", "z"))
    return "today's" if moment >= 6300 else random.choice(("a", "z"))


def fill(table: Any) -> list[Any]:
    costs = amounts()
    moments = [random.uniform(-7200, 7200) for _ in range(ROWS)]
    rows = [
        table(
            request_id=f"req_{number}",
            created_at=MIDNIGHT + timedelta(seconds=moment),
            key_name=name_at(moment),
            key_id=random.choice((None, 1, 2)),
            account_id=3,
            model=random.choice("mn"),
            status=200,
            outcome=random.choice(("complete", "failed")),
            prompt_tokens=number,
            cost=next(costs),
        )
        for number, moment in enumerate(moments)
    ]
    table.objects.bulk_create(rows)
    return rows


def look(seen: Seen) -> None:
    seen.costs = dict(UsageRecord.objects.values_list("request_id", "cost"))
    seen.added = set(UsageRecord.objects.values_list("shortfall", "metered", "held", "price"))
    seen.quarters, seen.days = sums(UsageQuarter), sums(UsageDay)
    seen.names = set(UsageDay.objects.values_list("key_name", flat=True))
    seen.spent = {(row.key_id, row.day): row.amount for row in KeySpend.objects.all()}
    with connection.cursor() as cursor:
        cursor.execute("SELECT cost FROM proxy_usagerecord WHERE cost IS NOT NULL")
        seen.types = {type(cost) for (cost,) in cursor.fetchall()}


def sums(model: type[UsageSum]) -> dict[tuple[Any, ...], Any]:
    found: dict[tuple[Any, ...], Any] = {}
    for row in model._default_manager.all():
        whose = row.start, row.account_id, row.key_id, row.model
        found.update({(*whose, name): getattr(row, name) for name in FIGURES})
    return found


@pytest.fixture(scope="module")
def seen(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Seen:
    with django_db_blocker.unblock():
        try:
            seen = Seen(fill(migrate(BEFORE).get_model("proxy", "UsageRecord")))
            migrate()
            look(seen)
            table = migrate(BEFORE).get_model("proxy", "UsageRecord")
            seen.costs_again = dict(table.objects.values_list("request_id", "cost"))
            seen.spent_again = KeySpend.objects.count()
            table.objects.all().delete()
        finally:
            migrate()
            connection.close()
    return seen


def test_costs_are_the_same_forwards_and_backwards(seen: Seen) -> None:
    costs = {row.request_id: row.cost for row in seen.rows}
    assert len(costs) == ROWS
    assert seen.costs == costs
    assert seen.costs_again == costs


def test_the_database_has_whole_numbers(seen: Seen) -> None:
    assert seen.types == {int}
    assert seen.added == {(0, False, None, None)}


def test_sums(seen: Seen) -> None:
    quarters: Counter[tuple[Any, ...]] = Counter()
    days: Counter[tuple[Any, ...]] = Counter()
    for row in seen.rows:
        start = row.created_at.replace(minute=row.created_at.minute // 15 * 15, second=0, microsecond=0)
        figures = (1, row.outcome == "failed", row.prompt_tokens, row.cost or 0)
        for name, figure in zip(FIGURES, figures, strict=True):
            quarters[start, 3, row.key_id or 0, row.model, name] += figure
            days[start.replace(hour=0, minute=0), 3, row.key_id or 0, row.model, name] += figure
    assert (seen.quarters, seen.days) == (quarters, days)
    assert seen.names == {"yesterday's", "today's"}


def test_what_keys_have_spent(seen: Seen) -> None:
    wanted: Counter[tuple[int, date]] = Counter()
    for row in seen.rows:
        if row.key_id and row.cost:
            wanted[row.key_id, row.created_at.date()] += row.cost
            wanted[row.key_id, EVER] += row.cost
    assert len(wanted) == 6
    assert seen.spent == wanted
    assert seen.spent_again == 0
