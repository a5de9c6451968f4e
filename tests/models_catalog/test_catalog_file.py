"""Loading a file makes the catalog what it says, whole or not at all; export writes such a file."""

from decimal import Decimal
from typing import Any

import pytest

from models_catalog import catalog_file, catalog_yaml, snapshot
from models_catalog.catalog_file import Invalid
from models_catalog.models import Alias, Catalog, Credential, Model, Price, Provider, Route, Vendor

pytestmark = pytest.mark.django_db

FILE = """
version: 1
default_model: a
providers:
  p:
    base_url: "https://api.example.com/v1"
    api_key: env:P_KEY
    credentials: [{name: second, api_key: env:P_KEY_2}, {name: third, api_key: sk-third, weight: 2, enabled: false}]
    groups: [g]
  q: {base_url: "http://127.0.0.1:1/v1", api_key: sk-literal, headers: {X-Title: Kodna, X-Auth: sk-header}}
vendors: {v: {name: Vee}, w: {name: Double}}
models:
  b: {vendor: v, context: 8192, price: {input: 0.15, output: 0.60, source: here}, routes: [{provider: p}]}
  a:
    vendor: v
    supports: [tools]
    rate: {rpm: 10, concurrency: 2}
    strategy: cheapest
    attempts: 3
    routes:
      - {provider: q, model: up, priority: 3, weight: 2, enabled: false, price: {input: 0.1, output: 0.4}}
      - {provider: p}
    fallbacks: [b]
  c: {vendor: w}
aliases: {fast: b}
"""


def load(text: str, **options: bool) -> list[str]:
    return catalog_file.load(catalog_yaml.read(text), **options)


def model(text: str, **options: bool) -> list[str]:
    """Loads a file with one model."""
    return load(f"version: 1\nmodels: {{{text}}}", **options)


@pytest.fixture
def loaded() -> None:
    load(FILE)


def test_it_works() -> None:
    changes = load(FILE)
    assert {"+ providers.p", "+ vendors.v", "+ models.a", "+ aliases.fast", "~ default_model: (none) → a"} <= {*changes}
    route = Route.objects.get(model__slug="a", provider__slug="q")
    assert (route.upstream_model, route.priority, route.weight, route.is_active) == ("up", 3, 2, False)
    price = Price.objects.get(model__slug="b")
    assert (price.input, price.output, price.cached_input, price.source) == (
        Decimal("0.15"),
        Decimal("0.6"),
        None,
        "here",
    )
    assert Model.objects.get(slug="a").fallbacks == ["b"]
    assert Alias.objects.get(slug="fast").model.slug == "b"
    assert Catalog.objects.get(pk=1).default_model == "a"


@pytest.mark.usefixtures("loaded")
def test_loading_twice_changes_nothing() -> None:
    before = snapshot.version()
    assert load(FILE) == []
    assert snapshot.version() == before


def test_a_change_raises_the_version() -> None:
    before = snapshot.version()
    load(FILE)
    assert snapshot.version() > before


@pytest.mark.usefixtures("loaded")
def test_a_literal_credential_is_stored_encrypted() -> None:
    assert Provider.objects.get(slug="q").api_key == "sk-literal"
    stored = Provider.objects.extra(select={"raw": "api_key"}).values_list("raw", flat=True).get(slug="q")
    assert "sk-literal" not in stored


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("key", ["", "api_key: , "])
def test_a_provider_without_a_credential_in_the_file_keeps_its_own(key: str) -> None:
    load(f'version: 1\nproviders: {{q: {{{key}base_url: "http://127.0.0.1:2/v1"}}}}')
    row = Provider.objects.get(slug="q")
    assert (row.base_url, row.api_key) == ("http://127.0.0.1:2/v1", "sk-literal")
    assert row.headers == {"X-Auth": "sk-header"}  # it may be a credential; the other one is gone with the file


@pytest.mark.usefixtures("loaded")
def test_a_credential_that_cannot_be_read_is_left_as_it_is(settings: Any) -> None:
    right = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["another"]
    load('version: 1\nproviders: {q: {base_url: "http://127.0.0.1:2/v1"}}')
    settings.ENCRYPTION_KEYS = right
    assert Provider.objects.get(slug="q").api_key == "sk-literal"


def credentials() -> list[tuple[str, str | None, int, bool]]:
    found = Credential.objects.filter(provider__slug="p")
    return [(row.name, row.api_key, row.weight, row.is_active) for row in found]


SECOND, THIRD = ("second", "env:P_KEY_2", 1, True), ("third", "sk-third", 2, False)


