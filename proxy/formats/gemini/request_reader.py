"""Requests in Google's Gemini API → the canonical form. Called by `gemini`, which has the format's names.

Proto JSON takes every name in camelCase and in snake_case, and clients send both. The model is not in the body but in
the URL. Fields: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/caching (Content, Part, Tool).
"""

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from proxy.formats.base import BadField, missing, wrong
from proxy.formats.canonical import (
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
)
from proxy.formats.gemini.parts import UNSIGNED, kept, read_media
from proxy.formats.gemini.wire import NAME
from proxy.formats.splice import Members

FIELDS = {
    "messages": "contents",
    "tool_choice": "toolConfig.functionCallingConfig",
    "parallel_tool_calls": "toolConfig.functionCallingConfig",
    "max_tokens": "generationConfig.maxOutputTokens",
    "temperature": "generationConfig.temperature",
    "top_p": "generationConfig.topP",
    "top_k": "generationConfig.topK",
    "frequency_penalty": "generationConfig.frequencyPenalty",
    "presence_penalty": "generationConfig.presencePenalty",
    "seed": "generationConfig.seed",
    "stop": "generationConfig.stopSequences",
    "n": "generationConfig.candidateCount",
    "logprobs": "generationConfig.responseLogprobs",
    "top_logprobs": "generationConfig.logprobs",
    "reasoning": "generationConfig.thinkingConfig",
    "output": "generationConfig.responseJsonSchema",
    "modalities": "generationConfig.responseModalities",
    "service_tier": "serviceTier",
    "metadata": "labels",
}
_decode = msgspec.json.decode
_encode = msgspec.json.encode


# --- the JSON of clients ---------------------------------------------------------------------------------------------


def camel(name: str) -> str:
    if "_" not in name:
        return name
    head, *rest = name.split("_")
    return head + "".join(word[:1].upper() + word[1:] for word in rest) if head else name


def read_json(raw: bytes, at: str) -> Any:
    try:
        return _decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadField(at, f"Invalid '{at}': {str(error)[:200]}.") from None


def _kind(found: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(found), "a number")


def an_object(found: Any, at: str) -> dict[str, Any]:
    """The members by their camelCase names; null counts as left out."""
    if not isinstance(found, dict):
        raise wrong(at, "an object", _kind(found))
    return {camel(name): value for name, value in found.items() if value is not None}


def an_array(found: Any, at: str) -> list[Any]:
    """Proto JSON takes one value for a list of one."""
    if isinstance(found, dict):
        return [found]
    if not isinstance(found, list):
        raise wrong(at, "an array", _kind(found))
    return found


def _string(found: Any, at: str) -> str:
    if not isinstance(found, str):
        raise wrong(at, "a string", _kind(found))
    return found


def _number(found: Any, at: str) -> float:
    """Proto JSON takes numbers as strings, too."""
    if isinstance(found, str) and _DECIMAL.fullmatch(found):
        return float(found)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise wrong(at, "a number", _kind(found))
    return found


_DECIMAL = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?(?:[eE][+-]?\d{1,2})?")


def an_integer(found: Any, at: str) -> int:
    """Proto JSON also writes integers as strings, and as 40.0."""
    if isinstance(found, str) and re.fullmatch(r"-?\d{1,18}", found):
        return int(found)
    number = _number(found, at)
    if not -(2**63) <= number < 2**63 or number != int(number):
        raise wrong(at, "an integer", "another number")
    return int(number)


def member(members: Members, name: str) -> tuple[str, bytes] | None:
    """The member as the client spelled it."""
    return next(((key, raw) for key, raw in members.items() if camel(key) == name and raw != b"null"), None)


# --- reading requests ------------------------------------------------------------------------------------------------


def read_request(members: Members) -> Request:
    """Raises `BadField`."""
    try:
        return _request(members)
    except RecursionError:
        raise BadField("contents", "The request is nested too deeply.") from None


def _request(members: Members) -> Request:
    request = Request([])
    if member(members, "contents") is None:
        raise missing("contents")
    for name, raw in members.items():
        if raw == b"null":
            continue
        key, value = camel(name), read_json(raw, name)
        if key in _TOP:
            _TOP[key](value, name, request)
        elif key != "model":
            request.extra[name] = value
    return request


