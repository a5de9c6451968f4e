"""Requests of any format as Anthropic takes them: what is written, and what is named as lost."""

import base64
import copy
import json
import re
from typing import Any

import pytest

from proxy.formats import anthropic_messages
from proxy.formats.anthropic_messages.request_reader import tool_id
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
from proxy.formats.splice import Members
from tests import recordings
from tests.proxy.formats import messages as wire
from tests.recordings import Exchange

OWN = anthropic_messages.NAME
OLD, MIDDLE, NEW = "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8"
PNG = "iVBORw0KGgo="


def user(*parts: Part | str, at: str = "u") -> Message:
    return Message("user", [Text(each, at=f"{at}.t") if isinstance(each, str) else each for each in parts], at=at)


def assistant(*parts: Part | str, at: str = "a") -> Message:
    return Message("assistant", user(*parts, at=at).parts, at=at)


def system(text: str, at: str = "s") -> Message:
    return Message("system", [Text(text, at=f"{at}.t")], at=at)


def call(name: str) -> ToolCall:
    return ToolCall(name, f"do_{name}", "{}", at=f"call.{name}")


def result(name: str, said: str = "done") -> ToolResult:
    return ToolResult(name, [Text(said)], at=f"result.{name}")


def body(*messages: Message, model: str = OLD, **fields: Any) -> dict[str, Any]:
    return wire.written(Request(list(messages) or [user("Hi")], **fields), model)[0]


def losses(*messages: Message, model: str = OLD, quirks: tuple[str, ...] = (), **fields: Any) -> list[str]:
    return wire.written(Request(list(messages) or [user("Hi")], **fields), model, *quirks)[1].names


def turns(*messages: Message, model: str = OLD) -> list[tuple[str, list[str]]]:
    """Who says what, in short."""
    found = body(*messages, model=model)["messages"]
    return [(message["role"], [_short(block) for block in message["content"]]) for message in found]


def _short(block: dict[str, Any]) -> str:
    return str(block.get("text") or block.get("id") or block.get("tool_use_id") or block["type"])


def test_it_works() -> None:
    found, lost = wire.written(
        Request(
            [system("Be kind."), user("Hi"), assistant("Ho"), user("Now?")],
            tools=[Tool("f", "D", {"type": "object", "properties": {}})],
            max_tokens=9,
            temperature=0.5,
            stop=["END"],
            user="u",
            stream=True,
        )
    )
    assert found == {
        "model": OLD,
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be kind."}],
        "tools": [{"name": "f", "description": "D", "input_schema": {"type": "object", "properties": {}}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]},
            {"role": "user", "content": [{"type": "text", "text": "Now?"}]},
        ],
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "stream": True,
    }
    assert lost.names == []


# --- its own requests, over all recordings ---------------------------------------------------------------------------


def _alike(found: Any) -> Any:
    """One way of saying it: blocks for strings, and nothing where nothing or the default is said."""
    if isinstance(found, list):
        return [_alike(each) for each in found]
    if not isinstance(found, dict):
        return found
    kept = {name: _alike(each) for name, each in found.items() if each not in _NOTHING.get(name, (None,))}
    if isinstance(kept.get("content"), str) and ("role" in kept or kept.get("type") == "tool_result"):
        kept["content"] = [{"type": "text", "text": kept["content"]}]
    return kept


_NOTHING: dict[str, tuple[Any, ...]] = {
    "caller": (None, {"type": "direct"}),
    "content": (None, "", []),
    "description": (None, ""),
    "is_error": (None, False),
    "stream": (None, False),
    "system": (None, "", []),
    "tools": (None, []),
    "ttl": (None, "5m"),
    "type": ("custom",),
}


def _whole(asked: dict[str, Any]) -> dict[str, Any]:
    found = _alike(asked)
    if isinstance(found.get("system"), str):
        found["system"] = [{"type": "text", "text": found["system"]}]
    if "output_format" in found:
        found["output_config"] = {"format": found.pop("output_format")}
    joined: list[dict[str, Any]] = []
    for message in found["messages"]:
        if joined and message["role"] == joined[-1]["role"] == "assistant":
            joined[-1]["content"] += message["content"]
        else:
            joined.append(message)
    return {**found, "messages": joined}


@pytest.mark.parametrize("path", recordings.files("messages"), ids=recordings.name)
def test_a_request_read_and_written_is_the_same_but_for_what_is_named(path: Any) -> None:
    for exchange in recordings.read(path):
        if exchange.status == 200 and exchange.asked is not None:
            _check_own(exchange, exchange.asked)


