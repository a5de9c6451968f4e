"""Messages relayed between a provider and a client that both speak them: bytes, usage, ends and errors."""

import json
from typing import Any

import anthropic
import pytest

from proxy.formats import anthropic_messages
from proxy.formats.anthropic_messages.byte_relay import MessagesStream, billed, mended, read_error, read_usage
from proxy.formats.base import Error, NotAnAnswer
from proxy.formats.canonical import Usage
from tests.proxy.formats import messages as wire

SILENT = Error(502, "The provider fell silent.", "api_error", "provider_error", request_id="req_1")


def relay() -> MessagesStream:
    return anthropic_messages.relay(wire.MODEL, wire.pricer, wire.members(), framing="sse")


def edited(data: bytes, price: int = 7) -> bytes:
    """The same bytes with the catalog's model and, behind the last usage, the price."""
    data = data.replace(b'"model": "up-1"', b'"model": "vendor/model"')
    place = data.rindex(b"}}\n\nevent: message_stop")
    return data[:place] + b',"cost":%d' % price + data[place:]


def test_it_works() -> None:
    stream, data = relay(), wire.sse(*wire.example())
    assert stream.feed(data) == edited(data)
    assert stream.complete
    assert stream.finished
    assert stream.over
    assert stream.usage == Usage(9, 7, 3, 1, 2)
    assert stream.text() == 'HmHello thèreweather{"city":"Oslo"}time'


@pytest.mark.parametrize("size", [1, 7, 100])
def test_any_cutting_gives_the_same(size: int) -> None:
    stream, data = relay(), wire.sse(*wire.example())
    pieces = [stream.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert b"".join(pieces) == edited(data)
    assert stream.complete


@pytest.mark.parametrize(
    ("place", "events"),
    [
        (1, wire.words(0, "Hi")),
        (2, wire.words(0, "", "Hi")),
        (0, wire.block(0, type="text", text="Hi")),
        (1, wire.block(0, {"type": "thinking_delta", "thinking": "Hm"}, type="thinking", thinking="", signature="")),
        (1, wire.block(0, {"type": "signature_delta", "signature": "c"}, type="thinking", thinking="", signature="")),
        (1, wire.block(0, {"type": "citations_delta", "citation": {"cited_text": "a"}}, type="text", text="")),
        (1, wire.block(0, {"type": "compaction_delta", "content": "a"}, type="compaction", content=None)),
        (0, wire.block(0, type="redacted_thinking", data="abc")),
        (0, wire.call(0, "weather")),
        (0, wire.block(0, type="server_tool_use", id="s", name="web_search", input={})),
        (0, wire.block(0, type="web_search_tool_result", tool_use_id="s", content=[])),
        (0, wire.end()),
    ],
)
def test_the_answer_begins_with_the_first_thing_said(place: int, events: list[dict[str, Any]]) -> None:
    """`place`: of the event that it begins with."""
    stream = relay()
    stream.feed(b": comment\n\n" + wire.sse(wire.start(), {"type": "ping"}, *events[:place]))
    assert not stream.begun
    stream.feed(wire.sse(events[place]))
    assert stream.begun


def test_usage_and_a_bare_end_begin_nothing() -> None:
    stream = relay()
    usage = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 1}}
    stream.feed(wire.sse(wire.start(), usage, {"type": "message_stop"}))
    assert not stream.begun


def test_no_more_is_held_back_than_half_a_megabyte_of_events() -> None:
    stream = relay()
    stream.feed(wire.sse(wire.start(container="x" * 300_000)))
    assert not stream.begun
    stream.feed(wire.sse(wire.start(container="x" * 300_000)))
    assert stream.begun


def test_what_vendors_send_passes() -> None:
    """CRLF, comments, padding, unknown events, data over two lines, no event's name."""
    data = (
        b': hi\r\n\r\nevent: message_start\r\ndata: {"type":"message_start",\r\n'
        b'data: "message":{"usage":{}}}    \r\n\r\n'
        b'data: {"type":"new_thing","index":"zero"}\n\n'
        b'data:{"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
        b'data: {"type":"message_stop"}\n\n'
    )
    stream = relay()
    assert stream.feed(data) == data
    assert stream.complete
    assert stream.usage is None


def test_openrouter_says_done_behind_its_end() -> None:
    data = wire.sse(wire.start(provider="Amazon Bedrock"), *wire.words(0, "Hi"), *wire.end())
    stream = relay()
    out = stream.feed(data)
    assert not stream.over
    assert out + stream.feed(b"event: data\ndata: [DONE]\n\n") == edited(data, 5) + b"event: data\ndata: [DONE]\n\n"
    assert stream.over


