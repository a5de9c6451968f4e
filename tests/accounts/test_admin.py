"""The console's pages for keys, accounts and people, through Django's test client."""

import re
from datetime import timedelta
from ipaddress import ip_network

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import keys
from accounts.models import Account, ApiKey, User

KEYS = "/admin/accounts/apikey/"
FORM = {"allowed_models": "", "allowed_groups": "", "allowed_networks": "", "rps": 20, "rpm": 40, "concurrency": 0}
KEY = re.compile(r"sk-kodna-[0-9A-Za-z]{43}")


@pytest.fixture
def admin_client(db, client) -> Client:
    """An operator, without a password: hashing one takes longer than most tests here."""
    client.force_login(User.objects.create_superuser("admin"))
    return client


@pytest.fixture
def account(db) -> Account:
    return Account.objects.create(name="acme")


@pytest.fixture
def key(account) -> ApiKey:
    return keys.issue(account, name="laptop")[0]


def create(client: Client, **fields: object):
    return client.post(f"{KEYS}add/", {**FORM, "new_account": "acme", **fields})


def text_of(client: Client, url: str) -> str:
    answer = client.get(url)
    assert answer.status_code == 200
    return answer.content.decode()


# --- a new key -------------------------------------------------------------------------------------------------------


def test_it_works(admin_client):
    answer = create(admin_client, name="laptop", notes="for tests")
    key = ApiKey.objects.select_related("account").get()
    assert (key.name, key.account.name, key.is_active, key.notes) == ("laptop", "acme", True, "for tests")
    assert answer.url == f"{KEYS}{key.pk}/new/"
    shown = KEY.search(text_of(admin_client, answer.url))
    assert shown is not None
    assert bytes(key.digest) == keys.digest(shown[0].encode())


def test_a_new_key_is_shown_once(admin_client):
    url = create(admin_client).url
    first = admin_client.get(url)
    assert KEY.search(first.content.decode())
    assert "no-store" in first["Cache-Control"]
    assert not KEY.search(text_of(admin_client, url))


def test_a_look_at_the_headers_alone_does_not_use_it_up(admin_client):
    url = create(admin_client).url
    assert admin_client.head(url).status_code == 200
    assert KEY.search(text_of(admin_client, url))


def test_a_key_is_shown_to_its_maker_only(admin_client, django_user_model):
    url = create(admin_client).url
    other = Client()
    other.force_login(django_user_model.objects.create_superuser("other"))
    assert not KEY.search(text_of(other, url))


def test_the_page_has_ready_snippets(admin_client, settings):
    settings.PUBLIC_BASE_URL = "https://llm.example.org"
    page = text_of(admin_client, create(admin_client, allowed_models="some-model").url)
    assert page.count("https://llm.example.org/v1") >= 5
    assert page.count("some-model") >= 5
    for title in ("Python", "JavaScript", "curl", "Continue", "Cursor"):
        assert f">{title}</button>" in page


def test_no_log_entry_holds_the_key(admin_client):
    shown = KEY.search(text_of(admin_client, create(admin_client).url))
    assert shown is not None
    assert shown[0] not in str(list(LogEntry.objects.values()))


def test_lists_are_written_as_text(admin_client):
    create(admin_client, allowed_models="a, b\nvendor/c\r\na", allowed_networks="10.0.0.0/8")
    key = ApiKey.objects.get()
    assert key.allowed_models == ["a", "b", "vendor/c"]
    assert (key.allowed_groups, key.allowed_networks) == ([], ["10.0.0.0/8"])


@pytest.mark.parametrize(("field", "strict"), [({"strict": "on"}, True), ({}, False)])
def test_a_key_can_be_strict(admin_client, field, strict):
    create(admin_client, **field)
    assert ApiKey.objects.get().strict is strict


def test_an_account_can_be_chosen(admin_client, account):
    create(admin_client, account=account.pk, new_account="")
    assert account.keys.count() == 1


def test_an_account_named_again_is_not_made_again(admin_client, account):
    create(admin_client, new_account="acme")
    assert account.keys.count() == 1


@pytest.mark.parametrize(("fields", "words"), [
    ({"new_account": ""}, "Choose an account, or name a new one below."),
    ({"new_account": "x" * 101}, "at most 100 characters"),
    ({"allowed_networks": "10.0.0.1/8"}, "Not an address or network"),
    ({"rpm": -1}, "greater than or equal to 0"),
    ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00"}, "This moment is past"),
])  # fmt: skip
def test_a_bad_form_says_so_and_leaves_nothing(admin_client, fields, words):
    answer = create(admin_client, **fields)
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert not ApiKey.objects.exists()
    assert not Account.objects.exists()


def test_two_accounts_are_one_too_many(admin_client, account):
    assert "not both" in create(admin_client, account=account.pk).content.decode()


# --- one key ---------------------------------------------------------------------------------------------------------


