"""The catalog that comes with Kodna: whole, loadable, and honest about its prices."""

from pathlib import Path

import pytest

from models_catalog import aliases, catalog_file, catalog_yaml, snapshot
from models_catalog.models import Model, Price, Provider, Vendor

pytestmark = pytest.mark.django_db

FOLDER = Path(catalog_file.__file__).parent
# ID, tokens in, tokens out, in the order of the docs page.
MODELS = """
# Anthropic / Claude
claude-opus-4-5-20251101 200000 64000
claude-opus-4-1-20250805 80000 32000
claude-sonnet-4-5-20250929 200000 64000
claude-sonnet-4-20250514 128000 64000
claude-haiku-4-5-20251001 200000 32000
# OpenAI / GPT
gpt-5.1 128000 64000
gpt-5 128000 64000
gpt-4.1 128000 16000
gpt-4o 128000 4000
gpt-4o-mini 128000 4000
gpt-3.5-turbo 16000 4000
openai-gpt-oss-20b 128000 128000
openai-gpt-oss-120b 128000 128000
# Google / Gemini
gemini-3-pro-preview 200000 64000
gemini-2.5-pro 128000 64000
gemini-2.5-flash 196000 32000
gemini-2.0-flash 128000 64000
gemini-1.5-pro 128000 64000
gemini-1.5-flash 128000 64000
gemini-pro 128000 64000
# DeepSeek
deepseek-v3.2 128000 64000
deepseek-ai/deepseek-v3.1 128000 16000
deepseek-ai/deepseek-v3.1-terminus 164000 56000
deepseek-r1-distill-llama-70b 128000 128000
# Qwen / Alibaba
qwen/qwen3-next-80b-a3b-instruct 262000 16000
# Mistral AI
mistralai/mistral-nemotron 128000 16000
# Meta / Llama
llama3.3-70b-instruct 131000 131000
llama3-8b-instruct 8000 8000
# Moonshot AI
moonshotai/kimi-k2-instruct-0905 256000 56000
# Minimax
minimaxai/minimax-m2 128000 32000
# Grok / xAI
grok-4.1-fast-reasoning 200000 64000
grok-4.1-fast-non-reasoning 200000 64000
"""


def listed() -> str:
    lines = []
    for vendor in Vendor.objects.all():
        lines.append(f"# {vendor.name}")
        lines += [f"{model.slug} {model.context} {model.output}" for model in vendor.models.order_by("position")]
    return "\n".join(lines)


def test_it_works() -> None:
    catalog_file.load_builtin(demo=False)
    assert listed() == MODELS.strip()
    assert Model.objects.count() == 32
    assert snapshot.load().default_model == "gpt-4o-mini"


def test_loading_it_again_changes_nothing() -> None:
    catalog_file.load_builtin(demo=True)
    before = snapshot.version()
    assert catalog_file.load_builtin(demo=True) == []
    assert snapshot.version() == before


def test_export_then_load_is_the_identity() -> None:
    catalog_file.load_builtin(demo=True)
    text = catalog_file.export()
    assert catalog_file.load(catalog_yaml.read(text), dry_run=True, prune=True) == []
    Model.objects.all().delete()
    Provider.objects.all().delete()
    Vendor.objects.all().delete()
    catalog_file.load(catalog_yaml.read(text))
    assert catalog_file.export() == text


def test_every_model_has_a_route_and_every_price_a_source() -> None:
    catalog_file.load_builtin(demo=True)
    assert not Model.objects.filter(routes=None).exists()
    assert not Price.objects.filter(source="").exists()
    assert [model.slug for model in Model.objects.filter(prices=None)] == ["mistralai/mistral-nemotron"]
    for price in Price.objects.exclude(model__vendor__slug="kodna"):
        assert 0 < price.input <= price.output
        assert price.cached_input is None or price.cached_input < price.input


def test_credentials_are_references_to_the_environment() -> None:
    catalog_file.load_builtin(demo=True)
    without = [row.slug for row in Provider.objects.all() if not row.api_key.startswith("env:")]
    assert without == ["ollama"]


def test_providers_come_alive_with_their_variables(settings) -> None:
    catalog_file.load_builtin(demo=False)
    settings.PROVIDER_ENV = {}
    assert [model for model in snapshot.load().models.values() if model.routes] == []
    settings.PROVIDER_ENV = {"OPENAI_API_KEY": "sk-1", "OPENROUTER_API_KEY": "sk-2"}
    routes = snapshot.load().models["gpt-4o-mini"].routes
    assert [(route.provider.name, route.model) for route in routes] == [
        ("openai", "gpt-4o-mini"),
        ("openrouter", "openai/gpt-4o-mini"),
    ]


