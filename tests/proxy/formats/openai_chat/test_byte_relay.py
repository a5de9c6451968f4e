"""Streams and answers as no provider should send them, and as some do: what passes, is counted, is a fault."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.formats import sse
from proxy.formats.base import Error, NotAnAnswer, Relayed
from proxy.formats.canonical import Usage
from proxy.formats.openai_chat.byte_relay import ChatStream, edit_answer
from tests.upstreams import DONE, cut, event

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
PRICED = b'"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,"cost":1}'


def gains(_: Usage) -> dict[str, bytes]:
    return {"cost": b"1"}


def chunk(content: object = None, finish: str | None = None, **more: object) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "c", "model": "theirs", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


FINISH = event(chunk(finish="stop"))


def relayed(*pieces: bytes, hold: bool = True) -> tuple[bytes, ChatStream]:
    stream = ChatStream("ours", hold_usage=hold, pricer=gains)
    out = b""
    for piece in pieces:
        if not stream.over:
            out += stream.feed(piece)
    return (out if stream.over else out + stream.close()), stream


def renamed(data: bytes) -> bytes:
    return data.replace(b'"theirs"', b'"ours"')


def check_passes(*data: bytes) -> ChatStream:
    """Whole, as given and byte by byte, the client gets it all, with our model's name; the answer is complete."""
    whole = b"".join(data)
    out, stream = relayed(whole)
    assert out == renamed(whole)
    assert stream.complete
    for pieces in (data, cut(whole)):
        again, other = relayed(*pieces)
        assert again == out
        assert other.complete
        assert (stream.text(), stream.usage, stream.begun) == (other.text(), other.usage, other.begun)
    return stream


# --- a stream's form -------------------------------------------------------------------------------------------------


def test_it_works() -> None:
    held = event({"id": "c", "model": "theirs", "choices": [], "usage": USAGE})
    out, stream = relayed(event(chunk("Hi")), FINISH, held, DONE)
    assert out == renamed(event(chunk("Hi")) + FINISH) + DONE
    assert (stream.begun, stream.usage, stream.text()) == (True, Usage(7, 3), "Hi")
    assert stream.complete


def test_the_usage_chunk_that_was_asked_for_has_a_price() -> None:
    sent = event({"model": "theirs", "choices": [], "usage": USAGE})
    out, _ = relayed(FINISH, sent, DONE, hold=False)
    assert out == renamed(FINISH) + b'data: {"model": "ours", "choices": [], ' + PRICED + b"}\n\n" + DONE


def test_usage_in_a_chunk_with_choices_is_never_held_back() -> None:
    out, stream = relayed(event(chunk("Hi", "stop", usage=USAGE)), DONE)
    assert PRICED in out
    assert stream.usage == Usage(7, 3)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end(end: bytes) -> None:
    lines = b": hello\n\nevent: message\nid: 1\n" + event(chunk("a")) + b": between\n" + FINISH + DONE
    assert check_passes(lines.replace(b"\n", end)).text() == "a"


@pytest.mark.parametrize("boundary", [b"\n\r\n", b"\r\n\n", b"\n\r", b"\r\n\r", b"\n\n\n", b"\r\n\r\n\r\n"])
def test_line_ends_that_do_not_match(boundary: bytes) -> None:
    parts = [each.replace(b"\n\n", boundary) for each in (event(chunk("a")), event(chunk("b")), FINISH)]
    assert check_passes(*parts, DONE).text() == "ab"


@pytest.mark.parametrize(
    "sent",
    [
        FINISH.replace(b"data: ", b"data:"),
        FINISH.replace(b"data: ", b"data:  "),
        FINISH.replace(b"\n\n", b"\nid: 7\n\n"),
        FINISH.replace(b"\n\n", b"\n: after\n\n"),
        FINISH.replace(b"\n\n", b" \n\n"),
        b"retry: 100\n" + FINISH,
        b"\xef\xbb\xbf" + FINISH,
        b"data\n\n" + FINISH,
        b"data: \n\n" + FINISH,
        b"\n\n\n" + FINISH,
        FINISH + b": bye\n\n",
    ],
)
def test_forms_of_an_event(sent: bytes) -> None:
    assert check_passes(sent, DONE).finished
    assert check_passes(event(chunk("a")), sent, DONE).finished


