"""Answers of Anthropic's Messages, read: plain and streamed, whole and broken."""

import json
from typing import Any

import pytest

from proxy.formats import anthropic_messages
from proxy.formats.base import NotAnAnswer
from proxy.formats.canonical import (
    Answer,
    Choice,
    Citation,
    End,
    Failure,
    Finish,
    Opaque,
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
)
from tests.proxy.formats import messages as wire

OWN = anthropic_messages.NAME


# --- reading a stream ------------------------------------------------------------------------------------------------


def test_the_events_of_a_stream() -> None:
    events, _ = wire.read(wire.sse(*wire.example()))
    seen = Usage(9, 0, 3, 1)
    assert events == [
        Start("msg_1", "up-1"),
        UsageSeen(seen, early=True),
        PartStart(0, Thinking("")),
        PartDelta(0, "Hm"),
        PartEnd(0, signature="sig", origin=OWN),
        PartStart(1, Text("")),
        PartDelta(1, "Hello "),
        PartDelta(1, "thère"),
        PartEnd(1),
        PartStart(2, ToolCall("toolu_2", "weather", "")),
        PartDelta(2, ""),
        PartDelta(2, '{"city":'),
        PartDelta(2, '"Oslo"}'),
        PartEnd(2),
        PartStart(3, ToolCall("toolu_3", "time", "")),
        PartEnd(3),
        Finish("tool_calls", "tool_use"),
        UsageSeen(Usage(9, 7, 3, 1, 2)),
        End(),
    ]


@pytest.mark.parametrize("size", [1, 2, 50])
def test_any_cutting_gives_the_same_events(size: int) -> None:
    data = wire.sse(*wire.example()).replace(b"\n", b"\r\n")
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert wire.read(*pieces)[0] == wire.read(data)[0]


def test_a_cut_stream_has_no_end() -> None:
    events = wire.example()
    for place in range(len(events)):
        found, reader = wire.read(wire.sse(*events[:place]))
        assert not reader.complete
        assert End() not in found
        assert reader.finished == (place == len(events) - 1)


def test_a_server_tool_is_opaque() -> None:
    given = [
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"query":"x"}'},
    ]
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    called = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    data = wire.sse(wire.start(), *wire.block(0, *given, **called), *wire.block(1, **result), *wire.end())
    parts = [event.part for event in wire.read(data)[0] if isinstance(event, PartStart)]
    whole = {**called, "input": {"query": "x"}}
    assert parts == [Opaque("server_tool_use", whole, origin=OWN), Opaque(result["type"], result, origin=OWN)]


def test_a_block_of_another_kind_is_collected() -> None:
    deltas = [{"type": "compaction_delta", "content": "It "}, {"type": "compaction_delta", "content": "was."}]
    data = wire.sse(wire.start(), *wire.block(0, *deltas, type="compaction", content=None), *wire.end())
    [part] = [event.part for event in wire.read(data)[0] if isinstance(event, PartStart)]
    assert part == Opaque("compaction", {"type": "compaction", "content": "It was."}, origin=OWN)


def test_citations() -> None:
    place = {"type": "char_location", "cited_text": "so", "document_title": "D", "start_char_index": 3}
    page = {"type": "web_search_result_location", "url": "https://a.b", "title": "A", "cited_text": "so"}
    deltas = [{"type": "citations_delta", "citation": each} for each in (place, page)]
    data = wire.sse(wire.start(), *wire.block(0, *deltas, type="text", text=""), *wire.end())
    found = [event.citation for event in wire.read(data)[0] if isinstance(event, PartDelta)]
    assert found == [
        Citation(title="D", quote="so", origin=OWN, raw=place),
        Citation("https://a.b", "A", "so", origin=OWN, raw=page),
    ]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop_sequence"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("compaction", "pause"),
        ("something_new", "stop"),
    ],
)
def test_stop_reasons_are_read(raw: str, reason: str) -> None:
    events, _ = wire.read(wire.sse(wire.start(), *wire.words(0, "Hi"), *wire.end(raw)))
    assert Finish(reason, raw) in events


def test_a_call_never_ends_as_a_plain_stop() -> None:
    events, _ = wire.read(wire.sse(wire.start(), *wire.call(0, "f"), *wire.end("end_turn")))
    assert Finish("tool_calls", "end_turn") in events


def test_a_servers_stream_that_leaves_things_out() -> None:
    """No message_start, no content_block_start, no stops, input whole at the start, no ID."""
    called = {"type": "tool_use", "name": "f", "input": {"a": 1}}
    data = wire.sse(
        wire.delta(0, type="text_delta", text="Hi"),
        {"type": "content_block_start", "index": 1, "content_block": called},
        wire.delta(1, type="input_json_delta", partial_json=""),
        {"type": "message_stop"},
    )
    events, reader = wire.read(data)
    assert events == [
        Start(),
        PartStart(0, Text("")),
        PartDelta(0, "Hi"),
        PartStart(1, ToolCall("toolu_s_1", "f", "")),
        PartDelta(1, ""),
        PartEnd(0),
        PartDelta(1, '{"a":1}'),
        PartEnd(1),
        Finish("tool_calls", ""),
        End(),
    ]
    assert reader.complete


def test_an_emoji_cut_in_two_comes_whole() -> None:
    half = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}'
    pieces = "".join(f"data: {half % text}\n\n" for text in ("a\\ud83d", "\\ude00b", "\\ude00")).encode()
    events, _ = wire.read(wire.sse(wire.start()) + pieces)
    assert [event.text for event in events if isinstance(event, PartDelta)] == ["a", "😀b", "�"]


