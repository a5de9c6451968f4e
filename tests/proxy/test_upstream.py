"""The provider's side of a request: its timeouts, its faults, its connections."""

import asyncio
import gzip
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from models_catalog.snapshot import Provider
from proxy import relay
from proxy import upstream as module
from proxy.errors import ProviderFault
from proxy.timer import Timer
from proxy.upstream import Pool, Question, Upstream, open_upstream, retry_after
from tests.processes import HOST
from tests.proxy.inside import Inside, model, provider, snapshot
from tests.upstreams import JSON_HEADERS, MockUpstream, RefusingUpstream, Reply, completion, cut, error_reply
from tests.upstreams import Upstream as FakeProvider

PATH = "/chat/completions"
ASKED = b'{"model":"m"}'


@asynccontextmanager
async def new_pool() -> AsyncIterator[Pool]:
    """The product's pool lives as long as its process."""
    pool = Pool()
    try:
        yield pool
    finally:
        for engine in pool._engines.values():
            await engine.aclose()


async def ask(fake: FakeProvider, pool: Pool | None = None, **changes: Any) -> bytes:
    return await whole(provider(base_url=fake.base_url, **changes), pool)


async def whole(found: Provider, pool: Pool | None = None) -> bytes:
    if pool is None:
        async with new_pool() as pool:
            return await whole(found, pool)
    timer = Timer()
    try:
        answer = await open_upstream(pool, found, Question(PATH, ASKED), timer)
        try:
            return await answer.read_all(1_000_000)
        finally:
            await answer.close()
    finally:
        timer.stop()


async def fault(*words: Any, **more: Any) -> ProviderFault:
    with pytest.raises(ProviderFault) as caught:
        await ask(*words, **more)
    return caught.value


async def test_it_works(upstream: FakeProvider) -> None:
    assert b"Hello from upstream" in await ask(upstream)
    got = upstream.last
    assert (got.method, got.path, got.body) == ("POST", "/v1/chat/completions", ASKED)
    assert got.headers["authorization"] == "Bearer sk-upstream-secret"
    assert got.headers["content-length"] == str(len(ASKED))
    assert got.headers["accept-encoding"] == "identity"
    assert "cookie" not in got.headers


async def test_headers_of_the_catalog(upstream: FakeProvider) -> None:
    await ask(upstream, api_key="", headers=(("X-Title", "Kodna"), ("Authorization", "Custom x")))
    assert (upstream.last.headers["x-title"], upstream.last.headers["authorization"]) == ("Kodna", "Custom x")


async def test_a_connection_serves_again(upstream: FakeProvider) -> None:
    async with new_pool() as pool:
        for _ in range(3):
            await ask(upstream, pool)
        assert len(upstream.connections) == 1


async def test_a_connection_that_the_provider_has_closed_meanwhile(upstream: FakeProvider) -> None:
    """As servers do with an idle one, and say nothing: no request may fail by it."""
    body = b"".join(completion().pieces)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    upstream.answers(Reply([head + body], wire=True))
    async with new_pool() as pool:
        for _ in range(20):
            assert await ask(upstream, pool) == body
    assert len(upstream.requests) == 20, "each was asked once"


async def test_a_new_connection_that_breaks_is_not_tried_again(upstream: FakeProvider) -> None:
    upstream.answers(Reply([b""], wire=True))
    assert (await fault(upstream)).reason == "broken"
    assert len(upstream.requests) == 1


async def test_an_answer_left_unread_closes_the_connection(upstream: FakeProvider) -> None:
    upstream.answers(Reply([b"a"], end="hang"))
    async with new_pool() as pool:
        answer = await open_upstream(pool, provider(base_url=upstream.base_url), Question(PATH, ASKED), Timer())
        assert await answer.read() == b"a"
        await answer.close()
        assert await asyncio.to_thread(upstream.last.gone.wait, 1)


