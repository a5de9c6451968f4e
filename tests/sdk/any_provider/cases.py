"""What the SDKs ask for, and what `tests.providers` then says: shared by the tests of all SDKs."""

import base64
import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from tests.providers import scenario

SYSTEM = "Be brief."
HELLO = "Hällo"
TEXT = f"{scenario.SENTENCE} You said: {HELLO} [system: {SYSTEM}]"
TEXT_ALONE = f"{scenario.SENTENCE} You said: {HELLO}"

# The provider fetches it, not the gateway.
IMAGE_URL = "https://example.com/cat.png"
IMAGE = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000") + bytes(range(190, 256))
IMAGE_BASE64 = base64.b64encode(IMAGE).decode()
DATA_URL = f"data:image/png;base64,{IMAGE_BASE64}"
SEEN = f"I see image/png of {len(IMAGE)} bytes"
SEEN_AT_URL = f"I see at {IMAGE_URL}"


class Guest(BaseModel):
    """Has what schemas have: a nested object, a list, numbers. Closed, as the vendors' strict modes want it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    age: int
    address: "Address"
    scores: list[float]


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid")

    city: str
    known: bool


Guest.model_rebuild()
GUEST = Guest(**scenario.sample(Guest.model_json_schema()))

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Where"},
        "days": {"type": "integer"},
        "wind": {"type": "object", "properties": {"min": {"type": "number"}}, "required": ["min"]},
    },
    "required": ["city", "days", "wind"],
}
CLOCK: dict[str, Any] = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
TOOLS = {"weather": WEATHER, "clock": CLOCK}
WEATHER_ARGUMENTS = scenario.sample(WEATHER)
CLOCK_ARGUMENTS = scenario.sample(CLOCK, 1)
CALLS = [("weather", WEATHER_ARGUMENTS), ("clock", CLOCK_ARGUMENTS)]
RESULTS = {"weather": 'Föhn, 21° "warm"', "clock": "12:30"}
ONE_RESULT = f"The tools said: {RESULTS['weather']}"
BOTH_RESULTS = f"The tools said: {RESULTS['weather']}; {RESULTS['clock']}"

TOKENS = (scenario.PROMPT_TOKENS, scenario.COMPLETION_TOKENS, scenario.CACHED_TOKENS)

STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
TOOL_TURNS = pytest.mark.parametrize("turn", ["tools", "parallel"])
SAID_AFTER = {"tools": ONE_RESULT, "parallel": BOTH_RESULTS}
MADE = {"tools": 1, "parallel": 2}  # calls
PICTURES = pytest.mark.parametrize("picture", ["base64", "address"])
SEEN_AS = {"base64": SEEN, "address": SEEN_AT_URL}


def said_after_thoughts(signed: bool) -> str:
    return f"After {int(signed)} signed thoughts: {RESULTS['weather']}"


def plainly(said: str) -> str:
    """Without the JSON that a client has wrapped around a tool's result, as Gemini's `functionResponse` allows."""
    head, colon, results = said.partition(": ")
    plain = [_unwrapped(result) for result in results.split("; ")]
    return head + colon + "; ".join(plain)


def _unwrapped(result: str) -> str:
    if not result.startswith("{"):
        return result
    values = json.loads(result)
    return str(values.get("return_value", values.get("content")))
