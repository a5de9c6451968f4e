"""LangChain's ChatOpenAI, by chat completions and by Responses."""

from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.providers import scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door

MESSAGES: list[BaseMessage] = [SystemMessage(cases.SYSTEM), HumanMessage(cases.HELLO)]
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": name, "parameters": schema}}
    for name, schema in cases.TOOLS.items()
]
APIS = pytest.mark.parametrize("api", ["chat", "responses"])


def chat_model(door: Door, name: str, api: str, **more: Any) -> ChatOpenAI:
    if api == "responses":
        more = {"use_responses_api": True, "output_version": "responses/v1", **more}
    return ChatOpenAI(
        model=door.model(name), base_url=door.base_url, api_key=SecretStr(door.key), max_retries=0, timeout=20, **more
    )


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


@APIS
def test_chat(door: Door, api: str) -> None:
    answer = chat_model(door, "text", api).invoke(MESSAGES)
    assert isinstance(answer, AIMessage)
    assert (answer.text, answer.response_metadata["model_name"]) == (cases.TEXT, door.model("text"))
    assert_usage(answer)


@APIS
def test_stream(door: Door, api: str) -> None:
    chunks = list(chat_model(door, "text", api, stream_usage=True).stream(MESSAGES))
    assert len(chunks) > 3, "not streamed"
    answer = gathered(chunks)
    assert answer.text == cases.TEXT
    assert_usage(answer)


@APIS
async def test_async(door: Door, api: str) -> None:
    async with httpx.AsyncClient() as client:  # LangChain's own would outlive this test's event loop
        model = chat_model(door, "text", api, http_async_client=client)
        assert (await model.ainvoke(MESSAGES)).text == cases.TEXT
        assert gathered([chunk async for chunk in model.astream(MESSAGES)]).text == cases.TEXT


@APIS
@cases.STREAMED
@cases.TOOL_TURNS
def test_tools(door: Door, api: str, turn: str, streamed: bool) -> None:
    model = chat_model(door, turn, api).bind_tools(TOOLS)
    answer = gathered(model.stream(MESSAGES)) if streamed else model.invoke(MESSAGES)
    assert isinstance(answer, AIMessage)
    assert calls_of(answer) == cases.CALLS[: cases.MADE[turn]]
    assert model.invoke([*MESSAGES, answer, *results(answer)]).text == cases.SAID_AFTER[turn]


@APIS
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured(door: Door, api: str, method: Any) -> None:
    model = chat_model(door, "structured", api).with_structured_output(cases.Guest, method=method)
    assert model.invoke(MESSAGES) == cases.GUEST


@APIS
@cases.PICTURES
def test_vision(door: Door, api: str, picture: str) -> None:
    url = {"base64": cases.DATA_URL, "address": cases.IMAGE_URL}[picture]
    asked = HumanMessage([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}])
    assert chat_model(door, "vision", api).invoke([asked]).text == cases.SEEN_AS[picture]


@cases.STREAMED
def test_thinking(door: Door, streamed: bool) -> None:
    """By Responses, without storage: LangChain keeps the encrypted thoughts."""
    reasoning = {"effort": "high", "summary": "auto"}
    more: Any = {"reasoning": reasoning, "store": False, "include": ["reasoning.encrypted_content"]}
    model = chat_model(door, "thinking", "responses", **more).bind_tools(TOOLS)
    answer = gathered(model.stream(MESSAGES)) if streamed else model.invoke(MESSAGES)
    assert isinstance(answer, AIMessage)
    thoughts = [block for block in answer.content_blocks if block["type"] == "reasoning"]
    assert "".join(block.get("reasoning", "") for block in thoughts) == scenario.THOUGHT
    said = model.invoke([*MESSAGES, answer, *results(answer)])
    assert said.text == cases.said_after_thoughts(signed=True)


def test_thoughts_that_the_client_drops(door: Door) -> None:
    """By chat, LangChain sends no thoughts back: the provider must be given what it takes without them."""
    model = chat_model(door, "thinking", "chat", reasoning_effort="high").bind_tools(TOOLS)
    answer = model.invoke(MESSAGES)
    assert isinstance(answer, AIMessage)
    assert calls_of(answer) == cases.CALLS[:1]
    assert model.invoke([*MESSAGES, answer, *results(answer)]).text == cases.said_after_thoughts(signed=False)


@APIS
@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_errors(door: Door, api: str, status: int, raised: type[openai.APIStatusError]) -> None:
    with pytest.raises(raised):
        chat_model(door, f"error-{status}", api).invoke(MESSAGES)
    with pytest.raises(raised):
        list(chat_model(door, f"error-{status}", api).stream(MESSAGES))


def test_an_error_within_the_stream(door: Door) -> None:
    with pytest.raises(openai.APIError):
        list(chat_model(door, "error-stream", "chat").stream(MESSAGES))
