"""The scripted provider's Anthropic Messages: https://platform.claude.com/docs/en/api/messages."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from anthropic.types import MessageCountTokensParams
from anthropic.types.beta import MessageCountTokensParams as BetaMessageCountTokensParams
from anthropic.types.beta.message_create_params import MessageCreateParamsNonStreaming as BetaPlain
from anthropic.types.beta.message_create_params import MessageCreateParamsStreaming as BetaStreaming
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming

from tests.providers import scenario, valid
from tests.providers.scenario import Asked, Refused, Said, Tool

NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
STOP = {"stop": "end_turn", "calls": "tool_use", "length": "max_tokens", "refusal": "refusal"}
_SAMPLING = {"temperature": (int, float), "top_p": (int, float), "top_k": (int,)}  # the SDK's types have them no more

Blocks = list[dict[str, Any]]


# --- reading ---------------------------------------------------------------------------------------------------------


def read(body: Mapping[str, Any], *, beta: bool = False, count: bool = False) -> Asked:
    stream = bool(body.get("stream"))
    if count:
        typed = BetaMessageCountTokensParams if beta else MessageCountTokensParams
    elif beta:
        typed = BetaStreaming if stream else BetaPlain
    else:
        typed = MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming
    valid.check(typed, {name: value for name, value in body.items() if name not in _SAMPLING})
    mode = (body.get("thinking") or {}).get("type")
    thinks = mode in ("enabled", "adaptive")
    turns = _turns(body["messages"])
    tools, choice = _tools(body)
    _sampling(body, thinks=thinks, choice=choice)
    _pairs(turns)
    last = [part for role, part in turns if role == "user"][-1]
    form = (body.get("output_config") or {}).get("format") or (body.get("output_format") if beta else None)
    if form:
        valid.refuse_open_objects(form["schema"], "output_config.format.schema")
    return Asked(
        dialect="messages",
        model=body["model"],
        stream=stream,
        user=_text(last),
        system=_text(_blocks(body.get("system", "")))
        + "".join(_text(part) for role, part in turns if role == "system"),
        tools=tools,
        choice=choice,
        parallel=not (body.get("tool_choice") or {}).get("disable_parallel_tool_use"),
        results=[_text(_blocks(part.get("content", ""))) for part in last if part["type"] == "tool_result"],
        schema=form["schema"] if form else None,
        images=[_image(part["source"]) for part in last if part["type"] == "image"],
        thinks=thinks,
        signed=_signed(body["model"], turns, bound=mode == "enabled"),
    )


def _blocks(content: Any) -> Blocks:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content or ())


def _text(blocks: Blocks) -> str:
    return "".join(block["text"] for block in blocks if block["type"] == "text")


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, Blocks]]:
    """Messages of one role that follow each other are one turn."""
    valid.unless(messages, "messages: at least one message is required")
    valid.unless(messages[0]["role"] == "user", 'messages: first message must use the "user" role')
    turns: list[tuple[str, Blocks]] = []
    for place, message in enumerate(messages):
        blocks = _blocks(message["content"])
        final = place == len(messages) - 1 and message["role"] == "assistant"
        valid.unless(blocks or final, f"messages.{place}: all messages must have non-empty content")
        for block in blocks:
            valid.unless(block["type"] != "text" or block["text"], "messages: text content blocks must be non-empty")
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(blocks)
        else:
            turns.append((message["role"], blocks))
    return turns


def _pairs(turns: Sequence[tuple[str, Blocks]]) -> None:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls"""
    conversation = [turn for turn in turns if turn[0] != "system"]
    open_calls: set[str] = set()
    for place, (role, blocks) in enumerate(conversation):
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        valid.unless(
            open_calls <= answered,
            f"messages.{place}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(sorted(open_calls - answered))}",
        )
        valid.unless(
            answered <= open_calls, f"messages.{place}: unexpected `tool_use_id` found in `tool_result` blocks"
        )
        kinds = [block["type"] == "tool_result" for block in blocks]
        valid.unless(kinds == sorted(kinds, reverse=True), f"messages.{place}: `tool_result` blocks must come first")
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
        valid.unless(role == "assistant" or not open_calls, f"messages.{place}: `tool_use` blocks are the assistant's")
        for call in open_calls:
            valid.unless(NAME.fullmatch(call), f"messages.{place}: tool_use.id: String should match '^[a-zA-Z0-9_-]+$'")
    valid.unless(not open_calls, "messages: the last `tool_use` has no `tool_result`")


