"""Google's SDK for Python, google-genai."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from google import genai
from google.genai import errors, types

from tests.providers import scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door, only_through_the_gateway

DIALECT = "gemini"
SYSTEM = types.GenerateContentConfig(system_instruction=cases.SYSTEM)
TOOLS = [
    types.Tool(
        function_declarations=[
            types.FunctionDeclaration(name=name, description=name, parameters_json_schema=schema)
            for name, schema in cases.TOOLS.items()
        ]
    )
]
HELLO = types.Content(role="user", parts=[types.Part.from_text(text=cases.HELLO)])


def new_client(door: Door) -> genai.Client:
    return genai.Client(api_key=door.key, http_options=types.HttpOptions(base_url=door.root, timeout=20_000))


@pytest.fixture
def client(door: Door) -> Iterator[genai.Client]:
    with new_client(door) as client:
        yield client


def assert_usage(usage: types.GenerateContentResponseUsageMetadata | None) -> None:
    assert usage
    completion = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    assert (usage.prompt_token_count, completion, usage.cached_content_token_count) == cases.TOKENS


def calls_of(parts: list[types.Part]) -> list[tuple[str | None, Any]]:
    return [(part.function_call.name, part.function_call.args) for part in parts if part.function_call]


def ask(client: genai.Client, name: str, contents: Any, config: Any, *, streamed: bool) -> list[types.Part]:
    """The parts of the answer. google-genai gathers no streams: a client runs the chunks' parts together."""
    asked: Any = {"model": name, "contents": contents, "config": config}
    if streamed:
        chunks = list(client.models.generate_content_stream(**asked))
    else:
        chunks = [client.models.generate_content(**asked)]
    return [part for chunk in chunks for part in chunk.parts or ()]


def text_of(parts: list[types.Part]) -> str:
    return "".join(part.text or "" for part in parts if not part.thought)


def after(parts: list[types.Part]) -> list[types.Content]:
    answers = [
        types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": result}))
        for part in parts
        if (call := part.function_call) and (result := cases.RESULTS[call.name or ""])
    ]
    return [HELLO, types.Content(role="model", parts=parts), types.Content(role="user", parts=answers)]


def test_chat(client: genai.Client, door: Door) -> None:
    answer = client.models.generate_content(model=door.model("text"), contents=cases.HELLO, config=SYSTEM)
    assert answer.text == cases.TEXT
    [candidate] = answer.candidates or []
    assert (candidate.finish_reason, answer.model_version) == (types.FinishReason.STOP, door.model("text"))
    assert_usage(answer.usage_metadata)


def test_stream(client: genai.Client, door: Door) -> None:
    asked: Any = {"model": door.model("text"), "contents": cases.HELLO, "config": SYSTEM}
    chunks = list(client.models.generate_content_stream(**asked))
    assert "".join(chunk.text or "" for chunk in chunks) == cases.TEXT
    assert len(chunks) > 3, "not streamed"
    [candidate] = chunks[-1].candidates or []
    assert candidate.finish_reason == types.FinishReason.STOP
    assert_usage(chunks[-1].usage_metadata)


# The SDK's own class under aiohttp.
@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
async def test_async(door: Door) -> None:
    async with new_client(door).aio as client:
        answer = await client.models.generate_content(model=door.model("text"), contents=cases.HELLO)
        assert answer.text == cases.TEXT_ALONE
        asked: Any = {"model": door.model("parallel"), "contents": HELLO, "config": {"tools": TOOLS}}
        stream = await client.models.generate_content_stream(**asked)
        parts = [part async for chunk in stream for part in chunk.parts or ()]
    assert calls_of(parts) == cases.CALLS


def test_chat_session(client: genai.Client, door: Door) -> None:
    """The SDK's own history over two turns."""
    chat = client.chats.create(model=door.model("text"))
    assert chat.send_message(cases.HELLO).text == cases.TEXT_ALONE
    assert "".join(chunk.text or "" for chunk in chat.send_message_stream(cases.HELLO)) == cases.TEXT_ALONE


@cases.STREAMED
@cases.TOOL_TURNS
def test_tools(client: genai.Client, door: Door, turn: str, streamed: bool) -> None:
    config = {"tools": TOOLS}
    parts = ask(client, door.model(turn), HELLO, config, streamed=streamed)
    assert calls_of(parts) == cases.CALLS[: cases.MADE[turn]]
    again = ask(client, door.model(turn), after(parts), config, streamed=streamed)
    assert text_of(again) == cases.SAID_AFTER[turn]


def test_a_tool_with_a_schema_of_gemini(client: genai.Client, door: Door) -> None:
    """`parameters` instead of `parametersJsonSchema`: an older, narrower form, with types in capitals."""
    parameters = types.Schema.from_json_schema(json_schema=types.JSONSchema(**cases.WEATHER))
    tool = types.Tool(function_declarations=[types.FunctionDeclaration(name="weather", parameters=parameters)])
    parts = ask(client, door.model("tools"), HELLO, {"tools": [tool]}, streamed=False)
    assert calls_of(parts) == cases.CALLS[:1]