def test_what_others_say_behind_the_end_is_not_waited_for() -> None:
    data = wire.sse(wire.start(), *wire.words(0, "Hi"), *wire.end())
    stream = relay()
    assert stream.feed(data + b"data: [DONE]\n\n") == edited(data, 5)
    assert stream.over


def test_a_price_takes_the_place_of_the_providers() -> None:
    data = wire.sse(wire.start(), *wire.words(0, "Hi"), *wire.end(output_tokens=5, cost=0.25, is_byok=False))
    out = wire.parsed(relay().feed(data))
    assert out[-2]["usage"] == {"output_tokens": 5, "cost": 5, "is_byok": False}


def test_usage_of_the_start_stands_where_the_end_does_not_say() -> None:
    stream = relay()
    stream.feed(wire.sse(wire.start({"input_tokens": 20, "output_tokens": 1}), *wire.end(output_tokens=5)))
    assert stream.usage == Usage(20, 5)


def test_a_prompt_counted_as_nothing_at_the_end_is_that_of_the_start() -> None:
    stream = relay()
    stream.feed(wire.sse(wire.start({"input_tokens": 20}), *wire.end(input_tokens=0, output_tokens=5)))
    assert stream.usage == Usage(20, 5)


def test_every_piece_of_the_example_but_the_whole_is_incomplete() -> None:
    events = wire.example()
    for place in range(len(events)):
        stream = relay()
        stream.feed(wire.sse(*events[:place]))
        stream.close()
        assert not stream.complete
        assert stream.finished == (place == len(events) - 1)


@pytest.mark.parametrize("data", [b"data: {nonsense\n\n", b"data: [1]\n\n", b"data: 7\n\n"])
def test_a_malformed_event_breaks_the_stream(data: bytes) -> None:
    stream = relay()
    begun = wire.sse(wire.start(), *wire.words(0, "Hi"))
    assert stream.feed(begun + data + wire.sse(*wire.end())) == begun.replace(b"up-1", b"vendor/model")
    assert stream.broken == "a malformed event"
    assert not stream.complete


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n',
            {"message": "Overloaded", "type": "overloaded_error", "status": 529},
        ),
        (b'event: error\ndata: {"message":"Busy"}\n\n', {"message": "Busy"}),
        (b"event: error\ndata: {}\n\n", {"message": "{}"}),
    ],
)
def test_the_providers_error_ends_the_stream(data: bytes, error: dict[str, Any]) -> None:
    stream = relay()
    stream.feed(wire.sse(wire.start()))
    assert stream.feed(data) == data
    assert stream.error == error
    assert stream.over
    assert not stream.complete


def test_an_error_without_a_name_gets_one_without_which_no_sdk_sees_it() -> None:
    stream = relay()
    data = b'data: {"error":{"message":"Busy","code":503}}\n\n'
    assert stream.feed(data) == b"event: error\n" + data
    assert stream.error == {"message": "Busy", "code": 503}


def test_a_plain_error_in_place_of_a_stream() -> None:
    stream = relay()
    stream.feed(b'{"type":"error","error":{"type":"api_error","message":"No"}}\n')
    stream.close()
    assert stream.error == {"message": "No", "type": "api_error", "status": 500}
    other = relay()
    other.feed(b'{"content": []}')
    other.close()
    assert other.broken == "its answer is no stream"


def test_half_of_an_emoji_is_counted_with_its_other_half() -> None:
    stream = relay()
    half = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}'
    data = "".join(f"data: {half % text}\n\n" for text in ("a\\ud83d", "\\ude00b")).encode()
    assert stream.feed(data) == data
    assert stream.text() == "a😀b"


def test_the_end_that_the_gateway_makes_raises_in_the_sdk() -> None:
    stream = relay()
    out = stream.feed(wire.sse(wire.start(), *wire.words(0, "Hi"))) + stream.fail(SILENT)
    with pytest.raises(anthropic.APIStatusError, match="fell silent"):
        wire.streamed_by_sdk(out)


@pytest.mark.parametrize("rest", [b"event: mess", b": wai", b'event: ping\ndata: {"type":"ping"}', b'data: {"type":'])
def test_the_gateways_error_is_read_behind_whatever_was_cut_off(rest: bytes) -> None:
    stream = relay()
    out = stream.feed(wire.sse(wire.start(), *wire.words(0, "Hi")) + rest) + stream.close()
    assert not stream.complete
    with pytest.raises(anthropic.APIStatusError, match="fell silent"):
        wire.streamed_by_sdk(out + stream.fail(SILENT))


