"""The scripted provider's OpenAI Responses: https://platform.openai.com/docs/api-reference/responses."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)

from tests.providers import openai_chat, scenario, valid
from tests.providers.scenario import Asked, Refused, Said, Tool

MADE_FOR = {"message": "msg", "function_call": "fc", "reasoning": "rs"}  # how the ids of an item of this type begin
ENCRYPTED = "gAAAAA" + scenario.SIGNATURE

Items = list[dict[str, Any]]

_kept: dict[str, Items] = {}  # the conversations up to a response, for `previous_response_id`
_numbers = count(1)


# --- reading ---------------------------------------------------------------------------------------------------------


def read(body: Mapping[str, Any]) -> Asked:
    stream = bool(body.get("stream"))
    typed = ResponseCreateParamsStreaming if stream else ResponseCreateParamsNonStreaming
    given = body.get("input", [])
    given = [{"role": "user", "content": given}] if isinstance(given, str) else given
    items = [_complete(item) if isinstance(item, dict) else item for item in given]
    valid.check(typed, {**body, "input": items, **_complete_tools(body)})
    valid.unless(body.get("max_output_tokens", 16) >= 16, "Invalid 'max_output_tokens': integer below minimum value.")
    items = _before(body) + items
    valid.unless(items, "Missing required parameter: 'input'.", "input")
    for place, item in enumerate(items):
        _item(item, f"input[{place}]")
    _pairs(items)
    tools, choice = _tools(body)
    last = [item for item in items if item.get("role") == "user"]
    system = [item for item in items if item.get("role") in ("system", "developer")]
    return Asked(
        dialect="responses",
        model=body["model"],
        stream=stream,
        user=_text(last[-1]["content"]) if last else "",
        system="\n".join(filter(None, [body.get("instructions"), *(_text(item["content"]) for item in system)])),
        tools=tools,
        choice=choice,
        parallel=body.get("parallel_tool_calls") is not False,
        results=_results(items),
        schema=_schema((body.get("text") or {}).get("format") or {}),
        images=[image for item in last[-1:] for image in _images(item["content"])],
        thinks=bool((body.get("reasoning") or {}).get("summary")),
        signed=_signed(items, stored=body.get("store") is not False),
        extra={"items": items, "encrypted": _encrypted(body), "asked": body},
    )


def _complete(item: dict[str, Any]) -> dict[str, Any]:
    """With what the API supplies itself, and the SDK's types ask for."""
    if item.get("type", "message") != "message":
        return item
    content = item.get("content")
    if isinstance(content, list):
        content = [{"detail": "auto", **part} if part.get("type") == "input_image" else part for part in content]
        content = [{"annotations": [], **part} if part.get("type") == "output_text" else part for part in content]
    if item.get("role") == "assistant" and isinstance(content, list):
        item = {"type": "message", "id": "msg_0", "status": "completed", **item}
    elif item.get("role") != "assistant":  # Codex sends IDs with these too: the API takes them, the SDK's types do not
        item = {name: value for name, value in item.items() if name != "id"}
    return {**item, "content": content}


