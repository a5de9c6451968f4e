"""A provider's Responses answers, plain and streamed, in the canonical form."""

import json
from typing import Any

import pytest

from proxy.formats import openai_responses
from proxy.formats.base import NotAnAnswer
from proxy.formats.canonical import (
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
)
from tests import recordings
from tests.proxy.formats import responses as wire

NAME = openai_responses.NAME
USAGE = Usage(9, 5, 4, 0, 2)


def read(*output: dict[str, Any], **more: Any) -> Answer:
    return openai_responses.read_answer(json.dumps(wire.response(*output, **more)).encode(), "s")


def choice(*output: dict[str, Any], **more: Any) -> Choice:
    (found,) = read(*output, **more).choices
    return found


def events(*given: dict[str, Any]) -> list[Event]:
    return wire.feed(openai_responses.reader("s"), [wire.sse(*given)])


def collected(*given: dict[str, Any]) -> Choice:
    collector = Collector()
    for event in events(*given):
        collector.add(event)
    (found,) = collector.answer.choices
    return found


def completed(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": wire.response(*output, **more)}


def test_it_works() -> None:
    assert events(*wire.example()) == [
        Start("resp_1", "up-1"),
        PartStart(0, Thinking(summary=True, id="rs_1")),
        PartDelta(0, "Hm, "),
        PartDelta(0, "yes"),
        PartEnd(0, signature="rs_1 gAAA", origin=NAME),
        PartStart(1, Text("")),
        PartDelta(1, "Hello"),
        PartDelta(1, " there"),
        PartEnd(1),
        PartStart(2, ToolCall("call_1", "weather")),
        PartDelta(2, '{"city":'),
        PartDelta(2, '"Oslo"}'),
        PartEnd(2),
        Finish("tool_calls", "completed"),
        UsageSeen(USAGE),
        End(),
    ]


def test_a_plain_answer() -> None:
    items = [wire.thought("Hm", encrypted_content="gAAA"), wire.message("Hello"), wire.call("{}")]
    thought = Thinking("Hm", summary=True, id="rs_1", signature="rs_1 gAAA", origin=NAME)
    parts: list[Part] = [thought, Text("Hello"), ToolCall("call_1", "weather", "{}")]
    expected = Answer([Choice(parts, "tool_calls", "completed")], "resp_1", "up-1", USAGE, "default")
    assert read(*items, service_tier="default") == expected


# --- items

URL = {"type": "url_citation", "url": "http://a", "title": "A", "start_index": 1, "end_index": 3}
FILE = {"type": "file_citation", "file_id": "f1", "filename": "a.txt", "index": 4}
IMAGE = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": "AAAA"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}
RAW = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Raw"}]}
TWO = {"type": "reasoning", "id": "rs_1", "summary": [{"text": "One"}, {"text": "Two"}]}
CUSTOM = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "patch", "input": "*** Begin"}
REFUSAL = {"type": "message", "id": "msg_1", "content": [{"type": "refusal", "refusal": "No."}]}

ITEMS: list[tuple[dict[str, Any], list[Part]]] = [
    (wire.message("Hi"), [Text("Hi")]),
    (wire.message("Hi", annotations=[URL]), [Text("Hi", [Citation("http://a", "A", "", "", 1, 3, NAME, URL)])]),
    (wire.message("Hi", annotations=[FILE]), [Text("Hi", [Citation("", "a.txt", "", "f1", None, None, NAME, FILE)])]),
    (REFUSAL, [Refusal("No.")]),
    (RAW, [Thinking("Raw", id="rs_1")]),
    (TWO, [Thinking("One\n\nTwo", summary=True, id="rs_1")]),
    (
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gA"},
        [Thinking("", redacted=True, id="rs_1", signature="rs_1 gA", origin=NAME)],
    ),
    ({"type": "reasoning", "id": "rs_1", "summary": []}, []),
    (wire.call("{}", namespace="agents"), [ToolCall("call_1", "agents__weather", "{}")]),
    (wire.call("{}", namespace="weather"), [ToolCall("call_1", "weather", "{}")]),
    (wire.call({"city": "Oslo"}), [ToolCall("call_1", "weather", '{"city": "Oslo"}')]),
    (wire.call("{}", call_id=""), [ToolCall("fc_1", "weather", "{}")]),
    (wire.call("{}", call_id=None, id=None), [ToolCall("call_s_1", "weather", "{}")]),
    (CUSTOM, [ToolCall("call_2", "patch", "*** Begin", custom=True)]),
    (IMAGE, [Media("image", "image/png", "AAAA", id="ig_1", origin=NAME)]),
    ({**IMAGE, "result": None}, [Opaque("image_generation_call", {**IMAGE, "result": None}, origin=NAME)]),
    (SEARCH, [Opaque("web_search_call", SEARCH, origin=NAME)]),
]


