"""Requests written for Gemini, each valid by the types of Google's client."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.genai import types

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
from proxy.formats.gemini.request_reader import FIELDS, read_request
from proxy.formats.gemini.request_writer import function_name, write_request
from proxy.formats.splice import Members
from tests.proxy.formats.gemini.test_request_reader import asked, spoken
from tests.recordings import files, name, read

every_file = pytest.mark.parametrize("path", files("generateContent"), ids=name)


def sent(request: Request, model: str = "gemini-3-flash") -> tuple[dict[str, Any], list[str]]:
    losses = Losses({"stop": "stop", "reasoning": "reasoning_effort"})
    body = json.loads(write_request(request, Target(model, losses)))
    for content in body["contents"]:
        types.Content.model_validate(content)
    for tool in body.get("tools", []):
        types.Tool.model_validate(tool)
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))
    types.ToolConfig.model_validate(body.get("toolConfig", {}))
    return body, losses.names


def talk(*messages: Message, model: str = "gemini-3-flash") -> tuple[list[dict[str, Any]], list[str]]:
    body, losses = sent(Request(list(messages)), model)
    return body["contents"], losses


def user(*parts: Part | str) -> Message:
    return Message("user", [Text(part) if isinstance(part, str) else part for part in parts], at="m")


def model(*parts: Part | str) -> Message:
    return Message("assistant", [Text(part) if isinstance(part, str) else part for part in parts], at="m")


def config(**fields: Any) -> dict[str, Any]:
    body, _ = sent(Request([user("Hi")], **fields))
    return dict(body.get("generationConfig", {}))


def test_it_works() -> None:
    request = asked(
        systemInstruction={"parts": [{"text": "Be brief."}]},
        tools=[{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}],
        generationConfig={"temperature": 0.5, "maxOutputTokens": 100},
    )
    assert sent(request) == (
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}],
            "generationConfig": {"temperature": 0.5, "maxOutputTokens": 100},
        },
        [],
    )


# --- laws ------------------------------------------------------------------------------------------------------------


@every_file
def test_what_was_read_is_written_the_same(path: Path) -> None:
    for exchange in read(path):
        if exchange.asked is None or "contents" not in exchange.asked or exchange.status != 200:
            continue
        first = read_request(Members(json.dumps(exchange.asked).encode()))
        losses = Losses(FIELDS)
        body = write_request(first, Target("gemini-3-flash", losses))
        again = read_request(Members(body))
        assert _gist(again) == _gist(first), exchange.id
        assert _tools(again) == _tools(first), exchange.id


def _gist(request: Request) -> list[object]:
    found: list[object] = []
    for message in request.messages:
        said = "".join(part.text for part in message.parts if isinstance(part, Text)).strip()
        thoughts = "".join(part.text for part in message.parts if isinstance(part, Thinking))
        calls = [(part.name, json.loads(part.arguments)) for part in message.parts if isinstance(part, ToolCall)]
        results = sorted(str(_plain(part)) for part in message.parts if isinstance(part, ToolResult))
        others = [part.value for part in message.parts if isinstance(part, Opaque)]
        signed = sorted(part.signature for part in message.parts if part.signature)
        if said or calls or results or others or thoughts or signed:
            found.append((message.role, said, thoughts, calls, results, others, signed))
    return found


def _plain(result: ToolResult) -> object:
    return result.name, [part.text for part in result.parts if isinstance(part, Text)], result.is_error


def _tools(request: Request) -> list[object]:
    functions = [(tool.name, tool.description, tool.schema) for tool in request.tools if tool.kind == "function"]
    return [*functions, *(tool.raw for tool in request.tools if tool.kind == "server")]


# --- what was read, back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "text", "failed"),
    [
        ({"output": "Föhn"}, "Föhn", False),
        ({"error": "gone"}, "gone", True),
        ({"result": "Föhn"}, '{"result":"Föhn"}', False),
        ({"output": {"a": 1}}, '{"output":{"a":1}}', False),
        ({"output": "a", "more": 1}, '{"output":"a","more":1}', False),
        ({}, "{}", False),
    ],
)
def test_what_tools_said(response: dict[str, Any], text: str, failed: bool) -> None:
    [result] = spoken({"functionResponse": {"name": "f", "response": response}})
    assert isinstance(result, ToolResult)
    assert (result.parts[0].text, result.is_error) == (text, failed)  # type: ignore[attr-defined]
    contents, _ = talk(model(ToolCall(result.call_id, "f")), user(result))
    assert contents[-1]["parts"][0]["functionResponse"]["response"] == response


def test_media_in_results() -> None:
    blob = {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}
    [result] = spoken({"functionResponse": {"name": "f", "response": {"output": "see"}, "parts": [blob]}})
    assert isinstance(result, ToolResult)
    assert result.parts[1].at == "contents[0].parts[0].functionResponse.parts[0]"
    call = model(ToolCall(result.call_id, "f"))
    assert talk(call, user(result))[0][-1]["parts"] == [
        {
            "functionResponse": {
                "id": result.call_id,
                "name": "f",
                "response": {"output": "see"},
                "parts": [blob],
            }
        }
    ]
    older = talk(call, user(result), model="gemini-2.5-flash")[0][-1]["parts"]
    assert ("parts" in older[0]["functionResponse"], older[1]) == (False, blob)


# --- writing: contents -----------------------------------------------------------------------------------------------


def test_results_of_one_turn_are_one_content_in_the_order_of_the_calls() -> None:
    calls = model(ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g"))
    results = [user(ToolResult("b", [Text("2")])), user(ToolResult("a", [Text("1")]))]
    contents, losses = talk(user("Hi"), calls, *results, user("So?"), model="gemini-2.5-flash")
    function_calls = [{"id": "a", "name": "f", "args": {"x": 1}}, {"id": "b", "name": "g", "args": {}}]
    assert contents[1:] == [
        {"role": "model", "parts": [{"functionCall": call} for call in function_calls]},
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "a", "name": "f", "response": {"output": "1"}}},
                {"functionResponse": {"id": "b", "name": "g", "response": {"output": "2"}}},
            ],
        },
        {"role": "user", "parts": [{"text": "So?"}]},
    ]
    assert losses == []


@pytest.mark.parametrize(
    ("result", "response"),
    [
        (ToolResult("a", [Text('{"x": 1}')]), {"x": 1}),
        (ToolResult("a", [Text('{"output": "x"}')]), {"output": '{"output": "x"}'}),
        (ToolResult("a", [Text("[1]")]), {"output": "[1]"}),
        (ToolResult("a", [Text('{"brok')]), {"output": '{"brok'}),
        (ToolResult("a", [Text("one"), Text("two")]), {"output": "one\ntwo"}),
        (ToolResult("a", []), {"output": ""}),
        (ToolResult("a", [Text('{"x": 1}')], is_error=True), {"error": '{"x": 1}'}),
    ],
)
def test_results_are_objects(result: ToolResult, response: dict[str, Any]) -> None:
    contents, _ = talk(user("Hi"), model(ToolCall("a", "f")), user(result))
    assert contents[2]["parts"][0]["functionResponse"]["response"] == response


def test_an_id_may_come_again() -> None:
    first = [model(ToolCall("a", "f"), ToolCall("b", "h")), user(ToolResult("a", [Text("1")]), ToolResult("b", []))]
    again = [model(ToolCall("b", "x"), ToolCall("a", "g")), user(ToolResult("a", [Text("2")]), ToolResult("b", []))]
    contents, _ = talk(user("Hi"), *first, *again)
    names = [part["functionResponse"]["name"] for each in (contents[2], contents[4]) for part in each["parts"]]
    assert names == ["f", "h", "x", "g"]


def test_a_result_without_its_call_becomes_text() -> None:
    contents, losses = talk(user(ToolResult("lost", [Text("42")], at="messages[0]")))
    assert (contents, losses) == ([{"role": "user", "parts": [{"text": "42"}]}], ["messages[0]"])


def test_system_messages() -> None:
    system = Message("system", [Text("A")], at="messages[0]")
    developer = Message("developer", [Text("B"), Media("image", at="messages[1].content[1]")], at="messages[1]")
    late = Message("system", [Text("C")], at="messages[3]")
    body, losses = sent(Request([system, developer, user("Hi"), late]))
    assert body["systemInstruction"] == {"parts": [{"text": "A"}, {"text": "B"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": text}]} for text in ("Hi", "C")]
    assert losses == ["messages[1].content[1]", "messages[3].role"]


def test_the_user_begins() -> None:
    assert [each["role"] for each in talk(model("Hello"))[0]] == ["user", "model"]
    assert talk(Message("system", [Text("A")]))[0] == [{"role": "user", "parts": [{"text": " "}]}]


def test_a_models_turn_is_one_content() -> None:
    contents, _ = talk(user("Hi"), model("a"), model(ToolCall("1", "f")), user(ToolResult("1", [Text("x")])))
    assert [each["role"] for each in contents] == ["user", "model", "user"]


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        (Media("image", "image/png", "aaaa"), {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}),
        (Media("file", data="aaaa"), {"inlineData": {"mimeType": "application/pdf", "data": "aaaa"}}),
        (
            Media("image", url="https://a.example/x.jpg?y"),
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a.example/x.jpg?y"}},
        ),
        (
            Media("image", url="https://a.example/x"),
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a.example/x"}},
        ),
        (Media("file", file_id="files/1", origin="gemini"), {"fileData": {"fileUri": "files/1"}}),
        (Media("file", text="words"), {"text": "words"}),
    ],
)
def test_media(media: Media, expected: dict[str, Any]) -> None:
    contents, losses = talk(user("See", media))
    assert (contents[0]["parts"][1], losses) == (expected, [])


@pytest.mark.parametrize(
    ("part", "loss"),
    [
        (Media("file", file_id="file-1", origin="openai_chat"), "m.part"),
        (Media("image", url="ftp://a/x"), "m.part"),
        (Media("image", data="aaaa", detail="high"), "m.part.detail"),
        (Media("file", data="aaaa", name="x.pdf"), "m.part.title"),
        (Media("file", data="aaaa", cite=True), "m.part.citations"),
        (Opaque("server_tool_use", {}, origin="anthropic_messages"), "m.part"),
        (Text("a", [Citation("https://a")]), "m.part.citations"),
        (Text("a", cache="5m"), "m.part.cache_control"),
        (Thinking("hm"), "m.part"),
        (Thinking("hm", signature="s", origin="anthropic_messages"), "m.part"),
    ],
)
def test_what_gemini_cannot_be_told_is_named(part: Part, loss: str) -> None:
    part.at = "m.part"
    assert talk(user("Hi"), model(part))[1] == [loss]


def test_other_parts_of_the_model() -> None:
    opaque = Opaque("executableCode", {"executableCode": {"code": "1"}}, origin="gemini")
    custom = ToolCall("1", "patch", "*** Begin", custom=True)
    contents, _ = talk(user("Hi"), model(Refusal("No."), opaque, custom), model="gemini-2.5-pro")
    assert contents[1]["parts"] == [
        {"text": "No."},
        {"executableCode": {"code": "1"}},
        {"functionCall": {"id": "1", "name": "patch", "args": {"input": "*** Begin"}}},
    ]


# --- writing: signatures ---------------------------------------------------------------------------------------------

SKIP = "skip_thought_signature_validator"


def signatures(*messages: Message, model: str = "gemini-3-flash") -> list[str]:
    parts = [part for each in talk(*messages, model=model)[0] for part in each["parts"]]
    return [part.get("thoughtSignature", "") for part in parts if "functionCall" in part]


def test_unsigned_calls_of_the_turn_get_googles_placeholder() -> None:
    """The first of each step, and only where the turn goes on: https://ai.google.dev/gemini-api/docs/thought-signatures"""
    before = [user("Hi"), model(ToolCall("1", "f")), user(ToolResult("1", [Text("x")])), model("Well.")]
    step = [user("And?"), model(ToolCall("2", "f"), ToolCall("3", "f"))]
    results = [user(ToolResult("2", [Text("x")]), ToolResult("3", [Text("y")])), model(ToolCall("4", "f"))]
    assert signatures(*before, *step, *results) == ["", SKIP, "", SKIP]
    assert signatures(*before, *step, *results, model="thinker") == ["", SKIP, "", SKIP]
    assert signatures(*before, *step, *results, model="gemini-2.5-flash") == ["", "", "", ""]
    assert signatures(*before, *step, *results, model="models/gemini-flash-latest") == ["", SKIP, "", SKIP]