def test_data_over_several_lines_is_edited_on_one() -> None:
    text = json.dumps(chunk("a\nb", "stop", usage=USAGE), indent=1)
    lines = "".join(f"data: {line}\n" for line in text.splitlines())
    out, stream = relayed(f"event: x\n{lines}\n".encode(), DONE)
    first, _, rest = out.partition(b"data: ")
    assert first == b"event: x\n"
    sent, done = rest.split(b"\n\n", 1)
    assert done == DONE
    assert json.loads(sent) == chunk("a\nb", "stop", usage={**USAGE, "cost": 1}, model="ours")
    assert stream.usage == Usage(7, 3)


def test_data_over_several_lines_that_needs_no_edit_stays() -> None:
    assert check_passes(
        b'data: {"choices": [{"delta":\r\ndata:{"content": "a"},"finish_reason":"stop"}]}\r\n\r\n', DONE
    )


@pytest.mark.parametrize("last", [DONE[:-1], DONE[:-2], b"data:[DONE]", b"data: [DONE]\r\n"])
def test_the_last_line_need_not_end(last: bytes) -> None:
    assert check_passes(FINISH, last).done


def test_nothing_passes_after_done() -> None:
    out, stream = relayed(FINISH + DONE + event(chunk("more")) + DONE)
    assert out == renamed(FINISH) + DONE
    assert stream.text() == ""


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b"", b"\n\n: bye", b"\n\ndata:"])
def test_a_stream_without_done_is_complete_once_it_is_finished_and_clients_get_one(end: bytes) -> None:
    sent = event(chunk("a")) + FINISH.rstrip() + end
    for pieces in ([sent], cut(sent)):
        out, stream = relayed(*pieces)
        assert stream.complete
        assert out.startswith(renamed(sent))
        assert out.count(DONE) == 1
        assert out.endswith(b"\n\n" + DONE)


def test_a_stream_that_is_not_finished_gets_no_done() -> None:
    for sent in (event(chunk("a")), FINISH + b"data: {", event(chunk("a")) + b"data: oops\n\n"):
        out, stream = relayed(sent)
        assert not stream.complete
        assert b"DONE" not in out


# --- where the answer begins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delta",
    [
        {},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "reasoning_content": None, "tool_calls": [], "refusal": None},
        {"role": "assistant", "name": "assistant", "channel": "analysis"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "", "format": "unknown", "index": 0}]},
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "", "arguments": ""}}]},
        {"audio": {"id": "audio_1", "expires_at": 5}},
        {"graph_data": {"status": None, "sources": None}},
    ],
)
def test_what_only_opens_an_answer(delta: dict[str, Any]) -> None:
    _, stream = relayed(event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
    assert not stream.begun


@pytest.mark.parametrize(
    "delta",
    [
        {"role": "assistant", "content": "a"},
        {"content": [{"type": "text", "text": "a"}]},
        {"content": "", "reasoning_content": "a"},
        {"reasoning": "a"},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "a", "format": "x"}]},
        {"refusal": "a"},
        {"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {"function_call": {"arguments": "{"}},
        {"audio": {"id": "audio_1", "data": "AAAA"}},
        {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "http://a"}}]},
    ],
)
def test_what_an_answer_begins_with(delta: dict[str, Any]) -> None:
    opening = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    for place in ("delta", "message"):
        stream = ChatStream("ours", hold_usage=True, pricer=gains)
        stream.feed(b": comment\n\n" + opening)
        assert not stream.begun
        stream.feed(event({"choices": [{"index": 0, place: delta, "finish_reason": None}]}))
        assert stream.begun


@pytest.mark.parametrize("more", [{"usage": USAGE}, {"prompt_filter_results": [{"prompt_index": 0}]}])
def test_an_event_without_choices_begins_nothing(more: dict[str, Any]) -> None:
    _, stream = relayed(event({"choices": [], **more}), hold=False)
    assert not stream.begun


def test_an_empty_answer_begins_with_its_end() -> None:
    stream = ChatStream("ours", hold_usage=True, pricer=gains)
    stream.feed(event(chunk("")))
    assert not stream.begun
    stream.feed(FINISH)
    assert stream.begun


