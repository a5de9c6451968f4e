"""The console's page Explain: what is typed in is planned with, and forgotten."""

import logging
import re
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import AsyncRequestFactory, Client, RequestFactory

from accounts import keys
from models_catalog.snapshot import Absent
from proxy import explain_admin
from proxy.explain_admin import OFFERED
from proxy.health import RESTS, Out
from proxy.upstream import Pool
from tests.gateway import catalog
from tests.gateway import model as model_row
from tests.gateway import provider as provider_row
from tests.proxy.inside import HELLO, KEY, Inside, model, provider, snapshot
from tests.upstreams import MockUpstream

URL = "/admin/explain/"
OTHER, OFF = keys.make(), keys.make()


@pytest.fixture
def inside(tmp_path: Path, monkeypatch) -> Inside:
    first = provider("first", credential_name="spare key")
    both = model("m", first, provider("second", groups=frozenset({"two"})))
    catalog = snapshot(replace(both, absent=(Absent("third", "x", "X_KEY is not set"),)), default="m", fast="m")
    known = {
        OTHER: replace(KEY, id=8, name="desk", prefix=OTHER[: keys.SHOWN], groups=frozenset({"two"}), rpm=1),
        OFF: replace(KEY, id=9, name="off desk", prefix=OFF[: keys.SHOWN], is_active=False),
    }
    inside = Inside(tmp_path, catalog, Pool(MockUpstream().transport), *known.items())
    monkeypatch.setattr(explain_admin, "live", lambda _: inside.gateway)
    return inside


@pytest.fixture
def admin_client(db, client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("admin"))
    return client


def explained(client: Client, **asked: str) -> str:
    answer = client.post(URL, asked)
    assert answer.status_code == 200
    return answer.content.decode()


def test_it_works(admin_client, inside):
    page = admin_client.get(URL).content.decode()
    for words in ('<option value="fast">', '<option value="two">', f"desk ({OTHER[: keys.SHOWN]}…)", "csrfmiddleware"):
        assert words in page
    assert "Asked in this order" not in page
    page = explained(admin_client, model="fast")
    for words in ("fast → m", "Asked in this order", "the only one of priority 0", "0.000006"):
        assert words in page
    for words in ("spare key", "X_KEY is not set"):
        assert words in page, "it is the operator who looks"
    assert inside.records() == []


def test_it_counts_in_no_limit(admin_client, inside):
    for _ in range(3):
        assert "Asked in this order" in explained(admin_client, model="m", key=OTHER)
    (desk,) = [key for key in inside.tables.keys.all() if key.name == "desk"]
    assert async_to_sync(inside.counters.left)(desk.limits).requests.remaining == desk.rpm == 1


def test_all_rest_for_a_moment(admin_client, inside):
    ways = [route.way for route in inside.tables.catalog.models["m"].routes]
    inside.health.out = {way: Out(time.time() + 2.5, RESTS, 429, time.time(), 1) for way in ways}
    page = explained(admin_client, model="m")
    assert "all routes rest for a moment" in page
    assert "it is waited for: rests until" in page


def test_the_default_model(admin_client, inside):
    assert "<dd>m</dd>" in explained(admin_client)


def test_a_key_has_its_own_rights(admin_client, inside):
    for text in ("off desk", OFF, OFF[: keys.SHOWN]):
        assert "This API key is switched off." in explained(admin_client, model="m", key=text)
    for text in (OTHER, f"desk ({OTHER[: keys.SHOWN]}…)"):
        page = explained(admin_client, model="m", key=text)
        assert "the API key may use none of its groups" in page
        assert f'value="desk ({OTHER[: keys.SHOWN]}…)"' in page
        assert OTHER not in page
    assert "There is no such API key." in explained(admin_client, model="m", key="none")
    assert "More than one API key is called so: desk" in explained(admin_client, model="m", key="DESK")


def test_groups(admin_client, inside):
    page = explained(admin_client, model="m", groups="two, three")
    assert "it is in none of the groups that were asked for" in page
    page = explained(admin_client, model="m", groups="three")
    assert "No provider in group &#x27;three&#x27; serves &#x27;m&#x27;" in page
    assert page.count("it is in none of the groups that were asked for") == 2


@pytest.mark.parametrize("name", list(explain_admin.FORMS))
def test_every_format_has_an_example(admin_client, inside, name):
    page = explained(admin_client, model="m", format=name, stream="on")
    assert "Asked in this order" in page
    assert f'<option value="{name}" selected>' in page