def test_geminis_signatures_go_back() -> None:
    signed = ToolCall("1", "f", signature="c2ln", origin="gemini")
    assert signatures(user("Hi"), model(signed, ToolCall("2", "f"))) == ["c2ln", ""]
    carrier = Thinking(redacted=True, signature="c2ln", origin="gemini")
    assert signatures(user("Hi"), model(carrier, ToolCall("2", "f"))) == ["c2ln"]
    thought = Thinking("hm", signature="c2ln", origin="gemini")
    contents, _ = talk(user("Hi"), model(thought, "a"))
    assert contents[1]["parts"] == [{"text": "hm", "thought": True}, {"text": "a", "thoughtSignature": "c2ln"}]
    contents, _ = talk(user("Hi"), model("a", carrier, Thinking(redacted=True, signature="dHR0", origin="gemini")))
    assert contents[1]["parts"] == [
        {"text": "a"},
        *({"text": "", "thoughtSignature": each} for each in ("c2ln", "dHR0")),
    ]


# --- writing: tools --------------------------------------------------------------------------------------------------


def with_tools(*tools: Tool, **fields: Any) -> tuple[dict[str, Any], list[str]]:
    return sent(Request([user("Hi")], tools=list(tools), **fields))


def test_tools() -> None:
    schema = {"type": "object", "$defs": {"A": {"const": 1}}, "properties": {"a": {"$ref": "#/$defs/A"}}}
    tools = [
        Tool("f", "Does f.", schema, strict=True, cache="5m", at="tools[0]"),
        Tool("patch", kind="custom", grammar={"type": "grammar"}, at="tools[1]"),
        Tool("google", kind="server", origin="gemini", raw={"googleSearch": {}}, at="tools[2]"),
        Tool("web", kind="server", origin="openai_responses", raw={"type": "web_search"}, at="tools[3]"),
        Tool("later", raw={"defer_loading": True}, origin="anthropic_messages", at="tools[4]"),
    ]
    body, losses = with_tools(*tools)
    functions, google = body["tools"]
    free = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    assert functions["functionDeclarations"] == [
        {"name": "f", "description": "Does f.", "parametersJsonSchema": schema},
        {"name": "patch", "parametersJsonSchema": free},
        {"name": "later"},
    ]
    assert google == {"googleSearch": {}}
    assert losses == ["tools[0].cache_control", "tools[0].strict", "tools[1].format", "tools[3]", "tools[4]"]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (ToolChoice("auto"), {"mode": "AUTO"}),
        (ToolChoice("none"), {"mode": "NONE"}),
        (ToolChoice("required"), {"mode": "ANY"}),
        (ToolChoice("tool", "f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (ToolChoice("required", allowed=("f",)), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (ToolChoice("auto", allowed=("f",)), {"mode": "VALIDATED", "allowedFunctionNames": ["f"]}),
    ],
)
def test_choices_of_tools(choice: ToolChoice, expected: dict[str, Any]) -> None:
    body, losses = with_tools(Tool("f"), tool_choice=choice)
    assert (body["toolConfig"], losses) == ({"functionCallingConfig": expected}, [])


