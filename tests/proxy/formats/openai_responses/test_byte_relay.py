"""Responses relayed between a provider and a client that both speak them: bytes, usage, ends and errors."""

import json
from typing import Any

import pytest

from proxy.formats import openai_responses
from proxy.formats.base import Error, NotAnAnswer
from proxy.formats.canonical import Usage
from proxy.formats.openai_responses.byte_relay import Relay, read_error, read_usage
from tests.proxy.formats import responses as wire

BROKEN = Error(502, "The provider fell silent.", "api_error", "provider_error")


def relay() -> Relay:
    return openai_responses.relay(wire.MODEL, wire.pricer, wire.members(), framing="sse")


def priced(data: bytes) -> bytes:
    """The same bytes with the catalog's model and the price."""
    data = data.replace(b'"model": "up-1"', b'"model": "vendor/model"')
    return data.replace(b'"total_tokens": 14}', b'"total_tokens": 14,"cached_tokens":4,"cost":0.009}')


def test_it_works() -> None:
    stream, data = relay(), wire.sse(*wire.example())
    # usage is null in the events that open a response
    assert stream.feed(data) == priced(data)
    assert stream.complete
    assert stream.finished
    assert stream.usage == Usage(9, 5, 4, 0, 2)
    assert json.loads(stream.response)["model"] == wire.MODEL
    assert json.loads(stream.response)["usage"]["cost"] == 0.009


def test_it_says_what_was_said() -> None:
    stream = relay()
    stream.feed(wire.sse(*wire.example()))
    assert stream.text() == 'Hm, yesHello thereweather{"city":"Oslo"}'


def test_what_came_without_deltas_is_counted_too() -> None:
    stream = relay()
    stream.feed(wire.sse({"type": "response.output_item.done", "output_index": 0, "item": wire.message("Hi")}))
    assert stream.text() == "Hi"


def added(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": 0, "item": item}


def done(item: dict[str, Any], **place: int) -> dict[str, Any]:
    return {"type": "response.output_item.done", **place, "item": item}


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"type": "web_search_call", "id": "x", "action": {"type": "search", "query": "a", "sources": ["found"]}}, "a"),
        ({"type": "mcp_call", "name": "f", "arguments": "a", "output": "found", "server_label": "x"}, "fa"),
        ({"type": "mcp_list_tools", "tools": [{"description": "found"}]}, ""),
        ({"type": "code_interpreter_call", "code": "a", "outputs": [{"logs": "found"}]}, "a"),
        ({"type": "shell_call", "action": {"commands": ["a"]}}, "a"),
        ({"type": "image_generation_call", "result": "AAAA", "status": "completed"}, ""),
        ({"type": "function_call", "name": "f", "arguments": {"x": "a"}}, "fa"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "A" * 1010}, "AA"),
        ({"type": "compaction", "encrypted_content": "A" * 9000}, ""),
    ],
)
def test_all_that_is_generated_is_counted(item: dict[str, Any], text: str) -> None:
    """Of an item that comes without deltas, and in a plain answer without usage."""
    stream = relay()
    stream.feed(wire.sse(added(item), done(item, output_index=0)))
    assert stream.text() == text
    body = json.dumps({"object": "response", "output": [item]}).encode()
    assert openai_responses.edit_answer(body, wire.MODEL, wire.pricer).text == text


@pytest.mark.parametrize("place", [{"output_index": 0}, {}])
def test_what_came_in_deltas_is_counted_once(place: dict[str, int]) -> None:
    *opening, _ = wire.streamed(wire.message("Hello"), 0, "Hel", "lo")
    stream = relay()
    stream.feed(wire.sse(*opening, done(wire.message("Hello"), **place)))
    assert stream.text() == "Hello"


def test_items_that_overlap_are_counted_once_each() -> None:
    first, second = (wire.streamed(wire.call("ab", name=name), n, "a", "b") for n, name in enumerate("fg"))
    stream = relay()
    stream.feed(wire.sse(*(each for pair in zip(first, second, strict=True) for each in pair)))
    assert sorted(stream.text()) == sorted("fabgab")


