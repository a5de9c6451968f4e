"""Who may ask, and with what: keys, addresses, bodies and the envelope, each refused in its own way."""

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pytest_django import Settings

from accounts import keys
from proxy import errors, ingress
from proxy.formats import anthropic_messages, openai_chat
from proxy.formats.base import Client
from proxy.ingress import Asked, Envelope
from proxy.upstream import Pool
from tests.conftest import MakeGateway
from tests.gateway import Gateway, catalog, model, provider
from tests.processes import HOST, wait_for
from tests.proxy import inside
from tests.proxy.inside import HELLO, KEY, TEXT, Inside, snapshot
from tests.upstreams import MockUpstream, Upstream, completion

CHAT = "/v1/chat/completions"


def house(folder: Path, key: keys.Key = KEY, **more: Any) -> Inside:
    found = snapshot(inside.model("m", inside.provider()), default="m")
    return Inside(folder, found, Pool(MockUpstream(completion()).transport), (TEXT, key), **more)


async def test_it_works(tmp_path: Path) -> None:
    answer = await house(tmp_path).post()
    assert (answer.status, answer.json["model"]) == (200, "m")


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer " + TEXT.encode())],
        [(b"authorization", b"bearer   " + TEXT.encode() + b" ")],
        [(b"x-api-key", TEXT.encode())],
        [(b"authorization", b"Basic dXNlcjpwYXNz"), (b"x-api-key", TEXT.encode())],
    ],
)
async def test_ways_to_send_a_key(tmp_path: Path, headers: list[tuple[bytes, bytes]]) -> None:
    assert (await house(tmp_path).post(key="", headers=headers)).status == 200


def mistyped(text: str) -> str:
    return text[:-1] + ("a" if text[-1] != "a" else "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "No API key"),
        ("nonsense", "copied whole"),
        (mistyped(TEXT), "copied whole"),
        (TEXT[:-1], "copied whole"),
        ("sk-kodna-" + "é" * 43, "copied whole"),
        (keys.make(), "not known or was revoked"),
        ("x" * 100_000, "copied whole"),
    ],
    ids=["none", "nonsense", "mistyped", "cut", "other-letters", "unknown", "endless"],  # the keys are random
)
async def test_a_wrong_key(tmp_path: Path, text: str, words: str) -> None:
    gateway = house(tmp_path)
    answer = await gateway.post(key=text)
    assert (answer.status, answer.error["type"], answer.error["code"]) == (
        401,
        "authentication_error",
        "invalid_api_key",
    )
    assert words in answer.error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert not text or text not in answer.body.decode()
    assert gateway.records() == [], "whose it is, nobody knows"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"is_active": False}, "switched off"), ({"expires": 1.0}, "expired")],
)
async def test_a_key_that_works_no_longer(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    answer = await house(tmp_path, replace(KEY, **changes)).post()
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert words in answer.error["message"]


async def test_a_key_that_expires_later(tmp_path: Path) -> None:
    assert (await house(tmp_path, replace(KEY, expires=time.time() + 60)).post()).status == 200


async def test_without_a_key_where_that_is_allowed(tmp_path: Path) -> None:
    gateway = house(tmp_path, anonymous=replace(KEY, id=0, name="anonymous", prefix="", account="anonymous"))
    assert (await gateway.post(key="")).status == 200
    assert (gateway.record.account, gateway.record.key_id) == ("anonymous", None)
    assert (await gateway.post(key="nonsense")).status == 401, "a wrong key is refused all the same"


OFFICE = replace(KEY, networks=(ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("2001:db8::/32")))


@pytest.mark.parametrize(
    ("address", "status"),
    [("10.1.2.3", 200), ("::ffff:10.1.2.3", 200), ("2001:db8::1", 200), ("10.2.0.1", 403), ("", 403), ("unix", 403)],
)
async def test_networks(tmp_path: Path, address: str, status: int) -> None:
    answer = await house(tmp_path, OFFICE).post(client=(address, 5))
    assert answer.status == status
    if status == 403:
        assert (answer.error["type"], answer.error["code"]) == ("permission_error", "ip_not_allowed")


def forwarded(*lines: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", line.encode()) for line in lines]


@pytest.mark.parametrize(
    ("peer", "lines", "status"),
    [
        ("127.0.0.1", ["10.1.2.3"], 200),
        ("127.0.0.1", ["8.8.8.8, 10.1.2.3"], 200),
        ("127.0.0.1", ["10.1.2.3, 8.8.8.8"], 403),
        ("127.0.0.1", ["10.1.2.3", "8.8.8.8"], 403),  # what the proxy adds may be a line of its own
        ("127.0.0.1", ["8.8.8.8", "10.1.2.3, 127.0.0.1"], 200),
        ("127.0.0.1", ["nonsense"], 403),
        ("127.0.0.1", [], 403),
        ("8.8.8.8", ["10.1.2.3"], 403),  # nobody whom the operator trusts says so
    ],
)
async def test_behind_a_proxy(tmp_path: Path, settings: Settings, peer: str, lines: list[str], status: int) -> None:
    settings.TRUSTED_PROXIES = [ip_network("127.0.0.0/8")]
    answer = await house(tmp_path, OFFICE).post(client=(peer, 5), headers=forwarded(*lines))
    assert answer.status == status


async def test_a_forwarded_address_without_trusted_proxies(tmp_path: Path) -> None:
    assert (await house(tmp_path, OFFICE).post(headers=forwarded("10.1.2.3"))).status == 403


# --- the body --------------------------------------------------------------------------------------------------------


async def test_a_body_in_pieces(tmp_path: Path) -> None:
    body = json.dumps({"model": "m", "messages": HELLO}).encode()
    known = [(b"authorization", f"Bearer {TEXT}".encode())]
    pieces = [body[place : place + 1] for place in range(len(body))]
    assert (await house(tmp_path).ask("POST", CHAT, known, pieces)).status == 200


async def test_a_slow_body(tmp_path: Path, settings: Settings) -> None:
    settings.BODY_TIMEOUT = 0.05
    gateway = house(tmp_path)
    answer = await gateway.post(b"{", unfinished=True)
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert gateway.record.status == 408


async def test_a_client_that_leaves_while_it_sends(tmp_path: Path) -> None:
    gateway, leave = house(tmp_path), asyncio.Event()
    leave.set()
    assert (await gateway.post(b"{", unfinished=True, leave=leave)).status == 0
    assert (gateway.record.status, gateway.record.outcome, gateway.record.error_code) == (
        499,
        "cancelled",
        "client_gone",
    )


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413), (2000, 413), (2001, 413), (9000, 413)])
@pytest.mark.parametrize("declared", [False, True])
async def test_the_size_of_a_body(tmp_path: Path, settings: Settings, size: int, status: int, declared: bool) -> None:
    settings.MAX_BODY_BYTES = 1000
    body = json.dumps({"model": "m", "messages": HELLO}).encode().ljust(size)
    known = [(b"authorization", f"Bearer {TEXT}".encode()), *([(b"content-length", b"%d" % size)] if declared else [])]
    answer = await house(tmp_path).ask(
        "POST", CHAT, known, [body[place : place + 100] for place in range(0, size, 100)]
    )
    assert answer.status == status
    if status == 413:
        assert (answer.error["code"], answer.headers["x-should-retry"]) == ("request_too_large", "false")