def _check_own(exchange: Exchange, asked: dict[str, Any]) -> None:
    given = {"model": NEW, **asked}  # Google's and Amazon's doors name the model elsewhere
    read = anthropic_messages.read_request(Members(json.dumps(given).encode()))
    found, lost = wire.written(read, given["model"])
    if not lost.names:
        assert _whole(found) == _whole(given), exchange.id


# --- the conversation ------------------------------------------------------------------------------------------------


def test_what_leads_is_the_system_prompt() -> None:
    found = body(system("A"), Message("developer", [Text("B", cache="1h")]), user("Hi"))
    cached = {"type": "text", "text": "B", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    assert found["system"] == [{"type": "text", "text": "A"}, cached]


def test_a_system_message_in_the_middle_keeps_its_place() -> None:
    messages = [user("Hi"), system("A"), system("B"), assistant("Ho"), user("So?"), system("C")]
    assert turns(*messages, model=NEW) == [
        ("user", ["Hi"]),
        ("system", ["A", "B"]),
        ("assistant", ["Ho"]),
        ("user", ["So?"]),
        ("system", ["C"]),
    ]
    assert losses(*messages, model=NEW) == []


def test_a_system_message_moves_behind_the_users() -> None:
    messages = [user("Hi"), assistant("Ho"), system("A"), user("So?")]
    assert turns(*messages, model=NEW)[2:] == [("user", ["So?"]), ("system", ["A"])]
    assert losses(*messages, model=NEW) == ["s"]


def test_a_system_message_never_parts_a_call_from_its_result() -> None:
    messages = [user("Hi"), assistant(call("x")), system("A"), user(result("x"))]
    assert turns(*messages, model=NEW)[2:] == [("user", ["x"]), ("system", ["A"])]
    assert turns(*messages)[2:] == [("user", ["x"]), ("user", ["<system>\nA\n</system>"])]


def test_models_that_know_no_system_messages_are_told_by_the_user() -> None:
    messages = [user("Hi"), system("A"), assistant("Ho"), user("So?")]
    assert turns(*messages)[1] == ("user", ["<system>\nA\n</system>"])
    assert losses(*messages) == ["s.role"]
    assert losses(*messages, quirks=("system_messages",)) == []


def test_a_last_system_message_behind_the_assistants_is_the_users() -> None:
    messages = [user("Hi"), assistant("Ho"), system("A")]
    assert turns(*messages, model=NEW)[2] == ("user", ["<system>\nA\n</system>"])
    assert losses(*messages, model=NEW) == ["s.role"]


def test_nothing_but_instructions() -> None:
    found = body(system("Be kind."), system("Write."))
    assert found["system"] == [{"type": "text", "text": "Be kind."}]
    assert found["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Write."}]}]
    assert losses(system("Be kind."), system("Write.", at="s2")) == ["s2.role"]


def test_the_user_speaks_first() -> None:
    assert turns(assistant("Ho"), user("Hi")) == [("user", ["."]), ("assistant", ["Ho"]), ("user", ["Hi"])]
    assert losses(assistant("Ho"), user("Hi")) == ["a"]
    assert wire.written(Request([]))[0]["messages"] == [{"role": "user", "content": [{"type": "text", "text": "."}]}]


def test_results_stand_together_first_behind_their_calls() -> None:
    messages = [user("Hi"), assistant(call("x"), call("y")), user(result("y")), user(result("x")), user("So?")]
    assert turns(*messages)[1:] == [("assistant", ["x", "y"]), ("user", ["y", "x"]), ("user", ["So?"])]
    assert losses(*messages) == []


def test_words_before_a_result_come_behind_it() -> None:
    messages = [user("Hi"), assistant(call("x"), call("y")), user("Wait", result("x")), user(result("y"))]
    assert turns(*messages)[2:] == [("user", ["x", "y", "Wait"])]
    later = [user("Hi"), assistant(call("x")), user("Wait"), user(result("x"))]
    assert turns(*later)[2:] == [("user", ["x"]), ("user", ["Wait"])]


def test_the_assistants_messages_are_one_turn() -> None:
    messages = [user("Hi"), assistant("Ho"), assistant(call("x")), assistant(call("y")), user(result("x"), result("y"))]
    assert turns(*messages)[1:] == [("assistant", ["Ho", "x", "y"]), ("user", ["x", "y"])]


