"""Signatures of other formats' models, taken out of a Gemini request before it goes to a provider that speaks Gemini.

Clients keep them, sealed, as `thoughtSignature`; Google refuses what it has not signed. Called by `gemini` for bytes
that pass.
"""

from typing import Any

import msgspec

from proxy.formats.gemini.parts import SEALED, UNSIGNED, kept
from proxy.formats.gemini.request_reader import camel, member
from proxy.formats.gemini.wire import NAME
from proxy.formats.splice import Members

_MARK = SEALED.encode()


def without_seals(members: Members, *, signed: bool) -> dict[str, bytes]:
    """The members that must be written anew: none of most requests. `signed`: calls of the turn need a signature."""
    found = member(members, "contents") if _MARK in members.text else None
    contents = _decoded(found[1]) if found is not None else None
    if found is None or not isinstance(contents, list):
        return {}
    mended = [left for each in contents if (left := _content(each)) is not None]
    if mended == contents:
        return {}
    if signed:
        for content in mended[_turn(mended) :]:
            _sign(content)
    return {found[0]: msgspec.json.encode(mended)}


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):  # whoever is asked will say so
        return None


def _parts(content: Any) -> list[Any] | None:
    found = content.get("parts") if isinstance(content, dict) else None
    return found if isinstance(found, list) else None


def _content(content: Any) -> Any:
    """None where nothing is left of it."""
    parts = _parts(content)
    if parts is None:
        return content
    left = [part for each in parts if (part := _part(each)) is not None]
    return {**content, "parts": left} if left or not parts else None


def _part(part: Any) -> Any:
    names = [name for name in part if camel(name) == "thoughtSignature"] if isinstance(part, dict) else []
    thoughts = kept(part[names[0]]) if names and isinstance(part[names[0]], str) else None
    if thoughts is None:
        return part
    own = next((each.signature for each in thoughts if each.origin == NAME and each.signature), "")
    if own:
        return {**part, names[0]: own}
    rest = {name: said for name, said in part.items() if name != names[0]}
    return None if rest in ({"text": ""}, {}) else rest


def _turn(contents: list[Any]) -> int:
    """Where the turn began: behind the last words of the user. Only its calls are checked."""
    for number in range(len(contents) - 1, -1, -1):
        parts = _parts(contents[number])
        asks = isinstance(contents[number], dict) and contents[number].get("role") != "model"
        if asks and not all(isinstance(each, dict) and _has(each, "functionResponse") for each in parts or ()):
            return number + 1
    return 0


def _has(part: dict[str, Any], name: str) -> bool:
    return any(camel(each) == name for each in part)


def _sign(content: Any) -> None:
    """Google's own word for a call that no Gemini model made, on the first one of a step."""
    calls = (each for each in _parts(content) or () if isinstance(each, dict) and _has(each, "functionCall"))
    first = next(calls, None)
    if first is not None and not _has(first, "thoughtSignature"):
        first["thoughtSignature"] = UNSIGNED
