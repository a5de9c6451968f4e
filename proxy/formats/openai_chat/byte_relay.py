"""OpenAI's chat completions passed on to a client of the same format: what of their bytes is edited, what is metered.

`ChatStream` relays a stream event by event and keeps what the meter needs from a copy; `edit_answer` does the same for
a plain answer. The permitted edits: `model` becomes the catalog's ID, `usage` gains the price, and a usage chunk that
the client did not ask for is held back. Called through `openai_chat`.
"""

import json
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import msgspec

from proxy.formats.base import MOST_HELD, Error, NotAnAnswer, Pricer, Relayed, prompt_side
from proxy.formats.canonical import Usage
from proxy.formats.lenient import BOM, UNREADABLE, count, encode, lax, objects, priced, value
from proxy.formats.openai_chat.wire import (
    DONE,
    FAILURES,
    as_error,
    error_chunks,
    error_event,
    failure_of,
    read_error,
    read_usage,
    write_usage,
)
from proxy.formats.splice import Malformed, Members
from proxy.formats.spoken import has_words, media, sealed, unknown
from proxy.formats.sse import Frame, Splitter


class _Choice(msgspec.Struct, gc=False):
    delta: dict[str, Any] | None = None
    message: dict[str, Any] | None = None
    finish_reason: Any = None
    error: Any = None
    index: int | None = 0


class _Chunk(msgspec.Struct, gc=False):
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode
_OF_EVERY_CHUNK = ("id", "object", "created", "model", "provider", "system_fingerprint")


