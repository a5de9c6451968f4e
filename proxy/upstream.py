"""The provider's side of a request: one connection pool per provider, timeouts, and faults in one vocabulary.

`http1` is the engine. httpx, which only this module imports, is the other face of the same seam: any httpx transport
can stand in for the engine, as `httpx.MockTransport` does in tests, and it unpacks what a provider packs unasked.
Called by `relay` and `counting`.
"""

import asyncio
import email.utils
import re
import time
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import httpx
import yarl
from django.conf import settings

from models_catalog.snapshot import Provider
from proxy.errors import ProviderFault
from proxy.http1 import Answer, Broken, Client, Closed, Unreachable, tls
from proxy.timer import Timer

_USER_AGENT = f"kodna/{settings.VERSION}"
_DRAIN_SECONDS = 1.0
GOODBYE_SECONDS = 5.0  # for what follows the end of an answer: usage, `[DONE]`, the closing of the connection
_AT_ONCE = 0.2  # seconds
_UNPACKED = 4096  # bytes at a time: they may be a thousand times as many then
_KEPT_HEADERS = 1000  # characters of a client's headers: a call with more is not kept for the next
# Neither ends a line: https://www.rfc-editor.org/rfc/rfc9110#section-5
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\r\n\0]*")
# What both sides of the seam may raise.
_ERRORS = (httpx.HTTPError, Broken, OSError)
_CONNECT_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    Unreachable,
)


@dataclass(slots=True)
class Question:
    """What a provider is sent. `path` with its query; `headers`: of the client's, those that it is to hear.

    `is_sent`: it has been, or is being; until then nobody can have worked on it.
    """

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    is_sent: bool = False


class Call:
    """What does not change from request to request: made once per provider, path and headers. Raises `ValueError`."""

    __slots__ = ("connect_timeout", "head", "headers", "url")

    def __init__(self, provider: Provider, path: str, more: tuple[tuple[str, str], ...]) -> None:
        address = provider.base_url + path
        headers = {
            "content-type": "application/json",
            "accept": "*/*",
            "accept-encoding": "identity",  # bytes pass through: nothing is to be unpacked
            "user-agent": _USER_AGENT,
        }
        headers.update(provider.credential_headers())
        headers.update(more)
        headers.update({name.lower(): value for name, value in provider.headers})
        self.url = httpx.URL(address)
        self.headers = httpx.Headers(headers)
        self.head = _head(yarl.URL(address), headers)
        self.connect_timeout = provider.connect_timeout


