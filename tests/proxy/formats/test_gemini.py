"""The Gemini format as the gateway uses it: its names, URLs, checks, edits, counting; and Google's own client on it."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors
from google.genai import types as google

from proxy.formats import gemini
from proxy.formats.base import Ask, BadField, Edits, Error, Format, Losses, Prompt
from proxy.formats.canonical import (
    Answer,
    Choice,
    Event,
    PartDelta,
    PartStart,
    Request,
    Text,
    Thinking,
    ToolCall,
    Usage,
    play,
)
from proxy.formats.splice import Members

BODY: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Hällo"}]}]}


def members(**more: object) -> Members:
    return Members(json.dumps(BODY | more).encode())


def test_it_works() -> None:
    form: Format = gemini
    gemini.check(members())
    assert (form.NAME, form.ENDPOINT) == ("gemini", "gemini")
    body = gemini.own_body(members(group="x"), Edits("gemini-x", frozenset({"group"}), stream=True))
    assert json.loads(body) == BODY


# --- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash"),
        ("models/gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash"),
        ("tunedModels/mine-1", "/v1beta/tunedModels/mine-1"),
        ("vendor/model:free", "/v1beta/models/vendor/model:free"),
        ("publishers/google/models/gemini-x", "/v1beta1/publishers/google/models/gemini-x"),
        (
            "projects/p/locations/us/publishers/google/models/gemini-x",
            "/v1beta1/projects/p/locations/us/publishers/google/models/gemini-x",
        ),
        ("odd name?#", "/v1beta/models/odd%20name%3F%23"),
    ],
)
def test_the_model_is_in_the_url(model: str, place: str) -> None:
    assert gemini.path(model, stream=False) == f"{place}:generateContent"
    assert gemini.path(model, stream=True) == f"{place}:streamGenerateContent?alt=sse"
    assert gemini.count_path(model) == f"{place}:countTokens"


@pytest.mark.parametrize(
    ("found", "param"),
    [
        ({}, "contents"),
        ({"contents": None}, "contents"),
        ({"contents": "Hi"}, "contents"),
        ({"contents": ["Hi"]}, "contents[0]"),
        ({**BODY, "generationConfig": 5}, "generationConfig"),
        ({**BODY, "generation_config": {"max_output_tokens": "many"}}, "generationConfig.maxOutputTokens"),
    ],
)
def test_what_routing_needs_is_checked(found: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        gemini.check(Members(json.dumps(found).encode()))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":4000}', "generationConfig"),
        (b'"generationConfig":{"maxOutputTokens":1,"max_output_tokens":4000}', "max_output_tokens"),
        (b'"generationConfig":{"candidateCount":1},"generation_config":{"candidateCount":8}', "generation_config"),
    ],
)
def test_a_bound_is_said_once(text: bytes, field: str) -> None:
    with pytest.raises(BadField) as caught:
        gemini.check(Members(b'{"contents":[],%b}' % text))
    assert caught.value.param == field


def test_what_is_nested_nearly_too_deeply_is_counted_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: bytes) -> None:
        raise RecursionError  # how deep is too deep depends on the stack that it is read on

    monkeypatch.setattr(gemini, "_decode", refuse)
    assert gemini.prompt(members()) == Prompt(members()["contents"].decode() + "\n", 1)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"maxOutputTokens": 100}, {"generationConfig.maxOutputTokens": 100}),
        ({"max_output_tokens": "100"}, {"generationConfig.maxOutputTokens": 100}),
        ({"maxOutputTokens": None}, {}),
        ({"maxOutputTokens": 0}, {}),
        ({}, {}),
    ],
)
def test_bounds(config: dict[str, Any], expected: dict[str, float]) -> None:
    assert gemini.bounds(members(generationConfig=config)) == expected
    assert gemini.bounds(members(generation_config=config)) == expected
    assert gemini.bounds(members(generationConfig=None)) == {}


@pytest.mark.parametrize(
    ("config", "sent"),
    [
        ({"max_output_tokens": "100", "topK": 1}, {"max_output_tokens": 5, "topK": 1}),
        ({"maxOutputTokens": 3}, {"maxOutputTokens": 3}),
        ({"maxOutputTokens": 0}, {"maxOutputTokens": 5}),
        ({"maxOutputTokens": None}, {"maxOutputTokens": 5}),
        ({"topK": 1}, {"topK": 1, "maxOutputTokens": 5}),
    ],
)
def test_the_output_limit(config: dict[str, Any], sent: dict[str, Any]) -> None:
    edits = Edits("m", frozenset(), stream=False, limit=5)
    for name in ("generationConfig", "generation_config"):
        assert json.loads(gemini.own_body(members(**{name: config}), edits)) == {**BODY, name: sent}


def test_an_output_limit_where_there_was_none() -> None:
    edits = Edits("m", frozenset(), stream=False, limit=5)
    for given in ({}, {"generationConfig": None}, {"generation_config": None}):
        body = json.loads(gemini.own_body(members(**given), edits))
        assert body == {**BODY, "generationConfig": {"maxOutputTokens": 5}}


@pytest.mark.parametrize(("config", "found"), [({}, 1), ({"candidateCount": "3"}, 3), ({"candidate_count": 2}, 2)])
def test_how_many_answers_are_asked_for(config: dict[str, Any], found: int) -> None:
    assert gemini.choices(members(generationConfig=config)) == found
    assert gemini.least_output(members(generationConfig=config)) == 1


def test_the_prompt_to_count() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}
    call = {"functionCall": {"name": "f", "args": {"a": 1}}}
    contents = [
        {"parts": [{"text": "Hi"}, image, {"text": "you"}]},
        {"role": "model", "parts": [call]},
        {"parts": None},
    ]
    found = gemini.prompt(members(contents=contents, system_instruction={"parts": {"text": "Be brief."}}))
    assert found == Prompt('Be brief.\nHiyou\n{"name":"f","args":{"a":1}}\n\n', 4, 1)


def test_the_clients_bytes_are_kept() -> None:
    text = (
        b'{ "contents" : [ {"parts":[{"text":"\\u00e4"}]} ],"generationConfig":{"maxOutputTokens": 900 , "topK":1 } }'
    )
    assert gemini.own_body(Members(text), Edits("m", frozenset(), stream=False)) == text
    limited = gemini.own_body(Members(text), Edits("m", frozenset(), stream=False, limit=100))
    assert limited == text.replace(b"900", b"100")
    assert gemini.own_body(Members(text), Edits("m", frozenset(), stream=False, limit=1000)) == text


def test_a_model_in_the_body_is_the_providers() -> None:
    body = gemini.own_body(members(model="models/catalog"), Edits("gemini-x", frozenset(), stream=False))
    assert json.loads(body)["model"] == "models/gemini-x"


# --- counting --------------------------------------------------------------------------------------------------------


def test_counting() -> None:
    inner = {"generateContentRequest": {**BODY, "model": "models/catalog"}, "group": "x"}
    whole = Members(json.dumps(inner).encode())
    edits = Edits("gemini-x", frozenset({"group"}), stream=False)
    for found in (members(), whole):
        gemini.check_count(found)
        assert gemini.count_prompt(found).text == "Hällo\n"
    assert json.loads(gemini.count_body(members(), edits)) == BODY
    sent = json.loads(gemini.count_body(whole, edits))
    assert sent == {"generateContentRequest": {**BODY, "model": "models/gemini-x"}}
    assert gemini.count_answer(7) == b'{"totalTokens":7}'


@pytest.mark.parametrize(
    ("found", "param"),
    [
        ({}, "contents"),
        ({"generateContentRequest": {}}, "contents"),
        ({"generateContentRequest": 5}, "generateContentRequest"),
    ],
)
def test_counts_are_checked(found: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        gemini.check_count(Members(json.dumps(found).encode()))
    assert caught.value.param == param


# --- Google's own client ---------------------------------------------------------------------------------------------

ANSWER = Answer(
    [
        Choice(
            [
                Thinking("I look.", signature="sig+/", origin="anthropic_messages"),
                Text("Föhn\u2028today"),
                ToolCall("call_1", "weather", '{"city":"Zürich"}'),
            ],
            "tool_calls",
            "tool_use",
        )
    ],
    usage=Usage(10, 20, cached=5, reasoning=7),
)


def ask() -> Ask:
    gains = {"cost": b"0.5", "cached_tokens": b"5", "cache_discount": b"0.1"}
    return Ask("abc", "vendor/m", 1, Request([]), Members(b"{}"), lambda _: gains, Losses({}))


def streamed(*found: Event) -> bytes:
    writer = gemini.writer(ask())
    return gemini.KEEPALIVE + b"".join(writer.send(event) + gemini.KEEPALIVE for event in found)


class Client:
    """google-genai in front of one answer. `asked`: what it sent."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.asked: list[bytes] = []
        transport = httpx.MockTransport(lambda request: self._answer(request, body, status))
        options = google.HttpOptions(
            base_url="http://gateway.test",
            client_args={"transport": transport},
            async_client_args={"transport": transport},
        )
        self.genai = genai.Client(api_key="key", http_options=options)

    def _answer(self, request: httpx.Request, body: bytes, status: int) -> httpx.Response:
        self.asked.append(request.content)
        return httpx.Response(status, content=body)