# --- the envelope ----------------------------------------------------------------------------------------------------

MESSAGE = '{"role":"user","content":"x"}'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b"1", "invalid_json"),
        (b"null", "invalid_json"),
        (b'"text"', "invalid_json"),
        (b"{", "invalid_json"),
        (b"{}x", "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b"\xff\xfe{\x00}\x00", "invalid_json"),
        (b'{"a":"\xff"}', "invalid_json"),
        (b'{"messages":[%s],"messages":[]}' % MESSAGE.encode(), "invalid_json"),
        (b'{"model":"a","model":"m","messages":[%s]}' % MESSAGE.encode(), "invalid_json"),
        (b'{"messages":[%s],"x":NaN}' % MESSAGE.encode(), "invalid_json"),
        (b'{"messages":[%s],"x":"\\ud800"}' % MESSAGE.encode(), "invalid_json"),
        (b'{"messages":[%s],"x":"\x00"}' % MESSAGE.encode(), "invalid_json"),
        (b'{"messages":[%s],"x":%s}' % (MESSAGE.encode(), b"[" * 2000 + b"]" * 2000), "invalid_json"),
        (b"{}", "missing_required_parameter"),
    ],
)
async def test_a_body_that_is_no_request(tmp_path: Path, body: bytes, code: str) -> None:
    gateway = house(tmp_path)
    answer = await gateway.post(body)
    assert (answer.status, answer.error["code"]) == (400, code)
    assert answer.error["type"] == "invalid_request_error"
    assert (gateway.record.status, gateway.record.outcome) == (400, "refused")


