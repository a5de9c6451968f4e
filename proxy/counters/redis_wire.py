"""Two connections to Redis: `Wire`, pipelined, for the event loop, and `Line`, for threads. `shared` asks through them.

redis-py's clients take a connection out of a pool for each command: on the event loop that costs more CPU than all else
that a request's admission does, and nobody can say which run of Redis a command will reach. Here the commands of one
round of the loop leave in one write, and each goes to the very server that its sender has seen: a Redis that was
restarted from an old snapshot is another one (`Server`).
"""

import asyncio
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import hiredis
from redis.connection import SSLConnection, parse_url

from proxy.counters.base import Unreachable

Command = tuple[Any, ...]
Done = Callable[[Any], None]
"""Is called once, with the answer, a `hiredis.ReplyError`, or `Unreachable`. Must not raise."""

_TICKS = 3  # a command that has seen so many has waited for two whole ones: for the timeout
_RUN = re.compile(rb"^run_id:(\w+)", re.MULTILINE)


class Server(NamedTuple):
    """Whom a connection reaches: `run_id` is another after each start of Redis. `client_id`: the connection's."""

    run_id: str
    client_id: int


class Wire:
    """For one event loop. `greeting`: commands that come first on every connection, after the login.

    `server`: whom `send` reaches; None while there is no connection. `breaks`: how often one was lost while commands
    waited for their answers; these may still be carried out. `suspects`: those connections.
    """

    def __init__(self, url: str, timeout: float, greeting: Sequence[Command] = ()) -> None:
        self._address: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        self._timeout = timeout
        self._greeting = _opening(self._address, greeting)
        self._pending: deque[tuple[Done, int]] = deque()
        self._buffer: list[bytes] = []
        self._link: _Link | None = None
        self._connecting: asyncio.Task[str] | None = None
        self._flushing = self._ticking = False
        self._tick = 0
        self.server: Server | None = None
        self.breaks = 0
        self.suspects: set[Server] = set()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def connect(self) -> Server:
        """Raises `Unreachable`. All who come meanwhile wait for the one attempt."""
        if self.server is not None:
            return self.server
        if self._connecting is None:
            self.loop = asyncio.get_running_loop()
            self._connecting = asyncio.create_task(self._connect())
        trouble = await asyncio.shield(self._connecting)
        if self.server is None:
            raise Unreachable(trouble or "the connection to Redis was closed")
        return self.server

    async def _connect(self) -> str:
        """What went wrong; empty: nothing."""
        link = _Link(self)
        try:
            async with asyncio.timeout(self._timeout):
                await _open(self._address, link)
                link.write(b"".join(map(hiredis.pack_command, self._greeting)))
                replies = await link.greeted(len(self._greeting))
            self.server = _server(replies)
            self._link = link
        except OSError as error:  # a timeout and a certificate that is not trusted too
            link.abort()
            return f"Redis cannot be reached: {str(error) or 'no answer'}"
        except Unreachable as error:
            link.abort()
            return str(error)
        finally:
            self._connecting = None
        return ""

    def send(self, command: bytes, done: Done) -> None:
        """`command` as `hiredis.pack_command` makes it."""
        if self._link is None:
            done(Unreachable("there is no connection to Redis"))
            return
        self._pending.append((done, self._tick))
        self._buffer.append(command)
        if not self._flushing:
            self._flushing = True
            self._link.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._link is None or not self._buffer:
            return  # the connection was lost in this round, and what had been sent with it
        data, self._buffer = b"".join(self._buffer), []
        self._link.write(data)
        self._watch()

    def answered(self, reply: Any) -> None:
        self._pending.popleft()[0](reply)

    def lost(self, link: "_Link", why: str) -> None:
        """Whoever waits gets no answer: what he asked for was done, or will be, or not."""
        if self._link is not link:
            return
        link.abort()
        pending, self._pending, self._buffer = self._pending, deque(), []
        if pending and self.server is not None:
            self.breaks += 1
            self.suspects.add(self.server)
        self._link = self.server = None
        for done, _ in pending:
            done(Unreachable(why))

    # Ticks of the loop, not the time that passes: a pause of this whole process is no silence of Redis.

    def _watch(self) -> None:
        if not self._ticking and self._link is not None:
            self._ticking = True
            self._link.loop.call_later(self._timeout / (_TICKS - 1), self._tock)

    def _tock(self) -> None:
        self._ticking = False
        self._tick += 1
        if not self._pending or self._link is None:
            return
        if self._pending[0][1] <= self._tick - _TICKS:
            self.lost(self._link, f"Redis has not answered for {self._timeout:g} seconds")
        else:
            self._watch()

    def close(self) -> None:
        """What was sent still goes out; nobody waits for the answers."""
        if self._connecting is not None:
            self._connecting.cancel()
        link = self._link
        if link is not None:
            self._flush()
            link.end()
            self.lost(link, "the connection to Redis was closed")


