"""The console's pages for keys, accounts and people, through Django's test client."""

import re
import time
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import credits, keys
from accounts.models import Account, ApiKey, LedgerEntry, User
from accounts.usd import picodollars

KEYS = "/admin/accounts/apikey/"
ACCOUNTS, LEDGER = "/admin/accounts/account/", "/admin/accounts/ledgerentry/"
NUMBERS = {"rps": 20, "rpm": 40, "tpm": 0, "concurrency": 0}
FORM = {"allowed_models": "", "allowed_groups": "", "allowed_networks": "", "budget_period": "total", **NUMBERS}
NO_KEYS = {"keys-TOTAL_FORMS": 0, "keys-INITIAL_FORMS": 0}
ACCOUNT = {"name": "acme", "is_active": "on", "billing": "prepaid", "ceiling": "0", **NUMBERS, **NO_KEYS}
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
    page = text_of(admin_client, ACCOUNTS)
    assert f'?account__id__exact={key.account_id}" class="text-link">1</a>' in page
    page = text_of(admin_client, f"{ACCOUNTS}{key.account_id}/change/")
    assert f"{KEYS}{key.pk}/change/" in page


def test_an_account_is_switched_off_in_its_form(admin_client, account):
    form = {**ACCOUNT, "notes": "gone"}
    del form["is_active"]
    assert admin_client.post(f"{ACCOUNTS}{account.pk}/change/", form).status_code == 302
    account.refresh_from_db()
    assert (account.is_active, account.notes) == (False, "gone")


def test_zero_retention_is_a_switch_of_the_account_and_a_filter(admin_client, account):
    url, before = f"{ACCOUNTS}{account.pk}/change/", keys.version()
    assert admin_client.post(url, {**ACCOUNT, "zero_retention": "on"}).status_code == 302
    account.refresh_from_db()
    assert account.zero_retention
    assert keys.version() > before, "running gateways learn of it"
    assert url in text_of(admin_client, f"{ACCOUNTS}?zero_retention__exact=1")
    assert url not in text_of(admin_client, f"{ACCOUNTS}?zero_retention__exact=0")


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


# --- money -----------------------------------------------------------------------------------------------------------


def spend(key: ApiKey, amount: Decimal, request_id: str = "r1", *, metered: bool = False) -> None:
    charge = credits.Charge(request_id, key.account_id, key.pk, picodollars(amount), time.time(), metered)
    with transaction.atomic():
        credits.charge([charge], [])


def grant(client: Client, account: Account, **fields: object):
    url = f"{ACCOUNTS}{account.pk}/grant/"
    once = client.get(url).context["form"]["once"].value()
    return client.post(url, {"amount": "25.50", "note": "invoice 7", "once": once, **fields})


