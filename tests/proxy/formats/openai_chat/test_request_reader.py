"""Chat requests in every vendor's spelling, as the canonical form has them; and what is refused, by its path."""

import base64
import json
import time
from typing import Any

import pytest

from proxy.formats.base import BadField
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
    seal,
)
from proxy.formats.openai_chat.request_reader import read_request
from proxy.formats.splice import Members

HELLO = {"role": "user", "content": "Hi"}
OWN = "openai_chat"


def read(**fields: Any) -> Request:
    return read_request(Members(json.dumps({"model": "m", "messages": [HELLO], **fields}).encode()))


def messages(*found: dict[str, Any]) -> list[Message]:
    return read(messages=found).messages


def part(found: dict[str, Any], role: str = "user") -> Part:
    return messages({"role": role, "content": [found]})[0].parts[0]


def assistant(**found: Any) -> list[Part]:
    return messages({"role": "assistant", **found})[0].parts


def test_it_works() -> None:
    assert read(stream=True, temperature=0.5, something=1) == Request(
        [Message("user", [Text("Hi", at="messages[0].content")], at="messages[0]")],
        temperature=0.5,
        stream=True,
        extra={"something": 1},
    )


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_roles_stay_where_they_are(role: str) -> None:
    found = messages(HELLO, {"role": role, "content": "a", "name": "Ann"}, HELLO)
    assert found[1] == Message(role, [Text("a", at="messages[1].content")], "Ann", "messages[1]")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"type": "text", "text": "a"}, Text("a")),
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, Text("a", cache="5m")),
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}, Text("a", cache="1h")),
        ({"type": "refusal", "refusal": "No"}, Refusal("No")),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
            Media("image", "image/png", "QUJD", detail="low"),
        ),
        ({"type": "image_url", "image_url": {"url": "https://x/a.png"}}, Media("image", url="https://x/a.png")),
        ({"type": "image_url", "image_url": "https://x/a.png"}, Media("image", url="https://x/a.png")),  # Mistral
        (
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
            Media("audio", "audio/wav", "QUJD"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
            Media("audio", "audio/mpeg", "QUJD"),
        ),
        ({"type": "input_audio", "input_audio": "QUJD"}, Media("audio", "audio/mpeg", "QUJD")),
        ({"type": "input_audio", "input_audio": "https://x/a.mp3"}, Media("audio", url="https://x/a.mp3")),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
            Media("file", "application/pdf", "QUJD", name="a.pdf"),
        ),
        (
            {"type": "file", "file": {"filename": "a.csv", "file_data": "QUJD"}},
            Media("file", "text/csv", "QUJD", name="a.csv"),
        ),
        ({"type": "file", "file": {"file_data": "QUJD"}}, Media("file", "application/pdf", "QUJD")),
        ({"type": "file", "file": {"file_data": "https://x/a.pdf"}}, Media("file", url="https://x/a.pdf")),
        ({"type": "file", "file": {"file_id": "file-1"}}, Media("file", file_id="file-1", origin=OWN)),
        ({"type": "video_url", "video_url": {"url": "https://x/a.mp4"}}, Media("video", url="https://x/a.mp4")),
        ({"type": "file_url", "file_url": {"url": "https://x/a.pdf"}}, Media("file", url="https://x/a.pdf")),
        ({"type": "document_url", "document_url": "https://x/a.pdf"}, Media("file", url="https://x/a.pdf")),
        (
            {"type": "thinking", "thinking": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            Thinking("ab"),
        ),
        ({"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}, Text("a", cache="5m")),
        ({"type": "new", "x": 1}, Opaque("new", {"type": "new", "x": 1}, origin=OWN)),
    ],
)
def test_parts(found: dict[str, Any], expected: Part) -> None:
    expected.at = "messages[0].content[0]"
    assert part(found) == expected


def test_a_data_url_without_base64() -> None:
    image = part({"type": "image_url", "image_url": {"url": "data:image/svg+xml;charset=utf-8,%3Csvg/%3E"}})
    assert isinstance(image, Media)
    assert (image.media_type, base64.b64decode(image.data)) == ("image/svg+xml", b"<svg/>")


def test_a_cache_breakpoint_on_a_message_stands_behind_its_last_part() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    found = messages({"role": "system", "content": content, "cache_control": {"type": "ephemeral"}})[0].parts
    assert [each.cache for each in found] == ["", "5m"]


def test_the_models_own_words() -> None:
    assert assistant(content="a", refusal="No", audio={"id": "audio_1"}) == [
        Text("a", at="messages[0].content"),
        Refusal("No", at="messages[0].refusal"),
        Media("audio", id="audio_1", at="messages[0].audio", origin=OWN),
    ]
    assert assistant(content=None) == []


def test_images_and_annotations_that_the_model_made_come_back() -> None:
    note = {
        "type": "url_citation",
        "url_citation": {"url": "https://x", "title": "X", "start_index": 0, "end_index": 1},
    }
    image = {"type": "image_url", "image_url": {"url": "https://x/a.png"}}
    text, media = assistant(content="a", annotations=[note], images=[image])
    assert isinstance(text, Text)
    assert text.citations == [Citation("https://x", "X", start=0, end=1, origin=OWN, raw=note)]
    assert media == Media("image", url="https://x/a.png", at="messages[0].images[0]")


# --- tool calls and their results ------------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
CALL_AT = "messages[0].tool_calls[0]"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (CALL, ToolCall("c1", "f", '{"a": 1}')),
        ({"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}, ToolCall("call_0_0", "f", '{"a":1}')),
        ({"id": "c1", "function": {"name": "f"}}, ToolCall("c1", "f")),
        ({"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}, ToolCall("c1", "f", "x", custom=True)),
        ({**CALL, "cache_control": {"type": "ephemeral"}}, ToolCall("c1", "f", '{"a": 1}', cache="5m")),
        (
            {**CALL, "extra_content": {"google": {"thought_signature": "sig"}}},
            ToolCall("c1", "f", '{"a": 1}', signature="sig", origin="gemini"),
        ),
        ({"id": "c1", "type": "other", "x": 1}, Opaque("other", {"id": "c1", "type": "other", "x": 1}, origin=OWN)),
    ],
)
def test_calls(call: dict[str, Any], expected: Part) -> None:
    expected.at = CALL_AT
    assert assistant(tool_calls=[call]) == [expected]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("12", [Text("12", at="messages[1].content")]),
        ([{"type": "text", "text": "12"}], [Text("12", at="messages[1].content[0]")]),
        (None, []),
    ],
)
def test_a_result_is_a_part_of_a_users_message(content: object, parts: list[Part]) -> None:
    result = messages(
        {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": content}
    )[1]
    assert result == Message("user", [ToolResult("c1", parts, at="messages[1]")], at="messages[1]")


def test_functions_of_the_first_chat_api() -> None:
    found = read(
        messages=[
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "12"},
        ],
        functions=[{"name": "f", "description": "d", "parameters": {"type": "object"}}],
        function_call={"name": "f"},
    )
    call, result = found.messages[0].parts[0], found.messages[1].parts[0]
    assert call == ToolCall("call_0", "f", "{}", at="messages[0].function_call")
    assert isinstance(result, ToolResult)
    assert (result.call_id, result.name) == ("call_0", "f")
    assert found.tools == [Tool("f", "d", {"type": "object"}, at="functions[0]")]
    assert found.tool_choice == ToolChoice("tool", "f")


def test_results_without_ids_belong_to_the_calls_in_their_order() -> None:
    calls = [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g", "arguments": "{}"}}]
    found = messages(
        {"role": "assistant", "tool_calls": calls}, {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}
    )
    given = [each.id for each in found[0].parts if isinstance(each, ToolCall)]
    assert given == ["call_0_0", "call_0_1"]
    assert [each.call_id for message in found[1:] for each in message.parts if isinstance(each, ToolResult)] == given


def test_many_results_find_their_calls() -> None:
    """Whatever their order: the time for it grows with the request, not with its square."""
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": f"f{n}", "arguments": "{}"}} for n in range(9000)]
    for results in (
        [{"role": "tool", "tool_call_id": call["id"], "content": "r"} for call in reversed(calls)],
        [{"role": "function", "name": f"f{n}", "content": "r"} for n in reversed(range(9000))],
    ):
        begun = time.process_time()
        found = messages({"role": "assistant", "tool_calls": calls}, *results)
        assert time.process_time() - begun < 1
        assert [part.call_id for message in found[1:] for part in message.parts if isinstance(part, ToolResult)] == [
            f"c{n}" for n in reversed(range(9000))
        ]


def test_the_result_of_a_custom_tool() -> None:
    call = {"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}
    result = messages(
        {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "1"}
    )
    assert isinstance(found := result[1].parts[0], ToolResult)
    assert found.custom


# --- thoughts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_plain_thoughts(name: str) -> None:
    assert assistant(content="a", **{name: "hm"})[0] == Thinking("hm", at=f"messages[0].{name}")


def test_details_count_before_the_plain_text() -> None:
    signed = {"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1", "index": 0}
    found = assistant(content="a", reasoning="hm", reasoning_details=[signed])
    kept = '{"type":"reasoning.text","signature":"s","format":"anthropic-claude-v1","index":0}'
    assert found[0] == Thinking("hm", signature=kept, origin=OWN, at="messages[0].reasoning_details[0]")
    assert len(found) == 2


def test_a_sealed_signature_has_its_own_origin() -> None:
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": seal("anthropic_messages", "s")},
        {"type": "reasoning.encrypted", "data": seal("anthropic_messages", "d")},
    ]
    found = assistant(reasoning_details=details)
    assert [(each.signature, each.origin) for each in found] == [
        ("s", "anthropic_messages"),
        ("d", "anthropic_messages"),
    ]
    assert [isinstance(each, Thinking) and each.redacted for each in found] == [False, True]


def test_the_encrypted_form_of_a_summary_is_its_signature() -> None:
    details = [
        {"type": "reasoning.summary", "summary": "hm", "index": 0},
        {"type": "reasoning.encrypted", "data": seal("openai_responses", "e"), "id": "rs_1", "index": 0},
    ]
    found = assistant(reasoning_details=details)
    at = "messages[0].reasoning_details[0]"
    assert found == [Thinking("hm", summary=True, id="rs_1", signature="e", origin="openai_responses", at=at)]


def test_a_detail_with_a_calls_id_signs_that_call() -> None:
    details = [{"type": "reasoning.encrypted", "data": seal("gemini", "sig"), "id": "c1"}]
    assert assistant(reasoning_details=details, tool_calls=[CALL]) == [
        ToolCall("c1", "f", '{"a": 1}', signature="sig", origin="gemini", at=CALL_AT)
    ]


def test_a_detail_that_holds_nothing_is_none() -> None:
    assert assistant(reasoning_details=[{"type": "reasoning.encrypted", "format": "google-gemini-v1"}]) == []


# --- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        (
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"a": 1}, "strict": True}},
            Tool("f", "d", {"a": 1}, strict=True),
        ),
        ({"function": {"name": "f"}}, Tool("f")),
        (
            {"type": "function", "function": {"name": "f"}, "cache_control": {"type": "ephemeral"}},
            Tool("f", cache="5m"),
        ),
        (
            {"type": "custom", "custom": {"name": "f", "format": {"type": "text"}}},
            Tool("f", kind="custom", grammar={"type": "text"}),
        ),
        (
            {
                "type": "custom",
                "custom": {
                    "name": "f",
                    "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s"}},
                },
            },
            Tool("f", kind="custom", grammar={"type": "grammar", "syntax": "lark", "definition": "s"}),
        ),
        (
            {"type": "web_search", "x": 1},
            Tool("web_search", kind="server", origin=OWN, raw={"type": "web_search", "x": 1}),
        ),
    ],
)
def test_tools(tool: dict[str, Any], expected: Tool) -> None:
    expected.at = "tools[0]"
    assert read(tools=[tool]).tools == [expected]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"type": "auto"}, ToolChoice("auto")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("tool", "f")),
        ({"function": {"name": "f"}}, ToolChoice("tool", "f")),
        ({"type": "custom", "custom": {"name": "f"}}, ToolChoice("tool", "f")),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            ToolChoice("required", allowed=("f",)),
        ),
        (None, None),
    ],
)
def test_choices_of_a_tool(choice: object, expected: ToolChoice | None) -> None:
    assert read(tool_choice=choice).tool_choice == expected


