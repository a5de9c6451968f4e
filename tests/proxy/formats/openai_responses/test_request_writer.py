"""Requests of other formats' clients, as a provider of Responses gets them."""

import json
import re
from typing import Any

import pytest

from proxy.formats import openai_responses
from proxy.formats.base import Losses, Target
from proxy.formats.canonical import (
    Citation,
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
)
from tests import recordings
from tests.proxy.formats import responses as wire

NAME = openai_responses.NAME
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED = {**SCHEMA, "required": ["a"], "additionalProperties": False}
HI = Message("user", [Text("Hi")])


def write(*messages: Message, quirks: tuple[str, ...] = (), **fields: Any) -> tuple[dict[str, Any], Losses]:
    losses = Losses({})
    request = Request(list(messages) or [HI], **fields)
    body = openai_responses.write_request(request, Target("up-1", losses, quirks=frozenset(quirks)))
    return json.loads(body), losses


def items(*messages: Message, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = write(*messages, **fields)[0]["input"]
    return found


def test_it_works() -> None:
    signed = Thinking("Hm", signature="rs_1 gAAA", origin=NAME)
    conversation = [
        Message("system", [Text("Be brief.")]),
        Message("user", [Text("Weather?"), Media("image", "image/png", "AAAA")]),
        Message("assistant", [signed, Text("I look."), ToolCall("c1", "weather", '{"a":"b"}')]),
        Message("user", [ToolResult("c1", [Text("sunny")])]),
    ]
    body, losses = write(*conversation, stream=True, max_tokens=99, temperature=0.5)
    picture = {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AAAA"}
    assert body == {
        "model": "up-1",
        "input": [
            {"type": "message", "role": "system", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}, picture]},
            {**wire.thought("Hm"), "encrypted_content": "gAAA"},
            {"type": "message", "role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"a":"b"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        ],
        "store": False,
        "stream": True,
        "temperature": 0.5,
        "max_output_tokens": 99,
        "include": ["reasoning.encrypted_content"],
    }
    assert losses.names == []


# --- parts


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Text("a"), {"type": "input_text", "text": "a"}),
        (
            Media("image", url="http://a", detail="low"),
            {"type": "input_image", "detail": "low", "image_url": "http://a"},
        ),
        (Media("image", file_id="f1"), {"type": "input_image", "detail": "auto", "file_id": "f1"}),
        (
            Media("file", "application/pdf", "AAAA"),
            {"type": "input_file", "filename": "document.pdf", "file_data": "data:application/pdf;base64,AAAA"},
        ),
        (Media("file", url="http://a", name="x"), {"type": "input_file", "file_url": "http://a"}),
        (Media("file", text="words"), {"type": "input_text", "text": "words"}),
        (Opaque("input_new", {"type": "input_new"}, origin=NAME), {"type": "input_new"}),
    ],
)
def test_parts(part: Part, expected: dict[str, Any]) -> None:
    (item,) = items(Message("user", [part, Text("b")]))
    assert item["content"] == [expected, {"type": "input_text", "text": "b"}]


@pytest.mark.parametrize(
    "part",
    [
        Media("audio", "audio/wav", "AAAA"),
        Media("video", url="http://a"),
        Media("file", file_id="f1", origin="anthropic_messages"),
        Opaque("server_tool_use", {}, origin="anthropic_messages"),
    ],
)
def test_parts_that_are_lost(part: Part) -> None:
    part.at = "messages[0].content[0]"
    body, losses = write(Message("user", [part, Text("b")]))
    assert body["input"] == [{"type": "message", "role": "user", "content": "b"}]
    assert losses.grave == ["messages[0].content[0]"]


def test_several_texts_of_an_answer_stay_one_message() -> None:
    cited = Text("b", [Citation("http://a", "A", start=0, end=1)])
    (item,) = items(Message("assistant", [Text("a"), cited, Refusal("No.")]))
    url = {"type": "url_citation", "url": "http://a", "title": "A", "start_index": 0, "end_index": 1}
    assert item["id"].startswith("msg_")
    assert item["content"] == [
        {"type": "output_text", "text": "a", "annotations": []},
        {"type": "output_text", "text": "b", "annotations": [url]},
        {"type": "refusal", "refusal": "No."},
    ]


