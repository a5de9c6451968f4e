"""OpenAI's Responses as the tests of that format write and read them."""

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from proxy.formats import openai_responses
from proxy.formats.base import Ask, Losses, StreamReader
from proxy.formats.canonical import Event, Request, Usage
from proxy.formats.splice import Members

MODEL = "vendor/model"


def pricer(usage: Usage) -> dict[str, bytes]:
    return {"cached_tokens": b"%d" % usage.cached, "cost": str(Decimal(usage.prompt) / 1000).encode()}


def members(**body: Any) -> Members:
    return Members(json.dumps({"model": "m", "input": "Hi", **body}).encode())


def ask(**body: Any) -> Ask:
    given = members(**body)
    request: Request = openai_responses.read_request(given)
    return Ask("x1", MODEL, 1700000000, request, given, pricer, Losses(openai_responses.FIELDS))


def sse(*events: dict[str, Any], first: int = 0) -> bytes:
    """Events as the API sends them, numbered."""
    numbered = [{"type": event["type"], "sequence_number": n, **event} for n, event in enumerate(events, first)]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in numbered)


def parsed(data: bytes) -> list[dict[str, Any]]:
    """What a client reads: the objects, after a look at their names and numbers."""
    found = []
    for number, frame in enumerate(data.decode().removesuffix("\n\n").split("\n\n") if data else []):
        name, line = frame.split("\n")
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        found.append(event)
    return found


def written(events: Iterable[Event], **body: Any) -> list[dict[str, Any]]:
    """The stream that a client gets of these events."""
    writer = openai_responses.writer(ask(**body))
    return parsed(b"".join([writer.send(event) for event in events]))


def feed(reader: StreamReader, pieces: Sequence[bytes]) -> list[Event]:
    return [event for piece in pieces for event in reader.feed(piece)] + reader.close()


def response(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }
    found = {"id": "resp_1", "object": "response", "created_at": 1, "model": "up-1", "status": status}
    return {**found, "error": None, "incomplete_details": None, "output": list(output), "usage": usage, **more}


def message(text: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], **more}
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}


def call(arguments: Any, **more: Any) -> dict[str, Any]:
    found = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "status": "completed"}
    return {**found, "arguments": arguments, **more}


def thought(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": text}], **more}


def opening() -> list[dict[str, Any]]:
    begun = {**response(status="in_progress"), "usage": None}
    return [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]


def streamed(item: dict[str, Any], index: int, *pieces: str) -> list[dict[str, Any]]:
    """An item as the API streams it."""
    name: dict[str, Any] = {"item_id": item["id"], "output_index": index}
    empty = {"message": {"content": []}, "function_call": {"arguments": ""}, "reasoning": {"summary": []}}[item["type"]]
    added = {"type": "response.output_item.added", "output_index": index, "item": {**item, **empty}}
    done = {"type": "response.output_item.done", "output_index": index, "item": item}
    whole = "".join(pieces)
    if item["type"] == "message":
        name["content_index"] = 0
        opened = {
            "type": "response.content_part.added",
            **name,
            "part": {"type": "output_text", "text": "", "annotations": []},
        }
        deltas = [{"type": "response.output_text.delta", **name, "delta": piece, "logprobs": []} for piece in pieces]
        text = {"type": "response.output_text.done", **name, "text": whole, "logprobs": []}
        closed = {"type": "response.content_part.done", **name, "part": item["content"][0]}
        return [added, opened, *deltas, text, closed, done]
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        deltas = [{"type": f"{kind}.delta", **name, "delta": piece} for piece in pieces]
        return [added, *deltas, {"type": f"{kind}.done", **name, "arguments": whole, "name": item["name"]}, done]
    name["summary_index"], kind = 0, "response.reasoning_summary"
    deltas = [{"type": f"{kind}_text.delta", **name, "delta": piece} for piece in pieces]
    part = {"type": "summary_text", "text": whole}
    opened = {"type": f"{kind}_part.added", **name, "part": {**part, "text": ""}}
    closed = {"type": f"{kind}_part.done", **name, "part": part}
    return [added, opened, *deltas, {"type": f"{kind}_text.done", **name, "text": whole}, closed, done]


def example() -> list[dict[str, Any]]:
    """Thoughts, a text and a call."""
    items = [thought("Hm, yes", encrypted_content="gAAA"), message("Hello there"), call('{"city":"Oslo"}')]
    return [
        *opening(),
        *streamed(items[0], 0, "Hm, ", "yes"),
        *streamed(items[1], 1, "Hello", " there"),
        *streamed(items[2], 2, '{"city":', '"Oslo"}'),
        {"type": "response.completed", "response": response(*items)},
    ]
