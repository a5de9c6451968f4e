"""One request's bookkeeping: one record whatever happens, honest headers, one end on the wire."""

import asyncio
import gc
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy import exchange as module
from proxy import request_ids, timer
from proxy.formats import openai_chat
from proxy.health import Out
from proxy.ingress import Asked
from proxy.relay import relay
from proxy.upstream import Pool
from tests.proxy.inside import CHAT, HELLO, KEY, TEXT, Answer, Inside, model, provider, snapshot
from tests.upstreams import MockUpstream, Reply, chat_events, chat_stream, completion, error_reply, event

STREAM = {"model": "m", "messages": HELLO, "stream": True}


def house(folder: Path, *replies: Any, **changes: Any) -> Inside:
    found = snapshot(
        model("m", provider("first"), provider("second"), **changes), model("ünï/m", provider("first")), fast="m"
    )
    return Inside(folder, found, Pool(MockUpstream(*replies).transport))


async def test_it_works(tmp_path: Path) -> None:
    gateway = house(tmp_path, completion(prompt=10, completion=5, cached=4, reasoning=2))
    answer = await gateway.post(headers=[(b"user-agent", b"OpenAI/Python 2.1")])
    record = gateway.record
    assert record.request_id == request_ids.internal(answer.headers["x-request-id"])
    assert (record.key_id, record.key_prefix, record.key_name) == (7, KEY.prefix, "mine")
    assert (record.account_id, record.account, record.client) == (3, "tests", "OpenAI/Python 2.1")
    assert (record.requested_model, record.model, record.provider, record.upstream_model) == (
        "m",
        "m",
        "first",
        "m-there",
    )
    assert (record.prompt_tokens, record.completion_tokens) == (10, 5)
    assert (record.cached_tokens, record.reasoning_tokens, record.estimated) == (4, 2, False)
    assert record.cost == 6 * 1_000_000 + 4 * 500_000 + 5 * 2_000_000
    assert (record.status, record.outcome, record.streamed) == (200, "complete", False)
    assert record.first_token_ms is not None
    assert 0 < record.first_token_ms <= record.total_ms
    assert [(each.provider, each.status) for each in record.attempts] == [("first", 200)]
    assert answer.json["usage"]["cost"] == pytest.approx(0.000018)


async def test_headers(tmp_path: Path) -> None:
    gateway = house(tmp_path, error_reply(500, "no"), completion())
    headers = (await gateway.post({"model": "fast", "messages": HELLO})).headers
    assert (headers["x-kodna-model"], headers["x-kodna-alias"], headers["x-kodna-provider"]) == ("m", "fast", "second")
    assert (headers["x-kodna-fallback"], headers["x-kodna-fallback-layer"]) == ("true", "1")
    assert headers["server-timing"].startswith("gateway;dur=")
    assert [each.reason for each in gateway.record.attempts] == ["status", ""]


async def test_a_model_with_other_letters(tmp_path: Path) -> None:
    answer = await house(tmp_path, completion()).post({"model": "ünï/m", "messages": HELLO})
    assert answer.headers["x-kodna-model"] == "%C3%BCn%C3%AF/m"


async def test_the_output_limit(tmp_path: Path) -> None:
    gateway = house(tmp_path, completion(), enforce=True)
    answer = await gateway.post({"model": "m", "messages": HELLO, "max_tokens": 5000})
    assert answer.headers["x-kodna-max-tokens"] == "100"


async def test_no_usage_is_counted(tmp_path: Path) -> None:
    gateway = house(tmp_path, Reply([*chat_events(["Hello", " there"])[:-2], b"data: [DONE]\n\n"]))
    await gateway.post(STREAM)
    record = gateway.record
    assert (record.estimated, record.completion_tokens) == (True, 2)
    assert record.prompt_tokens == 8


