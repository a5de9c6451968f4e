"""An answer between two formats: what the relay looks at while it passes."""

import json
from typing import Any

import pytest

from proxy.formats import anthropic_messages, gemini, openai_chat, openai_completions, openai_responses
from proxy.formats.base import Ask, Client, Losses, NotAnAnswer
from proxy.formats.canonical import (
    End,
    Event,
    Finish,
    Media,
    Opaque,
    Part,
    PartDelta,
    PartEnd,
    PartStart,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
)
from proxy.formats.splice import Members
from proxy.formats.translate import TranslatedStream, translate_answer
from tests.upstreams import chat_stream, completion, event, tool_call

ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def ask(**more: Any) -> Ask:
    members = Members(json.dumps({**ASKED, **more.pop("asked", {})}).encode())
    request = anthropic_messages.read_request(members)
    return Ask("x1", "m", 1, request, members, lambda _: {"cost": b"0.5"}, Losses({}), **more)


def translated(**more: Any) -> TranslatedStream:
    asked = ask(**more)
    return TranslatedStream(openai_chat.reader(asked.id), anthropic_messages.writer(asked), asked)


def plain(body: bytes, **more: Any) -> tuple[Any, Usage | None, str]:
    found = translate_answer(openai_chat, anthropic_messages, body, ask(**more))
    return json.loads(found.body), found.usage, found.text


def test_it_works() -> None:
    answer, usage, text = plain(b"".join(completion("Hello").pieces))
    assert (answer["type"], answer["content"][0]["text"], answer["model"]) == ("message", "Hello", "m")
    assert (usage, text) == (Usage(7, 3), "")
    assert answer["usage"]["cost"] == 0.5


def test_an_answer_without_usage_leaves_its_words_to_be_counted() -> None:
    found = json.loads(b"".join(tool_call("look", at="x").pieces))
    del found["usage"]
    _, usage, text = plain(json.dumps(found).encode())
    assert usage is None
    assert "look" in text
    assert '"x"' in text


def heard(part: Part, signature: str = "") -> str:
    """What is counted of a stream that holds it."""
    asked = ask()
    reader = Told(PartStart(0, part), PartEnd(0, signature=signature))
    stream = TranslatedStream(reader, anthropic_messages.writer(asked), asked)
    stream.feed(b"x")
    assert stream.said == len(stream.text())
    return stream.text()


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Opaque("server_tool_use", {"type": "server_tool_use", "name": "f", "input": {"x": "a"}}), "a"),
        (Opaque("web_search_tool_result", {"content": [{"title": "found"}]}), ""),
        (Opaque("executableCode", {"executableCode": {"language": "PYTHON", "code": "a"}}), "a"),
        (Opaque("groundingMetadata", {"groundingMetadata": {"x": "found"}}), ""),
        (Thinking(redacted=True, signature="A" * 1010), "AA"),
        (Thinking("abcde", signature="A" * 1010), "abcde"),
        (Media("image", "image/png", "AAAA"), " image" * 1290),
        (Media("image", "image/png", "AAAA", origin="openai_responses"), ""),
        (Media("audio", "audio/wav", "AAAA", transcript="a"), "a"),
    ],
)
def test_all_that_is_generated_is_counted(part: Part, text: str) -> None:
    assert heard(part) == text


def test_images_and_sealed_thoughts_of_a_plain_answer_are_counted() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    sealed = {"type": "reasoning.encrypted", "data": "A" * 2000}
    message = {"role": "assistant", "content": "a", "images": [image], "reasoning_details": [sealed]}
    _, usage, text = plain(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())
    assert usage is None
    assert text.count(" image") == 1290
    assert 200 <= text.count("A") <= 210


def test_sealed_thoughts_that_come_last_are_counted() -> None:
    assert heard(Thinking(), signature="A" * 1010) == "AA"


def test_what_is_no_answer() -> None:
    with pytest.raises(NotAnAnswer):
        plain(b'{"error": {"message": "no"}}')


def test_a_stream() -> None:
    stream = translated()
    out = b"".join(stream.feed(piece) for piece in chat_stream("Hel", "lo").pieces) + stream.close()
    assert out.startswith(b"event: message_start\n")
    assert out.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert (stream.complete, stream.over, stream.error, stream.broken) == (True, True, None, "")
    assert (stream.text(), stream.usage) == ("Hello", Usage(7, 3))


def test_what_opens_a_stream_is_no_content_yet() -> None:
    stream = translated()
    assert stream.feed(b": comment\n\n") == b""
    assert not stream.begun
    opening, first, *_ = chat_stream("Hello").pieces
    stream.feed(opening)
    assert not stream.begun
    stream.feed(first)
    assert stream.begun


@pytest.mark.parametrize(
    ("delta", "begins"),
    [
        ({"content": ""}, False),
        ({"reasoning_content": "Hm"}, True),
        ({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}, True),
        ({"refusal": "No"}, True),
    ],
)
def test_what_an_answer_begins_with(delta: dict[str, object], begins: bool) -> None:
    stream = translated()
    stream.feed(event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}))
    stream.feed(event({"choices": [{"index": 0, "delta": delta}]}))
    assert stream.begun is begins


def test_an_empty_answer_begins_with_its_end() -> None:
    stream = translated()
    *chunks, last = chat_stream("").pieces
    stream.feed(chunks[0])
    assert not stream.begun
    out = b"".join(map(stream.feed, [*chunks[1:], last]))
    assert b"message_stop" in out
    assert stream.begun


