"""The snapshot holds what can be asked and answered now, with credentials opened and references resolved."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from models_catalog import catalog_file, catalog_yaml, snapshot
from models_catalog.models import Alias, Announcement, Catalog, Credential, Model, Price, Provider, Route
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
    assert (whole.version, whole.default_model, whole.aliases["fast"]) == (snapshot.version(), "m", "m")
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
    absent = snapshot.load().models["m"].absent
    assert [(each.provider, each.model, each.why) for each in absent] == [("p", "first", reason)]


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
    assert [each.why for each in snapshot.load().models["m"].absent] == ["this route is switched off"]


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


# --- several credentials ---------------------------------------------------------------------------------------------


def add(name: str, **fields: Any) -> Credential:
    return Provider.objects.get(slug="p").credentials.create(**{"name": name, "api_key": f"sk-{name}", **fields})


def shares() -> list[tuple[str, str, float]]:
    routes = snapshot.load().models["m"].routes
    return [(way.provider.credential_name, way.provider.api_key, way.weight) for way in routes if way.priority == 1]


def test_each_credential_is_a_route_with_its_share() -> None:
    Route.objects.filter(provider__slug="p").update(weight=8)
    second, third = add("second"), add("third", weight=2)
    assert shares() == [("", "sk-secret", 2), ("second", "sk-second", 2), ("third", "sk-third", 4)]
    providers = [route.provider for route in snapshot.load().models["m"].routes]
    assert [provider.credential for provider in providers] == [0, second.pk, third.pk, 0]
    assert [provider.name for provider in providers] == ["p", "p", "p", "q"]
    assert len({route.way for route in snapshot.load().models["m"].routes}) == 4


def test_without_one_of_its_own_a_provider_has_only_the_others() -> None:
    Provider.objects.filter(slug="p").update(api_key="")
    assert shares() == [("", "", 1)]
    add("second")
    assert shares() == [("second", "sk-second", 1)]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"api_key": "env:NOT_SET"}, "credential bad: NOT_SET is not set in the environment"),
        ({"is_active": False}, "credential bad: this credential is switched off"),
        ({"api_key": ""}, "credential bad: no credential is stored: enter one"),
    ],
)
def test_a_credential_that_cannot_be_used_leaves_the_others_alive(fields: dict[str, Any], why: str) -> None:
    add("bad", weight=7, **fields)
    add("good")
    assert shares() == [("", "sk-secret", 0.5), ("good", "sk-good", 0.5)]
    assert [each.why for each in snapshot.load().models["m"].absent] == [why]
    assert snapshot.why_unusable(Provider.objects.get(slug="p")) == ""


def test_one_that_cannot_be_decrypted_too(settings: Any) -> None:
    right = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["another"]
    add("good")
    settings.ENCRYPTION_KEYS = ["another again", "another"]
    assert shares() == [("good", "sk-good", 1)]
    settings.ENCRYPTION_KEYS = right


def test_where_none_can_be_used_each_says_why() -> None:
    Provider.objects.filter(slug="p").update(api_key="env:NOT_SET")
    add("off", is_active=False)
    why = "its own credential: NOT_SET is not set in the environment; credential off: this credential is switched off"
    assert snapshot.why_unusable(Provider.objects.get(slug="p")) == why
    assert names() == ["q"]


def test_a_changed_key_or_address_is_another_place() -> None:
    def place() -> str:
        return snapshot.load().models["m"].routes[0].provider.place

    places = [place(), place()]
    Provider.objects.filter(slug="p").update(max_concurrency=9)
    places.append(place())
    assert len(set(places)) == 1
    Provider.objects.filter(slug="p").update(base_url="https://api.example.org/v1")
    places.append(place())
    row = Provider.objects.get(slug="p")
    row.api_key = "sk-another"
    row.save()
    assert len({*places, place()}) == 3
    assert "sk-another" not in place()


# --- how routes are chosen -------------------------------------------------------------------------------------------


def test_strategy_attempts_and_what_a_provider_charges() -> None:
    model = snapshot.load().models["m"]
    assert (model.strategy, model.attempts, model.routes[0].cost) == ("weighted", 6, None)
    Model.objects.filter(slug="m").update(strategy="cheapest", attempts=2)
    Route.objects.filter(provider__slug="p").update(price_input=Decimal("0.1"), price_output=Decimal("0.4"))
    Route.objects.filter(provider__slug="q").update(price_input=Decimal("0.1"))
    model = snapshot.load().models["m"]
    assert (model.strategy, model.attempts) == ("cheapest", 2)
    assert [route.cost for route in model.routes] == [700_000, None]


# --- aliases ---------------------------------------------------------------------------------------------------------


def test_named_aliases_that_nobody_set_are_chosen() -> None:
    found = snapshot.load().aliases
    assert (found["best"], found["agent"], found["fast"]) == ("m", "m", "m")
    assert "vision" not in found


def test_what_the_operator_set_wins() -> None:
    Alias.objects.create(slug="best", model=Model.objects.get(slug="n"))
    assert snapshot.load().aliases["best"] == "n"


@pytest.mark.parametrize("active", [True, False])
def test_a_model_of_that_name_wins(active: bool) -> None:
    Model.objects.filter(slug="n").update(slug="best", is_active=active)
    assert "best" not in snapshot.load().aliases


def test_an_operators_alias_whose_model_is_off_is_not_chosen_anew() -> None:
    Alias.objects.create(slug="best", model=Model.objects.get(slug="n"))
    Model.objects.filter(slug="n").update(is_active=False)
    assert "best" not in snapshot.load().aliases


@pytest.mark.parametrize("change", [{"output_modalities": ["image"]}, {"is_active": False}])
def test_only_models_that_can_answer_with_text_are_chosen(change: dict[str, Any]) -> None:
    Model.objects.filter(slug="m").update(**change)
    assert "best" not in snapshot.load().aliases


def test_an_endpoint_for_embeddings_alone_does_not_chat() -> None:
    Provider.objects.update(supports=["embeddings"])
    assert "best" not in snapshot.load().aliases


# --- announcements ---------------------------------------------------------------------------------------------------


def test_announcements_that_are_not_over() -> None:
    hour, now = timedelta(hours=1), timezone.now()
    said = {"now": (-hour, hour), "open": (-2 * hour, None), "later": (hour, 2 * hour), "over": (-2 * hour, -hour)}
    for title, (begins, ends) in said.items():
        Announcement.objects.create(title=title, begins_at=now + begins, ends_at=ends and now + ends)
    Announcement.objects.create(title="off", is_active=False)
    found = snapshot.load().announcements
    assert [each.title for each in found] == ["later", "now", "open"]
    assert [each.in_force(now.timestamp()) for each in found] == [False, True, True]
    assert (found[1].kind, found[1].begins, found[2].ends) == ("info", (now - hour).timestamp(), None)
