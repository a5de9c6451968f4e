"""The fake providers do what they say: else every test that leans on them proves nothing."""

import asyncio
import time

import httpx
import pytest

from tests.processes import wait_for
from tests.upstreams import (
    DONE,
    MockUpstream,
    RefusingUpstream,
    Reply,
    Upstream,
    chat_stream,
    completion,
    cut,
    error_reply,
    refuse,
)


def test_it_works() -> None:
    with Upstream(completion("Hi", prompt=5)) as upstream:
        answer = httpx.post(f"{upstream.base_url}/chat/completions", json={"model": "m"}, headers={"x-a": "1"})
    assert answer.json()["choices"][0]["message"]["content"] == "Hi"
    assert answer.json()["usage"]["prompt_tokens"] == 5
    assert (upstream.last.path, upstream.last.json) == ("/v1/chat/completions", {"model": "m"})
    assert upstream.last.headers["x-a"] == "1"


def test_replies_come_in_turn_and_the_last_stays() -> None:
    with Upstream(error_reply(503, "busy", headers={"retry-after": "2"}), completion()) as upstream:
        answers = [httpx.get(upstream.base_url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 200, 200]
    assert answers[0].headers["retry-after"] == "2"


def test_a_stream_arrives_whole_however_it_is_cut() -> None:
    data = b"".join(chat_stream("Zwölf").pieces)
    with Upstream(Reply(cut(data))) as upstream:
        assert httpx.post(upstream.base_url).content == data
    assert data.endswith(DONE)
    assert cut(b"abcd", 1, 3) == [b"a", b"bc", b"d"]


def test_a_stream_that_breaks_off() -> None:
    with Upstream(Reply([b"data: 1\n\n"], end="cut")) as upstream, pytest.raises(httpx.RemoteProtocolError):
        httpx.post(upstream.base_url)


def test_a_connection_that_is_reset() -> None:
    with Upstream(Reply([b"data: 1\n\n"], end="reset")) as upstream, pytest.raises(httpx.ReadError, match="reset"):
        httpx.post(upstream.base_url)


def test_a_caller_who_leaves_is_seen() -> None:
    with Upstream(Reply([b"data: 1\n\n"], end="hang")) as upstream:
        with httpx.stream("POST", upstream.base_url) as answer:
            pieces = answer.iter_raw()
            assert next(pieces) == b"data: 1\n\n"
            assert not upstream.last.gone.is_set()
            left = time.monotonic()
        assert upstream.last.gone.wait(5)
    assert upstream.last.gone_at >= left


def test_a_caller_who_stays_is_not_gone() -> None:
    with Upstream(chat_stream()) as upstream:
        httpx.post(upstream.base_url)
        wait_for(lambda: not upstream.connections)
    assert upstream.last.answered
    assert not upstream.last.gone.is_set()


def test_a_late_reply() -> None:
    with Upstream(Reply([b"late"], wait=5)) as upstream, pytest.raises(httpx.ReadTimeout):
        httpx.post(upstream.base_url, timeout=0.05)


def test_bytes_on_the_wire() -> None:
    with Upstream(Reply([b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 2\r\n\r\nok"], wire=True)) as upstream:
        assert httpx.get(upstream.base_url).text == "ok"


def test_a_refused_connection() -> None:
    with RefusingUpstream() as upstream, pytest.raises(httpx.ConnectError):
        httpx.get(upstream.base_url)


async def _ask(upstream: MockUpstream) -> bytes:
    async with httpx.AsyncClient(transport=upstream.transport) as client:
        return (await client.post("http://provider/v1/chat/completions", json={"a": 1})).content


def test_the_mock_plays_the_same_replies() -> None:
    upstream = MockUpstream(chat_stream("a"), Reply([b"x"], end="cut"), refuse)
    assert asyncio.run(_ask(upstream)) == b"".join(chat_stream("a").pieces)
    assert upstream.last.json == {"a": 1}
    with pytest.raises(httpx.ReadError):
        asyncio.run(_ask(upstream))
    with pytest.raises(httpx.ConnectError):
        asyncio.run(_ask(upstream))