def address(row: Provider) -> str:
    return next(each.provider.base_url for each in snapshot.freeze_provider(row) if each.provider)


NAMED = {
    "OPENAI": "gpt-5.1 gpt-4o-mini gpt-5.1 gpt-4o-mini gpt-5.1 gpt-5.1 gpt-5.1 gpt-5.1 gpt-5.1",
    "ANTHROPIC": "opus-4-5 haiku-4-5 sonnet-4-5 haiku-4-5 haiku-4-5 sonnet-4-5 opus-4-5 sonnet-4-5 sonnet-4-5",
    "GEMINI": "gemini-pro 2.0-flash gemini-pro 2.0-flash 3-pro gemini-pro gemini-pro gemini-pro 2.5-pro",
    "OPENROUTER": "opus-4-5 2.0-flash sonnet-4-5 oss-20b qwen3-next sonnet-4-5 opus-4-5 sonnet-4-5 haiku-4-5",
    "DEEPSEEK": "v3.2 v3.2 v3.2 v3.2 v3.2 - v3.2 v3.2 v3.2",
    "GROQ": "oss-120b oss-20b oss-120b oss-20b oss-20b - oss-120b oss-120b oss-20b",
    "XAI": "-reasoning non-reasoning -reasoning fast fast -reasoning -reasoning -reasoning -reasoning",
    "MOONSHOT": "kimi kimi kimi kimi kimi - - kimi kimi",
}


@pytest.mark.parametrize("live", NAMED)
def test_what_the_named_aliases_stand_for(settings, live: str) -> None:
    catalog_file.load_builtin(demo=True)
    Provider.objects.filter(slug="ollama").update(is_active=False)
    settings.DEMO = True
    demo = {"KODNA_LOOPBACK": "127.0.0.1:8000", "KODNA_DEMO_KEY": "demo"}
    settings.PROVIDER_ENV = {f"{live}_API_KEY": "sk-1", **demo}
    found = snapshot.load().aliases
    for name, part in zip(aliases.NAMES, NAMED[live].split(), strict=True):
        assert part in found[name] if part != "-" else name not in found, name


def test_with_nothing_but_the_demonstration_they_stand_for_it(settings) -> None:
    catalog_file.load_builtin(demo=True)
    Provider.objects.filter(slug="ollama").update(is_active=False)
    settings.DEMO = True
    settings.PROVIDER_ENV = {"KODNA_LOOPBACK": "127.0.0.1:8000", "KODNA_DEMO_KEY": "demo"}
    assert set(snapshot.load().aliases.values()) == {"kodna-demo-tools"}


def test_ollama_is_found_where_it_usually_is(settings) -> None:
    catalog_file.load_builtin(demo=False)
    row = Provider.objects.get(slug="ollama")
    settings.PROVIDER_ENV = {}
    assert address(row) == "http://127.0.0.1:11434/v1"
    settings.PROVIDER_ENV = {"OLLAMA_BASE_URL": "http://192.0.2.1:1234"}
    assert address(row) == "http://192.0.2.1:1234/v1"


def test_the_demonstration_comes_and_goes_with_its_switch(settings) -> None:
    settings.DEMO = True
    settings.PROVIDER_ENV = {"KODNA_LOOPBACK": "127.0.0.1:8000", "KODNA_DEMO_KEY": "demo"}
    assert "+ models.kodna-demo" in catalog_file.load_builtin(demo=True)
    model = snapshot.load().models["kodna-demo"]
    assert model.routes[0].provider.base_url == "http://127.0.0.1:8000/demo/v1"
    assert "not a language model" in model.description
    assert "- models.kodna-demo" in catalog_file.load_builtin(demo=False, prune=True)


def test_the_demonstration_is_not_the_default() -> None:
    catalog_file.load_builtin(demo=True)
    assert snapshot.load().default_model == "gpt-4o-mini"


@pytest.mark.parametrize("name", ["builtin.yaml", "demo.yaml"])
def test_the_files_hold_no_credential(name: str) -> None:
    data = catalog_yaml.read((FOLDER / name).read_bytes())
    keys = [provider.get("api_key", "env:") for provider in data["providers"].values()]
    assert all(key.startswith("env:") for key in keys)
