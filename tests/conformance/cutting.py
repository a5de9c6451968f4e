"""Ways to part the bytes of a stream, and to spoil it; and when one that is cut off still holds a whole answer."""

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.proxy.formats.oracle import events

EDGE = 800  # bytes at each end of a long body that are fed one by one
SPOILED = b'data: {"broken": \n\n'


def one_by_one(body: bytes) -> Iterator[bytes]:
    """Every byte alone; of a long body the first and the last ones, and small pieces of any size between."""
    if len(body) <= 2 * EDGE:
        return (body[i : i + 1] for i in range(len(body)))
    return _edges(body)


def _edges(body: bytes) -> Iterator[bytes]:
    sizes = random.Random(len(body))
    at = 0
    while at < len(body):
        size = 1 if at < EDGE or at >= len(body) - EDGE else sizes.randint(1, 200)
        yield body[at : at + size]
        at += size


def at_random(body: bytes, seed: str, cuts: int = 3) -> Iterator[bytes]:
    """`cuts` cuts, always at the same places for one seed."""
    places = sorted(random.Random(seed).sample(range(1, len(body)), min(cuts, len(body) - 1)))
    return (body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True))


def boundaries(body: bytes) -> list[int]:
    """Where each event ends."""
    at, found = 0, []
    for raw, _ in events(body):
        at += len(raw)
        found.append(at)
    return found


def sampled(places: list[int], most: int, seed: str) -> list[int]:
    """All of them, or of many the first, the last five, and some between."""
    if len(places) <= most:
        return places
    between = random.Random(seed).sample(places[1:-5], most - 6)
    return [places[0], *sorted(between), *places[-5:]]


# --- is a prefix a whole answer? -------------------------------------------------------------------------------------


def whole_from(name: str, body: bytes) -> int:
    """Up to which byte the stream must come to be a whole answer, of which at most the goodbye is missing.

    By the format's own rule, read with Python's `json` only. One more than the body's length: it never is.
    """
    at, ended = 0, {}
    for raw, data in events(body):
        at += len(raw)
        if data and _ends(name, data, ended):
            return at
    return len(body) + 1


def _ends(name: str, data: str, ended: dict[int, bool]) -> bool:
    """`ended`: the choices seen so far, and whether they have a reason to end."""
    if data.startswith("[DONE]"):
        return name == "chat"
    found = _object(data)
    if name == "responses":
        return found.get("type") in ("response.completed", "response.incomplete")
    if name == "messages":
        stops = found.get("type") == "message_delta" and (found.get("delta") or {}).get("stop_reason")
        return bool(stops) or found.get("type") == "message_stop"
    if name == "generateContent" and (found.get("promptFeedback") or {}).get("blockReason"):
        return True
    list_name, reason = ("choices", "finish_reason") if name == "chat" else ("candidates", "finishReason")
    for choice in found.get(list_name) or ():
        number = choice.get("index") or 0
        ended[number] = ended.get(number, False) or bool(choice.get(reason))
    return bool(ended) and all(ended.values())


def _object(data: str) -> dict[str, Any]:
    try:
        found = json.loads(data, strict=False)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
