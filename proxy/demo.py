"""The built-in demonstration provider: an OpenAI-compatible API on the gateway's own loopback path. No language model.

It lets a stranger see a streamed answer, a count of tokens and a tool call in the first minute. The gateway reaches it
like any other provider, over HTTP, with a credential derived from its own secret. It says what it is in every answer.
`echo TEXT` is answered with TEXT. Only mounted where `settings.DEMO` is on.
"""

import asyncio
import hmac
import secrets
import time
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from django.conf import settings

from proxy import errors, meter, replies, request_ids
from proxy.formats import openai_chat
from proxy.formats.base import Prompt
from proxy.formats.splice import Malformed, Members
from proxy.ingress import Receive, Scope, Send, header, read_body
from proxy.timer import Timer

PLAIN, TOOLS = "kodna-demo", "kodna-demo-tools"
_WORD_SECONDS = 0.02
_INTRODUCTION = (
    "This is Kodna's built-in demonstration. It is not a language model: it streams this text word by word so that you "
    "can see the gateway work. Add a provider in the admin, or set OPENAI_API_KEY, and ask a real one."
)


async def demo_models(scope: Scope, receive: Receive, send: Send) -> None:
    if not _admits(scope):
        await _refuse(scope, send, errors.BadKey("The demonstration is only for this gateway itself."))
        return
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "kodna"} for name in (PLAIN, TOOLS)]
    await _json(scope, send, {"object": "list", "data": data})


async def demo_chat(scope: Scope, receive: Receive, send: Send) -> None:
    """Understands messages, stream, stream_options, max_tokens, tools and tool_choice."""
    timer = Timer()
    try:
        if not _admits(scope):
            raise errors.BadKey("The demonstration is only for this gateway itself.")
        request = _read(await read_body(scope, receive, timer))
        reply = _reply(request)
    except errors.Refusal as refusal:
        await _refuse(scope, send, refusal)
        return
    finally:
        timer.stop()
    if request.get("stream") is True:
        await _stream(scope, send, request, reply)
    else:
        choice = {"index": 0, "message": reply.message, "finish_reason": reply.finish, "logprobs": None}
        await _json(scope, send, {**_head("chat.completion", request), "choices": [choice], "usage": reply.usage})


class _Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    function: _Function | None = None


class _Expected(msgspec.Struct):
    """The types of what `_reply` looks at."""

    messages: list[dict[str, Any]]
    model: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Tool | None = None


def _admits(scope: Scope) -> bool:
    expected = f"Bearer {settings.PROVIDER_ENV['KODNA_DEMO_KEY']}".encode()
    return hmac.compare_digest(header(scope, b"authorization"), expected)


def _read(body: bytes) -> dict[str, Any]:
    try:
        members = Members(body)
    except Malformed as error:
        raise errors.InvalidJson(f"The body is not a JSON object: {error}.") from None
    try:
        msgspec.json.decode(members.text, type=_Expected)
        request: dict[str, Any] = msgspec.json.decode(members.text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.BadRequest(f"The demonstration cannot read this: {error}.") from None
    return request


class _Reply:
    """The whole answer; `words` as they are streamed."""

    def __init__(self, request: dict[str, Any], text: str, call: dict[str, Any] | None) -> None:
        most = request.get("max_completion_tokens") or request.get("max_tokens")
        self.finish = "tool_calls" if call else "stop"
        self.call = call
        if isinstance(most, int) and not call:
            tokens = meter.encoding().encode_ordinary(text)
            if len(tokens) > most:
                text, self.finish = meter.encoding().decode(tokens[:most]), "length"
        self.words = [] if call else [word for word in _words(text) if word]
        self.message: dict[str, Any] = {"role": "assistant", "content": None if call else text}
        if call:
            self.message["tool_calls"] = [call]
        asked = _prompt(request["messages"])
        prompt = meter.estimate(asked.text) + 3 * asked.messages + 765 * asked.images
        said = call["function"]["name"] + call["function"]["arguments"] if call else text
        completion = meter.count(said)
        self.usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


def _words(text: str) -> Iterator[str]:
    start = 0
    while (end := text.find(" ", start)) >= 0:
        yield text[start : end + 1]
        start = end + 1
    yield text[start:]


def _prompt(messages: list[Any]) -> Prompt:
    return openai_chat.prompt(Members(msgspec.json.encode({"messages": messages})))


def _reply(request: dict[str, Any]) -> _Reply:
    last = request["messages"][-1] if request["messages"] else {}
    said = _prompt([last]).text.strip()
    if last.get("role") == "tool":
        return _Reply(request, f"The tool answered: {said}", None)
    tool = _chosen_tool(request)
    if tool is not None:
        return _Reply(request, "", _call(tool, said))
    command, _, rest = said.partition(" ")
    if command.rstrip(":").lower() == "echo":
        return _Reply(request, rest, None)
    return _Reply(request, f"{_INTRODUCTION} You said: {said}", None)


def _chosen_tool(request: dict[str, Any]) -> dict[str, Any] | None:
    """`kodna-demo-tools` calls the first tool, or the one that `tool_choice` names."""
    functions: list[dict[str, Any]] = [tool["function"] for tool in request.get("tools") or () if tool.get("function")]
    choice = request.get("tool_choice")
    if request.get("model") != TOOLS or not functions or choice == "none":
        return None
    wanted = (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
    return next((function for function in functions if function["name"] == wanted), functions[0])


def _call(function: dict[str, Any], said: str) -> dict[str, Any]:
    arguments = _example(function.get("parameters") or {}, said, 0)
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": function["name"], "arguments": msgspec.json.encode(arguments).decode()},
    }


def _example(schema: Any, said: str, depth: int) -> Any:
    """A value that a plain JSON Schema admits; strings are what the user said."""
    if not isinstance(schema, dict) or depth > 8:
        return said
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        return {name: _example(inner, said, depth + 1) for name, inner in properties.items()}
    simple = {"integer": 1, "number": 1, "boolean": True, "null": None}
    if kind == "array":
        return [_example(schema.get("items") or {}, said, depth + 1)]
    return simple.get(kind, said) if isinstance(kind, str) else said


async def _stream(scope: Scope, send: Send, request: dict[str, Any], reply: _Reply) -> None:
    head = _head("chat.completion.chunk", request)
    options = request.get("stream_options")
    with_usage = isinstance(options, dict) and options.get("include_usage") is True
    headers = [*replies.stream_headers("sse"), *replies.common(request_ids.new(), scope)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None if reply.call else ""}]
    if reply.call:
        deltas.append({"tool_calls": [{"index": 0, **reply.call}]})
    deltas += [{"content": word} for word in reply.words]
    for position, delta in enumerate(deltas):
        if position > 1:
            await asyncio.sleep(_WORD_SECONDS)
        await _event(send, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    await _event(send, {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]})
    if with_usage:
        await _event(send, {**head, "choices": [], "usage": reply.usage})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


def _head(kind: str, request: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": request.get("model") or PLAIN,
    }


async def _event(send: Send, chunk: dict[str, Any]) -> None:
    data = b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _json(scope: Scope, send: Send, body: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json"), *replies.common(request_ids.new(), scope)]
    await replies.answer(send, 200, headers, msgspec.json.encode(body))


async def _refuse(scope: Scope, send: Send, refusal: errors.Refusal) -> None:
    headers = [*replies.error_headers(refusal), *replies.common(request_ids.new(), scope)]
    await replies.answer(send, refusal.status, headers, replies.error_body(refusal))
