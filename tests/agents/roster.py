"""The coding agents: at which versions, how each is pointed at a gateway, and how it runs without asking anybody.

Each row ends in a function that writes the agent's files and gives its arguments and variables. All telemetry, update
checks and price lists are off: an agent has no reason to leave this machine. Callers: `install`, `run`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.agents.scripted import FILES

PROMPT = f"Write the files {' and '.join(FILES)}."
CONTEXT, OUTPUT = 200_000, 8192  # tokens, for agents that want to be told
NOWHERE = "http://127.0.0.1:9/"  # the discard port: for look-ups that have no other switch


@dataclass(frozen=True)
class Work:
    """One run of an agent: a folder of its own, and whom it asks."""

    folder: Path
    url: str  # the gateway's, without a path
    key: str
    model: str

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def base_url(self) -> str:
        """As OpenAI's SDKs take it."""
        return f"{self.url}/v1"


@dataclass(frozen=True)
class Command:
    arguments: list[str]
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Agent:
    name: str
    package: str  # npm's, or PyPI's where `python`
    version: str
    program: str
    dialect: str  # what it speaks, in the words of `tests.providers`
    command: Callable[[Work], Command]
    python: bool = False
    code_when_refused: int = 1  # with which it ends once its key was refused
    model: str = ""  # how a model's name begins under which it sends something else


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _claude_code(work: Work) -> Command:
    """https://code.claude.com/docs/en/settings#environment-variables"""
    quiet = (
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "DISABLE_TELEMETRY",
        "DISABLE_ERROR_REPORTING",
        "DISABLE_AUTOUPDATER",
    )
    variables = {"ANTHROPIC_BASE_URL": work.url, "ANTHROPIC_AUTH_TOKEN": work.key, **dict.fromkeys(quiet, "1")}
    arguments = ["-p", PROMPT, "--model", work.model, "--allowedTools", "Write", "--no-session-persistence"]
    return Command(arguments, variables)


# It would look for plugins on its vendor's pages, and for its own updates.
_CODEX_CONFIG = """\
model = {model}
model_provider = "kodna"
check_for_update_on_startup = false

[model_providers.kodna]
name = "Kodna"
base_url = {base_url}
env_key = "KODNA_API_KEY"
wire_api = "responses"

[analytics]
enabled = false

[features]
plugins = false
apps = false
"""


def _codex(work: Work) -> Command:
    """https://developers.openai.com/codex/config-reference"""
    config = _CODEX_CONFIG.format(model=json.dumps(work.model), base_url=json.dumps(work.base_url))
    _write(work.home / ".codex" / "config.toml", config)
    alone = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--ephemeral", "--color", "never"]
    return Command(["exec", *alone, PROMPT], {"KODNA_API_KEY": work.key})


def _opencode(work: Work) -> Command:
    """https://opencode.ai/docs/config, https://opencode.ai/docs/providers#custom-provider"""
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Kodna",
        "options": {"baseURL": work.base_url, "apiKey": "{env:KODNA_API_KEY}"},
        "models": {work.model: {"tool_call": True, "limit": {"context": CONTEXT, "output": OUTPUT}}},
    }
    chosen = f"kodna/{work.model}"
    config = {"provider": {"kodna": provider}, "model": chosen, "small_model": chosen}
    _write(work.project / "opencode.json", json.dumps({**config, "autoupdate": False, "share": "disabled"}))
    quiet = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS")
    variables = {"KODNA_API_KEY": work.key, "OPENCODE_PURE": "1"}
    return Command(["run", "--auto", PROMPT], variables | {f"OPENCODE_DISABLE_{name}": "1" for name in quiet})


def _gemini_cli(work: Work) -> Command:
    """https://geminicli.com/docs/reference/configuration"""
    settings = {
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
    }
    _write(work.home / ".gemini" / "settings.json", json.dumps(settings))
    arguments = ["-p", PROMPT, "-m", work.model, "--yolo", "--skip-trust"]
    return Command(arguments, {"GEMINI_API_KEY": work.key, "GOOGLE_GEMINI_BASE_URL": work.url})


def _continue(work: Work) -> Command:
    """https://docs.continue.dev/reference. JSON is YAML."""
    model = {
        "name": work.model,
        "provider": "openai",
        "model": work.model,
        "apiBase": work.base_url,
        "apiKey": work.key,
        "roles": ["chat"],
        "capabilities": ["tool_use"],
    }
    config = {"name": "Kodna", "version": "1.0.0", "schema": "v1", "models": [model]}
    path = _write(work.home / ".continue" / "config.yaml", json.dumps(config))
    quiet = {"CONTINUE_API_BASE": NOWHERE, "CONTINUE_CLI_ENABLE_TELEMETRY": "0", "CONTINUE_METRICS_ENABLED": "0"}
    return Command(["-p", "--auto", "--config", str(path), PROMPT], quiet)


def _aider(work: Work) -> Command:
    """https://aider.chat/docs/config/options.html. It knows no tools: it writes files by edit blocks in its text."""
    model = f"openai/{work.model}"
    facts = {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": CONTEXT, "max_output_tokens": OUTPUT}
    known = _write(work.home / "models.json", json.dumps({model: facts}))  # else it fetches a price list
    off = ("git", "check-update", "show-model-warnings", "show-release-notes", "analytics", "detect-urls")
    plain = ("pretty", "fancy-input", "suggest-shell-commands")
    arguments = ["--model", model, "--model-metadata-file", str(known), "--edit-format", "diff", "--yes-always"]
    arguments += [f"--no-{name}" for name in (*off, *plain)]
    variables = {"OPENAI_API_BASE": work.base_url, "OPENAI_API_KEY": work.key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return Command([*arguments, "--message", PROMPT], variables)


_CODEX = Agent("codex", "@openai/codex", "0.169.0", "codex", "responses", _codex)
AGENTS = {
    agent.name: agent
    for agent in (
        Agent("claude-code", "@anthropic-ai/claude-code", "2.1.328", "claude", "messages", _claude_code),
        _CODEX,
        # With a custom tool, `apply_patch`; and with no `tools`, but an input item that holds them.
        replace(_CODEX, name="codex-gpt-5.5", model="gpt-5.5"),
        replace(_CODEX, name="codex-gpt-6", model="gpt-6-sol"),
        Agent("opencode", "opencode-ai", "1.18.33", "opencode", "chat", _opencode),
        Agent("gemini-cli", "@google/gemini-cli", "0.61.0", "gemini", "gemini", _gemini_cli),
        Agent("cn", "@continuedev/cli", "1.5.47", "cn", "chat", _continue),
        Agent("aider", "aider-chat", "0.86.2", "aider", "chat", _aider, python=True, code_when_refused=0),
    )
}
