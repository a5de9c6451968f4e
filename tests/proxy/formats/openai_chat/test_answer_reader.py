"""Answers and streams of chat providers, in every vendor's spelling, as the canonical form has them."""

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.formats import sse
from proxy.formats.base import NotAnAnswer
from proxy.formats.canonical import (
    LENGTH,
    STOP,
    STOP_SEQUENCE,
    TOOL_CALLS,
    Answer,
    Choice,
    Citation,
    Collector,
    End,
    Event,
    Failure,
    Finish,
    Media,
    Opaque,
    Part,
    PartDelta,
    PartEnd,
    PartStart,
    Refusal,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    UsageSeen,
    seal,
)
from proxy.formats.openai_chat.answer_reader import ChatReader, read_answer, reader
from tests.proxy.formats import oracle
from tests.recordings import Exchange, files, name, read
from tests.upstreams import DONE, cut, event

OWN = "openai_chat"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def plain(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    choice |= {name: more.pop(name) for name in ("logprobs", "stop_reason", "native_finish_reason") if name in more}
    return read_answer(json.dumps({"id": "c", "model": "theirs", "choices": [choice], **more}).encode(), "s")


def parts(message: dict[str, Any]) -> list[Part]:
    return plain(message).choices[0].parts


def chunk(finish: str | None = None, index: int = 0, **delta: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return event({"id": "c", "model": "theirs", "choices": [choice]})


def streamed(*pieces: bytes) -> tuple[list[Event], ChatReader]:
    found, events = reader("s"), []
    for piece in pieces:
        events += found.feed(piece)
    return events + found.close(), found


def said(*deltas: dict[str, Any]) -> list[Part]:
    """The parts of a stream of these deltas."""
    events, found = streamed(*[chunk(**delta) for delta in deltas], chunk("stop"), DONE)
    assert found.complete
    return collected(events).choices[0].parts


def collected(events: Iterable[Event]) -> Answer:
    collector = Collector()
    for each in events:
        collector.add(each)
    return collector.answer


def test_it_works() -> None:
    assert plain({"content": "Hi"}, usage=USAGE, service_tier="flex") == Answer(
        [Choice([Text("Hi")], STOP, "stop")], "c", "theirs", Usage(7, 3), "flex"
    )
    events, found = streamed(
        chunk(role="assistant", content=""), chunk(content="H"), chunk(content="i"), chunk("stop"),
        event({"choices": [], "usage": USAGE}), DONE,
    )  # fmt: skip
    assert events == [
        Start("c", "theirs"),
        PartStart(0, Text("")),
        PartDelta(0, "H"),
        PartDelta(0, "i"),
        UsageSeen(Usage(7, 3)),
        PartEnd(0),
        Finish(STOP, "stop"),
        End(),
    ]
    assert (found.complete, found.finished, found.broken) == (True, True, "")


# --- what a message holds, plain and streamed ------------------------------------------------------------------------

NOTE = {"type": "url_citation", "url_citation": {"url": "https://x", "title": "X", "start_index": 0, "end_index": 2}}
CITED = Citation("https://x", "X", start=0, end=2, origin=OWN, raw=NOTE)
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
SIGNED = {"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
KEPT = '{"type":"reasoning.text","signature":"s","format":"anthropic-claude-v1","index":0}'
HIDDEN = {"type": "reasoning.encrypted", "data": "e", "id": "rs_1", "index": 0}
PACKED = '{"type":"reasoning.encrypted","data":"e","id":"rs_1","index":0}'
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "Hi"}, [Text("Hi")]),
        ({"content": None}, []),
        ({"content": ""}, []),
        ({"content": [THOUGHT, {"type": "text", "text": "Hi"}]}, [Thinking("hm"), Text("Hi")]),  # Mistral
        ({"content": {"a": "ü"}}, [Text('{"a":"ü"}')]),  # Cloudflare
        ({"content": "Hi", "refusal": None}, [Text("Hi")]),
        ({"content": None, "refusal": "No"}, [Refusal("No")]),
        ({"content": "Hi", "reasoning_content": "hm"}, [Thinking("hm"), Text("Hi")]),
        ({"content": "Hi", "reasoning": "hm"}, [Thinking("hm"), Text("Hi")]),
        ({"reasoning": "hm", "reasoning_content": "hm"}, [Thinking("hm")]),
        ({"content": "Hi", "annotations": [NOTE]}, [Text("Hi", [CITED])]),
        ({"content": "", "tool_calls": [CALL]}, [ToolCall("c1", "f", '{"a":1}')]),
        (
            {"tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"a": 1}}}]},
            [ToolCall("c1", "f", '{"a":1}')],
        ),
        ({"tool_calls": [{"function": {"name": "f", "arguments": None}}]}, [ToolCall("call_s_0", "f")]),
        ({"tool_calls": [{"id": "", "function": {"name": "f"}}]}, [ToolCall("call_s_0", "f")]),
        (
            {"tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
            [ToolCall("c1", "f", "x", custom=True)],
        ),
        (  # Snowflake: everything is there, and empty
            {
                "content": "Hi",
                "function_call": {"name": "", "arguments": ""},
                "audio": {"id": "", "data": "", "transcript": "", "expires_at": 0},
                "tool_calls": [{**CALL, "custom": {"name": "", "input": ""}}],
            },
            [Text("Hi"), ToolCall("c1", "f", '{"a":1}')],
        ),
        (
            {"tool_calls": [{**CALL, "extra_content": {"google": {"thought_signature": "sig"}}}]},
            [ToolCall("c1", "f", '{"a":1}', signature="sig", origin="gemini")],
        ),
        ({"function_call": {"name": "f", "arguments": "{}"}}, [ToolCall("call_s_0", "f", "{}")]),
        (
            {"audio": {"id": "audio_1", "data": "QUJD", "transcript": "Hi", "expires_at": 5}},
            [Media("audio", data="QUJD", transcript="Hi", id="audio_1", origin=OWN)],
        ),
        (
            {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]},
            [Media("image", "image/png", "QUJD")],
        ),
        ({"executed_tools": [{"type": "search"}]}, [Opaque("executed_tools", {"type": "search"}, origin=OWN)]),
        (
            {"content": "Hi", "reasoning": "hm", "reasoning_details": [SIGNED]},
            [Thinking("hm", signature=KEPT, origin=OWN), Text("Hi")],
        ),
        (
            {"reasoning_details": [{"type": "reasoning.summary", "summary": "hm", "index": 0}, HIDDEN]},
            [Thinking("hm", summary=True, signature=PACKED, origin=OWN)],
        ),
        (
            {"reasoning": "hm", "reasoning_details": [HIDDEN]},
            [Thinking(redacted=True, id="rs_1", signature=PACKED, origin=OWN), Thinking("hm")],
        ),
        ({"reasoning": "hm", "reasoning_details": []}, [Thinking("hm")]),
        (
            {"reasoning_details": [{**HIDDEN, "data": seal("gemini", "sig")}]},
            [Thinking(redacted=True, id="rs_1", signature="sig", origin="gemini")],
        ),
    ],
)
def test_what_a_message_holds(message: dict[str, Any], expected: list[Part]) -> None:
    assert parts(message) == expected
    assert said(message) == expected