def test_results() -> None:
    picture = {"type": "input_image", "detail": "auto", "image_url": "http://a"}
    parts: list[Part] = [Text("a"), Media("image", url="http://a")]
    results = [ToolResult("c1", parts), ToolResult("c2", []), ToolResult("c3", [Text("bad")], is_error=True, at="x")]
    body, losses = write(Message("user", [*results, Text("Go on.")]))
    assert [item.get("output", item.get("content")) for item in body["input"]] == [
        [{"type": "input_text", "text": "a"}, picture],
        "",
        "bad",
        "Go on.",
    ]
    assert (losses.names, losses.grave) == (["x.is_error"], [])


def test_custom_calls_and_their_results() -> None:
    tool = Tool("patch", kind="custom", grammar={"type": "grammar", "syntax": "lark", "definition": "x"})
    calls: list[Part] = [ToolCall("c1", "patch", "***", custom=True), ToolCall("c2", "patch", '{"input":"+++"}')]
    results: list[Part] = [ToolResult("c1", [Text("ok")]), ToolResult("c2", [Text("ok")])]
    body, _ = write(Message("assistant", calls), Message("user", results), tools=[tool])
    assert [item["type"] for item in body["input"]] == ["custom_tool_call"] * 2 + ["custom_tool_call_output"] * 2
    assert [item.get("input") for item in body["input"][:2]] == ["***", "+++"]
    assert body["tools"] == [{"type": "custom", "name": "patch", "format": tool.grammar}]


def test_long_call_ids_are_mapped_alike() -> None:
    call, result = ToolCall("c" * 80, "f", ""), ToolResult("c" * 80, [])
    one, two = items(Message("assistant", [call]), Message("user", [result]))
    assert one["call_id"] == two["call_id"]
    assert len(one["call_id"]) <= 64
    assert one["arguments"] == "{}"


def test_names_that_the_api_does_not_take_are_mapped_alike() -> None:
    for name in ("google:search.v2", "n" * 70):
        target = Target("up-1", Losses({}))
        call = Message("assistant", [ToolCall("c", name, "{}")])
        choice = ToolChoice("tool", name)
        request = Request([call], [Tool(name, schema=SCHEMA)], choice)
        body = json.loads(openai_responses.write_request(request, target))
        ((written, original),) = target.renamed.items()
        assert original == name
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", written)
        assert written == body["tools"][0]["name"] == body["tool_choice"]["name"] == body["input"][0]["name"]


def test_no_two_tools_are_called_the_same() -> None:
    """The API refuses that, and a call could not be told from the other's."""
    names = ["we.ather", "we_ather", "we/ather", "é", "ü", "n" * 70, "n" * 71]
    target = Target("up-1", Losses({}))
    calls = Message("assistant", [ToolCall(f"c{name}"[:9], name, "{}") for name in names])
    body = json.loads(openai_responses.write_request(Request([calls], [Tool(name) for name in names]), target))
    written = [tool["name"] for tool in body["tools"]]
    assert len(set(written)) == len(names)
    assert [target.renamed.get(name, name) for name in written] == names
    assert [item["name"] for item in body["input"]] == written


def test_signatures_that_have_no_place() -> None:
    call = ToolCall("c", "f", "{}", signature="S", origin="gemini", at="x")
    body, losses = write(Message("assistant", [call]))
    assert [item["type"] for item in body["input"]] == ["function_call"]
    assert (losses.names, losses.grave) == (["x.signature"], [])


# --- thoughts


@pytest.mark.parametrize(
    "thought",
    [
        Thinking("Hm", at="x"),
        Thinking("Hm", signature="S", origin="anthropic_messages", at="x"),
        Thinking(redacted=True, signature="S", origin="gemini", at="x"),
    ],
)
def test_thoughts_of_others_are_left_out(thought: Thinking) -> None:
    body, losses = write(Message("assistant", [thought, Text("a")]))
    assert [item["type"] for item in body["input"]] == ["message"]
    assert (losses.names, losses.grave) == (["x"], [])


