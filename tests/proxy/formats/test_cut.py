"""A stream that the gateway ends for its length, at any event: the official SDKs read a normal end.

All of our own streams, cut behind each of their events; for clients of other formats, behind a sample of them.
"""

from collections.abc import Iterator
from functools import cache

import pytest

from proxy.formats.base import Stream
from proxy.formats.canonical import Usage
from proxy.formats.translate import TranslatedStream
from tests import recordings
from tests.conformance import corpus, cutting, through
from tests.conformance.corpus import FAMILIES, Family
from tests.conformance.reading import LENGTH, Counted, Reading, Unread
from tests.recordings import Exchange

MOST = 12  # places of one stream
TOLD = Usage(11, 7, 3, 0, 2)
COUNTED = Counted(11, 7, 3, 0, 2)

each_family = pytest.mark.parametrize("name", FAMILIES)


@cache
def streams(name: str) -> tuple[Exchange, ...]:
    """Whole ones, which the SDK's helper reads."""
    paths = sorted([*corpus.FIXTURES.glob(f"*.{name}.jsonl"), *recordings.OWN.glob(f"*.{name}.jsonl")])
    found = [exchange for path in paths for exchange in recordings.read(path) if exchange.status == 200]
    return tuple(one for one in found if corpus.is_stream(one) and isinstance(corpus.helped(name, one), Reading))


def relay(family: Family, exchange: Exchange) -> Stream:
    wants_usage = {**(exchange.asked or {}), "stream_options": {"include_usage": True}}
    members = through.members(wants_usage)
    return family.form.relay(through.MODEL, through.price, members, framing=corpus.framing(exchange))


def translated(family: Family, target: Family, exchange: Exchange) -> Stream:
    asked = through.ask(family.form, target.form, exchange)
    return TranslatedStream(family.form.reader("1a2b3c"), target.form.writer(asked), asked)


def places(exchange: Exchange) -> list[int]:
    """Before the first event, and behind each; of an array, some."""
    body = exchange.body
    return [0, *(cutting.boundaries(body) if exchange.framing == "sse" else range(7, len(body), 97))]


def cuts(name: str, target: str) -> Iterator[tuple[str, Stream, bytes, bool]]:
    """Where, the stream, what the client got of it, and whether the provider had finished by itself."""
    family, client = FAMILIES[name], FAMILIES[target]
    for exchange in streams(name):
        most = len(exchange.body) if family is client else MOST
        for place in cutting.sampled(places(exchange), most, exchange.id):
            stream = relay(family, exchange) if family is client else translated(family, client, exchange)
            out = stream.feed(exchange.body[:place])
            if not stream.over:
                finished = stream.finished
                yield f"{exchange.id} at byte {place}", stream, out + stream.cut(TOLD), finished


@each_family
@pytest.mark.parametrize("target", FAMILIES)
def test_the_sdk_reads_a_normal_end(name: str, target: str) -> None:
    count = 0
    for place, stream, out, finished in cuts(name, target):
        try:
            reading = FAMILIES[target].helped(out)
        except Unread as unread:
            pytest.fail(f"{place}: {unread}")
        assert (stream.complete, stream.over, stream.error, stream.broken) == (True, True, None, ""), place
        assert stream.cut(TOLD) == b"", place
        if not finished:
            assert stream.usage == TOLD, place
            assert LENGTH in [choice.reason for choice in reading.choices], place
            assert reading.usage == COUNTED, place
        count += 1
    assert count > 40


@each_family
def test_what_was_said_stays_said_and_nothing_is_added(name: str) -> None:
    for exchange in streams(name):
        whole = corpus.helped(name, exchange)
        assert isinstance(whole, Reading)
        for place in places(exchange):
            stream = relay(FAMILIES[name], exchange)
            out = stream.feed(exchange.body[:place])
            if stream.over or stream.finished:
                continue
            assert stream.said == len(stream.text())
            reading = FAMILIES[name].helped(out + stream.cut(TOLD))
            said = 0
            for cut, full in zip(reading.choices, whole.choices, strict=False):
                assert full.text.startswith(cut.text)
                assert full.reasoning.startswith(cut.reasoning)
                said += len(cut.text) + len(cut.reasoning) + len(cut.refusal)
            if not any(choice.calls or choice.others or choice.media for choice in whole.choices):
                assert said == stream.said, (exchange.id, place)


@each_family
def test_the_prompt_is_known_as_soon_as_the_provider_says_it(name: str) -> None:
    for exchange in streams(name):
        stream = relay(FAMILIES[name], exchange)
        stream.feed(exchange.body)
        stream.close()
        if stream.usage is not None:
            side = stream.prompt_usage
            assert side is not None
            assert (side.prompt, side.cached, side.written) == (
                stream.usage.prompt,
                stream.usage.cached,
                stream.usage.written,
            )
            assert side.completion == 0


def test_the_price_is_in_the_usage() -> None:
    for name in FAMILIES:
        *_, (_, _, out, _) = ((a, b, c, d) for a, b, c, d in cuts(name, name) if not d)
        assert b'"cost":%g' % through.COST in out
