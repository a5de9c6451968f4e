"""What reaches the application over real sockets, on both servers: methods, paths, requests that no library sends."""

import http.client
import json
import random
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest

from tests.conftest import MakeGateway
from tests.gateway import Gateway, catalog, model, provider
from tests.processes import HOST, wait_for
from tests.upstreams import Upstream, error_reply

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "vendor/recorded", "messages": [{"role": "user", "content": "Hello"}]}).encode()


class House:
    def __init__(self, gateway: Gateway, key: str) -> None:
        self.gateway, self.key = gateway, key

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """The path goes out as it is written, which httpx would not do."""
        connection = http.client.HTTPConnection(HOST, self.gateway.port, timeout=10)
        with closing(connection):
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())

    def raw(self, data: bytes, silence: float = 3) -> bytes:
        """All that the server says to these bytes, until it hangs up or has been silent for some seconds."""
        said = b""
        with socket.create_connection((HOST, self.gateway.port)) as client:
            client.settimeout(silence)
            try:
                client.sendall(data)
                while piece := client.recv(65536):
                    said += piece
            except (ConnectionResetError, BrokenPipeError, TimeoutError):
                pass
        return said

    def chat(self, *lines: str, body: bytes = BODY, start: str = f"POST {CHAT} HTTP/1.1") -> bytes:
        known = [f"authorization: Bearer {self.key}", "host: x", *lines]
        if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
            known.append(f"content-length: {len(body)}")
        return "\r\n".join([start, *known, "", ""]).encode("latin-1") + body


@pytest.fixture
def house(gateway: Gateway, api_key: str) -> Iterator[House]:
    yield House(gateway, api_key)
    assert api_key not in gateway.log


def statuses(said: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.[01] (\d{3}) ", said)]


def test_it_works(house: House) -> None:
    said = house.raw(house.chat("connection: close"))
    assert statuses(said) == [200]
    assert b"Hello from upstream" in said


# --- paths and methods -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1", "/v1/", "/v1/nothing", "/v1/../admin/", "/v1/%2e%2e/admin/", "/v1/chat/completions/",
        "/v1/chat//completions", "/v1/%00", "/v1/%ff%fe", "/v1/%", "/v1/" + "x" * 3000, "/v1/models/",
        "/v1/models/nobody",
    ],
)  # fmt: skip
def test_unknown_paths(house: House, path: str) -> None:
    answer = house.ask("GET", path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["//v1/models", "/V1/models", "/admin/../v1/models", "/.env", "/%2e%2e/etc/passwd"])
def test_paths_that_are_not_the_gateways(house: House, path: str) -> None:
    assert house.ask("GET", path).status_code in {302, 400, 404}


