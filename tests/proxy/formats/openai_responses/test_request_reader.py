"""A client's Responses requests in the canonical form."""

import math
from typing import Any

import pytest

from proxy.formats import openai_responses
from proxy.formats.base import BadField
from proxy.formats.canonical import (
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    seal,
)
from proxy.formats.splice import Members
from tests import recordings
from tests.proxy.formats import responses as wire

NAME = openai_responses.NAME
SCHEMA = {"type": "object", "properties": {}}


def read(**body: Any) -> Request:
    return openai_responses.read_request(wire.members(**body))


def test_it_works() -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        wire.thought("Hm", encrypted_content="gAAA"),
        wire.message("I look."),
        wire.call('{"city":"Oslo"}'),
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
    ]
    found = read(input=items, instructions="Help.", stream=True, temperature=1, max_output_tokens=99)
    at = "input[{}]".format
    thought = Thinking("Hm", summary=True, id="rs_1", at=at(2), signature="rs_1 gAAA", origin=NAME)
    said = Text("I look.", at="input[3].content[0]")
    call = ToolCall("call_1", "weather", '{"city":"Oslo"}', at=at(4))
    result = ToolResult("call_1", [Text("sunny", at="input[5].output")], at=at(5))
    assert found.messages == [
        Message("system", [Text("Help.", at="instructions")], at="instructions"),
        Message("developer", [Text("Be brief.", at="input[0].content")], at=at(0)),
        Message("user", [Text("Weather?", at="input[1].content[0]")], at=at(1)),
        Message("assistant", [thought, said, call], at=at(2)),
        Message("user", [result], at=at(5)),
    ]
    assert (found.stream, found.temperature, found.max_tokens, found.extra) == (True, 1, 99, {})


def test_reasoning_that_says_nothing() -> None:
    for said in ({}, {"effort": None}, {"effort": None, "summary": None}):
        assert read(reasoning=said).reasoning is None


def test_a_string_is_the_users() -> None:
    assert read(input="Hi").messages == [Message("user", [Text("Hi", at="input")], at="input")]


# --- parts


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "input_text", "text": "a"}, Text("a")),
        ({"type": "output_text", "text": "a", "annotations": []}, Text("a")),
        ({"type": "refusal", "refusal": "No."}, Refusal("No.")),
        ({"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}, Text("a", cache="5m")),
        (
            {"type": "input_image", "image_url": "http://a/b.png", "detail": "low"},
            Media("image", url="http://a/b.png", detail="low"),
        ),
        ({"type": "input_image", "image_url": "data:image/png;base64,AAAA"}, Media("image", "image/png", "AAAA")),
        ({"type": "input_image", "image_url": {"url": "http://a"}}, Media("image", url="http://a")),
        (
            {"type": "input_image", "image_url": "data:image/svg+xml,%3Csvg/%3E"},
            Media("image", "image/svg+xml", "PHN2Zy8+"),
        ),
        ({"type": "input_image", "file_id": "f1", "image_url": None}, Media("image", file_id="f1")),
        (
            {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
            Media("file", "application/pdf", "AAAA", name="a.pdf"),
        ),
        (
            {"type": "input_file", "file_data": "AAAA", "filename": "a.PDF"},
            Media("file", "application/pdf", "AAAA", name="a.PDF"),
        ),
        (
            {"type": "input_file", "file_data": "AAAA", "filename": "a.csv"},
            Media("file", "text/csv", "AAAA", name="a.csv"),
        ),
        ({"type": "input_file", "file_data": "AAAA"}, Media("file", "application/pdf", "AAAA")),
        (
            {"type": "input_file", "file_url": "http://a/b.pdf", "detail": "high"},
            Media("file", url="http://a/b.pdf", detail="high"),
        ),
        ({"type": "input_file", "file_url": "http://a/b.pdf"}, Media("file", url="http://a/b.pdf")),
        ({"type": "input_file", "file_id": "f1"}, Media("file", file_id="f1")),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
            Media("audio", "audio/mp3", "AAAA"),
        ),
        ({"type": "input_new", "x": 1}, Opaque("input_new", {"type": "input_new", "x": 1}, origin=NAME)),
    ],
)
def test_parts(part: dict[str, Any], expected: Part) -> None:
    expected.at = "input[0].content[0]"
    assert read(input=[{"role": "user", "content": [part]}]).messages[0].parts == [expected]


# --- items

CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal("anthropic_messages", "SIG")}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}