def _complete_tools(body: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(body.get("tools"), list):
        return {}
    return {
        "tools": [
            {"strict": None, "parameters": None, **tool} if tool.get("type") == "function" else tool
            for tool in body["tools"]
        ]
    }


def _before(body: Mapping[str, Any]) -> Items:
    previous = body.get("previous_response_id")
    if previous is None:
        return []
    if previous not in _kept:
        message = f"Previous response with id '{previous}' not found."
        raise Refused.request(message, "previous_response_id", "previous_response_not_found")
    return list(_kept[previous])


def _item(item: Mapping[str, Any], where: str) -> None:
    start = MADE_FOR.get(item.get("type", "message"))
    valid.unless(
        not start or item.get("id", start).startswith(start),
        f"Invalid '{where}.id': '{item.get('id')}'. Expected an ID that begins with '{start}'.",
        f"{where}.id",
    )
    content = item.get("content")
    if item.get("role") and isinstance(content, list):
        allowed = (
            ("output_text", "refusal") if item["role"] == "assistant" else ("input_text", "input_image", "input_file")
        )
        for part in content:
            wrong = f"Invalid value: '{part['type']}'. Supported values are: {', '.join(allowed)}."
            valid.unless(part["type"] in allowed, wrong, f"{where}.content")


def _pairs(items: Sequence[Mapping[str, Any]]) -> None:
    calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
    outputs = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    for call in calls:
        valid.unless(call in outputs, f"No tool output found for function call {call}.", "input")
    for output in outputs:
        valid.unless(output in calls, f"No tool call found for function call output with call_id {output}.", "input")
    for item, after in zip(items, [*items[1:], {}], strict=True):
        valid.unless(
            item.get("type") != "reasoning" or after.get("type") == "function_call" or after.get("role") == "assistant",
            f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item.",
            "input",
        )


def _signed(items: Sequence[Mapping[str, Any]], *, stored: bool) -> int:
    """https://platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items"""
    thoughts = [item for item in items if item.get("type") == "reasoning"]
    for item in thoughts:
        encrypted = item.get("encrypted_content")
        if encrypted is None and not stored:
            message = f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false."
            raise Refused(404, message, "input")
        if encrypted not in (None, ENCRYPTED):
            message = f"The encrypted content {encrypted[:20]}... could not be verified."
            raise Refused.request(message, code="invalid_encrypted_content")
        summary = "".join(part["text"] for part in item["summary"])
        valid.unless(summary in ("", scenario.THOUGHT), f"The summary is not what was said: {summary}", "input")
    called = {item.get("id") for item in items if item.get("type") == "function_call"}
    valid.unless(
        thoughts or "fc_thought0" not in called,
        "Item 'fc_thought0' of type 'function_call' was provided without its required 'reasoning' item: 'rs_scripted'.",
        "input",
    )
    return len(thoughts)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] in ("input_text", "output_text"))


def _images(content: Any) -> list[str]:
    parts = content if isinstance(content, list) else []
    return [scenario.data_url(part["image_url"]) for part in parts if part["type"] == "input_image"]


def _results(items: Sequence[Mapping[str, Any]]) -> list[str]:
    found: list[str] = []
    for item in reversed(items):
        if item.get("type") != "function_call_output":
            break
        found.insert(0, _text(item["output"]))
    return found


def _tools(body: Mapping[str, Any]) -> tuple[list[Tool], str]:
    functions = [tool for tool in body.get("tools") or () if tool["type"] == "function"]
    for place, tool in enumerate(functions):
        valid.unless(
            openai_chat.NAME.fullmatch(tool["name"]), f"Invalid 'tools[{place}].name'.", f"tools[{place}].name"
        )
        if tool.get("strict"):
            valid.refuse_loose_schema(tool["parameters"], f"tools[{place}].parameters")
    choice = body.get("tool_choice") or "auto"
    valid.unless(body.get("tools") or choice in ("auto", "none"), "Tool choice without tools.", "tool_choice")
    named = choice["name"] if isinstance(choice, dict) and choice["type"] == "function" else None
    valid.unless(
        named is None or named in {tool["name"] for tool in functions}, "Tool choice not found.", "tool_choice"
    )
    tools = [Tool(tool["name"], tool.get("parameters") or {}) for tool in functions]
    return tools, named or {"required": "any"}.get(str(choice), str(choice))


def _schema(form: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if form.get("type") != "json_schema":
        return {"type": "object", "properties": {}} if form.get("type") == "json_object" else None
    valid.unless(openai_chat.NAME.fullmatch(form["name"]), "Invalid 'text.format.name'", "text.format.name")
    if form.get("strict"):
        valid.refuse_loose_schema(form["schema"], "text.format.schema")
    schema: Mapping[str, Any] = form["schema"]
    return schema


def _encrypted(body: Mapping[str, Any]) -> bool:
    return "reasoning.encrypted_content" in (body.get("include") or ())


# --- writing ---------------------------------------------------------------------------------------------------------


def _thinks(asked: Asked) -> bool:
    """Its model thinks whether or not it is asked for a summary."""
    return asked.model == "thinking"


def _output(asked: Asked, said: Said) -> Items:
    items: Items = []
    if _thinks(asked):
        summary = [{"type": "summary_text", "text": said.thought}] if said.thought else []
        items.append({"id": "rs_scripted", "type": "reasoning", "summary": summary})
        if asked.extra["encrypted"]:
            items[0]["encrypted_content"] = ENCRYPTED
    if said.text:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": said.text}
        if said.finish == "refusal":
            part = {"type": "refusal", "refusal": said.text}
        status = "incomplete" if said.finish == "length" else "completed"
        items.append(
            {"id": "msg_scripted", "type": "message", "status": status, "content": [part], "role": "assistant"}
        )
    for call in said.calls:
        ids = {
            "id": f"fc_{'thought' if _thinks(asked) else 'scripted'}{call.number}",
            "call_id": f"call_scripted{call.number}",
        }
        items.append({**ids, "type": "function_call", "status": "completed", "arguments": call.json, "name": call.name})
    return items


def _response(asked: Asked, said: Said, output: Items, status: str) -> dict[str, Any]:
    given = asked.extra["asked"]
    whole = status in ("completed", "incomplete")
    return {
        "id": f"resp_scripted{next(_numbers)}",
        "object": "response",
        "created_at": 1700000000,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": given.get("instructions"),
        "max_output_tokens": given.get("max_output_tokens"),
        "model": asked.model,
        "output": output,
        "parallel_tool_calls": asked.parallel,
        "previous_response_id": given.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None, **(given.get("reasoning") or {})},
        "store": given.get("store") is not False,
        "temperature": given.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, **(given.get("text") or {})},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": given.get("tools") or [],
        "top_p": given.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": _usage(said) if whole else None,
        "metadata": given.get("metadata") or {},
    }


