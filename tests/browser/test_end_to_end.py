"""The product's main job on a real gateway, by clicks: a provider, a model, a key, an answer, the bill, the end."""

import re
import time
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import clipboard
from tests.conftest import MakeGateway
from tests.gateway import Gateway
from tests.tiny_model import SENTENCE, TOKENS_OUT, TinyModel

OPERATOR, PASSWORD = "operator", "correct horse 42"
MESSAGES = [{"role": "user", "content": "Say it."}]
BY_FORM = "house/tiny"  # what the form calls the model that the provider lists as `tiny`


@pytest.fixture
def gateway(make_gateway: MakeGateway) -> Gateway:
    """Empty but for an operator, as after the first start in production."""
    gateway = make_gateway(env={"DJANGO_SUPERUSER_PASSWORD": PASSWORD})
    gateway.manage("createsuperuser", "--noinput", "--username", OPERATOR, "--email", "")
    return gateway.start()


@pytest.fixture
def context(browser: Browser, gateway: Gateway) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=gateway.url, permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    yield context
    context.close()


def log_in(page: Page) -> None:
    page.goto("/admin/")
    page.get_by_label("Username").fill(OPERATOR)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(re.compile("/admin/$"))


def open_list(page: Page, name: str) -> None:
    page.locator("#nav-sidebar").get_by_role("link", name=name).click()
    expect(page).to_have_url(re.compile(r"/admin/\w+/\w+/$"))


def add(page: Page, name: str) -> None:
    open_list(page, name)
    page.locator("a[href$='/add/']").first.click()
    expect(page).to_have_url(re.compile("/add/$"))


def save(page: Page) -> None:
    page.get_by_role("button", name="Save", exact=True).click()


def add_provider(page: Page, tiny: TinyModel) -> None:
    """And its model, the short way: as the provider lists it."""
    add(page, "Providers")
    page.locator("#id_slug").fill("llama.cpp")
    page.get_by_label("Base URL").fill(tiny.base_url)
    page.get_by_role("textbox", name="Credential").fill(tiny.api_key)
    save(page)
    expect(page.get_by_label("Base URL")).to_have_value(tiny.base_url)
    assert tiny.api_key not in page.content()
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("It answers and lists 1 model")
    page.get_by_role("button", name="Add models…").click()
    page.get_by_label(tiny.name, exact=True).check()
    page.get_by_role("button", name="Add the chosen models").click()
    expect(page.get_by_text("Added from llama.cpp: 1 model.")).to_be_visible()


def add_model(page: Page, tiny: TinyModel) -> None:
    """The long way: under an ID of its own, with a route."""
    add(page, "Models")
    page.locator("#id_slug").fill(BY_FORM)
    page.locator("#id_vendor").select_option("Local models")
    page.get_by_role("link", name="Add another Route").click()
    page.locator("#id_routes-0-provider").select_option("llama.cpp")
    page.locator("#id_routes-0-upstream_model").fill(tiny.name)
    save(page)
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=BY_FORM, exact=True))
    expect(row).to_contain_text("1 live")


def make_key(page: Page) -> str:
    """As the copy button leaves it in the clipboard."""
    add(page, "API keys")
    page.get_by_label("or a new account").fill("acme")
    page.get_by_label("Name", exact=True).fill("laptop")
    save(page)
    page.get_by_role("button", name="Copy key").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    return clipboard(page)


def chat(client: OpenAI, model: str) -> str:
    """Its request ID."""
    answer = client.chat.completions.create(model=model, messages=MESSAGES)
    assert answer.choices[0].message.content.strip() == SENTENCE
    assert answer.model == model
    assert answer.usage.completion_tokens == TOKENS_OUT
    return str(answer._request_id)


def stream(client: OpenAI, model: str) -> None:
    """With `include_usage`, then without."""
    usage = {"include_usage": True}
    parts = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True, stream_options=usage))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices).strip() == SENTENCE
    assert [part.usage.completion_tokens for part in parts if part.usage] == [TOKENS_OUT]
    parts = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts).strip() == SENTENCE
    assert not any(part.usage for part in parts)


def see_the_requests(page: Page, model: str) -> None:
    open_list(page, "Requests")
    rows = page.get_by_role("row").filter(has_text="laptop")
    expect(rows).to_have_count(3)
    for text in ("200 complete", f"→ {TOKENS_OUT}", "llama.cpp", model):
        expect(rows.filter(has_text=text)).to_have_count(3)


def switch_off_the_key(page: Page) -> None:
    open_list(page, "API keys")
    page.get_by_role("button", name="Disable laptop").click()
    expect(page.get_by_text("Disabled: laptop")).to_be_visible()


def copies_as_a_stranger(page: Page) -> None:
    page.goto("/")
    page.locator("table").get_by_role("button", name=f"Copy {BY_FORM}").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert clipboard(page) == BY_FORM
    page.get_by_role("button", name="Copy all IDs of Local models").click()
    page.wait_for_function("async () => (await navigator.clipboard.readText()).includes('\\n')")
    assert clipboard(page).split("\n") == [BY_FORM, "tiny"]


def test_it_works(context: BrowserContext, gateway: Gateway, tiny_model: TinyModel) -> None:
    page = context.new_page()
    log_in(page)
    add_provider(page, tiny_model)
    add_model(page, tiny_model)
    copies_as_a_stranger(context.new_page())
    with OpenAI(base_url=gateway.base_url, api_key=make_key(page), max_retries=0) as client:
        time.sleep(1)  # what a new key may take
        assert {BY_FORM, "tiny"} == {model.id for model in client.models.list()}
        stream(client, BY_FORM)
        last = chat(client, BY_FORM)
        assert gateway.usage_row(last)["account"] == "acme"
        see_the_requests(page, BY_FORM)
        switch_off_the_key(page)
        time.sleep(1)  # what the end of a key may take
        with pytest.raises(openai.AuthenticationError):
            chat(client, BY_FORM)
    assert "Traceback" not in gateway.log
