"""Other gateways' configurations as data of our catalog file. `manage.py catalog import` is the caller.

Each importer gives the data, which then passes the same check as every file, and notes of what it could not carry over,
each with its path. Notes and faults never quote a value: it may be a credential.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from models_catalog import catalog_file, catalog_yaml
from models_catalog.catalog_schema import kind
from models_catalog.catalog_yaml import Invalid
from models_catalog.discovery import LOCAL

Imported = tuple[dict[str, Any], list[str]]
_MILLION = 1_000_000
_SIX_PLACES = Decimal("0.000001")  # what a price column holds

# OpenAI-compatible APIs that builtin.yaml lacks: base URL and the credential's variable, as models.dev has them.
_OTHERS = {
    "chutes": ("https://llm.chutes.ai/v1", "CHUTES_API_KEY"),
    "codestral": ("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "deepinfra": ("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "fireworks": ("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "huggingface": ("https://router.huggingface.co/v1", "HF_TOKEN"),
    "lmstudio": ("http://127.0.0.1:1234/v1", ""),
    "ollama-cloud": ("https://ollama.com/v1", "OLLAMA_API_KEY"),
    "perplexity": ("https://api.perplexity.ai", "PERPLEXITY_API_KEY"),
    "sambanova": ("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "zai": ("https://api.z.ai/api/paas/v4", "ZHIPU_API_KEY"),
}
# What the others call the providers that we have under another name.
_NAMES = {
    "dashscope": "alibaba",
    "fireworks-ai": "fireworks",
    "fireworks_ai": "fireworks",
    "google": "gemini",
    "google_free": "gemini",
    "lm_studio": "lmstudio",
    "moonshotai": "moonshot",
    "nvidia_nim": "nvidia",
    "ollama_chat": "ollama",
    "openrouter_free": "openrouter",
    "together_ai": "together",
    "togetherai": "together",
}
_VENDORS = (  # the first that is found in a model's name; DeepSeek's distilled Llamas are DeepSeek's
    ("deepseek", r"deepseek"),
    ("anthropic", r"claude"),
    ("openai", r"\bgpt|\bo[134]\b|chatgpt|dall-e|whisper|davinci|text-embedding-(3|ada)"),
    ("google", r"gemini|gemma"),
    ("qwen", r"qwen|qwq"),
    ("mistral", r"mi[sx]tral|codestral|magistral|ministral|devstral|pixtral"),
    ("meta", r"llama"),
    ("moonshot", r"kimi|moonshot"),
    ("minimax", r"minimax"),
    ("xai", r"grok"),
)
_TWICE = "the same provider, credential and model as another one of this name"
_OTHER_VENDOR = ("other", "Other models")


class _Catalog:
    """The catalog file that an importer fills, and its notes."""

    def __init__(self) -> None:
        builtin = catalog_file.builtin_data(demo=False)
        self.known: dict[str, dict[str, Any]] = builtin["providers"]
        self.vendor_names = {slug: vendor["name"] for slug, vendor in builtin["vendors"].items()}
        self.providers: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, str] = {}
        self.default_model: str | None = None
        self.notes: list[str] = []
        self.faults: list[str] = []

    def note(self, path: str, text: str) -> None:
        self.notes.append(f"{path}: {text}")

    def note_keys(self, path: str, data: Mapping[str, Any], handled: Iterable[str]) -> None:
        for key in data:
            if key not in handled:
                self.note(f"{path}.{key}" if path else key, "no counterpart here")

    def mapping(self, value: Any, path: str) -> dict[str, Any]:
        if value is not None and not isinstance(value, dict):
            self.faults.append(f"{path}: expected a mapping, not {kind(value)}")
        return value if isinstance(value, dict) else {}

    def text(self, value: Any, path: str) -> str:
        if value is not None and not isinstance(value, str):
            self.faults.append(f"{path}: expected text, not {kind(value)}")
        return value if isinstance(value, str) else ""

    def definition(self, name: str) -> dict[str, Any]:
        """A provider as builtin.yaml or `_OTHERS` has it; empty where neither does."""
        if name in self.known:
            return dict(self.known[name])
        if name not in _OTHERS:
            return {}
        url, variable = _OTHERS[name]
        key = {"api_key": f"env:{variable}"} if variable else {}
        return {"dialect": "openai", "base_url": url, **key, "groups": [name]}

    def provider(self, name: str, base_url: str, keys: Sequence[tuple[str, int]]) -> str:
        """The slug of a provider with this address and these credentials, each with its weight.

        An empty address or credential is as this program knows it.
        """
        entry = {"dialect": "openai", "groups": [name], **self.definition(name)}
        if base_url:
            entry["base_url"] = base_url
        entry |= _credentials([(_reference(key) or entry.get("api_key", ""), weight) for key, weight in keys])
        slug, number = name, 1
        while slug in self.providers and not _same(self.providers[slug], entry):
            number += 1
            slug = f"{name}-{number}"
        self.providers.setdefault(slug, entry)
        return slug

    def route(self, name: str, path: str, provider: str, model: str, **more: Any) -> dict[str, Any]:
        """Adds a route to a model, which it makes where it is missing. Gives the model's entry."""
        entry = self.models.setdefault(name, {"vendor": self.vendor(f"{name} {model}", provider), "routes": []})
        if any((route["provider"], route["model"]) == (provider, model) for route in entry["routes"]):
            self.note(path, _TWICE)
        else:
            entry["routes"].append({"provider": provider, "model": model, **more})
        return entry

    def vendor(self, names: str, provider: str) -> str:
        for slug, pattern in _VENDORS:
            if re.search(pattern, names, re.IGNORECASE):
                return slug
        return LOCAL[0] if self.providers[provider].get("discover") else _OTHER_VENDOR[0]

    def done(self) -> Imported:
        if self.faults:
            raise Invalid(self.faults)
        used = {model["vendor"] for model in self.models.values()}
        names = {**self.vendor_names, **dict([LOCAL, _OTHER_VENDOR])}
        data = {
            "version": 1,
            "default_model": self.default_model,
            "providers": self.providers,
            "vendors": {slug: {"name": name} for slug, name in names.items() if slug in used},
            "models": self.models,
            "aliases": self.aliases,
        }
        return {key: value for key, value in data.items() if value is not None}, self.notes


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("base_url", "api_key", "credentials"))


