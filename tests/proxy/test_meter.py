"""What an answer costs, as exact numbers; and the count where no usage comes."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_catalog.pricing import Price
from proxy import meter
from proxy.errors import BadRequest
from proxy.formats import openai_chat
from proxy.formats.canonical import Usage
from proxy.formats.splice import Members
from tests.proxy.inside import model

PRICE = Price(0, 150_000, 600_000, 75_000, 187_500)  # picodollars: 0.15, 0.60, 0.075 and 0.1875 USD per million


def request(*messages: object, **more: object) -> Members:
    return Members(json.dumps({"messages": list(messages), **more}).encode())


def said(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def test_it_works() -> None:
    assert meter.count("Hello world") == 2
    assert (
        meter.prompt_tokens(openai_chat, request(said("Hello world"))) == 2 + 1 + 3 + 3
    )  # text, line end, message, priming
    assert meter.pricer(PRICE)(Usage(1000, 100)) == {
        "cached_tokens": b"0",
        "cost": b"0.00021",
        "cache_discount": b"0",
    }


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (PRICE, Usage(), 0),
        (PRICE, Usage(1, 0), 150_000),
        (PRICE, Usage(0, 1), 600_000),
        (PRICE, Usage(10, 1, cached=4), 6 * 150_000 + 4 * 75_000 + 600_000),
        (PRICE, Usage(10, 0, cached=4, written=5), 150_000 + 4 * 75_000 + 5 * 187_500),
        (PRICE, Usage(10, 1, reasoning=1), 10 * 150_000 + 600_000),  # within the completion
        (PRICE, Usage(10, 0, cached=15), 10 * 75_000),  # xAI reports such
        (PRICE, Usage(10, 0, cached=8, written=8), 8 * 75_000 + 2 * 187_500),
        (Price(0, 150_000, 600_000, None, None), Usage(10, 0, cached=4, written=4), 10 * 150_000),
        (Price(0, 0, 0, None, None), Usage(10, 10), 0),
        (Price(0, None, 600_000, None, None), Usage(10, 10), None),
        (Price(0, 150_000, None, None, None), Usage(10, 10), None),
        (None, Usage(10, 10), None),
        (PRICE, Usage(2**31 - 1, 2**31 - 1), (2**31 - 1) * 750_000),
    ],
)
def test_cost(price: Price | None, usage: Usage, cost: int | None) -> None:
    assert meter.cost(price, usage) == cost


def test_without_a_price_nothing_is_said_of_cost() -> None:
    assert meter.pricer(None)(Usage(10, 10, cached=3)) == {"cached_tokens": b"3"}


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_the_numbers_are_exact_json(prompt: int, completion: int, cached: int) -> None:
    usage = Usage(prompt, completion, min(cached, prompt))
    found = meter.pricer(PRICE)(usage)
    assert json.loads(found["cost"], parse_float=Decimal) * 10**12 == meter.cost(PRICE, usage)
    assert json.loads(found["cache_discount"], parse_float=Decimal) * 10**12 == usage.cached * 75_000
    assert b"e" not in found["cost"].lower()


def test_a_picodollar_is_not_lost() -> None:
    assert meter.pricer(Price(0, 1, 0, None, None))(Usage(1, 0))["cost"] == b"0.000000000001"


# --- counting ---------------------------------------------------------------------------------------------------------


def test_each_message_costs_a_little() -> None:
    one, two = (
        meter.prompt_tokens(openai_chat, request(said("Hi"))),
        meter.prompt_tokens(openai_chat, request(said("Hi"), said("Hi"))),
    )
    assert two == 2 * one - 3


def test_parts_count_as_text_does() -> None:
    assert meter.prompt_tokens(
        openai_chat, request(said([{"type": "text", "text": "Hello world"}]))
    ) == meter.prompt_tokens(openai_chat, request(said("Hello world")))


def test_an_image_counts_as_one_however_long_its_data() -> None:
    text = {"type": "text", "text": "Hi"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    alone = meter.prompt_tokens(openai_chat, request(said([text])))
    assert meter.prompt_tokens(openai_chat, request(said([text, image, image]))) == alone + 2 * 765


def test_tools_count() -> None:
    tool = {"type": "function", "function": {"name": "weather", "description": "The weather of a city"}}
    assert (
        meter.prompt_tokens(openai_chat, request(said("Hi"), tools=[tool]))
        > meter.prompt_tokens(openai_chat, request(said("Hi"))) + 10
    )


def test_calls_and_results_count() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "1 2 3 4 5"}}]}
    result = {"role": "tool", "tool_call_id": "a", "content": "one two three"}
    assert (
        meter.prompt_tokens(openai_chat, request(said("Hi"), call, result))
        > meter.prompt_tokens(openai_chat, request(said("Hi"))) + 15
    )


def test_what_was_said_counts() -> None:
    found = meter.counted(openai_chat, request(said("Hi")), "Hello world")
    assert found == Usage(prompt=meter.prompt_tokens(openai_chat, request(said("Hi"))), completion=2)
    assert meter.counted(openai_chat, request(said("Hi")), "").completion == 0


def test_a_long_text_is_extrapolated() -> None:
    text = "All happy families are alike. " * 10_000
    whole = meter.count(text)
    assert abs(meter.estimate(text) - whole) < whole / 100


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "a\ud83d", "<|endoftext|>", "\u2028", "é" * 20_001])
def test_any_text_can_be_counted(text: str) -> None:
    assert (meter.estimate(text) > 0) is (text != "")


@pytest.mark.parametrize(
    "messages", [b'[{"content":"Hi","x":1e400}]', b'[{"content":' + b"[" * 800 + b"]" * 800 + b"}]"]
)
def test_any_messages_that_were_let_in_can_be_counted(messages: bytes) -> None:
    assert meter.prompt_tokens(openai_chat, Members(b'{"messages":' + messages + b"}")) > 6


def test_the_vocabulary_is_in_the_house() -> None:
    assert meter.encoding().name == "o200k_base"


# --- the context window -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [5, 5000])
async def test_context_is_enforced(words: int) -> None:
    asked = request(said("word " * words))
    tokens = meter.prompt_tokens(openai_chat, asked, meter.count)
    await meter.check_context(openai_chat, asked, model("m", enforce=True, context=tokens))
    await meter.check_context(openai_chat, asked, model("m", enforce=False, context=1))
    await meter.check_context(openai_chat, asked, model("m", enforce=True, context=None))
    with pytest.raises(BadRequest, match=f"is {tokens - 1} tokens; this prompt has {tokens}") as refused:
        await meter.check_context(openai_chat, asked, model("m", enforce=True, context=tokens - 1))
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
