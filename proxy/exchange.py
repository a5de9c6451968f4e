"""One request's bookkeeping: its record, its headers, and what has been sent to the client so far.

`relay` tells the story; an `Exchange` keeps the facts. Whatever happens, `close` leaves exactly one record.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import replace

import msgspec

from accounts.keys import Key
from models_catalog import pricing
from models_catalog.pricing import Price
from models_catalog.snapshot import Model, Provider
from proxy import meter, replies, request_ids, routing
from proxy.admission import Reservation
from proxy.counters.base import Grant
from proxy.errors import AllFailed, ProviderFault, Refusal
from proxy.formats.base import Client, Error, Pricer, Relayed, Stream
from proxy.formats.canonical import Usage
from proxy.gateway import Gateway, home_of, named
from proxy.health import RESTS, THROTTLED
from proxy.held import Entry
from proxy.ingress import ClientGone, Envelope, Scope, Send, header
from proxy.marks import Mark
from proxy.models import UsageRecord
from proxy.outgoing import Passage, clamped
from proxy.routing import SAME_MODEL, Attempt, Plan, Target
from proxy.sessions import Home
from proxy.timer import Timer
from proxy.usage import Attempt as AttemptRecord
from proxy.usage import Record, listed

PIECE = 1024 * 1024  # bytes of a plain answer that go out at once
_LASTING = 1.0  # seconds
_REFUSED = "not_allowed"  # an attempt at another model, at a price or within limits that do not allow it
_MOST_SKIPPED = 8  # routes that are out, in a row
_RESTING, _NOT_ASKED = frozenset({RESTS, THROTTLED}), frozenset({"rests", "skipped"})
CLIENT_GONE = 499  # nginx's status for a client that left
Outcome = UsageRecord.Outcome
_UNPRICED = meter.pricer(None)

logger = logging.getLogger(__name__)


class _Named(msgspec.Struct):
    id: str = ""


_read_id = msgspec.json.Decoder(_Named).decode


class Exchange:
    """`started`: the status is out. `delivering`: content is, no other route can answer. `gone`: the client left."""

    __slots__ = (
        "_answer",
        "_answered",
        "_asked",
        "_attempt",
        "_begun",
        "_envelope",
        "_finished",
        "_format",
        "_given",
        "_is_refused",
        "_keepalive",
        "_key",
        "_mark",
        "_opened_anew",
        "_passage",
        "_patience",
        "_planned",
        "_previous",
        "_price",
        "_recorded",
        "_scope",
        "_send",
        "_session",
        "_stream",
        "delivering",
        "gateway",
        "gone",
        "pricer",
        "record",
        "reservation",
        "started",
        "timer",
    )

    def __init__(self, gateway: Gateway, client: Client, scope: Scope, send: Send) -> None:
        self.gateway = gateway
        self.gone = False
        self.started = False
        self.delivering = False
        self.reservation: Reservation | None = None
        self.pricer: Pricer = _UNPRICED
        self.timer = Timer()
        self.record = Record(
            request_id=request_ids.new(),
            created=time.time(),
            endpoint=client.ENDPOINT,
            client=header(scope, b"user-agent")[:100].decode("latin-1"),
        )
        self._format = client
        self._scope = scope
        self._send = send
        self._begun = time.perf_counter()
        self._planned = 0.0  # when it was planned: all of the attempts together have so many seconds from then on
        self._patience = 0.0  # seconds for a client that does not read, where others wait for its place; 0: no bound
        self._asked = self._given = 0.0  # when the provider was asked; the seconds that it had
        self._answered = 0.0  # when its first byte came
        self._recorded = False
        self._finished = False
        self._is_refused = False  # because all routes rest
        self._key: Key | None = None
        self._envelope: Envelope | None = None
        self._session = ""
        self._previous: Home | None = None
        self._attempt: Attempt | None = None
        self._price: Price | None = None
        self._passage: Passage | None = None
        self._stream: Stream | None = None
        self._answer: Relayed | None = None
        self._keepalive: asyncio.Task[None] | None = None
        self._mark: Mark | None = None
        self._opened_anew = False

    # --- what becomes known ------------------------------------------------------------------------------------------

    def belongs_to(self, key: Key) -> None:
        self._key = key
        record = self.record
        record.key_id, record.key_prefix, record.key_name = key.id or None, key.prefix, key.name
        record.account_id, record.account = key.account_id, key.account

    def asks(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self.record.requested_model = envelope.model[:200]
        self.record.streamed = envelope.stream

    def resolved(self, target: Target) -> None:
        self.record.model = target.model.id
        self.record.alias = target.alias

    async def planned(self, target: Target, key: Key) -> Plan:
        """Raises `BadRequest` (400), `Forbidden` (403), `RateLimited` (429), `Unavailable` (503)."""
        gateway, envelope = self.gateway, self._envelope
        assert envelope is not None
        self._previous, self._session = named(envelope, key, target.model)
        home = await home_of(gateway, self._previous, self._session)
        turn = gateway.turns.of(envelope, target.model, self._session)
        plan = routing.plan(target, envelope, gateway.tables.catalog, key, gateway.health, turn.number, home)
        gateway.turns.taken(target.model, turn)
        self._planned = time.perf_counter()
        if plan.out:
            gateway.health.passes(attempt.route for attempt, _ in plan.out)
            self._skipped(plan)
        if plan.refusal is not None:
            raise plan.refusal
        return plan

    def _skipped(self, plan: Plan) -> None:
        """What is not asked because it is out is told beside what is."""
        self._is_refused = plan.refusal is not None
        asked = {attempt.route.way for attempt in plan.attempts}
        for attempt, out in plan.out[:_MOST_SKIPPED]:
            if attempt.route.way not in asked:
                provider, reason = attempt.route.provider, "rests" if out.why in _RESTING else "skipped"
                named = provider.name, attempt.route.model, 0.0, out.status, reason
                self.record.attempts.append(AttemptRecord(*named, 0.0, provider.credential_name, attempt.model.id))

    def seconds_left(self, attempt: Attempt) -> float:
        """Of the provider's total, which all attempts together have."""
        return attempt.route.provider.total_timeout - (time.perf_counter() - self._planned)

    @property
    def taken(self) -> float:
        """Seconds since the last attempt began."""
        return time.perf_counter() - self._asked

    def has_asked(self, seconds: float) -> None:
        """A provider, which has so many for its answer, or for the first word of it."""
        assert self._attempt is not None
        provider = self._attempt.route.provider
        self._asked, self._given = time.perf_counter(), seconds
        self._patience = provider.idle_timeout if provider.max_concurrency else 0.0

    def is_hurried(self, fault: ProviderFault) -> bool:
        """Whether the provider was given too little time for its silence to say anything."""
        assert self._attempt is not None
        return fault.reason == "timeout" and self._given < self._attempt.route.provider.first_byte_timeout / 2

    @property
    def account(self) -> int:
        return self.record.account_id or 0

    async def admitted(self, model: Model) -> None:
        """Raises `RateLimited` (429), `Insufficient` (402), `BadRequest` (400), `Unavailable` (503)."""
        assert self._key is not None
        assert self._envelope is not None
        record, admission = self.record, self.gateway.admission
        self.reservation = await admission.admit(record.request_id, self._key, self._envelope, model, record.created)

    async def tries(self, attempt: Attempt) -> None:
        """Before it is asked. Raises `Refusal` where another model's price or limits do not allow it."""
        record, reservation, key, envelope = self.record, self.reservation, self._key, self._envelope
        assert reservation is not None
        assert key is not None
        assert envelope is not None
        if attempt.model is not reservation.model:
            try:
                await self.gateway.admission.reprice(reservation, key, envelope, attempt.model, record.created)
            except Refusal:
                self._attempt, self._asked = attempt, time.perf_counter()
                self.tried(_REFUSED)
                raise
        self._attempt, self._passage, self._stream = attempt, None, None
        self._asked = time.perf_counter()
        record.model = attempt.model.id
        record.provider = attempt.route.provider.name
        record.upstream_model = attempt.route.model
        self._price = price = pricing.in_force(attempt.model.prices, record.created)
        self.pricer = meter.pricer(price)
        record.price = (price.input, price.output, price.cached_input, price.cache_write) if price else None
        record.metered = key.is_metered
        record.funds = tuple(fund.name for fund in reservation.funds)
        record.held = reservation.held if reservation.funds else None
        # Whoever finds this line without its end knows what had been asked, and by the mark what had been delivered.
        record.estimated = True
        self._mark = self.gateway.journal.open(record)
        self._mark.set(0, reservation.held)
        record.estimated = False

    def passage(self, envelope: Envelope, attempt: Attempt) -> Passage:
        """The way to this provider and back. Raises `BadRequest` (400)."""
        answer_id = self.record.request_id.removeprefix("req_")
        bound = self.reservation.bound if self.reservation is not None else None
        passage = Passage(envelope, attempt, self.pricer, answer_id, int(self.record.created), bound)
        self._passage = passage
        return passage

    def tried(self, reason: str = "", status: int | None = None) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        provider = attempt.route.provider
        at, spent = round((self._asked - self._begun) * 1000, 3), round(self.taken * 1000, 3)
        self.record.attempts.append(
            AttemptRecord(
                *(provider.name, attempt.route.model, spent, status or 0, reason, at),
                *(provider.credential_name, attempt.model.id),
            )
        )
        self._attempt = None if reason else attempt

    # --- answers -----------------------------------------------------------------------------------------------------

    async def send_answer(self, answer: Relayed) -> None:
        """A plain answer. A large one goes out in pieces: a client that does not read it cannot hold it for ever."""
        self._answered = time.perf_counter()
        self._settle_down(stream=False)
        self._answer, rest = answer, answer.body
        headers = [(b"content-type", b"application/json"), _length(rest)]
        if len(rest) > PIECE:
            await self._start(200, headers)
            rest = await self._all_but_the_last(rest)
        await self._keep(answer.body)
        await self._complete(self._believed(answer.usage) or self._counted(answer.text))
        if not self.started:
            await self._start(200, headers)
        await self._last(rest)

    async def _all_but_the_last(self, body: bytes) -> bytes:
        assert self._attempt is not None
        self.timer.limit(self._attempt.route.provider.total_timeout)
        last = (len(body) - 1) // PIECE * PIECE
        for start in range(0, last, PIECE):
            await self.send_piece(body[start : start + PIECE])
        self.timer.unlimit()
        return body[last:]

    def _settle_down(self, *, stream: bool) -> None:
        """It is answered. The conversation is at home here now; not another model's."""
        assert self._attempt is not None
        route, seconds = self._attempt.route, self._answered - self._asked
        self.gateway.health.answers(route, seconds, stream=stream, took=seconds, account=self.account)
        if self._session and self._attempt.layer <= SAME_MODEL:
            self.gateway.sessions.keep(self._session, route.provider)

    async def begin_stream(self, stream: Stream) -> None:
        self._stream = stream
        self._answered = time.perf_counter()
        self.delivering = True
        self._settle_down(stream=True)
        await self._start_stream()

    async def send_piece(self, data: bytes) -> None:
        if data:
            if self._patience:
                self.timer.wait(self._patience)
            try:
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
            except RuntimeError as error:
                raise _gone(error) from error
            if self._patience:
                self.timer.rest()

    async def end_stream(self, data: bytes) -> None:
        """The last bytes of a stream that came to its end, or whose last event is the provider's error."""
        stream = self._stream
        assert stream is not None
        if stream.error is None:
            self.timer.unlimit()  # it is whole: no time that was for the provider may end it now
            await self._keep(getattr(stream, "response", b""))  # only Responses' streams have it
            await self._complete(self._believed(stream.usage) or self._counted(stream.text()))
        else:
            self._partial(Outcome.INCOMPLETE, 200, AllFailed.code or "")
        await self._last(data)

    @property
    def is_due(self) -> bool:
        """Whether the stream has said enough to ask whether it `pays`. What is whole cannot be cut off."""
        assert self._stream is not None
        assert self.reservation is not None
        return self._stream.said >= self.reservation.next_check and not self._stream.finished

    async def pays(self) -> bool:
        """For what the stream has said. False: there is no credit for more."""
        stream, reservation, mark = self._stream, self.reservation, self._mark
        assert stream is not None
        assert reservation is not None
        assert mark is not None
        goes_on = await reservation.keep_ahead(stream)
        if not self._opened_anew and time.perf_counter() - self._begun > _LASTING:
            self._open_anew(stream)
        mark.set(reservation.said, reservation.held)
        return goes_on

    def _open_anew(self, stream: Stream) -> None:
        """A stream that lasts: its opening line tells how much it has been asked, should there be no closing one."""
        self._opened_anew = True
        assert self._envelope is not None
        self._tell(
            self._believed(stream.prompt_usage) or Usage(meter.prompt_tokens(self._format, self._envelope.whole))
        )
        self.record.estimated = True
        self.gateway.journal.open(self.record)
        self.record.estimated = False

    async def cut(self, data: bytes) -> None:
        """End the stream here as one that has reached its length: `data`, and what the format closes with."""
        stream, reservation = self._stream, self.reservation
        assert stream is not None
        assert reservation is not None
        self.timer.unlimit()
        usage = self._delivered(stream)
        data += stream.cut(usage)
        await self._keep(getattr(stream, "response", b""))
        await self._complete(usage, reservation.end)
        await self._last(data)

    def keep_alive(self) -> None:
        """The provider has been silent for a while: a comment, so that nothing between here and the client gives up."""
        if self._keepalive is None or self._keepalive.done():
            self._keepalive = asyncio.create_task(self._comment())

    async def _comment(self) -> None:
        if self._finished:
            return
        with suppress(ClientGone):
            await self._start_stream(routed=False)  # who will answer is not known yet
            if not self._finished:  # while the server took the status
                await self.send_piece(self._format.KEEPALIVE)

    async def explain(self, body: bytes, grant: Grant) -> None:
        """What would be done, in place of an answer: nothing of it is recorded."""
        left = replies.limits(grant, self._format, self.record.created)
        await self._start(200, [(b"content-type", b"application/json"), _length(body), *left], routed=False)
        await self._last(body)

    async def refuse(self, refusal: Refusal) -> None:
        """The error as the answer; as an event, where a stream has begun."""
        record = self.record
        if self.delivering:
            self._partial(Outcome.INCOMPLETE, 200, refusal.code or refusal.type)
        else:
            tried = self._is_refused or any(attempt.reason not in _NOT_ASKED for attempt in record.attempts)
            outcome = Outcome.FAILED if tried and refusal.status >= 429 else Outcome.REFUSED
            self._record(outcome, 200 if self.started else refusal.status, refusal.code or refusal.type)
        if not self._finished:
            with suppress(ClientGone):
                await self._send_refusal(refusal)

    async def _send_refusal(self, refusal: Refusal) -> None:
        if self.started:
            await self._last(self._end_of_stream(replies.error(refusal, self.record.request_id)))
            return
        body = self._format.error_body(replies.error(refusal, self.record.request_id))
        limits: replies.Headers = []
        if self._key is not None and self.reservation is None:
            found = await self.gateway.admission.left(self._key)
            limits = replies.limits(found, self._format, self.record.created)
        await self._start(refusal.status, [*replies.error_headers(refusal), _length(body), *limits])
        await self._last(body)

    def _end_of_stream(self, error: Error) -> bytes:
        if self._stream is not None:
            return self._stream.fail(error)
        if self._envelope is not None and self._envelope.framing == "array":
            return b"[" + self._format.error_body(error) + b"]"
        return self._format.error_event(error)

    def left(self) -> None:
        """The client has gone: end the work for it, the provider's connection first of all."""
        if not self._finished:
            self.gone = True
            self.timer.task.cancel()

    def interrupted(self) -> None:
        """Record what was used until the client left or the server went down."""
        if self.gone:
            self._partial(Outcome.CANCELLED, CLIENT_GONE, "client_gone")
            self.timer.task.uncancel()
        else:
            self._partial(Outcome.INCOMPLETE, 503, "server_stopped")

    def close(self) -> None:
        if self.reservation is not None:
            self.reservation.settle()
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._keepalive = None
        self.timer.stop()
        self._finished = True

    async def _keep(self, response: bytes) -> None:
        """An answer of Responses, for requests to come that go on from it."""
        envelope, key = self._envelope, self._key
        if not response or envelope is None or not envelope.kept:
            return
        assert key is not None
        assert envelope.conversation is not None
        try:
            response_id = _read_id(response).id
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.warning("a response of %s cannot be held: %s", self.record.provider, error)
            return
        conversation = envelope.conversation
        await self.gateway.held.keep(Entry(response_id, key.id, response, conversation.input, conversation.previous))

    # --- the wire ----------------------------------------------------------------------------------------------------

    async def _start_stream(self, *, routed: bool = True) -> None:
        if not self.started:
            assert self._envelope is not None
            await self._start(200, replies.stream_headers(self._envelope.framing), routed=routed)

    async def _start(self, status: int, headers: replies.Headers, *, routed: bool = True) -> None:
        self.started = True
        headers = headers + self._headers(routed and status == 200)
        try:
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
        except RuntimeError as error:
            raise _gone(error) from error

    async def _last(self, data: bytes) -> None:
        self._finished = True
        if self.reservation is not None:
            self.reservation.settle()  # who has read the answer's end may ask again at once
        try:
            await self._send({"type": "http.response.body", "body": data})
        except RuntimeError as error:
            raise _gone(error) from error

    def _headers(self, routed: bool) -> replies.Headers:
        reservation, attempt = self.reservation, self._attempt
        request_id = self.record.request_id
        if routed and attempt is not None:
            provider = attempt.route.provider
            request_id = request_ids.carrying(request_id, provider.id, provider.credential)
        headers = replies.common(request_id, self._scope, self._format)
        if reservation is not None:
            headers += replies.limits(reservation.grant, self._format, self.record.created)
        if routed and reservation is not None and attempt is not None and self._envelope is not None:
            bound = clamped(self._envelope, attempt, reservation.bound)
            headers += replies.routed(attempt, self.record.alias, bound, self._kept(attempt.route.provider))
            headers += replies.losses(self._passage.losses.names if self._passage is not None else [])
        now = time.perf_counter()
        waited = ((self._answered or now) - self._asked) if self._asked else 0.0
        headers.append((b"server-timing", b"gateway;dur=%.2f" % ((now - self._begun - waited) * 1000)))
        return headers

    def _kept(self, provider: Provider) -> str:
        """What has become of the `previous_request_id`; empty: there was none."""
        if self._previous is None:
            return "ignored" if self._envelope is not None and self._envelope.previous else ""
        return "kept" if provider.id == self._previous[0] else "moved"

    # --- the record --------------------------------------------------------------------------------------------------

    async def _complete(self, usage: Usage, code: str = "") -> None:
        if self.reservation is not None:
            await self.reservation.afford(meter.cost(self._price, usage) or 0)
        self.tried(status=200)
        self._use(usage)
        self._record(Outcome.COMPLETE, 200, code)

    def _partial(self, outcome: Outcome, status: int, code: str) -> None:
        """Of a broken stream: what was delivered is what was used."""
        if self._recorded:
            return
        if self._answer is not None:
            self._use(self._believed(self._answer.usage) or self._counted(self._answer.text))
        elif self._stream is not None:
            self._use(self._delivered(self._stream))
        elif self._attempt is not None and self._passage is not None and self._passage.question.is_sent:
            self._use(self._counted(""))  # the provider was reading the prompt
        self.tried(outcome.value)
        self._record(outcome, status, code)

    def _believed(self, usage: Usage | None) -> Usage | None:
        """The provider's count, as far as it can be."""
        assert self.reservation is not None
        believed = usage and self.reservation.believed(usage)
        self.record.estimated = believed != usage
        return believed

    def _counted(self, said: str) -> Usage:
        """Usage where the provider sent none."""
        assert self._envelope is not None
        self.record.estimated = True
        return meter.counted(self._format, self._envelope.whole, said)

    def _delivered(self, stream: Stream) -> Usage:
        """Of a stream that did not come to its end: the prompt as the provider says, the output as far as it came."""
        usage = stream.usage
        known = self._believed(usage or stream.prompt_usage)
        if known and usage and (stream.complete or stream.finished):
            return known
        counted = self._counted(stream.text())
        return replace(known, completion=max(known.completion, counted.completion)) if known else counted

    def _use(self, usage: Usage) -> None:
        self._tell(usage)
        record = self.record
        record.cost = meter.cost(self._price, usage)
        if record.cost and self.reservation is not None:
            charge = self.reservation.charge(record.cost)
            record.cost, record.shortfall = charge, record.cost - charge

    def _tell(self, usage: Usage) -> None:
        record = self.record
        record.prompt_tokens, record.completion_tokens = usage.prompt, usage.completion
        record.cached_tokens = min(usage.cached, usage.prompt)
        record.cache_write_tokens = min(usage.written, usage.prompt - record.cached_tokens)
        record.reasoning_tokens = min(usage.reasoning, usage.completion)

    def _record(self, outcome: Outcome, status: int, code: str) -> None:
        """One line in the journal, before the last byte goes out. Of a request without a known key there is none."""
        if self._recorded or self._key is None:
            return
        self._recorded = True
        record = self.record
        record.outcome, record.status, record.error_code = outcome.value, status, code[:60]
        for attempt in record.attempts:
            if attempt.of == record.model:
                attempt.of = ""
        if self._passage is not None:
            if names := self._passage.losses.names:
                record.losses = listed(names)
            record.provider_format = self._passage.theirs.NAME
        record.total_ms = round((time.perf_counter() - self._begun) * 1000, 3)
        if self._answered:
            record.first_token_ms = round((self._answered - self._begun) * 1000, 3)
        if self.reservation is not None and self.reservation.funds:
            record.held = self.reservation.most
        self.gateway.journal.append(record)
        if self.reservation is not None:
            self.reservation.settle(record.cost or 0, record.prompt_tokens + record.completion_tokens)


def _gone(error: RuntimeError) -> ClientGone:
    """What uvloop's error means where the connection has closed and uvicorn has not heard of it yet."""
    if "closed" not in str(error):
        raise error
    return ClientGone()


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)
