"""LlamaIndex's OpenAILike."""

from typing import Any

import openai
import pytest
from llama_index.core.llms import ChatMessage, ChatResponse, ImageBlock, MessageRole, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.providers import scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door

DIALECT = "chat"
MESSAGES = [
    ChatMessage(role=MessageRole.SYSTEM, content=cases.SYSTEM),
    ChatMessage(role=MessageRole.USER, content=cases.HELLO),
]


class Wind(BaseModel):
    min: float


def weather(city: str, days: int, wind: Wind) -> str:
    """The weather."""
    return f"{city} {days} {wind}"


def clock(zone: str) -> str:
    """The time."""
    return zone


TOOLS = [FunctionTool.from_defaults(weather), FunctionTool.from_defaults(clock)]


def llm(door: Door, name: str, **more: Any) -> OpenAILike:
    kind = {"is_chat_model": True, "is_function_calling_model": True, "max_retries": 0, "timeout": 20}
    return OpenAILike(model=door.model(name), api_base=door.base_url, api_key=door.key, **{**kind, **more})


def calls_of(answer: ChatResponse) -> list[tuple[str, Any]]:
    calls = OpenAILike().get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    return [(call.tool_name, call.tool_kwargs) for call in calls]


def results(answer: ChatResponse) -> list[ChatMessage]:
    calls = OpenAILike().get_tool_calls_from_response(answer)
    return [
        ChatMessage(
            role=MessageRole.TOOL,
            content=cases.RESULTS[call.tool_name],
            additional_kwargs={"tool_call_id": call.tool_id},
        )
        for call in calls
    ]


def test_chat(door: Door) -> None:
    answer = llm(door, "text").chat(MESSAGES)
    assert answer.message.content == cases.TEXT
    assert answer.additional_kwargs["prompt_tokens"] == scenario.PROMPT_TOKENS


def test_stream(door: Door) -> None:
    answers = list(llm(door, "text").stream_chat(MESSAGES))
    assert "".join(answer.delta or "" for answer in answers) == cases.TEXT
    assert len(answers) > 3, "not streamed"


async def test_async(door: Door) -> None:
    model = llm(door, "text")
    assert (await model.achat(MESSAGES)).message.content == cases.TEXT
    answers = [answer async for answer in await model.astream_chat(MESSAGES)]
    assert answers[-1].message.content == cases.TEXT


@cases.STREAMED
@cases.TOOL_TURNS
def test_tools(door: Door, turn: str, streamed: bool) -> None:
    model = llm(door, turn)
    asked: Any = {"tools": TOOLS, "chat_history": MESSAGES, "allow_parallel_tool_calls": True}
    answer = list(model.stream_chat_with_tools(**asked))[-1] if streamed else model.chat_with_tools(**asked)
    assert calls_of(answer) == cases.CALLS[: cases.MADE[turn]]
    asked["chat_history"] = [*MESSAGES, answer.message, *results(answer)]
    assert model.chat_with_tools(**asked).message.content == cases.SAID_AFTER[turn]


def test_structured(door: Door) -> None:
    model = llm(door, "structured", should_use_structured_outputs=True).as_structured_llm(cases.Guest)
    assert model.chat(MESSAGES).raw == cases.GUEST


@cases.PICTURES
def test_vision(door: Door, picture: str) -> None:
    block = {
        "base64": ImageBlock(image=cases.IMAGE, image_mimetype="image/png"),
        "address": ImageBlock(url=cases.IMAGE_URL),
    }[picture]
    asked = ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text="What is it?"), block])
    assert llm(door, "vision").chat([asked]).message.content == cases.SEEN_AS[picture]


def test_thinking(door: Door) -> None:
    """LlamaIndex sends no thoughts back: the provider must be given what it takes without them."""
    model = llm(door, "thinking", additional_kwargs={"reasoning_effort": "high"})
    asked: Any = {"tools": TOOLS, "chat_history": MESSAGES}
    answer = model.chat_with_tools(**asked)
    assert calls_of(answer) == cases.CALLS[:1]
    asked["chat_history"] = [*MESSAGES, answer.message, *results(answer)]
    assert model.chat_with_tools(**asked).message.content == cases.said_after_thoughts(signed=False)


@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_errors(door: Door, status: int, raised: type[openai.APIStatusError]) -> None:
    with pytest.raises(raised):
        llm(door, f"error-{status}").chat(MESSAGES)


def test_an_error_within_the_stream(door: Door) -> None:
    with pytest.raises(openai.APIError):
        list(llm(door, "error-stream").stream_chat(MESSAGES))
