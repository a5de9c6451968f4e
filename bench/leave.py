"""How long a provider goes on being read after the client has gone. Called by `__main__` for this gateway's servers."""

import asyncio
import json
import time
from dataclasses import dataclass, field

from bench.gateways import PATH, PROMPT, FailedError, Gateway

PACE = 0.05
NEVER_SECONDS = 5.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-leave","object":"chat.completion.chunk","created":1700000000,"model":"mock-model",'
    b'"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
)


@dataclass
class _Visit:
    """One request at the provider."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    closed_at: float = 0.0
    writer: asyncio.StreamWriter | None = None


class _Provider:
    """Streams words without end, or never answers; notes when its caller hangs up."""

    def __init__(self, streamed: bool) -> None:
        self._streamed = streamed
        self.visit = _Visit()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = self.visit
        visit.writer = writer
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(1)  # the body has begun; it is small, and what follows it is the hang-up
        visit.arrived.set()
        words = asyncio.create_task(self._stream(writer)) if self._streamed else None
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass  # a reset is a hang-up too
        visit.closed_at = time.perf_counter()
        visit.closed.set()
        if words:
            words.cancel()
        writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while not writer.is_closing():
            writer.write(b"%x\r\n%s\r\n" % (len(EVENT), EVENT))
            await asyncio.sleep(PACE)


def _request(gateway: Gateway, model: str, streamed: bool) -> bytes:
    body = json.dumps({"model": model, "messages": PROMPT, "max_tokens": 100, "stream": streamed}).encode()
    headers = {"Host": f"127.0.0.1:{gateway.port}", "Content-Type": "application/json", **gateway.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {PATH} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _leave_once(gateway: Gateway, provider: _Provider, request: bytes, streamed: bool) -> float:
    visit = provider.visit = _Visit()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(request)
    await asyncio.wait_for(visit.arrived.wait(), NEVER_SECONDS)
    if streamed:
        await asyncio.wait_for(reader.readuntil(b"word "), NEVER_SECONDS)
    await asyncio.sleep(3 * PACE)
    left_at = time.perf_counter()
    writer.close()
    try:
        await asyncio.wait_for(visit.closed.wait(), NEVER_SECONDS)
    except TimeoutError:
        if visit.writer:
            visit.writer.transport.abort()
            await visit.closed.wait()
        return NEVER_SECONDS * 1000
    return (visit.closed_at - left_at) * 1000


async def _leave(gateway: Gateway, model: str, port: int, streamed: bool, tries: int) -> list[float]:
    provider, request = _Provider(streamed), _request(gateway, model, streamed)
    server = await asyncio.start_server(provider.handle, "127.0.0.1", port)
    try:
        return [await _leave_once(gateway, provider, request, streamed) for _ in range(tries)]
    finally:
        server.close()


def measure(gateway: Gateway, model: str, port: int, tries: int) -> dict[str, list[float]]:
    """Milliseconds from the client's close to the provider's sight of it, one for each try."""
    try:
        return {
            kind: asyncio.run(_leave(gateway, model, port, kind == "streamed", tries)) for kind in ("streamed", "plain")
        }
    except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
        raise FailedError(f"a request that a client was to leave did not reach its provider: {error!r}") from error
