"""Other gateways' configurations become catalog files; what has no counterpart is told."""

import contextlib
import copy
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import yaml

from models_catalog import catalog_file, catalog_schema, importers
from models_catalog.catalog_schema import Known
from models_catalog.catalog_yaml import Invalid
from models_catalog.models import Model, Provider

pytestmark = pytest.mark.django_db

LEFT_OUT = "'azure' is not OpenAI-compatible, or not known here: this deployment is left out"
LITELLM = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, rpm: 480, order: 1}
    model_info: {max_input_tokens: 128000, max_output_tokens: 16384, supports_vision: true, base_model: gpt-4o}
  - model_name: gpt-4o
    litellm_params:
      model: openrouter/openai/gpt-4o
      order: 2
      weight: 3
      input_cost_per_token: 0.0000025
      output_cost_per_token: 1e-05
  - model_name: claude
    litellm_params: {model: claude-3-5-haiku-20241022, api_key: sk-literal, timeout: 30}
    model_info: {supports_function_calling: true, supports_reasoning: false, max_tokens: 8192}
  - model_name: house/llama
    litellm_params: {model: hosted_vllm/meta-llama/Llama-3, api_base: "http://127.0.0.1:9000/v1/", api_key: none}
  - model_name: local
    litellm_params: {model: ollama_chat/llama3.2, api_base: "http://127.0.0.1:11434"}
  - model_name: deployment
    litellm_params: {model: azure/gpt-4, api_base: "https://x.openai.azure.com", api_version: "2024-02-01"}
  - {model_name: "anthropic/*", litellm_params: {model: "anthropic/*"}}
  - model_name: team
    litellm_params: {model: groq/llama3, litellm_credential_name: shared}
credential_list:
  - credential_name: shared
    credential_values: {api_key: os.environ/TEAM_GROQ}
router_settings:
  fallbacks: [{gpt-4o: [claude, local]}, {claude: [deployment]}]
  model_group_alias: {gpt-4: gpt-4o, quiet: {model: claude, hidden: true}, lost: deployment}
  routing_strategy: least-busy