def test_no_more_is_held_back_than_half_a_megabyte_of_events() -> None:
    stream = ChatStream("ours", hold_usage=True, pricer=gains)
    stream.feed(b": %b\n\n" % (b"x" * 600_000))
    opening = event({"choices": [{"index": 0, "delta": {"role": "assistant", "id": "x" * 300_000}}]})
    stream.feed(opening)
    assert not stream.begun
    stream.feed(opening)
    assert stream.begun


def test_one_of_several_choices_that_is_finished_does_not_finish_the_stream() -> None:
    first = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    second = event({"choices": [{"index": 1, "delta": {"content": "a"}}]})
    assert not relayed(second, first, second)[1].complete
    assert not relayed(second, first)[1].complete
    assert relayed(second, first, second, event({"choices": [{"index": 1, "finish_reason": "stop"}]}))[1].complete
    assert relayed(first, event({"choices": [{"delta": {"content": ""}}], "usage": USAGE}))[1].complete


@pytest.mark.parametrize("cut_at", [5, 12, 40, -3])
def test_half_an_event_is_broken(cut_at: int) -> None:
    _, stream = relayed(FINISH, event(chunk("a", usage=USAGE))[:cut_at])
    assert stream.complete is (cut_at == 5)  # "data:" alone says nothing
    assert bool(stream.broken) is (cut_at != 5)


@pytest.mark.parametrize("data", [b"{", b"oops", b"{'a': 1}", b'{"a": 1}}', b"[" * 5000, b"{" + b'"a":{' * 5000])
def test_what_is_not_json_is_broken(data: bytes) -> None:
    out, stream = relayed(event(chunk("a")), b"data: " + data + b"\n\n", event(chunk("b")))
    assert out == renamed(event(chunk("a")))
    assert stream.broken == "a malformed event"
    assert not stream.complete


@pytest.mark.parametrize("piece", [b"x" * 1000, b"data: x\n", b"\r" + b"x" * 500])
def test_an_endless_event_is_cut_off(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 20_000)
    stream = ChatStream("ours", hold_usage=True, pricer=gains)
    for _ in range(20_000 // len(piece) + 2):
        assert not stream.feed(piece)
    assert stream.broken == "an event is too large"


def test_a_long_event_in_small_pieces_takes_no_time_to_join() -> None:
    line = b"data: " + b" " * 500 + b"\n"  # 4 MB in 8,000 lines: joined anew with each, that were 16 GB
    end = b"data: " + json.dumps(chunk("a", "stop")).encode() + b"\n\n"
    out, stream = relayed(*[line] * 8000, end, DONE)
    assert stream.complete
    assert len(out) < 4_100_000


# --- an event's content ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": {}},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {}}]},
        {"choices": [{"delta": []}]},
        {"choices": [{"delta": {"content": 5, "tool_calls": {"function": 1}}}]},
        {"choices": [{"delta": {"content": [1, {"text": 2}], "tool_calls": [1, {}]}}]},
        {"model": None},
        {"model": ""},
        {"model": 5},
        {"model": {"model": "theirs"}},
        {"usage": None},
        {"usage": {}},
        {"usage": []},
        {"usage": 5, "choices": [{"delta": {}}]},
        {"error": None},
        {"error": ""},
        {"error": {}},
        {"x_groq": None},
        {"x_groq": {"usage": 5}},
        {"object": ["error"], "type": {}},
        [],
        "text",
        5,
        None,
    ],
)
def test_odd_chunks_pass(sent: object) -> None:
    data = event(sent) + event(chunk("a")) + FINISH
    out, stream = relayed(data, DONE)
    if isinstance(sent, dict) and sent.get("model") is not None:
        data = data.replace(event(sent), event({"model": "ours"}))
    if isinstance(sent, dict) and sent.get("usage") is not None and "choices" not in sent:
        data = data.replace(event(sent), b"")  # nothing but usage, if of a kind
    assert out == renamed(data) + DONE
    assert stream.complete
    assert stream.usage is None


def test_the_model_may_change_on_the_way() -> None:
    names = ["", "theirs", "theirs", "theirs-2", "ours", "theirs", "a" * 5000, 1, 12]
    sent = [event(chunk("a", model=name)) for name in names]
    out, _ = relayed(*sent, FINISH, DONE)
    assert out == b"".join(event(chunk("a", model="ours")) for _ in names) + renamed(FINISH) + DONE


