import ast
import json
import shlex
import shutil
import subprocess
import tomllib

import pytest
import yaml
from django.test import RequestFactory

from accounts.models import ApiKey
from accounts.snippets import NO_MODEL, base_url, example_model, snippets

KEY, ROOT, URL = "sk-kodna-Ab1", "https://llm.example.org", "https://llm.example.org/v1"
MODELS = ["gpt-4o-mini", 'vendor/it\'s "odd" \\ é']


def texts(model: str = MODELS[0]) -> dict[str, str]:
    return {snippet.slug: snippet.text for snippet in snippets(KEY, URL, model)}


def test_it_works():
    assert list(texts()) == [
        "python", "javascript", "curl",
        "claude-code", "codex", "opencode", "gemini-cli", "aider",
        "continue", "cursor",
    ]  # fmt: skip
    for slug, text in texts().items():
        assert KEY in text
        assert ROOT in text
        assert (URL in text) is (slug not in {"claude-code", "gemini-cli"}), "these add the version themselves"
        assert MODELS[0] in text


@pytest.mark.parametrize("model", MODELS)
def test_python_is_python(model):
    literals = {node.value for node in ast.walk(ast.parse(texts(model)["python"])) if isinstance(node, ast.Constant)}
    assert {KEY, URL, model} <= literals


@pytest.mark.parametrize("model", MODELS)
def test_curl_sends_what_it_should(model):
    words = shlex.split(texts(model)["curl"].replace("\\\n", " "))
    assert words[:3] == ["curl", "-N", f"{URL}/chat/completions"]
    assert f"Authorization: Bearer {KEY}" in words
    assert json.loads(words[-1])["model"] == model


@pytest.mark.parametrize(
    ("slug", "program", "names"),
    [
        (
            "claude-code",
            "claude",
            {
                "ANTHROPIC_BASE_URL": ROOT,
                "ANTHROPIC_AUTH_TOKEN": KEY,
                "ANTHROPIC_MODEL": "{model}",
                "ANTHROPIC_DEFAULT_HAIKU_MODEL": "{model}",
            },
        ),
        ("gemini-cli", "gemini", {"GOOGLE_GEMINI_BASE_URL": ROOT, "GEMINI_API_KEY": KEY, "argument": "{model}"}),
        ("aider", "aider", {"OPENAI_API_BASE": URL, "OPENAI_API_KEY": KEY, "argument": "openai/{model}"}),
    ],
)
@pytest.mark.parametrize("model", MODELS)
def test_agents_are_started_with_url_key_and_model(slug, program, names, model):
    spy = f'{program}() {{ env -0; printf "argument=%s\\0" "$@"; }}\n'
    done = subprocess.run(["bash", "-c", spy + texts(model)[slug]], capture_output=True, text=True, check=True)
    said = done.stdout.split("\0")
    assert {f"{name}={value.replace('{model}', model)}" for name, value in names.items()} <= {*said}


@pytest.mark.parametrize("model", MODELS)
def test_codex_is_toml(model):
    text = texts(model)["codex"]
    config = tomllib.loads(text)
    assert (config["model"], config["model_provider"]) == (model, "kodna")
    assert config["model_providers"]["kodna"]["base_url"] == URL
    assert f"export {config['model_providers']['kodna']['env_key']}={KEY}\n" in text


@pytest.mark.parametrize("model", MODELS)
def test_opencode_is_json(model):
    config = json.loads(texts(model)["opencode"])
    provider = config["provider"]["kodna"]
    assert config["model"] == f"kodna/{model}"
    assert provider["options"] == {"baseURL": URL, "apiKey": KEY}
    assert list(provider["models"]) == [model]


@pytest.mark.parametrize("model", MODELS)
def test_continue_is_yaml(model):
    entry = yaml.safe_load(texts(model)["continue"])["models"][0]
    assert (entry["provider"], entry["model"]) == ("openai", model)
    assert (entry["apiBase"], entry["apiKey"]) == (URL, KEY)


@pytest.mark.skipif(shutil.which("node") is None, reason="no node: it is not installed")
@pytest.mark.parametrize("model", MODELS)
def test_javascript_is_javascript(model, tmp_path):
    script = tmp_path / "snippet.mjs"
    script.write_text(texts(model)["javascript"], encoding="utf-8")
    subprocess.run(["node", "--check", script], check=True)


@pytest.mark.parametrize(("setting", "url"), [
    ("", "http://testserver/v1"),
    ("https://llm.example.org", URL),
    ("https://llm.example.org/v1", URL),
    ("https://example.org/llm/", "https://example.org/llm/v1"),
])  # fmt: skip
def test_the_base_url_ends_in_v1(settings, setting, url):
    settings.PUBLIC_BASE_URL = setting
    assert base_url(RequestFactory().get("/admin/")) == url


def test_the_model_is_the_first_that_the_key_may_use():
    assert example_model(ApiKey(allowed_models=["b", "a"])) == "b"


def test_else_the_project_names_who_tells_one(settings):
    settings.SNIPPET_MODEL = "tests.accounts.test_snippets.a_model"
    assert example_model(ApiKey()) == "a-model"


def test_else_a_placeholder(settings):
    settings.SNIPPET_MODEL = "tests.accounts.test_snippets.no_model"
    assert example_model(ApiKey()) == NO_MODEL


def a_model() -> str:
    return "a-model"


def no_model() -> str:
    return ""
