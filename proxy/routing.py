"""From a model's name to the attempts to make: a pure function of the snapshot, the request, the key and live health.

Called by `exchange`, `counting` and `explain`. The model's own routes come first, then the request's own `models`, then
the catalog's fallbacks. Of one model: where the conversation is at home, then by priority, within one by the model's
strategy. What is out (`health`) is asked only where nothing else is left.
"""

import math
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import NamedTuple

from accounts.keys import Key
from models_catalog.snapshot import Model, Route, Snapshot
from proxy import errors
from proxy.formats import registry
from proxy.formats.base import Client
from proxy.health import RESTS, Health, Out
from proxy.ingress import Envelope
from proxy.sessions import Home

FIRST, SAME_MODEL, OWN_LIST, CATALOG = 0, 1, 2, 3  # `x-kodna-fallback-layer`
LAST_RESORT = 2  # attempts, where all that could be asked is out
PATIENCE = 3.0  # seconds: a provider that asks to wait longer is not waited for
_TOO_MANY = 429
_GOLDEN, _SILVER = (math.sqrt(5) - 1) / 2, math.sqrt(2) - 1  # multiples of them spread evenly over 0 to 1
_MANY = 10_000  # choices that are kept: clients name the groups


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A route to try. `layer`: 0 for the first choice, else where the fallback comes from."""

    model: Model
    route: Route
    layer: int

    def as_fallback(self) -> "Attempt":
        """The same one, where it was not the first choice."""
        return self if self.layer else Attempt(self.model, self.route, SAME_MODEL)


class Target(NamedTuple):
    """What a name stands for."""

    model: Model
    alias: str  # empty where the model was named by its ID


@dataclass(slots=True)
class Plan:
    """The attempts in order. `out`: routes that could have been among them. `is_last_resort`: all of them are out.

    `wait`: seconds before the first, which has asked to wait. `refusal`: all have, for longer: nobody is asked.

    All but the first are fallbacks (`Attempt.as_fallback`); the first is one where those before it are out.
    """

    attempts: list[Attempt] = field(default_factory=list)
    out: list[tuple[Attempt, Out]] = field(default_factory=list)
    is_last_resort: bool = False
    wait: float = 0.0
    refusal: errors.Refusal | None = None


def resolve(name: str, catalog: Snapshot, key: Key) -> Target:
    """Raises `ModelNotFound` (404), `Forbidden` (403), `BadRequest` (400: no name, and no default model)."""
    asked = name or catalog.default_model
    if not asked:
        raise errors.BadRequest(
            "'model' is missing, and this service has no default model.",
            param="model",
            code="missing_required_parameter",
            retry=False,
        )
    model = catalog.models.get(asked)
    alias = ""
    if model is None and asked in catalog.aliases:
        alias = asked
        model = catalog.models.get(catalog.aliases[asked])
    if model is None:
        raise errors.ModelNotFound(
            f"The model {asked[:200]!r} does not exist here. GET /v1/models lists those that do.",
            param="model",
            retry=False,
        )
    if key.models and model.id not in key.models and alias not in key.models:
        raise errors.Forbidden(
            f"This API key may not use the model {asked!r}.", param="model", code="model_not_allowed", retry=False
        )
    return Target(model, alias)


def plan(
    target: Target,
    envelope: Envelope,
    catalog: Snapshot,
    key: Key,
    health: Health,
    turn: int = 0,
    home: Home | None = None,
) -> Plan:
    """`turn`: a number that rises by one from request to request, by which weights are shared out.

    Raises `BadRequest` (400: no such group), `Forbidden` (403), `Unavailable` (503: nobody serves it).
    """
    found, now = Plan(), time.time() if health.out else 0.0
    first = choice(target.model, FIRST, envelope, catalog, key)
    if envelope.groups and not first.tiers:
        raise _no_group(envelope.groups, target.model)
    _add(first, found, health, now, turn, envelope.stream, home)
    if envelope.models or target.model.fallbacks:
        seen = {target.model.id}
        for layer, model in others(envelope, target.model, catalog, key):
            if model.id not in seen:  # named once more: it has been tried by then
                seen.add(model.id)
                _add(choice(model, layer, envelope, catalog, key), found, health, now, turn, envelope.stream, home)
    if not found.attempts:
        _last_resort(found, now)
    if not (found.attempts or found.refusal):
        raise _nobody(target.model, envelope, key)
    if found.out and found.attempts:
        place = found.attempts[0].route.priority
        if any(attempt.model is target.model and attempt.route.priority < place for attempt, _ in found.out):
            found.attempts[0] = found.attempts[0].as_fallback()
    return found


def _last_resort(plan: Plan, now: float) -> None:
    """All are out. Those that were told to wait are left alone; of the others, a few are asked all the same."""
    plan.attempts = [attempt for attempt, out in plan.out if out.why != RESTS][:LAST_RESORT]
    plan.is_last_resort = True
    if plan.attempts or not plan.out:
        return
    attempt, soonest = min(plan.out, key=lambda each: each[1].until)
    wait = max(soonest.until - now, 0.001)
    if wait <= PATIENCE:
        plan.attempts, plan.wait = [attempt], wait
        return
    words = f"Its providers have asked to wait with further requests for the model {plan.out[0][0].model.id!r}"
    if soonest.status == _TOO_MANY:
        limited = f"{words}: their own rate limit is reached, not yours."
        plan.refusal = errors.RateLimited(limited, retry_after=wait)
    else:
        plan.refusal = errors.Unavailable(f"{words}.", retry_after=wait)


def _nobody(model: Model, envelope: Envelope, key: Key) -> errors.Refusal:
    if key.groups and any(not why_not(way, envelope.format, envelope.groups, frozenset()) for way in model.routes):
        return errors.Forbidden(
            f"This API key may not use the providers of {model.id!r}.",
            param="model",
            code="model_not_allowed",
            retry=False,
        )
    return errors.Unavailable(f"No provider can answer for the model {model.id!r} at the moment.", retry_after=30)


def _no_group(groups: tuple[str, ...], model: Model) -> errors.BadRequest:
    serving = sorted({group for route in model.routes for group in route.provider.groups})
    words = f"No provider in group {', '.join(groups)!r} serves {model.id!r}. "
    words += f"It is served by: {', '.join(serving)}." if serving else "Its providers are in no group."
    return errors.BadRequest(words, param="group", retry=False)


def others(envelope: Envelope, first: Model, catalog: Snapshot, key: Key) -> Iterator[tuple[int, Model]]:
    for layer, names in ((OWN_LIST, envelope.models), (CATALOG, first.fallbacks)):
        for name in names:
            model = catalog.models.get(catalog.aliases.get(name, name))
            if model is not None and (not key.models or model.id in key.models):
                yield layer, model


# --- the routes of one model -----------------------------------------------------------------------------------------


class Tier:
    """Routes of one priority, as attempts. `bounds`: where each one's share of 0 to 1 ends."""

    __slots__ = ("attempts", "bounds", "idle")

    def __init__(self, attempts: Sequence[Attempt], strategy: str) -> None:
        if strategy == "cheapest":
            attempts = sorted(attempts, key=_cost)
        weighted = [attempt for attempt in attempts if attempt.route.weight > 0]
        if strategy in {"cheapest", "in_order"} or not weighted:
            weighted, self.idle = list(attempts), []
        else:
            self.idle = [attempt for attempt in attempts if attempt.route.weight <= 0]
        total = sum(attempt.route.weight for attempt in weighted) or 1.0
        self.attempts = weighted
        self.bounds = [bound / total for bound in accumulate(attempt.route.weight for attempt in weighted)]

    def without(self, out: set[Attempt], strategy: str) -> "Tier":
        return Tier([attempt for attempt in (*self.attempts, *self.idle) if attempt not in out], strategy)


