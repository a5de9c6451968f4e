"""The catalog as a file: `load` makes the database what a file says, `export` writes such a file.

`manage.py catalog` and `kodna.first_run` are the callers. What a file names becomes as the file has it, a key left out
being its default, but for this: a credential (and a header that holds one) which the file leaves out is kept, and so
are prices from other dates and routes that discovery made. What a file does not name stays, unless `prune`: one of a
provider's several credentials too.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.db import models, transaction

from models_catalog import catalog_schema as schema
from models_catalog import catalog_yaml
from models_catalog import models as rows
from models_catalog.aliases import NAMES
from models_catalog.catalog_schema import CatalogFile, Columns, Key, Known
from models_catalog.catalog_yaml import Flow, FlowList, Invalid

__all__ = ["Invalid", "as_data", "builtin_data", "export", "load", "load_builtin", "load_demo", "lock", "over_current"]

_HERE = Path(__file__).parent
_FILE_KEYS = {"is_active": "enabled", "discovers": "discover"} | {
    key.column: f"{group}.{name}"
    for group, keys in (("timeout", schema.TIMEOUT), ("rate", schema.RATE), ("price", schema.ROUTE_PRICE))
    for name, key in keys.items()
}


# --- export ----------------------------------------------------------------------------------------------------------


def export() -> str:
    """The catalog as a file's text. Credentials only as `env:` references; what discovery made is left out."""
    return catalog_yaml.write(as_data())


def as_data() -> dict[str, Any]:
    named = list(rows.Model.objects.select_related("vendor").prefetch_related("routes__provider", "prices"))
    providers = rows.Provider.objects.order_by("slug").prefetch_related("credentials")
    aliases = {alias.slug: alias.model.slug for alias in rows.Alias.objects.select_related("model")}
    default = rows.Catalog.objects.filter(pk=1).values_list("default_model", flat=True).first() or ""
    there = {model.slug for model in named} | {*aliases, *NAMES}
    referred = {*aliases.values(), default} | {name for model in named for name in model.fallbacks}
    data = {
        "version": schema.VERSION,
        "default_model": default if default in there else None,
        "providers": {row.slug: _provider_data(row) for row in providers},
        "vendors": {row.slug: Flow(name=row.name) for row in rows.Vendor.objects.order_by("position", "name")},
        "models": {
            model.slug: _model_data(model, there)
            for model in named
            if model.slug in referred or not made_by_discovery(model) or _said(model, schema.MODEL | schema.RATE)
        },
        "aliases": aliases,
    }
    return {key: value for key, value in data.items() if value not in (None, {})}


def made_by_discovery(model: rows.Model) -> bool:
    """Whether the model is there only because a provider lists it."""
    routes = model.routes.all()
    return bool(routes) and all(route.discovered for route in routes) and not model.prices.all()


def _said(row: models.Model, keys: dict[str, Key]) -> dict[str, Any]:
    """The keys whose columns are not at their default."""
    return {
        name: _written(getattr(row, key.column))
        for name, key in keys.items()
        if key.column and getattr(row, key.column) != schema.column_default(type(row), key.column)
    }


