"""The cuts lose no byte, and the judge of whole answers goes by each format's own end."""

import pytest

from tests.conformance import corpus, cutting
from tests.conformance.corpus import FAMILIES

END = {"chat": b'"finish_reason":"stop"', "responses": b"response.completed", "messages": b'"stop_reason":"end_turn"'}


@pytest.mark.parametrize("size", [1, 2, 100, 2 * cutting.EDGE, 2 * cutting.EDGE + 1, 20_000])
def test_every_byte_is_there_once(size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    assert b"".join(cutting.one_by_one(body)) == body
    assert b"".join(cutting.at_random(body, "seed")) == body


def test_the_same_seed_cuts_at_the_same_places() -> None:
    body = bytes(1000)
    assert list(cutting.at_random(body, "a")) == list(cutting.at_random(body, "a"))
    assert list(cutting.at_random(body, "a")) != list(cutting.at_random(body, "b"))


def test_sampled() -> None:
    places = list(range(100))
    assert cutting.sampled(places, 100, "a") == places
    few = cutting.sampled(places, 10, "a")
    assert (len(few), few[0], few[-5:]) == (10, 0, places[-5:])


@pytest.mark.parametrize("name", END)
def test_where_an_answer_is_whole(name: str) -> None:
    [exchange] = [one for one in corpus.exchanges(name) if one.id == f"written-{name}-text-stream"]
    whole = cutting.whole_from(name, exchange.body)
    last = exchange.body[:whole].split(b"\n\n")[-2]
    assert END[name] in last
    assert END[name] not in exchange.body[: whole - len(last) - 2]
    assert cutting.whole_from(name, exchange.body[: whole - len(last) - 2]) > whole - len(last) - 2


def test_each_family_has_our_own_exchanges() -> None:
    for name in FAMILIES:
        own = [one for one in corpus.exchanges(name) if one.id.startswith("written-")]
        assert {one.framing for one in own} == {"json", "sse"}
        assert {one.status for one in own} >= {200, 400}
        unread = [one.id for one in own if one.status == 200 and corpus.truth(name, one) is None]
        assert all("error-in-stream" in one for one in unread), unread
        assert unread
