"""An answer between two formats: what the relay looks at while it passes."""

import json
from typing import Any

import pytest

from proxy.formats import anthropic_messages, openai_chat
from proxy.formats.base import Ask, Losses, NotAnAnswer
from proxy.formats.canonical import End, Event, Finish, PartDelta, PartEnd, PartStart, Start, Text, ToolCall, Usage
from proxy.formats.splice import Members
from proxy.formats.translate import TranslatedStream, translate_answer
from tests.upstreams import chat_stream, completion, tool_call

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
    assert stream.events == 0
    opening, first, *_ = chat_stream("Hello").pieces
    stream.feed(opening)
    assert stream.events == 0
    stream.feed(first)
    assert stream.events > 0


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
