"""Answers of a provider of OpenAI's chat API, plain and streamed, read into the canonical form.

Every vendor's spellings: https://platform.openai.com/docs/api-reference/chat/object and `/streaming`, and beside them
reasoning under three names, content in parts (Mistral), whole tool calls in one chunk, calls without an index, IDs that
are repeated or missing, images (OpenRouter), search results (Perplexity). Called through `openai_chat`.
"""

from typing import Any

import msgspec

from proxy.formats.base import NotAnAnswer
from proxy.formats.canonical import (
    STOP_SEQUENCE,
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
)
from proxy.formats.data_url import read_url
from proxy.formats.lenient import BOM, UNREADABLE, Halves, count, encode, lax, mended, objects, tokens, value
from proxy.formats.openai_chat.byte_relay import read_lax_answer, refuse_error, unusual_error
from proxy.formats.openai_chat.request_reader import (
    call_signature,
    read_citation,
    read_detail,
    thinking_text,
)
from proxy.formats.openai_chat.wire import NAME, as_error, failure_of, read_error, read_reason, read_usage
from proxy.formats.sse import Frame, Splitter

_MOST_CHOICES = 1000  # OpenAI's own limit is 128; a greater index is none


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    tool_calls: Any = None
    refusal: Any = None
    function_call: Any = None
    audio: Any = None
    images: Any = None
    annotations: Any = None
    executed_tools: Any = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: Any = None
    index: int | None = 0
    logprobs: Any = None
    error: Any = None
    native_finish_reason: Any = None
    stop_reason: Any = None
    matched_stop: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: Any = None
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    citations: Any = None
    search_results: Any = None
    service_tier: Any = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode


def _loose(payload: bytes, halves: Halves) -> _Chunk | None:
    """What only a lax reader takes, or has other types than OpenAI's: what can be read of it."""
    try:
        found = lax(payload)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return _Chunk()
    for choice in objects(found.get("choices")):
        if isinstance(choice.get("delta"), dict):
            _join(choice["delta"], str(choice.get("index")), halves)
    return _chunk_of(mended(found))


def _join(delta: dict[str, Any], choice: str, halves: Halves) -> None:
    """Characters that one chunk begins and another ends."""
    for name in ("content", "reasoning_content", "reasoning", "refusal"):
        if isinstance(delta.get(name), str):
            delta[name] = halves.join(delta[name], (choice, name))
    for call in objects(delta.get("tool_calls")):
        inner = call.get("function")
        if isinstance(inner, dict) and isinstance(inner.get("arguments"), str):
            inner["arguments"] = halves.join(inner["arguments"], (choice, "tool_calls", str(call.get("index"))))


def _chunk_of(found: dict[str, Any]) -> _Chunk:
    chunk = _Chunk(**{name: found.get(name) for name in _Chunk.__struct_fields__ if name != "choices"})
    choices = found.get("choices")
    if isinstance(choices, list):
        chunk.choices = [_choice_of(choice) for choice in choices if isinstance(choice, dict)]
    return chunk


def _choice_of(found: dict[str, Any]) -> _Choice:
    choice = _Choice(**{name: found.get(name) for name in _PLAIN_OF_CHOICE})
    choice.index = count(found.get("index"))
    choice.delta, choice.message = _delta_of(found.get("delta")), _delta_of(found.get("message"))
    return choice


_PLAIN_OF_CHOICE = [name for name in _Choice.__struct_fields__ if name not in ("delta", "message", "index")]


def _delta_of(found: Any) -> _Delta | None:
    if not isinstance(found, dict):
        return None
    return _Delta(**{name: found.get(name) for name in _Delta.__struct_fields__})


# --- plain -----------------------------------------------------------------------------------------------------------


def read_answer(body: bytes, seed: str, /) -> Answer:
    """Raises `NotAnAnswer`. The choices are read as a stream's single chunk would be."""
    chunk = _whole(body.removeprefix(BOM))
    answer = Answer([], _text(chunk.id), _text(chunk.model), _usage(chunk), _text(chunk.service_tier))
    ids = _Ids(seed)
    for choice in chunk.choices or ():
        if (error := failure_of(choice.finish_reason, choice.error)) is not None:
            raise NotAnAnswer("the provider gave up", error)
        answer.choices.append(_plain_choice(choice, chunk, ids))
    if not answer.choices:
        raise NotAnAnswer("its answer has no choices")
    return answer


