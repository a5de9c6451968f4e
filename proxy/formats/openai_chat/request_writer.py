"""A request in the canonical form, written for a provider of OpenAI's chat API. Called through `openai_chat`.

Without quirks it is what nearly every vendor takes: what OpenAI's API was when they copied it. A quirk names one thing
more, or less, that a vendor takes. https://platform.openai.com/docs/api-reference/chat/create
"""

import hashlib
import re
from dataclasses import replace
from typing import Any

from proxy.formats import reasoning
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
    ToolChoice,
    ToolResult,
)
from proxy.formats.data_url import write_url
from proxy.formats.lenient import encode, value
from proxy.formats.openai_chat.wire import NAME
from proxy.formats.openai_tools import custom_arguments, fits_strict, tool_name

# What a vendor takes beyond the common; each with a recorded exchange or the page that proves it.
DEVELOPER_ROLE = "developer_role"  # openai-chat-0a8a276110; OpenAI, Azure
MAX_COMPLETION_TOKENS = "max_completion_tokens"  # OpenAI, Azure: its reasoning models refuse `max_tokens`
CACHE_CONTROL = "cache_control"  # OpenRouter: openrouter-chat-64aeff6e69f, on tool calls openrouter-chat-7d5ead785f
REASONING_CONTENT = "reasoning_content"  # DeepSeek, Moonshot, Z.ai take thoughts back
REASONING_DETAILS = "reasoning_details"  # OpenRouter: openrouter-chat-38be4ab208
REASONING_OBJECT = "reasoning_object"  # OpenRouter's `reasoning`: openrouter-chat-10e0356b30
THINKING_PARTS = "thinking_parts"  # Mistral, in the content: mistral-chat-370501ff46
EXTRA_CONTENT = "extra_content"  # Gemini's OpenAI endpoint: https://ai.google.dev/gemini-api/docs/thought-signatures
ENABLE_THINKING = "enable_thinking"  # Qwen, GPUStack: gpustack-chat-11cacd0162
CHAT_TEMPLATE_KWARGS = "chat_template_kwargs"  # https://docs.vllm.ai/en/latest/features/reasoning_outputs.html
THINKING_TYPE = "thinking_type"  # DeepSeek deepseek-chat-03ca46adf8, Z.ai zai-chat-09125c585e
ALL_EFFORTS = "all_efforts"  # `reasoning_effort` none, minimal, xhigh too: doubleword, OpenAI, OpenRouter
ON_OFF_EFFORT = "on_off_effort"  # Mistral knows none and high only: mistral-chat-40ac83caec
CUSTOM_TOOLS = "custom_tools"  # OpenAI: openai-chat-931cf02bf5
ALLOWED_TOOLS = "allowed_tools"  # OpenAI: https://platform.openai.com/docs/guides/function-calling#allowed-tools
SAMPLING_EXTRAS = "sampling_extras"  # top_k, min_p, repetition_penalty: openrouter-chat-3c700f34b0
RANDOM_SEED = "random_seed"  # Mistral's word for `seed`: mistral-chat-113cba6f4a
PLATFORM_FIELDS = "platform_fields"  # OpenAI's bookkeeping: openai-chat-07a5b88af4
TOOL_IMAGES = "tool_images"  # images in tool messages: Ollama, ollama-chat-22c62830a4
VIDEO_URL = "video_url"  # OpenRouter: openrouter-chat-d97c1590b7
FILE_URL = "file_url"  # Perplexity: perplexity-chat-5ffbe0ee44
# What it does not take.
SHORT_TOOL_IDS = "short_tool_ids"  # Mistral: exactly nine letters and digits
TOOL_IDS_40 = "tool_ids_40"  # OpenAI, Azure: "Expected a string with maximum length 40"
NO_JSON_SCHEMA = "no_json_schema"  # DeepSeek: https://api-docs.deepseek.com/guides/json_mode
NO_REASONING_EFFORT = "no_reasoning_effort"  # Perplexity's and others' plain models
NO_STREAM_OPTIONS = "no_stream_options"
STRING_CONTENT = "string_content"  # texts must be one string

