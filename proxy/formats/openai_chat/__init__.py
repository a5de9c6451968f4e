"""OpenAI's chat completions: the names of `base.Format`. https://platform.openai.com/docs/api-reference/chat

Here is what routing and metering ask of a request, and its bytes for a provider of the same format. The rest stands in
files of its own: `openai_chat.byte_relay` (answers of the same format), `…_request_reader`, `…_request_writer`,
`…_answer_reader`, `…_answer_writer` (from and to the canonical form), `…_wire` (errors, usage, reasons to end).
"""

import math
import re
from collections.abc import Mapping
from io import StringIO
from typing import Any

import msgspec

from proxy.formats.base import MOST_CHOICES, BadField, Edits, Pricer, Prompt, missing, wrong
from proxy.formats.lenient import UNREADABLE, value
from proxy.formats.openai_chat.answer_reader import read_answer, reader
from proxy.formats.openai_chat.answer_writer import write_answer, writer
from proxy.formats.openai_chat.byte_relay import ChatStream, edit_answer, said_in_message, write_strings
from proxy.formats.openai_chat.request_reader import kind_of, read_request
from proxy.formats.openai_chat.request_writer import (
    MAX_COMPLETION_TOKENS,
    NO_STREAM_OPTIONS,
    QUIRKS,
    write_request,
)
from proxy.formats.openai_chat.wire import NAME, error_body, error_event, read_error, read_usage
from proxy.formats.splice import Malformed, Members

__all__ = [
    "ENDPOINT",
    "FIELDS",
    "KEEPALIVE",
    "LEAST_OUTPUT",
    "NAME",
    "QUIRKS",
    "ChatStream",
    "bounds",
    "check",
    "check_stream_options",
    "choices",
    "edit_answer",
    "error_body",
    "error_event",
    "least_output",
    "own_body",
    "path",
    "prompt",
    "read_answer",
    "read_error",
    "read_request",
    "read_usage",
    "reader",
    "relay",
    "write_answer",
    "write_request",
    "writer",
]

ENDPOINT = "chat"
FIELDS: Mapping[str, str] = {
    "reasoning": "reasoning_effort",
    "output": "response_format",
    "cache_key": "prompt_cache_key",
}
KEEPALIVE = b": keep-alive\n\n"
LEAST_OUTPUT = 1
_BOUNDS = ("max_completion_tokens", "max_tokens")
_CHOICES = ("n", "best_of")
_ASK = b'{"include_usage":true}'


class _Message(msgspec.Struct):
    """An object; what is in it is the provider's to judge."""


_FLAG = msgspec.json.Decoder(bool | None)
_NUMBER = msgspec.json.Decoder(int | float | None)
_OBJECT = msgspec.json.Decoder(dict[str, Any] | None)
_MESSAGES = msgspec.json.Decoder(list[_Message])
_ELEMENT = re.compile(r"Expected `object`, got `(.*)` - at `\$\[(\d+)\]`")


def check(members: Members, /) -> None:
    """Raises `BadField`."""
    if "messages" not in members:
        raise missing("messages")
    if not _read(members, "messages", _MESSAGES, "an array of messages"):
        raise wrong("messages", "at least one message", "an empty array")
    check_stream_options(members)
    choices(members)


def check_stream_options(members: Members, /) -> None:
    """Of a stream, for `include_usage` is read in it and may be put into it. Raises `BadField`."""
    if "stream_options" not in members or not _streamed(members):
        return
    options = _read(members, "stream_options", _OBJECT, "an object") or {}
    asked = options.get("include_usage")
    if asked is not None and not isinstance(asked, bool):
        raise wrong("stream_options.include_usage", "true or false", "something else")
    if options:
        try:
            Members(members["stream_options"]).check()
        except Malformed as error:
            raise wrong("stream_options", "each field once", str(error)) from None


def _streamed(members: Members) -> bool:
    return "stream" in members and bool(_read(members, "stream", _FLAG, "true or false"))


