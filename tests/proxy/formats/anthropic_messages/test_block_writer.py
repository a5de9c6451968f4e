"""Parts as content blocks, one by one. Whole conversations are in `test_request_writer`."""

from typing import Any

import pytest

from proxy.formats.anthropic_messages.block_writer import Parts
from proxy.formats.anthropic_messages.models import Rules
from proxy.formats.base import Losses
from proxy.formats.canonical import Media, Part, Text, Thinking, ToolCall, ToolResult


@pytest.mark.parametrize(
    ("role", "part", "block"),
    [
        (
            "user",
            Text("Hi", cache="1h"),
            {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ),
        (
            "assistant",
            Thinking("Hm", signature="s", origin="anthropic_messages", cache="5m"),
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
        ),
        ("assistant", ToolCall("a/b", "f", ""), {"type": "tool_use", "name": "f", "input": {}}),
        ("user", ToolResult("a/b", [], is_error=True), {"type": "tool_result", "is_error": True}),
        (
            "user",
            Media("image", "image/jpg", "/9j/"),
            {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}},
        ),
    ],
)
def test_a_part_is_a_block(role: str, part: Part, block: dict[str, Any]) -> None:
    losses = Losses({})
    [(same, written)] = Parts(role, Rules(), losses).items([part])
    identifier = {written.pop(name) for name in ("id", "tool_use_id") if name in written}
    assert same is part
    assert written == block
    assert all(each.startswith("a_b_") for each in identifier)
    assert losses.names == []


@pytest.mark.parametrize(
    "part", [ToolCall("a", "f", at="p"), Thinking("Hm", at="p"), Media("audio", data="AA", at="p")]
)
def test_what_the_user_cannot_say_is_named(part: Part) -> None:
    losses = Losses({})
    assert Parts("user", Rules(), losses).items([part]) == []
    assert losses.names == ["p"]
