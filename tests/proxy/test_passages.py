"""The gateway between two formats: what is sent, what comes back, what is said of losses, and how it ends."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from accounts import keys
from models_catalog.snapshot import Snapshot
from proxy.upstream import Pool
from tests.proxy.inside import CHAT, HELLO, KEY, TEXT, Answer, Inside, model, provider, snapshot
from tests.upstreams import (
    JSON_HEADERS,
    MockUpstream,
    Reply,
    chat_events,
    chat_stream,
    completion,
    error_reply,
    event,
    json_reply,
)

MESSAGES, RESPONSES, LEGACY = "/v1/messages", "/v1/responses", "/v1/completions"
GENERATE, STREAM = "/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent"
BASE = "http://127.0.0.1:9"
CHAT_PROVIDER = provider("chat", f"{BASE}/v1")
RESPONDER = provider("responder", f"{BASE}/v1", supports=frozenset({"responses"}))
CLAUDE = provider("claude", BASE, dialect="anthropic")
GOOGLE = provider("google", BASE, dialect="gemini")

MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "Hello from Claude"}],
    "usage": {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 0},
}  # fmt: skip
CONTENT = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hello from Gemini"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12},
    "modelVersion": "gemini-x",
    "responseId": "r1",
}
ASKS: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": HELLO},
    MESSAGES: {"model": "m", "max_tokens": 50, "messages": HELLO},
    RESPONSES: {"model": "m", "input": "Hello", "store": False},
    GENERATE: {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
    LEGACY: {"model": "m", "prompt": "Hello"},
}


def house(folder: Path, catalog: Snapshot, *replies: Any) -> tuple[Inside, MockUpstream]:
    mock = MockUpstream(*replies)
    return Inside(folder, catalog, Pool(mock.transport)), mock


def messages_stream(*words: str, end: bool = True) -> Reply:
    def named(value: dict[str, Any]) -> bytes:
        return f"event: {value['type']}\n".encode() + event(value)

    pieces = [
        named({"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}}),
        named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        *(
            named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
            for word in words
        ),
    ]
    if end:
        pieces += [
            named({"type": "content_block_stop", "index": 0}),
            named(
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                    "usage": {"output_tokens": 3},
                }
            ),
            named({"type": "message_stop"}),
        ]
    return Reply(pieces)


def said(path: str, answer: Answer) -> str:
    found = answer.json
    if path == CHAT:
        return str(found["choices"][0]["message"]["content"])
    if path == LEGACY:
        return str(found["choices"][0]["text"])
    if path == MESSAGES:
        return str(found["content"][0]["text"])
    if path == GENERATE:
        return str(found["candidates"][0]["content"]["parts"][0]["text"])
    return str(found["output"][0]["content"][0]["text"])


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize(
    ("where", "reply", "words"),
    [
        (CHAT_PROVIDER, completion(), "Hello from upstream"),
        (CLAUDE, json_reply(MESSAGE), "Hello from Claude"),
        (GOOGLE, json_reply(CONTENT), "Hello from Gemini"),
    ],
)
async def test_it_works(tmp_path: Path, path: str, where: Any, reply: Reply, words: str) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", where)), reply)
    answer = await inside.post(ASKS[path], path)
    assert answer.status == 200, answer.body
    assert said(path, answer) == words
    assert inside.record.outcome == "complete"
    assert inside.record.prompt_tokens in {7, 9}
    assert inside.record.completion_tokens == 3
    assert inside.record.cost


async def test_the_row_names_both_formats(tmp_path: Path) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", GOOGLE)), json_reply(CONTENT))
    await inside.post(ASKS[MESSAGES], MESSAGES)
    assert (inside.record.endpoint, inside.record.provider_format) == ("messages", "gemini")


# --- losses ----------------------------------------------------------------------------------------------------------

LOSSY: dict[str, Any] = {**ASKS[CHAT], "logit_bias": {"50256": -100}}


async def test_losses_are_named(tmp_path: Path) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(MESSAGE))
    answer = await inside.post(LOSSY)
    assert answer.status == 200
    assert "logit_bias" in answer.headers["x-kodna-losses"].split(", ")
    assert "logit_bias" in inside.record.losses.split(",")


async def test_nothing_lost_nothing_said(tmp_path: Path) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(MESSAGE))
    answer = await inside.post(ASKS[CHAT])
    assert "x-kodna-losses" not in answer.headers
    assert inside.record.losses == ""


async def test_a_strict_request_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(MESSAGE))
    answer = await inside.post(LOSSY, headers=[(b"x-kodna-strict", b"true")])
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "logit_bias", "unsupported_parameter")
    assert mock.requests == []


async def test_what_is_harmless_is_never_refused(tmp_path: Path) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", GOOGLE)), json_reply(CONTENT))
    body = {**ASKS[CHAT], "store": True, "user": "u", "metadata": {"a": "b"}, "prompt_cache_key": "k"}
    answer = await inside.post(body, headers=[(b"x-kodna-strict", b"true")])
    assert answer.status == 200, answer.body


async def test_a_strict_request_goes_to_the_route_that_loses_nothing(tmp_path: Path) -> None:
    second = provider("second", f"{BASE}/v1", id=2)
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE, second)), completion())
    answer = await inside.post(LOSSY, headers=[(b"x-kodna-strict", b"true")])
    assert (answer.status, answer.headers["x-kodna-provider"]) == (200, "second")
    assert [request.path for request in mock.requests] == ["/v1/chat/completions"]


# --- failover between formats ----------------------------------------------------------------------------------------


async def test_routes_may_speak_different_formats(tmp_path: Path) -> None:
    google = provider("google", BASE, dialect="gemini", id=2)
    replies = [error_reply(500, "down"), json_reply(CONTENT)]
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE, google)), *replies)
    answer = await inside.post(ASKS[MESSAGES], MESSAGES)
    assert said(MESSAGES, answer) == "Hello from Gemini"
    assert [request.path for request in mock.requests] == ["/v1/messages", "/v1beta/models/m-there:generateContent"]


async def test_an_error_before_the_first_content_moves_on(tmp_path: Path) -> None:
    """Anthropic's `message_start` has come by then: it is held back until there is content."""
    start = messages_stream(end=False).pieces[:1]
    failed = Reply(
        [*start, b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n']
    )
    second = provider("second", f"{BASE}/v1", id=2)
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE, second)), failed, chat_stream("from ", "the second"))
    answer = await inside.post({**ASKS[CHAT], "stream": True})
    assert b"the second" in answer.body
    assert answer.headers["x-kodna-provider"] == "second"