def test_googles_client_reads_plain_answers() -> None:
    found = Client(gemini.write_answer(ANSWER, ask())).genai.models.generate_content(model="m", contents="Hi")
    assert found.text == "Föhn\u2028today"
    assert found.function_calls == [google.FunctionCall(id="call_1", name="weather", args={"city": "Zürich"})]
    assert found.candidates is not None
    assert found.candidates[0].finish_reason == google.FinishReason.STOP
    assert found.usage_metadata is not None
    assert (found.usage_metadata.total_token_count, found.usage_metadata.thoughts_token_count) == (30, 7)
    assert found.model_version == "vendor/m"


def test_googles_client_reads_streams_with_keep_alives() -> None:
    client = Client(streamed(*play(ANSWER)))
    found = list(client.genai.models.generate_content_stream(model="m", contents="Hi"))
    assert "".join(chunk.text or "" for chunk in found) == "Föhn\u2028today"
    assert [call.name for chunk in found for call in chunk.function_calls or []] == ["weather"]
    assert found[-1].usage_metadata is not None
    assert found[-1].usage_metadata.candidates_token_count == 13


def test_googles_chats_bring_thoughts_of_others_back() -> None:
    client = Client(streamed(*play(ANSWER)))
    chat = client.genai.chats.create(model="m")
    list(chat.send_message_stream("Hi"))
    list(chat.send_message_stream("And?"))
    request = gemini.read_request(Members(client.asked[-1]))
    assert [message.role for message in request.messages] == ["user", "assistant", "user"]
    thought, text, call = request.messages[1].parts
    assert isinstance(thought, Thinking)
    assert isinstance(text, Text)
    assert isinstance(call, ToolCall)
    assert (thought.text, thought.signature, thought.origin) == ("I look.", "sig+/", "anthropic_messages")
    assert (text.text, call.id, call.arguments) == ("Föhn\u2028today", "call_1", '{"city":"Zürich"}')


