"""The canonical form → requests for Gemini. Called by `gemini`, which has the format's names.

Fields: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/caching (Content, Part, Tool).
"""

import mimetypes
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from proxy.formats import reasoning as thinking
from proxy.formats.base import Target
from proxy.formats.canonical import (
    Media,
    Message,
    Opaque,
    Part,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from proxy.formats.gemini.parts import UNSIGNED, object_of
from proxy.formats.gemini.request_reader import INTEGERS, NUMERIC, camel
from proxy.formats.gemini.wire import NAME

_MOST_STOPS = 5
_NO_RESULT = "No result was given for this call."
_encode = msgspec.json.encode
_VERSION = re.compile(r"gemini-(?:[a-z]+-)?(\d+)(?:\.(\d+))?")
_OWN_EXTRA = frozenset({"safetySettings", "cachedContent", "modelArmorConfig"})
_TOOL_EXTRA = ("retrievalConfig", "includeServerSideToolInvocations")
_CONFIG_EXTRA = ("speechConfig", "imageConfig", "mediaResolution", "audioTimestamp", "routingConfig")
_NAMES = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")


def version_of(model: str) -> float | None:
    """Of a Gemini model; None for one whose name does not say. The names ending in `latest` mean the newest."""
    name = model.rpartition("/")[2]
    if found := _VERSION.match(name):
        return float(f"{found[1]}.{found[2] or 0}")
    return 3.0 if name.startswith("gemini-") and name.endswith("latest") else None


def write_request(request: Request, target: Target) -> bytes:
    version = version_of(target.model)
    body: dict[str, Any] = {}
    system, messages = _split(request.messages)
    if parts := [part for message in system for part in _system_parts(message, target)]:
        body["systemInstruction"] = {"parts": parts}
    body["contents"] = _Contents(target, version).write(messages)
    if tools := _write_tools(request.tools, target):
        body["tools"] = tools
        if choice := _write_choice(request, target):
            body["toolConfig"] = {"functionCallingConfig": choice}
    elif request.tool_choice is not None and request.tool_choice.mode not in ("auto", "none"):
        target.losses.field("tool_choice")
    if config := _write_config(request, target, version, tools=bool(tools)):
        body["generationConfig"] = config
    if request.service_tier in ("flex", "priority"):
        body["serviceTier"] = request.service_tier
    elif request.service_tier not in ("", "auto", "default"):
        target.losses.field("service_tier")
    _write_rest(request, body, target)
    return _encode(body)


def _split(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    first = next((i for i, each in enumerate(messages) if each.role not in ("system", "developer")), len(messages))
    return messages[:first], messages[first:]


def _system_parts(message: Message, target: Target) -> Iterator[dict[str, Any]]:
    for part in message.parts:
        _note(part, target)
        if isinstance(part, Text):
            if part.text:
                yield {"text": part.text}
        else:
            target.losses.at(part.at or message.at)


def _note(part: Part, target: Target) -> None:
    """What any part may have that Gemini has no place for."""
    if part.cache:
        target.losses.at(f"{part.at}.cache_control", harmless=True)
    if isinstance(part, Text) and part.citations:
        target.losses.at(f"{part.at}.citations", harmless=True)


def function_name(name: str) -> str:
    """The name as Gemini allows it: the same one for the same name."""
    if _NAMES.fullmatch(name):
        return name
    fitting = re.sub(r"[^a-zA-Z0-9_.:-]", "_", name)[:127]
    return fitting if _NAMES.fullmatch(fitting) else f"_{fitting}"


class _Contents:
    """Writes the conversation.

    `_signed`: the model may refuse calls of the current turn without a signature. Gemini 3 does; what a model of
    another name is, nobody knows, and older ones take the signature too.
    """

    def __init__(self, target: Target, version: float | None) -> None:
        self._target = target
        self._holds_media = version is not None and version >= 3
        self._losses = target.losses
        self._waiting: dict[str, ToolCall] = {}  # calls of the model's last turn without a result yet, in their order
        self._signed = version is None or version >= 3
        self._beside: list[dict[str, Any]] = []  # media of results, where they cannot be in them
        self._out: list[dict[str, Any]] = []

    def write(self, messages: list[Message]) -> list[dict[str, Any]]:
        turn = _current_turn(messages)
        at = 0
        while at < len(messages):
            message = messages[at]
            if message.name:
                self._losses.at(f"{message.at}.name", harmless=True)
            if message.role == "assistant":
                self._put("model", self._spoken(message, current=at > turn))
                at += 1
                continue
            stop = at + 1
            while stop < len(messages) and messages[stop].role != "assistant":
                stop += 1
            self._asked(messages[at:stop])
            at = stop
        self._asked([])
        if not self._out or self._out[0]["role"] != "user":
            self._out.insert(0, {"role": "user", "parts": [{"text": " "}]})  # a conversation begins with the user
        return self._out

    def _put(self, role: str, parts: list[dict[str, Any]]) -> None:
        """The model's turn is one content: as many results must follow it as it has calls."""
        if role == "model" and self._out and self._out[-1]["role"] == role:
            self._out[-1]["parts"] += parts
        elif parts:
            self._out.append({"role": role, "parts": parts})

    def _asked(self, messages: list[Message]) -> None:
        """The user's turn. As many results as there were calls come first, in the order of the calls, in one content.

        https://ai.google.dev/gemini-api/docs/function-calling
        """
        calls, self._waiting = self._waiting, {}
        results: dict[str, ToolResult] = {}
        contents: list[list[dict[str, Any]]] = []
        for message in messages:
            if message.role != "user":  # a system message inside the conversation: no role of Gemini's
                self._losses.at(f"{message.at}.role")
            parts: list[dict[str, Any]] = []
            for part in message.parts:
                _note(part, self._target)
                if isinstance(part, ToolResult) and part.call_id in calls and part.call_id not in results:
                    results[part.call_id] = part
                elif isinstance(part, ToolResult):
                    parts += self._orphan(part)
                else:
                    parts += self._said(part)
            contents.append(parts)
        written = [self._result(results.get(call_id), call) for call_id, call in calls.items()] + self._beside
        self._beside = []
        if messages and _has_results(messages[0]):
            written += contents.pop(0)
        for each in (written, *contents):
            self._put("user", each)

    def _spoken(self, message: Message, *, current: bool) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        signature, called = "", False  # of a thought, for the next part
        for part in message.parts:
            _note(part, self._target)
            if isinstance(part, Thinking):
                if signature:
                    out.append({"text": "", "thoughtSignature": signature})
                signature = self._thought(part, out)
                continue
            written = self._said(part)
            for each in written:
                own = part.signature if part.origin == NAME else ""
                if (found := own or signature) and "thoughtSignature" not in each:
                    each["thoughtSignature"] = found
                    signature = "" if not own else signature
                elif isinstance(part, ToolCall) and self._signed and current and not called:
                    each["thoughtSignature"] = UNSIGNED
                called = called or isinstance(part, ToolCall)
            out += written
        if signature:
            out.append({"text": "", "thoughtSignature": signature})
        return out

    def _thought(self, part: Thinking, out: list[dict[str, Any]]) -> str:
        """Gemini takes its own thoughts only. Its signatures stand on the part that comes after the thought."""
        if part.origin != NAME:
            self._losses.at(part.at, harmless=True)
            return ""
        if part.text:
            out.append({"text": part.text, "thought": True})
        return part.signature

    def _said(self, part: Part) -> list[dict[str, Any]]:
        match part:
            case Text() | Refusal():
                return [{"text": part.text}] if part.text else []
            case ToolCall():
                return [{"functionCall": self._call(part)}]
            case Media():
                return _write_media(part, self._target)
            case Opaque() if part.origin == NAME:
                return [dict(part.value)]
            case Thinking() if not part.text:
                return []
        self._losses.at(part.at)
        return []

    def _call(self, part: ToolCall) -> dict[str, Any]:
        args, whole = ({"input": part.arguments}, True) if part.custom else object_of(part.arguments)
        if not whole:
            self._losses.at(f"{part.at}.arguments")
        self._waiting[part.id] = part
        call = {"name": function_name(part.name), "args": args}
        return {"id": part.id, **call} if part.id else call

    def _orphan(self, part: ToolResult) -> list[dict[str, Any]]:
        """A result whose call is not in the conversation, or could not be said: Gemini refuses it as a result."""
        self._losses.at(part.at)
        return [written for each in part.parts for written in self._said(each)]

    def _result(self, part: ToolResult | None, call: ToolCall) -> dict[str, Any]:
        """Gemini refuses a turn in which a call has none."""
        if part is None:
            self._losses.at(call.at)
            part = ToolResult(call.id, [Text(_NO_RESULT)], is_error=True)
        found: dict[str, Any] = {"id": part.call_id} if part.call_id else {}
        found |= {"name": function_name(part.name or call.name), "response": self._response(part)}
        for each in part.parts:
            blobs = _write_media(each, self._target) if isinstance(each, Media) and not each.text else []
            for blob in blobs:
                if self._holds_media and blob.get("inlineData", {}).get("mimeType") in _HELD:
                    found.setdefault("parts", []).append(blob)
                else:
                    self._beside.append(blob)
        return {"functionResponse": found}

    def _response(self, part: ToolResult) -> dict[str, Any]:
        """An object, whatever the tool said; text stands in `output` or `error`, as Google's page has it:

        https://ai.google.dev/api/caching#FunctionResponse
        """
        texts = [each.text for each in part.parts if isinstance(each, Text)]
        texts += [each.text for each in part.parts if isinstance(each, Media) and each.text]
        for each in part.parts:
            _note(each, self._target)
            if not isinstance(each, Text | Media):
                self._losses.at(each.at or part.at)
        text = "\n".join(texts)
        if part.is_error:
            return {"error": text}
        if text.lstrip().startswith("{"):
            found, whole = object_of(text)
            if whole and not (len(found) == 1 and isinstance(found.get("output", found.get("error")), str)):
                return found
        return {"output": text}


def _current_turn(messages: list[Message]) -> int:
    """Where the turn began: the last message that is more than results. Only calls after it are checked."""
    user = [i for i, each in enumerate(messages) if each.role != "assistant" and not _only_results(each)]
    return user[-1] if user else -1


def _has_results(message: Message) -> bool:
    return any(isinstance(part, ToolResult) for part in message.parts)


def _only_results(message: Message) -> bool:
    return bool(message.parts) and all(isinstance(part, ToolResult) for part in message.parts)


# In results, and with Gemini 3 only: https://ai.google.dev/gemini-api/docs/function-calling#multimodal
_HELD = ("image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain")
_TYPES = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "file": "application/pdf"}


def _write_media(part: Media, target: Target) -> list[dict[str, Any]]:
    """URLs that anybody can fetch: https://ai.google.dev/gemini-api/docs/file-input-methods"""
    losses = target.losses
    for name, lost in (("title", part.name), ("context", part.context), ("detail", part.detail not in ("", "auto"))):
        if lost:
            losses.at(f"{part.at}.{name}", harmless=True)
    if part.cite:
        losses.at(f"{part.at}.citations")
    if part.text and not part.data:
        return [{"text": "\n".join(filter(None, (part.name, part.context, part.text)))}]
    if part.data:
        return [
            {"inlineData": {"mimeType": part.media_type or _TYPES.get(part.kind, _TYPES["file"]), "data": part.data}}
        ]
    uri = part.url or (part.file_id if part.origin == NAME else "")
    if not uri or urlsplit(uri).scheme not in ("http", "https", "gs", ""):
        losses.at(part.at)
        return []
    kind = part.media_type or mimetypes.guess_type(urlsplit(uri).path)[0] or ""
    if not kind and part.url:
        kind = "image/jpeg" if part.kind == "image" else _TYPES.get(part.kind, _TYPES["file"])
    return [{"fileData": {"mimeType": kind, "fileUri": uri} if kind else {"fileUri": uri}}]


# --- writing tools ---------------------------------------------------------------------------------------------------

_FREE_TEXT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def _write_tools(tools: Iterable[Tool], target: Target) -> list[dict[str, Any]]:
    functions: dict[str, dict[str, Any]] = {}
    servers = []
    for tool in tools:
        if tool.cache:
            target.losses.at(f"{tool.at}.cache_control", harmless=True)
        if tool.kind != "server" and function_name(tool.name) in functions:  # refused
            target.losses.at(tool.at)
        elif tool.kind != "server":
            functions[function_name(tool.name)] = _write_function(tool, target)
        elif tool.origin == NAME:
            servers.append(tool.raw)
        else:
            target.losses.at(tool.at)
    return ([{"functionDeclarations": list(functions.values())}] if functions else []) + servers


def _write_function(tool: Tool, target: Target) -> dict[str, Any]:
    """`parametersJsonSchema` takes JSON Schema as it is: https://ai.google.dev/api/caching#FunctionDeclaration"""
    found: dict[str, Any] = {"name": function_name(tool.name)}
    if found["name"] != tool.name:
        target.renamed[found["name"]] = tool.name
    if tool.description:
        found["description"] = tool.description
    if tool.kind == "custom":
        if tool.grammar is not None:
            target.losses.at(f"{tool.at}.format")
        found["parametersJsonSchema"] = _FREE_TEXT
    elif tool.schema:
        found["parametersJsonSchema"] = tool.schema
    if tool.strict:
        target.losses.at(f"{tool.at}.strict", harmless=True)
    if tool.raw and tool.origin != NAME:  # members that only its own format has
        target.losses.at(tool.at, harmless=True)
    return found


def _write_choice(request: Request, target: Target) -> dict[str, Any]:
    if request.parallel_tool_calls is False:
        target.losses.field("parallel_tool_calls")
    choice = request.tool_choice
    if choice is None:
        return {}
    names = [function_name(name) for name in ((choice.name,) if choice.mode == "tool" else choice.allowed)]
    functions = {function_name(tool.name) for tool in request.tools if tool.kind != "server"}
    if choice.mode == "none":
        return {"mode": "NONE"}
    if not functions.issuperset(names) or (choice.mode != "auto" and not functions):
        target.losses.field("tool_choice")  # a server's tool, which Gemini does not have
        return {}
    # Names go with ANY and VALIDATED only, and VALIDATED leaves the choice to the model.
    mode = ("VALIDATED" if names else "AUTO") if choice.mode == "auto" else "ANY"
    return {"mode": mode, "allowedFunctionNames": names} if names else {"mode": mode}


# --- writing generationConfig ----------------------------------------------------------------------------------------

_SAME = NUMERIC | INTEGERS
_UNSAYABLE = (
    "min_p",
    "repetition_penalty",
    "logit_bias",
    "verbosity",
    "audio",
    "user",
    "metadata",
    "cache_key",
    "store",
)


def _write_config(request: Request, target: Target, version: float | None, *, tools: bool) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for theirs, ours in _SAME.items():
        if (value := getattr(request, ours)) is not None:
            config[theirs] = value
    if not -(2**31) <= config.get("seed", 0) < 2**31:  # an int32
        del config["seed"]
        target.losses.field("seed")
    if request.stop:
        config["stopSequences"] = request.stop[:_MOST_STOPS]
        if len(request.stop) > _MOST_STOPS:
            target.losses.field("stop")
    if request.logprobs:
        config["responseLogprobs"] = True
    if not request.logprobs or not config.get("logprobs"):
        config.pop("logprobs", None)
    if request.modalities:
        config["responseModalities"] = [name.upper() for name in request.modalities]
    if found := _write_reasoning(request, target, version):
        config["thinkingConfig"] = found
    config.update(_write_output(request, target, version, tools=tools))
    return config


def _write_output(request: Request, target: Target, version: float | None, *, tools: bool) -> dict[str, Any]:
    output = request.output
    if output is None or output.kind == "text":
        return {}
    if tools and version is not None and version < 3:  # refused: "function calling with a response mime type"
        target.losses.field("output")
        return {}
    found: dict[str, Any] = {"responseMimeType": "application/json"}
    return found | ({"responseJsonSchema": output.schema} if output.schema is not None else {})


def _write_reasoning(request: Request, target: Target, version: float | None) -> dict[str, Any]:
    """Gemini 3 has levels, 2.5 budgets; models whose names do not tell take a budget:

    https://ai.google.dev/gemini-api/docs/thinking#set-budget
    """
    asked = request.reasoning
    if asked is None:
        return {}
    if version is not None and version < 2.5:
        target.losses.field("reasoning")
        return {}
    found: dict[str, Any] = {}
    off = thinking.is_off(asked)
    if version is not None and version >= 3:
        known = _levels(target.model, version)
        if level := thinking.effort(asked, request.max_tokens or target.max_output, known):
            found["thinkingLevel"] = level.upper()
        if off:
            target.losses.field("reasoning")  # it thinks all the same, the least it can
    else:
        found.update(_budget(request, target, off=off))
    visible = asked.visible if asked.visible is not None else not off
    return {**found, "includeThoughts": True} if visible else found


def _levels(model: str, version: float) -> tuple[str, ...]:
    if "pro" in model:
        return ("low", "high") if version < 3.1 else ("low", "medium", "high")
    return ("minimal", "low", "medium", "high")


def _budget(request: Request, target: Target, *, off: bool) -> dict[str, int]:
    assert request.reasoning is not None
    is_pro = "pro" in target.model
    wanted = thinking.budget(request.reasoning, request.max_tokens or target.max_output)
    if wanted is None:
        return {"thinkingBudget": -1} if request.reasoning.adaptive or request.reasoning.enabled else {}
    if off and not is_pro:
        return {"thinkingBudget": 0}
    if request.reasoning.budget is None and request.max_tokens:
        wanted = min(wanted, max(1, request.max_tokens * 9 // 10))  # thoughts count towards the output's limit
    least, most = (128, 32768) if is_pro else (512 if "lite" in target.model else 1, 24576)
    fitting = min(max(wanted, least), most)
    if off or (request.reasoning.budget is not None and fitting != wanted):
        target.losses.field("reasoning")
    return {"thinkingBudget": fitting}


def _write_rest(request: Request, body: dict[str, Any], target: Target) -> None:
    for name in _UNSAYABLE:
        if getattr(request, name) not in (None, "", {}):
            target.losses.field(name)
    for name, value in request.extra.items():
        head, _, tail = name.partition(".")
        if camel(name) in _OWN_EXTRA:
            body[camel(name)] = value
        elif camel(head) == "generationConfig" and tail in _CONFIG_EXTRA:
            body.setdefault("generationConfig", {})[tail] = value
        elif camel(head) == "toolConfig" and tail in _TOOL_EXTRA:
            body.setdefault("toolConfig", {})[tail] = value
        else:
            target.losses.field(name)