def _read_contents(found: Any, at: str, request: Request) -> None:
    """The chats of Google's SDKs keep a model's turn as one content per chunk of its stream: together they are one."""
    calls = _Calls()
    for number, each in enumerate(an_array(found, at)):
        where = f"{at}[{number}]"
        content = an_object(each, where)
        role = _role(content, where)
        last = request.messages[-1] if request.messages else None
        goes_on = role == "assistant" and last is not None and last.role == role
        message = last if goes_on and last is not None else Message(role, [], at=where)
        _read_parts(message, content, where, request, calls)
        if not goes_on and (message.parts or role == "user"):
            request.messages.append(message)


def _read_system(found: Any, at: str, request: Request) -> None:
    content = {"parts": [{"text": found}]} if isinstance(found, str) else an_object(found, at)
    message = Message("system", [], at=at)
    _read_parts(message, content, at, request, _Calls())
    if message.parts:
        request.messages.insert(0, message)


def _read_tools(found: Any, at: str, request: Request) -> None:
    for number, tool in enumerate(an_array(found, at)):
        request.tools += _tools(tool, f"{at}[{number}]", request)


def _read_tier(found: Any, at: str, request: Request) -> None:
    tier = _string(found, at).lower()
    request.service_tier = {"standard": "default", "unspecified": ""}.get(tier, tier)


def _read_store(found: Any, at: str, request: Request) -> None:
    if not isinstance(found, bool):
        raise wrong(at, "a boolean", _kind(found))
    request.store = found


def _read_labels(found: Any, at: str, request: Request) -> None:
    if not isinstance(found, dict):
        raise wrong(at, "an object", _kind(found))
    request.metadata = found or None


class _Calls:
    """Calls and results of a conversation find each other by ID, or by name and order where one of them has none."""

    __slots__ = ("_count", "_made", "_names", "_open")

    def __init__(self) -> None:
        self._count = 0
        self._names: dict[str, str] = {}  # of the calls, by ID
        self._made: set[str] = set()  # the IDs that no client gave
        self._open: dict[str, dict[str, None]] = {}  # name → IDs of calls that wait for a result, in their order

    def called(self, name: str, given: str) -> str:
        self._count += 1
        identifier = given or self._new_id()
        self._names[identifier] = name
        self._open.setdefault(name, {})[identifier] = None
        return identifier

    def answered(self, name: str, given: str) -> str:
        waiting = self._open.get(self._names.get(given, name), {})
        found = given if given in self._names else None
        if found is None:
            found = next((each for each in waiting if not given or each in self._made), None)
        if found is None:
            self._count += not given
            return given or self._new_id()
        waiting.pop(found, None)
        return found

    def _new_id(self) -> str:
        while (made := f"call_{self._count}") in self._names:
            self._count += 1
        self._made.add(made)
        return made


_ROLES = {"user": "user", "model": "assistant", "function": "user", "tool": "user"}


def _role(content: dict[str, Any], at: str) -> str:
    role = _string(content.get("role", ""), f"{at}.role") or "user"
    if role not in _ROLES:
        raise BadField(f"{at}.role", f"Invalid '{at}.role': please use a valid role: user, model.")
    return _ROLES[role]


def _read_parts(message: Message, content: dict[str, Any], at: str, request: Request, calls: _Calls) -> None:
    for number, each in enumerate(an_array(content.get("parts", []), f"{at}.parts")):
        where = f"{at}.parts[{number}]"
        part = _part(an_object(each, where), where, request, calls)
        if message.role == "assistant":
            _add(message.parts, part, goes_on=not number)
        else:
            message.parts.append(part)


def _add(parts: list[Part], part: Part, *, goes_on: bool = False) -> None:
    """Thoughts of another format's model come back in a signature: they take the place of their visible text.

    `goes_on`: the part may be more of the last one.
    """
    last = parts[-1] if parts else None
    thoughts = kept(part.signature) if part.signature and part.origin == NAME else None
    if thoughts is not None:
        part.signature = part.origin = ""
        while parts and isinstance(parts[-1], Thinking) and not parts[-1].signature:
            parts.pop()
        parts += thoughts
    if thoughts is None and (goes_on or _only_signs(part)) and _is_more(part, last):
        assert isinstance(part, Text | Thinking)
        assert isinstance(last, Text | Thinking)
        last.text += part.text
        last.signature, last.origin = part.signature, part.origin
        return
    if isinstance(part, Text | Thinking) and not part.text:
        if not part.signature:
            return
        part = Thinking(redacted=True, signature=part.signature, origin=NAME, at=part.at)
    parts.append(part)


