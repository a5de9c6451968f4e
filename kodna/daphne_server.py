"""Daphne with what a gateway needs: bounded bodies, a deadline for slow ones, bounded buffers for slow readers.

Daphne itself reads a whole body before it calls the application, however long that takes and however large it
grows, and it writes without waiting for the client. Import this after the event loop policy is set: Daphne makes its
loop then.
"""

import asyncio
import io
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import daphne.server
from daphne.http_protocol import HTTPFactory, WebRequest
from django.conf import settings

from accounts import keys
from proxy import ingress, replies, request_ids
from proxy.errors import Refusal

logger = logging.getLogger(__name__)

MAX_UNSENT = 1024 * 1024  # bytes that wait for a slow reader, per connection
_POLL_SECONDS = 0.02
_SMALL_BODY = 64 * 1024  # bytes that anybody may send


class Request(WebRequest):
    """A request whose body is bounded while it arrives. The application refuses it: it sees one byte too many."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened = time.monotonic()
        self._parsePOSTFormSubmission = False  # Django reads forms itself; Twisted parses each content type for it
        self._received = 0
        self._most = 0  # bytes of the body that are kept

    def gotLength(self, length: int | None) -> None:  # noqa: N802  # Twisted's name
        """The headers are whole. Twisted's own would keep a large body in a file: prompts never touch the disk."""
        self.content = io.BytesIO()
        small = length is not None and length <= _SMALL_BODY
        self._most = _SMALL_BODY if small else self._worth_keeping()

    def _worth_keeping(self) -> int:
        """As much as the application would read: of a request that it refuses for its key, nothing."""
        channel: Any = self.channel
        path = unquote(channel._path.decode("latin-1"))  # noqa: SLF001  # no public name yet
        if not path.startswith(("/v1/", "/v1beta/", "/demo/")):
            return min(settings.MAX_BODY_BYTES, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)  # Django's pages
        if settings.ALLOW_NO_AUTH or path.startswith("/demo/"):
            return int(settings.MAX_BODY_BYTES)
        names = (b"authorization", *keys.KEY_HEADERS)
        sent = [value for name in names for value in self.requestHeaders.getRawHeaders(name, ())]
        words = [value.split()[-1:] for value in sent]
        has_key = any(keys.well_formed(word.decode("latin-1")) for last in words for word in last)
        return settings.MAX_BODY_BYTES if has_key else 0

    def process(self) -> Any:
        self.requestHeaders.removeHeader(b"daphne-root-path")  # Daphne would let any client move the site's root
        return super().process()

    def handle_exception(self, exception: Exception) -> None:
        """An error that left the application. Daphne's own would try to answer twice, and stop looking after others."""
        if self._response_started:
            self.abandon()
        else:
            super().handle_exception(exception)

    def abandon(self) -> None:
        """The application has ended in the middle of its answer: the client is to know that it is not whole."""
        channel: Any = self.channel
        if channel is not None and not self.finished:
            channel.transport.abortConnection()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802  # Twisted's name
        self._received += len(data)
        if self._received <= self._most + len(data) and self._most:
            super().handleContentChunk(data)
        elif self._received > 2 * settings.MAX_BODY_BYTES:
            # What is between is read and thrown away, so that the client sees the answer.
            self._hang_up(ingress.too_large())

    def check_timeouts(self) -> None:
        """Called every two seconds: a request that is not whole in time is refused."""
        if not hasattr(self, "request_start") and time.monotonic() - self._opened > settings.BODY_TIMEOUT:
            self._hang_up(ingress.too_slow())

    def _hang_up(self, refusal: Refusal) -> None:
        """Answer before the application knows of the request, and close the connection."""
        if self.channel is None:
            return
        channel: Any = self.channel
        path = getattr(channel, "_path", b"").decode("latin-1")
        channel.transport.write(replies.whole(refusal, request_ids.new(), path))
        channel.loseConnection()


class Factory(HTTPFactory):
    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802  # Twisted's name
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol

    def log(self, request: Any) -> None:
        """Nobody reads Twisted's own line for each request."""


daphne.server.HTTPFactory = Factory  # type: ignore[attr-defined]  # `Server.run` makes it by this name


class Server(daphne.server.Server):
    failed = False

    async def handle_reply(self, protocol: Any, message: Mapping[str, Any]) -> None:
        await super().handle_reply(protocol, message)
        if message["type"] == "http.response.body":
            while _unsent(protocol) > MAX_UNSENT:  # noqa: ASYNC110  # Twisted tells nobody when it has sent
                await asyncio.sleep(_POLL_SECONDS)

    def listen_error(self, failure: Any) -> None:
        sys.stderr.write(f"Cannot listen on {settings.HOST}:{settings.PORT}: {failure.getErrorMessage()}\n")
        sys.stderr.write("Another HOST or PORT can be set in the environment.\n")
        self.failed = True
        self.stop()

    def application_checker(self) -> None:
        for protocol, details in list(self.connections.items()):
            instance = details.get("application_instance")
            if instance is not None and instance.done() and "disconnected" not in details:
                _settle(protocol, instance)
        super().application_checker()

    def kill_all_applications(self) -> Any:
        # Daphne's own stumbles over a connection whose request is not whole yet: it has no application.
        self.connections = {key: value for key, value in self.connections.items() if "application_instance" in value}
        return super().kill_all_applications()


def _settle(protocol: Any, instance: asyncio.Future[None]) -> None:
    """An application that ended without an error and without an end to its answer."""
    if isinstance(protocol, Request) and (instance.cancelled() or instance.exception() is None):
        protocol.abandon()


def _unsent(protocol: Any) -> int:
    """Bytes that Twisted holds for a client which reads too slowly."""
    channel = getattr(protocol, "channel", None)
    transport = getattr(channel, "transport", None)
    if transport is None or not hasattr(transport, "dataBuffer"):
        return 0
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)  # noqa: SLF001  # no public name


def serve(application: Any, host: str, port: int, backlog: int) -> int:
    """Serve until the process is told to stop. Returns the exit status."""
    address = host.strip("[]").replace(":", r"\:")
    server = Server(
        application,
        endpoints=[f"tcp:port={port}:interface={address}:backlog={backlog}"],
        server_name="",
        request_buffer_size=64 * 1024,
        verbosity=0,
    )
    server.run()
    return 1 if server.failed else 0
