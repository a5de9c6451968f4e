"""OpenAI's SDK for Python, chat completions."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessage

from tests.providers import scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door, only_through_the_gateway

DIALECT = "chat"
MESSAGES: Any = [{"role": "system", "content": cases.SYSTEM}, {"role": "user", "content": cases.HELLO}]
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}
    for name, schema in cases.TOOLS.items()
]
WITH_USAGE: Any = {"include_usage": True}


@pytest.fixture
def client(door: Door) -> Iterator[OpenAI]:
    with OpenAI(base_url=door.base_url, api_key=door.key, max_retries=0, timeout=20) as client:
        yield client


def assert_usage(usage: openai.types.CompletionUsage | None) -> None:
    assert usage
    assert usage.prompt_tokens_details
    counted = (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens)
    assert counted == cases.TOKENS


def calls_of(message: ChatCompletionMessage) -> list[tuple[str, Any]]:
    calls = [call for call in message.tool_calls or () if call.type == "function"]
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


def back(message: ChatCompletionMessage) -> dict[str, Any]:
    """The assistant's turn as a client sends it back, with what is beside OpenAI's own fields."""
    extra = {name: part for name, part in (message.model_extra or {}).items() if name.startswith("reasoning")}
    parsed = {"function": {"parsed_arguments"}, "index": True}  # the SDK's own
    calls = [call.model_dump(exclude=parsed) for call in message.tool_calls or ()]
    return {"role": "assistant", "content": message.content, **({"tool_calls": calls} if calls else {}), **extra}


def with_results(messages: list[Any], answer: ChatCompletion) -> list[Any]:
    message = answer.choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": cases.RESULTS[call.function.name]}
        for call in message.tool_calls or ()
        if call.type == "function"
    ]
    return [*messages, back(message), *results]


def test_chat(client: OpenAI, door: Door) -> None:
    answer = client.chat.completions.create(model=door.model("text"), messages=MESSAGES)
    assert answer.choices[0].message.content == cases.TEXT
    assert (answer.choices[0].finish_reason, answer.model) == ("stop", door.model("text"))
    assert_usage(answer.usage)


def test_stream(client: OpenAI, door: Door) -> None:
    with client.chat.completions.stream(
        model=door.model("text"), messages=MESSAGES, stream_options=WITH_USAGE
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        answer = stream.get_final_completion()
    assert text == answer.choices[0].message.content == cases.TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert_usage(answer.usage)


async def test_async(door: Door) -> None:
    async with AsyncOpenAI(base_url=door.base_url, api_key=door.key, max_retries=0) as client:
        answer = await client.chat.completions.create(model=door.model("text"), messages=MESSAGES)
        assert answer.choices[0].message.content == cases.TEXT
        asked: Any = {"model": door.model("text"), "messages": MESSAGES, "stream_options": WITH_USAGE}
        async with client.chat.completions.stream(**asked) as stream:
            final = await stream.get_final_completion()
    assert final.choices[0].message.content == cases.TEXT
    assert_usage(final.usage)


@cases.STREAMED
@cases.TOOL_TURNS
def test_tools(client: OpenAI, door: Door, turn: str, streamed: bool) -> None:
    asked: Any = {"model": door.model(turn), "tools": TOOLS, "messages": MESSAGES}
    if streamed:
        with client.chat.completions.stream(**asked) as stream:
            answer: ChatCompletion = stream.get_final_completion()
    else:
        answer = client.chat.completions.create(**asked)
    assert calls_of(answer.choices[0].message) == cases.CALLS[: cases.MADE[turn]]
    assert answer.choices[0].finish_reason == "tool_calls"
    asked["messages"] = with_results(MESSAGES, answer)
    assert client.chat.completions.create(**asked).choices[0].message.content == cases.SAID_AFTER[turn]


def test_a_forced_tool(client: OpenAI, door: Door) -> None:
    choice: Any = {"type": "function", "function": {"name": "clock"}}
    answer = client.chat.completions.create(
        model=door.model("tools"), messages=MESSAGES, tools=TOOLS, tool_choice=choice
    )
    assert [name for name, _ in calls_of(answer.choices[0].message)] == ["clock"]
    assert answer.choices[0].finish_reason in ("tool_calls", "stop")  # OpenAI itself says stop here


def test_structured(client: OpenAI, door: Door) -> None:
    asked: Any = {"model": door.model("structured"), "messages": MESSAGES, "response_format": cases.Guest}
    assert client.chat.completions.parse(**asked).choices[0].message.parsed == cases.GUEST
    with client.chat.completions.stream(**asked) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == cases.GUEST


@cases.PICTURES
def test_vision(client: OpenAI, door: Door, picture: str) -> None:
    url = {"base64": cases.DATA_URL, "address": cases.IMAGE_URL}[picture]
    parts: Any = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    answer = client.chat.completions.create(model=door.model("vision"), messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == cases.SEEN_AS[picture]


@cases.STREAMED
def test_thinking(client: OpenAI, door: Door, streamed: bool) -> None:
    asked: Any = {"model": door.model("thinking"), "tools": TOOLS, "messages": MESSAGES, "reasoning_effort": "high"}
    answer = gathered(client, asked) if streamed else client.chat.completions.create(**asked)
    message = answer.choices[0].message
    if door.dialect != "responses":  # which shows thoughts only where a summary is asked for; chat has no word for that
        assert (message.model_extra or {})["reasoning_content"] == scenario.THOUGHT
    assert calls_of(message) == cases.CALLS[:1]
    asked["messages"] = with_results(MESSAGES, answer)
    said = client.chat.completions.create(**asked).choices[0].message.content
    assert said == cases.said_after_thoughts(signed=True)


def gathered(client: OpenAI, asked: Any) -> ChatCompletion:
    """The SDK's own gathering runs fields that it does not know together: text with text, list with list."""
    with client.chat.completions.stream(**asked) as stream:
        answer: ChatCompletion = stream.get_final_completion()
        return answer


