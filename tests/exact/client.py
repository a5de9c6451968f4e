"""The load's client: asks over raw sockets, many at once, and writes down what it saw of each answer."""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import httptools

from tests.exact.provider import Script, said
from tests.gateway import internal
from tests.processes import HOST

PATH = "/v1/chat/completions"
_CONTENT = re.compile(rb'"content": ?"([^"]*)"')
_FINISH = re.compile(rb'"finish_reason": ?"(\w+)"')
_LINE = re.compile(rb"^data: (.*)$", re.MULTILINE)
CHUNK = b"chat.completion.chunk"


@dataclass
class Ask:
    """One request to make. `leave`: seconds after which the client goes away. `words`: of the prompt."""

    marker: str
    key: str
    model: str = "m"
    script: Script = field(default_factory=Script)
    stream: bool = True
    words: int = 10
    max_tokens: int | None = None
    leave: float | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    def request(self) -> bytes:
        messages = [{"role": "user", "content": said(0, self.words)}]
        body = {"model": self.model, "messages": messages, "user": self.marker, "exact": asdict(self.script)}
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        data = json.dumps(body | dict(self.more)).encode()
        # A row keeps the user agent: by it, a row is found whose request id no client ever read.
        head = f"POST {PATH} HTTP/1.1\r\nhost: {HOST}\r\nauthorization: Bearer {self.key}\r\nuser-agent: {self.marker}"
        return f"{head}\r\nconnection: close\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


@dataclass
class Seen:
    """What the client saw. `status` 0: nothing, with the reason in `trouble`. `whole`: the answer came to its end."""

    ask: Ask
    port: int
    begun: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    received: bool = False  # the HTTP answer is complete
    left: bool = False
    trouble: str = ""
    ended: float = 0.0

    @property
    def request_id(self) -> str:
        return internal(self.headers.get("x-request-id", ""))

    @property
    def whole(self) -> bool:
        if not self.received or self.status != 200:
            return False
        return b"data: [DONE]" in self.body if self.ask.stream else True

    @property
    def tokens(self) -> int:
        return sum(text.count(b" ") for text in _CONTENT.findall(self.body)) if self.status == 200 else 0

    @property
    def finish(self) -> str:
        found = _FINISH.findall(self.body)
        return found[-1].decode() if found else ""

    @property
    def usage(self) -> dict[str, Any] | None:
        """As the answer's last event has it; None where there is none."""
        for event in reversed(self.events()):
            if event.get("usage"):
                found: dict[str, Any] = event["usage"]
                return found
        return None

    @property
    def error(self) -> dict[str, Any]:
        """Of a refusal, or inside a stream."""
        for event in self.events():
            if "error" in event:
                found: dict[str, Any] = event["error"]
                return found
        return {}

    def events(self) -> list[dict[str, Any]]:
        texts = _LINE.findall(self.body) if CHUNK in self.body or self.body.startswith(b"data:") else [bytes(self.body)]
        try:
            return [json.loads(text) for text in texts if text.strip() not in {b"", b"[DONE]"}]
        except ValueError:
            if self.received:
                raise
            return []  # it was broken off in the middle of a line

    @property
    def code(self) -> str:
        return str(self.error.get("code"))


class _Client(asyncio.Protocol):
    """`httptools` calls the `on_…` methods."""

    def __init__(self, seen: Seen, request: bytes) -> None:
        self._seen, self._request = seen, request
        self._parser = httptools.HttpResponseParser(self)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._seen.trouble = f"no HTTP: {error}"
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._seen.received and not self._seen.left:
            self._seen.trouble = self._seen.trouble or f"broken off: {error or 'closed'}"
        self._end()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._seen.headers[name.decode().lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._seen.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._seen.body += body

    def on_message_complete(self) -> None:
        self._seen.received = True
        self._end()

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


async def ask(port: int, what: Ask, seconds: float = 300) -> Seen:
    seen = Seen(what, port, time.time())
    loop = asyncio.get_running_loop()
    try:
        transport, client = await loop.create_connection(lambda: _Client(seen, what.request()), HOST, port)
    except OSError as error:
        seen.trouble, seen.ended = f"no connection: {error.strerror}", time.time()
        return seen
    try:
        await asyncio.wait_for(asyncio.shield(client.over), what.leave or seconds)
    except TimeoutError:
        seen.left = True
        seen.trouble = "" if what.leave else f"no end after {seconds:g} s"
    finally:
        seen.ended = time.time()
        transport.abort()
    return seen
