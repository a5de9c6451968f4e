"""A provider is asked for its models; the catalog follows one that is asked by itself."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.conf import settings as django_settings

from models_catalog import discovery, snapshot, tasks
from models_catalog.discovery import ProbeError
from models_catalog.models import Alias, Model, Price, Provider, Route, Vendor
from tests.upstreams import RefusingUpstream

SECRET = "sk-very-secret"


@dataclass
class Lister:
    """A provider that answers `GET /v1/models` as told, and keeps what it was asked."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def lists(self, *names: str) -> None:
        self.status = 200
        self.body = json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode()


@pytest.fixture
def lister() -> Iterator[Lister]:
    told = Lister()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}))
            self.send_response(told.status)
            for name, text in {"content-length": str(len(told.body)), **told.headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.port = server.server_port
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield told
        server.shutdown()


def provider(base_url: str, **fields: Any) -> Provider:
    return Provider(slug="p", base_url=base_url, api_key=SECRET, **fields)


def frozen(row: Provider) -> snapshot.Provider:
    (keyed,) = snapshot.freeze_provider(row)
    assert keyed.provider is not None
    return keyed.provider


def refusal(row: Provider) -> str:
    with pytest.raises(ProbeError) as caught:
        discovery.list_models(frozen(row))
    assert SECRET not in repr(caught.value)
    return str(caught.value)


def test_it_works(lister: Lister) -> None:
    lister.lists("a", "b/c", "a")
    row = provider(lister.base_url, headers={"X-Title": "Kodna"})
    assert discovery.list_models(frozen(row)) == ["a", "b/c"]
    path, headers = lister.asked[0]
    assert path == "/v1/models"
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert headers["x-title"] == "Kodna"


def test_no_credential_is_no_header(lister: Lister) -> None:
    lister.lists()
    row = Provider(slug="p", base_url=lister.base_url)
    assert discovery.list_models(frozen(row)) == []
    assert "authorization" not in lister.asked[0][1]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ('{"object": "list", "data": null}', []),  # Ollama without models
        ('[{"id": "a"}]', ["a"]),  # Together
        ('{"data": [{"id": "with space"}, {"id": "a\\n"}, {"id": 5}, {}, {"id": ""}, {"id": "ok"}]}', ["ok"]),
    ],
)
def test_shapes_that_are_met(lister: Lister, body: str, names: list[str]) -> None:
    lister.body = body.encode()
    assert discovery.probe(provider(lister.base_url)) == names


def test_anthropics_list(lister: Lister) -> None:
    lister.body = json.dumps({"data": [{"type": "model", "id": "claude-x"}], "has_more": False}).encode()
    assert discovery.probe(provider(lister.base_url.removesuffix("/v1"), dialect="anthropic")) == ["claude-x"]
    ((path, headers),) = lister.asked
    assert (path, headers["x-api-key"]) == ("/v1/models?limit=1000", SECRET)
    assert headers["anthropic-version"]


def test_geminis_list(lister: Lister) -> None:
    able, other = {"supportedGenerationMethods": ["generateContent"]}, {"supportedGenerationMethods": ["embedContent"]}
    models = [{"name": "models/gemini-x", **able}, {"name": "models/embedding-x", **other}]
    lister.body = json.dumps({"models": models}).encode()
    assert discovery.probe(provider(lister.base_url.removesuffix("/v1"), dialect="gemini")) == ["gemini-x"]
    ((path, headers),) = lister.asked
    assert (path, headers["x-goog-api-key"]) == ("/v1beta/models?pageSize=1000", SECRET)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "it refuses this credential (401)"),
        (403, "it refuses this credential (403)"),
        (404, "it has no list of models there (404): is the base URL as its SDK takes it, OpenAI's with /v1?"),
        (429, "it answers, but refuses for now: too many requests (429)"),
        (400, "it refuses /models (400)"),
        (500, "it answers, but with an error of its own (500)"),
        (503, "it answers, but with an error of its own (503)"),
    ],
)
def test_a_refusal_in_words(lister: Lister, status: int, words: str) -> None:
    lister.status, lister.body = status, f'{{"error": "your key {SECRET} is bad"}}'.encode()
    assert refusal(provider(lister.base_url)) == words


def test_a_redirect_is_not_followed(lister: Lister) -> None:
    lister.status, lister.headers = 302, {"location": f"{lister.base_url}/elsewhere"}
    assert refusal(provider(lister.base_url)).startswith("it redirects to another address (302)")
    assert len(lister.asked) == 1


@pytest.mark.parametrize("body", ["<html>", "", '{"data": ', "[" * 100_000, "\ud800".encode("utf-8", "surrogatepass")])
def test_not_json(lister: Lister, body: str | bytes) -> None:
    lister.body = body if isinstance(body, bytes) else body.encode()
    assert refusal(provider(lister.base_url)).startswith("it answers /models with something that is not JSON")


@pytest.mark.parametrize("body", ["5", '"a"', "{}", '{"data": {}}', '{"data": ["a"]}', '{"models": []}'])
def test_json_of_another_shape(lister: Lister, body: str) -> None:
    lister.body = body.encode()
    assert refusal(provider(lister.base_url)).startswith("its answer to /models is JSON, but not OpenAI's list")


