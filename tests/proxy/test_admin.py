"""The console's page of requests: nothing on it changes anything, and nothing reads the whole table."""

import re
from datetime import timedelta
from decimal import Decimal
from urllib.parse import urlencode

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import credits
from accounts.models import Account
from proxy import admin, request_ids
from proxy.models import UsageRecord

USAGE = "/admin/proxy/usagerecord/"


@pytest.fixture
def admin_client(db, client) -> Client:
    """An operator, without a password: hashing one takes longer than most tests here."""
    client.force_login(get_user_model().objects.create_superuser("admin"))
    return client


def record(number: int = 1, **fields: object) -> UsageRecord:
    values = {
        "key_id": 7,
        "key_prefix": "sk-kodna-AAAAaaaa",
        "key_name": "laptop",
        "account": "acme",
        "requested_model": "fast",
        "alias": "fast",
        "model": "gpt-x",
        "provider": "openai",
        "status": 200,
        "outcome": "complete",
        "streamed": True,
        "prompt_tokens": 1000,
        "completion_tokens": 20,
        "total_ms": 1500,
        "cost": Decimal("0.000123456789"),
        "created_at": timezone.now() - timedelta(seconds=number),
    }
    return UsageRecord.objects.create(request_id=f"req_{number}", **{**values, **fields})