def test_a_vendor_that_takes_thoughts_back() -> None:
    body, losses = write(Message("assistant", [Thinking("Hm"), Text("a")]), quirks=("reasoning_content",))
    assert body["input"][0]["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert losses.names == []


def test_thoughts_that_nothing_follows_are_left_out() -> None:
    body, losses = write(HI, Message("assistant", [Thinking("Hm", signature="rs_1 g", origin=NAME)], at="m"))
    assert len(body["input"]) == 1
    assert losses.names == ["m.reasoning"]


@pytest.mark.parametrize(
    ("asked", "expected", "encrypted"),
    [
        (None, None, False),
        (Reasoning("low"), {"effort": "low"}, True),
        (Reasoning("none"), {"effort": "none"}, False),
        (Reasoning(enabled=False), {"effort": "none"}, False),
        (Reasoning("high", visible=True), {"effort": "high", "summary": "auto"}, True),
        (Reasoning(budget=2000, visible=True, summary="detailed"), {"effort": "minimal", "summary": "detailed"}, True),
        (Reasoning(encrypted=True), None, True),
        (Reasoning(budget=2000, enabled=True), {"effort": "minimal", "summary": "auto"}, True),
        (Reasoning(adaptive=True), {"summary": "auto"}, True),
        (Reasoning("low", enabled=True, visible=False), {"effort": "low"}, True),
    ],
)
def test_reasoning(asked: Reasoning | None, expected: Any, encrypted: bool) -> None:
    body, _ = write(reasoning=asked)
    assert body.get("reasoning") == expected
    assert body.get("include") == (["reasoning.encrypted_content"] if encrypted else None)


# --- tools


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (Tool("f", "Does", SCHEMA), {"description": "Does", "parameters": SCHEMA, "strict": False}),
        (Tool("f", schema=CLOSED, strict=True), {"parameters": CLOSED, "strict": True}),
        (Tool("f", schema=SCHEMA, strict=True), {"parameters": SCHEMA, "strict": False}),
        (Tool("f"), {"parameters": {"type": "object", "properties": {}}, "strict": False}),
        (Tool("f", schema=SCHEMA, origin=NAME), {"parameters": SCHEMA}),  # the API's own default is its own
    ],
)
def test_functions(tool: Tool, expected: dict[str, Any]) -> None:
    assert write(tools=[tool])[0]["tools"] == [{"type": "function", "name": "f", **expected}]


def test_what_cannot_be_strict_is_named() -> None:
    output = Output("json_schema", SCHEMA, strict=True)
    body, losses = write(tools=[Tool("f", schema=SCHEMA, strict=True, at="tools[0]")], output=output)
    assert body["text"]["format"]["strict"] is False
    assert losses.names == ["tools[0].strict", "output.strict"]


@pytest.mark.parametrize(("most", "sent", "losses"), [(None, 99, []), (99, 99, []), (50, 50, ["max_tokens"])])
def test_more_output_than_the_model_has(most: int | None, sent: int, losses: list[str]) -> None:
    target = Target("up-1", Losses({}), most)
    body = json.loads(openai_responses.write_request(Request([HI], max_tokens=99), target))
    assert (body["max_output_tokens"], target.losses.names) == (sent, losses)


def test_server_tools() -> None:
    own = Tool("web_search", kind="server", origin=NAME, raw={"type": "web_search"}, at="tools[0]")
    other = Tool("web_search", kind="server", origin="anthropic_messages", raw={"type": "x"}, at="tools[1]")
    body, losses = write(tools=[own, other])
    assert body["tools"] == [{"type": "web_search"}]
    assert losses.grave == ["tools[1]"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("auto"), "auto"),
        (ToolChoice("none"), "none"),
        (ToolChoice("required"), "required"),
        (ToolChoice("tool", "f"), {"type": "function", "name": "f"}),
        (ToolChoice("tool", "p"), {"type": "custom", "name": "p"}),
        (
            ToolChoice("required", allowed=("f", "p")),
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "p"}],
            },
        ),
    ],
)
def test_tool_choice(choice: ToolChoice, expected: Any) -> None:
    tools = [Tool("f", schema=SCHEMA), Tool("p", kind="custom")]
    body, _ = write(tools=tools, tool_choice=choice, parallel_tool_calls=False)
    assert (body["tool_choice"], body["parallel_tool_calls"]) == (expected, False)


def test_a_choice_without_tools() -> None:
    body, losses = write(tool_choice=ToolChoice("required"), parallel_tool_calls=True)
    assert "tool_choice" not in body
    assert "parallel_tool_calls" not in body
    assert losses.names == ["tool_choice"]


