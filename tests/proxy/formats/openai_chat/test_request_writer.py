"""Canonical requests as providers of the chat API get them: by default, by each quirk, and what is named as lost."""

import json
import time
from typing import Any

import pytest

from models_catalog.quirks import QUIRKS
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
from proxy.formats.openai_chat import request_writer as writer
from proxy.formats.openai_chat.request_reader import read_request
from proxy.formats.openai_chat.request_writer import write_request
from proxy.formats.splice import Members

OWN, CLAUDE = "openai_chat", "anthropic_messages"


def write(request: Request, *quirks: str, max_output: int | None = None) -> tuple[dict[str, Any], Losses]:
    losses = Losses({})
    body = write_request(request, Target("theirs", losses, max_output, frozenset(quirks)))
    return json.loads(body), losses


def said(*parts: Part, role: str = "user", quirks: tuple[str, ...] = ()) -> tuple[list[dict[str, Any]], list[str]]:
    """The messages that one message becomes, and what is lost. Results follow their calls."""
    calls: list[Part] = [ToolCall(part.call_id, "f") for part in parts if isinstance(part, ToolResult)]
    before = [Message("assistant", calls)] if calls else []
    body, losses = write(Request([*before, Message(role, list(parts))]), *quirks)
    return body["messages"][len(before) :], losses.names


def fields(request_field: str, value: object, *quirks: str, **more: Any) -> tuple[dict[str, Any], list[str]]:
    """What a field of the request becomes."""
    body, losses = write(Request([], **{request_field: value, **more}), *quirks)
    return {name: found for name, found in body.items() if name not in ("model", "messages")}, losses.names


