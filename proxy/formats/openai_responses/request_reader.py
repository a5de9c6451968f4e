"""OpenAI's Responses requests, read into the canonical form. Called by `openai_responses`.

Fields and items: https://platform.openai.com/docs/api-reference/responses/create
"""

import mimetypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from proxy.formats.base import BadField, missing, wrong
from proxy.formats.canonical import (
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    unseal,
)
from proxy.formats.data_url import read_url
from proxy.formats.lenient import objects, string
from proxy.formats.openai_responses.answer_reader import flat_name, image_of, pack, read_citation, reasoning_text
from proxy.formats.openai_responses.byte_relay import NAME, value
from proxy.formats.splice import Members

# What the gateway itself stands in for before a request is read; only OpenAI has the rest of it.
_HELD = {
    "previous_response_id": "the responses of another provider are not known here",
    "conversation": "conversations are kept by the provider that made them",
    "prompt": "prompt templates are kept by the provider that made them",
    "background": "responses in the background are made by OpenAI alone",
}

ENCRYPTED, LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"
# Whose thoughts come as plain words, and go back so: those of OpenAI chat's providers (`reasoning_content`).
PLAIN = "openai_chat"


_WORDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
}


def kind_of(found: Any) -> str:
    return "null" if found is None else _WORDS.get(type(found), "something else")


def _take(found: dict[str, Any], name: str, kind: type, path: str = "") -> Any:
    """A member, taken out. None where it is not there, or null. Raises `BadField` for another type."""
    given = found.pop(name, None)
    if given is None or type(given) is kind or (kind is float and type(given) is int):
        return given
    raise wrong(f"{path}{name}", _WORDS[kind], kind_of(given))


def _need(found: dict[str, Any], name: str, kind: type, path: str) -> Any:
    given = _take(found, name, kind, path)
    if given is None:
        raise missing(f"{path}{name}")
    return given


