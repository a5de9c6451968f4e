"""Answers of Anthropic's Messages, plain and streamed, read into the canonical form. Called through the package."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.formats.anthropic_messages.byte_relay import (
    NAME,
    Delta,
    Sent,
    merged,
    read_error,
    read_event,
    read_usage,
    refuse_other,
)
from proxy.formats.anthropic_messages.request_reader import (
    arguments_object,
    read_citation,
)
from proxy.formats.canonical import (
    LENGTH,
    PAUSE,
    REFUSAL,
    STOP,
    STOP_SEQUENCE,
    TOOL_CALLS,
    Answer,
    Choice,
    Citation,
    End,
    Event,
    Failure,
    Finish,
    Opaque,
    Part,
    PartDelta,
    PartEnd,
    PartStart,
    Refusal,
    Start,
    Text,
    Thinking,
    ToolCall,
    UsageSeen,
)
from proxy.formats.lenient import mended, value
from proxy.formats.sse import Frame, Splitter

# https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
REASONS = {
    "end_turn": STOP,
    "stop_sequence": STOP_SEQUENCE,
    "max_tokens": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "tool_use": TOOL_CALLS,
    "pause_turn": PAUSE,
    "compaction": PAUSE,
    "refusal": REFUSAL,
}


def _reason(raw: str | None, *, calls: bool) -> str:
    reason = REASONS.get(raw or "", STOP)
    return TOOL_CALLS if calls and reason == STOP else reason


def read_answer(body: bytes, seed: str) -> Answer:
    found = value(body)
    refuse_other(found, body)
    blocks = [block for block in found["content"] if isinstance(block, dict) and isinstance(block.get("type"), str)]
    parts = [_part(block, seed, place) for place, block in enumerate(blocks)]
    raw = _text(found, "stop_reason")
    calls = any(isinstance(part, ToolCall) for part in parts)
    parts += _unsaid(*(found.get(name) for name in ("stop_details", "container", "context_management", "usage")))
    choice = Choice(parts, _reason(raw, calls=calls), raw, _text(found, "stop_sequence"))
    counted = found.get("usage")
    tier = _text(counted, "service_tier") if isinstance(counted, dict) else ""
    return Answer([choice], _text(found, "id"), _text(found, "model"), read_usage(counted), tier)


def _part(block: dict[str, Any], seed: str, place: int) -> Part:
    """One whole content block; what it holds of text may be its beginning."""
    match block.get("type"):
        case "text":
            return Text(_text(block, "text"), _citations(block.get("citations")))
        case "thinking":
            signature = _text(block, "signature")
            return Thinking(_text(block, "thinking"), signature=signature, origin=NAME if signature else "")
        case "redacted_thinking":
            return Thinking(redacted=True, signature=_text(block, "data"), origin=NAME)
        case "tool_use":
            given = block.get("input")
            arguments = msgspec.json.encode(given).decode() if given is not None else ""
            return ToolCall(_text(block, "id") or f"toolu_{seed}_{place}", _text(block, "name"), arguments)
    return Opaque(str(block.get("type")), block, origin=NAME)


def _unsaid(details: Any, container: Any, context: Any, usage: Any) -> list[Part]:
    """What an answer tells beside its content. Why it was refused everybody can read; the rest only Messages know.

    https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons#refusal
    """
    said = _text(details, "explanation") if isinstance(details, dict) else ""
    counts = usage.get("server_tool_use") if isinstance(usage, dict) else None
    edits = context.get("applied_edits") if isinstance(context, dict) else None
    beside = {
        "stop_details": details,
        "container": container,
        "context_management": edits and context,
        "usage.server_tool_use": counts if isinstance(counts, dict) and any(counts.values()) else None,
    }
    parts: list[Part] = [Refusal(said)] if said else []
    return parts + [
        Opaque(name, found, origin=NAME) for name, found in beside.items() if isinstance(found, dict) and found
    ]


def _text(found: dict[str, Any], name: str) -> str:
    said = found.get(name)
    return said if isinstance(said, str) else ""


def _citations(found: Any) -> list[Citation]:
    return [read_citation(each) for each in found if isinstance(each, dict)] if isinstance(found, list) else []


@dataclass(slots=True)
class _Block:
    """A content block under way. `place`: its part's; None while it is collected (`value`) and has no part yet."""

    part: Part
    place: int | None
    signature: str = ""
    value: dict[str, Any] = field(default_factory=dict)
    json: list[str] = field(default_factory=list)  # the pieces of its input
    half: str = ""  # of a surrogate pair: some servers cut an emoji in two

    def whole(self, text: str) -> str:
        if self.half or (not text.isascii() and not _writable(text)):
            text, self.half = self.half + text, ""
            if "\ud800" <= text[-1:] <= "\udbff":
                text, self.half = text[:-1], text[-1]
            said: str = mended(text)
            return said
        return text