def test_halves_of_emoji_anywhere_can_be_written() -> None:
    events = [
        {"type": "message_start", "message": {"id": "\ud83d", "model": "\ud83d"}},
        *wire.block(0, {"type": "text_delta", "text": "\ud83d"}, type="text", text="\ud83d"),
        *wire.block(1, {"type": "input_json_delta", "partial_json": "\ud83d"}, type="server_tool_use", input={}),
        *wire.call(2, "\ud83d", "\ud83d"),
        {"type": "message_delta", "delta": {"stop_reason": "\ud83d", "stop_sequence": "\ud83d"}},
        {"type": "message_stop"},
    ]
    found, reader = wire.read(wire.sse(*events))
    assert reader.complete
    assert len(wire.streamed_by_sdk(wire.sent(found)).content) == 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"data: {nonsense\n\n", "a malformed event"),
        (wire.sse(wire.delta(5, type="input_json_delta", partial_json="{")), "a delta of a block that has not begun"),
    ],
)
def test_a_broken_stream(data: bytes, why: str) -> None:
    begun = wire.sse(wire.start(), *wire.words(0, "Hi"))
    events, reader = wire.read(begun + data + wire.sse(*wire.end()))
    assert (reader.broken, reader.complete) == (why, False)
    assert events == wire.read(begun)[0]


def test_an_end_without_a_beginning_is_broken() -> None:
    assert wire.read(wire.sse({"type": "message_stop"}))[1].broken


def test_the_providers_error_is_the_last_event() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    events, reader = wire.read(wire.sse(wire.start(), error, *wire.end()))
    assert events[-1] == Failure({"message": "Overloaded", "type": "overloaded_error", "status": 529})
    assert not reader.complete


def test_a_plain_answer_in_place_of_a_stream() -> None:
    events, reader = wire.read(b'{"type":"message","content":[]}')
    assert (events, reader.broken) == ([], "its answer is no stream")


def test_nothing_is_said_behind_the_reason_to_stop() -> None:
    events, reader = wire.read(wire.sse(wire.start(), *wire.end()[:1], *wire.words(0, "Hi"), *wire.end("max_tokens")))
    assert [type(event) for event in events] == [Start, UsageSeen, Finish, UsageSeen, UsageSeen, End]
    assert reader.complete


def test_a_plain_error_in_place_of_a_stream() -> None:
    events, _ = wire.read(b'{"error":{"message":"No"}}')
    assert events == [Failure({"message": "No"})]


# --- reading a plain answer ------------------------------------------------------------------------------------------


def _answer(*content: dict[str, Any], **more: Any) -> Answer:
    body = {"id": "msg_1", "model": "up-1", "content": content, "stop_reason": "end_turn", **more}
    return anthropic_messages.read_answer(json.dumps(body).encode(), "s")


def test_a_plain_answer() -> None:
    usage = {"input_tokens": 5, "output_tokens": 7, "service_tier": "priority"}
    answer = _answer(
        {"type": "thinking", "thinking": "Hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "Hi", "citations": None},
        {"type": "tool_use", "name": "f", "input": {"a": "é"}},
        {"type": "fallback", "from": {}},
        usage=usage,
        stop_sequence="END",
    )
    assert answer.choices == [
        Choice(
            [
                Thinking("Hm", signature="sig", origin=OWN),
                Thinking(redacted=True, signature="xyz", origin=OWN),
                Text("Hi"),
                ToolCall("toolu_s_3", "f", '{"a":"é"}'),
                Opaque("fallback", {"type": "fallback", "from": {}}, origin=OWN),
            ],
            "tool_calls",
            "end_turn",
            "END",
        )
    ]
    assert (answer.id, answer.model, answer.usage, answer.service_tier) == ("msg_1", "up-1", Usage(5, 7), "priority")


def test_what_is_no_block_is_passed_over() -> None:
    answer = _answer({"text": "Hi"}, {"type": 7}, {"type": "text", "text": None})
    assert answer.choices[0].parts == [Text("")]


def test_a_plain_error_is_no_answer() -> None:
    with pytest.raises(NotAnAnswer):
        anthropic_messages.read_answer(b'{"type":"error","error":{"type":"api_error","message":"No"}}', "s")


EXPLAINED = {"type": "refusal", "category": "cyber", "explanation": "It could do harm."}
SEARCHED = {"web_search_requests": 2, "web_fetch_requests": 0}
BESIDE = [
    Refusal("It could do harm."),
    Opaque("stop_details", EXPLAINED, origin=OWN),
    Opaque("container", {"id": "c"}, origin=OWN),
    Opaque("usage.server_tool_use", SEARCHED, origin=OWN),
]


def test_what_is_told_beside_the_content() -> None:
    usage = {"input_tokens": 5, "output_tokens": 7, "server_tool_use": SEARCHED}
    quiet = {"stop_reason": "refusal", "stop_details": EXPLAINED, "container": {"id": "c"}}
    answer = _answer(**quiet, usage=usage, context_management={"applied_edits": []})
    assert answer.choices == [Choice(BESIDE, "refusal", "refusal")]
    events, _ = wire.read(
        wire.sse(
            wire.start(),
            {"type": "message_delta", "delta": quiet, "usage": usage, "context_management": {"applied_edits": []}},
            {"type": "message_stop"},
        )
    )
    assert [event.part for event in events if isinstance(event, PartStart)] == BESIDE
    none = {"input_tokens": 5, "output_tokens": 7, "server_tool_use": {"web_search_requests": 0}}
    assert _answer(usage=none, stop_details=None).choices[0].parts == []