async def test_two_thousand_deep(tmp_path: Path) -> None:
    body = b'{"model":"m","messages":%s}' % (b"[" * 2000 + b"]" * 2000)
    answer = await house(tmp_path).post(body)
    assert (answer.status, "too deeply" in answer.error["message"]) == (400, True)


WRONG = {
    "model": [1, None, True, [], {}, ""],
    "messages": [1, None, "text", {}, [], [1], [None], ["text"], [[]]],
    "stream": [1, "true", [], {}],
    "max_tokens": ["5", True, [], {}],
    "max_completion_tokens": ["5", []],
    "group": [1, True, {}, [1], ["a", None]],
    "models": [1, "m", {}, [1], [None], ["m"] * 17],
    "previous_request_id": [1, [], {}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
async def test_a_wrong_type(tmp_path: Path, field: str, value: object) -> None:
    answer = await house(tmp_path).post({"model": "m", "messages": HELLO, field: value})
    assert answer.status == 400, answer.body
    assert str(answer.error["param"]).split("[")[0] == field
    assert answer.error["message"].startswith(f"Invalid '{field}")


@pytest.mark.parametrize("options", [1, "x", [], {"include_usage": 1}, {"include_usage": "yes"}])
async def test_wrong_stream_options(tmp_path: Path, options: object) -> None:
    answer = await house(tmp_path).post({"model": "m", "messages": HELLO, "stream": True, "stream_options": options})
    assert answer.status == 400
    assert answer.error["param"].startswith("stream_options")


@pytest.mark.parametrize("field", ["stream", "max_tokens", "group", "models", "previous_request_id", "stream_options"])
async def test_null_is_as_if_it_were_not_there(tmp_path: Path, field: str) -> None:
    assert (await house(tmp_path).post({"model": "m", "messages": HELLO, field: None})).status == 200


@pytest.mark.parametrize("value", [0, -1, 1.5, -(10**30)])
async def test_a_number_of_tokens_is_the_providers_to_judge(tmp_path: Path, value: float) -> None:
    """-1 is no limit at LM Studio and llama.cpp."""
    mock = MockUpstream()
    gateway = Inside(tmp_path, snapshot(inside.model("m", inside.provider())), Pool(mock.transport))
    assert (await gateway.post({"model": "m", "messages": HELLO, "max_tokens": value})).status == 200
    assert mock.last.json["max_tokens"] == value


def test_the_envelope() -> None:
    body = {"model": "m", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}, "group": "a"}
    found = ingress.read_envelope(
        json.dumps({**body, "models": ["x"], "max_completion_tokens": 5}).encode(), Asked(openai_chat)
    )
    assert (found.model, found.stream) == ("m", True)
    assert (found.groups, found.models, found.bounds) == (("a",), ("x",), {"max_completion_tokens": 5})


# --- what names a conversation ---------------------------------------------------------------------------------------

# As Claude Code has written it until its 2.1.86, and since: https://github.com/coder/aibridge/pull/241
OLD_CLAUDE = "user_0123_account__session_57a121ec-f78c-48c3-a745-e3036a3ecc33"
CLAUDE = json.dumps({"device_id": "0123", "account_uuid": "", "session_id": "54c1eb09"})


def envelope(form: Client, members: Mapping[str, Any], *headers: tuple[bytes, bytes]) -> Envelope:
    body = {"model": "m", "messages": HELLO, **({"max_tokens": 5} if form is anthropic_messages else {}), **members}
    found = ingress.read_envelope(json.dumps(body).encode(), Asked(form))
    ingress.read_headers(found, {"headers": headers}, strict=False)
    return found


def session(members: Mapping[str, Any], *headers: tuple[bytes, bytes], form: Client = openai_chat) -> bytes:
    return envelope(form, members, *headers).session


@pytest.mark.parametrize("field", ["session_id", "litellm_session_id", "prompt_cache_key"])
def test_a_field_names_the_conversation(field: str) -> None:
    assert session({field: "chat 1"}) == b"chat 1"
    for other in ("", None, 1, ["chat 1"], {"id": "chat 1"}, True):
        assert session({field: other}) == b"", "it is the vendor's field"


@pytest.mark.parametrize(
    "name",
    [
        *("x-session-id", "x-session-affinity", "x-claude-code-session-id", "session-id", "session_id"),
        *("x-litellm-session-id", "x-openwebui-chat-id"),
    ],
)
def test_a_header_names_the_conversation(name: str) -> None:
    assert session({}, (b"x-other", b"x"), (name.encode(), b" chat 1 ")) == b"chat 1"
    assert session({}, (name.encode(), b"")) == b""
    assert session({"metadata": {}}, (name.encode(), b"chat 1")) == b"chat 1"


@pytest.mark.parametrize("user", [CLAUDE, OLD_CLAUDE])
def test_claude_code_names_its_session(user: str) -> None:
    found = session({"metadata": {"other": [1], "user_id": user}}, form=anthropic_messages)
    assert found.decode() == json.dumps(user)[1:-1]
    assert session({"metadata": {"user_id": user}}) == b"", "elsewhere this is a tag of the client's own"


@pytest.mark.parametrize("metadata", [None, 5, "x", [], {}, {"user_id": 5}, {"user_id": None}, {"user_id": ["x"]}])
def test_metadata_without_a_name(metadata: object) -> None:
    assert session({"metadata": metadata}, form=anthropic_messages) == b""


def test_metadata_at_the_bound_of_depth() -> None:
    """What the body's reader has just let pass never fails here."""
    for depth in range(900, 1100):
        deep = b"[" * depth + b"]" * depth
        body = (
            b'{"max_tokens":5,"messages":[{"role":"user","content":"x"}],"metadata":{"user_id":"x","deep":%b}}' % deep
        )
        try:
            found = ingress.read_envelope(body, Asked(anthropic_messages))
        except errors.InvalidJson:
            continue
        ingress.read_headers(found, {"headers": []}, strict=False)
        assert found.session == b"x"


def test_the_most_specific_name_counts() -> None:
    headers = [(b"session-id", b"5"), (b"x-session-affinity", b"4"), (b"x-session-id", b"3")]
    body = {"session_id": "1", "litellm_session_id": "2", "prompt_cache_key": "6", "metadata": {"session_id": "7"}}
    for expected in (b"1", b"2"):
        assert session(body, *headers) == expected
        del body[next(iter(body))]
    while headers:
        assert session(body, *headers) == headers.pop()[1]
    for expected in (b"6", b"7"):
        assert session(body, *headers) == expected
        del body[next(iter(body))]
    assert session(body) == b""


def test_a_session_is_of_an_account_and_a_model() -> None:
    found, same = (envelope(openai_chat, {"prompt_cache_key": "chat 1"}) for _ in range(2))
    other = envelope(openai_chat, {"prompt_cache_key": "chat 2"})
    stranger = replace(KEY, account_id=KEY.account_id + 1)
    second = replace(KEY, id=KEY.id + 1)
    name = ingress.session_name(found, KEY, "m")
    assert name == ingress.session_name(same, second, "m")
    names = {name, *(ingress.session_name(found, *of) for of in ((KEY, "n"), (stranger, "m")))}
    assert len({*names, ingress.session_name(other, KEY, "m")}) == 4
    assert "chat" not in name
    assert ingress.session_name(envelope(openai_chat, {}), KEY, "m") == ""


async def test_names_go_on_untouched(tmp_path: Path) -> None:
    mock = MockUpstream()
    gateway = Inside(tmp_path, snapshot(inside.model("m", inside.provider())), Pool(mock.transport))
    names = {"session_id": 5, "litellm_session_id": "a", "prompt_cache_key": {"of": "mine"}, "metadata": {"user_id": 7}}
    body = {"model": "m", "messages": HELLO, **names}
    assert (await gateway.post(body, headers=[(b"x-session-id", b"chat 1")])).status == 200
    assert mock.last.json == {**body, "model": "m-there"}


def test_the_plan_is_asked_for() -> None:
    for value, expected in (
        (b"true", True),
        (b" True", True),
        (b"1", True),
        (b"", False),
        (b"false", False),
        (b"0", False),
        (b"No", False),
    ):
        assert envelope(openai_chat, {}, (b"x-kodna-explain", value)).explain is expected
    assert envelope(openai_chat, {}).explain is False


def test_the_previous_request() -> None:
    assert [envelope(openai_chat, {"previous_request_id": each}).previous for each in ("req_1", "", None)] == [
        *("req_1", "", "")
    ]


# --- on real sockets -------------------------------------------------------------------------------------------------


def test_65_megabytes_with_httpx(gateway: Gateway, api_key: str) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(65):
            yield b" " * 1024 * 1024

    with gateway.client(api_key) as client:
        for content in (b" " * 65 * 1024 * 1024, pieces()):
            answer = client.post(CHAT, content=content)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_65_megabytes_with_the_sdk(gateway: Gateway, api_key: str) -> None:
    client = openai.OpenAI(base_url=gateway.base_url, api_key=api_key, max_retries=0)
    message: Any = [{"role": "user", "content": "x" * 65 * 1024 * 1024}]
    with closing(client), pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="tiny", messages=message)
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


