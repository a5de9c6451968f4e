"""OpenAI's chat completions on the wire: what the gateway reads of them, and what it edits in them.

Bytes in, bytes out; no I/O, no clock. `ChatStream` relays a stream event by event and keeps what the meter needs from a
copy; `edit_answer` does the same for a plain answer. The permitted edits: `model` becomes the catalog's ID, `usage`
gains the price, and a usage chunk that the client did not ask for is held back.
Fields: https://platform.openai.com/docs/api-reference/chat (create, object, streaming).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

import msgspec

from proxy.formats.splice import Malformed, Members, append

MAX_EVENT = 32 * 1024 * 1024  # bytes; an image comes as one event
_BOUNDARY = re.compile(rb"\n\n|\r\n\r\n|\r\r")
_NULL = b"null"
_ABSURD = 1e15  # tokens


@dataclass(slots=True)
class Usage:
    """Tokens. `prompt` holds `cached` and `written`; `completion` holds `reasoning`, as OpenAI counts."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    written: int = 0
    reasoning: int = 0


Pricer = Callable[[Usage], dict[str, bytes]]
"""The members that an answer's `usage` gains: name → JSON."""


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode


def read_usage(found: Any) -> Usage | None:
    """A provider's decoded `usage` object. None where it is none, or counts nothing."""
    if not isinstance(found, dict):
        return None
    get = found.get
    usage = Usage(
        _count(get("prompt_tokens")) or _count(get("input_tokens")),
        _count(get("completion_tokens")) or _count(get("output_tokens")),
    )
    details = get("prompt_tokens_details") or get("input_tokens_details")
    if isinstance(details, dict):
        usage.cached = _count(details.get("cached_tokens"))
        usage.written = _count(details.get("cache_write_tokens")) or _count(details.get("cache_creation_tokens"))
    if not usage.cached:  # DeepSeek's name, and Moonshot's
        usage.cached = _count(get("prompt_cache_hit_tokens")) or _count(get("cached_tokens"))
    details = get("completion_tokens_details") or get("output_tokens_details")
    if isinstance(details, dict):
        usage.reasoning = _count(details.get("reasoning_tokens"))
    return usage if usage.prompt or usage.completion else None


def _count(value: Any) -> int:
    if type(value) is int:
        return max(0, value)
    return int(value) if type(value) is float and 0 < value < _ABSURD else 0