def test_no_turn_ends_with_thoughts() -> None:
    thought = Thinking("Hm", signature="s", origin=OWN, at="t")
    messages = [user("Hi"), assistant("Ho", thought), user("So?"), assistant(thought), user("So?")]
    assert turns(*messages) == [("user", ["Hi"]), ("assistant", ["Ho"]), ("user", ["So?"]), ("user", ["So?"])]
    assert losses(*messages) == ["t"]


def test_a_call_without_a_result_gets_one() -> None:
    messages = [user("Hi"), assistant(call("x"), call("y")), user(result("x")), user("So?")]
    answers = body(*messages)["messages"][2]["content"]
    assert [block["tool_use_id"] for block in answers] == ["x", "y"]
    assert answers[1]["is_error"]
    assert losses(*messages) == ["call.y"]
    assert turns(user("Hi"), assistant(call("x")))[2] == ("user", ["x"])


def test_a_result_without_a_call_is_said_in_words() -> None:
    messages = [user("Hi"), assistant("Ho"), user(result("x"), "So?")]
    assert turns(*messages)[2] == ("user", ["Result of the tool call x:", "done", "So?"])
    assert losses(*messages) == ["result.x"]


def test_ids_are_mapped_alike_in_call_and_result() -> None:
    found = body(user("Hi"), assistant(call("x:1")), user(result("x:1")))["messages"]
    assert found[1]["content"][0]["id"] == found[2]["content"][0]["tool_use_id"] == tool_id("x:1")


@pytest.mark.parametrize(("said", "lost"), [("", []), (" \n", ["u.t"])])
def test_empty_texts_are_left_out(said: str, lost: list[str]) -> None:
    messages = [user(said, "Hi"), assistant(said, at="u"), user("So?")]
    assert turns(*messages) == [("user", ["Hi"]), ("user", ["So?"])]
    assert losses(*messages) == lost


def test_the_assistants_words_at_the_end_are_gone_on_with() -> None:
    assert turns(user("Hi"), assistant("{ "))[-1] == ("assistant", ["{"])
    assert losses(user("Hi"), assistant("{ ")) == ["a.t"]
    assert losses(user("Hi"), assistant("{")) == []


def test_models_that_do_not_go_on_are_told_to() -> None:
    assert turns(user("Hi"), assistant("{"), model=NEW)[-1] == ("user", ["Continue."])
    assert losses(user("Hi"), assistant("{"), model=NEW) == ["a"]
    thinks = Reasoning(budget=2000)
    assert body(user("Hi"), assistant("{"), reasoning=thinks)["messages"][-1]["role"] == "user"


def test_a_turn_that_a_server_tool_has_paused_goes_on() -> None:
    used = Opaque("web_search_tool_result", {"type": "web_search_tool_result", "tool_use_id": "s"}, origin=OWN)
    assert turns(user("Hi"), assistant(used), model=NEW)[-1] == ("assistant", ["s"])


# --- parts -----------------------------------------------------------------------------------------------------------