# --- how much to think -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reasoning_effort": "low"}, Reasoning("low")),
        ({"reasoning_effort": "none"}, Reasoning("none")),
        ({"reasoning_effort": "default"}, Reasoning(enabled=True)),
        ({"reasoning": {"effort": "high", "exclude": True}}, Reasoning("high", visible=False)),
        ({"reasoning": {"max_tokens": 2000}}, Reasoning(budget=2000)),
        ({"reasoning": {"enabled": True}, "include_reasoning": True}, Reasoning(enabled=True, visible=True)),
        ({"enable_thinking": False}, Reasoning(enabled=False)),
        ({"enable_thinking": True, "thinking_budget": 500}, Reasoning(enabled=True, budget=500)),
        ({"chat_template_kwargs": {"enable_thinking": False}}, Reasoning(enabled=False)),
        ({"thinking": {"type": "enabled"}}, Reasoning(enabled=True)),
        ({"thinking": {"type": "disabled"}}, Reasoning(enabled=False)),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, Reasoning(enabled=True, budget=2000)),
        ({"thinking": {"type": "auto"}}, Reasoning(adaptive=True)),
        ({"reasoning_format": "hidden"}, Reasoning(visible=False)),
        (
            {"extra_body": {"google": {"thinking_config": {"thinking_budget": 800, "include_thoughts": True}}}},
            Reasoning(budget=800, visible=True),
        ),
        ({"extra_body": {"google": {"thinking_config": {"thinking_budget": -1}}}}, Reasoning(adaptive=True)),
        ({"extra_body": {"google": {"thinking_config": {"thinking_level": "LOW"}}}}, Reasoning("low")),
        ({"reasoning_effort": None, "reasoning": None, "thinking": None}, None),
    ],
)
def test_how_much_to_think(fields: dict[str, Any], expected: Reasoning | None) -> None:
    found = read(**fields)
    assert (found.reasoning, found.extra) == (expected, {})


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ({"thinking": {"type": "enabled", "clear_thinking": False}}, {"thinking": {"clear_thinking": False}}),
        ({"chat_template_kwargs": {"enable_thinking": True, "x": 1}}, {"chat_template_kwargs": {"x": 1}}),
        ({"reasoning_effort": "enormous"}, {"reasoning_effort": "enormous"}),
        ({"reasoning_format": "raw"}, {"reasoning_format": "raw"}),
        ({"thinking": {"type": "new"}}, {"thinking": {"type": "new"}}),
        ({"extra_body": {"x": 1}}, {"extra_body": {"x": 1}}),
    ],
)
def test_what_is_not_known_of_it_is_kept(fields: dict[str, Any], extra: dict[str, Any]) -> None:
    assert read(**fields).extra == extra


