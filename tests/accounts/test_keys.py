from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts import keys
from accounts.models import Account, ApiKey

KINDS = ("concurrency", "rps", "rpm", "tpm")


@pytest.fixture
def account(db) -> Account:
    return Account.objects.create(name="acme")


def ends_in(**duration) -> dict[str, object]:
    return {"expires_at": timezone.now() + timedelta(**duration)}


def found(text: str) -> keys.Key | None:
    return keys.load().by_digest.get(keys.digest(text.encode()))


def test_it_works(account):
    key, text = keys.issue(account, name="laptop", allowed_models=["a"], allowed_networks=["10.0.0.0/8"], rps=3)
    assert text.startswith("sk-kodna-")
    assert len(text) == len("sk-kodna-") + 43
    row = found(text)
    assert row is not None
    assert (row.id, row.name, row.account, row.rps) == (key.pk, "laptop", "acme", 3)
    assert (row.models, row.is_active, row.expires) == ({"a"}, True, 0)


def test_only_prefix_and_digest_are_stored(account):
    key, text = keys.issue(account)
    assert key.prefix == text[:17]
    stored = str(ApiKey.objects.filter(pk=key.pk).values().get())
    assert text not in stored
    assert text[17:] not in stored


def test_the_digest_needs_the_pepper(monkeypatch):
    text = keys.make().encode()
    before = keys.digest(text)
    monkeypatch.setattr(keys, "_PEPPER", b"another")
    assert keys.digest(text) != before


def test_keys_differ_and_are_well_formed():
    made = {keys.make() for _ in range(200)}
    assert len(made) == 200
    assert all(map(keys.well_formed, made))


@pytest.mark.parametrize("spoil", [
    lambda key: key[:-1] + ("a" if key[-1] != "a" else "b"),
    lambda key: key[:20] + ("a" if key[20] != "a" else "b") + key[21:],
    lambda key: key[:-1],
    lambda key: key + "a",
    lambda key: key.replace("kodna", "other"),
    lambda key: key[:-1] + "é",
    lambda key: "",
])  # fmt: skip
def test_a_mistyped_key_is_not_well_formed(spoil):
    assert not keys.well_formed(spoil(keys.make()))


def test_a_bad_field_is_named_and_nothing_is_kept(account):
    with pytest.raises(ValidationError) as refusal:
        keys.issue(account, allowed_networks=["nonsense"])
    assert list(refusal.value.message_dict) == ["allowed_networks"]
    assert not ApiKey.objects.exists()


def test_rotate_copies_rights_and_ends_the_old_one(account):
    fields = {"name": "n", "notes": "x", "allowed_models": ["a"], "budget": Decimal("1.5"), "budget_period": "day"}
    fields |= {"rps": 1, "rpm": 2, "tpm": 3, "concurrency": 4}
    old, _ = keys.issue(account, **fields)
    new, text = keys.rotate(old, timedelta(hours=1))
    assert found(text) is not None
    assert {name: getattr(new, name) for name in fields} == fields
    assert (new.rotated_from, new.expires_at, new.spends_as) == (old, None, old.pk)
    assert keys.rotate(new, timedelta(0))[0].spends_as == old.pk
    old.refresh_from_db()
    assert timedelta(minutes=59) < old.expires_at - timezone.now() <= timedelta(hours=1)


def test_rotate_without_grace_ends_the_old_one_now(account):
    old, text = keys.issue(account)
    keys.rotate(old, timedelta(0))
    assert found(text) is None


def test_rotate_does_not_prolong_a_key(account):
    old, _ = keys.issue(account, **ends_in(minutes=5))
    end = old.expires_at
    new, _ = keys.rotate(old, timedelta(days=7))
    old.refresh_from_db()
    assert old.expires_at == new.expires_at == end


def test_a_key_that_is_off_is_not_rotated(account):
    with pytest.raises(ValidationError, match="switched off"):
        keys.rotate(keys.issue(account, is_active=False)[0], timedelta(0))


def test_an_expired_key_is_not_rotated(account):
    with pytest.raises(ValidationError, match="expired"):
        keys.rotate(keys.issue(account, **ends_in(seconds=-1))[0], timedelta(0))