def plainly(text: str) -> dict[str, Any]:
    return {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": seal("openai_chat", text)}


SCREEN = {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": "x"}}
PICTURE = [{"type": "input_image", "image_url": "http://a"}]


@pytest.mark.parametrize(
    ("item", "role", "expected"),
    [
        (CALL, "assistant", ToolCall("c", "f", "{}")),
        ({**CALL, "namespace": "agents"}, "assistant", ToolCall("c", "agents__f", "{}")),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "p", "input": "***"},
            "assistant",
            ToolCall("c", "p", "***", custom=True),
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": PICTURE},
            "user",
            ToolResult("c", [Media("image", url="http://a", at="input[0].output[0]")]),
        ),
        (
            {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
            "user",
            ToolResult("c", [Text("ok", at="input[0].output")], custom=True),
        ),
        (SEALED, "assistant", Thinking(redacted=True, id="rs_1", signature="SIG", origin="anthropic_messages")),
        ({"type": "reasoning", "summary": [{"text": "Hm"}]}, "assistant", Thinking("Hm", summary=True, origin=NAME)),
        (plainly("Hm"), "assistant", Thinking("Hm", id="rs_1", origin="openai_chat")),
        (plainly(""), "assistant", Thinking(redacted=True, id="rs_1", origin="openai_chat")),
        (
            plainly('{"type":"reasoning.text"}'),
            "assistant",
            Thinking(redacted=True, id="rs_1", signature='{"type":"reasoning.text"}', origin="openai_chat"),
        ),
        ({"type": "reasoning", "summary": [], "content": [{"text": "Hm"}]}, "assistant", Thinking("Hm", origin=NAME)),
        (SEARCH, "assistant", Opaque("web_search_call", SEARCH, origin=NAME)),
        (SCREEN, "user", Opaque("computer_call_output", SCREEN, origin=NAME)),
        (
            {"type": "image_generation_call", "id": "ig_1", "result": "AAAA"},
            "assistant",
            Media("image", "image/png", "AAAA", id="ig_1", origin=NAME),
        ),
    ],
)
def test_items(item: dict[str, Any], role: str, expected: Part) -> None:
    expected.at = "input[0]"
    assert read(input=[item]).messages == [Message(role, [expected], at="input[0]")]


# --- tools

WAIT = {"type": "function", "name": "wait", "description": "Waits", "strict": False, "parameters": SCHEMA}


def test_tools() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.*/"}
    tools = [WAIT, {"type": "custom", "name": "p", "format": grammar}, {"type": "web_search", "filters": None}]
    assert read(tools=tools).tools == [
        Tool("wait", "Waits", SCHEMA, strict=False, origin=NAME, at="tools[0]"),
        Tool("p", kind="custom", grammar=grammar, origin=NAME, at="tools[1]"),
        Tool("web_search", kind="server", origin=NAME, raw=tools[2], at="tools[2]"),
    ]


def test_a_namespaces_functions_stand_alone() -> None:
    found = read(tools=[{"type": "namespace", "name": "agents", "description": "A", "tools": [WAIT]}])
    (tool,) = found.tools
    assert (tool.name, tool.description, tool.schema) == ("agents__wait", "Waits", SCHEMA)
    assert (tool.raw["namespace"], tool.raw["name"], tool.at) == ("agents", "wait", "tools[0].tools[0]")


def test_long_names_are_shortened_alike_in_tools_and_calls() -> None:
    namespace = {"type": "namespace", "name": "n" * 50, "description": "", "tools": [{**WAIT, "name": "f" * 50}]}
    call = {**CALL, "namespace": "n" * 50, "name": "f" * 50}
    found = read(tools=[namespace], input=[call])
    (message,) = found.messages
    assert isinstance(message.parts[0], ToolCall)
    assert message.parts[0].name == found.tools[0].name
    assert len(found.tools[0].name) == 64


def test_tools_that_are_added_later() -> None:
    found = read(
        input=[{"role": "user", "content": "Hi"}, {"type": "additional_tools", "role": "developer", "tools": [WAIT]}]
    )
    assert [(tool.name, tool.at) for tool in found.tools] == [("wait", "input[1].tools[0]")]
    assert len(found.messages) == 1


ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "wait"}]}


@pytest.mark.parametrize(
    ("choice", "expected", "left"),
    [
        ("auto", ToolChoice("auto"), {}),
        ("none", ToolChoice("none"), {}),
        ("required", ToolChoice("required"), {}),
        (None, None, {}),
        ({"type": "function", "name": "wait"}, ToolChoice("tool", "wait"), {}),
        ({"type": "custom", "name": "p"}, ToolChoice("tool", "p"), {}),
        (ALLOWED, ToolChoice("required", allowed=("wait",)), {}),
        ({**ALLOWED, "mode": "auto"}, ToolChoice("auto", allowed=("wait",)), {}),
        ({"type": "web_search"}, None, {"tool_choice": {"type": "web_search"}}),
    ],
)
def test_tool_choice(choice: Any, expected: ToolChoice | None, left: dict[str, Any]) -> None:
    found = read(tools=[WAIT], tool_choice=choice)
    assert (found.tool_choice, found.extra) == (expected, left)


