"""What routing and metering ask of a chat request, and its bytes for a provider of the same format."""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.formats import openai_chat
from proxy.formats.base import Ask, BadField, Edits, Losses, NotAnAnswer, Prompt, Target
from proxy.formats.canonical import Request
from proxy.formats.openai_chat import (
    ChatStream,
    bounds,
    check,
    choices,
    least_output,
    own_body,
    path,
    prompt,
    relay,
)
from proxy.formats.splice import Members
from tests.upstreams import DONE, event

HELLO = [{"role": "user", "content": "Hi"}]


def members(found: Mapping[str, Any]) -> Members:
    return Members(json.dumps(found).encode())


def edits(**changes: Any) -> Edits:
    return Edits(**{"model": "theirs", "drop": frozenset(), "stream": False, **changes})


def test_it_works() -> None:
    asked = members({"model": "ours", "messages": HELLO, "max_tokens": 5})
    check(asked)
    assert bounds(asked) == {"max_tokens": 5}
    assert prompt(asked) == Prompt("Hi\n", 1, 0)
    assert (
        own_body(asked, edits())
        == b'{"model": "theirs", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}'
    )
    assert path("theirs", stream=True) == "/chat/completions"
    assert openai_chat.NAME == "openai_chat"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "messages", "'messages' is missing."),
        ({"messages": []}, "messages", "Invalid 'messages': expected at least one message, found an empty array."),
        ({"messages": "Hi"}, "messages", "Invalid 'messages': expected an array of messages, found a string."),
        ({"messages": None}, "messages", "Invalid 'messages': expected an array of messages, found null."),
        ({"messages": [{}, 5]}, "messages[1]", "Invalid 'messages[1]': expected an object, found int."),
        ({"stream": True, "stream_options": 5}, "stream_options", "expected an object, found a number"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "true or false"),
    ],
)
def test_what_is_refused(body: dict[str, Any], param: str, message: str) -> None:
    if "stream_options" in body:
        body["messages"] = HELLO
    with pytest.raises(BadField) as caught:
        check(members(body))
    assert caught.value.param == param
    assert message in caught.value.message


def test_stream_options_with_a_name_twice_are_refused() -> None:
    options = b'{"include_usage": false, "include_usage": true}'
    with pytest.raises(BadField, match="each field once"):
        check(Members(b'{"messages": [{}], "stream": true, "stream_options": ' + options + b"}"))


def test_stream_options_of_a_plain_request_are_the_providers_to_judge() -> None:
    check(members({"messages": HELLO, "stream_options": 5}))


def test_messages_that_are_nested_too_deeply_are_refused() -> None:
    asked = members({"messages": HELLO})
    asked["messages"] = b"[" * 5000 + b"]" * 5000
    with pytest.raises(BadField) as caught:
        check(asked)
    assert caught.value.param.startswith("messages")


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, {}),
        ({"max_tokens": 5, "max_completion_tokens": 7.5}, {"max_completion_tokens": 7.5, "max_tokens": 5}),
        ({"max_tokens": None}, {}),
        ({"max_tokens": 0, "max_completion_tokens": -1}, {}),
    ],
)
def test_the_bounds_of_the_output(body: Mapping[str, Any], found: Mapping[str, float]) -> None:
    assert bounds(members(body)) == found


@pytest.mark.parametrize("value", ["5", [], True])
def test_bounds_that_are_no_numbers(value: object) -> None:
    with pytest.raises(BadField, match="Invalid 'max_tokens': expected a number"):
        bounds(members({"max_tokens": value}))


@pytest.mark.parametrize(
    ("body", "found"),
    [({}, 1), ({"n": None}, 1), ({"n": 0}, 1), ({"n": 3}, 3), ({"n": 2, "best_of": 4.5}, 5), ({"n": 10**30}, 10**6)],
)
def test_how_many_answers_are_asked_for(body: Mapping[str, Any], found: int) -> None:
    assert choices(members(body)) == found
    assert least_output(members(body)) == 1


def test_a_number_of_answers_that_is_none() -> None:
    with pytest.raises(BadField, match="Invalid 'n': expected a number"):
        check(members({"messages": HELLO, "n": "many"}))


