"""The HTTP client against real sockets, on both event loops: what a server may do to it."""

import asyncio
import datetime
import gc
import ipaddress
import socket
import ssl
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy import http1
from proxy.http1 import HIGH, PIECE, Answer, Broken, Client, Closed, Unreachable
from tests.processes import HOST

HEAD = b"POST /v1/x HTTP/1.1\r\nhost: there\r\ncontent-length: "
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nx-trailer: 1\r\n\r\n"


@pytest.fixture(autouse=True, params=["asyncio", "uvloop"])
def _event_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy() if request.param == "uvloop" else None)
    yield
    asyncio.set_event_loop_policy(None)


class Server:
    """Reads requests and writes `pieces` to each, apart. `then`: what it does to the connection after them."""

    def __init__(self, *pieces: bytes, then: str = "keep") -> None:
        self.pieces, self.then = pieces, then
        self.bodies: list[bytes] = []
        self.connections = 0
        self.gone = asyncio.Event()  # a client has closed its connection
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while await self._answers(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.bodies.append(await reader.readexactly(int(head.rpartition(b" ")[2])))
        for piece in self.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if self.then == "reset":
            reset(writer)
        if self.then == "hang":
            await reader.readexactly(1)
        return self.then == "keep"


def reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


@asynccontextmanager
async def client_of(handler: Any, host: str = HOST, **more: Any) -> AsyncIterator[Client]:
    """A client of a server in which `handler` has each connection."""
    running: set[asyncio.Task[Any] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await handler(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, host, 0, **more)
    client = Client(host, server.sockets[0].getsockname()[1], secure=bool(more))
    try:
        yield client
    finally:
        await client.aclose()
        server.close()
        await asyncio.wait_for(asyncio.gather(*(task for task in running if task)), 5)


async def ask(client: Client, body: bytes = b"{}") -> Answer:
    connection = client.take() or await client.connect(2)
    return await connection.ask(HEAD, body)


async def read_all(answer: Answer) -> bytes:
    found = b""
    try:
        while piece := await answer.read():
            found += piece
        return found
    finally:
        await answer.close()


async def told(*pieces: bytes, then: str = "keep") -> bytes:
    async with client_of(Server(*pieces, then=then)) as client:
        return await read_all(await ask(client))


async def soon(condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it does not happen")


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_it_works() -> None:
    server = Server(SIZED)
    async with client_of(server) as client:
        answer = await ask(client, b'{"a":1}')
        assert (answer.status, answer.header("content-type"), answer.header("x")) == (200, "text/plain", "")
        assert await read_all(answer) == b"hello"
    assert server.bodies == [b'{"a":1}']


@pytest.mark.parametrize("wire", [SIZED, CHUNKED])
async def test_cut_anywhere(wire: bytes) -> None:
    server = Server()
    async with client_of(server) as client:
        for place in range(len(wire)):
            server.pieces = (wire[:place], wire[place:])
            assert await read_all(await ask(client)) == b"hello"
        server.pieces = tuple(wire[place : place + 1] for place in range(len(wire)))
        assert await read_all(await ask(client)) == b"hello"
    assert server.connections == 1


@pytest.mark.parametrize(
    ("wire", "then", "body"),
    [
        (OK + b"\r\nhello", "close", b"hello"),  # until the end of the connection
        (b"HTTP/1.0 200 OK\r\n\r\nhello", "close", b"hello"),
        (OK + b"connection: close\r\n\r\n", "close", b""),
        (OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", "close", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + SIZED, "keep", b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "keep", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", "keep", b""),
        (b"HTTP/1.1 200\r\ncontent-length: 5\r\n\r\nhello", "keep", b"hello"),
        (b"HTTP/1.1 200 OK\ncontent-length: 5\nx: \xff\n\nhello", "keep", b"hello"),
    ],
)
async def test_answers_of_every_kind(wire: bytes, then: str, body: bytes) -> None:
    assert await told(wire, then=then) == body


async def test_headers_are_those_of_the_final_answer() -> None:
    async with client_of(Server(b"HTTP/1.1 103 Early\r\nx: early\r\n\r\n", CHUNKED)) as client:
        answer = await ask(client)
        assert await read_all(answer) == b"hello"
        assert answer.headers == [(b"transfer-encoding", b"chunked")], "nor is a trailer one of them"


@pytest.mark.parametrize(
    ("wire", "then"),
    [
        (b"not http\r\n\r\n", "hang"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "hang"),
        (OK + b"x: " + b"y" * 100_000, "hang"),
        (OK + b"x: y\r\n" * 20_000 + b"\r\n", "hang"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, "hang"),
        (OK + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * 20_000, "hang"),
        (OK + b"content-length: 9\r\n\r\nhello", "close"),
        (OK + b"content-length: 9\r\n\r\nhello", "reset"),
        (OK + b"transfer-encoding: chunked\r\n\r\n9\r\nhello", "close"),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "close"),
        (OK + b"transfer-encoding: chunked\r\n\r\nhello\r\n", "hang"),
        (OK + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "close"),
        (OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "hang"),
        (OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", "hang"),
        (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "hang"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "close"),
        (b"HTTP/1.1 099 Odd\r\ncontent-length: 1\r\n\r\nh" + SIZED, "hang"),
        (b"HTTP/1.1 099 Odd\r\n\r\nhello", "close"),
        (OK + b"content-length : 9\r\n\r\nhello", "close"),
        (OK + b"\r\nhello", "reset"),
        (b"HTTP/1.1 2", "close"),
    ],
)
async def test_broken_answers(wire: bytes, then: str) -> None:
    with pytest.raises(Broken) as caught:
        await told(wire, then=then)
    assert not isinstance(caught.value, Closed), "something had come"


async def test_what_had_come_is_read_before_the_fault() -> None:
    async with client_of(Server(OK + b"content-length: 9\r\n\r\nhello", then="close")) as client:
        answer = await ask(client)
        assert await answer.read() == b"hello"
        with pytest.raises(Broken):
            await answer.read()
        await answer.close()


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_not_a_byte(then: str) -> None:
    with pytest.raises(Closed):
        await told(then=then)


# --- connections that are kept ---------------------------------------------------------------------------------------


async def test_a_connection_serves_again() -> None:
    server = Server(SIZED)
    async with client_of(server) as client:
        for _ in range(3):
            assert await read_all(await ask(client)) == b"hello"
    assert (server.connections, len(server.bodies)) == (1, 3)


@pytest.mark.parametrize(
    "wire",
    [
        OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        SIZED + SIZED,
        SIZED + b"rubbish",
    ],
)
async def test_a_connection_that_cannot_serve_again(wire: bytes) -> None:
    server = Server(wire)
    async with client_of(server) as client:
        for number in (1, 2):
            assert await read_all(await ask(client)) == b"hello"
            assert (client.take(), server.connections) == (None, number)


@pytest.mark.parametrize("what", ["says", "ends", "resets"])
async def test_what_a_server_does_unasked(what: str) -> None:
    """No answer is made of it, and the connection serves nobody again."""
    server = Server(SIZED)
    async with client_of(server) as client:
        await read_all(await ask(client))
        writer = server.writers[0]
        {"says": lambda: writer.write(SIZED), "ends": writer.close, "resets": lambda: reset(writer)}[what]()
        await soon(lambda: not client._open)
        assert client.take() is None


async def test_what_comes_before_the_answer_is_closed_is_thrown_away_too() -> None:
    server = Server(SIZED)
    async with client_of(server) as client:
        answer = await ask(client)
        assert await answer.read() == b"hello"
        server.writers[0].write(SIZED)
        await asyncio.sleep(0.02)
        await answer.close()
        assert (client.take(), await answer.read()) == (None, b"")


async def test_the_last_used_is_the_first_used() -> None:
    server = Server(SIZED)
    async with client_of(server) as client:
        first, second = await ask(client), await ask(client)
        for answer in (first, second):
            await read_all(answer)
        await read_all(await ask(client))
        third = client.take()
        assert third is not None
        await read_all(await third.ask(HEAD, b""))
    assert server.connections == 2


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "KEPT_SECONDS", 0.05)
    server = Server(SIZED)
    async with client_of(server) as client:
        await read_all(await ask(client))
        await asyncio.wait_for(server.gone.wait(), 2)
        assert client.take() is None


# --- large bodies ----------------------------------------------------------------------------------------------------

LARGE = b"x" * 20_000_000


async def test_a_large_request() -> None:
    server = Server(SIZED)
    async with client_of(server) as client:
        for _ in range(2):
            assert await read_all(await ask(client, LARGE)) == b"hello"
    assert (server.bodies, server.connections) == ([LARGE, LARGE], 1)


REFUSED = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig"


@pytest.mark.parametrize("close", ["close", "abort"])
async def test_an_answer_that_comes_while_the_request_is_written(close: str) -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(REFUSED)
        await writer.drain()
        await asyncio.sleep(0.02)
        getattr(writer.transport, close)()

    async with client_of(refuses) as client:
        for _ in range(10):
            answer = await ask(client, LARGE)
            assert (answer.status, await read_all(answer)) == (413, b"big")
            assert client.take() is None


async def test_a_request_is_written_on_while_the_answer_comes() -> None:
    got = []

    async def echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"content-length: 5\r\n\r\n")
        got.append(len(await reader.readexactly(len(LARGE))))
        writer.write(b"hello")
        writer.close()

    async with client_of(echoes) as client:
        assert await read_all(await ask(client, LARGE)) == b"hello"
    assert got == [len(LARGE)]


async def test_an_answer_to_a_request_that_is_half_written() -> None:
    """The connection serves nobody again: such a server may take the rest of the one request for another."""
    asked, done = asyncio.Event(), asyncio.Event()

    async def reads_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await asked.wait()
        writer.write(SIZED)
        await done.wait()

    async with client_of(reads_nothing) as client:
        connection = await client.connect(2)
        connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        task = asyncio.create_task(connection.ask(HEAD, LARGE[:PIECE]))
        await soon(lambda: not connection._may_write)
        asked.set()
        assert await read_all(await task) == b"hello"
        kept = client.take()
        done.set()
    assert kept is None


async def test_what_is_not_written_any_more(caplog: pytest.LogCaptureFixture) -> None:
    """To a connection that has been reset: the loop would warn of each piece."""
    with socket.create_server((HOST, 0)) as server:
        client = Client(HOST, server.getsockname()[1], secure=False)
        connection = await client.connect(1)
        taken, _ = server.accept()
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        taken.close()
        with pytest.raises(Closed):
            await connection.ask(HEAD, LARGE)
        await client.aclose()
    assert not caplog.records


async def test_a_slow_reader_of_tiny_chunks() -> None:
    """Each piece is an object, which costs more than what it holds."""
    flood = b"2\r\nab\r\n" * 10_000

    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(60):
            writer.write(flood)
            await writer.drain()

    async with client_of(pours) as client:
        answer = await ask(client)
        await soon(lambda: answer._is_paused)
        assert sum(map(sys.getsizeof, answer._pieces)) < 10 * HIGH
        await answer.close()


async def test_a_slow_reader_holds_no_more_than_its_bound() -> None:
    written = []

    async def pours(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"content-length: %d\r\n\r\n" % len(LARGE))
        for start in range(0, len(LARGE), 100_000):
            writer.write(LARGE[start : start + 100_000])
            await writer.drain()
            written.append(start)
        writer.close()

    async with client_of(pours) as client:
        answer = await ask(client)
        await asyncio.sleep(0.1)
        assert answer._size < 2 * HIGH + 64 * 1024
        assert len(written) < 190, "the server has to wait"
        assert await read_all(answer) == LARGE


# --- leaving ---------------------------------------------------------------------------------------------------------


async def test_who_leaves_while_waiting_closes_the_connection() -> None:
    server = Server(then="hang")
    async with client_of(server) as client:
        task = asyncio.create_task(ask(client))
        await soon(lambda: server.bodies)
        task.cancel()
        await asyncio.wait_for(server.gone.wait(), 1)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_who_leaves_while_reading_closes_the_connection() -> None:
    server = Server(OK + b"content-length: 9\r\n\r\nhello", then="hang")
    async with client_of(server) as client:
        answer = await ask(client)
        assert await answer.read() == b"hello"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answer.read(), 0.01)
        await answer.close()
        await asyncio.wait_for(server.gone.wait(), 1)
        with pytest.raises(Broken):
            await answer.read()


