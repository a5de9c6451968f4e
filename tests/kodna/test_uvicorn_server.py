"""uvicorn with bounded request heads: what it refuses, and that whole requests pass."""

import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.conftest import MakeGateway
from tests.gateway import Gateway
from tests.processes import HOST

LIVE = b"GET /health/live HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def running(_new_gateway: MakeGateway) -> Iterator[Gateway]:
    with _new_gateway(server="uvicorn", env={"KODNA_BODY_TIMEOUT": "0.4"}) as gateway:
        yield gateway


@pytest.fixture
def server(running: Gateway) -> Iterator[Gateway]:
    yield running
    assert running.is_live()
    assert "Traceback" not in running.log


def say(server: Gateway, *pieces: bytes, pause: float = 0.0) -> bytes:
    """All that the server says to these pieces, until it hangs up or has been silent for long."""
    said = b""
    with socket.create_connection((HOST, server.port)) as client:
        client.settimeout(4)
        try:
            for piece in pieces:
                client.sendall(piece)
                time.sleep(pause)
            while piece := client.recv(65536):
                said += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return said


def statuses(said: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", said)]


def test_it_works(server: Gateway) -> None:
    said = say(server, (LIVE + b"\r\n") * 3 + LIVE + b"connection: close\r\n\r\n")
    assert statuses(said) == [200] * 4


def test_a_head_of_some_size(server: Gateway) -> None:
    assert statuses(say(server, LIVE + b"connection: close\r\nx: " + b"a" * 60_000 + b"\r\n\r\n")) == [200]


@pytest.mark.parametrize(
    "head",
    [
        LIVE + b"x: " + b"a" * 70_000 + b"\r\n\r\n",
        LIVE + b"x: " + b"a" * 70_000,  # it does not end
        LIVE + b"".join(b"x-%d: %s\r\n" % (number, b"y" * 50) for number in range(2000)) + b"\r\n",
        b"GET /" + b"a" * 70_000,
        b"\r\n" * 40_000,
    ],
)
def test_a_head_that_is_too_large(server: Gateway, head: bytes) -> None:
    for pieces in ([head], [head[place : place + 5000] for place in range(0, len(head), 5000)]):
        said = say(server, *pieces)
        assert not said or statuses(said) == [431], "it may have hung up before we looked"


def test_the_refusal_is_an_answer_like_others(server: Gateway) -> None:
    with socket.create_connection((HOST, server.port)) as client:
        client.settimeout(4)
        client.sendall(LIVE + b"x: " + b"a" * 65_500)
        said = client.recv(65536)
    assert said.startswith(b"HTTP/1.1 431 ")
    assert b"\r\nconnection: close\r\n" in said
    assert b"\r\nx-request-id: req_" in said
    assert b'"code":"headers_too_large"' in said.replace(b'": "', b'":"')


@pytest.mark.parametrize("kind", ["trailers", "extension"])
def test_what_comes_around_chunks(server: Gateway, kind: str) -> None:
    """The connection ends, with or without the application's answer."""
    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1"
    start += b"\r\n{\r\n0\r\nx: " if kind == "trailers" else b";x="
    assert 200 not in statuses(say(server, start, *[b"a" * 5000] * 40))


def test_a_slow_head(server: Gateway) -> None:
    began = time.monotonic()
    said = say(server, LIVE)
    assert (statuses(said), time.monotonic() - began < 2) == ([408], True)


def test_a_head_that_drips(server: Gateway) -> None:
    assert statuses(say(server, *[b"G", b"E", b"T", b" ", b"/", b" "] * 2, pause=0.1)) in ([408], [400], [])


def test_a_connection_on_which_nothing_comes(server: Gateway) -> None:
    began = time.monotonic()
    assert say(server) == b""
    assert time.monotonic() - began < 2


def test_the_next_head_on_a_connection_is_slow(server: Gateway) -> None:
    assert statuses(say(server, LIVE + b"\r\n" + LIVE)) == [200, 408]


def test_an_empty_line_between_requests(server: Gateway) -> None:
    began = time.monotonic()
    said = say(server, LIVE + b"\r\n", b"\r\n", pause=0.1)
    assert (statuses(said), time.monotonic() - began < 2) == ([200], True)