def words_of(client: Client, url: str) -> str:
    """The page without its markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", text_of(client, url)).split())


def test_credit_is_granted(admin_client, account):
    answer = grant(admin_client, account)
    assert answer.url == f"{ACCOUNTS}{account.pk}/change/"
    entry = LedgerEntry.objects.get()
    assert (entry.account, entry.amount, entry.note, entry.by) == (account, Decimal("25.50"), "invoice 7", "admin")
    page = words_of(admin_client, answer.url)
    assert "Granted 25.50 USD to acme. The account was unmetered: it is prepaid now." in page
    assert "Balance 25.50 USD. Requests under way are not in it yet." in page
    assert LogEntry.objects.get().change_message == "Granted 25.50 USD."


def test_a_form_that_is_sent_twice_grants_once(admin_client, account):
    url = f"{ACCOUNTS}{account.pk}/grant/"
    form = {"amount": "1", "once": admin_client.get(url).context["form"]["once"].value()}
    answers = [admin_client.post(url, form) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [302, 302]
    assert credits.balance(account.pk) == 1
    assert "sent twice" in text_of(admin_client, answers[1].url)


@pytest.mark.parametrize(("fields", "words"), [
    ({"amount": "0"}, "Nothing would change."),
    ({"amount": "ten"}, "Enter a number."),
    ({"amount": "1_000"}, "Enter a number."),
    ({"amount": "0.0000000000001"}, "12 decimal places"),
    ({"amount": "9000001"}, "less than or equal to 9000000"),
    ({"note": "x" * 301}, "at most 300 characters"),
    ({"once": "sesame"}, "load the page again"),
])  # fmt: skip
def test_a_bad_grant_says_so_and_leaves_nothing(admin_client, account, fields, words):
    answer = grant(admin_client, account, **fields)
    assert answer.status_code == 200
    assert words in answer.content.decode()
    assert not LedgerEntry.objects.exists()


def test_a_list_of_accounts_with_their_balances(admin_client, account):
    Account.objects.create(name="new", billing="postpaid")
    Account.objects.create(name="internal")
    credits.grant(account, Decimal("1234.5"))
    page = words_of(admin_client, ACCOUNTS)
    for words in ("acme active prepaid 1,234.50", "new active postpaid 0.00", "internal active unmetered —"):
        assert words in page


def test_an_account_is_billed_and_bounded_in_its_form(admin_client, account):
    form = {**ACCOUNT, "billing": "postpaid", "ceiling": "2.5", "low_balance": "0.000000000001", "tpm": "9"}
    assert admin_client.post(f"{ACCOUNTS}{account.pk}/change/", form).status_code == 302
    account.refresh_from_db()
    assert (account.billing, account.ceiling, account.tpm) == ("postpaid", Decimal("2.5"), 9)
    page = text_of(admin_client, f"{ACCOUNTS}{account.pk}/change/")
    assert re.search(r'name="low_balance" value="0.000000000001" [^>]* step="any"', page)
    assert "it may fall to 2.50 USD below zero" in page


def test_a_key_shows_what_it_has_spent(admin_client, account):
    key, other = (keys.issue(account, budget=budget, budget_period="month")[0] for budget in (Decimal(2), None))
    spend(key, Decimal("0.5"))
    spend(other, Decimal("0.000000000001"), "r2")
    page = words_of(admin_client, KEYS)
    assert "0.50 of 2.00 a month" in page
    assert "0.000000000001" in page
    assert "0.50 of 2.00 a month" in words_of(admin_client, f"{KEYS}{key.pk}/change/")


def test_the_spending_of_a_page_of_keys_is_read_at_once(admin_client, account, django_assert_max_num_queries):
    for _ in range(12):
        keys.issue(account)
    with django_assert_max_num_queries(12):
        text_of(admin_client, KEYS)


def test_a_budget_is_set_with_a_new_key(admin_client):
    create(admin_client, budget="0.25", budget_period="week", tpm=500)
    key = ApiKey.objects.get()
    assert (key.budget, key.budget_period, key.tpm) == (Decimal("0.25"), "week", 500)


def test_the_ledger(admin_client, key):
    credits.grant(key.account, Decimal(10), "invoice 7", "ann")
    spend(key, Decimal("0.000000000001"), metered=True)
    spend(ApiKey(pk=9, account_id=99), Decimal(1), "r2", metered=True)
    page = words_of(admin_client, LEDGER)
    for words in ("10.00", "invoice 7", "ann", "-0.000000000001", "r1", "acme", "99, deleted"):
        assert words in page
    page = words_of(admin_client, f"{LEDGER}?account={key.account_id}")
    assert "invoice 7" in page
    assert "99, deleted" not in page
    assert "invoice 7" not in words_of(admin_client, f"{LEDGER}?q=r1")
    assert 'href="/admin/proxy/usagerecord/?q=r1"' in text_of(admin_client, f"{LEDGER}?q=r1")
    assert "99, deleted" in words_of(admin_client, f"{LEDGER}{LedgerEntry.objects.get(request_id='r2').pk}/change/")


def test_the_ledger_is_only_looked_at(admin_client, account):
    entry = credits.grant(account, Decimal(1))
    for view in ("add/", f"{entry.pk}/delete/"):
        assert admin_client.post(LEDGER + view, {"post": "yes"}).status_code == 403
    assert admin_client.post(f"{LEDGER}{entry.pk}/change/", {"note": "x"}).status_code == 403
    assert LedgerEntry.objects.get().note == ""


def test_an_account_with_ledger_entries_is_not_deleted_and_the_page_says_what_to_do(admin_client, account):
    credits.grant(account, Decimal(1))
    chosen = {"action": "delete_selected", "_selected_action": [account.pk], "post": "yes"}
    for answer in (
        admin_client.post(f"{ACCOUNTS}{account.pk}/delete/", {"post": "yes"}),
        admin_client.post(ACCOUNTS, chosen),
    ):
        assert answer.status_code == 200
        assert "acme has ledger entries, which are kept: switch the account off instead." in answer.content.decode()
    assert Account.objects.exists()


def test_an_account_without_entries_is_deleted_with_its_keys(admin_client, key):
    url = f"{ACCOUNTS}{key.account_id}/delete/"
    assert "laptop" in text_of(admin_client, url)
    assert admin_client.post(url, {"post": "yes"}).status_code == 302
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize(("permission", "status"), [("change_account", 403), ("add_ledgerentry", 200)])
def test_who_may_grant(client, account, permission, status):
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_account", permission]))
    client.force_login(user)
    assert client.get(f"{ACCOUNTS}{account.pk}/grant/").status_code == status
    page = text_of(client, f"{ACCOUNTS}{account.pk}/change/")
    assert ("/grant/" in page) == (status == 200)
    assert f"{LEDGER}?account=" not in page


@pytest.mark.parametrize("grants", [False, True])
def test_who_may_not_grant_does_not_let_an_account_spend_otherwise(client, account, grants):
    allowed = ["view_account", "change_account", "add_account", *(["add_ledgerentry"] if grants else [])]
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=allowed))
    client.force_login(user)
    form = {**ACCOUNT, "billing": "postpaid", "ceiling": "9", "low_balance": "1", "notes": "seen"}
    Account.objects.update(billing="prepaid")
    assert client.post(f"{ACCOUNTS}{account.pk}/change/", form).status_code == 302
    assert client.post(f"{ACCOUNTS}add/", {**form, "name": "new"}).status_code == 302
    account.refresh_from_db()
    new = Account.objects.get(name="new")
    assert account.notes == "seen"
    told = [(each.billing, each.ceiling, each.low_balance) for each in (account, new)]
    assert told == ([("postpaid", 9, 1)] * 2 if grants else [("prepaid", 0, None), ("unmetered", 0, None)])


@pytest.mark.parametrize("page", ["/admin/", "/admin/accounts/user/", "/admin/auth/group/add/"])
def test_other_pages(admin_client, page):
    text_of(admin_client, page)
