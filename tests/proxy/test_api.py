"""What key holders ask through Django: usage, receipts, limits; the errors and headers of all of it."""

import asyncio
import io
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import OperationalError

from accounts import keys
from accounts.models import ApiKey
from proxy import api, reports, request_ids
from proxy.counters.base import Wish
from proxy.models import UsageQuarter
from tests.own_api import Gateway, ask, carry, connections_kept, new_key, request_id, row
from tests.proxy.sums import sum_days

USAGE, LIMITS, RECEIPTS = "/v1/usage", "/v1/auth/limits", "/v1/requests/"
pytestmark = pytest.mark.django_db


def quarter(key: ApiKey, model: str = "m", hour: int = 12, **fields: object) -> None:
    UsageQuarter.objects.create(
        start=datetime(2026, 11, 20, hour, tzinfo=UTC),
        account_id=key.account_id,
        account="acme",
        key_id=key.pk,
        key_prefix=key.prefix,
        model=model,
        provider="p",
        requests=1,
        **{"cost": Decimal("0.1"), **fields},
    )
    sum_days()


# --- GET /v1/usage ---------------------------------------------------------------------------------------------------


def test_the_usage_of_the_own_account():
    key, text = new_key()
    other, _ = new_key("other")
    quarter(key, errors=1, prompt_tokens=7)
    quarter(other)
    answer = ask(USAGE, text, by="key,model,day")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["total"]["cost"] == "0.1"
    (line,) = answer.json["data"]
    assert (line["key"], line["model"], line["day"], line["errors"], line["prompt_tokens"]) == (
        *(key.prefix, "m", "2026-11-20", 1, 7),
    )


@pytest.mark.parametrize(("query", "requests"), [
    ({}, 3), ({"since": "2026-11-20", "until": "2026-11-20"}, 3), ({"since": "2026-11-21", "tz": "Asia/Tokyo"}, 1),
    ({"until": "2026-11-20T12:00Z"}, 1), ({"model": "m"}, 2), ({"provider": "q"}, 0), ({"since": "", "key": ""}, 3),
])  # fmt: skip
def test_a_part_of_it(query, requests):
    key, text = new_key()
    quarter(key, hour=11)
    quarter(key, hour=12)
    quarter(key, "other", hour=15)
    assert ask(USAGE, text, **query).json["total"]["requests"] == requests


def test_of_one_key():
    key, text = new_key()
    second, _ = new_key()
    stranger, _ = new_key("other")
    quarter(key)
    quarter(second)
    quarter(stranger)
    for prefix, requests in ((second.prefix, 1), (stranger.prefix, 0)):
        assert ask(USAGE, text, key=prefix).json["total"]["requests"] == requests


def test_as_csv():
    key, text = new_key()
    quarter(key)
    answer = ask(USAGE, text, format="csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.body.decode().splitlines() == [
        ",".join(("model", *reports.FIGURES)), "m,1,0,0,0,0,0,0,0.1,0",
    ]  # fmt: skip


@pytest.mark.parametrize("query", [
    {"by": "colour"}, {"since": "yesterday"}, {"until": "x"}, {"tz": "Mars"}, {"key": "%"}, {"format": "xml"},
    {"frm": "csv"}, {"model": "a\x00"}, {"provider": "\x00"}, {"tz": "\x00"},
], ids=str)  # fmt: skip
def test_a_parameter_that_cannot_be_read(query):
    answer = ask(USAGE, new_key()[1], **query)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert (answer.error["param"], answer.error["code"]) == (next(iter(query)), "invalid_value")


def test_a_thousand_parameters():
    answer = ask(USAGE, new_key()[1], **{f"x{number}": "1" for number in range(2000)})
    assert answer.status == 400


# --- GET /v1/requests/{id} -------------------------------------------------------------------------------------------


def test_a_receipt():
    key, text = new_key()
    row(key, model="m")
    answer = ask(RECEIPTS + request_id(), text)
    assert (answer.status, answer.json["id"], answer.json["model"]) == (200, request_id(), "m")


def test_a_receipt_by_the_id_that_the_answer_showed():
    key, text = new_key()
    row(key)
    answer = ask(RECEIPTS + request_ids.carrying(request_id(), 3, 77), text)
    assert (answer.status, answer.json["id"]) == (200, request_id())