def _only_signs(part: Part) -> bool:
    return isinstance(part, Text | Thinking) and not part.text


def _is_more(part: Part, last: Part | None) -> bool:
    return isinstance(part, Text | Thinking) and type(part) is type(last) and last is not None and not last.signature


# Clients sign so what no Gemini model made: https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
_DUMMIES = frozenset(
    form
    for word in (UNSIGNED, "context_engineering_is_the_way_to_go")
    for form in (word, base64.b64encode(word.encode()).decode(), base64.urlsafe_b64encode(word.encode()).decode())
)
_PLAIN = frozenset({"thought", "thoughtSignature"})
_READ = _PLAIN | {"text", "functionCall", "functionResponse", "inlineData", "fileData"}
_RESPONSE = frozenset({"id", "name", "response", "parts"})


def _part(part: dict[str, Any], at: str, request: Request, calls: _Calls) -> Part:
    found = _part_of(part, at, request, calls)
    signature = _string(part.get("thoughtSignature", ""), f"{at}.thoughtSignature")
    if signature and signature not in _DUMMIES:
        found.signature, found.origin = signature, NAME
    found.at = at
    if not isinstance(found, Opaque):
        request.extra.update({f"{at}.{name}": more for name, more in part.items() if name not in _READ})
    return found


def _part_of(part: dict[str, Any], at: str, request: Request, calls: _Calls) -> Part:
    if "functionCall" in part:
        call = an_object(part["functionCall"], f"{at}.functionCall")
        name = _string(call.get("name", ""), f"{at}.functionCall.name")
        args = call.get("args", {})
        if not isinstance(args, dict):
            raise wrong(f"{at}.functionCall.args", "an object", _kind(args))
        given = _string(call.get("id", ""), f"{at}.functionCall.id")
        return ToolCall(calls.called(name, given), name, _encode(args).decode())
    if "functionResponse" in part:
        where = f"{at}.functionResponse"
        answer = an_object(part["functionResponse"], where)
        more = {f"{where}.{name}": said for name, said in answer.items() if name not in _RESPONSE and said}
        request.extra.update(more)
        return _result(answer, where, calls)
    for name in ("inlineData", "fileData"):
        if name in part:
            return read_media(_strings(an_object(part[name], f"{at}.{name}"), f"{at}.{name}"))
    if "text" in part:
        text = _string(part["text"], f"{at}.text")
        return Thinking(text, origin=NAME) if part.get("thought") is True else Text(text)
    kind = next((name for name in part if name not in _PLAIN), "")
    if kind:
        return Opaque(kind, part, origin=NAME)
    return Text("")


def _strings(found: dict[str, Any], at: str) -> dict[str, str]:
    known = ("mimeType", "data", "fileUri", "displayName")
    return {name: _string(found[name], f"{at}.{name}") for name in known if name in found}


def _result(found: dict[str, Any], at: str, calls: _Calls) -> ToolResult:
    name = _string(found.get("name", ""), f"{at}.name")
    call_id = calls.answered(name, _string(found.get("id", ""), f"{at}.id"))
    response = found.get("response", {})
    if not isinstance(response, dict):
        raise wrong(f"{at}.response", "an object", _kind(response))
    text, failed = _result_text(response)
    result = ToolResult(call_id, [Text(text, at=f"{at}.response")], name, failed)
    for number, part in enumerate(an_array(found.get("parts", []), f"{at}.parts")):
        where = f"{at}.parts[{number}]"
        blob = an_object(part, where)
        data: Any = next((blob[key] for key in ("inlineData", "fileData") if key in blob), {})
        result.parts.append(read_media(_strings(an_object(data, where), where), where))
    return result


def _result_text(response: dict[str, Any]) -> tuple[str, bool]:
    """What `_response` wrote, back: a lone text is no JSON."""
    for name, failed in (("output", False), ("error", True)):
        if len(response) == 1 and isinstance(said := response.get(name), str):
            return said, failed
    return _encode(response).decode(), False


# --- reading tools ---------------------------------------------------------------------------------------------------