# --- headers ---------------------------------------------------------------------------------------------------------


async def test_headers_of_anthropics_clients_reach_anthropic(tmp_path: Path) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(MESSAGE))
    sent = [(b"anthropic-beta", b"a-1,b-2"), (b"anthropic-version", b"2023-01-01"), (b"x-other", b"1")]
    await inside.post(ASKS[MESSAGES], MESSAGES, headers=sent)
    assert mock.last.headers["anthropic-beta"] == "a-1,b-2"
    assert mock.last.headers["anthropic-version"] == "2023-01-01"
    assert "x-other" not in mock.last.headers
    assert mock.last.headers["x-api-key"] == "sk-upstream-secret"
    assert "authorization" not in mock.last.headers


async def test_a_header_that_comes_twice(tmp_path: Path) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(MESSAGE))
    await inside.post(ASKS[MESSAGES], MESSAGES, headers=[(b"anthropic-beta", b"a-1"), (b"anthropic-beta", b"b-2")])
    assert mock.last.headers["anthropic-beta"] == "a-1, b-2"


@pytest.mark.parametrize("value", [b"a\x00b", b"a\x01", b"a\r\nx: y", b"a\x7f", b"\xe9"])
async def test_a_header_that_cannot_be_sent(tmp_path: Path, value: bytes) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(MESSAGE))
    answer = await inside.post(ASKS[MESSAGES], MESSAGES, headers=[(b"anthropic-beta", value)])
    assert (answer.status, mock.requests) == (400, [])
    assert "anthropic-beta" in answer.json["error"]["message"]