@pytest.mark.parametrize(("item", "parts"), ITEMS)
def test_items(item: dict[str, Any], parts: list[Part]) -> None:
    assert choice(item).parts == parts


@pytest.mark.parametrize(("item", "parts"), [one for one in ITEMS if one[1]])
def test_items_that_come_whole_in_a_stream(item: dict[str, Any], parts: list[Part]) -> None:
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    assert collected(done, completed()).parts == parts
    assert collected(completed(item)).parts == parts


def test_thoughts_beside_the_output() -> None:
    assert choice(wire.message("Hi"), reasoning="Hm").parts == [Thinking("Hm"), Text("Hi")]  # mistral.rs


# --- ends

LIMIT = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
FILTER = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}


@pytest.mark.parametrize(
    ("item", "more", "reason", "raw"),
    [
        (wire.message("a"), {}, "stop", "completed"),
        (wire.message("a"), {"status": None}, "stop", "completed"),
        (wire.call("{}"), {}, "tool_calls", "completed"),
        (wire.message("a"), LIMIT, "length", "max_output_tokens"),
        (wire.call("{"), LIMIT, "length", "max_output_tokens"),
        (wire.message("a"), FILTER, "content_filter", "content_filter"),
        (wire.message("a"), {"status": "incomplete"}, "length", "incomplete"),
    ],
)
def test_reasons(item: dict[str, Any], more: dict[str, Any], reason: str, raw: str) -> None:
    found = choice(item, **more)
    assert (found.reason, found.raw_reason) == (reason, raw)
    kind = "incomplete" if more.get("status") else "completed"
    ended = collected({**completed(item, **more), "type": f"response.{kind}"})
    assert (ended.reason, ended.raw_reason) == (reason, raw)


@pytest.mark.parametrize("status", ["queued", "in_progress", "failed", "cancelled"])
def test_an_answer_that_is_none(status: str) -> None:
    with pytest.raises(NotAnAnswer):
        read(status=status)


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b'{"output": null}', b'{"error": "x"}'])
def test_a_200_that_is_no_answer(body: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        openai_responses.read_answer(body, "s")


# --- streams: vendors' ways


def test_any_cutting_gives_the_same_events() -> None:
    data = wire.sse(*wire.example())
    whole = wire.feed(openai_responses.reader("s"), [data])
    for size in (1, 13):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert wire.feed(openai_responses.reader("s"), pieces) == whole


def test_a_cut_stream_never_ends() -> None:
    given = wire.example()
    for end in range(len(given)):
        reader = openai_responses.reader("s")
        found = wire.feed(reader, [wire.sse(*given[:end])])
        assert not reader.complete
        assert not any(isinstance(event, End | Finish) for event in found)


def test_comments_pings_and_done_pass_by() -> None:
    reader = openai_responses.reader("s")
    ping = b": hi\n\nevent: ping\ndata: {}\n\n" + wire.sse({"type": "response.some_future_event"})
    found = wire.feed(reader, [ping + wire.sse(*wire.example()) + b"data: [DONE]\n\n"])
    assert found == events(*wire.example())
    assert reader.complete


def test_done_is_not_an_end() -> None:
    reader = openai_responses.reader("s")
    wire.feed(reader, [wire.sse(*wire.example()[:-1]) + b"data: [DONE]\n\n"])
    assert not reader.complete


def test_no_indices() -> None:
    bare = [{name: one for name, one in event.items() if not name.endswith("_index")} for event in wire.example()]
    assert events(*bare) == events(*wire.example())


def test_neither_indices_nor_ids() -> None:
    text = wire.streamed(wire.message("Hello"), 0, "Hel", "lo")
    bare = [{"type": event["type"], **{n: event[n] for n in ("delta", "part", "text") if n in event}} for event in text]
    items = [{"type": event["type"], "item": {"type": "message"}} for event in (text[0], text[-1])]
    assert collected(items[0], *bare[1:-1], items[1], completed()).parts == [Text("Hello")]
    deltas = [event for event in bare if event["type"].endswith("text.delta")]
    assert collected(*deltas, completed()).parts == [Text("Hello")]


def test_no_events_but_deltas_and_the_end() -> None:
    deltas = [{"type": "response.output_text.delta", "output_index": 0, "delta": piece} for piece in ("a", "b")]
    found = collected(*deltas, completed(wire.message("abc")))
    assert found.parts == [Text("abc")]


def test_no_deltas() -> None:
    given = [event for event in wire.example() if not event["type"].endswith(".delta")]
    whole = collected(*wire.example())
    assert collected(*given) == whole


def test_what_came_is_not_said_again_where_the_whole_differs() -> None:
    text = wire.streamed(wire.message("something else"), 0, "Hello")
    assert collected(*text, completed()).parts == [Text("Hello")]


def test_paragraphs_of_a_summary() -> None:
    kind, name = "response.reasoning_summary", {"item_id": "rs_1", "output_index": 0}
    given = []
    for number, text in enumerate(("One", "Two")):
        place = {**name, "summary_index": number}
        given.append({"type": f"{kind}_part.added", **place, "part": {"type": "summary_text", "text": ""}})
        given.append({"type": f"{kind}_text.delta", **place, "delta": text})
        given.append({"type": f"{kind}_text.done", **place, "text": text})
    found = collected(*given, {"type": "response.output_item.done", "output_index": 0, "item": TWO}, completed())
    assert found.parts == [Thinking("One\n\nTwo", summary=True, id="rs_1")]


def test_raw_thoughts() -> None:
    name = {"item_id": "rs_1", "output_index": 0, "content_index": 0}
    given = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**RAW, "content": []}},
        {"type": "response.content_part.added", **name, "part": {"type": "reasoning_text", "text": ""}},
        {"type": "response.reasoning_text.delta", **name, "delta": "Ra"},
        {"type": "response.reasoning_text.done", **name, "text": "Raw"},
        {"type": "response.content_part.done", **name, "part": {"type": "reasoning_text", "text": "Raw"}},
        {"type": "response.output_item.done", "output_index": 0, "item": RAW},
    ]
    assert collected(*given, completed(RAW)).parts == [Thinking("Raw", id="rs_1")]


