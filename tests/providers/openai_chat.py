"""The scripted provider's OpenAI chat completions: https://platform.openai.com/docs/api-reference/chat.

With `reasoning_content` beside the vendor's own fields, as DeepSeek and many after it have it:
https://api-docs.deepseek.com/guides/reasoning_model
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from tests.providers import scenario, valid
from tests.providers.scenario import Asked, Refused, Said, Tool
from tests.upstreams import DONE, event, usage

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
FINISH = {"stop": "stop", "calls": "tool_calls", "length": "length", "refusal": "content_filter"}
_HEAD = {"id": "chatcmpl-scripted", "created": 1700000000, "service_tier": "default", "system_fingerprint": "fp_1"}


# --- reading ---------------------------------------------------------------------------------------------------------


def read(body: Mapping[str, Any]) -> Asked:
    messages, thoughts = _without_thoughts(body.get("messages"))
    stream = bool(body.get("stream"))
    typed = CompletionCreateParamsStreaming if stream else CompletionCreateParamsNonStreaming
    valid.check(typed, {**body, "messages": messages})
    valid.unless(messages, "[] is too short - 'messages'", "messages")
    _pairs(messages)
    valid.unless(
        stream or not body.get("stream_options"),
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        "stream_options",
    )
    tools, choice = _tools(body)
    last = [message for message in messages if message["role"] == "user"]
    system = [message for message in messages if message["role"] in ("system", "developer")]
    return Asked(
        dialect="chat",
        model=body["model"],
        stream=stream,
        user=_text(last[-1]["content"]) if last else "",
        system="\n".join(_text(message["content"]) for message in system),
        tools=tools,
        choice=choice,
        parallel=body.get("parallel_tool_calls", True),
        results=_results(messages),
        schema=_schema(body.get("response_format") or {}, messages),
        images=[image for message in last[-1:] for image in _images(message["content"])],
        thinks=True,
        signed=_signed(body["model"], thoughts),
        extra={"usage": bool((body.get("stream_options") or {}).get("include_usage"))},
    )


def _without_thoughts(messages: Any) -> tuple[Any, list[str]]:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return messages, []
    thoughts = [message["reasoning_content"] for message in messages if message.get("reasoning_content") is not None]
    return [{name: part for name, part in m.items() if name != "reasoning_content"} for m in messages], thoughts


def _signed(model: str, thoughts: Sequence[str]) -> int:
    """This dialect signs nothing: the thought itself must come back as it was."""
    if model == "thinking" and any(thought != scenario.THOUGHT for thought in thoughts):
        raise Refused.request(f"`reasoning_content` is not what was said: {thoughts}", "messages")
    return len(thoughts)


def _pairs(messages: Sequence[Mapping[str, Any]]) -> None:
    """Each call is answered at once, by a message of its own."""
    open_calls: set[str] = set()
    for place, message in enumerate(messages):
        where = f"messages.[{place}]"
        if message["role"] == "tool":
            valid.unless(
                message["tool_call_id"] in open_calls,
                "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                "'tool_calls'.",
                f"{where}.role",
            )
            open_calls.remove(message["tool_call_id"])
            continue
        _all_answered(open_calls)
        for call in message.get("tool_calls") or ():
            _call(call, where)
            open_calls.add(call["id"])
        valid.unless(
            message["role"] != "assistant" or message.get("content") is not None or message.get("tool_calls"),
            f"Invalid value for 'content': expected a string, got null at {where}.",
            f"{where}.content",
        )
    _all_answered(open_calls)


def _all_answered(open_calls: set[str]) -> None:
    valid.unless(
        not open_calls,
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(sorted(open_calls))}",
        "messages",
    )


def _call(call: Mapping[str, Any], where: str) -> None:
    valid.unless(len(call["id"]) <= 64, f"Invalid '{where}.tool_calls.id': string too long.", where)
    if call["type"] == "function":
        valid.unless(NAME.fullmatch(call["function"]["name"]), f"Invalid '{where}.tool_calls.function.name'", where)
        try:
            arguments = json.loads(call["function"]["arguments"])
        except ValueError as fault:
            raise Refused.request(f"'{where}.tool_calls.function.arguments' is not JSON: {fault}", where) from fault
        valid.unless(isinstance(arguments, dict), f"'{where}.tool_calls.function.arguments' is no object", where)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if part["type"] == "text")


def _images(content: Any) -> list[str]:
    parts = content if isinstance(content, list) else []
    return [scenario.data_url(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]


def _results(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    found: list[str] = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        found.insert(0, _text(message["content"]))
    return found


def _tools(body: Mapping[str, Any]) -> tuple[list[Tool], str]:
    given = body.get("tools")
    valid.unless(given is None or given, "Invalid 'tools': empty array.", "tools")
    for name in ("tool_choice", "parallel_tool_calls"):
        valid.unless(given or body.get(name) is None, f"'{name}' is only allowed when 'tools' are specified.", name)
    functions = [tool["function"] for tool in given or () if tool["type"] == "function"]
    for place, function in enumerate(functions):
        where = f"tools[{place}].function"
        valid.unless(NAME.fullmatch(function["name"]), f"Invalid '{where}.name': does not match pattern.", where)
        valid.unless(function.get("parameters", {"type": "object"}).get("type") == "object", "schema must be an object")
        if function.get("strict"):
            valid.refuse_loose_schema(function["parameters"], f"{where}.parameters")
    choice = body.get("tool_choice") or "auto"
    named = choice["function"]["name"] if isinstance(choice, dict) and choice["type"] == "function" else None
    valid.unless(named is None or named in {f["name"] for f in functions}, "Tool choice not in 'tools'.", "tool_choice")
    tools = [Tool(function["name"], function.get("parameters", {})) for function in functions]
    return tools, named or {"required": "any"}.get(str(choice), str(choice))


def _schema(form: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    if form.get("type") == "json_object":
        valid.unless(
            "json" in json.dumps(messages).lower(),
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            "messages",
        )
        return {"type": "object", "properties": {}}
    if form.get("type") != "json_schema":
        return None
    asked = form["json_schema"]
    valid.unless(NAME.fullmatch(asked["name"]), "Invalid 'response_format.json_schema.name'", "response_format")
    if asked.get("strict"):
        valid.refuse_loose_schema(asked["schema"], "response_format.json_schema.schema")
    schema: Mapping[str, Any] = asked["schema"]
    return schema


# --- writing ---------------------------------------------------------------------------------------------------------


def _usage(said: Said) -> dict[str, Any]:
    counts = usage(
        scenario.PROMPT_TOKENS, scenario.COMPLETION_TOKENS, scenario.CACHED_TOKENS, reasoning=said.reasoning_tokens
    )
    counts["prompt_tokens_details"]["audio_tokens"] = 0
    return counts


def _calls(said: Said) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_scripted{call.number}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.json},
        }
        for call in said.calls
    ]


def plain(asked: Asked, said: Said) -> dict[str, Any]:
    refused = said.finish == "refusal"
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None, "annotations": []}
    if refused:
        message |= {"content": None, "refusal": said.text}
    if said.thought:
        message["reasoning_content"] = said.thought
    if said.calls:
        message["tool_calls"] = _calls(said)
    finish = "stop" if refused else FINISH[said.finish]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {**_HEAD, "object": "chat.completion", "model": asked.model, "choices": [choice], "usage": _usage(said)}


def stream(asked: Asked, said: Said) -> list[bytes]:
    head = {**_HEAD, "object": "chat.completion.chunk", "model": asked.model}
    count = {"usage": None} if asked.extra["usage"] else {}

    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return event({**head, "choices": [choice], **count, "obfuscation": "aB3"})

    chunks = [chunk({"role": "assistant", "content": "" if said.text else None, "refusal": None})]
    chunks += [chunk(delta) for delta in _deltas(said)]
    if said.end == "error":
        return [*chunks, event(error(Refused(500, scenario.ERRORS[500])))]
    if said.end != "whole":
        return chunks
    chunks.append(chunk({}, "stop" if said.finish == "refusal" else FINISH[said.finish]))
    if count:
        chunks.append(event({**head, "choices": [], "usage": _usage(said), "obfuscation": ""}))
    return [*chunks, DONE]


def _deltas(said: Said) -> Iterator[dict[str, Any]]:
    for piece in scenario.split_text(said.thought) if said.thought else ():
        yield {"reasoning_content": piece}
    for piece in scenario.split_text(said.text) if said.text else ():
        yield {"refusal" if said.finish == "refusal" else "content": piece}
    for index, call in enumerate(_calls(said)):
        arguments = call["function"].pop("arguments")
        yield {"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]}
        for piece in scenario.split_json(arguments):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


# https://platform.openai.com/docs/guides/error-codes
_TYPES = {401: "invalid_request_error", 429: "requests", 500: "server_error", 503: "service_unavailable_error"}


def error(refused: Refused) -> dict[str, Any]:
    kind = _TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "server_error")
    code = "invalid_api_key" if refused.status == 401 else refused.code
    return {"error": {"message": refused.message, "type": kind, "param": refused.param, "code": code}}