async def test_what_a_provider_makes_of_its_usage(tmp_path: Path) -> None:
    """Nothing of it may become a 500, or a row that cannot be stored."""
    choices = b'"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]'
    for usage in (
        b"5", b"[]", b"{}", b'"x"', b'{"prompt_tokens":"7"}', b'{"prompt_tokens":-7}', b'{"prompt_tokens":1e300}',
        b'{"prompt_tokens":99999999999999999999999999,"completion_tokens":1}', b'{"prompt_tokens":1,"cost":1,"cost":2}',
        b'{"prompt_tokens":1,"prompt_tokens_details":5}', b'{"prompt_tokens":true}',
        b'{"prompt_tokens":1,"prompt_tokens":2}',
    ):  # fmt: skip
        answer = await house(tmp_path, Reply([b"{" + choices + b',"usage":' + usage + b"}"])).post()
        assert answer.status in {200, 502}, (usage, answer.body)
        event = (
            b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}],"usage":' + usage + b"}\n\n"
        )
        answer = await house(tmp_path, Reply([event, b"data: [DONE]\n\n"])).post(STREAM)
        assert answer.status in {200, 502}, (usage, answer.body)


async def test_the_parts_of_a_count_are_not_more_than_the_whole(tmp_path: Path) -> None:
    gateway = house(tmp_path, completion(prompt=10, completion=5, cached=1000, reasoning=1000))
    answer = await gateway.post()
    assert (gateway.record.cached_tokens, gateway.record.reasoning_tokens) == (10, 5)
    assert answer.json["usage"]["cached_tokens"] == 10