async def test_who_leaves_while_connecting() -> None:
    with socket.create_server((HOST, 0)) as silent:  # takes the connection, and says nothing of TLS
        client = Client(HOST, silent.getsockname()[1], secure=True)
        task = asyncio.create_task(client.connect(5))
        silent.setblocking(False)
        taken, _ = await asyncio.get_running_loop().sock_accept(silent)
        with taken:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            received = bytearray()
            async with asyncio.timeout(1):
                while piece := await asyncio.get_running_loop().sock_recv(taken, 4096):
                    received += piece
        await client.aclose()


async def test_closing_the_client_ends_what_is_under_way() -> None:
    """An answer that only ends with its connection is not taken for whole then."""
    server = Server(OK + b"\r\nhello", then="hang")
    async with client_of(server) as client:
        answer = await ask(client)
        await answer.read()
        rest = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(Broken):
            await rest


async def test_nothing_lies_in_a_circle() -> None:
    """The gateway's collector is frozen: what only it can free stays."""
    gc.collect()
    gc.disable()
    try:
        found = []
        for server in (Server(SIZED), Server(b"rubbish\r\n\r\n", then="close"), Server(then="close")):
            async with client_of(server) as client:
                connection = await client.connect(1)
                found.append(weakref.ref(connection))
                try:
                    answer = await connection.ask(HEAD, b"")
                    found.append(weakref.ref(answer))
                    await read_all(answer)
                    del answer
                except Broken:
                    pass
                del connection
        await asyncio.sleep(0.01)
        assert [each() for each in found] == [None] * 4
    finally:
        gc.enable()


