"""Held responses over HTTP, in OpenAI's shapes: for the key that made them, and a 404 for every other."""

from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses.response_item_list import ResponseItemList

from accounts import keys
from proxy.held import Entry, Held, Memory
from proxy.responses import HeldResponses
from tests.processes import HOST
from tests.proxy.inside import KEY, TEXT, Answer, snapshot, tables
from tests.proxy.test_held import answered, entry, said

OTHER = keys.make()
NAME = "resp_1"


class House:
    """`await house.ask("GET", "resp_1")`."""

    def __init__(self) -> None:
        known = ((TEXT, KEY), (OTHER, replace(KEY, id=8)))
        self.tables = tables(snapshot(), *known)
        self.held = Held(Memory(1_000_000, 600), 100_000)
        self.endpoints = HeldResponses(self.tables, self.held)

    async def ask(self, method: str, path: str, query: str = "", key: str = TEXT, **headers: str) -> Answer:
        answer = Answer()
        named = [(name.encode(), value.encode()) for name, value in headers.items()]
        if key:
            named.append((b"authorization", f"Bearer {key}".encode()))
        path = f"/v1/responses/{path}"
        scope = {"type": "http", "method": method, "path": path, "headers": named, "client": (HOST, 5)}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.pieces.append(message["body"])

        await self.endpoints.at(path)[method]({**scope, "query_string": query.encode()}, receive, send)
        return answer

    async def keep(self, *entries: Entry) -> None:
        for each in entries:
            assert await self.held.keep(each)


@pytest.fixture
def house() -> House:
    return House()


async def test_it_works(house: House) -> None:
    await house.keep(entry())
    answer = await house.ask("GET", NAME, origin="https://app.example")
    assert (answer.status, answer.body) == (200, entry().response)
    assert answer.headers["x-request-id"].startswith("req_")
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("application/json", "no-store")
    assert answer.headers["access-control-allow-origin"] == "*"


ALL = [("GET", NAME), ("DELETE", NAME), ("GET", f"{NAME}/input_items"), ("POST", f"{NAME}/cancel")]


@pytest.mark.parametrize(("method", "path"), ALL)
async def test_another_keys_response(house: House, method: str, path: str) -> None:
    unknown = await house.ask(method, path)
    await house.keep(entry())
    answer = await house.ask(method, path, key=OTHER)
    assert (answer.status, answer.error["code"]) == (404, "response_not_found")
    assert answer.error["type"] == "invalid_request_error"
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json == unknown.json, "it looks like one that never was"
    assert await house.held.get(KEY.id, NAME) is not None


@pytest.mark.parametrize(("method", "path"), ALL)
@pytest.mark.parametrize(
    ("key", "changes", "status"),
    [("", {}, 401), (keys.make(), {}, 401), (TEXT, {"is_active": False}, 401), (TEXT, {"expires": 1.0}, 401)],
    ids=["none", "unknown", "off", "expired"],
)
async def test_bad_keys(house: House, method: str, path: str, key: str, changes: dict[str, Any], status: int) -> None:
    house.tables.keys = tables(snapshot(), (TEXT, replace(KEY, **changes))).keys
    answer = await house.ask(method, path, key=key)
    assert (answer.status, answer.error["type"]) == (status, "authentication_error")
    assert answer.headers["x-request-id"]


async def test_before_the_keys_are_loaded(house: House) -> None:
    house.tables.loaded = 0
    assert (await house.ask("GET", NAME)).status == 503


async def test_deleted(house: House) -> None:
    await house.keep(entry())
    answer = await house.ask("DELETE", NAME)
    assert (answer.status, answer.json) == (200, {"id": NAME, "object": "response.deleted", "deleted": True})
    assert [(await house.ask(method, path)).status for method, path in ALL] == [404] * 4


@pytest.mark.parametrize("query", ["stream=true", "include[]=x&stream=True"])
async def test_it_is_not_streamed_again(house: House, query: str) -> None:
    await house.keep(entry())
    answer = await house.ask("GET", NAME, query)
    assert (answer.status, answer.error["param"]) == (400, "stream")
    assert (await house.ask("GET", NAME, "stream=false")).status == 200


@pytest.mark.parametrize(("background", "status"), [(None, 400), (False, 400), (True, 200)])
async def test_cancel(house: House, background: bool | None, status: int) -> None:
    await house.keep(entry(background=background))
    answer = await house.ask("POST", f"{NAME}/cancel")
    assert answer.status == status
    assert "'background'" in answer.error["message"] if status == 400 else answer.json["id"] == NAME


