"""Every fault of a catalog file is found, with its path, in words; none tells a credential."""

import contextlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_catalog import catalog_schema, catalog_yaml
from models_catalog.catalog_schema import Known
from models_catalog.catalog_yaml import Invalid

GOOD = """
version: 1
default_model: quick
providers:
  p:
    base_url: "https://api.example.com/v1"
    api_key: env:P_KEY
    credentials: [{name: second, api_key: env:P_KEY_2, weight: 3}, {name: third, enabled: false}]
    timeout: {total: 9.5}
    headers: {X-Title: Kodna}
vendors: {v: {name: Vee}}
models:
  a/b:
    vendor: v
    context: 128000
    rate: {tpm: 90000}
    price: {input: 0.15, output: 1}
    strategy: least_busy
    attempts: 3
    routes: [{provider: p, model: upstream, priority: 2, price: {input: 0.1, output: 0.4}}, {provider: p}]
    fallbacks: [c, best]
  c: {vendor: v, prices: [{input: 1, from: 2025-01-31}, {input: 2, from: "2025-06-01T12:00:00+02:00"}]}
aliases: {quick: a/b}
"""
URL = "base_url: http://127.0.0.1:1/v1"


def check(text: str, known: Known | None = None) -> catalog_schema.CatalogFile:
    return catalog_schema.check(catalog_yaml.read(text), known or Known())


def faults(text: str) -> list[str]:
    """Of a text that is laid over a file without faults, section by section."""
    data: dict[str, Any] = catalog_yaml.read(GOOD)
    for section, content in catalog_yaml.read(text).items():
        both = isinstance(content, dict) and isinstance(data.get(section), dict)
        data[section] = {**data[section], **content} if both else content
    with pytest.raises(Invalid) as caught:
        catalog_schema.check(data, Known())
    return caught.value.faults


def test_it_works() -> None:
    file = check(GOOD)
    assert file.default_model == "quick"
    assert file.aliases == {"quick": "a/b"}
    assert file.providers["p"].api_key == "env:P_KEY"
    assert file.providers["p"].columns["total_timeout"] == 9.5
    assert file.providers["p"].columns["connect_timeout"] == 5
    assert file.models["a/b"].columns["context"] == 128000
    assert (file.models["a/b"].columns["tpm"], file.models["c"].columns["tpm"]) == (90000, 0)
    assert list(file.models["a/b"].routes) == [("p", "upstream"), ("p", "a/b")]
    assert file.models["a/b"].routes["p", "upstream"]["priority"] == 2


def test_what_a_file_says_of_routing() -> None:
    file = check(GOOD)
    columns, route = file.models["a/b"].columns, file.models["a/b"].routes["p", "upstream"]
    assert (columns["strategy"], columns["attempts"]) == ("least_busy", 3)
    assert (file.models["c"].columns["strategy"], file.models["c"].columns["attempts"]) == ("weighted", 6)
    assert (route["price_input"], route["price_output"]) == (Decimal("0.1"), Decimal("0.4"))
    second, third = file.providers["p"].credentials.values()
    assert (second.api_key, second.columns) == ("env:P_KEY_2", {"weight": 3, "is_active": True})
    assert (third.api_key, third.columns) == (None, {"weight": 1, "is_active": False})


def test_the_default_model_may_be_a_named_alias() -> None:
    assert check("version: 1\ndefault_model: balanced").default_model == "balanced"


def test_prices_hold_from_their_dates() -> None:
    models = check(GOOD).models
    assert models["a/b"].prices[catalog_schema.EPOCH]["input"] == Decimal("0.15")
    assert list(models["c"].prices) == [datetime(2025, 1, 31, tzinfo=UTC), datetime(2025, 6, 1, 10, tzinfo=UTC)]


def test_a_file_may_leave_out_every_section() -> None:
    assert check("version: 1").models == {}


def test_what_is_empty_counts_as_left_out() -> None:
    file = check(
        "version: 1\nmodels:\nproviders:\n  p: {base_url: 'http://127.0.0.1', api_key: }\n",
    )
    assert file.providers["p"].api_key is None


