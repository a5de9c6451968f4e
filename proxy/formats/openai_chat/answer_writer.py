"""Answers in the canonical form, written for a client of OpenAI's chat API, plain and streamed.

https://platform.openai.com/docs/api-reference/chat/object and `/streaming`. What OpenAI has no place for stands where
the vendors have put it and their clients look: `reasoning_content`, `reasoning_details`, `images`,
`native_finish_reason`, Gemini's `extra_content`. Called through `openai_chat`.
"""

from typing import Any

import msgspec

from proxy.formats.base import Ask, Error
from proxy.formats.canonical import (
    Answer,
    Choice,
    Citation,
    End,
    Event,
    Failure,
    Finish,
    Media,
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
    Usage,
    UsageSeen,
    body,
    seal,
)
from proxy.formats.lenient import encode, value
from proxy.formats.openai_chat.request_writer import unpacked
from proxy.formats.openai_chat.wire import DONE, error_chunks, error_event, write_reason, write_usage
from proxy.formats.openai_tools import custom_input

# What OpenRouter calls the makers of thoughts; the seal says it again.
_FORMATS = {
    "anthropic_messages": "anthropic-claude-v1",
    "gemini": "google-gemini-v1",
    "openai_responses": "openai-responses-v1",
}
_TIERS = frozenset({"auto", "default", "fast", "flex", "priority", "scale"})


# --- what both need --------------------------------------------------------------------------------------------------


class _Client:
    """What the client's own request says of how it wants to be answered."""

    __slots__ = ("custom", "legacy")

    def __init__(self, ask: Ask) -> None:
        self.custom = {tool.name for tool in ask.request.tools if tool.kind == "custom"}
        self.legacy = "functions" in ask.members and "tools" not in ask.members

    def turns(self, call: ToolCall) -> bool:
        """The call of a custom tool that the provider knew as a function."""
        return not call.custom and call.name in self.custom


def details_of(part: Thinking, index: int) -> list[dict[str, Any]]:
    """A thought as OpenRouter's `reasoning_details`, which clients send back as they are."""
    kind = _SUMMARY if part.summary else _THOUGHT
    said = [{"type": kind, _TEXT[kind]: part.text, "index": index}] if part.text else []
    if not part.signature:
        return said
    if said and kind == _THOUGHT:
        bearer = _bearer(part, part.signature, part.origin, index, said=True)
        return [said[0] | bearer] if bearer.get("type") == kind else [*said, bearer]
    return [*said, _bearer(part, part.signature, part.origin, index + len(said), said=bool(said))]


_THOUGHT, _SUMMARY = "reasoning.text", "reasoning.summary"
_TEXT = {_THOUGHT: "text", _SUMMARY: "summary"}


def _bearer(part: Thinking, signature: str, origin: str, index: int, *, said: bool) -> dict[str, Any]:
    """The detail with what must come back unchanged: of a summary, or of nothing `said`, one of its own."""
    if (kept := unpacked(Thinking(signature=signature, origin=origin))) is not None:
        return kept
    found: dict[str, Any] = {"type": _THOUGHT, "signature": seal(origin, signature)}
    if part.redacted or part.summary or not said:
        found = {"type": "reasoning.encrypted", "data": seal(origin, signature)}
    found |= {"format": _FORMATS.get(origin, "unknown"), "index": index}
    return found | {"id": part.id} if part.id else found


def _carried(call_id: str, signature: str, origin: str, index: int) -> dict[str, Any]:
    """The signature of something else than a thought: of a call, by its ID, or of a text."""
    found = {"type": "reasoning.encrypted", "data": seal(origin, signature), "format": _FORMATS.get(origin, "unknown")}
    return {**found, "index": index, **({"id": call_id} if call_id else {})}


def _google(signature: str) -> dict[str, Any]:
    """https://ai.google.dev/gemini-api/docs/thought-signatures (OpenAI compatibility)"""
    return {"extra_content": {"google": {"thought_signature": signature}}}


def _annotation(citation: Citation, start: int, end: int) -> dict[str, Any] | None:
    """`start`, `end`: of the text that carries it, for a citation that does not say its own place."""
    if not citation.url:
        return None
    found: dict[str, Any] = {
        "end_index": end if citation.end is None else start + citation.end,
        "start_index": start if citation.start is None else start + citation.start,
        "title": citation.title or citation.url,
        "url": citation.url,
    }
    if citation.quote:
        found["content"] = citation.quote  # OpenRouter's
    return {"type": "url_citation", "url_citation": found}


