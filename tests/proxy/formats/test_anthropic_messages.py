"""Answers in Messages, plain and streamed: read from a provider, and written for a client with the official SDK."""

import json

from proxy.formats import anthropic_messages
from proxy.formats.base import Edits, Prompt
from tests.proxy.formats import messages as wire

OWN = anthropic_messages.NAME


def test_it_works() -> None:
    events, reader = wire.read(wire.sse(*wire.example()))
    assert (reader.complete, reader.broken) == (True, "")
    read = wire.streamed_by_sdk(wire.sent(events))
    assert wire.content(read) == [
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "text", "text": "Hello thère"},
        {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"city": "Oslo"}},
        {"type": "tool_use", "id": "toolu_3", "name": "time", "input": {}},
    ]
    assert (read.model, read.stop_reason, read.id) == (wire.MODEL, "tool_use", "msg_7")
    usage = read.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (5, 3, 1)
    assert (usage.output_tokens, usage.output_tokens_details.thinking_tokens) == (7, 2)


def test_the_formats_other_names() -> None:
    assert anthropic_messages.path("up-1", stream=True) == "/v1/messages"
    assert anthropic_messages.count_path("up-1") == "/v1/messages/count_tokens"
    assert json.loads(anthropic_messages.count_answer(12)) == {"input_tokens": 12}
    members = wire.members(model="x", messages=[{"role": "user", "content": "Hi"}], group="a")
    body = anthropic_messages.count_body(members, Edits("up-1", frozenset({"group"}), stream=False))
    assert json.loads(body) == {"model": "up-1", "messages": [{"role": "user", "content": "Hi"}]}
    assert anthropic_messages.count_prompt(members) == Prompt("Hi\n", messages=1)
    assert wire.parsed(anthropic_messages.KEEPALIVE) == [{"type": "ping"}]
