"""What each generation of models takes, and what becomes of JSON Schemas that it does not take."""

from typing import Any

import pytest

from proxy.formats.anthropic_messages.models import (
    ADAPTIVE_THINKING,
    BUDGET_THINKING,
    QUIRKS,
    SYSTEM_MESSAGES,
    UNSIGNED_THINKING,
    Rules,
    bound,
    object_schema,
    recursive,
    rules,
)

NONE: frozenset[str] = frozenset()
STRING = {"type": "string"}


def test_it_works() -> None:
    found = rules("claude-sonnet-4-5-20250929", NONE)
    assert (found.budget, found.adaptive, found.structured, found.sampling, found.prefill) == (
        True,
        False,
        True,
        True,
        True,
    )


@pytest.mark.parametrize(
    ("model", "budget", "adaptive", "sampling", "prefill", "system"),
    [
        ("claude-3-5-sonnet-20241022", False, False, True, True, False),
        ("claude-3-7-sonnet-latest", True, False, True, True, False),
        ("claude-sonnet-4@20250514", True, False, True, True, False),
        ("claude-opus-4-20250514", True, False, True, True, False),
        ("anthropic/claude-haiku-4.5", True, False, True, True, False),
        ("us.anthropic.claude-opus-4-6-v1", True, True, True, False, False),
        ("claude-opus-4-7", False, True, False, False, False),
        ("claude-opus-4-8", False, True, False, False, True),
        ("claude-opus-5", False, True, False, False, True),
        ("claude-sonnet-5", False, True, False, False, False),
        ("claude-fable-5-1", False, True, False, False, True),
        ("claude-mythos-preview", False, True, False, False, False),
        ("our-claude", False, True, False, False, False),
        ("deepseek-chat", True, False, True, True, False),
    ],
)
def test_generations(model: str, *, budget: bool, adaptive: bool, sampling: bool, prefill: bool, system: bool) -> None:
    found = rules(model, NONE)
    assert (found.budget, found.adaptive, found.sampling) == (budget, adaptive, sampling)
    assert (found.prefill, found.system) == (prefill, system)


@pytest.mark.parametrize(
    ("model", "efforts"),
    [
        ("claude-sonnet-4-5", ()),
        ("claude-opus-4-5", ("low", "medium", "high")),
        ("claude-sonnet-4-6", ("low", "medium", "high")),
        ("claude-opus-4-6", ("low", "medium", "high", "max")),
        ("claude-opus-4-8", ("low", "medium", "high", "xhigh", "max")),
    ],
)
def test_efforts(model: str, efforts: tuple[str, ...]) -> None:
    assert rules(model, NONE).efforts == efforts


def test_some_always_think_and_are_never_forced() -> None:
    assert (rules("claude-fable-5", NONE).silent, rules("claude-fable-5", NONE).forced) == (False, False)
    assert (rules("claude-opus-5", NONE).silent, rules("claude-opus-5", NONE).forced) == (True, True)


@pytest.mark.parametrize(
    ("quirk", "changed"),
    [
        (ADAPTIVE_THINKING, {"adaptive": True, "efforts": ("low", "medium", "high", "max")}),
        (BUDGET_THINKING, {"budget": True, "adaptive": False}),
        (SYSTEM_MESSAGES, {"system": True}),
        (UNSIGNED_THINKING, {"unsigned": True}),
    ],
)
def test_a_row_says_more_than_the_name(quirk: str, changed: dict[str, Any]) -> None:
    assert quirk in QUIRKS
    found = rules("glm-5", frozenset({quirk}))
    assert found != Rules() or quirk == BUDGET_THINKING
    assert {name: getattr(found, name) for name in changed} == changed


def test_a_row_may_say_that_a_new_name_thinks_as_the_old_ones() -> None:
    found = rules("claude-opus-9", frozenset({BUDGET_THINKING}))
    assert (found.budget, found.adaptive) == (True, False)


# --- schemas that bind the output ------------------------------------------------------------------------------------


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        closed(a=STRING, b={"type": ["integer", "null"]}),
        {**closed(a={"$ref": "#/$defs/A"}), "$defs": {"A": closed(b={"enum": [1, "x"]})}, "required": ["a"]},
        closed(a={"type": "array", "items": STRING, "minItems": 1}, b={"type": "string", "format": "date"}),
        closed(a={"anyOf": [STRING, {"const": 3}]}, b={"type": "integer", "description": "B", "default": 2}),
    ],
)
def test_a_schema_that_can_bind_stays(schema: dict[str, Any]) -> None:
    assert bound(schema) == (schema, True)


