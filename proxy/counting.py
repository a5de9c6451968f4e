"""How many tokens a prompt has: Anthropic's `count_tokens`, Gemini's `countTokens`. Nothing is generated or billed.

A provider of the client's own format is asked; for others the gateway counts, as where a provider tells no usage.
Called by `asgi`.
"""

import logging
import time
from typing import Protocol

from accounts.keys import Key
from models_catalog.snapshot import Provider
from proxy import errors, ingress, meter, replies, request_ids, routing
from proxy.errors import ProviderFault, Refusal
from proxy.faults import fault_in_200, fault_of_status, scrub
from proxy.formats import registry
from proxy.formats.base import Edits, Format, Prompt
from proxy.formats.splice import Malformed, Members
from proxy.gateway import Gateway
from proxy.ingress import OWN_FIELDS, Asked, ClientGone, Envelope, Receive, Scope, Send
from proxy.routing import Attempt
from proxy.timer import Timer
from proxy.upstream import Question, open_upstream

logger = logging.getLogger(__name__)
PATIENCE = 1.0  # seconds, for a place at a provider that has few
_MOST = 1024 * 1024  # bytes of a provider's answer


class Counter(Format, Protocol):
    """A format that has an endpoint for it."""

    def check_count(self, members: Members, /) -> None:
        """Raises `BadField`."""

    def count_path(self, model: str, /) -> str: ...
    def count_body(self, members: Members, edits: Edits, /) -> bytes: ...
    def count_prompt(self, members: Members, /) -> Prompt: ...
    def count_answer(self, tokens: int, /) -> bytes: ...


async def count(gateway: Gateway, counter: Counter, model: str, scope: Scope, receive: Receive, send: Send) -> None:
    """`model`: where the path names it."""
    request_id, timer = request_ids.new(), Timer()
    key: Key | None = None
    try:
        key = ingress.authenticate(scope, gateway.tables)
        ingress.check_usable(key, scope)
        body = await ingress.read_body(scope, receive, timer)
        envelope = ingress.read_envelope(body, Asked(counter, model, stream=False), counter.check_count)
        ingress.read_headers(envelope, scope, strict=False)
        catalog = gateway.tables.catalog
        target = routing.resolve(envelope.model, catalog, key)
        plan = routing.plan(target, envelope, catalog, key, gateway.health)
        if plan.refusal is not None:
            raise plan.refusal
        grant = await gateway.admission.count(request_id, key, target.model)
        try:
            status, answer = 200, await _counted(gateway, counter, envelope, plan.attempts, key, timer)
        finally:
            gateway.admission.store.settle(request_id, None, 0)
        headers: replies.Headers = [(b"content-type", b"application/json")]
        headers += replies.limits(grant, counter, time.time())
    except ClientGone:
        return
    except Refusal as refusal:
        status, headers, answer = _refused(refusal, counter, request_id)
        if refusal.status == 429 and key is not None:
            headers += replies.limits(await gateway.admission.left(key), counter, time.time())
    except Exception:
        logger.exception("request %s failed", request_id)
        status, headers, answer = _refused(errors.Internal(), counter, request_id)
    finally:
        timer.stop()
    await replies.answer(send, status, [*headers, *replies.common(request_id, scope, counter)], answer)


def _refused(refusal: Refusal, counter: Counter, request_id: str) -> tuple[int, replies.Headers, bytes]:
    return refusal.status, replies.error_headers(refusal), counter.error_body(replies.error(refusal, request_id))


async def _counted(
    gateway: Gateway, counter: Counter, envelope: Envelope, attempts: list[Attempt], key: Key, timer: Timer
) -> bytes:
    """All of them together have as long as one alone."""
    faults: list[ProviderFault] = []
    begun = time.perf_counter()
    for attempt in attempts:
        provider = attempt.route.provider
        if registry.between(counter, provider.dialect, provider.supports) is not counter:
            prompt = counter.count_prompt(envelope.members)
            return counter.count_answer(meter.tokens_of(prompt))
        left = provider.total_timeout - (time.perf_counter() - begun)
        if faults and left <= 0:
            continue
        try:
            return await _ask(gateway, counter, envelope, attempt, key, timer, left)
        except ProviderFault as fault:
            faults.append(fault)
    raise errors.after_all(faults, attempts[0].model.id) from faults[-1]


async def _ask(
    gateway: Gateway, counter: Counter, envelope: Envelope, attempt: Attempt, key: Key, timer: Timer, seconds: float
) -> bytes:
    provider, model = attempt.route.provider, attempt.route.model
    edits = Edits(model, OWN_FIELDS, stream=False)
    path, body = counter.count_path(model) + envelope.query, counter.count_body(envelope.members, edits)
    question = Question(path, body, envelope.forwarded)
    await gateway.pool.enter(provider, key.account_id, min(PATIENCE, seconds))
    try:
        upstream = await open_upstream(gateway.pool, provider, question, timer, seconds)
        try:
            answer = await upstream.read_all(_MOST)
        finally:
            await upstream.close()
    finally:
        gateway.pool.leave(provider)
    if upstream.status != 200:
        raise fault_of_status(upstream.status, answer, upstream.header("retry-after"), provider, counter)
    return scrub(_checked(answer, provider, counter), provider)


def _checked(answer: bytes, provider: Provider, counter: Counter) -> bytes:
    try:
        members = Members(answer)
    except Malformed as wrong:
        raise ProviderFault("malformed", f"its answer is not a JSON object: {wrong}.") from None
    if "error" in members:
        raise fault_in_200(counter.read_error(answer), provider)
    return answer