QUIRKS = frozenset(
    {
        ALL_EFFORTS,
        ALLOWED_TOOLS,
        CACHE_CONTROL,
        CHAT_TEMPLATE_KWARGS,
        CUSTOM_TOOLS,
        DEVELOPER_ROLE,
        ENABLE_THINKING,
        EXTRA_CONTENT,
        FILE_URL,
        MAX_COMPLETION_TOKENS,
        NO_JSON_SCHEMA,
        NO_REASONING_EFFORT,
        NO_STREAM_OPTIONS,
        ON_OFF_EFFORT,
        PLATFORM_FIELDS,
        RANDOM_SEED,
        REASONING_CONTENT,
        REASONING_DETAILS,
        REASONING_OBJECT,
        SAMPLING_EXTRAS,
        SHORT_TOOL_IDS,
        STRING_CONTENT,
        TOOL_IDS_40,
        THINKING_PARTS,
        THINKING_TYPE,
        TOOL_IMAGES,
        VIDEO_URL,
    }
)

_COMMON_EFFORTS = ("low", "medium", "high")
_EVERY_EFFORT = ("none", "minimal", "low", "medium", "high", "xhigh")
_LONGEST_ID = 40
_SHORT_ID = re.compile("[A-Za-z0-9]{9}")
_MOST_STOPS = 4
_NAME = re.compile(r"[^A-Za-z0-9_-]")


def write_request(request: Request, target: Target, /) -> bytes:
    body: dict[str, Any] = {"model": target.model}
    body["messages"] = _Writer(target).messages(request.messages)
    _write_tools(body, request, target)
    _write_sampling(body, request, target)
    _write_reasoning(body, request, target)
    _write_output(body, request, target)
    _write_platform(body, request, target)
    _write_extra(body, request, target)
    for tool in request.tools:
        if tool.kind == "function" and tool.raw and tool.origin != NAME:  # members that only its own format has
            target.losses.at(tool.at, harmless=True)
    if request.stream:
        body["stream"] = True
        if NO_STREAM_OPTIONS not in target.quirks:
            body["stream_options"] = {"include_usage": True}
    return encode(body)


# Fields that Responses have too, in the same sense.
_SHARED: dict[str, type] = {"prompt_cache_options": dict, "prompt_cache_retention": str, "safety_identifier": str}


def _write_extra(body: dict[str, Any], request: Request, target: Target) -> None:
    for name, found in request.extra.items():
        if PLATFORM_FIELDS in target.quirks and type(found) is _SHARED.get(name):
            body[name] = found
        else:
            target.losses.field(name)


