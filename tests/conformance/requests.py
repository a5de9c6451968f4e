"""A request from one format to another and back: is it valid there, and is it the same in the end?

What counts as the same, and why; all else is a difference, and each difference needs a loss that names its place.

* roles: system and developer are one rank; Anthropic and Gemini have one word for both.
* turns: messages of one role that follow each other are one turn: Anthropic and Gemini join them. Where there must be a
  turn of the user, one that says nothing (a dot, a space) stands for none.
* texts that follow each other may be one text, set apart by white space of the format's own. A document of plain text
  is its text, perhaps behind its title and context. What is empty is not there.
* call ids say which result belongs to which call; some formats allow other letters, or have none. The results of one
  turn may come in any order, and an image or a file that a tool gave may stand behind its result.
* arguments, and results that are JSON objects: the value counts, not its white space. No arguments are an empty object.
* media: base64 in either alphabet and a `data:` URL are the same; so are `audio/mp3` and `audio/mpeg`.
* defaults: what is as it is by default is as if not said.
* `max_tokens`: Anthropic wants a bound where the client gave none.
* effort: words and token budgets become each other by the table in `proxy/formats/reasoning.py`, with 1,024 tokens at
  least; both ways together may be one step of the table. Thinking that is switched on without a measure may get one.
* an output's schema: its name is free, and `strict` is no difference: all but OpenAI hold to a schema always.
* `tool_choice`: to allow some of the tools is to send only those; the others are named as losses.
* `store`: the gateway keeps answers itself, and OpenAI's two formats differ in what is so where it is left out.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

from proxy.formats import reasoning
from proxy.formats.base import Format, Losses, Target
from proxy.formats.canonical import (
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from proxy.formats.splice import Members
from tests.conformance.through import MODEL, members
from tests.providers import anthropic_messages, gemini, openai_chat, openai_responses
from tests.providers.scenario import Refused


@dataclass(frozen=True)
class Difference:
    """`at`: the part, tool or field where it is; `what`: for reading."""

    at: str
    what: str

    def __str__(self) -> str:
        return f"{self.at}: {self.what}"


@dataclass
class Trip:
    """`invalid`: why Y's SDK refuses what was written."""

    differences: list[Difference]
    losses: list[str]
    invalid: str = ""

    @property
    def unexplained(self) -> list[Difference]:
        return [found for found in self.differences if not any(_explains(name, found.at) for name in self.losses)]


def _explains(loss: str, at: str) -> bool:
    """The loss names that place, something within it, or what it stands in: another role stands for the message."""
    loss = loss.removesuffix(".role")
    return loss == at or loss.startswith((at + ".", at + "[")) or at.startswith((loss + ".", loss + "["))


def there_and_back(source: Format, target: Format, target_name: str, asked: dict[str, Any]) -> Trip:
    first = source.read_request(members(asked))
    losses = Losses({})
    written = target.write_request(first, Target(MODEL, losses))
    invalid = _invalid(target_name, json.loads(written), stream=first.stream)
    second = target.read_request(Members(written))
    second.stream = first.stream  # Gemini's path says it, not its body
    _share_places(first, second)
    back = source.write_request(second, Target(MODEL, losses))
    third = source.read_request(Members(back))
    return Trip(list(compare(first, third)), losses.names, invalid)


# --- is it valid? ----------------------------------------------------------------------------------------------------


def _invalid(name: str, body: dict[str, Any], *, stream: bool) -> str:
    """Why the SDK's own types refuse it, or the rules beside them that `tests/providers` keeps; empty where none do."""
    try:
        match name:
            case "chat":
                openai_chat.read(body)
            case "responses":
                openai_responses.read(body)
            case "messages":
                anthropic_messages.read(body)
            case _:
                gemini.read(body, model=MODEL, stream=stream)
    except Refused as refused:
        return str(refused.args[1] if len(refused.args) > 1 else refused)
    return ""


# --- places ----------------------------------------------------------------------------------------------------------


