"""The table of usage rows: one per request ID, and nothing of what was said."""

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone

from proxy.models import UsageRecord


def row(request_id: str = "req_1", **values: object) -> UsageRecord:
    return UsageRecord.objects.create(
        request_id=request_id, created_at=timezone.now(), status=200, outcome="complete", **values
    )


@pytest.mark.django_db
def test_it_works() -> None:
    assert str(row()) == "req_1"
    assert UsageRecord.objects.get().cost is None


@pytest.mark.django_db
def test_one_row_per_request() -> None:
    row()
    with pytest.raises(IntegrityError):
        row()


@pytest.mark.django_db
def test_the_newest_first() -> None:
    row("a")
    row("b")
    assert [str(found) for found in UsageRecord.objects.all()] == ["b", "a"]


@pytest.mark.django_db
def test_a_row_of_the_release_before() -> None:
    """Its processes insert without the columns that were added since, while the new release is rolled out."""
    later = {"losses", "provider_format"}
    columns = [field.column for field in UsageRecord._meta.concrete_fields if field.name not in {"id", *later}]
    row("old")
    with connection.cursor() as cursor:
        table = UsageRecord._meta.db_table
        kept = ", ".join("'new'" if name == "request_id" else name for name in columns)
        cursor.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {kept} FROM {table}")
    found = UsageRecord.objects.get(request_id="new")
    assert (found.losses, found.provider_format) == ("", "")


def test_no_column_for_content() -> None:
    names = {field.name for field in UsageRecord._meta.get_fields()}
    assert names.isdisjoint({"messages", "prompt", "content", "body", "request", "response", "answer", "text", "ip"})