def test_it_works() -> None:
    request = Request([Message("system", [Text("Be kind")]), Message("user", [Text("Hi")], "Ann")], stream=True)
    body, losses = write(request)
    assert body == {
        "model": "theirs",
        "messages": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi", "name": "Ann"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert losses.names == []


def test_every_quirk_is_one_of_the_catalogs() -> None:
    assert set(QUIRKS) >= writer.QUIRKS
    named = {
        value for name, value in vars(writer).items() if name.isupper() and isinstance(value, str) and name != "NAME"
    }
    assert named == writer.QUIRKS


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quirks", "role"), [((), "system"), (("developer_role",), "developer")])
def test_developers(quirks: tuple[str, ...], role: str) -> None:
    assert said(Text("a"), role="developer", quirks=quirks)[0] == [{"role": role, "content": "a"}]


@pytest.mark.parametrize(
    ("part", "quirks", "written"),
    [
        (
            Media("image", "image/png", "QUJD"),
            (),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        ),
        (
            Media("image", url="https://x", detail="low"),
            (),
            {"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}},
        ),
        (
            Media("audio", "audio/mpeg", "QUJD"),
            (),
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        ),
        (
            Media("file", "application/pdf", "QUJD", name="a.pdf"),
            (),
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
        ),
        (
            Media("file", "application/pdf", "QUJD"),
            (),
            {"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
        ),
        (Media("file", file_id="file-1", origin=OWN), (), {"type": "file", "file": {"file_id": "file-1"}}),
        (Media("file", url="https://x"), ("file_url",), {"type": "file_url", "file_url": {"url": "https://x"}}),
        (Media("video", url="https://x"), ("video_url",), {"type": "video_url", "video_url": {"url": "https://x"}}),
        (
            Text("a", cache="1h"),
            ("cache_control",),
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ),
        (Opaque("new", {"type": "new"}, origin=OWN), (), {"type": "new"}),
    ],
)
def test_parts(part: Part, quirks: tuple[str, ...], written: dict[str, Any]) -> None:
    assert said(part, quirks=quirks) == ([{"role": "user", "content": [written]}], [])


@pytest.mark.parametrize(
    "part",
    [
        Media("audio", "audio/flac", "QUJD", at="x"),
        Media("audio", url="https://x", at="x"),
        Media("video", url="https://x", at="x"),
        Media("file", url="https://x", at="x"),
        Media("file", file_id="file_1", origin=CLAUDE, at="x"),
        Media("image", file_id="file_1", origin=CLAUDE, at="x"),
        Opaque("server_tool_use", {}, origin=CLAUDE, at="x"),
    ],
)
def test_parts_that_cannot_be_said(part: Part) -> None:
    messages, losses = said(Text("a"), part)
    assert (messages, losses) == ([{"role": "user", "content": "a"}], ["x"])


@pytest.mark.parametrize(
    ("part", "content", "loss"),
    [
        (Text("a", cache="5m", at="x"), "a", "x.cache_control"),
        (Text("a", [Citation("https://x")], at="x"), "a", "x.citations"),
        (Text("a", signature="s", origin="gemini", at="x"), "a", "x.signature"),
        (Media("file", "text/plain", text="a", name="t", context="c", at="x"), "t\nc\na", "x.source"),
    ],
)
def test_parts_that_are_said_in_part(part: Part, content: str, loss: str) -> None:
    messages, losses = said(part)
    assert (messages[0]["content"], losses) == (content, [loss])


def test_texts_stay_apart_but_for_vendors_that_want_a_string() -> None:
    texts = (Text("a"), Text("b"))
    assert said(*texts)[0][0]["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert said(*texts, quirks=("string_content",))[0][0]["content"] == "a\n\nb"
    assert said(Text(""))[0][0]["content"] == ""
    assert said()[0][0]["content"] == ""


# --- the model's own, and its tools' ---------------------------------------------------------------------------------


def test_calls_and_their_results() -> None:
    request = Request(
        [
            Message("assistant", [Text("I see"), ToolCall("c1", "f", '{"a":1}'), ToolCall("c2", "g")]),
            Message("user", [ToolResult("c1", [Text("1")]), ToolResult("c2", [Text("2"), Text("3")]), Text("Go on")]),
        ]
    )
    body, losses = write(request)
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert body["messages"] == [
        {"role": "assistant", "content": "I see", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": t} for t in ("2", "3")]},
        {"role": "user", "content": "Go on"},
    ]
    assert losses.names == []


def test_a_call_alone_has_no_content() -> None:
    messages, _ = said(ToolCall("c", "f"), role="assistant")
    assert messages[0]["content"] is None
    assert said(role="assistant")[0] == [{"role": "assistant", "content": ""}]


def test_text_behind_a_call_moves_before_it() -> None:
    messages, losses = said(ToolCall("c", "f"), Text("b", at="x"), role="assistant")
    assert messages[0]["content"] == "b"
    assert losses == ["x"]


def test_refusals_and_spoken_answers_come_back() -> None:
    messages, losses = said(Refusal("No"), Media("audio", id="audio_1", origin=OWN), role="assistant")
    assert messages == [{"role": "assistant", "content": None, "refusal": "No", "audio": {"id": "audio_1"}}]
    assert losses == []


def test_what_was_said_of_a_foreign_spoken_answer() -> None:
    messages, losses = said(Media("audio", "audio/wav", "QUJD", transcript="Hi", at="x"), role="assistant")
    assert (messages[0]["content"], losses) == ("Hi", ["x"])


def test_images_of_results_go_into_a_message_behind_all_results() -> None:
    image = Media("image", url="https://x", at="p")
    results = [Message("user", [ToolResult(name, [Text("see"), image], at=name)]) for name in ("c1", "c2")]
    calls = Message("assistant", [ToolCall("c1", "f"), ToolCall("c2", "f")])
    body, losses = write(Request([calls, *results, Message("assistant", [Text("a")])]))
    assert [message["role"] for message in body["messages"]] == ["assistant", "tool", "tool", "user", "assistant"]
    kinds = [part["type"] for part in body["messages"][3]["content"]]
    assert kinds == ["text", "image_url", "text", "image_url"]
    assert losses.names == ["p"]
    assert losses.grave == []


def test_images_of_results_stay_where_the_vendor_takes_them() -> None:
    messages, losses = said(ToolResult("c", [Text("see"), Media("image", url="https://x")]), quirks=("tool_images",))
    assert [part["type"] for part in messages[0]["content"]] == ["text", "image_url"]
    assert losses == []


def test_the_result_of_a_call_that_is_not_there_is_a_text_of_the_user() -> None:
    body, losses = write(Request([Message("user", [ToolResult("c", [Text("found")], at="x")])]))
    assert (body["messages"], losses.names) == ([{"role": "user", "content": "found"}], ["x"])


def test_a_failed_result_is_a_harmless_loss() -> None:
    calls = Message("assistant", [ToolCall("c", "f")])
    result = Message("user", [ToolResult("c", [Text("no")], is_error=True, at="x")])
    _, losses = write(Request([calls, result]))
    assert (losses.names, losses.grave) == (["x.is_error"], [])


@pytest.mark.parametrize(
    ("call_id", "quirks", "expected"),
    [
        ("toolu_01AbCdEfGhIjKlMnOpQrStUv", (), "toolu_01AbCdEfGhIjKlMnOpQrStUv"),
        ("a" * 41, (), "a" * 41),
        ("a" * 40, ("tool_ids_40",), "a" * 40),
        ("abc123XYZ", ("short_tool_ids",), "abc123XYZ"),
    ],
)
def test_ids_that_pass(call_id: str, quirks: tuple[str, ...], expected: str) -> None:
    assert said(ToolResult(call_id, []), quirks=quirks)[0][0]["tool_call_id"] == expected


@pytest.mark.parametrize(("quirk", "length"), [("tool_ids_40", 29), ("short_tool_ids", 9)])
def test_ids_that_do_not_fit_are_mapped_alike_in_call_and_result(quirk: str, length: int) -> None:
    call_id = "toolu_" + "x" * 60
    call = said(ToolCall(call_id, "f"), role="assistant", quirks=(quirk,))[0][0]["tool_calls"][0]["id"]
    result = said(ToolResult(call_id, []), quirks=(quirk,))[0][0]["tool_call_id"]
    assert call == result
    assert len(call) == length


@pytest.mark.parametrize(
    ("quirks", "written"),
    [
        ((), {"type": "function", "function": {"name": "f", "arguments": '{"input":"4 + 4"}'}}),
        (("custom_tools",), {"type": "custom", "custom": {"name": "f", "input": "4 + 4"}}),
    ],
)
def test_calls_of_custom_tools(quirks: tuple[str, ...], written: dict[str, Any]) -> None:
    messages, _ = said(ToolCall("c", "f", "4 + 4", custom=True), role="assistant", quirks=quirks)
    assert messages[0]["tool_calls"] == [{"id": "c", **written}]


# --- thoughts --------------------------------------------------------------------------------------------------------

DETAIL = {"type": "reasoning.text", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
SIGNED = Thinking("hm", signature=json.dumps(DETAIL), origin=OWN, at="x")
FOREIGN = Thinking("hm", signature="s", origin=CLAUDE, at="x")


@pytest.mark.parametrize(
    ("part", "quirks", "written", "losses"),
    [
        (Thinking("hm", at="x"), (), {}, ["x"]),
        (Thinking("hm", at="x"), ("reasoning_content",), {"reasoning_content": "hm"}, []),
        (FOREIGN, ("reasoning_content",), {"reasoning_content": "hm"}, []),
        (Thinking(redacted=True, signature="s", origin=CLAUDE, at="x"), ("reasoning_content",), {}, ["x"]),
        (SIGNED, ("reasoning_details",), {"reasoning_details": [{**DETAIL, "text": "hm"}]}, []),
        (FOREIGN, ("reasoning_details",), {"reasoning": "hm"}, []),
        (SIGNED, (), {}, ["x"]),
    ],
)
def test_thoughts(part: Thinking, quirks: tuple[str, ...], written: dict[str, Any], losses: list[str]) -> None:
    messages, lost = said(part, Text("a"), role="assistant", quirks=quirks)
    assert (messages[0], lost) == ({"role": "assistant", "content": "a", **written}, losses)


def test_thoughts_of_mistral_stand_in_the_content() -> None:
    messages, losses = said(Thinking("hm"), Text("a"), role="assistant", quirks=("thinking_parts",))
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    assert messages[0]["content"] == [thought, {"type": "text", "text": "a"}]
    assert losses == []


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, True),
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, None),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, None),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {"b": {}}}}},
                "required": ["a"],
                "additionalProperties": False,
            },
            None,
        ),
    ],
)
def test_strict_tools_have_no_optional_properties(schema: dict[str, Any], strict: bool | None) -> None:
    found, losses = fields("tools", [Tool("f", schema=schema, strict=True, at="x")])
    assert found["tools"][0]["function"].get("strict") is strict
    assert losses == ([] if strict else ["x.strict"])


