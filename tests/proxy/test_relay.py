"""The way of a request against running servers: providers that fail in every way, and clients that leave.

Both servers, each as a process of its own; the fake providers are in this one. Bad keys and bodies: `test_ingress`.
"""

import asyncio
import gzip
import json
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.conftest import GATEWAYS, MakeGateway
from tests.gateway import Gateway, catalog, model, provider
from tests.processes import HOST, wait_for
from tests.upstreams import (
    DONE,
    RefusingUpstream,
    Reply,
    Upstream,
    chat_events,
    chat_stream,
    completion,
    error_reply,
    event,
    json_reply,
)

HELLO = [{"role": "user", "content": "Hello there"}]
SECRET = "sk-upstream-credential-1234567890"
CHAT = "/v1/chat/completions"
KEEPALIVE = 0.25
# Providers fail in every test: none may be left out for the next one.
ENV = {"KODNA_REFRESH_SECONDS": "0.1", "KODNA_CIRCUITS": "off"}


@dataclass
class House:
    """A gateway with two providers of its own: `both` is served by the first, and by the second if that fails."""

    gateway: Gateway
    key: str
    first: Upstream
    second: Upstream
    narrow: str  # a key for one request at a time

    def post(self, model: str = "both", stream: bool = False, **more: Any) -> httpx.Response:
        with self.gateway.client(self.key) as client:
            return client.post(CHAT, json={"model": model, "messages": HELLO, "stream": stream, **more})

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.gateway.base_url, api_key=self.key, max_retries=0, timeout=20)

    def row(self, answer: httpx.Response) -> dict[str, Any]:
        return self.gateway.usage_row(answer.headers["x-request-id"])


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def _running(request: pytest.FixtureRequest, _new_gateway: MakeGateway) -> Iterator[House]:
    patience = {"connect": 0.4, "first_byte": 0.4, "idle": 0.4, "total": 1.2}
    with Upstream() as first, Upstream() as second, RefusingUpstream() as refusing:
        gateway = _new_gateway(server=request.param, env={**ENV, "KODNA_KEEPALIVE_SECONDS": str(KEEPALIVE)})
        patient = {"connect": 5, "first_byte": 10, "idle": 10, "total": 60}
        key = gateway.set_up(
            catalog(
                {
                    "first": provider(first.base_url, SECRET, timeout=patience),
                    "second": provider(second.base_url, SECRET, timeout=patience),
                    "patient": provider(first.base_url, SECRET, timeout=patient),
                    "hasty": provider(first.base_url, SECRET, timeout={**patient, "idle": 0.3}),
                    "refusing": provider(refusing.base_url, SECRET, timeout=patience),
                },
                {
                    "both": model(("first", "there"), ("second", "over-there"), price={"input": 1, "output": 2}),
                    "one": model(("first", "there")),
                    "patient": model(("patient", "there"), price={"input": 1, "output": 2}),
                    "hasty": model(("hasty", "there")),
                    "nobody": model(("refusing", "there")),
                    "refused-first": model(("refusing", "there"), ("second", "over-there")),
                    "with-fallback": model(("first", "there"), fallbacks=["spare"]),
                    "spare": model(("second", "over-there")),
                },
            ),
            name="relay",
        )
        narrow = gateway.key(name="narrow", concurrency=1)
        with gateway:
            yield House(gateway, key, first, second, narrow)


@pytest.fixture
def house(_running: House, request: pytest.FixtureRequest) -> Iterator[House]:
    for upstream in (_running.first, _running.second):
        upstream.requests.clear()
        upstream.answers(completion())
    request.node.stash[GATEWAYS] = [_running.gateway]
    yield _running
    said = _running.gateway.new_log()
    assert _running.gateway.is_running, said
    assert "Traceback" not in said, said
    assert "Warning:" not in said, said
    assert SECRET not in said
    assert _running.key not in said


ON_DAPHNE = pytest.mark.parametrize("_running", ["daphne"], indirect=True)  # for what no server has a say in


def test_it_works(house: House) -> None:
    answer = house.post()
    assert (answer.status_code, answer.json()["model"]) == (200, "both")
    assert answer.headers["x-kodna-fallback"] == "false"
    row = house.row(answer)
    assert (row["status"], row["outcome"], row["provider"]) == (200, "complete", "first")


# --- a client that leaves --------------------------------------------------------------------------------------------