class ChatStream:
    """A `base.Stream`: `feed` the provider's bytes, send what it returns, `close` at the end.

    `done`: `[DONE]` has passed. `finished`: a choice gave its reason to end.
    `error`: the provider's error object. `broken`: why no further byte can be trusted.
    """

    __slots__ = (
        "_counted",
        "_hold",
        "_last",
        "_model",
        "_model_json",
        "_new_prefix",
        "_old_prefix",
        "_open",
        "_opening",
        "_pricer",
        "_splitter",
        "_text",
        "begun",
        "broken",
        "closed",
        "done",
        "error",
        "finished",
    )

    def __init__(self, model: str, *, hold_usage: bool, pricer: Pricer) -> None:
        self._model = model
        self._model_json = msgspec.json.encode(model)
        self._hold = hold_usage
        self._pricer = pricer
        self._splitter = Splitter()
        self._old_prefix = self._new_prefix = b""
        self._text = StringIO()
        self._opening = 0  # bytes of events before the answer has begun
        self.begun = False
        self.done = False
        self.closed = False
        self.finished = False
        self._open: set[int] = set()  # choices that have begun and not ended
        self._counted: Usage | None = None
        self._last = b""  # the data of the last chunk that has choices
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

    @property
    def usage(self) -> Usage | None:
        """Some count with every chunk: the first of those knows the prompt alone."""
        counted = self._counted
        return counted if counted is not None and (counted.completion or self.complete) else None

    @property
    def prompt_usage(self) -> Usage | None:
        return prompt_side(self._counted)

    @property
    def said(self) -> int:
        return self._text.tell()

    def text(self) -> str:
        """What the model said, thought and called, run together: for counting where no usage came."""
        return self._text.getvalue()

    def feed(self, data: bytes, /) -> bytes:
        # As `Splitter.feed` does it first: nearly every piece is one whole event in its plainest form.
        if (
            not self._splitter.pieces
            and data.startswith(b"data: {")
            and data.find(b"\n") == len(data) - 2
            and data[-1] == 10
        ):
            return self._event(data, data[6:-2])
        frames = self._splitter.feed(data)
        if self._splitter.too_large:
            self.broken = "an event is too large"
        return self._frames(frames)

    def close(self) -> bytes:
        """What is left at the end of the provider's bytes: an event without its blank line still counts.

        Where the stream is not whole, an error follows: it must not go on in the same event, nor half a line stand.
        Where it is, some clients wait for `[DONE]`.
        """
        self.closed = True
        out = b""
        for frame in self._splitter.close():
            sent = self._frame(frame)
            out = sent if frame.data or self.complete else b""
        if out and not (self.done or out.endswith(b"\n\n")):
            out += b"\n\n"
        if self.complete and not self.done:
            self.done = True
            out += DONE
        return out

    def cut(self, usage: Usage, /) -> bytes:
        """A last chunk for each choice that has none, the usage where the client wants it, `[DONE]`."""
        if self.over:
            return b""
        found = value(self._last)
        known = found if isinstance(found, dict) else {"id": "", "object": "chat.completion.chunk", "created": 0}
        head = {**{name: known[name] for name in _OF_EVERY_CHUNK if name in known}, "model": self._model}
        chunks = [{**head, "choices": [choice]} for choice in self._ends()]
        out = b"".join([_chunk(chunk, b"" if self._hold else b"null") for chunk in chunks])
        if not self._hold:
            out += _chunk({**head, "choices": []}, write_usage(usage, self._pricer))
        self._counted = usage
        self.done = self.finished = True
        return out + DONE

    def _ends(self) -> list[dict[str, Any]]:
        if self.finished:
            return []
        end = {"logprobs": None, "finish_reason": "length"}
        if not self._open:  # nothing has been said at all
            return [{"index": 0, "delta": {"role": "assistant", "content": ""}, **end}]
        return [{"index": choice, "delta": {}, **end} for choice in sorted(self._open)]

    def fail(self, error: Error, /) -> bytes:
        return error_event(error)

    def _frames(self, frames: list[Frame]) -> bytes:
        out = []
        for frame in frames:
            out.append(self._frame(frame))
            if self.over:
                break
        return b"".join(out)

    def _frame(self, frame: Frame) -> bytes:
        """One event in any form."""
        raw, payload, lines = frame
        if not payload:
            if not self._opening and raw.lstrip()[:1] == b"{":
                self._read_plain(raw)
            return raw
        if payload.startswith(b"[DONE]"):
            self.done = True
            return raw
        if lines == 1:
            return self._event(raw, payload)
        single = frame.on_one_line()
        out = self._event(single, payload)
        return raw if out == single else out

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
        except UNREADABLE:
            found = _lenient(payload)
            if found is None:
                self.broken = "a malformed event"
                return b""
            chunk = found
        usage_only = False
        if not chunk.choices:
            usage_only = chunk.usage is not None
            if not usage_only and not chunk.error and (error := unusual_error(event, payload)):
                self.error = error
                return error_chunks(error)
        else:
            self._last = payload
        edited = self._note(chunk, payload)
        if usage_only and self._hold and self.error is None:
            return b""
        if not self.begun:
            self._look(chunk, len(event))
        if chunk.model is not None and chunk.model != self._model:
            edited = self._rename(edited)
        sent = event if edited is payload else event.replace(payload, edited, 1)
        # No client raises on what only a choice says.
        return sent if self.error is None or chunk.error else sent + error_chunks(self.error)

    def _look(self, chunk: _Chunk, size: int) -> None:
        """For the answer's beginning: a role alone is none."""
        self._opening += size
        self.begun = self._opening > MOST_HELD or any(
            choice.finish_reason or _has_content(choice.message if choice.delta is None else choice.delta)
            for choice in chunk.choices or ()
        )

    def _note(self, chunk: _Chunk, payload: bytes) -> bytes:
        """Keep what the meter needs; the payload comes back, with a price in its usage where it has one."""
        for choice in chunk.choices or ():
            if (said := choice.message if choice.delta is None else choice.delta) is not None:
                self._listen(said)
            if choice.finish_reason:
                self._end(choice)
            elif choice.index not in self._open:
                self._begin(choice)
        if chunk.error:
            self.error = as_error(chunk.error)
            self._counted = read_usage(chunk.usage) or self._counted
        elif chunk.usage is not None:
            usage = read_usage(chunk.usage)
            if usage is not None:
                self._counted = usage
                return self._price(payload, chunk.usage, usage)
        elif isinstance(chunk.x_groq, dict):
            self._counted = read_usage(chunk.x_groq.get("usage")) or self._counted
        return payload

    def _end(self, choice: _Choice) -> None:
        self._open.discard(choice.index)
        self.finished = not self._open
        self.error = self.error or failure_of(choice.finish_reason, choice.error)

    def _begin(self, choice: _Choice) -> None:
        """One of several choices is under way. A delta without content after a choice's end does not open it again."""
        said = choice.delta
        if choice.index is not None and (
            not self.finished or (said is not None and (said.get("content") or said.get("tool_calls")))
        ):
            self._open.add(choice.index)
            self.finished = False

    def _price(self, payload: bytes, found: dict[str, Any], usage: Usage) -> bytes:
        try:
            members = Members(payload)
            return members.edit({"usage": priced(members["usage"], found, self._pricer(usage))})
        except Malformed:  # a name stands twice, or what `_lenient` lets pass
            return payload

    def _listen(self, delta: dict[str, Any]) -> None:
        content = delta.get("content")
        if content and type(content) is str and (len(delta) == 1 or _is_plain(delta)):
            self._text.write(content)  # nearly every delta is that
        else:
            _write_said(self._text, delta)

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


