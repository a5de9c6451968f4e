"""Limits per key: exact under load, named in words and headers, and a place that is given back in every way."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from proxy import limits
from proxy.errors import RateLimited
from proxy.limits import Left, Limiter, Window, duration
from proxy.upstream import Pool
from tests.proxy.inside import HELLO, KEY, TEXT, Answer, Inside, model, provider, snapshot
from tests.upstreams import (
    MockUpstream,
    Reply,
    chat_events,
    chat_stream,
    completion,
    error_reply,
    refuse,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(limits.time, "monotonic", found)
    return found


def admitted(limiter: Limiter, times: int, **bounds: int) -> int:
    count = 0
    for _ in range(times):
        try:
            limiter.admit(replace(KEY, **bounds)).release()
        except RateLimited:
            continue
        count += 1
    return count


def test_it_works(clock: Clock) -> None:
    assert admitted(Limiter(), 10) == 10


@pytest.mark.parametrize(("name", "seconds"), [("rps", 1.0), ("rpm", 60.0)])
def test_a_window(clock: Clock, name: str, seconds: float) -> None:
    limiter = Limiter()
    assert admitted(limiter, 10, **{name: 3}) == 3
    clock.now += seconds * 0.99
    assert admitted(limiter, 10, **{name: 3}) == 0
    clock.now += seconds * 0.02
    assert admitted(limiter, 10, **{name: 3}) == 3, "what was refused used nothing up"


def test_no_window_of_a_second_holds_more(clock: Clock) -> None:
    """Not at the border of two seconds either."""
    limiter, passed = Limiter(), []
    for _ in range(400):
        clock.now += 0.01
        passed += [clock.now] * admitted(limiter, 1, rps=5)
    assert max(sum(1 for other in passed if start <= other < start + 1) for start in passed) == 5
    assert len(passed) == 20


def test_a_refusal_names_the_limit_and_the_wait(clock: Clock) -> None:
    limiter = Limiter()
    admitted(limiter, 2, rpm=2)
    clock.now += 10
    with pytest.raises(RateLimited, match=r"2 requests per minute.*in 50s") as caught:
        limiter.admit(replace(KEY, rpm=2))
    assert (caught.value.retry_after, caught.value.code) == (50.0, "rate_limit_exceeded")


def test_a_refusal_by_one_limit_uses_up_nothing_of_another(clock: Clock) -> None:
    limiter = Limiter()
    held = limiter.admit(replace(KEY, rpm=2, concurrency=1))
    assert admitted(limiter, 5, rpm=2, concurrency=1) == 0
    held.release()
    assert admitted(limiter, 5, rpm=2, concurrency=1) == 1


def test_a_place_is_given_back_once(clock: Clock) -> None:
    limiter, key = Limiter(), replace(KEY, concurrency=2)
    first, _ = limiter.admit(key), limiter.admit(key)
    first.release()
    first.release()
    assert limiter.active(key) == 1


def test_a_limit_that_was_lowered(clock: Clock) -> None:
    limiter = Limiter()
    assert admitted(limiter, 5, rpm=5) == 5
    with pytest.raises(RateLimited) as caught:
        limiter.admit(replace(KEY, rpm=1))
    assert caught.value.retry_after == 60


def test_keys_do_not_share(clock: Clock) -> None:
    limiter = Limiter()
    assert admitted(limiter, 3, rpm=1) == 1
    assert admitted(limiter, 3, rpm=1, id=8) == 1


def test_headers_of_an_answer_that_counted_nothing(clock: Clock) -> None:
    limiter, key = Limiter(), replace(KEY, rpm=2)
    assert limiter.left(key) is None
    limiter.admit(key)
    clock.now += 20
    assert limiter.left(key) == Left(2, 1, 40)
    clock.now += 60
    assert limiter.left(key) == Left(2, 2, 0), "the minute is over"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0ms"), (-1, "0ms"), (0.02, "20ms"), (1, "1s"), (1.5, "1.5s"), (59.9, "59.9s"), (360, "6m0s")],
)
def test_durations_as_openai_writes_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_an_empty_window() -> None:
    assert Window(1.0).reset(5) == 0


# --- through the whole gateway ---------------------------------------------------------------------------------------


def inside(folder: Path, upstream: MockUpstream, **bounds: int) -> Inside:
    catalog = snapshot(model("m", provider(first_byte_timeout=0.05, idle_timeout=0.05)))
    return Inside(folder, catalog, Pool(upstream.transport), (TEXT, replace(KEY, **bounds)))


@pytest.mark.parametrize(
    ("bounds", "code"),
    [
        ({"rps": 7}, "rate_limit_exceeded"),
        ({"rpm": 7}, "rate_limit_exceeded"),
        ({"concurrency": 7}, "concurrency_exceeded"),
    ],
)
async def test_fifty_at_once(tmp_path: Path, bounds: dict[str, int], code: str) -> None:
    house = inside(tmp_path, MockUpstream(completion()), **bounds)
    answers = await asyncio.gather(*(house.post() for _ in range(50)))
    assert Counter(answer.status for answer in answers) == {200: 7, 429: 43}
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.error["code"] == code
    assert int(refused.headers["retry-after"]) >= 1
    assert int(refused.headers["retry-after-ms"]) > 0
    assert "x-should-retry" not in refused.headers, "another try helps"
    assert Counter(record.error_code for record in house.records()) == {"": 7, code: 43}


async def test_headers_of_answers(tmp_path: Path) -> None:
    house = inside(tmp_path, MockUpstream(completion()), rpm=2)
    seen = [(await house.post()).headers for _ in range(3)]
    assert [headers["x-ratelimit-remaining-requests"] for headers in seen] == ["1", "0", "0"]
    assert {headers["x-ratelimit-limit-requests"] for headers in seen} == {"2"}
    assert "59." in seen[0]["x-ratelimit-reset-requests"] or seen[0]["x-ratelimit-reset-requests"] == "1m0s"


ENDS = {
    "answered": completion(),
    "refused": error_reply(400, "no"),
    "failed": error_reply(500, "no"),
    "nobody there": refuse,
    "late": Reply([], wait=1),
    "cut": Reply(chat_events(["x"])[:2], end="cut"),
    "stalled": Reply(chat_events(["x"])[:2], end="hang"),
    "not JSON": Reply([b"<html>"]),
    "streamed": chat_stream(),
    "never says goodbye": Reply(chat_events(["x"]), end="hang"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("end", ENDS)
async def test_every_end_gives_the_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, stream: bool
) -> None:
    monkeypatch.setattr("proxy.upstream._DRAIN_SECONDS", 0.05)
    house = inside(tmp_path, MockUpstream(ENDS[end]), concurrency=1)
    for _ in range(2):
        answer = await house.post({"model": "m", "messages": HELLO, "stream": stream})
        assert answer.status != 429
    assert house.limiter.active(KEY) == 0


async def test_the_place_is_free_when_the_client_has_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only once the provider has said goodbye too: the next request may come at once."""
    monkeypatch.setattr("proxy.upstream._DRAIN_SECONDS", 0.05)
    house = inside(tmp_path, MockUpstream(Reply(chat_events(["x"]), end="hang")), concurrency=1)
    answer, seen = Answer(), []

    class Pieces(list[bytes]):
        def append(self, piece: bytes) -> None:
            seen.append((b"[DONE]" in piece, house.limiter.active(KEY)))

    answer.pieces = Pieces()
    await house.post({"model": "m", "messages": HELLO, "stream": True}, answer=answer)
    assert (False, 1) in seen
    assert [active for done, active in seen if done] == [0]


async def test_a_client_that_leaves_gives_the_place_back(tmp_path: Path) -> None:
    house = inside(tmp_path, MockUpstream(Reply([], wait=5)), concurrency=1)
    leave = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, leave.set)
    await house.post(leave=leave)
    assert house.limiter.active(KEY) == 0
    assert (house.record.status, house.record.outcome) == (499, "cancelled")