class MessagesReader:
    """A `base.StreamReader`."""

    __slots__ = (
        "_blocks",
        "_calls",
        "_early",
        "_next",
        "_over",
        "_seed",
        "_splitter",
        "_started",
        "_usage",
        "broken",
        "complete",
        "finished",
    )

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._splitter = Splitter()
        self._blocks: dict[int, _Block] = {}
        self._next = 0
        self._usage: dict[str, Any] = {}
        self._started = False
        self._calls = False
        self._early = False  # the last usage was the opening's
        self._over = False
        self.broken = ""
        self.complete = False
        self.finished = False

    def feed(self, data: bytes) -> list[Event]:
        out = self._events(self._splitter.feed(data))
        if self._splitter.too_large:
            self._break("an event is too large")
        return out

    def close(self) -> list[Event]:
        return self._events(self._splitter.close())

    def reasons(self) -> list[Finish]:
        return []

    def _events(self, frames: list[Frame]) -> list[Event]:
        out: list[Event] = []
        for frame in frames:
            if self._over:
                break
            if frame.data:
                self._read(frame, out)
            elif not self._started and frame.raw.lstrip()[:1] == b"{":
                self._plain(frame.raw, out)
        return out

    def _plain(self, body: bytes, out: list[Event]) -> None:
        """No stream at all: some servers refuse a streamed request with a 200 and a plain JSON error."""
        if read_error(body).get("message"):
            self._fail(body, out)
        else:
            self._break("its answer is no stream")

    def _read(self, frame: Frame, out: list[Event]) -> None:
        sent = read_event(frame)
        if sent is None:
            if not frame.data.startswith(b"[DONE]"):
                self._break("a malformed event")
            return
        match sent.type:
            case "content_block_delta" if not self.finished:
                self._delta(sent, frame, out)
            case "content_block_start" if not self.finished:
                self._begin(sent, out)
            case "content_block_stop":
                self._end_block(sent.index, out)
            case "message_start":
                self._start(sent, out)
            case "message_delta":
                self._message_delta(sent, out)
            case "message_stop":
                self._stop(out)
            case "error":
                self._fail(frame.data, out)

    def _break(self, why: str) -> None:
        self.broken = self.broken or why
        self._over = True

    def _fail(self, body: bytes, out: list[Event]) -> None:
        self._over = True
        out.append(Failure(read_error(body) or {"message": body.decode(errors="replace")}))

    def _start(self, sent: Sent, out: list[Event]) -> None:
        message = sent.message
        if not self._started:
            self._started = True
            out.append(Start((message and message.id) or "", (message and message.model) or ""))
        if message is not None and message.usage is not None:
            self._count(message.usage, out, early=True)

    def _count(self, found: dict[str, Any], out: list[Event], *, early: bool = False) -> None:
        self._usage = merged(self._usage, found)
        usage = read_usage(self._usage)
        if usage is not None:
            self._early = early
            out.append(UsageSeen(usage, early))

    def _begin(self, sent: Sent, out: list[Event], part: Part | None = None) -> _Block:
        if not self._started:
            self._started = True
            out.append(Start())
        self._end_block(sent.index, out)
        content = sent.content_block or {}
        part = part or _part(content, self._seed, sent.index)
        block = self._blocks[sent.index] = _Block(part, None)
        if isinstance(part, Opaque):
            block.value = dict(content)
            return block
        if isinstance(part, ToolCall):
            self._calls = True
            block.value = {"input": part.arguments} if content.get("input") else {}
            part.arguments = ""
        elif isinstance(part, Thinking) and not part.redacted:
            block.signature, part.signature, part.origin = part.signature, "", ""
        block.place, self._next = self._next, self._next + 1
        out.append(PartStart(block.place, part))
        return block

    def _delta(self, sent: Sent, frame: Frame, out: list[Event]) -> None:
        delta = sent.delta
        if delta is None:
            return
        block = self._blocks.get(sent.index)
        if block is None:
            part = _implied(delta)
            if part is None:
                self._break("a delta of a block that has not begun")
                return
            block = self._begin(sent, out, part)
        if block.place is None:
            _collect(block, delta, frame)
        elif (said := _words(delta)) is not None:
            if said:
                block.value = {}  # not whole at the block's start
            out.append(PartDelta(block.place, block.whole(said)))
        elif delta.type == "signature_delta":
            block.signature = delta.signature or block.signature
        elif delta.type == "citations_delta" and delta.citation is not None:
            out.append(PartDelta(block.place, citation=read_citation(delta.citation)))

    def _end_block(self, index: int, out: list[Event]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.place is None:
            block.place, self._next = self._next, self._next + 1
            if block.json:
                block.value["input"] = arguments_object(mended("".join(block.json)))[0]
            out.append(PartStart(block.place, Opaque(str(block.value.get("type")), block.value, origin=NAME)))
        elif "input" in block.value:  # whole at the block's start: no delta has come
            out.append(PartDelta(block.place, block.value["input"]))
        origin = NAME if block.signature else ""
        out.append(PartEnd(block.place, signature=block.signature, origin=origin))

    def _message_delta(self, sent: Sent, out: list[Event]) -> None:
        delta = sent.delta
        if delta is not None and delta.stop_reason is not None and not self.finished:
            unsaid = _unsaid(delta.stop_details, delta.container, sent.context_management, sent.usage)
            self._finish(delta.stop_reason, delta.stop_sequence or "", unsaid, out)
        if sent.usage is not None:
            self._count(sent.usage, out)

    def _finish(self, raw: str, stop_sequence: str, unsaid: list[Part], out: list[Event]) -> None:
        for index in list(self._blocks):
            self._end_block(index, out)
        for part in unsaid:
            out += [PartStart(self._next, part), PartEnd(self._next)]
            self._next += 1
        self.finished = True
        out.append(Finish(_reason(raw, calls=self._calls), raw, stop_sequence))

    def _stop(self, out: list[Event]) -> None:
        if not self._started:
            self._break("an answer that never began")
            return
        if not self.finished:
            self._finish("", "", [], out)
        if self._early:
            self._count({}, out)
        self.complete = self._over = True
        out.append(End())


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(delta: Delta) -> str | None:
    match delta.type:
        case "text_delta":
            return delta.text or ""
        case "input_json_delta":
            return delta.partial_json or ""
        case "thinking_delta":
            return delta.thinking or ""
    return None


def _implied(delta: Delta) -> Part | None:
    """The part of a block whose start a server leaves out."""
    match delta.type:
        case "text_delta":
            return Text("")
        case "thinking_delta":
            return Thinking()
    return None


def _collect(block: _Block, delta: Delta, frame: Frame) -> None:
    """More of a block that only Messages know (a server tool's input, a compaction's content)."""
    if delta.type == "input_json_delta":
        block.json.append(delta.partial_json or "")
        return
    found = value(frame.data).get("delta") or {}
    for name, more in found.items():
        before = block.value.get(name)
        if name != "type":
            block.value[name] = before + more if isinstance(before, str) and isinstance(more, str) else more