def _share_places(first: Request, second: Request) -> None:
    """The second gets the places of the first, where they say the same: losses on the way back are then named alike."""
    ours, theirs = list(_flat(first.messages)), list(_flat(second.messages))
    message_of = {id(part): message for message in [*first.messages, *second.messages] for part in message.parts}
    matcher = SequenceMatcher(None, [_gist(*one) for one in ours], [_gist(*one) for one in theirs], autojunk=False)
    for block in matcher.get_matching_blocks():
        for one, other in zip(
            ours[block.a : block.a + block.size], theirs[block.b : block.b + block.size], strict=True
        ):
            _name_alike(one[1], other[1])
            message_of[id(other[1])].at = message_of[id(one[1])].at
    at_of = {tool.name: tool.at for tool in first.tools}
    for tool in second.tools:
        tool.at = at_of.get(tool.name, tool.at)


def _name_alike(one: Part, other: Part) -> None:
    other.at = one.at
    if isinstance(one, ToolResult) and isinstance(other, ToolResult):
        for inner, twin in zip(one.parts, other.parts, strict=False):
            twin.at = inner.at


def _gist(role: str, part: Part) -> tuple[str, str, str]:
    """What makes a part the same for lining up two conversations."""
    match part:
        case Text() | Refusal() | Thinking():
            said = part.text
        case ToolCall():
            said = part.name
        case Media():
            said = part.kind
        case ToolResult():
            said = "".join(inner.text for inner in part.parts if isinstance(inner, Text))
        case _:
            said = ""
    return _rank(role), type(part).__name__, said


def _flat(messages: Iterable[Message]) -> Iterator[tuple[str, Part]]:
    for message in messages:
        for part in message.parts:
            part.at = part.at or message.at
            yield message.role, part


def _rank(role: str) -> str:
    return "system" if role == "developer" else role


# --- is it the same? -------------------------------------------------------------------------------------------------

_SKIPPED = {"messages", "tools", "extra", "stream", "store"}


def compare(first: Request, last: Request) -> Iterator[Difference]:
    for one in fields(Request):
        if one.name in _SKIPPED:
            continue
        before, after = getattr(first, one.name), getattr(last, one.name)
        if one.name == "tool_choice":
            same = _same_choice(before, after, last.tools)
        elif one.name == "reasoning":
            same = _same_effort(before, after, first.max_tokens, last.max_tokens)
        elif one.name == "max_tokens":
            same = before is None or before == after
        else:
            same = _settled(one.name, before) == _settled(one.name, after)
        if not same:
            yield Difference(one.name, f"{before!r} → {after!r}")
    for name, value in first.extra.items():
        if last.extra.get(name) != value:
            yield Difference(name, "an extra member is gone")
    yield from _compare_tools(first.tools, last.tools)
    yield from _compare_messages(first.messages, last.messages)


def _settled(name: str, value: Any) -> Any:
    """A field's value, a default as None."""
    match name:
        case "output" if value is not None:
            return None if value.kind == "text" else (value.kind, _schema(value.schema))
        case "parallel_tool_calls":
            return None if value else value
        case "n":
            return None if value == 1 else value
        case "modalities":
            return [] if value == ["text"] else value
        case "logprobs" | "top_logprobs":
            return value or None
        case "verbosity":
            return "" if value == "medium" else value
        case "service_tier":
            return "" if value in ("auto", "default") else value
        case "temperature" | "top_p" | "min_p" | "repetition_penalty":
            return None if value is None else round(float(value), 6)
        case "frequency_penalty" | "presence_penalty":
            return value or None
    return value or None if isinstance(value, str | list | dict) else value


def _same_choice(before: ToolChoice | None, after: ToolChoice | None, tools: list[Tool]) -> bool:
    first, last = before or ToolChoice("auto"), after or ToolChoice("auto")
    if first.allowed and not last.allowed and {tool.name for tool in tools} <= set(first.allowed):
        first = ToolChoice(first.mode)
    return first == last


def _same_effort(before: Reasoning | None, after: Reasoning | None, most: int | None, most_after: int | None) -> bool:
    if before is None or before == Reasoning():
        return True
    first, last = _effort(before, most), _effort(after, most_after)
    if first == "on":  # said without a measure: a format that must have one takes its own
        return last not in ("none", "")
    if "none" in (first, last) or "" in (first, last) or last == "on":
        return first == last or (first == "" and last != "none")
    budget = reasoning.budget(before, most)  # what the words become where there are budgets, at least 1,024 tokens
    there = {first, reasoning.effort(Reasoning(budget=max(budget or 0, reasoning.LEAST)), most)}
    place = _EFFORTS.index(last)
    return any(abs(_EFFORTS.index(word) - place) <= 1 for word in there)


_EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")


def _effort(found: Reasoning | None, max_tokens: int | None) -> str:
    """In words: "on" where it is only switched on, empty where nothing is said of how much."""
    if found is None:
        return ""
    if reasoning.is_off(found):
        return "none"
    return reasoning.effort(found, max_tokens) or ("on" if found.enabled or found.adaptive or found.budget else "")


def _schema(schema: dict[str, Any] | None) -> str | None:
    return None if schema is None else json.dumps(schema, sort_keys=True)


_SAID_AS = {"cache": "cache_control"}  # in losses


def _compare_tools(first: list[Tool], last: list[Tool]) -> Iterator[Difference]:
    rest = list(last)
    for tool in first:
        twin = next((other for other in rest if other.name == tool.name), None)
        if twin is None:
            yield Difference(tool.at, f"the {tool.kind} tool {tool.name!r} is gone")
            continue
        rest.remove(twin)
        if tool.kind != twin.kind:
            yield Difference(tool.at, f"the {tool.kind} tool {tool.name!r} is a {twin.kind} tool")
            continue
        for name in ("description", "strict", "cache"):
            before, after = getattr(tool, name) or None, getattr(twin, name) or None
            if before != after:
                yield Difference(f"{tool.at}.{_SAID_AS.get(name, name)}", f"{before!r} → {after!r}")
        if _parameters(tool) != _parameters(twin):
            yield Difference(tool.at, f"schema: {_parameters(tool)} → {_parameters(twin)}")
        if tool.grammar != twin.grammar or (tool.kind == "server" and tool.raw != twin.raw):
            yield Difference(tool.at, "what its own format says of it")
    for tool in rest:
        yield Difference(f"tools[{tool.name}]", "a tool from nowhere")


def _parameters(tool: Tool) -> str | None:
    """No schema, and one of an object without members: no arguments."""
    schema = dict(tool.schema or {})
    if schema.get("type") == "object" and not schema.get("properties"):
        schema.pop("properties", None)
        schema.pop("required", None)
    return None if schema in ({}, {"type": "object"}) else _schema(schema)


@dataclass
class _Piece:
    """A part as it is compared. `said`: its content, without what is normalised. `heading`: a document's, in words."""

    role: str
    kind: str
    said: Any
    at: str
    cache: str = ""
    signature: str = ""
    heading: str = ""


def _compare_messages(first: list[Message], last: list[Message]) -> Iterator[Difference]:
    ours, theirs = _pieces(first), _pieces(last)
    before, after = [_key(one) for one in ours], [_key(one) for one in theirs]
    for action, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if action == "equal":
            for one, other in zip(ours[a:b], theirs[c:d], strict=True):
                yield from _compare_pieces(one, other)
        elif not _same_texts(ours[a:b], theirs[c:d]):
            for one in ours[a:b]:
                yield Difference(one.at, f"{one.role}'s {one.kind} {_short(one.said)} is gone or another")
            if a == b:
                place = ours[a - 1].at if a else "messages"
                yield Difference(place, f"{theirs[c].role}'s {theirs[c].kind} {_short(theirs[c].said)} from nowhere")


def _compare_pieces(one: _Piece, other: _Piece) -> Iterator[Difference]:
    if one.cache != other.cache:
        yield Difference(f"{one.at}.{_SAID_AS['cache']}", f"{one.cache!r} → {other.cache!r}")
    if one.signature != other.signature:
        yield Difference(f"{one.at}.signature", f"{one.signature[:20]!r} → {other.signature[:20]!r}")


def _same_texts(ours: list[_Piece], theirs: list[_Piece]) -> bool:
    """The same words in the same order and roles, parted elsewhere."""
    if not ours or not theirs or any(piece.kind != "Text" for piece in [*ours, *theirs]):
        return False
    if {piece.cache for piece in [*ours, *theirs]} != {""}:
        return False
    without = [(role, _without_headings(text, ours)) for role, text in _joined(theirs)]
    return _joined(ours) in (_joined(theirs), without)