def test_an_answer_without_end(lister: Lister, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_BYTES", 1024 * 1024)
    lister.body = b" " * (1024 * 1024 + 1)
    assert refusal(provider(lister.base_url)) == "its answer to /models is larger than 1 MB"


def test_an_answer_that_trickles(lister: Lister, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "DEADLINE", -1.0)
    lister.lists("a")
    assert "did not finish its answer" in refusal(provider(lister.base_url))


def test_an_answer_that_breaks_off(lister: Lister) -> None:
    lister.body, lister.headers = b'{"data"', {"content-length": "100"}
    assert "is not JSON" in refusal(provider(lister.base_url))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Listens, and does nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_nothing_listens(silent: socket.socket) -> None:
    port = silent.getsockname()[1]
    silent.close()
    assert refusal(provider(f"http://127.0.0.1:{port}/v1")).startswith("nothing listens at this address")


def test_no_answer_in_time(silent: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SECONDS", 0.05)
    port = silent.getsockname()[1]
    assert refusal(provider(f"http://127.0.0.1:{port}/v1")) == "it does not answer within 0.05 seconds"


def _answer(server: socket.socket, data: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(data)


@pytest.mark.parametrize(
    ("scheme", "data", "words"),
    [
        ("http", b"", "it closed the connection without a whole answer"),
        ("http", b"\x15\x03\x01\x00\x02\x02\x46\r\n", "what answers there does not speak HTTP"),
        ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS with it fails: is this address http://"),
    ],
)
def test_what_answers_is_something_else(silent: socket.socket, scheme: str, data: bytes, words: str) -> None:
    thread = threading.Thread(target=_answer, args=(silent, data))
    thread.start()
    assert refusal(provider(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/v1")).startswith(words)
    thread.join()


def test_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert refusal(provider("http://nowhere.example.com/v1")) == "the host's name is unknown"


@pytest.mark.parametrize(
    "url", ["file:///etc", "ftp://127.0.0.1/v1", "http://[bad/v1", "nothing", "http://127.0.0.1:x/"]
)
def test_an_address_that_is_none(url: str) -> None:
    assert refusal(provider(url)) == "the base URL is not an address of http:// or https://"


@pytest.mark.parametrize("key", [f"{SECRET}\nx: y", f"{SECRET}…"])
def test_a_credential_that_cannot_be_sent(lister: Lister, key: str) -> None:
    row = Provider(slug="p", base_url=lister.base_url, api_key=key)
    assert refusal(row) == "the base URL, the credential or a header holds characters that cannot be sent"


def status_of(row: Provider) -> int:
    with pytest.raises(ProbeError) as caught:
        discovery.list_models(frozen(row))
    return caught.value.status


def test_the_status_tells_an_answer_from_none(lister: Lister) -> None:
    with RefusingUpstream() as nobody:
        assert status_of(provider(nobody.base_url)) == 0
    lister.status = 503
    assert status_of(provider(lister.base_url)) == 503
    lister.status, lister.body = 200, b"<html>"
    assert status_of(provider(lister.base_url)) == 200


@pytest.fixture
def keyed(lister: Lister, db: None) -> Provider:
    """A provider with three credentials, of which one is not set."""
    row = Provider.objects.create(slug="p", base_url=lister.base_url, api_key="sk-0")
    row.credentials.create(name="unset", api_key="env:NOT_SET_HERE")
    row.credentials.create(name="second", api_key="sk-2")
    return row


def test_every_credential_is_asked(lister: Lister, keyed: Provider) -> None:
    lister.lists("a")
    told = [(each.label, each.names, str(each.fault or "")) for each in discovery.probe_all(keyed)]
    assert told == [
        ("its own credential", ["a"], ""),
        ("credential unset", [], "NOT_SET_HERE is not set in the environment"),
        ("credential second", ["a"], ""),
    ]
    assert [headers["authorization"] for _, headers in lister.asked] == ["Bearer sk-0", "Bearer sk-2"]


def test_one_credential_that_works_is_enough(lister: Lister, keyed: Provider) -> None:
    Provider.objects.update(api_key="env:NOT_SET_HERE")
    lister.lists("a")
    assert discovery.probe(Provider.objects.get()) == ["a"]
    lister.status = 401
    with pytest.raises(ProbeError, match="it refuses this credential"):
        discovery.probe(Provider.objects.get())


# --- into the catalog ------------------------------------------------------------------------------------------------


@pytest.fixture
def ollama(lister: Lister, db: None) -> Provider:
    return Provider.objects.create(slug="ollama", base_url=lister.base_url, discovers=True)


def routes() -> list[tuple[str, str, bool]]:
    return [(route.model.slug, route.provider.slug, route.discovered) for route in Route.objects.order_by("pk")]


def test_sync_adds_and_removes(lister: Lister, ollama: Provider) -> None:
    lister.lists("llama3", "qwen3:8b")
    discovery.sync(ollama)
    assert routes() == [("llama3", "ollama", True), ("qwen3:8b", "ollama", True)]
    assert {model.vendor.name for model in Model.objects.all()} == {"Local models"}
    lister.lists("qwen3:8b")
    discovery.sync(ollama)
    assert [model.slug for model in Model.objects.all()] == ["qwen3:8b"]


def test_sync_writes_nothing_where_nothing_changed(lister: Lister, ollama: Provider) -> None:
    lister.lists("llama3")
    discovery.sync(ollama)
    before = snapshot.version()
    discovery.sync(Provider.objects.get())
    assert snapshot.version() == before


def test_a_provider_that_went_away_and_came_back(lister: Lister, ollama: Provider) -> None:
    lister.lists("llama3")
    discovery.sync(ollama)
    lister.status = 503
    discovery.sync(Provider.objects.get())
    assert snapshot.load().models["llama3"].routes == ()
    before = snapshot.version()
    discovery.sync(Provider.objects.get())
    assert snapshot.version() == before
    lister.lists("llama3")
    discovery.sync(Provider.objects.get())
    assert len(snapshot.load().models["llama3"].routes) == 1


def test_what_an_operator_gave_a_meaning_stays(lister: Lister, ollama: Provider) -> None:
    lister.lists("priced", "named", "routed", "plain")
    discovery.sync(ollama)
    models = {model.slug: model for model in Model.objects.all()}
    Price.objects.create(model=models["priced"], input=1)
    Alias.objects.create(slug="mine", model=models["named"])
    other = Provider.objects.create(slug="other", base_url="http://127.0.0.1:1/v1")
    Route.objects.create(model=models["routed"], provider=other, upstream_model="x")
    lister.lists()
    discovery.sync(ollama)
    assert {model.slug for model in Model.objects.all()} == {"priced", "named", "routed"}
    assert routes() == [("routed", "other", False)]


def test_a_route_of_the_operators_own_is_left_alone(lister: Lister, ollama: Provider) -> None:
    lister.lists("llama3")
    discovery.add_models(ollama, ["llama3", "gone"])
    discovery.sync(ollama)
    assert routes() == [("llama3", "ollama", False), ("gone", "ollama", False)]


def test_a_listed_model_does_not_take_over_one_that_is_there(lister: Lister, ollama: Provider) -> None:
    other = Provider.objects.create(slug="other", base_url="http://127.0.0.1:1/v1")
    model = Model.objects.create(slug="gpt", vendor=Vendor.objects.create(slug="v", name="V"))
    Route.objects.create(model=model, provider=other, upstream_model="gpt", priority=3)
    lister.lists("gpt")
    discovery.sync(ollama)
    assert [(route.provider.slug, route.priority) for route in model.routes.all()] == [("other", 3), ("ollama", 4)]
    assert Model.objects.get().vendor.slug == "v"


@pytest.mark.django_db
def test_add_models_by_hand() -> None:
    row = Provider.objects.create(slug="router", base_url="https://api.example.com/v1")
    Vendor.objects.create(slug="first", name="First", position=7)
    assert discovery.add_models(row, ["deepseek/v3", "solo", "models/gemini", "deepseek/v4"]) == 4
    assert discovery.add_models(row, ["deepseek/v3", "solo"]) == 0
    vendors = {model.slug: model.vendor.slug for model in Model.objects.all()}
    assert vendors == {
        "deepseek/v3": "deepseek",
        "deepseek/v4": "deepseek",
        "solo": "router",
        "models/gemini": "router",
    }
    assert list(Vendor.objects.values_list("slug", "position")) == [("first", 7), ("deepseek", 8), ("router", 9)]
    assert [model.slug for model in Vendor.objects.get(slug="deepseek").models.all()] == ["deepseek/v3", "deepseek/v4"]


@pytest.mark.django_db
def test_a_name_that_is_an_alias_is_not_added() -> None:
    model = Model.objects.create(slug="m", vendor=Vendor.objects.create(slug="v", name="V"))
    Alias.objects.create(slug="fast", model=model)
    row = Provider.objects.create(slug="p", base_url="https://api.example.com/v1")
    assert discovery.add_models(row, ["fast"]) == 0


def test_the_job_asks_those_that_are_to_be_asked(lister: Lister, ollama: Provider) -> None:
    Provider.objects.create(slug="off", base_url=lister.base_url, discovers=True, is_active=False)
    Provider.objects.create(slug="unset", base_url="${KODNA_TEST_UNSET}/v1", discovers=True)
    Provider.objects.create(slug="plain", base_url=lister.base_url)
    assert "KODNA_TEST_UNSET" not in django_settings.PROVIDER_ENV
    lister.lists("llama3")
    tasks.discover_models()
    assert routes() == [("llama3", "ollama", True)]
    assert len(lister.asked) == 1


def test_probe_asks_a_provider_that_is_switched_off(lister: Lister, ollama: Provider) -> None:
    lister.lists("llama3")
    ollama.is_active = ollama.reachable = False
    assert discovery.probe(ollama) == ["llama3"]
    assert (ollama.is_active, ollama.reachable) == (False, False)
