"""Answers of any format, written as Anthropic's Messages: its own SDK reads them."""

import json
from typing import Any

import anthropic
import pytest

from proxy.formats import anthropic_messages
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
    Reasoning,
    Refusal,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    UsageSeen,
    play,
    seal,
    unseal,
)
from tests.proxy.formats import messages as wire

OWN = anthropic_messages.NAME


# --- writing ---------------------------------------------------------------------------------------------------------


def _played(*parts: Part, reason: str = "stop", raw: str = "", usage: Usage | None = None) -> list[Event]:
    return list(play(Answer([Choice(list(parts), reason, raw)], "x", "up-1", usage or Usage(9, 5))))


def _both(*parts: Part, asked: Request | None = None, reason: str = "stop") -> list[dict[str, Any]]:
    """The content that the SDK reads, the same of the stream and of the plain answer."""
    plain = Answer([Choice(list(parts), reason)], usage=Usage(9, 5))
    read = wire.content(wire.by_sdk(anthropic_messages.write_answer(plain, wire.ask(asked))))
    assert wire.content(wire.streamed_by_sdk(wire.sent(play(plain), wire.ask(asked)))) == read
    return read


def test_the_exact_sequence_of_a_stream() -> None:
    events = [
        Start(),
        PartStart(0, Text("")),
        PartDelta(0, "Hi"),
        PartEnd(0),
        Finish("stop"),
        UsageSeen(Usage(9, 5, 2, 1)),
        End(),
    ]
    counted = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "input_tokens": 0, "output_tokens": 0}
    in_all = {
        "cache_creation_input_tokens": 1,
        "cache_read_input_tokens": 2,
        "input_tokens": 6,
        "output_tokens": 5,
        "cost": 5,
    }
    opened = {"id": "msg_7", "type": "message", "role": "assistant", "model": wire.MODEL, "content": []}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    assert wire.parsed(wire.sent(events)) == [
        {"type": "message_start", "message": {**opened, "stop_reason": None, "stop_sequence": None, "usage": counted}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ended, "usage": in_all},
        {"type": "message_stop"},
    ]


def test_the_start_says_how_long_the_prompt_is_where_that_is_known() -> None:
    events = [Start(), UsageSeen(Usage(9, 1, 4)), PartStart(0, Text("Hi"))]
    usage = wire.parsed(wire.sent(events))[0]["message"]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (5, 4, 0)


def test_blocks_follow_on_each_other() -> None:
    """Two calls whose arguments come by turns, and text between."""
    events = [
        Start(),
        PartStart(0, ToolCall("a", "f")),
        PartStart(1, ToolCall("b", "g")),
        PartDelta(0, '{"x":'),
        PartDelta(1, '{"y":2}'),
        PartStart(2, Text("")),
        PartDelta(2, "Hi"),
        PartDelta(0, "1}"),
        PartEnd(0),
        PartEnd(1),
        PartEnd(2),
        Finish("tool_calls"),
        End(),
    ]
    out = wire.sent(events)
    assert [event.get("index") for event in wire.parsed(out)] == [None, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, None, None]
    assert wire.content(wire.streamed_by_sdk(out)) == [
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {"y": 2}},
        {"type": "text", "text": "Hi"},
    ]


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ("", {}),
        ("  ", {}),
        ("null", {}),
        ("{}", {}),
        (' {"a": 1.0}', {"a": 1}),
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ("[1]", {"INVALID_JSON": "[1]"}),
        ('"x"', {"INVALID_JSON": '"x"'}),
        ("nonsense", {"INVALID_JSON": "nonsense"}),
    ],
)
def test_input_is_an_object(arguments: str, read: dict[str, Any]) -> None:
    assert _both(ToolCall("a", "f", arguments)) == [{"type": "tool_use", "id": "a", "name": "f", "input": read}]