def _written(value: Any) -> Any:
    if isinstance(value, list):
        return FlowList(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else Decimal(str(value))
    return value


def _in_order(data: dict[str, Any], keys: dict[str, Key]) -> dict[str, Any]:
    return {key: data[key] for key in keys if key in data}


def _provider_data(row: rows.Provider) -> dict[str, Any]:
    data = {"dialect": row.dialect, **_said(row, schema.PROVIDER), "base_url": _without_password(row.base_url)}
    if row.api_key and row.api_key.startswith("env:"):
        data["api_key"] = row.api_key
    data["credentials"] = [_credential_data(other) for other in row.credentials.all()] or None
    if timeout := _said(row, schema.TIMEOUT):
        data["timeout"] = Flow(timeout)
    headers = {name: text for name, text in row.headers.items() if not rows.SECRET_HEADER.search(name)}
    data["headers"] = dict(sorted(headers.items())) or None  # PostgreSQL keeps no order of its own
    return {key: value for key, value in _in_order(data, schema.PROVIDER).items() if value is not None}


def _credential_data(row: rows.Credential) -> Flow:
    data = {"name": row.name, **_said(row, schema.CREDENTIAL)}
    if row.api_key and row.api_key.startswith("env:"):
        data["api_key"] = row.api_key
    return Flow(_in_order(data, schema.CREDENTIAL))


def _without_password(url: str) -> str:
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def _model_data(row: rows.Model, there: set[str]) -> dict[str, Any]:
    data = {"vendor": row.vendor.slug, **_said(row, schema.MODEL)}
    if rate := _said(row, schema.RATE):
        data["rate"] = Flow(rate)
    data["fallbacks"] = FlowList(name for name in row.fallbacks if name in there)
    prices = [_price_data(price) for price in sorted(row.prices.all(), key=lambda price: price.valid_from)]
    data["price" if len(prices) == 1 else "prices"] = prices[0] if len(prices) == 1 else prices
    routes = sorted(row.routes.all(), key=lambda route: (route.priority, route.pk))
    data["routes"] = [_route_data(route) for route in routes if not route.discovered]
    return {key: value for key, value in _in_order(data, schema.MODEL).items() if value != []}


def _price_data(row: rows.Price) -> Flow:
    since = row.valid_from.astimezone(UTC)
    midnight = (since.hour, since.minute, since.second, since.microsecond) == (0, 0, 0, 0)
    data = _said(row, schema.PRICE)
    if since != schema.EPOCH:
        data["from"] = since.date().isoformat() if midnight else since.isoformat()
    return Flow(_in_order(data, schema.PRICE))


def _route_data(row: rows.Route) -> Flow:
    data = {**_said(row, schema.ROUTE), "provider": row.provider.slug, "model": row.upstream_model}
    if price := _said(row, schema.ROUTE_PRICE):
        data["price"] = Flow(price)
    return Flow(_in_order({**data, "priority": row.priority}, schema.ROUTE))


# --- load ------------------------------------------------------------------------------------------------------------


def load(data: Any, *, dry_run: bool = False, prune: bool = False) -> list[str]:
    """Make the catalog what the file says, whole or not at all. Gives the changes, a line each.

    A dry run does the same and takes it back, so that what it tells is what a load does. Raises `Invalid`.
    """
    with transaction.atomic():
        lock()
        loading = _Loading(schema.check(data, _known(prune)), prune)
        loading.run()
        if dry_run:
            transaction.set_rollback(True)
    return loading.changes


def lock() -> None:
    """One load or discovery at a time, until the transaction ends. SQLite's transactions exclude each other anyway."""
    rows.Catalog.objects.get_or_create(pk=1)
    rows.Catalog.objects.select_for_update().get(pk=1)


def _known(prune: bool) -> Known:
    def slugs(query: Iterable[Any]) -> set[str]:
        return {row.slug for row in query}

    if not prune:
        return Known(
            slugs(rows.Provider.objects.all()),
            slugs(rows.Vendor.objects.all()),
            slugs(rows.Model.objects.all()),
            slugs(rows.Alias.objects.all()),
            "in this file or the catalog",
        )
    models = rows.Model.objects.prefetch_related("routes", "prices")
    return Known(models=slugs(model for model in models if made_by_discovery(model)))


class _Loading:
    """One load; `changes` fills as rows are written."""

    def __init__(self, file: CatalogFile, prune: bool) -> None:
        self.file = file
        self.prune = prune
        self.changes: list[str] = []
        self.added: set[models.Model] = set()

    def run(self) -> None:
        for slug, provider in self.file.providers.items():
            self.write_provider(slug, provider)
        for slug, vendor in self.file.vendors.items():
            self.row(rows.Vendor.objects, slug, f"vendors.{slug}", vendor)
        self.write_models()
        self.write_aliases()
        self.write_default_model()
        if self.prune:
            self.remove_unnamed()
        self.order()

    def note(self, sign: str, path: str, text: str = "") -> None:
        self.changes.append(f"{sign} {path}: {text}" if text else f"{sign} {path}")

    def update(self, row: models.Model, path: str, columns: Columns) -> None:
        changed = {column: value for column, value in columns.items() if getattr(row, column) != value}
        for column, value in changed.items():
            old, new = shown(column, getattr(row, column)), shown(column, value)
            self.note("~", f"{path}.{_FILE_KEYS.get(column, column)}", f"{old} → {new}" if old != new else "changed")
            setattr(row, column, value)
        if changed:
            row.save(update_fields=list(changed))

    def row(self, manager: models.Manager[Any], slug: str, path: str, columns: Columns, found: Any = None) -> Any:
        """The row of this slug, made or brought up to date."""
        found = found or manager.filter(slug=slug).first()
        if found is not None:
            self.update(found, path, columns)
            return found
        made = manager.create(slug=slug, **columns)
        self.added.add(made)
        self.note("+", path)
        return made

    def write_provider(self, slug: str, entry: schema.ProviderEntry) -> None:
        columns = dict(entry.columns)
        if entry.api_key is not None:
            columns["api_key"] = entry.api_key
        found = rows.Provider.objects.filter(slug=slug).first()
        if found is not None:
            secret = {name: text for name, text in found.headers.items() if rows.SECRET_HEADER.search(name)}
            columns["headers"] = {**secret, **columns["headers"]}
        row = self.row(rows.Provider.objects, slug, f"providers.{slug}", columns, found)
        self.write_credentials(row, f"providers.{slug}", entry.credentials)

    def write_credentials(self, provider: rows.Provider, path: str, wanted: dict[str, schema.CredentialEntry]) -> None:
        current = {row.name: row for row in provider.credentials.all()}
        for name, entry in wanted.items():
            where = f"{path}.credentials[{name}]"
            columns = entry.columns if entry.api_key is None else {**entry.columns, "api_key": entry.api_key}
            found = current.pop(name, None)
            if found is not None:
                self.update(found, where, columns)
                continue
            provider.credentials.create(name=name, **columns)
            if provider not in self.added:
                self.note("+", where)
        for name, row in current.items() if self.prune else ():
            row.delete()
            self.note("-", f"{path}.credentials[{name}]")

    def write_models(self) -> None:
        providers = {row.slug: row for row in rows.Provider.objects.all()}
        vendors = {row.slug: row for row in rows.Vendor.objects.all()}
        current = rows.Model.objects.select_related("vendor").prefetch_related("routes__provider", "prices")
        known = {row.slug: row for row in current}
        for slug, entry in self.file.models.items():
            path = f"models.{slug}"
            columns = {"vendor": vendors[entry.vendor], **entry.columns}
            row = self.row(rows.Model.objects, slug, path, columns, known.get(slug))
            self.write_routes(row, path, entry.routes, providers)
            self.write_prices(row, path, entry.prices)

    def write_routes(
        self,
        model: rows.Model,
        path: str,
        wanted: dict[tuple[str, str], Columns],
        providers: dict[str, rows.Provider],
    ) -> None:
        current = {(row.provider.slug, row.upstream_model): row for row in model.routes.all()}
        for (provider, upstream), columns in wanted.items():
            where = f"{path}.routes[{provider}: {upstream}]"
            found = current.pop((provider, upstream), None)
            if found is not None:
                self.update(found, where, {**columns, "discovered": False})
                continue
            rows.Route.objects.create(model=model, provider=providers[provider], upstream_model=upstream, **columns)
            if model not in self.added:
                self.note("+", where)
        for (provider, upstream), row in current.items():
            if not row.discovered:
                row.delete()
                self.note("-", f"{path}.routes[{provider}: {upstream}]")

    def write_prices(self, model: rows.Model, path: str, wanted: dict[datetime, Columns]) -> None:
        current = {row.valid_from: row for row in model.prices.all()}
        for since, columns in wanted.items():
            where = f"{path}.price[{since:%Y-%m-%d}]"
            found = current.pop(since, None)
            if found is not None:
                self.update(found, where, columns)
                continue
            rows.Price.objects.create(model=model, valid_from=since, **columns)
            if model not in self.added:
                self.note("+", where)
        for since, row in current.items() if self.prune else ():
            row.delete()
            self.note("-", f"{path}.price[{since:%Y-%m-%d}]")

    def write_aliases(self) -> None:
        targets = {row.slug: row for row in rows.Model.objects.filter(slug__in=self.file.aliases.values())}
        for slug, target in self.file.aliases.items():
            found = rows.Alias.objects.select_related("model").filter(slug=slug).first()
            self.row(rows.Alias.objects, slug, f"aliases.{slug}", {"model": targets[target]}, found)

    def write_default_model(self) -> None:
        if self.file.default_model is None and not self.prune:
            return
        wanted = self.file.default_model or ""
        row = rows.Catalog.objects.get(pk=1)
        if row.default_model != wanted:
            self.note("~", "default_model", f"{row.default_model or '(none)'} → {wanted or '(none)'}")
            row.default_model = wanted
            row.save(update_fields=["default_model"])

    def remove_unnamed(self) -> None:
        self.remove(rows.Alias.objects.exclude(slug__in=self.file.aliases), "aliases")
        unnamed = rows.Model.objects.exclude(slug__in=self.file.models).prefetch_related("routes__provider", "prices")
        self.remove([model for model in unnamed if not self.stays(model)], "models")
        self.remove(rows.Provider.objects.exclude(slug__in=self.file.providers), "providers")
        empty = rows.Vendor.objects.exclude(slug__in=self.file.vendors).filter(models=None)
        self.remove(empty, "vendors")

    def stays(self, model: rows.Model) -> bool:
        """What discovery made stays as long as a provider of it does."""
        served = any(route.provider.slug in self.file.providers for route in model.routes.all())
        return made_by_discovery(model) and served

    def remove(self, unnamed: Iterable[Any], section: str) -> None:
        for row in list(unnamed):
            self.note("-", f"{section}.{row.slug}")
            row.delete()

    def order(self) -> None:
        vendors = sorted(rows.Vendor.objects.all(), key=lambda row: (row.position, row.name))
        self.arrange(vendors, list(self.file.vendors), "vendors")
        by_vendor: dict[str, list[rows.Model]] = {row.slug: [] for row in vendors}
        for model in rows.Model.objects.select_related("vendor").order_by("position", "slug"):
            by_vendor[model.vendor.slug].append(model)
        for vendor, group in by_vendor.items():
            named = [slug for slug, entry in self.file.models.items() if entry.vendor == vendor]
            self.arrange(group, named, f"models of {vendor}")

    def arrange(self, group: Sequence[Any], named: list[str], what: str) -> None:
        """Bring the rows of one list into the file's order. Numbers change only where the order does."""
        before = [row.slug for row in group if row not in self.added]
        wanted = merged_order(before, named)
        if wanted == before:
            return
        if [slug for slug in wanted if slug in set(before)] != before:
            self.note("~", what, f"order {', '.join(before)} → {', '.join(wanted)}")
        by_slug = {row.slug: row for row in group}
        for position, slug in enumerate(wanted):
            row = by_slug[slug]
            if row.position != position:
                row.position = position
                row.save(update_fields=["position"])


def merged_order(before: list[str], named: list[str]) -> list[str]:
    """`before` with the named ones in their own order; a new one comes after the one named before it."""
    there = set(before)
    known = [name for name in named if name in there]
    places = iter(known)
    result = [next(places) if name in set(known) else name for name in before]
    place = result.index(known[0]) if known else len(result)
    for name in named:
        if name in there:
            place = result.index(name)
        else:
            result.insert(place, name)
        place += 1
    return result


def shown(column: str, value: Any) -> str:
    """A value in a line that tells a change: never a credential."""
    if column == "api_key":
        return value if value and value.startswith("env:") else "(a stored key)" if value != "" else "(none)"
    if column == "headers":
        return f"{{{', '.join(sorted(value))}}}"
    if column == "base_url":
        return _without_password(str(value))
    if isinstance(value, rows.Vendor | rows.Model):
        return value.slug
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return "(none)" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


# --- the built-in catalog, and files laid over the catalog ---------------------------------------------------------


def builtin_data(demo: bool) -> dict[str, Any]:
    data: dict[str, Any] = catalog_yaml.read((_HERE / "builtin.yaml").read_bytes())
    if not demo:
        return data
    extra = _demo_data()
    return {
        **data,
        **{section: {**data.get(section, {}), **extra[section]} for section in extra if section != "version"},
    }


def _demo_data() -> dict[str, Any]:
    data: dict[str, Any] = catalog_yaml.read((_HERE / "demo.yaml").read_bytes())
    return data


def load_demo() -> list[str]:
    """The demonstration alone, beside what is there."""
    return load(_demo_data())


def load_builtin(demo: bool, *, dry_run: bool = False, prune: bool = False) -> list[str]:
    return load(builtin_data(demo), dry_run=dry_run, prune=prune)


def over_current(data: dict[str, Any]) -> dict[str, Any]:
    """An import laid over the catalog: what it does not say of a provider or a model that is there stays as it is."""
    current = as_data()
    result = dict(data)
    for section in ("providers", "models"):
        there = current.get(section, {})
        result[section] = {name: _over(there.get(name, {}), entry) for name, entry in data.get(section, {}).items()}
    result["vendors"] = {
        name: current.get("vendors", {}).get(name, entry) for name, entry in data.get("vendors", {}).items()
    }
    return result


def _over(current: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    if "price" in entry or "prices" in entry:
        current = {key: value for key, value in current.items() if key not in {"price", "prices"}}
    # An importer can only guess the vendor.
    return {**current, **entry, **({"vendor": current["vendor"]} if "vendor" in current else {})}