def test_no_receipt_of_others():
    _, text = new_key()
    row(new_key("other")[0])
    answer = ask(RECEIPTS + request_id(), text)
    assert (answer.status, answer.error["code"]) == (404, "not_found_error")


@pytest.mark.parametrize("name", ["x", "req_", "req_1\x00", "req_" + "0" * 33, request_id(number=2)])
def test_no_such_receipt(name):
    assert ask(RECEIPTS + name, new_key()[1]).status == 404


NOW = 1_795_176_000


class Clock:
    """Stands still but for what is slept; `then` happens meanwhile. In place of `time` and of `asyncio`."""

    Semaphore = asyncio.Semaphore

    def __init__(self, then: Callable[[], object]) -> None:
        self.slept, self._then = 0.0, then

    def time(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return self.slept

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.slept == 2 * seconds:
            await sync_to_async(self._then)()


def waited(name: str, text: str, monkeypatch: Any, then: Callable[[], object] = bool) -> tuple[int, float]:
    """The status, and for how many seconds the row was waited for."""
    clock = Clock(then)
    with monkeypatch.context() as patched:
        patched.setattr(api, "time", clock)
        patched.setattr(api, "asyncio", clock)
        return ask(RECEIPTS + name, text).status, round(clock.slept, 1)


def test_a_row_that_has_not_landed_yet(monkeypatch):
    key, text = new_key()
    name = request_id(NOW - 100)
    assert waited(name, text, monkeypatch, lambda: row(key, request_id=name)) == (200, 2 * api.AGAIN)


@pytest.mark.parametrize(("age", "patience"), [(1, 2.0), (-1, 2.0), (600, 2.0), (3600, 0), (-3600, 0)])
def test_how_long_is_waited(age, patience, monkeypatch):
    assert waited(request_id(NOW - age), new_key()[1], monkeypatch) == (404, patience)


def test_who_asks_for_what_is_not_there_shuts_nobody_out(monkeypatch):
    """Forty made-up ids of one key: a few are waited for, without a place, and the others are answered at once."""
    bob, alice = new_key("bob")[1], new_key("alice")[1]
    order: list[str] = []
    finished = asyncio.Event()

    class Patient(Clock):
        async def sleep(self, seconds: float) -> None:
            await finished.wait()
            self.slept += seconds

    async def one(handover: api.Handover, who: str, path: str, text: str) -> None:
        headers = [(b"host", b"x"), (b"authorization", f"Bearer {text}".encode())]
        answer = await carry(handover, {"type": "http", "method": "GET", "path": path, "headers": headers})
        order.append(f"{who} {answer.status}")
        if len(order) == 41 - api.WAITING:  # all but those who wait: alice among them
            finished.set()

    async def all_at_once() -> None:
        handover = api.Handover(Gateway())
        asked = [one(handover, "bob", RECEIPTS + request_id(NOW, number), bob) for number in range(40)]
        async with asyncio.timeout(5):
            await asyncio.gather(*asked, one(handover, "alice", "/v1/credits/balance", alice))

    clock = Patient(bool)
    monkeypatch.setattr(api, "time", clock)
    monkeypatch.setattr(api, "asyncio", clock)
    with connections_kept():
        async_to_sync(all_at_once)()
    assert order.index("alice 200") < 41 - api.WAITING
    assert order.count("bob 404") == 40


def test_a_client_that_leaves_is_not_waited_for(monkeypatch):
    clock, said, pieces = Clock(bool), [], [{"type": "http.request"}]
    headers = [(b"host", b"x"), (b"authorization", f"Bearer {new_key()[1]}".encode())]

    async def receive() -> Mapping[str, Any]:
        if not pieces and not clock.slept:
            await asyncio.Future()  # it stays until it has waited for a while
        return pieces.pop() if pieces else {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        said.append(message)

    monkeypatch.setattr(api, "time", clock)
    monkeypatch.setattr(api, "asyncio", clock)
    scope = {"type": "http", "method": "GET", "path": RECEIPTS + request_id(NOW), "headers": headers}
    with connections_kept():
        async_to_sync(api.Handover(Gateway()))(scope, receive, send)
    assert (said, clock.slept) == ([], api.AGAIN)


# --- GET /v1/auth/limits ---------------------------------------------------------------------------------------------


def test_limits():
    key, text = new_key(rpm=40, rps=0, tpm=1000, concurrency=0)
    key.account.rpm = 100
    key.account.save()
    gateway = Gateway()
    limits = keys.freeze(key).limits
    async_to_sync(gateway.admission.store.admit)(Wish("req_1", limits, tokens=10))
    told = ask(LIMITS, text, gateway=gateway).json
    assert told["key"] == {"rps": None, "rpm": 40, "tpm": 1000, "concurrency": None}
    assert told["account"] == {"rps": None, "rpm": 100, "tpm": None, "concurrency": None}
    assert (told["left"]["requests"]["limit"], told["left"]["requests"]["remaining"]) == (40, 39)
    assert (told["left"]["tokens"]["limit"], told["left"]["tokens"]["remaining"]) == (1000, 990)


def test_no_limits():
    told = ask(LIMITS, new_key(rps=0, rpm=0)[1]).json
    assert told["left"] == {"requests": None, "tokens": None}


# --- errors, headers and keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [USAGE, LIMITS, RECEIPTS + "x"])
def test_every_answer_has_its_headers(path):
    _, text = new_key()
    for key in (text, ""):
        answer = ask(path, key, headers={"origin": "https://app.example"})
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["cache-control"] == "no-store"
        if answer.status != 200:
            assert set(answer.error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(("first", "status"), [("Bearer {}", 200), ("Basic eDp5", 200), ("Bearer other", 401)])
def test_of_two_authorizations_the_first_bearer_counts(first, status):
    """As `ingress` has it; Django would run the lines together."""
    _, text = new_key()
    good = ("authorization", f"Bearer {text}")
    second = ("authorization", "Bearer sk-kodna-other") if "{}" in first else good
    assert ask("/v1/auth/me", lines=[("authorization", first.format(text)), second]).status == status


def test_ids_differ():
    assert ask(USAGE).headers["x-request-id"] != ask(USAGE).headers["x-request-id"]


def test_the_database_is_away(monkeypatch):
    def away(_: object) -> None:
        raise OperationalError("host=secret.internal: connection refused")

    monkeypatch.setattr(reports, "answer", away)
    answer = ask(USAGE, new_key()[1])
    assert (answer.status, answer.error["type"], answer.error["code"]) == (503, "api_error", "database_unavailable")
    assert answer.headers["retry-after"] == "2"
    assert b"secret" not in answer.body


def test_a_bug_of_ours(monkeypatch, caplog):
    monkeypatch.setattr(reports, "answer", lambda _: 1 / 0)
    answer = ask(USAGE, new_key()[1])
    assert (answer.status, answer.error["type"]) == (500, "server_error")
    assert b"division" not in answer.body
    (logged,) = [entry for entry in caplog.records if entry.name == "proxy.api"]
    assert answer.headers["x-request-id"] in logged.getMessage()
    assert logged.exc_info is not None


def test_any_host_will_do(settings):
    settings.ALLOWED_HOSTS = ["elsewhere"]
    assert ask("/v1/credits/pricing", headers={"host": "gateway:8000"}).status == 200


def test_a_body_is_not_kept(monkeypatch):
    kept = []

    async def read_body(_: object, receive: Any) -> io.BytesIO:
        kept.append(await receive())
        return io.BytesIO()

    monkeypatch.setattr(api.ASGIHandler, "read_body", read_body)
    assert ask("/v1/credits/pricing", body=[b"x" * 1000] * 10).status == 200
    assert kept == [{"type": "http.request", "body": b"", "more_body": False}]


async def test_a_few_at_once(monkeypatch):
    """The others wait: connections to the database are left for what moves usage and keys."""
    running, most = 0, 0

    async def slow(*_: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    monkeypatch.setattr(api.ASGIHandler, "__call__", slow)
    handover = api.Handover(Gateway())
    scope = {"type": "http", "path": USAGE, "headers": []}
    await asyncio.gather(*(handover(scope, slow, slow) for _ in range(20)))
    assert most == api.AT_ONCE


def test_the_clock_of_an_id_is_ours():
    named = api.REQUEST_ID.fullmatch(request_ids.new())
    assert named is not None
    assert abs(time.time() - int(named[1], 16) / 1000) < 5