def test_the_page_of_a_key(admin_client, key):
    page = text_of(admin_client, f"{KEYS}{key.pk}/change/")
    assert "This key works." in page
    assert f"/admin/proxy/usagerecord/?key_prefix__exact={key.prefix}" in page
    assert bytes(key.digest).hex() not in page


def test_a_change_writes_what_was_changed_and_nothing_else(admin_client, key):
    url = f"{KEYS}{key.pk}/change/"
    assert "a 400 that names the field" in text_of(admin_client, url)
    form = {**FORM, "name": "desk", "is_active": "on", "rpm": 7, "strict": "on"}
    assert admin_client.post(url, form).status_code == 302
    key.refresh_from_db()
    assert (key.name, key.rpm, key.rps, key.is_active, key.account.name) == ("desk", 7, 20, True, "acme")
    assert key.strict


def test_saving_does_not_undo_what_another_process_wrote(admin_client, key, monkeypatch):
    used = timezone.now()
    save = ApiKey.save

    def touched_meanwhile(self, **options):
        ApiKey.objects.filter(pk=self.pk).update(last_used_at=used)
        save(self, **options)

    monkeypatch.setattr(ApiKey, "save", touched_meanwhile)
    admin_client.post(f"{KEYS}{key.pk}/change/", {**FORM, "name": "desk", "is_active": "on"})
    key.refresh_from_db()
    assert (key.name, key.last_used_at) == ("desk", used)


@pytest.mark.parametrize(("to", "active"), [("0", False), ("1", True)])
def test_one_click_switches_a_key(admin_client, key, to, active):
    before = keys.version()
    answer = admin_client.post(f"{KEYS}{key.pk}/switch/", {"to": to, "filters": "state=active"})
    assert answer.url == f"{KEYS}?state=active"
    key.refresh_from_db()
    assert key.is_active is active
    assert keys.version() > before


def test_the_switch_on_the_page_comes_back_to_it(admin_client, key):
    answer = admin_client.post(f"{KEYS}{key.pk}/switch/", {"to": "0", "from": "page"})
    assert answer.url == f"{KEYS}{key.pk}/change/"
    assert "it is refused" in text_of(admin_client, answer.url)


def test_a_link_alone_switches_nothing(admin_client, key):
    assert admin_client.get(f"{KEYS}{key.pk}/switch/").status_code == 405
    key.refresh_from_db()
    assert key.is_active


def test_rotate_shows_the_new_key_once(admin_client, key):
    url = f"{KEYS}{key.pk}/rotate/"
    assert "24 hours" in text_of(admin_client, url)
    answer = admin_client.post(url, {"grace": "24"})
    new = ApiKey.objects.get(rotated_from=key)
    assert answer.url == f"{KEYS}{new.pk}/new/"
    assert KEY.search(text_of(admin_client, answer.url))
    assert not KEY.search(text_of(admin_client, answer.url))
    key.refresh_from_db()
    assert timedelta(hours=23) < key.expires_at - timezone.now() <= timedelta(hours=24)


def test_rotated_keys_are_linked(admin_client, key):
    new, _ = keys.rotate(key, timedelta(0))
    assert f"{KEYS}{new.pk}/change/" in text_of(admin_client, f"{KEYS}{key.pk}/change/")
    assert f"{KEYS}{key.pk}/change/" in text_of(admin_client, f"{KEYS}{new.pk}/change/")


@pytest.mark.parametrize("grace", ["", "5", "-1"])
def test_rotate_takes_the_offered_graces_only(admin_client, key, grace):
    assert admin_client.post(f"{KEYS}{key.pk}/rotate/", {"grace": grace}).status_code == 200
    assert ApiKey.objects.count() == 1


def test_a_key_that_is_off_is_not_rotated(admin_client, key):
    ApiKey.objects.update(is_active=False)
    answer = admin_client.post(f"{KEYS}{key.pk}/rotate/", {"grace": "0"})
    assert "switched off" in answer.content.decode()
    assert ApiKey.objects.count() == 1


@pytest.mark.parametrize("view", ["new", "rotate"])
def test_no_such_key(admin_client, view):
    assert admin_client.get(f"{KEYS}999/{view}/").status_code == 404


# --- the list --------------------------------------------------------------------------------------------------------


def test_the_list(admin_client, key):
    page = text_of(admin_client, KEYS)
    for words in ("laptop", f"{key.prefix}…", "acme", "20/s, 40/min", "never", f"{KEYS}{key.pk}/switch/"):
        assert words in page


@pytest.mark.parametrize(("query", "found"), [
    ("q=laptop", True), ("q=sk-kodna-", True), ("q=acm", True), ("q=nothing", False),
    ("state=active", True), ("state=expiring", False), ("state=expired", False), ("state=off", False),
])  # fmt: skip
def test_search_and_filters(admin_client, key, query, found):
    assert (f"{KEYS}{key.pk}/change/" in text_of(admin_client, f"{KEYS}?{query}")) is found


