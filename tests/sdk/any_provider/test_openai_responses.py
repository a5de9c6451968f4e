"""OpenAI's SDK for Python, Responses."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response

from tests.providers import scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door, only_through_the_gateway

DIALECT = "responses"
INPUT: Any = [{"role": "user", "content": [{"type": "input_text", "text": cases.HELLO}]}]
TOOLS: Any = [
    {"type": "function", "name": name, "description": name, "parameters": schema, "strict": False}
    for name, schema in cases.TOOLS.items()
]


@pytest.fixture
def client(door: Door) -> Iterator[OpenAI]:
    with OpenAI(base_url=door.base_url, api_key=door.key, max_retries=0, timeout=20) as client:
        yield client


def assert_usage(answer: Response) -> None:
    assert answer.usage
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens) == cases.TOKENS


def calls_of(answer: Response) -> list[tuple[str, Any]]:
    return [(item.name, json.loads(item.arguments)) for item in answer.output if item.type == "function_call"]


def outputs(answer: Response) -> list[Any]:
    return [
        {"type": "function_call_output", "call_id": item.call_id, "output": cases.RESULTS[item.name]}
        for item in answer.output
        if item.type == "function_call"
    ]


def back(answer: Response) -> list[Any]:
    """The response's items as clients without storage send them back, after https://platform.openai.com/docs/guides/reasoning"""
    return [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]


def ask(client: OpenAI, asked: Any, *, streamed: bool) -> Response:
    if not streamed:
        answer: Response = client.responses.create(**asked)
        return answer
    with client.responses.stream(**asked) as stream:
        numbers = [event.sequence_number for event in stream]
        final: Response = stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    return final


def last_response(client: OpenAI, asked: Any) -> Response:
    """Also of an answer that is incomplete, for which the SDK's helper has no response."""
    with client.responses.create(**asked, stream=True) as stream:
        last = list(stream)[-1]
    assert last.type in ("response.completed", "response.incomplete")
    return last.response


def test_chat(client: OpenAI, door: Door) -> None:
    answer = client.responses.create(model=door.model("text"), input=cases.HELLO, instructions=cases.SYSTEM)
    assert (answer.output_text, answer.status, answer.model) == (cases.TEXT, "completed", door.model("text"))
    assert_usage(answer)


def test_stream(client: OpenAI, door: Door) -> None:
    with client.responses.stream(model=door.model("text"), input=INPUT, instructions=cases.SYSTEM) as stream:
        events = list(stream)
        answer = stream.get_final_response()
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == answer.output_text == cases.TEXT
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"
    assert_usage(answer)


async def test_async(door: Door) -> None:
    async with AsyncOpenAI(base_url=door.base_url, api_key=door.key, max_retries=0) as client:
        answer = await client.responses.create(model=door.model("text"), input=cases.HELLO)
        assert answer.output_text == cases.TEXT_ALONE
        async with client.responses.stream(model=door.model("parallel"), input=INPUT, tools=TOOLS) as stream:
            final = await stream.get_final_response()
    assert calls_of(final) == cases.CALLS


@cases.STREAMED
@cases.TOOL_TURNS
def test_tools(client: OpenAI, door: Door, turn: str, streamed: bool) -> None:
    asked: Any = {"model": door.model(turn), "tools": TOOLS, "input": INPUT, "store": False}
    answer = ask(client, asked, streamed=streamed)
    assert calls_of(answer) == cases.CALLS[: cases.MADE[turn]]
    asked["input"] = [*INPUT, *back(answer), *outputs(answer)]
    assert ask(client, asked, streamed=streamed).output_text == cases.SAID_AFTER[turn]


def test_a_response_that_is_kept(client: OpenAI, door: Door) -> None:
    asked: Any = {"model": door.model("parallel"), "tools": TOOLS}
    answer = client.responses.create(input=INPUT, **asked)
    after = client.responses.create(input=outputs(answer), previous_response_id=answer.id, **asked)
    assert after.output_text == cases.BOTH_RESULTS


def test_no_such_response(client: OpenAI, door: Door) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
        client.responses.create(model=door.model("text"), input=INPUT, previous_response_id="resp_none")


@cases.STREAMED
def test_structured(client: OpenAI, door: Door, streamed: bool) -> None:
    asked: Any = {"model": door.model("structured"), "input": INPUT, "text_format": cases.Guest}
    if streamed:
        with client.responses.stream(**asked) as stream:
            assert stream.get_final_response().output_parsed == cases.GUEST
    else:
        assert client.responses.parse(**asked).output_parsed == cases.GUEST


@cases.PICTURES
def test_vision(client: OpenAI, door: Door, picture: str) -> None:
    url = {"base64": cases.DATA_URL, "address": cases.IMAGE_URL}[picture]
    parts = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": url, "detail": "auto"}]
    asked: Any = [{"role": "user", "content": parts}]
    assert client.responses.create(model=door.model("vision"), input=asked).output_text == cases.SEEN_AS[picture]


