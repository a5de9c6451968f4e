"""Gemini's answers as bytes: what the gateway reads of them, how they are framed, and errors in Google's shape.

A stream is server-sent events (`alt=sse`) or one JSON array. The provider is asked for events; some send the array all
the same, so both are read, cut anywhere. Called by the other modules of this format.
Fields: https://ai.google.dev/api/generate-content
"""

import json
import re
from typing import Any

import msgspec

from proxy.formats.base import Error, NotAnAnswer
from proxy.formats.canonical import Usage
from proxy.formats.lenient import UNREADABLE, count, lax
from proxy.formats.sse import MAX_EVENT, Frame, Splitter

NAME = "gemini"
ARRAY = "array"
BOM = b"\xef\xbb\xbf"
_MOST_CANDIDATES = 1000  # a number beyond is none
_SPACE = b" \t\r\n"


# --- what is read of an answer ---------------------------------------------------------------------------------------


class WirePart(msgspec.Struct, gc=False, rename="camel"):
    text: Any = None
    thought: Any = None
    thought_signature: Any = None
    inline_data: Any = None
    file_data: Any = None
    function_call: Any = None


class WireContent(msgspec.Struct, gc=False):
    parts: list[WirePart] | None = None


class WireCandidate(msgspec.Struct, gc=False, rename="camel"):
    content: WireContent | None = None
    finish_reason: Any = None
    index: Any = None
    finish_message: Any = None
    grounding_metadata: Any = None
    citation_metadata: Any = None
    url_context_metadata: Any = None
    logprobs_result: Any = None
    avg_logprobs: Any = None
    safety_ratings: Any = None
    continuation_token: Any = None


