"""The built-in demonstration: it speaks the format, says what it is, and refuses what it cannot read."""

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pytest_django import Settings

from proxy import demo
from proxy.upstream import Pool
from tests.proxy.inside import Answer, Inside, snapshot
from tests.upstreams import MockUpstream

PATH = "/demo/v1/chat/completions"
KEY = "demo-credential"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"enum": ["C", "F"]},
                "deep": {"type": "array", "items": {"type": ["number", "null"]}},
                "fixed": {"const": {"a": 1}},
            },
        },
    },
}


@pytest.fixture
def house(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Inside:
    settings.DEMO = True
    settings.PROVIDER_ENV = {"KODNA_DEMO_KEY": KEY}
    monkeypatch.setattr(demo, "_WORD_SECONDS", 0)
    return Inside(tmp_path, snapshot(), Pool(MockUpstream().transport))


async def ask(house: Inside, text: Any = "echo hello there", key: str = KEY, **more: Any) -> Answer:
    return await house.post({"model": "kodna-demo", "messages": [{"role": "user", "content": text}], **more}, PATH, key)


def chunks(answer: Answer) -> list[dict[str, Any]]:
    *events, done, rest = answer.body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


async def test_it_works(house: Inside) -> None:
    answer = await ask(house)
    assert answer.status == 200
    found = ChatCompletion.model_validate(answer.json)
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("hello there", "stop")
    assert found.usage
    assert (found.usage.completion_tokens, found.usage.prompt_tokens > 2) == (2, True)


async def test_it_says_what_it_is(house: Inside) -> None:
    said = (await ask(house, "Who are you?")).json["choices"][0]["message"]["content"]
    assert "not a language model" in said
    assert said.endswith("You said: Who are you?")


async def test_a_stream(house: Inside) -> None:
    found = chunks(await ask(house, stream=True, stream_options={"include_usage": True}))
    read = [ChatCompletionChunk.model_validate(chunk) for chunk in found]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in read if chunk.choices) == "hello there"
    assert read[-2].choices[0].finish_reason == "stop"
    assert read[-1].choices == []
    assert read[-1].usage
    assert read[-1].usage.completion_tokens == 2


async def test_a_stream_without_usage(house: Inside) -> None:
    assert all("usage" not in chunk for chunk in chunks(await ask(house, stream=True)))


async def test_a_limit(house: Inside) -> None:
    found = (await ask(house, "echo one two three four", max_tokens=2)).json
    assert (found["choices"][0]["message"]["content"], found["choices"][0]["finish_reason"]) == ("one two", "length")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called(house: Inside, stream: bool) -> None:
    answer = await ask(house, "Oslo", model="kodna-demo-tools", tools=[TOOL], stream=stream)
    if stream:
        (call,) = [tool for chunk in chunks(answer) for tool in chunk["choices"][0]["delta"].get("tool_calls", [])]
    else:
        assert answer.json["choices"][0]["finish_reason"] == "tool_calls"
        (call,) = answer.json["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    arguments = json.loads(call["function"]["arguments"])
    assert arguments == {"city": "Oslo", "days": 1, "unit": "C", "deep": [1], "fixed": {"a": 1}}


async def test_a_tool_has_answered(house: Inside) -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c", "content": "12 degrees"}]
    answer = await house.post({"model": "kodna-demo-tools", "messages": messages, "tools": [TOOL]}, PATH, KEY)
    assert answer.json["choices"][0]["message"]["content"] == "The tool answered: 12 degrees"


@pytest.mark.parametrize("choice", ["none", {"type": "function", "function": {"name": "other"}}, "auto", None])
async def test_the_choice_of_a_tool(house: Inside, choice: Any) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    tools = [TOOL, other, {"type": "web_search"}]
    message = (await ask(house, model="kodna-demo-tools", tools=tools, tool_choice=choice)).json["choices"][0][
        "message"
    ]
    calls = [call["function"]["name"] for call in message.get("tool_calls", [])]
    assert calls == ([] if choice == "none" else ["other"] if isinstance(choice, dict) else ["weather"])


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x"])
async def test_it_is_for_the_gateway_alone(house: Inside, key: str) -> None:
    assert (await ask(house, key=key)).status == 401
    assert (await house.get("/demo/v1/models")).status == 401


async def test_its_models(house: Inside) -> None:
    answer = await house.get("/demo/v1/models", [(b"authorization", f"Bearer {KEY}".encode())])
    assert [model["id"] for model in answer.json["data"]] == ["kodna-demo", "kodna-demo-tools"]


@pytest.mark.parametrize(
    "more",
    [
        {"messages": 5},
        {"messages": ["x"]},
        {"messages": None},
        {"tools": 5},
        {"tools": [5]},
        {"tools": [{"type": "function", "function": {"name": 5}}]},
        {"tools": [{"type": "function", "function": "x"}]},
        {"tool_choice": 5},
        {"tool_choice": {"function": "x"}},
        {"max_tokens": "x"},
        {"max_tokens": -1},
        {"model": 5},
        {"tools": [{"function": {"name": "a", "parameters": 5}}]},
    ],
)
async def test_what_it_cannot_read(house: Inside, more: dict[str, Any]) -> None:
    answer = await ask(house, **{"model": "kodna-demo-tools", **more})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"messages":[{"content":1e400}]}', b'{"messages":[{"content":"\\ud800"}]}']
)
async def test_what_is_no_request(house: Inside, body: bytes) -> None:
    assert (await house.post(body, PATH, KEY)).status == 400


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": []}, {"properties": {"a": 5}}, {"type": 5}, {"type": []}, {"type": "array", "items": 5},
        {"enum": []}, {"type": "string", "default": None},
        {"properties": {"a": {"properties": {"b": {"properties": {"c": {}}}}}}},
    ],
)  # fmt: skip
async def test_strange_schemas(house: Inside, parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "t", "parameters": parameters}}
    answer = await ask(house, model="kodna-demo-tools", tools=[tool])
    assert answer.status == 200, answer.body
    json.loads(answer.json["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])


@pytest.mark.parametrize(
    "content", [None, 5, [], [{"type": "text", "text": "echo hi"}], [{"type": "image_url"}], [5], {"a": 1}]
)
async def test_strange_contents(house: Inside, content: Any) -> None:
    assert (await ask(house, content)).status == 200