@pytest.mark.parametrize(
    "message",
    [
        {"content": 5},
        {"content": [5, {"text": 7}]},
        {"tool_calls": {"a": 1}},
        {"tool_calls": [5, {}, {"function": 5}]},
        {"reasoning_details": [5, {}]},
        {"reasoning_details": 5},
        {"annotations": [5]},
        {"images": [5, {"image_url": {}}]},
        {"audio": 5},
        {"refusal": 5},
        {"function_call": 5},
    ],
)
def test_odd_things_are_passed_over(message: dict[str, Any]) -> None:
    assert parts({"reasoning": "hm", **message}) == [Thinking("hm")]
    assert said({"reasoning": "hm", **message}) == [Thinking("hm")]


# --- streams ---------------------------------------------------------------------------------------------------------


def function(name: str | None = None, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{**more, "function": {"name": name, "arguments": arguments}}]}


@pytest.mark.parametrize(
    "deltas",
    [
        [function("f", "", index=0, id="a"), function(None, "{", index=0), function(None, "}", index=0),
         function("g", "", index=1, id="b"), function(None, "[]", index=1)],
        [function("f", "{}", index=0, id="a"), function("g", "[]", index=1, id="b")],
        [function("f", "{}", id="a"), function("g", "[]", id="b")],  # no index
        [function("f", "{}", index=0, id="a"), function("g", "[]", index=0, id="b")],  # always 0
        [function("f", "{", index=0, id="a"), function("f", "}", index=0, id="a"), function("g", "[]", index=1)],
        [function("f", "{", id="a"), function(None, "}"), function("g", "[]", id="b")],
        [function("f", "{", id="a"), function("f", "}", id="a"), function("g", "[]", id="b")],
        [function(None, None, index=0, id="a"), function("f", "{}", index=0), function("g", "[]", index=1, id="b")],
        [function(None, None, id="a"), function("f", ""), function(None, "{}"), function("g", "[]", id="b")],
        [function("f", "{", index=0, id="a"), function("g", "[", index=1, id="b"), function(None, "}", index=0),
         function(None, "]", index=1)],
        [{"tool_calls": [function("f", "{}", index=0, id="a")["tool_calls"][0],
                         function("g", "[]", index=1, id="b")["tool_calls"][0]]}],
    ],
)  # fmt: skip
def test_two_calls_however_they_come(deltas: list[dict[str, Any]]) -> None:
    first, second = said(*deltas)
    assert first == ToolCall("a", "f", "{}")
    assert second in (ToolCall("b", "g", "[]"), ToolCall("call_s_0", "g", "[]"))


