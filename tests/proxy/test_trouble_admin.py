"""The console's page of route troubles: what is out, in words, and nothing to change."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from models_catalog.models import Provider
from proxy.models import RouteTrouble

URL = "/admin/proxy/routetrouble/"


@pytest.fixture
def admin_client(db, client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("admin"))
    return client


def trouble(name: str, **fields: object) -> RouteTrouble:
    now = timezone.now()
    values = {"provider": "openai", "why": "errors", "status": 503, "since": now, "until": now, "seen_at": now}
    return RouteTrouble.objects.create(name=name, **{**values, **fields})


def text_of(client: Client, query: str = "") -> str:
    answer = client.get(URL + query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_it_works(admin_client):
    provider = Provider.objects.create(slug="openai", base_url="http://127.0.0.1:9/v1")
    soon = timezone.now() + timedelta(minutes=1)
    trouble(f"{provider.pk}.2.ab", credential="second", why="refused", status=401, until=soon, times=7)
    trouble(f"{provider.pk}.0.cd/gpt-x", model="gpt-x", status=0)
    page = text_of(admin_client)
    for words in (
        f'href="/admin/models_catalog/provider/{provider.pk}/change/" class="text-link">openai <small>second</small>',
        *("credential refused", ">401<", "all of its models", f"{soon:%m-%d %H:%M:%S}", ">7<"),
        *("circuit open", "gpt-x", ">none<", "from now on, now and then"),
    ):
        assert words in page
    assert "circuit open" not in text_of(admin_client, "?why=refused")


def test_nothing_is_in_trouble(admin_client):
    assert "No credential is refused, and no circuit is open." in text_of(admin_client)


@pytest.mark.parametrize("view", ["add/", "{}/delete/", "{}/change/"])
def test_nothing_is_changed(admin_client, view):
    row = trouble("1.0.ab")
    assert admin_client.post(URL + view.format(row.pk), {"post": "yes"}).status_code == 403
    assert RouteTrouble.objects.count() == 1
