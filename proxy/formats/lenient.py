"""JSON of providers, whatever is wrong with it: NaN, halves of surrogate pairs, an emoji cut in two, odd types.

Called by the formats, where msgspec refuses what Python's and JavaScript's clients read.
"""

import json
from collections.abc import Hashable
from typing import Any

import msgspec

from proxy.formats.splice import Members, append

BOM = b"\xef\xbb\xbf"
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MOST = 2**31 - 1  # tokens: more is no count, and no database column holds it
_MOST_DIGITS = 1000  # Python makes no integers of more than 4300: a number that no format has a use for


def lax(text: bytes) -> Any:
    """JSON as Python's own reader takes it: halves of surrogate pairs, NaN. Raises `ValueError`."""
    try:
        return json.loads(text.decode(errors="replace"), parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def value(text: bytes) -> Any:
    """A JSON value that can be written again; None where no reader takes it."""
    try:
        return msgspec.json.decode(text)
    except UNREADABLE:
        try:
            return mended(lax(text))
        except ValueError:
            return None


def mended(found: Any) -> Any:
    """Without halves of surrogate pairs: two that meet are one character, others cannot be written."""
    if isinstance(found, str):
        return found.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(found, dict):
        return {mended(name): mended(said) for name, said in found.items()}
    return [mended(said) for said in found] if isinstance(found, list) else found


class Halves:
    """Texts that come in pieces, some of which end in the middle of a surrogate pair: the half waits for the other."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[Hashable, str] = {}

    def join(self, text: str, which: Hashable) -> str:
        """`which`: the text that this is a piece of."""
        text = self._kept.pop(which, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._kept[which] = text[:-1], text[-1]
        whole: str = mended(text)
        return whole


_encode = msgspec.json.Encoder().encode


def encode(found: Any) -> bytes:
    """JSON; half a surrogate pair stands as its escape."""
    try:
        return _encode(found)
    except (UnicodeEncodeError, RecursionError):
        return json.dumps(found, default=_plain, separators=(",", ":")).encode()


def _plain(raw: msgspec.Raw) -> Any:
    return json.loads(bytes(raw))


def string(found: Any) -> str:
    return found if isinstance(found, str) else ""


def objects(found: Any) -> list[dict[str, Any]]:
    """The objects of a list; nothing where it is none."""
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def tokens(found: Any) -> list[dict[str, Any]]:
    """Log probabilities as OpenAI has them: what names no token is none."""
    known = [one for one in objects(found) if isinstance(one.get("token"), str)]
    return [{**one, "top_logprobs": tokens(one["top_logprobs"])} if one.get("top_logprobs") else one for one in known]


def count(found: Any) -> int:
    """A count of tokens, or a place in a list; 0 for what is none."""
    if type(found) is int:
        return found if 0 < found <= _MOST else 0
    return int(found) if type(found) is float and 0 < found <= _MOST else 0


def priced(text: bytes, usage: dict[str, Any], gains: dict[str, bytes]) -> bytes:
    """A provider's `usage` with the price added, in place of what it may have put under the same names.

    Raises `Malformed` where a name stands twice in it.
    """
    if usage and usage.keys().isdisjoint(gains):
        return append(text, gains)
    known = {name: gain for name, gain in gains.items() if name in usage}
    fresh = {name: gain for name, gain in gains.items() if name not in usage}
    return Members(text).edit(known, add=fresh)