def test_missing_ids_are_made() -> None:
    found = said(function("f", "{}", index=0), function("g", "{}", index=1))
    assert [part.id for part in found if isinstance(part, ToolCall)] == ["call_s_0", "call_s_1"]


def test_calls_without_ids_that_all_have_the_index_0() -> None:
    found = said(function("f", '{"a":', index=0), function("f", "1}", index=0), function("f", '{"a":2}', index=0))
    assert found == [ToolCall("call_s_0", "f", '{"a":1}'), ToolCall("call_s_1", "f", '{"a":2}')]


def test_arguments_before_the_name_wait_for_it() -> None:
    assert said(function(None, "{", index=0, id="a"), function("f", "}", index=0)) == [ToolCall("a", "f", "{}")]


def test_a_custom_call() -> None:
    first = {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "4 "}}]}
    assert said(first, {"tool_calls": [{"index": 0, "custom": {"input": "+ 4"}}]}) == [
        ToolCall("a", "f", "4 + 4", custom=True)
    ]


def test_thoughts_text_and_calls_follow_one_another() -> None:
    found = said(
        {"reasoning_content": "h", "content": None},
        {"reasoning_content": "m", "content": ""},
        {"content": "H"},
        {"content": "i"},
        function("f", "{}", index=0, id="a"),
        {"content": "!"},
    )
    assert found == [Thinking("hm"), Text("Hi"), ToolCall("a", "f", "{}"), Text("!")]


def test_details_in_pieces() -> None:
    detail = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    found = said(
        {"reasoning": None, "reasoning_details": [{**detail, "text": "", "signature": ""}]},
        {"reasoning": "h", "reasoning_details": [{**detail, "text": "h"}]},
        {"reasoning": "m", "reasoning_details": [{**detail, "text": "m"}]},
        {"reasoning": None, "reasoning_details": [{**detail, "signature": "s"}]},
        {"reasoning": "2", "reasoning_details": [{**detail, "text": "2", "index": 1}]},
        {"content": "Hi"},
    )
    assert found == [
        Thinking("hm", signature=json.dumps({**detail, "signature": "s"}, separators=(",", ":")), origin=OWN),
        Thinking("2"),
        Text("Hi"),
    ]  # fmt: skip


def test_audio_in_pieces() -> None:
    found = said(
        {"audio": {"id": "a", "transcript": "H"}},
        {"audio": {"data": "QU"}},
        {"audio": {"data": "JD", "transcript": "i"}},
    )
    assert found == [Media("audio", data="QUJD", transcript="Hi", id="a", origin=OWN)]


