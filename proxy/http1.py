"""An HTTP/1.1 client, as small as a gateway needs: answers are read as they come, connections kept.

A `Client` holds the connections to one server; a `Connection` asks, one request at a time; what comes back is an
`Answer`, parsed by llhttp. No redirects, cookies, proxies, decompression or second tries. Called by `upstream`.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections import deque
from functools import cache
from itertools import zip_longest
from typing import cast

import httptools

KEPT_SECONDS = 60.0  # a connection that nobody needs meanwhile
MAX_HEAD = 64 * 1024  # bytes that come without any of the answer's body: status line, headers, trailers
HIGH = 256 * 1024  # bytes of an answer that wait for the reader: beyond, the server has to wait
PIECE = 256 * 1024  # bytes of a request that are handed to the transport at once
_OBJECT = 48  # bytes that each piece of an answer takes beside its own
_ADDRESSES_SECONDS = 30.0  # that a name's addresses are believed
_FAMILIES = (socket.AF_INET6, socket.AF_INET)
_HEAD_START = 0.25  # seconds before a server's next address is tried beside the last: RFC 8305, 5


class Unreachable(Exception):
    """No connection could be made: nothing has been sent."""


class Broken(Exception):
    """The connection broke off, or what came is not HTTP."""


class Closed(Broken):
    """It broke off before the first byte of an answer."""


@cache
def tls() -> ssl.SSLContext:
    """The system's authorities, or those of `SSL_CERT_FILE`. Reading them takes milliseconds: once."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class Answer:
    """What comes back to one request. `status` and `headers` are those of the final answer, not of a 1xx before it.

    The names of `headers` are in lower case. It has a parser of its own, which calls the `on_…` methods, and its own
    bytes: whatever a server sends after an answer's end, it cannot get into another's.
    """

    __slots__ = (
        "__weakref__",
        "_bare",
        "_connection",
        "_fault",
        "_is_paused",
        "_is_whole",
        "_keeps",
        "_parser",
        "_pieces",
        "_size",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: "Connection") -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._connection: Connection | None = connection
        self._pieces: list[bytes] = []
        self._size = 0  # of the pieces, in memory
        self._bare = 0  # bytes since the last of the body
        self._fault = ""
        self._is_whole = self._is_paused = self._keeps = False
        self._waiter: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # Servers that have it a little wrong and mean well: bare newlines, odd characters in a header's value.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def header(self, name: str) -> str:
        """`name` in lower case. Empty where there is none."""
        wanted = name.encode()
        for field, value in self.headers:
            if field == wanted:
                return value.decode("latin-1")
        return ""

    async def begun(self) -> None:
        """Wait for the status. Raises `Broken`, `Closed`."""
        while not self.status:
            await self._wait()

    async def read(self) -> bytes:
        """The next bytes, as many as there are; empty at the end. Raises `Broken`."""
        while not self._pieces:
            if self._is_whole:
                return b""
            await self._wait()
        pieces, self._pieces, self._size = self._pieces, [], 0
        if self._is_paused and self._connection is not None:
            self._is_paused = False
            self._connection.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def close(self) -> None:
        """Let go of the connection: kept where the answer has been read to its end, closed at once otherwise."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release(keep=self._is_whole and self._keeps and not self._is_paused)

    async def _wait(self) -> None:
        if self._fault:
            raise (Broken if self._bare or self.status else Closed)(self._fault)
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        await waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- told by the connection --------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if self._parser is None:  # more than was asked for
            self._keeps = False
            return
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keeps = False
            self.fail(f"not HTTP: {error}")
        if self._bare > MAX_HEAD and not self._is_whole:
            self.fail("too many headers")

    def fail(self, reason: str) -> None:
        if not self._is_whole and not self._fault:
            self._fault = reason
            self._parser = None  # a circle with this
            self._wake()

    def lose(self, error: Exception | None) -> None:
        """The server has closed the connection: orderly, where there is no error."""
        if error is None and self.status and not self._is_delimited():
            self._end()
        else:
            self.fail(str(error) if error is not None and str(error) else "the server closed the connection")

    def _is_delimited(self) -> bool:
        return any(
            name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower())
            for name, value in self.headers
        )

    def _end(self) -> None:
        if not self._fault:
            self._is_whole = True
            self._parser = None
            self._wake()

    # --- called by the parser ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise Broken("data after the end of the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # a trailer is nobody's concern
            # RFC 9112, 5.1: a space before the colon is to be removed.
            self.headers.append((name.rstrip().lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 100:  # it would have a body, which would get into the next
            raise Broken("no such status")
        if status < 200:
            self.headers = []
            return
        self.status = status
        self._keeps = self._parser.should_keep_alive()
        if status >= 400 and self._connection is not None:
            self._connection.stop_writing()
        self._wake()

    def on_body(self, data: bytes) -> None:
        self._bare = 0
        self._pieces.append(data)
        self._size += len(data) + _OBJECT
        if self._size > HIGH and not self._is_paused and self._connection is not None:
            self._is_paused = True
            self._connection.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self.status:  # else that of a 1xx
            self._end()


class Connection(asyncio.Protocol):
    """One request at a time. A large one is written as the server takes it, while the answer may already come."""

    __slots__ = ("__weakref__", "_answer", "_client", "_is_spent", "_may_write", "_rest", "_transport", "idle_since")

    def __init__(self, client: "Client") -> None:
        self.idle_since = 0.0
        self._client = client
        self._answer: Answer | None = None
        self._may_write, self._is_spent = True, False
        self._rest: bytes | memoryview = b""  # of the request
        self._transport: asyncio.Transport

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    async def ask(self, head: bytes, body: bytes) -> Answer:
        """`head` ends with the name of the length. Returns once the status is there. Raises `Broken`, `Closed`."""
        if not self.is_open:
            raise Closed("the server closed the connection")
        self._answer = answer = Answer(self)
        head = b"%b%d\r\n\r\n" % (head, len(body))
        try:
            if len(body) <= PIECE:
                self._transport.write(head + body)
            else:
                self._transport.write(head)
                self._rest = memoryview(body)
                self._write()
            await answer.begun()
        except BaseException:
            self.abort()
            raise
        return answer

    def release(self, *, keep: bool) -> None:
        if keep and self.is_open and self._may_write and not (self._rest or self._is_spent):
            self._answer = None
            self._client.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        answer, self._answer, self._rest = self._answer, None, b""
        if answer is not None:
            answer.fail("it was closed")
        self._transport.abort()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self.is_open:
            self._transport.resume_reading()

    def stop_writing(self) -> None:
        """The server has refused the request before it was whole: it need not have the rest."""
        if self._rest:
            self._rest, self._is_spent = b"", True

    def _write(self) -> None:
        while self._rest and self._may_write and self.is_open:
            piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
            self._transport.write(piece)

    # --- called by the event loop ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is not None:
            self._answer.feed(data)
        else:  # nobody has asked
            self.abort()

    def eof_received(self) -> None:
        self._lose(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.closed(self)
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        answer, self._answer, self._rest = self._answer, None, b""
        if answer is not None:
            answer.lose(error)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._write()


class Client:
    """The connections to one server: made where none is free, kept for a while, the last one used first."""

    def __init__(self, host: str, port: int, *, secure: bool) -> None:
        self._open: set[Connection] = set()
        self._none_open = asyncio.Event()
        self._kept: deque[Connection] = deque()  # those that are free, the last used last
        self._sweeper: asyncio.TimerHandle | None = None
        self._host, self._port = host, port
        self._tls = tls() if secure else None
        self._is_address = _is_address(host)
        self._addresses = deque[str]()  # of a name
        self._believed_until = 0.0
        self._lookup: asyncio.Task[None] | None = None

    def take(self) -> Connection | None:
        """A kept connection. Whether its server still listens shows when it is asked."""
        while self._kept:
            connection = self._kept.pop()
            if connection.is_open:
                return connection
        return None

    async def connect(self, seconds: float) -> Connection:
        """A new connection, its TLS handshake done. Raises `Unreachable`."""
        try:
            async with asyncio.timeout(seconds):
                addresses = await self._find()
                return await (self._reach(addresses[0]) if len(addresses) == 1 else self._race(addresses))
        except (OSError, UnicodeError) as error:  # refused, unknown name, certificate not trusted, too slow
            self._believed_until = 0.0
            raise Unreachable(str(error)) from error

    def keep(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._kept.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(KEPT_SECONDS, self._sweep)

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()

    async def aclose(self) -> None:
        """Close every connection, whoever may be using it."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._kept.clear()
        for connection in list(self._open):
            connection.abort()
        if self._open:
            self._none_open.clear()
            await self._none_open.wait()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while self._kept and self._kept[0].idle_since + KEPT_SECONDS <= loop.time():
            self._kept.popleft().abort()
        self._sweeper = loop.call_at(self._kept[0].idle_since + KEPT_SECONDS, self._sweep) if self._kept else None

    # --- new ones ----------------------------------------------------------------------------------------------------

    async def _find(self) -> list[str]:
        """The server's addresses, each in its turn the first."""
        if self._is_address:
            return [self._host]
        if asyncio.get_running_loop().time() >= self._believed_until:
            if self._lookup is None:  # one for all: a loop does few at once, uvloop two, and a dead name's takes long
                self._lookup = asyncio.create_task(self._look_up())
                self._lookup.add_done_callback(self._looked_up)
            await asyncio.shield(self._lookup)
        addresses = list(self._addresses)
        self._addresses.rotate(-1)
        return addresses

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        families = [[str(each[4][0]) for each in found if each[0] is family] for family in _FAMILIES]
        self._addresses = deque(address for pair in zip_longest(*families) for address in pair if address)
        self._believed_until = loop.time() + _ADDRESSES_SECONDS

    def _looked_up(self, lookup: asyncio.Task[None]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # whoever waits for it is told; maybe nobody does any more

    async def _reach(self, address: str) -> Connection:
        loop = asyncio.get_running_loop()
        name = self._host.rstrip(".") if self._tls else None
        _, connection = await loop.create_connection(
            lambda: Connection(self), address, self._port, ssl=self._tls, server_hostname=name
        )
        if connection.is_open:
            self._open.add(connection)  # not before: uvloop tells nothing of its end where this task is cancelled
        return connection

    async def _race(self, addresses: list[str]) -> Connection:
        """The first that stands. The next address is tried when one has failed, or when they take long."""
        left, running = deque(addresses), set[asyncio.Task[Connection]]()
        attempts: list[asyncio.Task[Connection]] = []
        won: asyncio.Task[Connection] | None = None
        try:
            while won is None and (left or running):
                if left:
                    attempts.append(asyncio.create_task(self._reach(left.popleft())))
                    running.add(attempts[-1])
                patience = _HEAD_START if left else None
                running = (await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED))[1]
                won = next((each for each in attempts if each.done() and each.exception() is None), None)
            return (won or attempts[-1]).result()
        finally:
            if won is not None:
                attempts.remove(won)
            while attempts:  # no name may be left for the last one, whose error knows this frame: a circle
                _give_up(attempts.pop())


def _give_up(attempt: asyncio.Task[Connection]) -> None:
    attempt.cancel()
    attempt.add_done_callback(_drop)


def _drop(attempt: asyncio.Task[Connection]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
