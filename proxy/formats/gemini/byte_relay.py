"""Gemini's answers on their way to a Gemini client, streamed and plain: the bytes pass. Called by `gemini`."""

import json
from io import StringIO
from typing import Any

import msgspec

from proxy.formats.base import MOST_HELD, Error, Pricer, Relayed, prompt_side
from proxy.formats.canonical import Usage
from proxy.formats.gemini.wire import (
    ARRAY,
    BOM,
    Unpacker,
    WireCandidate,
    WireChunk,
    closing,
    error_object,
    error_of,
    framed,
    framed_error,
    place,
    raw_part,
    read_answer_chunk,
    read_chunk,
    read_error,
    read_usage,
    write_usage,
)
from proxy.formats.splice import Malformed, Members, append
from proxy.formats.spoken import has_words, media, sealed, unknown
from proxy.formats.sse import Frame

_EMPTY_LINES = (b"\n\n", b"\r\n\r\n", b"\r\r")


class GeminiStream:
    """One stream on its way to a client of the same format: a `base.Stream`.

    The bytes are kept, but for `modelVersion` and the price in the last `usageMetadata`; only the framing changes where
    the client wants another one. A candidate may give a reason to end and go on (code execution does): it has ended
    when the bytes end.
    """

    __slots__ = (
        "_closed",
        "_counted",
        "_events",
        "_framing",
        "_half",
        "_id",
        "_metadata",
        "_model",
        "_model_json",
        "_new_end",
        "_old_end",
        "_open",
        "_opening",
        "_pricer",
        "_text",
        "_unpacker",
        "_usage",
        "begun",
        "broken",
        "error",
        "finished",
    )

    def __init__(self, model: str, pricer: Pricer, framing: str) -> None:
        self._model = model
        self._model_json = msgspec.json.encode(model)
        self._pricer = pricer
        self._framing = framing
        self._unpacker = Unpacker()
        self._old_end = self._new_end = b""
        self._open: set[int] = set()  # candidates that have begun and not ended
        self._text = StringIO()
        self._closed = False
        self._half = False  # the last event came without its empty line
        self._events = 0  # that the client has been given
        self._opening = 0  # bytes of events before the answer has begun
        self.begun = False
        self.finished = False
        self._id: Any = None  # the answer's, as the provider gave it
        self._metadata: dict[str, Any] | None = None  # the last count
        self._counted: dict[str, Any] | None = None  # the last of more than the prompt, while nobody has read it
        self._usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.broken = ""

    @property
    def usage(self) -> Usage | None:
        """The last count: each is of all that came before. One of the prompt alone says nothing of what was said."""
        if self._counted is not None:
            self._usage, self._counted = read_usage(self._counted), None
        return self._usage

    @property
    def prompt_usage(self) -> Usage | None:
        return prompt_side(read_usage(self._metadata))

    @property
    def said(self) -> int:
        return self._text.tell()

    @property
    def over(self) -> bool:
        return self._closed or self.error is not None or bool(self.broken)

    @property
    def complete(self) -> bool:
        return self._closed and self.finished and self.error is None and not self.broken

    def text(self) -> str:
        return self._text.getvalue()

    def feed(self, data: bytes) -> bytes:
        return self._pass(self._unpacker.feed(data))

    def close(self) -> bytes:
        # A line that has begun is no event, and an error could not stand behind it.
        out = self._pass([frame for frame in self._unpacker.close() if frame.data])
        self._closed = True
        self._half = self._framing != ARRAY and bool(out) and not out.endswith(_EMPTY_LINES)
        return out + closing(self._framing, empty=not self._events) if self.complete else out

    def cut(self, usage: Usage) -> bytes:
        """A last answer with the reason for each candidate that has none, and the usage; then the framing's end."""
        if self.over:
            return b""
        out = b""
        if not self.finished:
            candidates = [_ended(number) for number in sorted(self._open) or [0]]
            counted = write_usage(usage, self._pricer(usage))
            found = {"candidates": candidates, "usageMetadata": counted, "modelVersion": self._model}
            named = {"responseId": self._id} if self._id is not None else {}
            self._events += 1
            out = framed(msgspec.json.encode({**found, **named}), self._framing, first=self._events == 1)
        self._usage, self._counted = usage, None
        self._closed = self.finished = True
        return out + closing(self._framing, empty=not self._events)

    def fail(self, error: Error) -> bytes:
        end = self._end_with(error_object(error))
        return b"\r\n\r\n" + end if self._half else end

    def _pass(self, frames: list[Frame]) -> bytes:
        out = []
        for frame in frames:
            if self.over:
                break
            out.append(self._frame(frame))
        self.broken = self.broken or self._unpacker.broken
        return b"".join(out)

    def _frame(self, frame: Frame) -> bytes:
        payload = frame.data
        if not payload or payload.startswith(b"[DONE]"):  # OpenAI's goodbye, which no Gemini client reads
            return b"" if payload or self._framing == ARRAY else _blank(frame.raw)
        try:
            chunk = read_chunk(payload)
        except ValueError:
            self.broken = "a malformed event"
            return b""
        if chunk.error or (chunk.is_empty and not frame.raw):
            return self._refused(chunk, payload)
        if not self.begun:
            self._look(chunk, payload)
        edited = self._edit(payload, chunk)
        self._events += 1
        if frame.raw.startswith(b"data: ") and self._framing != ARRAY:
            plain = len(frame.raw) == len(payload) + 10 and frame.raw.endswith(b"\r\n\r\n")
            return b"data: %b\r\n\r\n" % edited if plain else frame.with_data(edited)
        return framed(edited, self._framing, first=self._events == 1)

    def _look(self, chunk: WireChunk, payload: bytes) -> None:
        """For the answer's beginning: an answer without parts is none."""
        self._opening += len(payload)
        self.begun = bool(chunk.blocked) or self._opening > MOST_HELD
        for position, candidate in enumerate(chunk.candidates or ()):
            parts = candidate.content.parts if candidate.content is not None else None
            said = any(has_words(raw_part(payload, position, number)) for number in range(len(parts or ())))
            self.begun = self.begun or said or bool(candidate.finish_reason)

    def _refused(self, chunk: WireChunk, payload: bytes) -> bytes:
        """An error in the stream, or an answer that is no stream."""
        error = error_of(chunk.error) if chunk.error else read_error(payload)
        if not error:
            self.broken = "its answer is no stream"
            return b""
        self.error = error
        return self._end_with(_one(payload))

    def _end_with(self, payload: bytes) -> bytes:
        self._events += 1
        return framed_error(payload, self._framing, first=self._events == 1)

    def _edit(self, payload: bytes, chunk: WireChunk) -> bytes:
        """Note what the meter needs; the payload comes back, with the catalog's model and, at the end, the price."""
        ends = self._note(chunk, payload)
        renamed = chunk.model_version is not None and chunk.model_version != self._model
        found = chunk.usage_metadata
        self._id = chunk.response_id
        if isinstance(found, dict):
            self._metadata = found
            if ends or "candidatesTokenCount" in found or "thoughtsTokenCount" in found:
                self._counted = found
            usage = self.usage if ends else None
            if usage is not None:
                values = {"modelVersion": self._model_json} if renamed else {}
                return edited(payload, values, found, self._pricer(usage))
        return self._rename(payload) if renamed else payload

    def _note(self, chunk: WireChunk, payload: bytes) -> bool:
        """Whether the answer may end here."""
        if not chunk.candidates:
            self.finished = self.finished or bool(chunk.blocked)
            return self.finished
        for position, candidate in enumerate(chunk.candidates):
            parts = candidate.content.parts if candidate.content is not None else None
            if parts:
                _listen(self._text, candidate, payload, position)
            if candidate.finish_reason:
                self._open.discard(place(candidate, position))
            elif parts or not self.finished:
                self._open.add(place(candidate, position))
        self.finished = not self._open
        return self.finished

    def _rename(self, payload: bytes) -> bytes:
        """Put the catalog's ID for the provider's own. Events end alike from there on: the end is learnt."""
        if self._old_end and payload.endswith(self._old_end):
            return payload[: -len(self._old_end)] + self._new_end
        try:
            start, end = Members(payload).find("modelVersion")
        except Malformed:
            return payload
        key = payload.rfind(b'"modelVersion"', 0, start)
        if key > 0:
            self._old_end, self._new_end = payload[key:], payload[key:start] + self._model_json + payload[end:]
        return payload[:start] + self._model_json + payload[end:]