@pytest.mark.parametrize(
    "path", ["/v1/models/vendor/tiny", "/v1/models/vendor%2Ftiny", "/v1/%6Dodels/tiny?x=1", "/v1/models?limit=1"]
)
def test_known_paths(house: House, path: str) -> None:
    assert house.ask("GET", path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST, OPTIONS"),
        ("HEAD", CHAT, "POST, OPTIONS"),
        ("PUT", CHAT, "POST, OPTIONS"),
        ("DELETE", "/v1/models/tiny", "GET, OPTIONS"),
        ("POST", "/v1/models", "GET, OPTIONS"),
        ("PATCH", "/health", "GET, OPTIONS"),
        ("TRACE", "/health/live", "GET, OPTIONS"),
    ],
)
def test_wrong_methods(house: House, method: str, path: str, allowed: str) -> None:
    answer = house.ask(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/health", "/health/live", "/health/ready"])
def test_head(house: House, path: str) -> None:
    answer = house.raw(f"HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    assert statuses(answer) == [200]
    assert answer.endswith(b"\r\n\r\n"), "headers only"


def test_preflight(house: House) -> None:
    asked = {"origin": "https://app.example", "access-control-request-headers": "authorization,x-stainless-os"}
    answer = house.ask("OPTIONS", CHAT, asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in answer.headers


# --- what runs beside it ---------------------------------------------------------------------------------------------


def test_a_credential_that_is_refused_comes_into_the_database(make_gateway: MakeGateway, upstream: Upstream) -> None:
    """Its place is out at once; a thread writes it down; a job makes a notice of it."""
    house = make_gateway()
    key = house.set_up(catalog({"only": provider(upstream.base_url)}, {"m": model(("only", "there"))}))
    upstream.answers(error_reply(401, "no"))
    with house, house.client(key) as client:
        assert client.post(CHAT, content=BODY.replace(b"vendor/recorded", b"m")).status_code == 502
        with closing(sqlite3.connect(house.data_dir / "kodna.sqlite3")) as database:
            rows = wait_for(lambda: database.execute("SELECT provider, why FROM proxy_routetrouble").fetchall(), 15)
        assert rows == [("only", "refused")]
        assert "0 resolved, 1 open; routes" in house.manage("jobs", "run", "notice-providers")


# --- requests that no library sends ----------------------------------------------------------------------------------


def test_pipelined(house: House) -> None:
    said = house.raw(house.chat() * 3 + b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert statuses(said) == [200] * 4
    assert len(set(re.findall(rb"req_\w+", said))) == 4


def test_http_1_0(house: House) -> None:
    said = house.raw(house.chat(start=f"POST {CHAT} HTTP/1.0"))
    assert statuses(said) == [200]
    assert b"transfer-encoding" not in said.lower()


def test_expect_100(house: House) -> None:
    said = house.raw(house.chat("expect: 100-continue", "connection: close"))
    assert statuses(said)[-1] == 200


def test_two_lengths_or_a_length_and_chunks(house: House) -> None:
    """Where one server would read another request than the next, there is none."""
    hidden = b"0\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n"
    for lines in (["content-length: 5", "content-length: 6"], ["content-length: 5", "transfer-encoding: chunked"]):
        assert 200 not in statuses(house.raw(house.chat(*lines, body=hidden), 0.3))


def bad(*lines: str, start: str = f"POST {CHAT} HTTP/1.1", body: bytes = BODY) -> Callable[[House], bytes]:
    return lambda house: house.chat(*lines, start=start, body=body)


BAD = {
    "negative length": bad("content-length: -1"),
    "length of letters": bad("content-length: abc"),
    "huge length": bad("content-length: " + "9" * 40),
    "unknown encoding": bad("transfer-encoding: gzip"),
    "bad chunk size": bad("transfer-encoding: chunked", body=b"zz\r\n" + BODY),
    "half a chunk": bad("transfer-encoding: chunked", body=b"ff\r\n{"),
    "lower-case method": bad(start=f"post {CHAT} HTTP/1.1"),
    "method of bytes": bad(start=f"P\xe9ST {CHAT} HTTP/1.1"),
    "no version": bad(start=f"POST {CHAT}"),
    "strange version": bad(start=f"POST {CHAT} HTTP/9.9"),
    "absolute address": bad(start=f"POST http://evil.example{CHAT} HTTP/1.1"),
    "path of bytes": bad(start="POST /v1/\xff\xfe HTTP/1.1"),
    "query of bytes": bad(start=f"POST {CHAT}?\xff HTTP/1.1"),
    "header without a colon": bad("nonsense"),
    "header name with a space": bad("x y: z"),
    "header of control characters": bad("x: a\x00b"),
    "user agent of control characters": bad("user-agent: a\x01\x7fb"),
    "user agent of bytes": bad("user-agent: \xff\xfe"),
    "a line that goes on": bad("x: a\r\n  b"),
    "a huge header": bad("x: " + "a" * 200_000),
    "many headers": bad(*(f"x-{number}: y" for number in range(2000))),
    "a root path": bad("daphne-root-path: /elsewhere"),
    "a root path of bytes": bad("daphne-root-path: \xff"),
    "form": bad("content-type: application/x-www-form-urlencoded"),
    "form of parts": bad("content-type: multipart/form-data; boundary=x"),
    "form without a boundary": bad("content-type: multipart/form-data"),
    "websocket": bad("upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13", "sec-websocket-key: x"),
    "whole websocket": lambda house: (
        b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
    "h2c": bad("upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: AAMAAABkAAQAAP__"),
    "HTTP/2 at once": lambda house: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": lambda house: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    "CONNECT": bad(start="CONNECT evil.example:443 HTTP/1.1", body=b""),
    "a star": bad(start="OPTIONS * HTTP/1.1", body=b""),
    "nothing": lambda house: b"",
    "empty lines": lambda house: b"\r\n" * 100,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(house: House, name: str) -> None:
    said = house.raw(BAD[name](house), 0.1)
    assert not [status for status in statuses(said) if status >= 500], said
    assert house.ask("GET", "/health/live").status_code == 200


def test_a_few_hundred_broken_requests(house: House) -> None:
    chance = random.Random(7)
    whole = house.chat("content-type: application/json", "connection: close")
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 3)] = chance.choice(
                [b"", b"\x00", b"\r\n", b"\n", b" ", b":", b"\xff", bytes([chance.randrange(256)])]
            )
        said = house.raw(bytes(data), 0.05)
        assert not [status for status in statuses(said) if status >= 500], (bytes(data), said)
    assert statuses(house.raw(whole)) == [200]
