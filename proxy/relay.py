"""The way of one request, top to bottom: from the client's bytes to the answer and its record.

    key (401, 403) → body (408, 413) → envelope (400) → model (404, 403) → routes (400, 403, 429, 503)
    → the conversation that it goes on from (400, 404) → limits and credit (429, 402)
    → providers, one after another, until one gives a first word or a whole answer (400, 502, 504, 429)
    → deliver → record

Two things run beside it: a task that waits for the client to leave, and a timer that waits for the provider. Either
cancels this task; a client that leaves closes the provider's connection at once. The record is written before the last
byte goes out.
"""

import asyncio
import logging

from accounts.keys import Key
from proxy import errors, explain, ingress, meter, routing
from proxy.errors import ProviderFault, ProviderRefusal, Refusal
from proxy.exchange import Exchange
from proxy.failover import Tries
from proxy.faults import fault_in_200, fault_of_status, scrub
from proxy.formats import openai_responses
from proxy.formats.base import NotAnAnswer, Stream
from proxy.formats.splice import Members
from proxy.gateway import Gateway
from proxy.held import Held
from proxy.ingress import Asked, ClientGone, Envelope, Receive, Scope, Send
from proxy.outgoing import Passage
from proxy.routing import Attempt, Plan
from proxy.upstream import Upstream, open_upstream

logger = logging.getLogger(__name__)

MAX_ANSWER = 256 * 1024 * 1024  # bytes of a plain answer
MAX_ERROR = 1024 * 1024
LARGE = 512 * 1024  # bytes of a request
MAX_COMMENTS = 1024 * 1024  # before the first content: they wait with it
QUEUE, LONG_QUEUE = 0.5, 10.0  # seconds for a place at a provider: where another can follow, and where none can
# Of Responses: an answer outlives no request here, and what a provider keeps it keeps for all keys alike.
_NOT_SERVED = frozenset({"background", "conversation"})


async def relay(gateway: Gateway, asked: Asked, scope: Scope, receive: Receive, send: Send) -> None:
    """A request for a model's answer, in whichever format: `asked` says what its path says."""
    exchange = Exchange(gateway, asked.format, scope, send)
    watch = None
    try:
        key = ingress.authenticate(scope, gateway.tables)  # 401; 503 while the gateway starts
        _check_journal(gateway)  # 503, before there is a record: what cannot be written must not pile up in memory
        exchange.belongs_to(key)
        ingress.check_usable(key, scope)  # 401: switched off, expired; 403 from another address
        body = await ingress.read_body(scope, receive, exchange.timer)  # 408, 413
        envelope = ingress.read_envelope(body, asked)  # 400, naming the field
        ingress.read_headers(envelope, scope, strict=key.strict)
        exchange.asks(envelope)
        catalog = gateway.tables.catalog
        target = routing.resolve(envelope.model, catalog, key)  # 404; 403 where the key may not use it
        exchange.resolved(target)
        if envelope.explain:
            await explain.answer(exchange, envelope, target, key)
            return
        plan = await exchange.planned(target, key)  # 400: no such group; 403; 503: nobody serves it now; 429: all rest
        await _resume(gateway.held, envelope, key)  # 400; 404: what it goes on from is not held for this key
        await exchange.admitted(target.model)  # 429, 402
        watch = _Watch(exchange, receive)
        await _try_each(exchange, envelope, plan)  # 400, 502, 504, 429 once every provider has failed
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
        await exchange.refuse(errors.Internal())
    finally:
        exchange.close()
        if watch is not None:
            watch.end()


def _check_journal(gateway: Gateway) -> None:
    if gateway.journal.failing:
        raise errors.Unavailable("Usage cannot be recorded at the moment.", code="journal_full", retry_after=5)


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
            self._task = None  # a circle with this one, in which a large body would lie until it is collected


