"""A stream that is cut off, or holds a bad line, is never taken to be whole, and the client's SDK is told.

Part (e) of the suite: a cut behind every event and inside one, a bad line before every event; of streams with more
events a sample with both ends. Then the gateway fails the stream, as `proxy/exchange.py` does, and the client's SDK has
to raise with the gateway's words: in the same format, and in each of the others in turn.
"""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import pytest

from proxy.formats.canonical import End
from proxy.formats.splice import Members
from tests.conformance import corpus, cutting, known, same, through
from tests.conformance.corpus import FAMILIES, Family
from tests.conformance.matrix import EQUAL, FAILED, Cell, report
from tests.conformance.reading import Unread
from tests.conformance.through import FAULT, members
from tests.recordings import Exchange

MOST, FEWEST = 8, 6  # places of one stream
WORK = 400  # events: longer streams are tried at fewer places
INSIDE = 20  # bytes of an event
ASKED = 3  # of those, how many the SDKs are asked about
LONGEST = 12_000  # bytes, of what they are asked about


def _spoiled(name: str, exchange: Exchange) -> Iterator[tuple[str, bytes]]:
    """What is not whole: cut off behind an event, inside the next one, and with a bad line there."""
    body, whole = exchange.body, cutting.whole_from(name, exchange.body)
    ends = [end for end in [0, *cutting.boundaries(body)] if end < whole]
    for end in cutting.sampled(ends, min(MOST, max(FEWEST, WORK // len(ends))), exchange.id):
        if end:
            yield f"cut at byte {end}", body[:end]
        yield f"cut inside the event at byte {end}", body[: min(end + INSIDE, whole - INSIDE)]
        yield f"a bad line at byte {end}", body[:end] + cutting.SPOILED + body[end:]


def _check_relay(family: Family, place: str, body: bytes, client: Members) -> bytes:
    """What the client gets of it in its own format."""
    stream = family.form.relay(same.MODEL, through.price, client, framing="sse")
    out = stream.feed(body)
    if not stream.over:
        out += stream.close()
    taken = stream.complete or (stream.finished and not stream.broken and stream.error is None)
    assert not taken, f"relay takes it to be whole: {place}"
    return out + stream.fail(FAULT)


def _check_reader(family: Family, place: str, body: bytes) -> None:
    reader = family.form.reader("1a2b3c")
    events = through.read(reader, [body])
    assert not reader.complete, f"reader takes it to be complete: {place}"
    assert not (reader.finished and not reader.broken), f"reader takes it to be finished: {place}"
    assert not any(isinstance(event, End) for event in events), f"reader says End: {place}"


def _check_told(family: Family, body: bytes, place: str) -> None:
    said = _raised(family, body)
    assert said, f"as {family.name} the SDK reads a whole answer: {place}"
    assert FAULT.message in said, f"as {family.name} the SDK does not say why: {place}: {said}"


def _raised(family: Family, body: bytes) -> str:
    try:
        family.helped(body)
    except Unread as unread:
        return str(unread)
    return ""


def _check(family: Family, target: Family, exchange: Exchange) -> None:
    client = members(exchange.asked or {})
    found = list(_spoiled(family.name, exchange))
    asked = _spread([place for place, body in found if len(body) < LONGEST])
    for place, body in found:
        out = _check_relay(family, place, body, client)
        _check_reader(family, place, body)
        if place in asked:
            _check_told(family, out, place)
            came = through.streamed(family.form, target.form, [body], through.ask(family.form, target.form, exchange))
            assert not came.whole, f"as {target.name} it is whole: {place}"
            if not _is_unreadable(family, target, exchange):
                _check_told(target, came.body, place)


def _is_unreadable(family: Family, target: Family, exchange: Exchange) -> bool:
    """The target's SDK raises on something in the answer, whole or not."""
    return exchange.id in known.listed().get(("b", f"{family} → {target}"), {})


def _spread(places: list[str]) -> set[str]:
    """The first, and others between, of which the SDKs are asked."""
    return set(places[:: max(1, len(places) // ASKED)][:ASKED])


def _errors(name: str) -> list[Exchange]:
    """Streams that end with the provider's own error."""
    found = [exchange for exchange in corpus.streams(name) if "error" in exchange.features]
    return [exchange for exchange in found if corpus.truth(name, exchange) is None]


@pytest.mark.parametrize("target", FAMILIES)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_providers_own_error(name: str, target: str) -> None:
    family, client = FAMILIES[name], FAMILIES[target]
    assert _errors(name)
    for exchange in _errors(name):
        recorded = _raised(family, exchange.body)
        if target == name:
            out, whole = same.relayed(family.form, iter([exchange.body]), members(exchange.asked or {}), "sse")
            assert not whole
            assert _raised(family, out) == recorded
            continue
        came = through.streamed(
            family.form, client.form, [exchange.body], through.ask(family.form, client.form, exchange)
        )
        assert not came.whole
        assert came.why
        assert came.why in recorded  # the provider's words, as its own SDK raises them
        assert came.why in _raised(client, came.body)


@pytest.mark.parametrize("name", FAMILIES)
def test_broken_off(name: str, record_property: Callable[[str, Any], None]) -> None:
    family, cell = FAMILIES[name], Cell("e", name)
    targets = cycle(other for other in FAMILIES.values() if other is not family)
    for exchange, target in zip(corpus.streams(name), targets, strict=False):
        if exchange.framing != "sse" or corpus.truth(name, exchange) is None:
            continue
        try:
            _check(family, target, exchange)
            cell.add(exchange.id, EQUAL)
        except AssertionError as fault:
            cell.add(exchange.id, FAILED, str(fault).splitlines()[0])
    record_property(*report(cell))
    assert cell.exchanges
    assert not cell.failures