async def test_no_cookie_is_kept(upstream: FakeProvider) -> None:
    upstream.answers(error_reply(200, "x", headers={"set-cookie": "a=b"}))
    async with new_pool() as pool:
        await ask(upstream, pool)
        await ask(upstream, pool)
    assert "cookie" not in upstream.last.headers


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    with RefusingUpstream() as refusing:
        found = provider(base_url=refusing.base_url)
        with pytest.raises(ProviderFault) as caught:
            await whole(found)
    assert (caught.value.reason, caught.value.message) == ("connect", "the provider cannot be reached.")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/v1", "http://[::1]:1/v1", "https://127.0.0.1:1", "http://127.0.0.1:99999"]
)
async def test_addresses_that_lead_nowhere(url: str) -> None:
    with pytest.raises(ProviderFault) as caught:
        await whole(provider(base_url=url))
    assert "127.0.0.1" not in caught.value.message


async def test_tls_to_a_provider_without_it(upstream: FakeProvider) -> None:
    with pytest.raises(ProviderFault):
        await whole(provider(base_url=upstream.base_url.replace("http:", "https:")))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply([], wait=5), "timeout"),
        (Reply([b"a"], end="hang"), "timeout"),
        (Reply([b"a"], end="cut"), "broken"),
        (Reply([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"], wire=True), "broken"),
        (Reply([b"not http\r\n\r\n"], wire=True), "broken"),
        (Reply([b""], wire=True), "broken"),
        (Reply([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"], wire=True), "broken"),
        (Reply([b"no gzip"], headers={"content-encoding": "gzip"}), "broken"),
        (Reply([b"x" * 600_000] * 2), "malformed"),
    ],
)
async def test_faults(upstream: FakeProvider, reply: Reply, reason: str) -> None:
    upstream.answers(reply)
    assert (await fault(upstream, first_byte_timeout=0.3, idle_timeout=0.3)).reason == reason


async def test_a_connection_that_takes_too_long() -> None:
    with socket.socket() as full:  # a listener whose queue is full does not answer the handshake
        full.bind((HOST, 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex((HOST, port))
        started = time.monotonic()
        with pytest.raises(ProviderFault) as caught:
            await whole(provider(base_url=f"http://{HOST}:{port}/v1", connect_timeout=0.1))
        for each in waiting:
            each.close()
    assert caught.value.reason == "connect"
    assert time.monotonic() - started < 1


async def test_an_idle_time_shorter_than_that_of_the_first_byte(upstream: FakeProvider) -> None:
    """The timer that was set for the first byte must not keep the later, shorter waits from ending."""
    upstream.answers(Reply([b"a"], end="hang"))
    started = time.monotonic()
    assert (await fault(upstream, first_byte_timeout=20, idle_timeout=0.1, total_timeout=60)).reason == "timeout"
    assert time.monotonic() - started < 1


async def test_the_time_for_the_whole(upstream: FakeProvider) -> None:
    upstream.answers(Reply([b"a"] * 100, pause=0.03))
    started = time.monotonic()
    assert (await fault(upstream, total_timeout=0.2)).reason == "timeout"
    assert 0.15 < time.monotonic() - started < 1


async def test_a_cancelled_wait_is_not_a_fault(upstream: FakeProvider) -> None:
    upstream.answers(Reply([], wait=5))
    task = asyncio.create_task(ask(upstream))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_goes_on_after_a_timeout(upstream: FakeProvider) -> None:
    upstream.answers(Reply([], wait=5), completion())
    await fault(upstream, first_byte_timeout=0.05)
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0
    assert b"Hello" in await ask(upstream)


async def test_packed_although_asked_not_to(upstream: FakeProvider) -> None:
    packed = gzip.compress(b"x" * 100_000)
    upstream.answers(Reply(cut(packed, 5, 50), headers={"content-encoding": "gzip"}))
    assert await ask(upstream) == b"x" * 100_000


async def test_a_little_that_unpacks_to_much_is_unpacked_in_parts(upstream: FakeProvider) -> None:
    upstream.answers(Reply([gzip.compress(bytes(20_000_000))], headers={"content-encoding": "gzip"}))
    async with new_pool() as pool:
        answer = await open_upstream(pool, provider(base_url=upstream.base_url), Question(PATH, ASKED), Timer())
        sizes = []
        while piece := await answer.read():
            sizes.append(len(piece))
        await answer.close()
    assert sum(sizes) == 20_000_000
    assert max(sizes) < 10_000_000


# --- small things ----------------------------------------------------------------------------------------------------


async def test_a_provider_that_changed_gets_new_calls() -> None:
    pool = Pool(MockUpstream().transport)
    first = provider(api_key="sk-old-credential")
    assert pool.call(first, PATH) is pool.call(first, PATH)
    assert pool.call(provider(api_key="sk-new-credential"), PATH).headers["authorization"] == "Bearer sk-new-credential"


async def test_the_pool_does_not_grow_for_ever() -> None:
    pool = Pool(MockUpstream().transport)
    for number in range(1200):
        pool.call(provider(api_key=f"sk-{number}"), PATH)
    assert len(pool._calls) <= 1001


async def test_behind_the_seam() -> None:
    mock = MockUpstream(completion())
    answer = await open_upstream(Pool(mock.transport), provider(), Question(PATH, ASKED), Timer())
    assert isinstance(answer, Upstream)
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert b"Hello" in await answer.read_all(10_000)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5), ("0", 0), ("1.5", 1.5), ("", None), ("soon", None), ("-1", None), ("nan", None), ("inf", None),
        ("1e9", None), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("Mon, 99 Foo 99999 99:99:99", None),
        ("1 Jan 0001", None), ("\xff", None),
    ],
)  # fmt: skip
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_retry_after_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time", lambda: 1445412470.0)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 10


# --- what is sent -----------------------------------------------------------------------------------------------------


def head(path: str = PATH, more: tuple[tuple[str, str], ...] = (), **changes: Any) -> list[str]:
    return Pool().call(provider(**changes), path, more).head.decode().split("\r\n")


def test_the_head_of_a_request() -> None:
    lines = head(base_url="https://Provider.example:443/v1", api_key="sk-1", headers=(("X-Title", "Kodna"),))
    assert lines[:2] == ["POST /v1/chat/completions HTTP/1.1", "host: provider.example"]
    assert {"content-type: application/json", "accept-encoding: identity", "authorization: Bearer sk-1"} < set(lines)
    assert lines[-2:] == ["x-title: Kodna", "content-length: "]


@pytest.mark.parametrize(
    ("address", "target", "host"),
    [
        ("http://a.example:8080/v1", "/v1/chat/completions", "a.example:8080"),
        ("http://[::1]:8080", "/chat/completions", "[::1]:8080"),
        ("http://b\xfccher.example/v1", "/v1/chat/completions", "xn--bcher-kva.example"),
        ("http://a.example./v 1/\xe9|[x]", "/v%201/%C3%A9%7C%5Bx%5D/chat/completions", "a.example"),
        ("http://a.example/a%2Fb%20c", "/a%2Fb%20c/chat/completions", "a.example"),
    ],
)
def test_odd_addresses(address: str, target: str, host: str) -> None:
    assert head(base_url=address)[:2] == [f"POST {target} HTTP/1.1", f"host: {host}"]


def test_a_query() -> None:
    assert head("/m:gen?alt=sse&a=b%20c")[0] == "POST /v1/m:gen?alt=sse&a=b%20c HTTP/1.1"


def test_a_password_in_the_address_is_a_credential() -> None:
    address = "http://user:p%40ss@a.example/v1"
    assert "authorization: Basic dXNlcjpwQHNz" in head(base_url=address, api_key="")
    assert "authorization: Bearer sk-1" in head(base_url=address, api_key="sk-1")
    assert "host: a.example" in head(base_url=address)


def test_how_the_body_is_framed_is_not_the_catalogs_to_say() -> None:
    lines = head(headers=(("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Host", "other.example")))
    assert [line for line in lines if line.startswith(("content-length", "transfer-encoding"))] == ["content-length: "]
    assert [line for line in lines if line.startswith("host")] == ["host: other.example"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("x", "a\r\nb: c"), ("x", "a\nb"), ("x", "a\0"), ("x y", "a"), ("x:", "a"), ("", "a"), ("x", "\ud800")],
)
async def test_headers_that_cannot_be_sent(name: str, value: str, upstream: FakeProvider) -> None:
    assert (await fault(upstream, headers=((name, value),))).reason == "connect"
    assert not upstream.requests


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/v1", "http:///v1", "127.0.0.1/v1", "http://[::1/v1", "http://x:y/", ""]
)
async def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ProviderFault) as caught:
        await whole(provider(base_url=url))
    assert caught.value.reason == "connect"