def test_a_signature_that_a_client_made_up_is_left_out() -> None:
    for made_up in ("5", "x", "[]"):
        messages, _ = said(
            Thinking("hm", signature=made_up, origin=OWN), role="assistant", quirks=("reasoning_details",)
        )
        assert messages == [{"role": "assistant", "content": "", "reasoning": "hm"}]


def test_a_summary_goes_back_with_its_encrypted_form() -> None:
    details = [
        {"type": "reasoning.summary", "summary": "hm", "format": "xai-responses-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": "e", "format": "xai-responses-v1", "id": "rs_1", "index": 0},
    ]
    body = {"messages": [{"role": "assistant", "content": "a", "reasoning_details": details}]}
    written, _ = write(read_request(Members(json.dumps(body).encode())), "reasoning_details")
    assert written["messages"][0]["reasoning_details"] == [{**details[0]}, details[1]]


@pytest.mark.parametrize(
    ("quirks", "extra", "losses"),
    [
        ((), None, ["x.signature"]),
        (("extra_content",), {"google": {"thought_signature": "sig"}}, []),
    ],
)
def test_the_signature_of_a_call(quirks: tuple[str, ...], extra: object, losses: list[str]) -> None:
    call = ToolCall("c", "f", signature="sig", origin="gemini", at="x")
    messages, lost = said(call, role="assistant", quirks=quirks)
    assert messages[0]["tool_calls"][0].get("extra_content") == extra
    assert lost == losses