def test_a_choice_of_a_namespaces_function() -> None:
    tools = [{"type": "namespace", "name": "agents", "description": "", "tools": [WAIT]}]
    found = read(tools=tools, tool_choice={"type": "function", "name": "wait"})
    assert found.tool_choice == ToolChoice("tool", "agents__wait")


# --- fields

FORM = {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"reasoning": {"effort": "low", "summary": None}}, {"reasoning": Reasoning("low")}),
        ({"reasoning": {"summary": "auto"}}, {"reasoning": Reasoning(visible=True, summary="auto")}),
        ({"reasoning": {"generate_summary": "concise"}}, {"reasoning": Reasoning(visible=True, summary="concise")}),
        ({"include": ["reasoning.encrypted_content"]}, {"reasoning": Reasoning(encrypted=True)}),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["file_search_call.results"]}, {"extra": {"include": ["file_search_call.results"]}}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"output": Output("text"), "verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"output": Output("json_object")}),
        ({"text": {"format": FORM}}, {"output": Output("json_schema", SCHEMA, "a", "", strict=True)}),
        ({"prompt_cache_key": "k", "user": "u", "store": False}, {"cache_key": "k", "user": "u", "store": False}),
        ({"service_tier": "flex", "metadata": {"a": "b"}}, {"service_tier": "flex", "metadata": {"a": "b"}}),
        ({"parallel_tool_calls": False, "top_p": 0.5}, {"parallel_tool_calls": False, "top_p": 0.5}),
        (
            {"truncation": "disabled", "background": False, "top_logprobs": 0, "previous_response_id": None},
            {"extra": {}},
        ),
        ({"truncation": "auto", "client_metadata": {}}, {"extra": {"truncation": "auto", "client_metadata": {}}}),
        ({"reasoning": {"context": "all_turns"}}, {"extra": {"reasoning.context": "all_turns"}}),
        ({"tools": [{**WAIT, "defer_loading": True}]}, {"extra": {"tools[0].defer_loading": True}}),
    ],
)
def test_fields(body: dict[str, Any], expected: dict[str, Any]) -> None:
    found = read(**body)
    assert {name: getattr(found, name) for name in expected} == expected


# --- refusals


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "c"}}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"instructions": 3}, "instructions"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_output_tokens": True}, "max_output_tokens"),
        ({"store": "no"}, "store"),
        ({"include": "x"}, "include"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{"name": "x"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools[0].name"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{}]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"id": "msg_1"}]}, "input[0].id"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input[0].output"),
    ],
)
def test_refusals(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        read(**body)
    assert caught.value.param == param


@pytest.mark.parametrize("path", recordings.files("responses"), ids=recordings.name)
def test_whatever_a_provider_took_can_be_read(path: Any) -> None:
    held = {"previous_response_id", "conversation", "prompt", "background"}
    for exchange in recordings.read(path):
        if exchange.asked is not None and exchange.status == 200 and held.isdisjoint(exchange.asked):
            read(**exchange.asked)


def test_many_allowed_tools_of_namespaces() -> None:
    """Each by its own name or the whole one; what nobody has stays as it is."""
    tools = [
        {
            "type": "namespace",
            "name": space,
            "tools": [{"type": "function", "name": "f"}, {"type": "function", "name": f"only_{space}"}],
        }
        for space in ("a", "b")
    ]
    names = ["f", "only_b", "b__f", "nobody"]
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": name} for name in names]}
    found = read(tools=tools, tool_choice=choice).tool_choice
    assert found == ToolChoice("auto", allowed=("a__f", "b__only_b", "b__f", "nobody"))
    own = [*tools, {"type": "function", "name": "f"}]
    assert read(tools=own, tool_choice={"type": "function", "name": "f"}).tool_choice == ToolChoice("tool", "f")


def test_a_number_that_nobody_can_count() -> None:
    """Python itself makes no integer of it."""
    body = b'{"model": "m", "input": "Hi", "top_p": %b, "x": %b}' % (b"9" * 5000, b"-" + b"9" * 5000)
    found = openai_responses.read_request(Members(body))
    assert found.top_p == math.inf
    assert found.extra == {"x": -math.inf}