# --- a provider's bound -----------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "QUEUE", 0.02)
    monkeypatch.setattr(relay, "LONG_QUEUE", 0.05)


@pytest.mark.usefixtures("hasty")
async def test_no_more_at_once_than_the_provider_takes(tmp_path: Path, upstream: FakeProvider) -> None:
    upstream.answers(Reply(completion().pieces, headers=JSON_HEADERS, wait=0.2))
    async with new_pool() as pool:
        one = model("m", provider(base_url=upstream.base_url, max_concurrency=2))
        inside = Inside(tmp_path, snapshot(one), pool)
        answers = await asyncio.gather(*(inside.post() for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503]
        busy = next(answer for answer in answers if answer.status == 503)
        assert busy.error["code"] == "provider_unavailable"
        assert "2 concurrent requests" in busy.error["message"]
        assert busy.headers["retry-after"] == "1"
        assert (await inside.post()).status == 200  # the places were given back


@pytest.mark.usefixtures("hasty")
async def test_a_busy_provider_gives_way_to_the_next(tmp_path: Path, upstream: FakeProvider) -> None:
    upstream.answers(Reply(completion().pieces, headers=JSON_HEADERS, wait=0.1))
    async with new_pool() as pool:
        first = provider(base_url=upstream.base_url, max_concurrency=1)
        second = provider("second", upstream.base_url, id=2)
        inside = Inside(tmp_path, snapshot(model("m", first, second)), pool)
        answers = await asyncio.gather(*(inside.post() for _ in range(3)))
    assert sorted(answer.headers["x-kodna-provider"] for answer in answers) == ["first", "second", "second"]


async def test_who_waits_for_a_place_gets_one(tmp_path: Path, upstream: FakeProvider) -> None:
    upstream.answers(Reply(completion().pieces, headers=JSON_HEADERS, wait=0.05))
    async with new_pool() as pool:
        inside = Inside(tmp_path, snapshot(model("m", provider(base_url=upstream.base_url, max_concurrency=2))), pool)
        answers = await asyncio.gather(*(inside.post() for _ in range(6)))
    assert [answer.status for answer in answers] == [200] * 6


async def test_places_are_given_in_turn() -> None:
    """Not to whoever leaves, nor to whoever has waited for long enough."""
    pool, narrow, came = Pool(), provider(max_concurrency=1), []

    async def come(name: str, patience: float) -> None:
        await pool.enter(narrow, 0, patience)
        came.append(name)

    await come("first", 1)
    impatient = asyncio.create_task(come("impatient", 0.01))
    leaving, second, third = (asyncio.create_task(come(name, 5)) for name in ("leaving", "second", "third"))
    with pytest.raises(ProviderFault, match="concurrent"):
        await impatient
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    for task in (second, third):
        pool.leave(narrow)
        await asyncio.wait_for(task, 1)
    assert came == ["first", "second", "third"]
    pool.leave(narrow)
    await come("fourth", 0)


async def test_who_leaves_with_a_place_in_hand_gives_it_on() -> None:
    pool, narrow = Pool(), provider(max_concurrency=1)
    await pool.enter(narrow, 0, 1)
    leaving, next_one = (asyncio.create_task(pool.enter(narrow, 0, 1)) for _ in range(2))
    await asyncio.sleep(0)
    pool.leave(narrow)  # to `leaving`, which does not come to take it
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await asyncio.wait_for(next_one, 1)


async def test_accounts_take_turns() -> None:
    """One that asks a hundred times keeps nobody waiting for a hundred turns."""
    pool, narrow, came = Pool(), provider(max_concurrency=1), []

    async def come(account: int) -> None:
        await pool.enter(narrow, account, 5)
        came.append(account)
        pool.leave(narrow)

    await pool.enter(narrow, 0, 1)
    tasks = [asyncio.create_task(come(account)) for account in (1, 1, 1, 1, 2, 3)]
    await asyncio.sleep(0)
    pool.leave(narrow)
    await asyncio.gather(*tasks)
    assert came[:3] == [1, 2, 3]


async def test_a_bound_that_is_changed_while_others_wait() -> None:
    pool, narrow, wide = Pool(), provider(max_concurrency=1), provider(max_concurrency=3)
    await pool.enter(narrow, 0, 1)
    waiting = asyncio.create_task(pool.enter(narrow, 0, 5))
    await asyncio.sleep(0)
    await pool.enter(wide, 0, 1)  # three in all
    await asyncio.wait_for(waiting, 1)
    next_one = asyncio.create_task(pool.enter(narrow, 0, 5))
    await asyncio.sleep(0)
    for _ in range(2):
        pool.leave(wide)
    await asyncio.sleep(0)
    assert not next_one.done(), "one is the bound again"
    pool.leave(wide)
    await asyncio.wait_for(next_one, 1)


async def test_processes_share_a_providers_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "WORKERS", 3)
    pool, wide = Pool(), provider(max_concurrency=7)
    for _ in range(2):
        await pool.enter(wide, 0, 0)
    with pytest.raises(ProviderFault, match="7 concurrent"):
        await pool.enter(wide, 0, 0.01)


