from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts.models import Account, ApiKey, validate_names, validate_networks


def test_it_works():
    key = ApiKey(account=Account(name="acme"), name="laptop", prefix="sk-kodna-Abcdefgh")
    assert str(key) == "laptop (sk-kodna-Abcdefgh…)"
    assert (key.rps, key.rpm, key.concurrency) == (20, 40, 0)
    assert (key.strict, key.account.zero_retention) == (False, False)


def test_limits_of_new_keys_are_settings(settings):
    settings.DEFAULT_RPS, settings.DEFAULT_RPM, settings.DEFAULT_CONCURRENCY = 1, 2, 3
    key = ApiKey()
    assert (key.rps, key.rpm, key.concurrency) == (1, 2, 3)


@pytest.mark.parametrize(("ends_in", "expired"), [(None, False), (60, False), (0, True), (-60, True)])
def test_expiry(ends_in, expired):
    end = None if ends_in is None else timezone.now() + timedelta(seconds=ends_in)
    assert ApiKey(expires_at=end).is_expired is expired


@pytest.mark.parametrize("value", ["a", {"a": 1}, [1], [""], [" "], None])
def test_what_is_no_list_of_names_is_refused(value):
    with pytest.raises(ValidationError, match="list of names"):
        validate_names(value)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "example.org", "10.0.0.0/33", "::/129"])
def test_what_is_no_network_is_refused(network):
    with pytest.raises(ValidationError, match="Not an address or network"):
        validate_networks([network])


def test_addresses_and_networks_pass():
    validate_networks(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