async def test_the_opening_line_of_a_stream_that_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process leaves tells what of the prompt was cached: that costs less."""
    monkeypatch.setattr(module, "_LASTING", -1.0)
    events = chat_events(["Hello", " there"])
    first = {"prompt_tokens": 90, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 60}}
    counted = event({"object": "chat.completion.chunk", "choices": [], "usage": first})
    gateway = house(tmp_path, Reply([counted, *events[:3]], end="hang"))
    asking = asyncio.create_task(gateway.post(STREAM))
    await asyncio.sleep(0.1)
    written = [*gateway.journal._marks.begun(), *gateway.journal._file.path.read_bytes().splitlines()]
    lines = [json.loads(line) for line in written]
    assert [(line.get("prompt_tokens"), line.get("cached_tokens")) for line in lines] == [(None, None), (90, 60)]
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_comments_without_end(tmp_path: Path) -> None:
    mock = MockUpstream(Reply([b": PROCESSING" + b" " * 100_000 + b"\n\n"] * 200), chat_stream())
    catalog = snapshot(model("m", provider("first"), provider("second")))
    answer = await Inside(tmp_path, catalog, Pool(mock.transport)).post(STREAM)
    assert answer.headers["x-kodna-provider"] == "second"
    assert mock.requests[0].gone.is_set()


# --- refusals are on record too --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        ({"model": "nobody", "messages": HELLO}, 404, "model_not_found"),
        ({"messages": HELLO}, 400, "missing_required_parameter"),
        ({"model": "m", "messages": HELLO, "group": "none"}, 400, "invalid_request_error"),
    ],
)
async def test_a_refusal(tmp_path: Path, body: Any, status: int, code: str) -> None:
    gateway = house(tmp_path, completion())
    answer = await gateway.post(body)
    record = gateway.record
    assert (answer.status, record.status, record.outcome, record.error_code) == (status, status, "refused", code)
    assert record.request_id == request_ids.internal(answer.headers["x-request-id"])
    assert (record.provider, record.attempts, record.cost) == ("", [], None)


async def test_nobody_is_asked_whose_opening_line_is_not_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mock = MockUpstream(completion())
    gateway = Inside(tmp_path, snapshot(model("m", provider("first"), provider("second"))), Pool(mock.transport))
    write = gateway.journal._file.write

    def full(_: object, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("proxy.marks.SLOT", 0)  # so that the line has to go into the file
    monkeypatch.setattr(type(gateway.journal._file), "write", full)
    answer = await gateway.post()
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "journal_full", "5")
    assert mock.requests == []
    monkeypatch.setattr(type(gateway.journal._file), "write", lambda _, lines: write(lines))
    gateway.journal.sync()
    assert gateway.record.status == 503
    assert (await gateway.post()).status == 200


async def test_a_field_that_only_an_edit_reads(tmp_path: Path) -> None:
    """Twice the same bound, nested: found where it is to be lowered, for the credit is scarce."""
    key = replace(KEY, billing="prepaid")
    catalog = snapshot(model("m", provider(dialect="gemini")))
    gateway = Inside(tmp_path, catalog, Pool(MockUpstream(completion()).transport), (TEXT, key))
    gateway.counters.learn({"a3": (1, 100_000)})
    asked = b'{"contents":[{"parts":[{"text":"Hi"}]}],"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":4000}}'
    answer = await gateway.post(asked, path="/v1beta/models/m:generateContent")
    assert answer.status == 400
    assert "maxOutputTokens" in answer.error["message"]


async def test_before_the_tables_are_loaded(tmp_path: Path) -> None:
    gateway = house(tmp_path, completion())
    gateway.tables.loaded = 0
    answer = await gateway.post()
    assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "starting", "1")


async def test_a_bug_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError(TEXT)

    monkeypatch.setattr("proxy.exchange.Passage", fail)
    gateway = house(tmp_path, completion())
    answer = await gateway.post()
    assert (answer.status, answer.error["type"], answer.error["code"]) == (500, "server_error", "internal_error")
    assert TEXT not in answer.body.decode()
    assert gateway.record.status == 500
    assert answer.headers["x-request-id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


# --- clients that leave ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves(tmp_path: Path, stream: bool) -> None:
    mock = MockUpstream(Reply(chat_events(["Hello", " there"])[:3] if stream else [b"{"], end="hang"))
    gateway = Inside(tmp_path, snapshot(model("m", provider())), Pool(mock.transport))
    leave = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, leave.set)
    await gateway.post({**STREAM, "stream": stream}, leave=leave)
    record = gateway.record
    assert (record.status, record.outcome, record.error_code) == (499, "cancelled", "client_gone")
    assert record.completion_tokens == (2 if stream else 0)
    assert [each.reason for each in record.attempts] == ["cancelled"]
    assert mock.last.gone.is_set()
    assert gateway.places == 0


async def test_a_client_that_leaves_at_the_goodbye(tmp_path: Path) -> None:
    """The provider has counted by then: its count holds. Gemini's stream makes its usage anew at each look."""
    said = {"content": {"role": "model", "parts": [{"text": "forty-two"}]}, "finishReason": "STOP", "index": 0}
    counted = {"promptTokenCount": 20, "candidatesTokenCount": 3, "totalTokenCount": 23}
    mock = MockUpstream(Reply([event({"candidates": [said], "usageMetadata": counted})], end="hang"))
    gateway = Inside(tmp_path, snapshot(model("m", provider(dialect="gemini", idle_timeout=5))), Pool(mock.transport))
    leave = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, leave.set)
    body = b'{"contents":[{"parts":[{"text":"Hi"}]}]}'
    await gateway.post(body, path="/v1beta/models/m:streamGenerateContent", query="alt=sse", leave=leave)
    record = gateway.record
    assert (record.outcome, record.prompt_tokens, record.completion_tokens) == ("cancelled", 20, 3)
    assert not record.estimated


async def test_a_client_that_leaves_while_the_last_route_fails(tmp_path: Path) -> None:
    """Both at the same moment: nobody else is asked for a client that is not there."""
    mock = MockUpstream(Reply([], wait=0.1))
    catalog = snapshot(model("m", provider("a", first_byte_timeout=0.05), provider("b", first_byte_timeout=0.05)))
    gateway = Inside(tmp_path, catalog, Pool(mock.transport))
    leave = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, leave.set)
    await gateway.post(leave=leave)
    assert gateway.record.outcome == "cancelled"
    assert len(mock.requests) <= 2