# --- connections that were kept ---------------------------------------------------------------------------------------


async def test_a_provider_that_has_worked_is_not_asked_twice(upstream: FakeProvider) -> None:
    """It took its time and broke off without a byte: the request may have had its effect."""
    async with new_pool() as pool:
        await ask(upstream, pool)
        upstream.answers(Reply([b""], wire=True, wait=0.35))
        with pytest.raises(ProviderFault) as caught:
            await ask(upstream, pool)
        assert caught.value.reason == "broken"
        assert len(upstream.requests) == 2


async def test_a_kept_connection_that_is_closed_at_once_is_asked_again_on_another(upstream: FakeProvider) -> None:
    async with new_pool() as pool:
        await ask(upstream, pool)
        upstream.answers(Reply([b""], wire=True), completion())
        assert b"Hello" in await ask(upstream, pool)
        assert len(upstream.requests) == 3


async def test_but_not_a_third_time(upstream: FakeProvider) -> None:
    async with new_pool() as pool:
        await ask(upstream, pool)
        await asyncio.gather(*(ask(upstream, pool) for _ in range(3)))  # there are more kept ones
        before = len(upstream.requests)
        upstream.answers(Reply([b""], wire=True))
        assert (await fault(upstream, pool)).reason == "broken"
        assert len(upstream.requests) == before + 2


