"""What the official Anthropic SDK for Python reads from the Messages API, without a network. See `openai_sdk.py`."""

import json
from functools import cache
from typing import Any

import anthropic
import httpx2
from anthropic.lib.streaming import MessageStream
from anthropic.types import Message, RawMessageStreamEvent

from tests.conformance.reading import (
    FILTERED,
    LENGTH,
    PAUSE,
    STOP,
    TOOL_CALLS,
    Call,
    Counted,
    Reading,
    Said,
    Unread,
    arguments,
    settled,
)

REASONS = {
    "end_turn": STOP,
    "stop_sequence": STOP,
    "max_tokens": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "tool_use": TOOL_CALLS,
    "refusal": FILTERED,
    "pause_turn": PAUSE,
}
_REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/messages")


@cache
def client() -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="sk-none", base_url="http://127.0.0.1")


def error(status: int, body: bytes) -> anthropic.APIStatusError:
    response = httpx2.Response(status, content=body, request=_REQUEST, headers={"content-type": "application/json"})
    return client()._make_status_error_from_response(response)


def _response(body: bytes) -> httpx2.Response:
    return httpx2.Response(200, content=body, request=_REQUEST)


def messages(body: bytes) -> Reading:
    response = _response(body)
    try:
        message = client()._process_response_data(data=response.json(), cast_to=Message, response=response)
    except ValueError as fault:
        raise Unread(f"not JSON: {fault}") from fault
    return _reading(message)


def messages_stream(body: bytes) -> Reading:
    """The streaming helper's final message. It does not ask for `message_stop`; we do, as Claude Code does."""
    events: list[str] = []
    raw = anthropic.Stream(cast_to=RawMessageStreamEvent, response=_response(body), client=client())
    stream = MessageStream(raw_stream=raw, output_format=anthropic.NOT_GIVEN)
    arguments_of: dict[int, str] = {}
    try:
        for event in stream:
            events.append(event.type)
            if event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                arguments_of[event.index] = arguments_of.get(event.index, "") + event.delta.partial_json
        message = stream.get_final_message()
    except anthropic.APIError as fault:
        raise Unread(f"{type(fault).__name__}: {fault.message}") from fault
    except (AssertionError, ValueError, TypeError, AttributeError, RuntimeError, IndexError) as fault:
        raise Unread(f"{type(fault).__name__}: {fault}") from fault
    if "message_stop" not in events:
        raise Unread("the message has no end")
    return _reading(message, arguments_of)


def _reading(message: Any, streamed: dict[int, str] | None = None) -> Reading:
    """`streamed`: the arguments as they came, for the helper mends JSON that is cut off."""
    if not isinstance(message, Message) or message.content is None:
        raise Unread("no content")
    said = Said()
    for index, block in enumerate(message.content):
        match block.type:
            case "text":
                said.text += block.text or ""
                said.citations += len(block.citations or ())
            case "thinking":
                said.reasoning += block.thinking or ""
            case "tool_use":
                text = (streamed or {}).get(index, "")
                said.calls.append(Call(block.name, arguments(text) if text else _value(block.input)))
            case kind if kind != "redacted_thinking":
                said.others.add(kind)
    if message.stop_details is not None:
        said.refusal = message.stop_details.explanation or ""
    said.raw = message.stop_reason or ""
    if not said.raw:
        raise Unread("no stop_reason")
    said.reason = REASONS.get(said.raw, said.raw)
    return Reading([settled(said)], _usage(message.usage))


def _value(found: Any) -> Any:
    return json.loads(json.dumps(found)) if found else {}


def _usage(usage: Any) -> Counted | None:
    """`input_tokens` does not hold what the cache gave or took."""
    if usage is None:
        return None
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    prompt, completion = (usage.input_tokens or 0) + cached + written, usage.output_tokens or 0
    if not prompt and not completion:
        return None
    details = usage.output_tokens_details
    reasoning = getattr(details, "thinking_tokens", 0) if details is not None else 0
    return Counted(prompt, completion, cached, written, reasoning or 0)
