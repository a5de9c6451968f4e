"""pydantic-ai's agents, by each of the four formats that it speaks."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from anthropic import AsyncAnthropic
from anthropic.resources.beta.messages import AsyncMessages
from google import genai
from google.genai.types import HttpOptions
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelHTTPError, NativeOutput, ThinkingPart, ToolCallPart, ToolOutput
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel, AnthropicModelSettings
from pydantic_ai.models.google import GoogleModel, GoogleModelSettings
from pydantic_ai.models.openai import (
    OpenAIChatModel,
    OpenAIChatModelSettings,
    OpenAIResponsesModel,
    OpenAIResponsesModelSettings,
)
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.google import GoogleProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.providers import DIALECTS, scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door

# The SDK's own class under aiohttp, which pydantic-ai's client for Google uses.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
BY = pytest.mark.parametrize("by", DIALECTS)
PROFILES: dict[str, ModelProfile] = {  # what pydantic-ai otherwise takes from the names of models that it knows
    "structured": ModelProfile(supports_json_schema_output=True),
    "thinking": OpenAIModelProfile(openai_supports_encrypted_reasoning_content=True),
}
THINKING: dict[str, Any] = {
    "chat": OpenAIChatModelSettings(openai_reasoning_effort="high"),
    "responses": OpenAIResponsesModelSettings(
        openai_reasoning_effort="high", openai_reasoning_summary="auto", openai_store=False
    ),
    "messages": AnthropicModelSettings(anthropic_thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=4000),
    "gemini": GoogleModelSettings(
        google_thinking_config={"include_thoughts": True, "thinking_budget": 2000}, max_tokens=4000
    ),
}


@pytest.fixture(autouse=True)
def _anthropic_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pydantic-ai that lives with openai 2 (which LlamaIndex needs) was written for an older anthropic.

    Since then a type has become a union, and three parameters, which nothing here sets, are gone.
    """
    create = AsyncMessages.create

    def without_sampling(self: AsyncMessages, **asked: Any) -> Any:
        return create(self, **{name: asked[name] for name in set(asked) - {"temperature", "top_p", "top_k"}})

    monkeypatch.setattr(AsyncMessages, "create", without_sampling)
    monkeypatch.setattr("pydantic_ai.models.anthropic.BetaMessageParam", dict)


@contextlib.asynccontextmanager
async def model_of(door: Door, by: str, name: str) -> AsyncIterator[Model]:
    """With a client of its own, that ends with this test's event loop."""
    async with contextlib.AsyncExitStack() as stack:
        named = {"model_name": door.model(name), "profile": PROFILES.get(name)}
        if by == "messages":
            anthropic = AsyncAnthropic(base_url=door.root, api_key=door.key, max_retries=0)
            provider: Any = AnthropicProvider(anthropic_client=await stack.enter_async_context(anthropic))
            yield AnthropicModel(**named, provider=provider)
        elif by == "gemini":
            google = genai.Client(api_key=door.key, http_options=HttpOptions(base_url=door.root))
            await stack.enter_async_context(google.aio)
            yield GoogleModel(**named, provider=GoogleProvider(client=google))
        else:
            client = AsyncOpenAI(base_url=door.base_url, api_key=door.key, max_retries=0)
            provider = OpenAIProvider(openai_client=await stack.enter_async_context(client))
            yield {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}[by](**named, provider=provider)


class Wind(BaseModel):
    min: float


def weather(city: str, days: int, wind: Wind) -> str:
    """The weather."""
    assert {"city": city, "days": days, "wind": wind.model_dump()} == cases.WEATHER_ARGUMENTS
    return cases.RESULTS["weather"]


def clock(zone: str) -> str:
    """The time."""
    assert {"zone": zone} == cases.CLOCK_ARGUMENTS
    return cases.RESULTS["clock"]


def assert_usage(usage: Any) -> None:
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == cases.TOKENS