def _blocks(*parts: Part, role: str = "user", model: str = OLD, quirks: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """What is written of a message's parts, beside a text, and what is lost."""
    conversation = [user("Hi"), Message(role, [*parts, Text("!")]), user("So?")]
    found, lost = wire.written(Request(conversation), model, *quirks)
    return found["messages"][1]["content"][:-1], lost.names


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("part", "source"),
    [
        (Media("image", "image/png", PNG), {"type": "base64", "media_type": "image/png", "data": PNG}),
        (Media("image", "image/jpg", "x"), {"type": "base64", "media_type": "image/jpeg", "data": "x"}),
        (Media("image", "", PNG), {"type": "base64", "media_type": "image/png", "data": PNG}),
        (Media("file", "image/png", PNG), {"type": "base64", "media_type": "image/png", "data": PNG}),
        (Media("image", url="https://a.b"), {"type": "url", "url": "https://a.b"}),
        (Media("image", file_id="f", origin=OWN), {"type": "file", "file_id": "f"}),
        (Media("file", "application/pdf", "x"), {"type": "base64", "media_type": "application/pdf", "data": "x"}),
        (Media("file", data="JVBERi0x"), {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0x"}),
        (Media("file", url="https://a.b"), {"type": "url", "url": "https://a.b"}),
        (Media("file", text="D"), {"type": "text", "media_type": "text/plain", "data": "D"}),
        (Media("file", "text/plain", _base64("é")), {"type": "text", "media_type": "text/plain", "data": "é"}),
        (Media("file", data=_base64("x"), name="a.TXT"), {"type": "text", "media_type": "text/plain", "data": "x"}),
    ],
)
def test_images_and_documents(part: Media, source: dict[str, Any]) -> None:
    [block], lost = _blocks(part)
    assert (block["source"], lost) == (source, [])


def test_what_is_said_of_a_document() -> None:
    [block], _ = _blocks(Media("file", text="D", name="T", context="C", cite=True, cache="5m"))
    assert {name: block[name] for name in ("title", "context", "citations", "cache_control")} == {
        "title": "T",
        "context": "C",
        "citations": {"enabled": True},
        "cache_control": {"type": "ephemeral"},
    }


@pytest.mark.parametrize(
    "part",
    [
        Media("image", "image/bmp", "x", at="p"),
        Media("image", file_id="f", origin="openai_responses", at="p"),
        Media("audio", "audio/wav", "x", at="p"),
        Media("video", "video/mp4", "x", at="p"),
        Media("file", "application/zip", "x", at="p"),
        Media("file", "text/plain", "%%%", at="p"),
        Media("file", "text/html", url="https://a.b", at="p"),
        Thinking("Hm", signature="s", origin=OWN, at="p"),
        call("x"),
        Opaque("input_thing", {}, origin="openai_responses", at="p"),
    ],
)
def test_what_cannot_be_said_is_named(part: Part) -> None:
    found, lost = _blocks(part)
    assert (found, lost) == ([], [part.at])


def test_what_narrows_is_named() -> None:
    _, lost = _blocks(
        Media("image", "image/png", PNG, detail="high", at="p"), Media("file", "text/csv", "YQ==", at="q")
    )
    assert lost == ["p.detail", "q.media_type"]


@pytest.mark.parametrize(
    ("part", "block", "lost"),
    [
        (
            Thinking("Hm", signature="s", origin=OWN),
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            [],
        ),
        (Thinking(redacted=True, signature="x", origin=OWN), {"type": "redacted_thinking", "data": "x"}, []),
        (Thinking("Hm", signature="s", origin="gemini", at="p"), None, ["p"]),
        (Thinking("Hm", at="p"), None, ["p"]),
        (Refusal("No."), {"type": "text", "text": "No."}, []),
        (Media("image", "image/png", PNG, at="p"), None, ["p"]),
        (
            Text("Hi", [Citation(origin=OWN, raw={"type": "page_location"}), Citation("https://a.b")], at="p"),
            {"type": "text", "text": "Hi", "citations": [{"type": "page_location"}]},
            ["p.citations"],
        ),
        (Text("Hi", signature="s", origin="gemini", at="p"), {"type": "text", "text": "Hi"}, ["p.signature"]),
    ],
)
def test_an_assistants_parts(part: Part, block: dict[str, Any] | None, lost: list[str]) -> None:
    assert _blocks(part, role="assistant") == ([block] if block else [], lost)


def test_vendors_that_sign_nothing_get_their_thoughts_back() -> None:
    found, lost = _blocks(Thinking("Hm"), role="assistant", model="glm-5", quirks=("unsigned_thinking",))
    assert (found, lost) == ([{"type": "thinking", "thinking": "Hm", "signature": ""}], [])


@pytest.mark.parametrize(
    ("arguments", "custom", "given", "lost"),
    [
        ('{"a":1}', False, {"a": 1}, []),
        ("", False, {}, []),
        ("[1", False, {"INVALID_JSON": "[1"}, ["call.x.arguments"]),
        ("ls -l", True, {"input": "ls -l"}, []),
    ],
)
def test_calls(arguments: str, custom: bool, given: dict[str, Any], lost: list[str]) -> None:
    made = ToolCall("x", "f", arguments, custom, at="call.x")
    found, names = wire.written(Request([user("Hi"), assistant(made), user(result("x"))]))
    assert found["messages"][1]["content"] == [{"type": "tool_use", "id": "x", "name": "f", "input": given}]
    assert names.names == lost


def test_results() -> None:
    image = Media("image", "image/png", PNG)
    answers = [ToolResult("x", [Text("R"), image], is_error=True, cache="5m"), ToolResult("y", [])]
    found = body(user("Hi"), assistant(call("x"), call("y")), user(*answers))["messages"][2]["content"]
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    assert found == [
        {
            "type": "tool_result",
            "tool_use_id": "x",
            "content": [{"type": "text", "text": "R"}, {"type": "image", "source": source}],
            "is_error": True,
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "tool_result", "tool_use_id": "y"},
    ]


def test_a_speakers_name_is_named() -> None:
    assert losses(Message("user", [Text("Hi")], name="Ann", at="u")) == ["u.name"]


# --- tools -----------------------------------------------------------------------------------------------------------

CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}


@pytest.mark.parametrize(
    ("tool", "written", "lost"),
    [
        (Tool("f"), {"name": "f", "input_schema": {"type": "object", "properties": {}}}, []),
        (Tool("f", schema=CLOSED, strict=True), {"name": "f", "input_schema": CLOSED, "strict": True}, []),
        (Tool("f", schema=CLOSED, strict=False), {"name": "f", "input_schema": CLOSED}, []),
        (
            Tool("f", schema={"type": "object"}, strict=True, at="t"),
            {"name": "f", "input_schema": {"type": "object"}},
            ["t.strict"],
        ),
        (
            Tool("f", schema={"type": "string"}, at="t"),
            {"name": "f", "input_schema": {"type": "object"}},
            ["t.schema"],
        ),
        (
            Tool("f", schema=CLOSED, cache="1h", at="t"),
            {"name": "f", "input_schema": CLOSED, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            [],
        ),
        (
            Tool("f", kind="custom", grammar={"type": "grammar"}, at="t"),
            {
                "name": "f",
                "input_schema": {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]},
            },
            ["t.format"],
        ),
        (Tool("", kind="server", origin=OWN, raw={"type": "bash_20250124"}), {"type": "bash_20250124"}, []),
        (Tool("", kind="server", origin="openai_responses", raw={"type": "web_search"}, at="t"), None, ["t"]),
    ],
)
def test_tools(tool: Tool, written: dict[str, Any] | None, lost: list[str]) -> None:
    assert body(tools=[tool]).get("tools", []) == ([written] if written else [])
    assert losses(tools=[tool]) == lost


def test_strict_tools_are_not_asked_of_models_that_know_none() -> None:
    assert losses(tools=[Tool("f", schema=CLOSED, strict=True, at="t")], model="claude-sonnet-4-0") == ["t.strict"]


def test_only_so_many_tools_are_strict() -> None:
    tools = [Tool(f"f{n}", schema=CLOSED, strict=True, at=f"t{n}") for n in range(22)]
    assert sum(tool.get("strict", False) for tool in body(tools=tools)["tools"]) == 20
    assert losses(tools=tools) == ["t20.strict", "t21.strict"]


def test_a_name_stands_once() -> None:
    tools = [Tool("f", "A", at="t0"), Tool("f", "B", at="t1")]
    assert [tool["description"] for tool in body(tools=tools)["tools"]] == ["A"]
    assert losses(tools=tools) == ["t1"]


@pytest.mark.parametrize("name", ["a.b", "x" * 200, "", "é"])
def test_a_name_that_anthropic_would_refuse_is_mapped(name: str) -> None:
    made = ToolCall("x", name, at="call.x")
    request = Request([user("Hi"), assistant(made), user(result("x"))], [Tool(name, at="t")], ToolChoice("tool", name))
    target = Target(OLD, Losses({}))
    found = json.loads(anthropic_messages.write_request(request, target))
    mapped = found["tools"][0]["name"]
    assert found["tool_choice"]["name"] == found["messages"][1]["content"][0]["name"] == mapped
    assert target.renamed == {mapped: name}
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", mapped)
    assert (target.losses.names, target.losses.grave) == (["t.name"], [])


def test_names_that_differ_stay_apart() -> None:
    assert len({tool["name"] for tool in body(tools=[Tool("a.b"), Tool("a:b"), Tool("a_b")])["tools"]}) == 3


@pytest.mark.parametrize(
    ("choice", "parallel", "written"),
    [
        (None, None, None),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (ToolChoice("auto"), True, {"type": "auto", "disable_parallel_tool_use": False}),
        (ToolChoice("required"), None, {"type": "any"}),
        (ToolChoice("tool", "f"), False, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
        (ToolChoice("none"), False, {"type": "none"}),
    ],
)
def test_tool_choice(choice: ToolChoice | None, parallel: bool | None, written: dict[str, Any] | None) -> None:
    found, lost = wire.written(Request([user("Hi")], [Tool("f")], choice, parallel))
    assert (found.get("tool_choice"), lost.names) == (written, [])


def test_a_choice_among_some_offers_only_them() -> None:
    tools = [Tool("f", at="t0"), Tool("g", at="t1")]
    choice = ToolChoice("required", allowed=("g",))
    found, lost = wire.written(Request([user("Hi")], tools, choice))
    assert ([tool["name"] for tool in found["tools"]], found["tool_choice"]) == (["g"], {"type": "any"})
    assert (lost.names, lost.grave) == (["t0", "tool_choice.allowed"], [])


@pytest.mark.parametrize(
    ("tools", "choice", "model"),
    [
        ([], ToolChoice("required"), OLD),
        ([Tool("f")], ToolChoice("tool", "g"), OLD),
        ([Tool("f")], ToolChoice("required"), "claude-fable-5"),
    ],
)
def test_a_choice_that_cannot_be_made(tools: list[Tool], choice: ToolChoice, model: str) -> None:
    found, lost = wire.written(Request([user("Hi")], tools, choice), model)
    assert found.get("tool_choice") == ({"type": "auto"} if tools else None)
    assert lost.names == ["tool_choice"]


# --- thinking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "reasoning", "most", "written", "lost"),
    [
        (OLD, Reasoning(effort="high"), 10_000, {"thinking": {"type": "enabled", "budget_tokens": 8000}}, []),
        (OLD, Reasoning(budget=3000), 10_000, {"thinking": {"type": "enabled", "budget_tokens": 3000}}, []),
        (OLD, Reasoning(enabled=True), 10_000, {"thinking": {"type": "enabled", "budget_tokens": 5000}}, ["reasoning"]),
        (OLD, Reasoning(effort="low"), 2000, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, ["reasoning"]),
        (
            OLD,
            Reasoning(budget=9000),
            5000,
            {"thinking": {"type": "enabled", "budget_tokens": 4000}},
            ["thinking"],
        ),
        (OLD, Reasoning(effort="high"), 1024, {}, ["thinking"]),
        (OLD, Reasoning(effort="none"), 5000, {"thinking": {"type": "disabled"}}, []),
        (
            OLD,
            Reasoning(budget=3000, visible=False),
            9000,
            {"thinking": {"type": "enabled", "budget_tokens": 3000, "display": "omitted"}},
            [],
        ),
        (
            NEW,
            Reasoning(effort="xhigh", visible=True),
            5000,
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}},
            [],
        ),
        (
            NEW,
            Reasoning(effort="minimal"),
            5000,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            [],
        ),
        (NEW, Reasoning(adaptive=True), 5000, {"thinking": {"type": "adaptive"}}, []),
        (
            NEW,
            Reasoning(adaptive=True, summary="auto"),
            5000,
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            [],
        ),
        (
            NEW,
            Reasoning(budget=2500),
            5000,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
            [],
        ),
        (NEW, Reasoning(budget=0), 5000, {"thinking": {"type": "disabled"}}, []),
        (MIDDLE, Reasoning(budget=2500), 5000, {"thinking": {"type": "enabled", "budget_tokens": 2500}}, []),
        (
            MIDDLE,
            Reasoning(effort="xhigh"),
            5000,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            [],
        ),
        ("claude-fable-5", Reasoning(effort="none"), 5000, {"output_config": {"effort": "low"}}, ["thinking"]),
        ("claude-3-5-haiku-latest", Reasoning(effort="high"), 5000, {}, ["thinking"]),
    ],
)
def test_thinking(model: str, reasoning: Reasoning, most: int, written: dict[str, Any], lost: list[str]) -> None:
    request = Request([user("Hi")], max_tokens=most, reasoning=reasoning)
    found, names = wire.written(request, model)
    assert {name: found[name] for name in ("thinking", "output_config") if name in found} == written
    assert names.names == lost