def test_choices_that_cannot_be_said() -> None:
    assert with_tools(Tool("f"), parallel_tool_calls=False)[1] == ["parallel_tool_calls"]
    body, losses = with_tools(Tool("f"), tool_choice=ToolChoice("tool", "web_search"))
    assert ("toolConfig" in body, losses) == (False, ["tool_choice"])
    body, losses = with_tools(tool_choice=ToolChoice("required"))
    assert ("toolConfig" in body, losses) == (False, ["tool_choice"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("get.weather:now-1", "get.weather:now-1"),
        ("1st", "_1st"),
        ("größe/x", "gr__e_x"),
        ("-", "_-"),
        ("", "_"),
        ("f" * 200, "f" * 127),
    ],
)
def test_function_names(given: str, expected: str) -> None:
    assert function_name(given) == expected


# --- writing: generationConfig ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"max_tokens": 5, "temperature": 0.0, "top_p": 1.0, "top_k": 3},
            {"maxOutputTokens": 5, "temperature": 0, "topP": 1, "topK": 3},
        ),
        ({"presence_penalty": 1.0, "frequency_penalty": -1.0}, {"presencePenalty": 1, "frequencyPenalty": -1}),
        ({"seed": 7, "n": 2}, {"seed": 7, "candidateCount": 2}),
        ({"stop": ["a", "b"]}, {"stopSequences": ["a", "b"]}),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"logprobs": True, "top_logprobs": 0}, {"responseLogprobs": True}),
        ({"top_logprobs": 3}, {}),
        ({"modalities": ["text", "image"]}, {"responseModalities": ["TEXT", "IMAGE"]}),
        ({"output": Output("json_object")}, {"responseMimeType": "application/json"}),
        (
            {"output": Output("json_schema", {"type": "object"}, "x")},
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
        ),
        ({"output": Output("text")}, {}),
    ],
)
def test_settings(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert config(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "losses"),
    [
        ({"stop": list("abcdef")}, ["stop"]),
        ({"seed": 2**40}, ["seed"]),
        (
            {"min_p": 0.1, "repetition_penalty": 1.1, "logit_bias": {"1": 1.0}},
            ["min_p", "repetition_penalty", "logit_bias"],
        ),
        ({"verbosity": "low", "audio": {"voice": "x"}}, ["verbosity", "audio"]),
        (
            {"user": "u", "metadata": {"a": "b"}, "cache_key": "k", "store": True},
            ["user", "metadata", "cache_key", "store"],
        ),
        ({"service_tier": "scale"}, ["service_tier"]),
        ({"service_tier": "auto"}, []),
        ({"service_tier": "flex"}, []),
        ({"extra": {"prediction": {}}}, ["prediction"]),
        ({"extra": {"safety_settings": [], "generationConfig.speechConfig": {}, "toolConfig.retrievalConfig": {}}}, []),
    ],
)
def test_what_gemini_has_no_setting_for_is_named(fields: dict[str, Any], losses: list[str]) -> None:
    assert sent(Request([user("Hi")], **fields))[1] == losses


