"""Answers of other providers as a client of Responses gets them: the API's own events, in its order."""

import json
from collections.abc import Iterable
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from proxy.formats import openai_responses
from proxy.formats.base import Error
from proxy.formats.canonical import (
    Answer,
    Choice,
    Citation,
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
    play,
    seal,
)
from proxy.formats.openai_responses import NAME
from proxy.formats.openai_responses.request_reader import ENCRYPTED
from tests.proxy.formats import responses as wire

USAGE = Usage(9, 5, 4, 1, 2)
SEALED = seal("anthropic_messages", "SIG")
_event = TypeAdapter(ResponseStreamEvent)


def events(*parts: Part, reason: str = "stop", raw: str = "") -> list[Event]:
    return list(play(Answer([Choice(list(parts), reason, raw)], usage=USAGE)))


def streamed() -> list[Event]:
    """Thoughts that are signed at their end, a text in pieces, a call."""
    return [
        Start("a", "b"),
        PartStart(0, Thinking()),
        PartDelta(0, "Hm"),
        PartEnd(0, signature="SIG", origin="anthropic_messages"),
        PartStart(1, Text("")),
        PartDelta(1, "Hel"),
        PartDelta(1, "lo"),
        PartEnd(1),
        PartStart(2, ToolCall("toolu_1", "weather")),
        PartDelta(2, '{"city":'),
        PartDelta(2, '"Oslo"}'),
        PartEnd(2),
        UsageSeen(USAGE),
        Finish("tool_calls", "tool_use"),
        End(),
    ]


def output(*parts: Part, **body: Any) -> list[dict[str, Any]]:
    return answer(*parts, **body)["output"]


def answer(*parts: Part, reason: str = "stop", raw: str = "", **body: Any) -> dict[str, Any]:
    """The response object; streamed it is the same as plain."""
    *_, last = wire.written(events(*parts, reason=reason, raw=raw), **body)
    plain = openai_responses.write_answer(Answer([Choice(list(parts), reason, raw)], usage=USAGE), wire.ask(**body))
    assert json.loads(plain) == last["response"]
    Response.model_validate(last["response"])
    found: dict[str, Any] = last["response"]
    return found


def test_it_works() -> None:
    found = wire.written(streamed())
    kinds = [event["type"].removeprefix("response.") for event in found]
    text, reasoning = ["content_part.added", "output_text.delta"], "reasoning_summary"
    assert kinds == [
        *("created", "in_progress", "output_item.added", f"{reasoning}_part.added", f"{reasoning}_text.delta"),
        *(f"{reasoning}_text.done", f"{reasoning}_part.done", "output_item.done"),
        *("output_item.added", *text, "output_text.delta", "output_text.done", "content_part.done"),
        *("output_item.done", "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta"),
        *("function_call_arguments.done", "output_item.done", "completed"),
    ]
    for event in found:
        _event.validate_python(event)


def test_items() -> None:
    *_, last = wire.written(streamed())
    thought, message, call = last["response"]["output"]
    assert thought == {
        "id": "rs_x1_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "encrypted_content": SEALED,
    }
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello"}
    whole = {"id": "msg_x1_2", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    assert message == whole
    arguments = '{"city":"Oslo"}'
    known = {"id": "fc_x1_3", "type": "function_call", "status": "completed", "call_id": "toolu_1", "name": "weather"}
    assert call == {**known, "arguments": arguments}


def test_places_and_ids_agree() -> None:
    open_items: dict[int, str] = {}
    for event in wire.written(streamed()):
        if event["type"] == "response.output_item.added":
            open_items[event["output_index"]] = event["item"]["id"]
        elif event["type"] == "response.output_item.done":
            assert open_items[event["output_index"]] == event["item"]["id"]
        elif "item_id" in event:
            assert open_items[event["output_index"]] == event["item_id"]
    assert list(open_items) == [0, 1, 2]


# --- the official SDK


def client(events_: Iterable[Event], **body: Any) -> openai.OpenAI:
    writer = openai_responses.writer(wire.ask(**body))
    data = b"".join([writer.send(event) for event in events_])
    headers = {"content-type": "text/event-stream"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, content=data))
    return openai.OpenAI(api_key="k", base_url="http://test/v1", http_client=httpx.Client(transport=transport))