def test_a_forced_tool(client: genai.Client, door: Door) -> None:
    calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["clock"])
    config = {"tools": TOOLS, "tool_config": types.ToolConfig(function_calling_config=calling)}
    parts = ask(client, door.model("tools"), HELLO, config, streamed=False)
    assert [name for name, _ in calls_of(parts)] == ["clock"]


@pytest.mark.parametrize("form", ["response_schema", "response_json_schema"])
def test_structured(client: genai.Client, door: Door, form: str) -> None:
    schema: Any = cases.Guest if form == "response_schema" else cases.Guest.model_json_schema()
    config: Any = {"response_mime_type": "application/json", form: schema}
    answer = client.models.generate_content(model=door.model("structured"), contents=HELLO, config=config)
    assert cases.Guest.model_validate_json(answer.text or "") == cases.GUEST
    if form == "response_schema":
        assert answer.parsed == cases.GUEST


@cases.PICTURES
def test_vision(client: genai.Client, door: Door, picture: str) -> None:
    part = {
        "base64": types.Part.from_bytes(data=cases.IMAGE, mime_type="image/png"),
        "address": types.Part.from_uri(file_uri=cases.IMAGE_URL, mime_type="image/png"),
    }[picture]
    answer = client.models.generate_content(model=door.model("vision"), contents=[part, "What is it?"])
    assert answer.text == cases.SEEN_AS[picture]


@cases.STREAMED
def test_thinking(client: genai.Client, door: Door, streamed: bool) -> None:
    thinking = types.ThinkingConfig(include_thoughts=True, thinking_budget=2000)
    config: Any = {"tools": TOOLS, "thinking_config": thinking, "max_output_tokens": 4000}
    parts = ask(client, door.model("thinking"), HELLO, config, streamed=streamed)
    assert "".join(part.text or "" for part in parts if part.thought) == scenario.THOUGHT
    assert calls_of(parts) == cases.CALLS[:1]
    again = ask(client, door.model("thinking"), after(parts), config, streamed=streamed)
    assert text_of(again) == cases.said_after_thoughts(signed=True)


def test_length(client: genai.Client, door: Door) -> None:
    config: Any = {"max_output_tokens": 20}
    answer = client.models.generate_content(model=door.model("length"), contents=HELLO, config=config)
    [candidate] = answer.candidates or []
    assert (answer.text, candidate.finish_reason) == (scenario.MAX_TOKENS_SAID, types.FinishReason.MAX_TOKENS)


def test_count_tokens(client: genai.Client, door: Door) -> None:
    counted = client.models.count_tokens(model=door.model("text"), contents=HELLO).total_tokens or 0
    assert counted == scenario.PROMPT_TOKENS if door.dialect == DIALECT else counted > 0


@cases.STREAMED
def test_a_refusal(client: genai.Client, door: Door, streamed: bool) -> None:
    asked: Any = {"model": door.model("refusal"), "contents": HELLO}
    if streamed:
        chunks = list(client.models.generate_content_stream(**asked))
    else:
        chunks = [client.models.generate_content(**asked)]
    [candidate] = chunks[-1].candidates or []
    said = "".join(chunk.text or "" for chunk in chunks)
    # Where a model refuses in words of its own, there is no word of Gemini for it but the words.
    assert candidate.finish_reason == types.FinishReason.SAFETY or said == scenario.REFUSAL


def test_a_bad_key(door: Door) -> None:
    options = types.HttpOptions(base_url=door.root)
    with (
        genai.Client(api_key="sk-kodna-wrong", http_options=options) as client,
        pytest.raises(errors.ClientError) as caught,
    ):
        client.models.generate_content(model=door.model("text"), contents=HELLO)
    assert caught.value.code == 401


def test_no_such_model(client: genai.Client) -> None:
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="none", contents=HELLO)
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


@cases.STREAMED
@pytest.mark.parametrize(
    ("status", "raised"), [(400, errors.ClientError), (429, errors.ClientError), (500, errors.ServerError)]
)
def test_errors(client: genai.Client, door: Door, status: int, raised: type[errors.APIError], streamed: bool) -> None:
    with pytest.raises(raised) as caught:
        ask(client, door.model(f"error-{status}"), HELLO, None, streamed=streamed)
    assert caught.value.code == status or status == 500
    if status == 400:
        assert scenario.ERRORS[400] in (caught.value.message or "")


def test_an_error_within_the_stream(client: genai.Client, door: Door) -> None:
    with pytest.raises(errors.APIError):
        ask(client, door.model("error-stream"), HELLO, None, streamed=True)


def test_a_stream_cut_off(client: genai.Client, door: Door) -> None:
    with pytest.raises(httpx2.RemoteProtocolError if door.direct else errors.APIError):
        ask(client, door.model("cut"), HELLO, None, streamed=True)


@only_through_the_gateway
def test_a_stream_without_its_end(client: genai.Client, door: Door) -> None:
    with pytest.raises(errors.APIError):
        ask(client, door.model("truncated"), HELLO, None, streamed=True)
