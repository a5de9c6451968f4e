"""Which format a provider is asked in."""

import pytest

from proxy.formats import anthropic_messages, gemini, openai_chat, openai_completions, openai_responses, registry
from proxy.formats.base import Client, Format

BOTH, CHAT, RESPONSES = frozenset({"chat", "responses"}), frozenset({"chat"}), frozenset({"responses"})


@pytest.mark.parametrize(
    ("client", "dialect", "supports", "found"),
    [
        (openai_chat, "openai", BOTH, openai_chat),
        (openai_responses, "openai", BOTH, openai_responses),
        (openai_responses, "openai", CHAT, openai_chat),
        (openai_chat, "openai", RESPONSES, openai_responses),
        (anthropic_messages, "openai", BOTH, openai_responses),
        (gemini, "openai", CHAT, openai_chat),
        (openai_completions, "openai", BOTH, openai_chat),
        (openai_completions, "anthropic", CHAT, anthropic_messages),
        (openai_chat, "anthropic", CHAT, anthropic_messages),
        (anthropic_messages, "anthropic", frozenset(), anthropic_messages),
        (openai_chat, "gemini", CHAT, gemini),
        (openai_chat, "openai", frozenset({"embeddings"}), None),
        (openai_chat, "fal", CHAT, None),
    ],
)
def test_it_works(client: Client, dialect: str, supports: frozenset[str], found: Format | None) -> None:
    assert registry.between(client, dialect, supports) is found
