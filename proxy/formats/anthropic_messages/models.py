"""What the models behind Anthropic's Messages take: which ways to think, which fields, which JSON Schemas.

A request that asks for what a model does not know is refused as a whole, and Claude's generations differ. Of a model
that is not called Claude nothing is known but that it speaks Messages; a provider's row may name more as quirks. Called
by `anthropic_messages.request_writer`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

ADAPTIVE_THINKING = "adaptive_thinking"
"""Thinks as much as it sees fit (`thinking.type: adaptive`), whatever its name says."""
BUDGET_THINKING = "budget_thinking"
"""Thinks within `thinking.budget_tokens`, whatever its name says."""
SYSTEM_MESSAGES = "system_messages"
"""Takes system messages in the middle of the conversation, whatever its name says."""
UNSIGNED_THINKING = "unsigned_thinking"
"""Wants its thoughts back, and signs none: DeepSeek's, Moonshot's and Z.ai's doors for Anthropic's clients."""
QUIRKS = frozenset({ADAPTIVE_THINKING, BUDGET_THINKING, SYSTEM_MESSAGES, UNSIGNED_THINKING})


@dataclass(frozen=True, slots=True)
class Rules:
    """`adaptive`, `budget`: the ways to think. `silent`: thinking can be switched off. `efforts`: those it knows.

    `sampling`: temperature, top_p and top_k; `both`: temperature and top_p in one request. `forced`: a tool may be
    demanded. `prefill`: the last message may be the assistant's. `system`: system messages in the middle.
    `structured`: JSON Schemas that bind the output, and strict tools. `unsigned`: thoughts come back as they are.
    """

    adaptive: bool = False
    budget: bool = True
    silent: bool = True
    efforts: tuple[str, ...] = ()
    sampling: bool = True
    both: bool = True
    forced: bool = True
    prefill: bool = True
    system: bool = False
    structured: bool = True
    unsigned: bool = False


_FAMILY = re.compile(r"opus|sonnet|haiku|fable|mythos")
_VERSION = re.compile(r"claude\D*?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
_LATEST = (99, 0)
_NO_OFF = ("fable", "mythos")


def rules(model: str, quirks: frozenset[str]) -> Rules:
    name = model.lower()
    found = _claude(name) if "claude" in name else Rules()
    if ADAPTIVE_THINKING in quirks:
        found = replace(found, adaptive=True, efforts=found.efforts or ("low", "medium", "high", "max"))
    if BUDGET_THINKING in quirks:
        found = replace(found, budget=True, adaptive=False)
    if UNSIGNED_THINKING in quirks:
        found = replace(found, unsigned=True)
    return replace(found, system=True) if SYSTEM_MESSAGES in quirks else found


def _claude(name: str) -> Rules:
    """By family and generation; a name that tells none is taken for the newest.

    https://platform.claude.com/docs/en/build-with-claude/thinking, …/effort, …/structured-outputs,
    …/mid-conversation-system-messages, https://platform.claude.com/docs/en/api/errors#prefill-not-supported
    """
    family = found[0] if (found := _FAMILY.search(name)) else ""
    numbers = _VERSION.search(name)
    version = (int(numbers[1]), int(numbers[2] or 0)) if numbers else _LATEST
    newest = version >= (4, 7) or family in _NO_OFF
    return Rules(
        adaptive=newest or version >= (4, 6),
        budget=not newest and version >= (3, 7),
        silent=family not in _NO_OFF,
        efforts=_efforts(family, version, newest=newest),
        sampling=not newest,
        both=version < (4, 1) and not newest,
        forced=family not in _NO_OFF,
        prefill=version < (4, 6) and not newest,
        system=(family == "opus" and version >= (4, 8)) or (family in _NO_OFF and numbers is not None),
        structured=version >= (4, 5) or (family == "opus" and version >= (4, 1)) or family in _NO_OFF,
    )


def _efforts(family: str, version: tuple[int, int], *, newest: bool) -> tuple[str, ...]:
    if newest:
        return ("low", "medium", "high", "xhigh", "max")
    if version == (4, 6):
        return ("low", "medium", "high", "max") if family == "opus" else ("low", "medium", "high")
    return ("low", "medium", "high") if (family, version) == ("opus", (4, 5)) else ()


# --- JSON Schemas ----------------------------------------------------------------------------------------------------

# https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
_KEPT = frozenset({"type", "enum", "const", "$ref", "title", "description", "required", "default"})
_OF_SCHEMAS = frozenset({"properties", "$defs", "definitions"})
_SEVERAL = frozenset({"anyOf", "allOf"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})


def bound(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A schema that may bind the output; False where it says less: what is not known goes into the descriptions,

    where the model still reads it, and objects are closed. (Anthropic's SDKs do the same.)
    """
    out: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    whole = True
    for name, said in schema.items():
        if name == "$schema":
            continue
        written, kept = _keyword(name, said)
        if written is None:
            rest[name] = said
        else:
            out["anyOf" if name == "oneOf" else name] = written
        whole = whole and kept
    if schema.get("type") == "object" or "properties" in schema:
        out["additionalProperties"] = False
        whole = whole and not schema.get("additionalProperties", False)
    if rest:
        hints = "{" + ", ".join(f"{name}: {said}" for name, said in rest.items()) + "}"
        before = out.get("description")
        out["description"] = f"{before}\n\n{hints}" if before else hints
    return out, whole