@dataclass
class Strict:
    gateway: Gateway
    key: str
    office: str  # a key for some addresses only


@pytest.fixture(scope="module", params=["daphne", "uvicorn"])
def strict(request: pytest.FixtureRequest, _new_gateway: MakeGateway) -> Iterator[Strict]:
    """Half a megabyte at most, in half a second."""
    env = {"KODNA_MAX_BODY_MB": "0.5", "KODNA_BODY_TIMEOUT": "0.5", "KODNA_TRUSTED_PROXIES": "127.0.0.1"}
    gateway = _new_gateway(server=request.param, env=env)
    with Upstream(completion()) as upstream:
        served = catalog({"fake": provider(upstream.base_url)}, {"m": model(("fake", "there"))})
        key = gateway.set_up(served, name="strict")
        strict = Strict(gateway, key, gateway.key(name="office", ips="10.1.0.0/16"))
        with gateway:
            yield strict
    assert "Traceback" not in gateway.log


def head(key: str, *lines: str) -> bytes:
    return "\r\n".join([f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {key}", *lines, "", ""]).encode()


def read(client: socket.socket) -> bytes:
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
            if b"\r\n\r\n" in data and data.endswith(b"}"):
                break
    except ConnectionResetError:
        pass
    return data


def test_a_slow_body_on_the_wire(strict: Strict) -> None:
    gateway, key = strict.gateway, strict.key
    with socket.create_connection((HOST, gateway.port)) as client:
        client.settimeout(6)
        client.sendall(head(key, "content-length: 1000") + b"{")
        answer = read(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer
    assert b"x-request-id: req_" in answer


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_without_end(strict: Strict, declared: bool) -> None:
    """A gigabyte, in chunks or announced: the server hangs up long before."""
    gateway, key = strict.gateway, strict.key
    sent, piece = 0, b" " * 65536
    with socket.create_connection((HOST, gateway.port)) as client:
        client.settimeout(5)
        client.sendall(head(key, "content-length: 1073741824" if declared else "transfer-encoding: chunked"))
        try:
            while sent < 1 << 30:
                client.sendall(piece if declared else b"10000\r\n" + piece + b"\r\n")
                sent += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert sent < 16 << 20, "sockets hold some megabytes, the gateway one"
    assert httpx.get(f"{gateway.url}/health/live").status_code == 200


def test_a_body_that_is_somewhat_too_large(strict: Strict) -> None:
    gateway, key = strict.gateway, strict.key
    with gateway.client(key) as client:
        answer = client.post(CHAT, content=b" " * 700_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_an_address_from_a_trusted_proxy(strict: Strict) -> None:
    with strict.gateway.client(strict.office) as client:
        asked = {"model": "m", "messages": HELLO}
        assert client.post(CHAT, json=asked, headers={"x-forwarded-for": "10.1.2.3"}).status_code == 200
        refused = client.post(CHAT, json=asked, headers={"x-forwarded-for": "10.1.2.3, 8.8.8.8"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "ip_not_allowed")


@pytest.mark.parametrize("_shared", ["uvicorn"], indirect=True)
def test_the_life_of_a_key(gateway: Gateway) -> None:
    """Made, rotated and revoked while two workers serve: each knows within a second."""
    key = gateway.manage("keys", "create", "--account", "life", "--rpm", "0", "--rps", "0").strip()
    wait_for(lambda: statuses(gateway, key) == {404}, 1)
    new = gateway.manage("keys", "rotate", key[:17], "--grace", "1h").strip()
    wait_for(lambda: statuses(gateway, new) == {404}, 1)
    assert statuses(gateway, key) == {404}, "until the grace is over"
    gateway.manage("keys", "revoke", key[:17])
    wait_for(lambda: statuses(gateway, key) == {401}, 1)
    assert statuses(gateway, new) == {404}


def statuses(gateway: Gateway, key: str) -> set[int]:
    """Of requests over connections of their own, so that all workers take some. 404: the key is let in."""

    def ask() -> int:
        with gateway.client(key) as client:
            return client.post(CHAT, json={"model": "nobody", "messages": HELLO}).status_code

    return {ask() for _ in range(12)}


def test_without_keys(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(env={"KODNA_ALLOW_NO_AUTH": "on"})
    with gateway, gateway.client() as client:
        answer = client.post(CHAT, json={"model": "nobody", "messages": HELLO})
        assert answer.status_code == 404
        assert gateway.usage_row(answer.headers["x-request-id"])["account"] == "anonymous"
