"""OpenAI's Responses answers, plain and streamed, written from the canonical form.

Items and events: https://platform.openai.com/docs/api-reference/responses-streaming. Called by `openai_responses`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from proxy.formats.base import Ask, Error
from proxy.formats.canonical import (
    CONTENT_FILTER,
    LENGTH,
    PAUSE,
    REFUSAL,
    STOP,
    STOP_SEQUENCE,
    Answer,
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
    Sequencer,
    Start,
    Text,
    Thinking,
    Tool,
    ToolCall,
    Usage,
    UsageSeen,
    play,
    seal,
)
from proxy.formats.lenient import encode, objects, string
from proxy.formats.openai_responses.answer_reader import unpack, write_citation
from proxy.formats.openai_responses.byte_relay import NAME, error_frame, error_json, failed_frame, usage_value, value
from proxy.formats.openai_responses.request_reader import PLAIN
from proxy.formats.openai_tools import custom_input
from proxy.formats.splice import Members


def write_answer(answer: Answer, ask: Ask) -> bytes:
    writer = Writer(ask)
    for event in play(answer):
        writer.send(event)
    return writer.response


# What the response object repeats of the request, with the API's defaults.
# https://platform.openai.com/docs/api-reference/responses/object
_ECHO: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
_ECHO_INSIDE: dict[str, dict[str, Any]] = {
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
}


def _echo(members: Members) -> dict[str, Any]:
    """The request's own bytes where they can stand as they are."""
    found: dict[str, Any] = {}
    for name, default in _ECHO.items():
        given = members.get(name, b"null")
        found[name] = default if given == b"null" else msgspec.Raw(given)
    for name, defaults in _ECHO_INSIDE.items():
        inner = value(members[name]) if name in members else None
        found[name] = {**defaults, **inner} if isinstance(inner, dict) else defaults
    tools = value(members["tools"]) if "tools" in members else []
    found["tools"] = [_echo_tool(tool) for tool in objects(tools)]
    return found


def _echo_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True, **tool}


@dataclass(slots=True)
class _Content:
    """The part of a message that is being written."""

    index: int
    refusal: bool
    spoken: bool  # what is said in sound
    pieces: list[str] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    before: bytes = b""  # of a delta's event, up to its number
    middle: bytes = b""

    def json(self) -> dict[str, Any]:
        text = "".join(self.pieces)
        if self.refusal:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "annotations": self.annotations, "logprobs": self.logprobs, "text": text}


@dataclass(slots=True)
class _Open:
    """The output item that is being written. `value`: its JSON so far."""

    value: dict[str, Any]
    pieces: list[str] = field(default_factory=list)  # of thoughts, arguments, input or an image
    content: _Content | None = None
    summary: bool = False  # its one paragraph has begun
    buffered: bool = False  # arguments are read when they are whole
    given: bool = False  # the provider's own item, as it is

    @property
    def kind(self) -> str:
        return str(self.value["type"])


_AFTER_TEXT = b',"logprobs":[]}\n\n'
_NATIVE = frozenset({STOP_SEQUENCE, PAUSE, REFUSAL, CONTENT_FILTER})  # reasons that the status says less of