def _image(part: Media, data: str) -> dict[str, Any] | None:
    """OpenRouter's: https://openrouter.ai/docs/features/multimodal/image-generation"""
    url = f"data:{part.media_type or 'image/png'};base64,{data}" if data else part.url
    return {"type": "image_url", "image_url": {"url": url}} if part.kind == "image" and url else None


# --- plain -----------------------------------------------------------------------------------------------------------


def write_answer(answer: Answer, ask: Ask, /) -> bytes:
    client = _Client(ask)
    found: dict[str, Any] = {
        "id": f"chatcmpl-{ask.id}",
        "object": "chat.completion",
        "created": ask.created,
        "model": ask.model,
        "choices": [_choice(choice, place, ask, client) for place, choice in enumerate(answer.choices)],
    }
    if answer.usage is not None:
        found["usage"] = msgspec.Raw(write_usage(answer.usage, ask.pricer))
    if answer.service_tier in _TIERS:
        found["service_tier"] = answer.service_tier
    elif answer.service_tier:
        ask.losses.of_answer("service_tier")
    found["system_fingerprint"] = None
    try:
        return msgspec.json.encode(found)
    except UnicodeEncodeError:  # half a surrogate pair in a text
        if answer.usage is not None:
            found["usage"] = value(write_usage(answer.usage, ask.pricer))
        return encode(found)


def _choice(choice: Choice, place: int, ask: Ask, client: _Client) -> dict[str, Any]:
    message = _Message(ask, client)
    for part in choice.parts:
        message.add(part)
    word, native = write_reason(choice.reason, choice.raw_reason)
    written = message.written()
    if "function_call" in written and word == "tool_calls":
        word = "function_call"
    logprobs = {"content": choice.logprobs, "refusal": None} if choice.logprobs else None
    found = {"index": place, "message": written, "logprobs": logprobs, "finish_reason": word}
    return {**found, **_beside(native, choice.stop_sequence)}


def _beside(native: str, sequence: str) -> dict[str, Any]:
    """`stop_reason`: vLLM's name for the stop sequence that was met."""
    found = {"native_finish_reason": native} if native else {}
    return {**found, "stop_reason": sequence} if sequence else found


class _Message:
    """Builds one plain message: parts in, OpenAI's members out."""

    def __init__(self, ask: Ask, client: _Client) -> None:
        self._ask = ask
        self._client = client
        self._content: list[str] = []
        self._thoughts: list[str] = []
        self._said = 0
        self._calls: list[dict[str, Any]] = []
        self._lists: dict[str, list[dict[str, Any]]] = {"reasoning_details": [], "annotations": [], "images": []}
        self._members: dict[str, Any] = {}

    def add(self, part: Part) -> None:
        match part:
            case Text():
                self._text(part)
            case Thinking():
                self._thoughts.append(part.text)
                details = self._lists["reasoning_details"]
                details += details_of(part, len(details))
            case Refusal():
                self._members["refusal"] = self._members.get("refusal", "") + part.text
            case ToolCall():
                self._call(part)
            case Media():
                self._media(part)
            case Opaque():
                self._ask.losses.of_answer(part.kind)

    def written(self) -> dict[str, Any]:
        nothing = (
            self._calls or "audio" in self._members or "refusal" in self._members or "function_call" in self._members
        )
        content = "".join(self._content) if self._content or not nothing else None
        found: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if thoughts := "".join(self._thoughts):
            found["reasoning_content"] = thoughts
        found |= {name: members for name, members in self._lists.items() if members}
        if self._calls:
            found["tool_calls"] = self._calls
        return found | self._members

    def _text(self, part: Text) -> None:
        self._content.append(part.text)
        start, self._said = self._said, self._said + len(part.text)
        if part.signature:
            details = self._lists["reasoning_details"]
            details.append(_carried("", part.signature, part.origin, len(details)))
        for citation in part.citations:
            if (found := _annotation(citation, start, self._said)) is not None:
                self._lists["annotations"].append(found)
            else:
                self._ask.losses.of_answer("citations")

    def _call(self, part: ToolCall) -> None:
        if self._client.legacy:
            if "function_call" in self._members:
                self._ask.losses.of_answer("tool_calls")
            self._members.setdefault("function_call", {"name": part.name, "arguments": part.arguments or "{}"})
            return
        call: dict[str, Any] = {"id": part.id}
        if part.custom or self._client.turns(part):
            said = part.arguments if part.custom else custom_input(part.arguments)
            call |= {"type": "custom", "custom": {"name": part.name, "input": said}}
        else:
            call |= {"type": "function", "function": {"name": part.name, "arguments": part.arguments or "{}"}}
        if part.signature:
            details = self._lists["reasoning_details"]
            details.append(_carried(part.id, part.signature, part.origin, len(details)))
            call |= _google(part.signature) if part.origin == "gemini" else {}
        self._calls.append(call)

    def _media(self, part: Media) -> None:
        if part.kind == "audio":
            self._members["audio"] = {
                "id": part.id or f"audio_{self._ask.id}",
                "data": part.data,
                "expires_at": self._ask.created,
                "transcript": part.transcript,
            }
        elif (found := _image(part, part.data)) is not None:
            self._lists["images"].append(found)
        else:
            self._ask.losses.of_answer(part.kind)