async def test_the_beta_query_of_anthropics_clients(tmp_path: Path) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(MESSAGE))
    await inside.post(ASKS[MESSAGES], MESSAGES, query="a=1&beta=true")
    assert mock.last.target == "/v1/messages?beta=true"


async def test_headers_of_anthropics_clients_reach_nobody_else(tmp_path: Path) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", GOOGLE)), json_reply(CONTENT))
    await inside.post(ASKS[MESSAGES], MESSAGES, headers=[(b"anthropic-beta", b"a-1")])
    assert "anthropic-beta" not in mock.last.headers
    assert mock.last.headers["x-goog-api-key"] == "sk-upstream-secret"


@pytest.mark.parametrize("name", [b"x-api-key", b"x-goog-api-key"])
async def test_a_key_in_the_clients_own_header(tmp_path: Path, name: bytes) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(MESSAGE))
    assert (await inside.post(ASKS[MESSAGES], MESSAGES, key="", headers=[(name, TEXT.encode())])).status == 200
    answer = await inside.post(ASKS[MESSAGES], MESSAGES, key="", headers=[(name, b"sk-wrong")])
    assert answer.status == 401


# --- errors ----------------------------------------------------------------------------------------------------------


def told(path: str, answer: Answer) -> tuple[str, str]:
    """The error's type and message in the client's own format."""
    found = answer.json
    if path == MESSAGES:
        assert found["type"] == "error"
        assert found["request_id"] == answer.headers["request-id"]
    if path == GENERATE:
        assert found["error"]["code"] == answer.status
        return found["error"]["status"], found["error"]["message"]
    return found["error"]["type"], found["error"]["message"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (CHAT, "authentication_error"),
        (RESPONSES, "authentication_error"),
        (MESSAGES, "authentication_error"),
        (GENERATE, "UNAUTHENTICATED"),
    ],
)
async def test_a_bad_key(tmp_path: Path, path: str, kind: str) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE)))
    answer = await inside.post(ASKS[path], path, key="sk-wrong")
    assert answer.status == 401
    assert told(path, answer)[0] == kind
    assert "not a key" in told(path, answer)[1]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("where", [CHAT_PROVIDER, RESPONDER, CLAUDE, GOOGLE])
async def test_a_providers_limit(tmp_path: Path, path: str, where: Any) -> None:
    inside, _ = house(
        tmp_path, snapshot(model("m", where)), error_reply(429, "slow down", headers={"retry-after": "7"})
    )
    answer = await inside.post(ASKS[path], path)
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert told(path, answer)[0] in {"rate_limit_error", "RESOURCE_EXHAUSTED"}
    assert "slow down" in told(path, answer)[1]


@pytest.mark.parametrize("path", ASKS)
async def test_a_request_that_the_provider_refuses(tmp_path: Path, path: str) -> None:
    reply = json_reply({"error": {"code": 400, "message": "too hot", "status": "INVALID_ARGUMENT"}}, 400)
    inside, _ = house(tmp_path, snapshot(model("m", GOOGLE)), reply)
    answer = await inside.post(ASKS[path], path)
    assert answer.status == 400
    assert told(path, answer) == ("INVALID_ARGUMENT" if path == GENERATE else "invalid_request_error", "too hot")


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (MESSAGES, {"model": "m", "max_tokens": 5}, "messages"),
        (MESSAGES, {"model": "m", "max_tokens": 5, "messages": "hi"}, "messages"),
        (RESPONSES, {"model": "m", "input": 5}, "input"),
        (GENERATE, {"contents": 5}, "contents"),
        (LEGACY, {"model": "m", "prompt": {}}, "prompt"),
        (LEGACY, {"model": "m", "prompt": ["a", "b"]}, "prompt"),
    ],
)
async def test_a_field_that_is_wrong_is_named(tmp_path: Path, path: str, body: Any, words: str) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CHAT_PROVIDER)))
    answer = await inside.post(body, path)
    assert answer.status == 400
    assert words in (told(path, answer)[1] + str(answer.error.get("param")))
    assert mock.requests == []


