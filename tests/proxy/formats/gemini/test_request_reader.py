"""Requests in Gemini's API: what is read of them."""

import base64
import json
from typing import Any

import pytest

from proxy.formats.base import BadField
from proxy.formats.canonical import (
    Media,
    Opaque,
    Output,
    Part,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from proxy.formats.gemini.parts import keep
from proxy.formats.gemini.request_reader import json_schema, read_request
from proxy.formats.splice import Members


def asked(**members: object) -> Request:
    body = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]} | members
    return read_request(Members(json.dumps(body).encode()))


def spoken(*parts: dict[str, Any], role: str = "user") -> list[Part]:
    return asked(contents=[{"role": role, "parts": list(parts)}]).messages[0].parts


def test_it_works() -> None:
    request = asked(
        systemInstruction={"parts": [{"text": "Be brief."}]},
        tools=[{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}],
        generationConfig={"temperature": 0.5, "maxOutputTokens": 100},
    )
    assert [(message.role, message.at) for message in request.messages] == [
        ("system", "systemInstruction"),
        ("user", "contents[0]"),
    ]
    assert request.tools == [Tool("f", schema={"type": "object"}, at="tools[0].functionDeclarations[0]")]
    assert (request.temperature, request.max_tokens) == (0.5, 100)


# --- reading: contents -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"text": "Hi"}, Text("Hi")),
        ({"inlineData": {"mimeType": "image/png", "data": "a-_="}}, Media("image", "image/png", "a+/=")),
        ({"inline_data": {"mime_type": "audio/wav", "data": "aaaa"}}, Media("audio", "audio/wav", "aaaa")),
        (
            {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a.example/x.pdf"}},
            Media("file", "application/pdf", url="https://a.example/x.pdf"),
        ),
        (
            {"file_data": {"mime_type": "video/mp4", "file_uri": "gs://bucket/x"}},
            Media("video", "video/mp4", file_id="gs://bucket/x", origin="gemini"),
        ),
        (
            {"codeExecutionResult": {"output": "1"}},
            Opaque("codeExecutionResult", {"codeExecutionResult": {"output": "1"}}, origin="gemini"),
        ),
        ({"toolCall": {"id": "1"}}, Opaque("toolCall", {"toolCall": {"id": "1"}}, origin="gemini")),
    ],
)
def test_parts_of_the_user(part: dict[str, Any], expected: Part) -> None:
    expected.at = "contents[0].parts[0]"
    assert spoken(part) == [expected]


def test_calls_and_results_find_each_other() -> None:
    def call(name: str, **more: str) -> dict[str, Any]:
        return {"functionCall": {"name": name, "args": {"a": 1}, **more}}

    def result(name: str, **more: str) -> dict[str, Any]:
        return {"functionResponse": {"name": name, "response": {"output": name}, **more}}

    request = asked(
        contents=[
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [call("f"), call("g"), call("f"), call("h", id="own")]},
            {"role": "function", "parts": [result("g", id="new"), result("f"), result("f"), result("h", id="own")]},
            {"parts": [result("lost"), result("lost", id="x")]},
        ]
    )
    calls = [part.id for part in request.messages[1].parts if isinstance(part, ToolCall)]
    assert calls == ["call_1", "call_2", "call_3", "own"]
    results = [part.call_id for part in request.messages[2].parts if isinstance(part, ToolResult)]
    assert results == ["call_2", "call_1", "call_3", "own"]
    assert [part.call_id for part in request.messages[3].parts if isinstance(part, ToolResult)] == ["call_5", "x"]
    assert [message.role for message in request.messages] == ["user", "assistant", "user", "user"]


def test_a_chats_chunks_are_one_turn() -> None:
    """google-genai's chats keep one content per chunk."""
    texts: list[dict[str, Any]] = [
        {"text": "hm", "thought": True},
        {"text": "m", "thought": True},
        {"text": "Hel"},
        {"text": "lo"},
        {"functionCall": {"name": "f"}},
        {"text": "", "thoughtSignature": "sig"},
    ]
    contents = [{"role": "model", "parts": [part]} for part in texts]
    [_, message] = asked(contents=[{"parts": [{"text": "Hi"}]}, *contents, {"role": "model", "parts": []}]).messages
    assert [type(part) for part in message.parts] == [Thinking, Text, ToolCall, Thinking]
    assert [getattr(part, "text", "") for part in message.parts] == ["hmm", "Hello", "", ""]
    assert message.parts[3].signature == "sig"


