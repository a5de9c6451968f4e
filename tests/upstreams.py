"""Fake providers: they record what reached them and answer as told, cut anywhere, late, broken off or not at all.

`Upstream` listens on a real socket of 127.0.0.1, for gateways in processes of their own and for the engine under httpx.
`MockUpstream` plays the same replies through `httpx.MockTransport`, for tests that stay in one process.
"""

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import httptools
import httpx

from tests.processes import HOST

JSON_HEADERS = {"content-type": "application/json"}
SSE_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """`pieces` are written one by one. `end`: whole, cut (the connection is closed before its time), reset or hang."""

    pieces: Sequence[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: dict(SSE_HEADERS))
    wait: float = 0  # seconds before the status line
    pause: float = 0  # seconds before each piece but the first
    end: Literal["whole", "cut", "reset", "hang"] = "whole"
    sized: bool = False  # content-length instead of chunks
    wire: bool = False  # the pieces are the bytes on the wire, status line and all


@dataclass
class Received:
    """One request as the provider saw it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)
    gone: threading.Event = field(default_factory=threading.Event)  # the caller closed before the reply's end
    gone_at: float = 0
    answered: bool = False  # the whole reply was written

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def left(self) -> None:
        self.gone_at = time.monotonic()
        self.gone.set()


Answer = Reply | Callable[[Received], Reply]


# --- what providers say ----------------------------------------------------------------------------------------------


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
    body = json.dumps(value, ensure_ascii=False).encode()
    return Reply([body], status, {**JSON_HEADERS, **(headers or {})}, sized=True, **more)


def error_reply(status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return json_reply({"error": error}, status, headers)


def usage(prompt: int = 7, completion: int = 3, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def completion(text: str = "Hello from upstream", model: str = "upstream-model", **counts: int) -> Reply:
    """A plain chat answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": model}
    return json_reply({**head, "choices": [choice], "usage": usage(**counts)})


def tool_call(name: str, **arguments: object) -> Reply:
    """A plain chat answer that calls one tool."""
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "upstream-model"}
    return json_reply({**head, "choices": [choice], "usage": usage()})


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def chat_events(words: Iterable[str], model: str = "upstream-model", **counts: int) -> list[bytes]:
    """The events of a streamed chat answer, with usage at the end as where `include_usage` was asked for."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": model}

    def chunk(delta: Mapping[str, str], finish: str | None = None) -> bytes:
        return event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None})

    start = chunk({"role": "assistant", "content": ""})
    last = event({**head, "choices": [], "usage": usage(**counts)})
    return [start, *(chunk({"content": word}) for word in words), chunk({}, "stop"), last, DONE]


def chat_stream(*words: str, **more: Any) -> Reply:
    """`chat_stream("Hel", "lo", pause=0.1, end="cut")`: what is not of `Reply` goes to `chat_events`."""
    fields = {name: more.pop(name) for name in ("wait", "pause", "end", "status") if name in more}
    return Reply(chat_events(words or ("Hello", " from", " upstream"), **more), **fields)


def cut(data: bytes, *places: int) -> list[bytes]:
    """`data` in pieces that end at these places; without places, in single bytes."""
    marks = [0, *(places or range(1, len(data))), len(data)]
    return [data[start:end] for start, end in pairwise(marks)]


# --- the providers ---------------------------------------------------------------------------------------------------


_ON_ITS_WAY = 0.05  # seconds: a reset takes away what has not been read


class _Script:
    """What has been asked, and what is to be answered: the replies in turn, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[Received] = []
        self._answers: list[Answer] = list(answers) or [completion()]

    def answers(self, *answers: Answer) -> None:
        self._answers = list(answers)

    @property
    def last(self) -> Received:
        return self.requests[-1]

    def next_reply(self, request: Received) -> Reply:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer(request) if callable(answer) else answer


