"""The way of one request, top to bottom: from the client's bytes to the answer and its record.

    key (401, 403) → body (408, 413) → envelope (400) → model (404, 403) → routes (400, 403, 503) → limits (429)
    → context window (400)
    → providers, one after another, until one gives a first good event or a whole answer (502, 504, 429)
    → deliver → record

Two things run beside it: a task that waits for the client to leave, and a timer that waits for the provider. Either
cancels this task; a client that leaves closes the provider's connection at once. The record is written before the last
byte goes out.
"""

import asyncio
import logging

from proxy import errors, ingress, meter, routing
from proxy.errors import ProviderFault, ProviderRefusal, Refusal
from proxy.exchange import Exchange, Gateway
from proxy.faults import fault_in_200, fault_of_status, scrub
from proxy.formats import openai_chat
from proxy.formats.openai_chat import ChatStream, NotAnAnswer
from proxy.ingress import ClientGone, Envelope, Receive, Scope, Send
from proxy.outgoing import provider_body
from proxy.routing import Attempt
from proxy.upstream import Upstream, open_upstream

logger = logging.getLogger(__name__)

PATH = "/chat/completions"
MAX_ANSWER = 256 * 1024 * 1024  # bytes of a plain answer
MAX_ERROR = 1024 * 1024
MAX_COMMENTS = 1024 * 1024  # before the first event: they wait with it