# --- tools -----------------------------------------------------------------------------------------------------------

F = {"type": "function", "function": {"name": "f"}}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "s"}


@pytest.mark.parametrize(
    ("tool", "quirks", "written", "losses"),
    [
        (Tool("f"), (), F, []),
        (
            Tool("f", "d", {"a": 1}, strict=True),
            (),
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"a": 1}, "strict": True}},
            [],
        ),
        (Tool("f", cache="5m", at="x"), (), F, ["x.cache_control"]),
        (Tool("f", cache="5m", at="x"), ("cache_control",), {**F, "cache_control": {"type": "ephemeral"}}, []),
        (Tool("f", origin=CLAUDE, raw={"defer_loading": True}, at="x"), (), F, ["x"]),
        (Tool("web", kind="server", origin=OWN, raw={"type": "web"}), (), {"type": "web"}, []),
        (
            Tool("f", kind="custom", grammar=GRAMMAR),
            ("custom_tools",),
            {
                "type": "custom",
                "custom": {
                    "name": "f",
                    "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s"}},
                },
            },
            [],
        ),
    ],
)
def test_tools(tool: Tool, quirks: tuple[str, ...], written: dict[str, Any], losses: list[str]) -> None:
    assert fields("tools", [tool], *quirks) == ({"tools": [written]}, losses)


def test_a_custom_tool_becomes_a_function_of_one_string() -> None:
    found, losses = fields("tools", [Tool("f", "d", kind="custom", grammar=GRAMMAR, at="x")])
    parameters = found["tools"][0]["function"]["parameters"]
    assert parameters["required"] == ["input"]
    assert parameters["properties"]["input"]["type"] == "string"
    assert losses == ["x.format"]


