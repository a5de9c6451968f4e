"""The catalog as the hot path reads it: frozen, whole, with credentials decrypted and environment references resolved.

`load()` reads the database (control plane, off the event loop); a change of `Catalog.version` says when to load again.
"""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Prefetch

from models_catalog import aliases
from models_catalog import models as rows
from models_catalog.aliases import Candidate
from models_catalog.pricing import Price, in_force, per_token

DEMO_PROVIDER = "kodna-demo"
CREDENTIAL_OFF = "this credential is switched off"
ROUTE_OFF = "this route is switched off"
DIALECTS = {"openai", "anthropic", "gemini"}  # that the gateway speaks
API_KEY_HEADER = "api_key_header"  # the quirk of Azure OpenAI: the credential goes into the header `api-key`
# How a dialect's servers take the credential: the header, and what stands before the key.
_BEARER = ("authorization", "Bearer ")
_CREDENTIAL = {"anthropic": ("x-api-key", ""), "gemini": ("x-goog-api-key", "")}
_ANTHROPIC_VERSION = "2023-06-01"  # it refuses a request without: https://docs.anthropic.com/en/api/versioning


class Unusable(Exception):
    """Why a provider cannot be asked; the text is for the operator."""


@dataclass(frozen=True, slots=True, eq=False)  # the same only as itself: it is a key of dictionaries
class Provider:
    """One of its credentials, with all that a request to it needs: a provider that has several is there several times.

    Timeouts in seconds. `api_key` is the credential itself: it never leaves the process but to `base_url`.
    `credential`: its row's number; 0: the provider's own field. `place` names provider and credential for as long as
    neither changes.
    """

    id: int
    name: str
    dialect: str
    base_url: str
    api_key: str
    groups: frozenset[str]
    headers: tuple[tuple[str, str], ...]
    supports: frozenset[str]
    quirks: frozenset[str]
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float
    total_timeout: float
    max_concurrency: int
    credential: int = 0
    credential_name: str = ""
    discovers: bool = False  # asked for its models by `discovery`
    place: str = field(init=False)

    def __post_init__(self) -> None:
        secret = f"{self.base_url}\n{self.api_key}".encode()
        mark = hashlib.blake2b(secret, digest_size=5, key=settings.SECRET_KEY.encode()[:64]).hexdigest()
        object.__setattr__(self, "place", f"{self.id}.{self.credential}.{mark}")

    def credential_headers(self) -> dict[str, str]:
        """What the dialect wants with every request, beside `headers`."""
        name, scheme = _CREDENTIAL.get(self.dialect, _BEARER)
        if API_KEY_HEADER in self.quirks:
            name, scheme = "api-key", ""
        found = {name: scheme + self.api_key} if self.api_key else {}
        if self.dialect == "anthropic":
            found["anthropic-version"] = _ANTHROPIC_VERSION
        return found

    def __repr__(self) -> str:  # a credential must not get into a log by way of a traceback
        return f"Provider({self.name!r}, {self.base_url!r})"


@dataclass(frozen=True, slots=True)
class Route:
    """A provider's credential, and the provider's name for the model. `weight`: the credential's part of the route's.

    `cost`: picodollars that the provider charges for three tokens of input and one of output; None: nobody has said.
    `way` names it for as long as none of it changes.
    """

    provider: Provider
    model: str
    priority: int = 1
    weight: float = 1.0
    cost: int | None = None
    way: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "way", f"{self.provider.place}/{self.model}")


@dataclass(frozen=True, slots=True)
class Vendor:
    slug: str
    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Absent:
    """A route that nobody can take now, and why; the text is for the operator."""

    provider: str
    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """A notice that the operator has written, for the docs page and the status page. Times: seconds since the epoch."""

    kind: str
    title: str
    text: str
    begins: float
    ends: float | None

    def in_force(self, now: float) -> bool:
        return self.begins <= now and (self.ends is None or now < self.ends)