def test_what_the_clients_format_cannot_say_begins_nothing() -> None:
    asked = ask()
    stream = TranslatedStream(openai_chat.reader(asked.id), openai_completions.writer(asked), asked)
    stream.feed(event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}}]}))
    assert not stream.begun
    assert stream.feed(event({"choices": [{"index": 0, "delta": {"content": "Hi"}}]}))
    assert stream.begun


def test_a_stream_that_stops_early_is_not_complete() -> None:
    stream = translated()
    out = b"".join(stream.feed(piece) for piece in chat_stream("Hel", "lo").pieces[:2]) + stream.close()
    assert b"message_stop" not in out
    assert (stream.complete, stream.over) == (False, True)


def test_an_error_is_left_to_whoever_can_say_it() -> None:
    stream = translated()
    stream.feed(chat_stream("Hel").pieces[0])
    out = stream.feed(b'data: {"error":{"message":"down"}}\n\n')
    assert b"down" not in out
    assert (stream.error or {})["message"] == "down"
    assert (stream.complete, stream.over) == (False, True)


def test_names_of_tools_come_back() -> None:
    answer, _, _ = plain(b"".join(tool_call("a_b", x=1).pieces), renamed={"a_b": "a.b"})
    assert answer["content"][0]["name"] == "a.b"


class Told:
    """A reader that says what it was told to."""

    broken, complete, finished = "", True, True

    def __init__(self, *events: Event) -> None:
        self._events = list(events)

    def reasons(self) -> list[Finish]:
        return []

    def feed(self, _: bytes, /) -> list[Event]:
        return self._events

    def close(self) -> list[Event]:
        return []


def test_parts_without_any_order_break_the_stream() -> None:
    asked = ask()
    events = [
        Start("i", "m"),
        PartStart(0, ToolCall("a", "f", "{}")),
        PartStart(1, Text("")),
        PartDelta(0, "more"),
        PartEnd(0),
        Finish("stop"),
        End(),
    ]
    stream = TranslatedStream(Told(*events), anthropic_messages.writer(asked), asked)
    assert b"tool_use" in stream.feed(b"x")
    assert "has ended" in stream.broken
    assert not stream.complete


# --- ended by the gateway --------------------------------------------------------------------------------------------

TOLD = Usage(7, 2)


def said(index: int = 0, finish: str | None = None, **delta: Any) -> bytes:
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def call(arguments: str, **more: Any) -> bytes:
    return said(tool_calls=[{"index": 0, "function": {"arguments": arguments, **more}}])


def cut(client: Client, *pieces: bytes) -> tuple[str, TranslatedStream]:
    """What a client gets of a chat stream that is cut behind these pieces."""
    asked = ask(include_usage=True)
    stream = TranslatedStream(openai_chat.reader(asked.id), client.writer(asked), asked)
    out = b"".join(stream.feed(piece) for piece in pieces) + stream.cut(TOLD)
    return out.decode(), stream


def test_a_stream_is_cut() -> None:
    out, stream = cut(anthropic_messages, said(content="Hel"), said(content="lo"))
    kinds = [line.removeprefix("event: ") for line in out.splitlines() if line.startswith("event: ")]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert '"stop_reason":"max_tokens"' in out
    assert '"output_tokens":2,"cost":0.5' in out
    assert (stream.complete, stream.over, stream.usage, stream.said) == (True, True, TOLD, 5)
    assert stream.cut(TOLD) == b""


def test_a_stream_of_completions_is_cut() -> None:
    out, _ = cut(openai_completions, said(content="Hel"))
    assert '"finish_reason":"length"' in out
    assert '"total_tokens":9' in out
    assert out.endswith("data: [DONE]\n\n")


def test_each_choice_keeps_the_reason_that_it_had() -> None:
    out, _ = cut(gemini, said(content="a"), said(1, content="b"), said(2, content="c"), said(1, "content_filter"))
    last = json.loads(out.split("data: ")[-1])
    assert [each["finishReason"] for each in last["candidates"]] == ["MAX_TOKENS", "SAFETY", "MAX_TOKENS"]


def test_what_has_finished_by_itself_is_whole() -> None:
    out, _ = cut(openai_responses, call("{}", name="now"), said(finish="tool_calls"))
    assert "event: response.completed" in out
    out, _ = cut(gemini, call("", name="now"), said(finish="tool_calls"))
    assert '"functionCall":{"id":"call_x1_0","name":"now","args":{}}' in out


@pytest.mark.parametrize(("arguments", "whole"), [('{"city":', False), ("", False), ('{"city":"Oslo"}', True)])
def test_a_call_that_is_cut_is_not_made_whole(arguments: str, whole: bool) -> None:
    pieces = [call("", name="weather"), call(arguments)]
    assert ("functionCall" in cut(gemini, *pieces)[0]) is whole
    out, _ = cut(openai_responses, *pieces)
    item = json.loads(out.split("data: ")[-1])["response"]["output"][0]
    assert (item["arguments"], item["status"]) == (arguments, "incomplete")


def test_a_count_of_the_prompt_alone() -> None:
    asked = ask()
    stream = TranslatedStream(anthropic_messages.reader("x1"), openai_chat.writer(asked), asked)
    message = {"id": "m", "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 1}}
    stream.feed(event({"type": "message_start", "message": message}))
    assert (stream.usage, stream.prompt_usage) == (None, Usage(7, cached=2))
    stream.feed(event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 4}}))
    assert (stream.usage, stream.prompt_usage) == (Usage(7, 4, 2), Usage(7, cached=2))


def test_the_count_of_the_prompt_stands_where_no_other_comes() -> None:
    stream = TranslatedStream(anthropic_messages.reader("x1"), openai_chat.writer(ask()), ask())
    stream.feed(event({"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}}))
    stream.feed(event({"type": "message_stop"}))
    assert stream.usage == Usage(5, 1)
