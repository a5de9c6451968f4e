"""The docs page: what a stranger reads there is what the catalog, the settings and the gateway say."""

import ast
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
import yaml
from django.test import Client
from django.utils import timezone

from models_catalog import aliases, pages
from models_catalog.models import Alias, Announcement, Catalog, Model, Provider, Route, Vendor
from proxy import errors
from tests.upstreams import Received, Reply, Upstream, chat_stream, completion, json_reply

NASTY = """<script>alert('1')</script>"&amp;\\{{x}}"""

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forget_pages() -> Iterator[None]:
    """Rolled-back tests use the same version numbers again."""
    pages.listing.cache_clear()
    yield
    pages.listing.cache_clear()


@pytest.fixture
def provider() -> Provider:
    return Provider.objects.create(slug="p", base_url="http://127.0.0.1:1/v1", api_key="sk-provider-secret")


def add(slug: str, provider: Provider | None = None, vendor: str = "OpenAI / GPT", **fields: object) -> Model:
    maker, _ = Vendor.objects.get_or_create(slug=vendor.split(" ")[0].lower(), defaults={"name": vendor})
    model = Model.objects.create(slug=slug, vendor=maker, **fields)
    if provider:
        Route.objects.create(model=model, provider=provider, upstream_model="upstream-name")
    return model


def text(client: Client, **headers: str) -> str:
    response = client.get("/", headers=headers)
    assert response.status_code == 200
    return response.content.decode()


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf'<code class="language-{language}">(.*?)</code>', page, re.DOTALL)
    assert found
    return [html.unescape(block) for block in found]


def example(page: str, section: str, language: str) -> str:
    """The first block of a section."""
    return blocks(page.split(f'<section id="{section}"')[1].split("</section>")[0], language)[0]


def row(page: str, slug: str) -> str:
    return next(part for part in page.split("<tr") if f'class="model-id">{html.escape(slug)}<' in part)


def test_it_works(client: Client, provider: Provider) -> None:
    add("gpt-4o", provider, context=128000, output=4096)
    page = text(client)
    assert "http://testserver/v1</code>" in page
    assert "<td>128K</td>" in row(page, "gpt-4o")
    assert "<td>4K</td>" in row(page, "gpt-4o")
    assert "offline" not in page


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [
        (None, "—"), (512, "512"), (1500, "1.5K"), (4096, "4K"), (8192, "8K"), (9500, "9.5K"), (80000, "80K"),
        (128000, "128K"), (131072, "131K"), (262000, "262K"), (999_999, "1M"), (1_000_000, "1M"), (1_048_576, "1M"),
        (1_500_000, "1.5M"), (2_097_152, "2M"),
    ],
)  # fmt: skip
def test_token_limits_are_short(tokens: int | None, shown: str) -> None:
    assert pages.compact(tokens) == shown


@pytest.mark.parametrize(
    ("length", "shown"), [(64 * 1024**2, "64 MB"), (1536 * 1024, "1.5 MB"), (2 * 1024**3, "2 GB"), (900, "900 bytes")]
)
def test_sizes_are_in_the_setting_s_units(length: int, shown: str) -> None:
    assert pages.size(length) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, ""), (1, "1 second"), (90, "90 seconds"), (60, "60 seconds"), (120, "2 minutes"), (5400, "90 minutes"),
        (86_400, "24 hours"), (7 * 86_400, "7 days"),
    ],
)  # fmt: skip
def test_lifetimes_are_in_the_largest_unit(seconds: int, shown: str) -> None:
    assert pages.lifetime(seconds) == shown


@pytest.mark.parametrize("url", ["https://llm.example/api", "https://llm.example/api/", "https://llm.example/api/v1"])
def test_the_operator_s_base_url_ends_in_v1(client: Client, settings, url: str) -> None:
    settings.PUBLIC_BASE_URL = url
    page = text(client)
    assert 'class="base-url">https://llm.example/api/v1</code>' in page
    assert 'base_url="https://llm.example/api",' in example(page, "messages", "python")
    assert "https://llm.example/api/v1beta/models/" in example(page, "gemini", "curl")


def test_the_base_url_follows_the_request(client: Client, settings) -> None:
    settings.ALLOWED_HOSTS = ["one.example", "two.example"]
    assert 'class="base-url">http://one.example/v1<' in text(client, host="one.example")
    assert 'class="base-url">http://two.example/v1<' in text(client, host="two.example")