def _list(found: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects, as copies that can be taken apart."""
    given = _take(found, name, list) or []
    for number, one in enumerate(given):
        if not isinstance(one, dict):
            raise wrong(f"{name}[{number}]", "an object", kind_of(one))
    return [{**one} for one in given]


class Extra(dict[str, Any]):
    """`Request.extra` of a request in this format: another's fields may have the same names and mean something else."""


def read_request(members: Members) -> Request:
    found: dict[str, Any] = value(members.text)
    for name, why in _HELD.items():
        if found.pop(name, None):
            message = f"'{name}' cannot be used with this model: {why}."
            raise BadField(name, message, "unsupported_parameter")
    request = Request([], extra=Extra())
    found.pop("model", None)
    request.stream = bool(_take(found, "stream", bool))
    instructions = found.pop("instructions", None)
    if isinstance(instructions, list):
        _read_items(instructions, "instructions", request)
    elif instructions is not None:
        text = _take({"instructions": instructions}, "instructions", str)
        request.messages.append(Message("system", [Text(text, at="instructions")], at="instructions"))
    tools = _list(found, "tools")
    request.tools = [one for number, tool in enumerate(tools) for one in _read_tool(tool, f"tools[{number}]", request)]
    given = found.pop("input", None)
    if isinstance(given, str):
        request.messages.append(Message("user", [Text(given, at="input")], at="input"))
    else:
        _read_items(given or [], "input", request)
    _read_fields(found, request)
    request.extra.update({name: left for name, left in found.items() if left is not None})
    return request


def _read_fields(found: dict[str, Any], request: Request) -> None:
    request.max_tokens = _take(found, "max_output_tokens", int)
    request.temperature = _take(found, "temperature", float)
    request.top_p = _take(found, "top_p", float)
    request.parallel_tool_calls = _take(found, "parallel_tool_calls", bool)
    request.service_tier = _take(found, "service_tier", str) or ""
    request.user = _take(found, "user", str) or ""
    request.metadata = _take(found, "metadata", dict)
    request.cache_key = _take(found, "prompt_cache_key", str) or ""
    request.store = _take(found, "store", bool)
    include = _take(found, "include", list) or []
    _read_reasoning(found, request, encrypted=ENCRYPTED in include)
    if LOGPROBS in include:
        request.logprobs = True
        request.top_logprobs = _take(found, "top_logprobs", int)
    elif not found.get("top_logprobs"):
        found.pop("top_logprobs", None)
    if more := [one for one in include if one not in (ENCRYPTED, LOGPROBS)]:
        found["include"] = more
    if found.get("truncation") == "disabled":  # which it is everywhere
        del found["truncation"]
    _read_output(found, request)
    if "tool_choice" in found:
        _read_choice(found, request)


def _read_reasoning(found: dict[str, Any], request: Request, *, encrypted: bool) -> None:
    given = _take(found, "reasoning", dict)
    if given is None:
        request.reasoning = Reasoning(encrypted=True) if encrypted else None
        return
    given = {**given}
    effort = _take(given, "effort", str, "reasoning.") or ""
    summary = _take(given, "summary", str, "reasoning.") or ""
    summary = summary or _take(given, "generate_summary", str, "reasoning.") or ""
    visible = True if summary else None
    asked = Reasoning(effort, visible=visible, summary=summary, encrypted=encrypted)
    request.reasoning = None if asked == Reasoning() else asked
    request.extra.update({f"reasoning.{name}": left for name, left in given.items() if left is not None})


def _read_output(found: dict[str, Any], request: Request) -> None:
    text = {**(_take(found, "text", dict) or {})}
    request.verbosity = _take(text, "verbosity", str, "text.") or ""
    form = _take(text, "format", dict, "text.")
    request.extra.update({f"text.{name}": left for name, left in text.items() if left is not None})
    if form is None:
        return
    form, where = {**form}, "text.format."
    kind = _need(form, "type", str, where)
    if kind not in ("text", "json_object", "json_schema"):
        raise wrong(f"{where}type", "text, json_object or json_schema", repr(kind))
    request.output = output = Output(kind)
    if kind == "json_schema":
        output.name = _need(form, "name", str, where)
        output.schema = _need(form, "schema", dict, where)
        output.description = _take(form, "description", str, where) or ""
        output.strict = _take(form, "strict", bool, where)


def _read_choice(found: dict[str, Any], request: Request) -> None:
    """What cannot be said by a mode stays in `extra`: a tool of the provider's own."""
    given = found["tool_choice"]
    if isinstance(given, str):
        if given not in ("auto", "none", "required"):
            raise wrong("tool_choice", "auto, none, required or an object", repr(given))
        request.tool_choice = ToolChoice(given)
    elif isinstance(given, dict):
        kind = given.get("type")
        if kind in ("function", "custom"):
            name = _need({**given}, "name", str, "tool_choice.")
            request.tool_choice = ToolChoice("tool", _full_name(name, given, _flat_names(request)))
        elif kind == "allowed_tools" or (kind is None and "tools" in given):
            request.tool_choice = _read_allowed(given, request)
        if request.tool_choice is None:
            return
    elif given is not None:
        raise wrong("tool_choice", "a string or an object", kind_of(given))
    del found["tool_choice"]


def _read_allowed(given: dict[str, Any], request: Request) -> ToolChoice | None:
    listed = objects(given.get("tools"))
    if any(tool.get("type") not in ("function", "custom") for tool in listed):
        return None
    flat = _flat_names(request)
    names = tuple(_full_name(string(tool.get("name")), tool, flat) for tool in listed)
    return ToolChoice("required" if given.get("mode") == "required" else "auto", allowed=names)


def _full_name(name: str, given: dict[str, Any], flat: dict[str, str]) -> str:
    if namespace := string(given.get("namespace")):
        return flat_name(namespace, name)
    return flat.get(name, name)


def _flat_names(request: Request) -> dict[str, str]:
    """What a function of a namespace is called here, by its own name; a tool that has the name itself comes first."""
    inner = {string(tool.raw.get("name")): tool.name for tool in reversed(request.tools) if "namespace" in tool.raw}
    return inner | {tool.name: tool.name for tool in request.tools}


def _read_tool(tool: dict[str, Any], at: str, request: Request) -> list[Tool]:
    kind = _need(tool, "type", str, f"{at}.")
    if kind == "namespace":
        return _read_namespace(tool, at, request)
    if kind not in ("function", "custom"):
        raw = {"type": kind, **tool}
        name = string(tool.get("server_label")) or kind
        return [Tool(name, kind="server", origin=NAME, raw=raw, at=at)]
    read = Tool(_need(tool, "name", str, f"{at}."), kind=kind, origin=NAME, at=at)
    read.description = _take(tool, "description", str, f"{at}.") or ""
    if kind == "function":
        read.schema = _take(tool, "parameters", dict, f"{at}.")
        read.strict = _take(tool, "strict", bool, f"{at}.")  # left out: the API makes the schema strict if it can
    elif (form := _take(tool, "format", dict, f"{at}.")) and form.get("type") != "text":
        read.grammar = form
    left = {name: one for name, one in tool.items() if one not in (None, False)}
    request.extra.update({f"{at}.{name}": one for name, one in left.items()})
    read.raw = left
    return [read]


def _read_namespace(tool: dict[str, Any], at: str, request: Request) -> list[Tool]:
    """Codex's: functions under a common name. Each stands alone, and remembers where it came from."""
    namespace, found = _need(tool, "name", str, f"{at}."), []
    for number, inner in enumerate(objects(tool.get("tools"))):
        for read in _read_tool({**inner}, f"{at}.tools[{number}]", request):
            read.raw |= {"namespace": namespace, "name": read.name, "about": string(tool.get("description"))}
            read.name = flat_name(namespace, read.name)
            found.append(read)
    return found


# --- items, read

_OF_USERS = frozenset({"mcp_approval_response", "compaction_trigger"})


def _read_items(items: Any, where: str, request: Request) -> None:
    if not isinstance(items, list):
        raise wrong(where, "a string or an array of items", kind_of(items))
    for number, item in enumerate(items):
        at = f"{where}[{number}]"
        if not isinstance(item, dict):
            raise wrong(at, "an object", kind_of(item))
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind is None or kind == "item_reference":
            _refuse_reference(item, at)
        if not isinstance(kind, str):
            raise wrong(f"{at}.type", "a string", kind_of(kind))
        if kind == "additional_tools":
            for place, tool in enumerate(objects(item.get("tools"))):
                request.tools += _read_tool({**tool}, f"{at}.tools[{place}]", request)
            continue
        read = _READERS.get(kind, _read_opaque)({**item, "type": kind}, at, request)
        last = request.messages[-1] if request.messages else None
        if read.role == "assistant" and last is not None and last.role == "assistant":
            last.parts += read.parts
        else:
            request.messages.append(read)


def _refuse_reference(item: dict[str, Any], at: str) -> None:
    if "id" not in item:
        raise missing(f"{at}.type")
    message = f"Item '{item['id']}' is not known here. Send the item itself instead of a reference to it."
    raise BadField(f"{at}.id", message, "item_not_found")


def _read_message(item: dict[str, Any], at: str, request: Request) -> Message:
    role = _need(item, "role", str, f"{at}.")
    if role not in ("user", "assistant", "system", "developer"):
        raise wrong(f"{at}.role", "user, assistant, system or developer", repr(role))
    if phase := item.get("phase"):
        request.extra[f"{at}.phase"] = phase
    return Message(role, _read_content(item.get("content"), f"{at}.content"), at=at)


def _read_content(content: Any, at: str) -> list[Part]:
    if isinstance(content, str):
        return [Text(content, at=at)]
    if content is None:
        raise missing(at)
    if not isinstance(content, list):
        raise wrong(at, "a string or an array of parts", kind_of(content))
    return [_read_part(part, f"{at}[{number}]") for number, part in enumerate(content)]


def _read_part(found: Any, at: str) -> Part:
    if not isinstance(found, dict):
        raise wrong(at, "an object", kind_of(found))
    part, kind = {**found}, found.get("type")
    read: Part
    match kind:
        case "input_text" | "output_text" | "text" | "summary_text":
            citations = [read_citation(one) for one in objects(part.get("annotations"))]
            read = Text(_need(part, "text", str, f"{at}."), citations)
        case "refusal":
            read = Refusal(_need(part, "refusal", str, f"{at}."))
        case "input_image":
            read = _read_image(part, at)
        case "input_file":
            read = _read_file(part, at)
        case "input_audio":
            sound = _need(part, "input_audio", dict, f"{at}.")
            data = _need({**sound}, "data", str, f"{at}.input_audio.")
            read = Media("audio", f"audio/{string(sound.get('format')) or 'wav'}", data)
        case str():
            read = Opaque(kind, found, origin=NAME)
        case _:
            raise missing(f"{at}.type") if kind is None else wrong(f"{at}.type", "a string", kind_of(kind))
    read.at = at
    read.cache = "5m" if part.get("prompt_cache_breakpoint") else ""
    return read


def _read_image(part: dict[str, Any], at: str) -> Media:
    media = Media("image", detail=_take(part, "detail", str, f"{at}.") or "")
    media.file_id = _take(part, "file_id", str, f"{at}.") or ""
    if isinstance(part.get("image_url"), dict):  # as chat completions have it
        part, at = {"image_url": part["image_url"].get("url")}, f"{at}.image_url"
    url = _take(part, "image_url", str, f"{at}.")
    if url is None and not media.file_id:
        raise missing(f"{at}.image_url")
    return _from(media, url) if url is not None else media


def _from(media: Media, url: str) -> Media:
    found = read_url(media.kind, url)
    return replace(media, media_type=found.media_type, data=found.data, url=found.url)


def _read_file(part: dict[str, Any], at: str) -> Media:
    media = Media("file", name=_take(part, "filename", str, f"{at}.") or "")
    media.detail = _take(part, "detail", str, f"{at}.") or ""
    media.file_id = _take(part, "file_id", str, f"{at}.") or ""
    url, data = _take(part, "file_url", str, f"{at}."), _take(part, "file_data", str, f"{at}.")
    if url is None and data is None and not media.file_id:
        raise missing(f"{at}.file_data")
    if data is not None:
        if not data.startswith("data:"):
            media.media_type = mimetypes.guess_type(media.name)[0] or "application/pdf"
            media.data = data
            return media
        return _from(media, data)
    return _from(media, url) if url is not None else media


def _read_call(item: dict[str, Any], at: str, request: Request) -> Message:
    custom = item["type"] == "custom_tool_call"
    name = flat_name(string(item.get("namespace")), _need(item, "name", str, f"{at}."))
    arguments = _need(item, "input" if custom else "arguments", str, f"{at}.")
    call = ToolCall(_need(item, "call_id", str, f"{at}."), name, arguments, custom, at=at)
    return Message("assistant", [call], at=at)


def _read_result(item: dict[str, Any], at: str, request: Request) -> Message:
    call_id = _need(item, "call_id", str, f"{at}.")
    parts = _read_content(item.get("output"), f"{at}.output")
    custom = item["type"] == "custom_tool_call_output"
    return Message("user", [ToolResult(call_id, parts, custom=custom, at=at)], at=at)


def _read_thought(item: dict[str, Any], at: str, request: Request) -> Message:
    text, summary = reasoning_text(item)
    thought = Thinking(text, not text, summary, string(item.get("id")), at=at, origin=NAME)
    if encrypted := _take(item, "encrypted_content", str, f"{at}."):
        origin, kept = unseal(encrypted) or (NAME, pack(thought.id, encrypted))
        if origin == PLAIN and not kept.startswith("{"):  # the words themselves; its own details are an object
            return Message("assistant", [Thinking(kept, not kept, id=thought.id, at=at, origin=PLAIN)], at=at)
        thought.origin, thought.signature = origin, kept
    return Message("assistant", [thought], at=at)


def _read_image_call(item: dict[str, Any], at: str, request: Request) -> Message:
    image = image_of(item)
    if image is None:
        return _read_opaque(item, at, request)
    image.at = at
    return Message("assistant", [image], at=at)


def _read_opaque(item: dict[str, Any], at: str, request: Request) -> Message:
    kind = item["type"]
    users = kind in _OF_USERS or (kind.endswith("_output") and kind != "program_output")
    return Message("user" if users else "assistant", [Opaque(kind, item, at=at, origin=NAME)], at=at)


_READERS: dict[str, Callable[[dict[str, Any], str, Request], Message]] = {
    "message": _read_message,
    "function_call": _read_call,
    "custom_tool_call": _read_call,
    "function_call_output": _read_result,
    "custom_tool_call_output": _read_result,
    "reasoning": _read_thought,
    "image_generation_call": _read_image_call,
}
