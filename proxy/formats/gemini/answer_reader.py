"""Gemini's answers → the canonical form, plain and streamed. Called by `gemini`, which has the format's names.

Fields: https://ai.google.dev/api/generate-content. Thoughts and their signatures:
https://ai.google.dev/gemini-api/docs/thought-signatures
"""

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import msgspec

from proxy.formats import canonical
from proxy.formats.base import NotAnAnswer
from proxy.formats.canonical import (
    Answer,
    Citation,
    Collector,
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
from proxy.formats.gemini.parts import BESIDE, REASONS, read_media
from proxy.formats.gemini.wire import (
    NAME,
    Unpacker,
    WireCandidate,
    WireChunk,
    WirePart,
    error_of,
    place,
    raw_part,
    read_answer_chunk,
    read_chunk,
    read_error,
    read_usage,
)

# With `enum-encoding=int`. From 6 on these are Vertex's; AI Studio's are one behind, and up to 8 filters, too.
_NUMBERED = {
    1: "STOP",
    2: "MAX_TOKENS",
    3: "SAFETY",
    4: "RECITATION",
    5: "OTHER",
    6: "BLOCKLIST",
    7: "PROHIBITED_CONTENT",
    8: "SPII",
}
_TIERS = {"STANDARD": "default", "FLEX": "flex", "PRIORITY": "priority"}


_NO_NEWS = "Model generated function call(s)."
_NOTHING_BESIDE = (None,) * (len(BESIDE) + 1)


class _Pieces:
    """A text in an object of arguments, of which more may come."""

    __slots__ = ("texts",)

    def __init__(self, text: str) -> None:
        self.texts = [text]


def _whole(text: Any) -> str:
    assert isinstance(text, _Pieces)
    return "".join(text.texts)


class _Call:
    """A call whose arguments come in pieces (`streamFunctionCallArguments`): values at JSON paths.

    https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc
    """

    __slots__ = ("args",)

    def __init__(self) -> None:
        self.args: dict[str, Any] = {}

    def add(self, pieces: Any) -> None:
        for piece in pieces if isinstance(pieces, list) else []:
            if isinstance(piece, dict) and (steps := _steps(str(piece.get("jsonPath") or ""))):
                self._put(steps, _value(piece))

    def json(self) -> str:
        return msgspec.json.encode(self.args, enc_hook=_whole).decode()

    def _put(self, steps: list[str | int], value: Any) -> None:
        where: Any = self.args
        for step, following in pairwise(steps):
            where = _child(where, step, [] if isinstance(following, int) else {})
        last = steps[-1]
        before = _child(where, last, None)
        if isinstance(before, _Pieces) and isinstance(value, str):
            before.texts.append(value)
        elif isinstance(where, list if isinstance(last, int) else dict):
            where[last] = _Pieces(value) if isinstance(value, str) else value  # type: ignore[index]


def _value(piece: dict[str, Any]) -> Any:
    for name in ("stringValue", "numberValue", "boolValue"):
        if name in piece:
            found = piece[name]
            return int(found) if isinstance(found, float) and found.is_integer() else found
    return None


_DEEPEST = 100  # steps of a path: more is no argument
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,5})\]|\[(?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")\]")


def _steps(path: str) -> list[str | int]:
    """`$.a.b[0]['c d']`. Empty for what is no such path."""
    at, steps = 1, []
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return []
        steps.append(int(step[2]) if step[2] else step[1] or re.sub(r"\\(.)", r"\1", step[3] or step[4] or ""))
        at = step.end()
    return steps if path.startswith("$") and len(steps) <= _DEEPEST else []


def _child(where: Any, step: str | int, fresh: Any) -> Any:
    """What stands there; `fresh` is put there where nothing does."""
    if isinstance(where, list) and isinstance(step, int):
        where.extend([None] * (step + 1 - len(where)))
        if where[step] is None:
            where[step] = fresh
        return where[step]
    if isinstance(where, dict) and isinstance(step, str):
        return where.setdefault(step, fresh)
    return None


class _Voice:
    """One candidate of an answer: its parts become events. `ended`: it has given a reason to end."""

    __slots__ = (
        "_beside",
        "_blocked",
        "_call",
        "_choice",
        "_heard",
        "_index",
        "_made",
        "_new_id",
        "_open",
        "_signature",
        "ended",
    )

    def __init__(self, choice: int, new_id: Callable[[], str]) -> None:
        self._choice = choice
        self._new_id = new_id
        self._index = -1
        self._open: type[Part] | None = None
        self._signature = ""  # of the part that is open
        self._call: _Call | None = None  # whose arguments go on
        self._blocked = False
        self._made = False  # whether tools are called
        self._heard: list[str] = []  # of the text that is open
        self._beside: dict[str, Any] = {}
        self.ended = ""

    def hear(self, candidate: WireCandidate, raw: Callable[[int], dict[str, Any]]) -> list[Event]:
        out: list[Event] = []
        content = candidate.content
        for number, part in enumerate(content.parts or ()) if content is not None else ():
            if type(part.text) is str and part.function_call is None:
                self._say(part, out)
            else:
                self._other(part, lambda number=number: raw(number), out)  # type: ignore[misc]
        if candidate.logprobs_result is not None and self._open is Text:
            out.append(PartDelta(self._index, "", self._choice, logprobs=read_logprobs(candidate.logprobs_result)))
        found = (
            candidate.grounding_metadata,
            candidate.url_context_metadata,
            candidate.avg_logprobs,
            candidate.safety_ratings,
            candidate.finish_message,
            candidate.continuation_token,
            candidate.citation_metadata,
        )
        if found != _NOTHING_BESIDE:
            names = (*BESIDE, "citationMetadata")
            self._beside.update({name: value for name, value in zip(names, found, strict=True) if value})
        if candidate.finish_reason:
            reason = candidate.finish_reason
            self.ended = (_NUMBERED.get(reason) if type(reason) is int else None) or str(reason)
        return out

    def refuse(self, reason: str, message: Any, ratings: Any) -> list[Event]:
        """The prompt was blocked: there are no candidates, or no more."""
        self.ended, self._blocked = reason, True
        if ratings:
            self._beside["safetyRatings"] = ratings
        out: list[Event] = []
        self._close(out)
        return out + self._whole(Refusal(message)) if isinstance(message, str) and message else out

    def _say(self, part: WirePart, out: list[Event]) -> None:
        kind = Thinking if part.thought is True else Text
        if part.text:
            if self._open is not kind or self._signature:
                self._close(out)
                self._begin(kind(text=""), out)
                self._heard = []
            out.append(PartDelta(self._index, part.text, self._choice))
            self._heard.append(part.text)
        signature = part.thought_signature
        if not isinstance(signature, str) or not signature:
            return
        if self._open is kind and not self._signature:
            self._signature = signature
        else:
            self._close(out)
            out += self._whole(Thinking(redacted=True, signature=signature, origin=NAME))

    def _other(self, part: WirePart, raw: Callable[[], dict[str, Any]], out: list[Event]) -> None:
        signature = part.thought_signature if isinstance(part.thought_signature, str) else ""
        if isinstance(part.function_call, dict):
            self._calls(part.function_call, signature, out)
            return
        self._close(out)
        blob = part.inline_data or part.file_data
        if isinstance(blob, dict) and part.thought is True:  # a draft of an image: no part of the answer
            out += self._whole(Opaque("thought", raw(), origin=NAME))
        elif isinstance(blob, dict):
            media = read_media(blob)
            media.signature, media.origin = signature, NAME if signature else media.origin
            out += self._whole(media)
        elif value := raw():
            kind = next((name for name in value if name not in ("thought", "thoughtSignature")), "")
            if kind:
                out += self._whole(Opaque(kind, value, origin=NAME))
            elif signature:
                out += self._whole(Thinking(redacted=True, signature=signature, origin=NAME))

    def _calls(self, found: dict[str, Any], signature: str, out: list[Event]) -> None:
        name, args = found.get("name"), found.get("args")
        if name or self._call is None:
            if not name:
                return
            self._close(out)
            call = ToolCall(str(found.get("id") or "") or self._new_id(), str(name), signature=signature)
            call.origin = NAME if signature else ""
            self._begin(call, out)
            self._call, self._made = _Call(), True
        assert self._call is not None
        if isinstance(args, dict):
            self._call.args.update(args)
        self._call.add(found.get("partialArgs"))
        if not found.get("willContinue"):
            self._close(out)

    def _begin(self, part: Part, out: list[Event]) -> None:
        self._index += 1
        self._open = type(part)
        out.append(PartStart(self._index, part, self._choice))

    def _whole(self, part: Part) -> list[Event]:
        self._index += 1
        return [PartStart(self._index, part, self._choice), PartEnd(self._index, self._choice)]

    def _close(self, out: list[Event]) -> None:
        if self._open is None:
            return
        if self._call is not None:
            out.append(PartDelta(self._index, self._call.json(), self._choice))
            self._call = None
        out.append(PartEnd(self._index, self._choice, self._signature, NAME if self._signature else ""))
        self._open, self._signature = None, ""

    def finish(self) -> list[Event]:
        """The bytes have ended: what has come is all."""
        out: list[Event] = []
        if self._open is Text:
            found = read_citations(self._beside, "".join(self._heard))
            out += [PartDelta(self._index, "", self._choice, citation=citation) for citation in found]
        self._close(out)
        if self._beside.get("finishMessage") == _NO_NEWS:
            del self._beside["finishMessage"]
        for name in BESIDE:
            if name in self._beside:
                out += self._whole(Opaque(name, {name: self._beside[name]}, origin=NAME))
        out.append(self.reason())
        return out

    def reason(self) -> Finish:
        reason = canonical.CONTENT_FILTER if self._blocked else REASONS.get(self.ended, canonical.STOP)
        if self._made and reason == canonical.STOP:
            reason = canonical.TOOL_CALLS
        return Finish(reason, self.ended, "", self._choice)


def read_citations(beside: dict[str, Any], text: str) -> list[Citation]:
    """https://ai.google.dev/gemini-api/docs/google-search#grounding-metadata: places are counted in bytes."""
    found = list(_grounds(beside.get("groundingMetadata"), text))
    rows = _dict(beside.get("citationMetadata")).get("citations")
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("uri"):
            start, end = _range(row, "", text)
            title = str(row.get("title") or "")
            found.append(Citation(str(row["uri"]), title, start=start, end=end, origin=NAME, raw=row))
    return found


def _grounds(grounding: Any, text: str) -> Iterable[Citation]:
    chunks = _dicts(_dict(grounding).get("groundingChunks"))
    supports = _dicts(_dict(grounding).get("groundingSupports"))
    if not supports:
        for chunk in chunks:
            yield _source(chunk)
    for support in supports:
        segment = _dict(support.get("segment"))
        quote = str(segment.get("text") or "")
        start, end = _range(segment, quote, text)
        places = support.get("groundingChunkIndices")
        for index in places if isinstance(places, list) else []:
            if type(index) is int and 0 <= index < len(chunks) and chunks[index]:
                citation = _source(chunks[index])
                citation.start, citation.end = start, end
                yield citation


def _source(chunk: dict[str, Any]) -> Citation:
    kind = next((name for name in ("web", "retrievedContext", "maps", "image") if name in chunk), "")
    found = _dict(chunk.get(kind))
    quote = str(found.get("text") or "")
    return Citation(str(found.get("uri") or ""), str(found.get("title") or ""), quote, origin=NAME, raw=chunk)


def _range(found: dict[str, Any], quote: str, text: str) -> tuple[int | None, int | None]:
    """Bytes → characters."""
    start, end = found.get("startIndex") or 0, found.get("endIndex")
    if type(start) is not int or type(end) is not int:
        return None, None
    data = text.encode()
    first, last = len(data[:start].decode(errors="ignore")), len(data[:end].decode(errors="ignore"))
    if quote and text[first:last] != quote:
        first = text.find(quote)
        return (first, first + len(quote)) if first >= 0 else (None, None)
    return first, last


def _dict(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [_dict(each) for each in found] if isinstance(found, list) else []


def read_logprobs(found: Any) -> list[dict[str, Any]]:
    """`logprobsResult` → the rows of OpenAI chat."""
    chosen = _dicts(_dict(found).get("chosenCandidates"))
    top = _dicts(_dict(found).get("topCandidates"))
    rows = []
    for number, each in enumerate(chosen):
        others = _dicts(top[number].get("candidates")) if number < len(top) else []
        rows.append({**_token(each), "top_logprobs": [_token(other) for other in others]})
    return rows


def _token(found: dict[str, Any]) -> dict[str, Any]:
    token = str(found.get("token") or "")
    return {"token": token, "logprob": found.get("logProbability") or 0.0, "bytes": list(token.encode())}


class _Hearing:
    """The candidates of one answer, in however many pieces it comes. `finished`: each of them has a reason to end."""

    __slots__ = ("_calls", "_open", "_seed", "_started", "_usage", "_voices", "finished")

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._calls = 0
        self._started = False
        self._voices: dict[int, _Voice] = {}
        self._open: set[int] = set()
        self._usage: UsageSeen | None = None
        self.finished = False

    def hear(self, chunk: WireChunk, payload: bytes) -> list[Event]:
        out: list[Event] = []
        if not self._started:
            self._started = True
            out.append(Start(_text(chunk.response_id), _text(chunk.model_version)))
        for position, candidate in enumerate(chunk.candidates or ()):
            number = place(candidate, position)
            voice = self._voice(number)
            out += voice.hear(candidate, lambda part, position=position: raw_part(payload, position, part))  # type: ignore[misc]
            if candidate.finish_reason:
                self._open.discard(number)
            elif not self.finished or (candidate.content is not None and candidate.content.parts):
                self._open.add(number)
        if chunk.candidates:
            self.finished = not self._open
        elif chunk.blocked and not self.finished:
            found = chunk.prompt_feedback
            out += self._voice(0).refuse(chunk.blocked, found.get("blockReasonMessage"), found.get("safetyRatings"))
            self.finished = True
        if chunk.usage_metadata is not None:
            self._count(chunk.usage_metadata, out)
        return out

    def _voice(self, number: int) -> _Voice:
        if number not in self._voices:
            self._voices[number] = _Voice(number, self._new_id)
        return self._voices[number]

    def _new_id(self) -> str:
        self._calls += 1
        return f"call_{self._seed}_{self._calls}"

    def _count(self, found: Any, out: list[Event]) -> None:
        """Every piece counts anew. A count without an answer says nothing of what has been said by then."""
        usage = read_usage(found)
        if usage is not None:
            seen = UsageSeen(usage, early=not (usage.completion or self.finished))
            if seen != self._usage:
                self._usage = seen
                out.append(seen)

    def reasons(self) -> list[Finish]:
        return [voice.reason() for number, voice in self._voices.items() if voice.ended and number not in self._open]

    def finish(self) -> list[Event]:
        return [event for number in sorted(self._voices) for event in self._voices[number].finish()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def read_answer(body: bytes, seed: str) -> Answer:
    """Raises `NotAnAnswer`."""
    chunk = read_answer_chunk(body)
    if not chunk.candidates and not chunk.blocked:
        raise NotAnAnswer("its answer has no candidates")
    hearing, collector = _Hearing(seed), Collector()
    for event in [*hearing.hear(chunk, body), *hearing.finish()]:
        collector.add(event)
    answer = collector.answer
    answer.usage = read_usage(chunk.usage_metadata)
    tier = _dict(chunk.usage_metadata).get("serviceTier")
    answer.service_tier = _TIERS.get(str(tier).upper(), "")
    return answer


class GeminiReader:
    """A provider's stream → events: a `base.StreamReader`."""

    __slots__ = ("_failed", "_hearing", "_unpacker", "broken", "complete")

    def __init__(self, seed: str) -> None:
        self._hearing = _Hearing(seed)
        self._unpacker = Unpacker()
        self._failed = False
        self.broken = ""
        self.complete = False

    @property
    def finished(self) -> bool:
        return self._hearing.finished and not self._failed

    def feed(self, data: bytes) -> list[Event]:
        frames = self._unpacker.feed(data)
        out: list[Event] = []
        for frame in frames:
            if frame.data and not self.broken and not self._failed and not self.complete:
                self._read(frame.data, lone=not frame.raw, out=out)
        self.broken = self.broken or self._unpacker.broken
        return out

    def _read(self, payload: bytes, *, lone: bool, out: list[Event]) -> None:
        if payload.startswith(b"[DONE]"):
            return
        try:
            chunk = read_chunk(payload)
        except ValueError:
            self.broken = "a malformed event"
            return
        if chunk.error or (lone and chunk.is_empty):
            error = error_of(chunk.error) if chunk.error else read_error(payload)
            self._failed = bool(error)
            if error:
                out.append(Failure(error))
            else:
                self.broken = "its answer is no stream"
            return
        out += self._hearing.hear(chunk, payload)

    def reasons(self) -> list[Finish]:
        return self._hearing.reasons()

    def close(self) -> list[Event]:
        out: list[Event] = []
        for frame in self._unpacker.close():
            if frame.data and not self.broken and not self._failed:
                self._read(frame.data, lone=not frame.raw, out=out)
        self.broken = self.broken or self._unpacker.broken
        if self.finished and not self.broken and not self.complete:
            self.complete = True
            out += self._hearing.finish()
            out.append(End())
        return out