# --- the prompt ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "Hi"}], Prompt("Hi\n", 1, 0)),
        ([{"role": "user", "name": "Ann", "content": [{"type": "text", "text": "Hi"}]}], Prompt("AnnHi\n", 1, 0)),
        ([{"content": [{"type": "image_url", "image_url": {"url": "data:…"}}, {"text": "a"}]}], Prompt("a\n", 1, 1)),
        ([{"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}], Prompt("f{}\n", 1, 0)),
        ([{"role": "tool", "content": "12"}, {"content": 5}, 7, None], Prompt("12\n\n", 2, 0)),
        ([], Prompt()),
        ({"content": "Hi"}, Prompt()),
    ],
)
def test_the_text_of_a_prompt(messages: object, expected: Prompt) -> None:
    assert prompt(members({"messages": messages})) == expected


def test_tools_are_counted_with_the_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert prompt(members({"messages": HELLO, "tools": tools})).text == "Hi\n" + json.dumps(tools)


def test_the_text_of_a_prompt_that_is_hard_to_read() -> None:
    asked = members({"messages": []})
    asked["messages"] = b'[{"content": "Hi", "x": 1e400}]'
    assert prompt(asked) == Prompt("Hi\n", 1, 0)
    asked["messages"] = deep = b'[{"content": ' + b"[" * 5000 + b"]" * 5000 + b"}]"
    assert prompt(asked) == Prompt(deep.decode(), 1, 0)


# --- the same format -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "changes", "sent"),
    [
        ('{"messages": []}', {}, '{"messages": [],"model":"theirs"}'),
        ('{"model": "x", "group": "a", "b": 1.0}', {"drop": frozenset({"group"})}, '{"model": "theirs", "b": 1.0}'),
        ('{"model":"x"}', {"stream": True}, '{"model":"theirs","stream_options":{"include_usage":true}}'),
        (
            '{"model":"x","stream_options":{"include_usage":true}}',
            {"stream": True},
            '{"model":"theirs","stream_options":{"include_usage":true}}',
        ),
        (
            '{"model":"x","stream_options":{"include_usage": false, "y": 1}}',
            {"stream": True},
            '{"model":"theirs","stream_options":{"include_usage": true, "y": 1}}',
        ),
        (
            '{"model":"x","stream_options":null}',
            {"stream": True},
            '{"model":"theirs","stream_options":{"include_usage":true}}',
        ),
        ('{"model":"x"}', {"stream": True, "quirks": frozenset({"no_stream_options"})}, '{"model":"theirs"}'),
        (
            '{"model":"x","max_tokens":9,"max_completion_tokens":3}',
            {"limit": 5},
            '{"model":"theirs","max_tokens":5,"max_completion_tokens":3}',
        ),
        ('{"model":"x"}', {"limit": 5}, '{"model":"theirs","max_tokens":5}'),
        ('{"model":"x","max_tokens":null}', {"limit": 5}, '{"model":"theirs","max_tokens":5}'),
        ('{"model":"x","max_tokens":-1}', {"limit": 5}, '{"model":"theirs","max_tokens":5}'),
        ('{"model":"x","max_completion_tokens":null}', {"limit": 5}, '{"model":"theirs","max_completion_tokens":5}'),
        (
            '{"model":"x","max_tokens":null}',
            {"limit": 5, "quirks": frozenset({"max_completion_tokens"})},
            '{"model":"theirs","max_completion_tokens":5}',
        ),
        (
            '{"model":"x","max_tokens":3,"max_completion_tokens":null}',
            {"limit": 5},
            '{"model":"theirs","max_tokens":3}',
        ),
    ],
)
def test_only_the_permitted_edits(body: str, changes: dict[str, Any], sent: str) -> None:
    assert own_body(Members(body.encode()), edits(**changes)).decode() == sent