async def test_nor_does_one_that_could_not_be_made() -> None:
    gc.collect()
    gc.disable()
    try:
        found = []
        async with named(["::1", "127.0.0.2"]) as (client, _):
            reach = client._reach

            async def note(address: str) -> Any:
                found.append(weakref.ref(asyncio.current_task()))  # type: ignore[arg-type]
                return await reach(address)

            client._reach = note  # type: ignore[method-assign]
            with pytest.raises(Unreachable):
                await client.connect(1)
        await asyncio.sleep(0.01)
        assert [each() for each in found] == [None] * 2
    finally:
        gc.enable()


# --- connecting ------------------------------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    with socket.create_server((HOST, 0)) as once:
        port = once.getsockname()[1]
    with pytest.raises(Unreachable):
        await Client(HOST, port, secure=False).connect(1)


@pytest.mark.parametrize("secure", [True, False])
async def test_a_connection_that_takes_too_long(secure: bool) -> None:
    with socket.create_server((HOST, 0), backlog=0) as deaf:
        full = [socket.socket() for _ in range(0 if secure else 4)]
        for each in full:
            each.setblocking(False)
            each.connect_ex(deaf.getsockname())
        with pytest.raises(Unreachable):
            await Client(HOST, deaf.getsockname()[1], secure=secure).connect(0.05)
        for each in full:
            each.close()


