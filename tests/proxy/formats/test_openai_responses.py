"""Responses: what routing and metering need of a request, the permitted edits, errors."""

import json
from typing import Any

import pytest

from proxy.formats import openai_responses
from proxy.formats.base import BadField, Edits, Error, Format
from proxy.formats.canonical import seal
from proxy.formats.splice import Members
from tests.proxy.formats import responses as wire

FORMAT: Format = openai_responses
NONE: frozenset[str] = frozenset()


def test_it_works() -> None:
    given = wire.members(stream=True, group="x", max_output_tokens=9)
    FORMAT.check(given)
    assert FORMAT.bounds(given) == {"max_output_tokens": 9}
    body = FORMAT.own_body(given, Edits("up-1", frozenset({"group"}), stream=True))
    assert body == b'{"model": "up-1", "input": "Hi", "stream": true, "max_output_tokens": 9}'
    assert FORMAT.path("up-1", stream=True) == "/responses"


def test_a_request_without_a_model_gets_one() -> None:
    body = FORMAT.own_body(Members(b'{"input": "Hi"}'), Edits("up-1", NONE, stream=False))
    assert json.loads(body) == {"input": "Hi", "model": "up-1"}


def test_thoughts_of_other_formats_do_not_reach_the_api() -> None:
    """It refuses what it has not encrypted itself; every other byte of the items stays."""
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal("gemini", "abc")}
    own = {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gAAA"}
    said = {"role": "user", "content": f"What is {seal('gemini', 'abc')}?"}
    given = wire.members(input=[said, sealed, own, {"type": "function_call", "encrypted_content": "kodna1.!"}])
    body = json.loads(FORMAT.own_body(given, Edits("up-1", NONE, stream=False)))
    assert body["input"] == [said, own, {"type": "function_call", "encrypted_content": "kodna1.!"}]
    text = wire.members(input=said["content"])
    assert json.loads(FORMAT.own_body(text, Edits("up-1", NONE, stream=False)))["input"] == said["content"]


@pytest.mark.parametrize(("asked", "sent"), [(50, 20), (20, 20), (5, 5), (None, 20), (-1, 20)])
def test_the_output_limit(asked: int | None, sent: int) -> None:
    body = FORMAT.own_body(wire.members(max_output_tokens=asked), Edits("up-1", NONE, stream=False, limit=20))
    assert json.loads(body)["max_output_tokens"] == sent


def test_an_output_limit_where_there_was_none() -> None:
    body = FORMAT.own_body(wire.members(), Edits("up-1", NONE, stream=False, limit=20))
    assert json.loads(body) == {"model": "up-1", "input": "Hi", "max_output_tokens": 20}
    assert FORMAT.bounds(wire.members(max_output_tokens=None)) == {}
    assert (FORMAT.least_output(wire.members()), FORMAT.choices(wire.members())) == (16, 1)


@pytest.mark.parametrize(
    "body",
    [
        {"input": "Hi"},
        {"input": [{"role": "user", "content": "Hi"}]},
        {"input": [{"type": "message", "role": "user", "content": []}]},
        {"input": None, "previous_response_id": "resp_1"},
        {"input": [], "conversation": "conv_1"},
        {"prompt": {"id": "p"}, "input": None},
    ],
)
def test_what_passes_the_check(body: dict[str, Any]) -> None:
    FORMAT.check(wire.members(**body))


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        (None, "input", "missing_required_parameter"),
        ([], "input", "invalid_value"),
        (3, "input", "invalid_value"),
        ({"role": "user"}, "input", "invalid_value"),
        ([{}, "x"], "input[1]", "invalid_value"),
    ],
)
def test_what_does_not(given: Any, param: str, code: str) -> None:
    with pytest.raises(BadField) as caught:
        FORMAT.check(wire.members(input=given))
    assert (caught.value.param, caught.value.code) == (param, code)


def test_a_bound_that_is_no_number() -> None:
    with pytest.raises(BadField, match="expected a number, found a string"):
        FORMAT.bounds(wire.members(max_output_tokens="many"))


def test_what_is_counted_of_a_prompt() -> None:
    picture = {"type": "input_image", "image_url": "http://a"}
    content = [{"type": "input_text", "text": "sunny"}, picture]
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}, picture]},
        wire.thought("Hm"),
        wire.call('{"city":"Oslo"}'),
        {"type": "function_call_output", "call_id": "call_1", "output": content},
        {"type": "function_call_output", "call_id": "call_2", "output": "warm"},
    ]
    found = FORMAT.prompt(wire.members(input=items, instructions="Help.", tools=[{"type": "web_search"}]))
    assert (found.messages, found.images) == (5, 2)
    for word in ("Help.", "Weather?", "Hm", "weather", "Oslo", "sunny", "warm", "web_search"):
        assert found.text.count(word) == 1


def test_a_prompt_of_one_string() -> None:
    found = FORMAT.prompt(wire.members(input="Hello"))
    assert (found.text, found.messages, found.images) == ("Hello", 1, 0)


ERROR = Error(404, "No such model.", "invalid_request_error", "model_not_found", "model")


def test_errors() -> None:
    whole = {"message": "No such model.", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    assert json.loads(FORMAT.error_body(ERROR)) == {"error": whole}
    assert FORMAT.read_error(FORMAT.error_body(ERROR)) == whole
    (event,) = wire.parsed(FORMAT.error_event(ERROR))
    assert event["error"] == whole
    assert (event["type"], event["code"]) == ("error", "model_not_found")