@dataclass(slots=True)
class Choice:
    """The routes of a model that a kind of client and key may take, by priority."""

    model: Model
    layer: int
    tiers: list[Tier]

    def attempts(self) -> Iterator[Attempt]:
        for tier in self.tiers:
            yield from tier.attempts
            yield from tier.idle


def _cost(attempt: Attempt) -> float:
    return math.inf if attempt.route.cost is None else attempt.route.cost


def choice(model: Model, layer: int, envelope: Envelope, catalog: Snapshot, key: Key) -> Choice:
    """Worked out once for each kind of request."""
    kind = (model.id, layer, envelope.format.NAME, envelope.groups, key.groups)
    found: Choice | None = catalog.memo.get(kind)
    if found is None:
        if len(catalog.memo) > _MANY:
            catalog.memo.clear()
        ways = [way for way in model.routes if not why_not(way, envelope.format, envelope.groups, key.groups)]
        ways.sort(key=lambda way: way.priority)
        tiers = [
            Tier([Attempt(model, way, layer) for way in tier], model.strategy)
            for _, tier in groupby(ways, key=lambda way: way.priority)
        ]
        found = catalog.memo[kind] = Choice(model, layer, tiers)
    return found


def why_not(route: Route, client: Client, groups: tuple[str, ...], allowed: frozenset[str]) -> str:
    """Why such a request cannot take this route, whatever its health: format, key or group; empty: it can."""
    provider = route.provider
    if registry.between(client, provider.dialect, provider.supports) is None:
        return "format"
    if allowed and allowed.isdisjoint(provider.groups):
        return "key"
    return "group" if groups and provider.groups.isdisjoint(groups) else ""


