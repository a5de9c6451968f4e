"""One attempt's way to a provider and back: in the client's own format byte for byte, else through the canonical form.

Called by `relay`.
"""

from dataclasses import replace
from typing import Any

import msgspec

from proxy import errors
from proxy.formats import registry
from proxy.formats.base import Ask, BadField, Edits, Format, Losses, Pricer, Relayed, Stream, Target
from proxy.formats.canonical import Request
from proxy.formats.splice import Members
from proxy.formats.translate import TranslatedStream, translate_answer
from proxy.ingress import OWN_FIELDS, Envelope, bad_field
from proxy.routing import Attempt
from proxy.upstream import Question

_NONE: frozenset[str] = frozenset()
_NONE_LOST = Losses({})  # of bytes that pass; nobody writes into it


class _StreamOptions(msgspec.Struct):
    include_usage: Any = None


_STREAM_OPTIONS = msgspec.json.Decoder(_StreamOptions | None)


class Passage:
    """What one provider is sent (`question`), and how its answer becomes the client's.

    `theirs`: the provider's format. `losses`: what the two formats could not say to each other.
    """

    __slots__ = ("_ask", "_envelope", "_model", "_pricer", "losses", "question", "theirs")

    def __init__(
        self,
        envelope: Envelope,
        attempt: Attempt,
        pricer: Pricer,
        answer_id: str,
        created: int,
        bound: int | None = None,
    ) -> None:
        """`bound`: the most tokens of output that the provider is to be told.

        Raises `BadRequest` (400) where the client's request cannot be read, or would lose what it must not.
        """
        provider, ours = attempt.route.provider, envelope.format
        theirs = registry.between(ours, provider.dialect, provider.supports)
        assert theirs is not None  # `routing` plans no others
        self.theirs: Format = theirs
        self.losses = _NONE_LOST
        self._envelope = envelope
        self._model = attempt.model.id
        self._pricer = pricer
        self._ask: Ask | None = None
        path = theirs.path(attempt.route.model, stream=envelope.stream)
        if theirs is ours:
            self.question = Question(path + envelope.query, _own(theirs, envelope, attempt, bound), envelope.forwarded)
            return
        self.losses = Losses(ours.FIELDS)
        request = _bounded(_canonical(envelope), attempt, bound)
        target = Target(attempt.route.model, self.losses, attempt.model.output, provider.quirks)
        self.question = Question(path, theirs.write_request(request, target))
        if envelope.strict and self.losses.grave:
            raise errors.Lossy(self.losses.grave, attempt.model.id)
        self._ask = Ask(
            id=answer_id,
            model=self._model,
            created=created,
            request=request,
            members=envelope.members,
            pricer=pricer,
            losses=self.losses,
            include_usage=_usage_asked(envelope.members),
            framing=envelope.framing,
            renamed=target.renamed,
        )

    @property
    def translates(self) -> bool:
        return self._ask is not None

    def stream(self) -> Stream:
        envelope, ask = self._envelope, self._ask
        if ask is None:
            return self.theirs.relay(self._model, self._pricer, envelope.members, framing=envelope.framing)
        return TranslatedStream(self.theirs.reader(ask.id), envelope.format.writer(ask), ask)

    def answer(self, body: bytes) -> Relayed:
        """Raises `NotAnAnswer`."""
        if self._ask is None:
            return self.theirs.edit_answer(body, self._model, self._pricer)
        return translate_answer(self.theirs, self._envelope.format, body, self._ask)


def _own(theirs: Format, envelope: Envelope, attempt: Attempt, bound: int | None) -> bytes:
    drop = _NONE if OWN_FIELDS.isdisjoint(envelope.members) else OWN_FIELDS
    limit = clamped(envelope, attempt, bound)
    edits = Edits(attempt.route.model, drop, envelope.stream, limit, attempt.route.provider.quirks)
    try:
        return theirs.own_body(envelope.whole, edits)
    except BadField as bad:  # found by an edit only
        raise bad_field(bad) from None


def _canonical(envelope: Envelope) -> Request:
    if envelope.request is None:
        try:
            envelope.request = envelope.format.read_request(envelope.whole)
        except BadField as bad:
            raise bad_field(bad) from None
        envelope.request.stream = envelope.stream  # Gemini's path says it, not its body
        for name in OWN_FIELDS:
            envelope.request.extra.pop(name, None)
    return envelope.request


def _bounded(request: Request, attempt: Attempt, bound: int | None) -> Request:
    model = attempt.model
    if model.enforce and model.output and (request.max_tokens or 0) > model.output:
        request = replace(request, max_tokens=model.output)
    if bound is not None and not 0 < (request.max_tokens or 0) <= bound:
        request = replace(request, max_tokens=bound)
    return request


def _usage_asked(members: Members) -> bool:
    """OpenAI's `stream_options.include_usage`. Where it means something, `check` has found it to be right."""
    try:
        options = _STREAM_OPTIONS.decode(members.get("stream_options", b"null"))
    except msgspec.DecodeError:
        return False
    return options is not None and options.include_usage is True


def clamped(envelope: Envelope, attempt: Attempt, bound: int | None = None) -> int | None:
    """The output limit in place of the client's.

    Where the model's limits are enforced and the client asks for more; and where credit, or the request's own
    `max_cost_usd`, carries no more than `bound`.
    """
    model, asked = attempt.model, envelope.bounds.values()
    if bound is None and not model.enforce:
        return None
    limits = [] if bound is None or (asked and max(asked) <= bound) else [bound]
    if model.enforce and model.output and any(value > model.output for value in asked):
        limits.append(model.output)
    return min(limits, default=None)