def test_parts_of_one_content_stay_apart() -> None:
    assert len(spoken({"text": "a"}, {"text": "b"}, role="model")) == 2


def test_a_signature_alone_is_the_texts_before_it() -> None:
    [text] = spoken({"text": "a"}, {"text": "", "thoughtSignature": "s"}, role="model")
    assert (text.signature, text.origin) == ("s", "gemini")


def test_thoughts_of_others_come_back() -> None:
    thought = Thinking("I look.", signature="sig", origin="anthropic_messages")
    seen = {"text": "I look.", "thought": True}
    call = {"functionCall": {"name": "f"}, "thoughtSignature": keep([thought])}
    for parts in ([call], [seen, call]):
        found = spoken(*parts, role="model")
        assert found[0] == thought
        assert isinstance(found[1], ToolCall)
        assert found[1].signature == ""
    assert spoken({"text": "", "thoughtSignature": keep([thought])}, role="model") == [thought]


@pytest.mark.parametrize("word", ["skip_thought_signature_validator", "context_engineering_is_the_way_to_go"])
def test_dummy_signatures_are_none(word: str) -> None:
    for signature in (word, base64.b64encode(word.encode()).decode()):
        [call] = spoken({"functionCall": {"name": "f"}, "thoughtSignature": signature}, role="model")
        assert (call.signature, call.origin) == ("", "")


# --- reading: the rest -----------------------------------------------------------------------------------------------


def test_both_spellings() -> None:
    request = asked(
        system_instruction={"parts": {"text": "Be brief."}},
        generation_config={"max_output_tokens": "100", "stop_sequences": ["x"], "top_k": 40.0, "top_p": 0.5},
        tool_config={"function_calling_config": {"mode": "any", "allowed_function_names": ["f", "g"]}},
        tools={"function_declarations": [{"name": "f", "parameters_json_schema": {"type": "object"}}]},
    )
    assert request.messages[0].role == "system"
    assert (request.max_tokens, request.stop, request.top_k, request.top_p) == (100, ["x"], 40, 0.5)
    assert request.tool_choice == ToolChoice("required", allowed=("f", "g"))
    assert request.tools[0].schema == {"type": "object"}


@pytest.mark.parametrize(
    ("calling", "expected"),
    [
        ({"mode": "AUTO"}, ToolChoice("auto")),
        ({"mode": "NONE"}, ToolChoice("none")),
        ({"mode": "ANY"}, ToolChoice("required")),
        ({"mode": "ANY", "allowedFunctionNames": ["f"]}, ToolChoice("tool", "f")),
        ({"mode": "VALIDATED"}, ToolChoice("auto")),
        ({"mode": 2}, ToolChoice("required")),
        ({}, ToolChoice("auto")),
    ],
)
def test_tool_choice(calling: dict[str, Any], expected: ToolChoice) -> None:
    assert asked(toolConfig={"functionCallingConfig": calling}).tool_choice == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"thinkingBudget": 1000, "includeThoughts": True}, Reasoning(budget=1000, visible=True)),
        ({"thinkingBudget": 0}, Reasoning(budget=0)),
        ({"thinking_budget": -1}, Reasoning(adaptive=True)),
        ({"thinkingLevel": "LOW", "includeThoughts": False}, Reasoning("low", visible=False)),
        ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, Reasoning()),
    ],
)
def test_thinking(given: dict[str, Any], expected: Reasoning) -> None:
    assert asked(generationConfig={"thinkingConfig": given}).reasoning == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"responseMimeType": "application/json"}, Output("json_object")),
        ({"responseJsonSchema": {"type": "object"}}, Output("json_schema", {"type": "object"})),
        ({"response_schema": {"type": "STRING"}}, Output("json_schema", {"type": "string"})),
        ({"responseMimeType": "text/plain"}, Output("text")),
        ({"responseMimeType": "text/x.enum", "responseSchema": {"type": "STRING", "enum": ["a"]}}, None),
        ({}, None),
    ],
)
def test_structured_output(given: dict[str, Any], expected: Output | None) -> None:
    assert asked(generationConfig=given).output == expected