async def relay(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /v1/chat/completions`."""
    exchange = Exchange(gateway, scope, send)
    watch = None
    try:
        if not gateway.tables.loaded:
            raise errors.Unavailable("The gateway is starting.", code="starting", retry_after=1)  # never a false 401
        key = ingress.authenticate(scope, gateway.tables.keys)  # 401
        if gateway.journal.failing:  # before there is a record: what cannot be written must not pile up in memory
            raise errors.Unavailable("Usage cannot be recorded at the moment.", code="journal_full", retry_after=5)
        exchange.belongs_to(key)
        ingress.check_usable(key, scope)  # 401: switched off, expired; 403 from another address
        body = await ingress.read_body(scope, receive, exchange.timer)  # 408, 413
        envelope = ingress.read_envelope(body)  # 400, naming the field
        exchange.asks(envelope)
        catalog = gateway.tables.catalog
        target = routing.resolve(envelope.model, catalog, key)  # 404; 403 where the key may not use it
        exchange.resolved(target)
        attempts = routing.plan(target, envelope, catalog, key)  # 400: no such group; 403; 503: nobody serves it now
        exchange.lease = gateway.limiter.admit(key)  # 429
        watch = _Watch(exchange, receive)
        await meter.check_context(envelope.members, target.model)  # 400 where the catalog enforces the context window
        await _try_each(exchange, envelope, attempts)  # 502, 504, 429 once every provider has failed
    except Refusal as refusal:
        await exchange.refuse(refusal)
    except ClientGone:
        exchange.gone = True
        exchange.interrupted()
    except asyncio.CancelledError:
        if exchange.timer.spent():  # while the client was to read: it does not, and the exchange's time is over
            exchange.gone = True
        exchange.interrupted()
        if not exchange.gone:
            raise  # the server is going down
    except Exception:  # a bug of ours ends here: the client gets a 500, the log the traceback
        logger.exception("request %s failed", exchange.record.request_id)
        await exchange.refuse(errors.Internal("The gateway failed. The request id tells the operator where to look."))
    finally:
        exchange.close()
        if watch is not None:
            watch.end()


class _Watch:
    """Waits for the client to leave; then ends the exchange, and with it the provider's connection.

    It begins a moment later: an answer that is there by then needs none.
    """

    __slots__ = ("_exchange", "_receive", "_task")

    def __init__(self, exchange: Exchange, receive: Receive) -> None:
        self._exchange = exchange
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        exchange.timer.soon(self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._exchange.left()

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _try_each(exchange: Exchange, envelope: Envelope, attempts: list[Attempt]) -> None:
    """Ask one provider after another until one has answered. Raises `Refusal` when none is left."""
    faults: list[ProviderFault] = []
    ask = _stream if envelope.stream else _plain
    pool = exchange.gateway.pool
    for attempt in attempts:
        exchange.tries(attempt)
        try:
            pool.enter(attempt.route.provider)
            try:
                await ask(exchange, envelope, attempt)
            finally:
                pool.leave(attempt.route.provider)
            return
        except ProviderRefusal as refusal:
            exchange.tried("refused", refusal.status)
            raise
        except ProviderFault as fault:
            exchange.tried(fault.reason, fault.status)
            if exchange.gone:  # it left in the same moment: ask nobody else
                raise asyncio.CancelledError from fault
            if exchange.delivering:  # too late for another: the client gets an error event
                raise errors.after_all([fault], attempt.model.id) from fault
            faults.append(fault)
    raise errors.after_all(faults, attempts[0].model.id) from faults[-1]


async def _plain(exchange: Exchange, envelope: Envelope, attempt: Attempt) -> None:
    """Read the whole answer, put the catalog's model and the price in it, send it."""
    upstream = await _open(exchange, envelope, attempt)
    try:
        body = await upstream.read_all(MAX_ANSWER)
    finally:
        await upstream.close()
    try:
        answer = openai_chat.edit_answer(body, attempt.model.id, exchange.pricer)
    except NotAnAnswer as wrong:
        if wrong.error is not None:
            raise fault_in_200(wrong.error, attempt.route.provider) from None
        raise ProviderFault("malformed", f"{wrong}.") from None
    await exchange.send_answer(answer)


async def _stream(exchange: Exchange, envelope: Envelope, attempt: Attempt) -> None:
    """Relay event by event. Nothing of it is sent before the first event: until then another route can answer."""
    exchange.timer.on_silence = exchange.keep_alive
    upstream = await _open(exchange, envelope, attempt)
    stream = ChatStream(attempt.model.id, hold_usage=not envelope.usage_asked, pricer=exchange.pricer)
    try:
        out = await _first_event(upstream, stream, attempt)
        exchange.timer.heard = True
        await exchange.begin_stream(stream)
        while not stream.over:
            await exchange.send_piece(out)
            out = await _more(upstream, stream)
        if stream.error is None and not stream.complete:
            await exchange.send_piece(out)
            raise ProviderFault("broken", stream.broken or "it ended the stream before the answer was whole.")
        if stream.error is not None:
            out = scrub(out, attempt.route.provider)
        await exchange.end_stream(out)
        await upstream.finish()
    finally:
        await upstream.close()


async def _first_event(upstream: Upstream, stream: ChatStream, attempt: Attempt) -> bytes:
    """The bytes up to the first event. Raises `ProviderFault` where there is none, or where it is an error."""
    out = b""
    while not stream.events and not stream.over:
        out += await _more(upstream, stream)
        if not stream.events and len(out) > MAX_COMMENTS:
            raise ProviderFault("malformed", "its answer holds no events.")
    if stream.error is not None:
        raise fault_in_200(stream.error, attempt.route.provider)
    if stream.over and not (stream.events and stream.complete):
        raise ProviderFault("malformed", stream.broken or "it ended the stream before the answer was whole.")
    return out


async def _more(upstream: Upstream, stream: ChatStream) -> bytes:
    """The next bytes for the client; empty only when the stream is over."""
    while not stream.over:
        try:
            piece = await upstream.read()
        except ProviderFault:
            if not stream.finished:
                raise
            piece = b""  # the answer is whole; only the provider's goodbye is missing
        out = stream.feed(piece) if piece else stream.close()
        if out:
            return out
    return b""


async def _open(exchange: Exchange, envelope: Envelope, attempt: Attempt) -> Upstream:
    """Ask the provider. Raises `ProviderRefusal` (its 4xx about the request), else `ProviderFault`: try another."""
    provider = attempt.route.provider
    body = provider_body(envelope, attempt)
    upstream = await open_upstream(exchange.gateway.pool, provider, PATH, body, exchange.timer)
    if upstream.status == 200:
        return upstream
    try:
        answer = await upstream.read_all(MAX_ERROR)
    finally:
        await upstream.close()
    raise fault_of_status(upstream.status, answer, upstream.header("retry-after"), provider)