@pytest.mark.parametrize(
    ("kind", "delta", "text"),
    [
        ("response.audio.delta", "AAAA", ""),
        ("response.audio.transcript.delta", "a", "a"),
        ("response.shell_call_output_content.delta", {"stdout": "found"}, ""),
        ("response.reasoning_summary.delta", {"type": "x", "text": "a"}, "a"),
        ("response.new.delta", "a", "a"),
    ],
)
def test_deltas(kind: str, delta: object, text: str) -> None:
    stream = relay()
    stream.feed(wire.sse({"type": kind, "output_index": 0, "delta": delta}))
    assert stream.text() == text


def test_thoughts_beyond_their_summary_are_counted() -> None:
    thought = wire.thought("abcde", encrypted_content="A" * 1020)
    stream = relay()
    stream.feed(wire.sse(*wire.streamed(thought, 0, "abcde")))
    assert stream.text() == "abcdeAA"


@pytest.mark.parametrize("size", [1, 7, 100])
def test_any_cutting_gives_the_same(size: int) -> None:
    stream, data = relay(), wire.sse(*wire.example())
    pieces = [stream.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert b"".join(pieces) == priced(data)
    assert stream.complete


def test_what_vendors_add_passes() -> None:
    stream = relay()
    data = b": PROCESSING\r\n\r\nevent: ping\r\ndata: {}\r\n\r\n" + wire.sse(*wire.example()) + b"data: [DONE]\n\n"
    assert stream.feed(data) == priced(data)
    assert stream.over
    assert stream.complete


def started(kind: str, **more: Any) -> dict[str, Any]:
    return added({"id": "x_1", "type": kind, "status": "in_progress", **more})


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.queued", "response": {"status": "queued"}},
        {"type": "keepalive"},
        {"type": "codex.rate_limits", "rate_limits": {"primary": "a"}},
        started("reasoning", summary=[], encrypted_content="gAAAA"),
        started("message", role="assistant", content=[], phase="commentary"),
        started("web_search_call"),
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": "", "annotations": []}},
        {"type": "response.reasoning_summary_part.added", "part": {"type": "summary_text", "text": ""}},
        {"type": "response.output_text.delta", "delta": ""},
        {"type": "response.failed", "response": {"error": {"message": "Down"}}},
    ],
)
def test_what_only_opens_an_answer(event: dict[str, Any]) -> None:
    stream = relay()
    stream.feed(b": comment\n\n" + wire.sse(*wire.opening(), event))
    assert not stream.begun


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.refusal.delta", "delta": "a"},
        {"type": "response.reasoning_summary_text.delta", "delta": "a"},
        {"type": "response.function_call_arguments.delta", "delta": "{"},
        {"type": "response.audio.delta", "delta": "AAAA"},
        {"type": "response.image_generation_call.partial_image", "partial_image_b64": "AAAA"},
        {"type": "response.web_search_call.in_progress", "item_id": "ws_1"},
        {"type": "response.output_text.annotation.added", "annotation": {"url": "http://a"}},
        {"type": "response.output_item.done", "item": {"type": "reasoning", "summary": []}},
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": "a"}},
        started("function_call", name="f", arguments="", call_id="c"),
        {"type": "response.completed", "response": {"status": "completed", "output": []}},
        {"type": "response.incomplete", "response": {"status": "incomplete", "output": []}},
    ],
)
def test_what_an_answer_begins_with(event: dict[str, Any]) -> None:
    stream = relay()
    stream.feed(wire.sse(*wire.opening(), {"type": "keepalive"}))
    assert not stream.begun
    stream.feed(wire.sse(event))
    assert stream.begun


