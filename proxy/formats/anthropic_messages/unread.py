"""What messages and blocks of Anthropic's Messages hold that has no canonical place.

It is kept by its path in `Request.extra`, and so the writers of other formats name it as lost.
Called by `anthropic_messages.request_reader`.
Blocks: https://platform.claude.com/docs/en/api/messages/create
"""

from typing import Any

# What is read of each block. Others are `Opaque` as a whole.
READ = {
    "text": {"text", "citations"},
    "image": {"source"},
    "document": {"source", "title", "context", "citations"},
    "search_result": {"content", "source", "title", "citations"},
    "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
}
OF_ANY = frozenset({"type", "cache_control"})
DIRECT = {"type": "direct"}  # the model called it itself: the default


def unread_of_messages(messages: Any) -> dict[str, Any]:
    unread: dict[str, Any] = {}
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        if isinstance(message, dict):
            at = f"messages[{number}]"
            names = message.keys() - {"role", "content", "clear_at"}
            unread |= {f"{at}.{name}": message[name] for name in sorted(names) if message[name] not in (None, {})}
            unread |= unread_blocks(message.get("content"), f"{at}.content")
    return unread


def unread_blocks(blocks: Any, at: str) -> dict[str, Any]:
    unread: dict[str, Any] = {}
    for number, block in enumerate(blocks if isinstance(blocks, list) else ()):
        kind = block.get("type") if isinstance(block, dict) else None
        read = READ.get(kind) if isinstance(kind, str) else None
        if read is None:
            continue
        where = f"{at}[{number}]"
        names = block.keys() - read - OF_ANY
        unread |= {f"{where}.{name}": block[name] for name in sorted(names) if block[name] not in (None, {}, DIRECT)}
        if kind == "tool_result":
            unread |= unread_blocks(block.get("content"), f"{where}.content")
        elif kind == "document" and isinstance(source := block.get("source"), dict):
            unread |= _not_text(source.get("content"), f"{where}.source.content")
    return unread


def _not_text(blocks: Any, at: str) -> dict[str, Any]:
    """A document made of blocks is read as its text."""
    found = enumerate(blocks if isinstance(blocks, list) else ())
    return {f"{at}[{n}]": block for n, block in found if isinstance(block, dict) and block.get("type") != "text"}