class Writer:
    """A `base.StreamWriter`: the API's own sequence of events, each with its number.

    Parts come one after another. Texts that follow each other are one message. An item stays open until the next one
    begins or the choice ends: only then its status is known, and a signature may still find its place in it. Thoughts
    are written as a summary, raw ones too: that is what Codex, the AI SDK and LangChain show and send back, and few of
    them read `content`. What a provider wants back is always in `encrypted_content`: clients keep it unasked.
    """

    __slots__ = (
        "_ask",
        "_begun",
        "_head",
        "_items",
        "_late",
        "_made",
        "_open",
        "_pending",
        "_raw_reason",
        "_reason",
        "_sealing",
        "_sequence",
        "_sequencer",
        "_tools",
        "_usage",
        "response",
    )

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._head: dict[str, Any] = {}
        self._tools: dict[str, Tool] = {tool.name: tool for tool in ask.request.tools}
        self._sequencer = Sequencer()
        self._sequence = 0
        self._made = 0  # items' ids
        self._items: list[dict[str, Any]] = []  # that are whole
        self._open: _Open | None = None
        self._pending: Part | None = None  # it has begun, and nothing of it has come
        self._late: Thinking | None = None  # a signature that came behind its part: the next item has it before it
        self._begun = False
        self._reason, self._raw_reason = STOP, ""
        self._usage: Usage | None = None
        request = ask.request
        # Clients send back nothing else then: LangChain and the AI SDK drop thoughts that hold no encrypted content.
        self._sealing = request.store is False or (request.reasoning is not None and request.reasoning.encrypted)
        self.response = b""

    def send(self, event: Event) -> bytes:
        if isinstance(event, Failure):
            return self._give_up(event.error)
        return b"".join([self._put(one) for one in self._sequencer.put(event)])

    def fail(self, error: Error) -> bytes:
        return self._give_up(error_json(error))

    def _put(self, event: Event) -> bytes:
        match event:
            case PartDelta():
                return self._more(event)
            case PartStart():
                return self._start(event) if self._first_choice(event.choice) else b""
            case PartEnd():
                return self._end(event)
            case Start():
                return self._begin()
            case UsageSeen():
                self._usage = event.usage
            case Finish(choice=0):
                self._reason, self._raw_reason = event.reason, event.raw_reason
                return self._begin() + self._close("incomplete" if event.reason == LENGTH else "completed")
            case End():
                return self._begin() + self._close("completed") + self._finish()
        return b""

    def _first_choice(self, number: int) -> bool:
        if number:
            self._ask.losses.of_answer("choices")
        return number == 0

    # --- the response

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        ask = self._ask
        self._head = {"id": f"resp_{ask.id}", "object": "response", "created_at": ask.created, "model": ask.model}
        self._head |= {"background": False, "error": None, "incomplete_details": None, **_echo(ask.members)}
        opened = msgspec.Raw(self._object("in_progress"))
        return self._event("response.created", response=opened) + self._event("response.in_progress", response=opened)

    def _object(self, status: str, **more: Any) -> bytes:
        return encode({**self._head, "status": status, "output": self._items, "usage": self._counts(), **more})

    def _counts(self) -> dict[str, Any] | None:
        return None if self._usage is None else usage_value(self._usage, self._ask.pricer)

    def _finish(self) -> bytes:
        why = {LENGTH: "max_output_tokens", CONTENT_FILTER: "content_filter"}.get(self._reason)
        if self._reason == REFUSAL and not self._refused():
            why = "content_filter"
        if self._late is not None:  # many take the last item for the answer
            self._ask.losses.of_answer("signature")
        more: dict[str, Any] = {"incomplete_details": {"reason": why}} if why else {}
        if self._raw_reason and self._reason in _NATIVE:
            more["native_finish_reason"] = self._raw_reason
        status = "incomplete" if why else "completed"
        self.response = self._object(status, **more)
        return self._event(f"response.{status}", response=msgspec.Raw(self.response))

    def _refused(self) -> bool:
        parts = [part for item in self._items if item["type"] == "message" for part in item["content"]]
        return any(part["type"] == "refusal" for part in parts)

    def _give_up(self, error: dict[str, Any]) -> bytes:
        out = error_frame(error, self._sequence)
        if self._begun:
            out += failed_frame(self._object("failed"), error, self._sequence + 1)
        return out

    def _event(self, name: str, /, **members: Any) -> bytes:
        data = encode({"type": name, "sequence_number": self._sequence, **members})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)

    def _item_event(self, name: str, /, **members: Any) -> bytes:
        assert self._open is not None
        return self._event(name, item_id=self._open.value["id"], output_index=len(self._items), **members)

    # --- items

    def _add(self, prefix: str, item: dict[str, Any], item_id: str = "", *, given: bool = False) -> bytes:
        """A new item, once the one before is whole."""
        out = self._close("completed")
        if self._late is not None:
            late, self._late = self._late, None
            out += self._encrypted(late) + self._close("completed")
        self._made += 1
        value = {"id": item_id or f"{prefix}_{self._ask.id}_{self._made}", **item}
        self._open = _Open(value, given=given)
        return out + self._event("response.output_item.added", output_index=len(self._items), item=value)

    def _close(self, status: str) -> bytes:
        item = self._open
        if item is None:
            return b""
        out = b""
        if not item.given:
            if item.kind != "reasoning":
                item.value["status"] = status
            out = self._closers[item.kind](self, item)
        out += self._event("response.output_item.done", output_index=len(self._items), item=item.value)
        self._items.append(item.value)
        self._open = None
        return out

    def _start(self, event: PartStart) -> bytes:
        part, out = event.part, self._begin()
        if isinstance(part, Thinking):
            return out + self._start_thinking(part)
        if part.signature:
            out += self._carry(part)
        match part:
            case Text() | Refusal():
                self._pending = part
                return out + (self._say(part, part.text) if part.text or _citations(part) else b"")
            case ToolCall():
                return out + self._start_call(part)
            case Media():
                return out + self._start_media(part)
            case Opaque():
                return out + self._start_opaque(part)
        return out

    def _start_opaque(self, part: Opaque) -> bytes:
        if part.origin != NAME:
            self._ask.losses.of_answer(part.kind)
            self._pending = part
            return b""
        return self._add("item", {"type": part.kind, **part.value}, string(part.value.get("id")), given=True)

    def _more(self, event: PartDelta) -> bytes:
        if event.choice:
            return b""
        item = self._open
        if item is not None and item.content is not None and self._pending is None:
            return self._more_text(item.content, event)
        if self._pending is not None:
            return self._more_pending(self._pending, event)
        if item is None or not event.text:
            return b""
        item.pieces.append(event.text)
        if item.kind == "function_call":
            return self._item_event("response.function_call_arguments.delta", delta=event.text)
        if item.kind == "custom_tool_call" and not item.buffered:
            return self._item_event("response.custom_tool_call_input.delta", delta=event.text)
        if item.kind == "reasoning":
            return self._item_event("response.reasoning_summary_text.delta", summary_index=0, delta=event.text)
        return b""

    def _more_pending(self, part: Part, event: PartDelta) -> bytes:
        """The first that comes of a part."""
        if isinstance(part, Thinking):
            return self._think(part, event.text) if event.text else b""
        if isinstance(part, Opaque) or (isinstance(part, Media) and part.kind != "audio"):
            return b""  # it is lost
        text = event.transcript if isinstance(part, Media) else event.text
        if not text and event.citation is None and not event.logprobs:
            return b""
        out = self._say(part, "")
        assert self._open is not None
        assert self._open.content is not None
        return out + self._more_text(self._open.content, event)

    def _end(self, event: PartEnd) -> bytes:
        if event.choice:
            return b""
        part, self._pending = self._pending, None
        item = self._open
        out = b""
        if item is not None and item.content is not None:
            out = self._end_text(item, item.content)
        if not event.signature:
            return out
        bearer = Thinking(signature=event.signature, origin=event.origin)
        if isinstance(part, Thinking):  # nothing of it came but the signature
            bearer.id = part.id
            return out + self._encrypted(bearer)
        if item is not None and item.kind == "reasoning" and "encrypted_content" not in item.value:
            self._sign(item, bearer)
            return out
        self._late = bearer
        return out

    # --- messages

    def _say(self, part: Part, text: str) -> bytes:
        """A part of a message begins, and perhaps the message."""
        self._pending = None
        out = b""
        if self._open is None or self._open.kind != "message":
            out = self._add("msg", {"type": "message", "status": "in_progress", "role": "assistant", "content": []})
        item = self._open
        assert item is not None
        content = item.content = _Content(
            len(item.value["content"]), isinstance(part, Refusal), isinstance(part, Media)
        )
        place = {"item_id": item.value["id"], "output_index": len(self._items), "content_index": content.index}
        out += self._event("response.content_part.added", **place, part=content.json())
        name = b"response.refusal.delta" if content.refusal else b"response.output_text.delta"
        content.before = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name, name)
        content.middle = b",%b," % encode(place)[1:-1] + b'"delta":'
        if text:
            out += self._more_text(content, PartDelta(0, text, transcript=text))
        for citation in _citations(part):
            out += self._cite(content, citation)
        return out

    def _more_text(self, content: _Content, event: PartDelta) -> bytes:
        text = event.transcript if content.spoken else event.text
        out = b""
        if event.logprobs and self._ask.request.logprobs and not content.refusal:
            content.pieces.append(text)
            content.logprobs += event.logprobs
            place = {"content_index": content.index, "delta": text, "logprobs": event.logprobs}
            out = self._item_event("response.output_text.delta", **place)
        elif text:
            content.pieces.append(text)
            after = b"}\n\n" if content.refusal else _AFTER_TEXT
            out = b"%b%d%b%b%b" % (content.before, self._sequence, content.middle, encode(text), after)
            self._sequence += 1
        return out if event.citation is None else out + self._cite(content, event.citation)

    def _cite(self, content: _Content, citation: Citation) -> bytes:
        annotation = write_citation(citation, "".join(content.pieces))
        if annotation is None or content.refusal:
            self._ask.losses.of_answer("citations")
            return b""
        place = {"content_index": content.index, "annotation_index": len(content.annotations)}
        content.annotations.append(annotation)
        return self._item_event("response.output_text.annotation.added", **place, annotation=annotation)

    def _end_text(self, item: _Open, content: _Content) -> bytes:
        whole = content.json()
        item.value["content"].append(whole)
        item.content = None
        place = {"content_index": content.index}
        if content.refusal:
            out = self._item_event("response.refusal.done", **place, refusal=whole["refusal"])
        else:
            said = {"text": whole["text"], "logprobs": content.logprobs}
            out = self._item_event("response.output_text.done", **place, **said)
        return out + self._item_event("response.content_part.done", **place, part=whole)

    def _close_message(self, item: _Open) -> bytes:
        return self._end_text(item, item.content) if item.content is not None else b""

    # --- thoughts

    def _start_thinking(self, part: Thinking) -> bytes:
        self._pending = part
        if part.text:
            out = self._think(part, part.text)
            assert self._open is not None
            if part.signature:
                self._sign(self._open, part)
            return out
        if part.signature:
            self._pending = None
            return self._encrypted(part)
        return b""

    def _think(self, part: Thinking, text: str) -> bytes:
        self._pending = None
        out = self._add("rs", {"type": "reasoning", "summary": []}, part.id)
        item = self._open
        assert item is not None
        item.summary = True
        item.pieces.append(text)
        empty = {"type": "summary_text", "text": ""}
        out += self._item_event("response.reasoning_summary_part.added", summary_index=0, part=empty)
        return out + self._item_event("response.reasoning_summary_text.delta", summary_index=0, delta=text)

    def _carry(self, part: Part) -> bytes:
        """The signature of what has no place for one: the thoughts before it carry it, else an item of its own."""
        item = self._open
        if item is not None and item.kind == "reasoning" and "encrypted_content" not in item.value:
            self._sign(item, part)
            return b""
        return self._encrypted(Thinking(signature=part.signature, origin=part.origin))

    def _encrypted(self, part: Thinking) -> bytes:
        item_id = part.id or (unpack(part.signature)[0] if part.origin == NAME else "")
        out = self._add("rs", {"type": "reasoning", "summary": []}, item_id)
        assert self._open is not None
        self._sign(self._open, part)
        return out

    def _sign(self, item: _Open, part: Part) -> None:
        own = part.origin == NAME
        item.value["encrypted_content"] = unpack(part.signature)[1] if own else seal(part.origin, part.signature)

    def _close_thinking(self, item: _Open) -> bytes:
        if not item.summary:
            return b""
        text = "".join(item.pieces)
        whole = {"type": "summary_text", "text": text}
        item.value["summary"] = [whole]
        if self._sealing and "encrypted_content" not in item.value:
            item.value["encrypted_content"] = seal(PLAIN, text)
        out = self._item_event("response.reasoning_summary_text.done", summary_index=0, text=text)
        return out + self._item_event("response.reasoning_summary_part.done", summary_index=0, part=whole)

    # --- calls

    def _start_call(self, part: ToolCall) -> bytes:
        tool = self._tools.get(part.name)
        custom = part.custom or (tool is not None and tool.kind == "custom")
        kind, empty = ("custom_tool_call", "input") if custom else ("function_call", "arguments")
        item = {"type": kind, "status": "in_progress", empty: "", "call_id": part.id, "name": part.name}
        if tool is not None and "namespace" in tool.raw:
            item |= {"name": tool.raw["name"], "namespace": tool.raw["namespace"]}
        out = self._add("ctc" if custom else "fc", item)
        assert self._open is not None
        self._open.buffered = custom and not part.custom
        return out + self._more(PartDelta(0, part.arguments))

    def _close_function(self, item: _Open) -> bytes:
        out = b""
        empty = not "".join(item.pieces).strip()
        if empty and item.value["status"] != "incomplete":  # of a call without arguments; clients read it as JSON
            item.pieces = ["{}"]
            out = self._item_event("response.function_call_arguments.delta", delta="{}")
        item.value["arguments"] = "".join(item.pieces)
        said = {"arguments": item.value["arguments"], "name": item.value["name"]}
        return out + self._item_event("response.function_call_arguments.done", **said)

    def _close_custom(self, item: _Open) -> bytes:
        text, out = "".join(item.pieces), b""
        if item.buffered:
            text = custom_input(text)
            out = self._item_event("response.custom_tool_call_input.delta", delta=text)
        item.value["input"] = text
        return out + self._item_event("response.custom_tool_call_input.done", input=text)

    # --- images and sound

    def _start_media(self, part: Media) -> bytes:
        if part.kind == "audio":  # no place for sound: what is said in it is there
            self._ask.losses.of_answer("audio")
            self._pending = part
            return self._say(part, part.transcript) if part.transcript else b""
        if part.kind != "image" or part.url:
            self._ask.losses.of_answer(part.kind)
            self._pending = part
            return b""
        form = part.media_type.removeprefix("image/") or "png"
        item = {"type": "image_generation_call", "status": "in_progress", "result": None, "output_format": form}
        out = self._add("ig", item, part.id) + self._item_event("response.image_generation_call.in_progress")
        return out + self._more(PartDelta(0, part.data))

    def _close_image(self, item: _Open) -> bytes:
        whole = item.value["status"] != "incomplete"
        item.value["result"] = "".join(item.pieces) or None if whole else None
        return self._item_event("response.image_generation_call.completed") if item.value["result"] else b""

    _closers: ClassVar[dict[str, Callable[["Writer", _Open], bytes]]] = {
        "message": _close_message,
        "reasoning": _close_thinking,
        "function_call": _close_function,
        "custom_tool_call": _close_custom,
        "image_generation_call": _close_image,
    }


def _citations(part: Part) -> list[Citation]:
    return part.citations if isinstance(part, Text) else []