def _add(of: Choice, plan: Plan, health: Health, now: float, turn: int, stream: bool, home: Home | None) -> None:
    """The model's attempts, behind those that are planned already."""
    model, out = of.model, _out(of, health, now) if health.out else {}
    first = _home(of, home, out) if home is not None else None
    if first is not None:
        plan.attempts.append(first)
    for tier in of.tiers:
        left = tier.without(set(out), model.strategy) if out else tier
        ordered = _STRATEGIES[model.strategy](left, turn, stream, health)
        plan.attempts += ordered if first is None else [attempt for attempt in ordered if attempt is not first]
    plan.out += out.items()


def _out(of: Choice, health: Health, now: float) -> dict[Attempt, Out]:
    found = ((attempt, health.is_out(attempt.route, now)) for attempt in of.attempts())
    return {attempt: out for attempt, out in found if out is not None}


def _home(of: Choice, home: Home, out: dict[Attempt, Out]) -> Attempt | None:
    """Where the conversation has been: the same credential, else another one of the same provider."""
    there = [each for each in of.attempts() if each.route.provider.id == home[0] and each not in out]
    return min(there, key=lambda attempt: attempt.route.provider.credential != home[1], default=None)


# --- strategies: the routes of one priority --------------------------------------------------------------------------


def _weighted(tier: Tier, turn: int, stream: bool, health: Health) -> list[Attempt]:
    """The first two by weight: no draw is far from its share after any number of turns. Then in a ring."""
    attempts, bounds = tier.attempts, tier.bounds
    count = len(attempts)
    if count < 2:
        return attempts + tier.idle
    first = min(bisect(bounds, turn * _GOLDEN % 1.0), count - 1)
    begin = bounds[first - 1] if first else 0.0
    share = bounds[first] - begin
    drawn = (turn * _SILVER % 1.0) * (1.0 - share)  # among the others
    second = min(bisect(bounds, drawn if drawn < begin else drawn + share), count - 1)
    ring = attempts[second:] + attempts[:second]
    if second != first:
        ring.insert(0, ring.pop((first - second) % count))
    return ring + tier.idle


def _as_listed(tier: Tier, turn: int, stream: bool, health: Health) -> list[Attempt]:
    return tier.attempts


def _fastest(tier: Tier, turn: int, stream: bool, health: Health) -> list[Attempt]:
    """By the time to the first token, or to the whole answer. Who has none yet is measured first, by one at a time."""
    speeds = [health.speed(attempt.route.way, stream) for attempt in tier.attempts]
    known = [speed for speed in speeds if speed is not None]
    usual = sum(known) / len(known) if known else 0.0
    order = [
        (usual if health.busy(attempt.route.way) else 0.0) if speed is None else speed
        for attempt, speed in zip(tier.attempts, speeds, strict=True)
    ]
    places = sorted(range(len(order)), key=order.__getitem__)
    return [tier.attempts[place] for place in places] + tier.idle


def _least_busy(tier: Tier, turn: int, stream: bool, health: Health) -> list[Attempt]:
    """By the attempts that run now, for its weight; of equals by turns."""
    busy = health.busy
    ring = _weighted(tier, turn, stream, health)
    return sorted(ring, key=lambda attempt: (busy(attempt.route.way) + 1) / (attempt.route.weight or 1e-9))


_STRATEGIES: dict[str, Callable[[Tier, int, bool, Health], list[Attempt]]] = {
    "weighted": _weighted,
    "in_order": _as_listed,
    "cheapest": _as_listed,
    "fastest": _fastest,
    "least_busy": _least_busy,
}