async def _resume(held: Held, envelope: Envelope, key: Key) -> None:
    """A Responses request may go on from an earlier one: from here on it holds the whole conversation."""
    if envelope.format is not openai_responses:
        return
    for name in _NOT_SERVED.intersection(envelope.members):
        if envelope.members[name] not in {b"null", b"false"}:
            words = f"'{name}' is not served here."
            raise errors.BadRequest(words, param=name, code="unsupported_parameter", retry=False)
    envelope.kept = held.wanted(key, envelope.members)
    conversation = await held.expand(key, envelope.members)
    if key.zero_retention and "store" not in envelope.members:  # OpenAI stores where it is not told otherwise
        conversation.members = Members(conversation.members.edit({}, add={"store": b"false"}))
    envelope.conversation = conversation


async def _try_each(exchange: Exchange, envelope: Envelope, plan: Plan) -> None:
    """Ask one provider after another until one has answered. Raises `Refusal` when none is left."""
    tries = Tries(plan)
    try:
        while (attempt := tries.next()) is not None:
            if not await _is_allowed(exchange, envelope, attempt, tries):
                continue
            try:
                await _try(exchange, envelope, attempt, tries)
                return
            except errors.Lossy as loss:
                exchange.tried("lossy")
                tries.refused(loss)
            except ProviderRefusal as refusal:
                exchange.tried("refused", refusal.status)
                if exchange.delivering or not refusal.is_too_long:
                    raise
                tries.too_small(attempt.model, refusal)
            except ProviderFault as fault:
                _failed(exchange, tries, attempt, fault)
        raise tries.outcome()
    finally:
        tries.forget()


def _failed(exchange: Exchange, tries: Tries, attempt: Attempt, fault: ProviderFault) -> None:
    exchange.tried(fault.reason, fault.status)
    if exchange.gone:  # it left in the same moment: ask nobody else
        raise asyncio.CancelledError from fault
    if exchange.delivering:  # too late for another: the client gets an error event
        raise errors.after_all([fault], attempt.model.id) from fault
    tries.failed(attempt, fault)


async def _is_allowed(exchange: Exchange, envelope: Envelope, attempt: Attempt, tries: Tries) -> bool:
    """Whether there is time, and the model takes the prompt (where the catalog enforces it) at its price and limits."""
    if exchange.seconds_left(attempt) <= tries.wait:
        return False  # another provider may have more
    if tries.wait:
        await asyncio.sleep(tries.wait)
    if attempt.model.enforce:
        try:
            await meter.check_context(envelope.format, envelope.whole, attempt.model)
        except Refusal as refusal:
            tries.too_small(attempt.model, refusal)
            return False
    try:
        await exchange.tries(attempt)
    except Refusal as refusal:
        tries.refused(refusal)
        return False
    _check_journal(exchange.gateway)  # who spends has an opening line on the disk
    return True


async def _try(exchange: Exchange, envelope: Envelope, attempt: Attempt, tries: Tries) -> None:
    """One attempt, and what it says of the route's health."""
    health, route = exchange.gateway.health, attempt.route
    if not health.begins(route, last_resort=not tries.has_more):
        raise ProviderFault("skipped", "whether it answers again is just being tried.")
    fault: ProviderFault | None = None
    says = False
    try:
        if route.provider.max_concurrency:
            await _in_its_place(exchange, envelope, attempt, tries)
        else:
            await _answer(exchange, envelope, attempt, has_more=tries.has_more)
        says = True
    except ProviderFault as found:
        says = found.reason != "busy" and found.is_sure and not exchange.is_hurried(found)
        fault = found
        raise
    except BaseException:  # the request's own fault, or the client has left: which says something once it has answered
        says = exchange.delivering
        raise
    finally:
        if says:
            health.ends(route, fault, took=exchange.taken, account=exchange.account)
        else:
            health.leaves(route, took=exchange.taken)
        fault = None  # it holds this frame by its traceback: a circle, in which the request's body would lie


async def _in_its_place(exchange: Exchange, envelope: Envelope, attempt: Attempt, tries: Tries) -> None:
    pool, provider = exchange.gateway.pool, attempt.route.provider
    patience = min(QUEUE if tries.has_other(attempt) else LONG_QUEUE, exchange.seconds_left(attempt))
    await pool.enter(provider, exchange.account, patience)
    try:
        await _answer(exchange, envelope, attempt, has_more=tries.has_more)
    finally:
        pool.leave(provider)