class _Link(asyncio.Protocol):
    """A connection of `Wire`. Its first answers are for `greeted`, the others for the wire."""

    def __init__(self, wire: Wire) -> None:
        self.loop = asyncio.get_running_loop()
        self._wire = wire
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._greetings: list[Any] = []
        self._is_greeted = False
        self._heard = asyncio.Event()
        self._trouble = ""

    async def greeted(self, count: int) -> list[Any]:
        """So many first answers. Raises `Unreachable`."""
        while not self._trouble and len(self._greetings) < count:
            self._heard.clear()
            await self._heard.wait()
        if self._trouble:
            raise Unreachable(self._trouble)
        self._is_greeted = True
        return self._greetings

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        gets = self._reader.gets
        try:
            # False: no other whole answer. RESP 2 has no such value.
            while self._transport is not None and (reply := gets()) is not False:
                if self._is_greeted:
                    self._wire.answered(reply)
                elif isinstance(reply, hiredis.ReplyError):
                    self._fail(f"Redis refuses: {reply}")
                else:
                    self._greetings.append(reply)
                    self._heard.set()
        except hiredis.ProtocolError as error:
            self._fail(f"this is not Redis: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"Redis closed the connection{f': {exc}' if exc else ''}")

    def _fail(self, why: str) -> None:
        self.abort()
        self._trouble = self._trouble or why
        self._heard.set()
        self._wire.lost(self, why)

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def end(self) -> None:
        """Once all is written."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.abort()


class Line:
    """For threads: one command after another. A connection that was kept may be stale: then a new one is tried."""

    def __init__(self, url: str, timeout: float, greeting: Sequence[Command] = ()) -> None:
        self._address: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        self._timeout = timeout
        self._greeting = _opening(self._address, greeting)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader()
        self._server = Server("", 0)

    def call(self, make: Callable[[Server], Command]) -> Any:
        """The answer, or a `hiredis.ReplyError`, to the command that `make` makes for this server.

        Raises `Unreachable`. A command may be carried out twice.
        """
        with self._lock:
            kept = self._socket is not None
            try:
                return self._call(make)
            except TimeoutError as error:
                self._close()
                raise Unreachable(f"Redis has not answered for {self._timeout:g} seconds") from error
            except (OSError, hiredis.ProtocolError) as error:
                self._close()
                if not kept:
                    raise Unreachable(f"Redis cannot be reached: {error}") from error
            except Unreachable:
                self._close()
                raise
        return self.call(make)

    def _call(self, make: Callable[[Server], Command]) -> Any:
        if self._socket is None:
            self._connect()
        return next(self._exchange([make(self._server)]))

    def _connect(self) -> None:
        self._reader = hiredis.Reader()
        self._socket = _dial(self._address, self._timeout)
        self._server = _server([_accepted(reply) for reply in self._exchange(self._greeting)])

    def _exchange(self, commands: Sequence[Command]) -> Iterator[Any]:
        assert self._socket is not None
        self._socket.sendall(b"".join(map(hiredis.pack_command, commands)))
        for _ in commands:
            while (reply := self._reader.gets()) is False:
                data = self._socket.recv(65536)
                if not data:
                    raise ConnectionResetError("Redis closed the connection")
                self._reader.feed(data)
            yield reply

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        with self._lock:
            self._close()


# --- how a connection begins -----------------------------------------------------------------------------------------


def _opening(address: dict[str, Any], greeting: Sequence[Command]) -> list[Command]:
    """The login; what `_server` reads; then the caller's."""
    commands: list[Command] = []
    if address.get("password"):
        user = (address["username"],) if address.get("username") else ()
        commands.append(("AUTH", *user, address["password"]))
    commands.append(("SELECT", int(address.get("db") or 0)))
    return [*commands, *greeting, ("CLIENT", "ID"), ("INFO", "server")]


def _accepted(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise Unreachable(f"Redis refuses: {reply}")
    return reply


def _server(replies: Sequence[Any]) -> Server:
    client_id, info = replies[-2:]
    run = _RUN.search(info)
    if run is None:
        raise Unreachable("Redis does not say which run of it this is (INFO server)")
    return Server(run[1].decode(), client_id)


def _place(address: dict[str, Any]) -> tuple[str, int]:
    return address.get("host", "localhost"), address.get("port", 6379)


async def _open(address: dict[str, Any], link: _Link) -> None:
    loop = asyncio.get_running_loop()
    if "path" in address:
        await loop.create_unix_connection(lambda: link, address["path"])
    else:
        await loop.create_connection(lambda: link, *_place(address), ssl=_tls(address))


def _dial(address: dict[str, Any], timeout: float) -> socket.socket:
    if "path" not in address:
        found = socket.create_connection(_place(address), timeout)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        found = socket.socket(socket.AF_UNIX)
    try:
        if "path" in address:
            found.settimeout(timeout)
            found.connect(address["path"])
        tls = _tls(address)
        return found if tls is None else tls.wrap_socket(found, server_hostname=_place(address)[0])
    except OSError:
        found.close()
        raise


def _tls(address: dict[str, Any]) -> ssl.SSLContext | None:
    """Of the URL's options, those that redis-py takes too."""
    if address.get("connection_class") is not SSLConnection:
        return None
    context = ssl.create_default_context(cafile=address.get("ssl_ca_certs"), capath=address.get("ssl_ca_path"))
    if address.get("ssl_cert_reqs") == "none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif not address.get("ssl_check_hostname", True):
        context.check_hostname = False
    if address.get("ssl_certfile"):
        context.load_cert_chain(address["ssl_certfile"], address.get("ssl_keyfile"), address.get("ssl_password"))
    return context