def test_broken_arguments_are_wrapped_and_named() -> None:
    asked = wire.ask()
    answer = Answer([Choice([ToolCall("a", "f", '{"a":')])])
    body = json.loads(anthropic_messages.write_answer(answer, asked))
    assert body["content"][0]["input"] == {"INVALID_JSON": '{"a":'}
    assert asked.losses.names == ["answer.tool_calls.arguments"]


def test_arguments_that_show_late_to_be_no_object() -> None:
    events = [Start(), PartStart(0, ToolCall("a", "f")), PartDelta(0, " "), PartDelta(0, "[1,"), PartDelta(0, "2]")]
    out = wire.sent([*events, PartEnd(0), Finish("tool_calls"), End()])
    assert wire.content(wire.streamed_by_sdk(out))[0]["input"] == {"INVALID_JSON": " [1,2]"}


def test_a_custom_tools_text_is_its_input() -> None:
    call = ToolCall("a", "apply", 'say "hi"\n', custom=True)
    assert _both(call)[0]["input"] == {"input": 'say "hi"\n'}
    events = [PartStart(0, ToolCall("a", "apply", custom=True)), PartDelta(0, 'say "'), PartDelta(0, 'hi"\n')]
    out = wire.sent([Start(), *events, PartEnd(0), Finish("tool_calls"), End()])
    assert wire.content(wire.streamed_by_sdk(out))[0]["input"] == {"input": 'say "hi"\n'}


def test_an_id_that_anthropic_would_refuse_is_mapped_alike_each_time() -> None:
    first, second = _both(ToolCall("call:1", "f"), ToolCall("call:1", "f"))
    assert first["id"] == second["id"]
    assert first["id"].startswith("call_1_")


def test_thoughts_of_another_format_come_sealed() -> None:
    [thought, redacted, _] = _both(
        Thinking("Hm", signature="abc", origin="gemini"),
        Thinking(redacted=True, signature="xyz", origin="openai_responses"),
        Text("Hi"),
    )
    assert unseal(thought["signature"]) == ("gemini", "abc")
    assert unseal(redacted["data"]) == ("openai_responses", "xyz")


def test_thoughts_that_nobody_signed_come_back_all_the_same() -> None:
    """Clients drop those with an empty signature."""
    thought, text = _both(Thinking("Hm"), Text("Hi"))
    assert (thought["thinking"], unseal(thought["signature"])) == ("Hm", ("", ""))
    assert text == {"type": "text", "text": "Hi"}
    [message] = wire.request(messages=[{"role": "assistant", "content": [thought]}]).messages
    assert message.parts == [Thinking("Hm", at="messages[0].content[0]")]


def test_a_signature_that_comes_last() -> None:
    events = [PartStart(0, Thinking("")), PartDelta(0, "Hm"), PartEnd(0, signature="abc", origin=OWN)]
    out = wire.sent([Start(), *events, PartStart(1, Text("Hi")), PartEnd(1), Finish("stop"), End()])
    assert wire.content(wire.streamed_by_sdk(out))[0] == {"type": "thinking", "thinking": "Hm", "signature": "abc"}


def test_a_calls_signature_is_carried_by_the_thought_before_it() -> None:
    [thought, call] = _both(Thinking("Hm"), ToolCall("a", "f", signature="abc", origin="gemini"))
    assert thought == {"type": "thinking", "thinking": "Hm", "signature": seal("gemini", "abc")}
    assert call["type"] == "tool_use"


def test_a_signature_without_a_thought_has_a_block_of_its_own() -> None:
    [carrier, text] = _both(Text("Hi", signature="abc", origin="gemini"))
    assert carrier == {"type": "redacted_thinking", "data": seal("gemini", "abc")}
    assert text == {"type": "text", "text": "Hi"}


def test_a_texts_signature_that_comes_late_stands_before_the_next_block() -> None:
    events = [PartStart(0, Text("Hi")), PartEnd(0, signature="abc", origin="gemini"), PartStart(1, ToolCall("a", "f"))]
    out = wire.sent([Start(), *events, PartEnd(1), Finish("tool_calls"), End()])
    assert [block["type"] for block in wire.content(wire.streamed_by_sdk(out))] == [
        "text",
        "redacted_thinking",
        "tool_use",
    ]