async def test_nor_one_that_has_begun_to_answer(upstream: FakeProvider) -> None:
    async with new_pool() as pool:
        await ask(upstream, pool)
        upstream.answers(Reply([b"HTTP/1.1 2"], wire=True))
        assert (await fault(upstream, pool)).reason == "broken"
        assert len(upstream.requests) == 2


async def test_long_headers_of_clients_are_not_kept() -> None:
    pool, first = Pool(), provider()
    short, long = (("anthropic-beta", "a"),), (("anthropic-beta", "a" * 5000),)
    assert pool.call(first, PATH, short) is pool.call(first, PATH, short)
    assert pool.call(first, PATH, long) is not pool.call(first, PATH, long)
    assert pool.call(first, PATH, long).headers["anthropic-beta"] == "a" * 5000


@pytest.fixture
def deaf() -> Iterator[str]:
    """The base URL of a server that takes no connection: its queue is full."""
    server = socket.create_server((HOST, 0), backlog=0)
    address = server.getsockname()
    others = [socket.socket() for _ in range(4)]
    for other in others:
        other.setblocking(False)
        other.connect_ex(address)
    yield f"http://{HOST}:{address[1]}/v1"
    for each in (*others, server):
        each.close()


async def test_who_leaves_before_there_is_a_connection_pays_nothing(tmp_path: Path, deaf: str) -> None:
    async with new_pool() as pool:
        slow = provider(base_url=deaf, connect_timeout=5, first_byte_timeout=9, total_timeout=9)
        house = Inside(tmp_path, snapshot(model("m", slow)), pool)
        leave = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, leave.set)
        await house.post(leave=leave)
    assert (house.record.outcome, house.record.prompt_tokens, house.record.cost) == ("cancelled", 0, None)
