"""OpenAI's Responses: https://platform.openai.com/docs/api-reference/responses. Called by `registry` and the endpoint.

Requests: `request_reader` and `request_writer`; answers: `answer_reader` and `answer_writer`; bytes that pass:
`byte_relay`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.formats.base import Ask, Edits, Error, Pricer, Prompt, missing, wrong
from proxy.formats.canonical import SEAL, unseal
from proxy.formats.lenient import UNREADABLE, objects, string
from proxy.formats.openai_responses.answer_reader import Reader, read_answer
from proxy.formats.openai_responses.answer_writer import Writer, write_answer
from proxy.formats.openai_responses.byte_relay import (
    NAME,
    Relay,
    edit_answer,
    error_frame,
    error_json,
    read_error,
    said,
    value,
)
from proxy.formats.openai_responses.request_reader import kind_of, read_request
from proxy.formats.openai_responses.request_writer import LEAST_OUTPUT, write_request
from proxy.formats.splice import Members

__all__ = [
    "ENDPOINT",
    "FIELDS",
    "KEEPALIVE",
    "LEAST_OUTPUT",
    "NAME",
    "bounds",
    "check",
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
    "reader",
    "relay",
    "write_answer",
    "write_request",
    "writer",
]

ENDPOINT = "responses"
KEEPALIVE = b": keep-alive\n\n"
FIELDS: Mapping[str, str] = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "output": "text.format",
    "verbosity": "text.verbosity",
    "cache_key": "prompt_cache_key",
    "logprobs": "include",
}

_CONTEXT = frozenset({"previous_response_id", "conversation", "prompt"})  # any of them stands in for `input`

# --- what routing and metering need ----------------------------------------------------------------------------------

_ITEMS = msgspec.json.Decoder(str | list[dict[str, msgspec.Raw]] | None)
_NUMBER = msgspec.json.Decoder(int | float | None)
_ELEMENT = re.compile(r"Expected `object`, got `(.*)` - at `\$\[(\d+)\]`")


def check(members: Members) -> None:
    if members.get("input", b"null") == b"null":
        if _CONTEXT.isdisjoint(members):
            raise missing("input")
        return
    try:
        found = _ITEMS.decode(members["input"])
    except msgspec.ValidationError as error:
        if element := _ELEMENT.fullmatch(str(error)):
            raise wrong(f"input[{element[2]}]", "an object", element[1]) from None
        raise wrong("input", "a string or an array of items", kind_of(value(members["input"]))) from None
    if found == [] and _CONTEXT.isdisjoint(members):
        raise wrong("input", "at least one item", "an empty array")


def bounds(members: Members) -> dict[str, float]:
    if "max_output_tokens" not in members:
        return {}
    try:
        most = _NUMBER.decode(members["max_output_tokens"]) or 0
    except msgspec.ValidationError:
        found = kind_of(value(members["max_output_tokens"]))
        raise wrong("max_output_tokens", "a number", found) from None
    return {"max_output_tokens": most} if most >= 1 else {}


def least_output(members: Members) -> int:
    return LEAST_OUTPUT


def choices(members: Members) -> int:
    return 1


def prompt(members: Members) -> Prompt:
    found = value(members.get("input", b"null"))
    items = [{"content": found}] if isinstance(found, str) else objects(found)
    counted = Prompt(string(value(members.get("instructions", b"null"))), len(items))
    pieces = [counted.text]
    for item in items:
        pieces.append(said([item]))
        for name in ("content", "output"):
            content = item.get(name)
            pieces.append(string(content))
            for part in objects(content):
                counted.images += part.get("type") == "input_image"
                if name == "output":
                    pieces.append(string(part.get("text")))
    counted.text = "\n".join(filter(None, pieces)) + members.get("tools", b"").decode()
    return counted


def own_body(members: Members, edits: Edits) -> bytes:
    values: dict[str, bytes] = {"model": msgspec.json.encode(edits.model)}
    if edits.limit is not None and edits.limit < bounds(members).get("max_output_tokens", math.inf):
        values["max_output_tokens"] = b"%d" % edits.limit
    if _SEALED in members.get("input", b""):
        values["input"] = _without_sealed(members["input"])
    add = {name: values.pop(name) for name in list(values) if name not in members}
    return members.edit(values, edits.drop, add)


class _Item(msgspec.Struct):
    encrypted_content: Any = None


_SEALED = SEAL.encode()
_raw_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_item = msgspec.json.Decoder(_Item).decode


def _without_sealed(text: bytes) -> bytes:
    """The items but for thoughts of another provider's format: OpenAI refuses what it has not encrypted itself."""
    try:
        items = [bytes(raw) for raw in _raw_items(text)]
        return b"[%b]" % b",".join([raw for raw in items if _SEALED not in raw or not _is_sealed(raw)])
    except UNREADABLE:  # a plain text that says the word, or what OpenAI is to judge
        return text


def _is_sealed(raw: bytes) -> bool:
    return unseal(string(_read_item(raw).encrypted_content)) is not None


def path(model: str, *, stream: bool) -> str:  # the same for all
    return "/responses"


# --- answers ---------------------------------------------------------------------------------------------------------


def relay(model: str, pricer: Pricer, ask_members: Members, *, framing: str) -> Relay:
    return Relay(model, pricer)


def reader(seed: str) -> Reader:
    return Reader(seed)


def writer(ask: Ask) -> Writer:
    return Writer(ask)


# --- errors ----------------------------------------------------------------------------------------------------------


def error_body(error: Error) -> bytes:
    return msgspec.json.encode({"error": error_json(error)})


def error_event(error: Error) -> bytes:
    return error_frame(error_json(error), 0)
