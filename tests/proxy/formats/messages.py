"""Anthropic's Messages as the tests of that format write and read them; also by the official SDK."""

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2
import msgspec
from anthropic.lib.streaming import MessageStream
from anthropic.types import Message as Read
from anthropic.types import RawMessageStreamEvent

from proxy.formats import anthropic_messages
from proxy.formats.base import Ask, Losses, Target
from proxy.formats.canonical import Event, Request, Usage
from proxy.formats.splice import Members

MODEL = "vendor/model"
_REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/messages")


def pricer(usage: Usage) -> dict[str, bytes]:
    return {"cost": b"%d" % usage.completion}


def ask(request: Request | None = None) -> Ask:
    return Ask("7", MODEL, 1_700_000_000, request or Request([]), Members(b"{}"), pricer, Losses({}))


def members(**said: Any) -> Members:
    return Members(json.dumps(said).encode())


def request(**said: Any) -> Request:
    """One that is read, with what every request has."""
    return anthropic_messages.read_request(members(**{"messages": [{"role": "user", "content": "Hi"}], **said}))


def written(canonical: Request, model: str = "claude-sonnet-4-5", *quirks: str, most: int | None = None) -> Any:
    """The body for a provider, and the losses: `grave` and all."""
    losses = Losses(anthropic_messages.FIELDS)
    target = Target(model, losses, most, frozenset(quirks))
    return json.loads(anthropic_messages.write_request(canonical, target)), losses


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in events)


def start(usage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "up-1", "content": []}
    return {"type": "message_start", "message": {**message, "usage": usage or {"input_tokens": 9}, **more}}


def block(index: int, *deltas: dict[str, Any], **content: Any) -> list[dict[str, Any]]:
    """A content block from its start to its stop."""
    begun = {"type": "content_block_start", "index": index, "content_block": content}
    return [begun, *(delta(index, **each) for each in deltas), {"type": "content_block_stop", "index": index}]


def delta(index: int, **said: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": said}


def words(index: int, *pieces: str) -> list[dict[str, Any]]:
    return block(index, *({"type": "text_delta", "text": piece} for piece in pieces), type="text", text="")


def end(reason: str = "end_turn", **usage: Any) -> list[dict[str, Any]]:
    ended = {"stop_reason": reason, "stop_sequence": None}
    counted = usage or {"output_tokens": 5}
    return [{"type": "message_delta", "delta": ended, "usage": counted}, {"type": "message_stop"}]


def thought(index: int, text: str, signature: str) -> list[dict[str, Any]]:
    said = {"type": "thinking_delta", "thinking": text}
    signed = {"type": "signature_delta", "signature": signature}
    return block(index, said, signed, type="thinking", thinking="", signature="")


def call(index: int, name: str, *pieces: str) -> list[dict[str, Any]]:
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return block(index, *deltas, type="tool_use", id=f"toolu_{index}", name=name, input={})


def example() -> list[dict[str, Any]]:
    """A thought, a text and two calls."""
    return [
        start({"input_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 1}),
        {"type": "ping"},
        *thought(0, "Hm", "sig"),
        *words(1, "Hello ", "thère"),
        *call(2, "weather", "", '{"city":', '"Oslo"}'),
        *call(3, "time"),
        *end("tool_use", output_tokens=7, output_tokens_details={"thinking_tokens": 2}),
    ]


def read(*pieces: bytes) -> tuple[list[Event], anthropic_messages.MessagesReader]:
    reader = anthropic_messages.reader("s")
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.close(), reader


def sent(events: Iterable[Event], for_whom: Ask | None = None) -> bytes:
    writer = anthropic_messages.writer(for_whom or ask())
    return b"".join(writer.send(event) for event in events)


def parsed(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event, whose name must be its type."""
    found = []
    for each in stream.decode().split("\n\n")[:-1]:
        name, _, data = each.partition("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def _client() -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="sk-none", base_url="http://127.0.0.1")


def by_sdk(answer: bytes) -> Read:
    response = httpx2.Response(200, content=answer, request=_REQUEST)
    return _client()._process_response_data(data=response.json(), cast_to=Read, response=response)


def streamed_by_sdk(stream: bytes) -> Read:
    """What `messages.stream()` gives in the end. Raises the SDK's errors."""
    response = httpx2.Response(200, content=stream, request=_REQUEST)
    raw = anthropic.Stream(cast_to=RawMessageStreamEvent, response=response, client=_client())
    return MessageStream(raw_stream=raw, output_format=anthropic.NOT_GIVEN).get_final_message()


def content(read: Read) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(each.model_dump(exclude_none=True)) for each in read.content]
