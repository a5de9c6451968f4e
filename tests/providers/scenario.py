"""What the scripted providers say, whatever wire format they speak: a request read, and the answer to it.

Each dialect (`openai_chat`, `openai_responses`, `anthropic_messages`, `gemini`) reads its requests into `Asked` and
writes `Said` or `Refused` in its own shape. The name of the model chooses the scenario.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self

SENTENCE = 'Grüße aus 東京 🗼, "quoted" \\ and\nbroken – done.'
THOUGHT = "Zwölf 🤔 is first thought of, then said."
SIGNATURE = base64.b64encode(b"\xfb\xef\xbe signed by the scripted provider \xff\xfe").decode()  # holds + and /
RETRY_AFTER = "7"  # seconds, with each 429 and 529
MAX_TOKENS_SAID = "Cut at the"
REFUSAL = "I will not do that."


# What is counted, in OpenAI's sense: cached tokens are among those of the prompt, reasoning among those of the answer.
PROMPT_TOKENS, CACHED_TOKENS, COMPLETION_TOKENS, REASONING_TOKENS = 20, 8, 12, 5

# error: the vendor's event for it; cut: the connection breaks; truncated: HTTP ends in order, the format does not.
End = Literal["whole", "error", "cut", "truncated"]
Finish = Literal["stop", "calls", "length", "refusal"]


@dataclass(frozen=True)
class Tool:
    name: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    name: str
    arguments: Mapping[str, Any]
    number: int  # of this answer's calls

    @property
    def json(self) -> str:
        """As providers write it: compact, and with escapes that a careless cut would break."""
        return json.dumps(self.arguments, separators=(",", ":"))


@dataclass(frozen=True)
class Asked:
    """A request that its dialect found without fault."""

    dialect: str
    model: str
    stream: bool
    user: str = ""  # the text of the last user turn
    system: str = ""
    tools: Sequence[Tool] = ()
    choice: str = "auto"  # auto, none, any, or the name of the tool that must be called
    parallel: bool = True
    results: Sequence[str] = ()  # what came back for the calls of the last turn
    schema: Mapping[str, Any] | None = None
    images: Sequence[str] = ()
    thinks: bool = False  # thoughts were asked for
    signed: int = 0  # signatures of ours that came back
    extra: Mapping[str, Any] = field(default_factory=dict)  # what only the dialect's writer needs


@dataclass(frozen=True)
class Said:
    text: str = ""
    calls: Sequence[Call] = ()
    thought: str = ""
    finish: Finish = "stop"
    end: End = "whole"  # of the stream

    @property
    def reasoning_tokens(self) -> int:
        return REASONING_TOKENS if self.thought else 0


@dataclass
class Refused(Exception):
    """The answer is an error."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    @classmethod
    def request(cls, message: str, param: str | None = None, code: str | None = None) -> Self:
        return cls(400, message, param, code)


ERRORS = {
    400: "prompt is too long: 300000 tokens > 200000 maximum",
    401: "The key of the gateway is refused",
    403: "The key of the gateway has no access",
    404: "The model does not exist",
    413: "The request is too large",
    429: "Too many requests, says the provider",
    500: "The provider broke",
    503: "The provider is overloaded",
    529: "Overloaded",
}


# --- values that fit a schema ----------------------------------------------------------------------------------------


def sample(schema: Mapping[str, Any], number: int = 0, root: Mapping[str, Any] | None = None) -> Any:
    """The value that the providers give for this JSON Schema; another one for another `number`."""
    root = schema if root is None else root
    if "$ref" in schema:
        return sample(_referred(schema["$ref"], root), number, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return sample(schema[word][0], number, root)
    return _of_type(schema, number, root)


def _referred(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    target: Any = root
    for step in reference.removeprefix("#/").split("/"):
        target = target[step]
    return target


def _of_type(schema: Mapping[str, Any], number: int, root: Mapping[str, Any]) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = (kind[0] if isinstance(kind, list) else kind).lower()  # Gemini writes them large
    if kind == "object":
        return {name: sample(part, number, root) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema["items"], number + place, root) for place in range(2)]
    scalars = {"integer": 1200 + number, "number": -12.75 - number, "boolean": True, "null": None}
    return scalars.get(kind, f'Zürich {number} "Ost" \\ 🗼\n')


def split_json(text: str) -> list[str]:
    """`text` cut where it hurts: within each escape, within each number of two digits and more, and now and then."""
    places = {match.start() + 1 for match in re.finditer(r"\\.|\d\d", text)}
    places |= {match.start() + 3 for match in re.finditer(r"\\u", text)}
    places |= set(range(9, len(text), 9))
    marks = [0, *sorted(place for place in places if 0 < place < len(text)), len(text)]
    return [text[start:end] for start, end in pairwise(marks)]


def split_text(text: str) -> list[str]:
    return re.findall(r"\s?\S+|\s", text) or [text]


def split_bytes(data: bytes) -> list[bytes]:
    """As a network may cut it: within each character of several bytes, and between the two ends of line of an event."""
    places = {place for place in range(1, len(data)) if data[place] & 0xC0 == 0x80 and data[place - 1] & 0xC0 == 0xC0}
    places |= {match.start() + 1 for match in re.finditer(rb"\n\n|\r\n", data)}
    marks = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in pairwise(marks) if start < end]


