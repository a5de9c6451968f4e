"""The canonical form → answers for Gemini's clients, plain and streamed. Called by `gemini`, which has the names.

Fields: https://ai.google.dev/api/generate-content
"""

from dataclasses import replace
from typing import Any

import msgspec

from proxy.formats import canonical
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
    Text,
    Thinking,
    ToolCall,
    Usage,
    UsageSeen,
)
from proxy.formats.gemini.parts import BESIDE, REASONS, keep, object_of
from proxy.formats.gemini.wire import ARRAY, NAME, closing, error_object, framed, framed_error, write_usage

_WRITTEN = {
    canonical.STOP: "STOP",
    canonical.STOP_SEQUENCE: "STOP",
    canonical.LENGTH: "MAX_TOKENS",
    canonical.TOOL_CALLS: "STOP",
    canonical.CONTENT_FILTER: "SAFETY",
    canonical.REFUSAL: "SAFETY",
    canonical.PAUSE: "OTHER",
}
# Lines' ends to Python's `str.splitlines`, by which google-genai parts a stream: JSON may hold them as they are.
_LINE_ENDS = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"), (b"\xc2\x85", rb"\u0085"))
_encode = msgspec.json.Encoder().encode


def _json(value: Any) -> bytes:
    data = _encode(value)
    if b"\xe2\x80" in data or b"\xc2\x85" in data:
        for raw, escaped in _LINE_ENDS:
            data = data.replace(raw, escaped)
    return data


class _Speech:
    """One choice on its way to a Gemini client: canonical parts → parts as Gemini has them."""

    __slots__ = ("_ask", "_citations", "_logprobs", "_said", "beside", "finish", "thoughts")

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.thoughts: list[Thinking] = []  # to be kept by the next part
        self._citations: list[Citation] = []
        self._logprobs: list[dict[str, Any]] = []
        self._said: list[str] = []
        self.beside: dict[str, Any] = {}  # members of the candidate
        self.finish: Finish | None = None

    def signature(self, part: Part, *, call: bool = False) -> dict[str, str]:
        """What a part must carry: its own signature, or thoughts that came before it."""
        thoughts, self.thoughts = self.thoughts, []
        if part.signature and part.origin == NAME:
            return {"thoughtSignature": part.signature}
        if part.signature:
            thoughts.append(Thinking(redacted=True, signature=part.signature, origin=part.origin))
        if not call:
            thoughts = [thought for thought in thoughts if thought.signature]
        return {"thoughtSignature": keep(thoughts)} if thoughts else {}

    def thinks(self, part: Thinking) -> list[dict[str, Any]]:
        """A thought has ended. Gemini's own has its signature where it is."""
        if part.signature and part.origin == NAME:
            return [{"text": "", "thoughtSignature": part.signature}]
        if part.signature or part.text:
            self.thoughts.append(part)
        return []

    def hears(self, text: str, citation: Citation | None, logprobs: list[dict[str, Any]] | None) -> None:
        self._said.append(text)
        if citation is not None:
            self._citations.append(citation)
        if logprobs:
            self._logprobs += logprobs

    def part(self, part: Part) -> list[dict[str, Any]]:
        """A whole part."""
        match part:
            case Text() | Refusal():
                return self._text(part)
            case Thinking():
                thought = [{"text": part.text, "thought": True}] if part.text else []
                return thought + self.thinks(part)
            case ToolCall():
                return [self._call(part)]
            case Media():
                return self._media(part)
            case Opaque():
                return self._opaque(part)
        self._ask.losses.of_answer(type(part).__name__)
        return []

    def _text(self, part: Text | Refusal) -> list[dict[str, Any]]:
        offset = sum(map(len, self._said))
        for citation in part.citations if isinstance(part, Text) else ():
            self._citations.append(_moved(citation, offset))
        self._said.append(part.text)
        carried = self.signature(part)
        return [{"text": part.text, **carried}] if part.text or carried else []

    def _call(self, part: ToolCall) -> dict[str, Any]:
        args, whole = ({"input": part.arguments}, True) if part.custom else object_of(part.arguments)
        if not whole:
            self._ask.losses.of_answer("tool_calls.arguments")
        call = {"id": part.id, "name": part.name, "args": args} if part.id else {"name": part.name, "args": args}
        return {"functionCall": call, **self.signature(part, call=True)}

    def _media(self, part: Media) -> list[dict[str, Any]]:
        said = [{"text": part.transcript}] if part.transcript else []
        if part.data:
            blob = {"inlineData": {"mimeType": part.media_type or "application/octet-stream", "data": part.data}}
        elif uri := part.url or part.file_id:
            blob = {"fileData": {"mimeType": part.media_type, "fileUri": uri}}
        else:
            return said
        return [*said, {**blob, **self.signature(part)}]

    def _opaque(self, part: Opaque) -> list[dict[str, Any]]:
        if part.origin != NAME:
            self._ask.losses.of_answer(part.kind)
            return []
        if part.kind in BESIDE:
            self.beside.update(part.value)
            return []
        return [part.value]

    def rest(self) -> list[dict[str, Any]]:
        """What no part carries any more."""
        carried = self.signature(Text(""))
        return [{"text": "", **carried}] if carried else []

    def ending(self) -> dict[str, Any]:
        """The members of the candidate that come with its end."""
        found = dict(self.beside)
        rows = [each.raw for each in self._citations if each.origin == NAME and "uri" in each.raw]
        if rows:
            found["citationMetadata"] = {"citations": rows}
        others = [each for each in self._citations if each.raw not in rows]
        if others and "groundingMetadata" not in found:
            found["groundingMetadata"] = _grounding(others, "".join(self._said))
        if self._logprobs:
            found["logprobsResult"] = _logprobs(self._logprobs)
        if self.finish is not None:
            found.update(_reason(self.finish))
        return found