@pytest.mark.parametrize("path", ["/v1/messages/x", "/v1beta/models", "/v1beta/x", "/v1/responses/x/y", "/v1/nothing"])
async def test_nothing_there(tmp_path: Path, path: str) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE)))
    answer = await inside.post({}, path)
    assert answer.status == 404
    assert "nothing at" in answer.json["error"]["message"]


# --- streams ---------------------------------------------------------------------------------------------------------


def streamed(path: str) -> tuple[str, dict[str, Any]]:
    if path == GENERATE:
        return STREAM, ASKS[GENERATE]
    return path, {**ASKS[path], "stream": True}


ENDS = {
    CHAT: b"data: [DONE]\n\n",
    LEGACY: b"data: [DONE]\n\n",
    MESSAGES: b"event: message_stop\n",
    RESPONSES: b"event: response.completed\n",
    GENERATE: b'"finishReason":"STOP"',
}
FAILS = {
    CHAT: b'"finish_reason":"error"',
    LEGACY: b'"error":{',
    MESSAGES: b"event: error\n",
    RESPONSES: b"event: response.failed\n",
    GENERATE: b'"error":{',
}


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize(
    ("where", "reply"), [(CHAT_PROVIDER, chat_stream("Hel", "lo")), (CLAUDE, messages_stream("Hel", "lo"))]
)
async def test_a_stream(tmp_path: Path, path: str, where: Any, reply: Reply) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", where)), reply)
    at, body = streamed(path)
    answer = await inside.post(body, at)
    assert answer.status == 200, answer.body
    assert ENDS[path] in answer.body
    assert FAILS[path] not in answer.body
    assert inside.record.outcome == "complete"
    assert (inside.record.prompt_tokens, inside.record.completion_tokens) in {(7, 3), (9, 3)}
    assert mock.last.json["stream"] is True


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize(
    ("where", "reply"),
    [
        (CHAT_PROVIDER, chat_stream("Hel", "lo", end="cut")),
        (CHAT_PROVIDER, Reply([*chat_stream("Hel", "lo").pieces[:2], b"data: {rubbish\n\n"])),
        (CLAUDE, messages_stream("Hel", "lo", end=False)),
        (
            CLAUDE,
            Reply(
                [
                    *messages_stream("Hel").pieces[:3],
                    b'event: error\ndata: {"type":"error","error":{"message":"x"}}\n\n',
                ]
            ),
        ),
    ],
)
async def test_a_stream_that_stops_early_is_never_whole(tmp_path: Path, path: str, where: Any, reply: Reply) -> None:
    if where is CHAT_PROVIDER and reply.end == "cut":
        reply = Reply(reply.pieces[:2], end="cut")
    inside, _ = house(tmp_path, snapshot(model("m", where)), reply)
    at, body = streamed(path)
    answer = await inside.post(body, at)
    assert answer.status == 200
    assert b"Hel" in answer.body
    assert ENDS[path] not in answer.body
    assert FAILS[path] in answer.body
    assert inside.record.outcome == "incomplete"


async def test_geminis_array(tmp_path: Path) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CHAT_PROVIDER)), chat_stream("Hel", "lo"))
    answer = await inside.post(ASKS[GENERATE], STREAM)
    assert answer.headers["content-type"].startswith("application/json")
    parts = [part for each in json.loads(answer.body) for part in each["candidates"][0]["content"].get("parts", [])]
    assert "".join(part["text"] for part in parts) == "Hello"
    assert mock.last.path == "/v1/chat/completions"


