from decimal import Decimal
from functools import partial
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts import credits
from accounts.models import Account, Balance, LedgerEntry
from tests import commands

run = partial(commands.run, "credits")
refusal = partial(commands.refusal, "credits")


@pytest.fixture(autouse=True)
def _acme(db, settings):
    Account.objects.create(name="acme", billing="prepaid")
    settings.KEY_SPENDING = "builtins.list"  # nobody has used anything


def test_it_works():
    assert run("grant", "acme", "10.000000000001", "--note", "invoice 7") == ("10.000000000001\n", "")
    assert run("grant", "acme", "-10") == ("0.000000000001\n", "")
    assert run("balance", " acme ") == ("0.000000000001\n", "")
    assert run("audit") == ("Every sum is that of its entries.\n", "")
    entry = LedgerEntry.objects.get(note="invoice 7")
    assert entry.amount == Decimal("10.000000000001")
    assert entry.by.endswith("manage.py)")


def test_the_balance_of_an_account_without_entries():
    assert run("balance", "acme") == ("0\n", "")


@pytest.mark.parametrize("amount", ["ten", "", "1_000", "NaN", "inf", "0", "0.0000000000001", "9000001", "-9000001"])
def test_a_bad_amount_is_refused(amount):
    assert refusal("grant", "acme", amount).startswith("USD: ")
    assert not LedgerEntry.objects.exists()


def test_a_long_note_is_refused():
    assert refusal("grant", "acme", "1", "--note", "x" * 301).startswith("--note: ")


@pytest.mark.parametrize("words", [("grant", "acne", "1"), ("balance", "acne")])
def test_an_unknown_account_is_refused_and_not_made(words):
    assert refusal(*words) == (
        "ACCOUNT: there is no account 'acne'. It is made with its first key: manage.py keys create --account acne"
    )
    assert Account.objects.count() == 1


def test_a_grant_makes_an_unmetered_account_prepaid_and_says_so():
    Account.objects.update(billing="unmetered")
    assert run("grant", "acme", "-1")[1] == ""
    assert run("grant", "acme", "1")[1] == "The account acme was unmetered: it is prepaid now.\n"
    assert Account.objects.get().billing == "prepaid"


def test_the_audit_names_what_differs():
    credits.grant(Account.objects.get(), Decimal(1))
    Balance.objects.update(amount=Decimal("1.000000000001"))
    out, err = StringIO(), StringIO()
    with pytest.raises(CommandError, match=r"^1 difference\.$"):
        call_command("credits", "audit", stdout=out, stderr=err, no_color=True)
    assert out.getvalue() == ""
    assert err.getvalue() == (
        "account acme: kept 1.000000000001 USD, by its entries 1 USD, difference 0.000000000001 USD\n"
    )