# --- messages --------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes the messages of one request.

    `_pictures`: what tools gave back and tool messages cannot hold. `_called`: IDs of the calls that may be answered.
    """

    def __init__(self, target: Target) -> None:
        self._quirks = target.quirks
        self._losses = target.losses
        self._pictures: list[dict[str, Any]] = []
        self._called: set[str] = set()

    def messages(self, messages: list[Message]) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for message in messages:
            if self._pictures and not _only_results(message):
                out.append(self._show_pictures())
            if message.role == "assistant":
                self._called = {part.id for part in message.parts if isinstance(part, ToolCall)}
                written = [self._assistant(message)]
            elif message.role == "user":
                written = self._user(message)
            else:
                written = [self._plain(message, message.parts)]
            if not _is_lost(message, written):
                out += written
        if self._pictures:
            out.append(self._show_pictures())
        return out

    def _show_pictures(self) -> dict[str, Any]:
        """Media of tool results, behind all results of one turn: they must follow the calls at once."""
        content, self._pictures = self._pictures, []
        return {"role": "user", "content": content}

    def _user(self, message: Message) -> list[dict[str, Any]]:
        results: list[ToolResult] = []
        rest: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolResult) and part.call_id in self._called:
                results.append(part)
            else:
                rest.append(part)
        out = [self._result(part) for part in results]
        if rest or not results:
            if self._pictures:
                out.append(self._show_pictures())
            out.append(self._plain(message, rest))
        return out

    def _plain(self, message: Message, parts: list[Part]) -> dict[str, Any]:
        role = message.role
        if role == "developer" and DEVELOPER_ROLE not in self._quirks:
            role = "system"
        found: dict[str, Any] = {"role": role, "content": self._content(parts)}
        if message.name:
            found["name"] = message.name
        return found

    def _content(self, parts: list[Part]) -> str | list[dict[str, Any]]:
        written = [found for part in parts if (found := self._part(part)) is not None]
        return _in_short(written, joined=STRING_CONTENT in self._quirks)

    def _part(self, part: Part) -> dict[str, Any] | None:
        match part:
            case Text():
                if part.citations:
                    self._losses.at(f"{part.at}.citations", harmless=True)
                if part.signature:
                    self._losses.at(f"{part.at}.signature", harmless=True)
                found: dict[str, Any] | None = {"type": "text", "text": part.text}
            case Media():
                found = self._media(part)
            case Opaque(origin="openai_chat"):
                return part.value
            case ToolResult(parts=[Text(text=said)]):  # of a call that is not there: refused as a result
                self._losses.at(part.at)
                return {"type": "text", "text": said}
            case _:
                found = None
        if found is None:
            self._losses.at(part.at)
        elif part.cache:
            self._cache(found, part)
        return found

    def _cache(self, found: dict[str, Any], marked: Part | Tool) -> None:
        if CACHE_CONTROL not in self._quirks:
            self._losses.at(f"{marked.at}.cache_control", harmless=True)
        else:
            found["cache_control"] = cache_control(marked.cache)

    def _media(self, part: Media) -> dict[str, Any] | None:
        if part.cite:
            self._losses.at(f"{part.at}.citations", harmless=True)
        match part.kind:
            case "image":
                if part.detail == "original":
                    self._losses.at(f"{part.at}.detail", harmless=True)
                return _image(part)
            case "audio":
                return _audio(part)
            case "video":
                url = write_url(part)
                return {"type": "video_url", "video_url": {"url": url}} if url and VIDEO_URL in self._quirks else None
        return self._file(part)

    def _file(self, part: Media) -> dict[str, Any] | None:
        if part.text:
            self._losses.at(f"{part.at}.source", harmless=True)
            return {"type": "text", "text": "\n".join(filter(None, [part.name, part.context, part.text]))}
        if part.file_id:
            return {"type": "file", "file": {"file_id": part.file_id}} if part.origin == NAME else None
        if part.url:
            return {"type": "file_url", "file_url": {"url": part.url}} if FILE_URL in self._quirks else None
        if part.context:
            self._losses.at(f"{part.at}.context")
        if part.detail not in ("", "auto"):
            self._losses.at(f"{part.at}.detail", harmless=True)
        ending = part.media_type.rpartition("/")[2] or "pdf"
        return {"type": "file", "file": {"filename": part.name or f"file.{ending}", "file_data": write_url(part)}}

    def _result(self, part: ToolResult) -> dict[str, Any]:
        content = self._content([each for each in part.parts if self._is_shown(each)])
        if part.cache and isinstance(content, str) and CACHE_CONTROL in self._quirks:
            content = [{"type": "text", "text": content, "cache_control": cache_control(part.cache)}]
        elif part.cache:
            self._losses.at(f"{part.at}.cache_control", harmless=True)
        if part.is_error:
            self._losses.at(f"{part.at}.is_error", harmless=True)
        for other in part.parts:
            if not self._is_shown(other):
                self._picture(part, other)
        return {"role": "tool", "tool_call_id": self._id(part.call_id), "content": content}

    def _is_shown(self, part: Part) -> bool:
        """In the tool message itself."""
        return isinstance(part, Text) or TOOL_IMAGES in self._quirks

    def _picture(self, result: ToolResult, part: Part) -> None:
        found = self._part(part)
        if found is not None:
            self._losses.at(part.at, harmless=True)  # it moves into a message of the user
            self._pictures += [{"type": "text", "text": f"From the result of {self._id(result.call_id)}:"}, found]

    def _id(self, call_id: str) -> str:
        if SHORT_TOOL_IDS in self._quirks:
            return call_id if _SHORT_ID.fullmatch(call_id) else _digest(call_id, 9)
        if TOOL_IDS_40 in self._quirks and len(call_id) > _LONGEST_ID:
            return "call_" + _digest(call_id, 24)
        return call_id

    # --- the model's own ---------------------------------------------------------------------------------------------

    def _assistant(self, message: Message) -> dict[str, Any]:
        found: dict[str, Any] = {"role": "assistant", "content": None}
        if message.name:
            found["name"] = message.name
        thoughts = [part for part in message.parts if isinstance(part, Thinking)]
        calls = [written for part in message.parts if (written := self._call(part)) is not None]
        said = [part for part in message.parts if not isinstance(part, Thinking) and not self._is_call(part)]
        content = self._said(found, said)
        self._thoughts(found, thoughts, content)
        self._note_order(message.parts)
        if calls:
            found["tool_calls"] = calls
        if content or not (calls or found.get("audio") or found.get("refusal")):
            found["content"] = _in_short(content, joined=STRING_CONTENT in self._quirks)
        return found

    def _note_order(self, parts: list[Part]) -> None:
        """Text stands before all calls."""
        called = False
        for part in parts:
            called = called or self._is_call(part)
            if called and isinstance(part, Text):
                self._losses.at(part.at, harmless=True)

    @staticmethod
    def _is_call(part: Part) -> bool:
        return isinstance(part, ToolCall) or (
            isinstance(part, Opaque) and part.origin == NAME and "tool_calls[" in part.at
        )

    def _said(self, found: dict[str, Any], parts: list[Part]) -> list[dict[str, Any]]:
        content = []
        for part in parts:
            match part:
                case Refusal():
                    found["refusal"] = part.text
                case Media(kind="audio", id=audio_id, origin="openai_chat") if audio_id:
                    found["audio"] = {"id": audio_id}
                case Media(kind="audio", transcript=said) if said:
                    self._losses.at(part.at)
                    content.append({"type": "text", "text": said})
                case Text():
                    written = self._part(part)
                    assert written is not None
                    content.append(written)
                case Opaque(origin="openai_chat"):
                    content.append(part.value)
                case _:
                    self._losses.at(part.at)
        return content

    def _call(self, part: Part) -> dict[str, Any] | None:
        if isinstance(part, Opaque) and self._is_call(part):
            return part.value
        if not isinstance(part, ToolCall):
            return None
        call_id = self._id(part.id)
        if part.custom and CUSTOM_TOOLS in self._quirks:
            call: dict[str, Any] = {"id": call_id, "type": "custom"}
            call["custom"] = {"name": part.name, "input": part.arguments}
        else:
            arguments = custom_arguments(part.arguments) if part.custom else part.arguments or "{}"
            call = {
                "id": call_id,
                "type": "function",
                "function": {"name": tool_name(part.name), "arguments": arguments},
            }
        if part.cache:
            self._cache(call, part)
        if part.signature and part.origin == "gemini" and EXTRA_CONTENT in self._quirks:
            call["extra_content"] = {"google": {"thought_signature": part.signature}}
        elif part.signature:
            self._losses.at(f"{part.at}.signature", harmless=True)
        return call

    def _thoughts(self, found: dict[str, Any], parts: list[Thinking], content: list[dict[str, Any]]) -> None:
        """Where the vendor takes them back; else they are left out: the model thinks anew."""
        own = [part for part in parts if unpacked(part) is not None]
        if REASONING_DETAILS in self._quirks and own:
            found["reasoning_details"] = [detail for part in own for detail in unpack(part)]
        text = "".join(part.text for part in parts if not part.redacted)
        kept = own if REASONING_DETAILS in self._quirks else []
        if text and not kept:
            if THINKING_PARTS in self._quirks:
                content.insert(0, {"type": "thinking", "thinking": [{"type": "text", "text": text}]})
            elif name := self._plain_thoughts():
                found[name] = text
            if THINKING_PARTS in self._quirks or self._plain_thoughts():
                kept = [part for part in parts if part.text]
        written = {id(part) for part in kept}
        for part in parts:
            if id(part) not in written:
                self._losses.at(part.at, harmless=True)

    def _plain_thoughts(self) -> str:
        if REASONING_CONTENT in self._quirks:
            return "reasoning_content"
        return "reasoning" if REASONING_DETAILS in self._quirks else ""


def _is_lost(message: Message, written: list[dict[str, Any]]) -> bool:
    """Nothing is left of what it held: many vendors refuse empty messages."""
    if not message.parts or len(written) > 1 or any(isinstance(part, Text) for part in message.parts):
        return False
    return not any(found for name, found in written[0].items() if name not in ("role", "name"))


def _only_results(message: Message) -> bool:
    return message.role == "user" and all(isinstance(part, ToolResult) for part in message.parts)


def _in_short(content: list[dict[str, Any]], *, joined: bool) -> str | list[dict[str, Any]]:
    """The content as a string where it is one text, or several to be joined."""
    if (len(content) > 1 and not joined) or any(part.keys() != {"type", "text"} for part in content):
        return content
    return "\n\n".join(part["text"] for part in content)


def cache_control(lifetime: str) -> dict[str, str]:
    return {"type": "ephemeral"} if lifetime == "5m" else {"type": "ephemeral", "ttl": lifetime}


def _image(part: Media) -> dict[str, Any] | None:
    url = write_url(part)
    if not url:
        return None
    detail = {"original": "high"}.get(part.detail, part.detail)  # Responses alone has the former
    return {"type": "image_url", "image_url": {"url": url, "detail": detail} if detail else {"url": url}}


_AUDIO = {"audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav"}


def _audio(part: Media) -> dict[str, Any] | None:
    form = _AUDIO.get(part.media_type)
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}} if part.data and form else None


def _digest(call_id: str, length: int) -> str:
    """The same for the same ID, so that call and result match over the turns."""
    return hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:length]


def unpacked(part: Thinking) -> dict[str, Any] | None:
    """What the reader's `pack` kept of a detail; None for thoughts of others, and for what a client has made up."""
    if part.origin != NAME or not part.signature.startswith("{"):
        return None
    found = value(part.signature.encode(errors="replace"))
    return found if isinstance(found, dict) else None


