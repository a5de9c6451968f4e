"""OpenAI's Responses answers, plain and streamed, read into the canonical form; and parts that requests hold too.

Items and events: https://platform.openai.com/docs/api-reference/responses-streaming. Called by `openai_responses`
and `openai_responses.answer_writer`.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from proxy.formats.base import NotAnAnswer
from proxy.formats.canonical import (
    CONTENT_FILTER,
    LENGTH,
    STOP,
    TOOL_CALLS,
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
    UsageSeen,
    body,
)
from proxy.formats.lenient import UNREADABLE, Halves, lax, mended, objects, string, tokens
from proxy.formats.openai_responses.byte_relay import (
    NAME,
    error_in,
    failure_of,
    read_error,
    read_usage,
    refuse_error,
    value,
)
from proxy.formats.sse import Frame, Splitter

# https://platform.openai.com/docs/api-reference/responses/object#responses/object-incomplete_details
_INCOMPLETE = {"max_output_tokens": LENGTH, "content_filter": CONTENT_FILTER}
_BETWEEN_SUMMARIES = "\n\n"  # the parts of a summary are paragraphs


# --- what requests and the writer need too ----------------------------------------------------------------------------


def pack(item_id: str, encrypted: str) -> str:
    """A reasoning item's `encrypted_content` holds good for its own id only: the two travel as one signature."""
    return f"{item_id} {encrypted}" if item_id and encrypted else encrypted


def unpack(signature: str) -> tuple[str, str]:
    item_id, space, encrypted = signature.partition(" ")
    return (item_id, encrypted) if space else ("", signature)


def flat_name(namespace: str, name: str) -> str:
    """A function in a `namespace` tool, for formats that have none; its `Tool.raw` leads back. At most 64 characters.

    Where both are the same, it is a function that stands alone and was found by tool search.
    """
    if not namespace or namespace == name:
        return name
    whole = f"{namespace}__{name}"
    return whole if len(whole) <= 64 else f"{whole[:55]}_{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def read_citation(found: dict[str, Any]) -> Citation:
    """An annotation. Some vendors write it as chat completions do, in an object of its type's name."""
    inner = found.get(string(found.get("type")))
    get = (inner if isinstance(inner, dict) else found).get
    return Citation(
        url=string(get("url")),
        title=string(get("title")) or string(get("filename")),
        file_id=string(get("file_id")),
        start=_place(get("start_index")),
        end=_place(get("end_index")),
        origin=NAME,
        raw=found,
    )


def _place(found: Any) -> int | None:
    return found if type(found) is int else None


def write_citation(citation: Citation, text: str) -> dict[str, Any] | None:
    """None where there is no annotation that says it: of a document that came with the request, say."""
    if citation.origin == NAME and citation.raw:
        return citation.raw
    if citation.url:
        start = citation.start or 0
        end = len(text) if citation.end is None else citation.end
        place = {"start_index": start, "end_index": end}
        return {"type": "url_citation", "url": citation.url, "title": citation.title, **place}
    if citation.file_id:
        place = {"index": citation.start or 0}
        return {"type": "file_citation", "file_id": citation.file_id, "filename": citation.title, **place}
    return None


def reasoning_text(item: dict[str, Any]) -> tuple[str, bool]:
    """The text of a reasoning item, and whether it is a summary. Both may be there: a summary is what people read."""
    summary = [string(part.get("text")) for part in objects(item.get("summary"))]
    if any(summary):
        return _BETWEEN_SUMMARIES.join(summary), True
    return "".join(string(part.get("text")) for part in objects(item.get("content"))), False


def image_of(item: dict[str, Any]) -> Media | None:
    """An image that the provider's own tool has made; None where the item holds none."""
    data = string(item.get("result"))
    kind = f"image/{string(item.get('output_format')) or 'png'}"
    return Media("image", kind, data, id=string(item.get("id")), origin=NAME) if data else None


# --- answers ---------------------------------------------------------------------------------------------------


