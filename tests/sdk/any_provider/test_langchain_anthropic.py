"""LangChain's ChatAnthropic."""

from typing import Any

import anthropic
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_anthropic._client_utils import _get_default_async_httpx_client
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from tests.providers import scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door

DIALECT = "messages"
MESSAGES: list[BaseMessage] = [SystemMessage(cases.SYSTEM), HumanMessage(cases.HELLO)]
TOOLS: list[Any] = [{"name": name, "description": name, "input_schema": schema} for name, schema in cases.TOOLS.items()]


def chat_model(door: Door, name: str, **more: Any) -> ChatAnthropic:
    more = {"model": door.model(name), "base_url": door.root, "api_key": door.key, "max_tokens": 4000, **more}
    return ChatAnthropic(max_retries=0, timeout=20, **more)


def gathered(chunks: Any) -> AIMessageChunk:
    first, *rest = chunks
    for chunk in rest:
        first = first + chunk
    assert isinstance(first, AIMessageChunk)
    return first


def calls_of(answer: AIMessage) -> list[tuple[str, Any]]:
    return [(call["name"], call["args"]) for call in answer.tool_calls]


def results(answer: AIMessage) -> list[ToolMessage]:
    return [ToolMessage(cases.RESULTS[call["name"]], tool_call_id=call["id"]) for call in answer.tool_calls]


def assert_usage(answer: AIMessage) -> None:
    assert answer.usage_metadata
    usage = answer.usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"], usage["input_token_details"]["cache_read"]) == cases.TOKENS


def test_chat(door: Door) -> None:
    answer = chat_model(door, "text").invoke(MESSAGES)
    assert (answer.text, answer.response_metadata["stop_reason"]) == (cases.TEXT, "end_turn")
    assert_usage(answer)


def test_stream(door: Door) -> None:
    chunks = list(chat_model(door, "text").stream(MESSAGES))
    assert len(chunks) > 3, "not streamed"
    answer = gathered(chunks)
    assert answer.text == cases.TEXT
    assert_usage(answer)


async def test_async(door: Door) -> None:
    _get_default_async_httpx_client.cache_clear()  # LangChain keeps one, beyond the end of its event loop
    model = chat_model(door, "text")
    async with model._async_client:
        assert (await model.ainvoke(MESSAGES)).text == cases.TEXT
        assert gathered([chunk async for chunk in model.astream(MESSAGES)]).text == cases.TEXT


@cases.STREAMED
@cases.TOOL_TURNS
def test_tools(door: Door, turn: str, streamed: bool) -> None:
    model = chat_model(door, turn).bind_tools(TOOLS)
    answer = gathered(model.stream(MESSAGES)) if streamed else model.invoke(MESSAGES)
    assert isinstance(answer, AIMessage)
    assert calls_of(answer) == cases.CALLS[: cases.MADE[turn]]
    assert model.invoke([*MESSAGES, answer, *results(answer)]).text == cases.SAID_AFTER[turn]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured(door: Door, method: Any) -> None:
    model = chat_model(door, "structured").with_structured_output(cases.Guest, method=method)
    assert model.invoke(MESSAGES) == cases.GUEST


@cases.PICTURES
def test_vision(door: Door, picture: str) -> None:
    url = {"base64": cases.DATA_URL, "address": cases.IMAGE_URL}[picture]
    asked = HumanMessage([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}])
    assert chat_model(door, "vision").invoke([asked]).text == cases.SEEN_AS[picture]


@cases.STREAMED
def test_thinking(door: Door, streamed: bool) -> None:
    model = chat_model(door, "thinking", thinking={"type": "enabled", "budget_tokens": 2000}).bind_tools(TOOLS)
    answer = gathered(model.stream(MESSAGES)) if streamed else model.invoke(MESSAGES)
    assert isinstance(answer, AIMessage)
    thoughts = [block for block in answer.content_blocks if block["type"] == "reasoning"]
    assert "".join(block.get("reasoning", "") for block in thoughts) == scenario.THOUGHT
    said = model.invoke([*MESSAGES, answer, *results(answer)])
    assert said.text == cases.said_after_thoughts(signed=True)


@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, anthropic.BadRequestError), (429, anthropic.RateLimitError), (500, anthropic.InternalServerError)],
)
def test_errors(door: Door, status: int, raised: type[anthropic.APIStatusError]) -> None:
    with pytest.raises(raised):
        chat_model(door, f"error-{status}").invoke(MESSAGES)
    with pytest.raises(raised):
        list(chat_model(door, f"error-{status}").stream(MESSAGES))


def test_an_error_within_the_stream(door: Door) -> None:
    with pytest.raises(anthropic.APIStatusError):
        list(chat_model(door, "error-stream").stream(MESSAGES))