def _keyword(name: str, said: Any) -> tuple[Any, bool]:
    """How it is written, None for not at all; and whether nothing got lost."""
    if name in _KEPT or (name == "format" and said in _FORMATS) or (name == "minItems" and said in (0, 1)):
        return said, True
    if name in _OF_SCHEMAS and isinstance(said, dict):
        inner = {key: _inner(each) for key, each in said.items()}
        return {key: each for key, (each, _) in inner.items()}, all(kept for _, kept in inner.values())
    if name in _SEVERAL | {"oneOf"} and isinstance(said, list):
        found = [_inner(each) for each in said]
        return [each for each, _ in found], name != "oneOf" and all(kept for _, kept in found)
    if name == "items" and isinstance(said, dict):
        return _inner(said)
    if name == "additionalProperties":
        return False, True
    return None, False


def _inner(said: Any) -> tuple[Any, bool]:
    return bound(said) if isinstance(said, dict) else (said, True)


_DEEPEST = 200  # objects and lists in each other: no model fills in more


def recursive(schema: dict[str, Any]) -> bool:
    """A definition that holds itself: refused. So is what is nested too deeply to be walked."""
    if _too_deep(schema):
        return True
    under_way: set[str] = set()  # references whose definitions are being walked
    walked: set[str] = set()
    stack: list[tuple[str, Iterator[Any]]] = [("", iter((schema,)))]
    while stack:
        come_by, rest = stack[-1]
        said = next(rest, _NOTHING)
        ref = said.get("$ref") if isinstance(said, dict) else None
        if said is _NOTHING:
            stack.pop()
            under_way.discard(come_by)
            walked.add(come_by)
        elif isinstance(ref, str):
            if ref in ("", "#") or ref in under_way:
                return True
            if ref not in walked:
                under_way.add(ref)
                stack.append((ref, iter((resolved(ref, schema),))))
        else:
            stack.append(("", iter(_children(said, but=("$defs", "definitions")))))
    return False


_NOTHING = object()


def _children(said: Any, but: tuple[str, ...] = ()) -> list[Any]:
    if isinstance(said, dict):
        return [each for name, each in said.items() if name not in but]
    return said if isinstance(said, list) else []


def _too_deep(said: Any) -> bool:
    level = [said]
    for _ in range(_DEEPEST):
        level = [child for each in level for child in _children(each)]
        if not level:
            return False
    return True


def resolved(ref: str, root: dict[str, Any]) -> Any:
    """What a reference within the schema points to; None where there is nothing."""
    found: Any = root
    for step in ref.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found


def object_schema(schema: dict[str, Any] | None) -> tuple[dict[str, Any], bool]:
    """As a tool's input: an object at its top, without anyOf, oneOf or allOf there; False where it says less."""
    if not schema:
        return {"type": "object", "properties": {}}, True
    top, whole = dict(schema), True
    ref = top.get("$ref")
    if isinstance(ref, str) and isinstance(found := resolved(ref, schema), dict):
        top.pop("$ref")
        top = {**found, **top}
    for name in ("anyOf", "oneOf", "allOf"):
        if name in top:
            whole = False
            _spread(top, name)
    if top.get("type") != "object":
        whole = whole and top.get("type") is None
        top = {"type": "object", **{name: said for name, said in top.items() if name != "type"}}
    return top, whole


def _spread(top: dict[str, Any], name: str) -> None:
    """The properties of the alternatives are all allowed; of `allOf`, what each requires is required."""
    properties: dict[str, Any] = dict(top.get("properties") or {})
    for each in top.pop(name) or ():
        if isinstance(each, dict):
            properties |= each.get("properties") or {}
            if name == "allOf" and isinstance(each.get("required"), list):
                top["required"] = [*top.get("required", []), *each["required"]]
    top["properties"] = properties