# --- streamed --------------------------------------------------------------------------------------------------------


class _Open:
    """A part under way: what is kept of it until its end.

    `place`: its index among the calls, or among the thoughts. `bare`: nothing of its text or arguments was sent.
    """

    __slots__ = ("bare", "before", "between", "citations", "part", "pieces", "place", "start")

    def __init__(self, part: Part, *, start: int = 0) -> None:
        self.part = part
        self.start = start
        self.place = -1
        self.pieces: list[str] = []
        self.citations: list[Citation] = []
        self.before = b""  # what stands before a piece of its text in a chunk
        self.between = b""  # and between it and its second appearance
        self.bare = not (isinstance(part, ToolCall) and (part.custom or part.arguments))


class _Line:
    """One choice under way. `listed`: how many entries each list has by now; SDKs put deltas together by `index`."""

    __slots__ = ("calls", "head", "index", "legacy", "listed", "said", "tail")

    def __init__(self, head: bytes, tail: bytes, index: int) -> None:
        self.index = index
        self.head = head + b'{"index":%d,"delta":' % index
        self.tail = b',"logprobs":null,"finish_reason":null}]' + tail
        self.said = 0  # characters of text
        self.calls = 0
        self.legacy = False  # a function_call was sent
        self.listed = {"annotations": 0, "images": 0, "reasoning_details": 0}

    def next(self, name: str) -> int:
        self.listed[name] += 1
        return self.listed[name] - 1