@pytest.mark.parametrize(
    ("schema", "written", "whole"),
    [
        ({"type": "object", "properties": {"a": STRING}}, closed(a=STRING), True),
        ({"$schema": "x", **closed()}, closed(), True),
        ({**closed(), "additionalProperties": True}, closed(), False),
        ({**closed(), "additionalProperties": STRING}, closed(), False),
        ({"type": "integer", "minimum": 1}, {"type": "integer", "description": "{minimum: 1}"}, False),
        (
            {"type": "string", "description": "A", "pattern": "^x"},
            {"type": "string", "description": "A\n\n{pattern: ^x}"},
            False,
        ),
        ({"oneOf": [STRING, {"type": "null"}]}, {"anyOf": [STRING, {"type": "null"}]}, False),
        (
            closed(a={"type": "array", "items": {"type": "number", "maximum": 9}, "minItems": 2}),
            closed(
                a={
                    "type": "array",
                    "items": {"type": "number", "description": "{maximum: 9}"},
                    "description": "{minItems: 2}",
                }
            ),
            False,
        ),
        ({"type": "string", "format": "color"}, {"type": "string", "description": "{format: color}"}, False),
    ],
)
def test_what_a_schema_cannot_bind_is_described(
    schema: dict[str, Any], written: dict[str, Any], *, whole: bool
) -> None:
    assert bound(schema) == (written, whole)


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        (closed(a=STRING), False),
        ({**closed(a={"$ref": "#/$defs/A"}, b={"$ref": "#/$defs/A"}), "$defs": {"A": closed()}}, False),
        ({**closed(a={"$ref": "#/$defs/A"}), "$defs": {"A": closed(b={"$ref": "#/$defs/A"})}}, True),
        (closed(a={"type": "array", "items": {"$ref": "#"}}), True),
        (closed(a={"$ref": "#/$defs/None"}), False),
    ],
)
def test_a_schema_that_holds_itself(schema: dict[str, Any], *, found: bool) -> None:
    assert recursive(schema) is found


def test_a_schema_of_many_references_is_walked_once() -> None:
    pairs = {f"a{n}": closed(x={"$ref": f"#/$defs/a{n + 1}"}, y={"$ref": f"#/$defs/a{n + 1}"}) for n in range(60)}
    schema = {**closed(r={"$ref": "#/$defs/a0"}), "$defs": {**pairs, "a60": STRING}}
    assert not recursive(schema)
    assert recursive({**schema, "$defs": {**pairs, "a60": {"$ref": "#/$defs/a30"}}})


@pytest.mark.parametrize("below", ["properties", "$defs"])
def test_what_is_nested_too_deeply_counts_as_recursive(below: str) -> None:
    schema: dict[str, Any] = STRING
    for _ in range(400):
        schema = {"type": "object", below: {"a": schema}}
    assert recursive(schema)


# --- schemas of tools ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "written", "whole"),
    [
        (None, {"type": "object", "properties": {}}, True),
        ({}, {"type": "object", "properties": {}}, True),
        ({"type": "object", "x-own": 1}, {"type": "object", "x-own": 1}, True),
        ({"properties": {"a": STRING}}, {"type": "object", "properties": {"a": STRING}}, True),
        ({"type": ["object", "null"], "properties": {}}, {"type": "object", "properties": {}}, False),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": STRING}}}},
            {
                "type": "object",
                "properties": {"a": STRING},
                "$defs": {"A": {"type": "object", "properties": {"a": STRING}}},
            },
            True,
        ),
        (
            {"anyOf": [{"properties": {"a": STRING}}, {"properties": {"b": STRING}, "required": ["b"]}]},
            {"type": "object", "properties": {"a": STRING, "b": STRING}},
            False,
        ),
        (
            {"allOf": [{"properties": {"a": STRING}, "required": ["a"]}], "type": "object"},
            {"type": "object", "properties": {"a": STRING}, "required": ["a"]},
            False,
        ),
    ],
)
def test_input_is_an_object(schema: dict[str, Any] | None, written: dict[str, Any], *, whole: bool) -> None:
    assert object_schema(schema) == (written, whole)