class WireChunk(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[WireCandidate] | None = None
    prompt_feedback: Any = None
    usage_metadata: Any = None
    model_version: Any = None
    response_id: Any = None
    error: Any = None

    @property
    def blocked(self) -> str:
        """Why the prompt was refused: then there are no candidates."""
        found = self.prompt_feedback
        reason = found.get("blockReason") if isinstance(found, dict) and not self.candidates else None
        return str(reason) if reason else ""

    @property
    def is_empty(self) -> bool:
        return not (self.candidates or self.prompt_feedback or self.usage_metadata or self.error)


_read_chunk = msgspec.json.Decoder(WireChunk).decode


def read_chunk(payload: bytes) -> WireChunk:
    """Raises `ValueError` for what is no answer. Half surrogate pairs and NaN pass, as Python's clients read them."""
    if not payload.isascii():
        payload.decode()  # names that nobody reads are not looked at below
    try:
        return _read_chunk(payload)
    except UNREADABLE:
        return msgspec.convert(whole(payload), WireChunk)


def whole(payload: bytes) -> Any:
    """The same, without half surrogate pairs: no writer could write them. Raises `ValueError`."""
    return lax(json.dumps(one(lax(payload)), ensure_ascii=False).encode(errors="replace"))


def one(found: Any) -> Any:
    """Google wraps the errors of streams, and some vendors answers, in a list."""
    return found[0] if isinstance(found, list) and found else found


def raw_part(payload: bytes, position: int, number: int) -> dict[str, Any]:
    """A part as it came: for kinds that only Gemini has. Empty where it is nested too deeply to be read."""
    try:
        found = one(msgspec.json.decode(payload))
    except UNREADABLE:
        try:
            found = whole(payload)
        except ValueError:
            return {}
    part = found["candidates"][position]["content"]["parts"][number]
    return part if isinstance(part, dict) else {}


def place(candidate: WireCandidate, position: int) -> int:
    """The candidate's number: proto JSON leaves out a zero."""
    found = candidate.index
    return found if type(found) is int and 0 <= found < _MOST_CANDIDATES else position


_AUDIO = ("AUDIO", 4)  # as a name, or as its number with `enum-encoding=int`


def read_usage(found: Any) -> Usage | None:
    """A decoded `usageMetadata`. None where it counts nothing.

    Thoughts are counted beside the candidates' tokens, what tools brought beside the prompt's:
    https://ai.google.dev/api/generate-content#UsageMetadata. All of it is charged for. Some models leave thoughts out
    of the parts of the sum and count them in the total only.
    """
    if not isinstance(found, dict):
        return None
    get = found.get
    prompt = _count(get("promptTokenCount")) + _count(get("toolUsePromptTokenCount"))
    said, thoughts = _count(get("candidatesTokenCount")), _count(get("thoughtsTokenCount"))
    completion, total = said + thoughts, _count(get("totalTokenCount"))
    if total == prompt + said and thoughts <= said:
        completion = said
    elif total > prompt + completion and completion:
        completion = total - prompt
    if not prompt and not completion:
        return None
    usage = Usage(prompt, completion, _count(get("cachedContentTokenCount")), 0, thoughts)
    if "promptTokensDetails" in found:
        usage.audio_in = _spoken(get("promptTokensDetails"))
    if "candidatesTokensDetails" in found:
        usage.audio_out = _spoken(get("candidatesTokensDetails"))
    return usage


def _count(value: Any) -> int:
    """proto3's JSON writes long numbers as strings."""
    if type(value) is str and value.isdecimal() and len(value) < 11:
        return count(int(value))
    return count(value)


def _spoken(details: Any) -> int:
    rows = details if isinstance(details, list) else []
    return sum(_count(row.get("tokenCount")) for row in rows if isinstance(row, dict) and row.get("modality") in _AUDIO)


def write_usage(usage: Usage, gains: dict[str, bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "promptTokenCount": usage.prompt,
        "candidatesTokenCount": max(0, usage.completion - usage.reasoning),
        "totalTokenCount": usage.prompt + usage.completion,
    }
    if usage.cached:
        found["cachedContentTokenCount"] = usage.cached
    if usage.reasoning:
        found["thoughtsTokenCount"] = usage.reasoning
    if usage.audio_in:
        found["promptTokensDetails"] = _modalities(usage.prompt, usage.audio_in)
    if usage.audio_out:
        found["candidatesTokensDetails"] = _modalities(found["candidatesTokenCount"], usage.audio_out)
    return found | {name: msgspec.Raw(value) for name, value in gains.items()}


def _modalities(all_of_it: int, audio: int) -> list[dict[str, Any]]:
    rows = [{"modality": "AUDIO", "tokenCount": audio}]
    return ([{"modality": "TEXT", "tokenCount": all_of_it - audio}] if all_of_it > audio else []) + rows


def read_answer_chunk(body: bytes) -> WireChunk:
    """Raises `NotAnAnswer`."""
    try:
        chunk = read_chunk(body.removeprefix(BOM))
    except ValueError as error:
        raise NotAnAnswer(f"its answer is not Gemini's: {str(error)[:200]}", read_error(body) or None) from None
    if chunk.error or chunk.is_empty:
        said = error_of(chunk.error) if chunk.error else read_error(body)
        raise NotAnAnswer("an error in a 200" if chunk.error else "its answer has no candidates", said or None)
    return chunk


# --- errors ----------------------------------------------------------------------------------------------------------

# https://cloud.google.com/apis/design/errors#error_codes
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "OUT_OF_RANGE",
    416: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CODES = {name: code for code, name in reversed(STATUSES.items())} | {
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "ALREADY_EXISTS": 409,
    "DEADLINE_EXCEEDED": 504,
    "UNAVAILABLE": 503,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_NAMED = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
_TOO_LONG = re.compile(r"exceeds the maximum number of tokens|input token count", re.IGNORECASE)
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")
_FIELD = re.compile(r"^(?:[\w\[\].]+)$")


def read_error(body: bytes) -> dict[str, Any]:
    """`{"error": {"code", "message", "status", "details"}}`, or a list of one such, in OpenAI's names.

    `status`: the HTTP status that it names; `retry_after`: the seconds of a `RetryInfo`. Empty where there is none.
    """
    try:
        found = one(msgspec.json.decode(body))
    except UNREADABLE:
        try:
            found = one(lax(body))
        except ValueError:
            return {}
    return error_of(found.get("error") or found) if isinstance(found, dict) else {}


def error_of(found: Any) -> dict[str, Any]:
    found = one(found)
    if isinstance(found, str):
        return {"message": found}
    if not isinstance(found, dict):
        return {}
    message = found.get("message") or found.get("detail")
    status = _status(found)
    if not message and status is None:
        return {}
    text = message if isinstance(message, str) else json.dumps(message) if message else str(found.get("status") or "")
    error: dict[str, Any] = {"message": text, "type": _type(found, status), "param": None, "code": _code(found, status)}
    if status is not None:
        error["status"] = status
    error.update(_from_details(found.get("details")))
    return error


def _status(found: dict[str, Any]) -> int | None:
    code = found.get("code")
    if type(code) is int and 400 <= code < 600:
        return code
    return _CODES.get(str(found.get("status")))


def _type(found: dict[str, Any], status: int | None) -> str:
    if isinstance(found.get("type"), str):  # a vendor's error in OpenAI's shape
        return str(found["type"])
    if status is None or status >= 500:
        return "api_error"
    return _TYPES.get(status, "invalid_request_error")


def _code(found: dict[str, Any], status: int | None) -> str | None:
    if _TOO_LONG.search(str(found.get("message"))) and status == 400:
        return "context_length_exceeded"
    if isinstance(found.get("code"), str):
        return str(found["code"])
    if status in _NAMED:
        return _NAMED[status]
    return str(found["status"]) if isinstance(found.get("status"), str) else None


def _from_details(details: Any) -> dict[str, Any]:
    """https://cloud.google.com/apis/design/errors#error_details"""
    found: dict[str, Any] = {}
    for detail in details if isinstance(details, list) else []:
        if not isinstance(detail, dict):
            continue
        kind = str(detail.get("@type")).rpartition(".")[2]
        if kind == "RetryInfo" and (delay := _DELAY.fullmatch(str(detail.get("retryDelay")))):
            found["retry_after"] = float(delay[1])
        elif kind == "ErrorInfo" and detail.get("reason") == "API_KEY_INVALID":  # comes with status 400
            found["code"] = "invalid_api_key"
        elif kind == "BadRequest":
            violations = detail.get("fieldViolations")
            field = one(violations).get("field") if isinstance(violations, list) and violations else None
            if isinstance(field, str) and _FIELD.match(field):
                found["param"] = field
    return found


def error_object(error: Error) -> bytes:
    """Google's SDKs look for `error` at the very beginning, and for a number in `code`."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.code}] if error.code else []
    if error.param:
        violation = {"field": error.param, "description": error.message}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})  # type: ignore[dict-item]
    if error.retry_after is not None:
        wait = f"{max(0.0, error.retry_after):.3f}".rstrip("0").rstrip(".")
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait}s"})
    status = STATUSES.get(error.status) or ("INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
    said = {"code": error.status, "message": error.message, "status": status, "details": details}
    return msgspec.json.encode({"error": said})


# --- framing ---------------------------------------------------------------------------------------------------------

_IN_STRING = re.compile(rb'["\\]')
_OUTSIDE = re.compile(rb'["{}\[\]]')
_BETWEEN = re.compile(rb"[ \t\r\n,\[\]]*")


class _Objects:
    """The objects of a JSON array, or one that stands alone, out of bytes cut anywhere.

    `broken`: something else is between them. `open`: an object has begun and not ended.
    """

    __slots__ = ("_depth", "_pieces", "_quoted", "_size", "_skip", "broken")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of the object that has begun
        self._size = 0
        self._depth = 0
        self._quoted = False
        self._skip = 0  # bytes that a backslash before the cut has taken
        self.broken = ""

    @property
    def open(self) -> bool:
        return self._depth > 0

    def feed(self, data: bytes) -> list[bytes]:
        found, end, at = [], 0, self._skip
        while not self.broken:
            mark = (_IN_STRING if self._quoted else _OUTSIDE).search(data, at)
            if mark is None:
                break
            at = mark.end()
            if self._quoted:
                self._quoted = mark[0] == b"\\"
                at += self._quoted
            elif self._step(mark[0], data[end : mark.start()]):
                found.append(b"".join([*self._pieces, data[end:at]]).lstrip(b" \t\r\n,[]"))
                self._pieces, self._size, end = [], 0, at
        self._skip = max(0, at - len(data))
        self._keep(data[end:])
        return found

    def _step(self, mark: bytes, before: bytes) -> bool:
        """One mark outside of strings. True: the object ends here."""
        if not self._depth:
            if mark in b"[]":
                return False
            if mark != b"{" or not _BETWEEN.fullmatch(before):
                self.broken = "a malformed event"
        if mark == b'"':
            self._quoted = True
        else:
            self._depth += 1 if mark in b"{[" else -1
        return not self._depth

    def _keep(self, rest: bytes) -> None:
        if not self._depth:
            if not _BETWEEN.fullmatch(rest):
                self.broken = "a malformed event"
        elif rest:
            self._pieces.append(rest)
            self._size += len(rest)
            if self._size > MAX_EVENT:
                self.broken = "an event is too large"


class Unpacker:
    """A provider's bytes → frames, whichever framing it chose. `broken`: why no further byte can be trusted."""

    __slots__ = ("_begun", "_events", "_objects", "broken")

    def __init__(self) -> None:
        self._begun = b""
        self._events: Splitter | None = None
        self._objects: _Objects | None = None
        self.broken = ""

    def feed(self, data: bytes) -> list[Frame]:
        if self._events is not None:
            if _is_plain(data) and not self._events.pieces:
                return [Frame(data, data[6:-4])]
            frames = self._events.feed(data)
            if self._events.too_large:
                self.broken = "an event is too large"
            return frames if len(frames) == 1 and frames[0].data else [_bare(frame) for frame in frames]
        if self._objects is None:
            data = self._begun + data
            self._begun = data if len(data) < len(BOM) and BOM.startswith(data) else b""
            data = data.removeprefix(BOM).lstrip(_SPACE)  # Google's SDKs do not know the mark
            if not data or self._begun:
                return []
            if data[:1] not in b"[{":
                self._events = Splitter()
                return self.feed(data)
            self._objects = _Objects()
        frames = [Frame(b"", payload, 0) for payload in self._objects.feed(data)]
        self.broken = self._objects.broken
        return frames

    def close(self) -> list[Frame]:
        if self._objects is not None and self._objects.open:
            self.broken = "a malformed event"
        return [_bare(frame) for frame in self._events.close()] if self._events is not None else []


def _is_plain(data: bytes) -> bool:
    """One whole event as Google sends it: nearly every piece is."""
    return data.startswith(b"data: {") and data.find(b"\n") == len(data) - 3 and data.endswith(b"\r\n\r\n")


def _bare(frame: Frame) -> Frame:
    """Google's own errors stand between the events as they are."""
    found = frame.raw.strip()
    return Frame(b"", found, 0) if not frame.data and found[:1] in (b"{", b"[") else frame


def framed_error(payload: bytes, framing: str, *, first: bool) -> bytes:
    """The end of a stream that failed: an event, and the bare object, as Google itself sends it.

    The AI SDK sees events only. @google/genai 1.30 (gemini-cli) passes over the event in silence, and raises on what
    follows; so do the others, where the event has not done it.
    """
    event = framed(payload, framing, first=first)
    return event + (closing(framing, empty=False) if framing == ARRAY else payload.strip())


def framed(payload: bytes, framing: str, *, first: bool) -> bytes:
    """One answer of a stream as Google sends it."""
    if framing == ARRAY:
        return b"%b%b\r\n" % (b"[" if first else b",\r\n", payload)
    if b"\n" in payload or b"\r" in payload:  # between members: JSON's strings hold none
        payload = payload.translate(None, b"\r\n")
    return b"data: %b\r\n\r\n" % payload


def closing(framing: str, *, empty: bool) -> bytes:
    if framing != ARRAY:
        return b""
    return b"[]" if empty else b"]"
