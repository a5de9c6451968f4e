"""OpenAI's Responses between a provider and a client that both speak them: bytes are kept but for the permitted edits.

The edits: `response.model` becomes the catalog's ID in every event that carries the response object, and its `usage`
gains the price. Also what all of this format reads in the same way: JSON of strangers, usage, errors. Called by
`openai_responses` and `openai_responses.answer_reader`.
Fields: https://platform.openai.com/docs/api-reference/responses (object, streaming events).
"""

import json
from io import StringIO
from typing import Any

import msgspec

from proxy.formats.base import MOST_HELD, Error, NotAnAnswer, Pricer, Relayed, prompt_side
from proxy.formats.canonical import Usage
from proxy.formats.lenient import BOM, UNREADABLE, count, encode, lax, mended, objects, priced, string
from proxy.formats.openai_responses.unfinished import ADDED, DONE, NOTED, Unfinished, index_of
from proxy.formats.splice import Malformed, Members
from proxy.formats.spoken import has_words, sealed, unknown
from proxy.formats.sse import Frame, Splitter, event

NAME = "openai_responses"
ENDS = frozenset({"response.completed", "response.incomplete"})
# What says that there is a response, or that a part of it is to come: OpenAI sends it before it knows that it is
# overloaded.
_OPENINGS = frozenset(
    {
        *("response.created", "response.queued", "response.in_progress", "response.output_item.added"),
        *("response.content_part.added", "response.reasoning_summary_part.added"),
    }
)
_FAILED = frozenset({"failed", "cancelled"})
_SOUND = "response.audio.delta"  # its transcript comes beside it
_NOT_SAID = frozenset({_SOUND, "response.shell_call_output_content.delta"})  # that is the provider's machine


# --- what strangers send ---------------------------------------------------------------------------------------------


def value(text: bytes) -> Any:
    """JSON, as a lax reader takes it where msgspec refuses. Raises `ValueError`."""
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        return mended(lax(text))


def read_usage(found: Any) -> Usage | None:
    """A decoded `usage` object. None where it is none, or counts nothing.

    What `total_tokens` holds beyond input and output is reasoning that a vendor leaves out of `output_tokens`.
    """
    if not isinstance(found, dict):
        return None
    get = found.get
    inside, outside = get("input_tokens_details"), get("output_tokens_details")
    inside = inside if isinstance(inside, dict) else {}
    outside = outside if isinstance(outside, dict) else {}
    usage = Usage(
        prompt=count(get("input_tokens")) or count(get("prompt_tokens")),
        completion=count(get("output_tokens")) or count(get("completion_tokens")),
        cached=count(inside.get("cached_tokens")),
        written=count(inside.get("cache_write_tokens")),
        reasoning=count(outside.get("reasoning_tokens")),
        audio_in=count(inside.get("audio_tokens")),
        audio_out=count(outside.get("audio_tokens")),
    )
    usage.completion += max(0, count(get("total_tokens")) - usage.prompt - usage.completion)
    return usage if usage.prompt or usage.completion else None


def usage_value(usage: Usage, pricer: Pricer) -> dict[str, Any]:
    """A `usage` object, with what the pricer adds."""
    found: dict[str, Any] = {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.written},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }
    return found | {name: msgspec.Raw(gain) for name, gain in pricer(usage).items()}


def read_error(body: bytes) -> dict[str, Any]:
    """The error object of a provider's answer, in whichever of the usual shapes; empty where there is none.

    OpenAI: `{"error": {…}}`; in a stream `{"type": "error", …}` and `{"response": {"error": {…}}}`; xAI: `{"error":
    "…", "code": "…"}`; FastAPI servers: `{"detail": …}`. What is there of `message` is text.
    """
    try:
        found = value(body)
    except ValueError:
        return {}
    found = found[0] if isinstance(found, list) and found else found  # Gemini's list of one
    return error_in(found)