def test_googles_schemas_become_json_schema() -> None:
    schema = {
        "type": "OBJECT",
        "nullable": True,
        "properties": {
            "type": {"type": "STRING", "format": "enum", "enum": ["a", "b"], "nullable": True},
            "many": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "1", "max_items": 5},
            "either": {"anyOf": [{"type": 1}, {"type": "NUMBER"}], "nullable": True},
        },
        "required": ["many"],
        "propertyOrdering": ["many", "type"],
        "example": {"many": [1]},
    }
    assert json_schema(schema) == {
        "type": ["object", "null"],
        "properties": {
            "type": {"type": ["string", "null"], "format": "enum", "enum": ["a", "b", None]},
            "many": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 5},
            "either": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]},
        },
        "required": ["many"],
        "examples": [{"many": [1]}],
    }


def test_servers_tools_are_kept_as_they_are() -> None:
    request = asked(tools=[{"googleSearch": {}, "functionDeclarations": [{"name": "f"}]}, {"code_execution": {}}])
    assert request.tools == [
        Tool("googleSearch", kind="server", origin="gemini", raw={"googleSearch": {}}, at="tools[0].googleSearch"),
        Tool("f", at="tools[0].functionDeclarations[0]"),
        Tool("codeExecution", kind="server", origin="gemini", raw={"codeExecution": {}}, at="tools[1].codeExecution"),
    ]


