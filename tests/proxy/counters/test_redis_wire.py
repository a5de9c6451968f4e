"""The connections to Redis: many commands in one write, each answer to its own, and an end to every silence."""

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis as client
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.counters.base import Unreachable
from proxy.counters.redis_wire import Line, Server, Wire
from tests.processes import HOST, free_port

Connect = Callable[..., Any]


class Between:
    """Lies between the gateway and Redis: it can say nothing, or hang up. `writes`: what came from the gateway."""

    def __init__(self, redis_port: int) -> None:
        self._redis_port = redis_port
        self.writes: list[bytes] = []
        self.silent = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_redis = await asyncio.open_connection(HOST, self._redis_port)
        self.writers += [writer, to_redis]
        await asyncio.gather(self._carry(reader, to_redis, self.writes), self._carry(there, writer, []))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: list[bytes]) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                seen.append(data)
                if not self.silent.is_set():
                    writer.write(data)
        writer.close()

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


@asynccontextmanager
async def between(url: str, **listening: Any) -> AsyncIterator[tuple[Between, str]]:
    middle = Between(int(url.split(":")[2].split("/")[0]))
    if "path" in listening:
        server = await asyncio.start_unix_server(middle, **listening)
        address = f"unix://{listening['path']}?db=1"
    else:
        server = await asyncio.start_server(middle, HOST, 0, **listening)
        scheme = "rediss" if "ssl" in listening else "redis"
        address = f"{scheme}://{HOST}:{server.sockets[0].getsockname()[1]}/1"
    async with server:
        yield middle, address
        middle.hang_up()


@asynccontextmanager
async def opened(url: str, patience: float = 5) -> AsyncIterator[Wire]:
    wire = Wire(url, patience)
    await wire.connect()
    yield wire
    wire.close()


def ask(wire: Wire, *words: Any) -> "asyncio.Future[Any]":
    future = asyncio.get_running_loop().create_future()
    wire.send(hiredis.pack_command(words), future.set_result)
    return future


@pytest.fixture
def line(url: str) -> Iterator[Line]:
    found = Line(url, 5)
    yield found
    found.close()


# --- on the event loop -----------------------------------------------------------------------------------------------


async def test_it_works(url: str) -> None:
    async with opened(url) as wire, asyncio.timeout(5):
        assert await ask(wire, "SET", "test:a", 1) == b"OK"
        assert await ask(wire, "GET", "test:a") == b"1"
        assert isinstance(await ask(wire, "NONSENSE"), hiredis.ReplyError)


async def test_the_commands_of_one_round_leave_in_one_write(url: str) -> None:
    async with between(url) as (middle, address), opened(address) as wire:
        middle.writes.clear()
        answers = await asyncio.gather(*(ask(wire, "ECHO", number) for number in range(100)))
        assert answers == [str(number).encode() for number in range(100)]
        assert len(middle.writes) == 1


async def test_all_wait_for_one_connection(url: str) -> None:
    async with between(url) as (middle, address):
        wire = Wire(address, 5, [("SET", "test:greeting", "seen")])
        impatient = asyncio.create_task(wire.connect())
        others = [asyncio.create_task(wire.connect()) for _ in range(10)]
        await asyncio.sleep(0)
        impatient.cancel()
        servers = set(await asyncio.gather(*others))
        assert len(servers) == 1
        assert len(middle.writers) == 2, "one connection, from and to"
        assert await ask(wire, "GET", "test:greeting") == b"seen"
        wire.close()


async def test_whom_it_reaches(url: str) -> None:
    with client.Redis.from_url(url) as redis:
        async with opened(url) as wire:
            assert wire.server == Server(redis.info("server")["run_id"], await ask(wire, "CLIENT", "ID"))
        assert wire.server is None


async def test_a_silent_redis_is_given_up(url: str) -> None:
    async with between(url) as (middle, address), opened(address, 0.1) as wire:
        server = wire.server
        middle.silent.set()
        begun = time.monotonic()
        answers = [await asked for asked in [ask(wire, "PING"), ask(wire, "PING")]]
        assert 0.1 <= time.monotonic() - begun < 5
        assert [str(answer) for answer in answers] == ["Redis has not answered for 0.1 seconds"] * 2
        assert (wire.server, wire.breaks, wire.suspects) == (None, 1, {server})
        with pytest.raises(Unreachable, match="cannot be reached"):
            await wire.connect()
        middle.silent.clear()
        await wire.connect()
        assert await ask(wire, "ECHO", "again") == b"again"


async def test_a_pause_of_this_process_is_no_silence_of_redis(url: str) -> None:
    async with opened(url, 0.1) as wire:
        asked = ask(wire, "ECHO", "a")
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251
        assert await asked == b"a"
        assert wire.breaks == 0


async def test_an_idle_connection_is_kept(url: str) -> None:
    async with opened(url, 0.02) as wire:
        await ask(wire, "PING")
        server = wire.server
        await asyncio.sleep(0.1)
        assert wire.server == server


async def test_a_connection_that_breaks(url: str) -> None:
    async with between(url) as (middle, address), opened(address) as wire:
        middle.hang_up()
        await asyncio.sleep(0.01)
        assert (wire.server, wire.breaks, wire.suspects) == (None, 0, set()), "nothing was on its way"
        assert isinstance(await ask(wire, "PING"), Unreachable)
        await wire.connect()
        middle.silent.set()
        asked = ask(wire, "PING")
        await asyncio.sleep(0)
        middle.hang_up()
        assert isinstance(await asked, Unreachable)
        assert (wire.breaks, len(wire.suspects)) == (1, 1)