def test_a_model_in_the_text_stays() -> None:
    text = '"model": "theirs", {"model":"theirs"}'
    out, _ = relayed(event({"system": {"model": "theirs"}, **chunk(text)}), FINISH, DONE)
    assert json.loads(out[6:].split(b"\n\n")[0]) == {"system": {"model": "theirs"}, **chunk(text), "model": "ours"}


HALF_EMOJI = b'data: {"model":"theirs","choices":[{"delta":{"content":"\\ud83d"}}]}\n\n'


@pytest.mark.parametrize(
    "sent",
    [
        HALF_EMOJI,  # cut in two by a tokeniser
        b'data: {"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"}}],"x":NaN,"y":1e400,"z":' + b"9" * 4000 + b"}\n\n",
        b'data: {"choices":[{"delta":{"content":"\xff"}}],"id":"\xe2\x82"}\n\n',
        b'data: {"id":"\xff","model":"theirs","model":"theirs","choices":[{"delta":{"content":"a"}}]}\n\n',
    ],
)
def test_what_only_a_lax_reader_takes_passes(sent: bytes) -> None:
    out, stream = relayed(sent, FINISH, DONE)
    assert out == sent + renamed(FINISH) + DONE
    assert stream.complete
    assert len(stream.text()) == 1


def test_usage_that_only_a_lax_reader_takes_is_metered() -> None:
    sent = b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":7,"completion_tokens":3,"x":NaN}}\n\n'
    out, stream = relayed(sent, FINISH, DONE)
    assert out.startswith(sent)
    assert stream.usage == Usage(7, 3)


def test_usage_with_a_name_twice_is_metered_and_stays() -> None:
    sent = b'data: {"choices":[{"delta":{}}],"usage":{"cost":1,"cost":2,"prompt_tokens":7,"completion_tokens":3}}\n\n'
    out, stream = relayed(sent, FINISH, DONE)
    assert out.startswith(sent)
    assert stream.usage == Usage(7, 3)


def test_the_last_usage_counts() -> None:
    more = {"prompt_tokens": 7, "completion_tokens": 4}
    _, stream = relayed(event(chunk("a", usage=USAGE)), event(chunk("b", usage=more)), FINISH, DONE)
    assert stream.usage == Usage(7, 4)


def test_usage_of_groq() -> None:
    _, stream = relayed(event(chunk("a", x_groq={"id": "r"})), event(chunk(finish="stop", x_groq={"usage": USAGE})))
    assert stream.usage == Usage(7, 3)


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"content": "", "refusal": "No"}, "No"),
        ({"content": "a", "reasoning_content": "b"}, "ab"),
        ({"content": None, "reasoning": "b"}, "b"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "b"}]}, {"text": "a"}]}, "ba"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"arguments": "1"}}]}, "f{}1"),
        ({"content": None, "function_call": {"name": "f", "arguments": "{}"}}, "f{}"),
        (
            {"tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "a"}}, {"custom": {"input": "b"}}]},
            "fab",
        ),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, 'f{"a":1}'),
        ({"role": "assistant", "content": "a", "refusal": None, "tool_calls": []}, "a"),
        ({"content": "a", "thinking": "b"}, "ab"),
        ({"reasoning": {"text": "b"}}, "b"),
        ({"content": {"a": 1}}, '{"a":1}'),
        ({"audio": {"id": "x", "transcript": "a", "data": "AAAA"}}, "a"),
        ({"audio": {"data": "AAAA"}}, ""),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "a"}, {"summary": "b"}]}, "ab"),
        ({"reasoning_details": [{"data": "A" * 1010}]}, "AA"),
        ({"executed_tools": [{"type": "search", "arguments": "a", "output": "found"}]}, "a"),
        ({"role": "assistant", "inner_voice": ["a"], "provider_metadata": {"x": "y"}}, "a"),
    ],
)
def test_all_that_is_said_is_kept_for_counting(delta: object, text: str) -> None:
    _, stream = relayed(event({"choices": [{"delta": delta}]}), FINISH, DONE)
    assert stream.text() == text


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning": "a", "reasoning_content": "a"},
        {"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a", "signature": "A" * 1002}]},
        {"reasoning_content": "a", "thinking_blocks": [{"type": "thinking", "thinking": "a"}]},
        {"inner_voice": "a", "again": {"inner_voice": "a"}},
    ],
)
def test_what_is_said_twice_is_counted_once(delta: object) -> None:
    _, stream = relayed(event({"choices": [{"delta": delta}]}), FINISH, DONE)
    assert stream.text() == "a"