async def test_ipv6() -> None:
    async with client_of(Server(SIZED), host="::1") as client:
        assert await read_all(await ask(client)) == b"hello"


@asynccontextmanager
async def named(names: list[str]) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client of a server with these addresses, of which it listens on 127.0.0.1 only; and whom it has tried."""
    async with client_of(Server(SIZED)) as listening:
        client, tried = Client("provider.example", listening._port, secure=False), []
        reach = client._reach

        async def note(address: str) -> Any:
            tried.append(address)
            if address.startswith("slow"):
                await asyncio.sleep(9)
            return await reach(address)

        client._find = lambda: asyncio.sleep(0, names)  # type: ignore[method-assign]
        client._reach = note  # type: ignore[method-assign]
        yield client, tried
        await client.aclose()


async def test_a_server_with_several_addresses() -> None:
    async with named(["::1", HOST]) as (client, tried):
        assert await read_all(await ask(client)) == b"hello"
        assert tried == ["::1", HOST]


async def test_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_HEAD_START", 0.02)
    async with named(["slow", HOST, "127.0.0.2"]) as (client, tried):
        assert await read_all(await ask(client)) == b"hello"
        assert tried == ["slow", HOST]


async def test_the_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for once; every connection begins with another; anew where none could be reached."""
    asked = []

    async def find(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        families = {"::1": socket.AF_INET6, "::2": socket.AF_INET6, HOST: socket.AF_INET}
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for address, family in families.items()]

    client = Client("provider.example", 1, secure=False)
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: SimpleNamespace(time=lambda: 1.0, getaddrinfo=find))
    first, second = await client._find(), await client._find()
    monkeypatch.undo()
    assert (first, second) == (["::1", HOST, "::2"], [HOST, "::2", "::1"])
    assert asked == ["provider.example"]
    client._find = lambda: asyncio.sleep(0, [HOST])  # type: ignore[method-assign]
    with pytest.raises(Unreachable):
        await client.connect(1)
    assert client._believed_until == 0