def raw(house: House, length: int, name: str = "raw") -> bytes:
    """The head of a chat request, for clients that behave as no library lets them. `name`: to know its row by."""
    known = [f"authorization: Bearer {house.key}", f"user-agent: {name}", f"content-length: {length}"]
    return "\r\n".join([f"POST {CHAT} HTTP/1.1", "host: x", *known, "", ""]).encode()


def row_of(house: House, name: str) -> dict[str, Any]:
    found = wait_for(lambda: [row for row in house.gateway.usage_rows() if row["client"] == name])
    assert len(found) == 1
    return dict(found[0])


def leave(house: House, stream: bool, seen: bytes, answer: Reply, name: str = "leaver") -> float:
    """Ask; leave once the provider has the request and the client has `seen`. Seconds until the provider knew."""
    house.first.requests.clear()
    house.first.answers(answer)
    body = json.dumps({"model": "patient", "messages": HELLO, "stream": stream}).encode()
    with socket.create_connection((HOST, house.gateway.port)) as client:
        client.settimeout(5)
        client.sendall(raw(house, len(body), name) + body)
        got = b""
        while seen not in got:
            got += client.recv(65536)
        wait_for(lambda: house.first.requests)
        time.sleep(0.05)
        left_at = time.monotonic()
    assert house.first.last.gone.wait(2), "the provider is still being read"
    return house.first.last.gone_at - left_at


@pytest.mark.parametrize(
    ("stream", "seen", "answer"),
    [
        (False, b"", Reply([], wait=8)),
        (False, b"", Reply([b'{"choices":'], end="hang")),
        (True, b"", Reply([], wait=8)),
        (True, b"keep-alive", Reply([], wait=8)),
        (True, b"two", Reply(chat_events(["one ", "two "])[:3], end="hang")),
        (True, b"word", chat_stream(*["word "] * 400, pause=0.02)),
    ],
    ids=["plain", "plain-began", "stream", "stream-after-a-comment", "stream-began", "stream-flows"],
)
def test_a_client_that_leaves(house: House, stream: bool, seen: bytes, answer: Reply) -> None:
    name = uuid.uuid4().hex
    if leave(house, stream, seen, answer, name) >= 0.1:  # a busy machine is no fault; always late would be one
        assert min(leave(house, stream, seen, answer) for _ in range(3)) < 0.1
    row = row_of(house, name)
    assert (row["status"], row["outcome"], row["error_code"]) == (499, "cancelled", "client_gone")
    assert row["streamed"] == stream
    began = stream and seen in {b"two", b"word"}
    assert row["prompt_tokens"] > 0, "the provider was reading the prompt"
    assert bool(row["completion_tokens"]) == began
    assert row["cost"] > 0
    assert row["estimated"]


def test_a_client_that_leaves_gives_its_place_back(house: House) -> None:
    narrow = replace(house, key=house.narrow)
    leave(narrow, True, b"two", Reply(chat_events(["one ", "two "])[:3], end="hang"))
    house.first.answers(completion())
    assert narrow.post("patient").status_code == 200


def test_a_client_that_leaves_while_it_sends(house: House) -> None:
    name = uuid.uuid4().hex
    with socket.create_connection((HOST, house.gateway.port)) as client:
        client.sendall(raw(house, 100_000, name) + b'{"model":')
        time.sleep(0.1)
    if house.gateway.server == "uvicorn":  # Daphne reads the body before it calls the application
        assert (row_of(house, name)["status"], row_of(house, name)["outcome"]) == (499, "cancelled")
    assert house.post().status_code == 200


# --- before the first byte: another route answers --------------------------------------------------------------------

