"""What a dead process left: every row once, what was cut off by its mark, and no credit free before it is charged."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection

from accounts import credits
from accounts.models import Account
from proxy import marks, remains, usage
from proxy.journal import Journal
from proxy.models import UsageRecord
from proxy.usage import Record
from tests.proxy.told import PRICE, Told, charged, ids, record

pytestmark = pytest.mark.django_db


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def journal(tmp_path: Path, told: Told) -> Journal:
    """Of a process that lives."""
    return Journal(tmp_path, told, rotate_at=10_000, most=10**9)


@pytest.fixture
def doomed(tmp_path: Path, told: Told) -> Journal:
    """Of a process that is about to die."""
    return Journal(tmp_path, told, rotate_at=10_000, most=10**9, process="doomed")


@pytest.fixture
def account() -> Account:
    account = Account.objects.create(name="a", billing="prepaid")
    credits.grant(account, Decimal(1))
    return account


def kill(journal: Journal) -> None:
    """Its lock goes, as with the process; its map stays mapped, and is of no use any more."""
    journal._marks.release()


def begun(**values: Any) -> dict[str, Any]:
    """Of a request that is about to be asked of a provider."""
    return {"status": 0, "outcome": "refused", "model": "m", "prompt_tokens": 10, "price": PRICE, **values}


def away(_: Sequence[Record]) -> None:
    raise OperationalError("the database is away")


# --- what was still open ---------------------------------------------------------------------------------------------


def test_it_works(journal: Journal, doomed: Journal, tmp_path: Path) -> None:
    doomed.append(record(1))
    mark = doomed.open(record(2, **begun()))
    mark.set(5, 0)
    kill(doomed)
    assert journal.remains("doomed")
    assert journal.adopt() == 2
    assert not journal.remains("doomed")
    assert ids() == ["req_1", "req_2"]
    row = UsageRecord.objects.get(request_id="req_2")
    assert (row.outcome, row.error_code, row.status, row.estimated) == ("incomplete", "process_killed", 200, True)
    assert (row.prompt_tokens, row.completion_tokens, row.cost) == (10, 5, Decimal("0.00002"))


@pytest.mark.parametrize(
    ("held", "cost", "shortfall"), [(30_000, "0.00002", "0"), (15_000, "0.000015", "0.000005"), (0, "0", "0.00002")]
)
def test_charged_is_at_most_what_was_held(
    journal: Journal, doomed: Journal, account: Account, held: int, cost: str, shortfall: str
) -> None:
    doomed.open(charged(account, **begun())).set(5, held)
    kill(doomed)
    journal.adopt()
    row = UsageRecord.objects.get()
    assert (row.cost, row.shortfall, row.held) == (Decimal(cost), Decimal(shortfall), Decimal(held).scaleb(-9))
    assert credits.balance(account.pk) == 1 - Decimal(cost)
    assert credits.audit() == []


def test_cut_off_before_the_first_token(journal: Journal, doomed: Journal, account: Account) -> None:
    doomed.open(charged(account, **begun(held=12_000)))
    kill(doomed)
    journal.adopt()
    row = UsageRecord.objects.get()
    assert (row.status, row.completion_tokens, row.cost) == (503, 0, Decimal("0.00001")), "the prompt was read"


def test_a_model_without_a_price(journal: Journal, doomed: Journal) -> None:
    doomed.open(record(**begun(price=None))).set(5, 0)
    kill(doomed)
    journal.adopt()
    assert UsageRecord.objects.values_list("completion_tokens", "cost", "shortfall").get() == (5, None, 0)


def test_another_attempt(journal: Journal, doomed: Journal) -> None:
    first = doomed.open(record(**begun()))
    first.set(0, 1)
    second = doomed.open(record(**begun(model="other", price=(3, 4, None, None))))
    second.set(2, 1)
    kill(doomed)
    assert journal.adopt() == 1
    assert UsageRecord.objects.values_list("model", "cost").get() == ("other", Decimal(38).scaleb(-12))


def test_more_becomes_known_of_a_request(journal: Journal, doomed: Journal) -> None:
    doomed.open(record(**begun())).set(5, 0)
    doomed.open(record(**begun(prompt_tokens=20)))
    kill(doomed)
    journal.adopt()
    assert UsageRecord.objects.values_list("prompt_tokens", "completion_tokens").get() == (20, 5)


def test_what_was_closed(journal: Journal, doomed: Journal) -> None:
    doomed.open(record(1, **begun()))
    doomed.append(record(1))
    doomed.open(record(2, **begun()))
    doomed.flush()
    doomed.append(record(2))
    kill(doomed)
    assert journal.adopt() == 1, "the other had been moved"
    assert set(UsageRecord.objects.values_list("request_id", "outcome")) == {
        ("req_1", "complete"),
        ("req_2", "complete"),
    }


def test_files_of_one_process_are_read_together(tmp_path: Path, told: Told, journal: Journal) -> None:
    doomed = Journal(tmp_path, told, rotate_at=1, most=10**9, process="doomed")
    for number in (1, 2, 3):
        doomed.open(record(number, **begun())).set(number, 0)
    doomed.append(record(1))
    doomed.flush()
    doomed.append(record(2))
    assert len(list((tmp_path / "doomed").glob("*.jsonl"))) == 2
    kill(doomed)
    journal.adopt()
    rows = UsageRecord.objects.order_by("request_id").values_list("outcome", "completion_tokens")
    assert list(rows) == [("complete", 0), ("complete", 0), ("incomplete", 3)]


def test_an_opening_line_outlives_its_file(tmp_path: Path, told: Told, journal: Journal) -> None:
    doomed = Journal(tmp_path, told, rotate_at=1, most=10**9, process="doomed")
    mark = doomed.open(record(1, **begun()))
    for number in (2, 3, 4):
        doomed.append(record(number))
        doomed.flush()
    assert not (tmp_path / "doomed" / "1.jsonl").exists()
    mark.set(9, 0)
    kill(doomed)
    assert journal.adopt() == 1
    assert UsageRecord.objects.get(request_id="req_1").completion_tokens == 9


# --- holds -----------------------------------------------------------------------------------------------------------


def test_held_before_it_is_stored_and_landed_after(
    journal: Journal, doomed: Journal, told: Told, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    fund, store = f"a{account.pk}", usage.store
    monkeypatch.setattr(usage, "store", lambda lines: told.events.append(("stored", len(lines))) or store(lines))
    doomed.append(charged(account, 1, cost=1_500))
    doomed.append(record(2))
    doomed.open(charged(account, 3, **begun())).set(5, 20_000)
    kill(doomed)
    journal.adopt()
    held = [("held", "req_1", 2, (fund,)), ("held", "req_3", 20_000, (fund,))]
    assert told.events == [*held, ("stored", 2), ("landed", "req_1"), ("stored", 1), ("landed", "req_3")]
    assert told.amounts == credits.read([fund])


def test_what_has_landed_is_not_held_again(journal: Journal, doomed: Journal, told: Told, account: Account) -> None:
    doomed.append(charged(account, 1, cost=1_000))
    doomed.flush()
    doomed.append(charged(account, 2, cost=1_000))
    kill(doomed)
    told.events.clear()
    journal.adopt()
    assert told.events == [("held", "req_2", 1, (f"a{account.pk}",)), ("landed", "req_2")]


def test_killed_between_the_database_and_the_counters(
    journal: Journal, doomed: Journal, told: Told, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    doomed.append(charged(account, cost=1_000))
    with monkeypatch.context() as patch:
        patch.setattr(told, "landed", killed)
        with pytest.raises(KeyboardInterrupt):
            doomed.flush()
    kill(doomed)
    journal.adopt()
    assert told.events[-1] == ("landed", "req_1"), "else its hold would stay for ever"
    assert credits.balance(account.pk) == Decimal("0.999999999"), "charged once"
    assert credits.audit() == []


def test_the_database_away(
    journal: Journal, doomed: Journal, told: Told, account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed.append(charged(account, cost=1_000))
    kill(doomed)
    other = Journal(tmp_path, Told(), rotate_at=10_000, most=10**9)
    with monkeypatch.context() as patch:
        patch.setattr(usage, "store", away)
        for _ in range(2):
            with pytest.raises(OperationalError):
                journal.adopt()
    assert told.events == [("held", "req_1", 1, (f"a{account.pk}",))], "said once"
    assert other.adopt() == 0, "who has claimed it keeps it: his counters know of its holds"
    assert journal.remains("doomed")
    assert journal.adopt() == 1
    assert told.events[-1] == ("landed", "req_1")


def test_to_claim_needs_no_database(journal: Journal, doomed: Journal, told: Told, account: Account) -> None:
    doomed.append(charged(account, cost=1_000))
    kill(doomed)
    journal.claim()
    assert [event[0] for event in told.events] == ["held"]
    assert ids() == []
    assert journal.adopt() == 1


def test_the_adopter_dies_too(journal: Journal, doomed: Journal, tmp_path: Path, account: Account) -> None:
    doomed.append(charged(account, cost=1_000))
    kill(doomed)
    journal.claim()
    kill(journal)
    journal._remains[0].marks.release()
    assert Journal(tmp_path, Told(), rotate_at=10_000, most=10**9).adopt() == 1


# --- who may ---------------------------------------------------------------------------------------------------------


def test_a_living_process(journal: Journal, doomed: Journal) -> None:
    doomed.append(record(1))
    assert journal.adopt() == 0
    assert ids() == []
    assert journal.remains("doomed")
    doomed.flush()
    assert ids() == ["req_1"]


def adopt_at_once(*journals: Journal) -> list[int]:
    barrier = threading.Barrier(len(journals))

    def adopt(journal: Journal) -> int:
        barrier.wait()
        try:
            return journal.adopt()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(journals)) as pool:
        return list(pool.map(adopt, journals))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("are_one", [True, False], ids=["threads", "processes"])
def test_two_adopt_at_once(tmp_path: Path, *, are_one: bool) -> None:
    first = Journal(tmp_path, Told(), rotate_at=10_000, most=10**9)
    second = first if are_one else Journal(tmp_path, Told(), rotate_at=10_000, most=10**9)
    for turn in range(3):
        doomed = Journal(tmp_path, Told(), rotate_at=10**9, most=10**9)
        for number in range(50):
            doomed.append(record(100 * turn + number))
        kill(doomed)
        assert sorted(adopt_at_once(first, second)) == [0, 50]
    assert len(ids()) == 150


# --- what the disk may hold ------------------------------------------------------------------------------------------


def left_behind(folder: Path, *lines: bytes) -> None:
    process = folder / "dead"
    process.mkdir()
    (process / marks.NAME).write_bytes(bytes(16 * 10))
    (process / "1.jsonl").write_bytes(b"".join(lines))


def line(number: int) -> bytes:
    return usage.encode(record(number)) + b"\n"


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


def test_a_clients_text_like_that_of_a_line_that_opens(journal: Journal) -> None:
    journal.append(record(1, requested_model='","opened":5,"', client=',"opened":'))
    assert journal.flush() == 1
    assert UsageRecord.objects.values_list("requested_model", "client").get() == ('","opened":5,"', ',"opened":')


def test_a_file_larger_than_a_batch(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remains, "BATCH_BYTES", 500)
    left_behind(tmp_path, *(line(number) for number in range(40)))
    assert journal.adopt() == 40
    assert len(ids()) == 40


def test_marks_that_a_power_cut_took(journal: Journal, doomed: Journal, account: Account, tmp_path: Path) -> None:
    """What had been delivered is not known then; what was held is, of a request that was opened again."""
    for _ in range(2):
        doomed.open(charged(account, **begun(held=8_000))).set(5, 30_000)
    os.truncate(tmp_path / "doomed" / marks.NAME, 0)
    kill(doomed)
    journal.adopt()
    row = UsageRecord.objects.get()
    assert (row.completion_tokens, row.cost, row.shortfall) == (0, Decimal("0.000008"), Decimal("0.000002"))


def test_a_process_that_died_as_it_began(journal: Journal, tmp_path: Path) -> None:
    young, old = tmp_path / "young", tmp_path / "old"
    for folder in (young, old):
        folder.mkdir()
        (folder / "1.jsonl").touch()
    os.utime(old, (0, 0))
    assert journal.adopt() == 0
    assert young.exists(), "it may be about to live"
    assert not old.exists()


def test_what_is_not_ours_stays(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert journal.adopt() == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
