"""Google's Gemini API (`generateContent`, `countTokens`) as a format: the names of `base.Format`.

Requests are read in `request_reader` and written in `request_writer`, answers in `answer_reader` and `answer_writer`;
`byte_relay` passes answers on to clients of the same format, `seals` keeps other models' signatures from the provider.
The model is not in the body but in the URL.
https://ai.google.dev/api/generate-content
"""

from io import StringIO
from typing import Any
from urllib.parse import quote

import msgspec

from proxy.formats.base import MOST_CHOICES, Ask, BadField, Edits, Error, Pricer, Prompt, missing
from proxy.formats.gemini.answer_reader import GeminiReader, read_answer
from proxy.formats.gemini.answer_writer import GeminiWriter, write_answer
from proxy.formats.gemini.byte_relay import GeminiStream, edit_answer
from proxy.formats.gemini.request_reader import (
    FIELDS,
    an_array,
    an_integer,
    an_object,
    camel,
    member,
    read_json,
    read_request,
)
from proxy.formats.gemini.request_writer import version_of, write_request
from proxy.formats.gemini.seals import without_seals
from proxy.formats.gemini.wire import NAME, error_object, framed_error, read_error
from proxy.formats.splice import Malformed, Members

__all__ = [
    "ENDPOINT",
    "FIELDS",
    "KEEPALIVE",
    "LEAST_OUTPUT",
    "NAME",
    "bounds",
    "check",
    "check_count",
    "choices",
    "count_answer",
    "count_body",
    "count_path",
    "count_prompt",
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

ENDPOINT = "gemini"
# google-genai takes a comment line for JSON and raises; empty lines both of Google's SDKs skip, and in an array they
# are white space.
KEEPALIVE = b"\n\n"
LEAST_OUTPUT = 1
_BOUND = "maxOutputTokens"
_decode = msgspec.json.decode
_encode = msgspec.json.encode
# --- what routing and metering need ----------------------------------------------------------------------------------


def check(members: Members) -> None:
    found = member(members, "contents")
    if found is None:
        raise missing("contents")
    for number, content in enumerate(an_array(read_json(found[1], "contents"), "contents")):
        an_object(content, f"contents[{number}]")
    _check_config(members)
    bounds(members)
    choices(members)


def _check_config(members: Members) -> None:
    """What is said twice, in one spelling or in both, would be bounded by one and answered by the other."""
    _check_once(members, "generationConfig")
    found = member(members, "generationConfig")
    if found is not None and found[1][:1] == b"{":
        try:
            config = Members(found[1])
            config.check()
        except Malformed as error:
            raise BadField(found[0], f"Invalid '{found[0]}': {error}.") from None
        for name in (_BOUND, "candidateCount"):
            _check_once(config, name)


def _check_once(members: Members, name: str) -> None:
    spelled = [each for each in members if camel(each) == name]
    if len(spelled) > 1:
        raise BadField(spelled[1], f"Invalid '{spelled[1]}': '{spelled[0]}' is here too.")


def bounds(members: Members) -> dict[str, float]:
    name = FIELDS["max_tokens"]
    limit = an_integer(_config(members).get(_BOUND) or 0, name)
    return {name: float(limit)} if limit >= 1 else {}


def _config(members: Members) -> dict[str, Any]:
    found = member(members, "generationConfig")
    return an_object(read_json(found[1], "generationConfig"), "generationConfig") if found is not None else {}


def least_output(_: Members, /) -> int:
    return LEAST_OUTPUT


def choices(members: Members) -> int:
    asked = an_integer(_config(members).get("candidateCount") or 1, "generationConfig.candidateCount")
    return min(max(1, asked), MOST_CHOICES)


def prompt(members: Members) -> Prompt:
    counted, text = Prompt(), StringIO()
    for name in ("systemInstruction", "contents"):
        found = member(members, name)
        for content in _contents(found[1]) if found is not None else ():
            counted.messages += 1
            parts = content.get("parts") if isinstance(content, dict) else None
            for part in parts if isinstance(parts, list) else [parts]:
                if isinstance(part, dict):
                    _count_part(part, counted, text)
            text.write("\n")
    counted.text = text.getvalue()
    return counted


def _contents(raw: bytes) -> list[Any]:
    """What is nested nearly too deeply to be read is sent on, so it is counted as it stands."""
    try:
        found = _decode(raw)
    except (RecursionError, msgspec.DecodeError):  # or holds a number with more digits than any reader takes
        return [{"parts": {"text": raw.decode()}}]
    return found if isinstance(found, list) else [found]


def _count_part(part: dict[str, Any], counted: Prompt, text: StringIO) -> None:
    for name, value in part.items():
        if isinstance(value, str):
            text.write(value if name == "text" else "")
        elif isinstance(value, dict) and "mimeType" not in value and "mime_type" not in value:
            text.write(_encode(value).decode())
        elif isinstance(value, dict):
            counted.images += str(value.get("mimeType") or value.get("mime_type")).startswith("image/")


def own_body(members: Members, edits: Edits) -> bytes:
    version = version_of(edits.model)
    values = without_seals(members, signed=version is None or version >= 3)
    if "model" in members:  # the URL's, once more
        values["model"] = _encode(_resource(edits.model))
    if edits.limit is None:
        return members.edit(values, edits.drop)
    found = member(members, "generationConfig")
    if found is not None:
        values[found[0]] = _bounded(*found, edits.limit)
        return members.edit(values, edits.drop)
    empty = frozenset(name for name in members if camel(name) == "generationConfig")
    return members.edit(values, edits.drop | empty, {"generationConfig": b'{"%b":%d}' % (_BOUND.encode(), edits.limit)})


def _bounded(name: str, text: bytes, limit: int) -> bytes:
    """The configuration with all bounds of the output at most `limit`, and with one."""
    try:
        config = Members(text)
        found = {key: an_integer(_decode(raw) or 0, key) for key, raw in config.items() if camel(key) == _BOUND}
        over = {key: b"%d" % limit for key, most in found.items() if not 1 <= most <= limit}
        return config.edit(over, add={} if found else {_BOUND: b"%d" % limit})
    except Malformed as error:
        raise BadField(name, f"Invalid '{name}': {error}.") from None


_RESOURCES = ("models/", "tunedModels/", "publishers/", "projects/", "endpoints/")
_VERTEX = ("publishers/", "projects/", "endpoints/")


def _resource(model: str) -> str:
    return model if model.startswith(_RESOURCES) else f"models/{model}"


def _url(model: str, method: str) -> str:
    """Vertex's resources are found under its own version."""
    version = "v1beta1" if model.startswith(_VERTEX) else "v1beta"
    return f"/{version}/{quote(_resource(model), safe='/@:')}:{method}"


def path(model: str, *, stream: bool) -> str:
    return _url(model, "streamGenerateContent?alt=sse" if stream else "generateContent")


# --- counting --------------------------------------------------------------------------------------------------------


def count_path(model: str) -> str:
    return _url(model, "countTokens")


def check_count(members: Members) -> None:
    """`contents`, or a whole request in `generateContentRequest`: https://ai.google.dev/api/tokens"""
    check(_inner(members)[1])


def count_prompt(members: Members) -> Prompt:
    return prompt(_inner(members)[1])


def count_body(members: Members, edits: Edits) -> bytes:
    name, inner = _inner(members)
    if not name:
        return own_body(members, edits)
    return members.edit({name: own_body(inner, edits)}, edits.drop)


def _inner(members: Members) -> tuple[str, Members]:
    found = member(members, "generateContentRequest")
    if found is None:
        return "", members
    try:
        return found[0], Members(found[1])
    except Malformed as error:
        raise BadField(found[0], f"Invalid '{found[0]}': {error}.") from None


def count_answer(tokens: int) -> bytes:
    return _encode({"totalTokens": tokens})


# --- the rest of the format ------------------------------------------------------------------------------------------


def relay(model: str, pricer: Pricer, ask_members: Members, *, framing: str) -> GeminiStream:
    return GeminiStream(model, pricer, framing)


def reader(seed: str) -> GeminiReader:
    return GeminiReader(seed)


def writer(ask: Ask) -> GeminiWriter:
    return GeminiWriter(ask)


def error_body(error: Error) -> bytes:
    return error_object(error)


def error_event(error: Error) -> bytes:
    return framed_error(error_object(error), "sse", first=True)
