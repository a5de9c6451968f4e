"""Requests in Anthropic's Messages: read into the canonical form, or sent on but for the permitted edits.

What only this format has stays whole beside what others can say of it (`OwnMedia`, `OwnCall`, `OwnReasoning`), or is
`Opaque`, so that `anthropic_messages.request_writer` gives the same blocks again. Called by `anthropic_messages`.
Fields: https://platform.claude.com/docs/en/api/messages/create
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import msgspec

from proxy.formats.anthropic_messages.byte_relay import NAME
from proxy.formats.anthropic_messages.seals import without_seals
from proxy.formats.anthropic_messages.unread import DIRECT, OF_ANY, READ, unread_blocks, unread_of_messages
from proxy.formats.base import BadField, Edits, Prompt, missing, wrong
from proxy.formats.canonical import (
    Citation,
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    unseal,
)
from proxy.formats.lenient import value
from proxy.formats.reasoning import LEAST
from proxy.formats.splice import Members

FIELDS: Mapping[str, str] = {
    "stop": "stop_sequences",
    "reasoning": "thinking",
    "output": "output_config.format",
    "user": "metadata.user_id",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}


@dataclass(slots=True)
class OwnMedia(Media):
    """A block that says more than its media (a search result, a document made of blocks): `raw`."""

    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class OwnCall(ToolCall):
    """A call with members of its own (who called it, of which toolset it is): `raw`."""

    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class OwnReasoning(Reasoning):
    """`thinking` and `effort` as the client wrote them: effort also counts where nothing is thought."""

    thinking: dict[str, Any] | None = None
    said_effort: str = ""


DEFAULT_LIFETIME = "5m"  # of what a breakpoint caches


_SHORT = 100  # bytes: an array that is longer holds something

# --- the same format -------------------------------------------------------------------------------------------------


def check(members: Members) -> None:
    """Anthropic's own API refuses a request without `max_tokens`, too."""
    check_count(members)
    if "max_tokens" not in members:
        raise missing("max_tokens")


def check_count(members: Members) -> None:
    """For counting alone, nothing bounds the output."""
    if "messages" not in members:
        raise missing("messages")
    messages = members["messages"]
    if messages[:1] != b"[":
        raise wrong("messages", "an array", _kind(_decoded(members, "messages")))
    if len(messages) < _SHORT and not messages[1:-1].strip():
        raise BadField("messages", "Invalid 'messages': at least one message is required.")


def bounds(members: Members) -> dict[str, float]:
    if "max_tokens" not in members:
        return {}
    most = _whole(_decoded(members, "max_tokens"), "max_tokens")
    return {"max_tokens": most} if most >= 0 else {}  # 0 fills the cache, and says nothing


def least_output(members: Members) -> int:
    """A thinking budget must be under `max_tokens`."""
    budget = _thinking(members).get("budget_tokens")
    return budget + 1 if type(budget) is int and budget > 0 else 1


def _thinking(members: Members) -> dict[str, Any]:
    found = value(members.get("thinking", b"null"))
    return found if isinstance(found, dict) else {}


def own_body(members: Members, edits: Edits) -> bytes:
    model = {"model": msgspec.json.encode(edits.model)}
    values = without_seals(members, edits.quirks) | (model if "model" in members else {})
    add = {} if "model" in members else model
    if edits.limit is not None:
        values = _clamped(members, edits.limit) | values
        if "max_tokens" in values and "max_tokens" not in members:
            add["max_tokens"] = values.pop("max_tokens")
    return members.edit(values, edits.drop, add)


def _clamped(members: Members, limit: int) -> dict[str, bytes]:
    """A thinking budget must be under `max_tokens`: it shrinks with it."""
    asked = bounds(members).get("max_tokens", math.inf)
    if asked <= limit:
        return {}
    values = {"max_tokens": b"%d" % limit}
    thinking = _thinking(members)
    budget = thinking.get("budget_tokens")
    if type(budget) is int and budget >= limit:
        spend = {**thinking, "budget_tokens": max(LEAST, int(budget * limit / asked))}
        values["thinking"] = msgspec.json.encode(spend if limit > LEAST else {"type": "disabled"})
    return values


