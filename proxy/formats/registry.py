"""The wire formats that the gateway speaks to providers: by a row's dialect, and an endpoint that it `supports`.

A new format is one line here. Called by `routing` and `outgoing`.
"""

from functools import cache

from proxy.formats import anthropic_messages, gemini, openai_chat, openai_completions, openai_responses
from proxy.formats.base import Client, Format

# Of two formats of one provider, the one that can say more comes first: Responses keeps thoughts over turns.
_SPOKEN: tuple[tuple[str, str, Format], ...] = (
    ("openai", "responses", openai_responses),
    ("openai", "chat", openai_chat),
    ("anthropic", "", anthropic_messages),
    ("gemini", "", gemini),
)


def between(client: Client, dialect: str, supports: frozenset[str]) -> Format | None:
    """In which format such a provider is asked for this client: its own, where the provider has it. None: in none."""
    return _between(client.NAME, dialect, supports)


@cache  # as many entries as there are kinds of providers
def _between(client: str, dialect: str, supports: frozenset[str]) -> Format | None:
    found = [form for name, endpoint, form in _SPOKEN if name == dialect and (not endpoint or endpoint in supports)]
    nearest = openai_chat.NAME if client == openai_completions.NAME else client
    return next((form for form in found if nearest == form.NAME), found[0] if found else None)
