"""The console in Chromium: what an operator does there all day, on a desk and on a phone, in light and dark."""

import re
import time
from collections.abc import Iterator
from decimal import Decimal

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from accounts import credits, keys, notices
from accounts.models import Account, ApiKey, Notice
from accounts.notices import Case
from models_catalog.models import Model, Provider, Route, Vendor
from proxy import jobs
from tests.browser.conftest import NO_CLIPBOARD, clipboard
from tests.upstreams import Upstream, json_reply

KEYS = "/admin/accounts/apikey/"
PROVIDERS, MODELS, USAGE = (
    "/admin/models_catalog/provider/",
    "/admin/models_catalog/model/",
    "/admin/proxy/usagerecord/",
)

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


@pytest.fixture
def site(browser: Browser, live_server: LiveServer) -> str:
    """Asks for `browser` first, for its leave to use the ORM."""
    cache.clear()  # of attempts to log in
    return str(live_server.url)


def operator(browser: Browser, site: str, **options: object) -> BrowserContext:
    """A browser in which an operator is logged in."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("operator"))
    context = browser.new_context(
        base_url=site,
        permissions=["clipboard-read", "clipboard-write"],
        **options,  # type: ignore[arg-type]
    )
    context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": site}])
    return context


@pytest.fixture
def context(browser: Browser, site: str) -> Iterator[BrowserContext]:
    context = operator(browser, site, viewport={"width": 1280, "height": 850})
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must have nothing to complain about."""
    page = context.new_page()
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("response", lambda answer: trouble.append(answer.url) if answer.status >= 400 else None)
    yield page
    assert [what for what in trouble if not what.endswith("/favicon.ico")] == []


def make_key(page: Page, name: str = "laptop") -> str:
    page.goto(f"{KEYS}add/")
    page.get_by_label("or a new account").fill("acme")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Save", exact=True).click()
    return page.get_by_label("API key", exact=True).input_value()


def works(text: str) -> bool:
    row = keys.load().by_digest.get(keys.digest(text.encode()))
    return row is not None and row.is_active


def test_it_works(browser: Browser, site: str) -> None:
    """From the login page to a key that works, in the clipboard."""
    get_user_model().objects.create_superuser("operator", password="correct horse 42")
    context = browser.new_context(base_url=site, permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto("/admin/login/")
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill("correct horse 42")
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{site}/admin/")
    text = make_key(page)
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert clipboard(page) == text
    assert works(text)
    context.close()


def test_a_reload_hides_the_key(page: Page) -> None:
    text = make_key(page)
    page.reload()
    assert text not in page.content()
    expect(page.get_by_text("A key is shown once")).to_be_visible()
    assert ApiKey.objects.count() == 1


def test_going_back_does_not_bring_it_back(page: Page) -> None:
    text = make_key(page)
    page.get_by_role("link", name="Done").click()
    expect(page).to_have_url(re.compile(f"{KEYS}$"))
    page.go_back()
    expect(page.get_by_text("A key is shown once")).to_be_visible()
    assert text not in page.content()


def test_a_double_click_makes_one_key(page: Page) -> None:
    page.goto(f"{KEYS}add/")
    page.get_by_label("or a new account").fill("acme")
    page.get_by_role("button", name="Save", exact=True).dblclick()
    expect(page.get_by_label("API key", exact=True)).to_be_visible()
    assert ApiKey.objects.count() == 1


def test_every_snippet_is_copied(page: Page) -> None:
    text = make_key(page)
    for title in ("Python", "JavaScript", "curl", "Continue", "Cursor"):
        page.get_by_role("tab", name=title).click()
        panel = page.get_by_role("tabpanel", name=title)
        panel.get_by_role("button", name="Copy").click()
        expect(panel.get_by_role("button", name="Copied")).to_be_visible()
        assert text in clipboard(page)
        assert clipboard(page) == panel.locator("pre").text_content()


def test_the_tabs_work_by_keyboard(page: Page) -> None:
    make_key(page)
    page.get_by_role("tab", name="Python").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("tab", name="Cursor")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Cursor")).to_be_visible()
    expect(page.get_by_role("tabpanel", name="Python")).to_be_hidden()


def test_copying_works_on_a_plain_http_host(context: BrowserContext) -> None:
    """There the browser gives no `navigator.clipboard`: the page copies the old way."""
    page = context.new_page()
    page.add_init_script(NO_CLIPBOARD)
    text = make_key(page)
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    reader = context.new_page()
    reader.goto("/admin/")
    assert clipboard(reader) == text


def test_a_failed_copy_leaves_the_key_selected(context: BrowserContext) -> None:
    page = context.new_page()
    page.add_init_script(NO_CLIPBOARD + "document.execCommand = () => false;")
    text = make_key(page)
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Press Ctrl+C")).to_be_visible()
    assert page.evaluate("getSelection().toString()") == text


def test_a_key_is_disabled_in_the_list(page: Page) -> None:
    text = make_key(page)
    page.goto(KEYS)
    page.get_by_role("button", name=f"Disable laptop ({text[: keys.SHOWN]}…)").click()
    expect(page.get_by_role("button", name="Enable laptop")).to_be_visible()
    expect(page.get_by_text("Disabled: laptop")).to_be_visible()
    assert not works(text)


def test_a_key_is_rotated(page: Page) -> None:
    old = make_key(page)
    page.get_by_role("link", name="Settings of this key").click()
    page.get_by_role("link", name="Rotate…").click()
    page.get_by_label("not at all: it ends now").check()
    page.get_by_role("button", name="Rotate", exact=True).click()
    new = page.get_by_label("API key", exact=True).input_value()
    assert new != old
    assert works(new)
    assert not works(old)


def test_a_provider_is_tested_and_its_models_are_added(page: Page, upstream: Upstream) -> None:
    upstream.answers(json_reply({"object": "list", "data": [{"id": "one"}, {"id": "two"}]}))
    provider = Provider.objects.create(slug="local", base_url=upstream.base_url)
    page.goto(f"{PROVIDERS}{provider.pk}/change/")
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("It answers and lists 2 models")
    page.get_by_role("button", name="Add models…").click()
    page.get_by_label("Choose all").check()
    page.get_by_label("two").uncheck()
    page.get_by_role("button", name="Add the chosen models").click()
    expect(page.get_by_text("Added from local: 1 model.")).to_be_visible()
    assert list(Route.objects.values_list("upstream_model", flat=True)) == ["one"]


def test_the_clicks_that_add_a_provider_and_a_model(page: Page) -> None:
    Vendor.objects.create(slug="v", name="A vendor")
    page.goto(f"{PROVIDERS}add/")
    page.locator("#id_slug").fill("local")
    page.get_by_label("Base URL").fill("http://127.0.0.1:1/v1")
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto(f"{MODELS}add/")
    page.locator("#id_slug").fill("vendor/m")
    page.locator("#id_vendor").select_option("A vendor")
    page.get_by_role("link", name="Add another Route").click()
    page.locator("#id_routes-0-provider").select_option("local")
    page.locator("#id_routes-0-upstream_model").fill("m")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("1 live")).to_be_visible()
    assert Route.objects.get().provider.slug == "local"


