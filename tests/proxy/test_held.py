"""Held conversations: whole, for their key alone, as long and as large as allowed, and honest while Redis is away."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy import held as module
from proxy.errors import BadRequest, NotFound, Refusal, Unavailable
from proxy.formats.splice import Members
from proxy.held import Conversation, Entry, Held, Memory, Shared, named_input
from tests.processes import HOST
from tests.proxy.inside import KEY
from tests.services import Redis

MINE, THEIRS = KEY.id, KEY.id + 1
Open = Callable[[], AbstractAsyncContextManager[Held]]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text, **more}


def answered(text: str, item_id: str = "msg_a") -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"id": item_id, "type": "message", "role": "assistant", "status": "completed", "content": content}


def entry(name: str = "resp_1", previous: str = "", owner: int = MINE, **more: Any) -> Entry:
    """What was said and answered is told by the name."""
    own = more.pop("input", [said(f"to {name}")])
    output = more.pop("output", [answered(f"from {name}", f"msg_{name}")])
    response = {"id": name, "object": "response", "status": "completed", "output": output, **more}
    items = [json.dumps(item).encode() for item in own]
    return Entry(name, owner, json.dumps(response).encode(), items, previous)


def request(**fields: Any) -> Members:
    return Members(json.dumps({"model": "m", **fields}).encode())


def texts(conversation: Conversation) -> list[Any]:
    return [item["content"] for item in json.loads(conversation.members["input"])]


@pytest.fixture(scope="module")
def one_database(redis: Redis) -> str:
    """Redis has few of them: these tests share one and empty it."""
    return redis.new_database()


@pytest.fixture(params=["memory", "redis"])
def place(request: pytest.FixtureRequest) -> Open:
    url = request.getfixturevalue("one_database") if request.param == "redis" else ""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Held]:
        store = Shared(url, 600) if url else Memory(1_000_000, 600)
        if isinstance(store, Shared):
            await store._redis.flushdb()
        try:
            yield Held(store, 100_000)
        finally:
            await store.close()

    return opened


# --- in both places --------------------------------------------------------------------------------------------------


async def test_it_works(place: Open) -> None:
    async with place() as held:
        assert await held.keep(entry())
        assert await held.get(MINE, "resp_1") == entry()
        found = await held.history(MINE, "resp_1")
        assert found is not None
        assert [json.loads(item) for item in found] == [said("to resp_1"), answered("from resp_1", "msg_resp_1")]


async def test_another_keys_id_looks_like_an_unknown_one(place: Open) -> None:
    async with place() as held:
        await held.keep(entry())
        for owner, name in ((THEIRS, "resp_1"), (MINE, "resp_2"), (MINE, "r" * 1000), (MINE, "")):
            assert await held.get(owner, name) is None
            assert not await held.delete(owner, name)
            assert not await held.history(owner, name)
        assert await held.item(THEIRS, "msg_resp_1") is None
        assert await held.get(MINE, "resp_1") is not None, "nobody else has deleted it"


async def test_one_id_of_two_keys(place: Open) -> None:
    async with place() as held:
        await held.keep(entry())
        await held.keep(entry(owner=THEIRS, input=[]))
        assert await held.delete(THEIRS, "resp_1")
        assert await held.get(MINE, "resp_1") == entry()


async def test_a_conversation_is_told_from_its_beginning(place: Open) -> None:
    async with place() as held:
        for name, previous in (("a", ""), ("b", "a"), ("c", "b"), ("other", "a")):
            await held.keep(entry(name, previous))
        found = await held.history(MINE, "c")
        assert found is not None
        words = [json.loads(item)["content"] for item in found]
        assert [word if isinstance(word, str) else word[0]["text"] for word in words] == [
            *("to a", "from a", "to b", "from b", "to c", "from c")
        ]


@pytest.mark.parametrize("gone", ["a", "b", "c"])
async def test_a_link_that_is_gone(place: Open, gone: str) -> None:
    async with place() as held:
        for name, previous in (("a", ""), ("b", "a"), ("c", "b")):
            await held.keep(entry(name, previous))
        assert await held.delete(MINE, gone)
        assert not await held.delete(MINE, gone)
        assert await held.history(MINE, "c") is None


async def test_a_provider_that_gives_an_id_twice(place: Open) -> None:
    async with place() as held:
        await held.keep(entry("a", "b"))
        await held.keep(entry("b", "a"))
        assert await held.history(MINE, "a") is None


async def test_items_by_their_ids(place: Open) -> None:
    async with place() as held:
        await held.keep(entry(input=[said("with", id="msg_own"), said("without")]))
        for name, content in (("msg_own", "with"), ("msg_1_1", "without")):
            found = await held.item(MINE, name)
            assert found is not None
            assert json.loads(found)["content"] == content
        assert await held.item(MINE, "msg_resp_1") is not None
        assert await held.item(MINE, "msg_0") is None
        await held.delete(MINE, "resp_1")
        assert await held.item(MINE, "msg_own") is None


async def test_an_item_said_again_is_found_in_the_newest(place: Open) -> None:
    async with place() as held:
        await held.keep(entry("a", output=[answered("old", "msg_x")]))
        await held.keep(entry("b", input=[answered("new", "msg_x")]))
        await held.delete(MINE, "a")
        found = await held.item(MINE, "msg_x")
        assert found is not None
        assert b"new" in found


@pytest.mark.parametrize(
    "what",
    [
        entry(status="queued"),
        entry(status="in_progress"),
        entry("r" * 201),
        entry(input=[said("x" * 100_000)]),
        Entry("r", MINE, b"null", []),
        Entry("r", MINE, b'{"output":"text"}', []),
        Entry("r", MINE, b'{"output":[1]}', []),
    ],
    ids=["queued", "in progress", "id", "large", "null", "text", "number"],
)
async def test_what_is_not_kept(place: Open, what: Entry) -> None:
    async with place() as held:
        assert not await held.keep(what)
        assert await held.get(MINE, what.id) is None


# --- requests --------------------------------------------------------------------------------------------------------


async def test_a_request_without_references_stays_as_it_is(place: Open) -> None:
    async with place() as held:
        members = request(input="Hi", previous_response_id=None)
        found = await held.expand(KEY, members)
        assert found.members is members
        assert (found.previous, found.before) == ("", 0)
        assert [json.loads(item) for item in found.input] == [said("Hi")]


async def test_going_on_from_a_response(place: Open) -> None:
    async with place() as held:
        await held.keep(entry())
        body = b'{ "model" : "m","temperature":0.70, "previous_response_id":"resp_1" ,"input" :"Gr\\u00fc\xc3\x9f" }'
        found = await held.expand(KEY, Members(body))
        before = b",".join([*entry().input, json.dumps(answered("from resp_1", "msg_resp_1")).encode()])
        own = b'{"type":"message","role":"user","content":"Gr\\u00fc\xc3\x9f"}'
        text = found.members.text
        assert text == b'{ "model" : "m","temperature":0.70 ,"input" :[%s,%s] }' % (before, own), text.decode()
        assert (found.input, found.previous, found.before) == ([own], "resp_1", 2)
        await held.keep(Entry("resp_2", MINE, b"{}", found.input, found.previous))
        assert len(await held.history(MINE, "resp_2") or []) == 3, "what was said before is not held twice"


@pytest.mark.parametrize("fields", [{}, {"input": None}, {"input": []}])
async def test_going_on_without_input(place: Open, fields: dict[str, Any]) -> None:
    async with place() as held:
        await held.keep(entry())
        found = await held.expand(KEY, request(previous_response_id="resp_1", **fields))
        assert texts(found)[0] == "to resp_1"
        assert (len(texts(found)), found.input) == (2, [])
        assert "previous_response_id" not in found.members


@pytest.mark.parametrize("reference", [{"type": "item_reference", "id": "rs_1"}, {"id": "rs_1"}])
async def test_references_to_items(place: Open, reference: dict[str, Any]) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    async with place() as held:
        await held.keep(entry(output=[thought, answered("yes", "msg_1")]))
        items = [said("Why?"), reference, {"type": "item_reference", "id": "msg_1"}, said("Go on")]
        found = await held.expand(KEY, request(input=items))
        assert json.loads(found.members["input"]) == [said("Why?"), thought, answered("yes", "msg_1"), said("Go on")]
        assert [json.loads(item) for item in found.input] == json.loads(found.members["input"])


async def test_what_stands_in_the_conversation_is_not_said_twice(place: Open) -> None:
    async with place() as held:
        await held.keep(entry())
        items = [{"type": "item_reference", "id": "msg_resp_1"}, said("Go on")]
        found = await held.expand(KEY, request(previous_response_id="resp_1", input=items))
        assert (len(texts(found)), found.before, len(found.input)) == (3, 2, 1)


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"previous_response_id": "resp_0"}, 404, "previous_response_id", "previous_response_not_found"),
        ({"previous_response_id": "theirs"}, 404, "previous_response_id", "previous_response_not_found"),
        ({"previous_response_id": "torn"}, 404, "previous_response_id", "previous_response_not_found"),
        ({"previous_response_id": 7}, 400, "previous_response_id", "invalid_type"),
        ({"input": [said("a"), {"type": "item_reference", "id": "rs_0"}]}, 404, "input[1]", "item_not_found"),
        ({"input": [{"type": "item_reference", "id": "msg_theirs"}]}, 404, "input[0]", "item_not_found"),
        ({"input": 7}, 400, "input", "invalid_type"),
        ({"input": {"role": "user"}}, 400, "input", "invalid_type"),
        ({"input": [said("a"), "b"]}, 400, "input[1]", "invalid_type"),
    ],
)
async def test_refusals(place: Open, fields: dict[str, Any], status: int, param: str, code: str) -> None:
    async with place() as held:
        await held.keep(entry("theirs", owner=THEIRS))
        await held.keep(entry("torn", "gone"))
        with pytest.raises(Refusal) as caught:
            await held.expand(KEY, request(**fields))
        assert (caught.value.status, caught.value.param, caught.value.code) == (status, param, code)


async def test_a_conversation_larger_than_a_request_may_be(place: Open, settings: Any) -> None:
    settings.MAX_BODY_BYTES = 1000
    async with place() as held:
        await held.keep(entry("a", input=[said("x" * 500)]))
        await held.keep(entry("b", "a", input=[said("x" * 500)]))
        assert await held.history(MINE, "a")
        with pytest.raises(BadRequest) as caught:
            await held.expand(KEY, request(previous_response_id="b", input="c"))
        assert caught.value.code == "context_length_exceeded"


async def test_references_do_not_blow_a_request_up(place: Open, settings: Any) -> None:
    settings.MAX_BODY_BYTES = 20_000
    async with place() as held:
        for name in "abc":
            await held.keep(entry(name, input=[said("x" * 8000, id=f"large_{name}")]))
        for names in (["large_a"] * 3, ["large_a", "large_b", "large_c"]):
            with pytest.raises(BadRequest) as caught:
                await held.expand(KEY, request(input=[{"type": "item_reference", "id": name} for name in names]))
            assert caught.value.code == "context_length_exceeded"
        assert await held.item(MINE, "large_a") is not None


async def test_ids_of_other_types(place: Open) -> None:
    async with place() as held:
        await held.keep(entry(input=[said("a", id=[1])], output=[said("b", id=2), {"type": "reasoning"}]))
        items = [{"type": "item_reference", "id": "rs_1_2"}, {"id": [1], "type": "item_reference"}]
        found = await held.expand(KEY, request(previous_response_id="resp_1", input=items))
        assert [item["id"] for item in json.loads(found.members["input"]) if "id" in item] == [[1], 2, [1]]
        assert (found.before, len(found.input)) == (3, 1), "the thought stands there already"


@pytest.mark.parametrize(("store", "kept"), [({}, True), ({"store": True}, True), ({"store": False}, False)])
def test_store_is_on_where_it_is_not_said(store: dict[str, bool], kept: bool) -> None:
    assert Held(Memory(1000, 1), 1000).wanted(KEY, request(**store)) is kept


@pytest.mark.parametrize("who", ["account", "gateway"])
async def test_where_nothing_is_held(who: str) -> None:
    key = replace(KEY, zero_retention=who == "account")
    held = Held(Memory(100_000, 600), 100_000, off=who == "gateway")
    assert not held.wanted(key, request())
    assert not held.wanted(key, request(store=False))
    if key.zero_retention:
        with pytest.raises(BadRequest, match="has zero retention: no responses are held") as caught:
            held.wanted(key, request(store=True))
        assert caught.value.param == "store"
    else:
        assert not held.wanted(key, request(store=True)), "in itself it does no harm"
    assert (await held.expand(key, request(input="Hi"))).previous == ""
    reference = [said("a"), {"type": "item_reference", "id": "rs_1"}]
    for fields, param in (({"previous_response_id": "r"}, "previous_response_id"), ({"input": reference}, "input[1]")):
        with pytest.raises(BadRequest) as caught:
            await held.expand(key, request(**fields))
        assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")


async def test_a_gateway_that_holds_nothing() -> None:
    memory = Memory(100_000, 600)
    assert not await Held(memory, 100_000, off=True).keep(entry())
    assert memory.size == 0


def test_ids_that_are_made_up_stay_the_same() -> None:
    one = entry(input=[{"role": "user", "content": "a"}, {"type": "function_call_output", "output": ""}, {"type": "x"}])
    assert [name for name, _ in named_input(one)] == ["msg_1_0", "fco_1_1", "item_1_2"]


# --- in memory -------------------------------------------------------------------------------------------------------


async def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    memory = Memory(100_000, 600)
    held = Held(memory, 50_000)
    for name in "abc":
        assert await held.keep(entry(name, input=[said("x" * 30_000)]))
    await held.history(MINE, "a")
    assert await held.keep(entry("d", input=[said("x" * 30_000)]))
    assert [name for name in "abcd" if await held.get(MINE, name)] == ["a", "c", "d"]
    assert 90_000 < memory.size <= 100_000
    assert await held.item(MINE, "msg_b") is None


async def test_a_lifetime_begins_again_where_a_conversation_goes_on() -> None:
    clock = Clock()
    held = Held(Memory(100_000, 600, clock), 50_000)
    await held.keep(entry("a"))
    await held.keep(entry("b", "a"))
    await held.keep(entry("c"))
    clock.now += 500
    assert await held.get(MINE, "c") is not None, "to look at it does not keep it longer"
    await held.expand(KEY, request(previous_response_id="b", input="Go on"))
    clock.now += 500
    assert [name for name in "abc" if await held.get(MINE, name)] == ["a", "b"]
    await held.item(MINE, "msg_a")
    clock.now += 500
    assert [name for name in "abc" if await held.get(MINE, name)] == ["a"]
    clock.now += 600
    assert await held.item(MINE, "msg_a") is None


async def test_what_nobody_asks_for_goes_too() -> None:
    clock = Clock()
    memory = Memory(100_000, 600, clock)
    held = Held(memory, 50_000)
    await held.keep(entry("a"))
    assert memory._sweeper is not None
    due = memory._sweeper.when() - asyncio.get_running_loop().time()
    assert 590 < due <= 600
    clock.now += 300
    await held.keep(entry("b"))
    clock.now += 301
    memory._swept()
    assert [name for _, name in memory._kept] == ["b"]
    assert memory._sweeper is not None, "it waits for the next"
    clock.now += 300
    memory._swept()
    assert (memory.size, len(memory._kept), len(memory._homes), memory._sweeper) == (0, 0, 0, None)


async def test_memory_returns() -> None:
    memory = Memory(10_000_000, 600)
    held = Held(memory, 1_000_000)
    for number in range(200):
        await held.keep(entry(f"r{number % 50}", input=[said("x" * 1000)]))
    for number in range(50):
        assert await held.delete(MINE, f"r{number}")
    assert (memory.size, len(memory._homes)) == (0, 0)
    await memory.close()


async def test_the_new_one_of_two_with_one_id() -> None:
    memory = Memory(100_000, 600)
    held = Held(memory, 100_000)
    await held.keep(entry(input=[said("old", id="msg_old")]))
    await held.keep(entry(input=[said("new")]))
    assert await held.item(MINE, "msg_old") is None
    assert memory.size < 4000


# --- in Redis --------------------------------------------------------------------------------------------------------


async def test_everything_in_redis_has_an_end(one_database: str) -> None:
    store = Shared(one_database, 600)
    held = Held(store, 100_000)
    await store._redis.flushdb()
    await held.keep(entry("a", input=[said("x", id="msg_x")]))
    await held.keep(entry("b", "a"))
    names = await store._redis.keys()
    assert sorted(names) == [
        *(b"kodna:item:7:msg_a", b"kodna:item:7:msg_b", b"kodna:item:7:msg_b_0", b"kodna:item:7:msg_x"),
        *(b"kodna:response:7:a", b"kodna:response:7:b"),
    ]
    for name in names:
        await store._redis.expire(name, 5)
    await held.history(MINE, "b")
    assert all([590 < await store._redis.ttl(name) <= 600 for name in names])
    await held.delete(MINE, "b")
    assert sorted(await store._redis.keys()) == [b"kodna:item:7:msg_a", b"kodna:item:7:msg_x", b"kodna:response:7:a"]
    await store.close()


async def test_what_another_release_has_written(one_database: str, caplog: pytest.LogCaptureFixture) -> None:
    store = Shared(one_database, 600)
    await store._redis.set("kodna:response:7:old", b"\xff{}")
    assert await Held(store, 1000).get(MINE, "old") is None
    assert "cannot be read" in caplog.text
    await store.close()


async def test_many_at_once_and_some_that_leave(one_database: str) -> None:
    store = Shared(one_database, 600)
    held = Held(store, 100_000)
    names = [f"resp_{number}" for number in range(3 * module.CONNECTIONS)]
    assert all(await asyncio.gather(*(held.keep(entry(name)) for name in names)))
    leaving = [asyncio.create_task(held.get(MINE, name)) for name in names]
    await asyncio.sleep(0)
    for task in leaving[::2]:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    found = await asyncio.gather(*(held.get(MINE, name) for name in names))
    assert [one.id if one else None for one in found] == names, "no answer reaches another's question"
    await store.close()


def test_under_uvloop(one_database: str) -> None:
    async def round_trip() -> bool:
        store = Shared(one_database, 600)
        held = Held(store, 100_000)
        kept = await held.keep(entry("loop")) and await held.get(MINE, "loop") == entry("loop")
        await store.close()
        return kept

    assert uvloop.run(round_trip())


async def test_redis_away_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    server = Redis(tmp_path).start()
    store = Shared(server.url, 600)
    held = Held(store, 100_000)
    assert await held.keep(entry())
    server.stop()
    for _ in range(3):
        assert not await held.keep(entry())
        with pytest.raises(Unavailable) as caught:
            await held.expand(KEY, request(previous_response_id="resp_1"))
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "responses_unavailable", 1)
    assert len(caplog.records) == 1, "once"
    assert (await held.expand(KEY, request(input="Hi"))).before == 0, "who needs no history is served"
    server._process = None
    server.start()
    assert await held.keep(entry())
    assert await held.get(MINE, "resp_1") == entry()
    assert "again" in caplog.records[1].message
    await store.close()
    server.stop()


async def test_a_redis_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "WAIT", 0.05)
    silent, asked = asyncio.Event(), []

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    store = Shared(f"redis://{HOST}:{port}/0", 600)
    held = Held(store, 1000)
    assert not await held.keep(entry())
    assert "TimeoutError" in caplog.text
    for _ in range(20):
        with pytest.raises(Unavailable):
            await held.get(MINE, "resp_1")
    assert len(asked) == 1, "one request has waited, not each"
    silent.set()
    await store.close()
    server.close()
    await server.wait_closed()


def test_where_settings_put_them(settings: Any) -> None:
    assert isinstance(module.from_settings()._store, Memory)
    settings.REDIS_URL = f"redis://{HOST}:1/0"
    assert isinstance(module.from_settings()._store, Shared)
    assert not module.from_settings().off
    settings.RESPONSES_TTL = 0
    assert module.from_settings().off


def test_not_found_is_a_404() -> None:
    assert isinstance(module.not_held("resp_1"), NotFound)
    assert module.not_held("resp_1").status == 404