def _blank(raw: bytes) -> bytes:
    """Comments keep a connection alive, but Google's SDKs take each line that is not blank for an answer."""
    return b"\n\n" if raw.strip() else raw


def _ended(number: int) -> dict[str, Any]:
    return {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS", "index": number}


def _one(payload: bytes) -> bytes:
    """An error that comes in a list of one: no client looks for it in there."""
    try:
        found = msgspec.json.decode(payload, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return payload
    return bytes(found[0]) if len(found) == 1 else payload


def _listen(text: StringIO, candidate: WireCandidate, payload: bytes, position: int) -> None:
    """What the model said, thought, called and drew, run together."""
    assert candidate.content is not None
    for number, part in enumerate(candidate.content.parts or ()):
        if isinstance(part.text, str):
            text.write(part.text)
        elif isinstance(call := part.function_call, dict):
            text.write(str(call.get("name") or ""))
            if said := call.get("args"):
                text.write(json.dumps(said, ensure_ascii=False))
            text.write(unknown(call.get("partialArgs")))
        elif isinstance(blob := part.inline_data, dict):
            if part.thought is not True:  # drafts are free
                text.write(media(str(blob.get("mimeType")), blob.get("data")))
        else:
            text.write(unknown(raw_part(payload, position, number)))
        if part.thought_signature is not None:
            text.write(sealed(part.thought_signature, text.tell()))


def edited(payload: bytes, values: dict[str, bytes], found: Any, gains: dict[str, bytes]) -> bytes:
    """`values` put in, and the price into `usageMetadata`. Google's SDKs leave out members that they do not know."""
    try:
        members = Members(payload)
        text = members["usageMetadata"]
        if found.keys().isdisjoint(gains):
            values["usageMetadata"] = append(text, gains)
        else:
            known = {name: value for name, value in gains.items() if name in found}
            fresh = {name: value for name, value in gains.items() if name not in found}
            values["usageMetadata"] = Members(text).edit(known, add=fresh)
        return members.edit(values)
    except Malformed:  # a name stands twice, or what only a lax reader takes
        return payload


# --- a plain answer ---------------------------------------------------------------------------------------------------


def edit_answer(body: bytes, model: str, pricer: Pricer) -> Relayed:
    """The bytes but for `modelVersion` and the price. Raises `NotAnAnswer`."""
    body = body.removeprefix(BOM)
    chunk = read_answer_chunk(body)
    usage = read_usage(chunk.usage_metadata)
    text = "" if usage is not None else _said(chunk, body)
    values = {"modelVersion": msgspec.json.encode(model)} if chunk.model_version is not None else {}
    if usage is not None:
        return Relayed(edited(body, values, chunk.usage_metadata, pricer(usage)), usage, text)
    try:
        return Relayed(Members(body).edit(values), usage, text)
    except Malformed:
        return Relayed(body, usage, text)


def _said(chunk: WireChunk, body: bytes) -> str:
    text = StringIO()
    for position, candidate in enumerate(chunk.candidates or ()):
        if candidate.content is not None:
            _listen(text, candidate, body, position)
    return text.getvalue()