def test_googles_client_raises_on_errors() -> None:
    error = Error(429, "Slow down.", "rate_limit_error", "rate_limit_exceeded")
    with pytest.raises(errors.ClientError, match=r"Slow down") as caught:
        Client(gemini.error_body(error), 429).genai.models.generate_content(model="m", contents="Hi")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")


def test_googles_client_raises_on_errors_in_streams() -> None:
    error = Error(502, "It broke.", "api_error", "provider_error")
    writer = gemini.writer(ask())
    begun = writer.send(PartStart(0, Text(""))) + writer.send(PartDelta(0, "a")) + writer.fail(error)
    for body in (gemini.KEEPALIVE + gemini.error_event(error), begun):
        with pytest.raises(errors.ServerError, match=r"It broke"):
            list(Client(body).genai.models.generate_content_stream(model="m", contents="Hi"))
        with pytest.raises(errors.ServerError, match=r"It broke"):
            asyncio.run(_read_all(Client(body)))


async def _read_all(client: Client) -> None:
    async for _ in await client.genai.aio.models.generate_content_stream(model="m", contents="Hi"):
        pass


def test_a_number_that_no_reader_takes_is_counted_as_it_stands() -> None:
    members = Members(b'{"contents":[{"parts":[{"text":"Hi"}]}],"systemInstruction":%s}' % (b"9" * 5000))
    assert "999" in gemini.prompt(members).text