@pytest.mark.parametrize(
    ("request_", "most", "expected"),
    [
        (Request([], max_tokens=7), 1000, 7),
        (Request([]), 1000, 1000),
        (Request([]), None, 4096),
        (Request([], reasoning=Reasoning(effort="none")), None, 4096),
        (Request([], reasoning=Reasoning(effort="high")), None, 16_384),
        (Request([], reasoning=Reasoning(budget=20_000)), None, 24_096),
        (Request([], reasoning=Reasoning(budget=20_000)), 30_000, 30_000),
    ],
)
def test_the_output_always_has_a_bound(request_: Request, most: int | None, expected: int) -> None:
    assert wire.written(request_, most=most)[0]["max_tokens"] == expected


def test_a_demanded_tool_outweighs_a_budget() -> None:
    fields = {"tools": [Tool("f")], "tool_choice": ToolChoice("required"), "max_tokens": 5000}
    found = body(reasoning=Reasoning(effort="high"), **fields)
    assert (found["tool_choice"], "thinking" in found) == ({"type": "any"}, False)
    assert losses(reasoning=Reasoning(effort="high"), **fields) == ["thinking"]
    assert "thinking" in body(reasoning=Reasoning(effort="high"), model=MIDDLE, **fields)


@pytest.mark.parametrize(
    ("thought", "model", "thinks"),
    [
        (Thinking("Hm", signature="s", origin=OWN), OLD, True),
        (Thinking(redacted=True, signature="s", origin=OWN), OLD, True),
        (Thinking("Hm", signature="s", origin="gemini"), OLD, False),
        (Text("Ho"), OLD, False),
        (Text("Ho"), NEW, True),
    ],
)
def test_a_tool_loop_begun_without_thoughts_goes_on_so(thought: Part, model: str, *, thinks: bool) -> None:
    messages = [user("Hi"), assistant(thought, call("x")), user(result("x"))]
    found, lost = wire.written(Request(messages, max_tokens=5000, reasoning=Reasoning(effort="high")), model)
    assert ("thinking" in found) is thinks
    assert ("thinking" in lost.names) is not thinks