@BY
async def test_chat(door: Door, by: str) -> None:
    async with model_of(door, by, "text") as model:
        answer = await Agent(model, instructions=cases.SYSTEM).run(cases.HELLO)
    assert answer.output == cases.TEXT
    assert_usage(answer.usage)


@BY
async def test_stream(door: Door, by: str) -> None:
    async with (
        model_of(door, by, "text") as model,
        Agent(model, instructions=cases.SYSTEM).run_stream(cases.HELLO) as answer,
    ):
        pieces = [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == cases.TEXT
    assert len(pieces) > 3, "not streamed"
    assert_usage(answer.usage)


@BY
@cases.STREAMED
@cases.TOOL_TURNS
async def test_tools(door: Door, by: str, turn: str, streamed: bool) -> None:
    async with model_of(door, by, turn) as model:
        agent = Agent(model, tools=[weather, clock] if turn == "parallel" else [weather])
        if streamed:
            async with agent.run_stream(cases.HELLO) as stream:
                said = await stream.get_output()
        else:
            said = (await agent.run(cases.HELLO)).output
    assert cases.plainly(said) == cases.SAID_AFTER[turn]


@BY
@pytest.mark.parametrize("form", [NativeOutput, ToolOutput], ids=["native", "tool"])
async def test_structured(door: Door, by: str, form: Any) -> None:
    async with model_of(door, by, "structured") as model:
        answer = await Agent(model, output_type=form(cases.Guest)).run(cases.HELLO)
        assert answer.output == cases.GUEST
        async with Agent(model, output_type=form(cases.Guest)).run_stream(cases.HELLO) as stream:
            assert await stream.get_output() == cases.GUEST


@BY
async def test_vision(door: Door, by: str) -> None:
    picture = BinaryContent(cases.IMAGE, media_type="image/png")
    async with model_of(door, by, "vision") as model:
        answer = await Agent(model).run(["What is it?", picture])
    assert answer.output == cases.SEEN


@BY
@cases.STREAMED
async def test_thinking(door: Door, by: str, streamed: bool) -> None:
    async with model_of(door, by, "thinking") as model:
        agent = Agent(model, tools=[weather], model_settings=THINKING[by])
        if streamed:
            async with agent.run_stream(cases.HELLO) as stream:
                said, messages = await stream.get_output(), stream.all_messages()
        else:
            answer = await agent.run(cases.HELLO)
            said, messages = answer.output, answer.all_messages()
    first = next(message for message in messages if isinstance(message, ModelResponse))
    thoughts = [part.content for part in first.parts if isinstance(part, ThinkingPart)]
    # Responses shows thoughts only where a summary is asked for; chat has no word for that.
    assert thoughts[:1] == [scenario.THOUGHT] or (by, door.dialect) == ("chat", "responses")
    assert [part.tool_name for part in first.parts if isinstance(part, ToolCallPart)] == ["weather"]
    signed = by != "chat" or door.direct or door.dialect == by
    assert cases.plainly(said) == cases.said_after_thoughts(signed)  # by chat, pydantic-ai keeps no signature


@BY
@pytest.mark.parametrize("status", [400, 429, 500])
async def test_errors(door: Door, by: str, status: int) -> None:
    async with model_of(door, by, f"error-{status}") as model:
        with pytest.raises(ModelHTTPError) as caught:
            await Agent(model).run(cases.HELLO)
    assert caught.value.status_code == status or (status == 500 and caught.value.status_code > 500)


# By Responses it takes `response.failed` for an end like others.
@pytest.mark.parametrize("by", [by for by in DIALECTS if by != "responses"])
async def test_an_error_within_the_stream(door: Door, by: str) -> None:
    raised = (ModelAPIError, openai.APIError)
    async with model_of(door, by, "error-stream") as model:
        with pytest.raises(raised):
            async with Agent(model).run_stream(cases.HELLO) as stream:
                await stream.get_output()
