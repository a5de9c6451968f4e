import csv
import json
import time
from decimal import Decimal
from functools import partial
from io import StringIO

import pytest

from accounts import credits, keys
from accounts.models import Account, ApiKey
from tests import commands

pytestmark = pytest.mark.django_db
run = partial(commands.run, "keys")
refusal = partial(commands.refusal, "keys")


def with_prefix(prefix: str, name: str = "") -> ApiKey:
    key, _ = keys.issue(Account.objects.get_or_create(name="acme")[0], name=name)
    ApiKey.objects.filter(pk=key.pk).update(prefix=prefix)
    key.refresh_from_db()
    return key


def test_it_works():
    out, err = run("create", "--account", "acme")
    assert keys.well_formed(out.strip())
    assert (out.count("\n"), err) == (1, "")
    key = ApiKey.objects.get(account__name="acme")
    assert bytes(key.digest) == keys.digest(out.strip().encode())
    assert (key.rps, key.rpm, key.concurrency, key.expires_at, key.strict) == (20, 40, 0, None, False)


def test_create_with_everything():
    limits = ("--rps", "1", "--rpm", "2", "--concurrency", "3", "--expires", "2999-12-31T23:59Z")
    run("create", "--account", "acme", "--name", "CI", *limits, "--models", "a, b", "--groups", "g", "--ips", "::1")
    key = ApiKey.objects.get()
    assert (key.name, key.rps, key.rpm, key.concurrency) == ("CI", 1, 2, 3)
    assert (key.allowed_models, key.allowed_groups, key.allowed_networks) == (["a", "b"], ["g"], ["::1"])
    assert key.expires_at is not None
    assert key.expires_at.isoformat() == "2999-12-31T23:59:00+00:00"


def test_create_a_strict_key():
    run("create", "--account", "acme", "--strict")
    assert ApiKey.objects.get().strict


def test_create_takes_the_account_that_there_is():
    run("create", "--account", "acme")
    run("create", "--account", "acme")
    assert Account.objects.get().keys.count() == 2


def test_create_for_an_account_that_is_off_says_so():
    Account.objects.create(name="acme", is_active=False)
    assert "switched off" in run("create", "--account", "acme")[1]


@pytest.mark.parametrize(("option", "value"), [
    ("--rpm", "many"), ("--rps", "-1"), ("--concurrency", "1.5"), ("--rpm", "99999999999"),
    ("--expires", "tomorrow"), ("--expires", "2001-01-01"), ("--ips", "10.0.0.1/8"), ("--name", "x" * 101),
    ("--tpm", "x"),    ("--budget", "ten"), ("--budget", "-1"), ("--budget", "NaN"), ("--budget", "0.0000000000001"),
    ("--budget", "9000001"), ("--budget-period", "year"),
])  # fmt: skip
def test_create_names_the_bad_option_and_leaves_nothing(option, value):
    assert refusal("create", "--account", "acme", f"{option}={value}").startswith(f"{option}: ")
    assert not ApiKey.objects.exists()
    assert not Account.objects.exists()


@pytest.mark.parametrize("name", ["", " ", "x" * 101])
def test_create_refuses_a_bad_account_name(name):
    assert refusal("create", "--account", name).startswith("--account: ")


def test_create_with_a_budget():
    run("create", "--account", "acme", "--tpm", "500", "--budget", "0.000000000001", "--budget-period", "week")
    key = ApiKey.objects.get()
    assert (key.tpm, key.budget, key.budget_period) == (500, Decimal("0.000000000001"), "week")


def test_a_period_without_a_budget_is_said_to_bound_nothing():
    assert run("create", "--account", "acme", "--budget-period", "day")[1].startswith("--budget-period: ")


def test_list_has_every_key_and_no_secret():
    text = run("create", "--account", "acme", "--name", "CI")[0].strip()
    for form in ("table", "json", "csv"):
        out = run("list", "--format", form)[0]
        assert text[: keys.SHOWN] in out
        assert "CI" in out
        assert text not in out


