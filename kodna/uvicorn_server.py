"""uvicorn with bounded request heads: how many bytes, and how long they may take. `kodna.serve` names what is in here.

uvicorn itself bounds neither. Bodies are the application's: see `proxy.ingress.read_body`.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from django.conf import settings
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from kodna.asgi import application  # it sets Django up, which the imports below need
from proxy import errors, ingress, replies, request_ids

__all__ = ["Protocol", "application"]

MAX_HEAD_BYTES = 64 * 1024
_OF_CONNECTIONS = frozenset({b"connection", b"transfer-encoding"})


class Protocol(HttpToolsProtocol):
    """Counts what came since the parser last gave something whole: a head that grows, or a chunk's or a body's trailer.

    The parser keeps these to itself until they end, so their size is known from outside only.
    """

    _pending = 0
    _begun = False  # a head has, and is not whole
    _in_body = False
    _refused = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._pending += len(data)
        super().data_received(data)
        if self._pending > MAX_HEAD_BYTES:
            self._refuse(_too_large())
        elif (self._pending or self._begun) and not self._in_body:
            self._await_head()  # an empty line already ends uvicorn's own wait for a next request

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun = True

    def on_headers_complete(self) -> None:
        self._rest()
        self._pending, self._begun, self._in_body = 0, False, True
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse(_too_large())  # all of it came in one piece
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending, self._in_body = 0, False
        if not self._refused:
            super().on_message_complete()

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(settings.BODY_TIMEOUT, self._too_slow)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self._is_answering():
            self._await_head()  # the head of a next request; this answer comes first
        elif self._begun:
            self._refuse(ingress.too_slow())
        else:
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, refusal: errors.Refusal) -> None:
        """Answer in the application's place and hang up; in the middle of an answer, hang up only."""
        self._refused = True
        if self.transport.is_closing():
            return
        if not self._is_answering():
            path = self.url.split(b"?")[0].decode("latin-1") if self._in_body else ""
            self.transport.write(replies.whole(refusal, request_ids.new(), path))
        self.transport.close()


class Cycle(RequestResponseCycle):
    """Writes the head of an answer whose length is known together with its body: one call to the system, one packet."""

    _head = b""

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        return self._send(message) if self._head or not self.response_started else super().send(message)

    async def _send(self, message: Any) -> None:
        if self._head:
            head, self._head = self._head, b""
            self.expected_content_length += len(head)
            message = {**message, "body": head + message.get("body", b"")}
        elif message["type"] == "http.response.start" and self._begin(message):
            return
        await super().send(message)

    def _begin(self, message: Any) -> bool:
        """False: it is one that uvicorn's own is for."""
        lines, length = [STATUS_LINE[message["status"]]], -1
        for name, value in [*self.default_headers, *message.get("headers", ())]:
            if name == b"content-length":
                length = int(value)
            elif name in _OF_CONNECTIONS:
                return False
            lines.append(b"%b: %b\r\n" % (name, value))
        if length < 0 or not self.keep_alive or self.scope["method"] == "HEAD":
            return False
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            return False  # a line break in a header: it is refused
        self.response_started, self.waiting_for_100_continue = True, False
        self.chunked_encoding, self.expected_content_length = False, length
        self._head = head + b"\r\n"
        return True


httptools_impl.RequestResponseCycle = Cycle  # type: ignore[misc]  # `on_headers_complete` makes it by this name


def _too_large() -> errors.Refusal:
    return errors.HeadTooLarge(f"The request's headers are larger than {MAX_HEAD_BYTES // 1024} kB.", retry=False)
