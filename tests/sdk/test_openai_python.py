"""The official OpenAI SDK for Python, sync and async, against running gateways in front of a real model server."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from tests.gateway import Gateway
from tests.tiny_model import SENTENCE, TOKENS_OUT
from tests.upstreams import Reply, Upstream, chat_events, error_reply

HELLO: Any = [{"role": "user", "content": "Hello"}]


def sdk(gateway: Gateway, key: str) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0, timeout=20)


@pytest.fixture
def client(gateway: Gateway, api_key: str) -> Iterator[OpenAI]:
    with sdk(gateway, api_key) as client:
        yield client


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def assert_row(row: dict[str, Any], usage: openai.types.CompletionUsage, **expected: object) -> None:
    """The row says what the provider said, at the catalog's price: 1 USD per million tokens in, 2 out."""
    assert (row["prompt_tokens"], row["completion_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    assert usage.prompt_tokens_details
    assert row["cached_tokens"] == usage.prompt_tokens_details.cached_tokens
    cost = Decimal(usage.prompt_tokens + 2 * usage.completion_tokens) / 1_000_000
    assert row["cost"] == cost == Decimal(str((usage.model_extra or {})["cost"]))
    said = {"status": 200, "outcome": "complete", "estimated": False, "account": "tests", "key_name": "shared"}
    assert {name: row[name] for name in [*said, *expected]} == {**said, **expected}
    assert "openai" in row["client"].lower()
    assert 0 < row["first_token_ms"] <= row["total_ms"]


# --- chat ------------------------------------------------------------------------------------------------------------


def test_it_works(client: OpenAI, gateway: Gateway) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO)
    assert (answer.choices[0].message.content or "").strip() == SENTENCE
    assert (answer.model, answer.choices[0].finish_reason) == ("tiny", "stop")
    assert answer.usage
    assert answer.usage.completion_tokens == TOKENS_OUT
    row = gateway.usage_row(answer._request_id or "")
    assert_row(row, answer.usage, model="tiny", provider="llama.cpp", upstream_model="tiny", streamed=False)


def test_max_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=2)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (" Every answer", "length")


def test_stream(client: OpenAI, gateway: Gateway) -> None:
    with client.chat.completions.create(model="tiny", messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert text_of(chunks).strip() == SENTENCE
    assert all(chunk.choices and chunk.usage is None for chunk in chunks), "usage that nobody asked for"
    assert {chunk.model for chunk in chunks} == {"tiny"}
    row = gateway.usage_row(stream.response.headers["x-request-id"])
    assert (row["completion_tokens"], row["estimated"], row["streamed"]) == (TOKENS_OUT, False, True)


def test_stream_with_usage(client: OpenAI, gateway: Gateway) -> None:
    options: Any = {"include_usage": True}
    with client.chat.completions.create(model="tiny", messages=HELLO, stream=True, stream_options=options) as stream:
        *chunks, last = stream
    assert text_of(chunks).strip() == SENTENCE
    assert last.choices == []
    assert last.usage
    row = gateway.usage_row(stream.response.headers["x-request-id"])
    assert_row(row, last.usage, streamed=True)


async def test_async(gateway: Gateway, api_key: str) -> None:
    async with AsyncOpenAI(base_url=gateway.base_url, api_key=api_key, max_retries=0) as client:
        answer = await client.chat.completions.create(model="tiny", messages=HELLO)
        assert (answer.choices[0].message.content or "").strip() == SENTENCE
        async with await client.chat.completions.create(model="tiny", messages=HELLO, stream=True) as stream:
            assert text_of([chunk async for chunk in stream]).strip() == SENTENCE


def test_a_model_with_a_slash(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="vendor/tiny", messages=HELLO)
    assert answer.model == "vendor/tiny"


def test_an_alias(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="fast", messages=HELLO)
    assert raw.parse().model == "tiny"
    assert (raw.headers["x-kodna-alias"], raw.headers["x-kodna-model"]) == ("fast", "tiny")


def test_every_parameter_arrives_untouched(client: OpenAI, recorder: Upstream) -> None:
    extra = {"enable_thinking": True, "top_k": 5, "chat_template_kwargs": {"thinking": False}, "x": None}
    client.chat.completions.create(
        model="vendor/recorded", messages=HELLO, seed=7, reasoning_effort="low", user="somebody", extra_body=extra
    )
    sent = {"model": "upstream-model", "messages": HELLO, "seed": 7, "reasoning_effort": "low", "user": "somebody"}
    assert recorder.last.json == {**sent, **extra}
    assert recorder.last.path == "/v1/chat/completions"
    assert recorder.last.headers["authorization"] == "Bearer sk-upstream"


def test_the_request_id(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=HELLO)
    assert raw.headers["x-request-id"]
    assert raw.parse()._request_id == raw.headers["x-request-id"]


# --- models ----------------------------------------------------------------------------------------------------------


def test_list_of_models(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"tiny", "vendor/tiny", "vendor/recorded"} <= set(models)
    assert (models["tiny"].object, models["tiny"].owned_by) == ("model", "tests")
    assert models["tiny"].created > 0


@pytest.mark.parametrize("name", ["tiny", "vendor/tiny"])
def test_one_model(client: OpenAI, name: str) -> None:
    assert client.models.retrieve(name).id == name


def test_no_such_model_to_retrieve(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("vendor/none")
    assert caught.value.code == "model_not_found"


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_bad_key(gateway: Gateway) -> None:
    with sdk(gateway, "sk-kodna-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.chat.completions.create(model="tiny", messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "authentication_error")
    assert caught.value.request_id


def test_an_unknown_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="none", messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("model_not_found", "invalid_request_error")
    assert "none" in caught.value.message


@pytest.mark.parametrize("wrong", [{}, {"messages": "Hello"}, {"messages": None}, {"messages": [1]}])
def test_wrong_messages(client: OpenAI, wrong: dict[str, object]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={"model": "tiny", **wrong}, cast_to=object)
    assert caught.value.type == "invalid_request_error"
    assert "messages" in (caught.value.param or "")


def ask_often(client: OpenAI, times: int) -> None:
    for _ in range(times):
        client.chat.completions.create(model="tiny", messages=HELLO)


def test_too_many_requests(gateway: Gateway) -> None:
    with sdk(gateway, gateway.key(rpm=1)) as client, pytest.raises(openai.RateLimitError) as caught:
        ask_often(client, gateway.workers + 1)  # counted in each process
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 61


def test_the_providers_own_refusal(client: OpenAI, recorder: Upstream) -> None:
    recorder.answers(error_reply(400, "too long", "context_length_exceeded"))
    with pytest.raises(openai.BadRequestError, match="too long") as caught:
        client.chat.completions.create(model="vendor/recorded", messages=HELLO)
    assert caught.value.code == "context_length_exceeded"


def test_the_gateways_own_credential_refused(client: OpenAI, recorder: Upstream) -> None:
    recorder.answers(error_reply(401, "Incorrect API key sk-upstream"))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="vendor/recorded", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (502, "provider_error")
    assert "sk-upstream" not in str(caught.value)


def test_a_stream_that_breaks_off(client: OpenAI, recorder: Upstream) -> None:
    recorder.answers(Reply(chat_events(["Half"])[:2], end="cut"))
    stream = client.chat.completions.create(model="vendor/recorded", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError) as caught, stream:
        list(stream)
    assert caught.value.type == "api_error"
