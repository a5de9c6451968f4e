"""Requests in Messages: what is checked, what is edited for a provider that speaks them too, and what is read."""

import json
from typing import Any

import pytest

from proxy.formats import anthropic_messages
from proxy.formats.anthropic_messages.request_reader import arguments_object, tool_id
from proxy.formats.base import BadField, Edits, Prompt
from proxy.formats.canonical import (
    Citation,
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    seal,
)
from proxy.formats.splice import Members
from tests.proxy.formats import messages as wire

OWN = anthropic_messages.NAME
HELLO = [{"role": "user", "content": "Hi"}]
NONE: frozenset[str] = frozenset()


def part(role: str = "user", **block: Any) -> Part:
    """The one part of a conversation."""
    [message] = wire.request(messages=[{"role": role, "content": [block]}]).messages
    [only] = message.parts
    only.at = only.at.removeprefix("messages[0].content[0]")
    return only


def test_it_works() -> None:
    request = wire.request(
        model="m",
        max_tokens=9,
        system="Be kind.",
        messages=[*HELLO, {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]}],
        stream=True,
    )
    assert request.messages == [
        Message("system", [Text("Be kind.", at="system")], at="system"),
        Message("user", [Text("Hi", at="messages[0].content")], at="messages[0]"),
        Message("assistant", [Text("Ho", at="messages[1].content[0]")], at="messages[1]"),
    ]
    assert (request.max_tokens, request.stream, request.extra) == (9, True, {})