def test_instructions_of_a_quarter_of_a_megabyte_are_held_back_and_no_more() -> None:
    """Each event of the opening repeats them."""
    stream, response = relay(), {"status": "in_progress", "instructions": "x" * 200_000, "output": []}
    stream.feed(wire.sse(*({"type": f"response.{name}", "response": response} for name in ("created", "in_progress"))))
    assert not stream.begun
    stream.feed(wire.sse({"type": "response.in_progress", "response": response}))
    assert stream.begun


def test_a_cut_stream_is_not_complete() -> None:
    events = wire.example()
    for end in range(len(events)):
        stream = relay()
        stream.feed(wire.sse(*events[:end]))
        stream.close()
        assert not stream.complete
        assert stream.over


def test_the_last_event_may_lack_its_blank_line() -> None:
    stream = relay()
    stream.feed(wire.sse(*wire.example())[:-2])
    assert not stream.complete
    stream.close()
    assert stream.complete


def test_an_incomplete_answer_is_a_whole_stream() -> None:
    stream, end = relay(), wire.response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    stream.feed(wire.sse({"type": "response.incomplete", "response": end}))
    assert stream.complete
    assert stream.error is None


ERROR = {"code": "rate_limit_exceeded", "message": "Too many"}


def failed() -> dict[str, Any]:
    return {"type": "response.failed", "response": wire.response(status="failed", error=ERROR, usage=None)}