async def test_keep_alive_in_the_clients_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.timer._KEEPALIVE", 0.05)
    for path, words in ((MESSAGES, b"event: ping\n"), (CHAT, b": "), (RESPONSES, b": ")):
        reply = chat_stream("late", wait=0.2)
        inside, _ = house(tmp_path, snapshot(model("m", CHAT_PROVIDER)), reply)
        answer = await inside.post({**ASKS[path], "stream": True}, path)
        assert answer.body.startswith(words), path
        assert ENDS[path] in answer.body


# --- Responses that are held here ------------------------------------------------------------------------------------


async def first_turn(inside: Inside, **more: Any) -> dict[str, Any]:
    answer = await inside.post({"model": "m", "input": "Hello", **more}, RESPONSES)
    assert answer.status == 200, answer.body
    if not more.get("stream"):
        found: dict[str, Any] = answer.json
        return found
    last = json.loads(answer.body.split(b"data: ")[-1])
    assert last["type"] == "response.completed"
    return dict(last["response"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_goes_on(tmp_path: Path, stream: bool) -> None:
    replies = [chat_stream("Hello ", "there") if stream else completion("Hello there"), completion("And on")]
    inside, mock = house(tmp_path, snapshot(model("m", CHAT_PROVIDER)), *replies)
    first = await first_turn(inside, stream=stream)
    asked = {"model": "m", "input": "Go on", "previous_response_id": first["id"]}
    answer = await inside.post(asked, RESPONSES)
    assert answer.json["previous_response_id"] == first["id"]
    said = [(each["role"], each["content"]) for each in mock.last.json["messages"]]
    assert said == [("user", "Hello"), ("assistant", "Hello there"), ("user", "Go on")]
    assert "previous_response_id" not in mock.last.json


async def test_a_conversation_goes_on_at_a_provider_of_responses(tmp_path: Path) -> None:
    """It may know the ID, but all keys are one customer there: it is told the whole conversation."""
    first = {"id": "resp_1", "object": "response", "status": "completed", "model": "x", "output": []}
    inside, mock = house(tmp_path, snapshot(model("m", RESPONDER)), json_reply(first))
    await first_turn(inside)
    await inside.post(
        {"model": "m", "input": [{"role": "user", "content": "Go on"}], "previous_response_id": "resp_1"}, RESPONSES
    )
    assert "previous_response_id" not in mock.last.json
    assert [each["role"] for each in mock.last.json["input"]] == ["user", "user"]


async def test_what_is_held_is_the_keys_own(tmp_path: Path) -> None:
    other, text = replace(KEY, id=8), keys.make()
    mock = MockUpstream(completion())
    inside = Inside(tmp_path, snapshot(model("m", CHAT_PROVIDER)), Pool(mock.transport), (TEXT, KEY), (text, other))
    first = await first_turn(inside)
    own, others = ([(b"authorization", f"Bearer {each}".encode())] for each in (TEXT, text))
    path = f"{RESPONSES}/{first['id']}"
    assert (await inside.get(path, own)).json == first
    assert (await inside.get(path, others)).status == 404
    asked = {"model": "m", "input": "Go on", "previous_response_id": first["id"]}
    answer = await inside.post(asked, RESPONSES, key=text)
    assert (answer.status, answer.error["code"]) == (404, "previous_response_not_found")
    assert len(mock.requests) == 1


@pytest.mark.parametrize("more", [{"store": False}, {"store": False, "stream": True}])
async def test_what_is_not_to_be_stored(tmp_path: Path, more: dict[str, Any]) -> None:
    reply = chat_stream("Hi") if more.get("stream") else completion()
    inside, _ = house(tmp_path, snapshot(model("m", CHAT_PROVIDER)), reply)
    first = await first_turn(inside, **more)
    own = [(b"authorization", f"Bearer {TEXT}".encode())]
    assert (await inside.get(f"{RESPONSES}/{first['id']}", own)).status == 404


async def test_zero_retention(tmp_path: Path) -> None:
    mock = MockUpstream(json_reply({"id": "resp_1", "object": "response", "status": "completed", "output": []}))
    sworn = replace(KEY, zero_retention=True)
    inside = Inside(tmp_path, snapshot(model("m", RESPONDER)), Pool(mock.transport), (TEXT, sworn))
    await first_turn(inside)
    assert mock.last.json["store"] is False, "OpenAI stores where it is not told otherwise"
    answer = await inside.post({"model": "m", "input": "Hello", "store": True}, RESPONSES)
    assert (answer.status, answer.error["param"]) == (400, "store")


@pytest.mark.parametrize(("field", "value"), [("background", True), ("conversation", "conv_1")])
async def test_what_is_not_served(tmp_path: Path, field: str, value: Any) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", RESPONDER)))
    answer = await inside.post({**ASKS[RESPONSES], field: value}, RESPONSES)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, field, "unsupported_parameter")
    assert mock.requests == []


LAX = b'{"id":"resp_1","object":"response","status":"completed","output":[{"type":"message","content":"\\ud800"}]}'


@pytest.mark.parametrize("body", [LAX, LAX.replace(b'"resp_1"', b"5"), LAX.replace(b'"resp_1"', b"NaN")])
async def test_an_answer_that_cannot_be_held_goes_out_all_the_same(tmp_path: Path, body: bytes) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", RESPONDER)), Reply([body], headers=JSON_HEADERS))
    assert (await inside.post({"model": "m", "input": "Hello"}, RESPONSES)).status == 200


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, LEGACY])
@pytest.mark.parametrize("options", ["end_turn", 5, [], {"include_usage": "yes"}])
async def test_stream_options_where_they_mean_nothing(tmp_path: Path, path: str, options: Any) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", GOOGLE)), json_reply(CONTENT))
    answer = await inside.post({**ASKS[path], "stream_options": options}, path)
    assert answer.status in {200, 400}, answer.body