@pytest.mark.usefixtures("loaded")
def test_a_provider_with_several_credentials() -> None:
    assert credentials() == [SECOND, THIRD]
    text = FILE.replace("env:P_KEY_2", "sk-new")
    assert load(text.replace("sk-third, weight: 2, enabled: false", "sk-third, weight: 5")) == [
        "~ providers.p.credentials[second].api_key: env:P_KEY_2 → (a stored key)",
        "~ providers.p.credentials[third].weight: 2 → 5",
        "~ providers.p.credentials[third].enabled: false → true",
    ]


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("kept", ["", "credentials: [{name: second}, {name: third, weight: 2, enabled: false}], "])
def test_a_credential_that_the_file_leaves_out_is_kept(kept: str) -> None:
    url = 'base_url: "https://api.example.com/v1", groups: [g]'
    assert load(f"version: 1\nproviders: {{p: {{{kept}{url}}}}}") == []
    assert credentials() == [SECOND, THIRD]


@pytest.mark.usefixtures("loaded")
def test_prune_removes_a_credential_that_the_file_does_not_name() -> None:
    text = FILE.replace(", {name: third, api_key: sk-third, weight: 2, enabled: false}", "")
    assert load(text) == []
    assert load(text, prune=True) == ["- providers.p.credentials[third]"]
    assert credentials() == [SECOND]


@pytest.mark.usefixtures("loaded")
def test_how_a_model_chooses_its_routes() -> None:
    row = Model.objects.get(slug="a")
    assert (row.strategy, row.attempts, row.routes.get(provider__slug="q").price_output) == (
        "cheapest",
        3,
        Decimal("0.4"),
    )
    exported = catalog_yaml.read(catalog_file.export())["models"]
    assert (exported["a"]["strategy"], exported["a"]["attempts"]) == ("cheapest", 3)
    assert exported["a"]["routes"][1]["price"] == {"input": Decimal("0.1"), "output": Decimal("0.4")}
    assert not {"strategy", "attempts"} & set(exported["b"])
    assert load(FILE.replace("output: 0.4", "output: 0.5").replace("attempts: 3", "attempts: 4")) == [
        "~ models.a.attempts: 3 → 4",
        "~ models.a.routes[q: up].price.output: 0.4 → 0.5",
    ]


@pytest.mark.usefixtures("loaded")
def test_a_named_alias_as_default_model_is_exported() -> None:
    Catalog.objects.update(default_model="balanced")
    assert catalog_yaml.read(catalog_file.export())["default_model"] == "balanced"


@pytest.mark.usefixtures("loaded")
def test_a_dry_run_tells_the_difference_and_changes_nothing() -> None:
    before = (snapshot.version(), catalog_file.export())
    text = FILE.replace("8192", "4096").replace("default_model: a", "default_model: fast").replace("0.60", "0.5")
    assert load(text.replace("  c: {vendor: w}", "  d: {vendor: w}"), dry_run=True, prune=True) == [
        "~ models.b.context: 8192 → 4096",
        "~ models.b.price[2020-01-01].output: 0.6 → 0.5",
        "+ models.d",
        "~ default_model: a → fast",
        "- models.c",
    ]
    assert (snapshot.version(), catalog_file.export()) == before


@pytest.mark.usefixtures("loaded")
def test_the_limits_of_a_model() -> None:
    assert Model.objects.values_list("rps", "rpm", "tpm", "concurrency").get(slug="a") == (0, 10, 0, 2)
    assert "rate: {rpm: 10, concurrency: 2}" in catalog_file.export()
    assert load(FILE.replace("{rpm: 10, concurrency: 2}", "{rps: 1, rpm: 10}")) == [
        "~ models.a.rate.rps: 0 → 1",
        "~ models.a.rate.concurrency: 2 → 0",
    ]


def test_a_discovered_model_with_a_limit_is_exported() -> None:
    load(FILE)
    found = Model.objects.create(slug="found", vendor=Vendor.objects.get(slug="v"))
    Route.objects.create(model=found, provider=Provider.objects.get(slug="p"), upstream_model="f", discovered=True)
    assert "found" not in catalog_file.as_data()["models"]
    Model.objects.filter(slug="found").update(tpm=5)
    assert catalog_file.as_data()["models"]["found"]["rate"] == {"tpm": 5}


