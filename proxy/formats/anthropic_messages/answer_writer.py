"""Answers of any format written as Anthropic's Messages, plain and streamed. Called through the package."""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.formats.anthropic_messages.answer_reader import REASONS
from proxy.formats.anthropic_messages.byte_relay import (
    NAME,
    TYPES,
    error_event,
    usage_value,
)
from proxy.formats.anthropic_messages.request_reader import (
    arguments_object,
    tool_id,
)
from proxy.formats.base import Ask, Error, Losses
from proxy.formats.canonical import (
    CONTENT_FILTER,
    LENGTH,
    PAUSE,
    REFUSAL,
    STOP,
    STOP_SEQUENCE,
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
    Sequencer,
    Text,
    Thinking,
    ToolCall,
    Usage,
    UsageSeen,
    seal,
)
from proxy.formats.sse import event

_WORDS = {
    STOP: "end_turn",
    STOP_SEQUENCE: "stop_sequence",
    LENGTH: "max_tokens",
    TOOL_CALLS: "tool_use",
    CONTENT_FILTER: "refusal",
    REFUSAL: "refusal",
    PAUSE: "pause_turn",
}
# Other formats' words that say no more than ours.
_PLAIN = frozenset(
    {"", "stop", "length", "tool_calls", "function_call", "STOP", "MAX_TOKENS", "completed", "max_output_tokens", "eos"}
)


def _stop_reason(finish: Finish | Choice, *, calls: bool, refused: bool) -> dict[str, Any]:
    """`stop_reason` and `stop_sequence`, with the provider's own word where ours says less."""
    reason, raw = finish.reason, finish.raw_reason
    if reason == STOP and (calls or refused):
        reason = TOOL_CALLS if calls else REFUSAL
    ours = REASONS.get(raw) == reason
    word = raw if ours else _WORDS.get(reason, "end_turn")
    said: dict[str, Any] = {"stop_reason": word, "stop_sequence": finish.stop_sequence or None}
    if not ours and raw not in _PLAIN and raw != word:
        said["native_finish_reason"] = raw
    return said


# Of a thought that its provider has not signed: clients drop thoughts with an empty signature, or none.
_UNSIGNED = seal("", "")


def _sealed(signature: str, origin: str) -> str:
    return signature if not signature or origin in (NAME, "") else seal(origin, signature)


_TIERS = {"default": "standard", "standard": "standard", "priority": "priority", "batch": "batch"}


def write_answer(answer: Answer, ask: Ask) -> bytes:
    choice = answer.choices[0] if answer.choices else Choice([])
    if len(answer.choices) > 1:
        ask.losses.of_answer("choices")
    if choice.logprobs:
        ask.losses.of_answer("logprobs")
    calls = any(isinstance(part, ToolCall) for part in choice.parts)
    refused = any(isinstance(part, Refusal) for part in choice.parts)
    usage = usage_value(answer.usage, ask.pricer)
    if tier := _TIERS.get(answer.service_tier):
        usage["service_tier"] = tier
    message = _message(ask, _blocks(choice.parts, ask), usage)
    message.update(_stop_reason(choice, calls=calls, refused=refused))
    return msgspec.json.encode(message)


def _message(ask: Ask, content: list[dict[str, Any]], usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{ask.id}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _blocks(parts: list[Part], ask: Ask) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if part.signature and not isinstance(part, Thinking):
            _carry(blocks, _sealed(part.signature, part.origin))
        block = _block(part, ask)
        if block is not None:
            blocks.append(block)
    while blocks and blocks[-1].get("type") == "redacted_thinking":
        blocks.pop()
        ask.losses.of_answer("signature")
    return blocks


def _carry(blocks: list[dict[str, Any]], sealed: str) -> None:
    """Signatures of texts and calls (Gemini's) have no place on those blocks: a thought before them carries it.

    It never comes last: clients show the last block of a message, and the API takes none back that ends so.
    """
    if blocks and blocks[-1].get("signature") == _UNSIGNED:
        blocks[-1]["signature"] = sealed
    else:
        blocks.append(_redacted(sealed))


def _redacted(data: str) -> dict[str, Any]:
    return {"type": "redacted_thinking", "data": data}


def _block(part: Part, ask: Ask) -> dict[str, Any] | None:
    match part:
        case Text() | Refusal():
            return _text_block(part, ask.losses)
        case Thinking():
            return _thought(part, hidden=_hidden(ask))
        case ToolCall():
            return _call(part, ask.losses)
        case Media():
            ask.losses.of_answer(part.kind)
            return {"type": "text", "text": part.transcript} if part.transcript else None
        case Opaque():
            if part.origin == NAME and part.value.get("type") == part.kind:
                return part.value
            ask.losses.of_answer(part.kind)
    return None


def _hidden(ask: Ask) -> bool:
    """The client wants signatures without the thoughts: `thinking.display: omitted`."""
    return ask.request.reasoning is not None and ask.request.reasoning.visible is False


def _text_block(part: Text | Refusal, losses: Losses) -> dict[str, Any] | None:
    cited = part.citations if isinstance(part, Text) else []
    citations = [written for each in cited if (written := write_citation(each, losses)) is not None]
    if not part.text and not citations:
        return None
    block: dict[str, Any] = {"type": "text", "text": part.text}
    return {**block, "citations": citations} if citations else block


def write_citation(citation: Citation, losses: Losses) -> dict[str, Any] | None:
    """Pages are cited as search results. Anthropic's own key to such a result (`encrypted_index`) is only its own."""
    if citation.origin == NAME and citation.raw:
        return citation.raw
    if not citation.url:
        losses.of_answer("citations")  # its place in a document of the request is not known here
        return None
    if citation.start is not None or citation.end is not None:
        losses.of_answer("citations.range")  # a citation stands for its whole block
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title or None,
        "cited_text": citation.quote,
        "encrypted_index": "",
    }


