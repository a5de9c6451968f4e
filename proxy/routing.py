"""From a model's name to the attempts to make: a pure function of the snapshot, the request and the key.

Called by `relay`. Order: the model's routes by priority, then the request's own `models`, then the catalog's fallbacks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from accounts.keys import Key
from models_catalog.snapshot import Model, Route, Snapshot
from proxy import errors
from proxy.formats import registry
from proxy.formats.base import Client
from proxy.ingress import Envelope

SAME_MODEL, OWN_LIST, CATALOG = 1, 2, 3  # `x-kodna-fallback-layer`


@dataclass(frozen=True, slots=True)
class Attempt:
    """A route to try. `layer`: 0 for the first choice, else where the fallback comes from."""

    model: Model
    route: Route
    layer: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a name stands for."""

    model: Model
    alias: str  # empty where the model was named by its ID


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


def plan(target: Target, envelope: Envelope, catalog: Snapshot, key: Key) -> list[Attempt]:
    """The attempts in order. Raises `BadRequest` (400: no such group), `Forbidden` (403), `Unavailable` (503)."""
    groups, client = envelope.groups, envelope.format
    attempts = [
        Attempt(target.model, route, SAME_MODEL if position else 0)
        for position, route in enumerate(_allowed(target.model, client, groups, key.groups))
    ]
    if groups and not attempts:
        serving = sorted({group for route in target.model.routes for group in route.provider.groups})
        raise errors.BadRequest(
            f"No provider in group {', '.join(groups)!r} serves {target.model.id!r}. "
            f"It is served by: {', '.join(serving) or 'none'}.",
            param="group",
            retry=False,
        )
    for layer, names in ((OWN_LIST, envelope.models), (CATALOG, target.model.fallbacks)):
        for model in _named(names, target.model, catalog, key):
            if all(model is not attempt.model for attempt in attempts):  # named once more: it has been tried by then
                attempts += [Attempt(model, route, layer) for route in _allowed(model, client, groups, key.groups)]
    if not attempts and key.groups and any(_allowed(target.model, client, groups, frozenset())):
        raise errors.Forbidden(
            f"This API key may not use the providers of {target.model.id!r}.",
            param="model",
            code="model_not_allowed",
            retry=False,
        )
    if not attempts:
        raise errors.Unavailable(
            f"No provider can answer for the model {target.model.id!r} at the moment.", retry_after=30
        )
    return attempts


def _allowed(model: Model, client: Client, groups: tuple[str, ...], allowed: frozenset[str]) -> Iterator[Route]:
    for route in model.routes:
        if registry.between(client, route.provider.dialect, route.provider.supports) is None:
            continue
        if allowed and allowed.isdisjoint(route.provider.groups):
            continue
        if groups and route.provider.groups.isdisjoint(groups):
            continue
        yield route


def _named(names: tuple[str, ...], first: Model, catalog: Snapshot, key: Key) -> Iterator[Model]:
    for name in names:
        model = catalog.models.get(catalog.aliases.get(name, name))
        if model is not None and model is not first and (not key.models or model.id in key.models):
            yield model