# --- the other fields ------------------------------------------------------------------------------------------------

SCHEMA = {"type": "object"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, Output("json_object")),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": True}},
            Output("json_schema", SCHEMA, "n", "d", strict=True),
        ),
        ({"type": "json_object", "schema": SCHEMA}, Output("json_schema", SCHEMA)),  # llama.cpp
        (None, None),
    ],
)
def test_output(found: object, expected: Output | None) -> None:
    request = read(response_format=found)
    assert (request.output, request.extra) == (expected, {})


def test_an_output_of_a_vendors_own_is_kept() -> None:
    assert read(response_format={"type": "grammar", "grammar": "x"}).extra == {
        "response_format": {"type": "grammar", "grammar": "x"}
    }


@pytest.mark.parametrize(
    ("fields", "field", "value"),
    [
        ({"stop": "a"}, "stop", ["a"]),
        ({"stop": ["a", "b"]}, "stop", ["a", "b"]),
        ({"max_tokens": 5}, "max_tokens", 5),
        ({"max_tokens": 5.0}, "max_tokens", 5),
        ({"max_completion_tokens": 7, "max_tokens": 5}, "max_tokens", 7),
        ({"max_tokens": 5, "max_completion_tokens": None}, "max_tokens", 5),
        ({"random_seed": 7}, "seed", 7),
        ({"seed": 7}, "seed", 7),
        ({"prompt_cache_key": "k"}, "cache_key", "k"),
        ({"modalities": ["text", "audio"]}, "modalities", ["text", "audio"]),
        ({"audio": {"voice": "v", "format": "wav"}}, "audio", {"voice": "v", "format": "wav"}),
        ({"logit_bias": {"5": -100}}, "logit_bias", {"5": -100}),
        ({"metadata": {"a": "b"}}, "metadata", {"a": "b"}),
        *[({name: 1}, name, 1) for name in ("top_k", "n", "top_logprobs", "top_p", "min_p", "repetition_penalty")],
        *[({name: True}, name, True) for name in ("logprobs", "store", "parallel_tool_calls", "stream")],
        *[({name: "x"}, name, "x") for name in ("verbosity", "service_tier", "user")],
    ],
)
def test_fields(fields: dict[str, Any], field: str, value: object) -> None:
    request = read(**fields)
    assert getattr(request, field) == value
    assert request.extra == {}