def paying(folder: Path, monkeypatch: pytest.MonkeyPatch, *replies: Any) -> tuple[Inside, asyncio.Event]:
    """Its second question to the store has no answer; as it is asked, the event is set. `m` falls back on `n`."""
    catalog = snapshot(model("m", provider("first"), fallbacks=("n",), attempts=1), model("n", provider("second")))
    gateway = Inside(folder, catalog, Pool(MockUpstream(*replies).transport), (TEXT, replace(KEY, billing="prepaid")))
    gateway.counters.learn({"a3": (1, 10**9)})
    asked = asyncio.Event()

    async def adjust(_: object) -> None:
        asked.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(gateway.counters, "adjust", adjust)
    return gateway, asked


async def test_a_client_that_leaves_as_its_charge_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, leave = paying(tmp_path, monkeypatch, completion(completion=300))
    await gateway.post(leave=leave)
    record = gateway.record
    assert (record.outcome, [each.reason for each in record.attempts]) == ("cancelled", ["cancelled"])
    assert record.cost == (record.held or 0) * 1000 < 600 * 10**6
    assert record.cost + record.shortfall == 7 * 10**6 + 600 * 10**6
    assert gateway.places == 0


async def test_a_client_that_leaves_before_the_fallback_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, leave = paying(tmp_path, monkeypatch, error_reply(500, "no"), completion())
    await gateway.post(leave=leave)
    record = gateway.record
    assert (record.outcome, record.cost, record.prompt_tokens) == ("cancelled", None, 0)
    assert [each.reason for each in record.attempts] == ["status"]
    assert gateway.counters._funds["a3"].held == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_connection_that_the_server_does_not_know_to_be_closed(tmp_path: Path, stream: bool) -> None:
    """uvloop raises it out of `send`: no bug of ours, and no traceback."""

    class Closed(Answer):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "status" and value:
                raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
            super().__setattr__(name, value)

    gateway = house(tmp_path, chat_stream() if stream else completion())
    await gateway.post({**STREAM, "stream": stream}, answer=Closed())
    assert gateway.record.status in {200, 499}
    assert gateway.places == 0


async def test_the_server_stops(tmp_path: Path) -> None:
    gateway = house(tmp_path, Reply(chat_events(["Hello"])[:2], end="hang"))
    task = asyncio.create_task(gateway.post(STREAM))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (gateway.record.outcome, gateway.record.error_code) == ("incomplete", "server_stopped")
    assert gateway.record.completion_tokens == 1


def test_request_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time_ns", iter([10**18, 2 * 10**18]).__next__)
    first, second = request_ids.new(), request_ids.new()
    assert first < second
    assert len(first) == len("req_") + 32


# --- what the books say ----------------------------------------------------------------------------------------------


async def test_a_providers_own_refusal_is_an_attempt(tmp_path: Path) -> None:
    gateway = house(tmp_path, error_reply(500, "broken"), error_reply(400, "no such tool"))
    answer = await gateway.post()
    assert (answer.status, answer.error["message"]) == (400, "no such tool")
    assert [(each.provider, each.status, each.reason) for each in gateway.record.attempts] == [
        ("first", 500, "status"),
        ("second", 400, "refused"),
    ]


async def test_a_key_that_is_switched_off_leaves_a_row(tmp_path: Path) -> None:
    off = replace(KEY, is_active=False)
    pool = Pool(MockUpstream().transport)
    gateway = Inside(tmp_path, snapshot(model("m", provider())), pool, (TEXT, off))
    assert (await gateway.post()).status == 401
    assert (gateway.record.status, gateway.record.key_id, gateway.record.outcome) == (401, KEY.id, "refused")


async def test_a_refused_plan_uses_nothing_up(tmp_path: Path) -> None:
    gateway = house(tmp_path)
    assert (await gateway.post({"model": "m", "messages": HELLO, "group": "nobody"})).status == 400
    assert not gateway.counters._requests


async def test_who_answers_is_not_said_before_it_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_KEEPALIVE", 0.05)
    gateway = house(tmp_path, Reply([], status=500, wait=0.12), chat_stream("a"))
    answer = await gateway.post(STREAM)
    assert answer.body.startswith(b": keep-alive")
    assert b"[DONE]" in answer.body
    assert "x-kodna-provider" not in answer.headers
    assert gateway.record.provider == "second"