def _tools(found: Any, at: str, request: Request) -> Iterator[Tool]:
    for name, value in an_object(found, at).items():
        where = f"{at}.{name}"
        if name != "functionDeclarations":
            yield Tool(name, kind="server", origin=NAME, raw={name: value}, at=where)
            continue
        for number, each in enumerate(an_array(value, where)):
            yield _function(an_object(each, f"{where}[{number}]"), f"{where}[{number}]", request)


def _function(found: dict[str, Any], at: str, request: Request) -> Tool:
    tool = Tool(_string(found.pop("name", ""), f"{at}.name"), at=at)
    tool.description = _string(found.pop("description", ""), f"{at}.description")
    given = found.pop("parameters", None)
    if "parametersJsonSchema" in found:
        schema = found.pop("parametersJsonSchema")
        tool.schema = schema if isinstance(schema, dict) else None
    elif given is not None:
        tool.schema = json_schema(an_object(given, f"{at}.parameters"))
    request.extra.update({f"{at}.{name}": value for name, value in found.items()})
    return tool


_NUMBERS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Google's Schema object (a part of OpenAPI 3.0) as JSON Schema: https://ai.google.dev/api/caching#Schema"""
    given = {key if key.startswith("$") else camel(key): value for key, value in schema.items() if value is not None}
    nullable, ordering = given.pop("nullable", False), given.pop("propertyOrdering", None)
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name == "type":
            found["type"] = _type(value)
        elif name in ("properties", "defs", "$defs") and isinstance(value, dict):
            found["$defs" if name == "defs" else name] = {key: _nested(each) for key, each in value.items()}
        elif name in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            found[name] = [_nested(each) for each in value]
        elif name in ("items", "additionalProperties"):
            found[name] = _nested(value)
        else:
            found |= _keyword(name, value)
    _order(found, ordering)
    if found.get("type") in ("integer", "number") and isinstance(words := found.get("enum"), list):  # strings to Google
        found["enum"] = [_numeral(each) for each in words]
    return _nullable(found) if nullable else found


def _keyword(name: str, value: Any) -> dict[str, Any]:
    if name in _NUMBERS and isinstance(value, str) and value.isdecimal():
        return {name: int(value)}
    if name == "example":
        return {"examples": [value]}
    return {"$ref" if name == "ref" else name: value}


def _order(found: dict[str, Any], ordering: Any) -> None:
    """JSON Schema has no word for an order but the properties' own."""
    properties = found.get("properties")
    if isinstance(ordering, list) and isinstance(properties, dict):
        first = {each: properties[each] for each in ordering if isinstance(each, str) and each in properties}
        found["properties"] = {**first, **properties}


def _numeral(found: Any) -> Any:
    if not isinstance(found, str) or not _DECIMAL.fullmatch(found):
        return found
    return int(found) if found.lstrip("-").isdecimal() else float(found)


def _nested(schema: Any) -> Any:
    return json_schema(schema) if isinstance(schema, dict) else schema


# Proto JSON takes enums as numbers too: https://ai.google.dev/api/caching#Type
_TYPES = ("", "string", "number", "integer", "boolean", "array", "object", "null")


def _type(value: Any) -> Any:
    if type(value) is int and 0 < value < len(_TYPES):
        return _TYPES[value]
    if isinstance(value, list):
        return [_type(each) for each in value]
    return value.lower() if isinstance(value, str) else value


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(schema.get("type"), str):
        more = {"enum": [*schema["enum"], None]} if isinstance(schema.get("enum"), list) else {}
        return {**schema, **more, "type": [schema["type"], "null"]}
    if isinstance(schema.get("anyOf"), list):
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]} if "$ref" in schema else schema


_NUMBERED_MODES = {0: "MODE_UNSPECIFIED", 1: "AUTO", 2: "ANY", 3: "NONE", 4: "VALIDATED"}
_MODES = {"AUTO": "auto", "NONE": "none", "ANY": "required", "VALIDATED": "auto", "MODE_UNSPECIFIED": "auto"}