def bounds(members: Members, /) -> dict[str, float]:
    """Raises `BadField`."""
    found = {name: _read(members, name, _NUMBER, "a number") or 0 for name in _BOUNDS if name in members}
    return {name: most for name, most in found.items() if most >= 1}


def least_output(_: Members, /) -> int:
    return LEAST_OUTPUT


def choices(members: Members, /) -> int:
    """Raises `BadField`."""
    found = [_read(members, name, _NUMBER, "a number") or 1 for name in _CHOICES if name in members]
    return math.ceil(min(max([1, *found]), MOST_CHOICES)) if found else 1


def _read(members: Members, name: str, decoder: msgspec.json.Decoder[Any], words: str) -> Any:
    try:
        return decoder.decode(members[name])
    except msgspec.ValidationError as error:
        if element := _ELEMENT.fullmatch(str(error)):
            raise wrong(f"{name}[{element[2]}]", "an object", element[1]) from None
        raise wrong(name, words, kind_of(value(members[name]))) from None
    except UNREADABLE as error:
        raise BadField(name, f"'{name}' cannot be read: {error}.", "invalid_json") from None


def prompt(members: Members, /) -> Prompt:
    """The text of the messages and the tools."""
    text, found = StringIO(), Prompt()
    messages = value(members.get("messages", b"[]"))
    if messages is None:  # nested nearly too deeply: sent on, so counted as it stands
        return Prompt(members["messages"].decode(errors="replace"), 1)
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            found.messages += 1
            found.images += _count_message(text, message)
    for name in ("tools", "functions"):
        if name in members:
            text.write(members[name].decode())
    found.text = text.getvalue()
    return found


def _count_message(text: StringIO, message: dict[str, Any]) -> int:
    """Writes what it says; its images come back."""
    content, images = message.get("content"), 0
    write_strings(text, message.get("name"), content if isinstance(content, str) else None)
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            write_strings(text, part.get("text"))
            images += part.get("type") == "image_url"
    said_in_message(text, message)
    text.write("\n")
    return images


def own_body(members: Members, edits: Edits, /) -> bytes:
    """The permitted edits: `model`, the gateway's own fields taken out, usage asked for, the output limit enforced."""
    values: dict[str, bytes] = {}
    add: dict[str, bytes] = {}
    drop = edits.drop
    (values if "model" in members else add)["model"] = msgspec.json.encode(edits.model)
    if edits.stream and NO_STREAM_OPTIONS not in edits.quirks and not _usage_asked(members):
        (values if "stream_options" in members else add)["stream_options"] = _ask_for_usage(members)
    if edits.limit is not None:
        limit, found = b"%d" % edits.limit, bounds(members)
        values.update({name: limit for name, most in found.items() if most > edits.limit})
        drop |= {name for name in _BOUNDS if name in members and name not in found}
        if not found:
            newer = MAX_COMPLETION_TOKENS in edits.quirks or "max_completion_tokens" in members
            add["max_completion_tokens" if newer else "max_tokens"] = limit
    return members.edit(values, drop, add)


def _usage_asked(members: Members) -> bool:
    if "stream_options" not in members:
        return False
    return bool((_read(members, "stream_options", _OBJECT, "an object") or {}).get("include_usage"))


def _ask_for_usage(members: Members) -> bytes:
    raw = members.get("stream_options", b"null")
    if raw == b"null":
        return _ASK
    options = Members(raw)
    if "include_usage" in options:
        return options.edit({"include_usage": b"true"})
    return options.edit({}, add={"include_usage": b"true"})


def path(_: str, /, *, stream: bool) -> str:  # the same for both
    return "/chat/completions"


def relay(model: str, pricer: Pricer, ask_members: Members, /, *, framing: str) -> ChatStream:
    return ChatStream(model, hold_usage=not _usage_asked(ask_members), pricer=pricer)
