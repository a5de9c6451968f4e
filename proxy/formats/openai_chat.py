"""OpenAI's chat completions on the wire: what the gateway reads of them, and what it edits in them.

Bytes in, bytes out; no I/O, no clock. `ChatStream` relays a stream event by event and keeps what the meter needs from a
copy; `edit_answer` does the same for a plain answer. The permitted edits: `model` becomes the catalog's ID, `usage`
gains the price, and a usage chunk that the client did not ask for is held back.
Fields: https://platform.openai.com/docs/api-reference/chat (create, object, streaming).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

import msgspec

from proxy.formats.splice import Malformed, Members, append

MAX_EVENT = 32 * 1024 * 1024  # bytes; an image comes as one event
# A line's end and an empty line, each as LF, CRLF or CR; whether a CR stands alone shows in the next byte.
_BOUNDARY = re.compile(rb"(?:\n|\r\n|\r(?=[^\n]))(?:\n|\r\n|\r(?=[^\n]))")
_TAIL = 4  # bytes: a boundary that is not whole is shorter
_BOM = b"\xef\xbb\xbf"
_MOST = 2**31 - 1  # tokens: more is no count, and no database column holds it
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


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
    function_call: Any = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: Any = None
    index: int | None = 0


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
    if "completion_tokens" in found and get("completion_tokens") is None:
        return None  # Databricks, in every chunk but the last: not counted yet
    usage = Usage(
        _count(get("prompt_tokens")) or _count(get("input_tokens")),
        _count(get("completion_tokens")) or _count(get("output_tokens")),
    )
    details = get("prompt_tokens_details") or get("input_tokens_details")
    inside = details if isinstance(details, dict) else {}
    usage.cached = _count(inside.get("cached_tokens")) or _first(found, _CACHED)
    usage.written = _first(inside, _WRITTEN) or _count(get("cache_creation_input_tokens"))
    details = get("completion_tokens_details") or get("output_tokens_details")
    if isinstance(details, dict):
        usage.reasoning = _count(details.get("reasoning_tokens"))
    if (beyond := _count(get("total_tokens")) - usage.prompt - usage.completion) > 0:
        _add_beyond(usage, beyond, _count(inside.get("audio_tokens")), counted=isinstance(details, dict))
    return usage if usage.prompt or usage.completion else None


# Names for cached tokens beside OpenAI's: DeepSeek's, Moonshot's, Mistral's, Databricks'.
_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens")
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens")


def _first(found: dict[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        if name in found and (count := _count(found[name])):
            return count
    return 0


def _add_beyond(usage: Usage, beyond: int, audio: int, *, counted: bool) -> None:
    """What `total_tokens` holds beyond prompt and completion. `counted`: the completion's details are there.

    xAI leaves reasoning out of `completion_tokens`, Mistral audio out of `prompt_tokens`; Gemini, which gives no
    details, leaves thoughts out of `completion_tokens`. All of them charge for it.
    """
    if beyond == usage.reasoning or not (counted or beyond == audio):
        usage.completion += beyond
    elif beyond == audio:
        usage.prompt += beyond


def _count(value: Any) -> int:
    if type(value) is int:
        return value if 0 < value <= _MOST else 0
    return int(value) if type(value) is float and 0 < value <= _MOST else 0


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
        "_open",
        "_pieces",
        "_pricer",
        "_size",
        "_tail",
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
        self._tail = b""  # the last bytes of the pieces
        self._old_prefix = self._new_prefix = b""
        self._text = StringIO()
        self.events = 0
        self.done = False
        self.closed = False
        self.finished = False
        self._open: set[int] = set()  # choices that have begun and not ended
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.broken = ""

    @property
    def over(self) -> bool:
        """Nothing more is to be fed."""
        return self.done or self.closed or self.error is not None or bool(self.broken)

    @property
    def complete(self) -> bool:
        """The answer came to its end. Some providers never send `[DONE]`; some send it and never a reason to end."""
        return (self.done or self.finished) and self.error is None and not self.broken

    def text(self) -> str:
        """What the model said, thought and called, run together: for counting where no usage came."""
        return self._text.getvalue()

    def feed(self, data: bytes) -> bytes:
        # Nearly every piece is one whole event in its plainest form.
        if not self._pieces and data.startswith(b"data: {") and data.find(b"\n") == len(data) - 2 and data[-1] == 10:
            return self._event(data, data[6:-2])
        return self._feed_pieces(data)

    def close(self) -> bytes:
        """What is left at the end of the provider's bytes: an event without its blank line still counts."""
        self.closed = True
        rest, self._pieces, self._size = b"".join(self._pieces), [], 0
        return self._lines(rest) if rest else b""

    def _feed_pieces(self, data: bytes) -> bytes:
        if self._pieces:
            self._pieces.append(data)
            self._size += len(data)
            seam = self._tail + data
            if _BOUNDARY.search(seam) is None:
                self._tail = seam[-_TAIL:]
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
        self._tail = data[max(start, len(data) - _TAIL) :]
        return b"".join(out)

    def _lines(self, event: bytes) -> bytes:
        """One event in any form: CRLF, comments, `event:` lines, data without a space or over several lines."""
        lines = event.removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        payloads = [line[6:] if line.startswith(b"data: ") else line[5:] for line in lines if line.startswith(b"data:")]
        payload = b" ".join(payloads).strip()  # in JSON, a line's end is a space
        if not payload:
            if not self.events and event.lstrip()[:1] == b"{":
                self._read_plain(event)
            return event
        if payload.startswith(b"[DONE]"):
            self.done = True
            return event
        if len(payloads) == 1:
            return self._event(event, payload)
        others = [line + b"\n" for line in lines if line and not line.startswith(b"data:")]
        single = b"%bdata: %b\n\n" % (b"".join(others), payload)
        out = self._event(single, payload)
        return event if out == single else out

    def _read_plain(self, body: bytes) -> None:
        """No stream at all: some providers refuse a streamed request with a 200 and a plain JSON error."""
        error = read_error(body)
        if error.get("message"):
            self.error = error
        else:
            self.broken = "its answer is no stream"

    def _event(self, event: bytes, payload: bytes) -> bytes:
        try:
            chunk = _read_chunk(payload)
        except _UNREADABLE:
            found = _lenient(payload)
            if found is None:
                self.broken = "a malformed event"
                return b""
            chunk = found
        usage_only = False
        if not chunk.choices:
            usage_only = chunk.usage is not None
            if not usage_only and not chunk.error:
                chunk.error = _unusual_error(event, payload)
        edited = self._note(chunk, payload)
        if usage_only and self._hold and self.error is None:
            return b""
        self.events += 1
        if chunk.model is not None and chunk.model != self._model:
            edited = self._rename(edited)
        return event if edited is payload else event.replace(payload, edited, 1)

    def _note(self, chunk: _Chunk, payload: bytes) -> bytes:
        """Keep what the meter needs; the payload comes back, with a price in its usage where it has one."""
        for choice in chunk.choices or ():
            if choice.delta is not None:
                self._listen(choice.delta)
            if choice.finish_reason:
                self._open.discard(choice.index)
                self.finished = not self._open
            elif choice.index not in self._open:
                self._begin(choice)
        if chunk.error:
            self.error = chunk.error if isinstance(chunk.error, dict) else {"message": str(chunk.error)}
            self.usage = read_usage(chunk.usage) or self.usage
        elif chunk.usage is not None:
            usage = read_usage(chunk.usage)
            if usage is not None:
                self.usage = usage
                return self._price(payload, chunk.usage, usage)
        elif isinstance(chunk.x_groq, dict):
            self.usage = read_usage(chunk.x_groq.get("usage")) or self.usage
        return payload

    def _begin(self, choice: _Choice) -> None:
        """One of several choices is under way. A delta without content after a choice's end does not open it again."""
        said = choice.delta
        if choice.index is not None and (not self.finished or (said is not None and (said.content or said.tool_calls))):
            self._open.add(choice.index)
            self.finished = False

    def _price(self, payload: bytes, found: dict[str, Any], usage: Usage) -> bytes:
        try:
            members = Members(payload)
            return members.edit({"usage": _priced(members["usage"], found, self._pricer(usage))})
        except Malformed:  # a name stands twice, or what `_lenient` lets pass
            return payload

    def _listen(self, delta: _Delta) -> None:
        content = delta.content
        if isinstance(content, str):
            self._text.write(content)
            if content and not delta.tool_calls and not delta.reasoning_content and not delta.reasoning:
                return
        _write_text(self._text, delta)

    def _rename(self, payload: bytes) -> bytes:
        """Put the catalog's ID for the provider's own. Events begin alike up to there: the beginning is learnt."""
        if self._old_prefix and payload.startswith(self._old_prefix):
            return self._new_prefix + payload[len(self._old_prefix) :]
        try:
            start, end = Members(payload).find("model")
        except Malformed:
            return payload
        if payload[end - 1 : end] == b'"':  # what begins with the number 1 may go on as 12
            self._old_prefix = payload[:end]
            self._new_prefix = payload[:start] + self._model_json
        return payload[:start] + self._model_json + payload[end:]


