"""What a key holder is told of the own account."""

from decimal import Decimal

import pytest

from accounts import credits
from accounts.models import Account
from tests.own_api import ask, new_key

pytestmark = pytest.mark.django_db


def test_me():
    key, text = new_key(name="laptop")
    new_key("other", name="theirs")
    told = ask("/v1/auth/me", text).json
    assert (told["object"], told["account"], told["billing"], told["key"]["name"]) == (
        *("account", "acme", "unmetered", "laptop"),
    )
    assert [each["key"] for each in told["keys"]] == [key.prefix]


def test_keys():
    _, text = new_key(name="one")
    new_key(name="two")
    new_key("other", name="theirs")
    told = ask("/v1/auth/keys", text).json
    assert (told["object"], {each["name"] for each in told["data"]}) == ("list", {"one", "two"})


def test_the_balance_of_a_prepaid_account():
    _, text = new_key()
    account = Account.objects.get()
    account.billing, account.ceiling = Account.Billing.PREPAID, Decimal(5)
    account.save()
    credits.grant(account, Decimal("1.000000000001"))
    assert ask("/v1/credits/balance", text).json == {
        "object": "balance",
        "account": "acme",
        "billing": "prepaid",
        "currency": "USD",
        "budget": None,
        "balance": "1.000000000001",
        "ceiling": "0",
        "available": "1.000000000001",
    }


def test_the_balance_of_a_postpaid_account():
    _, text = new_key()
    Account.objects.update(billing=Account.Billing.POSTPAID, ceiling=Decimal("2.5"))
    told = ask("/v1/credits/balance", text).json
    assert (told["balance"], told["ceiling"], told["available"]) == ("0", "2.5", "2.5")


def test_an_unmetered_account_has_nothing_to_run_out_of():
    assert ask("/v1/credits/balance", new_key()[1]).json["available"] is None


@pytest.mark.parametrize(("period", "spent", "resets"), [
    ("total", "0.3", None), ("day", "0.2", "2026-11-21T00:00:00Z"), ("week", "0.2", "2026-11-23T00:00:00Z"),
    ("month", "0.3", "2026-12-01T00:00:00Z"),
])  # fmt: skip
def test_the_budget_of_a_key(period, spent, resets, monkeypatch):
    key, text = new_key(budget=Decimal(1), budget_period=period)
    now = 1795132800 + 43200  # 2026-11-20T12:00Z, a Friday
    days = [("req_1", now - 1, 2), ("req_2", now - 11 * 86400, 1)]
    credits.charge(
        [credits.Charge(name, key.account_id, key.pk, tenths * 10**11, when, False) for name, when, tenths in days], ()
    )
    monkeypatch.setattr("accounts.api.time.time", lambda: now)
    assert ask("/v1/credits/balance", text).json["budget"] == {
        "amount": "1",
        "period": period,
        "spent": spent,
        "remaining": f"{1 - Decimal(spent):f}",
        "resets_at": resets,
    }
