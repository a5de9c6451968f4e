"""Where an SDK knocks, and the catalog of the gateway that stands there.

Callers: `conftest` beside it, and `tests/clients/run.py` for the SDKs of JavaScript.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.gateway import catalog, model
from tests.providers import DIALECTS, KEY, Providers, scenario

Test = TypeVar("Test", bound=Callable[..., Any])


@dataclass(frozen=True)
class Door:
    dialect: str  # the provider's
    root: str  # of the address; some SDKs want /v1 after it
    key: str
    direct: bool

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"

    def model(self, name: str) -> str:
        return name if self.direct else model_name(self.dialect, name)


def only_through_the_gateway(test: Test) -> Test:
    """For what the SDK does not do by itself."""
    test.only_through_the_gateway = True  # type: ignore[attr-defined]
    return test


def model_name(dialect: str, name: str) -> str:
    return f"{dialect}-{name}"


def _provider(dialect: str, server: Providers) -> dict[str, Any]:
    if dialect in ("messages", "gemini"):
        kind = "anthropic" if dialect == "messages" else "gemini"
        return {"dialect": kind, "base_url": server.root, "api_key": KEY}
    openai = {"dialect": "openai", "base_url": server.base_url, "api_key": KEY, "supports": [dialect]}
    return {**openai, "quirks": ["reasoning_content"]} if dialect == "chat" else openai  # it takes its thoughts back


def providers_catalog(server: Providers) -> dict[str, object]:
    """A provider for each dialect; and one for each scenario that ends badly, so that none of them spoils another."""
    providers, models = {}, {}
    for dialect in DIALECTS:
        for name in scenario.MODELS:
            bad = name.startswith(("error", "cut", "truncated"))
            provider = model_name(dialect, name) if bad else dialect
            providers[provider] = _provider(dialect, server)
            models[model_name(dialect, name)] = model((provider, name), price={"input": 1, "output": 2})
    return catalog(providers, models)