def test_an_image_counts_as_many_tokens() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    for delta in ({"content": "", "images": [image]}, {"content": [image]}):
        _, stream = relayed(event({"choices": [{"delta": delta}]}), FINISH, DONE)
        assert stream.text().split() == ["image"] * 1290


def test_a_message_in_place_of_a_delta_is_counted() -> None:
    pieces = [{"message": {"content": "a"}}, {"delta": {}, "message": {"content": "all"}}]
    _, stream = relayed(*(event({"choices": [piece]}) for piece in pieces), FINISH, DONE)
    assert stream.text() == "a"


# --- errors within a stream ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (event({"error": {"message": "Down", "code": 502}}), "Down"),
        (event({**chunk("", "error"), "error": {"message": "Down"}}), "Down"),
        (event({"error": "Down"}), "Down"),
        (event({"error": True}), "True"),
        (event({"type": "error", "error": {"type": "overloaded_error", "message": "Down"}}), "Down"),
    ],
)
def test_an_error_ends_the_stream(sent: bytes, message: str) -> None:
    out, stream = relayed(event(chunk("a")), FINISH, sent, DONE)
    assert out == renamed(event(chunk("a")) + FINISH + sent)
    assert stream.error is not None
    assert stream.error["message" if "message" in stream.error else "x"] in (message, 1)
    assert not stream.complete


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"event: error\n" + event({"message": "Down"}), "Down"),
        (b"event:error\r\n" + event({"detail": "Down"}), "Down"),
        (b"event: error\n" + event({"x": 1}), None),
        (event({"object": "error", "message": "Down", "code": 400}), "Down"),
        (event({"type": "error", "message": ["Down"]}), '["Down"]'),
    ],
)
def test_an_error_that_no_sdk_knows_is_said_in_openais_words(sent: bytes, message: str | None) -> None:
    begun = event(chunk("a"))
    out, stream = relayed(begun, sent, DONE)
    assert stream.error is not None
    assert stream.error.get("message") == message
    first, last, rest = out.removeprefix(renamed(begun)).split(b"\n\n")
    assert not rest
    told = json.loads(first.removeprefix(b"data: "))
    assert (told["error"], told["choices"][0]["finish_reason"]) == (stream.error, "error")
    assert json.loads(last.removeprefix(b"data: ")) == {"error": stream.error}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"delta": {}, "finish_reason": "insufficient_system_resource"}, "gave the answer up"),
        ({"delta": {"content": "b"}, "finish_reason": "abort"}, "gave the answer up"),
        ({"delta": {}, "finish_reason": "error", "error": {"message": "Down"}}, "Down"),
    ],
)
def test_a_choice_that_the_provider_gave_up_is_no_answer(choice: dict[str, Any], message: str) -> None:
    sent = event({"choices": [{"index": 0, **choice}]})
    out, stream = relayed(event(chunk("a")), sent, DONE)
    assert not stream.complete
    assert stream.error is not None
    assert message in stream.error["message"]
    assert out.startswith(renamed(event(chunk("a"))) + sent + b'data: {"error":')
    with pytest.raises(NotAnAnswer) as caught:
        edited(json.dumps({"choices": [{"message": {"content": "a"}, **choice}]}).encode())
    assert caught.value.error == stream.error


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n\r\n"])
def test_a_plain_error_in_place_of_a_stream(end: bytes) -> None:
    body = json.dumps({"error": {"message": "Down", "code": 502}}, indent=1).encode() + end
    for pieces in ([body], cut(body)):
        _, stream = relayed(*pieces)
        assert stream.error == {"message": "Down", "code": 502}
        assert not stream.complete


def test_a_plain_answer_in_place_of_a_stream() -> None:
    _, stream = relayed(b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}')
    assert stream.broken == "its answer is no stream"
    assert not stream.complete


def test_usage_beside_an_error_is_metered() -> None:
    _, stream = relayed(event({"error": {"message": "Down"}, "choices": [], "usage": USAGE}))
    assert stream.usage == Usage(7, 3)