def error_in(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        return {}
    inner: Any = found.get("error") or found.get("errors") or found
    inner = inner[0] if isinstance(inner, list) and inner else inner
    if isinstance(inner, str):
        inner = {**found, "message": inner}
        inner.pop("error", None)
    error: dict[str, Any] = {**inner} if isinstance(inner, dict) else {}
    error.pop("sequence_number", None)
    if error.get("type") == "error":
        del error["type"]  # the event's name, not the error's kind
    message = error.get("message") or error.pop("detail", None)
    if message is not None:
        error["message"] = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    return error


def failure_of(response: Any) -> dict[str, Any]:
    """The error of a response that failed, with at least a message."""
    found = response if isinstance(response, dict) else {}
    given = found.get("error")
    error: dict[str, Any] = {**given} if isinstance(given, dict) else {"message": given}
    if not isinstance(error.get("message"), str):
        error["message"] = f"the response ended as {found.get('status') or 'failed'!r}"
    return error


def error_json(error: Error) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


def error_frame(error: dict[str, Any], sequence: int) -> bytes:
    """`error` as the reference has it (code, message, param), and as the API sends it, in an object of that name:

    the official SDKs raise on that one. https://platform.openai.com/docs/api-reference/responses-streaming/error
    """
    flat = {name: error.get(name) for name in ("code", "message", "param")}
    whole = {"type": "error", "sequence_number": sequence, **flat, "error": error}
    return event("error", encode(whole))


# --- a plain answer --------------------------------------------------------------------------------------------------


def edit_answer(body: bytes, model: str, pricer: Pricer) -> Relayed:
    """Raises `NotAnAnswer`."""
    body = body.removeprefix(BOM)
    try:
        members = Members(body)
        members.check()
    except Malformed as why:
        return _lax_answer(body, str(why))
    response = Response(members, model, pricer)
    refuse_error({name: value(members[name]) for name in ("error", "status", "output") if name in members}, body)
    return Relayed(response.text, response.usage, "" if response.usage else _generated(value(members["output"])))


def _lax_answer(body: bytes, why: str) -> Relayed:
    """An answer that only a lax reader takes: it is metered and goes to the client as it is."""
    try:
        found = value(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotAnAnswer(f"its answer is not a JSON object: {why}")
    refuse_error(found, body)
    usage = read_usage(found.get("usage"))
    return Relayed(body, usage, "" if usage else _generated(found["output"]))


def refuse_error(found: dict[str, Any], body: bytes) -> None:
    """Raises `NotAnAnswer` for what is an error, or no response at all."""
    if found.get("error") or string(found.get("status")) in _FAILED:
        raise NotAnAnswer("an error in a 200", failure_of(found) if "output" in found else error_in(found))
    if not isinstance(found.get("output"), list):
        error = read_error(body)
        raise NotAnAnswer("its answer has no output", error if error.get("message") else None)


def said(output: Any) -> str:
    """What the model said, thought and called, run together."""
    text = StringIO()
    for item in objects(output):
        _write_item(text, item)
    return text.getvalue()


def _write_item(text: StringIO, item: dict[str, Any]) -> None:
    text.writelines(string(item.get(name)) for name in ("name", "arguments", "input", "code"))
    for part in objects(item.get("content")) + objects(item.get("summary")):
        text.writelines(string(part.get(name)) for name in ("text", "refusal", "transcript"))


def _generated(output: Any) -> str:
    text = StringIO()
    for item in objects(output):
        _write_whole(text, item)
    return text.getvalue()


def _write_whole(text: StringIO, item: dict[str, Any]) -> None:
    """All that its model has generated of it. Images are made, and billed, by models of their own."""
    before = text.tell()
    _write_item(text, item)
    if text.tell() - before == len(string(item.get("name"))):
        text.write(unknown({string(item.get("type")): item}))
    text.write(_thoughts_in(item, text.tell() - before))


def _thoughts_in(item: dict[str, Any], said: int) -> str:
    """Those that only the provider can read. A compaction is sealed too, but holds the conversation as well."""
    return sealed(item.get("encrypted_content"), said) if item.get("type") == "reasoning" else ""


class Response:
    """A response object with the catalog's model and the price in it. `text`: its JSON."""

    __slots__ = ("text", "usage")

    def __init__(self, members: Members, model: str, pricer: Pricer) -> None:
        values: dict[str, bytes] = {}
        if "model" in members:
            values["model"] = msgspec.json.encode(model)
        found = value(members["usage"]) if "usage" in members else None
        self.usage = read_usage(found)
        if self.usage is not None and isinstance(found, dict):
            try:
                values["usage"] = priced(members["usage"], found, pricer(self.usage))
            except Malformed:  # a name stands twice in it
                pass
        self.text = members.edit(values)


# --- a stream --------------------------------------------------------------------------------------------------------


class _Event(msgspec.Struct, gc=False):
    type: Any = ""
    sequence_number: Any = None
    delta: Any = None
    response: msgspec.Raw = msgspec.Raw()  # empty: there is none
    item: Any = None
    part: Any = None
    error: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None


_read_event = msgspec.json.Decoder(_Event).decode


def _takes_back(frame: Frame, found: _Event) -> bool:
    """An event that would call an answer failed."""
    kind = string(found.type) or frame.name.decode(errors="replace")
    return bool(found.error) or kind == "error" or kind.rpartition(".")[2] in _FAILED


class Relay:
    """A `base.Stream`. After an `error` event the API sends `response.failed` with the same error: the two go out

    together, and an `error` alone where the stream ends behind it.
    """

    __slots__ = (
        "_closed",
        "_done",
        "_held",
        "_item",
        "_last",
        "_model",
        "_opening",
        "_pricer",
        "_prompt",
        "_sequence",
        "_since",
        "_splitter",
        "_spoken",
        "_text",
        "_unfinished",
        "_whole",
        "begun",
        "broken",
        "error",
        "finished",
        "response",
        "usage",
    )

    def __init__(self, model: str, pricer: Pricer) -> None:
        self._model = model
        self._pricer = pricer
        self._splitter = Splitter()
        self._text = StringIO()
        self._unfinished = Unfinished()
        self._spoken: set[int | None] = set()  # items that come in deltas, by `output_index`
        self._item: int | None = None  # the last that has begun
        self._since = 0  # how long the text was then
        self._sequence = -1  # the last event's number
        self._last = b""  # the response object as it came last
        self._held: tuple[bytes, dict[str, Any]] | None = None  # an `error` event
        self._done = False  # `[DONE]`: some vendors send it here too
        self._closed = False
        self._whole = True  # what has been sent ends with an event's end
        self._opening = 0  # bytes of events before the answer has begun
        self.begun = False
        self.finished = False
        self._prompt: Usage | None = None  # the last count, perhaps of the prompt alone
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.broken = ""
        self.response = b""

    @property
    def over(self) -> bool:
        return self._done or self._closed or self.error is not None or bool(self.broken)

    @property
    def complete(self) -> bool:
        return self.finished and self.error is None and not self.broken

    @property
    def prompt_usage(self) -> Usage | None:
        return prompt_side(self._prompt)

    @property
    def said(self) -> int:
        return self._text.tell()

    def text(self) -> str:
        return self._text.getvalue()

    def feed(self, data: bytes) -> bytes:
        out: list[bytes] = []
        for frame in self._splitter.feed(data):
            out.append(self._frame(frame))
            if self.over:
                return b"".join(out)
        if self._splitter.too_large:
            self.broken = "an event is too large"
        return b"".join(out)

    def close(self) -> bytes:
        if self.over:
            return b""
        self._closed = True
        last = [(frame, self._frame(frame)) for frame in self._splitter.close()]
        out = [sent for frame, sent in last if frame.data or self.finished]
        if self._held is not None and self.error is None:
            out.append(self._release())
        sent = b"".join(out)
        self._whole = not sent or sent.endswith((b"\n\n", b"\r\n\r\n"))
        return sent

    def cut(self, usage: Usage) -> bytes:
        """The end of each item that is open, then `response.incomplete` with all the items."""
        if self.over or self.finished:
            self._closed = True
            return b""
        out = [] if self._last else [self._created()]
        out += [self._numbered(each) for each in self._unfinished.end(self.text())]
        counted = usage_value(usage, self._pricer)
        ended = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": counted}
        self.response = encode({**value(self._last), **ended, "output": self._unfinished.output})
        out.append(self._numbered({"type": "response.incomplete", "response": msgspec.Raw(self.response)}))
        self.usage = usage
        self._closed = self.finished = True
        return b"".join(out)

    def _created(self) -> bytes:
        """Where the provider has said nothing at all."""
        begun = {"id": "", "object": "response", "created_at": 0, "status": "in_progress", "model": self._model}
        self._last = encode({**begun, "output": []})
        return self._numbered({"type": "response.created", "response": msgspec.Raw(self._last)})

    def _numbered(self, said: dict[str, Any]) -> bytes:
        self._sequence += 1
        return event(said["type"], encode({"type": said["type"], "sequence_number": self._sequence, **said}))

    def fail(self, error: Error) -> bytes:
        """`error`, then `response.failed`, as the API ends its own; the first alone where no response has begun."""
        if self._held is not None and self.error is None:
            return self._release()
        self._sequence += 1
        out = error_frame(error_json(error), self._sequence)
        if self._last:
            out += failed_frame(self._last, error_json(error), self._sequence + 1)
        return out if self._whole else b"\n\n" + out

    def _release(self) -> bytes:
        assert self._held is not None
        held, self.error = self._held
        return held

    def _frame(self, frame: Frame) -> bytes:
        data = frame.data
        if not data:
            if not self._opening and frame.raw.lstrip()[:1] == b"{":
                self._read_plain(frame.raw)
            return frame.raw
        if data.startswith(b"[DONE]"):
            self._done = True
            return frame.raw
        try:
            found = _read_event(data)
        except UNREADABLE:
            try:
                found = _lenient(data)
            except ValueError:
                self.broken = "" if self.finished else "a malformed event"
                return b""
        if self.finished and _takes_back(frame, found):  # the answer is whole: nothing may say otherwise now
            return b""
        return self._event(frame, found)

    def _event(self, frame: Frame, found: _Event) -> bytes:
        kind = string(found.type) or frame.name.decode(errors="replace")
        self._sequence = found.sequence_number if type(found.sequence_number) is int else self._sequence + 1
        held = b""
        if self._held is not None:
            held = self._release()
            if kind != "response.failed":  # nothing but that follows an error
                return held
        if kind == "error" or found.error:
            self._opening += len(frame.raw)
            self._held = (frame.raw, error_in(value(frame.data)) or {"message": frame.data.decode(errors="replace")})
            return b""
        if not self.begun:
            self._look(kind, found, len(frame.raw))
        text = bytes(found.response)
        if kind in ENDS and not text.startswith(b"{"):
            self.broken = "a malformed event"
            return held
        if text:
            return held + self._with_response(frame, kind, text)
        if found.delta is not None:
            self._hear(kind, found)
        elif found.item is not None:
            self._listen(kind, found)
        elif kind in NOTED:
            self._unfinished.note(frame.data)
        return frame.raw

    def _look(self, kind: str, found: _Event, size: int) -> None:
        """For the answer's beginning. Of what is not Responses' own (`keepalive`, `codex.rate_limits`) only a delta."""
        self._opening += size
        if found.delta is not None:
            begins = has_words(found.delta)
        elif kind in _OPENINGS:
            begins = has_words(found.item) or has_words(found.part)
        else:
            begins = kind.startswith("response.") and kind.rpartition(".")[2] not in _FAILED
        self.begun = begins or self._opening > MOST_HELD

    def _hear(self, kind: str, found: _Event) -> None:
        if isinstance(found.delta, str) and kind != _SOUND:
            place = (found.output_index, kind, found.content_index, found.summary_index)
            if place != self._unfinished.place:
                self._unfinished.speak(place, self._text.tell())
                self._spoken.add(index_of(found.output_index))
            self._text.write(found.delta)
        elif kind not in _NOT_SAID:
            self._unfinished.speak(None, self._text.tell())
            self._text.write(unknown(found.delta))

    def _listen(self, kind: str, found: _Event) -> None:
        """The name of what is called; and all of an item that did not come in deltas."""
        item = found.item if isinstance(found.item, dict) else {}
        self._unfinished.item(kind, found.output_index, found.item, self._text.tell())
        if kind == ADDED:
            self._item, self._since = index_of(found.output_index), self._text.tell()
            self._spoken.discard(self._item)
            self._text.write(string(item.get("name")))
        elif kind == DONE:
            index = index_of(found.output_index)
            if (self._item if index is None else index) not in self._spoken:
                _write_whole(self._text, {**item, "name": ""})
            else:
                self._text.write(_thoughts_in(item, self._text.tell() - self._since))

    def _with_response(self, frame: Frame, kind: str, text: bytes) -> bytes:
        out = frame.raw
        try:
            response = Response(Members(text), self._model, self._pricer)
            out = frame.with_data(Members(frame.data).edit({"response": response.text}))
            text, usage = response.text, response.usage
        except Malformed:  # what is no object, has a name twice, or what `_lenient` lets pass
            found = value(text)
            if not isinstance(found, dict):
                return out
            usage = read_usage(found.get("usage"))
        self._last = text
        if kind in ENDS:
            self.finished = True
            self.response = text
        elif kind.rpartition(".")[2] in _FAILED and self.error is None:
            self.error = failure_of(value(text))
        if usage is not None:
            self._prompt = usage
            if usage.completion or self.finished:
                self.usage = usage
        return out

    def _read_plain(self, body: bytes) -> None:
        """No stream at all: some providers refuse a streamed request with a 200 and a plain JSON error."""
        error = read_error(body)
        if error.get("message"):
            self.error = error
        else:
            self.broken = "its answer is no stream"


def _lenient(data: bytes) -> _Event:
    """An event that only a lax reader takes: it goes to the client all the same. Raises `ValueError`."""
    found = value(data)
    if not isinstance(found, dict):
        return _Event()
    get = found.get
    read = _Event(get("type"), get("sequence_number"), get("delta"), item=get("item"), error=get("error"))
    read.part = get("part")
    read.output_index, read.content_index = get("output_index"), get("content_index")
    read.summary_index = get("summary_index")
    if isinstance(found.get("response"), dict):
        read.response = msgspec.Raw(json.dumps(found["response"]).encode())
    return read


def failed_frame(response: bytes, error: dict[str, Any], sequence: int) -> bytes:
    """`response.failed`: the response as it was last, with the error in it."""
    known = {"code": string(error.get("code")) or "server_error", "message": string(error.get("message"))}
    failed = {**value(response), "status": "failed", "error": known}
    whole = {"type": "response.failed", "sequence_number": sequence, "response": failed}
    return event("response.failed", encode(whole))
