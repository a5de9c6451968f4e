"""The same format in and out: what is permitted to change, worked out without the code that is tested.

Members are found by the walker of `tests/proxy/formats/oracle.py`, which knows Python's own `json` only: an edit that
is undone must give back the very text.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.formats.base import Edits, Format
from proxy.formats.splice import Members
from tests.conformance.through import COST, GAINS, MODEL, price
from tests.proxy.formats.oracle import events, places, replaced

# Behind its end a stream may be closed: what comes there, another format's `[DONE]` say, is of no account.
_ENDS = (b"data: [DONE]", b'"response.completed"', b'"response.incomplete"', b'"message_stop"')
OWN_FIELD = "group"  # of the gateway's own, taken out
_MODELS = {
    "chat": (("model",),),
    "responses": (("model",), ("response", "model")),
    "messages": (("model",), ("message", "model")),
    "generateContent": (("modelVersion",),),
}
_USAGES = {
    "chat": (("usage",),),
    "responses": (("usage",), ("response", "usage")),
    "messages": (("usage",), ("message", "usage")),
    "generateContent": (("usageMetadata",),),
}


class Changed(AssertionError):
    """More than is permitted."""


# --- requests --------------------------------------------------------------------------------------------------------


def check_request(name: str, form: Format, asked: Mapping[str, Any], *, spaced: bool) -> None:
    """Raises `Changed`. `spaced`: the client writes with white space, else compactly."""
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps({**asked, OWN_FIELD: "a"}, separators=separators, ensure_ascii=not spaced)
    stream = bool(asked.get("stream"))
    sent = form.own_body(Members(text.encode()), Edits(MODEL, frozenset({OWN_FIELD}), stream)).decode()
    before, after = places(text), places(sent)
    expected = [member for member in before if member != OWN_FIELD]
    edited = {"model"} if name != "generateContent" or "model" in before else set()
    expected += ["model"] * ("model" not in before and "model" in edited)  # a stored prompt may name it
    if name == "chat" and stream and not (asked.get("stream_options") or {}).get("include_usage"):
        edited.add("stream_options")
        expected += ["stream_options"] * ("stream_options" not in before)
    if list(after) != expected:
        raise Changed(f"members {list(after)} instead of {expected}")
    for member in set(expected) - edited:
        (start, end), (start_after, end_after) = before[member], after[member]
        if text[start:end] != sent[start_after:end_after]:
            raise Changed(f"{member!r} was changed")
    found = json.loads(sent)
    if "model" in edited and found["model"].removeprefix("models/") != MODEL:  # Gemini's resource name
        raise Changed(f"the model is {found['model']!r}")
    if "stream_options" in edited and found["stream_options"] != {
        **(asked.get("stream_options") or {}),
        "include_usage": True,
    }:
        raise Changed(f"stream_options: {found['stream_options']}")


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass
class Undone:
    """A JSON text with the permitted edits taken back. `models`: what it named. `priced`: the usages with a price."""

    text: str
    models: list[str] = field(default_factory=list)
    priced: int = 0


def undone(name: str, text: str) -> Undone:
    out = Undone(text)

    def model(value: str) -> str:
        found = json.loads(value)
        if found is None:
            return value
        out.models.append(found)
        return '"*"'

    def usage(value: str) -> str:
        found = json.loads(value)
        if not isinstance(found, dict):
            return value
        out.priced += found.get("cost") == COST and found.keys() >= set(GAINS)
        return _without(value)

    for path in _MODELS[name]:
        out.text = _at(out.text, path, model)
    for path in _USAGES[name]:
        out.text = _at(out.text, path, usage)
    return out


def _at(text: str, path: tuple[str, ...], edit: Callable[[str], str]) -> str:
    """The text with the value at the path edited, where it is there."""
    span = places(text).get(path[0]) if text.lstrip().startswith("{") else None
    if span is None:
        return text
    value = text[slice(*span)]
    return replaced(text, {path[0]: edit(value) if len(path) == 1 else _at(value, path[1:], edit)})


def _without(text: str) -> str:
    """Without the members that the price brought."""
    for name in GAINS:
        spans = places(text)
        if name not in spans:
            continue
        start, end = spans[name]
        if before := [other for _, other in spans.values() if other < start]:
            text = text[: max(before)] + text[end:]
        else:  # the first member, up to the comma behind it
            text = text[: text.index("{") + 1] + re.sub(r"^\s*,", "", text[end:])
    return text


def check_answer(name: str, before: bytes, after: bytes, *, counted: bool) -> None:
    """A plain answer. `counted`: its usage is to have a price. Raises `Changed`."""
    _check_text(name, before.decode().removeprefix("\ufeff"), after.decode(), counted=counted)


def _check_text(name: str, before: str, after: str, *, counted: bool) -> int:
    """How many usages have a price."""
    one, other = undone(name, before), undone(name, after)
    if one.text != other.text:
        at = next((i for i, (a, b) in enumerate(zip(one.text, other.text, strict=False)) if a != b), -1)
        raise Changed(
            f"the bytes differ at {one.text[max(at - 40, 0) : at + 40]!r} → {other.text[max(at - 40, 0) : at + 40]!r}"
        )
    if other.models != [MODEL] * len(one.models):
        raise Changed(f"it names the models {other.models}")
    if counted and not other.priced:
        raise Changed("its usage has no price")
    return other.priced


def relayed(form: Format, pieces: Iterator[bytes], asked: Members, framing: str) -> tuple[bytes, bool]:
    """What the client gets, and whether the gateway takes it to be whole."""
    stream = form.relay(MODEL, price, asked, framing=framing)
    out = b""
    for piece in pieces:
        out += stream.feed(piece)
        if stream.over:
            break
    out += b"" if stream.over else stream.close()
    return out, stream.complete or (stream.finished and stream.error is None and not stream.broken)


def check_stream(name: str, before: bytes, after: bytes, *, asked: bool, counted: bool) -> None:
    """`asked`: the client of a chat stream wants the chunk with the usage. Raises `Changed`."""
    theirs = [event for event in _until_end(before) if not _held_back(name, event[1], asked)]
    ours = list(_until_end(after))
    if name == "chat" and len(ours) == len(theirs) + 1 and ours[-1][1] == "[DONE]":
        ours.pop()  # clients wait for it, where the provider has left it out
    if len(theirs) != len(ours):
        raise Changed(f"{len(theirs)} → {len(ours)} events; the last: {ours[-1:]}")
    priced, uses = 0, 0
    for (raw, data), (raw_after, data_after) in zip(theirs, ours, strict=True):
        priced += _check_event(name, raw, data, raw_after, data_after)
        uses += data is not None and _has_usage(name, data)
    if counted and uses and not priced:
        raise Changed("no usage has a price")


def _until_end(body: bytes) -> Iterator[tuple[bytes, str | None]]:
    for raw, data in events(body):
        yield raw, data
        if any(end in raw for end in _ENDS):
            return


def _check_event(name: str, raw: bytes, data: str | None, raw_after: bytes, data_after: str | None) -> int:
    """How many prices came in."""
    if data is None or not data.startswith("{"):
        if raw != raw_after:
            raise Changed(f"{raw[:80]!r} → {raw_after[:80]!r}")
        return 0
    if data_after is None or not data_after.startswith("{"):
        raise Changed(f"{raw[:80]!r} → {raw_after[:80]!r}")
    priced = _check_text(name, data, data_after, counted=False)
    around, around_after = raw.replace(data.encode(), b"*", 1), raw_after.replace(data_after.encode(), b"*", 1)
    if raw.count(b"data:") == 1 and around != around_after:
        raise Changed(f"around the data: {raw[:80]!r} → {raw_after[:80]!r}")
    return priced


def _has_usage(name: str, data: str) -> bool:
    """In its usual place: Groq has another one beside it, in which no client looks for a price."""
    found: Any = json.loads(data, strict=False) if data.startswith("{") else None
    for path in _USAGES[name]:
        at = found
        for step in path:
            at = at.get(step) if isinstance(at, dict) else None
        if at:
            return True
    return False


def _held_back(name: str, data: str | None, asked: bool) -> bool:
    if name != "chat" or asked or not data or not data.startswith("{"):
        return False
    chunk = json.loads(data, strict=False)
    return chunk.get("usage") is not None and not chunk.get("choices")


def check_array(name: str, before: bytes, after: bytes) -> None:
    """Gemini without `alt=sse`: one JSON array, which grows."""
    one, other = json.loads(before), json.loads(after)
    if len(one) != len(other):
        raise Changed(f"{len(one)} → {len(other)} elements")
    for first, second in zip(one, other, strict=True):
        _check_text(name, json.dumps(first), json.dumps(second), counted=False)