@pytest.mark.parametrize(
    "begun", [b'data: {"id":"gen', b": comm", b"event: mess", b"data: ", b"id: 1\r\n", b": ping\n"]
)
def test_half_a_line_is_left_out_before_the_gateways_own_end(begun: bytes) -> None:
    stream = ChatStream("ours", hold_usage=True, pricer=gains)
    out = stream.feed(event(chunk("a")) + begun) + stream.close()
    assert not stream.complete
    assert out == renamed(event(chunk("a")))


def test_a_whole_event_without_its_blank_line_is_ended_before_the_gateways_own_end() -> None:
    stream = ChatStream("ours", hold_usage=True, pricer=gains)
    out = stream.feed(event(chunk("a"))[:-2]) + stream.close()
    assert out == renamed(event(chunk("a")))


def test_the_gateways_own_end() -> None:
    stream = ChatStream("ours", hold_usage=True, pricer=gains)
    stream.feed(event(chunk("a")))
    out = stream.fail(Error(502, "Broken „off“", "api_error", "provider_error"))
    assert out.endswith(b"\n\n")
    _, again = relayed(out)
    assert again.error == {"message": "Broken „off“", "type": "api_error", "param": None, "code": "provider_error"}


# --- plain answers ---------------------------------------------------------------------------------------------------

PLAIN = {"model": "theirs", "choices": [{"message": {"content": "Hi"}}], "usage": USAGE}


def edited(body: bytes) -> Relayed:
    return edit_answer(body, "ours", gains)


def test_a_plain_answer() -> None:
    answer = edited(b" " + json.dumps(PLAIN).encode() + b"\n")
    assert answer.body == b' {"model": "ours", "choices": [{"message": {"content": "Hi"}}], ' + PRICED + b"}\n"
    assert (answer.usage, answer.text) == (Usage(7, 3), "")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "Hi"),
        ({"usage": None}, "Hi"),
        ({"usage": {}}, "Hi"),
        ({"choices": []}, ""),
        ({"choices": None}, ""),
        ({"choices": [{"message": {"content": None, "tool_calls": [{"function": {"name": "f"}}]}}]}, "f"),
        ({"choices": [{"message": {"content": "a", "reasoning": "b", "audio": {"transcript": "c"}}}]}, "abc"),
        ({"choices": [{"message": {"content": [{"type": "text", "text": "b"}]}}]}, "b"),
        ({"choices": {"a": 1}}, '{"a": 1}'),
        ({"error": None}, "Hi"),
        ({"model": None}, "Hi"),
    ],
)
def test_a_plain_answer_without_usage_leaves_its_text_to_be_counted(change: Mapping[str, object], text: str) -> None:
    body = {"choices": PLAIN["choices"], **change}
    answer = edited(json.dumps(body).encode())
    assert answer.usage is None
    assert answer.text == text


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"theirs","choices":[{"logprobs":NaN}],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        b'{"model":"theirs","choices":["\\ud83d"],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        b'{"model":"theirs","model":"theirs","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        b'{"choices":["\xff"],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
        b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"cost":1,"cost":2}}',
    ],
)
def test_an_answer_that_only_a_lax_reader_takes_is_metered_and_passes(body: bytes) -> None:
    answer = edited(body)
    assert answer.body == body
    assert answer.usage == Usage(7, 3)


def test_numbers_beyond_every_reader_pass() -> None:
    body = b'{"choices":[{"message":{"content":"Hi"},"x":1e400}],"y":' + b"9" * 5000 + b"}"
    assert edited(body) == Relayed(body, None, "Hi")


def test_a_byte_order_mark_is_left_out() -> None:
    assert edited(b"\xef\xbb\xbf" + b'{"choices":[]}').body == b'{"choices":[]}'


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", None),
        (b"<html>", None),
        (b"[]", None),
        (b"5", None),
        (b'{"choices":[', None),
        (b'{"choices":' + b"[" * 5000 + b"]" * 5000 + b"}", None),
        (b'data: {"choices":[]}\n\n', None),
        (b"{}", None),
        (b'{"result":1}', None),
        (b'{"error":{"message":"Down"}}', {"message": "Down"}),
        (b'{"error":"Down","choices":[]}', {"message": "Down"}),
        (b'{"error":{"message":"Down","x":NaN}}', {"message": "Down"}),
        (b'{"object":"error","message":"Down","code":400}', {"object": "error", "message": "Down", "code": 400}),
    ],
)
def test_what_is_no_answer(body: bytes, error: dict[str, object] | None) -> None:
    with pytest.raises(NotAnAnswer) as caught:
        edited(body)
    found = caught.value.error
    assert (found and {name: value for name, value in found.items() if name != "x"}) == error
    assert str(caught.value)