async def test_a_large_answer_goes_out_in_pieces(tmp_path: Path) -> None:
    text = "x" * (2 * module.PIECE + 5)
    gateway = house(tmp_path, completion(text))
    answer = await gateway.post()
    assert len(answer.pieces) == 3
    assert answer.json["choices"][0]["message"]["content"] == text
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert gateway.record.outcome == "complete"


async def test_a_large_answer_that_nobody_reads(tmp_path: Path) -> None:
    """The time for the whole exchange holds here too; what the provider answered was used."""
    gateway = house(tmp_path, completion("x" * (2 * module.PIECE)))
    first = replace(provider("first"), total_timeout=0.1)
    gateway.tables.catalog = snapshot(model("m", first))

    await unread(gateway)
    assert (gateway.record.outcome, gateway.record.status) == ("cancelled", 499)
    assert gateway.record.prompt_tokens == 7
    assert gateway.places == 0


async def unread(gateway: Inside, **asked: Any) -> None:
    """A client that never reads."""

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"authorization", f"Bearer {TEXT}".encode())]}
    body = json.dumps({"model": "m", "messages": HELLO, **asked}).encode()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        found = next(messages, None)
        return found if found is not None else await asyncio.Event().wait()

    await asyncio.wait_for(relay(gateway.gateway, Asked(openai_chat), scope, receive, stuck), 3)


async def test_a_reader_does_not_keep_a_place_that_others_wait_for(tmp_path: Path) -> None:
    """Not for all of the time that a request may take."""
    narrow = provider(max_concurrency=1, idle_timeout=0.1, total_timeout=60)
    gateway = Inside(tmp_path, snapshot(model("m", narrow)), Pool(MockUpstream(chat_stream()).transport))
    await unread(gateway, stream=True)
    assert gateway.record.outcome == "cancelled"
    await asyncio.wait_for(gateway.gateway.pool.enter(narrow, 0, 1), 1)


# --- memory ----------------------------------------------------------------------------------------------------------


def _of_requests() -> list[object]:
    kinds = {"Exchange", "Envelope", "Passage", "Timer", "Members"}
    return [found for found in gc.get_objects() if type(found).__name__ in kinds]


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
@pytest.mark.parametrize(
    ("reply", "stream"),
    [
        (completion("x"), False),
        (replace(completion("x"), wait=0.05), False),
        (error_reply(500, "down"), False),
        (error_reply(400, "no"), True),
        (chat_stream("a", "b", pause=0.03), True),
        (Reply(chat_stream("a", "b").pieces[:2], end="cut", pause=0.03), True),
    ],
)
async def test_nothing_of_a_request_stays(tmp_path: Path, path: str, reply: Reply, stream: bool) -> None:
    """No circle of references: a body of megabytes would lie in it until Python looks for such."""
    gateway = house(tmp_path, reply)
    gc.collect()
    before = {id(found) for found in _of_requests()}
    gc.disable()
    try:
        await gateway.post({"model": "m", "max_tokens": 5, "messages": HELLO, "stream": stream}, path)
        await asyncio.sleep(0.02)
        assert [type(found).__name__ for found in _of_requests() if id(found) not in before] == []
    finally:
        gc.enable()


# --- where conversations go ------------------------------------------------------------------------------------------


def shared_out(folder: Path) -> Inside:
    """Four providers of one priority."""
    found = model("m", *(provider(name) for name in "abcd"))
    routes = tuple(replace(route, priority=1) for route in found.routes)
    return Inside(folder, snapshot(replace(found, routes=routes)), Pool(MockUpstream(completion()).transport))


async def asked_of(gateway: Inside, *messages: dict[str, str]) -> str:
    answer = await gateway.post({"model": "m", "messages": messages})
    return answer.headers["x-kodna-provider"]