def test_the_sdk_streams_it() -> None:
    with client(streamed()).responses.stream(model="m", input="Hi") as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        found = stream.get_final_response()
    assert said == found.output_text == "Hello"
    assert found.output[2].to_dict()["arguments"] == '{"city":"Oslo"}'
    assert found.usage is not None
    assert found.usage.input_tokens_details.cached_tokens == 4


def test_the_sdk_parses_structure() -> None:
    class City(BaseModel):
        name: str

    plain = openai_responses.write_answer(Answer([Choice([Text('{"name": "Oslo"}')])]), wire.ask())
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=json.loads(plain)))
    sdk = openai.OpenAI(api_key="k", base_url="http://test/v1", http_client=httpx.Client(transport=transport))
    assert sdk.responses.parse(model="m", input="Hi", text_format=City).output_parsed == City(name="Oslo")


@pytest.mark.parametrize("begun", [0, 6])
def test_the_sdk_raises_what_failed(begun: int) -> None:
    failed = [*streamed()[:begun], Failure({"message": "boom", "type": "api_error", "code": "overloaded"})]
    with pytest.raises(openai.APIError, match="boom"):
        list(client(failed).responses.create(model="m", input="Hi", stream=True))


# --- the response object


def test_it_repeats_the_request() -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
    given = {"instructions": "Be brief.", "temperature": 0.5, "max_output_tokens": 20, "metadata": {"a": "b"}}
    given |= {"store": False, "user": "u", "tool_choice": "required", "parallel_tool_calls": False}
    found = answer(
        Text("Hi"), **given, tools=[tool], reasoning={"effort": "low"}, text={"verbosity": "low"}, top_p=None
    )
    assert {name: found[name] for name in given} == given
    assert found["tools"] == [{**tool, "description": None, "strict": True}]
    assert found["reasoning"] == {"effort": "low", "summary": None}
    assert found["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert found["top_p"] == 1.0
    assert (found["id"], found["model"], found["created_at"]) == ("resp_x1", wire.MODEL, 1700000000)


def test_usage_and_price() -> None:
    assert answer(Text("Hi"))["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
        "cached_tokens": 4,
        "cost": 0.009,
    }


@pytest.mark.parametrize(
    ("reason", "raw", "status", "details", "native"),
    [
        ("stop", "end_turn", "completed", None, None),
        ("stop_sequence", "stop_sequence", "completed", None, "stop_sequence"),
        ("tool_calls", "tool_use", "completed", None, None),
        ("pause", "pause_turn", "completed", None, "pause_turn"),
        ("length", "max_tokens", "incomplete", {"reason": "max_output_tokens"}, None),
        ("content_filter", "SAFETY", "incomplete", {"reason": "content_filter"}, "SAFETY"),
        ("refusal", "refusal", "incomplete", {"reason": "content_filter"}, "refusal"),
    ],
)
def test_reasons(reason: str, raw: str, status: str, details: Any, native: str | None) -> None:
    found = answer(Text("Hi"), reason=reason, raw=raw)
    assert (found["status"], found["incomplete_details"]) == (status, details)
    assert found.get("native_finish_reason") == native
    assert found["output"][0]["status"] == ("incomplete" if reason == "length" else "completed")
    assert wire.written(events(Text("Hi"), reason=reason))[-1]["type"] == f"response.{status}"


def test_the_store_gets_the_response() -> None:
    writer = openai_responses.writer(wire.ask())
    *before, end = streamed()
    for event in before:
        writer.send(event)
        assert writer.response == b""
    (last,) = [json.loads(line[6:]) for line in writer.send(end).splitlines() if line.startswith(b"data: ")]
    assert json.loads(writer.response) == last["response"]


# --- parts


def test_texts_in_a_row_are_one_message() -> None:
    (message,) = output(Text("a"), Text("b"), Refusal("No."))
    assert [part.get("text", part.get("refusal")) for part in message["content"]] == ["a", "b", "No."]


def test_empty_parts_leave_no_trace() -> None:
    assert [item["type"] for item in output(Text(""), Thinking(), ToolCall("c", "f", "{}"))] == ["function_call"]


def test_raw_thoughts_are_shown_as_a_summary() -> None:
    (item,) = output(Thinking("Raw"))
    assert item["summary"] == [{"type": "summary_text", "text": "Raw"}]


@pytest.mark.parametrize(
    ("body", "sealed"),
    [({}, False), ({"store": True}, False), ({"store": False}, True), ({"include": [ENCRYPTED]}, True)],
)
def test_plain_thoughts_are_sealed_where_clients_keep_nothing_else(body: dict[str, Any], sealed: bool) -> None:
    thought, *_ = output(Thinking("Hm"), Text("Hi"), **body)
    assert thought.get("encrypted_content") == (seal("openai_chat", "Hm") if sealed else None)
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm"}]
    del thought["summary"]
    (message,) = openai_responses.read_request(wire.members(input=[{**thought, "summary": []}])).messages
    assert [(part.text, part.origin) for part in message.parts] == ([("Hm", "openai_chat")] if sealed else [("", NAME)])


def test_a_signed_thought_keeps_its_own_seal() -> None:
    signed = Thinking("Hm", signature="SIG", origin="anthropic_messages")
    assert output(signed, store=False)[0]["encrypted_content"] == SEALED


def test_hidden_thoughts_come_back_sealed() -> None:
    (item,) = output(Thinking(redacted=True, signature="SIG", origin="anthropic_messages"))
    assert (item["summary"], item["encrypted_content"]) == ([], SEALED)


def test_the_apis_own_thoughts_keep_their_id() -> None:
    own = Thinking(redacted=True, signature="rs_7 gAAA", origin=openai_responses.NAME)
    assert output(own) == [{"id": "rs_7", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}]


def test_a_calls_signature_goes_before_it() -> None:
    call = ToolCall("c", "f", "{}", signature="S", origin="gemini")
    sealed = seal("gemini", "S")
    carrier, _ = output(call)
    assert (carrier["type"], carrier["summary"], carrier["encrypted_content"]) == ("reasoning", [], sealed)
    thought, _ = output(Thinking("Hm"), call)
    assert (thought["summary"][0]["text"], thought["encrypted_content"]) == ("Hm", sealed)
    *_, second, _ = output(Thinking("Hm", signature="T", origin="gemini"), call)
    assert second["encrypted_content"] == sealed


def test_a_signature_behind_a_text_is_never_the_last_item() -> None:
    def signed(*more: Event) -> list[dict[str, Any]]:
        ended = [PartStart(0, Text("Hi")), PartEnd(0, signature="S", origin="gemini"), *more, Finish("stop"), End()]
        found: list[dict[str, Any]] = wire.written(ended)[-1]["response"]["output"]
        return found

    assert [item["type"] for item in signed()] == ["message"]
    call = [PartStart(1, ToolCall("c", "f", "{}")), PartEnd(1)]
    assert [item["type"] for item in signed(*call)] == ["message", "reasoning", "function_call"]


def test_a_call_without_arguments() -> None:
    found = wire.written(events(ToolCall("c", "f")))
    deltas = [event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta"]
    assert deltas == ["{}"]
    assert found[-1]["response"]["output"][0]["arguments"] == "{}"


PATCH = {"type": "custom", "name": "patch"}


@pytest.mark.parametrize(
    "call",
    [
        ToolCall("c", "patch", '{"input":"*** Begin\\n"}'),
        ToolCall("c", "patch", "*** Begin\n"),
        ToolCall("c", "patch", "*** Begin\n", custom=True),
    ],
)
def test_a_custom_tool_gets_its_input(call: ToolCall) -> None:
    found = wire.written(events(call), tools=[PATCH])
    assert found[-1]["response"]["output"] == [
        {
            "id": "ctc_x1_1",
            "type": "custom_tool_call",
            "status": "completed",
            "input": "*** Begin\n",
            "call_id": "c",
            "name": "patch",
        }
    ]
    deltas = [event["delta"] for event in found if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == "*** Begin\n"


def test_a_function_of_a_namespace_is_called_there() -> None:
    inner = {"type": "function", "name": "wait", "parameters": {"type": "object", "properties": {}}}
    tools = [{"type": "namespace", "name": "agents", "description": "Agents", "tools": [inner]}]
    (call,) = output(ToolCall("c", "agents__wait", "{}"), tools=tools)
    assert (call["namespace"], call["name"]) == ("agents", "wait")


def test_calls_that_overlap_are_put_in_a_row() -> None:
    one, two = ToolCall("a", "f"), ToolCall("b", "g")
    mixed = [PartStart(0, one), PartStart(1, two), PartDelta(1, '{"b"'), PartDelta(0, "{}"), PartDelta(1, ":1}")]
    found = wire.written([*mixed, PartEnd(0), PartEnd(1), Finish("tool_calls"), End()])
    items = found[-1]["response"]["output"]
    assert [(item["name"], item["arguments"]) for item in items] == [("f", "{}"), ("g", '{"b":1}')]


URL = Citation("http://a", "A", start=0, end=2)


def test_citations() -> None:
    found = wire.written(events(Text("Hi", [URL])))
    annotation = {"type": "url_citation", "url": "http://a", "title": "A", "start_index": 0, "end_index": 2}
    assert [event["annotation"] for event in found if "annotation" in event] == [annotation]
    assert found[-1]["response"]["output"][0]["content"][0]["annotations"] == [annotation]


def test_logprobs_where_they_were_asked_for() -> None:
    logprobs = [{"token": "Hi", "logprob": -0.1, "bytes": [72], "top_logprobs": []}]
    said = [PartStart(0, Text("")), PartDelta(0, "Hi", logprobs=logprobs), PartEnd(0), Finish("stop"), End()]
    for body, expected in (({"include": ["message.output_text.logprobs"]}, logprobs), ({}, [])):
        found = wire.written(said, **body)
        assert [event["logprobs"] for event in found if event["type"] == "response.output_text.delta"] == [expected]
        assert found[-1]["response"]["output"][0]["content"][0]["logprobs"] == expected


def test_an_image() -> None:
    found = wire.written(events(Media("image", "image/webp", "AAAA")))
    (item,) = found[-1]["response"]["output"]
    assert (item["type"], item["result"], item["output_format"]) == ("image_generation_call", "AAAA", "webp")


def test_what_is_said_in_sound_is_written_down() -> None:
    sound = Media("audio", "audio/wav", "AAAA", transcript="Hi ")
    said: list[Event] = [PartStart(0, sound), PartDelta(0, "BBBB", transcript="you"), PartEnd(0)]
    found = wire.written([*said, Finish("stop"), End()])
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "Hi you"


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (Media("audio", "audio/wav", "AAAA"), "audio"),
        (Media("file", data="AAAA"), "file"),
        (Opaque("server_tool_use", {"id": 1}, origin="anthropic_messages"), "server_tool_use"),
        (Text("Hi", [Citation(quote="Hi")]), "citations"),
    ],
)
def test_losses(part: Part, name: str) -> None:
    given = wire.ask()
    writer = openai_responses.writer(given)
    for event in [*events(part)[:2], PartDelta(0, "more"), PartEnd(0), Finish("stop"), End()]:
        writer.send(event)
    assert given.losses.names == [f"answer.{name}"]
    assert given.losses.grave == []


def test_of_several_choices_the_first() -> None:
    given = wire.ask()
    both = Answer([Choice([Text("a")]), Choice([Text("b")])])
    found = json.loads(openai_responses.write_answer(both, given))
    assert [item["content"][0]["text"] for item in found["output"]] == ["a"]
    assert given.losses.names == ["answer.choices"]


# --- ends that are none


def test_a_failure_is_the_apis_own_two_events() -> None:
    writer = openai_responses.writer(wire.ask())
    sent = b"".join([writer.send(event) for event in streamed()[:6]])
    *_, error, failed = wire.parsed(sent + writer.send(Failure({"message": "boom", "code": "overloaded"})))
    assert error["error"] == {"message": "boom", "code": "overloaded"}
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "overloaded", "message": "boom"}
    assert [item["type"] for item in failed["response"]["output"]] == ["reasoning"]
    assert writer.response == b""


def test_a_failure_of_the_gateway() -> None:
    writer = openai_responses.writer(wire.ask())
    (error,) = wire.parsed(writer.fail(Error(502, "Silent.", "api_error", "provider_error")))
    assert error["error"] == {"message": "Silent.", "type": "api_error", "param": None, "code": "provider_error"}