@pytest.mark.parametrize(
    "last",
    [
        Text("", signature="abc", origin="gemini"),
        Thinking(redacted=True, signature="abc", origin=OWN),
    ],
)
def test_what_nobody_can_read_never_comes_last(last: Part) -> None:
    """Claude Code shows the last block; the API refuses an assistant's message that ends so."""
    answer, plain, streamed = Answer([Choice([Text("Hi"), last])]), wire.ask(), wire.ask()
    body = json.loads(anthropic_messages.write_answer(answer, plain))
    read = wire.streamed_by_sdk(wire.sent(play(answer), streamed))
    assert body["content"] == wire.content(read) == [{"type": "text", "text": "Hi"}]
    assert plain.losses.names == streamed.losses.names == ["answer.signature"]


def test_thoughts_that_the_client_does_not_want_to_see() -> None:
    asked = Request([], reasoning=Reasoning(adaptive=True, visible=False))
    found = _both(Thinking("Hm", signature="abc", origin=OWN), Text("Hi"), asked=asked)
    assert found[0] == {"type": "thinking", "thinking": "", "signature": "abc"}
    assert _both(Thinking("Hm"), Text("Hi"), asked=asked) == [{"type": "text", "text": "Hi"}]


def test_nothing_said_is_no_block() -> None:
    assert _both(Text(""), Thinking(""), Refusal(""), Text("Hi"), Thinking(redacted=True)) == [
        {"type": "text", "text": "Hi"}
    ]
    assert _both() == []


def test_own_blocks_come_as_they_were() -> None:
    called = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    parts = [Opaque(each["type"], each, origin=OWN) for each in (called, result)]
    assert _both(*parts) == [called, result]


def test_citations_are_written() -> None:
    own = {"type": "page_location", "cited_text": "so", "document_index": 0, "start_page_number": 1}
    own |= {"document_title": "D", "end_page_number": 2}
    page = Citation("https://a.b", "A", "so", start=0, end=2)
    [text] = _both(Text("Hi", [Citation(origin=OWN, raw=own), page, Citation(file_id="f")]))
    assert text["citations"] == [
        own,
        {
            "type": "web_search_result_location",
            "url": "https://a.b",
            "title": "A",
            "cited_text": "so",
            "encrypted_index": "",
        },
    ]


@pytest.mark.parametrize(
    ("answer", "losses"),
    [
        (Answer([Choice([Text("Hi", [Citation(file_id="f")])])]), ["answer.citations"]),
        (Answer([Choice([Text("Hi", [Citation("https://a.b", start=0)])])]), ["answer.citations.range"]),
        (Answer([Choice([Media("image", data="xyz")])]), ["answer.image"]),
        (
            Answer([Choice([Opaque("image_generation_call", {}, origin="openai_responses")])]),
            ["answer.image_generation_call"],
        ),
        (Answer([Choice([Text("Hi")], logprobs=[{"token": "Hi"}])]), ["answer.logprobs"]),
        (Answer([Choice([Text("Hi")]), Choice([Text("Ho")])]), ["answer.choices"]),
    ],
)
def test_losses(answer: Answer, losses: list[str]) -> None:
    plain, streamed = wire.ask(), wire.ask()
    anthropic_messages.write_answer(answer, plain)
    wire.streamed_by_sdk(wire.sent(play(answer), streamed))
    assert plain.losses.names == streamed.losses.names == losses


def test_what_is_spoken_is_written_down() -> None:
    assert _both(Media("audio", data="xyz", transcript="Hi")) == [{"type": "text", "text": "Hi"}]