def _lenient(payload: bytes) -> _Chunk | None:
    """A chunk with other types than OpenAI's, or that only a lax reader takes; it goes to the client all the same.

    Half surrogate pairs (an emoji cut in two) and NaN are in providers' streams, and Python's clients read them.
    """
    try:
        found = _lax(payload)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return _Chunk()
    kept = {name: found.get(name) for name in ("model", "usage", "error", "x_groq")}
    chunk = _Chunk(**kept)
    choices = found.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict):
            delta = choice.get("delta")
            said = {name: delta.get(name) for name in _Delta.__struct_fields__} if isinstance(delta, dict) else {}
            chunk.choices = [
                *(chunk.choices or []),
                _Choice(_Delta(**said), None, choice.get("finish_reason"), _count(choice.get("index"))),
            ]
    return chunk


def _lax(text: bytes) -> Any:
    """JSON as Python's own reader takes it. Raises `ValueError`."""
    try:
        return json.loads(text.decode(errors="replace"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _value(text: bytes) -> Any:
    """A member's JSON value; None where no reader takes it."""
    try:
        return msgspec.json.decode(text)
    except _UNREADABLE:
        try:
            return _lax(text)
        except ValueError:
            return None


def _unusual_error(event: bytes, payload: bytes) -> dict[str, Any] | None:
    """An event without `choices`, `usage` and `error` that is an error: SGLang's and Mistral's `"object": "error"`."""
    found = _value(payload)
    if not isinstance(found, dict):
        return None
    named = event.splitlines()
    if "error" in (found.get("object"), found.get("type")) or b"event: error" in named or b"event:error" in named:
        return read_error(payload) or {"message": payload.decode(errors="replace")}
    return None


def _write_text(text: StringIO, said: _Delta) -> None:
    """All but plain string content, which the caller has written."""
    if isinstance(said.content, list):  # Mistral and others send parts
        for part in said.content:
            if isinstance(part, dict):
                _write_strings(text, part.get("text"), part.get("thinking"))
    _write_strings(text, said.reasoning_content or said.reasoning, said.refusal)
    calls = said.tool_calls if isinstance(said.tool_calls, list) else []
    for function in [call.get("function") for call in calls if isinstance(call, dict)] + [said.function_call]:
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
    body = body.removeprefix(_BOM)
    try:
        members = Members(body)
        members.check()
    except Malformed as error:
        return _lax_answer(body, str(error))
    if "error" in members or "choices" not in members:
        _refuse_error(_value(members.get("error", b"null")), "choices" in members, body)
    found = _value(members["usage"]) if "usage" in members else None
    usage = read_usage(found)
    values: dict[str, bytes] = {}
    if "model" in members:
        values["model"] = msgspec.json.encode(model)
    if usage is not None and found is not None:
        try:
            values["usage"] = _priced(members["usage"], found, pricer(usage))
        except Malformed:  # a name stands twice in it
            pass
    return Answer(members.edit(values), usage, _said(members["choices"]) if usage is None else "")


def _lax_answer(body: bytes, why: str) -> Answer:
    """An answer that only a lax reader takes, for a NaN in it, say: it is metered and goes to the client as it is."""
    try:
        found = _lax(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotAnAnswer(f"its answer is not a JSON object: {why}")
    _refuse_error(found.get("error"), "choices" in found, body)
    usage = read_usage(found.get("usage"))
    return Answer(body, usage, json.dumps(found["choices"], ensure_ascii=False) if usage is None else "")


def _refuse_error(error: Any, answered: bool, body: bytes) -> None:
    if error:
        raise NotAnAnswer("an error in a 200", error if isinstance(error, dict) else {"message": str(error)})
    if not answered:
        said = read_error(body)
        raise NotAnAnswer("its answer has no choices", said if said.get("message") else None)


def _said(choices: bytes) -> str:
    text = StringIO()
    try:
        for choice in msgspec.json.decode(choices, type=list[_Choice] | None) or ():
            if choice.message is not None:
                _write_strings(text, choice.message.content if isinstance(choice.message.content, str) else None)
                _write_text(text, choice.message)
    except _UNREADABLE:
        return choices.decode(errors="replace")  # other types than OpenAI's: count it whole rather than not at all
    return text.getvalue()


def prompt_text(messages: bytes) -> tuple[str, int, int]:
    """The text of a request's messages run together, how many messages there are, and how many images."""
    text, count, images = StringIO(), 0, 0
    found = _value(messages)
    if found is None:  # nested nearly too deeply: sent on, so counted as it stands
        return messages.decode(errors="replace"), 1, 0
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
        _write_text(text, _Delta(tool_calls=message.get("tool_calls"), function_call=message.get("function_call")))
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

    OpenAI and most: `{"error": {…}}`; Ollama: `{"error": "…"}`, xAI with a `code` beside it; Mistral: `{"message",
    "type", "code"}`; Gemini: a list of one; Cloudflare: `{"errors": […]}`; FastAPI servers: `{"detail": …}`. What is
    there of `message` is text.
    """
    found = _one(_value(body))
    if not isinstance(found, dict):
        return {}
    error = _one(found.get("error") or found.get("errors") or found)
    if isinstance(error, str):
        error = {**found, "message": error}
    if not isinstance(error, dict):
        return {}
    message = error.get("message") or error.get("detail")
    if message is None or isinstance(message, str):
        return {**error, "message": message} if message else error
    return {**error, "message": json.dumps(message, ensure_ascii=False)}


def _one(found: Any) -> Any:
    return found[0] if isinstance(found, list) and found else found


KEEPALIVE = b": keep-alive\n\n"