# --- checks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"messages": HELLO}, "max_tokens"),
        ({"max_tokens": 9}, "messages"),
        ({"max_tokens": 9, "messages": []}, "messages"),
        ({"max_tokens": 9, "messages": "Hi"}, "messages"),
        ({"max_tokens": 9, "messages": None}, "messages"),
    ],
)
def test_what_is_refused_before_a_provider_is_asked(said: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as raised:
        anthropic_messages.check(wire.members(**said))
    assert raised.value.param == param


def test_counting_needs_no_bound() -> None:
    anthropic_messages.check_count(wire.members(messages=HELLO))
    anthropic_messages.check(wire.members(messages=HELLO, max_tokens=9))


def test_bounds() -> None:
    assert anthropic_messages.bounds(wire.members(max_tokens=9)) == {"max_tokens": 9}
    assert anthropic_messages.bounds(wire.members()) == {}
    assert anthropic_messages.bounds(wire.members(max_tokens=0)) == {"max_tokens": 0}
    assert anthropic_messages.bounds(wire.members(max_tokens=-1)) == {}


@pytest.mark.parametrize(
    ("thinking", "least"),
    [
        ({"type": "enabled", "budget_tokens": 2000}, 2001),
        ({"type": "adaptive"}, 1),
        ({"type": "enabled", "budget_tokens": "x"}, 1),
        (None, 1),
    ],
)
def test_the_least_bound_holds_the_thoughts(thinking: Any, least: int) -> None:
    assert anthropic_messages.least_output(wire.members(thinking=thinking)) == least
    assert anthropic_messages.choices(wire.members(thinking=thinking)) == 1


@pytest.mark.parametrize("most", ["9", 9.5, True, None])
def test_a_bound_is_a_number(most: Any) -> None:
    with pytest.raises(BadField) as raised:
        anthropic_messages.bounds(wire.members(max_tokens=most))
    assert raised.value.param == "max_tokens"


# --- the same format -------------------------------------------------------------------------------------------------


def test_a_body_of_the_same_format_keeps_its_bytes() -> None:
    text = b'{ "model" : "x", "group":"a","messages":[ ],"max_tokens" :9, "x":1.0}'
    body = anthropic_messages.own_body(Members(text), Edits("up-1", frozenset({"group"}), stream=False))
    assert body == b'{ "model" : "up-1","messages":[ ],"max_tokens" :9, "x":1.0}'


def test_a_body_without_a_model_gets_one() -> None:
    body = anthropic_messages.own_body(Members(b'{"max_tokens":9}'), Edits("up-1", NONE, stream=False))
    assert json.loads(body) == {"max_tokens": 9, "model": "up-1"}


def test_the_output_limit() -> None:
    edits = Edits("m", NONE, stream=False, limit=5)
    for given, sent in [({}, 5), ({"max_tokens": 9}, 5), ({"max_tokens": 3}, 3), ({"max_tokens": -1}, 5)]:
        body = anthropic_messages.own_body(wire.members(model="m", **given), edits)
        assert json.loads(body) == {"model": "m", "max_tokens": sent}


@pytest.mark.parametrize(
    ("most", "budget", "limit", "expected"),
    [
        (9000, 8000, 4500, {"max_tokens": 4500, "thinking": {"type": "enabled", "budget_tokens": 4000}}),
        (9000, 1200, 4500, {"max_tokens": 4500, "thinking": {"type": "enabled", "budget_tokens": 1200}}),
        (9000, 8000, 1000, {"max_tokens": 1000, "thinking": {"type": "disabled"}}),
        (100, 50, 1000, {"max_tokens": 100, "thinking": {"type": "enabled", "budget_tokens": 50}}),
    ],
)
def test_a_budget_shrinks_with_its_bound(most: int, budget: int, limit: int, expected: dict[str, Any]) -> None:
    members = wire.members(model="m", max_tokens=most, thinking={"type": "enabled", "budget_tokens": budget})
    body = json.loads(anthropic_messages.own_body(members, Edits("m", NONE, stream=False, limit=limit)))
    assert body == {"model": "m", **expected}


def test_what_is_counted_of_a_prompt() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    document = {"type": "document", "title": "T", "source": {"type": "text", "data": "D"}}
    call = {"type": "tool_use", "name": "f", "input": {"a": 1}}
    result = {"type": "tool_result", "content": [{"type": "text", "text": "R"}, image]}
    messages = [*HELLO, {"role": "user", "content": [image, document, call, result, 7]}, 7]
    members = wire.members(system=[{"type": "text", "text": "S"}], messages=messages, tools=[{"name": "f"}])
    text = 'SHi\nTDf{"a":1}R\n[{"name": "f"}]'
    assert anthropic_messages.prompt(members) == Prompt(text, messages=2, images=2)


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}, Text("Hi", cache="5m")),
        ({"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}}, Text("Hi", cache="1h")),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            Media("image", "image/png", "AAAA"),
        ),
        ({"type": "image", "source": {"type": "url", "url": "https://a.b"}}, Media("image", url="https://a.b")),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, Media("image", file_id="f", origin=OWN)),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"},
                "title": "T",
                "context": "C",
                "citations": {"enabled": True},
            },
            Media("file", "application/pdf", "AAAA", name="T", context="C", cite=True),
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "D"}},
            Media("file", "text/plain", text="D"),
        ),
        (
            {"type": "document", "source": {"type": "url", "url": "https://a.b"}},
            Media("file", "application/pdf", url="https://a.b"),
        ),
        (
            {"type": "container_upload", "file_id": "f"},
            Opaque("container_upload", {"type": "container_upload", "file_id": "f"}, origin=OWN),
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": "R", "is_error": True},
            ToolResult("t", [Text("R", at=".content")], is_error=True),
        ),
        ({"type": "tool_result", "tool_use_id": "t"}, ToolResult("t", [])),
    ],
)
def test_a_users_blocks(block: dict[str, Any], expected: Part) -> None:
    found = part(**block)
    if isinstance(found, ToolResult):
        for inner in found.parts:
            inner.at = inner.at.removeprefix("messages[0].content[0]")
    assert found == expected


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1.5}}, ToolCall("t", "f", '{"a":1.5}')),
        (
            {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "direct"}},
            ToolCall("t", "f", "{}"),
        ),
        ({"type": "thinking", "thinking": "Hm", "signature": "s"}, Thinking("Hm", signature="s", origin=OWN)),
        ({"type": "thinking", "thinking": "Hm", "signature": ""}, Thinking("Hm")),
        (
            {"type": "thinking", "thinking": "Hm", "signature": seal("gemini", "s")},
            Thinking("Hm", signature="s", origin="gemini"),
        ),
        ({"type": "redacted_thinking", "data": "x"}, Thinking(redacted=True, signature="x", origin=OWN)),
        (
            {"type": "redacted_thinking", "data": seal("openai_responses", "x")},
            Thinking(redacted=True, signature="x", origin="openai_responses"),
        ),
        (
            {"type": "text", "text": "Hi", "citations": [{"type": "x", "url": "https://a.b"}]},
            Text("Hi", [Citation("https://a.b", origin=OWN, raw={"type": "x", "url": "https://a.b"})]),
        ),
    ],
)
def test_an_assistants_blocks(block: dict[str, Any], expected: Part) -> None:
    assert part("assistant", **block) == expected