def _read_tool_config(found: Any, at: str, request: Request) -> None:
    for name, value in an_object(found, at).items():
        if name != "functionCallingConfig":
            request.extra[f"{at}.{name}"] = value
            continue
        calling = an_object(value, f"{at}.{name}")
        mode = calling.pop("mode", "AUTO")
        mode = _NUMBERED_MODES.get(mode) if type(mode) is int else _string(mode, f"{at}.{name}.mode").upper()
        if mode not in _MODES:
            raise BadField(f"{at}.{name}.mode", f"Invalid '{at}.{name}.mode': {mode!r} is no mode.")
        names = an_array(calling.pop("allowedFunctionNames", []), f"{at}.{name}.allowedFunctionNames")
        allowed = tuple(_string(each, f"{at}.{name}.allowedFunctionNames") for each in names)
        if mode == "ANY" and len(allowed) == 1:
            request.tool_choice = ToolChoice("tool", allowed[0])
        else:
            request.tool_choice = ToolChoice(_MODES[mode], allowed=allowed)
        if mode == "VALIDATED":
            request.extra[f"{at}.{name}.mode"] = mode
        request.extra.update({f"{at}.{name}.{other}": each for other, each in calling.items()})


# --- reading generationConfig ----------------------------------------------------------------------------------------

NUMERIC = {
    "temperature": "temperature",
    "topP": "top_p",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
INTEGERS = {
    "maxOutputTokens": "max_tokens",
    "topK": "top_k",
    "seed": "seed",
    "candidateCount": "n",
    "logprobs": "top_logprobs",
}
_FORMAT = ("responseMimeType", "responseSchema", "responseJsonSchema", "_responseJsonSchema")


def _read_config(found: Any, at: str, request: Request) -> None:
    config = an_object(found, at)
    for name, value in config.items():
        where = f"{at}.{name}"
        if name in NUMERIC:
            setattr(request, NUMERIC[name], _number(value, where))
        elif name in INTEGERS:
            setattr(request, INTEGERS[name], an_integer(value, where))
        elif name == "stopSequences":
            request.stop = [_string(each, where) for each in an_array(value, where)]
        elif name == "responseLogprobs":
            request.logprobs = value is True
        elif name == "responseModalities":
            request.modalities = [_modality(each, where) for each in an_array(value, where)]
        elif name == "thinkingConfig":
            request.reasoning = _reasoning(an_object(value, where), where)
        elif name not in _FORMAT:
            request.extra[where] = value
    request.output = _output(config, at, request)


_MODALITIES = {1: "text", 2: "image", 3: "audio"}


def _modality(found: Any, at: str) -> str:
    return _MODALITIES.get(found, "") if type(found) is int else _string(found, at).lower()


def _reasoning(config: dict[str, Any], at: str) -> Reasoning:
    """https://ai.google.dev/gemini-api/docs/thinking: a budget of -1 leaves it to the model."""
    found = Reasoning()
    if "includeThoughts" in config:
        found.visible = config["includeThoughts"] is True
    if "thinkingBudget" in config:
        budget = an_integer(config["thinkingBudget"], f"{at}.thinkingBudget")
        found.adaptive = budget < 0
        found.budget = budget if budget >= 0 else None
    level = _string(config.get("thinkingLevel", ""), f"{at}.thinkingLevel").lower()
    found.effort = "" if level == "thinking_level_unspecified" else level
    return found


def _output(config: dict[str, Any], at: str, request: Request) -> Output | None:
    kind = _string(config.get("responseMimeType", ""), f"{at}.responseMimeType")
    schema: dict[str, Any] | None = None
    for name in ("responseJsonSchema", "_responseJsonSchema"):
        if isinstance(config.get(name), dict):
            schema = config[name]
    if schema is None and "responseSchema" in config:
        schema = json_schema(an_object(config["responseSchema"], f"{at}.responseSchema"))
    if kind not in ("", "text/plain", "application/json"):
        request.extra[f"{at}.responseMimeType"] = kind  # text/x.enum: the bare word, which JSON modes do not give
        return None
    if schema is not None:
        return Output("json_schema", schema)
    if kind:
        return Output("json_object" if kind == "application/json" else "text")
    return None


_TOP: dict[str, Callable[[Any, str, Request], None]] = {
    "contents": _read_contents,
    "systemInstruction": _read_system,
    "tools": _read_tools,
    "toolConfig": _read_tool_config,
    "generationConfig": _read_config,
    "serviceTier": _read_tier,
    "store": _read_store,
    "labels": _read_labels,
}