GZIP = {"content-type": "application/json", "content-encoding": "gzip"}
FAULTS: dict[str, Reply] = {
    "first-byte-timeout": Reply([], wait=3),
    "401": error_reply(401, f"Incorrect API key provided: {SECRET}"),
    "402": error_reply(402, "Pay first"),
    "403": error_reply(403, f"The key {SECRET} may not do this"),
    "400-about-the-credential": error_reply(400, f"API key not valid: {SECRET}"),
    "404": error_reply(404, "no such model", "model_not_found"),
    "408": error_reply(408, "too late"),
    "409": error_reply(409, "conflict"),
    "429": error_reply(429, f"slow down, {SECRET}", headers={"retry-after": "7"}),
    "500": error_reply(500, f"boom {SECRET}"),
    "503": Reply([b"<html>busy</html>"], 503, {"content-type": "text/html"}),
    "302": Reply([b""], 302, {"location": "http://127.0.0.1/elsewhere"}),
    "error-in-200": json_reply({"error": {"message": f"overloaded {SECRET}", "code": 502}}),
    "error-event-in-200": Reply([event({"error": {"message": f"overloaded {SECRET}"}})]),
    "cut-before-the-status": Reply([b""], wire=True),
    "cut-in-the-headers": Reply([b"HTTP/1.1 200 OK\r\ncontent-le"], wire=True),
    "cut-in-the-body": Reply([b'{"choices":'], end="cut"),
    "stall": Reply([b'{"choices":'], end="hang"),
    "not-http": Reply([b"SSH-2.0-OpenSSH_9.2\r\n"], wire=True),
    "not-json": Reply([b"data: {oops\n\n"], headers={"content-type": "text/html"}),
    "html": Reply([b"<html>Sign in</html>"], headers={"content-type": "text/html"}),
    "empty": Reply([b""]),
    "only-done": Reply([DONE]),
    "a-list": json_reply([1]),
    "no-choices": json_reply({"id": "x"}),
    "gzip-that-is-none": Reply([b"no gzip at all"], headers=GZIP),
}


@ON_DAPHNE
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_second_route_answers(house: House, fault: str, stream: bool) -> None:
    house.first.answers(FAULTS[fault])
    house.second.answers(chat_stream() if stream else completion())
    answer = house.post(stream=stream)
    assert answer.status_code == 200, answer.text
    assert "Hello" in answer.text
    assert SECRET not in answer.text
    if fault not in {"first-byte-timeout", "stall"} or not stream:  # after a comment the headers are out
        assert answer.headers["x-kodna-provider"] == "second"
        assert (answer.headers["x-kodna-fallback"], answer.headers["x-kodna-fallback-layer"]) == ("true", "1")
    assert house.second.last.json["model"] == "over-there"


@ON_DAPHNE
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("first-byte-timeout", 504, "provider_timeout"),
        ("stall", 504, "provider_timeout"),
        ("401", 502, "provider_error"),
        ("403", 502, "provider_error"),
        ("404", 502, "provider_error"),
        ("429", 429, "rate_limit_exceeded"),
        ("500", 502, "provider_error"),
        ("503", 502, "provider_error"),
        ("error-in-200", 502, "provider_error"),
        ("cut-in-the-body", 502, "provider_error"),
        ("gzip-that-is-none", 502, "provider_error"),
    ],
)
def test_all_have_failed(house: House, fault: str, status: int, code: str) -> None:
    house.first.answers(FAULTS[fault])
    house.second.answers(FAULTS[fault])
    answer = house.post()
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert SECRET not in answer.text + str(answer.headers)
    if status == 429:
        assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("7", "7000")
    row = house.row(answer)
    assert (row["status"], row["outcome"], row["error_code"]) == (status, "failed", code)
    tried = [(each["provider"], bool(each["reason"])) for each in row["attempts"]]
    repeated = fault in {"500", "503"}  # they may be over in a moment
    assert tried == [("first", True), ("second", True)] * (2 if repeated else 1)
    assert SECRET not in str(row)


@ON_DAPHNE
def test_nobody_listens(house: House) -> None:
    answer = house.post("nobody")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error")
    assert house.post("refused-first").headers["x-kodna-provider"] == "second"


@ON_DAPHNE
def test_another_model_of_the_catalog(house: House) -> None:
    house.first.answers(FAULTS["500"])
    answer = house.post("with-fallback")
    assert (answer.json()["model"], answer.headers["x-kodna-model"]) == ("spare", "spare")
    assert answer.headers["x-kodna-fallback-layer"] == "3"
    row = house.row(answer)
    assert (row["requested_model"], row["model"], row["provider"]) == ("with-fallback", "spare", "second")


@ON_DAPHNE
def test_another_model_of_the_request(house: House) -> None:
    house.first.answers(FAULTS["500"])
    answer = house.post("one", models=["nobody-has-this", "spare"])
    assert (answer.json()["model"], answer.headers["x-kodna-fallback-layer"]) == ("spare", "2")
    assert "models" not in house.second.last.json


