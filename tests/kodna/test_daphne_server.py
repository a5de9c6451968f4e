"""Daphne with bounded bodies and readers: what it does where an application or a client behaves badly."""

import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from accounts import keys
from tests.processes import HOST, ROOT, Process, clean_environment, free_port, wait_for

KEY = keys.make()

# An application that does what the gateway should never do.
_APPLICATION = """
import asyncio, os, sys
import django, uvloop
django.setup()
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
from kodna import daphne_server

async def application(scope, receive, send):
    path = scope["path"]
    if path == "/raises-at-once":
        raise RuntimeError("at once")
    if path.endswith("/body"):
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        text = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    if path == "/ends":
        return
    if path == "/raises":
        raise RuntimeError("in the middle")
    if path == "/cancelled":
        raise asyncio.CancelledError
    if path == "/much":
        for _ in range(600):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    if path == "/hangs":
        await asyncio.Event().wait()
    await send({"type": "http.response.body", "body": scope["root_path"].encode()})

sys.exit(daphne_server.serve(application, os.environ["HOST"], int(os.environ["PORT"]), 100))
"""


@dataclass
class Server:
    process: Process
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def is_live(self) -> bool:
        try:
            return httpx.get(f"{self.url}/", timeout=2).text == "half"
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("daphne")
    port = free_port()
    env = clean_environment(
        DJANGO_SETTINGS_MODULE="kodna.settings",
        KODNA_DATA_DIR=str(folder / "data"),
        KODNA_MAX_BODY_MB="0.1",
        KODNA_BODY_TIMEOUT="0.3",
        HOST=HOST,
        PORT=str(port),
        PYTHONPATH=str(ROOT),
    )
    process = Process([sys.executable, "-c", _APPLICATION], log=folder / "log", env=env, cwd=folder)
    server = Server(process, port)
    process.until_ready(server.is_live)
    yield server
    process.stop()


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """It must work on after every test."""
    yield running
    assert running.is_live()


def test_it_works(server: Server) -> None:
    answer = httpx.post(f"{server.url}/body", content=b"x" * 1000)
    assert (answer.status_code, answer.text) == (200, "1000")


@pytest.mark.parametrize("path", ["/raises", "/ends", "/cancelled"])
def test_an_answer_without_an_end(server: Server, path: str) -> None:
    """The connection breaks: the client must not wait for ever, nor take it for whole."""
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        httpx.get(server.url + path, timeout=4)


def test_an_application_that_fails_at_once(server: Server) -> None:
    assert httpx.get(f"{server.url}/raises-at-once", timeout=4).status_code == 500


def test_a_body_that_is_a_byte_too_large(server: Server) -> None:
    """The application sees that it is, and refuses."""
    most = 102 * 1024 + 409  # 0.1 MB, in whole bytes
    seen = int(httpx.post(f"{server.url}/body", content=b"x" * (most + 5000)).text)
    assert most < seen <= most + 5000


def test_a_body_that_is_twice_too_large(server: Server) -> None:
    with socket.create_connection((HOST, server.port)) as client:
        client.settimeout(3)
        client.sendall(b"POST /body HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        said = b""
        try:
            for _ in range(100):
                client.sendall(b"2000\r\n" + b"x" * 8192 + b"\r\n")
            said = client.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            said = said or b"HTTP/1.1 413"  # it may have hung up before we looked
    assert said.startswith(b"HTTP/1.1 413")


def files_of(process: Process) -> list[str]:
    """Of no name, as those for large bodies would be."""
    links = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:
            continue  # closed meanwhile
    assert links
    return [link for link in links if link.endswith("(deleted)")]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="where one cannot see a process's files")
@pytest.mark.parametrize("length", [b"content-length: 104000", b"transfer-encoding: chunked"])
def test_bodies_never_touch_the_disk(server: Server, length: bytes) -> None:
    before = files_of(server.process)
    with socket.create_connection((HOST, server.port)) as client:
        client.sendall(b"POST /body HTTP/1.1\r\nhost: x\r\n" + length + b"\r\n\r\n" + b"5\r\nsecret")
        for _ in range(5):
            time.sleep(0.04)
            assert files_of(server.process) == before


SIZE = 100_000  # bytes: a small body is kept whoever sends it


def test_a_small_body_is_anybodys(server: Server) -> None:
    assert httpx.post(f"{server.url}/v1/body", content=b"x" * 1000).text == "1000"


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        ({}, 0),
        ({"authorization": "Bearer nonsense"}, 0),
        ({"authorization": "Bearer \xff"}, 0),
        ({"authorization": ""}, 0),
        ({"authorization": f"Bearer {KEY}"}, SIZE),
        ({"authorization": f"bearer  {KEY}"}, SIZE),
        ({"x-api-key": KEY}, SIZE),
        ({"authorization": "Basic x", "x-api-key": KEY}, SIZE),
    ],
)
def test_a_strangers_body_is_not_kept(server: Server, headers: dict[str, str], size: int) -> None:
    known = {name: value.encode("latin-1") for name, value in headers.items()}
    assert int(httpx.post(f"{server.url}/v1/body", content=b"x" * SIZE, headers=known).text) == size


@pytest.mark.parametrize(
    ("path", "size"), [("/v1/body", 0), ("/%76%31/body", 0), ("/demo/body", SIZE), ("/body", SIZE)]
)
def test_whose_bodies_need_no_key(server: Server, path: str, size: int) -> None:
    with socket.create_connection((HOST, server.port)) as client:
        client.settimeout(4)
        start = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n"
        client.sendall(start.encode() + b"x" * SIZE)
        said = b""
        while piece := client.recv(65536):
            said += piece
    assert said.endswith(b"\r\n\r\n%d" % size)


def test_a_slow_body(server: Server) -> None:
    with socket.create_connection((HOST, server.port)) as client:
        client.settimeout(4)
        client.sendall(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1")
        said = client.recv(65536)
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b"\r\nconnection: close\r\n" in said


def test_a_header_that_would_move_the_root(server: Server) -> None:
    for value in (b"/elsewhere", b"\xff"):
        with socket.create_connection((HOST, server.port)) as client:
            client.settimeout(3)
            client.sendall(
                b"GET / HTTP/1.1\r\nhost: x\r\ndaphne-root-path: " + value + b"\r\nconnection: close\r\n\r\n"
            )
            said = b""
            while piece := client.recv(65536):
                said += piece
        assert said.startswith(b"HTTP/1.1 200 ")
        assert b"elsewhere" not in said


def test_a_slow_reader(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with socket.create_connection((HOST, server.port)) as client:
        client.sendall(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n")
        time.sleep(0.7)
        assert process.memory_info().rss - before < 20_000_000
    assert len(httpx.get(f"{server.url}/much", timeout=20).content) == 60_000_004, "who reads gets all of it"


def test_the_end_with_requests_in_every_state(tmp_path: Path) -> None:
    port = free_port()
    env = clean_environment(
        DJANGO_SETTINGS_MODULE="kodna.settings", KODNA_DATA_DIR=str(tmp_path / "data"), HOST=HOST, PORT=str(port)
    )
    process = Process([sys.executable, "-c", _APPLICATION], log=tmp_path / "log", env=env, cwd=tmp_path)
    server = Server(process, port)
    process.until_ready(server.is_live)
    with socket.create_connection((HOST, port)) as half, socket.create_connection((HOST, port)) as hanging:
        half.sendall(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1")
        hanging.sendall(b"GET /hangs HTTP/1.1\r\nhost: x\r\n\r\n")
        wait_for(lambda: hanging.recv(65536))
        started = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - started < 3
    assert "Traceback" not in process.tail()