def test_a_server_tool_of_another_format_is_lost() -> None:
    tools = [Tool("web", kind="server", origin=CLAUDE, raw={}, at="tools[0]")]
    assert fields("tools", tools) == ({}, ["tools[0]"])
    assert fields("tools", tools, tool_choice=ToolChoice("required")) == ({}, ["tools[0]", "tool_choice"])


def test_names_that_chat_does_not_allow() -> None:
    name = "mcp.server:" + "x" * 80
    target = Target("theirs", Losses({}))
    found = json.loads(write_request(Request([], [Tool(name)], ToolChoice("tool", name)), target))
    written = found["tools"][0]["function"]["name"]
    assert len(written) == 64
    assert found["tool_choice"]["function"]["name"] == written
    assert target.renamed == {written: name}
    assert said(ToolCall("c", name), role="assistant")[0][0]["tool_calls"][0]["function"]["name"] == written


@pytest.mark.parametrize(
    ("choice", "quirks", "written"),
    [
        (ToolChoice("auto"), (), "auto"),
        (ToolChoice("none"), (), "none"),
        (ToolChoice("required"), (), "required"),
        (ToolChoice("tool", "f"), (), {"type": "function", "function": {"name": "f"}}),
        (ToolChoice("tool", "g"), ("custom_tools",), {"type": "custom", "custom": {"name": "g"}}),
        (ToolChoice("tool", "g"), (), {"type": "function", "function": {"name": "g"}}),
        (
            ToolChoice("required", allowed=("f",)),
            ("allowed_tools",),
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [F]}},
        ),
    ],
)
def test_choices_of_a_tool(choice: ToolChoice, quirks: tuple[str, ...], written: object) -> None:
    tools = [Tool("f"), Tool("g", kind="custom")]
    assert fields("tools", tools, *quirks, tool_choice=choice)[0]["tool_choice"] == written


def test_of_allowed_tools_only_those_are_shown() -> None:
    tools = [Tool("f"), Tool("g", at="tools[1]")]
    found, losses = fields("tools", tools, tool_choice=ToolChoice("auto", allowed=("f",)), parallel_tool_calls=False)
    assert found == {"tools": [F], "tool_choice": "auto", "parallel_tool_calls": False}
    assert losses == ["tools[1]"]


def test_a_choice_without_tools_is_not_sent() -> None:
    assert fields("tool_choice", ToolChoice("auto"), parallel_tool_calls=True) == ({}, [])


# --- how much to think -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "quirks", "written", "losses"),
    [
        (Reasoning("low"), (), {"reasoning_effort": "low"}, []),
        (Reasoning("minimal"), (), {"reasoning_effort": "low"}, []),
        (Reasoning("max"), (), {"reasoning_effort": "high"}, []),
        (Reasoning("max"), ("all_efforts",), {"reasoning_effort": "xhigh"}, []),
        (Reasoning("none"), ("all_efforts",), {"reasoning_effort": "none"}, []),
        (Reasoning("none"), (), {}, ["reasoning"]),
        (Reasoning(encrypted=True), (), {}, []),
        (Reasoning(summary="auto", visible=True), (), {}, ["reasoning.summary"]),
        (Reasoning(budget=30000), (), {"reasoning_effort": "high"}, []),
        (Reasoning(enabled=True), (), {"reasoning_effort": "medium"}, []),
        (Reasoning(adaptive=True), (), {}, ["reasoning"]),
        (Reasoning("high", summary="auto"), (), {"reasoning_effort": "high"}, ["reasoning.summary"]),
        (Reasoning("high"), ("no_reasoning_effort",), {}, ["reasoning"]),
        (Reasoning("low"), ("on_off_effort",), {"reasoning_effort": "high"}, []),
        (Reasoning(enabled=False), ("on_off_effort",), {"reasoning_effort": "none"}, []),
        (Reasoning("low"), ("thinking_type",), {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}, []),
        (Reasoning(enabled=False), ("thinking_type",), {"thinking": {"type": "disabled"}}, []),
        (Reasoning(enabled=True), ("thinking_type", "no_reasoning_effort"), {"thinking": {"type": "enabled"}}, []),
        (
            Reasoning(enabled=True, budget=99),
            ("enable_thinking", "no_reasoning_effort"),
            {"enable_thinking": True, "thinking_budget": 99},
            [],
        ),
        (Reasoning("none"), ("enable_thinking",), {"enable_thinking": False}, []),
        (Reasoning("none"), ("chat_template_kwargs",), {"chat_template_kwargs": {"enable_thinking": False}}, []),
        (
            Reasoning("max", visible=False),
            ("reasoning_object",),
            {"reasoning": {"effort": "xhigh", "exclude": True}},
            [],
        ),
        (Reasoning("low", budget=2000), ("reasoning_object",), {"reasoning": {"max_tokens": 2000}}, []),
        (Reasoning(enabled=False), ("reasoning_object",), {"reasoning": {"enabled": False}}, []),
        (Reasoning(adaptive=True), ("reasoning_object",), {"reasoning": {"enabled": True}}, []),
    ],
)
def test_how_much_to_think(
    wanted: Reasoning, quirks: tuple[str, ...], written: dict[str, Any], losses: list[str]
) -> None:
    assert fields("reasoning", wanted, *quirks) == (written, losses)