@pytest.mark.parametrize(("asked", "held"), [({}, True), ({"stream_options": {"include_usage": True}}, False)])
def test_a_usage_chunk_that_nobody_asked_for_is_held_back(asked: dict[str, Any], held: bool) -> None:
    stream = relay("ours", lambda _: {}, members({"messages": HELLO, **asked}), framing="sse")
    assert isinstance(stream, ChatStream)
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    out = stream.feed(event({"choices": [], "usage": usage}) + DONE)
    assert (out == DONE) is held


# --- odd types anywhere ----------------------------------------------------------------------------------------------

ODD = (None, True, 5, -1, 1.5, "x", "", [], {}, [5], {"a": 1}, [None], [[]], "\ud83d")
CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "index": 0}]
DETAILS = [
    {"type": "reasoning.text", "text": "hm", "signature": "s", "format": "x", "index": 0},
    {"type": "reasoning.encrypted", "data": "e", "id": "r", "index": 1},
]
PARTS = [
    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
    {"type": "file", "file": {"filename": "a", "file_data": "QUJD", "file_id": None}},
]
ASKED = {
    "messages": [
        {"role": "system", "content": "a", "name": "n"},
        {"role": "user", "content": PARTS},
        {"role": "assistant", "content": "a", "tool_calls": CALLS, "reasoning_details": DETAILS, "audio": {"id": "a"}},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "a"}]},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "grammar", "grammar": {"syntax": "s"}}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
    "reasoning": {"effort": "low", "max_tokens": 5, "exclude": True, "enabled": True},
    "thinking": {"type": "enabled", "budget_tokens": 5},
    "chat_template_kwargs": {"enable_thinking": True},
    "stop": ["a"],
    "max_tokens": 5,
    "logit_bias": {"a": 1},
}
MESSAGE = {
    "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}],
    "reasoning": "hm",
    "reasoning_details": DETAILS,
    "tool_calls": CALLS,
    "audio": {"id": "a", "data": "QUJD", "transcript": "a"},
    "images": [{"type": "image_url", "image_url": {"url": "https://x"}}],
    "annotations": [{"type": "url_citation", "url_citation": {"url": "https://x", "start_index": 0}}],
    "function_call": {"name": "f", "arguments": "{}"},
}
ANSWERED = {
    "id": "c",
    "model": "m",
    "choices": [
        {"index": 0, "message": MESSAGE, "delta": MESSAGE, "logprobs": {"content": []}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}},
    "search_results": [{"url": "https://x"}],
}


def _odd(found: Any, dice: random.Random) -> Any:
    """The same with other values, of other types, in some places; some members are missing."""
    if dice.random() < 0.04:
        return dice.choice(ODD)
    if isinstance(found, dict):
        return {name: _odd(value, dice) for name, value in found.items() if dice.random() > 0.02}
    return [_odd(value, dice) for value in found] if isinstance(found, list) else found


@pytest.mark.parametrize("seed", range(20))
def test_a_request_of_odd_types_is_read_or_refused(seed: int) -> None:
    dice, read = random.Random(seed), 0
    for _ in range(50):
        found = _odd(ASKED, dice)
        text = json.dumps(found if isinstance(found, dict) else ASKED)
        asked = Members(text.replace("\\ud83d", "").encode())  # a body with half a pair is refused as a whole
        try:
            check(asked)
            request = openai_chat.read_request(asked)
        except BadField:
            continue
        read += 1
        for quirks in (frozenset[str](), openai_chat.QUIRKS):
            json.loads(openai_chat.write_request(request, Target("m", Losses({}), None, quirks)))
    assert read


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_of_odd_types_is_read_or_refused(seed: int) -> None:
    dice, read = random.Random(seed), 0
    for _ in range(50):
        body = json.dumps(_odd(ANSWERED, dice)).encode()
        wanted = Ask("a", "m", 7, Request([]), Members(b"{}"), lambda _: {}, Losses({}), include_usage=True)
        try:
            answer = openai_chat.read_answer(body, "s")
        except NotAnAnswer:
            continue
        read += 1
        json.loads(openai_chat.write_answer(answer, wanted))
        found, out = openai_chat.reader("s"), openai_chat.writer(wanted)
        for each in found.feed(b"data: %b\n\ndata: %b\n\n" % (body, body) + DONE):
            out.send(each)
        assert found.complete or found.broken
    assert read
