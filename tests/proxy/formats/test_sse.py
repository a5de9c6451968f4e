"""Server-sent events out of bytes that are cut anywhere and end their lines as they like."""

import random
from itertools import product
from pathlib import Path

import pytest

from proxy.formats import sse
from proxy.formats.sse import Frame, Splitter, event
from tests.recordings import files, name, read
from tests.upstreams import cut

HELLO = b'data: {"a": 1}\n\n'


def frames(*pieces: bytes) -> list[Frame]:
    splitter = Splitter()
    found = [frame for piece in pieces for frame in splitter.feed(piece)]
    return found + splitter.close()


def test_it_works() -> None:
    assert frames(HELLO, b"event: b\ndata: 2\n\n") == [Frame(HELLO, b'{"a": 1}'), Frame(b"event: b\ndata: 2\n\n", b"2")]
    assert frames(b"event: b\ndata: 2\n\n")[0].name == b"b"
    assert frames() == []


@pytest.mark.parametrize(
    ("raw", "data", "lines"),
    [
        (b"data: 1\n\n", b"1", 1),
        (b"data:1\n\n", b"1", 1),
        (b"data:  1 \n\n", b"1", 1),
        (b"data: 1\r\n\r\n", b"1", 1),
        (b"data: 1\r\r", b"1", 1),
        (b"event: x\r\ndata: 1\r\n\r\n", b"1", 1),
        (b"event: x\rdata: 1\r\r", b"1", 1),
        (b"event: x\rdata: 0\ndata: 1\n\n", b"0 1", 2),
        (b"event: x\nid: 7\ndata: 1\n\n", b"1", 1),
        (b"data: 1\nid: 7\n\n", b"1", 1),
        (b"data: 1\n: comment\n\n", b"1", 1),
        (b"data: 1\ndata: 2\n\n", b"1 2", 2),
        (b"data\n\n", b"", 0),
        (b": comment\n\n", b"", 0),
        (b"\n\n", b"", 0),
        (b"\xef\xbb\xbfdata: 1\n\n", b"1", 1),
        (b"data: 1", b"1", 1),
        (b"data: 1\n", b"1", 1),
    ],
)
def test_forms_of_an_event(raw: bytes, data: bytes, lines: int) -> None:
    for pieces in ([raw], cut(raw)):
        assert frames(*pieces) == [Frame(raw, data, lines)]
    if raw.endswith((b"\n\n", b"\r\n\r\n")):
        hello = Frame(HELLO, b'{"a": 1}')
        assert frames(HELLO, raw + HELLO) == [hello, Frame(raw, data, lines), hello]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"event: a\ndata: 1\n\n", b"a"),
        (b"data: 1\nevent:a\n\n", b"a"),
        (b"event: a\r\ndata: 1\r\n\r\n", b"a"),
        (HELLO, b""),
    ],
)
def test_the_name_of_an_event(raw: bytes, found: bytes) -> None:
    assert frames(raw)[0].name == found


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"event: a\r\ndata: 1\r\n\r\n", b"event: a\r\ndata: 22\r\n\r\n"),
        (b"id: 7\ndata: [1,\ndata: 2]\n\n", b"id: 7\ndata: 22\n\n"),
    ],
)
def test_other_data_in_the_same_event(raw: bytes, expected: bytes) -> None:
    frame = frames(raw)[0]
    assert frame.with_data(b"22") == expected
    assert frame.with_data(frame.data) == raw


def test_every_mix_of_line_ends_cut_anywhere() -> None:
    ends = (b"\n", b"\r\n", b"\r")
    for first, second, third in product(ends, repeat=3):
        if (first, second) == (b"\r", b"\n"):
            continue  # that is one line's end
        body = b"data: 1" + first + second + b"data: 2" + third + third + b"data: 3\n\n"
        whole = frames(body)
        assert [frame.data for frame in whole] == [b"1", b"2", b"3"]
        assert b"".join(frame.raw for frame in whole) == body
        for place in range(1, len(body)):
            assert frames(*cut(body, place)) == whole


@pytest.mark.parametrize("path", files("chat") + files("responses") + files("messages"), ids=name)
def test_any_cut_gives_the_same_events(path: Path) -> None:
    for exchange in read(path):
        if exchange.framing == "sse":
            body, dice = exchange.body, random.Random(exchange.id)
            whole = frames(body)
            assert b"".join(frame.raw for frame in whole) == body
            places = range(1, len(body))
            assert frames(*cut(body, *sorted(dice.sample(places, min(30, len(places)))))) == whole, exchange.id


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_long_events_in_small_pieces_are_joined_once(end: bytes) -> None:
    """Joined anew with each piece, 2 MB in 40,000 pieces would be 40 GB."""
    line = b"data: " + b"x" * 42
    splitter = Splitter()
    assert not any(splitter.feed(line + end) for _ in range(40_000))
    (frame,) = splitter.feed(end + b"\n")[:1]
    assert frame.lines == 40_000


def test_an_endless_event_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 100)
    splitter = Splitter()
    for _ in range(30):
        assert not splitter.feed(b"data: x\n")
    assert splitter.too_large


def test_an_event_of_our_own() -> None:
    assert event("a", b"1") == b"event: a\ndata: 1\n\n"