def test_citations_that_come_late() -> None:
    assert said({"content": "Hi"}, {"content": "", "annotations": [NOTE]}) == [Text("Hi", [CITED])]
    late = {**NOTE, "url_citation": {**NOTE["url_citation"], "start_index": 3, "end_index": 5}}
    found = said({"content": "abc"}, function("f", "{}", index=0), {"content": "Hi"}, {"annotations": [late]})
    assert found[-1] == Text("Hi", [Citation("https://x", "X", start=0, end=2, origin=OWN, raw=late)])


def test_search_results_of_perplexity() -> None:
    results = {"citations": ["https://x"], "search_results": [{"url": "https://x", "title": "X"}]}
    choices = [{"index": 0, "delta": {"content": "Hi"}, "message": {"content": "Hi"}, "finish_reason": "stop"}]
    events, _ = streamed(event({"choices": choices, **results}), event({"choices": choices, **results}))
    assert collected(events).choices[0].parts == [Text("HiHi", [Citation("https://x", "X")])]
    assert plain({"content": "Hi"}, citations=["https://x"]).choices[0].parts == [Text("Hi", [Citation("https://x")])]


def test_annotations_say_more_than_a_list_of_addresses() -> None:
    assert plain({"content": "Hi", "annotations": [NOTE]}, citations=["https://x"]).choices[0].parts == [
        Text("Hi", [CITED])
    ]


def test_log_probabilities() -> None:
    tokens = [{"token": "Hi", "logprob": -1.0, "bytes": None, "top_logprobs": []}]
    assert plain({"content": "Hi"}, logprobs={"content": tokens}).choices[0].logprobs == tokens
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": tokens}}
    events, _ = streamed(event({"choices": [choice]}), chunk("stop"), DONE)
    assert collected(events).choices[0].logprobs == tokens


def test_log_probabilities_of_a_token_that_is_no_whole_character() -> None:
    halves = [{"token": "\\xe2", "logprob": -1.0}, {"token": "\\x82\\xac", "logprob": -2.0}]
    choices = [{"index": 0, "delta": {"content": said}, "logprobs": {"content": [half]}} for said, half in
               zip(("", "€"), halves, strict=True)]  # fmt: skip
    events, _ = streamed(*[event({"choices": [choice]}) for choice in choices], chunk("stop"), DONE)
    assert collected(events).choices[0] == Choice([Text("€")], STOP, "stop", logprobs=halves)


def test_log_probabilities_of_other_types_are_passed_over() -> None:
    assert plain({"content": "Hi"}, logprobs={"content": ["Hi", None, {"token": 5}]}).choices[0].logprobs is None
    token = {"token": "Hi", "logprob": -1.0}
    odd = {**token, "top_logprobs": [5, None, {"token": None}, token]}
    expected = [{**token, "top_logprobs": [token]}]
    assert plain({"content": "Hi"}, logprobs={"content": [odd]}).choices[0].logprobs == expected


@pytest.mark.parametrize(
    ("more", "called", "expected"),
    [
        ({"finish": "stop"}, False, (STOP, "stop", "")),
        ({"finish": "length"}, False, (LENGTH, "length", "")),
        ({"finish": "stop"}, True, (TOOL_CALLS, "stop", "")),
        ({"finish": None}, False, (STOP, "", "")),
        ({"finish": "stop", "stop_reason": "END"}, False, (STOP_SEQUENCE, "stop", "END")),
        ({"finish": "stop", "stop_reason": 128}, False, (STOP, "stop", "")),
        ({"finish": "stop", "native_finish_reason": "stop_sequence"}, False, (STOP_SEQUENCE, "stop_sequence", "")),
        ({"finish": "stop", "native_finish_reason": "completed"}, False, (STOP, "stop", "")),
    ],
)
def test_why_it_ended(more: dict[str, Any], called: bool, expected: tuple[str, str, str]) -> None:
    message = {"tool_calls": [CALL]} if called else {"content": "Hi"}
    choice = plain(message, **more).choices[0]
    assert (choice.reason, choice.raw_reason, choice.stop_sequence) == expected


