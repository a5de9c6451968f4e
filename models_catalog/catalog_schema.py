"""What a catalog file may say: every key, its check and its column. `catalog_file` is the caller.

`check()` turns plain data into `CatalogFile` and collects every fault with its path in the file. Rules of a single
value (lengths, ranges, characters) are the model fields' own, so that the file, the admin and the database agree.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from models_catalog import models as rows
from models_catalog.aliases import NAMES
from models_catalog.catalog_yaml import Invalid
from models_catalog.quirks import QUIRKS

VERSION = 1
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)  # from when a price without a date holds
_MAX_WHOLE = 2**31 - 1  # PostgreSQL's integer

Check = Callable[["Checker", Any, str], Any]  # gives the value, or raises Wrong; of its parts it notes the faults
Columns = dict[str, Any]


class Wrong(Exception):
    """What is wrong with a value; never tells a credential."""


@dataclass(frozen=True)
class Key:
    """A key of the file: the column that it fills, and how its value is checked."""

    column: str
    check: Check


@dataclass(frozen=True)
class CredentialEntry:
    columns: Columns
    api_key: str | None  # None: the file does not say


@dataclass(frozen=True)
class ProviderEntry:
    """`credentials`: those beside `api_key`, by name."""

    columns: Columns
    api_key: str | None  # None: the file does not say
    credentials: dict[str, CredentialEntry]


@dataclass(frozen=True)
class ModelEntry:
    """`routes` by provider and the provider's name for the model; `prices` by the time from which they hold."""

    columns: Columns
    vendor: str
    routes: dict[tuple[str, str], Columns]
    prices: dict[datetime, Columns]


@dataclass(frozen=True)
class CatalogFile:
    """A file without faults. `default_model` None: the file does not say."""

    default_model: str | None = None
    providers: dict[str, ProviderEntry] = field(default_factory=dict)
    vendors: dict[str, Columns] = field(default_factory=dict)
    models: dict[str, ModelEntry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Known:
    """The names outside the file that it may refer to; `where` says so in a fault."""

    providers: Collection[str] = ()
    vendors: Collection[str] = ()
    models: Collection[str] = ()
    aliases: Collection[str] = ()
    where: str = "in this file"


def kind(value: Any) -> str:
    """What a value is, in words, without telling the value itself."""
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        Decimal: "a number",
    }
    return names.get(type(value), "empty")


def closest(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, sorted(names), 1, 0.7) if len(name) <= 200 else []
    return f" (did you mean {found[0]!r}?)" if found else ""


def column_default(model: type[models.Model], column: str) -> Any:
    return getattr(model, column).field.get_default()


class Checker:
    """Walks plain data and notes every fault."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def fault(self, path: str, text: str) -> None:
        self.faults.append(f"{path}: {text}" if path else text)

    def mapping(self, value: Any, path: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        if value is not None:
            self.fault(path, f"expected a mapping, not {kind(value)}")
        return {}

    def record(self, value: Any, path: str, keys: Mapping[str, Key], required: Collection[str] = ()) -> dict[str, Any]:
        """The checked values of the known keys; one that is empty counts as left out."""
        found = self.mapping(value, path)
        for key in found:
            if key not in keys:
                self.fault(f"{path}.{key}", f"unknown key{closest(key, keys)}")
        for key in required:
            if found.get(key) is None:
                self.fault(f"{path}.{key}", "missing")
        checked = {
            key: self.value(keys[key].check, found[key], f"{path}.{key}") for key in keys if found.get(key) is not None
        }
        return {key: value for key, value in checked.items() if value is not None}

    def value(self, check: Check, value: Any, path: str) -> Any:
        """The checked value, None after a fault."""
        try:
            return check(self, value, path)
        except Wrong as wrong:
            self.fault(path, str(wrong))
            return None

    def by_column(self, model: type[models.Model], record: dict[str, Any], keys: Mapping[str, Key]) -> Columns:
        """Columns for a row: what the file says, else the column's default."""
        return {
            key.column: record[name] if name in record else column_default(model, key.column)
            for name, key in keys.items()
            if key.column
        }


# --- checks of one value ---------------------------------------------------------------------------------------------


def _clean(column: Any, value: Any) -> None:
    """Refuse what the model field does not take."""
    try:
        column.field.clean(value, None)
    except ValidationError as error:
        raise Wrong(" ".join(error.messages)) from None


def text(column: Any, lines: bool = False) -> Check:
    def check(checker: Checker, value: Any, path: str) -> str:
        if not isinstance(value, str):
            raise Wrong(f"expected text, not {kind(value)}{_quotes(value)}")
        if not all(letter.isprintable() or (lines and letter in "\n\t") for letter in value):
            raise Wrong("holds a control character")
        if value or not column.field.blank:
            _clean(column, value)
        return str(value)

    return check