def prompt(members: Members) -> Prompt:
    """Read leniently: a request of the same format is sent on whatever it holds."""
    text, found = StringIO(), Prompt()
    _gather(value(members.get("system", b"null")), text, found)
    for message in value(members["messages"]) or ():
        if isinstance(message, dict):
            found.messages += 1
            _gather(message.get("content"), text, found)
            text.write("\n")
    text.write(members.get("tools", b"").decode(errors="replace"))
    found.text = text.getvalue()
    return found


def _gather(content: Any, text: StringIO, found: Prompt) -> None:
    if isinstance(content, str):
        text.write(content)
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        for name in ("text", "thinking", "name", "title", "context"):
            if isinstance(said := block.get(name), str):
                text.write(said)
        if isinstance(given := block.get("input"), dict):
            text.write(msgspec.json.encode(given).decode())
        source = block.get("source")
        if isinstance(source, dict):
            found.images += block.get("type") == "image"
            if source.get("type") == "text":
                _gather(source.get("data"), text, found)
            _gather(source.get("content"), text, found)
        _gather(block.get("content"), text, found)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_request(members: Members) -> Request:
    try:
        return _request(members)
    except RecursionError:
        raise BadField("messages", "The request is nested too deeply.") from None


def _request(members: Members) -> Request:
    found = {name: _decoded(members, name) for name in members if name != "model"}
    unread = unread_blocks(found.get("system"), "system") | unread_of_messages(found.get("messages"))
    request = Request(_system(found.pop("system", None)) + _messages(found.pop("messages", None)))
    for name, kind in _NUMBERS.items():
        if (number := found.pop(name, None)) is not None:
            setattr(request, name, kind(number, name))
    request.stop = [_string(each, f"stop_sequences[{n}]") for n, each in _each(found, "stop_sequences")]
    request.tools = [_tool(each, f"tools[{n}]") for n, each in _each(found, "tools")]
    request.stream = bool(_flag(found.pop("stream", None), "stream"))
    if (tier := found.pop("service_tier", None)) is not None:
        request.service_tier = _string(tier, "service_tier")
    _choose(request, found.pop("tool_choice", None))
    _read_metadata(request, found.pop("metadata", None))
    _read_output(request, found)
    request.extra = {name: said for name, said in found.items() if said is not None} | unread
    return request


def _decoded(members: Members, name: str) -> Any:
    try:
        return msgspec.json.decode(members[name])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadField(name, f"'{name}' cannot be read: {error}.") from None


def _each(found: dict[str, Any], name: str) -> list[tuple[int, Any]]:
    said = found.pop(name, None)
    return [] if said is None else list(enumerate(_list(said, name)))


def _kind(said: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "true or false"}
    return "null" if said is None else kinds.get(type(said), "a number")


def _object(said: Any, at: str) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise wrong(at, "an object", _kind(said))
    return said


def _list(said: Any, at: str) -> list[Any]:
    if not isinstance(said, list):
        raise wrong(at, "an array", _kind(said))
    return said


def _string(said: Any, at: str) -> str:
    if not isinstance(said, str):
        raise wrong(at, "a string", _kind(said))
    return said


def _flag(said: Any, at: str) -> bool | None:
    if said is not None and not isinstance(said, bool):
        raise wrong(at, "true or false", _kind(said))
    return said


def _whole(said: Any, at: str) -> int:
    if type(said) is not int:
        raise wrong(at, "a whole number", _kind(said))
    return said


def _number(said: Any, at: str) -> float:
    if type(said) not in (int, float):
        raise wrong(at, "a number", _kind(said))
    return float(said)


_NUMBERS = {"max_tokens": _whole, "temperature": _number, "top_p": _number, "top_k": _whole}


def _said(block: dict[str, Any], name: str, at: str) -> str:
    """A member that is there, and a string."""
    if name not in block:
        raise missing(f"{at}.{name}")
    return _string(block[name], f"{at}.{name}")