def test_an_end_without_its_blank_line_is_an_end() -> None:
    data = wire.sse(wire.start(), *wire.words(0, "Hi"), *wire.end())
    stream = relay()
    assert stream.feed(data[:-2]) + stream.close() == edited(data, 5)[:-2]
    assert stream.complete


# --- plain answers ---------------------------------------------------------------------------------------------------

ANSWER = (
    b'{ "model":"up-1","content":[{"type":"text","text":"Hi"},{"type":"tool_use","id":"t","name":"f","input":{"a":1}}],'
    b'"usage":{"input_tokens":5,"cache_read_input_tokens":3,"output_tokens":7} }'
)


def test_a_plain_answer_keeps_its_bytes() -> None:
    relayed = anthropic_messages.edit_answer(ANSWER, wire.MODEL, wire.pricer)
    expected = ANSWER.replace(b"up-1", b"vendor/model").replace(b'"output_tokens":7', b'"output_tokens":7,"cost":7')
    assert relayed.body == expected
    assert relayed.usage == Usage(8, 7, 3)


def test_a_plain_answer_without_usage_leaves_its_text_to_be_counted() -> None:
    body = ANSWER[: ANSWER.index(b',"usage"')] + b"}"
    relayed = anthropic_messages.edit_answer(body, wire.MODEL, wire.pricer)
    assert (relayed.usage, relayed.text) == (None, 'Hif{"a": 1}')


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "server_tool_use", "name": "f", "input": {"a": 1}}, 'f{"a": 1}'),
        ({"type": "compaction", "content": "a"}, "a"),
        ({"type": "redacted_thinking", "data": "A" * 1010}, "AA"),
        ({"type": "thinking", "thinking": "", "signature": "A" * 1010}, "AA"),
        ({"type": "thinking", "thinking": "abcde", "signature": "A" * 1010}, "abcde"),
        ({"type": "web_search_tool_result", "content": [{"title": "found"}]}, ""),
        ({"type": "text", "text": "a", "citations": [{"cited_text": "found"}]}, "a"),
    ],
)
def test_all_that_is_generated_is_counted(block: dict[str, Any], text: str) -> None:
    """In a plain answer without usage, and of a block that comes whole in a stream."""
    body = json.dumps({"type": "message", "content": [block]}).encode()
    assert anthropic_messages.edit_answer(body, wire.MODEL, wire.pricer).text == text
    stream = relay()
    stream.feed(wire.sse(wire.start(), *wire.block(0, **block)))
    assert stream.text() == text


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (wire.thought(0, "", "A" * 1010), "AA"),
        (wire.thought(0, "abcde", "A" * 1010), "abcde"),
        (wire.block(0, {"type": "compaction_delta", "content": "a"}, type="compaction", content=None), "a"),
        (wire.block(0, {"type": "new_delta", "more": ["a"]}, type="new"), "a"),
        (wire.block(0, {"type": "citations_delta", "citation": {"cited_text": "found"}}, type="text", text="a"), "a"),
        (wire.block(0, {"type": "input_json_delta", "partial_json": "{}"}, type="tool_use", input={"a": 1}), "{}"),
    ],
)
def test_all_that_is_streamed_is_counted_once(events: list[dict[str, Any]], text: str) -> None:
    stream = relay()
    stream.feed(wire.sse(wire.start(), *wire.words(1, "x"), *events))
    assert stream.text() == "x" + text