# --- fields


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 16}),
        ({"store": True, "user": "u", "cache_key": "k"}, {"store": True, "user": "u", "prompt_cache_key": "k"}),
        ({"metadata": {"a": "b"}, "service_tier": "flex"}, {"metadata": {"a": "b"}, "service_tier": "flex"}),
        ({"output": Output("json_object")}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"output": Output("json_schema", CLOSED, strict=True), "verbosity": "low"},
            {
                "text": {
                    "format": {"type": "json_schema", "name": "answer", "schema": CLOSED, "strict": True},
                    "verbosity": "low",
                }
            },
        ),
        ({"logprobs": True, "top_logprobs": 2}, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
        ({"extra": {"safety_identifier": "s"}}, {"safety_identifier": "s"}),
        ({"service_tier": "fast"}, {"service_tier": "fast"}),
    ],
)
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    body, _ = write(**fields)
    assert {name: body.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "grave"),
    [
        ({"max_tokens": 5}, ["max_tokens"]),
        ({"top_k": 3, "seed": 0, "stop": ["x"]}, ["top_k", "seed", "stop"]),
        ({"n": 2, "modalities": ["text", "audio"]}, ["n", "modalities"]),
        ({"n": 1, "modalities": ["text"]}, []),
        ({"metadata": {"a": 1}, "service_tier": "standard_only"}, []),
        ({"extra": {"prediction": {}, "context_management": {"edits": []}}}, ["prediction", "context_management"]),
    ],
)
def test_lost_fields(fields: dict[str, Any], grave: list[str]) -> None:
    body, losses = write(**fields)
    assert losses.grave == grave
    assert body.keys() <= {"model", "input", "store", "max_output_tokens"}


def test_names_and_cache_breakpoints_are_lost() -> None:
    _, losses = write(Message("user", [Text("a", at="m.content", cache="5m")], name="Bob", at="m"))
    assert (losses.names, losses.grave) == (["m.name", "m.content.cache_control"], ["m.name"])


# --- there and back

PART = {"type": "input_text", "text": "a"}
INNER = {"type": "function", "name": "wait", "description": "Waits", "strict": False, "parameters": SCHEMA}


def test_its_own_requests_come_out_as_they_went_in() -> None:
    given = {
        "model": "up-1",
        "input": [
            {"type": "message", "role": "developer", "content": "Be brief."},
            {"type": "message", "role": "user", "content": [PART, {**PART, "text": "b"}]},
            {**wire.thought("Hm"), "encrypted_content": "gAAA"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}},
            {"type": "function_call", "call_id": "c", "name": "wait", "arguments": "{}", "namespace": "agents"},
            {"type": "function_call_output", "call_id": "c", "output": "ok"},
        ],
        "tools": [
            {"type": "namespace", "name": "agents", "description": "A", "tools": [INNER, {**INNER, "name": "go"}]},
            {**INNER, "name": "f", "defer_loading": True},
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "web_search"},
        "parallel_tool_calls": True,
        "reasoning": {"effort": "low", "summary": "auto", "context": "all_turns"},
        "text": {"verbosity": "low"},
        "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
        "store": False,
        "stream": True,
        "client_metadata": {"a": "b"},
    }
    losses = Losses(openai_responses.FIELDS)
    request = openai_responses.read_request(wire.members(**given))
    assert json.loads(openai_responses.write_request(request, Target("up-1", losses))) == given
    assert losses.names == []


@pytest.mark.parametrize("path", recordings.files("responses"), ids=recordings.name)
def test_recorded_conversations_come_back(path: Any) -> None:
    held = {"previous_response_id", "conversation", "prompt", "background"}
    for exchange in recordings.read(path):
        if exchange.asked is None or not held.isdisjoint(exchange.asked):
            continue
        losses = Losses(openai_responses.FIELDS)
        request = openai_responses.read_request(wire.members(**exchange.asked))
        written = openai_responses.write_request(request, Target("up-1", losses))
        again = openai_responses.read_request(wire.members(**json.loads(written)))
        if not losses.names:
            assert _bare(again) == _bare(request), exchange.id


def _bare(request: Request) -> list[tuple[str, list[Part]]]:
    """Without the places: an item more moves them."""
    found = [part for message in request.messages for part in message.parts]
    found += [part for result in found if isinstance(result, ToolResult) for part in result.parts]
    for part in found:
        part.at = ""
        if isinstance(part, Media) and part.kind == "image" and not part.detail:
            part.detail = "auto"
    return [(message.role, message.parts) for message in request.messages]
