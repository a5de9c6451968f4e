"""How a request would be routed, and what it may cost, without making it: the plan as data, with its reasons.

The order is `routing.plan`'s own, at the turn that the next request takes. `relay` answers with it where a request has
the header `x-kodna-explain: true`; the console's page Explain shows it. No provider is asked, no credit held, no usage
recorded. With the header it counts as a request in the limits of its key and model, and a refusal is that of the
request itself, recorded as such. An operator is told everything; the holder of a key neither names of credentials nor
of providers that are not for this key, or not there.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import NamedTuple

import msgspec

from accounts.keys import Key
from accounts.usd import PICO, usd
from models_catalog.snapshot import Model, Route, Snapshot
from proxy import errors, meter, routing
from proxy.admission import quote_of, with_margin
from proxy.errors import BadRequest, Lossy
from proxy.exchange import Exchange
from proxy.failover import MOST
from proxy.gateway import Gateway, home_of, named
from proxy.health import REFUSED, RESTS, THROTTLED, Out
from proxy.ingress import Envelope
from proxy.outgoing import Passage
from proxy.routing import CATALOG, OWN_LIST, Attempt, Plan, Target
from proxy.sessions import Home
from proxy.turns import Turn

NOTE = "This is the plan of the process that answered. Others may be at another turn, and have measured other speeds."
PREVIOUS, SESSION = "previous_request_id", "session"
_LAYERS = {OWN_LIST: "the request's own fallback", CATALOG: "the catalog's fallback"}
_CLOSED = {
    "format": "its provider speaks no format in which this request can be asked",
    "key": "the API key may use none of its groups",
    "group": "it is in none of the groups that were asked for",
}
# Counting and translating take a while: one at a time, beside the event loop, and so many seconds with the queue.
LONGEST = 10.0
_THREAD = ThreadPoolExecutor(1, "kodna-explain")
_NO_PRICER = meter.pricer(None)
_COUNTED = 1_000_000  # characters of a prompt that are counted, not estimated
_PER_MILLION = 10**6
_BLEND = 4  # tokens that `Route.cost` is the price of


class Asked(msgspec.Struct):
    """`conversation`: what names it, of `previous_request_id` and `session`. `home`: the provider that has it."""

    model: str
    alias: str
    resolved: str
    format: str
    stream: bool
    groups: tuple[str, ...]
    models: tuple[str, ...]
    conversation: str
    home: str


class Cost(msgspec.Struct):
    """USD."""

    least: Decimal
    most: Decimal


class Estimate(msgspec.Struct):
    """Of `model`, at the price in force; `cost`: None where it has none."""

    model: str
    prompt_tokens: int
    most_output_tokens: int
    cost: Cost | None


class Candidate(msgspec.Struct, omit_defaults=True):
    """`speed`: seconds to the first token, on average; of plain answers, to the whole one.

    `busy`: attempts that run there now, of this process. `credential`: for operators.
    """

    place: int
    model: str
    provider: str
    upstream_model: str
    priority: int
    weight: float
    layer: int
    why: str
    speed: float | None
    busy: int
    losses: list[str]
    credential: str = ""


class Dropped(msgspec.Struct, omit_defaults=True):
    """`reason`: format, group, out, attempts, context, lossy, request or model; for operators also key and absent."""

    model: str
    provider: str
    upstream_model: str
    reason: str
    why: str
    credential: str = ""


class Explanation(msgspec.Struct):
    """`turn`: by which weights are shared out. `is_last_resort`: all that could be asked is out.

    `wait`: seconds until the first one is asked, which rests for a moment.
    """

    asked: Asked
    estimate: Estimate
    strategy: str
    turn: int
    is_last_resort: bool
    wait: float
    candidates: list[Candidate]
    dropped: list[Dropped]
    note: str = NOTE
    object: str = "kodna.explanation"


encode = msgspec.json.Encoder(decimal_format="number").encode


class Conversation(NamedTuple):
    """`named`: by what, empty: by nothing. `home`: where it is, if anybody knows. `session`: as `sessions` has it."""

    named: str = ""
    home: Home | None = None
    session: str = ""


async def answer(exchange: Exchange, envelope: Envelope, target: Target, key: Key) -> None:
    """In place of a model's answer. Raises `Refusal`, as the request itself would be refused."""
    gateway, request_id = exchange.gateway, exchange.record.request_id
    grant = await gateway.admission.count(request_id, key, target.model)
    try:
        async with asyncio.timeout(LONGEST):
            conversation = await find_home(gateway, envelope, key, target.model)
            work = partial(_encoded, gateway, envelope, target, key, conversation)
            body = await asyncio.get_running_loop().run_in_executor(_THREAD, work)
    except TimeoutError:
        raise errors.Unavailable("The plan could not be worked out in time.", retry_after=LONGEST) from None
    finally:
        gateway.admission.store.settle(request_id, None, 0)
    await exchange.explain(body, grant)