def _chunk(found: dict[str, Any], usage: bytes) -> bytes:
    return b"data: %b\n\n" % encode({**found, "usage": msgspec.Raw(usage)} if usage else found)


def _lenient(payload: bytes) -> _Chunk | None:
    """A chunk with other types than OpenAI's, or that only a lax reader takes; it goes to the client all the same.

    Half surrogate pairs (an emoji cut in two) and NaN are in providers' streams, and Python's clients read them.
    """
    try:
        found = lax(payload)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return _Chunk()
    kept = {name: found.get(name) for name in ("model", "usage", "error", "x_groq")}
    chunk = _Chunk(**kept)
    choices = found.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict):
            delta = choice.get("message") if choice.get("delta") is None else choice["delta"]
            said = delta if isinstance(delta, dict) else {}
            chunk.choices = [
                *(chunk.choices or []),
                _Choice(said, None, choice.get("finish_reason"), choice.get("error"), count(choice.get("index"))),
            ]
    return chunk


def unusual_error(event: bytes, payload: bytes) -> dict[str, Any] | None:
    """An event without `choices`, `usage` and `error` that is an error: SGLang's and Mistral's `"object": "error"`."""
    found = value(payload)
    if not isinstance(found, dict):
        return None
    named = event.splitlines()
    if "error" in (found.get("object"), found.get("type")) or b"event: error" in named or b"event:error" in named:
        return read_error(payload) or {"message": payload.decode(errors="replace")}
    return None


# --- what was said ---------------------------------------------------------------------------------------------------


def _has_content(delta: dict[str, Any] | None) -> bool:
    """Some servers repeat the role as `name`."""
    return delta is not None and has_words({name: found for name, found in delta.items() if name != "name"})


def _is_plain(delta: dict[str, Any]) -> bool:
    """Content, and nothing else that would be generated."""
    return {name for name, found in delta.items() if found} <= _PLAIN


_PLAIN = frozenset({"content", "role"})


def _write_said(text: StringIO, said: dict[str, Any]) -> None:
    """All that the model has generated of a delta, or of a message. The same thoughts under two names are said once."""
    before, thought = text.tell(), False
    for name, found in said.items():
        if not found:
            pass
        elif name in _THOUGHTS:
            if type(found) is str and not thought:
                text.write(found)
                thought = True
        elif name in _WORDS and type(found) is str:
            text.write(found)
        elif name in _WRITERS:
            _WRITERS[name](text, found)
    if details := said.get("reasoning_details"):
        _write_details(text, details, thought=thought)
    if text.tell() == before:
        text.write(unknown(said))


_THOUGHTS = frozenset({"reasoning_content", "reasoning", "thinking"})
_WORDS = frozenset({"content", "refusal"})


def _write_details(text: StringIO, details: Any, *, thought: bool) -> None:
    """OpenRouter's. `thought`: what they say has been said."""
    for detail in objects(details):
        if not thought:
            write_strings(text, detail.get("text"), detail.get("summary"))
        text.write(sealed(detail.get("data") or detail.get("signature"), text.tell()))


def _write_content(text: StringIO, content: Any) -> None:
    """What is no text: Mistral's and others' parts, with images; Cloudflare's object that was asked for."""
    if isinstance(content, dict):
        text.write(encode(content).decode())
    for part in objects(content):
        if "image_url" in part:
            url = part["image_url"]
            text.write(media("image", url.get("url") if isinstance(url, dict) else url))
        else:
            write_strings(text, part.get("text"), part.get("thinking"))