def unpack(part: Thinking) -> list[dict[str, Any]]:
    """The details that a provider of this format wants back: the reader's `pack`, with the text."""
    detail = unpacked(part)
    if detail is None:
        return []
    if detail.get("type") != "reasoning.encrypted":
        return [{**detail, "text": part.text}]
    if not part.text:
        return [detail]
    summary = {"type": "reasoning.summary", "summary": part.text}
    return [{**{name: detail[name] for name in ("format", "index") if name in detail}, **summary}, detail]


# --- tools -----------------------------------------------------------------------------------------------------------


def _write_tools(body: dict[str, Any], request: Request, target: Target) -> None:
    choice, quirks = request.tool_choice, target.quirks
    chosen = frozenset(choice.allowed if choice is not None and ALLOWED_TOOLS not in quirks else ())
    tools = []
    for tool in request.tools:
        written = _tool(tool, target)
        if written is None:
            target.losses.at(tool.at)
        elif chosen and tool.name not in chosen:
            target.losses.at(tool.at, harmless=True)  # the model may not call it, so it need not know it
        else:
            tools.append(written)
    if tools:
        body["tools"] = tools
        if choice is not None:
            body["tool_choice"] = _choice(choice, request, target)
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
    elif choice is not None and choice.mode in ("required", "tool"):
        target.losses.field("tool_choice")