def _whole(body: bytes) -> _Chunk:
    try:
        chunk = _read_chunk(body)
    except UNREADABLE as error:
        return _chunk_of(mended(read_lax_answer(body, str(error))))
    if chunk.error or not chunk.choices:
        refuse_error(chunk.error, bool(chunk.choices), body)
    return chunk


def _plain_choice(choice: _Choice, chunk: _Chunk, ids: "_Ids") -> Choice:
    state = _State(0, ids, whole=True)
    state.take(choice.message or choice.delta or _Delta(), None)
    state.search(chunk)
    parts = state.collect()
    reason, raw, sequence = _reason(choice, called=state.called)
    return Choice(parts, reason, raw, sequence, _tokens(choice.logprobs))


def _tokens(logprobs: Any) -> list[dict[str, Any]] | None:
    return tokens(logprobs.get("content")) or None if isinstance(logprobs, dict) else None


def _reason(choice: _Choice, *, called: bool) -> tuple[str, str, str]:
    """Reason, the provider's word, and the stop sequence that vLLM and SGLang name."""
    word, native = choice.finish_reason, choice.native_finish_reason
    reason = read_reason(word, native, called=called)
    raw = _text(word)
    if reason != read_reason(word, None, called=called):
        raw = _text(native)
    for found in (choice.stop_reason, choice.matched_stop):
        if reason == "stop" and isinstance(found, str) and found and found != raw:
            return STOP_SEQUENCE, raw, found
    return reason, raw, ""


def _text(found: Any) -> str:
    return found if isinstance(found, str) else ""


def _usage(chunk: _Chunk) -> Usage | None:
    if chunk.usage is not None:
        return read_usage(chunk.usage)
    return read_usage(chunk.x_groq.get("usage")) if isinstance(chunk.x_groq, dict) else None


# --- one choice ------------------------------------------------------------------------------------------------------


class _Ids:
    """IDs of calls that have none: unique over the conversation, as `seed` is."""

    __slots__ = ("_number", "_seed")

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._number = 0

    def next(self) -> str:
        self._number += 1
        return f"call_{self._seed}_{self._number - 1}"


class _Call:
    """A tool call under way. `given`: its ID is the provider's. `pieces`: its arguments, which wait for its name."""

    __slots__ = ("call_id", "custom", "given", "key", "pieces", "place")

    def __init__(self, key: int | None, call_id: str, *, custom: bool, given: bool) -> None:
        self.key = key
        self.call_id = call_id
        self.custom = custom
        self.given = given
        self.place: int | None = None
        self.pieces: list[str] = []

    def is_another(self, found: dict[str, Any]) -> bool:
        """`found` has this call's index and a name, but is a call of its own: some vendors say 0 for all of them."""
        call_id = found.get("id")
        if call_id or self.given:
            return bool(call_id) and call_id != self.call_id
        return self.place is not None and value("".join(self.pieces).encode(errors="replace")) is not None