async def test_what_stands_alone_is_shared_out(tmp_path: Path) -> None:
    gateway = shared_out(tmp_path)
    assert {await asked_of(gateway, *HELLO) for _ in range(12)} == set("abcd")


async def test_a_conversation_without_a_name_stays_where_it_is(tmp_path: Path) -> None:
    gateway, places = shared_out(tmp_path), set()
    for number in range(20):
        said = [{"role": "user", "content": f"Hello {number}"}]
        went = set()
        for turn in range(4):
            said += [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": f"And {turn}?"}]
            went.add(await asked_of(gateway, *said))
        assert len(went) == 1
        places |= went
    assert places == set("abcd"), "not all of them in one place"


# --- what is told of routes that were not asked ----------------------------------------------------------------------


def out_of(gateway: Inside, place: int, why: str, seconds: float = 60) -> None:
    now = time.time()
    way = gateway.tables.catalog.models["m"].routes[place].way
    gateway.health.out = {**gateway.health.out, way: Out(now + seconds, why, 503, now, 1)}


async def test_a_route_that_is_out_is_told_beside_the_one_that_answers(tmp_path: Path) -> None:
    gateway = house(tmp_path, completion())
    out_of(gateway, 0, "errors")
    answer = await gateway.post()
    assert (answer.headers["x-kodna-provider"], answer.headers["x-kodna-fallback-layer"]) == ("second", "1")
    told = [(each.provider, each.status, each.reason) for each in gateway.record.attempts]
    assert told == [("first", 503, "skipped"), ("second", 200, "")]


async def test_all_routes_rest(tmp_path: Path) -> None:
    gateway = house(tmp_path, completion())
    for place in (0, 1):
        out_of(gateway, place, "rests", 30)
    answer = await gateway.post()
    assert (answer.status, answer.error["code"]) == (503, "provider_unavailable")
    assert int(answer.headers["retry-after"]) == 30
    assert gateway.record.outcome == "failed", "clients got no answer of this model"
    assert [each.reason for each in gateway.record.attempts] == ["rests", "rests"]


async def test_a_short_rest_is_waited_for(tmp_path: Path) -> None:
    gateway = house(tmp_path, completion())
    for place in (0, 1):
        out_of(gateway, place, "rests", 0.2 + place)
    begun = time.perf_counter()
    answer = await gateway.post()
    assert (answer.status, answer.headers["x-kodna-provider"]) == (200, "first")
    assert time.perf_counter() - begun > 0.15


async def test_a_refused_request_has_not_failed_because_a_route_is_out(tmp_path: Path) -> None:
    catalog = snapshot(model("m", provider("first"), provider("second")))
    pool = Pool(MockUpstream(completion()).transport)
    gateway = Inside(tmp_path, catalog, pool, (TEXT, replace(KEY, rpm=1)))
    out_of(gateway, 0, "errors")
    assert [(await gateway.post()).status for _ in range(2)] == [200, 429]
    assert [record.outcome for record in gateway.records()] == ["complete", "refused"]


@pytest.mark.parametrize("stream", [False, True])
async def test_health_hears_how_it_went(tmp_path: Path, stream: bool) -> None:
    gateway = house(tmp_path, chat_stream() if stream else completion())
    await gateway.post({**STREAM, "stream": stream})
    way = gateway.tables.catalog.models["m"].routes[0].way
    assert gateway.health.window(way) == (0, 1)
    assert gateway.health.speed(way, stream) is not None
    assert gateway.health.speed(way, not stream) is None
    assert gateway.health.busy(way) == 0


@pytest.mark.parametrize(("reply", "window"), [(error_reply(400, "no"), (0, 0)), (error_reply(500, "no"), (3, 3))])
async def test_what_health_hears_of_refusals_and_failures(
    tmp_path: Path, reply: Reply, window: tuple[int, int]
) -> None:
    """A request's own fault says nothing of whether the route answers others."""
    gateway = Inside(tmp_path, snapshot(model("m", provider())), Pool(MockUpstream(reply).transport))
    await gateway.post()
    assert gateway.health.window(gateway.tables.catalog.models["m"].routes[0].way) == window