def _tool(tool: Tool, target: Target) -> dict[str, Any] | None:
    if tool.kind == "server":
        return tool.raw if tool.origin == NAME else None
    if tool.kind == "custom":
        written = _custom_tool(tool, target)
    else:
        function: dict[str, Any] = {"name": _named_for(tool, target)}
        if tool.description:
            function["description"] = tool.description
        if tool.schema is not None:
            function["parameters"] = tool.schema
        if tool.strict and not fits_strict(tool.schema):
            target.losses.at(f"{tool.at}.strict")
        elif tool.strict is not None:
            function["strict"] = tool.strict
        written = {"type": "function", "function": function}
    if tool.cache and CACHE_CONTROL in target.quirks:
        written["cache_control"] = cache_control(tool.cache)
    elif tool.cache:
        target.losses.at(f"{tool.at}.cache_control", harmless=True)
    return written


def _named_for(tool: Tool, target: Target) -> str:
    name = tool_name(tool.name)
    if name != tool.name:
        target.renamed[name] = tool.name
    return name


def _custom_tool(tool: Tool, target: Target) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    if CUSTOM_TOOLS in target.quirks:
        form = {"format": _grammar(tool.grammar)} if tool.grammar else {}
        return {"type": "custom", "custom": {"name": tool.name, **described, **form}}
    if tool.grammar and tool.grammar.get("type") != "text":
        target.losses.at(f"{tool.at}.format")
    properties = {"input": {"type": "string", "description": "The tool's input, as free text."}}
    schema = {"type": "object", "properties": properties, "required": ["input"], "additionalProperties": False}
    return {"type": "function", "function": {"name": _named_for(tool, target), **described, "parameters": schema}}


