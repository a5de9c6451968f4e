"""The scripted providers are as strict as the real ones, and cut their streams where it hurts.

That what they say is what the vendors say is proven by the SDKs: `tests/sdk/any_provider`, the tests named `direct`.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.providers import DIALECTS, KEY, Providers, scenario

CLIENT = httpx.Client(verify=False, trust_env=False)  # reading certificates would take longer than the requests
USER: Any = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
CLOSED = {**SCHEMA, "required": ["a"], "additionalProperties": False}
CHAT_TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
RESPONSES_TOOL = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}
MESSAGES_TOOL = {"name": "f", "input_schema": SCHEMA}
GEMINI_TOOL = {"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {}}}]}
CHAT_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
CALL_ITEM = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT_ITEM = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
ASKS = {"role": "user", "parts": [{"text": "Hi"}]}
CALLS = {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}
ANSWERS = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "ok"}}}]}


@pytest.fixture(scope="module")
def server() -> Iterator[Providers]:
    with CLIENT, Providers() as server:
        yield server


def post(server: Providers, dialect: str, body: dict[str, Any], name: str = "text", *, stream: bool = False) -> Any:
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    paths = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
    path = paths.get(dialect, f"/v1beta/models/{name}:{method}")
    headers = {
        "messages": {"x-api-key": KEY, "anthropic-version": "2023-06-01"},
        "gemini": {"x-goog-api-key": KEY},
    }.get(dialect, {"authorization": f"Bearer {KEY}"})
    named = {} if dialect == "gemini" else {"model": name, **({"stream": True} if stream else {})}
    return CLIENT.post(f"{server.root}{path}", json={**named, **body}, headers=headers)


LEAST: dict[str, dict[str, Any]] = {
    "chat": {"messages": [USER]},
    "responses": {"input": "Hi"},
    "messages": {"messages": [USER], "max_tokens": 100},
    "gemini": {"contents": [ASKS]},
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_it_works(server: Providers, dialect: str) -> None:
    answer = post(server, dialect, LEAST[dialect])
    assert answer.status_code == 200
    said = json.loads(json.dumps(answer.json(), ensure_ascii=False))
    assert scenario.SENTENCE.split()[2] in json.dumps(said, ensure_ascii=False)
    assert (server.asked[-1].user, server.asked[-1].dialect) == ("Hi", dialect)


def thinks(**more: Any) -> dict[str, Any]:
    return {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000, **more}


def dialogue(*messages: Any) -> dict[str, Any]:
    return {"messages": [USER, *messages]}


def assistant(*parts: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(parts)}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"thinking": {}}, "thinking"),
    ("chat", {"messages": []}, "too short"),
    ("chat", {"messages": [{**USER, "cache_control": {}}]}, "cache_control"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "source"),
    ("chat", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("chat", {"tool_choice": "auto"}, "tool_choice"),
    ("chat", {"tools": [{**CHAT_TOOL, "function": {"name": "a b"}}]}, "name"),
    (
        "chat",
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}]},
        "false",
    ),
    ("chat", dialogue({"role": "assistant", "tool_calls": [CHAT_CALL]}), "did not have response messages: c1"),
    ("chat", dialogue({"role": "tool", "tool_call_id": "c1", "content": "x"}), "must be a response"),
    (
        "chat",
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "address",
    ),
    ("responses", {"messages": [USER]}, "messages"),
    ("responses", {"max_output_tokens": 5}, "below minimum"),
    ("responses", {"input": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, "text"),
    ("responses", {"input": [{"role": "user", "content": [{"type": "output_text", "text": "Hi"}]}]}, "Extra inputs"),
    ("responses", {"input": [USER, CALL_ITEM]}, "No tool output found"),
    ("responses", {"input": [USER, {"type": "function_call_output", "call_id": "c", "output": ""}]}, "No tool call"),
    ("responses", {"input": [USER, {**CALL_ITEM, "id": "call_1"}]}, "begins with 'fc'"),
    ("responses", {"input": [USER, {"type": "reasoning", "id": "rs_1", "summary": []}]}, "following item"),
    ("responses", {"tools": [CHAT_TOOL]}, "function"),
    ("responses", {"tools": [{**RESPONSES_TOOL, "strict": True}]}, "false"),
    ("responses", {"previous_response_id": "resp_x"}, "not found"),
    ("messages", {"max_tokens": None}, "max_tokens"),
    ("messages", {"stop": ["x"]}, "stop"),
    ("messages", {"temperature": 1.5}, "temperature"),
    ("messages", {"messages": [{"role": "assistant", "content": "x"}]}, "first message"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "non-empty"),
    ("messages", {"messages": [{"role": "tool", "content": "x"}]}, "role"),
    ("messages", dialogue(assistant(USE), USER), "without `tool_result` blocks"),
    ("messages", dialogue(assistant(USE), user({"type": "text", "text": "x"}, RESULT)), "come first"),
    ("messages", dialogue(user(RESULT)), "unexpected `tool_use_id`"),
    ("messages", dialogue(assistant({**USE, "id": "a.b"}), user({**RESULT, "tool_use_id": "a.b"})), "match"),
    ("messages", thinks(max_tokens=1024), "greater than"),
    ("messages", thinks(temperature=0.5), "only be set to 1"),
    ("messages", thinks(tools=[MESSAGES_TOOL], tool_choice={"type": "any"}), "forces tool use"),
    ("messages", {"tools": [{"name": "f", "input_schema": {}}]}, "input_schema"),
    ("messages", {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, "additionalProperties"),
    ("gemini", {"messages": []}, 'Unknown name "messages"'),
    ("gemini", {"generationConfig": {"max_tokens": 5}}, "max_tokens"),
    ("gemini", {"generationConfig": {"responseSchema": {"type": "OBJECT"}}}, "response_mime_type"),
    ("gemini", {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}}, "only one"),
    ("gemini", {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role"),
    ("gemini", {"contents": [{"role": "user", "parts": []}]}, "must not be empty"),
    ("gemini", {"contents": [ASKS, CALLS]}, "no function response"),
    ("gemini", {"contents": [ASKS, CALLS, ASKS]}, "equal to the number"),
    ("gemini", {"contents": [CALLS, ANSWERS]}, "immediately after"),
    ("gemini", {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"const": 1}}]}]}, "const"),
    ("gemini", {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}, "without function_declarations"),
]


@pytest.mark.parametrize(("dialect", "wrong", "word"), REFUSED, ids=[f"{one}-{word}" for one, _, word in REFUSED])
def test_what_the_vendor_would_refuse(server: Providers, dialect: str, wrong: dict[str, Any], word: str) -> None:
    body = {name: value for name, value in {**LEAST[dialect], **wrong}.items() if value is not None}
    answer = post(server, dialect, body)
    assert answer.status_code == 400, answer.text
    assert word in answer.json()["error"]["message"]


FINE: list[tuple[str, dict[str, Any]]] = [
    (
        "chat",
        dialogue(
            {"role": "assistant", "tool_calls": [CHAT_CALL]}, {"role": "tool", "tool_call_id": "c1", "content": ""}
        ),
    ),
    ("chat", {"tools": [CHAT_TOOL], "tool_choice": "auto", "user": "me", "seed": 1, "n": 1, "stop": ["x"]}),
    ("responses", {"input": [USER, CALL_ITEM, OUTPUT_ITEM]}),
    (
        "responses",
        {"input": [USER, {"role": "assistant", "content": "x"}, USER], "store": False, "tools": [RESPONSES_TOOL]},
    ),
    ("messages", dialogue(assistant(USE), user(RESULT, {"type": "text", "text": "x"}))),
    ("messages", thinks(system=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}])),
    (
        "messages",
        {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}, "temperature": 0.5, "top_k": 3},
    ),
    ("gemini", {"contents": [ASKS, CALLS, ANSWERS], "tools": [GEMINI_TOOL]}),
    ("gemini", {"generation_config": {"max_output_tokens": 5, "stopSequences": ["x"]}, "system_instruction": ASKS}),
]


@pytest.mark.parametrize(("dialect", "body"), FINE, ids=[f"{one}-{place}" for place, (one, _) in enumerate(FINE)])
def test_what_the_vendor_takes(server: Providers, dialect: str, body: dict[str, Any]) -> None:
    answer = post(server, dialect, {**LEAST[dialect], **body})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_wrong_key(server: Providers, dialect: str) -> None:
    paths = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
    path = paths.get(dialect, "/v1beta/models/text:generateContent")
    answer = CLIENT.post(server.root + path, json=LEAST[dialect], headers={"authorization": "Bearer other"})
    assert answer.status_code == 401


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_errors(server: Providers, dialect: str, status: int) -> None:
    answer = post(server, dialect, LEAST[dialect], f"error-{status}")
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, scenario.ERRORS[status])
    assert ("retry-after" in answer.headers) == (status == 429)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["structured", "vision", "tools", "parallel"])
def test_a_request_without_what_the_scenario_is_about(server: Providers, dialect: str, name: str) -> None:
    assert post(server, dialect, LEAST[dialect], name).status_code == 400


FORGED: dict[str, dict[str, Any]] = {
    "chat": dialogue({"role": "assistant", "content": "x", "reasoning_content": "forged"}, USER),
    "responses": {
        "input": [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "forged"},
            {"role": "assistant", "content": "x"},
            USER,
        ]
    },
    "messages": dialogue(
        assistant({"type": "thinking", "thinking": "x", "signature": "forged"}, {"type": "text", "text": "x"}), USER
    ),
    "gemini": {"contents": [ASKS, {"role": "model", "parts": [{"text": "x", "thoughtSignature": "Zm9yZ2Vk"}]}, ASKS]},
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_signature_that_is_not_ours(server: Providers, dialect: str) -> None:
    assert post(server, dialect, {**LEAST[dialect], **FORGED[dialect]}, "thinking").status_code == 400


UNSIGNED: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"messages": [USER, assistant(USE), user(RESULT)], **thinks()}, "must start with a thinking block"),
    ("gemini", {"contents": [ASKS, CALLS, ANSWERS]}, "missing a thought_signature"),
    ("responses", {"input": [{**CALL_ITEM, "id": "fc_thought0"}, OUTPUT_ITEM]}, "required 'reasoning' item"),
]


@pytest.mark.parametrize(("dialect", "body", "word"), UNSIGNED, ids=[one for one, _, _ in UNSIGNED])
def test_a_call_without_the_thought_before_it(server: Providers, dialect: str, body: dict[str, Any], word: str) -> None:
    answer = post(server, dialect, body, "thinking")
    assert (answer.status_code, word in answer.text) == (400, True)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_is_cut_where_it_hurts(server: Providers, dialect: str) -> None:
    answer = post(server, dialect, LEAST[dialect], stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert scenario.SENTENCE.split()[0].encode() in answer.content
    pieces = scenario.split_bytes(answer.content)
    assert b"".join(pieces) == answer.content
    assert any(piece[0] & 0xC0 == 0x80 for piece in pieces), "no character is cut"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_breaks_off(server: Providers, dialect: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        post(server, dialect, LEAST[dialect], "cut", stream=True)


def test_an_array_for_a_stream(server: Providers) -> None:
    headers = {"x-goog-api-key": KEY}
    url = f"{server.root}/v1beta/models/text:streamGenerateContent"
    chunks = CLIENT.post(url, json=LEAST["gemini"], headers=headers).json()
    texts = [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks]
    assert "".join(texts).startswith(scenario.SENTENCE)
    assert len(texts) > 3


def test_arguments_are_cut_in_escapes_and_numbers() -> None:
    pieces = scenario.split_json(r'{"a":"\u00fc\"","n":1200}')
    assert "".join(pieces) == r'{"a":"\u00fc\"","n":1200}'
    assert any(piece.endswith("\\") for piece in pieces)
    assert not any("1200" in piece for piece in pieces)


def test_a_value_for_each_schema() -> None:
    schema = {
        "$defs": {"P": {"type": "object", "properties": {"x": {"type": "NUMBER"}}}},
        "properties": {
            "p": {"$ref": "#/$defs/P"},
            "l": {"type": "array", "items": {"enum": ["e"]}},
            "b": {"type": "boolean"},
        },
    }
    assert scenario.sample(schema) == {"p": {"x": -12.75}, "l": ["e", "e"], "b": True}
    assert scenario.sample({"anyOf": [{"type": ["integer", "null"]}]}, 2) == 1202