def _write_call(text: StringIO, called: Any) -> None:
    if isinstance(called, dict):
        given = called.get("arguments") or called.get("input")
        whole = encode(given).decode() if isinstance(given, dict) else given  # some vendors do not send its text
        write_strings(text, called.get("name"), whole)


def _write_calls(text: StringIO, calls: Any) -> None:
    for call in objects(calls):
        _write_call(text, call.get("function") or call.get("custom"))


def _write_audio(text: StringIO, audio: Any) -> None:
    """How many tokens its data are, nobody says."""
    write_strings(text, audio.get("transcript") if isinstance(audio, dict) else None)


_WRITERS: dict[str, Callable[[StringIO, Any], None]] = {
    "audio": _write_audio,
    "content": _write_content,
    "function_call": _write_call,
    "images": _write_content,  # OpenRouter's
    "tool_calls": _write_calls,
}


def write_strings(text: StringIO, *values: Any) -> None:
    for found in values:
        if isinstance(found, str):
            text.write(found)
        elif isinstance(found, list):
            write_strings(text, *(part.get("text") for part in found if isinstance(part, dict)))


def edit_answer(body: bytes, model: str, pricer: Pricer, /) -> Relayed:
    """Read and edit a plain answer. Raises `NotAnAnswer`."""
    body = body.removeprefix(BOM)
    try:
        members = Members(body)
        members.check()
    except Malformed as error:
        return _lax_answer(body, str(error))
    if "error" in members or "choices" not in members:
        refuse_error(value(members.get("error", b"null")), "choices" in members, body)
    _refuse_given_up(members["choices"])
    found = value(members["usage"]) if "usage" in members else None
    usage = read_usage(found)
    values: dict[str, bytes] = {}
    if "model" in members:
        values["model"] = msgspec.json.encode(model)
    if usage is not None and found is not None:
        try:
            values["usage"] = priced(members["usage"], found, pricer(usage))
        except Malformed:  # a name stands twice in it
            pass
    return Relayed(members.edit(values), usage, _said(members["choices"]) if usage is None else "")


def _lax_answer(body: bytes, why: str) -> Relayed:
    """An answer that only a lax reader takes, for a NaN in it, say: it is metered and goes to the client as it is."""
    found = read_lax_answer(body, why)
    _refuse_given_up(encode(found["choices"]))
    usage = read_usage(found.get("usage"))
    return Relayed(body, usage, json.dumps(found["choices"], ensure_ascii=False) if usage is None else "")


def read_lax_answer(body: bytes, why: str) -> dict[str, Any]:
    """Raises `NotAnAnswer`."""
    try:
        found = lax(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotAnAnswer(f"its answer is not a JSON object: {why}")
    refuse_error(found.get("error"), "choices" in found, body)
    return found


def refuse_error(error: Any, answered: bool, body: bytes) -> None:
    if error:
        raise NotAnAnswer("an error in a 200", as_error(error))
    if not answered:
        said = read_error(body)
        raise NotAnAnswer("its answer has no choices", said if said.get("message") else None)


_GIVEN_UP = re.compile(rb'"finish_reason"\s*:\s*"(?:%b)"' % "|".join(FAILURES).encode())


def _refuse_given_up(choices: bytes) -> None:
    """Raises `NotAnAnswer` for half an answer. Nearly none is looked at twice."""
    if _GIVEN_UP.search(choices):
        for choice in objects(value(choices)):
            if error := failure_of(choice.get("finish_reason"), choice.get("error")):
                raise NotAnAnswer("the provider gave up", error)


def _said(choices: bytes) -> str:
    text = StringIO()
    try:
        for choice in msgspec.json.decode(choices, type=list[_Choice] | None) or ():
            if choice.message is not None:
                _write_said(text, choice.message)
    except UNREADABLE:
        return choices.decode(errors="replace")  # other types than OpenAI's: count it whole rather than not at all
    return text.getvalue()


def said_in_message(text: StringIO, message: dict[str, Any]) -> None:
    """What a message of a request holds beside its content."""
    _write_calls(text, message.get("tool_calls"))
    _write_call(text, message.get("function_call"))