def test_annotations_and_logprobs() -> None:
    logprobs = [{"token": "H", "logprob": -0.1, "bytes": [72], "top_logprobs": []}]
    item = wire.message("Hi", annotations=[URL], logprobs=logprobs)
    given = wire.streamed(item, 0, "Hi")
    name = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "annotation_index": 0}
    annotated = {"type": "response.output_text.annotation.added", **name, "annotation": URL}
    for stream in (given, [*given[:3], annotated, *given[3:]]):  # some leave it for the end
        found = collected(*stream, completed(item))
        assert found.parts == [Text("Hi", [Citation("http://a", "A", "", "", 1, 3, NAME, URL)])]
        assert found.logprobs == logprobs
    assert choice(item).logprobs == logprobs


def test_calls_side_by_side() -> None:
    one, two = wire.call('{"a":1}'), wire.call('{"b":2}', id="fc_2", call_id="call_2")
    first, second = wire.streamed(one, 0, '{"a"', ":1}"), wire.streamed(two, 1, '{"b"', ":2}")
    mixed = [event for pair in zip(first, second, strict=True) for event in pair]
    parts = collected(*mixed, completed(one, two)).parts
    assert parts == [ToolCall("call_1", "weather", '{"a":1}'), ToolCall("call_2", "weather", '{"b":2}')]


def test_input_of_a_custom_tool() -> None:
    name = {"item_id": "ctc_1", "output_index": 0}
    given = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**CUSTOM, "input": ""}},
        {"type": "response.custom_tool_call_input.delta", **name, "delta": "*** "},
        {"type": "response.custom_tool_call_input.done", **name, "input": "*** Begin"},
        {"type": "response.output_item.done", "output_index": 0, "item": CUSTOM},
    ]
    assert collected(*given, completed()).parts == [ToolCall("call_2", "patch", "*** Begin", custom=True)]


def test_arguments_that_are_announced_and_then_streamed_come_once() -> None:
    added, *rest = wire.streamed(wire.call('{"a":1}'), 0, '{"a"', ":1}")
    added["item"]["arguments"] = '{"a":1}'
    for stream in ([added, *rest], [added, rest[-1]]):
        assert collected(*stream, completed()).parts == [ToolCall("call_1", "weather", '{"a":1}')]