def _credentials(keys: list[tuple[str, int]]) -> dict[str, Any]:
    """The keys of a provider's entry. Its own field has weight 1: with other weights all are beside it."""
    alike = len({weight for _, weight in keys}) == 1
    listed: list[dict[str, Any]] = []
    for number, (key, weight) in enumerate(keys, 1):
        name = key.removeprefix("env:") if key.startswith("env:") else f"key-{number}"
        share = {} if alike else {"weight": weight} if weight else {"enabled": False}
        listed.append({"name": name, "api_key": key, **share})
    if not alike:
        return {"api_key": "", "credentials": listed}
    own = {"api_key": keys[0][0]} if keys[0][0] else {}
    return {**own, "credentials": listed[1:]} if len(keys) > 1 else own


def _reference(key: str) -> str:
    """`os.environ/NAME`, `$NAME`, `${NAME}` as env:NAME; another is the credential itself."""
    found = re.fullmatch(r"(?:os\.environ/|env:|\$)(\w+)|\$\{(\w+)\}", key)
    return f"env:{found[1] or found[2]}" if found else key


def _address(url: str) -> str:
    """A base URL; one that stands in the environment as ${NAME}."""
    reference = _reference(url)
    return f"${{{reference.removeprefix('env:')}}}" if reference.startswith("env:") else url.rstrip("/")