def test_list_is_json_and_csv():
    key = with_prefix("sk-kodna-AAAAaaaa", name='a, "b"')
    asjson = json.loads(run("list", "--format", "json")[0])
    ascsv = list(csv.DictReader(StringIO(run("list", "--format", "csv")[0])))
    assert asjson[0]["name"] == ascsv[0]["name"] == key.name
    assert (asjson[0]["state"], asjson[0]["rpm"], asjson[0]["expires"]) == ("active", 40, None)


def test_list_has_what_was_spent_of_each_budget():
    key = with_prefix("sk-kodna-AAAAaaaa")
    ApiKey.objects.update(budget=Decimal("2.5"), budget_period="day")
    now, yesterday = time.time(), time.time() - credits.DAY
    charges = [
        credits.Charge(name, key.account_id, key.pk, 10**6, moment, False)
        for name, moment in (("r1", now), ("r2", yesterday))
    ]
    credits.charge(charges, [])
    row = json.loads(run("list", "--format", "json")[0])[0]
    assert (row["budget"], row["budget_period"], row["spent"]) == ("2.5", "day", "0.000001")


def test_list_refuses_another_format():
    assert refusal("list", "--format", "xml").startswith("--format: ")


@pytest.mark.parametrize("text", ["sk-kodna-AAAAaaaa", "sk-kodna-AAAAaaaa…", "sk-kodna-A", "AAAA"])
def test_revoke_by_the_start_of_a_key(text):
    key, other = with_prefix("sk-kodna-AAAAaaaa"), with_prefix("sk-kodna-aaaaAAAA")
    before = keys.version()
    assert run("revoke", text)[0].startswith("Revoked: ")
    key.refresh_from_db()
    other.refresh_from_db()
    assert (key.is_active, other.is_active) == (False, True)
    assert keys.version() > before


def test_revoke_by_the_whole_key_does_not_print_it():
    text = run("create", "--account", "acme")[0].strip()
    out, err = run("revoke", text)
    assert not ApiKey.objects.get().is_active
    assert text not in out + err


def test_revoke_twice_says_so():
    key = with_prefix("sk-kodna-AAAAaaaa")
    run("revoke", key.prefix)
    assert run("revoke", key.prefix)[0].startswith("Was off already")


def test_revoke_lists_the_keys_where_several_match():
    with_prefix("sk-kodna-AAAAaaaa", name="one")
    with_prefix("sk-kodna-AAAAbbbb", name="two")
    words = refusal("revoke", "AAAA")
    assert "sk-kodna-AAAAaaaa…  one, acme" in words
    assert "sk-kodna-AAAAbbbb…  two, acme" in words
    assert ApiKey.objects.filter(is_active=True).count() == 2


@pytest.mark.parametrize("text", ["zzzz", "sk-kodna-", "…", ""])
def test_revoke_refuses_what_names_no_key(text):
    with_prefix("sk-kodna-AAAAaaaa")
    assert refusal("revoke", text).startswith("PREFIX: ")


@pytest.mark.parametrize(("grace", "seconds"), [("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604800), ("0", 0)])
def test_rotate(grace, seconds):
    old = with_prefix("sk-kodna-AAAAaaaa")
    out, err = run("rotate", "AAAA", "--grace", grace)
    new = ApiKey.objects.get(rotated_from=old)
    assert bytes(new.digest) == keys.digest(out.strip().encode())
    assert "sk-kodna-AAAAaaaa… ends at" in err
    old.refresh_from_db()
    assert old.expires_at is not None
    assert abs((old.expires_at - new.created_at).total_seconds() - seconds) < 5


@pytest.mark.parametrize("grace", ["1", "1w", "-1h", "soon", ""])
def test_rotate_refuses_what_is_no_duration(grace):
    with_prefix("sk-kodna-AAAAaaaa")
    assert refusal("rotate", "AAAA", f"--grace={grace}").startswith("--grace: ")
    assert ApiKey.objects.count() == 1


def test_rotate_refuses_a_key_that_is_off():
    key = with_prefix("sk-kodna-AAAAaaaa")
    run("revoke", key.prefix)
    assert "switched off" in refusal("rotate", key.prefix)