async def test_who_need_a_name_at_once_ask_for_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop looks few names up at a time, uvloop two: a name that takes long would hold up all others."""
    loop, asked = asyncio.get_running_loop(), []
    answer = loop.create_future()

    async def find(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        return await asyncio.shield(answer)

    monkeypatch.setattr(loop, "getaddrinfo", find)
    client = Client("provider.example", 1, secure=False)
    with pytest.raises(Unreachable):
        await client.connect(0.01)
    waiting = [asyncio.create_task(client.connect(1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    answer.set_exception(socket.gaierror("unknown"))
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [Unreachable] * 3
    assert asked == ["provider.example"]


async def test_none_of_the_addresses_stands() -> None:
    async with named(["::1", "127.0.0.2"]) as (client, _):
        with pytest.raises(Unreachable):
            await ask(client)


async def test_two_addresses_that_stand_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "_HEAD_START", 0.0)
    async with named([HOST, HOST, HOST]) as (client, _):
        assert await read_all(await ask(client)) == b"hello"
        await soon(lambda: len(client._open) == 1)


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.fixture
def secured(certificate: Path) -> Iterator[ssl.SSLContext]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    http1.tls.cache_clear()
    yield context
    http1.tls.cache_clear()


async def test_a_certificate_that_nobody_vouches_for(secured: ssl.SSLContext) -> None:
    async with client_of(Server(SIZED), ssl=secured) as client:
        with pytest.raises(Unreachable, match="certificate"):
            await ask(client)


async def test_tls(secured: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = Server(SIZED)
    async with client_of(server, ssl=secured) as client:
        for body in (b"{}", LARGE, b"{}"):
            assert await read_all(await ask(client, body)) == b"hello"
        server.pieces = (OK + b"content-length: %d\r\n\r\n" % len(LARGE), LARGE)
        answer = await ask(client)
        await asyncio.sleep(0.05)
        assert answer._is_paused
        assert await read_all(answer) == LARGE
    assert server.connections == 1


async def test_tls_to_a_server_without_it() -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with client_of(refuses) as plain:
        with pytest.raises(Unreachable):
            await Client(HOST, plain._port, secure=True).connect(1)