@pytest.fixture
def rows() -> dict[str, int]:
    """A little of everything, to look at: long names among it."""
    account = Account.objects.create(name="Research and Development, Department of Long Names, Building 7")
    key, _ = keys.issue(account, name="laptop", tpm=2_000_000, concurrency=20, budget=120, budget_period="month")
    credits.grant(account, Decimal(30), "invoice 7")
    charged = f"req_{'0123456789abcdef' * 2}"
    credits.charge([credits.Charge(charged, account.pk, key.pk, 123_456_789, time.time(), metered=True)], ())
    words = f"The API key {key} of {account} has spent 100.00 of its budget of 120.00 USD a month."
    notices.stand(Notice.Kind.KEY_BUDGET, {"1": Case(account, words, {})})
    jobs.run("notice-budgets")
    provider = Provider.objects.create(slug="openai", base_url="https://api.example/v1", api_key="env:NOT_SET_HERE")
    model = Model.objects.create(slug="m", vendor=Vendor.objects.create(slug="v", name="V"))
    Route.objects.create(model=model, provider=provider, upstream_model="m")
    return {"key": key.pk, "provider": provider.pk, "model": model.pk}


def pages(rows: dict[str, int]) -> list[str]:
    return [
        *(KEYS, f"{KEYS}add/", f"{KEYS}{rows['key']}/change/", f"{KEYS}{rows['key']}/rotate/"),
        *(PROVIDERS, f"{PROVIDERS}{rows['provider']}/change/", MODELS, f"{MODELS}{rows['model']}/change/", USAGE),
        *("/admin/proxy/usagequarter/", "/admin/accounts/ledgerentry/", "/admin/accounts/account/"),
        *("/admin/accounts/notice/", "/admin/proxy/job/"),
    ]


# A list that is wider than its card, and cells that cut what they hold.
CUT = """() => [...document.querySelectorAll('#result_list, #result_list td, #result_list th')].filter(part =>
    part.offsetWidth > part.parentElement.clientWidth + 1 || part.scrollWidth > part.clientWidth + 1
    || part.scrollHeight > part.clientHeight + 1).map(part => part.className + part.innerText)"""


def too_wide(page: Page) -> list[str]:
    """What scrolls sideways or is cut off, on a phone and on a desk."""
    found = []
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("innerWidth") == width
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found.append(f"{page.url} at {width}")
        found += [f"{page.url} at {width}: {cut}" for cut in page.evaluate(CUT)]
    return found


def test_no_page_scrolls_sideways_or_fetches_from_another_host(page: Page, site: str, rows: dict[str, int]) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    make_key(page)
    wide = too_wide(page)
    for url in pages(rows):
        page.goto(url)
        wide += too_wide(page)
    assert wide == []
    assert any(url.endswith("console.css") for url in asked)
    assert [url for url in asked if not url.startswith((site, "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier_in_our_own_pages(browser: Browser, site: str, rows: dict[str, int], scheme: str) -> None:
    """In the parts that are ours: unfold's frame around them is its authors'."""
    context = operator(browser, site, color_scheme=scheme)
    page = context.new_page()
    make_key(page)
    checked = [Axe().run(page, context=".kd-page")]
    for url, part in [
        (f"{KEYS}{rows['key']}/change/", ".kd-toolbar"),
        (f"{KEYS}{rows['key']}/rotate/", ".kd-page"),
        (f"{PROVIDERS}{rows['provider']}/change/", ".kd-toolbar"),
        (f"{MODELS}{rows['model']}/change/", ".kd-warning"),
        (USAGE, ".kd-sums"),
        ("/admin/proxy/usagequarter/", ".kd-report"),
    ]:
        page.goto(url)
        checked.append(Axe().run(page, context=part))
    assert [result.generate_report() for result in checked if result.violations_count] == []
    context.close()