class ChatStream:
    """One stream on its way to the client: `feed` the provider's bytes, send what it returns, `close` at the end.

    `events`: chunks that go to the client. `done`: `[DONE]` has passed. `finished`: a choice gave its reason to end.
    `error`: the provider's error object. `broken`: why no further byte can be trusted.
    """

    __slots__ = (
        "_hold",
        "_model",
        "_model_json",
        "_new_prefix",
        "_old_prefix",
        "_pieces",
        "_pricer",
        "_size",
        "_text",
        "broken",
        "closed",
        "done",
        "error",
        "events",
        "finished",
        "usage",
    )

    def __init__(self, model: str, *, hold_usage: bool, pricer: Pricer) -> None:
        self._model = model
        self._model_json = msgspec.json.encode(model)
        self._hold = hold_usage
        self._pricer = pricer
        self._pieces: list[bytes] = []  # of an event whose end has not come
        self._size = 0
        self._old_prefix = self._new_prefix = b""
        self._text = StringIO()
        self.events = 0
        self.done = False
        self.closed = False
        self.finished = False
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.broken = ""

    @property
    def over(self) -> bool:
        """Nothing more is to be fed."""
        return self.done or self.closed or self.error is not None or bool(self.broken)

    @property
    def complete(self) -> bool:
        """The answer came to its end: some providers never send `[DONE]`."""
        return (self.done or self.finished) and self.error is None and not self.broken

    def text(self) -> str:
        """What the model said, thought and called, run together: for counting where no usage came."""
        return self._text.getvalue()

    def feed(self, data: bytes) -> bytes:
        # Nearly every piece is one whole event in its plainest form.
        if not self._pieces and data.startswith(b"data: {") and data.find(b"\n\n") == len(data) - 2:
            return self._event(data, data[6:-2])
        return self._feed_pieces(data)

    def close(self) -> bytes:
        """What is left at the end of the provider's bytes: an event without its blank line still counts."""
        self.closed = True
        rest, self._pieces, self._size = b"".join(self._pieces), [], 0
        return self._lines(rest) if rest else b""

    def _feed_pieces(self, data: bytes) -> bytes:
        self._pieces.append(data)
        self._size += len(data)
        if b"\n" not in data and b"\r" not in data:
            if self._size > MAX_EVENT:
                self.broken = "an event is too large"
            return b""
        data = b"".join(self._pieces)
        out, start = [], 0
        for boundary in _BOUNDARY.finditer(data):
            out.append(self._lines(data[start : boundary.end()]))
            start = boundary.end()
            if self.over:
                start = len(data)
                break
        self._pieces = [data[start:]] if start < len(data) else []
        self._size = len(data) - start
        return b"".join(out)

    def _lines(self, event: bytes) -> bytes:
        """One event in any form: CRLF, comments, `event:` lines, data without a space or over several lines."""
        payloads = [
            line[6:] if line.startswith(b"data: ") else line[5:]
            for line in event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            if line.startswith(b"data:")
        ]
        payload = b"\n".join(payloads).strip()
        if not payload:
            return event
        if payload.startswith(b"[DONE]"):
            self.done = True
            return event
        return self._event(event, payload)

    def _event(self, event: bytes, payload: bytes) -> bytes:
        try:
            chunk = _read_chunk(payload)
        except msgspec.ValidationError:
            chunk = _lenient(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.broken = "a malformed event"
            return b""
        usage_only = not chunk.choices and chunk.usage is not None
        edited = self._note(chunk, payload)
        if usage_only and self._hold and self.error is None:
            return b""
        self.events += 1
        if chunk.model is not None and chunk.model != self._model:
            edited = self._rename(edited)
        # A payload over several `data:` lines is not found as one piece: it passes as it is.
        return event if edited is payload else event.replace(payload, edited, 1)

    def _note(self, chunk: _Chunk, payload: bytes) -> bytes:
        """Keep what the meter needs; the payload comes back, with a price in its usage where it has one."""
        for choice in chunk.choices or ():
            if choice.delta is not None:
                self._listen(choice.delta)
            if choice.finish_reason:
                self.finished = True
        if chunk.error:
            self.error = chunk.error if isinstance(chunk.error, dict) else {"message": str(chunk.error)}
        elif chunk.usage is not None:
            usage = read_usage(chunk.usage)
            if usage is not None:
                self.usage = usage
                members = Members(payload)
                return members.edit({"usage": _priced(members["usage"], chunk.usage, self._pricer(usage))})
        elif isinstance(chunk.x_groq, dict):
            self.usage = read_usage(chunk.x_groq.get("usage")) or self.usage
        return payload

    def _listen(self, delta: _Delta) -> None:
        content = delta.content
        if isinstance(content, str):
            self._text.write(content)
            if not delta.tool_calls and not delta.reasoning_content and not delta.reasoning:
                return
        _write_text(self._text, delta)

    def _rename(self, payload: bytes) -> bytes:
        """Put the catalog's ID for the provider's own. Events begin alike up to there: the beginning is learnt."""
        if self._old_prefix and payload.startswith(self._old_prefix):
            return self._new_prefix + payload[len(self._old_prefix) :]
        start, end = Members(payload).find("model")
        self._old_prefix = payload[:end]
        self._new_prefix = payload[:start] + self._model_json
        return self._new_prefix + payload[end:]


def _lenient(payload: bytes) -> _Chunk:
    """A chunk whose fields have other types than OpenAI's: it goes to the client as it is."""
    found = msgspec.json.decode(payload)
    if not isinstance(found, dict):
        return _Chunk()
    kept = {name: found.get(name) for name in ("model", "usage", "error", "x_groq")}
    chunk = _Chunk(**kept)
    choices = found.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict):
            delta = choice.get("delta")
            said = {name: delta.get(name) for name in _Delta.__struct_fields__} if isinstance(delta, dict) else {}
            chunk.choices = [*(chunk.choices or []), _Choice(_Delta(**said), None, choice.get("finish_reason"))]
    return chunk