@pytest.mark.parametrize("size", [10, 100_000])
def test_an_error_and_the_failure_behind_it_go_out_together(size: int) -> None:
    data = wire.sse(*wire.opening(), {"type": "error", "error": ERROR}, failed())
    stream = relay()
    out = b"".join(stream.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert out == data.replace(b'"up-1"', b'"vendor/model"')
    assert stream.error == ERROR
    assert stream.over
    assert not stream.complete


@pytest.mark.parametrize("size", [7, 10_000])
def test_nothing_behind_the_end_takes_it_back(size: int) -> None:
    stream, data = relay(), wire.sse(*wire.example())
    more = data + wire.sse({"type": "error", "message": "x"}, {"type": "response.failed", "response": {}})
    more += b"data: rubbish\n\n"
    pieces = [stream.feed(more[at : at + size]) for at in range(0, len(more), size)]
    assert b"".join([*pieces, stream.close()]) == priced(data)
    assert stream.complete


def test_another_response_behind_the_end_passes() -> None:
    """Seen in a recording."""
    stream, data = relay(), wire.sse(*wire.example())
    assert stream.feed(data + data) == priced(data) + priced(data)
    assert stream.complete


@pytest.mark.parametrize("response", [None, 5, [], "x"])
def test_an_end_without_its_response_is_none(response: Any) -> None:
    stream = relay()
    begun = stream.feed(wire.sse(*wire.example()[:-1]))
    assert stream.feed(wire.sse({"type": "response.completed", "response": response})) == b""
    assert begun
    assert not stream.complete
    assert stream.broken


def test_no_answer_becomes_whole_behind_an_error() -> None:
    stream, error = relay(), wire.sse({"type": "error", "message": "x"})
    assert stream.feed(error + wire.sse(wire.example()[-1])) == error
    assert stream.error == {"message": "x"}
    assert not stream.complete


@pytest.mark.parametrize("data", ["[]", "3", "null", '"x"'])
def test_an_error_that_is_no_object(data: str) -> None:
    stream = relay()
    stream.feed(f"event: error\ndata: {data}\n\n".encode())
    stream.close()
    assert not stream.complete


def test_an_error_alone_goes_out_at_the_end() -> None:
    data = wire.sse({"type": "error", **ERROR, "param": None})
    stream = relay()
    assert stream.feed(data) == b""
    assert stream.close() == data
    assert stream.error == {**ERROR, "param": None}


def test_a_failure_alone_is_an_error() -> None:
    stream = relay()
    stream.feed(wire.sse(failed()))
    assert stream.error == ERROR
    assert not stream.complete


@pytest.mark.parametrize(
    ("body", "error", "broken"),
    [
        (b'{"error": {"message": "no"}}', {"message": "no"}, ""),
        (b'{"error": "no", "code": "x"}', {"message": "no", "code": "x"}, ""),
        (b'{"object": "response"}', None, "its answer is no stream"),
        (b"event: response.created\ndata: {broken\n\n", None, "a malformed event"),
    ],
)
def test_what_is_no_stream(body: bytes, error: dict[str, Any] | None, broken: str) -> None:
    stream = relay()
    stream.feed(body)
    stream.close()
    assert (stream.error, stream.broken) == (error, broken)
    assert not stream.complete


def test_half_an_emoji_passes_untouched() -> None:
    text = rb'"delta": "\ud83d", "output_index": 0}'
    data = b'data: {"type": "response.output_text.delta", ' + text + b"\n\n"
    end = json.dumps(wire.response(wire.message("?"))).replace("?", "\\ud83d")
    last = b'data: {"type": "response.completed", "response": ' + end.encode() + b"}\n\n"
    stream = relay()
    assert stream.feed(data + last) == data + last
    assert stream.complete
    assert stream.usage == Usage(9, 5, 4, 0, 2)


def test_a_failure_of_the_gateway_ends_it_as_the_api_does() -> None:
    stream = relay()
    sent = stream.feed(wire.sse(*wire.example()[:5]))
    *_, error, last = wire.parsed(sent + stream.fail(BROKEN))
    assert error["error"]["code"] == error["code"] == "provider_error"
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["id"] == "resp_1"
    assert last["response"]["error"] == {"code": "provider_error", "message": BROKEN.message}


@pytest.mark.parametrize("short", [1, 2, 10, 30])
def test_a_failure_behind_half_an_event_is_read(short: int) -> None:
    stream, data = relay(), wire.sse(*wire.example()[:5])
    sent = stream.feed(data[:-short]) + stream.close() + stream.fail(BROKEN)
    *_, error, last = [json.loads(line[6:]) for line in sent.splitlines() if line.startswith(b"data: ")]
    assert (error["type"], last["type"]) == ("error", "response.failed")
    assert sent.count(b"\n\nevent: error\n") == 1


def test_a_failure_before_anything_is_an_error_alone() -> None:
    (error,) = wire.parsed(relay().fail(BROKEN))
    assert error["type"] == "error"
    assert error["message"] == BROKEN.message


# --- plain answers


def test_a_plain_answer_keeps_its_bytes() -> None:
    body = json.dumps(wire.response(wire.message("Hello"))).encode()
    answer = openai_responses.edit_answer(body, wire.MODEL, wire.pricer)
    assert answer.body == priced(body)
    assert answer.usage == Usage(9, 5, 4, 0, 2)


def test_an_answer_without_usage_is_counted() -> None:
    found = wire.response(wire.thought("Hm"), wire.message("Hello"), wire.call("{}"), usage=None)
    answer = openai_responses.edit_answer(json.dumps(found).encode(), wire.MODEL, wire.pricer)
    assert answer.usage is None
    assert answer.text == "HmHelloweather{}"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("nothing", None),
        ("[]", None),
        ('{"id": 1}', None),
        ('{"error": {"message": "no"}}', {"message": "no"}),
        (json.dumps(failed()["response"]), ERROR),
        ('{"output": [], "status": "cancelled"}', {"message": "the response ended as 'cancelled'"}),
    ],
)
def test_a_200_that_is_no_answer(body: str, error: dict[str, Any] | None) -> None:
    with pytest.raises(NotAnAnswer) as caught:
        openai_responses.edit_answer(body.encode(), wire.MODEL, wire.pricer)
    assert caught.value.error == error


