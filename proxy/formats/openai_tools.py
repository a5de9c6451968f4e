"""Tools as both of OpenAI's APIs take them: names, strict schemas, and custom tools where there are functions only.

Called by the chat and Responses formats.
"""

import hashlib
import re
from typing import Any

from proxy.formats.lenient import encode, value

_ODD = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST = 64
_SUBSCHEMAS = frozenset({"items", "anyOf"})
_REFUSED = frozenset({"allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas"})


def tool_name(name: str) -> str:
    """Letters, digits, `_` and `-`, at most 64: https://platform.openai.com/docs/api-reference/chat/create

    Another name is mapped, always to the same one, and no two to one.
    """
    if len(name) <= _LONGEST and not _ODD.search(name):
        return name
    mark = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    return f"{_ODD.sub('_', name)[:55]}_{mark}"


def fits_strict(schema: Any) -> bool:
    """A strict schema has no optional and no further properties, and not all keywords; another is refused.

    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if isinstance(schema, list):
        return all(fits_strict(each) for each in schema)
    if not isinstance(schema, dict):
        return True
    if not _REFUSED.isdisjoint(schema):
        return False
    found = schema.get("properties")
    properties = found if isinstance(found, dict) else {}
    kind = schema.get("type")
    if properties or kind == "object" or (isinstance(kind, list) and "object" in kind):
        required = schema.get("required")
        named = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
        if schema.get("additionalProperties") is not False or not properties.keys() <= named:
            return False
    inner = [*properties.values()]
    inner += [found for name, found in schema.items() if name in _SUBSCHEMAS]
    inner += [*schema["$defs"].values()] if isinstance(schema.get("$defs"), dict) else []
    return all(fits_strict(each) for each in inner)


def custom_arguments(text: str) -> str:
    """A custom tool's input, for a provider that knows functions only."""
    return encode({"input": text}).decode()


def custom_input(arguments: str) -> str:
    """The free text that a custom tool's call holds, where it was a function's one argument."""
    found = value(arguments.encode(errors="replace"))
    said = found.get("input") if isinstance(found, dict) else None
    return said if isinstance(said, str) else arguments