def _with_v1(url: str) -> str:
    """Where the other gateway adds the version itself."""
    address = _address(url)
    return f"{address}/v1" if address and not re.search(r"/v\d+(?:beta)?(?:/openai)?$", address) else address


def _usd(value: Any, factor: int) -> Any:
    """USD per million tokens, from a number or its text (`1e-06` is text in YAML); what is neither fails the check."""
    try:
        return (Decimal(str(value)) * factor).quantize(_SIX_PLACES)
    except ArithmeticError:
        return str(value)


def _price(costs: Mapping[str, Any], keys: Mapping[str, str], factor: int, source: str) -> dict[str, Any]:
    """A price of our file, from a mapping with other names and another unit; empty without any."""
    price = {ours: _usd(costs[theirs], factor) for ours, theirs in keys.items() if costs.get(theirs) is not None}
    return {**price, "source": source} if price else {}


def _fill(entry: dict[str, Any], found: Mapping[str, Any]) -> None:
    """What the first of several deployments says of a model, it says for all."""
    for key, value in found.items():
        if value not in (None, {}, []):
            entry.setdefault(key, value)


# --- LiteLLM: config.yaml --------------------------------------------------------------------------------------------

_LITELLM_GENERIC = {"custom_openai", "hosted_vllm", "litellm_proxy", "llamafile", "openai_like", "vllm"}
_LITELLM_PRICE = {
    "input": "input_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "output": "output_cost_per_token",
}
# https://docs.litellm.ai/docs/routing
_LITELLM_STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "least_busy",
    "latency-based-routing": "fastest",
    "cost-based-routing": "cheapest",
}
_LITELLM_SUPPORTS = {
    "tools": "supports_function_calling",
    "vision": "supports_vision",
    "reasoning": "supports_reasoning",
    "structured_outputs": "supports_response_schema",
}
_LITELLM_INFO = {"id", "mode", "max_tokens", "max_input_tokens", "max_output_tokens"}
_LITELLM_INFO |= {*_LITELLM_PRICE.values(), *_LITELLM_SUPPORTS.values()}


def litellm(source: bytes) -> Imported:
    """LiteLLM's proxy: `model_list`, and the fallbacks, aliases and strategy of its router."""
    catalog = _Catalog()
    data = catalog.mapping(catalog_yaml.read(source), "the file")
    listed = data.get("model_list")
    if not isinstance(listed, list):
        raise Invalid([f"model_list: expected a list, not {kind(listed)}"])
    credentials = _litellm_credentials(catalog, data.get("credential_list"))
    found = [
        _litellm_deployment(catalog, catalog.mapping(item, f"model_list[{index}]"), f"model_list[{index}]", credentials)
        for index, item in enumerate(listed)
    ]
    _litellm_routes(catalog, [deployment for deployment in found if deployment])
    for section in ("router_settings", "litellm_settings"):
        settings = catalog.mapping(data.get(section), section)
        _litellm_aliases(catalog, settings.get("model_group_alias"), f"{section}.model_group_alias")
        _litellm_fallbacks(catalog, settings.get("fallbacks"), f"{section}.fallbacks")
        handled = _litellm_router(catalog, settings, section)
        catalog.note_keys(section, settings, {"fallbacks", "model_group_alias", *handled})
    catalog.note_keys("", data, {"model_list", "credential_list", "router_settings", "litellm_settings"})
    return catalog.done()


def _litellm_credentials(catalog: _Catalog, value: Any) -> dict[str, dict[str, Any]]:
    found = {}
    for index, item in enumerate(value if isinstance(value, list) else []):
        path = f"credential_list[{index}]"
        entry = catalog.mapping(item, path)
        name = catalog.text(entry.get("credential_name"), f"{path}.credential_name")
        found[name] = catalog.mapping(entry.get("credential_values"), f"{path}.credential_values")
    return found