def test_after_a_tool_loop_thinking_begins_anew() -> None:
    messages = [user("Hi"), assistant(call("x")), user(result("x")), assistant("Ho"), user("So?")]
    assert "thinking" in body(*messages, max_tokens=5000, reasoning=Reasoning(effort="high"))


# --- the other fields ------------------------------------------------------------------------------------------------

THINKS = Reasoning(effort="high")


@pytest.mark.parametrize(
    ("fields", "model", "written", "lost"),
    [
        ({"temperature": 1.7}, OLD, {"temperature": 1}, ["temperature"]),
        ({"temperature": -1.0}, OLD, {"temperature": 0}, ["temperature"]),
        ({"temperature": 0.5, "top_p": 0.9}, OLD, {"temperature": 0.5}, ["top_p"]),
        ({"temperature": 0.5, "top_p": 1.0}, OLD, {"temperature": 0.5}, []),
        ({"temperature": 0.5, "top_p": 0.9}, "claude-sonnet-4-0", {"temperature": 0.5, "top_p": 0.9}, []),
        ({"top_p": 0.9, "top_k": 4}, OLD, {"top_p": 0.9, "top_k": 4}, []),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 4}, NEW, {}, ["temperature", "top_p", "top_k"]),
        ({"temperature": 1.0, "top_p": 1.0}, NEW, {}, []),
        (
            {"temperature": 0.5, "top_p": 0.9, "top_k": 4, "reasoning": THINKS},
            OLD,
            {},
            ["temperature", "top_p", "top_k"],
        ),
        ({"temperature": 1.0, "reasoning": THINKS}, OLD, {"temperature": 1}, []),
        ({"top_p": 0.97, "reasoning": THINKS}, OLD, {"top_p": 0.97}, []),
    ],
)
def test_sampling(fields: dict[str, Any], model: str, written: dict[str, Any], lost: list[str]) -> None:
    found, names = wire.written(Request([user("Hi")], max_tokens=9000, **fields), model)
    assert {name: found[name] for name in ("temperature", "top_p", "top_k") if name in found} == written
    assert names.names == lost