def _signed(model: str, turns: Sequence[tuple[str, Blocks]], *, bound: bool) -> int:
    """https://platform.claude.com/docs/en/build-with-claude/extended-thinking#preserving-thinking-blocks

    A turn is `bound` to begin with its thoughts, but not where thinking is adaptive.
    """
    if model != "thinking":
        return 0
    thoughts = [block for _, blocks in turns for block in blocks if block["type"] == "thinking"]
    for block in thoughts:
        fine = (block["thinking"], block["signature"]) == (scenario.THOUGHT, scenario.SIGNATURE)
        valid.unless(fine, f"messages: Invalid `signature` in `thinking` block: {block}")
    in_a_loop = any(block["type"] == "tool_result" for block in turns[-1][1])
    if bound and in_a_loop and len(turns) > 1:
        first = turns[-2][1][0]["type"]
        valid.unless(
            first in ("thinking", "redacted_thinking"),
            f"messages.{len(turns) - 2}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
            f"`{first}`. When `thinking` is enabled, a final `assistant` message must start with a thinking block.",
        )
    return len(thoughts)


def _sampling(body: Mapping[str, Any], *, thinks: bool, choice: str) -> None:
    for name, kinds in _SAMPLING.items():
        value = body.get(name, 1)
        valid.unless(isinstance(value, kinds) and not isinstance(value, bool), f"{name}: Input should be a number")
    valid.unless(0 <= body.get("temperature", 1) <= 1, "temperature: range: 0..1")
    valid.unless(body.get("max_tokens", 1) >= 1, "max_tokens: must be greater than or equal to 1")
    stops = body.get("stop_sequences") or ()
    valid.unless(all(stop.strip() for stop in stops), "stop_sequences: each stop sequence must contain non-whitespace")
    if not thinks:
        return
    budget = body["thinking"].get("budget_tokens", 1024)
    valid.unless(budget >= 1024, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    valid.unless(
        budget < body.get("max_tokens", budget + 1), "`max_tokens` must be greater than `thinking.budget_tokens`"
    )
    valid.unless(body.get("temperature", 1) == 1, "`temperature` may only be set to 1 when thinking is enabled.")
    valid.unless(
        body.get("top_p", 1) >= 0.95, "`top_p` must be greater than or equal to 0.95 when thinking is enabled."
    )
    valid.unless("top_k" not in body, "`top_k` must be unset when thinking is enabled.")
    valid.unless(choice in ("auto", "none"), "Thinking may not be enabled when tool_choice forces tool use.")


def _tools(body: Mapping[str, Any]) -> tuple[list[Tool], str]:
    given = [tool for tool in body.get("tools") or () if tool.get("type", "custom") == "custom"]
    names = [tool["name"] for tool in given]
    for place, tool in enumerate(given):
        valid.unless(NAME.fullmatch(tool["name"]), f"tools.{place}.custom.name: String should match pattern")
        valid.unless(
            tool["input_schema"].get("type") == "object", f"tools.{place}.custom.input_schema.type: Field required"
        )
        if tool.get("strict"):
            valid.refuse_open_objects(tool["input_schema"], f"tools.{place}.custom.input_schema")
    valid.unless(len(names) == len(set(names)), "tools: Tool names must be unique.")
    choice = body.get("tool_choice") or {"type": "auto"}
    valid.unless(not body.get("tool_choice") or body.get("tools"), "tool_choice may only be specified with tools")
    named = choice.get("name")
    valid.unless(named is None or named in names, f"tool_choice: Tool '{named}' not found in provided tools")
    marked = json.dumps(body).count('"cache_control": {')
    valid.unless(marked <= 4, f"A maximum of 4 blocks with cache_control may be provided. Found {marked}.")
    return [Tool(tool["name"], tool["input_schema"]) for tool in given], named or choice["type"]


def _image(source: Mapping[str, Any]) -> str:
    if source["type"] == "url":
        return f"at {source['url']}"
    return scenario.picture(source["media_type"], source["data"])


# --- writing ---------------------------------------------------------------------------------------------------------


def counted(_: Asked) -> dict[str, Any]:
    return {"input_tokens": scenario.PROMPT_TOKENS}


def _usage(said: Said, output: int) -> dict[str, Any]:
    """The input tokens do not hold the cached ones."""
    return {
        "input_tokens": scenario.PROMPT_TOKENS - scenario.CACHED_TOKENS,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": scenario.CACHED_TOKENS,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
        **({"output_tokens_details": {"thinking_tokens": said.reasoning_tokens}} if said.thought else {}),
    }


def _content(said: Said) -> Blocks:
    thought = {"type": "thinking", "thinking": said.thought, "signature": scenario.SIGNATURE}
    calls = [
        {"type": "tool_use", "id": f"toolu_scripted{call.number}", "name": call.name, "input": dict(call.arguments)}
        for call in said.calls
    ]
    text = {"type": "text", "text": said.text}
    return [thought] * bool(said.thought) + [text] * bool(said.text) + calls


def plain(asked: Asked, said: Said) -> dict[str, Any]:
    return {
        "model": asked.model,
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "content": _content(said),
        "stop_reason": STOP[said.finish],
        "stop_sequence": None,
        "usage": _usage(said, scenario.COMPLETION_TOKENS),
    }


def _event(value: Mapping[str, Any]) -> bytes:
    """The vendor pads its events with blanks."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"event: {value['type']}\ndata: {text[:-1]}   }}\n\n".encode()


def stream(asked: Asked, said: Said) -> list[bytes]:
    start = plain(asked, said) | {"content": [], "stop_reason": None, "usage": _usage(Said(), 1)}
    events = [_event({"type": "message_start", "message": start})]
    for index, block in enumerate(_content(said)):
        events += [_event({**part, "index": index}) for part in _block_events(block)]
        events += [_event({"type": "ping"})] * (index == 0)
    if said.end == "error":
        return [*events[:-2], _event(error(Refused(529, scenario.ERRORS[529])))]
    if said.end != "whole":
        return events[:-2]
    delta = {"stop_reason": STOP[said.finish], "stop_sequence": None}
    counts = _usage(said, scenario.COMPLETION_TOKENS)
    events.append(_event({"type": "message_delta", "delta": delta, "usage": counts}))
    return [*events, _event({"type": "message_stop"})]


def _block_events(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    empty = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}, "tool_use": {"input": {}}}
    yield {"type": "content_block_start", "content_block": {**block, **empty[block["type"]]}}
    for delta in _deltas(block):
        yield {"type": "content_block_delta", "delta": delta}
    yield {"type": "content_block_stop"}


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "thinking":
        for piece in scenario.split_text(block["thinking"]):
            yield {"type": "thinking_delta", "thinking": piece}
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "text":
        for piece in scenario.split_text(block["text"]):
            yield {"type": "text_delta", "text": piece}
    else:
        yield {"type": "input_json_delta", "partial_json": ""}
        for piece in scenario.split_json(json.dumps(block["input"], separators=(",", ":"))):
            yield {"type": "input_json_delta", "partial_json": piece}


# https://platform.claude.com/docs/en/api/errors
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error(refused: Refused) -> dict[str, Any]:
    kind = _TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "api_error")
    said = {"type": kind, "message": refused.message}
    return {"type": "error", "error": said, "request_id": "req_scripted"}