class _Connection(asyncio.Protocol):
    """One client's connection; `httptools` calls the `on_…` methods."""

    def __init__(self, upstream: "Upstream") -> None:
        self._upstream = upstream
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._request: Received | None = None
        self._transport: asyncio.Transport
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._upstream.connections.add(transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._upstream.connections.discard(self._transport)
        if self._request and not self._request.answered:
            self._request.left()
        if self._task:
            self._task.cancel()

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body = b"", {}, bytearray()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method, target = self._parser.get_method().decode(), self._target.decode()
        self._request = Received(method, target, self._headers, bytes(self._body))
        reply = self._upstream.next_reply(self._request)
        self._task = asyncio.get_running_loop().create_task(self._answer(self._request, reply))

    async def _answer(self, request: Received, reply: Reply) -> None:
        await asyncio.sleep(reply.wait)
        if not reply.wire:
            self._transport.write(_head(reply))
        chunked = not reply.sized and not reply.wire
        for number, piece in enumerate(reply.pieces):
            if number and reply.pause:
                await asyncio.sleep(reply.pause)
            elif number:
                await asyncio.sleep(0)  # a write of its own
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece)
        if reply.end == "hang":
            await asyncio.Event().wait()
        if reply.end == "reset":
            await asyncio.sleep(_ON_ITS_WAY)
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if reply.end in ("cut", "reset") or reply.wire:
            request.answered = True  # it is this side that leaves
            self._transport.close()
            return
        if chunked:
            self._transport.write(b"0\r\n\r\n")
        request.answered = True


def _head(reply: Reply) -> bytes:
    headers = dict(reply.headers)
    if reply.sized:
        headers["content-length"] = str(sum(map(len, reply.pieces)))
    else:
        headers["transfer-encoding"] = "chunked"
    lines = [f"HTTP/1.1 {reply.status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


class Upstream(_Script):
    """A provider on a real socket. Use it in `with`; it serves from a thread with a loop of its own."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(*answers)
        self.connections: set[asyncio.Transport] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._socket = socket.create_server((HOST, 0), backlog=2048)
        self._socket.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # asyncio does so for sockets of its own only
        self.port: int = self._socket.getsockname()[1]
        self.base_url = f"http://{HOST}:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        serving = self._loop.create_server(lambda: _Connection(self), sock=self._socket, backlog=2048)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
        mine = asyncio.current_task()
        replies = [task for task in asyncio.all_tasks() if task is not mine]
        for task in replies:
            task.cancel()
        await asyncio.gather(*replies, return_exceptions=True)
        await asyncio.sleep(0)  # the aborted connections' last callbacks


class RefusingUpstream:
    """An address at which nobody listens: bound, so that nobody else can take it, and every connection is refused."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind((HOST, 0))
        self.base_url = f"http://{HOST}:{self._socket.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class MockUpstream(_Script):
    """A provider without a socket: `transport` is an `httpx.MockTransport`."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(*answers)
        self.transport = httpx.MockTransport(self._handle)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        received = Received(request.method, request.url.raw_path.decode(), dict(request.headers), body)
        reply = self.next_reply(received)
        await asyncio.sleep(reply.wait)
        return httpx.Response(reply.status, headers=reply.headers, stream=_MockStream(received, reply))


class _MockStream(httpx.AsyncByteStream):
    def __init__(self, received: Received, reply: Reply) -> None:
        self._received = received
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number, piece in enumerate(self._reply.pieces):
            await asyncio.sleep(self._reply.pause if number else 0)
            yield piece
        if self._reply.end == "hang":
            await asyncio.Event().wait()
        self._received.answered = True
        if self._reply.end in ("cut", "reset"):
            raise httpx.ReadError("the provider broke off")

    async def aclose(self) -> None:
        if not self._received.answered:
            self._received.left()


def refuse(_: Received) -> Reply:
    """For `MockUpstream`: nobody listens."""
    raise httpx.ConnectError("connection refused")
