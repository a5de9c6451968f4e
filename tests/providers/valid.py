"""The strictness of real providers: unknown fields, wrong types and schemas that they would refuse.

Types come from the vendors' own SDKs, so that they move with them; each dialect adds the rules that types cannot say.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.warnings import TypedDictExtraConfigWarning

from tests.providers.scenario import Refused

_STRICT = ConfigDict(extra="forbid", strict=True)


@cache
def _adapter(typed: Any) -> TypeAdapter[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TypedDictExtraConfigWarning)  # some types say themselves what more they take
        return TypeAdapter(list[typed], config=_STRICT)  # pydantic gives a TypedDict alone no configuration


def _read_out(value: Any) -> None:
    """The SDKs say `Iterable`, which pydantic checks while it is read."""
    if isinstance(value, Mapping):
        for part in value.values():
            _read_out(part)
    elif isinstance(value, Iterator | list):
        for part in value:
            _read_out(part)


def check(typed: Any, value: Mapping[str, Any], place: str = "") -> None:
    """Raises `Refused` where `value` is not what the SDK's `TypedDict` allows."""
    try:
        [read] = _adapter(typed).validate_python([dict(value)])
    except ValidationError as fault:
        raise _refusal(fault, place, 1) from fault
    try:
        _read_out(read)
    except ValidationError as fault:
        raise _refusal(fault, place) from fault


def check_model(model: type[BaseModel], value: Any, place: str) -> None:
    """As `check`, for the classes of google-genai; JSON, for its bytes are base64 there."""
    try:
        model.model_validate_json(json.dumps(value))
    except ValidationError as fault:
        raise _refusal(fault, place) from fault
    except Warning as fault:  # what its enumerations do with a word that they do not know
        raise Refused.request(f"Invalid value at '{place}': {fault}", place) from fault


def _refusal(fault: ValidationError, place: str, skip: int = 0) -> Refused:
    errors = fault.errors(include_url=False, include_input=False, include_context=False)
    deepest = max(errors, key=lambda error: (error["type"] == "extra_forbidden", len(error["loc"])))
    where = ".".join([place] * bool(place) + [str(step) for step in deepest["loc"][skip:]])
    return Refused.request(f"{where}: {deepest['msg']}", where)


def objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object schema within."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object":
            yield schema
        for part in schema.values():
            yield from objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects(part)


def refuse_open_objects(schema: Any, place: str) -> None:
    """https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations"""
    if any(part.get("additionalProperties") is not False for part in objects(schema)):
        raise Refused.request(f"{place}: For 'object' type, 'additionalProperties' must be explicitly set to false")


def refuse_loose_schema(schema: Any, place: str) -> None:
    """https://platform.openai.com/docs/guides/structured-outputs#supported-schemas"""
    for part in objects(schema):
        if part.get("additionalProperties") is not False:
            reason = "'additionalProperties' is required to be supplied and to be false."
            raise Refused.request(f"Invalid schema for '{place}': {reason}", place, "invalid_json_schema")
        if set(part.get("required", ())) != set(part.get("properties", {})):
            reason = "'required' is required to be supplied and to be an array including every key in properties."
            raise Refused.request(f"Invalid schema for '{place}': {reason}", place, "invalid_json_schema")


def unless(fine: Any, message: str, param: str | None = None) -> None:
    if not fine:
        raise Refused.request(message, param)