def test_an_answer_that_only_a_lax_reader_takes_passes() -> None:
    body = b'{"model":"up-1","content":[{"type":"text","text":"\\ud83d"}],"usage":{"input_tokens":5,"output_tokens":7}}'
    relayed = anthropic_messages.edit_answer(body, wire.MODEL, wire.pricer)
    assert (relayed.body, relayed.usage) == (body, Usage(5, 7))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"type":"error","error":{"type":"api_error","message":"No"}}', "No"),
        (b'{"error":"Busy"}', "Busy"),
        (b'{"detail":"Busy"}', "Busy"),
        (b"{}", None),
        (b"[]", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_what_is_no_answer(body: bytes, message: str | None) -> None:
    with pytest.raises(NotAnAnswer) as raised:
        anthropic_messages.edit_answer(body, wire.MODEL, wire.pricer)
    assert (raised.value.error or {}).get("message") == message


# --- tokens and errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "usage"),
    [
        ({"input_tokens": 5, "output_tokens": 7}, Usage(5, 7)),
        (
            {"input_tokens": 5, "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 4}},
            Usage(11, 0, 0, 6),
        ),
        ({"input_tokens": 5.0, "output_tokens": None, "cache_read_input_tokens": -3}, Usage(5)),
        ({"output_tokens": 7, "output_tokens_details": None}, Usage(0, 7)),
        ({"input_tokens": 0, "output_tokens": 0}, None),
        ({"input_tokens": "5"}, None),
        (None, None),
        ([], None),
    ],
)
def test_usage(found: Any, usage: Usage | None) -> None:
    assert read_usage(found) == usage


def test_what_compaction_used_is_billed() -> None:
    compaction = {"type": "compaction", "input_tokens": 100, "cache_read_input_tokens": 50, "output_tokens": 9}
    found = {"input_tokens": 5, "output_tokens": 7, "iterations": [compaction, {"type": "message", "input_tokens": 5}]}
    assert billed(found) == Usage(155, 16, 50)


def test_what_an_advisor_used_is_billed() -> None:
    asked = {"type": "advisor_message", "model": "up-2", "input_tokens": 100, "output_tokens": 9}
    found = {"input_tokens": 5, "output_tokens": 7, "iterations": [{"type": "message", "input_tokens": 5}, asked]}
    assert billed(found) == Usage(105, 16)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            {"type": "error", "error": {"type": "not_found_error", "message": "model: up-9"}, "request_id": "r"},
            {"message": "model: up-9", "type": "not_found_error", "code": "model_not_found", "status": 404},
        ),
        (
            {"error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}},
            {
                "message": "prompt is too long: 9 tokens > 8 maximum",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
                "status": 400,
            },
        ),
        ({"error": {"message": {"a": 1}}}, {"message": '{"a": 1}'}),
        ([{"error": {"message": "No"}}], {"message": "No"}),
        ({"message": "No", "code": "x"}, {"message": "No", "code": "x"}),
        ({"content": []}, {}),
        ("No", {}),
    ],
)
def test_a_providers_error(body: Any, error: dict[str, Any]) -> None:
    assert read_error(json.dumps(body).encode()) == error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "api_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_the_gateways_errors(status: int, kind: str) -> None:
    body = anthropic_messages.error_body(Error(status, "No.", "x", request_id="req_1"))
    assert json.loads(body) == {"type": "error", "error": {"type": kind, "message": "No."}, "request_id": "req_1"}


def test_an_error_names_its_field() -> None:
    body = anthropic_messages.error_body(Error(400, "It is wrong.", "x", param="max_tokens"))
    assert json.loads(body)["error"]["message"] == "max_tokens: It is wrong."


def test_halves_of_surrogate_pairs() -> None:
    assert mended({"a\udc00": ["\ud83d\ude00", "\ud83d", 1]}) == {"a�": ["😀", "�", 1]}


# --- ended by the gateway --------------------------------------------------------------------------------------------

TOLD = Usage(9, 4, 3, 1)


def test_a_stream_is_cut() -> None:
    stream = relay()
    begun = [wire.start(), *wire.words(0, "Hello"), *wire.call(1, "weather", '{"ci')[:-1]]
    stream.feed(wire.sse(*begun) + b'event: content_block_delta\ndata: {"ty')
    assert wire.parsed(stream.cut(TOLD)) == [
        {"type": "content_block_stop", "index": 1},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
            "usage": {
                "input_tokens": 5,
                "cache_creation_input_tokens": 1,
                "cache_read_input_tokens": 3,
                "output_tokens": 4,
                "cost": 4,
            },
        },
        {"type": "message_stop"},
    ]
    assert (stream.complete, stream.over, stream.usage) == (True, True, TOLD)
    assert (stream.said, stream.cut(TOLD)) == (16, b"")


def test_nothing_is_cut() -> None:
    stream = relay()
    read = wire.streamed_by_sdk(stream.cut(TOLD))
    assert (read.content, read.stop_reason, read.usage.input_tokens) == ([], "max_tokens", 5)


def test_what_has_finished_by_itself_is_not_cut() -> None:
    stream = relay()
    stream.feed(wire.sse(wire.start(), *wire.words(0, "Hello"), wire.end()[0]))
    assert wire.parsed(stream.cut(TOLD)) == [{"type": "message_stop"}]
    stream = relay()
    stream.feed(wire.sse(wire.start(provider="x"), *wire.words(0, "Hello"), *wire.end()))
    assert not stream.over  # OpenRouter: more comes behind `message_stop`
    assert (stream.cut(TOLD), stream.over, stream.usage) == (b"", True, Usage(9, 5))


def test_the_opening_counts_the_prompt_alone() -> None:
    stream = relay()
    stream.feed(wire.sse(wire.start({"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 1})))
    assert (stream.usage, stream.prompt_usage) == (None, Usage(8, cached=3))
    stream.feed(wire.sse(*wire.words(0, "Hello"), {"type": "message_stop"}))
    assert stream.usage == Usage(8, 1, 3)  # a vendor that says no more