def test_json_and_tools_go_together_from_gemini_3_on() -> None:
    request = Request([user("Hi")], tools=[Tool("f")], output=Output("json_object"))
    assert sent(request)[0]["generationConfig"] == {"responseMimeType": "application/json"}
    body, losses = sent(request, "gemini-2.5-flash")
    assert ("generationConfig" in body, losses) == (False, ["output"])


@pytest.mark.parametrize(
    ("model", "reasoning", "expected", "lost"),
    [
        ("gemini-3-pro-preview", Reasoning("high"), {"thinkingLevel": "HIGH", "includeThoughts": True}, False),
        ("gemini-3-pro-preview", Reasoning("medium"), {"thinkingLevel": "LOW", "includeThoughts": True}, False),
        ("gemini-3.1-pro", Reasoning("medium"), {"thinkingLevel": "MEDIUM", "includeThoughts": True}, False),
        ("gemini-3-flash", Reasoning("none"), {"thinkingLevel": "MINIMAL"}, True),
        ("gemini-flash-latest", Reasoning("max"), {"thinkingLevel": "HIGH", "includeThoughts": True}, False),
        ("models/gemini-3-flash", Reasoning(adaptive=True, visible=True), {"includeThoughts": True}, False),
        ("gemini-2.5-flash", Reasoning("none"), {"thinkingBudget": 0}, False),
        ("gemini-2.5-pro", Reasoning("none"), {"thinkingBudget": 128}, True),
        ("gemini-2.5-flash", Reasoning(budget=99999, visible=False), {"thinkingBudget": 24576}, True),
        ("gemini-2.5-flash", Reasoning(adaptive=True, visible=False), {"thinkingBudget": -1}, False),
        ("gemini-2.5-flash", Reasoning(visible=True), {"includeThoughts": True}, False),
        ("some-model", Reasoning(budget=2000), {"thinkingBudget": 2000, "includeThoughts": True}, False),
        ("gemini-2.0-flash", Reasoning("high"), None, True),
    ],
)
def test_reasoning(model: str, reasoning: Reasoning, expected: dict[str, Any] | None, lost: bool) -> None:
    body, losses = sent(Request([user("Hi")], reasoning=reasoning), model)
    assert body.get("generationConfig", {}).get("thinkingConfig") == expected
    assert losses == (["reasoning_effort"] if lost else [])