async def test_closing_lets_out_what_was_sent(url: str) -> None:
    async with opened(url) as wire:
        asked = ask(wire, "SET", "test:last", "word")
    assert isinstance(await asked, Unreachable)
    async with opened(url) as wire:
        assert await ask(wire, "GET", "test:last") == b"word"


def answering(data: bytes) -> Any:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        if not data:
            await reader.read()
        writer.close()

    return behave


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "rotocol"),
        (b"-ERR max number of clients reached\r\n", "max number"),
        (b"+OK\r\n", "closed"),
        (b"", "no answer|not answered"),
    ],
    ids=["not Redis", "full", "closes", "silent"],
)
async def test_a_connection_that_does_not_begin(data: bytes, why: str) -> None:
    async with await asyncio.start_server(answering(data), HOST, 0) as server:
        address = f"redis://{HOST}:{server.sockets[0].getsockname()[1]}/0"
        wire, line = Wire(address, 0.2), Line(address, 0.2)
        with pytest.raises(Unreachable, match=why):
            await wire.connect()
        with pytest.raises(Unreachable, match=why):
            await asyncio.to_thread(line.call, lambda _: ("PING",))
        assert (wire.server, wire.breaks) == (None, 0)
        line.close()


# --- from threads ----------------------------------------------------------------------------------------------------


def test_a_line(url: str, line: Line) -> None:
    servers = set()

    def echo(server: Server) -> tuple[Any, ...]:
        servers.add(server)
        return ("ECHO", "a")

    threads = [threading.Thread(target=lambda: [line.call(echo) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(servers) == 1
    assert isinstance(line.call(lambda _: ("NONSENSE",)), hiredis.ReplyError)
    with client.Redis.from_url(url) as redis:
        assert servers == {Server(redis.info("server")["run_id"], line.call(lambda _: ("CLIENT", "ID")))}
        redis.client_kill_filter(_id=servers.pop().client_id)
    assert line.call(echo) == b"a", "a connection that was kept may be stale"


async def test_a_line_gives_up_a_silent_redis(url: str) -> None:
    async with between(url) as (middle, address):
        line = Line(address, 0.1)
        assert await asyncio.to_thread(line.call, lambda _: ("ECHO", "a")) == b"a"
        middle.silent.set()
        with pytest.raises(Unreachable, match=r"not answered for 0\.1 seconds"):
            await asyncio.to_thread(line.call, lambda _: ("PING",))
        middle.silent.clear()
        assert await asyncio.to_thread(line.call, lambda _: ("ECHO", "b")) == b"b", "not an answer to what was before"
        line.close()


async def test_nobody_there() -> None:
    address = f"redis://{HOST}:{free_port()}/0"
    with pytest.raises(Unreachable, match="cannot be reached"):
        await Wire(address, 1).connect()
    with pytest.raises(Unreachable, match="cannot be reached"):
        Line(address, 1).call(lambda _: ("PING",))
    with pytest.raises(Unreachable, match="cannot be reached"):
        Line("unix:///nowhere/redis.sock", 1).call(lambda _: ("PING",))


# --- how a connection begins -----------------------------------------------------------------------------------------


async def both(address: str) -> tuple[Any, Any]:
    """Which database a `Wire` and a `Line` reach there."""
    line = Line(address, 5)
    async with opened(address) as wire:
        here = await ask(wire, "CLIENT", "INFO")
        there = await asyncio.to_thread(line.call, lambda _: ("CLIENT", "INFO"))
    line.close()
    return tuple(dict(word.split(b"=") for word in info.split())[b"db"] for info in (here, there))


@pytest.fixture
def user(url: str) -> Iterator[str]:
    with client.Redis.from_url(url) as redis:
        redis.acl_setuser("tester", enabled=True, passwords=["+a secret"], commands=["+@all"], keys=["*"])
        yield url.replace("redis://", "redis://tester:{}@")
        redis.acl_deluser("tester")


async def test_a_login(user: str) -> None:
    assert await both(user.format("a%20secret")) == (user[-1].encode(), user[-1].encode())
    wrong = user.format("another")
    with pytest.raises(Unreachable, match="WRONGPASS"):
        await Wire(wrong, 5).connect()
    line = Line(wrong, 5)
    with pytest.raises(Unreachable, match="WRONGPASS"):
        await asyncio.to_thread(line.call, lambda _: ("PING",))


async def test_a_socket_in_the_file_system(url: str, tmp_path: Path) -> None:
    async with between(url, path=str(tmp_path / "redis.sock")) as (_, address):
        assert await both(address) == (b"1", b"1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself; the key is in it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, host = datetime.now(UTC), x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))])
    draft = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    draft = draft.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = draft.add_extension(host, critical=True).sign(key, hashes.SHA256())
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, private, serialization.NoEncryption()))
    return path


async def test_tls(url: str, certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with between(url, ssl=context) as (_, address):
        for trusting in (f"?ssl_ca_certs={certificate}", "?ssl_cert_reqs=none"):
            assert await both(address + trusting) == (b"1", b"1")
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await Wire(address, 5).connect()
        line = Line(address, 5)
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(line.call, lambda _: ("PING",))