async def _answer(exchange: Exchange, envelope: Envelope, attempt: Attempt, *, has_more: bool) -> None:
    seconds = exchange.seconds_left(attempt)
    if has_more:  # the next one needs some of it
        seconds = min(seconds, max(seconds / 2, attempt.route.provider.first_byte_timeout))
    exchange.has_asked(seconds)
    await (_stream if envelope.stream else _plain)(exchange, envelope, attempt, seconds)


async def _plain(exchange: Exchange, envelope: Envelope, attempt: Attempt, seconds: float) -> None:
    """Read the whole answer, put the catalog's model and the price in it, send it."""
    passage = await _passage(exchange, envelope, attempt)
    upstream = await _open(exchange, passage, attempt, seconds)
    try:
        body = await upstream.read_all(MAX_ANSWER)
    finally:
        await upstream.close()
    try:
        answer = passage.answer(body)
    except NotAnAnswer as wrong:
        if wrong.error is not None:
            raise fault_in_200(wrong.error, attempt.route.provider) from None
        raise ProviderFault("malformed", f"{wrong}.") from None
    await exchange.send_answer(answer)


async def _stream(exchange: Exchange, envelope: Envelope, attempt: Attempt, seconds: float) -> None:
    """Relay event by event. Nothing of it is sent before the first word: until then another route can answer."""
    exchange.timer.on_silence = exchange.keep_alive
    passage = await _passage(exchange, envelope, attempt)
    upstream = await _open(exchange, passage, attempt, seconds)
    stream = passage.stream()
    try:
        out = await _first_word(upstream, stream, attempt)
        exchange.timer.heard = True
        exchange.timer.limit(exchange.seconds_left(attempt))
        await exchange.begin_stream(stream)
        while not stream.over:
            if exchange.is_due and not await exchange.pays():
                await upstream.close()
                await exchange.cut(out)
                return
            await exchange.send_piece(out)
            out = await _more(upstream, stream)
        if stream.error is None and not stream.complete:
            await exchange.send_piece(out)
            raise ProviderFault("broken", _why(stream))
        if stream.error is not None and passage.translates:
            await exchange.send_piece(out)
            raise fault_in_200(stream.error, attempt.route.provider)
        if stream.error is not None:
            out = scrub(out, attempt.route.provider)
        await exchange.end_stream(out)
        await upstream.finish()
    finally:
        await upstream.close()


async def _passage(exchange: Exchange, envelope: Envelope, attempt: Attempt) -> Passage:
    """The way to the provider and back. Raises `BadRequest` (400). A large body is not translated on the event loop."""
    if len(envelope.members.text) < LARGE:
        return exchange.passage(envelope, attempt)
    return await asyncio.to_thread(exchange.passage, envelope, attempt)


async def _first_word(upstream: Upstream, stream: Stream, attempt: Attempt) -> bytes:
    """The bytes up to the first content. Raises `ProviderFault` where there is none, or where an error comes first."""
    out = b""
    while not stream.begun and not stream.over:
        out += await _more(upstream, stream)
        if not stream.begun and len(out) > MAX_COMMENTS:
            raise ProviderFault("malformed", "its answer holds no content.")
    if stream.error is not None:
        raise fault_in_200(stream.error, attempt.route.provider)
    if stream.over and not (stream.begun and stream.complete):
        raise ProviderFault("malformed", _why(stream))
    return out


def _why(stream: Stream) -> str:
    return f"{stream.broken}." if stream.broken else "it ended the stream before the answer was whole."


async def _more(upstream: Upstream, stream: Stream) -> bytes:
    """The next bytes for the client; empty only when the stream is over."""
    while not stream.over:
        if stream.finished:
            upstream.expect_the_end()
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


async def _open(exchange: Exchange, passage: Passage, attempt: Attempt, seconds: float) -> Upstream:
    """Ask the provider. Raises `ProviderRefusal` (its 4xx about the request), else `ProviderFault`: try another."""
    provider = attempt.route.provider
    upstream = await open_upstream(exchange.gateway.pool, provider, passage.question, exchange.timer, seconds)
    if upstream.status == 200:
        return upstream
    try:
        answer = await upstream.read_all(MAX_ERROR)
    finally:
        await upstream.close()
    raise fault_of_status(upstream.status, answer, upstream.header("retry-after"), provider, passage.theirs)