def _maybe(block: dict[str, Any], name: str, at: str) -> str:
    said = block.get(name)
    return "" if said is None else _string(said, f"{at}.{name}")


def _cache(block: dict[str, Any], at: str) -> str:
    control = block.get("cache_control")
    if control is None:
        return ""
    return _maybe(_object(control, f"{at}.cache_control"), "ttl", f"{at}.cache_control") or DEFAULT_LIFETIME


def _system(said: Any) -> list[Message]:
    if said is None or said in ("", []):
        return []
    if isinstance(said, str):
        return [Message("system", [Text(said, at="system")], at="system")]
    return [Message("system", _parts(said, "system"), at="system")]


def _messages(said: Any) -> list[Message]:
    if said is None:
        raise missing("messages")
    joined: list[Message] = []
    found = _list(said, "messages")
    users = (n for n in range(len(found) - 1, -1, -1) if isinstance(found[n], dict) and found[n].get("role") == "user")
    last_user = next(users, -1)
    for number, each in enumerate(found):
        message = _message(each, f"messages[{number}]")
        cleared = each.get("clear_at") == "next_user_message" and number < last_user  # the model sees it no more
        if message.role == "system" and (cleared or not message.parts):
            continue
        if joined and message.role == joined[-1].role == "assistant":
            joined[-1].parts += message.parts  # one turn to the API, with one set of calls and results
        else:
            joined.append(message)
    return joined


def _message(said: Any, at: str) -> Message:
    message = _object(said, at)
    role = _said(message, "role", at)
    if role not in ("user", "assistant", "system"):
        raise BadField(f"{at}.role", f"Invalid '{at}.role': expected user, assistant or system, found {role!r}.")
    if "content" not in message:
        if role == "system" and message.get("output_config"):  # it changes the effort, and says nothing
            return Message(role, [], at=at)
        raise missing(f"{at}.content")
    return Message(role, _content(message["content"], f"{at}.content"), at=at)


def _content(said: Any, at: str) -> list[Part]:
    return [Text(said, at=at)] if isinstance(said, str) else _parts(said, at)


def _parts(said: Any, at: str) -> list[Part]:
    return [_part(_object(each, f"{at}[{n}]"), f"{at}[{n}]") for n, each in enumerate(_list(said, at))]


def _part(block: dict[str, Any], at: str) -> Part:
    kind = _said(block, "type", at)
    read = _READERS.get(kind)
    part = read(block, at) if read is not None else Opaque(kind, block, origin=NAME)
    part.at, part.cache = at, _cache(block, at)
    return part


def _text_part(block: dict[str, Any], at: str) -> Part:
    found = block.get("citations")
    cited = [] if found is None else _list(found, f"{at}.citations")
    citations = [read_citation(_object(each, f"{at}.citations[{n}]")) for n, each in enumerate(cited)]
    return Text(_said(block, "text", at), citations)


def read_citation(raw: dict[str, Any]) -> Citation:
    """Where a document is cited, the places are the document's, not the text's: only `raw` keeps them."""

    def text(*names: str) -> str:
        return next((said for name in names if isinstance(said := raw.get(name), str)), "")

    return Citation(
        url=text("url", "source"),
        title=text("title", "document_title"),
        quote=text("cited_text"),
        file_id=text("file_id"),
        origin=NAME,
        raw=raw,
    )


def _source(block: dict[str, Any], at: str) -> tuple[dict[str, Any], str]:
    if "source" not in block:
        raise missing(f"{at}.source")
    return _object(block["source"], f"{at}.source"), f"{at}.source"


def _media(block: dict[str, Any], at: str, kind: str) -> Media:
    source, path = _source(block, at)
    form = _said(source, "type", path)
    media_type = _maybe(source, "media_type", path)
    match form:
        case "base64":
            return Media(kind, media_type, data=_said(source, "data", path))
        case "url":
            pdf = "application/pdf" if kind == "file" else ""
            return Media(kind, media_type or pdf, url=_said(source, "url", path))
        case "file":
            return Media(kind, media_type, file_id=_said(source, "file_id", path), origin=NAME)
        case "text" if kind == "file":
            return Media(kind, media_type or "text/plain", text=_said(source, "data", path))
        case "content" if kind == "file":
            return OwnMedia(kind, "text/plain", text=_run_together(source.get("content"), f"{path}.content"), raw=block)
    raise BadField(f"{path}.type", f"Invalid '{path}.type': unknown source {form!r}.")