def test_a_budget_of_thoughts_stays_under_the_bound() -> None:
    for budget, sent, lost in ((1999, {"max_tokens": 1999}, []), (2000, {"effort": "high"}, ["reasoning"])):
        body, losses = fields("reasoning", Reasoning(budget=budget), "reasoning_object", max_tokens=2000)
        assert (body["reasoning"], losses) == (sent, lost)


def test_messages_that_are_lost_whole_are_left_out() -> None:
    lost = Opaque("search", {}, at="m", origin="openai_responses")
    for role in ("user", "assistant"):
        assert said(lost, role=role) == ([], ["m"])
        assert said(lost, Text("a"), role=role)[0] == [{"role": role, "content": "a"}]
        assert said(Text(""), role=role)[0] == said(role=role)[0] == [{"role": role, "content": ""}]


def test_many_calls_and_tools() -> None:
    """The time for them grows with the request, not with its square."""
    names = [f"f{n}" for n in range(9000)]
    closed = {
        "type": "object",
        "properties": {name: {} for name in names},
        "required": names,
        "additionalProperties": False,
    }
    request = Request(
        [
            Message("assistant", [ToolCall(name, name) for name in names]),
            Message("user", [ToolResult(name, [Text("r")]) for name in reversed(names)]),
            Message("assistant", [Thinking(name) for name in names]),
        ],
        tools=[Tool("f", schema=closed, strict=True), *[Tool(name) for name in names]],
        tool_choice=ToolChoice("auto", allowed=tuple(names)),
    )
    for quirks in (("allowed_tools", "custom_tools", "reasoning_content"), ()):
        begun = time.process_time()
        body, _ = write(request, *quirks)
        assert time.process_time() - begun < 1
        assert len(body["messages"]) == 9001 + bool(quirks)  # thoughts alone have no place without the quirk


# --- the other fields ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "quirks", "written"),
    [
        ("max_tokens", 5, (), {"max_tokens": 5}),
        ("max_tokens", 5, ("max_completion_tokens",), {"max_completion_tokens": 5}),
        ("seed", 7, (), {"seed": 7}),
        ("seed", 7, ("random_seed",), {"random_seed": 7}),
        ("stop", ["a"], (), {"stop": ["a"]}),
        ("modalities", ["text"], (), {}),
        ("modalities", ["text", "audio"], (), {"modalities": ["text", "audio"]}),
        ("top_k", 5, ("sampling_extras",), {"top_k": 5}),
        ("cache_key", "k", ("platform_fields",), {"prompt_cache_key": "k"}),
        ("service_tier", "flex", ("platform_fields",), {"service_tier": "flex"}),
        ("user", "u", ("platform_fields",), {"user": "u"}),
        ("service_tier", "fast", ("platform_fields",), {"service_tier": "fast"}),
        ("extra", {"safety_identifier": "x"}, ("platform_fields",), {"safety_identifier": "x"}),
        ("extra", {"prompt_cache_options": {"a": 1}}, ("platform_fields",), {"prompt_cache_options": {"a": 1}}),
        ("store", False, ("platform_fields",), {"store": False}),
        ("output", Output("text"), (), {}),
        ("output", Output("json_object"), (), {"response_format": {"type": "json_object"}}),
        ("stream", True, ("no_stream_options",), {"stream": True}),
        *[(name, 1, (), {name: 1}) for name in ("temperature", "top_p", "n", "top_logprobs", "frequency_penalty")],
        *[(name, {"5": 1}, (), {name: {"5": 1}}) for name in ("logit_bias", "audio")],
    ],
)
def test_fields(field: str, value: object, quirks: tuple[str, ...], written: dict[str, Any]) -> None:
    assert fields(field, value, *quirks) == (written, [])


