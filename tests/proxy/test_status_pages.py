"""The status page: what people read there is what the endpoints say, in their language, whatever the catalog holds."""

import html
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.test import Client, RequestFactory
from django.utils import timezone, translation

from models_catalog.models import Announcement, Model, Provider, Route, Vendor
from proxy import status_pages, uptime
from proxy.health import ERRORS, Out
from proxy.models import UptimeHour
from proxy.upstream import Pool
from proxy.uptime import Count
from tests.proxy import inside
from tests.upstreams import MockUpstream

NASTY = """<script>alert('1')</script>"&amp;\\{{x}}"""

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Rolled-back tests use the same version numbers again."""
    uptime.latest.forget()
    status_pages.render.cache_clear()
    yield
    uptime.latest.forget()
    status_pages.render.cache_clear()


@pytest.fixture
def provider() -> Provider:
    return Provider.objects.create(slug="secret-provider", base_url="http://127.0.0.1:1/v1", api_key="sk-secret")


def add(slug: str, provider: Provider, vendor: str = "OpenAI / GPT") -> None:
    maker, _ = Vendor.objects.get_or_create(slug=vendor.split(" ")[0].lower(), defaults={"name": vendor})
    Route.objects.create(model=Model.objects.create(slug=slug, vendor=maker), provider=provider, upstream_model="up")


def saw(name: str, good: int, bad: int, hours: float = 0.0) -> datetime:
    start = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
    UptimeHour.objects.create(start=start, model=name, provider="", good=good, bad=bad)
    return start


def text(client: Client, **headers: str) -> str:
    response = client.get("/status", headers=headers)
    assert response.status_code == 200
    return response.content.decode()


def line(page: str, slug: str) -> str:
    return next(
        part for part in page.split("<li>") if f"<code>{html.escape(slug)}</code>" in part and 'class="name"' in part
    )


def cells(part: str) -> list[str]:
    return re.findall(r'<i class="(\w+)"', part)


def test_it_works(client: Client, provider: Provider) -> None:
    add("gpt-4o", provider)
    start = saw("gpt-4o", 1234, 2)
    page = text(client)
    assert "All models answer" in page
    part = line(page, "gpt-4o")
    assert "<b>99.83%</b> <span>1,236 requests</span>" in part
    shown = cells(part)
    assert len(shown) == 56
    place = 48 + start.hour // 3
    assert shown[place] == "good"
    assert {*shown[:place]} == {"none"}
    assert {*shown[place + 1 :]} <= {"ahead"}
    when = f"{start.day} {start:%B}, {start.hour // 3 * 3:02d}:00–{(start.hour // 3 * 3 + 3) % 24:02d}:00 UTC"
    assert f'title="{when}: 2 of 1,236 requests failed"' in part
    assert re.search(r'role="img" aria-label="(\d+ \w+: no requests; ){6}\d+ \w+: 99.83%"', part)


def test_nobody_has_asked_for_it(client: Client, provider: Provider) -> None:
    add("gpt-4o", provider)
    page = text(client)
    assert "no requests in these days" in line(page, "gpt-4o")
    assert cells(page) == []  # no legend either
    assert 'class="dates"' not in page


def test_an_empty_catalog_says_so(client: Client) -> None:
    assert "There is no model to be asked yet" in text(client)


def test_a_model_that_has_trouble_is_named_at_the_top(client: Client, provider: Provider) -> None:
    add("good", provider)
    add("bad", provider, "Google / Gemini")
    saw("bad", 10, 10)
    page = text(client)
    assert "Some models have trouble" in page
    (top,) = re.findall(r'<ul class="troubled".*?</ul>', page, re.DOTALL)
    assert re.findall(r'href="#([^"]+)"><code>([^<]+)<', top) == [("vendor-1-google", "bad")]
    assert "degraded" in top


def test_models_stand_under_their_vendors(client: Client, provider: Provider) -> None:
    for slug, vendor in (("a", "Zeta"), ("b", "Alpha"), ("c", "Zeta")):
        add(slug, provider, vendor)
    page = text(client)
    assert re.findall(r'<h2 id="[^"]+">(\w+)<|<code>(\w)</code>', page) == [
        *(("Zeta", ""), ("", "a"), ("", "c"), ("Alpha", ""), ("", "b"))
    ]


@pytest.mark.parametrize(
    ("good", "bad", "kind"),
    [
        (5, 0, "good"),
        (99, 1, "good"),
        (98, 2, "some"),
        (95, 5, "some"),
        (90, 10, "many"),
        (1, 1, "many"),
        (1, 2, "most"),
    ],
)
def test_a_cell_is_coloured_by_what_failed(good: int, bad: int, kind: str) -> None:
    assert status_pages._cell("then", Count(good, bad)).kind == kind


@pytest.mark.parametrize(
    ("good", "bad", "shown"),
    [(5, 0, "100%"), (99_999, 1, "99.99%"), (999_999, 1, "99.99%"), (2, 1, "66.66%"), (0, 4, "0.00%"), (0, 0, "")],
)
def test_a_part_is_never_rounded_up(good: int, bad: int, shown: str) -> None:
    with translation.override("en"):
        assert status_pages.percent(Count(good, bad)) == shown


def test_announcements(client: Client) -> None:
    now = timezone.now()
    Announcement.objects.create(
        kind="incident",
        title="<Slow>",
        text="See https://status.example/1\n\n<b>",
        begins_at=now,
        ends_at=now + timedelta(1),
    )
    Announcement.objects.create(title="Tomorrow", begins_at=now + timedelta(1))
    page = text(client)
    assert "&lt;Slow&gt;" in page
    assert '<a href="https://status.example/1" rel="nofollow">' in page
    assert "&lt;b&gt;" in page
    assert 'class="announcement is-incident"' in page
    assert "Tomorrow" not in page


def test_a_change_shows_at_once(client: Client, provider: Provider) -> None:
    assert "gpt-4o" not in text(client)
    add("gpt-4o", provider)
    assert "gpt-4o" in text(client)
    notice = Announcement.objects.create(title="Look here")
    assert "Look here" in text(client)
    notice.delete()
    assert "Look here" not in text(client)


def test_names_from_the_catalog_are_escaped_and_no_provider_is_named(client: Client, provider: Provider) -> None:
    add(NASTY, provider, "<b>Evil</b>")
    saw(NASTY, 1, 5)
    page = text(client)
    assert "<script>alert" not in page
    assert "<b>Evil" not in page
    assert "secret" not in page


def test_only_its_own_assets_may_be_loaded(client: Client, provider: Provider) -> None:
    add("gpt-4o", provider)
    saw("gpt-4o", 1, 1)
    response = client.get("/status")
    policy = response["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self';")
    assert "script" not in policy
    assert response["Cache-Control"] == "no-cache"
    page = response.content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script", page)
    assert set(re.findall(r'<(?:link|img)[^>]+(?:src|href)="([^"]+)"', page)) == {
        *("/static/docs/docs.css", "/static/docs/status.css", "/static/docs/logo.svg")
    }
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_only_reading_is_allowed(client: Client) -> None:
    assert client.post("/status").status_code == 405
    assert client.head("/status").status_code == 200


def test_the_database_is_away(client: Client, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the figures; nothing was known of them before."""
    add("gpt-4o", provider)
    monkeypatch.setattr(uptime.latest, "read", lambda: None)
    page = text(client)
    assert "only the present state is shown" in page
    assert "All models answer" in page
    assert cells(line(page, "gpt-4o")) == []


def test_in_the_gateways_own_process_it_knows_the_routes_health(tmp_path: Path) -> None:
    """And takes the catalog from there: it needs no database for it."""
    catalog = inside.snapshot(inside.model("m", inside.provider()))
    house = inside.Inside(tmp_path, catalog, Pool(MockUpstream().transport))
    place = house.tables.catalog.models["m"].routes[0].provider.place
    house.gateway.health.out = {place: Out(time.time() + 60, ERRORS, 500, time.time(), 1)}
    request = RequestFactory().get("/status")
    request.scope = {"kodna.gateway": house.gateway}
    page = status_pages.status(request).content.decode()
    assert "No model answers at present" in page
    assert "down" in line(page, "m")


def test_a_hundred_models_are_drawn_once(client: Client, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        add(f"vendor/model-{number}", provider, f"v{number % 10} vendor")
    drawn: list[int] = []
    whole = status_pages.render_to_string
    monkeypatch.setattr(status_pages, "render_to_string", lambda *words: drawn.append(1) or whole(*words))
    assert len({text(client) for _ in range(5)}) == 1
    assert drawn == [1]