def _run_together(said: Any, at: str) -> str:
    return "\n\n".join(part.text for part in _content(said, at) if isinstance(part, Text))


def _image(block: dict[str, Any], at: str) -> Part:
    image = _media(block, at, "image")
    if not block.get("transformations"):
        return image
    return OwnMedia("image", image.media_type, image.data, image.url, image.file_id, origin=image.origin, raw=block)


def _document(block: dict[str, Any], at: str) -> Part:
    media = _media(block, at, "file")
    media.name, media.context = _maybe(block, "title", at), _maybe(block, "context", at)
    media.cite = _cited(block, at)
    return media


def _cited(block: dict[str, Any], at: str) -> bool | None:
    config = block.get("citations")
    return (
        None if config is None else _flag(_object(config, f"{at}.citations").get("enabled"), f"{at}.citations.enabled")
    )


def _search_result(block: dict[str, Any], at: str) -> Part:
    text = _run_together(block.get("content"), f"{at}.content")
    source, title = _said(block, "source", at), _maybe(block, "title", at)
    return OwnMedia("file", "text/plain", text=text, name=title, context=source, cite=_cited(block, at), raw=block)


def _tool_use(block: dict[str, Any], at: str) -> Part:
    given = _object(block.get("input", {}), f"{at}.input")
    call = (_said(block, "id", at), _said(block, "name", at), msgspec.json.encode(given).decode())
    known = READ["tool_use"] | OF_ANY
    own = {name: said for name, said in block.items() if name not in known and said not in (None, DIRECT)}
    return OwnCall(*call, raw=own) if own else ToolCall(*call)


def _tool_result(block: dict[str, Any], at: str) -> Part:
    content = block.get("content")
    parts = [] if content is None else _content(content, f"{at}.content")
    failed = _flag(block.get("is_error"), f"{at}.is_error") is True
    return ToolResult(_said(block, "tool_use_id", at), parts, is_error=failed)


def _thinking_part(block: dict[str, Any], at: str) -> Part:
    signature, origin = _unsealed(_maybe(block, "signature", at))
    return Thinking(_said(block, "thinking", at), signature=signature, origin=origin)


def _redacted_part(block: dict[str, Any], at: str) -> Part:
    signature, origin = _unsealed(_said(block, "data", at))
    return Thinking(redacted=True, signature=signature, origin=origin)


def _unsealed(text: str) -> tuple[str, str]:
    found = unseal(text)
    if found is not None:
        return found[1], found[0]
    return text, NAME if text else ""


_READERS = {
    "text": _text_part,
    "image": _image,
    "document": _document,
    "search_result": _search_result,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking_part,
    "redacted_thinking": _redacted_part,
}


def _tool(said: Any, at: str) -> Tool:
    tool = _object(said, at)
    kind = _maybe(tool, "type", at)
    if kind not in ("", "custom"):
        return Tool(_maybe(tool, "name", at), kind="server", cache=_cache(tool, at), origin=NAME, raw=tool, at=at)
    if "input_schema" not in tool:
        raise missing(f"{at}.input_schema")
    own = {name: given for name, given in tool.items() if name not in _TOOL and given is not None}
    return Tool(
        _said(tool, "name", at),
        _maybe(tool, "description", at),
        _object(tool["input_schema"], f"{at}.input_schema"),
        _flag(tool.get("strict"), f"{at}.strict"),
        cache=_cache(tool, at),
        origin=NAME,
        raw=own,
        at=at,
    )


_TOOL = frozenset({"type", "name", "description", "input_schema", "strict", "cache_control"})
_CHOICES = {"auto": "auto", "any": "required", "tool": "tool", "none": "none"}