def picture(media_type: str, data: str) -> str:
    """How `vision` speaks of a picture that came within the request."""
    try:
        size = len(base64.b64decode(data, validate=True))
    except binascii.Error as fault:
        raise Refused.request(f"The image is not valid base64: {fault}") from fault
    return f"{media_type} of {size} bytes"


def data_url(url: str) -> str:
    """How `vision` speaks of a picture that OpenAI's formats name by an address."""
    if url.startswith(("http://", "https://")):
        return f"at {url}"
    found = re.fullmatch(r"data:(image/[a-z+]+);base64,(.*)", url, re.DOTALL)
    if not found:
        raise Refused.request("Invalid image_url: expected an http(s) address or a base64 data URL", "image_url")
    return picture(found[1], found[2])


# --- the scenarios ---------------------------------------------------------------------------------------------------


def answer(asked: Asked) -> Said:
    """Raises `Refused` where the scenario is an error, or the request lacks what the scenario is about."""
    kind, _, detail = asked.model.partition("-")
    if kind == "error" and detail.isdigit():
        raise Refused(int(detail), ERRORS[int(detail)], code=_code(int(detail)))
    say = _SCENARIOS.get(asked.model)
    if say is None:
        raise Refused(404, f"The model `{asked.model}` does not exist", code="model_not_found")
    return say(asked)


def _code(status: int) -> str | None:
    return {400: "context_length_exceeded", 404: "model_not_found", 429: "rate_limit_exceeded"}.get(status)


def _text(asked: Asked) -> Said:
    system = f" [system: {asked.system}]" if asked.system else ""
    return Said(f"{SENTENCE} You said: {asked.user}{system}")


def _calls(asked: Asked, most: int) -> Said:
    if asked.results:
        return Said("The tools said: " + "; ".join(asked.results))
    if not asked.tools or asked.choice == "none":
        raise Refused.request("This scenario needs tools, and none arrived")
    offered = [tool for tool in asked.tools if asked.choice in ("auto", "any", tool.name)]
    if most > 1 and not asked.parallel:
        raise Refused.request("This scenario needs parallel calls, and they were forbidden")
    chosen = (offered * most)[:most]
    calls = [Call(tool.name, sample(tool.schema, number), number) for number, tool in enumerate(chosen)]
    return Said(calls=calls, finish="calls")


def _structured(asked: Asked) -> Said:
    if asked.schema is not None:
        return Said(json.dumps(sample(asked.schema), ensure_ascii=False))
    if asked.tools and asked.choice not in ("auto", "none"):  # as some SDKs ask for structure
        return _calls(asked, 1)
    raise Refused.request("This scenario needs a schema, and none arrived")


def _vision(asked: Asked) -> Said:
    if not asked.images:
        raise Refused.request("This scenario needs an image, and none arrived")
    return Said("I see " + ", ".join(asked.images))


def _thinking(asked: Asked) -> Said:
    thought = THOUGHT if asked.thinks else ""
    if asked.tools and not asked.results:
        return Said(calls=_calls(asked, 1).calls, thought=thought, finish="calls")
    said = "; ".join(asked.results) or asked.user
    return Said(f"After {asked.signed} signed thoughts: {said}", thought=thought)


def _broken(end: End) -> Callable[[Asked], Said]:
    def say(asked: Asked) -> Said:
        if not asked.stream:
            raise Refused(500, ERRORS[500])
        return Said(SENTENCE, end=end)

    return say


_SCENARIOS: dict[str, Callable[[Asked], Said]] = {
    "text": _text,
    "tools": lambda asked: _calls(asked, 1),
    "parallel": lambda asked: _calls(asked, 2),
    "structured": _structured,
    "vision": _vision,
    "thinking": _thinking,
    "length": lambda _: Said(MAX_TOKENS_SAID, finish="length"),
    "refusal": lambda _: Said(REFUSAL, finish="refusal"),
    "error-stream": _broken("error"),
    "cut": _broken("cut"),
    "truncated": _broken("truncated"),
}
MODELS = (*_SCENARIOS, *(f"error-{status}" for status in ERRORS))