litellm_settings: {drop_params: true}
general_settings: {master_key: sk-master, database_url: "postgresql://x"}
"""


def load(imported: importers.Imported) -> list[str]:
    """Through the same check as every file. Gives the notes."""
    data, notes = imported
    catalog_file.load(catalog_file.over_current(data))
    return notes


def routes(model: str) -> list[tuple[str, str, int, int]]:
    found = Model.objects.get(slug=model).routes.all()
    return [(route.provider.slug, route.upstream_model, route.priority, route.weight) for route in found]


def test_litellm() -> None:
    notes = load(importers.litellm(LITELLM.encode()))
    assert routes("gpt-4o") == [("openai", "gpt-4o", 1, 1), ("openrouter", "openai/gpt-4o", 2, 3)]
    assert routes("claude") == [("anthropic", "claude-3-5-haiku-20241022", 1, 1)]
    assert routes("house/llama") == [("127.0.0.1-9000", "meta-llama/Llama-3", 1, 1)]
    assert routes("local") == [("ollama", "llama3.2", 1, 1)]
    assert routes("team") == [("groq", "llama3", 1, 1)]
    assert notes == [
        "model_list[0].model_info.base_model: no counterpart here",
        "model_list[0].litellm_params.rpm: no counterpart here",
        "model_list[2].litellm_params.timeout: no counterpart here",
        f"model_list[5].litellm_params.model: {LEFT_OUT}",
        "model_list[6]: a wildcard: here every model has an entry of its own",
        "router_settings.model_group_alias.quiet.hidden: aliases are always listed here",
        "router_settings.model_group_alias.lost: an alias here names a model of the list, and is none itself",
        "router_settings.fallbacks[1].claude: names a model that is not carried over",
        "litellm_settings.drop_params: no counterpart here",
        "general_settings: no counterpart here",
    ]


def test_litellm_models_and_prices() -> None:
    load(importers.litellm(LITELLM.encode()))
    model = Model.objects.get(slug="gpt-4o")
    assert (model.strategy, model.attempts) == ("least_busy", 6)
    assert (model.vendor.name, model.context, model.output) == ("OpenAI / GPT", 128000, 16384)
    assert (model.supports, model.input_modalities, model.fallbacks) == (
        ["vision"],
        ["text", "image"],
        ["claude", "local"],
    )
    price = model.prices.get()
    assert (price.input, price.output, price.source) == (Decimal("2.5"), Decimal(10), "LiteLLM's config.yaml")
    claude = Model.objects.get(slug="claude")
    assert (claude.output, claude.supports, claude.vendor.slug) == (8192, ["tools"], "anthropic")
    assert {alias.slug for alias in model.aliases.all()} == {"gpt-4"}


def test_litellm_credentials() -> None:
    load(importers.litellm(LITELLM.encode()))
    keys = dict(Provider.objects.values_list("slug", "api_key"))
    assert keys["openai"] == "env:OPENAI_API_KEY"
    assert keys["openrouter"] == "env:OPENROUTER_API_KEY"
    assert keys["groq"] == "env:TEAM_GROQ"
    assert Provider.objects.get(slug="anthropic").api_key == "sk-literal"
    assert Provider.objects.get(slug="ollama").base_url == "http://127.0.0.1:11434/v1"
    assert Provider.objects.get(slug="127.0.0.1-9000").base_url == "http://127.0.0.1:9000/v1"


def deployments(*params: dict[str, Any]) -> importers.Imported:
    items = [{"model_name": "m", "litellm_params": entry} for entry in params]
    return importers.litellm(yaml.safe_dump({"model_list": items}).encode())


def test_litellm_deployments_with_keys_of_their_own() -> None:
    data, notes = deployments(
        {"model": "gpt-4o", "api_key": "sk-1"},
        {"model": "openai/gpt-4o", "api_key": "sk-2"},
        {"model": "openai/gpt-4o", "api_key": "sk-1", "api_base": "https://api.openai.com/v1/"},
    )
    assert data["models"]["m"]["routes"] == [{"provider": "openai", "model": "gpt-4o", "weight": 2}]
    assert keys_of(data["providers"]["openai"]) == ("sk-1", [("key-2", "sk-2", None)])
    catalog_file.load(data)
    assert notes == ["model_list[2]: the same provider, credential and model as another one of this name"]


def keys_of(provider: dict[str, Any]) -> tuple[str, list[tuple[str, str, int | None]]]:
    others = [(other["name"], other["api_key"], other.get("weight")) for other in provider.get("credentials", [])]
    return provider["api_key"], others


def test_litellm_weights_of_keys() -> None:
    data, notes = deployments(
        {"model": "openai/a", "api_key": "os.environ/KEY_1", "weight": 3},
        {"model": "openai/a", "api_key": "sk-2"},
    )
    assert keys_of(data["providers"]["openai"]) == ("", [("KEY_1", "env:KEY_1", 3), ("key-2", "sk-2", 1)])
    assert data["models"]["m"]["routes"] == [{"provider": "openai", "model": "a", "weight": 4}]
    assert notes == []
    catalog_file.load(data)


def test_litellm_keys_in_an_order_are_routes_of_their_own() -> None:
    data, _ = deployments(
        {"model": "openai/a", "api_key": "sk-1", "order": 1}, {"model": "openai/a", "api_key": "sk-2", "order": 2}
    )
    routes = data["models"]["m"]["routes"]
    assert [(route["provider"], route["priority"]) for route in routes] == [("openai", 1), ("openai-2", 2)]


def test_litellm_a_model_gets_no_key_that_is_not_its_own() -> None:
    keys = {"both": ["sk-1", "sk-2"], "one": ["sk-1"], "too": ["sk-1", "sk-2"]}
    items = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": key}}
        for name, listed in keys.items()
        for key in listed
    ]
    data, _ = importers.litellm(json.dumps({"model_list": items}).encode())
    of = {name: model["routes"][0]["provider"] for name, model in data["models"].items()}
    assert of == {"both": "openai", "one": "openai-2", "too": "openai"}
    assert keys_of(data["providers"]["openai-2"]) == ("sk-1", [])


def test_litellm_what_deployments_charge_is_of_their_routes() -> None:
    cost = {"input_cost_per_token": 0.000001, "output_cost_per_token": 0.000002}
    data, _ = deployments({"model": "groq/a", **cost}, {"model": "openai/a", "api_key": "sk-1"})
    first, second = data["models"]["m"]["routes"]
    assert first["price"] == {"input": 1, "output": 2}
    assert "price" not in second


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("simple-shuffle", "weighted"),
        ("least-busy", "least_busy"),
        ("latency-based-routing", "fastest"),
        ("cost-based-routing", "cheapest"),
        ("usage-based-routing-v2", None),
    ],
)
def test_litellm_strategy(theirs: str, ours: str | None) -> None:
    item = {"model_name": "m", "litellm_params": {"model": "openai/m"}}
    data, notes = importers.litellm(
        json.dumps({"model_list": [item], "router_settings": {"routing_strategy": theirs}}).encode()
    )
    assert data["models"]["m"].get("strategy") == ours
    assert notes == ([] if ours else ["router_settings.routing_strategy: no counterpart here"])


def test_litellm_tries() -> None:
    listed = [
        {"model_name": "own", "litellm_params": {"model": "openai/a", "num_retries": 4}},
        {"model_name": "all", "litellm_params": {"model": "openai/b"}},
    ]
    data, notes = importers.litellm(json.dumps({"model_list": listed, "router_settings": {"num_retries": 2}}).encode())
    assert {name: model["attempts"] for name, model in data["models"].items()} == {"own": 5, "all": 3}
    assert notes == []


@pytest.mark.parametrize(
    ("params", "provider", "base_url", "model"),
    [
        ({"model": "together_ai/a/b"}, "together", "https://api.together.xyz/v1", "a/b"),
        ({"model": "gemini/gemini-2.5-pro"}, "gemini", "https://generativelanguage.googleapis.com", None),
        ({"model": "fireworks_ai/x"}, "fireworks", "https://api.fireworks.ai/inference/v1", "x"),
        ({"model": "anything", "api_base": "https://llm.example.com/v1"}, "llm.example.com", None, "anything"),
        ({"model": "openai/x", "api_base": "os.environ/HOUSE_URL"}, "house_url", "${HOUSE_URL}", "x"),
        ({"model": "o3-mini"}, "openai", "https://api.openai.com/v1", "o3-mini"),
    ],
)
def test_litellm_providers(params: dict[str, str], provider: str, base_url: str | None, model: str | None) -> None:
    data, notes = deployments(params)
    route = data["models"]["m"]["routes"][0]
    assert (route["provider"], route["model"]) == (provider, model or "gemini-2.5-pro")
    assert data["providers"][provider]["base_url"] == (base_url or params["api_base"])
    assert notes == []


def test_litellm_a_model_of_nobody() -> None:
    data, notes = deployments({"model": "mystery"})
    assert data["models"] == {}
    assert notes == ["model_list[0].litellm_params.model: its provider cannot be told: this deployment is left out"]


def test_litellm_an_embedding_model() -> None:
    item = {"model_name": "e", "litellm_params": {"model": "openai/e"}, "model_info": {"mode": "embedding"}}
    _, notes = importers.litellm(json.dumps({"model_list": [item]}).encode())
    assert notes[0].startswith("model_list[0].model_info.mode: the provider's `supports` says which endpoints")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "line 1"),
        ("5", "model_list: expected a list, not empty"),
        ("model_list: {}", "model_list: expected a list, not a mapping"),
        ("model_list: [5]", "model_list[0]: expected a mapping, not a number"),
        ("model_list: [{}]", "model_list[0]: expected model_name and litellm_params.model"),
        ("model_list: [{model_name: [x]}]", "model_list[0].model_name: expected text, not a list"),
        (
            "{model_list: [], router_settings: {model_group_alias: {a: [b]}}}",
            "router_settings.model_group_alias.a: exp",
        ),
        (
            "{model_list: [], router_settings: {fallbacks: [{a: [[b]]}]}}",
            "router_settings.fallbacks[0].a: expected text",
        ),
    ],
)
def test_litellm_refusals(text: str, fault: str) -> None:
    with pytest.raises(Invalid) as caught:
        importers.litellm(text.encode())
    assert caught.value.faults[0].startswith(fault)


def test_a_price_that_is_none_is_a_fault_of_the_file() -> None:
    data, _ = deployments({"model": "gpt-4o", "input_cost_per_token": "cheap"})
    with pytest.raises(Invalid, match=r"models\.m\.price\.input: expected USD per million tokens, not text"):
        catalog_file.load(data)


LLMS_1 = {
    "defaults": {"headers": {}, "text": {"model": "llama3.3:70b", "messages": []}},
    "providers": {
        "groq": {
            "enabled": True,
            "type": "OpenAiProvider",
            "base_url": "https://api.groq.com/openai",
            "api_key": "$GROQ_API_KEY",
            "models": {"llama3.3:70b": "llama-3.3-70b-versatile", "kimi": "moonshotai/kimi-k2"},
            "pricing": {"llama-3.3-70b-versatile": {"input": "0.00000059", "output": "0.00000079"}},
        },
        "google_free": {"type": "GoogleProvider", "api_key": "$GOOGLE_FREE", "models": {"gemini": "gemini-2.5-pro"}},
        "google": {"type": "GoogleProvider", "api_key": "$GOOGLE", "models": {"gemini": "gemini-2.5-pro"}},
        "ollama": {
            "enabled": False,
            "type": "OllamaProvider",
            "base_url": "http://localhost:11434",
            "all_models": True,
        },
        "house": {"base_url": "http://127.0.0.1:9", "api_key": "sk-1", "models": {"llama3.3:70b": "big"}},
    },
}


def test_llms_version_1() -> None:
    notes = load(importers.llms(json.dumps(LLMS_1).encode()))
    assert notes == ["defaults.headers: no counterpart here"]
    assert routes("llama3.3:70b") == [("groq", "llama-3.3-70b-versatile", 1, 1), ("house", "big", 5, 1)]
    assert routes("gemini") == [("gemini", "gemini-2.5-pro", 2, 1), ("gemini-2", "gemini-2.5-pro", 3, 1)]
    assert Model.objects.get(slug="llama3.3:70b").prices.get().input == Decimal("0.59")
    assert Provider.objects.get(slug="groq").base_url == "https://api.groq.com/openai/v1"
    assert Provider.objects.get(slug="gemini-2").api_key == "env:GOOGLE"
    assert Provider.objects.get(slug="house").base_url == "http://127.0.0.1:9/v1"
    ollama = Provider.objects.get(slug="ollama")
    assert (ollama.base_url, ollama.is_active, ollama.discovers) == ("http://localhost:11434/v1", False, True)


LLMS_3 = {
    "version": 3,
    "providers": {
        "openai": {"enabled": True},
        "anthropic": {"npm": "@ai-sdk/anthropic", "map_models": {"claude": "claude-sonnet-4-5"}, "temperature": 0.7},
        "minimax": {
            "npm": "@ai-sdk/anthropic",
            "api": "https://api.minimax.io/anthropic/v1",
            "env": ["MINIMAX_API_KEY", "MM_KEY"],
            "model_map": {"m2": "MiniMax-M2"},
        },
        "codestral": {
            "npm": "codestral",
            "api": "https://codestral.mistral.ai/v1",
            "env": ["CODESTRAL_API_KEY"],
            "models": {
                "codestral-latest": {
                    "id": "codestral-latest",
                    "name": "Codestral",
                    "tool_call": True,
                    "modalities": {"input": ["text", "image"], "output": ["text"]},
                    "cost": {"input": 0.3, "output": 0.9, "cache_read": 0.03},
                    "limit": {"context": 256000, "output": 4096},
                }
            },
        },
        "mystery": {"npm": "mystery-sdk"},
    },
}


def test_llms_version_3() -> None:
    notes = load(importers.llms(json.dumps(LLMS_3).encode()))
    assert notes == [
        'providers.openai: names no models: add them in the admin by "Add models from this provider"',
        "providers.anthropic.temperature: no counterpart here",
        "providers.minimax.env: several variables: only the first is used",
        "providers.mystery: its wire format or its address is not known here: this provider is left out",
    ]
    assert routes("claude") == [("anthropic", "claude-sonnet-4-5", 2, 1)]
    assert Provider.objects.get(slug="minimax").base_url == "https://api.minimax.io/v1"
    model = Model.objects.get(slug="codestral-latest")
    assert (model.name, model.context, model.supports) == ("Codestral", 256000, ["tools"])
    assert model.input_modalities == ["text", "image"]
    price = model.prices.get()
    assert (price.input, price.cached_input, price.output) == (Decimal("0.3"), Decimal("0.03"), Decimal("0.9"))


def test_llms_a_default_that_is_not_there() -> None:
    data, notes = importers.llms(json.dumps({**LLMS_3, "defaults": {"text": {"model": "X"}}}).encode())
    assert "default_model" not in data
    assert "defaults.text.model: not among the models that are carried over" in notes


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "line 1, column 2: not JSON: Expecting property name"),
        ("[" * 100_000, "not JSON"),
        ("{}", "providers: missing or empty"),
        ("[]", "providers: missing or empty"),
        ('{"providers": {"a": 5}}', "providers.a: expected a mapping, not a number"),
        ('{"providers": {"openai": {"models": {"m": 5}}}}', "providers.openai.models.m: expected text, not a number"),
        (
            '{"providers": {"openai": {"models": {"m": {"limit": 5}}}}}',
            "providers.openai.models.m.limit: expected a map",
        ),
        ('{"providers": {"openai": {"env": [5]}}}', "providers.openai.env[0]: expected text, not a number"),
        ('{"providers": {"openai": {}}, "defaults": {"text": {"model": {}}}}', "defaults.text.model: expected text"),
    ],
)
def test_llms_refusals(text: str, fault: str) -> None:
    with pytest.raises(Invalid) as caught:
        importers.llms(text.encode())
    assert caught.value.faults[0].startswith(fault)


KAI = """
server: {host: 0.0.0.0, port: 8000}
ollama: {base_url: "http://127.0.0.1:11434"}
openrouter: {api_key: "${OPENROUTER_API_KEY}"}
model_mapping:
  small: {provider: ollama, model: "llama3.2:3b"}
  big: {provider: openrouter, model: anthropic/claude-sonnet-4, temperature: 0.2}
  odd: {provider: bedrock, model: x}