def _grammar(found: dict[str, Any]) -> dict[str, Any]:
    if found.get("type") != "grammar" or "grammar" in found:
        return found
    return {"type": "grammar", "grammar": {name: value for name, value in found.items() if name != "type"}}


def _choice(choice: ToolChoice, request: Request, target: Target) -> str | dict[str, Any]:
    if choice.allowed and ALLOWED_TOOLS in target.quirks:
        customs = _customs(request, target)
        tools = [_named(name, customs) for name in choice.allowed]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
    return _named(choice.name, _customs(request, target)) if choice.mode == "tool" else choice.mode


def _customs(request: Request, target: Target) -> set[str]:
    """The names of the tools that are written as custom ones."""
    return {tool.name for tool in request.tools if tool.kind == "custom"} if CUSTOM_TOOLS in target.quirks else set()


def _named(name: str, customs: set[str]) -> dict[str, Any]:
    if name in customs:
        return {"type": "custom", "custom": {"name": name}}
    return {"type": "function", "function": {"name": tool_name(name)}}


# --- the other fields ------------------------------------------------------------------------------------------------

_SAMPLING = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "n",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "audio",
)
_EXTRAS = ("top_k", "min_p", "repetition_penalty")


def _write_sampling(body: dict[str, Any], request: Request, target: Target) -> None:
    for name in _SAMPLING:
        if (found := getattr(request, name)) is not None:
            body[name] = found
    for name in _EXTRAS:
        if (found := getattr(request, name)) is not None:
            if SAMPLING_EXTRAS in target.quirks:
                body[name] = found
            else:
                target.losses.field(name)
    if request.seed is not None:
        body["random_seed" if RANDOM_SEED in target.quirks else "seed"] = request.seed
    _write_bounds(body, request, target)


def _write_bounds(body: dict[str, Any], request: Request, target: Target) -> None:
    if request.max_tokens is not None:
        name = "max_completion_tokens" if MAX_COMPLETION_TOKENS in target.quirks else "max_tokens"
        body[name] = min(request.max_tokens, target.max_output or request.max_tokens)
        if body[name] != request.max_tokens:  # more than the model can give is refused
            target.losses.field("max_tokens")
    if request.stop:
        body["stop"] = request.stop[:_MOST_STOPS]
        if len(request.stop) > _MOST_STOPS:
            target.losses.field("stop")
    if request.modalities and request.modalities != ["text"]:
        body["modalities"] = request.modalities


def _write_reasoning(body: dict[str, Any], request: Request, target: Target) -> None:
    wanted, quirks = request.reasoning, target.quirks
    if wanted is None:
        return
    if REASONING_OBJECT in quirks:
        if request.max_tokens is not None and (wanted.budget or 0) >= request.max_tokens:  # refused
            target.losses.field("reasoning")
            wanted = replace(wanted, budget=None, effort="high")
        body["reasoning"] = _reasoning_object(wanted)
        return
    _note_unsaid(wanted, target.losses)
    on = not reasoning.is_off(wanted)
    said = True
    if THINKING_TYPE in quirks:
        body["thinking"] = {"type": "enabled" if on else "disabled"}
    elif ENABLE_THINKING in quirks:
        body["enable_thinking"] = on
        if on and wanted.budget:
            body["thinking_budget"] = wanted.budget
    elif CHAT_TEMPLATE_KWARGS in quirks:
        body["chat_template_kwargs"] = {"enable_thinking": on}
    else:
        said = False
    if not (said and not on):
        _write_effort(body, request, target, said=said)