# --- several choices --------------------------------------------------------------------------------------------------


def _delta(index: int, finish: str | None = None, **said: object) -> bytes:
    choice = {"index": index, "delta": said, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


CALL = {"index": 0, "function": {"arguments": "{"}}


@pytest.mark.parametrize(
    ("events", "finished"),
    [
        ([_delta(0, content="a"), _delta(0, "stop")], True),
        ([_delta(0, content="a"), _delta(1, content="b"), _delta(0, "stop")], False),
        ([_delta(0, content="a"), _delta(1, content="b"), _delta(0, "stop"), _delta(1, "stop")], True),
        ([_delta(0, content="a"), _delta(0, "stop"), _delta(1, content="b")], False),
        ([_delta(0, content="a"), _delta(0, "stop"), _delta(1, tool_calls=[CALL])], False),
        ([_delta(0, content="a"), _delta(0, "stop"), _delta(0)], True),
        ([_delta(0, "stop", content="all at once")], True),
    ],
)
def test_the_end_of_each_choice(events: list[bytes], finished: bool) -> None:
    stream = ChatStream("m", hold_usage=True, pricer=lambda _: {})
    for piece in events:
        stream.feed(piece)
    stream.close()
    assert stream.complete == finished


# --- ended by the gateway --------------------------------------------------------------------------------------------

TOLD = Usage(7, 2)


def payloads(out: bytes) -> list[Any]:
    *found, done, rest = out.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(each.removeprefix(b"data: ")) for each in found]


@pytest.mark.parametrize("hold", [True, False])
def test_a_stream_is_cut(hold: bool) -> None:
    stream = ChatStream("ours", hold_usage=hold, pricer=gains)
    stream.feed(event(chunk("Hel", created=5, system_fingerprint="fp")))
    stream.feed(b'data: {"half')
    last, *usage = payloads(stream.cut(TOLD))
    head = {"id": "c", "created": 5, "system_fingerprint": "fp", "model": "ours"}
    ended = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert last == {**head, "choices": [ended], **({} if hold else {"usage": None})}
    assert [(each["choices"], each["usage"]["completion_tokens"], each["usage"]["cost"]) for each in usage] == (
        [] if hold else [([], 2, 1)]
    )
    assert (stream.complete, stream.over, stream.usage, stream.said, stream.text()) == (True, True, TOLD, 3, "Hel")
    assert stream.cut(TOLD) == b""


def test_each_choice_that_goes_on_is_cut() -> None:
    stream = ChatStream("m", hold_usage=True, pricer=gains)
    for piece in (_delta(0, content="a"), _delta(1, content="b"), _delta(2, tool_calls=[CALL]), _delta(1, "stop")):
        stream.feed(piece)
    found = [choice for each in payloads(stream.cut(TOLD)) for choice in each["choices"]]
    assert [(choice["index"], choice["finish_reason"]) for choice in found] == [(0, "length"), (2, "length")]


def test_what_has_finished_by_itself_is_not_cut() -> None:
    stream = ChatStream("m", hold_usage=False, pricer=gains)
    stream.feed(_delta(0, "stop", content="a"))
    (usage,) = payloads(stream.cut(TOLD))
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 9)


def test_nothing_is_cut() -> None:
    stream = ChatStream("m", hold_usage=True, pricer=gains)
    (only,) = payloads(stream.cut(TOLD))
    assert only["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert only["object"] == "chat.completion.chunk"


def test_a_count_of_the_prompt_alone() -> None:
    stream = ChatStream("m", hold_usage=True, pricer=gains)
    counted = {"prompt_tokens": 7, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 2}}
    stream.feed(event(chunk("", usage=counted)))
    assert (stream.usage, stream.prompt_usage) == (None, Usage(7, cached=2))
    stream.feed(event(chunk("a", usage={**counted, "completion_tokens": 1})))
    assert (stream.usage, stream.prompt_usage) == (Usage(7, 1, 2), Usage(7, cached=2))
