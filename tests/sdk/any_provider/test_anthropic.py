"""Anthropic's SDK for Python."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import Message

from tests.providers import scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door, only_through_the_gateway

DIALECT = "messages"
MESSAGES: Any = [{"role": "user", "content": cases.HELLO}]
TOOLS: Any = [{"name": name, "description": name, "input_schema": schema} for name, schema in cases.TOOLS.items()]


@pytest.fixture
def client(door: Door) -> Iterator[Anthropic]:
    with Anthropic(base_url=door.root, api_key=door.key, max_retries=0, timeout=20) as client:
        yield client


def text_of(answer: Message) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


def calls_of(answer: Message) -> list[tuple[str, Any]]:
    return [(block.name, block.input) for block in answer.content if block.type == "tool_use"]


def assert_usage(answer: Message) -> None:
    """The input does not hold what was read from the cache."""
    cached = answer.usage.cache_read_input_tokens or 0
    assert (answer.usage.input_tokens + cached, answer.usage.output_tokens, cached) == cases.TOKENS


def with_results(answer: Message) -> list[Any]:
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": cases.RESULTS[block.name]}
        for block in answer.content
        if block.type == "tool_use"
    ]
    return [*MESSAGES, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]


def ask(client: Anthropic, asked: Any, *, streamed: bool) -> Message:
    if not streamed:
        answer: Message = client.messages.create(**asked)
        return answer
    with client.messages.stream(**asked) as stream:
        final: Message = stream.get_final_message()
    return final


def test_chat(client: Anthropic, door: Door) -> None:
    answer = client.messages.create(model=door.model("text"), max_tokens=100, system=cases.SYSTEM, messages=MESSAGES)
    assert (text_of(answer), answer.stop_reason, answer.model) == (cases.TEXT, "end_turn", door.model("text"))
    assert_usage(answer)


def test_stream(client: Anthropic, door: Door) -> None:
    with client.messages.stream(
        model=door.model("text"), max_tokens=100, system=cases.SYSTEM, messages=MESSAGES
    ) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert text == text_of(answer) == cases.TEXT
    assert answer.stop_reason == "end_turn"
    assert_usage(answer)


async def test_async(door: Door) -> None:
    async with AsyncAnthropic(base_url=door.root, api_key=door.key, max_retries=0) as client:
        asked: Any = {"model": door.model("parallel"), "max_tokens": 100, "messages": MESSAGES, "tools": TOOLS}
        assert calls_of(await client.messages.create(**asked)) == cases.CALLS
        async with client.messages.stream(**asked) as stream:
            assert calls_of(await stream.get_final_message()) == cases.CALLS


@cases.STREAMED
@cases.TOOL_TURNS
def test_tools(client: Anthropic, door: Door, turn: str, streamed: bool) -> None:
    asked: Any = {"model": door.model(turn), "max_tokens": 100, "messages": MESSAGES, "tools": TOOLS}
    answer = ask(client, asked, streamed=streamed)
    assert (calls_of(answer), answer.stop_reason) == (cases.CALLS[: cases.MADE[turn]], "tool_use")
    asked["messages"] = with_results(answer)
    assert text_of(ask(client, asked, streamed=streamed)) == cases.SAID_AFTER[turn]


def test_a_forced_tool(client: Anthropic, door: Door) -> None:
    asked: Any = {"model": door.model("tools"), "max_tokens": 100, "messages": MESSAGES, "tools": TOOLS}
    answer = client.messages.create(**asked, tool_choice={"type": "tool", "name": "clock"})
    assert [name for name, _ in calls_of(answer)] == ["clock"]


@cases.STREAMED
def test_structured(client: Anthropic, door: Door, streamed: bool) -> None:
    asked: Any = {"model": door.model("structured"), "max_tokens": 100, "messages": MESSAGES}
    asked["output_format"] = cases.Guest
    if streamed:
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_message().parsed_output == cases.GUEST
    else:
        assert client.messages.parse(**asked).parsed_output == cases.GUEST


@cases.PICTURES
def test_vision(client: Anthropic, door: Door, picture: str) -> None:
    source = {
        "base64": {"type": "base64", "media_type": "image/png", "data": cases.IMAGE_BASE64},
        "address": {"type": "url", "url": cases.IMAGE_URL},
    }[picture]
    parts: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    answer = client.messages.create(
        model=door.model("vision"), max_tokens=100, messages=[{"role": "user", "content": parts}]
    )
    assert text_of(answer) == cases.SEEN_AS[picture]


@cases.STREAMED
def test_thinking(client: Anthropic, door: Door, streamed: bool) -> None:
    asked: Any = {"model": door.model("thinking"), "max_tokens": 4000, "messages": MESSAGES, "tools": TOOLS}
    asked["thinking"] = {"type": "enabled", "budget_tokens": 2000}
    answer = ask(client, asked, streamed=streamed)
    assert [block.thinking for block in answer.content if block.type == "thinking"] == [scenario.THOUGHT]
    assert calls_of(answer) == cases.CALLS[:1]
    asked["messages"] = with_results(answer)
    assert text_of(ask(client, asked, streamed=streamed)) == cases.said_after_thoughts(signed=True)


def test_length(client: Anthropic, door: Door) -> None:
    answer = client.messages.create(model=door.model("length"), max_tokens=20, messages=MESSAGES)
    assert (text_of(answer), answer.stop_reason) == (scenario.MAX_TOKENS_SAID, "max_tokens")


def test_count_tokens(client: Anthropic, door: Door) -> None:
    counted = client.messages.count_tokens(model=door.model("text"), messages=MESSAGES, tools=TOOLS)
    assert counted.input_tokens == scenario.PROMPT_TOKENS if door.dialect == DIALECT else counted.input_tokens > 0


@cases.STREAMED
def test_a_refusal(client: Anthropic, door: Door, streamed: bool) -> None:
    answer = ask(client, {"model": door.model("refusal"), "max_tokens": 100, "messages": MESSAGES}, streamed=streamed)
    assert (text_of(answer), answer.stop_reason) == (scenario.REFUSAL, "refusal")


def test_a_bad_key(door: Door) -> None:
    with (
        Anthropic(base_url=door.root, api_key="sk-kodna-wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model=door.model("text"), max_tokens=100, messages=MESSAGES)


def test_the_gateways_own_key_refused(client: Anthropic, door: Door) -> None:
    with pytest.raises(anthropic.AuthenticationError if door.direct else anthropic.InternalServerError) as caught:
        client.messages.create(model=door.model("error-401"), max_tokens=100, messages=MESSAGES)
    assert door.direct or scenario.ERRORS[401] not in str(caught.value)


def test_no_such_model(client: Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="none", max_tokens=100, messages=MESSAGES)


@cases.STREAMED
@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, anthropic.BadRequestError), (429, anthropic.RateLimitError), (500, anthropic.InternalServerError)],
)
def test_errors(
    client: Anthropic, door: Door, status: int, raised: type[anthropic.APIStatusError], streamed: bool
) -> None:
    asked: Any = {"model": door.model(f"error-{status}"), "max_tokens": 100, "messages": MESSAGES}
    with pytest.raises(raised) as caught:
        client.messages.create(**asked, stream=streamed)
    if status == 400:
        assert scenario.ERRORS[400] in caught.value.message
    if status == 429:
        assert int(caught.value.response.headers["retry-after"]) > 0


def test_an_error_within_the_stream(client: Anthropic, door: Door) -> None:
    asked: Any = {"model": door.model("error-stream"), "max_tokens": 100, "messages": MESSAGES}
    with pytest.raises(anthropic.APIStatusError), client.messages.stream(**asked) as stream:
        stream.get_final_message()


def test_a_stream_cut_off(client: Anthropic, door: Door) -> None:
    asked: Any = {"model": door.model("cut"), "max_tokens": 100, "messages": MESSAGES}
    raised = httpx2.RemoteProtocolError if door.direct else anthropic.APIStatusError
    with pytest.raises(raised), client.messages.stream(**asked) as stream:
        stream.get_final_message()


@only_through_the_gateway
def test_a_stream_without_its_end(client: Anthropic, door: Door) -> None:
    asked: Any = {"model": door.model("truncated"), "max_tokens": 100, "messages": MESSAGES}
    with pytest.raises(anthropic.APIStatusError), client.messages.stream(**asked) as stream:
        stream.get_final_message()


def test_as_claude_code_asks(client: Anthropic, door: Door) -> None:
    """Beta endpoint, adaptive thinking, context management, an effort, cache marks, a system message in the middle."""
    marked = {"cache_control": {"type": "ephemeral"}}
    asked: Any = {
        "model": door.model("thinking"),
        "max_tokens": 32000,
        "betas": ["claude-code-20250219", "interleaved-thinking-2025-05-14", "context-management-2025-06-27"],
        "system": [{"type": "text", "text": "You are an agent."}, {"type": "text", "text": cases.SYSTEM, **marked}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": cases.HELLO, **marked}]},
            {"role": "system", "content": "The user has switched on a mode."},
        ],
        "tools": [TOOLS[0], {**TOOLS[1], **marked}],
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "user_1"},
    }
    with client.beta.messages.stream(**asked) as stream:
        answer: Any = stream.get_final_message()
    assert (calls_of(answer), answer.stop_reason) == (cases.CALLS[:1], "tool_use")
    asked["messages"] += with_results(answer)[1:]
    with client.beta.messages.stream(**asked) as stream:
        said: Any = stream.get_final_message()
    assert text_of(said) == cases.said_after_thoughts(signed=True)