@pytest.mark.parametrize(
    ("reason", "raw", "word", "native"),
    [
        ("stop", "STOP", "end_turn", None),
        ("stop", "weird", "end_turn", "weird"),
        ("stop_sequence", "stop", "stop_sequence", None),
        ("length", "length", "max_tokens", None),
        ("length", "model_context_window_exceeded", "model_context_window_exceeded", None),
        ("tool_calls", "tool_calls", "tool_use", None),
        ("content_filter", "SAFETY", "refusal", "SAFETY"),
        ("refusal", "refusal", "refusal", None),
        ("pause", "pause_turn", "pause_turn", None),
    ],
)
def test_stop_reasons_are_written(reason: str, raw: str, word: str, native: str | None) -> None:
    events = _played(Text("Hi"), reason=reason, raw=raw)
    ended = wire.parsed(wire.sent(events))[-2]["delta"]
    answer = Answer([Choice([Text("Hi")], reason, raw)])
    plain = json.loads(anthropic_messages.write_answer(answer, wire.ask()))
    for found in (ended, plain):
        assert (found["stop_reason"], found.get("native_finish_reason")) == (word, native)


@pytest.mark.parametrize(("part", "word"), [(ToolCall("a", "f"), "tool_use"), (Refusal("No."), "refusal")])
def test_what_was_said_outweighs_a_plain_stop(part: Part, word: str) -> None:
    assert wire.parsed(wire.sent(_played(part)))[-2]["delta"]["stop_reason"] == word


def test_a_plain_answer_has_usage_and_price() -> None:
    answer = Answer([Choice([Text("Hi")], stop_sequence="END")], usage=Usage(9, 5, 2, 1, 3), service_tier="default")
    read = wire.by_sdk(anthropic_messages.write_answer(answer, wire.ask()))
    assert (read.id, read.model, read.role, read.stop_sequence) == ("msg_7", wire.MODEL, "assistant", "END")
    assert read.usage.model_dump(exclude_none=True) == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 1,
        "cache_read_input_tokens": 2,
        "output_tokens": 5,
        "output_tokens_details": {"thinking_tokens": 3},
        "service_tier": "standard",
        "cost": 5,
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "Busy", "type": "overloaded_error"}, "overloaded_error"),
        ({"message": "Busy", "type": "server_error", "status": 429}, "rate_limit_error"),
        ({"message": "Busy", "code": "x"}, "api_error"),
        ({}, "api_error"),
    ],
)
def test_the_providers_error_raises_in_the_sdk(error: dict[str, Any], kind: str) -> None:
    out = wire.sent([Start(), PartStart(0, Text("Hi")), Failure(error)])
    assert wire.parsed(out)[-1]["error"]["type"] == kind
    with pytest.raises(anthropic.APIStatusError):
        wire.streamed_by_sdk(out)


def test_the_gateways_error_raises_in_the_sdk() -> None:
    writer = anthropic_messages.writer(wire.ask())
    out = writer.send(Start()) + writer.send(PartStart(0, Text("Hi")))
    with pytest.raises(anthropic.APIStatusError, match="silent"):
        wire.streamed_by_sdk(out + writer.fail(Error(504, "It fell silent.", "api_error")))


def test_broken_arguments_that_have_begun_as_an_object_are_named() -> None:
    asked = wire.ask()
    events = [Start(), PartStart(0, ToolCall("a", "f")), PartDelta(0, '{"a":'), PartDelta(0, " 1,,"), PartEnd(0)]
    out = wire.sent([*events, Finish("tool_calls"), End()], asked)
    pieces = [each["delta"].get("partial_json") for each in wire.parsed(out) if each["type"] == "content_block_delta"]
    assert pieces == ['{"a":', " 1,,"]
    assert asked.losses.names == ["answer.tool_calls.arguments"]


def test_what_stands_beside_the_content_of_anthropics_own_is_no_block() -> None:
    parts = [Text("Hi"), Opaque("stop_details", {"type": "refusal"}, origin=OWN)]
    assert _both(*parts) == [{"type": "text", "text": "Hi"}]