def test_thoughts_leave_room_for_the_answer() -> None:
    request = Request([user("Hi")], reasoning=Reasoning("low"), max_tokens=100)
    assert sent(request, "gemini-2.5-flash")[0]["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 90


# --- conversations that Gemini would refuse --------------------------------------------------------------------------


def test_a_call_without_a_result_gets_one() -> None:
    calls = [ToolCall("1", "f", "{}", at="c1"), ToolCall("2", "g", "{}", at="c2")]
    found, losses = talk(user("Hi"), model(*calls), user(ToolResult("2", [Text("ok")])), user("More"))
    said = [part["functionResponse"] for part in found[2]["parts"]]
    assert [(each["id"], each["name"]) for each in said] == [("1", "f"), ("2", "g")]
    assert list(said[0]["response"]) == ["error"]
    assert found[3] == {"role": "user", "parts": [{"text": "More"}]}
    assert losses == ["c1"]


def test_broken_arguments_are_named() -> None:
    call = ToolCall("1", "f", '{"brok', at="c")
    assert talk(user("Hi"), model(call), user(ToolResult("1", [])))[1] == ["c.arguments"]


def test_a_call_at_the_end_gets_its_result_too() -> None:
    found, losses = talk(user("Hi"), model(ToolCall("1", "f", "{}", at="c")))
    assert [content["role"] for content in found] == ["user", "model", "user"]
    assert losses == ["c"]


def test_a_result_behind_other_words_comes_first() -> None:
    call = ToolCall("1", "f", "{}")
    found, losses = talk(user("Hi"), model(call), user("Wait"), user(ToolResult("1", [Text("ok")])), model("Ho"))
    assert "functionResponse" in found[2]["parts"][0]
    assert found[3]["parts"] == [{"text": "Wait"}]
    assert losses == []


def test_a_result_of_an_earlier_turn_becomes_text() -> None:
    call, result = ToolCall("1", "f", "{}", at="c"), ToolResult("1", [Text("ok")], at="r")
    found, losses = talk(user("Hi"), model(call), user("Wait"), model("Ho"), user(result))
    assert found[-1] == {"role": "user", "parts": [{"text": "ok"}]}
    assert losses == ["c", "r"]


def test_a_tool_is_declared_once() -> None:
    body, losses = with_tools(Tool("f", at="tools[0]"), Tool("f", at="tools[1]"))
    assert body["tools"] == [{"functionDeclarations": [{"name": "f"}]}]
    assert losses == ["tools[1]"]


def test_a_documents_title_and_context_stand_before_its_text() -> None:
    found, losses = talk(user(Media("file", "text/plain", text="body", name="T", context="C", at="d")))
    assert found[0]["parts"] == [{"text": "T\nC\nbody"}]
    assert losses == ["d.title", "d.context"]