class _State:
    """One choice under way: chat's deltas → parts. Text, thoughts and refusals follow one another; calls stay open.

    `linear`: the open one of the former. `out`: events not yet handed on. `whole`: calls do not come in pieces.
    """

    __slots__ = (
        "_audio",
        "_before",
        "_calls",
        "_choice",
        "_cited",
        "_ids",
        "_next",
        "_said",
        "_signature",
        "_thought",
        "_whole",
        "called",
        "finish",
        "linear",
        "out",
        "text_place",
    )

    def __init__(self, choice: int, ids: _Ids, *, whole: bool = False) -> None:
        self._choice = choice
        self._ids = ids
        self._whole = whole
        self._next = 0
        self._said = 0  # characters of text
        self._before = 0  # of them, before the text that is open
        self._cited = False
        self._calls: list[_Call] = []
        self._audio: int | None = None
        self._thought: tuple[Any, Any] | None = None  # the open detail's type and index
        self._signature = ("", "")
        self.linear: tuple[type[Part], int] | None = None
        self.text_place = -1  # the open text's index
        self.out: list[Event] = []
        self.called = False
        self.finish: _Choice | None = None

    def take(self, delta: _Delta, logprobs: Any) -> None:
        if delta.reasoning_details or delta.reasoning_content or delta.reasoning:
            self._think(delta)
        if delta.content or (logprobs is not None and delta.content is not None):
            self._content(delta.content, logprobs)
        if delta.refusal and isinstance(delta.refusal, str):
            self._say(Refusal, delta.refusal)
        if delta.audio or delta.images or delta.annotations or delta.executed_tools:
            self._extras(delta)
        if delta.tool_calls and isinstance(delta.tool_calls, list):
            for call in delta.tool_calls:
                if isinstance(call, dict):
                    self._call(call)
        if delta.function_call and isinstance(delta.function_call, dict):
            self._call({"index": -1, "function": delta.function_call})

    def more(self, text: str) -> list[Event]:
        """More of the open text, and nothing else: nearly every chunk is that."""
        self._said += len(text)
        return [PartDelta(self.text_place, text, self._choice)]

    def end(self) -> list[Event]:
        """Everything that is open ends."""
        self._close()
        for call in self._calls:
            self._begin(call, "")
            assert call.place is not None
            self.out.append(PartEnd(call.place, self._choice))
        if self._audio is not None:
            self.out.append(PartEnd(self._audio, self._choice))
        self._calls, self._audio = [], None
        out, self.out = self.out, []
        return out

    def collect(self) -> list[Part]:
        """The parts of a plain answer."""
        parts: list[Part] = []
        texts: dict[int, list[str]] = {}
        for event in self.end():
            match event:
                case PartStart():
                    parts.append(event.part)
                    texts[event.index] = []
                case PartDelta():
                    texts[event.index].append(event.text)
                    _add(parts[event.index], event)
                case PartEnd() if event.signature:
                    parts[event.index].signature, parts[event.index].origin = event.signature, event.origin
        for place, pieces in texts.items():
            _fill(parts[place], "".join(pieces))
        return parts

    # --- text, thoughts, refusals ------------------------------------------------------------------------------------

    def _content(self, found: Any, logprobs: Any) -> None:
        if isinstance(found, str):
            self._say(Text, found, logprobs)
        elif isinstance(found, list):
            for part in found:
                if isinstance(part, dict):
                    self._content_part(part)
        elif isinstance(found, dict):  # Cloudflare: the object that was asked for, not its text
            self._say(Text, encode(found).decode())

    def _content_part(self, part: dict[str, Any]) -> None:
        if part.get("type") == "thinking":
            if said := thinking_text(part):
                self._say(Thinking, said)
        elif part.get("type") in ("image_url", "image"):
            self._image(part)
        elif isinstance(part.get("text"), str) and part["text"]:
            self._say(Text, part["text"])

    def _say(self, kind: type[Text] | type[Refusal] | type[Thinking], text: str, logprobs: Any = None) -> None:
        probable = None if logprobs is None else _tokens(logprobs)
        if not text and not probable:
            return
        if self.linear is None or self.linear[0] is not kind:
            self._open(kind("") if kind is not Thinking else Thinking())
        assert self.linear is not None
        self.out.append(PartDelta(self.linear[1], text, self._choice, logprobs=probable))
        if kind is Text:
            self._said += len(text)

    def _open(self, part: Part) -> None:
        self._close()
        self.linear = (type(part), self._next)
        if isinstance(part, Text):
            self.text_place, self._before = self._next, self._said
        self._start(part)

    def _start(self, part: Part) -> int:
        self._next += 1
        self.out.append(PartStart(self._next - 1, part, self._choice))
        return self._next - 1

    def _close(self) -> None:
        if self.linear is not None:
            signature, origin = self._signature
            self.out.append(PartEnd(self.linear[1], self._choice, signature, origin))
        self.linear, self._thought, self._signature, self.text_place = None, None, ("", ""), -1

    def _think(self, delta: _Delta) -> None:
        """`reasoning` repeats what the details say, where they say anything."""
        said = False
        if isinstance(delta.reasoning_details, list):
            for detail in delta.reasoning_details:
                if isinstance(detail, dict):
                    said = self._detail(detail) or said
        if not said:
            for text in (delta.reasoning_content, delta.reasoning):
                if isinstance(text, str) and text:
                    self._say(Thinking, text)
                    return

    def _detail(self, detail: dict[str, Any]) -> bool:
        """Details of one type and index are one thought; an encrypted one is the signature of the summary before it."""
        part = read_detail(detail)
        kind = (detail.get("type"), detail.get("index"))
        thinking = self.linear is not None and self.linear[0] is Thinking
        if part.redacted:
            if thinking and self._thought is not None and self._thought[0] == "reasoning.summary":
                self._signature = (part.signature, part.origin)
                self._close()
            elif part.signature:
                self._open(part)
                self._close()
            return False
        if not part.text and not part.signature:
            return False
        if not thinking or (self._thought is not None and self._thought != kind):
            self._open(Thinking(summary=part.summary, id=part.id))
        self._thought = kind
        if part.text:
            self._say(Thinking, part.text)
        if part.signature:
            self._signature = (part.signature, part.origin)
        return bool(part.text)

    # --- tool calls --------------------------------------------------------------------------------------------------

    def _call(self, found: dict[str, Any]) -> None:
        custom = isinstance(found.get("custom"), dict) and bool(found["custom"].get("name"))
        call = None if self._whole else self._known(found)
        inner = found.get("custom") if custom or (call is not None and call.custom) else found.get("function")
        if not isinstance(inner, dict):
            return
        name = _text(inner.get("name"))
        said = _arguments(inner.get("input" if "input" in inner and "arguments" not in inner else "arguments"))
        if call is None:
            if not name and not said and not found.get("id"):
                return
            call = self._new_call(found, custom=custom)
        call.pieces.append(said)
        if call.place is not None and said:
            self.out.append(PartDelta(call.place, said, self._choice))
        elif call.place is None and name:
            self._begin(call, name, *call_signature(found))

    def _known(self, found: dict[str, Any]) -> _Call | None:
        """The call that this is more of. Some vendors repeat ID and name, some leave the index out or always say 0."""
        call_id, index = _text(found.get("id")), found.get("index")
        if type(index) is int:
            last = next((call for call in reversed(self._calls) if call.key == index), None)
            return None if last is not None and _names(found) and last.is_another(found) else last
        if call_id:
            return next((call for call in self._calls if call.call_id == call_id), None)
        last = self._calls[-1] if self._calls else None
        return last if last is not None and (last.place is None or not _names(found)) else None

    def _new_call(self, found: dict[str, Any], *, custom: bool) -> _Call:
        self.called = True
        index = found.get("index")
        call_id = _text(found.get("id"))
        key = index if type(index) is int else None
        call = _Call(key, call_id or self._ids.next(), custom=custom, given=bool(call_id))
        self._calls.append(call)
        return call

    def _begin(self, call: _Call, name: str, signature: str = "", origin: str = "") -> None:
        if call.place is not None:
            return
        self._close()
        part = ToolCall(call.call_id, name, custom=call.custom, signature=signature, origin=origin)
        call.place = self._start(part)
        if waiting := "".join(call.pieces):
            self.out.append(PartDelta(call.place, waiting, self._choice))

    # --- what else there may be --------------------------------------------------------------------------------------

    def _extras(self, delta: _Delta) -> None:
        if isinstance(delta.audio, dict):
            self._hear(delta.audio)
        for image in delta.images if isinstance(delta.images, list) else ():
            if isinstance(image, dict):
                self._image(image)
        for found in delta.annotations if isinstance(delta.annotations, list) else ():
            if isinstance(found, dict):
                self._cite(read_citation(found, self._before if self.text_place >= 0 else None))
        for tool in delta.executed_tools if isinstance(delta.executed_tools, list) else ():
            if isinstance(tool, dict):  # Groq's own tools
                self.out.append(PartEnd(self._start(Opaque("executed_tools", tool, origin=NAME)), self._choice))

    def _hear(self, found: dict[str, Any]) -> None:
        data, said = _text(found.get("data")), _text(found.get("transcript"))
        if not (data or said or found.get("id")):
            return
        if self._audio is None:
            self._close()
            self._audio = self._start(Media("audio", id=_text(found.get("id")), origin=NAME))
        if data or said:
            self.out.append(PartDelta(self._audio, data, self._choice, transcript=said))

    def _image(self, found: dict[str, Any]) -> None:
        inner = found.get("image_url")
        url = inner.get("url") if isinstance(inner, dict) else inner
        if isinstance(url, str) and url:
            self._close()
            self.out.append(PartEnd(self._start(read_url("image", url)), self._choice))

    def _cite(self, citation: Citation) -> None:
        self._cited = True
        if self.text_place < 0:
            self._open(Text(""))
        self.out.append(PartDelta(self.text_place, "", self._choice, citation=citation))

    def search(self, chunk: _Chunk) -> None:
        """Perplexity's results, which it gives beside the choices: https://docs.perplexity.ai/api-reference.

        OpenRouter gives them so too, beside annotations that say more.
        """
        if self._cited:
            return
        results = chunk.search_results if isinstance(chunk.search_results, list) else []
        found = [
            Citation(_text(each.get("url")), _text(each.get("title"))) for each in results if isinstance(each, dict)
        ]
        if not found and isinstance(chunk.citations, list):
            found = [Citation(url) for url in chunk.citations if isinstance(url, str)]
        for citation in found:
            if citation.url:
                self._cite(citation)


