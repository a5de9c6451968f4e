"""What has come of an output, and the events that end it, whatever has been left out of it."""

from typing import Any

import msgspec

from proxy.formats.openai_responses.unfinished import ADDED, DONE, Unfinished


def begun(*items: dict[str, Any]) -> Unfinished:
    unfinished = Unfinished()
    for index, item in enumerate(items):
        unfinished.item(ADDED, index, item, 0)
    return unfinished


def note(unfinished: Unfinished, kind: str, **members: Any) -> None:
    unfinished.note(msgspec.json.encode({"type": kind, "output_index": 0, **members}))


def ends(unfinished: Unfinished, text: str = "") -> dict[str, Any]:
    """Event's name → the event."""
    return {event["type"]: event for event in unfinished.end(text)}


MESSAGE = {"type": "message", "id": "m", "content": [], "status": "in_progress"}
PART = {"type": "output_text", "text": "", "annotations": []}
STATUS = {"status": "incomplete"}


def test_it_works() -> None:
    unfinished = begun(MESSAGE)
    note(unfinished, "response.content_part.added", content_index=0, part=PART)
    unfinished.speak((0, "response.output_text.delta", 0, None), 0)
    note(unfinished, "response.output_text.annotation.added", content_index=0, annotation={"url": "u"})
    found = ends(unfinished, "Hello")
    assert found["response.output_text.done"]["text"] == "Hello"
    assert found["response.content_part.done"]["part"] == {**PART, "text": "Hello", "annotations": [{"url": "u"}]}
    assert unfinished.output == [{**MESSAGE, "content": [found["response.content_part.done"]["part"]]} | STATUS]


def test_what_has_ended_is_not_ended_again() -> None:
    unfinished = begun(MESSAGE)
    note(unfinished, "response.content_part.added", content_index=0, part=PART)
    note(unfinished, "response.output_text.done", content_index=0, text="Hello")
    assert list(ends(unfinished)) == ["response.content_part.done", DONE]
    unfinished = begun(MESSAGE)
    note(unfinished, "response.content_part.done", content_index=0, part={**PART, "text": "Hello"})
    assert list(ends(unfinished)) == [DONE]
    assert unfinished.output[0]["content"][0]["text"] == "Hello"
    unfinished = begun({"type": "function_call", "id": "f", "name": "n", "arguments": ""})
    note(unfinished, "response.function_call_arguments.done", arguments="{}")
    assert list(ends(unfinished)) == [DONE]
    assert unfinished.output[0]["arguments"] == "{}"


def test_parts_that_were_not_announced() -> None:
    unfinished = begun({"type": "reasoning", "id": "r", "summary": []})
    unfinished.speak((0, "response.reasoning_summary_text.delta", None, 0), 0)
    unfinished.speak((0, "response.reasoning_summary_text.delta", None, 1), 3)
    unfinished.speak((0, "response.reasoning_text.delta", 0, None), 6)
    ends(unfinished, "onetworaw")
    (item,) = unfinished.output
    assert [part["text"] for part in item["summary"]] == ["one", "two"]
    assert item["content"] == [{"type": "reasoning_text", "text": "raw"}]


def test_items_that_overlap() -> None:
    first, second = ({"type": "function_call", "id": name, "name": name, "arguments": ""} for name in "ab")
    unfinished = begun(first, second)
    for at, index in enumerate((1, 0, 1)):
        unfinished.speak((index, "response.function_call_arguments.delta", None, None), at)
    ends(unfinished, "xyz")
    assert [item["arguments"] for item in unfinished.output] == ["y", "xz"]


def test_items_without_their_places() -> None:
    unfinished = Unfinished()
    unfinished.item(DONE, None, {"id": "a"}, 0)
    unfinished.item(ADDED, None, MESSAGE, 3)
    unfinished.speak((None, "response.output_text.delta", None, []), 3)
    found = ends(unfinished, "seeHi")
    assert found["response.output_text.done"]["text"] == "Hi"
    assert [item["id"] for item in unfinished.output] == ["a", "m"]


def test_what_knows_no_such_status_has_failed() -> None:
    unfinished = begun({"type": "web_search_call", "id": "w"}, {"type": "new", "id": "n"})
    ends(unfinished)
    assert [item["status"] for item in unfinished.output] == ["failed", "incomplete"]


def test_what_is_no_item_or_event_is_left_out() -> None:
    unfinished = Unfinished()
    unfinished.item(ADDED, 1, "x", 0)
    unfinished.item(ADDED, {}, MESSAGE, 0)
    unfinished.note(b"[]")
    unfinished.note(b"{")
    unfinished.note(b'{"type":5}')
    assert list(ends(unfinished)) == [DONE]
    assert unfinished.output == [MESSAGE | STATUS]