def test_other_formats_read_the_text_of_what_only_this_one_has() -> None:
    texts = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    found = part(type="search_result", source="https://a.b", title="T", content=texts)
    assert isinstance(found, Media)
    assert (found.kind, found.text, found.name, found.context) == ("file", "A\n\nB", "T", "https://a.b")
    document = part(type="document", source={"type": "content", "content": texts})
    assert isinstance(document, Media)
    assert document.text == "A\n\nB"


def test_the_assistants_messages_in_a_row_are_one_turn() -> None:
    said = [*HELLO, {"role": "assistant", "content": "A"}, {"role": "assistant", "content": "B"}, *HELLO]
    messages = wire.request(messages=said).messages
    assert [(message.role, message.at) for message in messages] == [
        ("user", "messages[0]"),
        ("assistant", "messages[1]"),
        ("user", "messages[3]"),
    ]
    assert messages[1].parts == [Text("A", at="messages[1].content"), Text("B", at="messages[2].content")]


def test_system_blocks_and_system_messages() -> None:
    blocks = [{"type": "text", "text": "A", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "B"}]
    request = wire.request(system=blocks, messages=[*HELLO, {"role": "system", "content": "C"}])
    assert [message.role for message in request.messages] == ["system", "user", "system"]
    assert request.messages[0].parts == [Text("A", at="system[0]", cache="5m"), Text("B", at="system[1]")]


def test_tools() -> None:
    custom = {"name": "f", "description": "D", "input_schema": {"type": "object"}, "strict": True}
    custom |= {"cache_control": {"type": "ephemeral", "ttl": "1h"}, "defer_loading": True}
    server = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    assert wire.request(tools=[custom, server]).tools == [
        Tool("f", "D", {"type": "object"}, True, cache="1h", origin=OWN, raw={"defer_loading": True}, at="tools[0]"),
        Tool("web_search", kind="server", origin=OWN, raw=server, at="tools[1]"),
    ]


@pytest.mark.parametrize(
    ("said", "choice", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any", "disable_parallel_tool_use": True}, ToolChoice("required"), False),
        ({"type": "tool", "name": "f", "disable_parallel_tool_use": False}, ToolChoice("tool", "f"), True),
        ({"type": "none"}, ToolChoice("none"), None),
        (None, None, None),
    ],
)
def test_tool_choice(said: Any, choice: ToolChoice | None, parallel: bool | None) -> None:
    request = wire.request(tool_choice=said)
    assert (request.tool_choice, request.parallel_tool_calls) == (choice, parallel)


def test_the_other_fields() -> None:
    request = wire.request(
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop_sequences=["END"],
        service_tier="auto",
        metadata={"user_id": "u", "x": "y"},
        container="c",
        speed=None,
    )
    assert (request.temperature, request.top_p, request.top_k, request.stop) == (0.5, 0.9, 3, ["END"])
    assert (request.service_tier, request.user, request.metadata) == ("auto", "u", {"x": "y"})
    assert request.extra == {"container": "c"}


@pytest.mark.parametrize(
    ("thinking", "config", "expected"),
    [
        ({"type": "enabled", "budget_tokens": 2000}, None, {"budget": 2000, "enabled": True}),
        (
            {"type": "adaptive", "display": "summarized"},
            {"effort": "high"},
            {"adaptive": True, "effort": "high", "visible": True},
        ),
        ({"type": "adaptive", "display": "omitted"}, None, {"adaptive": True, "visible": False}),
        ({"type": "disabled"}, {"effort": "high"}, {"enabled": False, "effort": ""}),
        ({"type": "between_tools"}, None, {"enabled": False}),
        (None, {"effort": "max"}, {"effort": "max", "enabled": None, "adaptive": False}),
    ],
)
def test_thinking(thinking: Any, config: Any, expected: dict[str, Any]) -> None:
    reasoning = wire.request(thinking=thinking, output_config=config).reasoning
    assert {name: getattr(reasoning, name) for name in expected} == expected


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_structured_output(name: str) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    said = {"format": form, "task_budget": {"total": 9}} if name == "output_config" else form
    request = wire.request(**{name: said})
    assert request.output == Output("json_schema", {"type": "object"})
    assert request.extra == ({"output_config": {"task_budget": {"total": 9}}} if name == "output_config" else {})


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"messages": ["Hi"]}, "messages[0]"),
        ({"messages": [{"role": "bot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["Hi"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "text", "data": "x"}}]}]},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": "x"}]}
                ]
            },
            "messages[0].content[0].input",
        ),
        ({"system": 7}, "system"),
        ({"system": [{"type": "text", "text": "x", "cache_control": "y"}]}, "system[0].cache_control"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"stop_sequences": ["a", 7]}, "stop_sequences[1]"),
        ({"stream": "yes"}, "stream"),
        ({"metadata": "u"}, "metadata"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
    ],
)
def test_what_its_own_format_does_not_allow(said: dict[str, Any], param: str) -> None:
    with pytest.raises(BadField) as raised:
        wire.request(**said)
    assert raised.value.param == param


