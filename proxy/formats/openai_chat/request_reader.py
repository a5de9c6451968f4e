"""Requests of OpenAI's chat API, read into the canonical form. Called through `openai_chat`.

Fields: https://platform.openai.com/docs/api-reference/chat/create; those of vendors beside them are named where they
are read. What has no canonical place is kept in `Request.extra`.
"""

import base64
import binascii
import mimetypes
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from proxy.formats.base import BadField, missing, wrong
from proxy.formats.canonical import (
    Citation,
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
from proxy.formats.lenient import UNREADABLE, encode
from proxy.formats.openai_chat.wire import NAME
from proxy.formats.splice import Members

_EFFORTS = frozenset({"none", "minimal", "low", "medium", "high", "xhigh", "max"})
# Of the gateway's own concern, not the model's.
_IGNORED = frozenset({"model", "stream_options"})


def kind_of(found: Any) -> str:
    """In words, for whoever wrote it."""
    if isinstance(found, bool):
        return "true" if found else "false"
    names = {dict: "an object", list: "an array", str: "a string", type(None): "null"}
    return names.get(type(found), "a number")


def decode(members: Members, name: str) -> Any:
    """A member's value; None where it is missing. Raises `BadField`."""
    if name not in members:
        return None
    try:
        return msgspec.json.decode(members[name])
    except UNREADABLE as error:
        raise BadField(name, f"'{name}' cannot be read: {error}.", "invalid_json") from None


def _of(kinds: tuple[type, ...], words: str) -> Callable[[Any, str], Any]:
    """A reader of one value: it is of these types, or null."""

    def read(found: Any, path: str) -> Any:
        if found is None or (isinstance(found, kinds) and (bool in kinds or not isinstance(found, bool))):
            return found
        raise wrong(path, words, kind_of(found))

    return read


text_or_null = _of((str,), "a string")
flag_or_null = _of((bool,), "true or false")
number_or_null = _of((int, float), "a number")
object_or_null = _of((dict,), "an object")
list_or_null = _of((list,), "an array")


def integer_or_null(found: Any, path: str) -> int | None:
    if isinstance(found, float) and found.is_integer():
        return int(found)
    if found is None or (isinstance(found, int) and not isinstance(found, bool)):
        return found
    raise wrong(path, "an integer", kind_of(found))


def _text(found: Any, path: str) -> str:
    if found is None:
        raise missing(path)
    said: str = text_or_null(found, path)
    return said


def _strings(found: Any, path: str) -> list[str]:
    if isinstance(found, str):
        return [found]
    for place, each in enumerate(list_or_null(found, path) or ()):
        if not isinstance(each, str):
            raise wrong(f"{path}[{place}]", "a string", kind_of(each))
    return found or []


# Chat's name → the field of `Request` and its reader.
_PLAIN: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "parallel_tool_calls": ("parallel_tool_calls", flag_or_null),
    "temperature": ("temperature", number_or_null),
    "top_p": ("top_p", number_or_null),
    "top_k": ("top_k", integer_or_null),
    "min_p": ("min_p", number_or_null),
    "frequency_penalty": ("frequency_penalty", number_or_null),
    "presence_penalty": ("presence_penalty", number_or_null),
    "repetition_penalty": ("repetition_penalty", number_or_null),
    "random_seed": ("seed", integer_or_null),  # Mistral
    "seed": ("seed", integer_or_null),
    "stop": ("stop", _strings),
    "n": ("n", integer_or_null),
    "logprobs": ("logprobs", flag_or_null),
    "top_logprobs": ("top_logprobs", integer_or_null),
    "logit_bias": ("logit_bias", object_or_null),
    "verbosity": ("verbosity", text_or_null),
    "modalities": ("modalities", _strings),
    "audio": ("audio", object_or_null),
    "service_tier": ("service_tier", text_or_null),
    "user": ("user", text_or_null),
    "metadata": ("metadata", object_or_null),
    "prompt_cache_key": ("cache_key", text_or_null),
    "store": ("store", flag_or_null),
    "stream": ("stream", flag_or_null),
    # The newer of the two names is read last: it counts.
    "max_tokens": ("max_tokens", integer_or_null),
    "max_completion_tokens": ("max_tokens", integer_or_null),
}