def test_a_foreign_host_is_refused(client: Client) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_a_change_of_the_catalog_shows_at_once(client: Client, provider: Provider) -> None:
    model = add("first", provider)
    assert "first" in text(client)
    add("second", provider)
    assert 'class="model-id">second<' in text(client)
    model.is_active = False
    model.save(update_fields=["is_active"])
    assert 'class="model-id">first<' not in text(client)


def test_an_announcement_shows_at_once(client: Client) -> None:
    now = timezone.now()
    notice = Announcement.objects.create(
        kind="maintenance", title="<Saturday>", text="See https://status.example/1", ends_at=now + timedelta(hours=1)
    )
    Announcement.objects.create(title="Later", begins_at=now + timedelta(hours=1))
    top = text(client).split('<section id="overview"')[0]
    assert "&lt;Saturday&gt;" in top
    assert '<a href="https://status.example/1"' in top
    assert "Later" not in top
    notice.is_active = False
    notice.save()
    assert "Saturday" not in text(client)


def test_announcements_come_and_go_by_themselves(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the catalog changes meanwhile."""
    now = timezone.now()
    Announcement.objects.create(title="Saturday", begins_at=now + timedelta(hours=1), ends_at=now + timedelta(hours=2))
    found = []
    for hours in (0, 1.5, 2.5):
        monkeypatch.setattr(pages.time, "time", lambda hours=hours: (now + timedelta(hours=hours)).timestamp())
        found.append("Saturday" in text(client))
    assert found == [False, True, False]


def test_what_routing_takes_and_tells_is_there(client: Client, provider: Provider) -> None:
    add("gpt-4o", provider)
    page = text(client)
    names = {"models", "group", "previous_request_id", "x-kodna-fallback-layer", "x-kodna-previous", "/v1/status"}
    names |= {"/v1/models/uptime", "session_id", "prompt_cache_key", "x-session-id", "metadata.user_id", *aliases.NAMES}
    assert {name for name in names if f"<code>{name}</code>" not in page} == set()
    assert 'href="/status"' in page


def test_an_unchanged_page_is_not_sent_again(client: Client, provider: Provider) -> None:
    first = client.get("/")
    assert first["Cache-Control"] == "no-cache"
    again = client.get("/", headers={"if-none-match": first["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    add("new", provider)
    assert client.get("/", headers={"if-none-match": first["ETag"]}).status_code == 200


def test_it_is_compressed_on_request_and_keeps_its_etag(client: Client) -> None:
    response = client.get("/", headers={"accept-encoding": "gzip"})
    assert response["Content-Encoding"] == "gzip"
    again = client.get("/", headers={"accept-encoding": "gzip", "if-none-match": response["ETag"]})
    assert again.status_code == 304


def test_a_model_without_a_live_route_is_marked(client: Client, provider: Provider) -> None:
    add("up", provider)
    add("down")
    page = text(client)
    assert ">offline<" not in row(page, "up")
    assert ">offline<" in row(page, "down")


def test_a_vendor_without_models_is_not_shown(client: Client, provider: Provider) -> None:
    add("gpt-4o", provider)
    Vendor.objects.create(slug="empty", name="Nobody's models")
    page = text(client)
    assert "OpenAI / GPT" in page
    assert "Nobody" not in page


def test_vendors_and_models_stand_in_their_order(client: Client, provider: Provider) -> None:
    for position, name in enumerate(["Zeta", "Alpha"]):
        Vendor.objects.create(slug=name.lower(), name=name, position=position)
    for slug, vendor, position in (("c", "Zeta", 2), ("a", "Alpha", 1), ("b", "Zeta", 1)):
        add(slug, provider, vendor, position=position)
    assert re.findall(r'class="model-id">(\w)<', text(client)) == ["b", "c", "a"]


def test_two_vendors_of_one_slugified_name_have_anchors_of_their_own(client: Client, provider: Provider) -> None:
    add("one", provider, "モデル")
    add("two", provider, "模型")
    anchors = re.findall(r'<section class="vendor" id="(vendor-[^"]+)"', text(client))
    assert len(set(anchors)) == 2


def test_aliases_are_listed(client: Client, provider: Provider) -> None:
    Alias.objects.create(slug="fast", model=add("gpt-4o", provider))
    assert re.search(r"<code>fast</code>.*?<code>gpt-4o</code>", text(client), re.DOTALL)


def test_the_example_is_the_default_model_where_it_is_live(client: Client, provider: Provider) -> None:
    add("a", provider)
    Alias.objects.create(slug="usual", model=add("b", provider))
    Catalog.objects.update_or_create(pk=1, defaults={"default_model": "usual"})
    assert 'model="b",' in html.unescape(text(client))


def test_the_example_is_the_first_live_model_otherwise(client: Client, provider: Provider) -> None:
    add("a")
    add("b", provider)
    Catalog.objects.update_or_create(pk=1, defaults={"default_model": "a"})
    assert 'model="b",' in html.unescape(text(client))


def test_the_example_is_the_first_model_where_none_is_live(client: Client) -> None:
    add("a")
    add("b")
    assert 'model="a",' in html.unescape(text(client))


def test_an_empty_catalog_says_so(client: Client) -> None:
    page = text(client)
    assert "There are no models yet" in page
    assert 'model="your-model-id",' in html.unescape(page)


def test_names_from_the_catalog_are_escaped(client: Client, provider: Provider) -> None:
    Alias.objects.create(slug=NASTY + "2", model=add(NASTY, provider, "<b>Evil</b>"))
    page = text(client)
    assert "<script>alert" not in page
    assert "<b>Evil" not in page
    assert html.escape(NASTY) in page


def test_no_credential_reaches_the_page(client: Client, provider: Provider) -> None:
    add("gpt-4o", provider)
    page = text(client)
    assert "sk-provider-secret" not in page
    assert "upstream-name" not in page
    assert "127.0.0.1:1" not in page


def test_only_its_own_assets_may_run(client: Client) -> None:
    response = client.get("/")
    policy = response["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:")
    assert "unsafe" not in policy
    page = response.content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! src=\"/static/)", page)
    assert set(re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', page)) == {
        "/static/docs/docs.css",
        "/static/docs/docs.js",
        "/static/docs/logo.svg",
    }


def test_only_reading_is_allowed(client: Client) -> None:
    assert client.post("/").status_code == 405
    assert client.head("/").status_code == 200


def test_every_fragment_has_its_target(client: Client, provider: Provider) -> None:
    add("gpt-4o", provider)
    page = text(client)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_how_to_get_a_key_is_the_operator_s_text(client: Client, settings) -> None:
    settings.KEY_HELP = "Write to https://chat.example/keys\n\nor <ask> us."
    settings.CONTACT = "keys@llm.example"
    page = text(client)
    assert '<a href="https://chat.example/keys"' in page
    assert "or &lt;ask&gt; us." in page
    assert 'href="mailto:keys@llm.example"' in page
    assert "You run it yourself?" not in page


def test_the_limits_are_the_settings(client: Client, settings) -> None:
    settings.DEFAULT_RPS, settings.DEFAULT_RPM, settings.DEFAULT_CONCURRENCY = 7, 1234, 0
    settings.MAX_BODY_BYTES = 3 * 1024**2
    page = text(client)
    assert re.findall(r"<dd>([^<]+)</dd>", page) == ["7", "1234", "no limit", "no limit"]
    assert "up to 3 MB" in page


def test_a_server_without_keys_says_so(client: Client, settings) -> None:
    assert "without a key: it is set up" not in text(client)
    settings.ALLOW_NO_AUTH = True
    assert "without a key: it is set up" in text(client)


def test_how_long_a_response_is_held_is_the_setting(client: Client, settings) -> None:
    settings.RESPONSES_TTL = 3 * 3600
    page = text(client)
    assert "for 3 hours after its last use" in page
    assert "GET /v1/responses/{id}" in page
    assert "previous_response_id=" in example(page, "responses", "python")


def test_where_none_is_held_nothing_is_promised(client: Client, settings) -> None:
    settings.RESPONSES_TTL = 0
    page = text(client)
    assert "This server holds no responses" in page
    assert "previous_response_id=" not in example(page, "responses", "python")
    assert "/v1/responses/{id}" not in page


def _refusals(kind: type[errors.Refusal] = errors.Refusal) -> Iterator[type[errors.Refusal]]:
    for child in kind.__subclasses__():
        yield child
        yield from _refusals(child)


def test_every_error_of_the_gateway_is_in_the_table(client: Client) -> None:
    table = text(client).split('<table class="wide errors">')[1].split("</table>")[0]
    rows = dict(re.findall(r"<tr><td>(\d+)</td>(.*?)</tr>", table, re.DOTALL))
    kinds = [kind for kind in _refusals() if kind is not errors.ProviderRefusal]
    assert {str(kind.status) for kind in kinds} == set(rows)
    for kind in kinds:
        assert f"<code>{kind.type}</code>" in rows[str(kind.status)]
        assert kind.code is None or f"<code>{kind.code}</code>" in rows[str(kind.status)]


def test_every_code_that_is_given_to_an_error_is_in_the_table(client: Client) -> None:
    table = text(client).split('<table class="wide errors">')[1].split("</table>")[0]
    sources = Path(errors.__file__).parent.glob("*.py")
    given = {code for file in sources for code in re.findall(r'\bcode="([a-z_]+)"', file.read_text(encoding="utf-8"))}
    assert {"responses_unavailable", "previous_response_not_found", "model_not_allowed"} <= given
    assert {code for code in given if f"<code>{code}</code>" not in table} == set()


@pytest.fixture(params=["org/gpt-4o", NASTY])
def full_page(request: pytest.FixtureRequest, client: Client, provider: Provider) -> tuple[str, str]:
    add(request.param, provider, context=128000, output=4096, supports=["tools", "vision"])
    return request.param, text(client)


def test_the_python_examples_are_python(full_page: tuple[str, str]) -> None:
    slug, page = full_page
    for block in blocks(page, "python"):
        strings = {node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)}
        assert slug in strings


def _model_of(url: str, body: dict[str, object]) -> object:
    """Gemini names it in the path."""
    return body.get("model") or unquote(urlsplit(url).path).partition("/models/")[2].rpartition(":")[0]


def test_the_curl_examples_are_for_a_shell(full_page: tuple[str, str]) -> None:
    slug, page = full_page
    paths = []
    for block in blocks(page, "curl"):
        arguments = shlex.split(block)
        url = next(argument for argument in arguments if argument.startswith("http://testserver/"))
        assert _model_of(url, json.loads(arguments[arguments.index("-d") + 1])) == slug
        paths.append(urlsplit(url).path)
    assert paths[:2] == ["/v1/chat/completions", "/v1/responses"]
    assert {"/v1/messages", f"/v1beta/models/{quote(slug, safe='/:@')}:generateContent"} <= {*paths}


@pytest.mark.skipif(shutil.which("node") is None, reason="no node: it is not installed")
def test_the_javascript_examples_are_javascript(full_page: tuple[str, str], tmp_path: Path) -> None:
    slug, page = full_page
    file = tmp_path / "example.mjs"
    for block in blocks(page, "javascript"):
        assert json.dumps(slug).replace("'", "\\u0027") in block
        file.write_text(block, encoding="utf-8")
        subprocess.run(["node", "--check", file], check=True, timeout=20)


def _answer(request: Received) -> Reply:
    """What a gateway says: of each format as much as its SDK needs."""
    if request.path == "/v1/responses":
        text = {"type": "output_text", "text": "Hello you", "annotations": []}
        output = [{"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}]
        return json_reply({"id": "resp_1", "object": "response", "status": "completed", "output": output})
    if request.path == "/v1/messages":
        return json_reply({"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello you"}]})
    if request.path.endswith("/models/org/gpt-4o:generateContent"):  # the SDK says /v1, the curl example /v1beta
        return json_reply({"candidates": [{"content": {"parts": [{"text": "Hello you"}], "role": "model"}}]})
    assert request.path == "/v1/chat/completions"
    return chat_stream("Hello", " you") if request.json.get("stream") else completion("Hello you")


@pytest.fixture
def live_page(client: Client, provider: Provider, upstream: Upstream, settings) -> str:
    """The page of a gateway that answers: what it shows can be run."""
    settings.PUBLIC_BASE_URL = upstream.base_url
    upstream.answers(_answer)
    add("org/gpt-4o", provider, context=128000, output=4096, supports=["tools"])
    return text(client)


def run(command: list[str], upstream: Upstream) -> str:
    environment = {**os.environ, "KODNA_API_KEY": "sk-kodna-test"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for request in upstream.requests:
        sent = request.headers
        key = sent.get("authorization", "").removeprefix("Bearer ") or sent.get("x-api-key") or sent["x-goog-api-key"]
        assert key == "sk-kodna-test"
        assert _model_of(request.target, request.json) == "org/gpt-4o"
    return done.stdout


@pytest.mark.any_database
def test_the_openai_examples_run(live_page: str, upstream: Upstream) -> None:
    code = "\n".join(example(live_page, section, "python") for section in ("quick-start", "streaming", "responses"))
    said = run([sys.executable, "-c", code], upstream)
    assert said.split("\n") == ["Hello you", "Hello you", "10 tokens", "Hello you", "Hello you", ""]
    assert upstream.last.json["previous_response_id"] == "resp_1"


@pytest.mark.any_database
def test_the_other_python_examples_run(live_page: str, upstream: Upstream) -> None:
    """Each in names of its own, all in one process: the SDKs share most of what they import."""
    sections = ("messages", "gemini", "langchain", "llamaindex")
    code = "\n".join(
        f"exec({example(live_page, section, 'python')!r}, {{'__name__': '__main__'}})" for section in sections
    )
    assert run([sys.executable, "-c", code], upstream) == "Hello you\n" * len(sections)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl: it is not installed")
def test_the_curl_examples_run(live_page: str, upstream: Upstream) -> None:
    plain, *others = (run(["bash", "-c", block], upstream) for block in blocks(live_page, "curl"))
    assert json.loads(plain)["choices"][0]["message"]["content"] == "Hello you"
    assert len(others) == 4
    for said in others:
        assert "Hello" in said
    assert sum(said.endswith("data: [DONE]\n\n") for said in others) == 1


def test_the_json_examples_are_json(full_page: tuple[str, str]) -> None:
    slug, page = full_page
    answer, error, opencode, gemini_cli, cody = (json.loads(block) for block in blocks(page, "json"))
    assert answer["model"] == slug
    assert set(error["error"]) == {"message", "type", "param", "code"}
    override = cody["modelConfiguration"]["modelOverrides"][0]
    assert override["serverSideConfig"]["apiModel"] == slug
    assert override["contextWindow"] == {"maxInputTokens": 128000, "maxOutputTokens": 4096}
    assert opencode["model"] == f"kodna/{slug}"
    assert opencode["provider"]["kodna"]["options"]["baseURL"] == "http://testserver/v1"
    assert opencode["provider"]["kodna"]["models"][slug]["limit"] == {"context": 128000, "output": 4096}
    assert gemini_cli == {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    assert re.fullmatch(r"kodna::v1::[\w.-]+", override["modelRef"])


def test_the_continue_example_is_its_config(full_page: tuple[str, str]) -> None:
    slug, page = full_page
    (model,) = yaml.safe_load(blocks(page, "yaml")[0])["models"]
    assert (model["model"], model["apiBase"], model["provider"]) == (slug, "http://testserver/v1", "openai")
    assert model["capabilities"] == ["tool_use", "image_input"]
    assert model["defaultCompletionOptions"] == {"contextLength": 128000, "maxTokens": 4096}


def test_the_codex_example_is_its_config(full_page: tuple[str, str]) -> None:
    slug, page = full_page
    config = tomllib.loads(example(page, "codex", "toml"))
    assert (config["model"], config["model_provider"]) == (slug, "kodna")
    assert config["model_providers"]["kodna"]["base_url"] == "http://testserver/v1"


@pytest.mark.parametrize(
    ("section", "program", "base_url"),
    [
        ("claude-code", "claude", "ANTHROPIC_BASE_URL=http://testserver"),
        ("gemini-cli", "gemini", "GOOGLE_GEMINI_BASE_URL=http://testserver"),
        ("aider", "aider", "OPENAI_API_BASE=http://testserver/v1"),
    ],
)
def test_the_agents_are_started_with_url_key_and_model(
    full_page: tuple[str, str], section: str, program: str, base_url: str
) -> None:
    slug, page = full_page
    spy = f'{program}() {{ env; printf "%s\\n" "$@"; }}; KODNA_API_KEY=sk-kodna-test\n'
    done = subprocess.run(
        ["bash", "-c", spy + example(page, section, "shell")], capture_output=True, text=True, check=True, timeout=20
    )
    said = done.stdout.split("\n")
    assert base_url in said
    assert any(line.endswith("=sk-kodna-test") for line in said)
    assert any(line.endswith(slug) for line in said)


@pytest.mark.parametrize(("context", "told"), [(8192, False), (200_000, True), (None, False)])
def test_claude_code_is_told_of_a_window_that_it_can_work_in(
    client: Client, provider: Provider, context: int | None, told: bool
) -> None:
    add("gpt-4o", provider, context=context)
    block = example(text(client), "claude-code", "shell")
    assert (f"export CLAUDE_CODE_MAX_CONTEXT_TOKENS={context}\n" in block) is told
    assert block.endswith("\nclaude")


def test_what_is_not_known_of_a_model_is_left_out(client: Client, provider: Provider) -> None:
    add("bare", provider)
    page = text(client)
    (model,) = yaml.safe_load(blocks(page, "yaml")[0])["models"]
    assert "capabilities" not in model
    assert "defaultCompletionOptions" not in model
    assert "context_window" not in page


def test_an_unknown_page_looks_like_ours(client: Client) -> None:
    response = client.get("/no/such/page")
    assert response.status_code == 404
    assert "There is no such page" in response.content.decode()


def test_a_fault_shows_no_details(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(pages, "build", broken)
    client.raise_request_exception = False
    response = client.get("/")
    assert response.status_code == 500
    assert "Something went wrong" in response.content.decode()
    assert "secret" not in response.content.decode()