def test_a_number_that_no_reader_takes() -> None:
    with pytest.raises(BadField) as raised:
        anthropic_messages.read_request(Members(b'{"messages":[{"role":"user","content":"Hi"}],"x":[1e400]}'))
    assert raised.value.param == "x"


# --- IDs and arguments -----------------------------------------------------------------------------------------------


def test_ids_that_anthropic_takes_stay() -> None:
    assert tool_id("toolu_01-aB") == "toolu_01-aB"


@pytest.mark.parametrize("odd", ["call:1", "a b", "é", "", "\ud83d"])
def test_other_ids_are_mapped(odd: str) -> None:
    assert tool_id(odd) == tool_id(odd) != odd
    assert tool_id(odd).replace("-", "").replace("_", "").isalnum()
    assert tool_id(odd).isascii()


def test_mapped_ids_stay_apart() -> None:
    assert tool_id("a:b") != tool_id("a.b")


@pytest.mark.parametrize(
    ("text", "found", "whole"),
    [
        ('{"a":1}', {"a": 1}, True),
        ("", {}, True),
        ("null", {}, True),
        ("[]", {"INVALID_JSON": "[]"}, False),
        ('{"a"', {"INVALID_JSON": '{"a"'}, False),
        ('{"a":"\\ud83d"}', {"INVALID_JSON": '{"a":"\\ud83d"}'}, False),
    ],
)
def test_arguments(text: str, found: dict[str, Any], whole: bool) -> None:
    assert arguments_object(text) == (found, whole)


# --- what has no canonical place is named ----------------------------------------------------------------------------


def test_a_system_message_that_only_sets_the_effort() -> None:
    request = wire.request(messages=[*HELLO, {"role": "system", "output_config": {"effort": "low"}}])
    assert [message.role for message in request.messages] == ["user"]
    assert request.extra == {"messages[1].output_config": {"effort": "low"}}
    with pytest.raises(BadField):
        wire.request(messages=[*HELLO, {"role": "system"}])


@pytest.mark.parametrize(("later", "seen"), [([], True), ([{"role": "assistant", "content": "Ho"}, *HELLO], False)])
def test_a_system_message_that_is_cleared_at_the_next_turn(later: list[dict[str, Any]], *, seen: bool) -> None:
    request = wire.request(
        messages=[*HELLO, {"role": "system", "content": "Now.", "clear_at": "next_user_message"}, *later]
    )
    assert ("system" in [message.role for message in request.messages]) is seen


def test_ways_to_think_that_others_do_not_know() -> None:
    request = wire.request(
        thinking={"type": "adaptive", "display": "updates", "block_binding": {"prefix_mismatch_behavior": "error"}}
    )
    assert request.reasoning is not None
    assert request.reasoning.visible is True
    assert request.extra == {"thinking.block_binding": {"prefix_mismatch_behavior": "error"}}
    assert wire.request(thinking={"type": "between_tools"}).extra == {"thinking.type": "between_tools"}


def test_what_is_nested_too_deeply_is_refused() -> None:
    inside: Any = "deep"
    for _ in range(240):
        inside = [{"type": "tool_result", "tool_use_id": "a", "content": inside}]
    with pytest.raises(BadField):
        anthropic_messages.read_request(wire.members(messages=[{"role": "user", "content": inside}]))