def _moved(citation: Citation, offset: int) -> Citation:
    if citation.start is None or not offset:
        return citation
    end = None if citation.end is None else citation.end + offset
    return replace(citation, start=citation.start + offset, end=end)


def _reason(finish: Finish) -> dict[str, str]:
    """Gemini's own word where it is one; else the nearest, and the other's word beside it where that says less."""
    if REASONS.get(finish.raw_reason) == finish.reason or (
        finish.raw_reason == "STOP" and finish.reason == canonical.TOOL_CALLS
    ):
        return {"finishReason": finish.raw_reason}
    found = {"finishReason": _WRITTEN.get(finish.reason, "OTHER")}
    if finish.reason not in (canonical.STOP, canonical.LENGTH, canonical.TOOL_CALLS):
        said = finish.raw_reason or finish.reason
        found["finishMessage"] = f"{said}: {finish.stop_sequence}" if finish.stop_sequence else said
    return found


def _grounding(citations: list[Citation], text: str) -> dict[str, Any]:
    chunks: list[dict[str, Any]] = []
    supports = []
    for citation in citations:
        chunk = {"web": {"uri": citation.url, "title": citation.title}}
        if chunk not in chunks:
            chunks.append(chunk)
        support: dict[str, Any] = {"groundingChunkIndices": [chunks.index(chunk)]}
        if citation.start is not None and citation.end is not None:
            quote = text[citation.start : citation.end]
            start = len(text[: citation.start].encode())
            support["segment"] = {"startIndex": start, "endIndex": start + len(quote.encode()), "text": quote}
        supports.append(support)
    return {"groundingChunks": chunks, "groundingSupports": supports}