def _usage(said: Said) -> dict[str, Any]:
    return {
        "input_tokens": scenario.PROMPT_TOKENS,
        "input_tokens_details": {"cached_tokens": scenario.CACHED_TOKENS},
        "output_tokens": scenario.COMPLETION_TOKENS,
        "output_tokens_details": {"reasoning_tokens": said.reasoning_tokens},
        "total_tokens": scenario.PROMPT_TOKENS + scenario.COMPLETION_TOKENS,
    }


def plain(asked: Asked, said: Said) -> dict[str, Any]:
    output = _output(asked, said)
    response = _response(asked, said, output, "incomplete" if said.finish == "length" else "completed")
    if response["store"]:
        _kept[response["id"]] = [*asked.extra["items"], *output]
    return response


def stream(asked: Asked, said: Said) -> list[bytes]:
    whole = plain(asked, said)
    begun = whole | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    events: Items = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(whole["output"]):
        events += [{**part, "output_index": index} for part in _item_events(item)]
    if said.end == "whole":
        events.append({"type": f"response.{whole['status']}", "response": whole})
    else:
        events = [part for part in events if not part["type"].endswith(".done")]
    if said.end == "error":
        message = {"code": "server_error", "message": scenario.ERRORS[500]}
        events.append({"type": "error", **message, "param": None})
        events.append({"type": "response.failed", "response": begun | {"status": "failed", "error": message}})
    return [_event({**part, "sequence_number": number}) for number, part in enumerate(events)]


def _event(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"event: {value['type']}\ndata: {text}\n\n".encode()


def _item_events(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kind, name = item["type"], {"item_id": item["id"]}
    empty = {"reasoning": {"summary": []}, "message": {"content": []}, "function_call": {"arguments": ""}}[kind]
    status = {} if kind == "reasoning" else {"status": "in_progress"}
    yield {"type": "response.output_item.added", "item": {**item, **empty, **status}}
    if kind == "function_call":
        for piece in scenario.split_json(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", "delta": piece, "obfuscation": "x", **name}
        done = {"arguments": item["arguments"], "name": item["name"]}
        yield {"type": "response.function_call_arguments.done", **done, **name}
    elif kind == "message":
        for part in _part_events(item["content"][0]):
            yield {**part, **name, "content_index": 0}
    else:
        for summary in item["summary"]:
            for part in _summary_events(summary):
                yield {**part, **name, "summary_index": 0}
    yield {"type": "response.output_item.done", "item": item}


def _part_events(part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kind = part["type"]
    word = {"output_text": "text", "refusal": "refusal"}[kind]
    more = {"logprobs": []} if kind == "output_text" else {}
    yield {"type": "response.content_part.added", "part": {**part, word: ""}}
    for piece in scenario.split_text(part[word]):
        yield {"type": f"response.{kind}.delta", "delta": piece, **more}
    yield {"type": f"response.{kind}.done", word: part[word], **more}
    yield {"type": "response.content_part.done", "part": part}


def _summary_events(part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}}
    for piece in scenario.split_text(part["text"]):
        yield {"type": "response.reasoning_summary_text.delta", "delta": piece}
    yield {"type": "response.reasoning_summary_text.done", "text": part["text"]}
    yield {"type": "response.reasoning_summary_part.done", "part": part}


error = openai_chat.error
