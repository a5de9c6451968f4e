"""The journal: what is written survives everything, reaches the database once, and its disk is bounded."""

import errno
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
from django.db import OperationalError

from proxy import journal as journals
from proxy import marks, usage
from proxy.journal import Journal
from proxy.upstream import Pool
from proxy.usage import Record
from tests.conftest import MakeGateway
from tests.gateway import Gateway, catalog, internal, model, provider
from tests.processes import wait_for
from tests.proxy.inside import HELLO, Inside, snapshot
from tests.proxy.inside import model as inside_model
from tests.proxy.inside import provider as inside_provider
from tests.proxy.told import Told, ids, record
from tests.services import Postgres
from tests.upstreams import MockUpstream, Upstream, chat_stream, completion

CHAT = "/v1/chat/completions"
LARGE = "m" * 100


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Journal]:
    monkeypatch.setattr(journals, "MEASURE_SECONDS", 0.0)
    return lambda rotate_at=10_000, most=10**9: Journal(
        tmp_path, Told(), rotate_at=rotate_at, most=most, process="mine"
    )


@pytest.fixture
def journal(make: Callable[..., Journal]) -> Journal:
    return make()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "mine").glob("*.jsonl"))


def no_room(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


class FullDisk:
    """`os.write` into a disk that has room for `room` more bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(journals.os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.room:
            return no_room()
        done = self._write(fd, data[: self.room])
        self.room -= done
        return done


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
def test_an_open_request_is_no_row_yet(journal: Journal) -> None:
    journal.open(record(1))
    assert journal.flush() == 0
    journal.append(record(1))
    assert journal.flush() == 1
    assert ids() == ["req_1"]


@pytest.mark.django_db
@pytest.mark.parametrize("losses", ["", "l" * 1000])
def test_a_request_that_is_opened_again(journal: Journal, tmp_path: Path, losses: str) -> None:
    """Of all that opens it the last counts, whether it stands in its mark or in a file, and in the next one."""
    journal.open(record(1, losses=losses))
    journal.open(record(2, losses=losses))
    journal.open(record(2, losses=losses, prompt_tokens=7))
    for number in range(100):
        journal.append(record(f"more_{number}", requested_model=LARGE))
    for _ in range(2):
        journal.flush()
    assert files(tmp_path) == ["2.jsonl"]
    journal._marks.release()
    assert Journal(tmp_path, Told(), rotate_at=10_000, most=10**9).adopt() == 2
    assert usage.UsageRecord.objects.get(request_id="req_2").prompt_tokens == 7


def test_a_mark_is_used_again(journal: Journal) -> None:
    slots = set()
    for number in range(10):
        mark = journal.open(record(number))
        slots.add(mark.slot)
        journal.append(record(number))
        mark.set(5, 5)
    assert len(slots) == 1
    mark = journal.open(record(11, held=7))
    assert journal._marks.read(mark.slot) == (0, 7), "nothing of those before"


def test_a_record_is_not_changed(journal: Journal) -> None:
    asked = record(1)
    journal.open(asked)
    assert asked == record(1)


@pytest.mark.django_db
def test_a_large_file_gives_way_to_a_new_one(journal: Journal, tmp_path: Path) -> None:
    for number in range(100):
        journal.append(record(number, requested_model=LARGE))
    journal.flush()
    assert files(tmp_path) == ["1.jsonl", "2.jsonl"]
    journal.append(record(100))
    journal.flush()
    assert files(tmp_path) == ["2.jsonl"]
    assert len(ids()) == 101


@pytest.mark.django_db
def test_no_room_for_a_new_file(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one stays in use: its descriptor must not be closed under the next lines."""
    journal.open(record(200))
    for number in range(100):
        journal.append(record(number, requested_model=LARGE))
    for broken in ("open", "write"):
        with monkeypatch.context() as patch:
            patch.setattr(journals.os, broken, no_room)
            with pytest.raises(OSError, match="No space"):
                journal.flush()
        assert files(tmp_path) == ["1.jsonl"]
        journal.append(record(f"after_{broken}"))
    journal.flush()
    journal.append(record(101))
    journal.flush()
    assert len(ids()) == 103


@pytest.mark.django_db
def test_the_end_of_a_process(journal: Journal, tmp_path: Path) -> None:
    journal.append(record(1))
    journal.close()
    assert ids() == ["req_1"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.django_db
def test_the_end_of_a_process_with_a_request_open(journal: Journal, tmp_path: Path) -> None:
    journal.open(record(1)).set(3, 0)
    journal.close()
    assert Journal(tmp_path, Told(), rotate_at=10_000, most=10**9).adopt() == 1
    assert usage.UsageRecord.objects.get().completion_tokens == 3


def test_the_end_of_a_process_without_a_database(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Sequence[Record]) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(usage, "store", away)
    journal.append(record(1))
    with pytest.raises(OperationalError):
        journal.close()
    assert [json.loads((tmp_path / "mine" / name).read_bytes())["request_id"] for name in files(tmp_path)] == ["req_1"]


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
    journal.append(record(3))
    assert journal.failing, "no line overtakes one that waits"
    journal.sync()
    assert not journal.failing
    journal.append(record(4))
    journal.flush()
    assert ids() == ["req_1", "req_2", "req_3", "req_4"]


def test_a_mark_is_not_used_again_before_its_line_is_written(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = journal.open(record(1))
    mark.set(5, 6)
    slot = mark.slot
    disk = FullDisk(monkeypatch, 0)
    journal.append(record(1))
    assert journal.open(record(2)).slot != slot
    assert journal._marks.read(slot) == (5, 6), "should the process die now, the request is made of it"
    disk.room = 10_000
    journal.sync()
    assert journal.open(record(3)).slot == slot


@pytest.mark.django_db
@pytest.mark.parametrize("broken", ["posix_fallocate", "open"])
def test_a_process_that_begins_on_a_full_disk(
    make: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(marks.os, broken, no_room)
        journal = make()
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                journal.sync()
        assert journal.failing
        assert (journal.flush(), files(tmp_path)) == (0, [])
        journal.open(record(1)).set(1, 1)
        journal.append(record(1))
    journal.sync()
    assert not journal.failing
    assert journal.flush() == 1


@pytest.mark.django_db
def test_the_end_of_a_process_on_a_full_disk(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(record(1))
    FullDisk(monkeypatch, 0)
    journal.open(record(2))
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


# --- a bound on the disk ---------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_bound(make: Callable[..., Journal], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = make(rotate_at=10**9, most=5_000)
    for number in range(50):
        journal.append(record(number, requested_model=LARGE))
    journal.sync()
    assert journal.failing
    assert "grown to 5000 bytes" in caplog.text
    journal.append(record(50))
    assert not journal._waiting, "requests that run are written"
    for _ in range(2):
        journal.flush()  # moved, and its file is gone in the next round
        journal.sync()
    assert not journal.failing
    assert len(ids()) == 51


@pytest.mark.django_db
def test_the_bound_is_for_all_processes_together(make: Callable[..., Journal], tmp_path: Path) -> None:
    journal = make(most=5_000)
    other = Journal(tmp_path, Told(), rotate_at=10**9, most=10**9)
    for number in range(50):
        other.append(record(number, requested_model=LARGE))
    journal.sync()
    assert journal.failing
    other.close()
    journal.sync()
    assert not journal.failing


# --- running servers -------------------------------------------------------------------------------------------------


def with_model(gateway: Gateway, upstream: Upstream) -> str:
    """A key for its model `m`."""
    served = catalog({"fake": provider(upstream.base_url)}, {"m": model(("fake", "there"))})
    return gateway.set_up(served, name="usage")


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
                            self.complete.add(internal(answer.headers["x-request-id"]))
            except httpx.TransportError:
                time.sleep(0.02)

    def wait_for_answers(self, more: int) -> None:
        wanted = len(self.complete) + more
        wait_for(lambda: len(self.complete) >= wanted)

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
            crowd.wait_for_answers(20)
            time.sleep(random.uniform(0, 0.1))
            gateway.kill()
            gateway.start()
        crowd.wait_for_answers(1)
    finally:
        crowd.go()
    wait_for(lambda: crowd.complete <= {row["request_id"] for row in gateway.usage_rows()})
    rows = Counter((row["request_id"] in crowd.complete, row["error_code"]) for row in gateway.usage_rows())
    assert rows[True, ""] == len(crowd.complete), "each once"
    assert rows[False, "process_killed"], "what was cut off is marked"
    assert rows[True, "process_killed"] == 0, "and nothing else"


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