def _encoded(gateway: Gateway, envelope: Envelope, target: Target, key: Key, conversation: Conversation) -> bytes:
    try:
        return encode(explain(gateway, envelope, target, key, conversation))
    except StopIteration as bug:  # asyncio cannot hand it over: whoever waits would wait for ever
        raise RuntimeError("an iterator had no more") from bug


async def find_home(gateway: Gateway, envelope: Envelope, key: Key, model: Model) -> Conversation:
    previous, session = named(envelope, key, model)
    kind = PREVIOUS if previous is not None else SESSION if session else ""
    return Conversation(kind, await home_of(gateway, previous, session), session)


def explain(
    gateway: Gateway, envelope: Envelope, target: Target, key: Key, conversation: Conversation, *, tells: bool = False
) -> Explanation:
    """`tells`: an operator, also what is nobody else's business. Raises `Refusal`, as the request would be refused."""
    model, catalog = target.model, gateway.tables.catalog
    turn = gateway.turns.of(envelope, model, conversation.session)
    plan = routing.plan(target, envelope, catalog, key, gateway.health, turn.number, conversation.home)
    if plan.refusal is not None:
        raise plan.refusal
    scene = _Scene(gateway, catalog, envelope, target, key, tells, plan, conversation, turn)
    tokens = _count(envelope)
    fitting, unfit = _sort_out(scene, tokens)
    return Explanation(
        asked=_asked(scene),
        estimate=_estimate(envelope, fitting[0][0].model if fitting else model, tokens),
        strategy=model.strategy,
        turn=turn.number,
        is_last_resort=plan.is_last_resort,
        wait=round(plan.wait, 3),
        candidates=[_candidate(scene, place, *each) for place, each in enumerate(fitting, 1)],
        dropped=[*unfit, *_dropped(scene)],
    )


def refused(gateway: Gateway, envelope: Envelope, target: Target, key: Key, *, tells: bool = False) -> list[Dropped]:
    """Why each route is none, where there is no plan at all."""
    return list(_dropped(_Scene(gateway, gateway.tables.catalog, envelope, target, key, tells, Plan())))


class _Scene(NamedTuple):
    gateway: Gateway
    catalog: Snapshot
    envelope: Envelope
    target: Target
    key: Key
    tells: bool
    plan: Plan
    conversation: Conversation = Conversation()
    turn: Turn = Turn(0)

    def credential(self, route: Route) -> str:
        return route.provider.credential_name if self.tells else ""

    def drop(self, model: Model, route: Route, reason: str, why: str) -> Dropped:
        return Dropped(model.id, route.provider.name, route.model, reason, why, self.credential(route))


def _asked(scene: _Scene) -> Asked:
    envelope, target, home = scene.envelope, scene.target, scene.conversation.home
    routes = [attempt.route for attempt in scene.plan.attempts if home and attempt.route.provider.id == home[0]]
    return Asked(
        model=envelope.model,
        alias=target.alias,
        resolved=target.model.id,
        format=envelope.format.ENDPOINT,
        stream=envelope.stream,
        groups=envelope.groups,
        models=envelope.models,
        conversation=scene.conversation.named,
        home=_named(scene, routes[0]) if routes else "",
    )


def _named(scene: _Scene, route: Route) -> str:
    credential = scene.credential(route)
    return f"{route.provider.name}, {credential}" if credential else route.provider.name


