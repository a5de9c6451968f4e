"""Anthropic's Messages on their way to a client that speaks them too, byte for byte; and what both ways need of them.

The permitted edits: the model in `message_start` becomes the catalog's ID, and the usage in `message_delta` gains the
price. Here too: events, counted tokens and errors as the wire has them. Called by `anthropic_messages`.
Events: https://platform.claude.com/docs/en/build-with-claude/streaming. Errors: https://platform.claude.com/docs/en/api/errors
"""

import json
from io import StringIO
from typing import Any, TypeVar

import msgspec

from proxy.formats.base import MOST_HELD, Error, NotAnAnswer, Pricer, Relayed, prompt_side
from proxy.formats.canonical import Usage
from proxy.formats.lenient import UNREADABLE, count, lax, mended, priced, value
from proxy.formats.splice import Malformed, Members
from proxy.formats.spoken import has_words, sealed, unknown
from proxy.formats.sse import Frame, Splitter, event

NAME = "anthropic_messages"
_BOM = b"\xef\xbb\xbf"

# --- events ----------------------------------------------------------------------------------------------------------


class Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: dict[str, Any] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: dict[str, Any] | None = None
    container: dict[str, Any] | None = None


class Message(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    provider: str | None = None  # OpenRouter says who answers


class Sent(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str = ""
    index: int = 0
    delta: Delta | None = None
    content_block: dict[str, Any] | None = None
    message: Message | None = None
    usage: dict[str, Any] | None = None
    context_management: dict[str, Any] | None = None
    error: Any = None


_read = msgspec.json.Decoder(Sent).decode


def read_event(frame: Frame) -> Sent | None:
    """None where it is no JSON object. What has another type than Anthropic's is left out."""
    try:
        sent = _read(frame.data)
    except UNREADABLE:
        try:
            found = lax(frame.data)
        except ValueError:
            return None
        if not isinstance(found, dict):
            return None
        sent = _kept(found)
    if not sent.type:
        sent.type = "error" if sent.error else frame.name.decode("latin-1")
    return sent


def _kept(found: dict[str, Any]) -> Sent:
    sent = Sent(error=found.get("error"))
    for name, kind in _KINDS.items():
        if isinstance(found.get(name), kind):
            setattr(sent, name, mended(found[name]))
    sent.delta = _members(found.get("delta"), Delta)
    sent.message = _members(found.get("message"), Message)
    return sent


_KINDS: dict[str, type] = {
    "type": str,
    "index": int,
    "content_block": dict,
    "usage": dict,
    "context_management": dict,
}
_DICTS = frozenset({"citation", "container", "stop_details", "usage"})
_HALVES = frozenset({"partial_json", "text", "thinking"})
_Struct = TypeVar("_Struct", Delta, Message)


def _members(found: Any, kind: type[_Struct]) -> _Struct | None:
    """The deltas' texts stay halves where they are: the reader puts them together."""
    if not isinstance(found, dict):
        return None
    names = [name for name in kind.__struct_fields__ if isinstance(found.get(name), dict if name in _DICTS else str)]
    return kind(**{name: found[name] if name in _HALVES else mended(found[name]) for name in names})


# --- tokens ----------------------------------------------------------------------------------------------------------


def read_usage(found: Any) -> Usage | None:
    """Anthropic's `input_tokens` do not hold what was read from the cache or written to it: here they are added.

    None where nothing is counted. https://platform.claude.com/docs/en/build-with-claude/prompt-caching
    """
    if not isinstance(found, dict):
        return None
    cached, written = count(found.get("cache_read_input_tokens")), count(found.get("cache_creation_input_tokens"))
    if not written and isinstance(by_lifetime := found.get("cache_creation"), dict):
        written = sum(map(count, by_lifetime.values()))
    details = found.get("output_tokens_details")
    usage = Usage(
        prompt=count(found.get("input_tokens")) + cached + written,
        completion=count(found.get("output_tokens")),
        cached=cached,
        written=written,
        reasoning=count(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
    )
    return usage if usage.prompt or usage.completion else None


def billed(found: Any) -> Usage | None:
    """With what was used to compact the context and to ask an advisor, which only `iterations` count.

    https://platform.claude.com/docs/en/build-with-claude/compaction#understanding-usage,
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/advisor-tool#usage-and-billing
    """
    usage = read_usage(found)
    if usage is None or not isinstance(iterations := found.get("iterations"), list):
        return usage
    for iteration in iterations:
        if isinstance(iteration, dict) and iteration.get("type") in ("advisor_message", "compaction"):
            more = read_usage(iteration) or Usage()
            usage.prompt += more.prompt
            usage.completion += more.completion
            usage.cached += more.cached
            usage.written += more.written
            usage.reasoning += more.reasoning
    return usage


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Usage seen so far: counts are totals, so later ones stand; what is null or left out stands as it was."""
    said = {name: known for name, known in now.items() if known is not None}
    if not any(count(said.get(name)) for name in _INPUTS):  # some count the prompt at the start only, and 0 later
        said = {name: known for name, known in said.items() if name not in _INPUTS}
    return {**before, **said}


_INPUTS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation")


def usage_value(usage: Usage | None, pricer: Pricer | None = None) -> dict[str, Any]:
    counted = usage or Usage()
    found: dict[str, Any] = {
        "input_tokens": max(0, counted.prompt - counted.cached - counted.written),
        "cache_creation_input_tokens": counted.written,
        "cache_read_input_tokens": counted.cached,
        "output_tokens": counted.completion,
    }
    if counted.reasoning:
        found["output_tokens_details"] = {"thinking_tokens": counted.reasoning}
    if usage is not None and pricer is not None:
        found.update({name: msgspec.Raw(gain) for name, gain in pricer(usage).items()})
    return found


# --- errors ----------------------------------------------------------------------------------------------------------

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUSES = {name: status for status, name in TYPES.items()} | {"api_error": 500}
_CODES = {
    "authentication_error": "invalid_api_key",
    "billing_error": "insufficient_quota",
    "rate_limit_error": "rate_limit_exceeded",
    "request_too_large": "request_too_large",
}


def _error_value(error: Error) -> dict[str, Any]:
    kind = TYPES.get(error.status) or ("invalid_request_error" if 400 <= error.status < 500 else "api_error")
    message = error.message
    if error.param and error.param not in message:
        message = f"{error.param}: {message}"
    found = {"type": "error", "error": {"type": kind, "message": message}}
    return {**found, "request_id": error.request_id} if error.request_id else found


def error_body(error: Error) -> bytes:
    return msgspec.json.encode(_error_value(error))


def error_event(error: Error) -> bytes:
    return event("error", error_body(error))


def read_error(body: bytes) -> dict[str, Any]:
    """`{"type": "error", "error": {"type", "message"}}`, and what servers that speak Messages nearly send instead."""
    found = _one(value(body.removeprefix(_BOM)))
    if not isinstance(found, dict):
        return {}
    error = _one(found.get("error") or found.get("errors") or found)
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        return {}
    message = error.get("message") or error.get("detail") or found.get("message")
    if message is not None and not isinstance(message, str):
        message = json.dumps(message, ensure_ascii=False)
    if not message and error is found and found.get("type") != "error":
        return {}
    kind = error.get("type") if error.get("type") != "error" else None
    named = {"message": message, "type": kind, "param": error.get("param"), "code": error.get("code")}
    if named["code"] is None and isinstance(kind, str):
        named["code"] = _code(kind, message or "")
    if (status := _STATUSES.get(kind) if isinstance(kind, str) else None) is not None:
        named["status"] = status
    return {name: said for name, said in named.items() if said is not None}


def _code(kind: str, message: str) -> str | None:
    """OpenAI's word for it: its clients act on some."""
    if kind == "not_found_error" and message.startswith("model:"):
        return "model_not_found"
    if kind == "invalid_request_error" and message.startswith("prompt is too long"):
        return "context_length_exceeded"
    return _CODES.get(kind)


def _one(found: Any) -> Any:
    return found[0] if isinstance(found, list) and found else found


# --- the same format, plain ------------------------------------------------------------------------------------------


def refuse_other(found: Any, body: bytes) -> None:
    """Raises `NotAnAnswer` for a 200 that is no message."""
    if isinstance(found, dict) and isinstance(found.get("content"), list) and not found.get("error"):
        return
    error = read_error(body)
    if error.get("message"):
        raise NotAnAnswer("an error in a 200", error)
    if not isinstance(found, dict):
        raise NotAnAnswer("its answer is not a JSON object")
    raise NotAnAnswer("its answer has no content")


def edit_answer(body: bytes, model: str, pricer: Pricer) -> Relayed:
    body = body.removeprefix(_BOM)
    found = value(body)
    refuse_other(found, body)
    usage = billed(found.get("usage"))
    text = _said(found["content"]) if usage is None else ""
    try:
        members = Members(body)
        edits = {"model": msgspec.json.encode(model)} if "model" in members else {}
        if usage is not None:
            edits["usage"] = priced(members["usage"], found["usage"], pricer(usage))
        return Relayed(members.edit(edits), usage, text)
    except Malformed:  # a name stands twice, or only Python's reader takes it: it goes to the client as it is
        return Relayed(body, usage, text)


def _said(content: list[Any]) -> str:
    text = StringIO()
    for block in content:
        if isinstance(block, dict):
            _write_block(text, block)
            text.write(_input(block))
    return text.getvalue()


def _write_block(text: StringIO, block: dict[str, Any]) -> None:
    """What the model has generated of it, but for a call's input."""
    before = text.tell()
    _write_strings(text, block.get("name"), block.get("text"), block.get("thinking"))
    text.write(sealed(block.get("signature") or block.get("data"), text.tell() - before))
    if text.tell() == before and not block.get("input"):
        text.write(unknown({str(block.get("type")): block}))


def _input(block: dict[str, Any]) -> str:
    given = block.get("input")
    return json.dumps(given, ensure_ascii=False) if given and isinstance(given, dict) else ""


def _write_strings(text: StringIO, *found: Any) -> None:
    for each in found:
        if isinstance(each, str):
            text.write(each)


# --- the same format, streamed ---------------------------------------------------------------------------------------


class MessagesStream:
    """A `base.Stream`. It is over with `message_stop`, since clients wait for the end of the body; OpenRouter has a

    `[DONE]` behind that.
    """

    __slots__ = (
        "_closed",
        "_done",
        "_model",
        "_open",
        "_opening",
        "_pricer",
        "_ragged",
        "_splitter",
        "_started",
        "_text",
        "_trails",
        "_usage",
        "begun",
        "broken",
        "error",
        "finished",
        "usage",
    )

    def __init__(self, model: str, pricer: Pricer) -> None:
        self._model = model
        self._pricer = pricer
        self._splitter = Splitter()
        self._text = StringIO()
        self._started = False
        # Blocks that have begun and not ended: how long the text was then, and the input that came with the beginning.
        self._open: dict[int, tuple[int, str]] = {}
        self._usage: dict[str, Any] = {}
        self._done = False
        self._trails = False  # more comes behind `message_stop`
        self._closed = False
        self._ragged = False  # the last bytes are no whole event
        self._opening = 0  # bytes of events before the answer has begun
        self.begun = False
        self.finished = False
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None
        self.broken = ""

    @property
    def over(self) -> bool:
        ended = self._closed or (self._done and not self._trails)
        return ended or self.error is not None or bool(self.broken)

    @property
    def complete(self) -> bool:
        return self._done and self.error is None and not self.broken

    @property
    def prompt_usage(self) -> Usage | None:
        return prompt_side(billed(self._usage))

    @property
    def said(self) -> int:
        return self._text.tell()

    def text(self) -> str:
        said: str = mended(self._text.getvalue())
        return said

    def feed(self, data: bytes) -> bytes:
        out = self._pass(self._splitter.feed(data))
        if self._splitter.too_large:
            self.broken = "an event is too large"
        return out

    def close(self) -> bytes:
        """What is left is an event without its blank line, or the beginning of one, which nobody could read."""
        frames = self._splitter.close()
        out = self._pass(frames)
        self._closed = True
        if not self._done and not any(frame.data for frame in frames):
            return b""
        self._ragged = bool(out)
        return out

    def cut(self, usage: Usage) -> bytes:
        """The end of each block that is open, why the message ends, `message_stop`."""
        if self.over or self._done:
            self._closed = True
            return b""
        out = b"" if self._started else _opening(self._model, usage)
        out += b"".join([_event({"type": "content_block_stop", "index": index}) for index in sorted(self._open)])
        if not self.finished:
            why = {"stop_reason": "max_tokens", "stop_sequence": None}
            out += _event({"type": "message_delta", "delta": why, "usage": usage_value(usage, self._pricer)})
        self.usage = usage
        self._done = self._closed = self.finished = True
        return out + _event({"type": "message_stop"})

    def fail(self, error: Error) -> bytes:
        return b"\n\n" * self._ragged + error_event(error)

    def _pass(self, frames: list[Frame]) -> bytes:
        out = []
        for frame in frames:
            if self.over:
                break
            if self._done:
                self._trails = not frame.data.startswith(b"[DONE]")
                out.append(frame.raw)
            else:
                out.append(self._frame(frame))
        return b"".join(out)

    def _frame(self, frame: Frame) -> bytes:
        if not frame.data:
            if not self._opening and frame.raw.lstrip()[:1] == b"{":
                self._plain(frame.raw)
            return frame.raw
        sent = read_event(frame)
        if sent is None:
            if not frame.data.startswith(b"[DONE]"):
                self.broken = "a malformed event"
                return b""
            return frame.raw
        return self._note(sent, frame)

    def _plain(self, body: bytes) -> None:
        """No stream at all: some servers refuse a streamed request with a 200 and a plain JSON error."""
        error = read_error(body)
        if error.get("message"):
            self.error = error
        else:
            self.broken = "its answer is no stream"

    def _note(self, sent: Sent, frame: Frame) -> bytes:
        """Keep what the meter needs; the event comes back, edited where it must be."""
        self.begun = self.begun or self._begins(sent, frame)
        match sent.type:
            case "content_block_delta":
                self._listen(sent.index, sent.delta or Delta(), frame)
            case "message_start":
                return self._start(sent, frame)
            case "message_delta":
                return self._end(sent, frame)
            case "message_stop":
                self._done = self.finished = True
                self.usage = billed(self._usage)
            case "content_block_stop":
                began, given = self._open.pop(sent.index, (0, ""))
                if self._text.tell() == began:  # it has not come in deltas
                    self._text.write(given)
            case "error":
                return self._give_up(frame)
            case "content_block_start" if sent.content_block is not None:
                _write_block(self._text, sent.content_block)
                self._open[sent.index] = (self._text.tell(), _input(sent.content_block))
        return frame.raw

    def _give_up(self, frame: Frame) -> bytes:
        """The SDKs pass over events without a name."""
        self.error = read_error(frame.data) or {"message": frame.data.decode(errors="replace")}
        return frame.raw if frame.name == b"error" else event("error", frame.data)

    def _begins(self, sent: Sent, frame: Frame) -> bool:
        """Whether this is of the answer itself: an empty block that starts is not."""
        self._opening += len(frame.raw)
        match sent.type:
            case "content_block_start":
                found = has_words(sent.content_block)
            case "content_block_delta":
                found = has_words((value(frame.data) or {}).get("delta"))
            case _:
                found = sent.type == "message_delta" and sent.delta is not None and sent.delta.stop_reason is not None
        return found or self._opening > MOST_HELD

    def _listen(self, index: int, said: Delta, frame: Frame) -> None:
        if words := said.text or said.partial_json or said.thinking:
            self._text.write(words)
        elif said.signature is not None:  # where thoughts are not shown, there is nothing but that
            began, _ = self._open.get(index, (0, ""))
            self._text.write(sealed(said.signature, self._text.tell() - began))
        elif said.type not in _KNOWN:
            self._text.write(unknown((value(frame.data) or {}).get("delta")))

    def _start(self, sent: Sent, frame: Frame) -> bytes:
        self._started = True
        if sent.message is None:
            return frame.raw
        self._trails = sent.message.provider is not None
        self._count(sent.message.usage)
        if sent.message.model is None:
            return frame.raw
        try:
            members = Members(frame.data)
            message = Members(members["message"]).edit({"model": msgspec.json.encode(self._model)})
            return frame.with_data(members.edit({"message": message}))
        except Malformed:  # a name stands twice
            return frame.raw

    def _end(self, sent: Sent, frame: Frame) -> bytes:
        if sent.delta is not None and sent.delta.stop_reason is not None:
            self.finished = True
        self._count(sent.usage)
        if sent.usage is not None or self.finished:
            self.usage = billed(self._usage)
        if sent.usage is None or self.usage is None:
            return frame.raw
        try:
            members = Members(frame.data)
            usage = priced(members["usage"], sent.usage, self._pricer(self.usage))
            return frame.with_data(members.edit({"usage": usage}))
        except Malformed:
            return frame.raw

    def _count(self, found: dict[str, Any] | None) -> None:
        if found is not None:
            self._usage = merged(self._usage, found)


_KNOWN = frozenset({"citations_delta", "input_json_delta", "text_delta", "thinking_delta"})


def _event(said: dict[str, Any]) -> bytes:
    return event(said["type"], msgspec.json.encode(said))


def _opening(model: str, usage: Usage) -> bytes:
    """Where the provider has said nothing at all."""
    counted = {**usage_value(usage), "output_tokens": 0}
    message = {"id": "", "type": "message", "role": "assistant", "model": model, "content": [], "usage": counted}
    return _event({"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}})
