import pytest

from accounts import keys, signals
from accounts.models import Account, ApiKey

pytestmark = pytest.mark.django_db


@pytest.fixture
def key() -> ApiKey:
    return keys.issue(Account.objects.create(name="acme"))[0]


def test_it_works(key):
    before = keys.version()
    key.is_active = False
    key.save(update_fields=["is_active"])
    assert keys.version() == before + 1


def test_the_first_change_makes_the_version():
    assert keys.version() == 0
    Account.objects.create(name="acme")
    assert keys.version() == 1


def test_an_account_switched_off_raises_it(key):
    before = keys.version()
    key.account.is_active = False
    key.account.save(update_fields=["is_active"])
    assert keys.version() == before + 1


def test_a_deleted_key_raises_it(key):
    before = keys.version()
    ApiKey.objects.filter(pk=key.pk).delete()
    assert keys.version() == before + 1


def test_an_update_needs_a_bump_by_hand(key):
    before = keys.version()
    ApiKey.objects.update(is_active=False)
    assert keys.version() == before
    signals.bump()
    assert keys.version() == before + 1