def _without_headings(text: str, pieces: list[_Piece]) -> str:
    for piece in pieces:
        words = "".join(piece.said.split())
        text = text.replace(piece.heading + words, words, 1)
    return text


def _joined(pieces: list[_Piece]) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for piece in pieces:
        words = "".join(piece.said.split())
        if out and out[-1][0] == piece.role:
            out[-1] = (piece.role, out[-1][1] + words)
        else:
            out.append((piece.role, words))
    return out


def _key(piece: _Piece) -> tuple[str, str, str]:
    return piece.role, piece.kind, json.dumps(piece.said, sort_keys=True, default=str)


def _short(said: Any) -> str:
    text = said if isinstance(said, str) else json.dumps(said, default=str)
    return text if len(text) < 80 else text[:77] + "…"


def _pieces(messages: list[Message]) -> list[_Piece]:
    numbers: dict[str, int] = {}
    out = []
    for role, part in _beside(_flat(messages)):
        said = _said(part, numbers)
        if isinstance(part, Text) and not part.text.strip(" .\n") and not part.cache:
            continue  # nothing is said
        kind = "Text" if isinstance(said, str) else type(part).__name__
        heading = "".join(f"{part.name}{part.context}".split()) if isinstance(part, Media) else ""
        out.append(_Piece(_rank(role), kind, said, part.at, part.cache, part.signature, heading))
    return _results_in_order(out)


def _beside(parts: Iterable[tuple[str, Part]]) -> Iterator[tuple[str, Part]]:
    """Media within a tool's result stand beside it, behind the results of that turn."""
    held: list[Part] = []
    for role, part in parts:
        if not isinstance(part, ToolResult):
            yield from (("user", one) for one in held)
            held = []
            yield role, part
            continue
        media = [one for one in part.parts if isinstance(one, Media) and not one.text]
        held += media
        for one in media:
            one.at = part.at
        yield role, replace(part, parts=[one for one in part.parts if one not in media])
    yield from (("user", one) for one in held)


def _results_in_order(pieces: list[_Piece]) -> list[_Piece]:
    out: list[_Piece] = []
    for are_results, group in groupby(pieces, key=lambda piece: piece.kind == "ToolResult"):
        some = list(group)
        out += sorted(some, key=lambda piece: piece.said[0]) if are_results else some
    return out


def _said(part: Part, numbers: dict[str, int]) -> Any:
    match part:
        case Text() | Refusal():
            return part.text
        case Thinking():
            return [part.text, part.redacted]
        case ToolCall():
            return [part.name, _arguments(part), _number(part.id, numbers)]
        case ToolResult():
            inner = [piece for one in part.parts if (piece := _inner(one)) != ""]
            return [_number(part.call_id, numbers), inner, part.is_error]
        case Media():
            return _media(part)
        case Opaque():
            return [part.kind, part.value]
    raise AssertionError(f"unknown part {part}")


def _inner(part: Part) -> Any:
    if isinstance(part, Media):
        return _media(part)
    text = getattr(part, "text", str(part))
    try:
        return json.loads(text) if text.lstrip().startswith("{") else text
    except ValueError:
        return text


def _number(call_id: str, numbers: dict[str, int]) -> int:
    return numbers.setdefault(call_id, len(numbers))


def _arguments(call: ToolCall) -> Any:
    if call.custom:
        return {"input": call.arguments}
    try:
        return json.loads(call.arguments, strict=False) if call.arguments.strip() else {}
    except ValueError:
        return call.arguments


def _media(part: Media) -> list[str] | str:
    if part.text:
        return part.text
    kind, data, url = part.media_type, part.data, part.url
    if data and kind.startswith("text/"):
        return base64.b64decode(data).decode(errors="replace")
    if url.startswith("data:") and "," in url:
        head, _, data = url.partition(",")
        kind, url = head.removeprefix("data:").partition(";")[0], ""
    kind = kind.replace("audio/mp3", "audio/mpeg") if data else ""
    return [part.kind, kind, data.replace("-", "+").replace("_", "/"), url, part.file_id]