def _count(envelope: Envelope) -> int:
    text = envelope.whole.text
    return meter.prompt_tokens(envelope.format, envelope.whole, meter.count if len(text) < _COUNTED else meter.estimate)


def _estimate(envelope: Envelope, model: Model, tokens: int) -> Estimate:
    """The most is what would be held; the least an answer as short as can be, to a prompt that is in the cache."""
    quote = quote_of(envelope, model, time.time(), with_margin(tokens))
    price, cost = quote.price, None
    if price is not None:
        known = [each for each in (price.input, price.cached_input) if each is not None]
        least = tokens * min(known) + quote.least * quote.each
        cost = Cost(usd(least), usd(quote.amount(quote.bound) * PICO))
    return Estimate(model.id, tokens, quote.bound, cost)


# --- those that are asked --------------------------------------------------------------------------------------------


def _sort_out(scene: _Scene, tokens: int) -> tuple[list[tuple[Attempt, list[str]]], list[Dropped]]:
    """The attempts that the request fits, with what it would lose; and the others.

    Raises `BadRequest` where the first one could not be asked: others would not be, either.
    """
    fitting: list[tuple[Attempt, list[str]]] = []
    unfit: list[Dropped] = []
    for attempt, unmade in _made(scene, tokens):
        if unmade is not None:
            unfit.append(unmade)
            continue
        try:
            passage = Passage(scene.envelope, attempt, _NO_PRICER, "explain", 0)
        except Lossy as loss:
            unfit.append(scene.drop(attempt.model, attempt.route, "lossy", loss.message))
        except BadRequest as wrong:
            if not fitting:
                raise
            unfit.append(scene.drop(attempt.model, attempt.route, "request", wrong.message))
        else:
            fitting.append((attempt, passage.losses.names))
    return fitting, unfit


def _made(scene: _Scene, tokens: int) -> Iterator[tuple[Attempt, Dropped | None]]:
    """Each attempt, and why it is not even made: the prompt is too long, or enough are. As `failover` counts."""
    made: Counter[str] = Counter()
    too_small = 0
    for attempt in scene.plan.attempts:
        model, window = attempt.model, attempt.model.context or 0
        if window and (window <= too_small or (model.enforce and tokens > window)):
            too_small = max(too_small, window)
            words = f"the prompt has {tokens:,} tokens, the context window {window:,}"
            yield attempt, scene.drop(model, attempt.route, "context", words)
        elif made[model.id] == model.attempts:
            words = f"the model allows {model.attempts} attempts for a request"
            yield attempt, scene.drop(model, attempt.route, "attempts", words)
        elif made.total() == MOST:
            words = f"a request is tried at most {MOST} times"
            yield attempt, scene.drop(model, attempt.route, "attempts", words)
        else:
            made[model.id] += 1
            yield attempt, None


def _candidate(scene: _Scene, place: int, attempt: Attempt, losses: list[str]) -> Candidate:
    route, health = attempt.route, scene.gateway.health
    first = scene.plan.attempts[0]
    is_there = attempt.model is first.model and route.provider.id == first.route.provider.id  # by any credential
    return Candidate(
        place=place,
        model=attempt.model.id,
        provider=route.provider.name,
        upstream_model=route.model,
        priority=route.priority,
        weight=round(route.weight, 3),
        layer=(attempt if is_there else attempt.as_fallback()).layer,
        why=_why(scene, attempt),
        speed=health.speed(route.way, scene.envelope.stream),
        busy=health.busy(route.way),
        losses=losses,
        credential=scene.credential(route),
    )


def _why(scene: _Scene, attempt: Attempt) -> str:
    """Why it has this place."""
    words = _place_in_tier(scene, attempt)
    for each, out in scene.plan.out:
        if each.route is attempt.route:  # the attempt may be another: `as_fallback`
            what = "it is waited for" if scene.plan.wait else "it was out"
            words = f"nothing else is left, and {what}: {out_words(out)}"
    layer = _LAYERS.get(attempt.layer)
    return f"{layer}; {words}" if layer else words