@ON_DAPHNE
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_providers_word_about_the_request(house: House, status: int, stream: bool) -> None:
    house.first.answers(error_reply(status, f"too many tokens, {SECRET}", "context_length_exceeded"))
    answer = house.post(stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "context_length_exceeded")
    assert answer.json()["error"]["message"] == "too many tokens, ..."
    assert house.second.requests == [], "no other provider is asked"
    assert (house.row(answer)["outcome"], house.row(answer)["status"]) == ("refused", status)


@ON_DAPHNE
def test_a_credential_in_other_places_of_an_error(house: House) -> None:
    error = {"message": "no", "type": SECRET, "param": SECRET, "code": SECRET}
    house.first.answers(json_reply({"error": error}, 400))
    answer = house.post()
    assert answer.status_code == 400
    assert SECRET not in answer.text + str(answer.headers) + str(house.row(answer))


@ON_DAPHNE
def test_gzip_although_identity_was_asked(house: House) -> None:
    plain = completion()
    packed = gzip.compress(b"".join(plain.pieces))
    house.first.answers(Reply([packed[:20], packed[20:]], headers=GZIP))
    answer = house.post()
    assert answer.json()["choices"][0]["message"]["content"] == "Hello from upstream"
    assert house.first.last.headers["accept-encoding"] == "identity"


# --- after the first byte --------------------------------------------------------------------------------------------

BEGUN = chat_events(["Hel", "lo"])[:3]
BROKEN: dict[str, tuple[str, Reply, str]] = {
    "cut": ("both", Reply(BEGUN, end="cut"), "provider_error"),
    "ended-early": ("both", Reply(BEGUN), "provider_error"),
    "stall": ("both", Reply(BEGUN, end="hang"), "provider_timeout"),
    "stall-where-idle-is-shorter-than-first-byte": ("hasty", Reply(BEGUN, end="hang"), "provider_timeout"),
    "total": ("both", chat_stream(*["x"] * 100, pause=0.1), "provider_timeout"),
    "malformed": ("both", Reply([*BEGUN, b"data: {oops\n\n", DONE], pause=0.05), "provider_error"),
    "error": (
        "both",
        Reply([*BEGUN, event({"error": {"message": f"no more, {SECRET}"}}), DONE], pause=0.05),
        "provider_error",
    ),
}


@ON_DAPHNE
@pytest.mark.parametrize("case", BROKEN)
def test_a_stream_that_breaks(house: House, case: str) -> None:
    name, reply, code = BROKEN[case]
    house.first.answers(reply)
    started = time.monotonic()
    said = []
    with house.openai() as client:
        stream = client.chat.completions.create(model=name, messages=HELLO, stream=True)  # type: ignore[arg-type]
        with pytest.raises(openai.APIError) as caught:
            said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(said).startswith("x" if case == "total" else "Hello")
    assert SECRET not in str(caught.value)
    assert time.monotonic() - started < 2.5
    row = house.gateway.usage_row(stream.response.headers["x-request-id"])
    assert (row["outcome"], row["status"], row["error_code"]) == ("incomplete", 200, code)
    assert row["completion_tokens"] > 0
    assert house.second.requests == [], "no other provider can go on with it"


@ON_DAPHNE
def test_a_stream_without_a_goodbye(house: House) -> None:
    """It gave its reason to end; that [DONE] and the last bytes are missing takes nothing from the answer."""
    house.first.answers(Reply(chat_events(["Hello"])[:-1], end="cut"))
    answer = house.post(stream=True)
    assert "error" not in answer.text
    assert (house.row(answer)["outcome"], house.row(answer)["prompt_tokens"]) == ("complete", 7)


# --- while the provider thinks ---------------------------------------------------------------------------------------


def test_comments_while_the_provider_thinks(house: House) -> None:
    house.first.answers(chat_stream(wait=2.5 * KEEPALIVE))
    answer = house.post("patient", stream=True)
    assert answer.text.startswith(": keep-alive\n\n")
    assert 2 <= answer.text.count(": keep-alive\n\n") <= 4  # the provider may be later than it was told
    assert house.row(answer)["outcome"] == "complete"