@dataclass(frozen=True)
class _Deployment:
    """An entry of `model_list`. `info`: what it says of its model."""

    model: str
    path: str
    provider: str
    base_url: str
    api_key: str
    upstream: str
    order: int | None
    weight: int
    price: dict[str, Any]
    info: dict[str, Any]

    @property
    def group(self) -> tuple[Any, ...]:
        """Deployments that differ in their credential alone are one route."""
        return self.model, self.provider, self.base_url, self.upstream, self.order


def _litellm_deployment(
    catalog: _Catalog, item: dict[str, Any], path: str, credentials: dict[str, dict[str, Any]]
) -> _Deployment | None:
    params = catalog.mapping(item.get("litellm_params"), f"{path}.litellm_params")
    named = catalog.text(params.get("litellm_credential_name"), f"{path}.litellm_params.litellm_credential_name")
    params = {**credentials.get(named, {}), **params}
    name = catalog.text(item.get("model_name"), f"{path}.model_name")
    model = catalog.text(params.get("model"), f"{path}.litellm_params.model")
    if not name or not model:
        catalog.faults.append(f"{path}: expected model_name and litellm_params.model")
        return None
    if "*" in name + model:
        catalog.note(path, "a wildcard: here every model has an entry of its own")
        return None
    way = _litellm_provider(catalog, params, model, f"{path}.litellm_params")
    if way is None:
        return None
    numbers = {key: params[key] for key in ("order", "weight", "num_retries") if type(params.get(key)) is int}
    info = catalog.mapping(item.get("model_info"), f"{path}.model_info")
    costs = {**params, **info}
    about = _litellm_info(catalog, costs, info, f"{path}.model_info")
    if "num_retries" in numbers:
        about["attempts"] = numbers["num_retries"] + 1
    handled = {"model", "api_key", "api_base", "base_url", "litellm_credential_name", *numbers}
    catalog.note_keys(f"{path}.litellm_params", params, handled | {*_LITELLM_PRICE.values()})
    catalog.note_keys(path, item, {"model_name", "litellm_params", "model_info"})
    price = {ours: about["price"][ours] for ours in ("input", "output") if ours in about["price"]}
    return _Deployment(name, path, *way, numbers.get("order"), numbers.get("weight", 1), price, about)


def _litellm_routes(catalog: _Catalog, deployments: list[_Deployment]) -> None:
    groups: dict[tuple[Any, ...], list[_Deployment]] = {}
    for deployment in deployments:
        group = groups.setdefault(deployment.group, [])
        if any(deployment.api_key == other.api_key for other in group):
            catalog.note(deployment.path, _TWICE)
        else:
            group.append(deployment)
    for group in groups.values():
        first = group[0]
        keys = [(deployment.api_key, deployment.weight) for deployment in group]
        provider = catalog.provider(first.provider, first.base_url, keys)
        more: dict[str, Any] = {} if first.order is None else {"priority": first.order}
        if (weight := sum(deployment.weight for deployment in group)) != 1:
            more["weight"] = weight
        price = next((deployment.price for deployment in group if deployment.price), {})
        catalog.route(first.model, first.path, provider, first.upstream, **more, **({"price": price} if price else {}))
    for deployment in deployments:
        _fill(catalog.models[deployment.model], deployment.info)


def _litellm_router(catalog: _Catalog, settings: dict[str, Any], path: str) -> set[str]:
    """Strategy and number of tries, for every model. Gives the keys that it has dealt with."""
    handled = set()
    named = catalog.text(settings.get("routing_strategy"), f"{path}.routing_strategy")
    if named in _LITELLM_STRATEGIES:
        handled.add("routing_strategy")
        for model in catalog.models.values():
            model["strategy"] = _LITELLM_STRATEGIES[named]
    if type(retries := settings.get("num_retries")) is int:
        handled.add("num_retries")
        for model in catalog.models.values():
            model.setdefault("attempts", retries + 1)
    return handled