def _thought(part: Thinking, *, hidden: bool) -> dict[str, Any] | None:
    signature = _sealed(part.signature, part.origin)
    if part.redacted:
        return _redacted(signature) if signature else None
    text = "" if hidden else part.text
    if not text and not signature:
        return None
    return {"type": "thinking", "thinking": text, "signature": signature or _UNSIGNED}


def _call(part: ToolCall, losses: Losses) -> dict[str, Any]:
    if part.custom:
        given, whole = {"input": part.arguments}, True
    else:
        given, whole = arguments_object(part.arguments)
    if not whole:
        losses.of_answer("tool_calls.arguments")
    return {"type": "tool_use", "id": tool_id(part.id), "name": part.name, "input": given}


class MessagesWriter:
    """A `base.StreamWriter`: the content blocks one after another, as Anthropic sends them.

    `message_start` waits for the first part, since usage may come before it. A thought that has ended unsigned waits
    for the part behind it, whose signature it may have to carry; what nobody can read waits for a block that somebody
    can. Text and thoughts begin with their first words.
    """

    __slots__ = (
        "_ask",
        "_begun",
        "_calls",
        "_finish",
        "_head",
        "_held",
        "_hidden",
        "_index",
        "_is_object",
        "_json",
        "_line",
        "_part",
        "_prefix",
        "_refused",
        "_unread",
        "_usage",
        "_waiting",
    )

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._line = Sequencer()
        self._usage: Usage | None = None
        self._head = False  # `message_start` is out
        self._index = -1  # of the block that is open, or was last
        self._part: Part | None = None  # that is under way
        self._begun = False  # its block is out
        self._prefix = b""  # of its deltas
        self._held = ""  # the beginning of arguments, until it shows whether they are an object
        self._is_object = False
        self._json: list[str] = []  # the arguments that are out
        self._waiting = False  # a thought without its end
        self._unread: list[str] = []  # redacted thoughts and signatures
        self._hidden = _hidden(ask)
        self._calls = self._refused = False
        self._finish: Finish | None = None

    def send(self, event: Event) -> bytes:
        if getattr(event, "choice", 0):
            self._ask.losses.of_answer("choices")
            return b""
        return b"".join([self._send(each) for each in self._line.put(event)])

    def fail(self, error: Error) -> bytes:
        return error_event(error)

    def _send(self, event: Event) -> bytes:
        match event:
            case PartDelta():
                return self._more(event)
            case PartStart():
                return self._start(event.part)
            case PartEnd():
                return self._end(event)
            case UsageSeen():
                self._usage = event.usage
            case Finish():
                self._finish = event
            case End():
                return self._goodbye()
            case Failure():
                return _failure(event.error)
        return b""

    def _opening(self) -> bytes:
        if self._head:
            return b""
        self._head = True
        usage = {**usage_value(self._usage), "output_tokens": 0}
        usage.pop("output_tokens_details", None)
        message = _message(self._ask, [], usage)
        return event("message_start", msgspec.json.encode({"type": "message_start", "message": message}))

    def _start(self, part: Part) -> bytes:
        carried = "" if isinstance(part, Thinking) else _sealed(part.signature, part.origin)
        out = self._opening() + self._settle(carried)
        self._part, self._begun = part, False
        match part:
            case ToolCall():
                self._calls = True
                block = {"type": "tool_use", "id": tool_id(part.id), "name": part.name, "input": {}}
                out += self._begin(block, "input_json_delta", "partial_json")
                self._held, self._is_object, self._json = "", False, []
                out += self._say('{"input":"' if part.custom else "") + self._arguments(part.arguments)
            case Refusal():
                self._refused = True
                out += self._say(part.text)
            case Text():
                out += self._say(part.text) + b"".join([self._cite(each) for each in part.citations])
            case Thinking() if not part.redacted and not self._hidden:
                out += self._say(part.text)
            case Media():
                self._ask.losses.of_answer(part.kind)
                out += self._say(part.transcript)
            case Opaque():
                out += self._opaque(part)
        return out

    def _begin(self, block: dict[str, Any], delta: str = "", member: str = "") -> bytes:
        before = b""
        if self._unread:
            unread, self._unread = self._unread, []
            before = b"".join([self._begin(_redacted(data)) + self._stop() for data in unread])
        self._begun = True
        self._index += 1
        self._prefix = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
            % (self._index, delta.encode(), member.encode())
        )
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return before + event("content_block_start", msgspec.json.encode(start))

    def _say(self, text: str) -> bytes:
        """More of the part's words, and its block's start before the first of them."""
        if not text:
            return b""
        start = b"" if self._begun else self._begin_words()
        return b"%b%b%b}}\n\n" % (start, self._prefix, msgspec.json.encode(text))

    def _begin_words(self) -> bytes:
        if isinstance(self._part, Thinking):
            return self._begin({"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking")
        return self._begin({"type": "text", "text": ""}, "text_delta", "text")

    def _more(self, delta: PartDelta) -> bytes:
        if delta.logprobs:
            self._ask.losses.of_answer("logprobs")
        part = self._part
        if isinstance(part, ToolCall):
            return self._arguments(delta.text)
        if isinstance(part, Media):
            return self._say(delta.transcript)
        if isinstance(part, Thinking) and self._hidden:
            return b""
        out = self._say(delta.text)
        return out + self._cite(delta.citation) if delta.citation is not None else out

    def _arguments(self, text: str) -> bytes:
        """Input must be an object: what does not begin as one is held to its end."""
        if isinstance(self._part, ToolCall) and self._part.custom:
            return self._say(msgspec.json.encode(text).decode()[1:-1])
        if not self._is_object:
            self._held += text
            if not self._held.lstrip().startswith("{"):
                return b""
            text, self._held, self._is_object = self._held, "", True
        self._json.append(text)
        return self._say(text)

    def _last_arguments(self, part: ToolCall) -> bytes:
        if part.custom:
            return self._say('"}')
        given, whole = arguments_object("".join(self._json) or self._held)
        if not whole:  # broken ones that are out stay as they are: Claude's own may be broken, too
            self._ask.losses.of_answer("tool_calls.arguments")
        if self._is_object:
            return b""
        return self._say(msgspec.json.encode(given).decode()) if given else b""

    def _cite(self, citation: Citation) -> bytes:
        written = write_citation(citation, self._ask.losses)
        if written is None:
            return b""
        start = b"" if self._begun else self._begin_words()
        return start + self._delta({"type": "citations_delta", "citation": written})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        sent = {"type": "content_block_delta", "index": self._index, "delta": delta}
        return event("content_block_delta", msgspec.json.encode(sent))

    def _stop(self) -> bytes:
        return event("content_block_stop", b'{"type":"content_block_stop","index":%d}' % self._index)

    def _sign(self, signature: str) -> bytes:
        return self._delta({"type": "signature_delta", "signature": signature}) + self._stop()

    def _settle(self, carried: str) -> bytes:
        """Ends a thought that waits, signed with what the next part has it carry; else that waits for a next block."""
        if self._waiting:
            self._waiting = False
            return self._sign(carried or _UNSIGNED)
        if carried:
            self._unread.append(carried)
        return b""

    def _opaque(self, part: Opaque) -> bytes:
        if part.origin != NAME or part.value.get("type") != part.kind:
            self._ask.losses.of_answer(part.kind)
            return b""
        given = part.value.get("input")
        if not isinstance(given, dict):
            return self._begin(part.value) + self._stop()
        start = self._begin({**part.value, "input": {}}, "input_json_delta", "partial_json")
        return start + self._say(msgspec.json.encode(given).decode()) + self._stop()

    def _end(self, end: PartEnd) -> bytes:
        part, self._part = self._part, None
        assert part is not None
        signature, origin = (end.signature, end.origin) if end.signature else (part.signature, part.origin)
        sealed = _sealed(signature, origin)
        match part:
            case Thinking():
                return self._end_thought(part, sealed)
            case Opaque():
                return b""
            case ToolCall():
                out = self._last_arguments(part) + self._stop()
            case _:
                out = self._stop() if self._begun else b""
        return out + (self._settle(sealed) if end.signature else b"")

    def _end_thought(self, part: Thinking, sealed: str) -> bytes:
        if part.redacted:
            return self._settle(sealed)
        start = b""
        if not self._begun:
            if not sealed:
                return b""
            self._part = part
            start, self._part = self._begin_words(), None
        if sealed:
            return start + self._sign(sealed)
        self._waiting = True
        return start

    def _goodbye(self) -> bytes:
        finish = self._finish or Finish(STOP)
        delta = _stop_reason(finish, calls=self._calls, refused=self._refused)
        usage = usage_value(self._usage, self._ask.pricer)
        ended = msgspec.json.encode({"type": "message_delta", "delta": delta, "usage": usage})
        if self._unread:
            self._ask.losses.of_answer("signature")
        out = self._opening() + self._settle("") + event("message_delta", ended)
        return out + event("message_stop", b'{"type":"message_stop"}')


def _failure(error: dict[str, Any]) -> bytes:
    """The provider's own error, in our words for its kind."""
    kind, status = error.get("type"), error.get("status")
    if kind not in _ERRORS:
        kind = TYPES.get(status, "api_error") if isinstance(status, int) else "api_error"
    message = str(error.get("message") or "The provider's answer ended in an error.")
    return event("error", msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}}))


_ERRORS = frozenset(TYPES.values()) | {"api_error"}
