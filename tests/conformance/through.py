"""One exchange through the gateway's own code, from a provider's format to a client's other one. No I/O, no clock."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from proxy.formats.base import Ask, BadField, Error, Format, Losses, StreamReader, Target
from proxy.formats.canonical import Collector, Event, Reasoning, Request, Usage, play
from proxy.formats.splice import Members
from proxy.formats.translate import TranslatedStream, translate_answer
from tests.recordings import Exchange

MODEL = "vendor/model"
GAINS = ("cost", "cached_tokens", "cache_discount")
COST = 0.25
FAULT = Error(502, "The provider broke off.", "api_error", "provider_error", request_id="req_1")


def price(usage: Usage) -> dict[str, bytes]:
    return dict(zip(GAINS, (b"%g" % COST, b"%d" % usage.cached, b"0.125"), strict=True))


def members(asked: dict[str, Any]) -> Members:
    return Members(json.dumps(asked).encode())


@dataclass
class Asked:
    """A client's request in one format, made of one that was recorded in another."""

    request: Request
    members: Members
    losses: Losses


def translated_request(theirs: Format, ours: Format, asked: dict[str, Any]) -> Asked:
    """The request as a client of format `ours` would have written it. `losses`: by the canonical names."""
    request = theirs.read_request(members(asked))
    losses = Losses({})
    written = Members(ours.write_request(request, Target(MODEL, losses)))
    return Asked(ours.read_request(written), written, losses)


def ask(theirs: Format, ours: Format, exchange: Exchange) -> Ask:
    """The client wants all that an answer can hold."""
    try:
        client = translated_request(theirs, ours, exchange.asked or _LEAST[theirs.NAME])
    except BadField:  # it leans on what only its own provider keeps: `test_requests.py` looks at that
        client = translated_request(theirs, ours, _LEAST[theirs.NAME])
    thoughts = replace(client.request.reasoning or Reasoning(), visible=True, summary="auto")
    request = replace(client.request, logprobs=True, reasoning=thoughts)
    return Ask("1a2b3c", MODEL, 1_700_000_000, request, client.members, price, Losses({}), include_usage=True)


_TURN = [{"role": "user", "content": "?"}]
_LEAST: dict[str, dict[str, Any]] = {
    "openai_chat": {"model": MODEL, "messages": _TURN},
    "openai_responses": {"model": MODEL, "input": "?"},
    "anthropic_messages": {"model": MODEL, "max_tokens": 4096, "messages": _TURN},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "?"}]}]},
}


@dataclass
class Came:
    """What the client got. `whole`: the gateway took the answer to be complete. `why`: it did not, and says so."""

    body: bytes
    whole: bool
    why: str = ""


def plain(theirs: Format, ours: Format, body: bytes, asked: Ask) -> Came:
    return Came(translate_answer(theirs, ours, body, asked).body, True)


def streamed(theirs: Format, ours: Format, pieces: Iterable[bytes], asked: Ask) -> Came:
    """As the relay does it: what does not come to its end is failed."""
    stream = TranslatedStream(theirs.reader(asked.id), ours.writer(asked), asked)
    out = b""
    for piece in pieces:
        out += stream.feed(piece)
        if stream.over:
            break
    if not stream.over:
        out += stream.close()
    if stream.complete:
        return Came(out, True)
    if stream.error is not None:
        words = str(stream.error.get("message") or "")
        return Came(out + stream.fail(replace(FAULT, message=words)), False, words)
    return Came(out + stream.fail(FAULT), False, stream.broken or "cut")


def played(theirs: Format, ours: Format, body: bytes, asked: Ask) -> Came:
    """A plain answer as a stream."""
    writer = ours.writer(asked)
    events = play(theirs.read_answer(body, asked.id))
    return Came(b"".join([writer.send(event) for event in events]), True)


def collected(theirs: Format, ours: Format, body: bytes, asked: Ask) -> Came:
    """A stream as a plain answer."""
    reader = theirs.reader(asked.id)
    found = read(reader, [body])
    if not reader.complete:
        return Came(b"", False, reader.broken or "cut")
    collector = Collector()
    for event in found:
        collector.add(event)
    return Came(ours.write_answer(collector.answer, asked), True)


def read(reader: StreamReader, pieces: Iterable[bytes]) -> list[Event]:
    found: list[Event] = []
    for piece in pieces:
        found += reader.feed(piece)
    return found + reader.close()