@pytest.mark.parametrize(("fields", "state"), [
    ({"is_active": False}, "off"),
    ({"expires_at": timezone.now() - timedelta(days=1)}, "expired"),
    ({"expires_at": timezone.now() + timedelta(days=1)}, "expiring"),
])  # fmt: skip
def test_the_state_filter_finds_what_the_column_says(admin_client, key, fields, state):
    ApiKey.objects.update(**fields)
    key.refresh_from_db()
    assert keys.state(key) == state
    assert f"{KEYS}{key.pk}/change/" in text_of(admin_client, f"{KEYS}?state={state}")


@pytest.mark.parametrize(("action", "before", "after"), [("disable", True, False), ("enable", False, True)])
def test_actions_reach_every_process(admin_client, key, action, before, after):
    ApiKey.objects.update(is_active=before)
    version = keys.version()
    admin_client.post(KEYS, {"action": action, "_selected_action": [key.pk]})
    key.refresh_from_db()
    assert key.is_active is after
    assert keys.version() > version


def test_rotate_from_the_list(admin_client, key, account):
    other, _ = keys.issue(account)
    one = admin_client.post(KEYS, {"action": "rotate", "_selected_action": [key.pk]})
    assert one.url == f"{KEYS}{key.pk}/rotate/"
    two = admin_client.post(KEYS, {"action": "rotate", "_selected_action": [key.pk, other.pk]}, follow=True)
    assert "one key at a time" in two.content.decode()


# --- who may ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def onlooker(db, client) -> Client:
    """May look at keys, no more."""
    user = User.objects.create_user("onlooker", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_apikey"))
    client.force_login(user)
    return client


def test_an_onlooker_changes_nothing(onlooker, key):
    assert "/switch/" not in text_of(onlooker, KEYS)
    assert onlooker.post(f"{KEYS}{key.pk}/switch/", {"to": "0"}).status_code == 403
    assert onlooker.post(f"{KEYS}{key.pk}/rotate/", {"grace": "0"}).status_code == 403
    assert create(onlooker).status_code == 403
    assert ApiKey.objects.get().is_active


@pytest.mark.parametrize("view", ["", "add/", "1/new/", "1/rotate/", "1/switch/"])
def test_a_stranger_is_sent_to_the_login_page(db, client, view):
    assert client.get(KEYS + view).url.startswith("/admin/login/")


# --- accounts and people ---------------------------------------------------------------------------------------------


def test_accounts(admin_client, key):
    keys.issue(key.account, is_active=False)
    page = text_of(admin_client, "/admin/accounts/account/")
    assert f'?account__id__exact={key.account_id}" class="text-link">1</a>' in page
    page = text_of(admin_client, f"/admin/accounts/account/{key.account_id}/change/")
    assert f"{KEYS}{key.pk}/change/" in page


def test_an_account_is_switched_off_in_its_form(admin_client, account):
    rows = {"keys-TOTAL_FORMS": 0, "keys-INITIAL_FORMS": 0}
    url = f"/admin/accounts/account/{account.pk}/change/"
    assert admin_client.post(url, {"name": "acme", "notes": "gone", **rows}).status_code == 302
    account.refresh_from_db()
    assert (account.is_active, account.notes) == (False, "gone")


def test_zero_retention_is_a_switch_of_the_account_and_a_filter(admin_client, account):
    rows = {"keys-TOTAL_FORMS": 0, "keys-INITIAL_FORMS": 0}
    url, before = f"/admin/accounts/account/{account.pk}/change/", keys.version()
    form = {"name": "acme", "is_active": "on", "zero_retention": "on", **rows}
    assert admin_client.post(url, form).status_code == 302
    account.refresh_from_db()
    assert account.zero_retention
    assert keys.version() > before, "running gateways learn of it"
    assert url in text_of(admin_client, "/admin/accounts/account/?zero_retention__exact=1")
    assert url not in text_of(admin_client, "/admin/accounts/account/?zero_retention__exact=0")


def test_a_user_is_made(admin_client, settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    passwords = {"password1": "correct horse 42", "password2": "correct horse 42"}
    answer = admin_client.post(
        "/admin/accounts/user/add/", {"username": "anna", "usable_password": "true", **passwords}
    )
    user = User.objects.get(username="anna")
    assert answer.url == reverse("admin:accounts_user_change", args=[user.pk])
    assert user.check_password("correct horse 42")
    assert "anna" in text_of(admin_client, answer.url)


@pytest.mark.parametrize("page", ["/admin/", "/admin/accounts/user/", "/admin/auth/group/add/"])
def test_other_pages(admin_client, page):
    text_of(admin_client, page)


# --- the login page --------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_attempts_yet(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    cache.clear()
    yield
    cache.clear()


def log_in(client: Client, password: str, address: str = "192.0.2.1", **more: str):
    form = {"username": "admin", "password": password, **more}
    return client.post("/admin/login/", form, REMOTE_ADDR=address)


@pytest.mark.usefixtures("_no_attempts_yet")
def test_login_leads_to_the_console(client, admin_user):
    assert 'name="next" value="/admin/"' in text_of(client, "/admin/login/")
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