# --- usage and errors, as vendors send them


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 3, "output_tokens": 2}, Usage(3, 2)),
        ({"input_tokens": 3, "output_tokens": 2, "total_tokens": 9}, Usage(3, 6)),
        ({"prompt_tokens": 3, "completion_tokens": 2}, Usage(3, 2)),
        ({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2}}, Usage(3, 0, 1, 2)),
        ({"input_tokens": 3, "input_tokens_details": [], "output_tokens_details": None}, Usage(3)),
        ({"input_tokens": 0, "output_tokens": 0}, None),
        ({"input_tokens": -1, "output_tokens": True}, None),
        ([], None),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert read_usage(usage) == expected


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"error": {"message": "m", "code": "c"}}', {"message": "m", "code": "c"}),
        ('{"code": "c", "error": "m"}', {"message": "m", "code": "c"}),
        ('{"detail": [{"loc": 1}]}', {"message": '[{"loc": 1}]'}),
        ('{"type": "error", "sequence_number": 3, "code": "c", "message": "m"}', {"message": "m", "code": "c"}),
        ('[{"error": {"message": "m"}}]', {"message": "m"}),
        ("<html>", {}),
        ("3", {}),
        ("[[]]", {}),
    ],
)
def test_errors(body: str, error: dict[str, Any]) -> None:
    assert read_error(body.encode()) == error


# --- ended by the gateway --------------------------------------------------------------------------------------------

TOLD = Usage(9, 4, 3)


def cut_after(count: int) -> tuple[list[dict[str, Any]], Relay]:
    """What the client reads of the example, of which so many events have come."""
    stream = relay()
    out = stream.feed(wire.sse(*wire.example()[:count]) + b'event: x\ndata: {"ty')
    return wire.parsed(out + stream.cut(TOLD))[count:], stream


def test_a_stream_is_cut() -> None:
    found, stream = cut_after(2 + 7 + 3)
    assert [each["type"] for each in found] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    text, part, item, last = found
    assert (text["text"], text["item_id"], text["output_index"], text["content_index"]) == ("Hello", "msg_1", 1, 0)
    assert part["part"]["text"] == "Hello"
    assert (item["item"]["status"], item["item"]["content"], item["output_index"]) == ("incomplete", [part["part"]], 1)
    response = last["response"]
    assert response["output"] == [wire.example()[8]["item"], item["item"]]
    assert (response["id"], response["model"], response["status"]) == ("resp_1", wire.MODEL, "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (response["usage"]["output_tokens"], response["usage"]["cost"]) == (4, 0.009)
    assert json.loads(stream.response) == response
    assert (stream.complete, stream.over, stream.usage, stream.cut(TOLD)) == (True, True, TOLD, b"")


def test_a_call_is_cut() -> None:
    found, stream = cut_after(2 + 7 + 7 + 2)
    assert [each["type"] for each in found] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert (found[0]["arguments"], found[0]["name"]) == ('{"city":', "weather")
    assert (found[1]["item"]["arguments"], found[1]["item"]["status"]) == ('{"city":', "incomplete")
    assert len(found[2]["response"]["output"]) == 3
    assert stream.said == len(stream.text())


def test_nothing_is_cut() -> None:
    stream = relay()
    opened, last = wire.parsed(stream.cut(TOLD))
    assert (opened["type"], last["response"]["output"]) == ("response.created", [])


def test_what_has_ended_by_itself_is_not_cut() -> None:
    stream = relay()
    stream.feed(wire.sse(*wire.example()))
    assert (stream.cut(TOLD), stream.usage) == (b"", Usage(9, 5, 4, 0, 2))


def test_a_count_of_the_prompt_alone() -> None:
    stream = relay()
    early = wire.response(status="in_progress", usage={"input_tokens": 9, "output_tokens": 0})
    stream.feed(wire.sse({"type": "response.in_progress", "response": early}))
    assert (stream.usage, stream.prompt_usage) == (None, Usage(9))
    stream.feed(wire.sse({"type": "response.completed", "response": wire.response()}))
    assert (stream.usage, stream.prompt_usage) == (Usage(9, 5, 4, 0, 2), Usage(9, cached=4))