def _logprobs(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def one_of(row: dict[str, Any]) -> dict[str, Any]:
        return {"token": row.get("token") or "", "logProbability": row.get("logprob") or 0.0}

    top = [{"candidates": [one_of(other) for other in row.get("top_logprobs") or ()]} for row in rows]
    found: dict[str, Any] = {"chosenCandidates": [one_of(row) for row in rows]}
    return found | ({"topCandidates": top} if any(each["candidates"] for each in top) else {})


def write_answer(answer: Answer, ask: Ask) -> bytes:
    candidates = [_candidate(choice, number, ask) for number, choice in enumerate(answer.choices)]
    found: dict[str, Any] = {"candidates": candidates}
    if answer.usage is not None:
        found["usageMetadata"] = write_usage(answer.usage, ask.pricer(answer.usage))
    return _json({**found, "modelVersion": ask.model, "responseId": ask.id})


def _candidate(choice: Choice, number: int, ask: Ask) -> dict[str, Any]:
    speech = _Speech(ask)
    speech.finish = Finish(choice.reason, choice.raw_reason, choice.stop_sequence)
    speech.hears("", None, choice.logprobs)
    parts = [written for part in choice.parts for written in speech.part(part)] + speech.rest()
    return {"content": {"parts": parts or [{"text": ""}], "role": "model"}, "index": number, **speech.ending()}


class GeminiWriter:
    """Events → a Gemini client's stream: a `base.StreamWriter`.

    Text and thoughts go out as they come, everything else whole. How a candidate ended and what it took comes last.
    """

    __slots__ = ("_after", "_array", "_ask", "_begun", "_parts", "_speeches", "_usage")

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._array = ask.framing == ARRAY
        self._begun = False
        self._after = b',"modelVersion":%b,"responseId":%b}' % (_json(ask.model), _json(ask.id))
        self._speeches: dict[int, _Speech] = {}
        self._parts: dict[tuple[int, int], tuple[Part, list[str], list[str]]] = {}
        self._usage: Usage | None = None

    def send(self, event: Event) -> bytes:
        match event:
            case PartDelta():
                return self._delta(event)
            case PartStart():
                return self._start(event)
            case PartEnd():
                return self._end(event)
            case Finish():
                self._speech(event.choice).finish = event
                return self._unended(event.choice)
            case UsageSeen():
                self._usage = event.usage
            case End():
                return self._last()
            case Failure():
                return self._failure(event)
        return b""

    def fail(self, error: Error) -> bytes:
        begun, self._begun = self._begun, True
        return framed_error(error_object(error), self._ask.framing, first=not begun)

    def _failure(self, event: Failure) -> bytes:
        found = event.error
        status = found.get("status")
        code = found.get("code")
        error = Error(status if type(status) is int else 500, str(found.get("message") or "The provider failed."), "")
        error.code = str(code) if code else None
        return self.fail(error)

    def _speech(self, choice: int) -> _Speech:
        speech = self._speeches.get(choice)
        if speech is None:
            speech = self._speeches[choice] = _Speech(self._ask)
        return speech

    def _start(self, event: PartStart) -> bytes:
        part, first = event.part, canonical.body(event.part)
        self._parts[event.choice, event.index] = (part, [], [])
        out = self._delta(PartDelta(event.index, first, event.choice)) if first else b""
        for citation in part.citations if isinstance(part, Text) else ():
            self._speech(event.choice).hears("", citation, None)
        return out

    def _delta(self, event: PartDelta) -> bytes:
        part, pieces, transcript = self._parts[event.choice, event.index]
        text = event.text
        if isinstance(part, Thinking):
            pieces.append(text)
            return self._say(text, event.choice, b',"thought":true') if text else b""
        if not isinstance(part, Text | Refusal):
            pieces.append(text)
            transcript.append(event.transcript)
            return b""
        speech = self._speech(event.choice)
        speech.hears(text, event.citation, event.logprobs)
        if not text:
            return b""
        carried = speech.signature(Text("")) if speech.thoughts else None
        return self._say(text, event.choice, b',"thoughtSignature":' + _json(*carried.values()) if carried else b"")

    def _say(self, text: str, choice: int, more: bytes) -> bytes:
        content = b'{"candidates":[{"content":{"parts":[{"text":%b%b}],"role":"model"},"index":%d}]%b'
        return self._framed(content % (_json(text), more, choice, self._after))

    def _framed(self, payload: bytes) -> bytes:
        if self._array:
            begun, self._begun = self._begun, True
            return framed(payload, ARRAY, first=not begun)
        self._begun = True
        return b"data: %b\r\n\r\n" % payload

    def _end(self, event: PartEnd) -> bytes:
        part, pieces, transcript = self._parts.pop((event.choice, event.index))
        if event.signature:
            part.signature, part.origin = event.signature, event.origin
        speech = self._speech(event.choice)
        if isinstance(part, Text | Refusal):
            written = [{"text": "", **speech.signature(part)}] if part.signature else []
        else:
            canonical.fill(part, "".join(pieces))
            if isinstance(part, Media):
                part.transcript += "".join(transcript)
            written = speech.thinks(part) if isinstance(part, Thinking) else speech.part(part)
        if not written:
            return b""
        content = {"content": {"parts": written, "role": "model"}, "index": event.choice}
        return self._framed(b'{"candidates":[%b]%b' % (_json(content), self._after))

    def _unended(self, choice: int) -> bytes:
        """Calls that were cut off go out only if they are whole: here they come in one piece."""
        found = [(place, part, pieces) for place, (part, pieces, _) in self._parts.items() if place[0] == choice]
        whole = [
            index
            for (_, index), part, pieces in found
            if isinstance(part, ToolCall) and not part.custom and any(pieces) and object_of("".join(pieces))[1]
        ]
        return b"".join([self._end(PartEnd(index, choice)) for index in whole])

    def _last(self) -> bytes:
        candidates = []
        for number in sorted(self._speeches):
            speech = self._speeches[number]
            content = {"parts": speech.rest() or [{"text": ""}], "role": "model"}
            candidates.append({"content": content, "index": number, **speech.ending()})
        found: dict[str, Any] = {"candidates": candidates}
        if self._usage is not None:
            found["usageMetadata"] = write_usage(self._usage, self._ask.pricer(self._usage))
        return self._framed(_json(found)[:-1] + self._after) + closing(self._ask.framing, empty=False)