def read_plain(request: Request, fields: dict[str, Any]) -> None:
    """The fields that are one value; what is read is taken out of `fields`."""
    for name, (field, read) in _PLAIN.items():
        if name in fields:
            found = read(fields.pop(name), name)
            if found is not None:
                setattr(request, field, found)


def read_request(members: Members, /) -> Request:
    """Raises `BadField`."""
    fields = {name: decode(members, name) for name in members if name not in _IGNORED}
    unknown = _unknown_members(fields)
    request = Request(_Conversation().read(fields.pop("messages", None)))
    read_plain(request, fields)
    _read_tools(request, fields)
    request.reasoning = _read_reasoning(fields)
    if "response_format" in fields:
        request.output = _read_output(fields)
    request.extra = {name: found for name, found in fields.items() if found is not None} | unknown
    return request


_MESSAGE = frozenset(
    {
        "annotations",
        "audio",
        "cache_control",
        "content",
        "function_call",
        "images",
        "name",
        "parsed",  # OpenAI's SDK puts it beside the content that it was read from
        "reasoning",
        "reasoning_content",
        "reasoning_details",
        "refusal",
        "role",
        "tool_call_id",
        "tool_calls",
    }
)
_CALL = frozenset({"cache_control", "custom", "extra_content", "function", "id", "index", "type"})
_TOOL = frozenset({"cache_control", "custom", "function", "type"})


def _unknown_members(fields: dict[str, Any]) -> dict[str, Any]:
    """What messages, calls and tools hold beyond what is read here: by path, as `Request.extra` keeps it."""
    found: dict[str, Any] = {}
    messages = fields.get("messages")
    for place, message in enumerate(messages if isinstance(messages, list) else ()):
        found |= _beyond(message, _MESSAGE, f"messages[{place}]")
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        for number, part in enumerate(content if isinstance(content, list) else ()):
            found |= _unknown_in_part(part, f"messages[{place}].content[{number}]")
        calls = message.get("tool_calls")
        for number, call in enumerate(calls if isinstance(calls, list) else ()):
            found |= _beyond(call, _CALL, f"messages[{place}].tool_calls[{number}]")
    tools = fields.get("tools")
    for place, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and tool.get("type") in ("function", "custom", None):
            found |= _beyond(tool, _TOOL, f"tools[{place}]")
    return found


_PART = frozenset({"cache_control", "prompt_cache_breakpoint", "text", "type"})
_INNER = frozenset({"data", "detail", "file_data", "file_id", "filename", "format", "url"})