def _litellm_provider(
    catalog: _Catalog, params: dict[str, Any], model: str, path: str
) -> tuple[str, str, str, str] | None:
    """What we call the provider, its base URL where it is not the known one, its credential, and the model there."""
    key = catalog.text(params.get("api_key"), f"{path}.api_key")
    base = catalog.text(params.get("api_base") or params.get("base_url"), f"{path}.api_base")
    prefix, slash, upstream = model.partition("/")
    ours = _NAMES.get(prefix, prefix)
    if _address(base) == catalog.definition(ours).get("base_url"):
        base = ""
    if slash and catalog.definition(ours) and not (ours == "openai" and base):
        return ours, _with_v1(base), key, upstream
    if slash and prefix in _LITELLM_GENERIC | {"openai"} and base:
        return _host(base), _address(base), key, upstream
    if not slash and base:
        return _host(base), _address(base), key, model
    for ours, pattern in (("openai", r"gpt-|chatgpt-|o[134](-|$)|text-embedding-"), ("anthropic", r"claude-")):
        if not slash and re.match(pattern, model):
            return ours, "", key, model
    what = f"{prefix!r} is not OpenAI-compatible, or not known here" if slash else "its provider cannot be told"
    catalog.note(f"{path}.model", f"{what}: this deployment is left out")
    return None


def _host(url: str) -> str:
    """A provider's name from its address."""
    if not url.startswith("http"):
        return re.sub(r"\W+", "-", _reference(url).removeprefix("env:")).strip("-").lower()
    host = re.sub(r"^https?://(?:[^/@]*@)?([^/?#]*).*", r"\1", url)
    return re.sub(r"[^\w.]+", "-", host).strip("-").lower() or "provider"


def _litellm_info(catalog: _Catalog, costs: dict[str, Any], info: dict[str, Any], path: str) -> dict[str, Any]:
    """`costs` may stand among the parameters too."""
    if info.get("mode", "chat") != "chat":
        catalog.note(f"{path}.mode", "the provider's `supports` says which endpoints it has: add this one there")
    catalog.note_keys(path, info, _LITELLM_INFO)
    output = info.get("max_output_tokens", info.get("max_tokens"))
    return {
        "context": info.get("max_input_tokens"),
        "output": output,
        "price": _price(costs, _LITELLM_PRICE, _MILLION, "LiteLLM's config.yaml"),
        "input_modalities": ["text", "image"] if info.get("supports_vision") is True else None,
        "supports": [ours for ours, theirs in _LITELLM_SUPPORTS.items() if info.get(theirs) is True],
    }


def _litellm_aliases(catalog: _Catalog, value: Any, path: str) -> None:
    for alias, target in catalog.mapping(value, path).items():
        named = target.get("model") if isinstance(target, dict) else target
        model = catalog.text(named, f"{path}.{alias}")
        if alias in catalog.models or model not in catalog.models:
            catalog.note(f"{path}.{alias}", "an alias here names a model of the list, and is none itself")
            continue
        if isinstance(target, dict) and target.get("hidden"):
            catalog.note(f"{path}.{alias}.hidden", "aliases are always listed here")
        catalog.aliases[alias] = model


def _litellm_fallbacks(catalog: _Catalog, value: Any, path: str) -> None:
    for index, item in enumerate(value if isinstance(value, list) else []):
        for model, others in catalog.mapping(item, f"{path}[{index}]").items():
            listed = others if isinstance(others, list) else [others]
            named = [catalog.text(name, f"{path}[{index}].{model}") for name in listed]
            there = [name for name in named if name in catalog.models]
            if model not in catalog.models or there != named:
                catalog.note(f"{path}[{index}].{model}", "names a model that is not carried over")
            if model in catalog.models and there:
                catalog.models[model]["fallbacks"] = there


# --- llms.py: llms.json ----------------------------------------------------------------------------------------------