def test_every_fault_is_found_at_once() -> None:
    text = """
    versoin: 1
    providers: {q: {base_ulr: x, dialect: opneai}}
    models: {m: {vendor: w, context: many, routes: [{provider: p}, {provider: pp}], price: {input: -1}}}
    """
    assert faults(text) == [
        "versoin: unknown key (did you mean 'version'?)",
        "providers.q.base_ulr: unknown key (did you mean 'base_url'?)",
        "providers.q.base_url: missing",
        "providers.q.dialect: expected one of openai, anthropic, gemini, fal (did you mean 'openai'?)",
        "models.m.context: expected a whole number, not text",
        "models.m.price.input: Ensure this value is greater than or equal to 0.",
        "models.m.vendor: no vendor 'w' in this file",
        "models.m.routes[1].provider: no provider 'pp' in this file",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("version: 2", "version: expected 1"),
        ("version: true", "version: expected 1"),
        ("models: [a]", "models: expected a mapping, not a list"),
        ("models: {m: 5}", "models.m: expected a mapping, not a number"),
        ("models: {m: {}}", "models.m.vendor: missing"),
        ('models: {"a b": {vendor: v}}', "models.a b: No spaces or control characters."),
        ("models: {m: {vendor: 5}}", "models.m.vendor: expected text, not a number: put it in quotes"),
        ("models: {m: {vendor: v, enabled: yes}}", "models.m.enabled: expected true or false, not text"),
        ("models: {m: {vendor: v, context: 1.5}}", "models.m.context: expected a whole number, not a number"),
        ("models: {m: {vendor: v, context: true}}", "models.m.context: expected a whole number, not true or false"),
        ("models: {m: {vendor: v, context: -1}}", "models.m.context: expected 0 to 2147483647"),
        ("models: {m: {vendor: v, context: 2147483648}}", "models.m.context: expected 0 to 2147483647"),
        ("models: {m: {vendor: v, limits: enforced}}", "models.m.limits: expected one of pass, enforce"),
        ("models: {m: {vendor: v, supports: tools}}", "models.m.supports: expected a list of names, not text"),
        ("models: {m: {vendor: v, supports: [4, ' ']}}", "models.m.supports[0]: expected a name, not a number"),
        ("models: {m: {vendor: v, strategy: random}}", "models.m.strategy: expected one of weighted, in_order, cheap"),
        ("models: {m: {vendor: v, attempts: 0}}", "models.m.attempts: expected 1 or more"),
        ("models: {m: {vendor: v, routes: [{provider: p, price: 5}]}}", "models.m.routes[0].price: expected a mapping"),
        (
            "models: {m: {vendor: v, routes: [{provider: p, price: {in: 5}}]}}",
            "models.m.routes[0].price.in: unknown key",
        ),
        ("models: {m: {vendor: v, routes: p}}", "models.m.routes: expected a list of routes, not text"),
        ("models: {m: {vendor: v, routes: [p]}}", "models.m.routes[0]: expected a mapping, not text"),
        ("models: {m: {vendor: v, routes: [{model: x}]}}", "models.m.routes[0].provider: missing"),
        ("models: {m: {vendor: v, routes: [{provider: p}, {provider: p}]}}", "models.m.routes[1]: this provider and"),
        ("models: {m: {vendor: v, price: {}, prices: []}}", "models.m.prices: price is there already"),
        ("models: {m: {vendor: v, prices: {}}}", "models.m.prices: expected a list of prices, not a mapping"),
        ("models: {m: {vendor: v, prices: [{}, {}]}}", "models.m.prices[1].from: a price from 2020-01-01 on is there"),
        ("models: {m: {vendor: v, price: {from: soon}}}", "models.m.price.from: expected a date such as 2025-01-31"),
        ("models: {m: {vendor: v, price: {from: 0001-01-01T00:00+23:00}}}", "models.m.price.from: expected a date"),
        ("models: {m: {vendor: v, price: {input: free}}}", "models.m.price.input: expected USD per million tokens"),
        ("models: {m: {vendor: v, price: {input: 0.0000001}}}", "models.m.price.input: Ensure that there are no more"),
        ("models: {m: {vendor: v, fallbacks: [aa/b]}}", "models.m.fallbacks[0]: no model or alias 'aa/b' in this file"),
        ('models: {m: {vendor: v, description: "a\\0b"}}', "models.m.description: holds a control character"),
        ('models: {m: {vendor: v, name: "\\ud800"}}', "models.m.name: holds a control character"),
        (f"providers: {{q: {{{URL}, credentials: {{}}}}}}", "providers.q.credentials: expected a list of credentials"),
        (f"providers: {{q: {{{URL}, credentials: [sk-secret]}}}}", "providers.q.credentials[0]: expected a mapping"),
        (f"providers: {{q: {{{URL}, credentials: [{{}}]}}}}", "providers.q.credentials[0].name: missing"),
        (f"providers: {{q: {{{URL}, credentials: [{{name: a b}}]}}}}", "providers.q.credentials[0].name: No spaces"),
        (
            f"providers: {{q: {{{URL}, credentials: [{{name: a, weight: 0}}]}}}}",
            "providers.q.credentials[0].weight: exp",
        ),
        (
            f"providers: {{q: {{{URL}, credentials: [{{name: a}}, {{name: a}}]}}}}",
            "providers.q.credentials[1].name: a credential of this name is there already",
        ),
        (
            f"providers: {{q: {{{URL}, credentials: [{{name: a, api_key: 'sk secret'}}]}}}}",
            "providers.q.credentials[0].api_key: a key holds no spaces",
        ),
        ("providers: {p: {base_url: ftp://x}}", "providers.p.base_url: expected http://… or https://…"),
        ("providers: {p: {base_url: 'http://u:pw@x/v1'}}", "providers.p.base_url: holds a user name or password"),
        ("providers: {p: {base_url: 'http://${A-b}'}}", "providers.p.base_url: expected ${NAME} or ${NAME:-default}"),
        ("providers: {p: {base_url: 'http://x', timeout: {idle: 0}}}", "providers.p.timeout.idle: Ensure this value"),
        (
            "providers: {p: {base_url: 'http://x', timeout: {ilde: 1}}}",
            "providers.p.timeout.ilde: unknown key (did you",
        ),
        ("models: {m: {vendor: v, rate: {rpm: -1}}}", "models.m.rate.rpm: expected 0 to 2147483647"),
        ("models: {m: {vendor: v, rate: {concurency: 1}}}", "models.m.rate.concurency: unknown key (did"),
        ("models: {m: {vendor: v, rate: 40}}", "models.m.rate: expected a mapping, not a number"),
        ("providers: {p: {base_url: 'http://x', timeout: 5}}", "providers.p.timeout: expected a mapping, not a number"),
        ("providers: {p: {base_url: 'http://x', headers: [a]}}", "providers.p.headers: expected header names and"),
        ("providers: {p: {base_url: 'http://x', headers: {'a b': c}}}", "providers.p.headers.a b: not a header's name"),
        ("providers: {p: {base_url: 'http://x', headers: {a: 5}}}", "providers.p.headers.a: expected text, not a num"),
        ("vendors: {w: {}}", "vendors.w.name: missing"),
        ("aliases: {c: a/b}", "aliases.c: a model has this name"),
        ("aliases: {fast: gpt}", "aliases.fast: no model 'gpt' in this file"),
        ("aliases: {fast: quick}", "aliases.fast: no model 'quick' in this file"),
        ("aliases: {fast: }", "aliases.fast: expected text, not empty"),
        ("default_model: quik", "default_model: no model or alias 'quik' in this file (did you mean 'quick'?)"),
        ("default_model: [a]", "default_model: expected text, not a list"),
    ],
)
def test_refusals(text: str, fault: str) -> None:
    found = faults(text)
    assert any(line.startswith(fault) for line in found), found


