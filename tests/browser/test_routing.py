"""The console's pages about routing in Chromium: attempts that unfold, Explain, route troubles."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from models_catalog.snapshot import Absent, Route
from proxy import explain_admin
from proxy.models import RouteTrouble, UsageRecord
from proxy.upstream import Pool
from tests.browser.test_console import operator, too_wide
from tests.proxy.inside import Inside, model, provider, snapshot
from tests.upstreams import MockUpstream

USAGE, EXPLAIN, TROUBLES = "/admin/proxy/usagerecord/", "/admin/explain/", "/admin/proxy/routetrouble/"
LONG = "a-provider-with-a-long-name"
TRIES = [
    {"provider": "openai", "credential": "second", "model": "gpt-4o-mini-2024-07-18", "ms": 5000, "reason": "timeout"},
    {"provider": "openai", "model": "gpt-4o-mini-2024-07-18", "ms": 120, "status": 401, "reason": "status", "at": 5001},
    {"provider": LONG, "model": "some/very-long-model-name-thinking", "ms": 1210.5, "at": 5340.2, "of": "another"},
]

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def site(browser: Browser, live_server: LiveServer) -> str:
    return str(live_server.url)


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """A page that must have nothing to complain about."""
    context = operator(browser, site, viewport={"width": 1280, "height": 850})
    page = context.new_page()
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    assert [what for what in trouble if "favicon" not in what] == []


@pytest.fixture
def request_row(site: str) -> UsageRecord:
    fields = {"model": "gpt-x", "status": 200, "outcome": "complete", "created_at": timezone.now()}
    UsageRecord.objects.create(request_id="req_1", provider=LONG, attempts=TRIES[2:], **fields)
    return UsageRecord.objects.create(request_id="req_2", provider=LONG, attempts=TRIES, **fields)


def barriers(page: Page, part: str) -> list[str]:
    """What axe finds, in light and in dark."""
    checked = []
    for dark in (False, True):
        page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", dark)
        checked.append(Axe().run(page, context=part))
    return [found.generate_report() for found in checked if found.violations_count]


def test_a_request_unfolds(page: Page, request_row: UsageRecord) -> None:
    page.goto(USAGE)
    expect(page.get_by_text("did not answer in time")).to_be_hidden()
    page.get_by_text("3 tries").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("did not answer in time")).to_be_visible()
    assert page.locator(".kd-tries").count() == 1
    assert too_wide(page) == []
    assert barriers(page, "#result_list .kd-tried") == []
    page.goto(f"{USAGE}{request_row.pk}/change/")
    expect(page.get_by_text("refused the gateway's credential")).to_be_visible()
    assert too_wide(page) == []


@pytest.fixture
def _live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = provider("openai", credential=1, credential_name="first")
    second = replace(first, credential=2, credential_name="second")
    other = provider(LONG, dialect="anthropic")
    routes = (Route(first, "gpt-4o"), Route(second, "gpt-4o"), Route(other, "some/very-long-model-name", 2))
    both = replace(model("gpt-x"), routes=routes, absent=(Absent("azure", "x", "AZURE_API_KEY is not set"),))
    inside = Inside(tmp_path, snapshot(both, fast="gpt-x"), Pool(MockUpstream().transport))
    monkeypatch.setattr(explain_admin, "live", lambda _: inside.gateway)


@pytest.mark.usefixtures("_live")
def test_explain(page: Page) -> None:
    page.goto(EXPLAIN)
    page.get_by_label("Model or alias").fill("fast")
    page.get_by_label("Body, JSON").fill('{"messages": [{"role": "user", "content": "Hello"}], "logit_bias": {"1": 2}}')
    page.get_by_role("button", name="Explain", exact=True).click()
    expect(page.get_by_role("heading", name="Asked in this order")).to_be_visible()
    rows = page.locator(".kd-routes").first.locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("turn 0 of weighted")
    expect(rows.last).to_contain_text("loses logit_bias")
    expect(page.get_by_text("AZURE_API_KEY is not set")).to_be_visible()
    assert too_wide(page) == []
    assert barriers(page, ".kd-explain") == []


def test_route_troubles(page: Page, site: str) -> None:
    now = timezone.now()
    times = {"since": now, "until": now, "seen_at": now}
    RouteTrouble.objects.create(name="1.2.ab", provider=LONG, credential="second", why="refused", status=401, **times)
    RouteTrouble.objects.create(name="1.0.cd/x", provider="openai", model="very-long-model-2026", why="errors", **times)
    page.goto(TROUBLES)
    expect(page.get_by_text("credential refused")).to_be_visible()
    assert too_wide(page) == []
    assert barriers(page, ".kd-above") == []
