"""What an official SDK tells its user of one answer, in one neutral form, so that any two can be compared.

`openai_sdk.py`, `anthropic_sdk.py` and `google_sdk.py` make readings; `compare.py` compares them.
"""

import json
from dataclasses import dataclass, field
from typing import Any

STOP, LENGTH, TOOL_CALLS, FILTERED, PAUSE = "stop", "length", "tool_calls", "filtered", "pause"


@dataclass
class Counted:
    """Tokens, as OpenAI counts: `prompt` holds the cached and written ones, `completion` the reasoning."""

    prompt: int
    completion: int
    cached: int = 0
    written: int = 0
    reasoning: int = 0


@dataclass
class Call:
    """A call of one of the client's own tools. `arguments`: the JSON value; text that is no JSON as it is."""

    name: str
    arguments: Any


@dataclass
class Said:
    """One choice. `reasoning`: the text only. `raw`: the stop reason in the format's own word.

    `media`: how many images and sounds. `others`: the kinds of what only this format knows, a server tool's call say.
    """

    text: str = ""
    refusal: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    reason: str = ""
    raw: str = ""
    citations: int = 0
    logprobs: bool = False
    media: int = 0
    others: set[str] = field(default_factory=set)


@dataclass
class Reading:
    choices: list[Said]
    usage: Counted | None = None


class Unread(Exception):
    """The SDK raised on it, or it ended without saying that it is whole; the text says which."""


def arguments(text: str | None) -> Any:
    """A call without arguments is one with an empty object to every format that has objects there."""
    if not text or not text.strip():
        return {}
    try:
        found = json.loads(text, strict=False)
    except ValueError:
        return text
    return {} if found is None else found


def custom_input(text: str) -> dict[str, str]:
    """A custom tool's plain text, as formats without such tools say it: a function with one string."""
    return {"input": text}


def settled(said: Said) -> Said:
    """A choice that calls tools and stopped has stopped for them, whatever word its format has for that."""
    if said.reason in (STOP, TOOL_CALLS):
        said.reason = TOOL_CALLS if said.calls else STOP
    return said