def _names(call: dict[str, Any]) -> bool:
    return any(isinstance(inner := call.get(kind), dict) and inner.get("name") for kind in ("function", "custom"))


def _arguments(found: Any) -> str:
    if isinstance(found, dict):
        return encode(found).decode()
    return _text(found)


def _add(part: Part, delta: PartDelta) -> None:
    if isinstance(part, Text) and delta.citation is not None:
        part.citations.append(delta.citation)
    if isinstance(part, Media):
        part.transcript += delta.transcript


def _fill(part: Part, text: str) -> None:
    match part:
        case Text() | Refusal() | Thinking():
            part.text += text
        case ToolCall():
            part.arguments += text
        case Media() if text:
            part.data = text


# --- streamed --------------------------------------------------------------------------------------------------------


class ChatReader:
    """A provider's stream → events. A choice's parts end, and it with them, at the stream's own end: some vendors say

    more after its reason to end.
    """

    __slots__ = (
        "_failed",
        "_halves",
        "_ids",
        "_last",
        "_only",
        "_splitter",
        "_started",
        "_states",
        "_usage",
        "broken",
        "complete",
        "finished",
    )

    def __init__(self, seed: str) -> None:
        self._splitter = Splitter()
        self._halves = Halves()
        self._ids = _Ids(seed)
        self._states: dict[int, _State] = {}
        self._only: _State | None = None  # of choice 0, while it is the only one
        self._started = False
        self._failed = False  # the provider said so
        self._last = _Chunk()  # the last that held Perplexity's results
        self._usage: UsageSeen | None = None
        self.broken = ""
        self.complete = False
        self.finished = False

    def feed(self, data: bytes, /) -> list[Event]:
        if (
            not self._splitter.pieces
            and data.startswith(b"data: {")
            and data.find(b"\n") == len(data) - 2
            and data[-1] == 10
        ):
            return self._payload(data, data[6:-2])
        out: list[Event] = []
        for frame in self._splitter.feed(data):
            out += self._frame(frame)
            if self._over:
                return out
        if self._splitter.too_large:
            self.broken = "an event is too large"
        return out

    def close(self) -> list[Event]:
        out: list[Event] = []
        for frame in self._splitter.close():
            out += self._frame(frame)
        if self.finished and not self._over:
            out += self._end()
        return out

    @property
    def _over(self) -> bool:
        return self.complete or self._failed or bool(self.broken)

    def _frame(self, frame: Frame) -> list[Event]:
        if self._over:
            return []
        if frame.data.startswith(b"[DONE]"):
            return self._end()
        if frame.data:
            return self._payload(frame.raw, frame.data)
        if not self._started and frame.raw.lstrip()[:1] == b"{":
            error = read_error(frame.raw)
            return self._fail(error) if error.get("message") else self._break("its answer is no stream")
        return []

    def _fail(self, error: dict[str, Any]) -> list[Event]:
        self._failed, self.finished = True, False
        return [Failure(error)]

    def _break(self, why: str) -> list[Event]:
        self.broken, self.finished = why, False
        return []

    def _payload(self, event: bytes, payload: bytes) -> list[Event]:
        if self._over:
            return []
        try:
            chunk = _read_chunk(payload)
        except UNREADABLE:
            loose = _loose(payload, self._halves)
            if loose is None:
                return self._break("a malformed event")
            chunk = loose
        if chunk.error:
            return self._fail(as_error(chunk.error))
        choices = chunk.choices
        if choices is None or len(choices) != 1 or chunk.usage is not None or not self._started:
            return self._chunk(chunk, event, payload)
        if chunk.x_groq is not None or chunk.search_results is not None or chunk.citations is not None:
            return self._chunk(chunk, event, payload)
        return self._choice(choices[0])

    def _chunk(self, chunk: _Chunk, event: bytes, payload: bytes) -> list[Event]:
        """Any chunk but the plainest."""
        if not chunk.choices and chunk.usage is None and (error := unusual_error(event, payload)):
            return self._fail(error)
        out: list[Event] = []
        if not self._started and (chunk.choices or chunk.usage is not None):
            self._started = True
            out.append(Start(_text(chunk.id), _text(chunk.model)))
        for choice in chunk.choices or ():
            out += self._choice(choice)
            if self._over:
                return out
        if chunk.search_results or chunk.citations:
            self._last = chunk
        usage = _usage(chunk)
        if usage is not None:
            seen = UsageSeen(usage, early=not (usage.completion or self.finished))
            if seen != self._usage:
                self._usage = seen
                out.append(seen)
        return out

    def _choice(self, choice: _Choice) -> list[Event]:
        number = choice.index or 0
        if not 0 <= number < _MOST_CHOICES:
            number = 0
        state = self._only if not number and self._only is not None else self._state(number)
        delta = choice.delta or choice.message
        if delta is not None:
            content = delta.content
            if (
                content.__class__ is str
                and content
                and state.text_place >= 0
                and choice.logprobs is None
                and choice.finish_reason is None
                and choice.error is None
                and delta.tool_calls is None
                and delta.reasoning_content is None
                and delta.reasoning is None
                and delta.reasoning_details is None
                and delta.annotations is None
                and delta.images is None
            ):
                return state.more(content)
            state.take(delta, choice.logprobs)
        if choice.finish_reason or choice.error:
            if (error := failure_of(choice.finish_reason, choice.error)) is not None:
                out, state.out = state.out, []
                return out + self._fail(error)
            state.finish = choice
            self.finished = all(other.finish is not None for other in self._states.values())
        elif state.out and state.finish is None:
            self.finished = False
        out, state.out = state.out, []
        return out

    def _state(self, number: int) -> _State:
        state = self._states.get(number)
        if state is None:
            state = self._states[number] = _State(number, self._ids)
            self.finished = False
            if not number:
                self._only = state
        return state

    def reasons(self) -> list[Finish]:
        return [_finish(number, state) for number, state in self._states.items() if state.finish is not None]

    def _end(self) -> list[Event]:
        """The format's own end, or the end of the bytes once every choice has its reason to end."""
        if not self._started:
            return self._break("its answer holds no events")
        out: list[Event] = []
        for number, state in self._states.items():
            if not number:
                state.search(self._last)
            out += state.end()
            out.append(_finish(number, state))
        self.complete = self.finished = True
        out.append(End())
        return out


def _finish(number: int, state: _State) -> Finish:
    return Finish(*_reason(state.finish or _Choice(), called=state.called), number)


def reader(seed: str, /) -> ChatReader:
    return ChatReader(seed)