default_model: small
cors: {allow_origins: ["*"]}
auth: {api_keys: [sk-client]}
"""


def test_kai() -> None:
    data, notes = importers.kai(KAI.encode())
    assert load((data, notes)) == [
        "model_mapping.big.temperature: no counterpart here",
        "model_mapping.odd.provider: not known here: this model is left out",
        "server: no counterpart here",
        "cors: no counterpart here",
        "auth: no counterpart here",
    ]
    assert data["default_model"] == "small"
    assert routes("small") == [("ollama", "llama3.2:3b", 1, 1)]
    assert routes("big") == [("openrouter", "anthropic/claude-sonnet-4", 1, 1)]
    assert Provider.objects.get(slug="openrouter").api_key == "env:OPENROUTER_API_KEY"
    assert Provider.objects.get(slug="ollama").base_url == "http://127.0.0.1:11434/v1"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("5", "model_mapping: missing or empty"),
        ("model_mapping: [a]", "model_mapping: missing or empty"),
        ("model_mapping: {a: ollama}", "model_mapping.a: expected a mapping, not text"),
        ("model_mapping: {a: {provider: ollama}}", "model_mapping.a: expected provider and model"),
        ("{model_mapping: {a: {provider: ollama, model: x}}, default_model: 5}", "default_model: expected text, not"),
    ],
)
def test_kai_refusals(text: str, fault: str) -> None:
    with pytest.raises(Invalid) as caught:
        importers.kai(text.encode())
    assert caught.value.faults[0].startswith(fault)


def test_importing_twice_changes_nothing() -> None:
    for importer, text in ((importers.litellm, LITELLM), (importers.kai, KAI), (importers.llms, json.dumps(LLMS_1))):
        load(importer(text.encode()))
        data, _ = importer(text.encode())
        assert catalog_file.load(catalog_file.over_current(data)) == []


@pytest.mark.parametrize(
    ("names", "vendor"),
    [
        ("deepseek-r1-distill-llama-70b", "deepseek"),
        ("gpt-4o", "openai"),
        ("o3", "openai"),
        ("openai-gpt-oss-20b", "openai"),
        ("claude-opus", "anthropic"),
        ("Qwen/QwQ-32B", "qwen"),
        ("mixtral-8x7b", "mistral"),
        ("grok-4", "xai"),
        ("something", "other"),
    ],
)
def test_the_vendor_is_guessed_from_the_name(names: str, vendor: str) -> None:
    data, _ = importers.kai(f"model_mapping: {{a: {{provider: groq, model: {names}}}}}".encode())
    assert data["models"]["a"]["vendor"] == vendor


Place = tuple[str | int, ...]


def places(data: Any, path: Place = ()) -> Iterator[Place]:
    """Every place in nested data."""
    if path:
        yield path
    for step in data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield from places(data[step], (*path, step))


SAMPLES = [
    ("litellm", yaml.safe_load(LITELLM)),
    ("llms", {**LLMS_1, "providers": {**LLMS_1["providers"], **LLMS_3["providers"]}}),
    ("kai", yaml.safe_load(KAI)),
]
EVERYWHERE = [(name, sample, place) for name, sample in SAMPLES for place in places(sample)]
NONSENSE = [None, 10**400, "http://[", "\ud800", [[]], {"a": {"b": []}}]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=str)
def test_nonsense_anywhere_is_a_fault_or_a_note_and_never_a_crash(
    nonsense: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    builtin = catalog_file.builtin_data(demo=False)
    monkeypatch.setattr(catalog_file, "builtin_data", lambda demo: copy.deepcopy(builtin))
    for name, sample, place in EVERYWHERE:
        data = copy.deepcopy(sample)
        target = data
        for step in place[:-1]:
            target = target[step]
        target[place[-1]] = nonsense
        with contextlib.suppress(Invalid):
            imported, _ = importers.SOURCES[name](json.dumps(data).encode())
            catalog_schema.check(imported, Known())