@pytest.mark.parametrize("text", ["version: '1'", "{}", "default_model: x"])
def test_the_version_is_needed(text: str) -> None:
    with pytest.raises(Invalid, match="version: "):
        check(text)


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_a_file_that_is_no_mapping(data: object) -> None:
    with pytest.raises(Invalid, match="expected the keys version, default_model, providers"):
        catalog_schema.check(data, Known())


@pytest.mark.parametrize(
    "secret",
    ["api_key: 'sk-secret one'", "api_key: env:sk-secret", "api_key: [sk-secret]", "headers: {a: [sk-secret]}"],
)
def test_no_fault_tells_a_credential(secret: str) -> None:
    text = f"providers:\n  p:\n    base_url: http://x\n    {secret}\n"
    found = faults(text)
    assert len(found) == 1
    assert "sk-secret" not in found[0]


def test_names_outside_the_file_serve_too() -> None:
    known = Known(["p"], ["v"], ["there"], ["quick"], "in this file or the catalog")
    text = "version: 1\nmodels: {m: {vendor: v, routes: [{provider: p}], fallbacks: [there, quick]}}\n"
    assert check(text, known).models["m"].vendor == "v"
    with pytest.raises(Invalid, match=r"models.m.routes\[0\].provider: no provider 'q' in this file or the catalog"):
        check(text.replace("{provider: p}", "{provider: q}"), known)
    with pytest.raises(Invalid, match=r"models\.quick: the catalog has an alias of this name"):
        check("version: 1\nmodels: {quick: {vendor: v}}", known)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=5) | st.decimals(places=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    *[(section,) for section in catalog_schema.SECTIONS],
    *[("providers", "p", key) for key in catalog_schema.PROVIDER],
    *[("models", "a/b", key) for key in catalog_schema.MODEL],
    *[("models", "a/b", "price", key) for key in catalog_schema.PRICE],
    ("models", "a/b", "routes", 0),
    ("models", "a/b", "routes", 0, "model"),
    ("vendors", "v"),
    ("aliases", "quick"),
]


@given(place=st.sampled_from(PLACES), value=JSON)
def test_nonsense_anywhere_is_a_fault_and_never_a_crash(place: tuple[str | int, ...], value: object) -> None:
    data: Any = catalog_yaml.read(GOOD)
    target = data
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    with contextlib.suppress(Invalid):
        catalog_schema.check(data, Known())
