"""The journal: what is written survives everything, reaches the database once, and one bad row harms no other."""

import errno
import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import OperationalError

from accounts import keys
from accounts.models import Account
from proxy import usage
from proxy.models import UsageRecord
from proxy.upstream import Pool
from proxy.usage import Attempt, Journal, Record
from tests.conftest import MakeGateway
from tests.gateway import Gateway, catalog, model, provider
from tests.processes import wait_for
from tests.proxy.inside import HELLO, Inside, snapshot
from tests.proxy.inside import model as inside_model
from tests.proxy.inside import provider as inside_provider
from tests.services import Postgres
from tests.upstreams import MockUpstream, Upstream, chat_stream, completion

CHAT = "/v1/chat/completions"


def record(number: int = 1, **values: Any) -> Record:
    fields = {"created": 1_700_000_000.5, "status": 200, "outcome": "complete", **values}
    return Record(request_id=f"req_{number}", **fields)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path, 10_000)


def ids() -> list[str]:
    return sorted(UsageRecord.objects.values_list("request_id", flat=True))


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


class FullDisk:
    """`os.write` into a disk that has room for `room` more bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(usage.os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = self._write(fd, data[: self.room])
        self.room -= done
        return done


@pytest.mark.django_db
def test_it_works(journal: Journal) -> None:
    values = {"prompt_tokens": 7, "cost": 12_000_000, "attempts": [Attempt("a", "m", 1.5, 200)], "estimated": True}
    journal.append(record(**values, first_token_ms=3.25, client="curl/8"))
    assert journal.flush() == 1
    row = UsageRecord.objects.get()
    assert (row.prompt_tokens, row.cost, row.estimated, row.client) == (7, Decimal("0.000012"), True, "curl/8")
    assert row.created_at == datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)
    assert row.attempts == [{"provider": "a", "model": "m", "ms": 1.5, "status": 200}]
    assert (row.first_token_ms, row.key_id) == (3.25, None)


@pytest.mark.django_db
def test_formats_and_losses(journal: Journal) -> None:
    journal.append(record(endpoint="messages", provider_format="gemini", losses=usage.listed(["top_k", "a\x00"])))
    journal.flush()
    row = UsageRecord.objects.get()
    assert (row.endpoint, row.provider_format, row.losses) == ("messages", "gemini", "top_k,a\ufffd")


@pytest.mark.parametrize(("names", "text"), [
    ([], ""), (["a"], "a"), (["tools[0].strict", "seed"], "tools[0].strict,seed"),
    (["a" * 600, "b" * 399], f"{'a' * 600},{'b' * 399}"), (["a" * 600, "b" * 400], f"{'a' * 600},…"),
    (["a" * 2000, "b"], f"{'a' * 999}…"),
])  # fmt: skip
def test_losses_fit_into_a_row(names: list[str], text: str) -> None:
    assert usage.listed(names) == text
    assert len(text) <= usage.MOST_LOSSES


@pytest.mark.django_db
def test_a_line_is_moved_once(journal: Journal) -> None:
    journal.append(record(1))
    assert journal.flush() == 1
    assert journal.flush() == 0
    journal.append(record(1))
    journal.append(record(2))
    journal.flush()
    assert ids() == ["req_1", "req_2"]


@pytest.mark.django_db
def test_the_key_was_used(journal: Journal) -> None:
    key, _ = keys.issue(Account.objects.create(name="a"))
    journal.append(record(1, key_id=key.pk))
    journal.append(record(2, key_id=key.pk, created=1_700_000_030.0))
    journal.flush()
    key.refresh_from_db()
    assert key.last_used_at == datetime(2023, 11, 14, 22, 13, 50, tzinfo=UTC)


@pytest.mark.django_db
def test_a_large_file_gives_way_to_a_new_one(journal: Journal, tmp_path: Path) -> None:
    (first,) = files(tmp_path)
    for number in range(100):
        journal.append(record(number, requested_model="m" * 100))
    journal.flush()
    assert len(files(tmp_path)) == 2
    journal.append(record(100))
    journal.flush()
    (second,) = files(tmp_path)
    assert first != second
    assert len(ids()) == 101


@pytest.mark.django_db
def test_no_room_for_a_new_file(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one stays in use: its descriptor must not be closed under the next lines."""

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    for number in range(100):
        journal.append(record(number, requested_model="m" * 100))
    with monkeypatch.context() as patch:
        patch.setattr(usage.os, "open", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                journal.flush()
        journal.append(record(100))
    journal.flush()
    journal.append(record(101))
    journal.flush()
    assert len(ids()) == 102


# --- what a process left behind --------------------------------------------------------------------------------------


def left_behind(folder: Path, *lines: bytes) -> Path:
    path = folder / "1-2-dead.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def line(number: int) -> bytes:
    return usage._encode(record(number)) + b"\n"


@pytest.mark.django_db
def test_a_dead_process(journal: Journal, tmp_path: Path) -> None:
    path = left_behind(tmp_path, line(1), line(2))
    assert journal.adopt() == 2
    assert not path.exists()
    assert ids() == ["req_1", "req_2"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "torn",
    [
        b'{"request_id":"req_3","crea',
        b"\x00" * 300,
        b"not json\n",
        b'{"request_id":5}\n',
        b"[]\n",
        b"\xff\xfe\n",
        b"\n",
    ],
)
def test_a_line_that_cannot_be_read(journal: Journal, tmp_path: Path, torn: bytes) -> None:
    left_behind(tmp_path, line(1), torn if torn.endswith(b"\n") else b"", line(2), torn)
    journal.adopt()
    assert ids() == ["req_1", "req_2"]


@pytest.mark.django_db
def test_a_file_larger_than_a_batch(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "BATCH_BYTES", 500)
    left_behind(tmp_path, *(line(number) for number in range(40)))
    assert journal.adopt() == 40
    assert len(ids()) == 40


@pytest.mark.django_db
def test_a_living_process(journal: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path, 10_000)
    other.append(record(1))
    assert journal.adopt() == 0
    assert ids() == []
    other.flush()
    assert ids() == ["req_1"]


@pytest.mark.django_db(transaction=True)
def test_two_processes_adopt_at_once(tmp_path: Path) -> None:
    journals = [Journal(tmp_path, 10_000) for _ in range(2)]
    for _ in range(5):
        left_behind(tmp_path, *(line(number) for number in range(50)))
        barrier = threading.Barrier(2)

        def adopt(journal: Journal, barrier: threading.Barrier = barrier) -> int:
            barrier.wait()
            try:
                return journal.adopt()
            finally:
                usage.connection.close()

        with ThreadPoolExecutor(2) as pool:
            assert max(pool.map(adopt, journals)) == 50
    assert len(ids()) == 50


@pytest.mark.django_db
def test_the_end_of_a_process(journal: Journal, tmp_path: Path) -> None:
    journal.append(record(1))
    journal.close()
    assert ids() == ["req_1"]
    assert files(tmp_path) == []


def test_the_end_of_a_process_without_a_database(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(usage, "store", away)
    journal.append(record(1))
    with pytest.raises(OperationalError):
        journal.close()
    assert [json.loads(path.read_bytes())["request_id"] for path in files(tmp_path)] == ["req_1"]


# --- rows that the database does not take ----------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(
    "values",
    [
        {"requested_model": "a\x00b"},
        {"client": "\x00"},
        {"error_code": "x\x00"},
        {"prompt_tokens": 10**12, "completion_tokens": 10**18},
    ],
)
def test_what_strangers_can_put_into_a_row(journal: Journal, values: dict[str, Any]) -> None:
    for number, more in enumerate([{}, values, {}]):
        journal.append(record(number, **more))
    journal.flush()
    assert ids() == ["req_0", "req_1", "req_2"]


@pytest.mark.django_db
@pytest.mark.parametrize("values", [{"status": 10**9}, {"cost": 10**40}, {"key_id": 10**30}, {"prompt_tokens": -5}])
def test_a_row_that_can_never_be_stored(
    journal: Journal, values: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    for number, more in enumerate([{}, values, {}]):
        journal.append(record(number, **more))
    journal.flush()
    assert {"req_0", "req_2"} <= set(ids())
    if "req_1" not in ids():  # SQLite takes some of them
        assert "req_1" in caplog.text, "what is left out is reported whole"
    assert journal.flush() == 0


# --- a full disk -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("room", [0, 40])
def test_a_full_disk(journal: Journal, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    journal.append(record(1))
    disk = FullDisk(monkeypatch, room)
    journal.append(record(2))
    assert journal.failing
    with pytest.raises(OSError, match=r"No space|no room"):
        journal.sync()
    journal.flush()
    assert ids() == ["req_1"]
    disk.room = 10_000
    journal.sync()
    assert not journal.failing
    journal.append(record(3))
    journal.flush()
    assert ids() == ["req_1", "req_2", "req_3"]


@pytest.mark.django_db
def test_the_end_of_a_process_on_a_full_disk(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(record(1))
    FullDisk(monkeypatch, 0)
    journal.append(record(2))
    journal.close()
    assert ids() == ["req_1", "req_2"], "the database is what it has left"


async def test_requests_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = Inside(tmp_path, snapshot(inside_model("m", inside_provider())), Pool(MockUpstream(completion()).transport))
    disk = FullDisk(monkeypatch, 0)
    assert (await house.post()).status == 200, "who was let in is answered"
    for _ in range(5):
        refused = await house.post()
        assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (503, "journal_full", "5")
    assert len(house.journal._waiting) == 1, "what is refused does not pile up in memory"
    disk.room = 10_000
    house.journal.sync()
    assert (await house.post()).status == 200
    assert len(house.records()) == 2, "nothing is lost"


# --- running servers -------------------------------------------------------------------------------------------------


def with_model(gateway: Gateway, upstream: Upstream) -> str:
    """A key for its model `m`."""
    gateway.load_catalog(catalog({"fake": provider(upstream.base_url)}, {"m": model(("fake", "there"))}))
    return gateway.key(name="usage")


class Crowd:
    """Clients that ask without pause, streamed and plain; `complete` holds the IDs of answers they have had whole."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.complete: set[str] = set()
        self._gateway, self._key = gateway, key
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=[number]) for number in range(20)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        body = {"model": "m", "messages": HELLO, "stream": bool(number % 2)}
        while not self._over.is_set():
            try:
                with self._gateway.client(self._key) as client:
                    while not self._over.is_set():
                        answer = client.post(CHAT, json=body)
                        if answer.status_code == 200 and (not body["stream"] or answer.text.endswith("[DONE]\n\n")):
                            self.complete.add(answer.headers["x-request-id"])
            except httpx.TransportError:
                time.sleep(0.02)

    def go(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)


@pytest.mark.parametrize(("server", "rounds"), [("daphne", 2), ("uvicorn", 1)])
def test_kill_9_under_load(make_gateway: MakeGateway, upstream: Upstream, server: str, rounds: int) -> None:
    upstream.answers(lambda got: chat_stream(*"abcdef", pause=0.005) if got.json["stream"] else completion())
    gateway = make_gateway(server=server)
    key = with_model(gateway, upstream)
    gateway.start()
    crowd = Crowd(gateway, key)
    try:
        for _ in range(rounds):
            time.sleep(random.uniform(0.3, 0.6))
            gateway.kill()
            gateway.start()
    finally:
        crowd.go()
    wait_for(lambda: crowd.complete <= {row["request_id"] for row in gateway.usage_rows()})
    stored = [row["request_id"] for row in gateway.usage_rows() if row["request_id"] in crowd.complete]
    assert len(crowd.complete) > 50
    assert len(stored) == len(crowd.complete), "each once"
    assert {row["status"] for row in gateway.usage_rows() if row["request_id"] in crowd.complete} == {200}


def test_the_database_away(make_gateway: MakeGateway, upstream: Upstream, postgres: Postgres) -> None:
    gateway = make_gateway("postgresql")
    key = with_model(gateway, upstream)
    name = gateway.database_url.split("?")[0].rsplit("/", 1)[1]
    with gateway, gateway.client(key) as client:
        assert client.post(CHAT, json={"model": "m", "messages": HELLO}).status_code == 200
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        wait_for(lambda: client.get("/health").json()["status"] == "degraded")
        answers = [client.post(CHAT, json={"model": "m", "messages": HELLO}) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}, "known keys work on"
        assert client.get("/health").status_code == 200
        assert client.get("/health/ready").status_code == 200
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        for answer in answers:
            assert gateway.usage_row(answer.headers["x-request-id"], 25)["status"] == 200
        wait_for(lambda: client.get("/health").json()["status"] == "healthy")
        assert key not in gateway.log