@pytest.mark.parametrize(
    ("field", "value", "quirks", "grave"),
    [
        ("top_k", 5, (), True),
        ("min_p", 0.1, (), True),
        ("repetition_penalty", 1.1, (), True),
        ("verbosity", "low", (), True),
        ("user", "u", (), False),
        ("store", True, (), False),
        ("metadata", {"a": "b"}, ("platform_fields",), False),  # without `store` OpenAI refuses it
        ("extra", {"safety_identifier": "x"}, (), False),
        ("extra", {"safety_identifier": {}}, ("platform_fields",), False),
        ("service_tier", "standard_only", ("platform_fields",), False),
        ("extra", {"web_search_options": {}}, (), True),
    ],
)
def test_fields_that_are_lost(field: str, value: object, quirks: tuple[str, ...], grave: bool) -> None:
    body, losses = write(Request([], **{field: value}), *quirks)
    assert body == {"model": "theirs", "messages": []}
    assert len(losses.names) == 1
    assert bool(losses.grave) is grave


def test_metadata_of_what_is_stored() -> None:
    written, losses = fields("metadata", {"a": "b"}, "platform_fields", store=True)
    assert (written, losses) == ({"store": True, "metadata": {"a": "b"}}, [])


def test_at_most_four_stop_sequences() -> None:
    assert fields("stop", list("abcde")) == ({"stop": list("abcd")}, ["stop"])


@pytest.mark.parametrize(("most", "sent", "losses"), [(None, 9, []), (10, 9, []), (5, 5, ["max_tokens"])])
def test_more_output_than_the_model_has(most: int | None, sent: int, losses: list[str]) -> None:
    body, lost = write(Request([], max_tokens=9), max_output=most)
    assert (body["max_tokens"], lost.names) == (sent, losses)


def test_details_that_only_responses_have() -> None:
    parts = [
        Media("image", url="https://x", detail="original", at="a"),
        Media("file", data="QUJD", detail="low", at="b"),
    ]
    (message,), losses = said(*parts)
    assert message["content"][0]["image_url"] == {"url": "https://x", "detail": "high"}
    assert losses == ["a.detail", "b.detail"]


def test_a_schema_has_a_name() -> None:
    output = Output("json_schema", {"a": 1}, "my name!", "d", strict=True)
    schema = {"name": "my_name_", "description": "d", "schema": {"a": 1}, "strict": True}
    assert fields("output", output)[0] == {"response_format": {"type": "json_schema", "json_schema": schema}}
    assert fields("output", Output("json_schema", {}))[0]["response_format"]["json_schema"]["name"] == "response"


def test_a_strict_schema_has_no_optional_properties() -> None:
    found, losses = fields("output", Output("json_schema", {"type": "object", "properties": {"a": {}}}, strict=True))
    assert "strict" not in found["response_format"]["json_schema"]
    assert losses == ["output.strict"]


def test_a_schema_for_a_vendor_that_takes_none() -> None:
    found, losses = fields("output", Output("json_schema", {}), "no_json_schema")
    assert (found, losses) == ({"response_format": {"type": "json_object"}}, ["output"])