async def test_an_answer_without_any_content_moves_on(tmp_path: Path) -> None:
    empty = Reply([event({"id": "c", "model": "x", "choices": [], "usage": None}), b"data: [DONE]\n\n"])
    second = provider("second", f"{BASE}/v1", id=2)
    inside, _ = house(tmp_path, snapshot(model("m", CHAT_PROVIDER, second)), empty, chat_stream("Hel", "lo"))
    answer = await inside.post({**ASKS[MESSAGES], "stream": True}, MESSAGES)
    assert b"Hel" in answer.body
    assert answer.headers["x-kodna-provider"] == "second"


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_provider_that_never_hangs_up(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claude Code and others wait for the end of the body."""
    monkeypatch.setattr("proxy.upstream.GOODBYE_SECONDS", 0.05)
    open_end = Reply(chat_stream("Hel", "lo").pieces[:-1], end="hang")  # all but `[DONE]`
    inside, _ = house(tmp_path, snapshot(model("m", CHAT_PROVIDER)), open_end)
    answer = await inside.post({**ASKS[path], "stream": True}, path)
    assert answer.whole
    assert FAILS[path] not in answer.body
    assert inside.record.outcome == "complete"
    assert inside.record.total_ms < 900


# --- errors that come too late for another provider ------------------------------------------------------------------


async def test_a_prompt_that_turns_out_too_long_after_the_first_word(tmp_path: Path) -> None:
    """A larger model may do it, but not behind what the client has read already."""
    error = {"error": {"message": "This model's maximum context length is 5 tokens.", "code": 400}}
    mock = MockUpstream(Reply([*chat_events(["Hello"])[:2], event(error)]))
    large = model("large", CHAT_PROVIDER, context=10**6)
    catalog = snapshot(model("m", CHAT_PROVIDER, context=5, fallbacks=("large",)), large)
    inside = Inside(tmp_path, catalog, Pool(mock.transport))
    asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    answer = await inside.post(asked, "/v1/messages")
    assert len(mock.requests) == 1
    assert b"Hello" in answer.body
    assert b"event: error" in answer.body
    assert b"message_stop" not in answer.body
    assert inside.record.outcome == "incomplete"