class ChatWriter:
    """Events → OpenAI's chunks: the role, the deltas, the reason to end, usage where it was asked for, `[DONE]`."""

    __slots__ = ("_ask", "_client", "_head", "_lines", "_open", "_tail", "_usage")

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._client = _Client(ask)
        common = {"id": f"chatcmpl-{ask.id}", "object": "chat.completion.chunk", "created": ask.created}
        self._head = b"data: " + msgspec.json.encode({**common, "model": ask.model})[:-1] + b',"choices":['
        self._tail = b',"usage":null}\n\n' if ask.include_usage else b"}\n\n"
        self._lines: dict[int, _Line] = {}
        self._open: dict[tuple[int, int], _Open] = {}
        self._usage: Usage | None = None

    def send(self, event: Event, /) -> bytes:
        match event:
            case PartDelta():
                return self._more(event)
            case PartStart():
                return self._begin(event)
            case PartEnd():
                return self._end(event)
            case Start():
                return self._line(0)[1]
            case UsageSeen():
                self._usage = event.usage
            case Finish():
                return self._finish(event)
            case Failure():
                return error_chunks(event.error)
            case End():
                return self._goodbye()
        return b""

    def fail(self, error: Error, /) -> bytes:
        return error_event(error)

    def _line(self, choice: int) -> tuple[_Line, bytes]:
        """A choice, and its first chunk where it has not been sent."""
        line = self._lines.get(choice)
        if line is not None:
            return line, b""
        line = self._lines[choice] = _Line(self._head, self._tail, choice)
        return line, self._chunk(line, b'{"role":"assistant","content":"","refusal":null}')

    @staticmethod
    def _chunk(line: _Line, delta: bytes) -> bytes:
        return line.head + delta + line.tail

    # --- parts -------------------------------------------------------------------------------------------------------

    def _begin(self, event: PartStart) -> bytes:
        line, out = self._line(event.choice)
        part = event.part
        kept = self._open[event.choice, event.index] = _Open(part, start=line.said)
        match part:
            case Text():
                kept.before = line.head + b'{"content":'
                kept.citations = list(part.citations)
            case Thinking():
                kept.before = line.head + b'{"reasoning_content":'
            case Refusal():
                kept.before = line.head + b'{"refusal":'
            case ToolCall():
                return out + self._begin_call(line, kept, part)
            case Media(kind="audio"):
                out += self._chunk(line, encode({"audio": self._audio(part)}))
            case Opaque():
                self._ask.losses.of_answer(part.kind)
        said = body(part)
        return out + self._piece(line, kept, said) if said and kept.before else out

    @staticmethod
    def _place_thought(line: _Line, kept: _Open, part: Thinking) -> None:
        """What of its text is sent first takes the next place among the details."""
        kind = _SUMMARY if part.summary else _THOUGHT
        kept.bare, kept.place = False, line.next("reasoning_details")
        detail = b',"reasoning_details":[{"type":"%b","index":%d,"%b":'
        kept.between = detail % (kind.encode(), kept.place, _TEXT[kind].encode())

    def _audio(self, part: Media) -> dict[str, Any]:
        found: dict[str, Any] = {"id": part.id or f"audio_{self._ask.id}"}
        if part.data:
            found["data"] = part.data
        if part.transcript:
            found["transcript"] = part.transcript
        return found

    def _begin_call(self, line: _Line, kept: _Open, part: ToolCall) -> bytes:
        if self._client.legacy:
            if line.legacy:
                self._ask.losses.of_answer("tool_calls")
                return b""
            line.legacy = True
            kept.before = line.head + b'{"function_call":{"arguments":'
            return self._chunk(line, encode({"function_call": {"name": part.name, "arguments": part.arguments}}))
        kept.place, line.calls = line.calls, line.calls + 1
        call: dict[str, Any] = {"index": kept.place, "id": part.id}
        if part.custom or self._client.turns(part):
            call |= {"type": "custom", "custom": {"name": part.name, "input": part.arguments if part.custom else ""}}
        else:
            call |= {"type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        if part.signature and part.origin == "gemini":
            call |= _google(part.signature)
        if self._client.turns(part):
            kept.pieces.append(part.arguments)
        else:
            inner = b"custom" if part.custom else b"function"
            name = b"input" if part.custom else b"arguments"
            kept.before = line.head + b'{"tool_calls":[{"index":%d,"%b":{"%b":' % (kept.place, inner, name)
        return self._chunk(line, encode({"tool_calls": [call]}))

    def _more(self, event: PartDelta) -> bytes:
        kept = self._open[event.choice, event.index]
        line = self._lines[event.choice]
        if event.citation is not None:
            kept.citations.append(event.citation)
        part = kept.part
        if isinstance(part, Media):
            return self._more_media(line, kept, event)
        if event.logprobs is not None:
            return self._with_logprobs(line, kept, event)
        if not event.text:
            return b""
        if not kept.before:
            kept.pieces.append(event.text)
            return b""
        return self._piece(line, kept, event.text)

    def _piece(self, line: _Line, kept: _Open, text: str) -> bytes:
        """A chunk that holds a piece of text, in the place that the part's kind has."""
        try:
            said = msgspec.json.encode(text)
        except UnicodeEncodeError:  # half a surrogate pair
            said = encode(text)
        part = kept.part
        if isinstance(part, Text):
            line.said += len(text)
            return b"%b%b}%b" % (kept.before, said, line.tail)
        if isinstance(part, ToolCall):
            kept.bare = False
            return b"%b%b}%b%b" % (kept.before, said, b"}" if line.legacy else b"}]}", line.tail)
        if isinstance(part, Thinking):
            if kept.bare:
                self._place_thought(line, kept, part)
            return b"%b%b%b%b}]}%b" % (kept.before, said, kept.between, said, line.tail)
        return b"%b%b}%b" % (kept.before, said, line.tail)

    def _with_logprobs(self, line: _Line, kept: _Open, event: PartDelta) -> bytes:
        line.said += len(event.text)
        logprobs = {"content": event.logprobs, "refusal": None}
        name = "refusal" if isinstance(kept.part, Refusal) else "content"
        choice = {"index": line.index, "delta": {name: event.text}, "logprobs": logprobs, "finish_reason": None}
        return self._head + encode(choice) + b"]" + self._tail

    def _more_media(self, line: _Line, kept: _Open, event: PartDelta) -> bytes:
        assert isinstance(kept.part, Media)
        if kept.part.kind != "audio":
            kept.pieces.append(event.text)
            return b""
        found = {"data": event.text} if event.text else {}
        if event.transcript:
            found["transcript"] = event.transcript
        return self._chunk(line, encode({"audio": found})) if found else b""

    def _end(self, event: PartEnd) -> bytes:
        kept = self._open.pop((event.choice, event.index))
        line, part = self._lines[event.choice], kept.part
        signature, origin = (event.signature, event.origin) if event.signature else (part.signature, part.origin)
        match part:
            case Text():
                return self._end_text(line, kept, signature, origin)
            case Thinking() if signature:
                return self._sign(line, kept, part, signature, origin)
            case ToolCall():
                return self._end_call(line, kept, signature, origin)
            case Media() if part.kind != "audio":
                if (found := _image(part, part.data + "".join(kept.pieces))) is not None:
                    return self._chunk(line, encode({"images": [{**found, "index": line.next("images")}]}))
                self._ask.losses.of_answer(part.kind)
            case Media():
                return self._chunk(line, encode({"audio": {"expires_at": self._ask.created}}))
        return b""

    def _end_text(self, line: _Line, kept: _Open, signature: str, origin: str) -> bytes:
        out = b""
        if signature:
            out = self._carry(line, "", signature, origin)
        found = [_annotation(citation, kept.start, line.said) for citation in kept.citations]
        said = [{**each, "index": line.next("annotations")} for each in found if each is not None]
        if len(said) < len(found):
            self._ask.losses.of_answer("citations")
        return out + self._chunk(line, encode({"annotations": said})) if said else out

    def _end_call(self, line: _Line, kept: _Open, signature: str, origin: str) -> bytes:
        part = kept.part
        assert isinstance(part, ToolCall)
        out = self._piece(line, kept, "{}") if kept.bare and kept.before else b""
        if self._client.turns(part) and kept.place >= 0:
            said = custom_input("".join(kept.pieces))
            call: dict[str, Any] = {"index": kept.place, "custom": {"input": said}}
            out = self._chunk(line, encode({"tool_calls": [call]}))
        if signature and kept.place >= 0:
            if origin == "gemini" and not part.signature:  # it was not known at the beginning
                signed = {"index": kept.place, "function": {"arguments": ""}, **_google(signature)}
                out += self._chunk(line, encode({"tool_calls": [signed]}))
            out += self._carry(line, part.id, signature, origin)
        return out

    def _carry(self, line: _Line, call_id: str, signature: str, origin: str) -> bytes:
        return self._details(line, [_carried(call_id, signature, origin, line.next("reasoning_details"))])

    def _sign(self, line: _Line, kept: _Open, part: Thinking, signature: str, origin: str) -> bytes:
        said = not kept.bare
        bearer = _bearer(part, signature, origin, kept.place, said=said)
        if not said or bearer.get("type") != _THOUGHT:
            bearer["index"] = line.next("reasoning_details")
        return self._details(line, [bearer])

    def _details(self, line: _Line, details: list[dict[str, Any]]) -> bytes:
        return self._chunk(line, encode({"reasoning_details": details}))

    # --- the end -----------------------------------------------------------------------------------------------------

    def _finish(self, event: Finish) -> bytes:
        line, out = self._line(event.choice)
        word, native = write_reason(event.reason, event.raw_reason)
        if line.legacy and word == "tool_calls":
            word = "function_call"
        choice = {"index": event.choice, "delta": {}, "logprobs": None, "finish_reason": word}
        return out + self._head + encode({**choice, **_beside(native, event.stop_sequence)}) + b"]" + self._tail

    def _goodbye(self) -> bytes:
        if self._usage is None or not self._ask.include_usage:
            return DONE
        usage = write_usage(self._usage, self._ask.pricer)
        return self._head + b'],"usage":' + usage + b"}\n\n" + DONE


def writer(ask: Ask, /) -> ChatWriter:
    return ChatWriter(ask)