def _unknown_in_part(part: Any, at: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _PARTS:
        return {}  # it is kept as a whole
    return _beyond(part, _PART | {kind}, at) | _beyond(part.get(kind), _INNER, f"{at}.{kind}")


def _beyond(found: Any, known: frozenset[str], at: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        return {}
    return {f"{at}.{name}": kept for name, kept in found.items() if name not in known and kept}


# --- messages --------------------------------------------------------------------------------------------------------


class _Waiting:
    """Calls without a result, in their order; found by ID or by name."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolCall] = {}
        self._places: dict[tuple[str, str], deque[int]] = {}
        self._next = 0

    def add(self, call: ToolCall) -> None:
        self._calls[self._next] = call
        for key in (("id", call.id), ("name", call.name)):
            self._places.setdefault(key, deque()).append(self._next)
        self._next += 1

    def take(self, kind: str, said: str) -> ToolCall | None:
        """The first that has this ID, or this name."""
        places = self._places.get((kind, said), deque())
        while places:
            if (call := self._calls.pop(places.popleft(), None)) is not None:
                return call
        return None

    def take_first(self) -> ToolCall | None:
        return self._calls.pop(next(iter(self._calls))) if self._calls else None


class _Conversation:
    """Reads messages one after another: a result without an ID belongs to the first call that still has none.

    Those of the first chat API (`function_call`, role `function`) have a name only; some vendors need neither.
    """

    def __init__(self) -> None:
        self._waiting = _Waiting()

    def read(self, found: Any) -> list[Message]:
        return [self._message(each, f"messages[{place}]", place) for place, each in enumerate(found or ())]

    def _message(self, found: Any, at: str, place: int) -> Message:
        if not isinstance(found, dict):
            raise wrong(at, "an object", kind_of(found))
        role = _text(found.get("role"), f"{at}.role")
        name = text_or_null(found.get("name"), f"{at}.name") or ""
        match role:
            case "system" | "developer" | "user":
                message = Message(role, _read_content(found.get("content"), f"{at}.content"), name, at)
            case "assistant":
                message = Message(role, self._assistant(found, at, place), name, at)
            case "tool" | "function":
                message = Message("user", [self._result(found, at, role, name)], at=at)
            case _:
                raise BadField(f"{at}.role", f"Invalid '{at}.role': {role!r} is no role of a message.")
        _set_cache(message.parts, found)
        return message

    def _result(self, found: dict[str, Any], at: str, role: str, name: str) -> ToolResult:
        parts = _read_content(found.get("content"), f"{at}.content")
        call_id = text_or_null(found.get("tool_call_id"), f"{at}.tool_call_id")
        call = self._waiting.take("id", call_id) if call_id else self._waiting.take("name", name)
        if call is None and not call_id and not name:
            call = self._waiting.take_first()
        if call is None and not call_id and role == "tool":
            raise missing(f"{at}.tool_call_id")
        named = call_id or (call.id if call is not None else f"call_{name}")
        return ToolResult(named, parts, name, custom=call is not None and call.custom, at=at)

    def _assistant(self, found: dict[str, Any], at: str, place: int) -> list[Part]:
        parts = _read_thoughts(found, at)
        parts += _read_said(found, at)
        if refusal := text_or_null(found.get("refusal"), f"{at}.refusal"):
            parts.append(Refusal(refusal, at=f"{at}.refusal"))
        audio = object_or_null(found.get("audio"), f"{at}.audio")
        if audio and isinstance(audio.get("id"), str):
            parts.append(Media("audio", id=audio["id"], at=f"{at}.audio", origin=NAME))
        calls = list_or_null(found.get("tool_calls"), f"{at}.tool_calls") or ()
        for number, call in enumerate(calls):
            parts.append(_read_call(call, f"{at}.tool_calls[{number}]", f"call_{place}_{number}"))
        if function := object_or_null(found.get("function_call"), f"{at}.function_call"):
            parts.append(_read_function(function, f"{at}.function_call", f"call_{place}"))
        for part in parts:
            if isinstance(part, ToolCall):
                self._waiting.add(part)
        return _sign_calls(parts)


def _read_said(found: dict[str, Any], at: str) -> list[Part]:
    """Content with its annotations; images that the model made (OpenRouter's)."""
    parts = _read_content(found.get("content"), f"{at}.content")
    text = next((part for part in parts if isinstance(part, Text)), None)
    for each in list_or_null(found.get("annotations"), f"{at}.annotations") or ():
        if text is not None and isinstance(each, dict):
            text.citations.append(read_citation(each, 0))
    for place, image in enumerate(list_or_null(found.get("images"), f"{at}.images") or ()):
        parts.append(_read_part(image, f"{at}.images[{place}]"))
    return parts


def read_citation(found: dict[str, Any], before: int | None) -> Citation:
    """An annotation. `before`: characters of text before the part that carries it; None where that is not known."""
    kind = found.get("type")
    inner = found.get(kind) if isinstance(kind, str) else None
    said = inner if isinstance(inner, dict) else found
    start, end = said.get("start_index"), said.get("end_index")
    texts = {name: said[name] for name in ("url", "title", "content", "file_id") if isinstance(said.get(name), str)}
    return Citation(
        texts.get("url", ""),
        texts.get("title", ""),
        texts.get("content", ""),
        texts.get("file_id", ""),
        start - before if type(start) is int and before is not None else None,
        end - before if type(end) is int and before is not None else None,
        NAME,
        found,
    )


def _set_cache(parts: list[Part], found: dict[str, Any]) -> None:
    """OpenRouter takes `cache_control` on a whole message too: it stands behind the last part."""
    if (cache := _cache(found)) and parts:
        parts[-1].cache = cache


def _cache(found: dict[str, Any]) -> str:
    """OpenRouter's, or OpenAI's own `prompt_cache_breakpoint`, whose lifetime the whole request has."""
    control = found.get("cache_control")
    if not isinstance(control, dict):
        return "5m" if found.get("prompt_cache_breakpoint") else ""
    ttl = control.get("ttl")
    return ttl if isinstance(ttl, str) and ttl else "5m"


def _read_content(found: Any, at: str) -> list[Part]:
    if found is None:
        return []
    if isinstance(found, str):
        return [Text(found, at=at)]
    if not isinstance(found, list):
        raise wrong(at, "a string or an array", kind_of(found))
    return [_read_part(part, f"{at}[{place}]") for place, part in enumerate(found)]


def _read_part(found: Any, at: str) -> Part:
    if not isinstance(found, dict):
        raise wrong(at, "an object", kind_of(found))
    kind = _text(found.get("type"), f"{at}.type")
    read = _PARTS.get(kind)
    part = read(found, at) if read is not None else Opaque(kind, found, origin=NAME)
    part.at, part.cache = at, _cache(found)
    return part


def _read_text(found: dict[str, Any], at: str) -> Part:
    return Text(_text(found.get("text"), f"{at}.text"))


def _read_refusal(found: dict[str, Any], at: str) -> Part:
    return Refusal(_text(found.get("refusal"), f"{at}.refusal"))


def _read_thinking(found: dict[str, Any], _: str) -> Part:
    """Mistral's: a list of text parts."""
    return Thinking(thinking_text(found))


def thinking_text(found: dict[str, Any]) -> str:
    said = found.get("thinking")
    if isinstance(said, list):
        return "".join([p["text"] for p in said if isinstance(p, dict) and isinstance(p.get("text"), str)])
    return said if isinstance(said, str) else ""


def _inner(found: dict[str, Any], name: str, at: str) -> tuple[dict[str, Any], str]:
    """The object of a part; Mistral and others put its URL or data there at once."""
    value, path = found.get(name), f"{at}.{name}"
    if value is None:
        raise missing(path)
    if isinstance(value, str):
        return {"url": value, "data": value}, path
    if not isinstance(value, dict):
        raise wrong(path, "an object", kind_of(value))
    return value, path


def _by_url(kind: str, name: str) -> Callable[[dict[str, Any], str], Part]:
    def read(found: dict[str, Any], at: str) -> Part:
        inner, path = _inner(found, name, at)
        media = read_url(kind, _text(inner.get("url"), f"{path}.url"))
        media.detail = text_or_null(inner.get("detail"), f"{path}.detail") or ""
        return media

    return read


def _read_audio(found: dict[str, Any], at: str) -> Part:
    inner, path = _inner(found, "input_audio", at)
    data = _text(inner.get("data"), f"{path}.data")
    if data.startswith(("http://", "https://", "data:")):
        return read_url("audio", data)
    form = text_or_null(inner.get("format"), f"{path}.format") or "mp3"
    return Media("audio", "audio/mpeg" if form == "mp3" else f"audio/{form}", data)


def _read_file(found: dict[str, Any], at: str) -> Part:
    inner, path = _inner(found, "file", at)
    name = text_or_null(inner.get("filename"), f"{path}.filename") or ""
    if file_id := text_or_null(inner.get("file_id"), f"{path}.file_id"):
        return Media("file", file_id=file_id, name=name, origin=NAME)
    data = _text(inner.get("file_data"), f"{path}.file_data")
    if data.startswith(("data:", "http://", "https://")):
        media = read_url("file", data)
    elif is_base64(data):
        media = Media("file", data=data)
    else:
        raise wrong(f"{path}.file_data", "base64 or a URL", "something else")
    media.name = name
    media.media_type = media.media_type or ("" if media.url else mimetypes.guess_type(name)[0] or "application/pdf")
    return media


def is_base64(data: str) -> bool:
    try:
        base64.b64decode(data[:4096] if len(data) % 4 == 0 else data, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


# Beside OpenAI's: Mistral's thinking and document_url, Perplexity's file_url, OpenRouter's video_url, vLLM's audio_url.
_PARTS: dict[str, Callable[[dict[str, Any], str], Part]] = {
    "text": _read_text,
    "refusal": _read_refusal,
    "thinking": _read_thinking,
    "image_url": _by_url("image", "image_url"),
    "video_url": _by_url("video", "video_url"),
    "audio_url": _by_url("audio", "audio_url"),
    "file_url": _by_url("file", "file_url"),
    "document_url": _by_url("file", "document_url"),
    "input_audio": _read_audio,
    "file": _read_file,
}


# --- thoughts that come back -----------------------------------------------------------------------------------------


def _read_thoughts(found: dict[str, Any], at: str) -> list[Part]:
    """`reasoning_details` (OpenRouter's) where there are any, else the plain text under its two names."""
    details = list_or_null(found.get("reasoning_details"), f"{at}.reasoning_details")
    parts = read_details(details or [], f"{at}.reasoning_details")
    if not any(part.text for part in parts):
        for name in ("reasoning_content", "reasoning"):
            if isinstance(found.get(name), str) and found[name]:
                return [Thinking(found[name], at=f"{at}.{name}"), *parts]
    return list(parts)


def read_details(details: list[Any], at: str) -> list[Thinking]:
    """OpenRouter's: https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks.

    The encrypted form of a summary comes behind it: the two are one thought. What its own provider wants back stays
    together as the signature: `pack`.
    """
    parts: list[Thinking] = []
    for place, detail in enumerate(details):
        if not isinstance(detail, dict):
            raise wrong(f"{at}[{place}]", "an object", kind_of(detail))
        part = read_detail(detail)
        if not (part.text or part.signature):
            continue
        part.at = f"{at}[{place}]"
        last = parts[-1] if parts else None
        if part.redacted and last is not None and last.summary and not last.signature:
            last.signature, last.origin, last.id = part.signature, part.origin, part.id or last.id
        else:
            parts.append(part)
    return parts


def read_detail(detail: dict[str, Any]) -> Thinking:
    kind, found_id = detail.get("type"), detail.get("id")
    part = Thinking(id=found_id if isinstance(found_id, str) else "")
    if kind == "reasoning.encrypted":
        part.redacted = True
    else:
        part.summary = kind == "reasoning.summary"
        said = detail.get("summary" if part.summary else "text")
        part.text = said if isinstance(said, str) else ""
    kept = detail.get("data" if part.redacted else "signature")
    if isinstance(kept, str) and kept:
        part.origin, part.signature = unseal(kept) or (NAME, pack(detail))
    return part


def pack(detail: dict[str, Any]) -> str:
    """A detail without its text: what OpenRouter wants back unchanged."""
    kept = {name: value for name, value in detail.items() if name not in ("text", "summary")}
    return encode(kept).decode()


def _sign_calls(parts: list[Part]) -> list[Part]:
    """Thoughts whose `id` is a call's are that call's signature (Gemini's)."""
    calls = {part.id: part for part in parts if isinstance(part, ToolCall)}
    kept: list[Part] = []
    for part in parts:
        call = calls.get(part.id) if isinstance(part, Thinking) and part.redacted else None
        if call is None or part.origin == NAME:
            kept.append(part)
        elif not call.signature:
            call.signature, call.origin = part.signature, part.origin
    return kept


def _read_call(found: Any, at: str, fallback: str) -> Part:
    if not isinstance(found, dict):
        raise wrong(at, "an object", kind_of(found))
    call_id = text_or_null(found.get("id"), f"{at}.id") or fallback
    if found.get("type") == "custom" or ("custom" in found and "function" not in found):
        custom = object_or_null(found.get("custom"), f"{at}.custom") or {}
        name = _text(custom.get("name"), f"{at}.custom.name")
        said = text_or_null(custom.get("input"), f"{at}.custom.input") or ""
        call = ToolCall(call_id, name, said, custom=True)
    elif "function" in found:
        call = _read_function(object_or_null(found["function"], f"{at}.function") or {}, f"{at}.function", call_id)
    else:
        return Opaque(str(found.get("type")), found, at=at, origin=NAME)
    call.at, call.cache = at, _cache(found)
    call.signature, call.origin = call_signature(found)
    return call


def _read_function(found: dict[str, Any], at: str, call_id: str) -> ToolCall:
    arguments = found.get("arguments")
    if isinstance(arguments, dict):  # Ollama's own API has it so
        arguments = msgspec.json.encode(arguments).decode()
    name = _text(found.get("name"), f"{at}.name")
    return ToolCall(call_id, name, text_or_null(arguments, f"{at}.arguments") or "", at=at)


def call_signature(call: dict[str, Any]) -> tuple[str, str]:
    """Signature and origin. Gemini's: https://ai.google.dev/gemini-api/docs/thought-signatures"""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    found = google.get("thought_signature") if isinstance(google, dict) else None
    if not isinstance(found, str) or not found:
        return "", ""
    origin, signature = unseal(found) or ("gemini", found)
    return signature, origin


# --- tools -----------------------------------------------------------------------------------------------------------


def _read_tools(request: Request, fields: dict[str, Any]) -> None:
    for place, tool in enumerate(list_or_null(fields.pop("tools", None), "tools") or ()):
        request.tools.append(_read_tool(tool, f"tools[{place}]"))
    for place, function in enumerate(list_or_null(fields.pop("functions", None), "functions") or ()):
        at = f"functions[{place}]"
        request.tools.append(_function(object_or_null(function, at) or {}, at, at))
    choice = fields.pop("tool_choice", None)
    if choice is not None:
        request.tool_choice = _read_choice(choice, "tool_choice")
    legacy = fields.pop("function_call", None)
    if isinstance(legacy, dict):
        request.tool_choice = ToolChoice("tool", _text(legacy.get("name"), "function_call.name"))
    elif legacy is not None:
        request.tool_choice = _read_choice(legacy, "function_call")


def _read_tool(found: Any, at: str) -> Tool:
    if not isinstance(found, dict):
        raise wrong(at, "an object", kind_of(found))
    kind = found.get("type") or "function"
    inner = found.get(kind) if isinstance(kind, str) else None
    if kind == "function" or (kind == "custom" and isinstance(inner, dict)):
        inner = object_or_null(inner, f"{at}.{kind}")
        if inner is None:
            raise missing(f"{at}.{kind}")
        tool = _function(inner, f"{at}.{kind}", at) if kind == "function" else _custom(inner, at)
    else:
        tool = Tool(str(kind), kind="server", origin=NAME, raw=found, at=at)
    tool.cache = _cache(found)
    return tool


def _function(found: dict[str, Any], path: str, at: str) -> Tool:
    return Tool(
        _text(found.get("name"), f"{path}.name"),
        text_or_null(found.get("description"), f"{path}.description") or "",
        object_or_null(found.get("parameters"), f"{path}.parameters"),
        flag_or_null(found.get("strict"), f"{path}.strict"),
        at=at,
    )


def _custom(found: dict[str, Any], at: str) -> Tool:
    """`grammar` as Responses has it: there, what chat keeps under `grammar` stands beside `type`."""
    grammar = object_or_null(found.get("format"), f"{at}.custom.format")
    if grammar and isinstance(grammar.get("grammar"), dict):
        grammar = {"type": grammar.get("type"), **grammar["grammar"]}
    return Tool(
        _text(found.get("name"), f"{at}.custom.name"),
        text_or_null(found.get("description"), f"{at}.custom.description") or "",
        kind="custom",
        grammar=grammar,
        at=at,
    )


# Mistral says "any" for "required": https://docs.mistral.ai/capabilities/function_calling
_MODES = {"auto": "auto", "none": "none", "required": "required", "any": "required"}


def _read_choice(found: Any, path: str) -> ToolChoice:
    if isinstance(found, str):
        if found not in _MODES:
            raise BadField(path, f"Invalid '{path}': {found!r} is none of auto, none, required, nor an object.")
        return ToolChoice(_MODES[found])
    if not isinstance(found, dict):
        raise wrong(path, "a string or an object", kind_of(found))
    kind = text_or_null(found.get("type"), f"{path}.type") or "function"
    if kind == "allowed_tools":
        return _read_allowed(found, path)
    inner = found.get(kind)
    if isinstance(inner, dict):
        return ToolChoice("tool", _text(inner.get("name"), f"{path}.{kind}.name"))
    if kind in _MODES:  # {"type": "auto"}
        return ToolChoice(_MODES[kind])
    return ToolChoice("tool", _text(found.get("name") or kind, path))


def _read_allowed(found: dict[str, Any], path: str) -> ToolChoice:
    inner = object_or_null(found.get("allowed_tools"), f"{path}.allowed_tools") or {}
    mode = text_or_null(inner.get("mode"), f"{path}.allowed_tools.mode") or "auto"
    names: list[str] = []
    for place, tool in enumerate(list_or_null(inner.get("tools"), f"{path}.allowed_tools.tools") or ()):
        if not isinstance(tool, dict):
            raise wrong(f"{path}.allowed_tools.tools[{place}]", "an object", kind_of(tool))
        named = tool.get(str(tool.get("type")))
        name = named.get("name") if isinstance(named, dict) else tool.get("name") or tool.get("type")
        names.append(_text(name, f"{path}.allowed_tools.tools[{place}].name"))
    return ToolChoice(_MODES.get(mode, "auto"), allowed=tuple(names))


# --- how much to think -----------------------------------------------------------------------------------------------


def _read_reasoning(fields: dict[str, Any]) -> Reasoning | None:
    """Every vendor's switch. What is read is taken out of `fields`, of objects too; the rest stays there."""
    found = Reasoning()
    _read_effort(found, fields)
    _read_openrouter(found, fields)
    _read_thinking_type(found, fields)
    _read_switches(found, fields)
    return None if found == Reasoning() else found


def _read_effort(found: Reasoning, fields: dict[str, Any]) -> None:
    word = text_or_null(fields.get("reasoning_effort"), "reasoning_effort")
    if word in _EFFORTS:
        found.effort = fields.pop("reasoning_effort")
    elif word == "default":  # Groq: https://console.groq.com/docs/reasoning
        del fields["reasoning_effort"]
        found.enabled = True


def _read_openrouter(found: Reasoning, fields: dict[str, Any]) -> None:
    """https://openrouter.ai/docs/use-cases/reasoning-tokens; `summary` as some pass it on to Responses."""
    inner = object_or_null(fields.get("reasoning"), "reasoning")
    if inner is not None:
        rest = dict(inner)
        effort = text_or_null(rest.pop("effort", None), "reasoning.effort")
        if effort:
            found.effort = effort
        budget = integer_or_null(rest.pop("max_tokens", None), "reasoning.max_tokens")
        found.budget = budget if budget is not None else found.budget
        enabled = flag_or_null(rest.pop("enabled", None), "reasoning.enabled")
        found.enabled = enabled if enabled is not None else found.enabled
        if (hidden := flag_or_null(rest.pop("exclude", None), "reasoning.exclude")) is not None:
            found.visible = not hidden
        found.summary = text_or_null(rest.pop("summary", None), "reasoning.summary") or ""
        _keep(fields, "reasoning", rest)
    shown = flag_or_null(fields.pop("include_reasoning", None), "include_reasoning")
    if shown is not None:
        found.visible = shown


def _read_thinking_type(found: Reasoning, fields: dict[str, Any]) -> None:
    """DeepSeek's, Z.ai's, Moonshot's: https://docs.z.ai/guides/capabilities/thinking-mode"""
    inner = object_or_null(fields.get("thinking"), "thinking")
    if inner is None:
        return
    rest = dict(inner)
    match text_or_null(rest.get("type"), "thinking.type"):
        case "enabled":
            found.enabled = True
        case "disabled":
            found.enabled = False
        case "auto" | "adaptive":
            found.adaptive = True
        case _:
            return
    del rest["type"]
    budget = integer_or_null(rest.pop("budget_tokens", None), "thinking.budget_tokens")
    found.budget = budget if budget is not None else found.budget
    _keep(fields, "thinking", rest)


def _read_switches(found: Reasoning, fields: dict[str, Any]) -> None:
    """Qwen's (https://help.aliyun.com/zh/model-studio/deep-thinking), vLLM's template, Groq's `reasoning_format`."""
    enabled = flag_or_null(fields.pop("enable_thinking", None), "enable_thinking")
    budget = integer_or_null(fields.pop("thinking_budget", None), "thinking_budget")
    kwargs = object_or_null(fields.get("chat_template_kwargs"), "chat_template_kwargs")
    if kwargs is not None:
        rest = dict(kwargs)
        inner = flag_or_null(rest.pop("enable_thinking", None), "chat_template_kwargs.enable_thinking")
        enabled = inner if inner is not None else enabled
        _keep(fields, "chat_template_kwargs", rest)
    found.enabled = enabled if enabled is not None else found.enabled
    found.budget = budget if budget is not None else found.budget
    _read_gemini(found, fields)
    if fields.get("reasoning_format") in ("parsed", "hidden"):
        found.visible = fields.pop("reasoning_format") == "parsed"


def _read_gemini(found: Reasoning, fields: dict[str, Any]) -> None:
    """https://ai.google.dev/gemini-api/docs/openai#thinking"""
    extra = fields.get("extra_body")
    google = extra.get("google") if isinstance(extra, dict) else None
    config = google.get("thinking_config") if isinstance(google, dict) else None
    if extra != {"google": {"thinking_config": config}} or not isinstance(config, dict):
        return  # with other things in it, it is kept as a whole
    path = "extra_body.google.thinking_config"
    del fields["extra_body"]
    found.visible = flag_or_null(config.get("include_thoughts"), f"{path}.include_thoughts")
    budget = integer_or_null(config.get("thinking_budget"), f"{path}.thinking_budget")
    found.budget, found.adaptive = (None, True) if budget == -1 else (budget, found.adaptive)
    level = text_or_null(config.get("thinking_level"), f"{path}.thinking_level")
    if level is not None and level.lower() in _EFFORTS:
        found.effort = level.lower()


def _keep(fields: dict[str, Any], name: str, rest: dict[str, Any]) -> None:
    if rest:
        fields[name] = rest
    else:
        del fields[name]


def _read_output(fields: dict[str, Any]) -> Output | None:
    """llama.cpp and others put a schema beside `json_object`. Kinds of a vendor's own (a grammar) stay in `fields`."""
    path = "response_format"
    found = object_or_null(fields[path], path)
    if found is None:
        return None
    kind = _text(found.get("type"), f"{path}.type")
    if kind not in ("text", "json_object", "json_schema"):
        return None
    del fields[path]
    if kind == "text":
        return None
    inner = object_or_null(found.get("json_schema"), f"{path}.json_schema") or {}
    schema = object_or_null(inner.get("schema", found.get("schema")), f"{path}.json_schema.schema")
    if kind == "json_schema" and schema is None:
        raise missing(f"{path}.json_schema.schema")
    return Output(
        "json_schema" if schema is not None else kind,
        schema,
        text_or_null(inner.get("name"), f"{path}.json_schema.name") or "",
        text_or_null(inner.get("description"), f"{path}.json_schema.description") or "",
        flag_or_null(inner.get("strict"), f"{path}.json_schema.strict"),
    )
