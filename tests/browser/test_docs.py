"""The docs page in Chromium: what a stranger does there, with and without JavaScript, on a phone, in light and dark."""

from collections.abc import Iterator
from itertools import chain

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from models_catalog import pages
from models_catalog.models import Alias, Catalog, Model, Provider, Route, Vendor
from tests.browser.conftest import NO_CLIPBOARD, clipboard

LONG_ID = "a-vendor-with-a-long-name/a-model-with-a-very-long-name-that-does-not-fit-a-phone-at-all-20251231"
VENDORS = {
    "OpenAI / GPT": ["gpt-4o", "gpt-4o-mini", "openai/gpt-oss-120b"],
    "Google / Gemini": ["gemini-2.5-pro", LONG_ID],
}

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def site(browser: Browser, live_server: LiveServer) -> str:
    """The page's URL, with a small catalog behind it. Asks for `browser` first, for its leave to use the ORM."""
    pages.listing.cache_clear()
    provider = Provider.objects.create(slug="p", base_url="http://127.0.0.1:1/v1")
    for number, (name, slugs) in enumerate(VENDORS.items()):
        vendor = Vendor.objects.create(slug=name.split(" ")[0].lower(), name=name, position=number)
        for position, slug in enumerate(slugs):
            model = Model.objects.create(slug=slug, vendor=vendor, context=128000, output=4096, position=position)
            if slug != "gpt-4o-mini":  # one is offline
                Route.objects.create(model=model, provider=provider, upstream_model=slug)
    Alias.objects.create(slug="fast", model=model)
    Catalog.objects.update_or_create(pk=1, defaults={"default_model": "gpt-4o"})
    return f"{live_server.url}/"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, site: str) -> Page:
    page = context.new_page()
    page.goto(site)
    return page


def test_it_works(context: BrowserContext, site: str) -> None:
    page = context.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(site)
    expect(page.locator("h1")).to_have_text("Kodna API")
    expect(page.locator(".base-url")).to_have_text(f"{site}v1")
    assert trouble == []


def test_a_stranger_copies_one_id(page: Page) -> None:
    button = page.locator("table").get_by_role("button", name="Copy openai/gpt-oss-120b")
    button.click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert clipboard(page) == "openai/gpt-oss-120b"


def test_a_stranger_copies_all_ids_of_a_vendor(page: Page) -> None:
    page.get_by_role("button", name="Copy all IDs of OpenAI / GPT").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert clipboard(page) == "gpt-4o\ngpt-4o-mini\nopenai/gpt-oss-120b"


def test_a_stranger_copies_a_whole_example_by_keyboard(page: Page) -> None:
    page.locator("#quick-start .copy").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert clipboard(page) == page.locator("#quick-start pre").first.text_content()


def test_a_stranger_copies_the_base_url_of_the_other_sdks(page: Page, site: str) -> None:
    page.get_by_role("button", name="Copy the base URL for Anthropic's and Google's SDKs").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert clipboard(page) == site.rstrip("/")


def test_a_stranger_copies_an_agent_s_settings(page: Page, site: str) -> None:
    page.locator(".contents").get_by_role("link", name="Codex CLI").click()
    page.locator("#codex .copy").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert f'base_url = "{site}v1"\n' in clipboard(page)


def test_copying_works_on_a_plain_http_host(context: BrowserContext, site: str) -> None:
    """There the browser gives no `navigator.clipboard`: the page copies the old way."""
    page = context.new_page()
    page.add_init_script(NO_CLIPBOARD)
    page.goto(site)
    page.locator(".copy-all").first.click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    reader = context.new_page()
    reader.goto(site)
    assert clipboard(reader) == "gpt-4o\ngpt-4o-mini\nopenai/gpt-oss-120b"


def test_a_failed_copy_is_admitted(context: BrowserContext, site: str) -> None:
    page = context.new_page()
    page.add_init_script(NO_CLIPBOARD + "document.execCommand = () => false;")
    page.goto(site)
    page.locator(".copy-all").first.click()
    expect(page.get_by_role("status")).to_contain_text("Could not copy")


def test_a_language_is_chosen_once_for_all_examples(page: Page) -> None:
    expect(page.locator("#streaming [data-language=curl]")).to_be_hidden()
    page.locator("#quick-start").get_by_role("radio", name="curl").check()
    for section in ("#quick-start", "#streaming", "#responses", "#messages", "#gemini"):
        expect(page.locator(f"{section} [data-language=curl]")).to_be_visible()
        expect(page.locator(f"{section} [data-language=python]")).to_be_hidden()


def test_the_section_in_view_is_marked(page: Page) -> None:
    page.get_by_role("link", name="Errors").click()
    expect(page.locator(".contents [aria-current]")).to_have_text("Errors")


def test_it_is_complete_without_javascript(browser: Browser, site: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site)
    expect(page.locator(".model-id")).to_have_text([*chain(*VENDORS.values())])
    assert page.locator("button:visible").count() == 0
    page.locator("#quick-start").get_by_role("radio", name="JavaScript").check()
    expect(page.locator("#quick-start [data-language=javascript] pre")).to_be_visible()
    expect(page.locator("#quick-start [data-language=python] pre")).to_be_hidden()
    context.close()


def test_on_paper_every_example_is_there(page: Page) -> None:
    page.emulate_media(media="print")
    for language in ("python", "javascript", "curl"):
        expect(page.locator(f"#quick-start [data-language={language}] pre")).to_be_visible()
    expect(page.locator(".contents")).to_be_hidden()


def test_nothing_is_fetched_from_another_host(context: BrowserContext, site: str) -> None:
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site, wait_until="networkidle")
    page.locator(".copy").first.click()
    assert {"docs.css", "docs.js"} <= {url.rsplit("/", 1)[-1] for url in asked}
    assert [url for url in asked if not url.startswith((site, "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(browser: Browser, site: str, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(site)
    for width in (360, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        results = Axe().run(page)
        assert results.violations_count == 0, f"{width} wide: {results.generate_report()}"
    context.close()


def test_the_page_does_not_scroll_sideways(page: Page) -> None:
    for width in (320, 360, 768, 1100, 1440):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("innerWidth") == width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_is_dark(browser: Browser, site: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(site)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert colours == ["rgb(250, 249, 246)", "rgb(19, 21, 20)"]
