"""The comparer of requests sees what it is to see, and a loss explains only what stands at its place."""

from typing import Any

import pytest

from proxy.formats import anthropic_messages, openai_chat
from proxy.formats.canonical import (
    Media,
    Message,
    Output,
    Part,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tests.conformance.requests import Difference, Trip, compare, there_and_back

TOOL = {"type": "object", "properties": {"a": {"type": "integer"}}}


def request(*parts: Part, **values: Any) -> Request:
    messages = [Message("system", [Text("Be short.", at="s")], at="s"), Message("user", list(parts), at="u")]
    return Request(messages, tools=[Tool("add", "Adds", TOOL, at="t")], **values)


def places(first: Request, last: Request) -> list[str]:
    return [one.at for one in compare(first, last)]


def test_it_works() -> None:
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "seed": 7}
    trip = there_and_back(openai_chat, anthropic_messages, "messages", asked)
    assert trip.invalid == ""
    assert [one.at for one in trip.differences] == ["seed"]
    assert trip.unexplained == []


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("temperature", 0.5, 0.4),
        ("seed", 7, None),
        ("stop", ["END"], []),
        ("max_tokens", 300, 200),
        ("parallel_tool_calls", False, None),
        ("tool_choice", ToolChoice("required"), None),
        ("tool_choice", ToolChoice("tool", "add"), ToolChoice("required")),
        ("reasoning", Reasoning("high"), None),
        ("reasoning", Reasoning("none"), Reasoning("low")),
        ("reasoning", Reasoning("high"), Reasoning("low")),
        ("reasoning", Reasoning(adaptive=True), None),
        ("output", Output("json_schema", {"type": "object"}), Output("json_object")),
        ("metadata", {"a": "b"}, None),
    ],
)
def test_each_field(name: str, before: Any, after: Any) -> None:
    first, last = request(Text("Hi"), **{name: before}), request(Text("Hi"), **{name: after})
    assert places(first, last) == [name]
    assert places(first, first) == []


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("max_tokens", None, 4096),
        ("parallel_tool_calls", True, None),
        ("tool_choice", ToolChoice("auto"), None),
        ("tool_choice", ToolChoice("required", allowed=("add",)), ToolChoice("required")),
        ("reasoning", Reasoning(adaptive=True), Reasoning("medium")),
        ("reasoning", Reasoning(budget=8000), Reasoning("low")),
        (
            "output",
            Output("json_schema", {"type": "object"}, "a", strict=True),
            Output("json_schema", {"type": "object"}),
        ),
        ("store", False, None),
    ],
)
def test_what_is_the_same(name: str, before: Any, after: Any) -> None:
    assert places(request(Text("Hi"), **{name: before}), request(Text("Hi"), **{name: after})) == []


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (Text("Hi", at="p"), Text("Ha")),
        (Media("image", "image/png", "QUJD", at="p"), Media("image", "image/png", "QUJE")),
        (Media("image", "image/png", "QUJD", at="p"), Media("image", "image/gif", "QUJD")),
        (Media("image", url="https://a.example/b", at="p"), Media("file", url="https://a.example/b")),
        (ToolCall("1", "add", '{"a":1}', at="p"), ToolCall("1", "add", '{"a":2}')),
        (ToolCall("1", "add", "{}", at="p"), ToolCall("1", "sub", "{}")),
        (ToolResult("1", [Text("3")], at="p"), ToolResult("1", [Text("4")])),
        (ToolResult("1", [Text("3")], is_error=True, at="p"), ToolResult("1", [Text("3")])),
    ],
)
def test_each_part(part: Part, other: Part) -> None:
    assert "p" in places(request(part), request(other))


@pytest.mark.parametrize(
    ("part", "other"),
    [
        (Media("image", "image/png", "QU-_", at="p"), Media("image", url="data:image/png;base64,QU+/")),
        (Media("file", "text/plain", "SGk=", at="p"), Text("Hi")),
        (ToolCall("1", "add", '{"a": 1}', at="p"), ToolCall("x", "add", '{"a":1}')),
        (ToolResult("1", [Text('{"a": 1}')], at="p"), ToolResult("x", [Text('{"a":1}')])),
    ],
)
def test_parts_that_are_the_same(part: Part, other: Part) -> None:
    assert places(request(part), request(other)) == []


def test_a_cache_mark_and_a_signature() -> None:
    first = request(Text("Hi", at="p", cache="5m", signature="x", origin="gemini"))
    assert places(first, request(Text("Hi"))) == ["p.cache_control", "p.signature"]


def test_a_part_that_is_gone_and_one_from_nowhere() -> None:
    both = request(Text("Hi", at="p"), ToolCall("1", "add", "{}", at="q"))
    assert places(both, request(Text("Hi"))) == ["q"]
    assert len(places(request(Text("Hi")), both)) == 1


def test_a_result_of_another_call() -> None:
    calls = ToolCall("1", "add", "{}"), ToolCall("2", "add", "{}")
    results = ToolResult("1", [Text("3")], at="p"), ToolResult("2", [Text("4")], at="q")
    swapped = ToolResult("2", [Text("3")]), ToolResult("1", [Text("4")])
    assert places(request(*calls, *results), request(*calls, *reversed(results))) == []
    assert places(request(*calls, *results), request(*calls, *swapped)) != []


@pytest.mark.parametrize("name", ["description", "strict", "schema", "kind"])
def test_each_member_of_a_tool(name: str) -> None:
    last = request(Text("Hi"))
    setattr(
        last.tools[0], name, {"strict": True, "schema": {"type": "object", "properties": {"b": {}}}}.get(name, "custom")
    )
    assert places(request(Text("Hi")), last) == ([f"t.{name}"] if name in ("description", "strict") else ["t"])


def test_a_tool_that_is_gone() -> None:
    last = request(Text("Hi"))
    last.tools = []
    assert places(request(Text("Hi")), last) == ["t"]


@pytest.mark.parametrize(
    ("loss", "explains"),
    [
        ("messages[1]", True),
        ("messages[1].content[0]", True),
        ("messages[1].content[0].detail", True),
        ("messages[1].role", True),
        ("messages[1].content[1]", False),
        ("messages[10]", False),
        ("messages", True),
        ("temperature", False),
    ],
)
def test_what_a_loss_explains(loss: str, explains: bool) -> None:
    trip = Trip([Difference("messages[1].content[0]", "is gone")], [loss])
    assert (trip.unexplained == []) is explains
