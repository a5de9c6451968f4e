"""Thoughts of other formats' models, taken out of a Messages request before it goes to a provider that speaks Messages.

Clients keep them, sealed, where Claude's signatures stand; the API refuses a signature that is not its own. Called by
`anthropic_messages.request_reader` for bytes that pass.
"""

from typing import Any

import msgspec

from proxy.formats.anthropic_messages.byte_relay import NAME
from proxy.formats.anthropic_messages.models import UNSIGNED_THINKING
from proxy.formats.canonical import SEAL, unseal
from proxy.formats.lenient import value
from proxy.formats.splice import Members

_MARK = SEAL.encode()
_PLACES = {"thinking": "signature", "redacted_thinking": "data"}


def without_seals(members: Members, quirks: frozenset[str]) -> dict[str, bytes]:
    """The members that must be written anew: none of most requests."""
    if _MARK not in members.text:
        return {}
    found = value(members.get("messages", b"null"))
    if not isinstance(found, list):
        return {}
    messages = [kept for each in found if (kept := _message(each, unsigned=UNSIGNED_THINKING in quirks)) is not None]
    if messages == found:
        return {}
    values = {"messages": msgspec.json.encode(messages)}
    thinking = value(members.get("thinking", b"null"))
    budget = isinstance(thinking, dict) and thinking.get("type") == "enabled"
    if budget and UNSIGNED_THINKING not in quirks and _in_unthought_loop(messages):
        values["thinking"] = b'{"type":"disabled"}'
    return values


def _message(message: Any, *, unsigned: bool) -> Any:
    """None where nothing is left of it."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    blocks = [kept for each in content if (kept := _block(each, unsigned=unsigned)) is not None]
    return {**message, "content": blocks} if blocks or not content else None


def _block(block: Any, *, unsigned: bool) -> Any:
    kind = block.get("type") if isinstance(block, dict) else None
    place = _PLACES.get(kind) if isinstance(kind, str) else None
    said = block.get(place) if place is not None else None
    sealed = unseal(said) if isinstance(said, str) else None
    if sealed is None:
        return block
    origin, signature = sealed
    if origin == NAME:
        return {**block, place: signature}
    return {**block, place: ""} if unsigned and block.get("thinking") else None


def _in_unthought_loop(messages: list[Any]) -> bool:
    """With a budget, the API goes on with a tool loop only where the assistant's turn begins with a thought.

    https://platform.claude.com/docs/en/build-with-claude/extended-thinking#extended-thinking-with-tool-use
    """
    kinds = [(each.get("role"), _kinds(each.get("content"))) for each in messages if isinstance(each, dict)]
    last = next((number for number in range(len(kinds) - 1, -1, -1) if kinds[number][0] == "assistant"), -1)
    answered = any("tool_result" in found for _, found in kinds[last + 1 :])
    return last >= 0 and answered and kinds[last][1][:1] not in (["thinking"], ["redacted_thinking"])


def _kinds(content: Any) -> list[Any]:
    return [each.get("type") for each in content if isinstance(each, dict)] if isinstance(content, list) else []