@pytest.mark.usefixtures("loaded")
def test_the_difference_never_tells_a_secret() -> None:
    text = FILE.replace("sk-literal", "sk-new").replace("sk-header", "sk-newer").replace("env:P_KEY\n", "sk-other\n")
    assert load(text) == [
        "~ providers.p.api_key: env:P_KEY → (a stored key)",
        "~ providers.q.headers: changed",
        "~ providers.q.api_key: changed",
    ]


@pytest.mark.usefixtures("loaded")
def test_a_file_with_a_fault_changes_nothing() -> None:
    before = catalog_file.export()
    with pytest.raises(Invalid) as caught:
        load("version: 1\nvendors: {v: {name: New}}\nmodels: {z: {vendor: v, routes: [{provider: nobody}]}}")
    assert caught.value.faults == ["models.z.routes[0].provider: no provider 'nobody' in this file or the catalog"]
    assert catalog_file.export() == before


@pytest.mark.usefixtures("loaded")
def test_what_the_file_does_not_name_stays() -> None:
    assert load("version: 1\nvendors: {u: {name: You}}") == ["+ vendors.u"]
    assert Model.objects.count() == 3


@pytest.mark.usefixtures("loaded")
def test_a_key_left_out_is_its_default() -> None:
    assert model("b: {vendor: v, routes: [{provider: p}]}") == ["~ models.b.context: 8192 → (none)"]


@pytest.mark.usefixtures("loaded")
def test_a_models_routes_are_those_of_the_file() -> None:
    kept = "vendor: v, supports: [tools], rate: {rpm: 10, concurrency: 2}, fallbacks: [b]"
    kept += ", strategy: cheapest, attempts: 3"
    changes = model(f"a: {{{kept}, routes: [{{provider: p}}, {{provider: p, model: x}}]}}")
    assert changes == ["+ models.a.routes[p: x]", "- models.a.routes[q: up]"]


@pytest.mark.usefixtures("loaded")
def test_prices_from_other_dates_stay() -> None:
    price = "{vendor: v, context: 8192, routes: [{provider: p}], price: {input: 1, from: 2026-01-01}}"
    assert model(f"b: {price}") == ["+ models.b.price[2026-01-01]"]
    assert Price.objects.filter(model__slug="b").count() == 2


@pytest.mark.usefixtures("loaded")
def test_prune_removes_what_the_file_does_not_name() -> None:
    text = """{version: 1, providers: {p: {base_url: "https://api.example.com/v1", groups: [g]}},
      vendors: {v: {name: Vee}}, models: {b: {vendor: v, context: 8192, routes: [{provider: p}]}}}"""
    assert load(text, prune=True) == [
        "- providers.p.credentials[second]",
        "- providers.p.credentials[third]",
        "- models.b.price[2020-01-01]",
        "~ default_model: a → (none)",
        "- aliases.fast",
        "- models.a",
        "- models.c",
        "- providers.q",
        "- vendors.w",
    ]
    assert load(text, prune=True) == []


@pytest.mark.usefixtures("loaded")
def test_a_pruning_file_may_refer_to_itself_only() -> None:
    with pytest.raises(Invalid, match=r"models\.b\.vendor: no vendor 'v' in this file"):
        model("b: {vendor: v}", prune=True)


@pytest.fixture
def discovered(loaded: None) -> Provider:
    """Ollama lists `local`, and `b` beside its route in the file."""
    row = Provider.objects.create(slug="ollama", base_url="http://127.0.0.1:1/v1", discovers=True)
    there = Model.objects.create(slug="local", vendor=Vendor.objects.create(slug="local", name="Local models"))
    for entry in (there, Model.objects.get(slug="b")):
        row.routes.create(model=entry, upstream_model=entry.slug, discovered=True)
    return row


WITH_OLLAMA = FILE.replace("  q: ", '  ollama: {base_url: "http://127.0.0.1:1/v1", discover: true}\n  q: ')


@pytest.mark.usefixtures("discovered")
def test_what_discovery_made_is_neither_pruned_nor_exported() -> None:
    assert load(WITH_OLLAMA, prune=True) == []
    exported = catalog_yaml.read(catalog_file.export())
    assert "local" not in exported["models"]
    assert exported["models"]["b"]["routes"] == [{"provider": "p", "model": "b", "priority": 1}]


@pytest.mark.usefixtures("discovered")
def test_what_discovery_made_goes_with_its_provider() -> None:
    changes = load(FILE, prune=True)
    assert changes == ["- models.local", "- providers.ollama", "- vendors.local"]


def test_a_discovered_model_that_an_operator_uses_is_exported(discovered: Provider) -> None:
    load("version: 1\naliases: {mine: local}")
    assert "local" in catalog_yaml.read(catalog_file.export())["models"]


