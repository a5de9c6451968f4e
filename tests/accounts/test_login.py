import time
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
from django.core.cache import cache
from django.test import Client


@pytest.fixture
def _no_attempts_yet(settings, monkeypatch):
    """The minute is django-ratelimit's own, fixed on the clock: it must not end between two attempts."""
    now = time.time()
    monkeypatch.setattr("django_ratelimit.core.time", SimpleNamespace(time=lambda: now))
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    cache.clear()
    yield
    cache.clear()


def log_in(client: Client, password: str, address: str = "192.0.2.1", **more: str):
    form = {"username": "admin", "password": password, **more}
    return client.post("/admin/login/", form, REMOTE_ADDR=address)


@pytest.mark.usefixtures("_no_attempts_yet")
def test_login_leads_to_the_console(client, admin_user):
    assert 'name="next" value="/admin/"' in client.get("/admin/login/").content.decode()
    assert log_in(client, "password", next="/admin/").url == "/admin/"


@pytest.mark.usefixtures("_no_attempts_yet")
def test_the_eleventh_attempt_in_a_minute_is_refused(client, admin_user):
    assert [log_in(client, "wrong").status_code for _ in range(10)] == [200] * 10
    refused = log_in(client, "password")
    assert (refused.status_code, refused["Retry-After"]) == (429, "60")
    assert "_auth_user_id" not in client.session
    assert client.get("/admin/login/", REMOTE_ADDR="192.0.2.1").status_code == 200
    assert log_in(client, "password", "192.0.2.2").status_code == 302


@pytest.mark.usefixtures("_no_attempts_yet")
def test_one_person_has_a_whole_ipv6_network(client, admin_user):
    answers = [log_in(client, "wrong", f"2001:db8::{number}").status_code for number in range(1, 12)]
    assert answers == [200] * 10 + [429]
    assert log_in(client, "password", "2001:db8:0:1::1").status_code == 302


@pytest.mark.usefixtures("_no_attempts_yet")
def test_a_stranger_behind_the_proxy_does_not_lock_the_operator_out(client, admin_user, settings):
    settings.TRUSTED_PROXIES = [ip_network("127.0.0.1")]

    def attempt(password, forwarded):
        form = {"username": "admin", "password": password}
        return client.post("/admin/login/", form, REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR=forwarded).status_code

    assert [attempt("wrong", f"10.0.0.{number}, 192.0.2.1") for number in range(11)] == [200] * 10 + [429]
    assert attempt("password", "192.0.2.2") == 302


@pytest.mark.usefixtures("_no_attempts_yet")
def test_a_unix_socket_tells_no_address(client, admin_user):
    assert log_in(client, "password", "").status_code == 302
