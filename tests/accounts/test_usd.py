from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import Account
from accounts.usd import picodollars, shown, usd


@given(st.integers(min_value=-(10**30), max_value=10**30))
def test_there_and_back(amount):
    assert picodollars(usd(amount)) == amount


@pytest.mark.parametrize("text", ["0.0000000000001", f"1.{'0' * 40}1"])
def test_more_than_twelve_decimals_are_refused(text):
    with pytest.raises(ValueError, match="12 decimals"):
        picodollars(Decimal(text))


@pytest.mark.parametrize(("amount", "text"), [
    (0, "0.00"), (1_500_000_000_000, "1.50"), (-1_234_000_000_000_000, "-1,234.00"), (1, "0.000000000001"),
])  # fmt: skip
def test_shown(amount, text):
    assert shown(usd(amount)) == text


@pytest.mark.parametrize("text", ["0", "0.1", "0.000000000001", "-0.000000000001", "8999999.999999999999", "-9000000"])
def test_the_database_keeps_every_digit(db, text):
    account = Account.objects.create(name="a", low_balance=Decimal(text))
    account.refresh_from_db()
    assert account.low_balance == Decimal(text)
    assert Account.objects.filter(low_balance=text, low_balance__lte=Decimal(text)).exists()


@pytest.mark.parametrize("text", ["NaN", "Infinity", "9000000.1", "1e400", "0.0000000000001", "ten"])
def test_what_cannot_be_kept_is_refused(db, text):
    with pytest.raises(ValidationError) as refusal:
        Account(name="a", ceiling=text).full_clean()
    assert list(refusal.value.message_dict) == ["ceiling"]


def test_empty_is_kept_as_nothing(db):
    account = Account.objects.create(name="a")
    account.refresh_from_db()
    assert (account.low_balance, account.ceiling) == (None, 0)