def _head(url: yarl.URL, headers: dict[str, str]) -> bytes:
    """Up to the length of the body, which differs."""
    fields = {"host": url.host_port_subcomponent or ""}
    if url.user is not None and "authorization" not in headers:
        fields["authorization"] = "Basic " + b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
    fields |= headers
    for name in ("content-length", "transfer-encoding"):  # how the body is framed is not the catalog's to say
        fields.pop(name, None)
    for name, value in fields.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"the header {name!r} cannot be sent")
    lines = [f"POST {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "content-length: "]).encode()


def _client(url: yarl.URL) -> Client:
    if url.scheme not in {"http", "https"} or not url.raw_host or not url.port:
        raise ValueError("not an address of a web server")
    host = url.raw_host if ":" not in url.raw_host else url.host or ""  # of IPv6, the zone is quoted in the raw one
    return Client(host, url.port, secure=url.scheme == "https")


class Source(Protocol):
    """A provider's answer, whichever engine brings it. `read` gives the next bytes; empty at the end."""

    status: int

    def header(self, name: str) -> str: ...
    def read(self) -> Awaitable[bytes]: ...
    async def close(self) -> None: ...


class Engine:
    """`http1`. It keeps connections, and asks once more where a kept one turns out to be closed."""

    def __init__(self, base_url: str) -> None:
        self._client = _client(yarl.URL(base_url))
        self.aclose = self._client.aclose

    async def ask(self, call: Call, question: Question) -> Source:
        answer = await self._ask(call, question)
        if answer.header("content-encoding").lower() in {"", "identity"}:
            return answer
        # Packed although asked not to: httpx unpacks it.
        return _Response(httpx.Response(answer.status, headers=answer.headers, stream=_Stream(answer)))

    async def _ask(self, call: Call, question: Question) -> Answer:
        kept = self._client.take()
        if kept is not None:
            question.is_sent, begun = True, time.perf_counter()
            try:
                return await kept.ask(call.head, question.body)
            except Closed:
                # Providers close a connection that has been idle for some seconds, and did not see what we wrote on it.
                # That shows at once: one that breaks off later may have worked on the request, and is not asked twice.
                if time.perf_counter() - begun > _AT_ONCE:
                    raise
                question.is_sent = False
        connection = await self._client.connect(call.connect_timeout)
        question.is_sent = True
        return await connection.ask(call.head, question.body)


class Seam:
    """Any httpx transport as an engine: `httpx.MockTransport`, say."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def ask(self, call: Call, question: Question) -> Source:
        question.is_sent = True
        request = httpx.Request("POST", call.url, headers=call.headers, content=question.body)
        return _Response(await self._transport.handle_async_request(request))


class _Response:
    __slots__ = ("_body", "_response", "status")

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._body = response.aiter_bytes()
        self.status = response.status_code

    def header(self, name: str) -> str:
        return str(self._response.headers.get(name, ""))

    async def read(self) -> bytes:
        return await anext(self._body, b"")

    async def close(self) -> None:
        await self._response.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self._answer.read():
            for start in range(0, len(data), _UNPACKED):
                yield data[start : start + _UNPACKED]

    async def aclose(self) -> None:
        await self._answer.close()


class _Places:
    """Of one provider. Accounts take turns; of one account, whoever waits longest."""

    def __init__(self) -> None:
        self._taken = self._most = 0
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}  # by account, the next one first

    async def take(self, most: int, account: int, patience: float) -> bool:
        self._most = most
        self._give_out()
        if self._taken < most and not self._waiting:
            self._taken += 1
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        try:
            async with asyncio.timeout(patience):
                await turn
        except TimeoutError:
            return self._was_given(turn, account)
        except asyncio.CancelledError:
            if self._was_given(turn, account):
                self.give_back()
            raise
        return True

    def _was_given(self, turn: asyncio.Future[None], account: int) -> bool:
        """Whether it came in the very moment of giving up."""
        if turn.done() and not turn.cancelled():
            return True
        queue = self._waiting.get(account)
        if queue is not None:
            with suppress(ValueError):
                queue.remove(turn)
            if not queue:
                del self._waiting[account]
        return False

    def give_back(self) -> None:
        self._taken -= 1
        self._give_out()

    def _give_out(self) -> None:
        while self._waiting and self._taken < self._most:
            account, queue = next(iter(self._waiting.items()))
            turn = queue.popleft()
            del self._waiting[account]
            if queue:
                self._waiting[account] = queue  # behind the others
            if not turn.done():
                turn.set_result(None)
                self._taken += 1


class Pool:
    """The transports and prepared calls of this process; a provider that changed gets new ones."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._seam = Seam(transport) if transport is not None else None
        tls()  # it reads the system's authorities: now, and not while the first request waits
        self._engines: dict[str, Engine] = {}
        self._calls: dict[Provider, dict[tuple[str, tuple[tuple[str, str], ...]], Call]] = {}
        self._places: dict[int, _Places] = {}

    async def close(self) -> None:
        for engine in self._engines.values():
            await engine.aclose()
        self._engines.clear()

    async def enter(self, provider: Provider, account: int, patience: float) -> None:
        """Take one of the provider's places in this process; wait so many seconds for one.

        Raises `ProviderFault` (busy).
        """
        if provider.max_concurrency:
            places = self._places.setdefault(provider.id, _Places())
            if not await places.take(max(1, provider.max_concurrency // settings.WORKERS), account, patience):
                raise ProviderFault("busy", f"its bound of {provider.max_concurrency} concurrent requests is reached.")

    def leave(self, provider: Provider) -> None:
        if provider.max_concurrency:
            self._places[provider.id].give_back()

    def engine(self, provider: Provider) -> Engine | Seam:
        if self._seam is not None:
            return self._seam
        found = self._engines.get(provider.base_url)
        if found is None:
            found = self._engines[provider.base_url] = Engine(provider.base_url)
        return found

    def call(self, provider: Provider, path: str, headers: tuple[tuple[str, str], ...] = ()) -> Call:
        calls = self._calls.get(provider)
        if calls is None:
            if len(self._calls) > 1000:  # most of them are of providers that have changed since
                self._calls.clear()
            calls = self._calls[provider] = {}
        call = calls.get((path, headers))
        if call is None:
            call = Call(provider, path, headers)
            if len(calls) > 1000:  # clients choose the headers
                calls.clear()
            if sum(len(value) for _, value in headers) <= _KEPT_HEADERS:
                calls[path, headers] = call
        return call


class Upstream:
    """One answer of a provider, being read. `status` and `header()` are known; `read()` gives the next bytes."""

    __slots__ = ("_idle", "_source", "_timer", "_wait", "header", "status")

    def __init__(self, provider: Provider, source: Source, timer: Timer) -> None:
        self._source = source
        self._timer = timer
        self._wait = provider.first_byte_timeout
        self._idle = provider.idle_timeout
        self.header = source.header
        self.status = source.status

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises `ProviderFault` (timeout, broken)."""
        self._timer.wait(self._wait)
        try:
            data = await self._source.read()
        except asyncio.CancelledError:
            _raise_spent(self._timer)
            raise
        except _ERRORS as error:
            raise ProviderFault("broken", "the connection to the provider broke off.") from error
        finally:
            self._timer.rest()
        self._wait = self._idle
        return data

    def expect_the_end(self) -> None:
        """What is to come is a goodbye: it is not waited for as long as an answer is."""
        self._wait = self._idle = min(self._idle, GOODBYE_SECONDS)

    async def read_all(self, most: int) -> bytes:
        pieces, size = [], 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise ProviderFault("malformed", "the provider's answer is too large.")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def finish(self) -> None:
        """Read on to the end of an answer that has been delivered, so that its connection can serve again."""
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while await self._source.read():
                    pass
        except (TimeoutError, *_ERRORS):
            return  # it will be closed instead of kept: nothing is lost by it

    async def close(self) -> None:
        """Let go of the connection: kept where the answer was read to its end, closed at once otherwise."""
        self._timer.unlimit()
        await self._source.close()


async def open_upstream(
    pool: Pool, provider: Provider, question: Question, timer: Timer, seconds: float | None = None
) -> Upstream:
    """Send the request; returns once the status is there. Raises `ProviderFault` (connect, timeout, broken).

    `seconds`: for all of the answer; None: the provider's total.
    """
    try:
        call, engine = pool.call(provider, question.path, question.headers), pool.engine(provider)
    except (ValueError, httpx.InvalidURL) as error:
        raise ProviderFault("connect", "the provider's address is not valid.") from error
    timer.limit(provider.total_timeout if seconds is None else seconds)
    timer.wait(provider.first_byte_timeout)
    try:
        source = await engine.ask(call, question)
    except BaseException as error:
        timer.unlimit()
        if isinstance(error, asyncio.CancelledError):
            _raise_spent(timer)
        elif isinstance(error, _CONNECT_ERRORS):
            raise ProviderFault("connect", "the provider cannot be reached.") from error
        elif isinstance(error, (*_ERRORS, ValueError)):
            raise ProviderFault("broken", "the connection to the provider broke off.") from error
        raise
    timer.rest()
    return Upstream(provider, source, timer)


def _raise_spent(timer: Timer) -> None:
    if timer.spent():
        raise ProviderFault("timeout", "the provider did not answer in time.") from None


def retry_after(value: str) -> float | None:
    """Seconds from a `retry-after` header: a number or a date. None where there is none that makes sense."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return seconds if 0 <= seconds < 7 * 86400 else None
