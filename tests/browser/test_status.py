"""The status page in Chromium: in light and dark, on a phone, with forty models, without a barrier."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect
from pytest_django.live_server_helper import LiveServer

from models_catalog.models import Announcement, Model, Provider, Route, Vendor
from proxy import status_pages, uptime
from proxy.models import UptimeHour

LONG_ID = "a-vendor-with-a-long-name/a-model-with-a-very-long-name-that-does-not-fit-a-phone-at-all-20251231"
FAILED = (0, 0, 3, 40, 90)  # of a hundred, in turn

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def site(browser: Browser, live_server: LiveServer) -> Iterator[str]:
    """The page's URL, with forty models behind it. Asks for `browser` first, for its leave to use the ORM."""
    uptime.latest.forget()
    status_pages.render.cache_clear()
    provider = Provider.objects.create(slug="p", base_url="http://127.0.0.1:1/v1")
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    vendors = [
        Vendor.objects.create(slug=f"v{number}", name=f"Vendor {number}", position=number) for number in range(5)
    ]
    slugs = [LONG_ID, *(f"vendor/model-{number}" for number in range(39))]
    models = [Model(slug=slug, vendor=vendors[number % 5]) for number, slug in enumerate(slugs)]
    Model.objects.bulk_create(models)
    Route.objects.bulk_create([Route(model=model, provider=provider, upstream_model="x") for model in models])
    UptimeHour.objects.bulk_create(
        UptimeHour(start=now - timedelta(hours=hours), model=slug, provider="", good=100 - failed, bad=failed)
        for number, slug in enumerate(slugs[:15])
        for hours in range(0, 160, 4)
        for failed in [FAILED[(number + hours // 4) % len(FAILED)]]
    )
    Announcement.objects.create(kind="maintenance", title="Saturday", text="https://status.example/1")
    yield f"{live_server.url}/status"
    uptime.latest.forget()
    status_pages.render.cache_clear()


def test_it_works(browser: Browser, site: str) -> None:
    page = browser.new_page()
    trouble: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site, wait_until="networkidle")
    expect(page.locator(".overall")).to_contain_text("Some models have trouble")
    expect(page.locator(".announcement-title")).to_have_text("Saturday")
    expect(page.locator(".standing li")).to_have_count(40)
    expect(page.get_by_role("img").filter(has=page.locator("i"))).to_have_count(15)
    page.get_by_role("link", name="Documentation", exact=True).click()
    page.locator(".topnav").get_by_role("link", name="Status").click()
    expect(page).to_have_url(site)
    assert trouble == []
    assert [url for url in asked if not url.startswith(site.removesuffix("status"))] == []
    page.close()


def look(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(browser: Browser, site: str, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.goto(site)
    for width in (360, 1440):
        look(page, width)
        results = Axe().run(page)
        assert results.violations_count == 0, f"{width} wide: {results.generate_report()}"
    page.close()


def test_the_cells_are_wide_enough_to_be_seen(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.goto(site)
    for width in (320, 360, 768, 900, 1100, 1440):
        look(page, width)
        cell = page.locator(".strip i").first.bounding_box()
        assert cell is not None
        assert cell["width"] >= 3
        assert cell["height"] >= 20
    page.close()