def test_a_schema_binds_the_output() -> None:
    form = {"type": "json_schema", "schema": CLOSED}
    assert body(output=Output("json_schema", CLOSED, name="x", strict=True))["output_config"] == {"format": form}
    found = body(output=Output("json_schema", CLOSED), reasoning=THINKS, model=NEW)["output_config"]
    assert found == {"effort": "high", "format": form}
    assert losses(output=Output("json_schema", CLOSED)) == losses(output=Output("text")) == []


@pytest.mark.parametrize(
    ("output", "model", "lost", "grave"),
    [
        (Output("json_schema", {"type": "object"}), OLD, ["output.schema"], False),
        (Output("json_schema", CLOSED, description="D"), OLD, ["output.description"], False),
        (Output("json_schema", {"type": "integer", "minimum": 1}), OLD, ["output_config.format"], True),
        (Output("json_schema", CLOSED), "claude-sonnet-4-0", ["output_config.format"], True),
        (Output("json_schema", {"$ref": "#"}), OLD, ["output_config.format"], True),
        (Output("json_object"), OLD, ["output_config.format"], True),
    ],
)
def test_what_is_lost_of_structured_output(output: Output, model: str, lost: list[str], *, grave: bool) -> None:
    _, names = wire.written(Request([user("Hi")], output=output), model)
    assert (names.names, bool(names.grave)) == (lost, grave)