def _quotes(value: Any) -> str:
    return ": put it in quotes" if isinstance(value, bool | int | Decimal) else ""


def flag(checker: Checker, value: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    raise Wrong(f"expected true or false, not {kind(value)}")


def whole(checker: Checker, value: Any, path: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong(f"expected a whole number, not {kind(value)}")
    if not 0 <= value <= _MAX_WHOLE:
        raise Wrong(f"expected 0 to {_MAX_WHOLE}")
    return value


def at_least_one(checker: Checker, value: Any, path: str) -> int:
    if (found := whole(checker, value, path)) < 1:
        raise Wrong("expected 1 or more")
    return found


def seconds(column: Any) -> Check:
    def check(checker: Checker, value: Any, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise Wrong(f"expected seconds, not {kind(value)}")
        _clean(column, float(value))
        return float(value)

    return check


def usd(column: Any) -> Check:
    def check(checker: Checker, value: Any, path: str) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise Wrong(f"expected USD per million tokens, not {kind(value)}")
        _clean(column, Decimal(value))
        return Decimal(value)

    return check


def names(checker: Checker, value: Any, path: str) -> list[str]:
    if not isinstance(value, list):
        raise Wrong(f"expected a list of names, not {kind(value)}")
    wrong = [
        n for n, name in enumerate(value) if not isinstance(name, str) or not name.strip() or not name.isprintable()
    ]
    for index in wrong:
        checker.fault(f"{path}[{index}]", f"expected a name, not {kind(value[index])}{_quotes(value[index])}")
    return value


def _quirks(checker: Checker, value: Any, path: str) -> list[str]:
    found = names(checker, value, path)
    for index, name in enumerate(found):
        if isinstance(name, str) and name not in QUIRKS:
            checker.fault(f"{path}[{index}]", f"there is no quirk {name[:60]!r}{closest(name, QUIRKS)}")
    return found


def choice(options: Collection[str]) -> Check:
    def check(checker: Checker, value: Any, path: str) -> str:
        if isinstance(value, str) and value in options:
            return value
        hint = closest(value, options) if isinstance(value, str) else ""
        raise Wrong(f"expected one of {', '.join(options)}{hint}")

    return check


def credential(checker: Checker, value: Any, path: str) -> str:
    """Nothing that it says quotes the value."""
    if not isinstance(value, str):
        raise Wrong(f"expected env:NAME or the key itself as text, not {kind(value)}")
    if value.startswith("env:") and not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", value):
        raise Wrong("expected env: and the name of a variable")
    if not value.isascii() or any(letter.isspace() or not letter.isprintable() for letter in value):
        raise Wrong("a key holds no spaces, control characters or letters beyond ASCII")
    return value


def headers(checker: Checker, value: Any, path: str) -> dict[str, str]:
    """Nothing that it says quotes a header's value: some hold credentials."""
    if not isinstance(value, dict):
        raise Wrong(f"expected header names and values, not {kind(value)}")
    for name, content in value.items():
        if not rows.HEADER_NAME.fullmatch(name):
            checker.fault(f"{path}.{name}", "not a header's name")
        elif not isinstance(content, str):
            checker.fault(f"{path}.{name}", f"expected text, not {kind(content)}{_quotes(content)}")
        elif not all(letter.isascii() and letter.isprintable() for letter in content):
            checker.fault(f"{path}.{name}", "a header's value is printable ASCII")
    return value


def moment(checker: Checker, value: Any, path: str) -> datetime:
    try:
        if not isinstance(value, str):
            raise ValueError
        if len(value) == len("2025-01-31"):
            found = datetime.combine(date.fromisoformat(value), datetime.min.time())
        else:
            found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Wrong("expected a date such as 2025-01-31, or a date and time of ISO 8601") from None


def _timeout(checker: Checker, value: Any, path: str) -> dict[str, Any]:
    return checker.record(value, path, TIMEOUT)


def _rate(checker: Checker, value: Any, path: str) -> dict[str, Any]:
    return checker.record(value, path, RATE)


def _price(checker: Checker, value: Any, path: str) -> dict[datetime, Columns]:
    record = checker.record(value, path, PRICE)
    return {record.get("from", EPOCH): checker.by_column(rows.Price, record, PRICE)}


def _prices(checker: Checker, value: Any, path: str) -> dict[datetime, Columns]:
    if not isinstance(value, list):
        raise Wrong(f"expected a list of prices, not {kind(value)}")
    found: dict[datetime, Columns] = {}
    for index, item in enumerate(value):
        for since, columns in _price(checker, item, f"{path}[{index}]").items():
            if since in found:
                checker.fault(f"{path}[{index}].from", f"a price from {since:%Y-%m-%d} on is there already")
            found[since] = columns
    return found


def _routes(checker: Checker, value: Any, path: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise Wrong(f"expected a list of routes, not {kind(value)}")
    return [checker.record(item, f"{path}[{index}]", ROUTE, ["provider"]) for index, item in enumerate(value)]


def _route_price(checker: Checker, value: Any, path: str) -> dict[str, Any]:
    return checker.record(value, path, ROUTE_PRICE)


def _credentials(checker: Checker, value: Any, path: str) -> dict[str, CredentialEntry]:
    if not isinstance(value, list):
        raise Wrong(f"expected a list of credentials, not {kind(value)}")
    found: dict[str, CredentialEntry] = {}
    for index, item in enumerate(value):
        record = checker.record(item, f"{path}[{index}]", CREDENTIAL, ["name"])
        name = record.get("name", "")
        if name and name in found:
            checker.fault(f"{path}[{index}].name", "a credential of this name is there already")
        found[name] = CredentialEntry(checker.by_column(rows.Credential, record, CREDENTIAL), record.get("api_key"))
    return found


# --- the keys, in the order in which they are written ----------------------------------------------------------------

TIMEOUT = {
    "connect": Key("connect_timeout", seconds(rows.Provider.connect_timeout)),
    "first_byte": Key("first_byte_timeout", seconds(rows.Provider.first_byte_timeout)),
    "idle": Key("idle_timeout", seconds(rows.Provider.idle_timeout)),
    "total": Key("total_timeout", seconds(rows.Provider.total_timeout)),
}
CREDENTIAL = {
    "name": Key("", text(rows.Credential.name)),
    "api_key": Key("", credential),
    "weight": Key("weight", at_least_one),
    "enabled": Key("is_active", flag),
}
PROVIDER = {
    "dialect": Key("dialect", choice(list(rows.Provider.Dialect.values))),
    "base_url": Key("base_url", text(rows.Provider.base_url)),
    "api_key": Key("", credential),
    "credentials": Key("", _credentials),
    "enabled": Key("is_active", flag),
    "groups": Key("groups", names),
    "headers": Key("headers", headers),
    "timeout": Key("", _timeout),
    "max_concurrency": Key("max_concurrency", whole),
    "supports": Key("supports", names),
    "quirks": Key("quirks", _quirks),
    "discover": Key("discovers", flag),
}
VENDOR = {"name": Key("name", text(rows.Vendor.name))}
PRICE = {
    "from": Key("", moment),
    "input": Key("input", usd(rows.Price.input)),
    "cached_input": Key("cached_input", usd(rows.Price.cached_input)),
    "cache_write": Key("cache_write", usd(rows.Price.cache_write)),
    "output": Key("output", usd(rows.Price.output)),
    "source": Key("source", text(rows.Price.source)),
}
ROUTE_PRICE = {
    "input": Key("price_input", usd(rows.Route.price_input)),
    "output": Key("price_output", usd(rows.Route.price_output)),
}
ROUTE = {
    "provider": Key("", text(rows.Provider.slug)),
    "model": Key("", text(rows.Route.upstream_model)),
    "priority": Key("priority", whole),
    "weight": Key("weight", whole),
    "price": Key("", _route_price),
    "enabled": Key("is_active", flag),
}
RATE = {
    "rps": Key("rps", whole),
    "rpm": Key("rpm", whole),
    "tpm": Key("tpm", whole),
    "concurrency": Key("concurrency", whole),
}
MODEL = {
    "vendor": Key("", text(rows.Vendor.slug)),
    "name": Key("name", text(rows.Model.name)),
    "description": Key("description", text(rows.Model.description, lines=True)),
    "enabled": Key("is_active", flag),
    "context": Key("context", whole),
    "output": Key("output", whole),
    "limits": Key("limits", choice(list(rows.Model.Limits.values))),
    "rate": Key("", _rate),
    "price": Key("", _price),
    "prices": Key("", _prices),
    "input_modalities": Key("input_modalities", names),
    "output_modalities": Key("output_modalities", names),
    "supports": Key("supports", names),
    "strategy": Key("strategy", choice(list(rows.Model.Strategy.values))),
    "attempts": Key("attempts", at_least_one),
    "routes": Key("", _routes),
    "fallbacks": Key("fallbacks", names),
}
SECTIONS = ("version", "default_model", "providers", "vendors", "models", "aliases")

# --- the whole file --------------------------------------------------------------------------------------------------


def check(data: Any, known: Known) -> CatalogFile:
    """The file's content. Raises `Invalid` with every fault."""
    checker = Checker()
    if not isinstance(data, dict):
        raise Invalid([f"expected the keys {', '.join(SECTIONS)}, not {kind(data)}"])
    for key in data:
        if key not in SECTIONS:
            checker.fault(key, f"unknown key{closest(key, SECTIONS)}")
    if data.get("version") != VERSION or isinstance(data["version"], bool):
        checker.fault("version", f"expected {VERSION}" if "version" in data else f"missing: expected {VERSION}")
    default = data.get("default_model")
    file = CatalogFile(
        None if default is None else checker.value(text(rows.Catalog.default_model), default, "default_model"),
        _section(checker, data, "providers", rows.Provider.slug, _provider_entry),
        _section(checker, data, "vendors", rows.Vendor.slug, _vendor_entry),
        _section(checker, data, "models", rows.Model.slug, _model_entry),
        _section(checker, data, "aliases", rows.Alias.slug, text(rows.Model.slug)),
    )
    _check_references(checker, file, data, known)
    if checker.faults:
        raise Invalid(checker.faults)
    return file


def _section(checker: Checker, data: dict[str, Any], section: str, slug: Any, entry: Check) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in checker.mapping(data.get(section), section).items():
        path = f"{section}.{name}"
        checker.value(text(slug), name, path)
        result[name] = checker.value(entry, value, path)
    return result


def _provider_entry(checker: Checker, value: Any, path: str) -> ProviderEntry:
    record = checker.record(value, path, PROVIDER, ["base_url"])
    columns = checker.by_column(rows.Provider, record, PROVIDER)
    columns |= checker.by_column(rows.Provider, record.get("timeout", {}), TIMEOUT)
    return ProviderEntry(columns, record.get("api_key"), record.get("credentials", {}))


def _vendor_entry(checker: Checker, value: Any, path: str) -> Columns:
    return checker.by_column(rows.Vendor, checker.record(value, path, VENDOR, ["name"]), VENDOR)


def _model_entry(checker: Checker, value: Any, path: str) -> ModelEntry:
    record = checker.record(value, path, MODEL, ["vendor"])
    if "price" in record and "prices" in record:
        checker.fault(f"{path}.prices", "price is there already: give the one or the other")
    routes: dict[tuple[str, str], Columns] = {}
    slug = path.removeprefix("models.")
    for index, route in enumerate(record.get("routes", [])):
        way = (route.get("provider", ""), route.get("model", slug))
        if way in routes:
            checker.fault(f"{path}.routes[{index}]", "this provider and model are there already")
        prices = checker.by_column(rows.Route, route.get("price", {}), ROUTE_PRICE)
        routes[way] = {**checker.by_column(rows.Route, route, ROUTE), **prices}
    columns = checker.by_column(rows.Model, record, MODEL)
    columns |= checker.by_column(rows.Model, record.get("rate", {}), RATE)
    return ModelEntry(columns, record.get("vendor", ""), routes, record.get("prices") or record.get("price") or {})


def _check_references(checker: Checker, file: CatalogFile, data: dict[str, Any], known: Known) -> None:
    """That every name a file refers to is there. Routes are read from `data`: a fault tells their place."""

    def refer(path: str, what: str, name: Any, *sources: Collection[str]) -> None:
        there = set().union(*sources)
        if isinstance(name, str) and name and name not in there:
            checker.fault(path, f"no {what} {name!r} {known.where}{closest(name, there)}")

    models, aliases = (file.models, known.models), (file.aliases, known.aliases, NAMES)
    for slug, model in file.models.items():
        path = f"models.{slug}"
        refer(f"{path}.vendor", "vendor", model.vendor, file.vendors, known.vendors)
        listed = data["models"][slug].get("routes") if isinstance(data["models"][slug], dict) else None
        for index, route in enumerate(listed if isinstance(listed, list) else []):
            name = route.get("provider") if isinstance(route, dict) else None
            refer(f"{path}.routes[{index}].provider", "provider", name, file.providers, known.providers)
        for index, name in enumerate(model.columns["fallbacks"]):
            refer(f"{path}.fallbacks[{index}]", "model or alias", name, *models, *aliases)
        if slug in known.aliases and slug not in file.aliases:
            checker.fault(path, "the catalog has an alias of this name")
    for slug, target in file.aliases.items():
        refer(f"aliases.{slug}", "model", target, *models)
        if slug in file.models or slug in known.models:
            checker.fault(f"aliases.{slug}", "a model has this name")
    refer("default_model", "model or alias", file.default_model, *models, *aliases)