def test_other_fields_are_kept_by_their_paths() -> None:
    video = {"fileData": {"fileUri": "https://a/v.mp4"}, "videoMetadata": {"fps": 1}}
    request = asked(
        contents=[{"parts": [video]}],
        safetySettings=[{"category": "x"}],
        generationConfig={"speechConfig": {}, "seed": 1},
        toolConfig={"retrievalConfig": {}, "functionCallingConfig": {"mode": "VALIDATED"}},
        tools=[{"functionDeclarations": [{"name": "f", "behavior": "NON_BLOCKING"}]}],
        labels={"team": "a"},
        serviceTier="standard",
        store=False,
        newThing=1,
        model="models/x",
    )
    assert list(request.extra) == [
        "contents[0].parts[0].videoMetadata",
        "safetySettings",
        "generationConfig.speechConfig",
        "toolConfig.retrievalConfig",
        "toolConfig.functionCallingConfig.mode",
        "tools[0].functionDeclarations[0].behavior",
        "newThing",
    ]
    assert (request.metadata, request.service_tier, request.store, request.seed) == ({"team": "a"}, "default", False, 1)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"contents": None}, "contents"),
        ({"contents": "Hi"}, "contents"),
        ({"contents": ["Hi"]}, "contents[0]"),
        ({"contents": [{"role": "assistant"}]}, "contents[0].role"),
        ({"contents": [{"role": 5}]}, "contents[0].role"),
        ({"contents": [{"parts": "Hi"}]}, "contents[0].parts"),
        ({"contents": [{"parts": ["Hi"]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"text": 5}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [{"inlineData": {"data": 5}}]}]}, "contents[0].parts[0].inlineData.data"),
        ({"contents": [{"parts": [{"functionCall": {"args": []}}]}]}, "contents[0].parts[0].functionCall.args"),
        (
            {"contents": [{"parts": [{"functionResponse": {"response": "x"}}]}]},
            "contents[0].parts[0].functionResponse.response",
        ),
        ({"tools": "x"}, "tools"),
        ({"tools": [{"functionDeclarations": [{"name": 5}]}]}, "tools[0].functionDeclarations[0].name"),
        ({"toolConfig": {"functionCallingConfig": {"mode": "MAYBE"}}}, "toolConfig.functionCallingConfig.mode"),
        ({"toolConfig": {"functionCallingConfig": {"mode": 99}}}, "toolConfig.functionCallingConfig.mode"),
        ({"generationConfig": []}, "generationConfig"),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"generationConfig": {"temperature": True}}, "generationConfig.temperature"),
        ({"generationConfig": {"topK": 1.5}}, "generationConfig.topK"),
        ({"generationConfig": {"seed": 10**400}}, "generationConfig.seed"),
        ({"generationConfig": {"stopSequences": [5]}}, "generationConfig.stopSequences"),
        ({"generation_config": {"thinking_config": 5}}, "generation_config.thinkingConfig"),
        ({"store": "yes"}, "store"),
        ({"labels": []}, "labels"),
    ],
)
def test_wrong_types_are_named(members: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as caught:
        asked(**members)
    assert caught.value.param == param


# --- what other clients send -----------------------------------------------------------------------------------------


def test_results_without_ids_answer_calls_that_have_some() -> None:
    calls = [{"functionCall": {"name": "f", "id": "a"}}, {"functionCall": {"name": "f", "id": "b"}}]
    results = [{"functionResponse": {"name": "f", "response": {"output": str(n)}}} for n in range(3)]
    request = asked(contents=[{"parts": [{"text": "Hi"}]}, {"role": "model", "parts": calls}, {"parts": results}])
    found = [part.call_id for part in request.messages[2].parts if isinstance(part, ToolResult)]
    assert found == ["a", "b", "call_3"]


def test_a_made_up_id_is_not_one_that_a_client_gave() -> None:
    calls = [{"functionCall": {"name": "f", "id": "call_2"}}, {"functionCall": {"name": "f"}}]
    request = asked(contents=[{"role": "model", "parts": calls}])
    assert [part.id for part in request.messages[0].parts if isinstance(part, ToolCall)] == ["call_2", "call_3"]


def test_what_is_not_read_of_a_part_is_kept_by_its_path() -> None:
    request = asked(
        contents=[
            {"role": "model", "parts": [{"functionCall": {"name": "f", "id": "a"}}]},
            {
                "parts": [
                    {"functionResponse": {"id": "a", "name": "f", "scheduling": "SILENT", "willContinue": False}},
                    {"text": "Hi", "speechMetadata": {"a": 1}},
                ]
            },
        ]
    )
    assert request.messages[1].parts[1] == Text("Hi", at="contents[1].parts[1]")
    assert request.extra == {
        "contents[1].parts[0].functionResponse.scheduling": "SILENT",
        "contents[1].parts[1].speechMetadata": {"a": 1},
    }


def test_properties_stand_in_their_ordering() -> None:
    schema = {"type": "OBJECT", "properties": {"a": {}, "b": {}, "c": {}}, "property_ordering": ["c", "b", "x"]}
    assert list(json_schema(schema)["properties"]) == ["c", "b", "a"]


def test_numbers_of_an_enum_are_strings_to_google() -> None:
    assert json_schema({"type": "INTEGER", "enum": ["1", "07", "x"]}) == {"type": "integer", "enum": [1, 7, "x"]}
    assert json_schema({"type": "STRING", "enum": ["1"]})["enum"] == ["1"]


def test_a_reference_may_be_nullable() -> None:
    assert json_schema({"ref": "#/$defs/A", "nullable": True}) == {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}


def test_numbers_as_strings_and_enums_as_numbers() -> None:
    config = {"temperature": "0.5", "topP": "1e-1", "maxOutputTokens": "40", "topK": 40.0, "responseModalities": [1, 2]}
    request = asked(generationConfig=config)
    assert (request.temperature, request.top_p, request.max_tokens, request.top_k) == (0.5, 0.1, 40, 40)
    assert request.modalities == ["text", "image"]
    with pytest.raises(BadField):
        asked(generationConfig={"temperature": "warm"})


def test_what_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(450):
        schema = {"type": "OBJECT", "properties": {"a": schema}}
    with pytest.raises(BadField):
        asked(generationConfig={"responseSchema": schema})