def test_several_choices() -> None:
    events, found = streamed(
        chunk(index=1, content="b"), chunk(content="a"), chunk("stop"), chunk("length", index=1), DONE
    )
    assert found.complete
    assert collected(events).choices == [Choice([Text("a")], STOP, "stop"), Choice([Text("b")], LENGTH, "length")]


@pytest.mark.parametrize(
    "more",
    [
        {"x_groq": {"usage": USAGE}},
        {"usage": USAGE},
        {"usage": {**USAGE, "completion_tokens": None}, "x": 1},
    ],
)
def test_usage_beside_choices(more: dict[str, Any]) -> None:
    choice = {"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    events, _ = streamed(event({"choices": [choice], **more}), DONE)
    seen = [each for each in events if isinstance(each, UsageSeen)]
    assert seen == ([] if "x" in more else [UsageSeen(Usage(7, 3))])


def test_what_only_a_lax_reader_takes() -> None:
    events, found = streamed(b'data: {"choices":[{"delta":{"content":"\\ud83d"},"x":NaN}]}\n\n', chunk("stop"), DONE)
    assert collected(events).choices[0].parts == []
    assert found.complete


def test_a_character_in_two_pieces() -> None:
    def piece(half: str) -> bytes:
        delta = {"content": half, "reasoning": half, **function("f", half, index=0, id="a")}
        return b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()

    events, _ = streamed(piece("\ud83d"), piece("\ude00"), chunk("stop"), DONE)
    emoji = "\U0001f600"
    assert collected(events).choices[0].parts == [ToolCall("a", "f", emoji), Thinking(emoji), Text(emoji)]


def test_half_a_character_in_a_plain_answer() -> None:
    body = b'{"choices":[{"message":{"content":"a\\ud83d"},"finish_reason":"stop"}]}'
    assert read_answer(body, "s").choices[0].parts == [Text("a\ufffd")]


# --- ends and errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "complete", "finished"),
    [
        ([chunk(content="a"), chunk("stop"), DONE], True, True),
        ([chunk(content="a"), chunk("stop")], True, True),  # some vendors never say [DONE]
        ([chunk(content="a"), DONE], True, True),  # some never a reason
        ([chunk(content="a")], False, False),
        ([chunk(content="a"), chunk(index=1, content="b"), chunk("stop")], False, False),
        ([chunk(content="a"), chunk("stop"), chunk("stop", content="")], True, True),
        ([], False, False),
        ([b": comment\n\n"], False, False),
        ([DONE], False, False),
        ([chunk(content="a"), chunk("stop"), b"data: {"], False, False),
    ],
)
def test_the_end(pieces: list[bytes], complete: bool, finished: bool) -> None:
    events, found = streamed(*pieces)
    assert (found.complete, found.finished) == (complete, finished)
    assert (End() in events) is complete


def test_nothing_is_closed_before_the_end() -> None:
    found = reader("s")
    events = found.feed(chunk(content="a") + chunk("stop"))
    assert found.finished
    assert not any(isinstance(each, Finish | End) for each in events)


@pytest.mark.parametrize("index", [-1, 10**17])
def test_a_choice_has_a_place(index: int) -> None:
    events, _ = streamed(chunk(index=index, content="a"), chunk("stop", index=index), DONE)
    assert collected(events).choices == [Choice([Text("a")], STOP, "stop")]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (event({"error": {"message": "Down", "code": 502}}), "Down"),
        (event({"choices": [{"delta": {}, "finish_reason": "error", "error": {"message": "Down"}}]}), "Down"),
        (event({"error": "Down"}), "Down"),
        (event({"object": "error", "message": "Down"}), "Down"),
        (b"event: error\n" + event({"message": "Down"}), "Down"),
        (event({"choices": [{"delta": {}, "finish_reason": "error"}], "error": {"message": "Down"}}), "Down"),
        (chunk("insufficient_system_resource"), "The provider gave the answer up: insufficient_system_resource."),
    ],
)
def test_an_error_in_the_stream(sent: bytes, message: str) -> None:
    events, found = streamed(chunk(content="a"), chunk("stop"), sent, DONE)
    assert isinstance(failure := events[-1], Failure)
    assert failure.error["message"] == message
    assert not found.complete
    assert not found.finished