def _write_effort(body: dict[str, Any], request: Request, target: Target, *, said: bool) -> None:
    """`said`: a vendor's own switch has said that the model is to think; how much may have no place then."""
    wanted, quirks = request.reasoning, target.quirks
    assert wanted is not None
    known = _EVERY_EFFORT if ALL_EFFORTS in quirks else ("none", "high") if ON_OFF_EFFORT in quirks else _COMMON_EFFORTS
    if reasoning.is_off(wanted):
        word = "none" if "none" in known else ""
    else:
        word = reasoning.effort(wanted, request.max_tokens, known)
        if not word and wanted.enabled and not said:
            word = "high" if ON_OFF_EFFORT in quirks else "medium"  # OpenAI's own default
    if word and NO_REASONING_EFFORT not in quirks:
        body["reasoning_effort"] = word
    elif not said and _is_asked(wanted):
        target.losses.field("reasoning")


def _is_asked(wanted: Reasoning) -> bool:
    """Whether to think, or how much: not only how thoughts are to come, which they do in their own way here."""
    return bool(wanted.effort or wanted.adaptive) or wanted.budget is not None or wanted.enabled is not None


def _note_unsaid(wanted: Reasoning, losses: Losses) -> None:
    if wanted.summary:
        losses.at("reasoning.summary", harmless=True)


def _reasoning_object(wanted: Reasoning) -> dict[str, Any]:
    """https://openrouter.ai/docs/use-cases/reasoning-tokens: `effort` and `max_tokens` exclude each other."""
    found: dict[str, Any] = {}
    if reasoning.is_off(wanted) and not wanted.effort:
        found["enabled"] = False
    elif wanted.budget is not None and wanted.budget > 0:
        found["max_tokens"] = wanted.budget
    elif wanted.effort:
        found["effort"] = reasoning.nearest(wanted.effort, _EVERY_EFFORT)
    elif wanted.enabled or wanted.adaptive:
        found["enabled"] = True
    if wanted.visible is not None:
        found["exclude"] = not wanted.visible
    return found


def _write_output(body: dict[str, Any], request: Request, target: Target) -> None:
    wanted = request.output
    if wanted is None or wanted.kind == "text":
        return
    if wanted.kind == "json_object" or NO_JSON_SCHEMA in target.quirks:
        body["response_format"] = {"type": "json_object"}
        if wanted.kind != "json_object":
            target.losses.field("output")
        return
    inner: dict[str, Any] = {"name": _NAME.sub("_", wanted.name)[:64] or "response"}
    if wanted.description:
        inner["description"] = wanted.description
    inner["schema"] = wanted.schema
    if wanted.strict and not fits_strict(wanted.schema):
        target.losses.field("output.strict")
    elif wanted.strict is not None:
        inner["strict"] = wanted.strict
    body["response_format"] = {"type": "json_schema", "json_schema": inner}


_TIERS = frozenset({"auto", "default", "fast", "flex", "priority", "scale"})


def _write_platform(body: dict[str, Any], request: Request, target: Target) -> None:
    """OpenAI's own bookkeeping: other vendors refuse some of it (Mistral) or pass it over."""
    found: dict[str, tuple[str, Any]] = {
        "verbosity": ("verbosity", request.verbosity or None),
        "service_tier": ("service_tier", request.service_tier or None),
        "user": ("user", request.user or None),
        "cache_key": ("prompt_cache_key", request.cache_key or None),
        "store": ("store", request.store),
        "metadata": ("metadata", request.metadata),
    }
    for field, (name, said) in found.items():
        if said is None:
            continue
        if PLATFORM_FIELDS in target.quirks and _is_taken(field, request):
            body[name] = said
        else:
            target.losses.field(field)


def _is_taken(field: str, request: Request) -> bool:
    if field == "metadata":  # "only allowed when 'store' is enabled"
        return bool(request.store) and all(isinstance(value, str) for value in (request.metadata or {}).values())
    return field != "service_tier" or request.service_tier in _TIERS