def _choose(request: Request, said: Any) -> None:
    if said is None:
        return
    choice = _object(said, "tool_choice")
    kind = _said(choice, "type", "tool_choice")
    if kind not in _CHOICES:
        raise BadField(
            "tool_choice.type", f"Invalid 'tool_choice.type': expected auto, any, tool or none, found {kind!r}."
        )
    name = _said(choice, "name", "tool_choice") if kind == "tool" else ""
    request.tool_choice = ToolChoice(_CHOICES[kind], name)
    one = _flag(choice.get("disable_parallel_tool_use"), "tool_choice.disable_parallel_tool_use")
    request.parallel_tool_calls = None if one is None else not one


def _read_metadata(request: Request, said: Any) -> None:
    if said is None:
        return
    metadata = _object(said, "metadata")
    request.user = _maybe(metadata, "user_id", "metadata")
    request.metadata = {name: given for name, given in metadata.items() if name != "user_id"} or None


def _read_output(request: Request, found: dict[str, Any]) -> None:
    """`output_format` is the name that `output_config.format` had as a beta."""
    said = found.pop("output_config", None)
    config = {} if said is None else dict(_object(said, "output_config"))
    at, form = "output_config.format", config.pop("format", None)
    if form is None:
        at, form = "output_format", found.pop("output_format", None)
    if form is not None:
        if _said(_object(form, at), "type", at) != "json_schema":
            raise BadField(f"{at}.type", f"Invalid '{at}.type': expected json_schema, found {form['type']!r}.")
        request.output = Output("json_schema", _object(form.get("schema"), f"{at}.schema"))
    effort = _maybe(config, "effort", "output_config")
    config.pop("effort", None)
    if config:
        found["output_config"] = config
    request.reasoning = _reasoning(found.pop("thinking", None), effort, found)


def _reasoning(said: Any, effort: str, found: dict[str, Any]) -> Reasoning | None:
    if said is None:
        return OwnReasoning(effort=effort, said_effort=effort) if effort else None
    thinking = _object(said, "thinking")
    kind = _said(thinking, "type", "thinking")
    reasoning = OwnReasoning(thinking=thinking, said_effort=effort)
    match kind:
        case "enabled":
            reasoning.enabled, reasoning.effort = True, effort
            if "budget_tokens" not in thinking:
                raise missing("thinking.budget_tokens")
            reasoning.budget = _whole(thinking["budget_tokens"], "thinking.budget_tokens")
        case "adaptive":
            reasoning.adaptive, reasoning.effort = True, effort
        case "disabled":
            reasoning.enabled = False
        case "between_tools":  # not before the first of them
            reasoning.enabled = False
            found["thinking.type"] = kind
        case _:
            raise BadField("thinking.type", f"Invalid 'thinking.type': {kind!r} is not known.")
    if display := _maybe(thinking, "display", "thinking"):
        reasoning.visible = display != "omitted"
    found.update({f"thinking.{name}": more for name, more in thinking.items() if name not in _THINKING and more})
    return reasoning


_THINKING = frozenset({"type", "budget_tokens", "display"})


# --- IDs and arguments -----------------------------------------------------------------------------------------------

_ODD = re.compile(r"[^a-zA-Z0-9_-]")


def tool_id(identifier: str) -> str:
    """As Anthropic takes it (`^[a-zA-Z0-9_-]+$`); always the same for the same, so that call and result still match."""
    if identifier and _ODD.search(identifier) is None:
        return identifier
    mark = hashlib.blake2s(identifier.encode(errors="replace"), digest_size=6).hexdigest()
    return f"{_ODD.sub('_', identifier) or 'toolu'}_{mark}"


def arguments_object(text: str) -> tuple[dict[str, Any], bool]:
    """A call's input, which must be an object; False where the arguments are none.

    Broken ones are wrapped as Anthropic advises: https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
    """
    if not text.strip():
        return {}, True
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {"INVALID_JSON": text}, False
    if isinstance(found, dict):
        return found, True
    return ({}, True) if found is None else ({"INVALID_JSON": text}, False)