def test_comments_although_the_provider_sends_its_own(house: House) -> None:
    """OpenRouter's comments are kept back until the first event; the client must not hear nothing all the while."""
    thinking = [b": PROCESSING\n\n"] * 8
    house.first.answers(Reply([*thinking, *chat_events(["Hello"])], pause=0.1))
    with house.gateway.client(house.key) as client:
        asked = {"model": "patient", "messages": HELLO, "stream": True}
        with client.stream("POST", CHAT, json=asked) as answer:
            pieces = answer.iter_bytes()
            assert next(pieces).startswith(b": keep-alive\n\n")
            assert b"Hello" in b"".join(pieces)


@ON_DAPHNE
def test_a_failure_after_a_comment(house: House) -> None:
    house.first.answers(FAULTS["first-byte-timeout"])
    house.second.answers(FAULTS["500"])
    answer = house.post(stream=True)
    assert answer.status_code == 200
    comment, *errors = answer.text.strip().split("\n\n")
    assert comment == ": keep-alive"
    assert json.loads(errors[-1].removeprefix("data: "))["error"]["code"] == "provider_error"
    assert (house.row(answer)["outcome"], house.row(answer)["status"]) == ("failed", 200), "a comment was out already"


@ON_DAPHNE
def test_the_second_route_after_a_comment(house: House) -> None:
    house.first.answers(FAULTS["first-byte-timeout"])
    house.second.answers(chat_stream("Hello"))
    answer = house.post(stream=True)
    assert answer.text.startswith(": keep-alive\n\n")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert "Hello" in answer.text
    assert (house.row(answer)["provider"], house.row(answer)["outcome"]) == ("second", "complete")


# --- readers -----------------------------------------------------------------------------------------------------


def test_a_slow_reader(house: House) -> None:
    """What a client does not read is left with the provider, not piled up in the gateway."""
    piece = event({"choices": [{"index": 0, "delta": {"content": "x" * 100_000}}]})
    house.first.answers(Reply([piece] * 1500, end="hang"))
    gateway = psutil.Process(house.gateway.pid)
    before = gateway.memory_info().rss
    body = json.dumps({"model": "patient", "messages": HELLO, "stream": True}).encode()
    with socket.create_connection((HOST, house.gateway.port)) as client:
        client.sendall(raw(house, len(body)) + body)
        wait_for(lambda: house.first.requests)
        time.sleep(1)
        assert gateway.memory_info().rss - before < 40_000_000
    assert house.first.last.gone.wait(2)


def test_a_reader_who_never_reads(house: House) -> None:
    """The time for the whole exchange ends it: its place, and the provider's connection, are free again."""
    name = uuid.uuid4().hex
    piece = event({"choices": [{"index": 0, "delta": {"content": "x" * 100_000}}]})
    house.first.answers(Reply([piece] * 600, end="hang"))
    body = json.dumps({"model": "one", "messages": HELLO, "stream": True}).encode()
    with socket.create_connection((HOST, house.gateway.port)) as client:
        client.sendall(raw(house, len(body), name) + body)
        wait_for(lambda: house.first.requests)
        assert house.first.last.gone.wait(3)
        assert row_of(house, name)["outcome"] == "cancelled"
        client.settimeout(3)
        assert not _rest(client).endswith(b"0\r\n\r\n"), "an answer that is not whole must not end as if it were"
    house.gateway.new_log()  # uvicorn says in it that the answer has no end


def _rest(client: socket.socket) -> bytes:
    """The last bytes before the server closes the connection."""
    last = b""
    try:
        while data := client.recv(1_000_000):
            last = (last + data)[-100:]
    except ConnectionResetError:
        pass  # it may hang up without a goodbye
    return last


# --- many at once ----------------------------------------------------------------------------------------------------


@ON_DAPHNE
def test_many_streams_at_once(house: House) -> None:
    words = [f"{number} " for number in range(8)]
    house.first.answers(chat_stream(*words, pause=0.05))

    async def read(client: httpx.AsyncClient) -> str:
        answer = await client.post(CHAT, json={"model": "patient", "messages": HELLO, "stream": True})
        return answer.text

    async def all_at_once() -> list[str]:
        limits = httpx.Limits(max_connections=None)
        headers = {"authorization": f"Bearer {house.key}"}
        async with httpx.AsyncClient(base_url=house.gateway.url, headers=headers, limits=limits, timeout=20) as client:
            return await asyncio.gather(*(read(client) for _ in range(200)))

    for text in asyncio.run(all_at_once()):
        assert text.endswith("data: [DONE]\n\n")
        said = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in said) == "".join(words)