def test_a_plain_error_in_place_of_a_stream() -> None:
    body = b'{"error": {"message": "Down"}}'
    assert streamed(body)[0] == [Failure({"message": "Down"})]
    events, found = streamed(b'{"choices": []}')
    assert (events, found.broken) == ([], "its answer is no stream")


def test_a_malformed_event_breaks_it() -> None:
    events, found = streamed(chunk(content="a"), b"data: {oops\n\n", chunk("stop"), DONE)
    assert events == [Start("c", "theirs"), PartStart(0, Text("")), PartDelta(0, "a")]
    assert found.broken == "a malformed event"
    assert not found.complete


def test_an_endless_event_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    found = reader("s")
    for _ in range(20):
        found.feed(b"data: " + b"x" * 100)
    assert found.broken == "an event is too large"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", None),
        (b"<html>", None),
        (b"{}", None),
        (b'{"choices": []}', None),
        (b'{"choices": null}', None),
        (b'{"error": {"message": "Down"}}', {"message": "Down"}),
        (b'{"error": "Down", "choices": [{"message": {}}]}', {"message": "Down"}),
        (b'{"detail": "Down"}', {"detail": "Down", "message": "Down"}),
    ],
)
def test_what_is_no_answer(body: bytes, error: dict[str, str] | None) -> None:
    with pytest.raises(NotAnAnswer) as caught:
        read_answer(body, "s")
    assert caught.value.error == error


def test_an_answer_that_was_given_up_is_none() -> None:
    with pytest.raises(NotAnAnswer) as caught:
        plain({"content": "Hi"}, "insufficient_system_resource")
    assert caught.value.error is not None


def test_the_error_of_a_choice() -> None:
    """https://openrouter.ai/docs/api-reference/overview#completionsresponse-format"""
    choice = {"message": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "Down"}}
    with pytest.raises(NotAnAnswer) as caught:
        read_answer(json.dumps({"choices": [choice]}).encode(), "s")
    assert caught.value.error == {"code": 502, "message": "Down"}


# --- laws over all fixtures ------------------------------------------------------------------------------------------

every_file = pytest.mark.parametrize("path", files("chat"), ids=name)


def streams(path: Path) -> Iterator[Exchange]:
    return (exchange for exchange in read(path) if exchange.is_chat_stream)


@every_file
def test_any_cut_gives_the_same_events(path: Path) -> None:
    for exchange in streams(path):
        body, dice = exchange.body, random.Random(exchange.id)
        whole, found = streamed(body)
        assert found.complete, exchange.id
        places = range(1, len(body))
        for pieces in (2, 40):
            assert streamed(*cut(body, *sorted(dice.sample(places, min(pieces, len(places))))))[0] == whole, exchange.id
        if len(body) < 20_000:
            assert streamed(*cut(body))[0] == whole, exchange.id


@every_file
def test_a_stream_gives_what_was_said_in_it(path: Path) -> None:
    for exchange in streams(path):
        answer = collected(streamed(exchange.body)[0])
        expected = oracle.stream(exchange.body, "", asked=True)
        assert answer.usage == expected.usage, exchange.id
        text = "".join(part.text for choice in answer.choices for part in choice.parts if isinstance(part, Text))
        assert sorted(text) == sorted(_text_of(exchange.body)), exchange.id


def _text_of(body: bytes) -> str:
    """The contents of all deltas, by Python's own reader; several choices may mix."""
    pieces = []
    for _, data in oracle.events(body):
        if data and data != "[DONE]":
            for choice in json.loads(data).get("choices") or ():
                content = (choice.get("delta") or {}).get("content") or ""
                pieces += [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
    return "".join(pieces)


@every_file
def test_a_stream_that_stops_early_is_never_complete(path: Path) -> None:
    for exchange in streams(path):
        chunks = list(oracle.events(exchange.body))
        ends = [
            i
            for i, (_, data) in enumerate(chunks)
            if data == "[DONE]" or (data and '"finish_reason":"' in data.replace(" ", ""))
        ]
        begun = b"".join(raw for raw, _ in chunks[: ends[0]])
        events, found = streamed(begun)
        assert not found.complete, exchange.id
        assert End() not in events
