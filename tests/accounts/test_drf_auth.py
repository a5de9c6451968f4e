"""The key of a request to Django's views: as on the hot path, and never a 401 for what is the database's fault."""

import ipaddress
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from accounts import keys
from accounts.models import Account, ApiKey
from tests.own_api import ask, new_key

ME = "/v1/auth/me"
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("headers", [
    {"authorization": "Bearer {}"}, {"authorization": "bearer  {} "}, {"x-api-key": "{}"}, {"x-goog-api-key": "{}"},
    {"authorization": "Basic eDp5", "x-api-key": "{}"},
])  # fmt: skip
def test_it_works(headers):
    _, text = new_key()
    answer = ask(ME, headers={name: value.format(text) for name, value in headers.items()})
    assert (answer.status, answer.json["account"]) == (200, "acme")


@pytest.mark.parametrize(("credential", "words"), [
    ("", "No API key"), ("sk-kodna-x", "copied whole"), ("ключ".encode().decode("latin-1"), "copied whole"),
    (keys.make(), "not known"),
], ids=("none", "short", "strange", "unknown"))  # fmt: skip
def test_no_such_key(credential, words):
    answer = ask(ME, credential)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (
        *(401, "authentication_error", "invalid_api_key"),
    )
    assert words in answer.error["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("change", ["off", "account off", "expired"])
def test_a_key_that_no_longer_works(change):
    _, text = new_key()
    if change == "off":
        ApiKey.objects.update(is_active=False)
    elif change == "account off":
        Account.objects.update(is_active=False)
    else:
        ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert ask(ME, text).status == 401


def test_from_elsewhere(settings):
    _, text = new_key(allowed_networks=["10.0.0.0/8"])
    assert ask(ME, text, client="10.1.2.3").status == 200
    answer = ask(ME, text, client="192.0.2.1")
    assert (answer.status, answer.error["type"], answer.error["code"]) == (403, "permission_error", "ip_not_allowed")
    forwarded = {"x-forwarded-for": "10.9.9.9"}
    assert ask(ME, text, client="192.0.2.1", headers=forwarded).status == 403, "anybody can say so"
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("192.0.2.0/24")]
    assert ask(ME, text, client="192.0.2.1", headers=forwarded).status == 200


def test_without_a_key_where_that_is_allowed(settings):
    settings.ALLOW_NO_AUTH = True
    answer = ask(ME)
    assert (answer.status, answer.json["account"], answer.json["key"]) == (200, "anonymous", None)
    assert ask(ME, "sk-kodna-x").status == 401


def test_the_database_is_away(monkeypatch):
    _, text = new_key()
    monkeypatch.setattr(ApiKey.objects, "select_related", _away)
    answer = ask(ME, text)
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "database_unavailable", "2")


def _away(*_: object) -> None:
    raise OperationalError("connection refused")


def test_a_client_may_accept_anything():
    _, text = new_key()
    assert ask(ME, text, headers={"accept": "text/html"}).headers["content-type"] == "application/json"
