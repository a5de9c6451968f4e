"""What the periodic jobs find worth a notice, and when."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from accounts import credits, keys, tasks
from accounts.models import Account, ApiKey, Notice

pytestmark = pytest.mark.django_db


@pytest.fixture
def account() -> Account:
    return Account.objects.create(name="acme")


def key_of(account: Account, *, age: float = 100, **fields: object) -> ApiKey:
    """`age`: for how many days there has been this key."""
    key, _ = keys.issue(account, name="CI", **fields)
    ApiKey.objects.filter(pk=key.pk).update(created_at=timezone.now() - timedelta(days=age))
    return key


def in_days(days: float):
    return timezone.now() + timedelta(days=days)


def standing() -> list[Notice]:
    return list(Notice.objects.filter(ended_at=None))


# --- keys that expire ------------------------------------------------------------------------------------------------


def test_it_works(account):
    key = key_of(account, expires_at=in_days(6.9))
    assert tasks.notice_expiring_keys() == "1 new, 0 resolved, 1 open"
    assert tasks.notice_expiring_keys() == "0 new, 0 resolved, 1 open"
    (notice,) = standing()
    assert notice.text == f"The API key CI ({key.prefix}…) of acme expires on {key.expires_at:%Y-%m-%d at %H:%M} UTC."
    assert notice.data == {
        "account": "acme",
        "account_id": account.pk,
        "key_id": key.pk,
        "key_prefix": key.prefix,
        "key_name": "CI",
        "expires_at": key.expires_at.isoformat(),
    }


def test_seven_days_and_one_day_before(account, monkeypatch):
    end = in_days(50)
    key_of(account, expires_at=end)
    for left, new in ((7.1, 0), (6.9, 1), (1.1, 0), (0.9, 1), (0.1, 0), (-0.1, 0)):
        monkeypatch.setattr(timezone, "now", lambda left=left: end - timedelta(days=left))
        assert tasks.notice_expiring_keys().startswith(f"{new} new"), left
    assert standing() == []


def test_an_end_that_was_put_off_is_news_again(account):
    key = key_of(account, expires_at=in_days(5))
    tasks.notice_expiring_keys()
    ApiKey.objects.filter(pk=key.pk).update(expires_at=in_days(6))
    assert tasks.notice_expiring_keys() == "1 new, 1 resolved, 1 open"


@pytest.mark.parametrize(("age", "left", "found"), [(0, 0.5, 0), (0.4, 0.5, 0), (0, 3, 0), (4, 3, 0), (4.1, 3, 1)])
def test_a_key_that_was_made_for_a_short_time(account, age, left, found):
    key_of(account, age=age, expires_at=in_days(left))
    tasks.notice_expiring_keys()
    assert len(standing()) == found


def test_a_key_that_does_not_work_anyhow(account):
    key_of(account, expires_at=in_days(3), is_active=False)
    off = Account.objects.create(name="off", is_active=False)
    key_of(off, expires_at=in_days(3))
    tasks.notice_expiring_keys()
    assert standing() == []


# --- balances --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("billing", "granted", "found"),
    [("prepaid", "4.999999", True), ("prepaid", "5", False), ("postpaid", "-6", True), ("postpaid", "-5", False),
     ("unmetered", "-9", False)],
)  # fmt: skip
def test_a_low_balance(account, billing, granted, found):
    Account.objects.filter(pk=account.pk).update(billing=billing, ceiling=Decimal(10), low_balance=Decimal(5))
    credits.grant(account, Decimal(granted))
    tasks.notice_low_balances()
    assert bool(standing()) is found


def test_an_account_that_was_never_given_anything(account):
    Account.objects.filter(pk=account.pk).update(billing="prepaid", low_balance=Decimal("0.5"))
    tasks.notice_low_balances()
    (notice,) = standing()
    assert notice.text == "acme has 0.00 USD left, less than 0.50 USD."
    assert notice.data["balance"] == "0"


def test_once_until_it_has_risen(account):
    Account.objects.filter(pk=account.pk).update(billing="prepaid", low_balance=Decimal(5))
    for grant, new in (("4", 1), ("-1", 0), ("2", 0), ("-2", 1)):
        credits.grant(account, Decimal(grant))
        assert tasks.notice_low_balances().startswith(f"{new} new"), grant


# --- budgets ---------------------------------------------------------------------------------------------------------


def spend(key: ApiKey, usd: str, days_ago: float = 0) -> None:
    moment = timezone.now().timestamp() - days_ago * credits.DAY
    charge = credits.Charge(f"req_{moment}", key.account_id, key.pk, int(Decimal(usd) * 10**12), moment, metered=False)
    credits.charge([charge], [])


@pytest.mark.parametrize(
    ("spent", "percent"), [("7.9", None), ("8", 80), ("9.9", 80), ("9.96", 100), ("10", 100), ("10.5", 100)]
)
def test_a_budget(account, spent, percent):
    key = key_of(account, budget=Decimal(10), budget_period="total")
    spend(key, spent, days_ago=40)
    tasks.notice_budgets()
    assert [notice.data["percent"] for notice in standing()] == ([percent] if percent else [])


def test_each_part_of_a_budget_once(account):
    key = key_of(account, budget=Decimal(10), budget_period="total")
    for spent, new in (("1", 0), ("7", 1), ("1", 0), ("1", 1), ("0.1", 0)):
        spend(key, spent)
        assert tasks.notice_budgets().startswith(f"{new} new"), spent
    (notice,) = standing()
    assert notice.text == f"The API key CI ({key.prefix}…) of acme has spent 10.00 of its budget of 10.00 USD in all."
    assert (notice.data["spent"], notice.data["budget"], notice.data["period"]) == ("10", "10", "total")


@pytest.mark.parametrize(("budget", "words"), [
    ("0.002", "0.002 of its budget of 0.002 USD a day"), ("1234.5", "1,234.50 of its budget of 1,234.50 USD a day"),
])  # fmt: skip
def test_amounts_are_written_as_in_the_console(account, budget, words):
    spend(key_of(account, budget=Decimal(budget), budget_period="day"), budget)
    tasks.notice_budgets()
    assert words in standing()[0].text


def test_a_new_period_begins_at_nothing(account):
    """And is news again, where a notice of the one before still stands."""
    key = key_of(account, budget=Decimal(10), budget_period="day")
    spend(key, "10", days_ago=1)
    tasks.notice_budgets()
    assert standing() == []
    spend(key, "10")
    tasks.notice_budgets()
    (notice,) = standing()
    Notice.objects.update(subject=notice.subject.replace(f"{timezone.now():%Y-%m-%d}", "2020-01-01"))
    assert tasks.notice_budgets() == "1 new, 1 resolved, 1 open"


def test_a_budget_of_nothing_is_no_news(account):
    key_of(account, budget=Decimal(0))
    tasks.notice_budgets()
    assert standing() == []


# --- the rest --------------------------------------------------------------------------------------------------------


def test_delivery_and_forgetting():
    assert tasks.deliver_notices() == "0 sent, 0 failed"
    assert tasks.forget_notices() == "0 rows deleted"