def read_answer(body: bytes, seed: str) -> Answer:
    """Raises `NotAnAnswer`."""
    try:
        found = value(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NotAnAnswer("its answer is not a JSON object")
    refuse_error(found, body)
    if found.get("status") in ("queued", "in_progress"):
        raise NotAnAnswer("its answer is not finished: it runs in the background")
    thoughts = found.get("reasoning")  # mistral.rs: the thoughts; with all others, how much was asked for
    choice = Choice([Thinking(thoughts)] if thoughts and isinstance(thoughts, str) else [])
    ids = _Ids(seed)
    for item in objects(found["output"]):
        choice.parts += _parts(item, ids)
        for part in objects(item.get("content")):
            if logprobs := tokens(part.get("logprobs")):
                choice.logprobs = [*(choice.logprobs or []), *logprobs]
    choice.reason, choice.raw_reason = _reason(found, calls=any(isinstance(part, ToolCall) for part in choice.parts))
    usage = read_usage(found.get("usage"))
    tier = string(found.get("service_tier"))
    return Answer([choice], string(found.get("id")), string(found.get("model")), usage, tier)


def _reason(response: dict[str, Any], *, calls: bool) -> tuple[str, str]:
    status = string(response.get("status")) or "completed"
    if status != "incomplete":
        return (TOOL_CALLS if calls else STOP), status
    details = response.get("incomplete_details")
    word = string(details.get("reason")) if isinstance(details, dict) else ""
    return _INCOMPLETE.get(word, LENGTH), word or status


class _Ids:
    """Ids for calls that a vendor leaves without."""

    __slots__ = ("_made", "_seed")

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._made = 0

    def of(self, item: dict[str, Any]) -> str:
        if found := string(item.get("call_id")) or string(item.get("id")):
            return found
        self._made += 1
        return f"call_{self._seed}_{self._made}"


def _parts(item: dict[str, Any], ids: _Ids) -> list[Part]:
    """All of an output item."""
    kind = string(item.get("type"))
    if kind == "message":
        return [_said(found) for found in objects(item.get("content"))]
    if kind == "reasoning":
        thought = _thought(item)
        return [thought] if thought.text or thought.signature else []
    if kind in ("function_call", "custom_tool_call"):
        call = _call(item, ids)
        call.arguments = _arguments_of(item, kind)
        return [call]
    image = image_of(item) if kind == "image_generation_call" else None
    return [image or Opaque(kind, item, origin=NAME)]


_ARGUMENTS = {"function_call": "arguments", "custom_tool_call": "input"}


def _arguments_of(item: dict[str, Any], kind: str) -> str:
    """Some vendors send them as an object."""
    found = item.get(_ARGUMENTS[kind])
    return json.dumps(found, ensure_ascii=False) if isinstance(found, dict) else string(found)


def _said(found: dict[str, Any]) -> Part:
    kind = found.get("type")
    if kind == "refusal":
        return Refusal(string(found.get("refusal")))
    if kind in ("output_text", "text", None):
        return Text(string(found.get("text")), [read_citation(one) for one in objects(found.get("annotations"))])
    return Opaque(string(kind), found, origin=NAME)


def _thought(item: dict[str, Any]) -> Thinking:
    text, summary = reasoning_text(item)
    item_id = string(item.get("id"))
    signature = pack(item_id, string(item.get("encrypted_content")))
    origin = NAME if signature else ""
    return Thinking(text, not text, summary, item_id, signature=signature, origin=origin)


def _call(item: dict[str, Any], ids: _Ids) -> ToolCall:
    name = flat_name(string(item.get("namespace")), string(item.get("name")))
    return ToolCall(ids.of(item), name, custom=item.get("type") == "custom_tool_call")


class _Wire(msgspec.Struct, gc=False):
    """One event of any type, with the members that some type has."""

    type: Any = ""
    delta: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    item_id: Any = None
    logprobs: Any = None
    item: Any = None
    part: Any = None
    annotation: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None
    input: Any = None
    error: Any = None
    response: Any = None


_read_wire = msgspec.json.Decoder(_Wire).decode


@dataclass(slots=True)
class _Streamed:
    """A part of the answer that is under way: what of it has come. `place`: its index in the canonical events."""

    place: int
    pieces: list[str] = field(default_factory=list)
    citations: int = 0
    logprobs: bool = False
    summary: int = 0  # the paragraph that is being written


@dataclass(slots=True)
class _Item:
    """An output item that is under way. `parts`: by their index in it; thoughts by "summary" or "content"."""

    kind: str
    id: str
    found: dict[str, Any]
    parts: dict[Any, _Streamed] = field(default_factory=dict)
    begun: int = 0  # how many parts have begun, ended ones too


class Reader:
    """A `base.StreamReader`. Vendors leave out events and indices: whatever did not come in deltas is taken from the

    `done` events, else from the whole response at the end.
    """

    __slots__ = (
        "_called",
        "_closed",
        "_failed",
        "_halves",
        "_ids",
        "_items",
        "_next",
        "_out",
        "_seen",
        "_splitter",
        "_started",
        "broken",
        "complete",
    )

    def __init__(self, seed: str) -> None:
        self._ids = _Ids(seed)
        self._halves = Halves()
        self._splitter = Splitter()
        self._items: dict[Any, _Item] = {}  # that are open, by output index
        self._seen: list[str] = []  # the kinds of the items that have begun
        self._closed: set[str] = set()  # their ids, where they have ended
        self._next = 0
        self._out: list[Event] = []
        self._started = False
        self._called = False
        self._failed = False
        self.broken = ""
        self.complete = False

    @property
    def finished(self) -> bool:
        return self.complete

    def feed(self, data: bytes) -> list[Event]:
        out = self._out = []
        for frame in self._splitter.feed(data):
            self._frame(frame)
        if self._splitter.too_large and not self.broken:
            self.broken = "an event is too large"
        return out

    def reasons(self) -> list[Finish]:
        return []

    def close(self) -> list[Event]:
        out = self._out = []
        for frame in self._splitter.close():
            self._frame(frame)
        return out

    def _frame(self, frame: Frame) -> None:
        if self.broken or self.complete or self._failed:
            return
        if not frame.data:
            if not self._started and frame.raw.lstrip()[:1] == b"{":
                self._read_plain(frame.raw)
            return
        if frame.data.startswith(b"[DONE]"):
            return
        try:
            found = _read_wire(frame.data)
        except UNREADABLE:
            try:
                found = self._loose(frame.data)
            except ValueError:
                self.broken = "a malformed event"
                return
        kind = string(found.type) or frame.name.decode(errors="replace")
        if kind == "error" or found.error:
            self._fail(error_in(value(frame.data)) or {"message": frame.data.decode(errors="replace")})
            return
        handle = self._handlers.get(kind)
        if handle is not None:
            found.type = kind
            if not self._started:
                self._start(found)
            handle(self, found)

    def _loose(self, data: bytes) -> _Wire:
        """What only a lax reader takes. Raises `ValueError`."""
        given = lax(data)
        found = given if isinstance(given, dict) else {}
        if isinstance(found.get("delta"), str):
            places = ("type", "item_id", "output_index", "content_index", "summary_index")
            found["delta"] = self._halves.join(found["delta"], str([found.get(name) for name in places]))
        found = mended(found)
        return _Wire(**{name: found[name] for name in _Wire.__struct_fields__ if name in found})

    def _read_plain(self, body: bytes) -> None:
        """No stream at all: some providers refuse a streamed request with a 200 and a plain JSON error."""
        error = read_error(body)
        if error.get("message"):
            self._fail(error)
        else:
            self.broken = "its answer is no stream"

    def _fail(self, error: dict[str, Any]) -> None:
        self._out.append(Failure(error))
        self._failed = True

    def _start(self, found: _Wire) -> None:
        self._started = True
        response = found.response if isinstance(found.response, dict) else {}
        self._out.append(Start(string(response.get("id")), string(response.get("model"))))

    # --- items

    def _item_of(self, found: _Wire, kind: str) -> _Item:
        """The item that an event is about; where a vendor has not announced it, it begins here."""
        key = self._key(found)
        item = self._items.get(key)
        if item is None:
            item = self._items[key] = self._new_item(kind, string(found.item_id), {})
        return item

    def _new_item(self, kind: str, item_id: str, found: dict[str, Any]) -> _Item:
        self._seen.append(kind)
        return _Item(kind, item_id, found)

    def _key(self, found: _Wire, *, fresh: bool = False) -> Any:
        """An item's index; where a vendor leaves it out, by the item's id, and without one the last that is open."""
        if type(found.output_index) is int:
            return found.output_index
        item = found.item if isinstance(found.item, dict) else {}
        item_id = string(found.item_id) or string(item.get("id"))
        if not item_id and self._items and not fresh:
            return next(reversed(self._items))
        known = next((key for key, open_item in self._items.items() if item_id and open_item.id == item_id), None)
        return len(self._seen) if known is None else known

    def _item_added(self, found: _Wire) -> None:
        item = found.item if isinstance(found.item, dict) else {}
        key, kind = self._key(found, fresh=True), string(item.get("type"))
        if key in self._items:  # one index for all of them
            self._finish_item(self._items.pop(key), {})
        opened = self._items[key] = self._new_item(kind, string(item.get("id")), item)
        if kind in _ARGUMENTS:
            self._open_call(opened)

    def _open_call(self, item: _Item) -> _Streamed:
        self._called = True
        call = _call(item.found, self._ids)
        call.custom = item.kind == "custom_tool_call"
        return self._begin(item, 0, call)  # arguments that are there by now come again, if they are any

    def _begin(self, item: _Item, key: Any, part: Part) -> _Streamed:
        streamed = item.parts[key] = _Streamed(self._next, [body(part)])
        streamed.citations = len(part.citations) if isinstance(part, Text) else 0
        item.begun += 1
        self._next += 1
        self._out.append(PartStart(streamed.place, part))
        return streamed

    def _end(self, item: _Item, key: Any, signature: str = "") -> None:
        streamed = item.parts.pop(key)
        self._out.append(PartEnd(streamed.place, 0, signature, NAME if signature else ""))

    def _rest(self, streamed: _Streamed, whole: Any) -> None:
        """What of a part's text has not come in deltas. What has come cannot be taken back."""
        if not isinstance(whole, str):
            return
        come = "".join(streamed.pieces)
        if len(whole) > len(come) and whole.startswith(come):
            self._more(streamed, whole[len(come) :])

    def _more(self, streamed: _Streamed, text: str) -> None:
        streamed.pieces.append(text)
        self._out.append(PartDelta(streamed.place, text))

    def _item_done(self, found: _Wire) -> None:
        whole = found.item if isinstance(found.item, dict) else {}
        item, item_id = self._items.pop(self._key(found), None), string(whole.get("id"))
        if item is None:
            if item_id in self._closed:
                return
            item = self._new_item(string(whole.get("type")), item_id, whole)
        if item_id:
            self._closed.add(item_id)
        self._finish_item(item, whole)

    def _finish_item(self, item: _Item, whole: dict[str, Any]) -> None:
        kind = string(whole.get("type")) or item.kind
        if not item.begun and whole:
            self._emit(_parts(whole, self._ids), whole)
            return
        if kind in _ARGUMENTS and 0 in item.parts:
            self._rest(item.parts[0], _arguments_of(whole, kind))
        elif kind == "message":
            for index, part in enumerate(objects(whole.get("content"))):
                self._finish_part(item, index, part)
        signature = ""
        if kind == "reasoning":
            item_id = string(whole.get("id")) or item.id
            signature = pack(item_id, string(whole.get("encrypted_content")))
            streamed = next(iter(item.parts.values()), None)
            if streamed is not None and not any(any(one.pieces) for one in item.parts.values()):
                self._rest(streamed, reasoning_text(whole)[0])
        for key in list(item.parts):
            last = len(item.parts) == 1
            self._end(item, key, signature if last else "")

    def _emit(self, parts: list[Part], whole: dict[str, Any]) -> None:
        """Parts of which nothing came before they were whole."""
        contents = objects(whole.get("content"))
        for number, part in enumerate(parts):
            self._called = self._called or isinstance(part, ToolCall)
            self._out.append(PartStart(self._next, part))
            logprobs = tokens(contents[number].get("logprobs")) if isinstance(part, Text) else []
            if logprobs:
                self._out.append(PartDelta(self._next, logprobs=logprobs))
            self._out.append(PartEnd(self._next))
            self._next += 1

    # --- messages

    def _part_added(self, found: _Wire) -> None:
        part = found.part if isinstance(found.part, dict) else {}
        if part.get("type") == "reasoning_text":
            return  # it opens with its first words
        item = self._item_of(found, "message")
        said = _said(part)
        if isinstance(said, Text | Refusal) and _index(found) not in item.parts:
            self._begin(item, _index(found), said)

    def _text(self, found: _Wire) -> None:
        place = found.output_index
        item = self._items.get(place) if type(place) is int else None
        streamed = item.parts.get(_index(found)) if item is not None else None
        if streamed is None:
            item = self._item_of(found, "message")
            streamed = item.parts.get(_index(found)) or self._begin(item, _index(found), Text(""))
        text = string(found.delta)
        if found.logprobs:
            streamed.logprobs = True
            streamed.pieces.append(text)
            self._out.append(PartDelta(streamed.place, text, logprobs=tokens(found.logprobs)))
        elif text:
            self._more(streamed, text)

    def _text_done(self, found: _Wire) -> None:
        item = self._item_of(found, "message")
        if (streamed := item.parts.get(_index(found))) is None:
            if item.begun > _index(found):
                return
            streamed = self._begin(item, _index(found), Text(""))
        self._rest(streamed, found.text)
        self._late_logprobs(streamed, found.logprobs)

    def _late_logprobs(self, streamed: _Streamed, logprobs: Any) -> None:
        if not streamed.logprobs and (given := tokens(logprobs)):
            streamed.logprobs = True
            self._out.append(PartDelta(streamed.place, logprobs=given))

    def _refusal(self, found: _Wire) -> None:
        item = self._item_of(found, "message")
        if (streamed := item.parts.get(_index(found))) is None:
            if item.begun > _index(found):
                return
            streamed = self._begin(item, _index(found), Refusal(""))
        if isinstance(found.delta, str):
            self._more(streamed, found.delta)
        self._rest(streamed, found.refusal)

    def _annotation(self, found: _Wire) -> None:
        item = self._item_of(found, "message")
        streamed = item.parts.get(_index(found)) or self._begin(item, _index(found), Text(""))
        if isinstance(found.annotation, dict):
            streamed.citations += 1
            self._out.append(PartDelta(streamed.place, citation=read_citation(found.annotation)))

    def _part_done(self, found: _Wire) -> None:
        if isinstance(found.part, dict) and found.part.get("type") != "reasoning_text":
            self._finish_part(self._item_of(found, "message"), _index(found), found.part)

    def _finish_part(self, item: _Item, index: int, whole: dict[str, Any]) -> None:
        streamed = item.parts.get(index)
        if streamed is None:
            if item.begun > index:
                return
            said = _said(whole)
            if not isinstance(said, Text | Refusal):
                self._begin(item, index, said)
                self._end(item, index)
                return
            streamed = self._begin(item, index, said)
        self._rest(streamed, whole.get("refusal" if whole.get("type") == "refusal" else "text"))
        for annotation in objects(whole.get("annotations"))[streamed.citations :]:
            self._out.append(PartDelta(streamed.place, citation=read_citation(annotation)))
        self._late_logprobs(streamed, whole.get("logprobs"))
        self._end(item, index)

    # --- calls and thoughts

    def _arguments(self, found: _Wire) -> None:
        item = self._item_of(found, "function_call")
        self._call_more(item, found, found.arguments)

    def _custom_input(self, found: _Wire) -> None:
        item = self._item_of(found, "custom_tool_call")
        self._call_more(item, found, found.input)

    def _call_more(self, item: _Item, found: _Wire, whole: Any) -> None:
        if item.kind not in _ARGUMENTS or not (item.parts or item.found):
            return  # not announced: its name comes with the item's end
        streamed = item.parts.get(0) or self._open_call(item)
        if isinstance(found.delta, str) and found.delta:
            self._more(streamed, found.delta)
        self._rest(streamed, whole)

    def _summary_part(self, found: _Wire) -> None:
        item = self._item_of(found, "reasoning")
        self._paragraph(item, found)

    def _paragraph(self, item: _Item, found: _Wire) -> _Streamed:
        streamed = item.parts.get("summary")
        number = found.summary_index if type(found.summary_index) is int else 0
        if streamed is None:
            thought = Thinking(summary=True, id=item.id)
            streamed = self._begin(item, "summary", thought)
            streamed.summary = number
        elif number != streamed.summary:
            self._more(streamed, _BETWEEN_SUMMARIES)
            streamed.summary, streamed.pieces = number, []
        return streamed

    def _summary(self, found: _Wire) -> None:
        streamed = self._paragraph(self._item_of(found, "reasoning"), found)
        self._think(streamed, found)

    def _thoughts(self, found: _Wire) -> None:
        item = self._item_of(found, "reasoning")
        streamed = item.parts.get("content") or self._begin(item, "content", Thinking(id=item.id))
        self._think(streamed, found)

    def _think(self, streamed: _Streamed, found: _Wire) -> None:
        if isinstance(found.delta, str):
            self._more(streamed, found.delta)
        self._rest(streamed, found.text)

    # --- the response

    def _opened(self, found: _Wire) -> None:
        """`_start` has said all of it."""

    def _ended(self, found: _Wire) -> None:
        response = found.response if isinstance(found.response, dict) else {}
        if response.get("error"):
            self._not_ended(found)
            return
        if string(found.type) == "response.incomplete":
            response.setdefault("status", "incomplete")
        output = objects(response.get("output"))
        for key, item in list(self._items.items()):
            whole = output[key] if type(key) is int and 0 <= key < len(output) else {}
            self._finish_item(item, whole)
        self._items.clear()
        for whole in self._unseen(output):
            self._emit(_parts(whole, self._ids), whole)
        reason, raw = _reason(response, calls=self._called)
        self._out.append(Finish(reason, raw))
        usage = read_usage(response.get("usage"))
        if usage is not None:
            self._out.append(UsageSeen(usage))
        self._out.append(End())
        self.complete = True

    def _unseen(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Items that no event has shown: all of them, or words and calls beyond those that have come."""
        if not self._seen:
            return output
        found: list[dict[str, Any]] = []
        for kind in ("message", *_ARGUMENTS):
            known = [item for item in output if item.get("type") == kind]
            found += known[self._seen.count(kind) :]
        return found

    def _not_ended(self, found: _Wire) -> None:
        self._fail(failure_of(found.response))

    _handlers: ClassVar[dict[str, Callable[["Reader", _Wire], None]]] = {
        "response.created": _opened,
        "response.in_progress": _opened,
        "response.queued": _opened,
        "response.output_item.added": _item_added,
        "response.output_item.done": _item_done,
        "response.content_part.added": _part_added,
        "response.content_part.done": _part_done,
        "response.output_text.delta": _text,
        "response.output_text.done": _text_done,
        "response.output_text.annotation.added": _annotation,
        "response.refusal.delta": _refusal,
        "response.refusal.done": _refusal,
        "response.function_call_arguments.delta": _arguments,
        "response.function_call_arguments.done": _arguments,
        "response.custom_tool_call_input.delta": _custom_input,
        "response.custom_tool_call_input.done": _custom_input,
        "response.reasoning_summary_part.added": _summary_part,
        "response.reasoning_summary_text.delta": _summary,
        "response.reasoning_summary_text.done": _summary,
        "response.reasoning_text.delta": _thoughts,
        "response.reasoning_text.done": _thoughts,
        "response.completed": _ended,
        "response.incomplete": _ended,
        "response.failed": _not_ended,
        "response.cancelled": _not_ended,
    }


def _index(found: _Wire) -> int:
    return found.content_index if type(found.content_index) is int else 0
