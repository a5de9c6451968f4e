"""The exchanges that the suite runs over, by wire format, and what each format's official SDK reads from them.

`tests/recordings.py` finds them: a small set of our own beside this file, and the folder that `KODNA_RECORDINGS` names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from proxy.formats import anthropic_messages, gemini, openai_chat, openai_responses
from proxy.formats.base import Format
from tests import recordings
from tests.conformance import anthropic_sdk, google_sdk, openai_sdk
from tests.conformance.reading import Reading, Unread
from tests.recordings import Exchange

FIXTURES = Path(__file__).parent / "fixtures"
STREAMED = {"sse", "json-array"}


@dataclass(frozen=True)
class Family:
    """One wire format. `plain`, `stream`: what its SDK reads. `helped`: the same through the SDK's streaming helper,

    which is stricter than a loop over the chunks, and must like what the gateway writes.
    """

    name: str
    form: Format
    plain: Callable[[bytes], Reading]
    stream: Callable[[bytes], Reading]
    helped: Callable[[bytes], Reading]

    def __str__(self) -> str:
        return self.name


FAMILIES = {
    family.name: family
    for family in (
        Family("chat", openai_chat, openai_sdk.chat, openai_sdk.chat_stream, openai_sdk.chat_helped),
        Family(
            "responses",
            openai_responses,
            openai_sdk.responses,
            openai_sdk.responses_stream,
            openai_sdk.responses_helped,
        ),
        Family(
            "messages",
            anthropic_messages,
            anthropic_sdk.messages,
            anthropic_sdk.messages_stream,
            anthropic_sdk.messages_stream,
        ),
        Family("generateContent", gemini, google_sdk.generate, google_sdk.generate_stream, google_sdk.generate_stream),
    )
}
PAIRS = [(x, y) for x in FAMILIES for y in FAMILIES if x != y]


@cache
def exchanges(name: str) -> tuple[Exchange, ...]:
    paths = [*sorted(FIXTURES.glob(f"*.{name}.jsonl")), *recordings.files(name)]
    return tuple(exchange for path in paths for exchange in recordings.read(path))


def answered(name: str) -> list[Exchange]:
    return [exchange for exchange in exchanges(name) if exchange.status == 200]


def refused(name: str) -> list[Exchange]:
    return [exchange for exchange in exchanges(name) if exchange.status != 200]


def streams(name: str) -> list[Exchange]:
    return [exchange for exchange in answered(name) if is_stream(exchange)]


def is_stream(exchange: Exchange) -> bool:
    return exchange.framing in STREAMED


def is_vertex(exchange: Exchange) -> bool:
    """Which the SDK reads a little differently from what comes from Gemini's own API."""
    return exchange.id.startswith("google-vertex-generatecontent")


def framing(exchange: Exchange) -> str:
    return "array" if exchange.framing == "json-array" else "sse"


_truths: dict[str, Reading | None] = {}
_helped: dict[str, Reading | str] = {}


def truth(name: str, exchange: Exchange) -> Reading | None:
    """What the format's own SDK reads. None: it cannot read it, or it is an error or unfinished."""
    if exchange.id not in _truths:
        known = None if is_vertex(exchange) else _helped.get(exchange.id)
        _truths[exchange.id] = known if isinstance(known, Reading) else _read(FAMILIES[name], exchange)
    return _truths[exchange.id]


def helped(name: str, exchange: Exchange) -> Reading | str:
    """What the SDK's streaming helper reads of a stream, which is the same; or why it does not."""
    if exchange.id not in _helped:
        _helped[exchange.id] = reading_or_fault(FAMILIES[name].helped, exchange.body)
    return _helped[exchange.id]


def reading_or_fault(read: Callable[[bytes], Reading], body: bytes) -> Reading | str:
    try:
        return read(body)
    except Unread as unread:
        return str(unread)


def _read(family: Family, exchange: Exchange) -> Reading | None:
    try:
        if is_vertex(exchange):
            read = google_sdk.generate_stream if is_stream(exchange) else google_sdk.generate
            return read(exchange.body, vertex=True)
        return (family.stream if is_stream(exchange) else family.plain)(exchange.body)
    except Unread:
        return None
