"""JSON of providers that msgspec refuses, and odd values in it."""

import json

import pytest

from proxy.formats.lenient import Halves, count, encode, lax, mended, objects, priced, value
from proxy.formats.splice import Malformed

EMOJI = "\U0001f600"


def test_it_works() -> None:
    assert value(b'{"a":NaN,"b":"\\ud83d"}') == {"a": pytest.approx(float("nan"), nan_ok=True), "b": "\ufffd"}


@pytest.mark.parametrize(
    ("text", "found"),
    [(b'{"a": 1}', {"a": 1}), (b"{", None), (b"[" * 5000, None), (b'"\xff"', "\ufffd"), (b"9" * 9999, float("inf"))],
)
def test_any_value(text: bytes, found: object) -> None:
    assert value(text) == found


def test_what_no_reader_takes() -> None:
    for text in (b"{", b"[" * 5000):
        with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
            lax(text)


def test_half_a_surrogate_pair_is_written_again() -> None:
    assert json.loads(encode({"a": "\ud83d"})) == {"a": "\ud83d"}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("\ud83d\ude00", EMOJI),
        ("a\ud83d", "a\ufffd"),
        ({"\ud83d": ["\ude00", 1, None]}, {"\ufffd": ["\ufffd", 1, None]}),
    ],
)
def test_halves_are_mended(found: object, expected: object) -> None:
    assert mended(found) == expected


def test_a_half_waits_for_the_other() -> None:
    halves = Halves()
    assert [halves.join("a\ud83d", 1), halves.join("b", 2), halves.join("\ude00c", 1)] == ["a", "b", EMOJI + "c"]
    assert [halves.join("\ud83d", 1), halves.join("b", 1)] == ["", "\ufffdb"]


@pytest.mark.parametrize(
    ("found", "tokens"), [(5, 5), (5.0, 5), (-1, 0), (True, 0), ("5", 0), (None, 0), (2**31, 0), (float("nan"), 0)]
)
def test_counts(found: object, tokens: int) -> None:
    assert count(found) == tokens


def test_objects_of_a_list() -> None:
    assert objects([{}, 1, None, {"a": 1}]) == [{}, {"a": 1}]
    assert objects({"a": 1}) == []


def test_the_price_takes_the_place_of_a_providers_own() -> None:
    text = b'{"prompt_tokens":1,"cost":9}'
    assert json.loads(priced(text, json.loads(text), {"cost": b"2", "more": b"3"})) == {
        "prompt_tokens": 1,
        "cost": 2,
        "more": 3,
    }
    assert priced(b'{"a":1}', {"a": 1}, {"cost": b"2"}) == b'{"a":1,"cost":2}'
    with pytest.raises(Malformed):
        priced(b'{"cost":1,"cost":2}', {"cost": 2}, {"cost": b"2"})