@pytest.mark.parametrize(
    ("fields", "written", "lost"),
    [
        ({"stop": ["END", " "]}, {"stop_sequences": ["END"]}, ["stop_sequences"]),
        ({"user": "u" * 300}, {}, ["metadata.user_id"]),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}, []),
        ({"service_tier": "priority"}, {"service_tier": "auto"}, ["service_tier"]),
        ({"service_tier": "flex"}, {}, ["service_tier"]),
        ({"extra": {"container": "c", "mcp_servers": []}}, {"container": "c", "mcp_servers": []}, []),
        ({"extra": {"context_management": [{}]}}, {}, ["context_management"]),
        ({"extra": {"logit_thing": 1}}, {}, ["logit_thing"]),
        ({"n": 2, "seed": 0, "store": False, "top_logprobs": 3}, {}, ["n", "top_logprobs", "seed", "store"]),
        ({"n": 1, "logprobs": False, "verbosity": "", "modalities": ["text"]}, {}, []),
        ({"presence_penalty": 0.0, "repetition_penalty": 1.0}, {}, ["presence_penalty", "repetition_penalty"]),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x"}}, {}, ["audio", "modalities"]),
        (
            {"metadata": {"a": "b"}, "cache_key": "k", "logit_bias": {"1": 1.0}},
            {},
            ["cache_key", "logit_bias", "metadata"],
        ),
    ],
)
def test_the_other_fields(fields: dict[str, Any], written: dict[str, Any], lost: list[str]) -> None:
    found, names = wire.written(Request([user("Hi")], **fields))
    assert {name: found[name] for name in found if name not in ("model", "max_tokens", "messages")} == written
    assert names.names == lost


def test_what_is_given_stays_as_it_is() -> None:
    """Several attempts share a request."""
    own = {"type": "web_search_tool_result", "tool_use_id": "s", "cache_control": {"type": "ephemeral"}}
    conversation = [system("A"), user("Hi"), assistant(Thinking("Hm"), call("x")), system("B"), user(result("x"), " ")]
    extra = {"output_config": {"task_budget": {"total": 9}}}
    off, tools = Reasoning(effort="none"), [Tool("a.b", schema={"anyOf": [{"properties": {"a": {}}}]}, at="t")]
    request = Request([*conversation, assistant(Opaque("x", own, origin=OWN))], tools, reasoning=off, extra=extra)
    request.output = Output("json_schema", {"type": "object", "properties": {"a": {"minimum": 1}}}, description="D")
    before = copy.deepcopy(request)
    for model in (OLD, MIDDLE, NEW, "claude-fable-5"):
        wire.written(request, model)
    assert request == before


def test_penalties_that_do_nothing_matter_to_nobody() -> None:
    assert wire.written(Request([user("Hi")], presence_penalty=0.0))[1].grave == []
    assert wire.written(Request([user("Hi")], presence_penalty=0.5))[1].grave == ["presence_penalty"]


def test_at_most_four_breakpoints_are_written() -> None:
    marked = [user(Text(f"{n}", cache="5m", at=f"p{n}"), at=f"u{n}") for n in range(4)]
    fields: dict[str, Any] = {"tools": [Tool("f", cache="1h", at="tools[0]")]}
    first = Message("system", [Text("Be kind.", cache="5m", at="s")], at="s")
    found, lost = wire.written(Request([first, *marked], **fields))
    kept = [block["text"] for message in found["messages"] for block in message["content"] if "cache_control" in block]
    assert found["tools"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert "cache_control" not in found["system"][0]
    assert kept == ["1", "2", "3"]
    assert lost.names == ["s.cache_control", "p0.cache_control"]
    assert not lost.grave
    fields["extra"] = {"cache_control": {"type": "ephemeral"}}  # which takes one of the four
    assert "p1.cache_control" in wire.written(Request([first, *marked], **fields))[1].names


def test_a_schema_nested_too_deeply_does_not_bind() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        schema = {"type": "object", "properties": {"a": schema}}
    assert losses(output=Output("json_schema", schema)) == ["output_config.format"]
    assert losses(tools=[Tool("f", schema=schema, strict=True, at="tools[0]")]) == ["tools[0].strict"]


@pytest.mark.parametrize(("name", "said"), [("fallbacks", "default"), ("compaction", {"type": "summarize"})])
def test_fields_of_its_own_are_written_as_they_are(name: str, said: Any) -> None:
    assert body(extra={name: said})[name] == said
