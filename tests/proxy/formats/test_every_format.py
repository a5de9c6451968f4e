"""Laws that hold for every stream of every provider, however it is cut: over our own fixtures and the recordings."""

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from models_catalog.pricing import Price
from proxy.formats.openai_chat.byte_relay import ChatStream
from proxy.meter import pricer
from tests.proxy.formats import oracle
from tests.recordings import Exchange, files, name, read
from tests.upstreams import cut

MODEL = "vendor/modèle"
PRICER = pricer(Price(0, 1_000_000, 2_000_000, 500_000, None))  # picodollars: the oracle's prices
SHORT = 400  # bytes: of these streams, every single cut is tried

every_file = pytest.mark.parametrize("path", files("chat"), ids=name)


def relayed(pieces: Iterable[bytes], *, asked: bool = False) -> tuple[bytes, ChatStream]:
    """As `relay` does it."""
    stream = ChatStream(MODEL, hold_usage=not asked, pricer=PRICER)
    out = b""
    for piece in pieces:
        if not stream.over:
            out += stream.feed(piece)
    return (out if stream.over else out + stream.close()), stream


def streams(path: Path) -> Iterator[Exchange]:
    return (exchange for exchange in read(path) if exchange.is_chat_stream)


@every_file
def test_the_client_gets_the_providers_bytes_but_for_the_permitted_edits(path: Path) -> None:
    for exchange in streams(path):
        for asked in (True, False):
            expected = oracle.stream(exchange.body, MODEL, asked=asked)
            out, stream = relayed([exchange.body], asked=asked)
            assert out == expected.body, exchange.id
            assert stream.usage == expected.usage, exchange.id
            assert stream.complete, exchange.id


@every_file
def test_any_cut_gives_the_same_as_the_whole(path: Path) -> None:
    for exchange in streams(path):
        body, dice = exchange.body, random.Random(exchange.id)
        whole, stream = relayed([body])
        for pieces in _cuts(body, dice):
            out, other = relayed(pieces)
            assert (out, other.usage, other.begun) == (whole, stream.usage, stream.begun), exchange.id
            assert (other.complete, other.text()) == (True, stream.text()), exchange.id


def _cuts(body: bytes, dice: random.Random) -> Iterator[list[bytes]]:
    yield cut(body)  # byte by byte
    places = range(1, len(body))
    if len(body) <= SHORT:
        yield from (cut(body, place) for place in places)
    for pieces in (2, 5, 40):
        yield cut(body, *sorted(dice.sample(places, min(pieces, len(places)))))


@every_file
def test_a_stream_that_stops_early_is_not_complete(path: Path) -> None:
    for exchange in streams(path):
        parts = list(oracle.events(exchange.body))
        for place in _before_the_end(parts):
            begun = b"".join(raw for raw, _ in parts[:place])
            assert not relayed([begun])[1].complete, (exchange.id, place)
            assert not relayed([begun, parts[place][0][:9]])[1].complete, (exchange.id, place)


def _before_the_end(parts: list[tuple[bytes, str | None]]) -> range:
    """The first event that ends an answer: places up to and with it. Of a long stream, the last of them."""
    for place, (_, data) in enumerate(parts):
        if data is not None and (data == "[DONE]" or _finishes(data)):
            return range(max(0, place - 8), place + 1)
    raise AssertionError("no event ends it")


def _finishes(data: str) -> bool:
    return any(choice.get("finish_reason") for choice in json.loads(data).get("choices") or ())


@every_file
def test_a_stream_without_usage_leaves_its_text_to_be_counted(path: Path) -> None:
    for exchange in streams(path):
        _, stream = relayed([exchange.body])
        if stream.usage is None:
            said = [json.loads(data) for _, data in oracle.events(exchange.body) if data and data != "[DONE]"]
            words = [word for chunk in said for choice in chunk.get("choices") or () for word in _words(choice)]
            assert stream.text() == "".join(words), exchange.id


def _words(choice: dict[str, dict[str, str]]) -> Iterator[str]:
    delta = choice.get("delta") or {}
    if isinstance(content := delta.get("content"), str):
        yield content
    elif content:
        for part in content:
            yield part.get("text") or ""
            yield from (each["text"] for each in part.get("thinking") or ())
    yield delta.get("reasoning_content") or delta.get("reasoning") or ""
    yield delta.get("refusal") or ""
    for call in delta.get("tool_calls") or ():
        yield call["function"].get("name") or ""
        yield call["function"].get("arguments") or ""
    yield from (delta.get("function_call") or {}).values()


def test_nothing_in_nothing_out() -> None:
    assert relayed([])[0] == b""
    assert relayed([b"", b""])[0] == b""
    assert not relayed([b""])[1].complete