def test_a_call_that_only_the_end_holds() -> None:
    given = wire.streamed(wire.message("Hi"), 0, "Hi")
    found = collected(*given, completed(wire.message("Hi"), wire.call("{}")))
    assert found.parts == [Text("Hi"), ToolCall("call_1", "weather", "{}")]
    assert found.reason == "tool_calls"


def test_a_call_that_the_end_holds_again_is_one() -> None:
    item = wire.call("{}", id="fc_other")
    found = collected(*wire.streamed(wire.call("{}"), 0, "{}"), completed(item))
    assert found.parts == [ToolCall("call_1", "weather", "{}")]


def test_a_refusal_that_is_said_behind_its_end_comes_once() -> None:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "refusal", "refusal": "No."}
    found = collected(
        {"type": "response.refusal.delta", **place, "delta": "No."},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.refusal.done", **place, "refusal": "No."},
        completed(REFUSAL),
    )
    assert found.parts == [Refusal("No.")]


def test_a_character_in_two_pieces() -> None:
    item = wire.message("\U0001f600")
    assert collected(*wire.streamed(item, 0, "\ud83d", "\ude00"), completed(item)).parts == [Text("\U0001f600")]


def test_half_a_character() -> None:
    assert choice(wire.message("a\ud83d")).parts == [Text("a\ufffd")]
    item = wire.message("a\ud83d")
    assert collected(*wire.streamed(item, 0, "a\ud83d"), completed(item)).parts == [Text("a\ufffd")]


def test_an_item_that_ends_twice_is_one() -> None:
    text = wire.streamed(wire.message("a"), 0, "a")
    assert collected(*text, text[-1], completed()).parts == [Text("a")]


ERROR = {"code": "server_error", "message": "boom"}


@pytest.mark.parametrize(
    "end",
    [
        {"type": "error", **ERROR},
        {"type": "error", "error": ERROR},
        {"type": "response.failed", "response": wire.response(status="failed", error=ERROR)},
        {"type": "response.completed", "response": wire.response(status="failed", error=ERROR)},
    ],
)
def test_errors(end: dict[str, Any]) -> None:
    reader = openai_responses.reader("s")
    *_, last = wire.feed(reader, [wire.sse(*wire.example()[:6], end, *wire.example()[6:])])
    assert last == Failure(ERROR)
    assert not reader.complete


@pytest.mark.parametrize(
    ("data", "broken"),
    [(b"data: {broken\n\n", "a malformed event"), (b'{"object":"response"}\n', "its answer is no stream")],
)
def test_what_is_no_stream(data: bytes, broken: str) -> None:
    reader = openai_responses.reader("s")
    assert wire.feed(reader, [data]) == []
    assert reader.broken == broken


def test_a_plain_error_instead_of_a_stream() -> None:
    assert wire.feed(openai_responses.reader("s"), [b'{"error": {"message": "no"}}']) == [Failure({"message": "no"})]


@pytest.mark.parametrize("junk", [None, 3, "x", [], {}, [3], {"type": 3}])
def test_odd_types_break_nothing(junk: Any) -> None:
    for event in wire.example():
        for name in event:
            if name != "type":
                found = wire.feed(openai_responses.reader("s"), [wire.sse({**event, name: junk})])
                assert all(isinstance(one, Event) for one in found)


# --- laws over recordings

SHORTENED = {"openai-responses-75b82d3e46"}  # by hand: its deltas are not what its last event says


@pytest.mark.parametrize("path", recordings.files("responses"), ids=recordings.name)
def test_a_stream_says_what_its_last_event_says(path: Any) -> None:
    for exchange in recordings.read(path):
        if not exchange.is_chat_stream or exchange.body.count(b'"response.completed"') != 1:
            continue
        collector, reader = Collector(), openai_responses.reader("s")
        for event in wire.feed(reader, [exchange.body]):
            collector.add(event)
        assert reader.complete, exchange.id
        payloads = [line[6:] for line in exchange.body.splitlines() if line.startswith(b"data: {")]
        (last,) = [found for data in payloads if (found := json.loads(data))["type"] == "response.completed"]
        whole = openai_responses.read_answer(json.dumps(last["response"]).encode(), "s")
        if whole.choices[0].parts:
            same = _texts(collector.answer) == _texts(whole)
            assert same == (exchange.id not in SHORTENED), exchange.id
            assert collector.answer.usage == whole.usage


def _texts(answer: Answer) -> list[str]:
    return [part.text for part in answer.choices[0].parts if isinstance(part, Text)]