_LLMS_PRICE = {"input": "input", "cached_input": "cache_read", "cache_write": "cache_write", "output": "output"}
_LLMS_FOREIGN = re.compile(r"google|anthropic", re.IGNORECASE)  # wire formats other than OpenAI's
_LLMS_MAPS = ("map_models", "model_map", "models")
_LLMS_HANDLED = {"enabled", "type", "npm", "api", "base_url", "api_key", "env", "all_models", "check", "pricing"}
_LLMS_HANDLED |= {*_LLMS_MAPS, "default_pricing", "id", "name"}


def llms(source: bytes) -> Imported:
    """llms.py, versions 1 to 3: its providers are tried in their order."""
    catalog = _Catalog()
    data = catalog.mapping(_json(source), "the file")
    providers = catalog.mapping(data.get("providers"), "providers")
    if not providers:
        raise Invalid(["providers: missing or empty"])
    for priority, (name, value) in enumerate(providers.items(), 1):
        _llms_provider(catalog, name, catalog.mapping(value, f"providers.{name}"), priority)
    defaults = catalog.mapping(data.get("defaults"), "defaults")
    shown = catalog.mapping(defaults.get("text"), "defaults.text").get("model")
    default = catalog.text(shown, "defaults.text.model")
    if default in catalog.models:
        catalog.default_model = default
    elif default:
        catalog.note("defaults.text.model", "not among the models that are carried over")
    catalog.note_keys("defaults", defaults, {"text"})
    catalog.note_keys("", data, {"providers", "defaults", "version"})
    return catalog.done()