def test_what_has_no_place_is_kept_by_its_path() -> None:
    request = read(
        messages=[
            {"role": "assistant", "content": "a", "prefix": True, "tool_calls": [{**CALL, "x": 1}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "x": 1},
                    {"type": "video_url", "video_url": {"url": "https://x", "fps": 2}, "min_pixels": 9},
                    {"type": "new", "x": 1},
                ],
            },
        ],
        tools=[{"type": "function", "function": {"name": "f"}, "defer": True}],
        web_search_options={"user_location": None},
        safety_identifier="x",
        nothing=None,
        stream_options={"include_usage": True},
    )
    assert request.extra == {
        "messages[0].prefix": True,
        "messages[0].tool_calls[0].x": 1,
        "messages[1].content[0].x": 1,
        "messages[1].content[1].min_pixels": 9,
        "messages[1].content[1].video_url.fps": 2,
        "tools[0].defer": True,
        "web_search_options": {"user_location": None},
        "safety_identifier": "x",
    }


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": [1]}, "stop[0]"),
        ({"stop": 5}, "stop"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": {"type": {}}}, "tool_choice.type"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"max_tokens": "many"}}, "reasoning.max_tokens"),
        ({"thinking": {"type": 5}}, "thinking.type"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].image_url"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "!"}}]}]},
            "messages[0].content[0].file.file_data",
        ),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [5]}]}, "messages[0].tool_calls[0]"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"messages": [{"role": "assistant", "reasoning_details": [5]}]}, "messages[0].reasoning_details[0]"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        read(**fields)
    assert caught.value.param == param
    assert f"'{param}'" in caught.value.message