@pytest.mark.parametrize(("fields", "state"), [
    ({}, "active"),
    (ends_in(days=30), "active"),
    (ends_in(days=3), "expiring"),
    (ends_in(days=-3), "expired"),
    ({"is_active": False}, "off"),
])  # fmt: skip
def test_state(fields, state):
    assert keys.state(ApiKey(account=Account(name="a"), **fields)) == state


def test_state_of_a_key_whose_account_is_off():
    assert keys.state(ApiKey(account=Account(name="a", is_active=False))) == "account off"


def test_a_key_of_an_account_that_is_off_is_not_active(account):
    _, text = keys.issue(account)
    account.is_active = False
    account.save(update_fields=["is_active"])
    row = found(text)
    assert row is not None
    assert not row.is_active


@pytest.mark.parametrize("on", [True, False])
def test_flags_of_a_key_and_its_account(account, on):
    account.zero_retention = on
    account.save(update_fields=["zero_retention"])
    old, _ = keys.issue(account, strict=on)
    row = found(keys.rotate(old, timedelta(0))[1])
    assert row is not None
    assert (row.strict, row.zero_retention) == (on, on)


def test_limits_of_a_key_and_its_account_in_the_order_in_which_they_are_checked(account):
    account.rps, account.tpm = 5, 6
    account.save()
    key, text = keys.issue(account, rps=1, rpm=2, tpm=3, concurrency=4)
    row = found(text)
    assert row is not None
    own = [(f"key:{key.pk}", kind, value) for kind, value in zip(KINDS, (4, 1, 2, 3), strict=True)]
    assert list(row.limits) == [*own, (f"account:{account.pk}", "rps", 5), (f"account:{account.pk}", "tpm", 6)]


@pytest.mark.parametrize(("billing", "metered"), [("unmetered", False), ("prepaid", True), ("postpaid", True)])
def test_money_of_a_key_is_rounded_against_the_spender(account, billing, metered):
    account.billing, account.ceiling = billing, Decimal("2.0000000019")
    account.save()
    row = found(keys.issue(account, budget=Decimal("0.0000000019"), budget_period="week")[1])
    assert row is not None
    assert (row.billing, row.is_metered, row.ceiling, row.budget, row.period) == (
        *(billing, metered, 2_000_000_001),
        *(1, "week"),
    )


def test_touch_writes_at_most_once_a_minute_and_raises_no_version(account):
    key, _ = keys.issue(account)
    before, moment = keys.version(), timezone.now()
    for seconds, kept in [(0, 0), (59, 0), (61, 61)]:
        keys.touch({key.pk: moment + timedelta(seconds=seconds)})
        key.refresh_from_db()
        assert key.last_used_at == moment + timedelta(seconds=kept)
    assert keys.version() == before


@pytest.mark.parametrize(("address", "admitted"), [
    ("10.1.2.3", True),
    ("::ffff:10.1.2.3", True),
    ("11.1.2.3", False),
    ("2001:db8::1", True),
    ("2001:db9::1", False),
    ("", False),
    ("unix", False),
])  # fmt: skip
def test_networks(account, address, admitted):
    _, text = keys.issue(account, allowed_networks=["10.0.0.0/8", "2001:db8::/32"])
    row = found(text)
    assert row is not None
    assert row.admits(address) is admitted


def test_without_networks_every_address_passes(account):
    row = found(keys.issue(account)[1])
    assert row is not None
    assert row.admits("")


def test_nobody_is_anonymous_unless_allowed(db, settings):
    settings.ALLOW_NO_AUTH = False
    assert keys.load().anonymous is None
    settings.ALLOW_NO_AUTH = True
    anonymous = keys.load().anonymous
    assert anonymous is not None
    assert (anonymous.account, anonymous.is_active, anonymous.zero_retention) == ("anonymous", True, False)
    assert (anonymous.limits, anonymous.is_metered) == ((), False)
    Account.objects.update(zero_retention=True, billing="postpaid", ceiling=1, rpm=7)
    table = keys.load()
    anonymous = table.anonymous
    assert anonymous is not None
    assert table.all() == [anonymous]
    assert (anonymous.zero_retention, anonymous.billing, anonymous.ceiling) == (True, "postpaid", 10**9)
    assert [limit.value for limit in anonymous.limits] == [7]
