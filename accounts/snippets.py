"""Ready settings for the usual clients, with key, base URL and model filled in. `admin` shows them beside a new key."""

import json
import shlex
from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest
from django.utils.module_loading import import_string

from accounts.models import ApiKey

NO_MODEL = "your-model-id"  # where the catalog has none that answers


@dataclass(frozen=True, slots=True)
class Snippet:
    slug: str
    title: str
    text: str
    note: str = ""


def base_url(request: HttpRequest) -> str:
    """What clients take as their base URL: it ends in /v1."""
    root = settings.PUBLIC_BASE_URL or request.build_absolute_uri("/")
    return root.rstrip("/").removesuffix("/v1") + "/v1"


def example_model(key: ApiKey) -> str:
    """A model that this key may use. Which there are is not this app's to know: the setting names who tells."""
    if key.allowed_models:
        return str(key.allowed_models[0])
    return import_string(settings.SNIPPET_MODEL)() or NO_MODEL


def snippets(key: str, url: str, model: str) -> list[Snippet]:
    return [
        Snippet("python", "Python", _python(key, url, model), "pip install openai"),
        Snippet("javascript", "JavaScript", _javascript(key, url, model), "npm install openai"),
        Snippet("curl", "curl", _curl(key, url, model)),
        Snippet("claude-code", "Claude Code", _claude_code(key, url, model)),
        Snippet("codex", "Codex CLI", _codex(key, url, model), "~/.codex/config.toml"),
        Snippet("opencode", "opencode", _opencode(key, url, model), "opencode.json in your project"),
        Snippet("gemini-cli", "gemini-cli", _gemini_cli(key, url, model), GEMINI_CLI_NOTE),
        Snippet("aider", "aider", _aider(key, url, model)),
        Snippet("continue", "Continue", _continue(key, url, model), "~/.continue/config.yaml"),
        Snippet("cursor", "Cursor", _cursor(key, url, model), CURSOR_NOTE),
    ]


GEMINI_CLI_NOTE = 'With {"security": {"auth": {"selectedType": "gemini-api-key"}}} in ~/.gemini/settings.json'
CURSOR_NOTE = "Cursor sends requests through its own servers: they must be able to reach this base URL over HTTPS."


def _root(url: str) -> str:
    """What Anthropic's and Google's clients take: they add the API's version themselves."""
    return url.removesuffix("/v1")


def _quoted(text: str) -> str:
    """A string literal that JSON, Python, JavaScript, YAML and TOML all read alike."""
    return json.dumps(text, ensure_ascii=False)


def _python(key: str, url: str, model: str) -> str:
    return f"""\
from openai import OpenAI

client = OpenAI(
    base_url={_quoted(url)},
    api_key={_quoted(key)},
)
stream = client.chat.completions.create(
    model={_quoted(model)},
    messages=[{{"role": "user", "content": "Say hello."}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
"""


def _javascript(key: str, url: str, model: str) -> str:
    return f"""\
import OpenAI from "openai";

const client = new OpenAI({{
  baseURL: {_quoted(url)},
  apiKey: {_quoted(key)},
}});
const stream = await client.chat.completions.create({{
  model: {_quoted(model)},
  messages: [{{ role: "user", content: "Say hello." }}],
  stream: true,
}});
for await (const chunk of stream) {{
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}}
"""


def _curl(key: str, url: str, model: str) -> str:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Say hello."}]}
    return " \\\n  ".join(
        [
            f"curl -N {shlex.quote(url + '/chat/completions')}",
            f"-H {shlex.quote('Authorization: Bearer ' + key)}",
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}",
        ]
    )


def _claude_code(key: str, url: str, model: str) -> str:
    """https://code.claude.com/docs/en/llm-gateway; the Haiku model is for small tasks in the background."""
    return f"""\
export ANTHROPIC_BASE_URL={shlex.quote(_root(url))}
export ANTHROPIC_AUTH_TOKEN={shlex.quote(key)}
export ANTHROPIC_MODEL={shlex.quote(model)}
export ANTHROPIC_DEFAULT_HAIKU_MODEL={shlex.quote(model)}
claude
"""


def _codex(key: str, url: str, model: str) -> str:
    """Codex reads the key from its environment only."""
    return f"""\
# in the shell: export KODNA_API_KEY={shlex.quote(key)}
model = {_quoted(model)}
model_provider = "kodna"

[model_providers.kodna]
name = "Kodna"
base_url = {_quoted(url)}
env_key = "KODNA_API_KEY"
wire_api = "responses"
"""


def _opencode(key: str, url: str, model: str) -> str:
    config = {
        "$schema": "https://opencode.ai/config.json",
        "model": f"kodna/{model}",
        "provider": {
            "kodna": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Kodna",
                "options": {"baseURL": url, "apiKey": key},
                "models": {model: {"tool_call": True}},
            }
        },
    }
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n"


def _gemini_cli(key: str, url: str, model: str) -> str:
    return f"""\
export GOOGLE_GEMINI_BASE_URL={shlex.quote(_root(url))}
export GEMINI_API_KEY={shlex.quote(key)}
gemini --model {shlex.quote(model)}
"""


def _aider(key: str, url: str, model: str) -> str:
    return f"""\
export OPENAI_API_BASE={shlex.quote(url)}
export OPENAI_API_KEY={shlex.quote(key)}
aider --model {shlex.quote("openai/" + model)}
"""


def _continue(key: str, url: str, model: str) -> str:
    return f"""\
name: {_quoted(settings.SERVICE_NAME)}
version: 1.0.0
schema: v1
models:
  - name: {_quoted(model)}
    provider: openai
    model: {_quoted(model)}
    apiBase: {_quoted(url)}
    apiKey: {_quoted(key)}
    roles: [chat, edit, apply]
"""


def _cursor(key: str, url: str, model: str) -> str:
    return f"""\
Settings → Models → API Keys
OpenAI API Key: {key}
Override OpenAI Base URL: {url}
Add custom model: {model}
"""