async def test_with_openais_sdk(house: House) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await house.endpoints.at(scope["path"])[scope["method"]](scope, receive, send)

    await house.keep(entry(input=[said(str(number)) for number in range(45)]))
    http = httpx.AsyncClient(transport=httpx.ASGITransport(application))
    client = openai.AsyncOpenAI(api_key=TEXT, base_url="http://gateway/v1", http_client=http)
    assert (await client.responses.retrieve(NAME)).output_text == f"from {NAME}"
    assert len([item async for item in client.responses.input_items.list(NAME, limit=20)]) == 45
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(NAME)
    await client.responses.delete(NAME)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(NAME)
    await client.close()


# --- input items -----------------------------------------------------------------------------------------------------


async def test_input_items(house: House) -> None:
    called = {"type": "function_call_output", "call_id": "c", "output": "{}"}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    await house.keep(entry(input=[*messages, said([{"type": "input_text", "text": "Go"}], id="msg_own"), called]))
    listed = (await house.ask("GET", f"{NAME}/input_items", "order=asc")).json
    assert [item["id"] for item in listed["data"]] == ["msg_1_0", "msg_1_1", "msg_own", "fco_1_3"]
    assert listed["data"][:2] == [
        said([{"type": "input_text", "text": "Hi"}], id="msg_1_0", status="completed"),
        answered("Yes?", "msg_1_1"),
    ]
    assert listed["data"][3] == {**called, "id": "fco_1_3", "status": "completed"}
    assert (listed["object"], listed["first_id"], listed["last_id"]) == ("list", "msg_1_0", "fco_1_3")
    assert not ResponseItemList.model_validate(listed).has_more


async def test_the_conversation_before_is_input_too(house: House) -> None:
    await house.keep(entry("a"), entry("b", "a"), entry("c", "b"))
    listed = (await house.ask("GET", "c/input_items")).json
    assert [item["id"] for item in listed["data"]] == ["msg_c_0", "msg_b", "msg_b_0", "msg_a", "msg_a_0"]
    await house.held.delete(KEY.id, "a")
    assert [item["id"] for item in (await house.ask("GET", "c/input_items")).json["data"]] == ["msg_c_0"]


async def test_pages(house: House) -> None:
    items = [said(str(number), id=f"msg_{number}") for number in range(45)]
    await house.keep(entry(input=[*items, items[7]]))
    found: list[str] = []
    for has_more in (True, True, False):
        after = f"order=asc&after={found[-1]}" if found else "order=asc"
        listed = (await house.ask("GET", f"{NAME}/input_items", after)).json
        found += [item["id"] for item in listed["data"]]
        assert (listed["has_more"], listed["last_id"]) == (has_more, found[-1])
    assert found == [item["id"] for item in items], "an item said twice stands once: else its ID would lead back"
    listed = (await house.ask("GET", f"{NAME}/input_items", "limit=2&after=msg_44")).json
    assert ([item["id"] for item in listed["data"]], listed["has_more"]) == (["msg_43", "msg_42"], True)


async def test_no_input_items(house: House) -> None:
    await house.keep(entry(input=[]))
    listed = (await house.ask("GET", f"{NAME}/input_items")).json
    assert listed == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *(("limit=0", "limit"), ("limit=101", "limit"), ("limit=ten", "limit"), ("limit=-1", "limit")),
        *(("limit=1e1", "limit"), ("limit=" + "9" * 9999, "limit"), ("order=up", "order"), ("after=msg_x", "after")),
    ],
    ids=range(8),
)
async def test_queries_that_are_wrong(house: House, query: str, param: str) -> None:
    await house.keep(entry())
    answer = await house.ask("GET", f"{NAME}/input_items", query)
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, "invalid_value")


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        *(("resp_1", ["GET", "DELETE"]), ("resp_1/input_items", ["GET"]), ("resp_1/cancel", ["POST"])),
        *(("", []), ("/cancel", []), ("resp_1/", []), ("resp_1/other", []), ("resp_1/cancel/x", [])),
    ],
)
def test_the_table(house: House, path: str, methods: list[str]) -> None:
    assert list(house.endpoints.at(f"/v1/responses/{path}")) == methods


async def test_a_bug_of_ours(house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(house.held, "get", broken)
    answer = await house.ask("GET", NAME)
    assert (answer.status, answer.error["type"]) == (500, "server_error")
    assert b"secret" not in answer.body
    assert answer.headers["x-request-id"] in caplog.text
