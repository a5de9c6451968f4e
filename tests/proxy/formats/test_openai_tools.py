"""What both of OpenAI's APIs take as tools."""

from typing import Any

import pytest

from proxy.formats.openai_tools import custom_arguments, custom_input, fits_strict, tool_name

CLOSED: dict[str, Any] = {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}


def test_it_works() -> None:
    assert tool_name("get_weather-2") == "get_weather-2"
    assert fits_strict(CLOSED)
    assert custom_input(custom_arguments("free text")) == "free text"


def test_no_two_names_become_one() -> None:
    names = ["a.b", "a_b", "a/b", "é", "ü", "n" * 64, "n" * 65, "n" * 66]
    assert len({tool_name(name) for name in names}) == len(names)
    assert all(len(tool_name(name)) <= 64 for name in names)


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        (None, True),
        ({"type": "string"}, True),
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({**CLOSED, "required": []}, False),
        ({**CLOSED, "required": None}, False),
        ({**CLOSED, "additionalProperties": True}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"anyOf": [CLOSED, {"type": "null"}]}, True),
        ({"type": ["object", "null"]}, False),
        ({"oneOf": [CLOSED, {"type": "null"}]}, False),
        ({**CLOSED, "properties": {"a": {"allOf": [{"type": "string"}]}}}, False),
        ({**CLOSED, "properties": {"not": {}}, "required": ["not"]}, True),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, False),
        ({**CLOSED, "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"type": "object"}}}, False),
    ],
)
def test_strict_schemas(schema: Any, fits: bool) -> None:
    assert fits_strict(schema) is fits


@pytest.mark.parametrize("arguments", ["no JSON", "[]", '{"input":5}', "{}"])
def test_what_a_model_wrote_in_its_own_way_is_the_input(arguments: str) -> None:
    assert custom_input(arguments) == arguments