def _json(source: bytes) -> Any:
    if len(source) > catalog_yaml.MAX_BYTES:
        raise Invalid([f"larger than {catalog_yaml.MAX_BYTES // 1024 // 1024} MB"])
    try:
        return json.loads(source, parse_float=Decimal)
    except json.JSONDecodeError as error:
        raise Invalid([f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"]) from None
    except (UnicodeDecodeError, RecursionError, ValueError):
        raise Invalid(["not JSON"]) from None


def _llms_provider(catalog: _Catalog, name: str, entry: dict[str, Any], priority: int) -> None:
    path = f"providers.{name}"
    ours = _NAMES.get(name, name)
    known = catalog.definition(ours)
    foreign = _LLMS_FOREIGN.search(f"{entry.get('type', '')} {entry.get('npm', '')}")
    base = _address(catalog.text(entry.get("api"), f"{path}.api"))
    base = base or _with_v1(catalog.text(entry.get("base_url"), f"{path}.base_url"))
    if ours == "ollama":
        base = _with_v1(base)
    if foreign and known:
        base = ""  # by the provider's OpenAI-compatible address instead
    if (foreign and not known) or not (base or known):
        catalog.note(path, "its wire format or its address is not known here: this provider is left out")
        return
    slug = catalog.provider(ours, base, [(_llms_key(catalog, entry, path), 1)])
    if entry.get("enabled") is False:
        catalog.providers[slug]["enabled"] = False
    if not _llms_models(catalog, entry, path, slug, priority) and not catalog.providers[slug].get("discover"):
        catalog.note(path, 'names no models: add them in the admin by "Add models from this provider"')
    catalog.note_keys(path, entry, _LLMS_HANDLED)


def _llms_key(catalog: _Catalog, entry: dict[str, Any], path: str) -> str:
    names = entry.get("env")
    if entry.get("api_key"):
        return catalog.text(entry["api_key"], f"{path}.api_key")
    if not isinstance(names, list) or not names:
        return ""
    if len(names) > 1:
        catalog.note(f"{path}.env", "several variables: only the first is used")
    return f"env:{catalog.text(names[0], f'{path}.env[0]')}"


def _llms_models(catalog: _Catalog, entry: dict[str, Any], path: str, slug: str, priority: int) -> int:
    key = next((key for key in _LLMS_MAPS if entry.get(key)), "")
    listed = catalog.mapping(entry.get(key), f"{path}.{key}")
    pricing = catalog.mapping(entry.get("pricing"), f"{path}.pricing")
    for name, value in listed.items():
        where = f"{path}.{key}.{name}"
        info = value if isinstance(value, dict) else {}
        upstream = catalog.text(info.get("id") or name if info else value, where) or name
        model = catalog.route(name, where, slug, upstream, priority=priority)
        costs = pricing.get(name, pricing.get(upstream, entry.get("default_pricing")))  # per token, as text
        price = _price(costs, _LLMS_PRICE, _MILLION, "llms.py's llms.json") if isinstance(costs, dict) else {}
        _fill(model, {**_llms_info(catalog, info, where), **({"price": price} if price else {})})
    return len(listed)


def _llms_info(catalog: _Catalog, info: dict[str, Any], path: str) -> dict[str, Any]:
    """A model as models.dev describes it: prices per million tokens."""
    parts = ("limit", "modalities", "cost")
    limit, modalities, cost = (catalog.mapping(info.get(part), f"{path}.{part}") for part in parts)
    supports = {"tools": "tool_call", "reasoning": "reasoning", "structured_outputs": "structured_output"}
    return {
        "name": info.get("name"),
        "context": limit.get("context") or None,
        "output": limit.get("output") or None,
        "price": _price(cost, _LLMS_PRICE, 1, "llms.py's llms.json"),
        "input_modalities": modalities.get("input"),
        "output_modalities": modalities.get("output"),
        "supports": [ours for ours, theirs in supports.items() if info.get(theirs) is True],
    }


# --- the api.yaml style: server, model_mapping, default_model, cors, auth --------------------------------------------


def kai(source: bytes) -> Imported:
    """`model_mapping: {name: {provider: ollama|openrouter, model}}`, with the providers' own settings beside it."""
    catalog = _Catalog()
    data = catalog.mapping(catalog_yaml.read(source), "the file")
    listed = catalog.mapping(data.get("model_mapping"), "model_mapping")
    if not listed:
        raise Invalid(["model_mapping: missing or empty", *catalog.faults])
    settings = catalog.mapping(data.get("providers"), "providers")
    used = {"model_mapping", "default_model", "providers"}
    for name, value in listed.items():
        used.add(_kai_model(catalog, name, catalog.mapping(value, f"model_mapping.{name}"), {**data, **settings}))
    default = catalog.text(data.get("default_model"), "default_model")
    if default in catalog.models:
        catalog.default_model = default
    elif default:
        catalog.note("default_model", "not among the models that are carried over")
    catalog.note_keys("", data, used)
    return catalog.done()


def _kai_model(catalog: _Catalog, name: str, entry: dict[str, Any], settings: Mapping[str, Any]) -> str:
    """Gives the name of the section that it took the provider's settings from."""
    path = f"model_mapping.{name}"
    theirs = catalog.text(entry.get("provider"), f"{path}.provider")
    model = catalog.text(entry.get("model"), f"{path}.model")
    if not theirs or not model:
        catalog.faults.append(f"{path}: expected provider and model")
        return ""
    ours = _NAMES.get(theirs, theirs)
    own = settings.get(theirs)
    own = own if isinstance(own, dict) else {}
    base = catalog.text(own.get("base_url") or own.get("url") or own.get("host"), f"{theirs}.base_url")
    if not base and not catalog.definition(ours):
        catalog.note(f"{path}.provider", "not known here: this model is left out")
        return theirs
    key = catalog.text(own.get("api_key"), f"{theirs}.api_key")
    slug = catalog.provider(ours, _with_v1(base), [(key, 1)])
    catalog.route(name, path, slug, model, priority=1)
    catalog.note_keys(path, entry, {"provider", "model"})
    return theirs


SOURCES: dict[str, Callable[[bytes], Imported]] = {"litellm": litellm, "llms": llms, "kai": kai}
