"""What has come of a response's output, kept so that the gateway can end the response at any event.

An item that is done is kept as it came. Of those that are not, the events are kept that open their parts; what was said
in deltas is the relay's own text, in which `speak` notes the places. `end` writes the events that the API itself sends
where the bound of the output ends a response. Called by `openai_responses.byte_relay`.
Events: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Iterator
from typing import Any

from proxy.formats.lenient import objects, string, value

ADDED, DONE = "response.output_item.added", "response.output_item.done"
# What is said in deltas: the event → where it stands in its item, the type of part there, and the part's member.
_IN_PART = {
    "response.output_text": ("content", "output_text", "text"),
    "response.refusal": ("content", "refusal", "refusal"),
    "response.reasoning_text": ("content", "reasoning_text", "text"),
    "response.reasoning_summary_text": ("summary", "summary_text", "text"),
}
_IN_ITEM = {
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.mcp_call_arguments": "arguments",
    "response.code_interpreter_call_code": "code",
}
_PART_EVENT = {"content": "response.content_part", "summary": "response.reasoning_summary_part"}
_OF_PART = {f"{name}.{end}": where for where, name in _PART_EVENT.items() for end in ("added", "done")}
_ANNOTATED = "response.output_text.annotation.added"
_WHOLE = frozenset(f"{name}.done" for name in (*_IN_PART, *_IN_ITEM))
NOTED = frozenset({*_OF_PART, *_WHOLE, _ANNOTATED})  # the events that `note` keeps
_FAILS = frozenset({"file_search_call", "image_generation_call", "web_search_call"})  # they know no `incomplete`

Place = tuple[Any, str, Any, Any]
"""Of a delta: its `output_index`, its event's name, its `content_index`, its `summary_index`."""


class Unfinished:
    """`place`: of what is being said; None where the next delta begins anew."""

    __slots__ = ("_done", "_notes", "_open", "_spans", "place")

    def __init__(self) -> None:
        self._open: dict[int | None, dict[str, Any]] = {}  # items by `output_index`
        self._done: list[tuple[int, Any]] = []
        self._notes: list[bytes] = []
        self._spans: list[tuple[Place | None, int]] = []  # from where in the text on
        self.place: Place | None = None

    def item(self, kind: str, index: Any, item: Any, at: int) -> None:
        """One begins, or is done. `at`: how long the text is."""
        self.speak(None, at)
        number = index_of(index)
        if kind == ADDED and isinstance(item, dict):
            self._open[number] = item
        elif kind == DONE:
            self._open.pop(number, None)
            self._keep(number, item)
            if not self._open:
                self._notes.clear()
                self._spans.clear()

    def _keep(self, number: int | None, item: Any) -> None:
        self._done.append((len(self._done) if number is None else number, item))

    def note(self, event: bytes) -> None:
        self._notes.append(event)

    def speak(self, place: Place | None, at: int) -> None:
        """From there on the text is what is said in this place."""
        self.place = place
        self._spans.append((place, at))

    def end(self, text: str) -> Iterator[dict[str, Any]]:
        """The events that end what is open, but for their numbers. Call it once."""
        notes = [found for event in self._notes if isinstance(found := value(event), dict)]
        ends = [at for _, at in self._spans[1:]] + [len(text)]
        spans = [(place, text[at:end]) for (place, at), end in zip(self._spans, ends, strict=False) if place]
        for number, item in self._open.items():
            ended = _Ended(number, item)
            for note in notes:
                if index_of(note.get("output_index")) == number:
                    ended.note(note)
            for place, said in spans:
                if index_of(place[0]) == number:
                    ended.say(place, said)
            yield from ended.events()
            self._keep(number, ended.item)
        self._open.clear()

    @property
    def output(self) -> list[Any]:
        """The items that are done, in their order."""
        return [item for _, item in sorted(self._done, key=lambda done: done[0])]


class _Part:
    __slots__ = ("done", "said", "value", "whole")

    def __init__(self, found: Any) -> None:
        self.value: dict[str, Any] = dict(found) if isinstance(found, dict) else {}
        self.said: list[str] = []
        self.whole = self.done = False  # all its words have come; its end, too


class _Ended:
    """An item that the gateway ends."""

    def __init__(self, number: int | None, item: dict[str, Any]) -> None:
        self.item = dict(item)
        self._place = {"item_id": string(item.get("id")), "output_index": number or 0}
        self._parts: dict[tuple[str, int], _Part] = {}
        self._said: dict[str, list[str]] = {}  # event's name → what belongs into the item itself
        self._whole: set[str] = set()

    def note(self, found: dict[str, Any]) -> None:
        kind = string(found.get("type"))
        name = kind.removesuffix(".done")
        if kind in _OF_PART:
            where = _OF_PART[kind]
            number = index_of(found.get(f"{where}_index")) or 0
            part = self._parts[where, number] = _Part(found.get("part"))
            part.whole = part.done = kind.endswith(".done")
        elif kind == _ANNOTATED:
            part = self._part("response.output_text", found.get("content_index"), None)
            part.value["annotations"] = [*objects(part.value.get("annotations")), found.get("annotation")]
        elif name in _IN_PART:
            part = self._part(name, found.get("content_index"), found.get("summary_index"))
            part.value[_IN_PART[name][2]] = string(found.get(_IN_PART[name][2]))
            part.whole = True
        elif name in _IN_ITEM:
            self.item[_IN_ITEM[name]] = found.get(_IN_ITEM[name])
            self._whole.add(name)

    def say(self, place: Place, said: str) -> None:
        name = place[1].removesuffix(".delta")
        if name in _IN_PART:
            self._part(name, place[2], place[3]).said.append(said)
        elif name in _IN_ITEM:
            self._said.setdefault(name, []).append(said)

    def _part(self, name: str, content_index: Any, summary_index: Any) -> _Part:
        where, kind, member = _IN_PART[name]
        key = where, index_of(summary_index if where == "summary" else content_index) or 0
        if key not in self._parts:  # its beginning was left out
            self._parts[key] = _Part({"type": kind, member: ""})
        return self._parts[key]

    def events(self) -> Iterator[dict[str, Any]]:
        for (where, number), part in self._parts.items():
            yield from self._end_part(where, number, part)
        for name, pieces in self._said.items():
            if name not in self._whole:
                self.item[_IN_ITEM[name]] = "".join(pieces)
                said = {_IN_ITEM[name]: self.item[_IN_ITEM[name]]}
                if name == "response.function_call_arguments":
                    said["name"] = string(self.item.get("name"))
                yield self._event(f"{name}.done", **said)
        for where in _PART_EVENT:
            if parts := [part.value for (place, _), part in self._parts.items() if place == where]:
                self.item[where] = parts
        self.item["status"] = "failed" if self.item.get("type") in _FAILS else "incomplete"
        yield {"type": DONE, "output_index": self._place["output_index"], "item": self.item}

    def _end_part(self, where: str, number: int, part: _Part) -> Iterator[dict[str, Any]]:
        place = {f"{where}_index": number}
        for name, (at, kind, member) in _IN_PART.items():
            if (at, kind) == (where, part.value.get("type")) and not part.whole:
                part.value[member] = "".join(part.said)
                beside: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
                yield self._event(f"{name}.done", **place, **{member: part.value[member]}, **beside)
        if not part.done:
            yield self._event(f"{_PART_EVENT[where]}.done", **place, part=part.value)

    def _event(self, name: str, /, **members: Any) -> dict[str, Any]:
        return {"type": name, **self._place, **members}


def index_of(found: Any) -> int | None:
    """Some vendors leave the places out."""
    return found if type(found) is int else None