def test_length(client: OpenAI, door: Door) -> None:
    answer = client.chat.completions.create(model=door.model("length"), messages=MESSAGES, max_tokens=20)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (scenario.MAX_TOKENS_SAID, "length")


def test_a_refusal(client: OpenAI, door: Door) -> None:
    choice = client.chat.completions.create(model=door.model("refusal"), messages=MESSAGES).choices[0]
    assert scenario.REFUSAL in (choice.message.refusal, choice.message.content)
    assert choice.message.refusal or choice.finish_reason == "content_filter"


def test_a_streamed_refusal(client: OpenAI, door: Door) -> None:
    with client.chat.completions.create(model=door.model("refusal"), messages=MESSAGES, stream=True) as stream:
        choices = [chunk.choices[0] for chunk in stream if chunk.choices]
    refusal = "".join(choice.delta.refusal or "" for choice in choices)
    assert scenario.REFUSAL in (refusal, "".join(choice.delta.content or "" for choice in choices))
    assert refusal or choices[-1].finish_reason == "content_filter"


def test_a_bad_key(door: Door) -> None:
    with (
        OpenAI(base_url=door.base_url, api_key="sk-kodna-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model=door.model("text"), messages=MESSAGES)


def test_the_gateways_own_key_refused(client: OpenAI, door: Door) -> None:
    with pytest.raises(openai.AuthenticationError if door.direct else openai.InternalServerError) as caught:
        client.chat.completions.create(model=door.model("error-401"), messages=MESSAGES)
    assert door.direct or scenario.ERRORS[401] not in str(caught.value)


def test_no_such_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="none", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


@cases.STREAMED
@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_errors(client: OpenAI, door: Door, status: int, raised: type[openai.APIStatusError], streamed: bool) -> None:
    with pytest.raises(raised) as caught:
        client.chat.completions.create(model=door.model(f"error-{status}"), messages=MESSAGES, stream=streamed)
    if status == 400:
        assert scenario.ERRORS[400] in caught.value.message
    if status == 429:
        assert int(caught.value.response.headers["retry-after"]) > 0


def test_an_error_within_the_stream(client: OpenAI, door: Door) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=door.model("error-stream"), messages=MESSAGES, stream=True))


def test_a_stream_cut_off(client: OpenAI, door: Door) -> None:
    with pytest.raises(httpx.RemoteProtocolError if door.direct else openai.APIError):
        list(client.chat.completions.create(model=door.model("cut"), messages=MESSAGES, stream=True))


@only_through_the_gateway
def test_a_stream_without_its_end(client: OpenAI, door: Door) -> None:
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(model=door.model("truncated"), messages=MESSAGES, stream=True))