def _write_text(text: StringIO, said: _Delta) -> None:
    """All but plain string content, which the caller has written."""
    if isinstance(said.content, list):  # Mistral and others send parts
        for part in said.content:
            if isinstance(part, dict):
                _write_strings(text, part.get("text"), part.get("thinking"))
    _write_strings(text, said.reasoning_content or said.reasoning, said.refusal)
    for call in said.tool_calls if isinstance(said.tool_calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            _write_strings(text, function.get("name"), function.get("arguments"))


def _write_strings(text: StringIO, *values: Any) -> None:
    for value in values:
        if isinstance(value, str):
            text.write(value)
        elif isinstance(value, list):
            _write_strings(text, *(part.get("text") for part in value if isinstance(part, dict)))


def _priced(text: bytes, usage: dict[str, Any], gains: dict[str, bytes]) -> bytes:
    """A `usage` object with the price added, in place of what the provider may have put under the same names."""
    if usage.keys().isdisjoint(gains):
        return append(text, gains)
    known = {name: value for name, value in gains.items() if name in usage}
    fresh = {name: value for name, value in gains.items() if name not in usage}
    return Members(text).edit(known, add=fresh)


@dataclass(slots=True)
class Answer:
    """A plain answer as it goes to the client, and what the meter needs of it."""

    body: bytes
    usage: Usage | None
    text: str


class NotAnAnswer(Exception):
    """A 200 that is no answer; `error` is the provider's error object where it sent one."""

    def __init__(self, message: str, error: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.error = error


def edit_answer(body: bytes, model: str, pricer: Pricer) -> Answer:
    """Read and edit a plain answer. Raises `NotAnAnswer`."""
    try:
        members = Members(body)
    except Malformed as error:
        raise NotAnAnswer(f"its answer is not a JSON object: {error}") from None
    if "error" in members and (found := msgspec.json.decode(members["error"])):
        raise NotAnAnswer("an error in a 200", found if isinstance(found, dict) else {"message": str(found)})
    if "choices" not in members:
        raise NotAnAnswer("its answer has no choices")
    found = msgspec.json.decode(members["usage"]) if "usage" in members else None
    usage = read_usage(found)
    values: dict[str, bytes] = {}
    if "model" in members:
        values["model"] = msgspec.json.encode(model)
    if usage is not None and found is not None:
        values["usage"] = _priced(members["usage"], found, pricer(usage))
    try:
        edited = members.edit(values)
    except Malformed as error:
        raise NotAnAnswer(f"its answer is not a JSON object: {error}") from None
    return Answer(edited, usage, _said(members["choices"]) if usage is None else "")


def _said(choices: bytes) -> str:
    text = StringIO()
    try:
        for choice in msgspec.json.decode(choices, type=list[_Choice] | None) or ():
            if choice.message is not None:
                _write_strings(text, choice.message.content if isinstance(choice.message.content, str) else None)
                _write_text(text, choice.message)
    except msgspec.ValidationError:
        return choices.decode()  # other types than OpenAI's: count it whole rather than not at all
    return text.getvalue()


def prompt_text(messages: bytes) -> tuple[str, int, int]:
    """The text of a request's messages run together, how many messages there are, and how many images."""
    text, count, images = StringIO(), 0, 0
    found = msgspec.json.decode(messages)
    for message in found if isinstance(found, list) else ():
        if not isinstance(message, dict):
            continue
        count += 1
        content = message.get("content")
        _write_strings(text, message.get("name"), content if isinstance(content, str) else None)
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                _write_strings(text, part.get("text"))
                images += part.get("type") == "image_url"
        _write_text(text, _Delta(tool_calls=message.get("tool_calls")))
        text.write("\n")
    return text.getvalue(), count, images


def error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def error_event(message: str, kind: str, code: str | None) -> bytes:
    """The end of a stream that failed after its first byte: the official SDKs raise on it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    choice = {"index": 0, "delta": {}, "finish_reason": "error"}
    return b"data: " + msgspec.json.encode({"error": error, "choices": [choice]}) + b"\n\n"


def read_error(body: bytes) -> dict[str, Any]:
    """The error object of a provider's answer, in whichever of the usual shapes; empty where there is none.

    OpenAI and most: `{"error": {…}}`; Ollama: `{"error": "…"}`; Mistral: `{"message", "type", "code"}`; Gemini: a list
    of one; FastAPI servers: `{"detail": …}`.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return {}
    error = found.get("error", found)
    if isinstance(error, str):
        return {"message": error}
    if not isinstance(error, dict):
        return {}
    if "message" not in error and "detail" in error:
        detail = error["detail"]
        return {"message": detail if isinstance(detail, str) else msgspec.json.encode(detail).decode()}
    return error


KEEPALIVE = b": keep-alive\n\n"
