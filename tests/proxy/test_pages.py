"""The console's usage report: what it shows, what it offers, and its CSV."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from proxy import pages
from proxy.models import UsageQuarter
from tests.proxy.sums import sum_days

REPORT = "/admin/proxy/usagequarter/"
NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def admin_client(db, client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("admin"))
    return client


def quarter(start: datetime = NOW, **fields: object) -> UsageQuarter:
    values = {
        "account_id": 1,
        "account": "acme",
        "key_id": 7,
        "key_prefix": "sk-kodna-AAAAaaaa",
        "key_name": "laptop",
        "model": "gpt-x",
        "provider": "openai",
        "requests": 1,
        "cost": Decimal("0.000000000001"),
    }
    made = UsageQuarter.objects.create(start=start, **{**values, **fields})
    sum_days()
    return made


def page_of(client: Client, query: str = "") -> str:
    answer = client.get(REPORT + query)
    assert answer.status_code == 200
    return answer.content.decode()


def cells(page: str) -> list[str]:
    """Of the table's body and total."""
    return re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", page.partition("<tbody>")[2])


def test_it_works(admin_client):
    quarter(requests=1234, errors=5, prompt_tokens=6, cost=Decimal("0.1"))
    page = page_of(admin_client)
    shown = ["1,234", "5", "0.1", "0", "6", "0", "0", "0", "0"]
    assert cells(page) == ["gpt-x", *shown, "Total of 1 row", *shown]
    assert "This month" in page


def test_this_month_is_shown_first(admin_client):
    quarter(NOW - timedelta(days=40))
    assert "Nothing was used in this period." in page_of(admin_client)
    assert "gpt-x" in page_of(admin_client, "?since=")


def test_several_dimensions(admin_client):
    quarter()
    row = cells(page_of(admin_client, "?by=key&by=model&by=day"))[:4]
    assert row == ["sk-kodna-AAAAaaaa", "laptop", "gpt-x", str(NOW.date())]


@pytest.mark.parametrize(("query", "found"), [
    ("?account=1", True), ("?account=2", False), ("?key=7", True), ("?key=8", False), ("?model=gpt-x", True),
    ("?model=o", False), ("?provider=openai", True), ("?provider=o", False), ("?until=2001-01-01&since=", False),
])  # fmt: skip
def test_filters(admin_client, query, found):
    quarter()
    assert (cells(page_of(admin_client, query))[0] == "gpt-x") is found


def test_filters_offer_what_was_used(admin_client):
    quarter()
    quarter(NOW - timedelta(minutes=15), key_name="before", account_id=2, account="<b>", model="")
    page = page_of(admin_client, "?since=&account=1&model=gone")
    for option in (
        '<option value="1" selected>acme</option>',
        '<option value="2">&lt;b&gt;</option>',
        '<option value="7">laptop (sk-kodna-AAAAaaaa…)</option>',
        '<option value="gone" selected>gone</option>',
    ):
        assert option in page


@pytest.mark.parametrize(
    "query", ["?since=x", "?until=x", "?tz=Mars", "?by=colour", "?account=x", "?key=²", "?model=%00", f"?key={10**30}"]
)
def test_what_cannot_be_read_is_said(admin_client, query):
    page = page_of(admin_client, query)
    assert 'role="alert"' in page
    assert "<tbody>" not in page


def test_a_day_of_a_zone(admin_client):
    quarter(datetime(2026, 11, 20, 23, tzinfo=UTC))
    page = page_of(admin_client, "?since=2026-11-21&until=2026-11-21&tz=Asia/Kathmandu&by=day")
    assert cells(page)[0] == "2026-11-21"


def test_links_of_periods_keep_the_rest(admin_client):
    page = page_of(admin_client, "?model=gpt-x&tz=Asia/Tokyo")
    today = datetime.now(UTC).astimezone(pages.reports.read_zone("Asia/Tokyo")).date()
    assert f"?model=gpt-x&amp;tz=Asia%2FTokyo&amp;since={today}&amp;until={today}" in page


def test_as_csv(admin_client):
    quarter(model="=1+1", requests=2)
    answer = admin_client.get(f"{REPORT}?by=model&format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.content.decode().splitlines()[1] == "'=1+1,2,0,0,0,0,0,0,0.000000000001,0"
    assert "format=csv" in page_of(admin_client, "?by=model")


def test_a_long_table_is_cut_and_its_total_is_not(admin_client, monkeypatch):
    monkeypatch.setattr(pages, "SHOWN", 1)
    quarter(model="dear", cost=Decimal(2))
    quarter(model="cheap", cost=Decimal(1))
    page = page_of(admin_client)
    assert "cheap" not in cells(page)
    assert cells(page)[-7] == "3"
    assert "1 more row in the CSV" in page
    assert "cheap" in admin_client.get(f"{REPORT}?format=csv").content.decode()


def test_who_may_not_see_requests_sees_no_report(db, client):
    clerk = get_user_model().objects.create_user("clerk", is_staff=True)
    client.force_login(clerk)
    assert client.get(REPORT).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_usagequarter"))
    assert client.get(REPORT).status_code == 200


def test_a_stranger_is_asked_to_log_in(client):
    assert client.get(REPORT).status_code == 302