@cases.STREAMED
def test_thinking(client: OpenAI, door: Door, streamed: bool) -> None:
    """As Codex asks: nothing is kept, so the encrypted thoughts come and go."""
    asked: Any = {"model": door.model("thinking"), "tools": TOOLS, "input": INPUT, "store": False}
    asked |= {"reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
    answer = ask(client, asked, streamed=streamed)
    [thought, *_] = [item for item in answer.output if item.type == "reasoning"]
    assert "".join(part.text for part in thought.summary) == scenario.THOUGHT
    assert calls_of(answer) == cases.CALLS[:1]
    asked["input"] = [*INPUT, *back(answer), *outputs(answer)]
    assert ask(client, asked, streamed=streamed).output_text == cases.said_after_thoughts(signed=True)


@cases.STREAMED
def test_length(client: OpenAI, door: Door, streamed: bool) -> None:
    asked: Any = {"model": door.model("length"), "input": INPUT, "max_output_tokens": 20}
    answer = last_response(client, asked) if streamed else client.responses.create(**asked)
    assert (answer.output_text, answer.status) == (scenario.MAX_TOKENS_SAID, "incomplete")
    assert answer.incomplete_details
    assert answer.incomplete_details.reason == "max_output_tokens"


@cases.STREAMED
def test_a_refusal(client: OpenAI, door: Door, streamed: bool) -> None:
    asked: Any = {"model": door.model("refusal"), "input": INPUT}
    answer = last_response(client, asked) if streamed else client.responses.create(**asked)
    parts = [part for item in answer.output if item.type == "message" for part in item.content]
    assert scenario.REFUSAL in [part.refusal if part.type == "refusal" else part.text for part in parts]
    filtered = answer.incomplete_details and answer.incomplete_details.reason == "content_filter"
    assert filtered or [part.type for part in parts] == ["refusal"]


def test_a_bad_key(door: Door) -> None:
    with (
        OpenAI(base_url=door.base_url, api_key="sk-kodna-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.responses.create(model=door.model("text"), input=INPUT)


def test_no_such_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="none", input=INPUT)


@cases.STREAMED
@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_errors(client: OpenAI, door: Door, status: int, raised: type[openai.APIStatusError], streamed: bool) -> None:
    with pytest.raises(raised) as caught:
        client.responses.create(model=door.model(f"error-{status}"), input=INPUT, stream=streamed)
    if status == 400:
        assert scenario.ERRORS[400] in caught.value.message
    if status == 429:
        assert int(caught.value.response.headers["retry-after"]) > 0


def how_it_ends(client: OpenAI, model: str) -> str:
    """The SDK raises where an event has a member `error`; `response.failed` it hands out like any other."""
    try:
        with client.responses.create(model=model, input=INPUT, stream=True) as stream:
            return list(stream)[-1].type
    except openai.APIError:
        return "raised"


def test_an_error_within_the_stream(client: OpenAI, door: Door) -> None:
    assert how_it_ends(client, door.model("error-stream")) in ("raised", "response.failed", "error")
    with pytest.raises((RuntimeError, openai.APIError)):  # RuntimeError: there was no `response.completed`
        ask(client, {"model": door.model("error-stream"), "input": INPUT}, streamed=True)


def test_a_stream_cut_off(client: OpenAI, door: Door) -> None:
    if door.direct:
        with pytest.raises(httpx.RemoteProtocolError):
            how_it_ends(client, "cut")
        return
    assert how_it_ends(client, door.model("cut")) in ("raised", "response.failed", "error")
    with pytest.raises((RuntimeError, openai.APIError)):
        ask(client, {"model": door.model("cut"), "input": INPUT}, streamed=True)


@only_through_the_gateway
def test_a_stream_without_its_end(client: OpenAI, door: Door) -> None:
    assert how_it_ends(client, door.model("truncated")) in ("raised", "response.failed", "error")


def test_as_codex_asks(client: OpenAI, door: Door) -> None:
    """Two developer messages, tools of other kinds beside the functions, nothing stored, everything streamed."""
    developer = [{"role": "developer", "content": [{"type": "input_text", "text": text}]} for text in ("a", "b")]
    namespace = {"type": "namespace", "name": "files", "description": "Files", "tools": TOOLS[1:]}
    asked: Any = {
        "model": door.model("thinking"),
        "instructions": "You are an agent.",
        "input": [*developer, *INPUT],
        "tools": [TOOLS[0], namespace, {"type": "web_search"}],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "prompt_cache_key": "session-1",
        "text": {"verbosity": "medium"},
    }
    answer = last_response(client, asked)
    assert calls_of(answer) == cases.CALLS[:1]
    asked["input"] += [*back(answer), *outputs(answer)]
    assert last_response(client, asked).output_text == cases.said_after_thoughts(signed=True)
