"""OpenAI's Responses requests, written from the canonical form. Called by `openai_responses`.

Fields and items: https://platform.openai.com/docs/api-reference/responses/create
"""

import hashlib
import re
from typing import Any

from proxy.formats import reasoning as thinking
from proxy.formats.base import Losses, Target
from proxy.formats.canonical import (
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from proxy.formats.data_url import write_url
from proxy.formats.lenient import encode
from proxy.formats.openai_responses.answer_reader import unpack, write_citation
from proxy.formats.openai_responses.byte_relay import NAME
from proxy.formats.openai_responses.request_reader import ENCRYPTED, LOGPROBS, Extra
from proxy.formats.openai_tools import custom_input, fits_strict

# `Request`'s fields that the API has nothing like.
_UNKNOWN = (
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "logit_bias",
    "audio",
)
# Fields that chat completions have too, in the same sense.
_SHARED: dict[str, type] = {"prompt_cache_options": dict, "prompt_cache_retention": str, "safety_identifier": str}
_TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
LEAST_OUTPUT = 16  # tokens: the API refuses less
_LONGEST = 64  # letters of a tool's name, and of a call's id
_ODD = re.compile(r"[^a-zA-Z0-9_-]")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def write_request(request: Request, target: Target) -> bytes:
    losses = target.losses
    _rename([tool for tool in request.tools if tool.kind != "server"], target)
    body: dict[str, Any] = {"model": target.model, "input": _write_items(request, target)}
    if tools := _write_tools(request.tools, target):
        body["tools"] = tools
    _write_choice(request, body, target)
    _write_fields(request, body, target)
    _write_reasoning(request, body)
    _write_extra(request, body, losses)
    return encode(body)


def _write_fields(request: Request, body: dict[str, Any], target: Target) -> None:
    losses = target.losses
    body["store"] = bool(request.store)  # the API stores what does not say; no other format does
    given = {
        "stream": request.stream or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "user": request.user or None,
        "prompt_cache_key": request.cache_key or None,
        "service_tier": request.service_tier if request.service_tier in _TIERS else None,
        "metadata": request.metadata if _is_flat(request.metadata) else None,
    }
    body |= {name: found for name, found in given.items() if found is not None}
    if request.max_tokens is not None:
        most = target.max_output or request.max_tokens
        body["max_output_tokens"] = max(min(request.max_tokens, most), LEAST_OUTPUT)
        if body["max_output_tokens"] != request.max_tokens:  # more than the model can give is refused, and too little
            losses.field("max_tokens")
    _name_losses(request, losses)
    _write_text(request, body, losses)


def _name_losses(request: Request, losses: Losses) -> None:
    lost = [name for name in _UNKNOWN if getattr(request, name) not in (None, [])]
    for name, gone in (
        ("metadata", not _is_flat(request.metadata)),
        ("service_tier", request.service_tier not in ("", *_TIERS)),
        ("n", request.n not in (None, 1)),
        ("modalities", set(request.modalities) - {"text"}),
    ):
        if gone:
            lost.append(name)
    for name in lost:
        losses.field(name)


def _is_flat(metadata: dict[str, Any] | None) -> bool:
    return all(isinstance(one, str) for one in (metadata or {}).values())


def _write_text(request: Request, body: dict[str, Any], losses: Losses) -> None:
    text: dict[str, Any] = {}
    output = request.output
    if output is not None:
        form: dict[str, Any] = {"type": output.kind}
        text["format"] = form
        if output.kind == "json_schema":
            form |= {"name": tool_name(output.name) or "answer", "schema": output.schema or {}}
            form |= {"description": output.description} if output.description else {}
            strict = bool(output.strict) and fits_strict(output.schema)
            form |= {"strict": strict} if output.strict is not None else {}
            if output.strict and not strict:
                losses.field("output.strict")
    if request.verbosity:
        text["verbosity"] = request.verbosity
    if text:
        body["text"] = text


def _write_reasoning(request: Request, body: dict[str, Any]) -> None:
    """Encrypted thoughts are asked for wherever there will be thoughts: models without any refuse the wish."""
    asked, include = request.reasoning, []
    if asked is not None:
        found = {}
        if effort := thinking.effort(asked, request.max_tokens, _EFFORTS):
            found["effort"] = effort
        off = thinking.is_off(asked)
        if not off and _shown(asked):
            found["summary"] = asked.summary or "auto"
        if found:
            body["reasoning"] = found
        if not off:
            include.append(ENCRYPTED)
    if not include and any(item["type"] == "reasoning" for item in body["input"] if "type" in item):
        include.append(ENCRYPTED)
    if request.logprobs:
        include.append(LOGPROBS)
        if request.top_logprobs is not None:
            body["top_logprobs"] = request.top_logprobs
    if include:
        body["include"] = include


def _shown(asked: Reasoning) -> bool:
    """An effort alone says nothing of it, and OpenAI gives summaries to verified organisations only."""
    if asked.visible is None:
        return bool(asked.summary or asked.enabled or asked.adaptive)
    return asked.visible


def _write_extra(request: Request, body: dict[str, Any], losses: Losses) -> None:
    own = isinstance(request.extra, Extra)
    for name, found in request.extra.items():
        if own and name.startswith("tools["):
            continue  # it stands in its tool
        if name.startswith("input[") or (not own and type(found) is not _SHARED.get(name)):
            losses.field(name)
        elif own and "." in name:
            outer, inner = name.split(".", 1)
            body.setdefault(outer, {})[inner] = found
        elif name == "include":
            body["include"] = [*body.get("include", []), *found]
        else:
            body.setdefault(name, found)


# --- tools, written


def tool_name(name: str) -> str:
    """As the API takes it: https://platform.openai.com/docs/api-reference/responses/create (tools, name)."""
    fit = _ODD.sub("_", name)
    return fit if len(fit) <= _LONGEST else _marked(name)


def _marked(name: str) -> str:
    """A name of its own for what others may be called too."""
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{_ODD.sub('_', name)[:55]}_{mark}"


def _rename(tools: list[Tool], target: Target) -> None:
    """What the API cannot call by its name gets another, which no other tool has."""
    taken = {tool.name for tool in tools}
    for name in dict.fromkeys(tool.name for tool in tools):
        fit = tool_name(name)
        if fit != name:
            fit = _marked(name) if fit in taken else fit
            taken.add(fit)
            target.renamed[fit] = name


def _given_names(target: Target) -> dict[str, str]:
    """The client's name of a tool → the one that the API gets."""
    return {name: fit for fit, name in target.renamed.items()}


def _write_tools(tools: list[Tool], target: Target) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    namespaces: dict[str, dict[str, Any]] = {}
    losses = target.losses
    names = _given_names(target)
    for tool in tools:
        if tool.cache:
            losses.at(f"{tool.at}.cache_control", harmless=True)
        if tool.kind == "server":
            if tool.origin == NAME:
                written.append(tool.raw)
            else:
                losses.at(tool.at)
            continue
        one = _write_tool(tool, names.get(tool.name, tool.name), losses)
        if not _is_inner(tool):
            written.append(one)
            continue
        name = tool.raw["namespace"]
        if name not in namespaces:
            namespaces[name] = {"type": "namespace", "name": name, "description": tool.raw["about"], "tools": []}
            written.append(namespaces[name])
        namespaces[name]["tools"].append({**one, "name": tool.raw["name"]})
    return written


def _is_inner(tool: Tool) -> bool:
    """It stood in a namespace."""
    return tool.origin == NAME and "namespace" in tool.raw


def _write_tool(tool: Tool, name: str, losses: Losses) -> dict[str, Any]:
    found: dict[str, Any] = {"type": tool.kind, "name": name}
    if tool.description:
        found["description"] = tool.description
    if tool.origin == NAME:
        found |= {key: one for key, one in tool.raw.items() if key not in ("namespace", "name", "about")}
    if tool.kind == "custom":
        return found | ({"format": tool.grammar} if tool.grammar is not None else {})
    found["parameters"] = tool.schema if tool.schema is not None else {"type": "object", "properties": {}}
    strict = bool(tool.strict) and fits_strict(tool.schema)
    if tool.strict is not None or tool.origin != NAME:
        found["strict"] = strict  # left out, the API makes it strict; in other formats it does not
    if tool.strict and not strict:
        losses.at(f"{tool.at}.strict")
    return found


def _write_choice(request: Request, body: dict[str, Any], target: Target) -> None:
    choice, losses, names = request.tool_choice, target.losses, _given_names(target)
    if request.parallel_tool_calls is not None and "tools" in body:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if choice is None:
        return
    if "tools" not in body:  # the API refuses a choice without any
        if choice.mode not in ("auto", "none"):
            losses.field("tool_choice")
        return
    tools = {tool.name: tool for tool in request.tools}
    if choice.allowed:
        mode = choice.mode if choice.mode == "required" else "auto"
        listed = [_named(name, tools, names) for name in choice.allowed]
        body["tool_choice"] = {"type": "allowed_tools", "mode": mode, "tools": listed}
    elif choice.mode == "tool":
        body["tool_choice"] = _named(choice.name, tools, names)
    else:
        body["tool_choice"] = choice.mode


def _named(name: str, tools: dict[str, Tool], names: dict[str, str]) -> dict[str, Any]:
    tool = tools.get(name)
    kind = "custom" if tool is not None and tool.kind == "custom" else "function"
    if tool is not None and _is_inner(tool):
        return {"type": kind, "name": tool.raw["name"]}
    return {"type": kind, "name": names.get(name) or tool_name(name)}


# --- items, written


def _write_items(request: Request, target: Target) -> list[dict[str, Any]]:
    writer = _Items(request, target)
    for message in request.messages:
        writer.message(message)
    return writer.items


class _Items:
    """The conversation as items. A message whose parts are of several kinds becomes several items, in their order."""

    __slots__ = ("_customs", "_losses", "_names", "_own", "_thoughts", "_tools", "items")

    def __init__(self, request: Request, target: Target) -> None:
        self.items: list[dict[str, Any]] = []
        self._losses = target.losses
        self._names = _given_names(target)
        self._own = isinstance(request.extra, Extra)
        self._thoughts = "reasoning_content" in target.quirks  # it takes thoughts back without a signature
        self._tools = {tool.name: tool for tool in request.tools}
        self._customs: set[str] = set()  # calls of custom tools

    def message(self, message: Message) -> None:
        if message.name:
            self._losses.at(f"{message.at}.name")
        content: list[dict[str, Any]] = []
        for part in message.parts:
            if part.cache:
                self._losses.at(f"{part.at}.cache_control", harmless=True)
            if part.signature and not isinstance(part, Thinking):
                self._losses.at(f"{part.at}.signature", harmless=True)
            item = self._item(part)
            if item is None:
                if (written := self._part(part, message.role)) is not None:
                    content.append(written)
                continue
            self._flush(message.role, content)
            content = []
            if item:
                self.items.append(item)
        self._flush(message.role, content)
        if message.role == "assistant":
            self._drop_last_thought(message)

    def _flush(self, role: str, content: list[dict[str, Any]]) -> None:
        if not content:
            return
        first = content[0]
        if len(content) == 1 and first.get("text") is not None and not first.get("annotations"):
            self.items.append({"type": "message", "role": role, "content": first["text"]})
        elif role == "assistant":
            made = {"type": "message", "id": f"msg_{len(self.items)}", "status": "completed"}
            self.items.append({**made, "role": role, "content": content})
        else:
            self.items.append({"type": "message", "role": role, "content": content})

    def _drop_last_thought(self, message: Message) -> None:
        """The API refuses thoughts that nothing follows."""
        while self.items and self.items[-1].get("type") == "reasoning":
            self.items.pop()
            self._losses.at(f"{message.at}.reasoning", harmless=True)

    def _item(self, part: Part) -> dict[str, Any] | None:
        """A part that is an item of its own; empty where it is lost. None: it belongs in a message."""
        match part:
            case ToolCall():
                return self._call(part)
            case ToolResult():
                return self._result(part)
            case Thinking():
                return self._thought(part)
            case Opaque(origin=origin) if origin == NAME and not part.kind.startswith(("input_", "output_")):
                return part.value
            case Media(kind="image", origin=origin) if origin == NAME and part.id:
                item = {"type": "image_generation_call", "id": part.id, "status": "completed", "result": part.data}
                return item
        return None

    def _call(self, part: ToolCall) -> dict[str, Any]:
        call_id, tool = short_id(part.id), self._tools.get(part.name)
        name = self._names.get(part.name) or tool_name(part.name)
        more = {}
        if tool is not None and _is_inner(tool):
            name, more = tool.raw["name"], {"namespace": tool.raw["namespace"]}
        if part.custom or (tool is not None and tool.kind == "custom"):
            self._customs.add(part.id)
            text = part.arguments if part.custom else custom_input(part.arguments)
            return {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": text, **more}
        arguments = part.arguments or "{}"
        return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, **more}

    def _result(self, part: ToolResult) -> dict[str, Any]:
        custom = part.custom or part.call_id in self._customs
        if part.is_error:
            self._losses.at(f"{part.at}.is_error", harmless=True)
        output: Any = [written for one in part.parts if (written := self._part(one, "user")) is not None]
        if not output or (len(output) == 1 and "text" in output[0]):
            output = output[0]["text"] if output else ""
        kind = "custom_tool_call_output" if custom else "function_call_output"
        return {"type": kind, "call_id": short_id(part.call_id), "output": output}

    def _thought(self, part: Thinking) -> dict[str, Any]:
        own = part.origin == NAME
        item_id, encrypted = unpack(part.signature) if own else ("", "")
        item_id = item_id or (part.id if own else "")
        item: dict[str, Any] = {"type": "reasoning", **({"id": item_id} if item_id else {}), "summary": []}
        if encrypted:
            item["encrypted_content"] = encrypted
        elif self._thoughts and part.text:
            item["id"] = item_id or f"rs_{len(self.items)}"
            item["content"] = [{"type": "reasoning_text", "text": part.text}]
            return item
        else:
            self._losses.at(part.at, harmless=True)
            return {}
        if part.text and self._own and not part.summary:
            item["content"] = [{"type": "reasoning_text", "text": part.text}]
        elif part.text:  # other formats' clients do not say which it was; OpenAI's are summaries
            item["summary"] = [{"type": "summary_text", "text": part.text}]
        return item

    def _part(self, part: Part, role: str) -> dict[str, Any] | None:
        """A part of a message, or of a tool's result. None where the API has nothing like it."""
        match part:
            case Text() if role == "assistant":
                return {"type": "output_text", "text": part.text, "annotations": self._annotations(part)}
            case Text():
                return {"type": "input_text", "text": part.text}
            case Refusal() if role == "assistant":
                return {"type": "refusal", "refusal": part.text}
            case Refusal():
                return {"type": "input_text", "text": part.text}
            case Media() if role != "assistant":
                written = self._image(part) if part.kind == "image" else self._file(part)
                if written is not None:
                    return written
            case Opaque() if part.origin == NAME:
                return part.value
        self._losses.at(part.at)
        return None

    def _annotations(self, part: Text) -> list[dict[str, Any]]:
        found = [write_citation(citation, part.text) for citation in part.citations]
        if None in found:
            self._losses.at(f"{part.at}.citations", harmless=True)
        return [one for one in found if one is not None]

    def _image(self, part: Media) -> dict[str, Any] | None:
        found = {"type": "input_image", "detail": part.detail or "auto"}
        if part.data:
            return found | {"image_url": write_url(part, "image/png")}
        if part.url:
            return found | {"image_url": part.url}
        return found | {"file_id": part.file_id} if _knows_file(part) else None

    def _file(self, part: Media) -> dict[str, Any] | None:
        """https://platform.openai.com/docs/guides/pdf-files"""
        if part.kind != "file":
            return None
        if part.context or part.cite:
            self._losses.at(f"{part.at}.{'context' if part.context else 'citations'}")
        if part.text:
            return {"type": "input_text", "text": part.text}
        if part.data:
            kind = part.media_type or "application/pdf"
            name = part.name or ("document.pdf" if kind == "application/pdf" else "document.txt")
            return {"type": "input_file", "filename": name, "file_data": write_url(part, kind)}
        if part.url:
            return {"type": "input_file", "file_url": part.url}
        return {"type": "input_file", "file_id": part.file_id} if _knows_file(part) else None


def _knows_file(part: Media) -> bool:
    """A file's id is good at the provider that has it."""
    return bool(part.file_id) and part.origin in ("", NAME, "openai_chat")


def short_id(call_id: str) -> str:
    """A call's id as the API takes it; the same one always gives the same."""
    if len(call_id) <= _LONGEST:
        return call_id
    return "call_" + hashlib.sha256(call_id.encode()).hexdigest()[:32]
