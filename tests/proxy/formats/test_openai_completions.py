"""Clients of the legacy completions API: a prompt in, one text out."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from openai.types import Completion

from proxy.formats import openai_completions
from proxy.formats.base import Ask, BadField, Error, Losses, Prompt
from proxy.formats.canonical import (
    LENGTH,
    STOP,
    STOP_SEQUENCE,
    TOOL_CALLS,
    Answer,
    Choice,
    End,
    Event,
    Failure,
    Finish,
    Message,
    PartDelta,
    PartEnd,
    PartStart,
    Refusal,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    UsageSeen,
    play,
)
from proxy.formats.openai_completions import bounds, check, error_body, prompt, read_request, write_answer, writer
from proxy.formats.splice import Members

SAY = [Message("user", [Text("Say hi", at="prompt")], at="prompt")]
USAGE = Usage(7, 3)


def members(**fields: Any) -> Members:
    return Members(json.dumps({"model": "m", **fields}).encode())


def ask(*, include_usage: bool = False) -> Ask:
    price = {"cost": b"0.5"}
    return Ask("abc", "ours", 7, Request([]), Members(b"{}"), lambda _: price, Losses({}), include_usage=include_usage)


def chunks(events: Iterable[Event], wanted: Ask | None = None) -> list[dict[str, Any]]:
    out = writer(wanted or ask())
    lines = b"".join(out.send(event) for event in events).split(b"\n\n")
    assert lines[-2:] == [b"data: [DONE]", b""]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines[:-2]]


def test_it_works() -> None:
    asked = members(prompt="Say hi", max_tokens=5, temperature=0.5, stream=True)
    check(asked)
    assert bounds(asked) == {"max_tokens": 5}
    assert prompt(asked) == Prompt("Say hi", 1, 0)
    assert read_request(asked) == Request(SAY, max_tokens=5, temperature=0.5, stream=True)
    written = json.loads(write_answer(Answer([Choice([Text("Hi")], STOP, "end_turn")], usage=USAGE), ask()))
    assert (written["usage"]["total_tokens"], written.pop("usage")["cost"]) == (10, 0.5)
    assert written == {
        "id": "cmpl-abc",
        "object": "text_completion",
        "created": 7,
        "model": "ours",
        "choices": [{"text": "Hi", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    }
    assert openai_completions.ENDPOINT == "completions"


# --- requests --------------------------------------------------------------------------------------------------------


def test_one_prompt_in_a_list() -> None:
    asked = members(prompt=["Say hi"])
    check(asked)
    assert read_request(asked).messages == SAY
    assert prompt(asked).text == "Say hi"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (["a", "b"], "Several prompts in one request are not supported: send one request for each."),
        ([1, 2], "A prompt of tokens is not supported: send it as text."),
        ([[1, 2]], "A prompt of tokens is not supported: send it as text."),
        ([], "Invalid 'prompt': expected a string, found an empty array."),
        ([True], "Invalid 'prompt': expected a string, found an array."),
        (5, "Invalid 'prompt': expected a string, found a number."),
        (None, "Invalid 'prompt': expected a string, found null."),
    ],
)
def test_prompts_that_are_refused(found: object, message: str) -> None:
    with pytest.raises(BadField) as caught:
        check(members(prompt=found))
    assert (caught.value.param, caught.value.message) == ("prompt", message)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "stream": True, "stream_options": 5}, "stream_options"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "stop": 5}, "stop"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], param: str) -> None:
    refused = set()
    for read in (check, read_request):
        try:
            read(members(**fields))
        except BadField as bad:
            refused.add(bad.param)
    assert refused == {param}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"logprobs": 3}, Request(SAY, logprobs=True, top_logprobs=3)),
        ({"logprobs": None}, Request(SAY)),
        ({"stop": "a", "n": 2, "seed": 7, "user": "u"}, Request(SAY, stop=["a"], n=2, seed=7, user="u")),
        ({"suffix": "!", "echo": True, "best_of": 3}, Request(SAY, extra={"suffix": "!", "echo": True, "best_of": 3})),
        ({"suffix": "", "echo": False, "best_of": 1}, Request(SAY)),
        ({"n": 2, "best_of": 2}, Request(SAY, n=2)),
        ({"stream": True, "stream_options": {"include_usage": True}}, Request(SAY, stream=True)),
    ],
)
def test_fields(fields: dict[str, Any], expected: Request) -> None:
    assert read_request(members(prompt="Say hi", **fields)) == expected


def test_losses_have_the_names_of_completions() -> None:
    losses = Losses(openai_completions.FIELDS)
    losses.field("top_logprobs")
    assert losses.names == ["logprobs"]


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "written", "lost"),
    [
        (Choice([Text("a"), Text("b")], LENGTH), {"text": "ab", "finish_reason": "length"}, []),
        (Choice([Refusal("No")]), {"text": "No", "finish_reason": "stop"}, []),
        (Choice([Thinking("hm"), Text("a")]), {"text": "a", "finish_reason": "stop"}, ["answer.reasoning"]),
        (
            Choice([ToolCall("c", "f")], TOOL_CALLS),
            {"text": "", "finish_reason": "stop", "native_finish_reason": "tool_calls"},
            ["answer.tool_calls"],
        ),
        (
            Choice([Text("a")], STOP_SEQUENCE, "stop_sequence"),
            {"text": "a", "finish_reason": "stop", "native_finish_reason": "stop_sequence"},
            [],
        ),
    ],
)
def test_answers(choice: Choice, written: dict[str, Any], lost: list[str]) -> None:
    wanted = ask()
    body = write_answer(Answer([choice]), wanted)
    Completion.model_validate_json(body)
    assert json.loads(body)["choices"] == [{"index": 0, "logprobs": None, **written}]
    assert wanted.losses.names == lost
    again = ask()
    found = [chunk["choices"][0] for chunk in chunks(play(Answer([choice])), again)]
    assert "".join(each["text"] for each in found) == written["text"]
    assert {name: value for name, value in found[-1].items() if "reason" in name}.items() <= written.items()
    assert again.losses.names == lost


def test_a_stream() -> None:
    thought = [PartStart(0, Thinking()), PartDelta(0, "hm"), PartEnd(0)]
    said = [PartStart(1, Text("")), PartDelta(1, "H"), PartDelta(1, "i"), PartEnd(1)]
    found = chunks([Start(), *thought, *said, UsageSeen(USAGE), Finish(STOP), End()], ask(include_usage=True))
    assert {chunk["id"] for chunk in found} == {"cmpl-abc"}
    assert {chunk["object"] for chunk in found} == {"text_completion"}
    pieces = [(choice["text"], choice["finish_reason"]) for chunk in found for choice in chunk["choices"]]
    assert pieces == [("H", None), ("i", None), ("", "stop")]
    assert (found[-1]["choices"], found[-1]["usage"]["total_tokens"]) == ([], 10)
    assert all(chunk["usage"] is None for chunk in found[:-1])


def test_log_probabilities_in_four_lists() -> None:
    tokens = [
        {
            "token": "H",
            "logprob": -1.0,
            "bytes": [72],
            "top_logprobs": [{"token": "H", "logprob": -1.0, "bytes": None}],
        },
        {"token": "i", "logprob": -2.0, "bytes": None, "top_logprobs": []},
    ]
    expected = {
        "tokens": ["H", "i"],
        "token_logprobs": [-1.0, -2.0],
        "top_logprobs": [{"H": -1.0}, {}],
        "text_offset": [0, 1],
    }
    body = json.loads(write_answer(Answer([Choice([Text("Hi")], logprobs=tokens)]), ask()))
    assert body["choices"][0]["logprobs"] == expected
    events = [Start(), PartStart(0, Text("")), PartDelta(0, "H", logprobs=tokens[:1]),
              PartDelta(0, "i", logprobs=tokens[1:]), PartEnd(0), Finish(STOP), End()]  # fmt: skip
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks(events)[:2]] == [[0], [1]]


def test_errors() -> None:
    error = Error(400, "Bad", "invalid_request_error", None, "prompt")
    assert json.loads(error_body(error))["error"]["param"] == "prompt"
    out = writer(ask())
    for sent, message in ((out.send(Failure({"message": "Down"})), "Down"), (out.fail(error), "Bad")):
        events = sent.split(b"\n\n")[:-1]
        assert [json.loads(each[6:])["error"]["message"] for each in events] == [message] * 2