def text_of(client: Client, query: str = "") -> str:
    answer = client.get(USAGE + query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_it_works(admin_client):
    record()
    page = text_of(admin_client)
    for words in ("laptop", "fast → gpt-x", "openai", "200 complete", "1,000 → 20", "1.50 s", ">yes<"):
        assert words in page


def test_the_list_has_the_cost_and_not_the_price(admin_client):
    record(price={"input": "1", "output": "2"})
    page = text_of(admin_client)
    assert '<span class="kd-number">$0.000123</span>' in page
    assert "input" not in re.sub(r"<[^>]+>", "", page)


def test_sums_of_the_selection(admin_client):
    record(1, prompt_tokens=1000, completion_tokens=1, cost=Decimal("1.5"))
    record(2, prompt_tokens=2000, completion_tokens=2, cost=None, model="other")
    record(3, prompt_tokens=4000, completion_tokens=4, cost=Decimal("0.25"))
    for query, sums in [("", (3, "7,000", 7, "$1.75")), ("?model__exact=gpt-x", (2, "5,000", 5, "$1.75"))]:
        page = text_of(admin_client, query)
        assert [f"<dd>{part}</dd>" in page for part in sums] == [True] * 4
        assert "Sums of the newest" not in page


def test_sums_over_nothing(admin_client):
    assert text_of(admin_client).count("<dd>0</dd>") == 3


def test_sums_are_bounded(admin_client, monkeypatch):
    monkeypatch.setattr(admin, "SUMMED", 2)
    for number in range(3):
        record(number, prompt_tokens=10**number)
    page = text_of(admin_client)
    assert "<dd>11</dd>" in page  # the two newest
    assert "Sums of the newest 2 requests" in page


def test_nothing_counts_the_whole_table(admin_client):
    record()
    with CaptureQueriesContext(connection) as queries:
        text_of(admin_client)
    on_usage = [query["sql"] for query in queries if "proxy_usagerecord" in query["sql"]]
    assert on_usage
    assert [sql for sql in on_usage if "LIMIT" not in sql] == []


@pytest.mark.parametrize(("query", "found"), [
    ("?q=req_1", True), ("?q=req_", False),
    ("?outcome__exact=complete", True), ("?outcome__exact=failed", False),
    ("?key_prefix__exact=sk-kodna-AAAAaaaa", True), ("?key_prefix__exact=sk-kodna-other", False),
    ("?model__exact=gpt-x", True), ("?provider__exact=local", False), ("?account__exact=acme", True),
    ("?created_at__gte=2999-01-01T00:00Z", False), ("?lost=1", False),
    ("?endpoint__exact=chat", True), ("?endpoint__exact=gemini", False),
])  # fmt: skip
def test_filters(admin_client, query, found):
    row = record()
    assert (f"{USAGE}{row.pk}/change/" in text_of(admin_client, query)) is found


def test_filters_offer_what_was_used_lately(admin_client, monkeypatch):
    monkeypatch.setattr(admin, "RECENT", 1)
    record(1, provider="new")
    record(2, provider="old")
    page = text_of(admin_client)
    assert "?provider__exact=new" in page
    assert "?provider__exact=old" not in page
    assert 'title="old"' in text_of(admin_client, "?provider__exact=old")


def test_pages_go_on_without_a_count(admin_client, monkeypatch):
    monkeypatch.setattr(admin.UsageRecordAdmin, "list_per_page", 2)
    rows = [record(number) for number in range(3)]
    assert "?p=2" in text_of(admin_client)
    assert f"{USAGE}{rows[2].pk}/change/" in text_of(admin_client, "?p=2")


def test_one_request(admin_client):
    tried = [{"provider": "openai", "status": 503, "reason": "<busy>"}, {"provider": "local", "ms": 12.5}]
    row = record(attempts=tried, first_token_ms=350.04, upstream_model="gpt-x-2026")
    page = text_of(admin_client, f"{row.pk}/change/")
    for words in ("req_1", "0.000123456789", "350.0 ms", "gpt-x-2026", ">503</td>", "&lt;busy&gt;", ">12 ms</td>"):
        assert words in page
    assert "/admin/accounts/apikey/7/change/" in page
    assert ">Requests<" in re.sub(r"\s+", "", page)
    assert "Req_1" not in page, "an ID is copied as it is"


TRIES = [
    {"provider": "openai", "credential": "second", "model": "m", "ms": 500, "reason": "timeout", "at": 0.5},
    {"provider": "local", "model": "m", "ms": 12.5, "at": 500.5},
]


def test_a_request_unfolds_to_its_attempts(admin_client):
    record(1, attempts=TRIES, provider="local")
    record(2, attempts=TRIES[1:], provider="local")
    page = text_of(admin_client)
    assert page.count("<summary>2 tries</summary>") == page.count('class="kd-unfolded"') == 1
    for words in ("did not answer in time", "<small>second</small>", "+500 ms", ">500 ms</td>"):
        assert words in page


def test_rows_that_unfold_ask_nothing_more(admin_client):
    record(0, attempts=TRIES)
    with CaptureQueriesContext(connection) as few:
        text_of(admin_client)
    for number in range(1, 30):
        record(number, attempts=TRIES)
    with CaptureQueriesContext(connection) as many:
        text_of(admin_client)
    assert len(many) == len(few)


def test_a_request_is_found_by_the_id_that_its_answer_had(admin_client):
    inside = request_ids.new()
    row = record()
    UsageRecord.objects.filter(pk=row.pk).update(request_id=inside)
    for shown in (request_ids.carrying(inside, 1, 2), inside, f" {inside} "):
        assert f"{USAGE}{row.pk}/change/" in text_of(admin_client, f"?{urlencode({'q': shown})}")
    assert f"{USAGE}{row.pk}/change/" not in text_of(admin_client, f"?q={request_ids.new()}")


def test_what_a_request_has_lost(admin_client):
    row = record(losses="top_k,tools[0].<b>", endpoint="messages", provider_format="openai_chat")
    page = text_of(admin_client, f"{row.pk}/change/")
    for words in ("<code>top_k</code>, <code>tools[0].&lt;b&gt;</code>", "Anthropic Messages", "openai_chat"):
        assert words in page
    assert f"{USAGE}{row.pk}/change/" in text_of(admin_client, "?lost=1")
    assert "nothing" in text_of(admin_client, f"{record(2).pk}/change/")


def test_the_receipt_of_a_request(admin_client):
    account = Account.objects.create(name="acme")
    row = record(
        account_id=account.pk,
        cost=Decimal("0.000000000002"),
        held=Decimal("0.01"),
        shortfall=Decimal("0.000000000003"),
        metered=True,
        price={"input": "0.15", "cached_input": "0.075", "cache_write": None},
    )
    credits.charge([credits.Charge("req_1", account.pk, 7, 2, row.created_at.timestamp(), True)], ())
    entry = credits.entry_of("req_1")
    page = text_of(admin_client, f"{row.pk}/change/")
    for words in (
        "input 0.15, cached input 0.075",
        "0.01",
        "0.000000000003",
        f"/admin/accounts/ledgerentry/{entry.pk}/change/",
        f"entry {entry.pk}: -0.000000000002 USD</a>",
        f'"/admin/accounts/account/{account.pk}/change/" class="text-link">acme</a>',
    ):
        assert words in page
    assert admin_client.get(f"/admin/accounts/ledgerentry/{entry.pk}/change/").status_code == 200


@pytest.mark.parametrize(
    ("metered", "words"), [(False, "no: the account was unmetered"), (True, "nothing was charged")]
)
def test_a_request_that_is_not_in_the_ledger(admin_client, metered, words):
    page = text_of(admin_client, f"{record(metered=metered).pk}/change/")
    assert words in page
    assert "none is known" in page


def test_a_refused_request_without_a_key(admin_client):
    row = record(
        key_id=None, key_prefix="", key_name="", model="", provider="", cost=None, status=401, outcome="refused"
    )
    assert "401 refused" in text_of(admin_client)
    assert "no price is known" in text_of(admin_client, f"{row.pk}/change/")


@pytest.mark.parametrize("view", ["add/", "{}/delete/"])
def test_nothing_is_added_or_deleted(admin_client, view):
    assert admin_client.post(USAGE + view.format(record().pk), {"post": "yes"}).status_code == 403
    assert UsageRecord.objects.count() == 1


def test_nothing_is_changed(admin_client):
    row = record()
    assert admin_client.post(f"{USAGE}{row.pk}/change/", {"model": "other"}).status_code == 403
    row.refresh_from_db()
    assert row.model == "gpt-x"


@pytest.mark.parametrize(("amount", "words"), [
    (None, "—"), (Decimal(0), "$0.00"), (Decimal("0.000001"), "$0.000001"), (Decimal("1234.5"), "$1,234.50"),
])  # fmt: skip
def test_usd(amount, words):
    assert admin.usd(amount) == words