def _place_in_tier(scene: _Scene, attempt: Attempt) -> str:
    route, home, health = attempt.route, scene.conversation.home, scene.gateway.health
    of_model = [each for each in scene.plan.attempts if each.model is attempt.model]
    if home is not None and attempt is of_model[0] and route.provider.id == home[0]:
        here = "home of the conversation" if scene.conversation.named == SESSION else "it answered the previous request"
        return here if route.provider.credential == home[1] else f"{here}, by another credential"
    tier = [each for each in of_model if each.route.priority == route.priority]
    if len(tier) == 1:
        return f"the only one of priority {route.priority}"
    match attempt.model.strategy:
        case "in_order":
            return "in order: as listed"
        case "cheapest":
            cost = None if route.cost is None else usd(route.cost * _PER_MILLION // _BLEND)
            return "cheapest: its price is not known" if cost is None else f"cheapest: {cost:f} USD per million tokens"
        case "fastest":
            speed = health.speed(route.way, scene.envelope.stream)
            what = "first token" if scene.envelope.stream else "answer"
            return "fastest: not measured yet" if speed is None else f"fastest: {what} after {speed:.2f} s"
        case "least_busy":
            return f"least busy: {health.busy(route.way)} running there, weight {route.weight:g}"
    if route.weight <= 0:
        return "weight 0: after the others"
    if attempt is not tier[0]:
        return "weighted: next in turn"
    turn, opening = scene.turn
    is_own = scene.conversation.session or (opening is not None and opening.number == turn)
    return "the conversation's own turn of weighted" if is_own else f"turn {turn} of weighted"


# --- those that are not ----------------------------------------------------------------------------------------------


def _dropped(scene: _Scene) -> Iterator[Dropped]:
    """Every route of the models that were in question and is not in the plan."""
    seen: set[str] = set()
    for model in _models(scene):
        if isinstance(model, Dropped):
            yield model
        elif model.id not in seen:
            seen.add(model.id)
            yield from _closed(scene, model)


def _models(scene: _Scene) -> Iterator[Model | Dropped]:
    """The model asked for and its fallbacks, or why one of them is none."""
    catalog, key, first = scene.catalog, scene.key, scene.target.model
    yield first
    for name in (*scene.envelope.models, *first.fallbacks):
        model = catalog.models.get(catalog.aliases.get(name, name))
        if model is None:
            yield Dropped(name[:200], "", "", "model", "there is no such model")
        elif key.models and model.id not in key.models:
            yield Dropped(model.id, "", "", "model", "the API key may not use this model")
        else:
            yield model


def _closed(scene: _Scene, model: Model) -> Iterator[Dropped]:
    envelope, health, now = scene.envelope, scene.gateway.health, time.time()
    planned = {attempt.route.way for attempt in scene.plan.attempts if attempt.model is model}
    outs = {attempt.route.way: out for attempt, out in scene.plan.out if attempt.model is model}
    for route in model.routes:
        if route.way in planned or not (scene.tells or _is_for(scene.key, route)):
            continue
        if reason := routing.why_not(route, envelope.format, envelope.groups, scene.key.groups):
            yield scene.drop(model, route, reason, _CLOSED[reason])
        elif (out := outs.get(route.way) or health.is_out(route, now)) is not None:
            yield scene.drop(model, route, "out", out_words(out))
        else:
            yield scene.drop(model, route, "request", "the request itself is refused")
    for absent in model.absent if scene.tells else ():
        yield Dropped(model.id, absent.provider, absent.model, "absent", absent.why)


def _is_for(key: Key, route: Route) -> bool:
    return not key.groups or not key.groups.isdisjoint(route.provider.groups)


def out_words(out: Out) -> str:
    """Why it is out, and for how long."""
    until = f"{datetime.fromtimestamp(out.until, UTC):%H:%M:%S} UTC"
    status = f" ({out.status})" if out.status else ""
    if out.why == RESTS:
        return f"rests until {until}, as the provider has asked{status}"
    if out.why == THROTTLED:
        return f"rests until {until}: the provider's rate limit is reached{status}"
    what = "the provider refuses its credential" if out.why == REFUSED else "too many of its requests failed"
    again = f", {out.times} times in a row" if out.times > 1 else ""
    if out.until <= time.time():
        return f"circuit half-open, one request now and then tries it: {what}{status}{again}"
    return f"circuit open until {until}: {what}{status}{again}"
