"""The snapshot holds what can be asked and answered now, with credentials opened and references resolved."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from models_catalog import catalog_file, catalog_yaml, snapshot
from models_catalog.models import Catalog, Model, Price, Provider
from models_catalog.snapshot import Unusable

pytestmark = pytest.mark.django_db

FILE = """
version: 1
default_model: m
providers:
  p:
    base_url: "https://api.example.com/v1/"
    api_key: sk-secret
    groups: [g]
    headers: {X-Title: Kodna}
    quirks: [no_stream_options]
    timeout: {connect: 1, first_byte: 2, idle: 3, total: 4}
    max_concurrency: 5
  q: {base_url: "${Q_URL:-http://127.0.0.1:1}/v1", api_key: env:Q_KEY}
vendors: {v: {name: Vee}, w: {name: Double}}
models:
  n: {vendor: w}
  m:
    vendor: v
    context: 8192
    output: 1024
    limits: enforce
    supports: [tools]
    price: {input: 0.15, output: 0.60, cached_input: 0.075}
    routes: [{provider: q, model: second, priority: 2}, {provider: p, model: first}]
    fallbacks: [n]
aliases: {fast: m}
"""


@pytest.fixture(autouse=True)
def _catalog(settings: Any) -> None:
    settings.PROVIDER_ENV = {"Q_KEY": "sk-from-environment"}
    settings.DEMO = False
    catalog_file.load(catalog_yaml.read(FILE))


def names(model: str = "m") -> list[str]:
    return [route.provider.name for route in snapshot.load().models[model].routes]


def test_it_works() -> None:
    whole = snapshot.load()
    assert list(whole.models) == ["m", "n"]  # in the order of the vendors
    assert (whole.version, whole.default_model, whole.aliases) == (snapshot.version(), "m", {"fast": "m"})
    model = whole.models["m"]
    assert (model.name, model.vendor.name, model.context, model.output, model.enforce) == ("m", "Vee", 8192, 1024, True)
    assert (model.supports, model.fallbacks, model.input_modalities) == ({"tools"}, ("n",), ("text",))
    assert [(route.provider.name, route.model) for route in model.routes] == [("p", "first"), ("q", "second")]


def test_a_provider() -> None:
    provider = snapshot.load().models["m"].routes[0].provider
    assert (provider.base_url, provider.api_key) == ("https://api.example.com/v1", "sk-secret")
    assert (provider.groups, provider.quirks, provider.supports) == ({"g"}, {"no_stream_options"}, {"chat"})
    assert provider.headers == (("X-Title", "Kodna"),)
    assert (provider.connect_timeout, provider.first_byte_timeout) == (1, 2)
    assert (provider.idle_timeout, provider.total_timeout, provider.max_concurrency) == (3, 4, 5)
    assert "sk-secret" not in repr(provider)
    assert "sk-secret" not in repr(snapshot.load())


def test_references_to_the_environment(settings: Any) -> None:
    provider = snapshot.load().models["m"].routes[1].provider
    assert (provider.base_url, provider.api_key) == ("http://127.0.0.1:1/v1", "sk-from-environment")
    settings.PROVIDER_ENV["Q_URL"] = "http://127.0.0.1:2"
    assert snapshot.load().models["m"].routes[1].provider.base_url == "http://127.0.0.1:2/v1"


def test_a_provider_whose_variable_is_not_set_has_no_route(settings: Any) -> None:
    settings.PROVIDER_ENV = {}
    assert names() == ["p"]
    assert snapshot.why_unusable(Provider.objects.get(slug="q")) == "Q_KEY is not set in the environment"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"is_active": False}, "switched off"),
        ({"dialect": "fal"}, "this version does not speak the dialect 'fal'"),
        ({"discovers": True, "reachable": False}, "it does not answer"),
        ({"base_url": "${NOT_SET}/v1"}, "NOT_SET is not set in the environment"),
    ],
)
def test_a_provider_that_cannot_be_asked(change: dict[str, Any], reason: str) -> None:
    Provider.objects.filter(slug="p").update(**change)
    assert names() == ["q"]
    assert snapshot.why_unusable(Provider.objects.get(slug="p")) == reason
    with pytest.raises(Unusable):
        snapshot.freeze_provider(Provider.objects.get(slug="p"))


def test_only_discovery_says_that_a_provider_is_away() -> None:
    Provider.objects.filter(slug="p").update(discovers=False, reachable=False)
    assert names() == ["p", "q"]


def test_a_credential_that_cannot_be_read(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ["another"]
    assert names() == []
    assert "enter it again" in snapshot.why_unusable(Provider.objects.get(slug="p"))


def test_a_route_that_is_switched_off() -> None:
    Model.objects.get(slug="m").routes.filter(provider__slug="p").update(is_active=False)
    assert names() == ["q"]


def test_a_model_that_is_switched_off_is_gone_with_its_aliases() -> None:
    Model.objects.filter(slug="m").update(is_active=False)
    whole = snapshot.load()
    assert list(whole.models) == ["n"]
    assert whole.aliases == {}


def test_a_model_without_a_live_route_is_listed() -> None:
    Provider.objects.update(is_active=False)
    assert names() == []


def test_prices_are_per_token_and_the_newest_is_first() -> None:
    model = Model.objects.get(slug="m")
    Price.objects.create(model=model, valid_from=datetime(2026, 1, 1, tzinfo=UTC), input=Decimal("0.000001"))
    new, old = snapshot.load().models["m"].prices
    assert (new.since, new.input, new.output) == (1767225600.0, 1, None)
    assert (old.input, old.output, old.cached_input, old.cache_write) == (150_000, 600_000, 75_000, None)


def test_an_empty_catalog() -> None:
    for table in (Model, Provider, Catalog):
        table.objects.all().delete()
    assert snapshot.load() == snapshot.Snapshot(snapshot.version(), {}, {}, "")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("http://${A}/v1", "http://a/v1"), ("${B:-b}", "b"), ("${B:-}x", "x"), ("${A}${A}", "aa"), ("$A", "$A")],
)
def test_expand(settings: Any, text: str, expanded: str) -> None:
    settings.PROVIDER_ENV = {"A": "a", "B": ""}
    assert snapshot.expand(text) == expanded


def test_expand_needs_its_variables(settings: Any) -> None:
    settings.PROVIDER_ENV = {"A": ""}
    for text in ("${A}", "${B}"):
        with pytest.raises(Unusable, match="is not set in the environment"):
            snapshot.expand(text)