def test_a_discovered_route_that_the_file_names_becomes_the_files(discovered: Provider) -> None:
    changes = model("local: {vendor: local, routes: [{provider: ollama}]}")
    assert changes == ["~ models.local.routes[ollama: local].discovered: true → false"]


@pytest.mark.usefixtures("loaded")
def test_the_order_is_the_files() -> None:
    assert [row.slug for row in Model.objects.all()] == ["b", "a", "c"]
    assert [row.slug for row in Vendor.objects.all()] == ["v", "w"]
    first, second = "vendors: {v: {name: Vee}, w: {name: Double}}", "vendors: {w: {name: Double}, v: {name: Vee}}"
    assert load(FILE.replace(first, second)) == ["~ vendors: order v, w → w, v"]
    assert [row.slug for row in Model.objects.all()] == ["c", "b", "a"]
    assert load(FILE.replace(first, second)) == []


@pytest.mark.parametrize(
    ("before", "named", "after"),
    [
        ("abc", "", "abc"),
        ("abc", "ca", "cba"),
        ("abc", "bxc", "abxc"),
        ("abc", "xb", "axbc"),
        ("abc", "xy", "abcxy"),
        ("", "xy", "xy"),
        ("abcd", "dxa", "dxbca"),
    ],
)
def test_the_order_of_a_file_within_a_longer_list(before: str, named: str, after: str) -> None:
    result = catalog_file.merged_order(list(before), list(named))
    assert sorted(result) == sorted({*before, *named})
    assert "".join(name for name in result if name in named) == named
    assert "".join(result) == after
    assert catalog_file.merged_order(result, list(named)) == result


@pytest.mark.usefixtures("loaded")
def test_export_then_load_is_the_identity() -> None:
    text = catalog_file.export()
    assert load(text, prune=True) == []
    for table in (Alias, Model, Provider, Vendor, Catalog):
        table.objects.all().delete()
    load(text)
    assert catalog_file.export() == text


@pytest.mark.usefixtures("loaded")
def test_an_export_holds_no_secret() -> None:
    Provider.objects.filter(slug="p").update(base_url="https://user:sk-password@api.example.com/v1")
    text = catalog_file.export()
    assert "sk-" not in text
    exported = catalog_yaml.read(text)["providers"]
    assert exported["p"]["api_key"] == "env:P_KEY"
    assert exported["p"]["credentials"] == [
        {"name": "second", "api_key": "env:P_KEY_2"},
        {"name": "third", "weight": 2, "enabled": False},
    ]
    assert exported["p"]["base_url"] == "https://api.example.com/v1"
    assert exported["q"]["headers"] == {"X-Title": "Kodna"}


def test_an_export_keeps_dates_and_times() -> None:
    price = "prices: [{input: 1, from: 2026-01-01}, {input: 2, from: 2026-02-01T12:30:00.5+00:00}]"
    load(f"version: 1\nvendors: {{v: {{name: V}}}}\nmodels: {{m: {{vendor: v, {price}}}}}")
    prices = catalog_yaml.read(catalog_file.export())["models"]["m"]["prices"]
    assert [entry["from"] for entry in prices] == ["2026-01-01", "2026-02-01T12:30:00.500000+00:00"]
    assert load(catalog_file.export(), prune=True) == []


@pytest.mark.usefixtures("loaded")
def test_an_export_leaves_out_names_that_lead_nowhere() -> None:
    Model.objects.filter(slug="a").update(fallbacks=["gone"])
    Catalog.objects.update(default_model="gone")
    assert "gone" not in catalog_file.export()


@pytest.mark.usefixtures("loaded")
def test_an_import_keeps_what_it_does_not_say() -> None:
    data = {
        "models": {"b": {"vendor": "guess", "routes": []}, "new": {"vendor": "v"}},
        "providers": {"p": {"groups": []}},
    }
    result = catalog_file.over_current({"version": 1, **data})
    assert result["models"]["b"]["vendor"] == "v"
    assert result["models"]["b"]["context"] == 8192
    assert result["models"]["b"]["routes"] == []
    assert result["models"]["new"] == {"vendor": "v"}
    assert result["providers"]["p"]["api_key"] == "env:P_KEY"


@pytest.mark.usefixtures("loaded")
def test_the_price_of_an_import_replaces_all() -> None:
    Price.objects.create(model=Model.objects.get(slug="b"), input=3)
    data = {"models": {"b": {"vendor": "v", "price": {"input": 2}}}}
    assert "prices" not in catalog_file.over_current(data)["models"]["b"]