def test_a_body(admin_client, inside):
    body = '{"model": "else", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 7}'
    page = explained(admin_client, model="m", body=body)
    assert "<dd>7</dd>" in page
    assert "&quot;max_tokens&quot;: 7" in page
    assert "404 model_not_found" in explained(admin_client, body=body)
    assert "400 invalid_json" in explained(admin_client, model="m", body="{")
    assert "400" in explained(admin_client, model="m", body='{"messages": 5}')


def test_what_is_typed_in_is_not_logged(admin_client, inside, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    explained(admin_client, model="m", body='{"messages": "a secret word"}')
    monkeypatch.setattr(explain_admin, "explain", lambda *_, **__: 1 / 0)
    admin_client.raise_request_exception = False
    body = '{"messages": [{"role": "user", "content": "a secret word"}]}'
    answer = admin_client.post(URL, {"model": "m", "body": body})
    assert answer.status_code == 500
    assert "a secret word" not in caplog.text


def test_only_for_those_who_may(db, client, inside):
    user = get_user_model().objects.create_user("staff", is_staff=True)
    client.force_login(user)
    assert client.get(URL).status_code == 403
    for name in ("view_usagerecord", "view_provider"):
        user.user_permissions.add(Permission.objects.get(codename=name))
    page = client.get(URL).content.decode()
    assert 'name="model"' in page
    assert 'name="key"' not in page
    assert "switched off" not in explained(client, model="m", key=OFF), "that would tell of a key"


def test_nobody_else(db, client, inside):
    assert client.get(URL).status_code == 302


def test_a_stranger_s_page_cannot_ask(inside, db):
    client = Client(enforce_csrf_checks=True)
    client.force_login(get_user_model().objects.create_superuser("admin"))
    assert client.post(URL, {"model": "m"}).status_code == 403


def test_the_keys_that_are_offered_are_few(admin_client, inside):
    table = inside.tables.keys
    many = {bytes([1, *divmod(number, 256)]): replace(KEY, id=number) for number in range(2 * OFFERED)}
    inside.tables.keys = replace(table, by_digest=many)
    assert admin_client.get(URL).content.count(b'<option value="mine (') == OFFERED


MAKE_OPERATOR = "from accounts.models import User; User.objects.create_superuser('op', password='correct horse 42')"


def fields_of(page: httpx.Response) -> dict[str, str]:
    found = re.search('csrfmiddlewaretoken" value="([^"]+)', page.text)
    assert found, page.text[:1000]
    return {"csrfmiddlewaretoken": found[1]}


@pytest.mark.any_database
def test_a_running_gateway(make_gateway, upstream):
    """The page shows the very turn at which the next request is."""
    gateway = make_gateway(server="uvicorn")
    ways = {"priority": 1, "weight": 1}
    routes = [{"provider": name, "model": "there", **ways} for name in ("first", "second")]
    providers = {name: provider_row(upstream.base_url, "sk-upstream") for name in ("first", "second")}
    key = gateway.set_up(catalog(providers, {"m": {**model_row(("first", "there")), "routes": routes}}))
    gateway.manage("shell", "-v", "0", "-c", MAKE_OPERATOR)
    gateway.start()
    with gateway.client(follow_redirects=True) as console, gateway.client(key) as client:
        login = fields_of(console.get(URL)) | {"username": "op", "password": "correct horse 42", "next": URL}
        page = console.post("/admin/login/", data=login, headers={"referer": gateway.url})
        for turn in range(3):
            page = console.post(URL, data={"model": "m", **fields_of(page)})
            place = re.search(r'kd-place">1</td>\s*<td class="kd-place">(\w+)', page.text)
            assert f"turn {turn} of weighted" in page.text
            answer = client.post("/v1/chat/completions", json={"model": "m", "messages": HELLO})
            assert place
            assert answer.headers["x-kodna-provider"] == place[1]


def test_the_live_gateway(admin_client, tmp_path):
    assert explain_admin.live(RequestFactory().get(URL)) is None
    assert "not served by the gateway itself" in admin_client.get(URL).content.decode()
    request = AsyncRequestFactory().get(URL)
    request.scope["kodna.gateway"] = gateway = object()
    assert explain_admin.live(request) is gateway