@dataclass(frozen=True, slots=True)
class Model:
    """`routes` holds the live ones, by priority, then as listed. `prices`: the newest first.

    `strategy`: how routes of one priority are ordered. `attempts`: how often providers are asked for one request at
    most. `absent`: the routes that are not live.
    """

    id: str
    vendor: Vendor
    name: str
    description: str
    context: int | None
    output: int | None
    enforce: bool
    input_modalities: tuple[str, ...]
    output_modalities: tuple[str, ...]
    supports: frozenset[str]
    fallbacks: tuple[str, ...]
    routes: tuple[Route, ...]
    prices: tuple[Price, ...]
    created: int
    rps: int = 0  # of all keys together; 0: no limit
    rpm: int = 0
    tpm: int = 0
    concurrency: int = 0
    strategy: str = "weighted"
    attempts: int = 6
    absent: tuple[Absent, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`models` in the order of the docs page; `aliases` name models that are there.

    `announcements`: those that were not over yet. `memo`: what readers have worked out of it, for as long as it lives.
    """

    version: int
    models: Mapping[str, Model]
    aliases: Mapping[str, str]
    default_model: str
    announcements: tuple[Announcement, ...] = ()
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)


EMPTY = Snapshot(-1, {}, {}, "")


def version() -> int:
    return rows.Catalog.objects.filter(pk=1).values_list("version", flat=True).first() or 0


def expand(text: str) -> str:
    """Fill `${NAME}` and `${NAME:-default}` from the environment. Raises `Unusable` where one is not set."""

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = settings.PROVIDER_ENV.get(name) or default
        if found is None:
            raise Unusable(f"{name} is not set in the environment")
        return found

    return rows.VARIABLE.sub(value, text)


def credential(api_key: str | None) -> str:
    """The credential behind a stored value: itself, or the variable that `env:NAME` names. Raises `Unusable`."""
    if api_key is None:
        raise Unusable("its credential cannot be decrypted with KODNA_ENCRYPTION_KEYS: enter it again")
    if not api_key.startswith("env:"):
        return api_key
    name = api_key.removeprefix("env:")
    found = settings.PROVIDER_ENV.get(name, "")
    if not found:
        raise Unusable(f"{name} is not set in the environment")
    return found


class Keyed(NamedTuple):
    """A provider with one of its credentials. Where that cannot be used, `provider` is None, and `fault` says why."""

    name: str
    weight: int
    provider: Provider | None
    fault: str = ""

    @property
    def label(self) -> str:
        return f"credential {self.name}" if self.name else "its own credential"


def freeze_provider(row: rows.Provider) -> list[Keyed]:
    """The provider as the hot path uses it, once for each of its credentials.

    These are its own field and its `credentials`; where the field is empty, only they. With none at all, it is asked
    without one.
    """
    others = list(row.credentials.all()) if row.pk else []  # one that is not stored yet has none
    try:
        base_url = _address(row)
    except Unusable as reason:
        return [Keyed("", 1, None, str(reason))]
    own = [] if row.api_key == "" and others else [_keyed(row, base_url, None)]
    return own + [_keyed(row, base_url, other) for other in others]


def _address(row: rows.Provider) -> str:
    if not row.is_active:
        raise Unusable("switched off")
    if row.dialect not in DIALECTS:
        raise Unusable(f"this version does not speak the dialect {row.dialect!r}")
    if row.discovers and not row.reachable:  # nobody else keeps `reachable` true
        raise Unusable("it does not answer")
    return expand(row.base_url).rstrip("/")


def _keyed(row: rows.Provider, base_url: str, other: rows.Credential | None) -> Keyed:
    name, weight = (other.name, other.weight) if other else ("", 1)
    try:
        api_key = _of_credential(other) if other else credential(row.api_key)
    except Unusable as reason:
        return Keyed(name, weight, None, str(reason))
    return Keyed(name, weight, _provider(row, base_url, api_key, other.pk if other else 0, name))


def _of_credential(row: rows.Credential) -> str:
    if not row.is_active:
        raise Unusable(CREDENTIAL_OFF)
    if row.api_key == "":
        raise Unusable("no credential is stored: enter one")
    return credential(row.api_key)


def _provider(row: rows.Provider, base_url: str, api_key: str, number: int, name: str) -> Provider:
    return Provider(
        id=row.pk,
        name=row.slug,
        dialect=row.dialect,
        base_url=base_url,
        api_key=api_key,
        groups=frozenset(row.groups),
        headers=tuple(row.headers.items()),
        supports=frozenset(row.supports),
        quirks=frozenset(row.quirks),
        connect_timeout=row.connect_timeout,
        first_byte_timeout=row.first_byte_timeout,
        idle_timeout=row.idle_timeout,
        total_timeout=row.total_timeout,
        max_concurrency=row.max_concurrency,
        credential=number,
        credential_name=name,
        discovers=row.discovers,
    )


def why_unusable(row: rows.Provider) -> str:
    """Empty where the provider can be asked, be it with one of several credentials."""
    return _fault(freeze_provider(row))


def _fault(keyed: list[Keyed]) -> str:
    if any(each.provider for each in keyed):
        return ""
    faults = {each.fault for each in keyed}
    return faults.pop() if len(faults) == 1 else "; ".join(f"{each.label}: {each.fault}" for each in keyed)


def load() -> Snapshot:
    """Read the catalog from the database. The version is read first, so that a change in between is seen next time."""
    current = version()
    providers = {row.pk: freeze_provider(row) for row in rows.Provider.objects.prefetch_related("credentials")}
    vendors = {row.pk: Vendor(row.slug, row.name, row.position) for row in rows.Vendor.objects.all()}
    models: dict[str, Model] = {}
    routes = Prefetch("routes", rows.Route.objects.select_related("provider"))
    for model in rows.Model.objects.filter(is_active=True).prefetch_related(routes, "prices"):
        ways = list(model.routes.all())
        if not settings.DEMO and ways and all(way.provider.slug == DEMO_PROVIDER for way in ways):
            continue  # the demonstration never shows where it is switched off
        models[model.slug] = _freeze_model(model, vendors[model.vendor_id], ways, providers)
    default = rows.Catalog.objects.filter(pk=1).values_list("default_model", flat=True).first() or ""
    return Snapshot(current, models, _aliases(models, time.time()), default, _announcements(time.time()))


def _aliases(models: Mapping[str, Model], now: float) -> dict[str, str]:
    """The operator's, and the named ones that he has not set. One whose model is switched off stands for nothing."""
    set_by_operator = dict(rows.Alias.objects.values_list("slug", "model__slug"))
    there = {name: model for name, model in set_by_operator.items() if model in models}
    switched_off = rows.Model.objects.filter(slug__in=aliases.NAMES, is_active=False).values_list("slug", flat=True)
    candidates = [_candidate(model, in_force(model.prices, now)) for model in models.values() if _chats(model)]
    return there | aliases.choose(candidates, {*set_by_operator, *models, *switched_off})


def _chats(model: Model) -> bool:
    if "text" not in model.output_modalities:
        return False
    providers = (route.provider for route in model.routes)
    return any(provider.dialect != "openai" or provider.supports & {"chat", "responses"} for provider in providers)


def _candidate(model: Model, price: Price | None) -> Candidate:
    return Candidate(
        name=model.id,
        input=price.input if price else None,
        output=price.output if price else None,
        context=model.context,
        supports=model.supports,
        sees="vision" in model.supports or "image" in model.input_modalities,
        description=model.description,
        is_demo=all(route.provider.name == DEMO_PROVIDER for route in model.routes),
    )


def _announcements(now: float) -> tuple[Announcement, ...]:
    found = rows.Announcement.objects.filter(is_active=True)
    made = (
        Announcement(
            row.kind,
            row.title,
            row.text,
            row.begins_at.timestamp(),
            row.ends_at.timestamp() if row.ends_at else None,
        )
        for row in found
    )
    return tuple(each for each in made if each.ends is None or each.ends > now)


def _freeze_model(row: rows.Model, vendor: Vendor, ways: list[rows.Route], providers: dict[int, list[Keyed]]) -> Model:
    ordered = sorted(ways, key=lambda way: (way.priority, way.pk))
    prices = sorted(row.prices.all(), key=lambda price: price.valid_from, reverse=True)
    return Model(
        id=row.slug,
        vendor=vendor,
        name=row.name or row.slug,
        description=row.description,
        context=row.context,
        output=row.output,
        enforce=row.limits == rows.Model.Limits.ENFORCE,
        input_modalities=tuple(row.input_modalities),
        output_modalities=tuple(row.output_modalities),
        supports=frozenset(row.supports),
        fallbacks=tuple(row.fallbacks),
        routes=tuple(route for way in ordered for route in _live(way, providers.get(way.provider_id, []))),
        prices=tuple(_price(price) for price in prices),
        created=int(row.created_at.timestamp()),
        rps=row.rps,
        rpm=row.rpm,
        tpm=row.tpm,
        concurrency=row.concurrency,
        strategy=row.strategy,
        attempts=row.attempts,
        absent=tuple(each for way in ordered for each in _absent(way, providers.get(way.provider_id, []))),
    )


def _price(row: rows.Price) -> Price:
    kinds = (row.input, row.output, row.cached_input, row.cache_write)
    return Price(row.valid_from.timestamp(), *map(per_token, kinds))


def _live(way: rows.Route, keyed: list[Keyed]) -> list[Route]:
    """One for each credential that can be used; they share the route's weight."""
    if not way.is_active:
        return []
    usable = [(each.provider, each.weight) for each in keyed if each.provider]
    total = sum(weight for _, weight in usable)
    charged = (per_token(way.price_input), per_token(way.price_output))
    cost = None if charged[0] is None or charged[1] is None else 3 * charged[0] + charged[1]
    return [
        Route(provider, way.upstream_model, way.priority, way.weight * weight / total, cost)
        for provider, weight in usable
    ]


def _absent(way: rows.Route, keyed: list[Keyed]) -> list[Absent]:
    name, model = way.provider.slug, way.upstream_model
    if not way.is_active:
        return [Absent(name, model, ROUTE_OFF)]
    if fault := _fault(keyed):
        return [Absent(name, model, fault)]
    return [Absent(name, model, f"{each.label}: {each.fault}") for each in keyed if not each.provider]
