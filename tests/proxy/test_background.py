"""The thread beside the event loop: fresh tables, rounds that outlive faults, an orderly end."""

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import DatabaseError, OperationalError
from django.utils import timezone

from accounts import keys
from accounts.models import Account, ApiKey
from models_catalog.models import Model, Provider, Route, Vendor
from proxy import background
from proxy.background import Background, Tables, data_plane
from proxy.counters.memory import Memory
from proxy.journal import Journal
from tests.processes import wait_for


class Work:
    """Fails as it is told to."""

    def __init__(self, *faults: Exception | None) -> None:
        self.rounds = 0
        self._faults = list(faults)

    def __call__(self) -> None:
        self.rounds += 1
        fault = self._faults.pop(0) if self._faults else None
        if fault is not None:
            raise fault


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Background]:
    monkeypatch.setattr(background.connection, "close", lambda: None)

    def started(*rounds: tuple[float, Callable[[], object]], last: Callable[[], object] | None = None) -> Background:
        found = Background("test", list(rounds), last)
        found.start()
        assert found.settled.wait(5)
        return found

    return started


def test_it_works(start: Callable[..., Background]) -> None:
    often, once, last = Work(), Work(), Work()
    thread = start((0.01, often), (float("inf"), once), last=last)
    wait_for(lambda: often.rounds > 3)
    thread.stop()
    assert (once.rounds, last.rounds) == (1, 1)
    assert thread.trouble == ""


def test_a_thread_with_nothing_left_to_do_waits(start: Callable[..., Background]) -> None:
    """Infinity is no time that a lock takes."""
    thread = start((float("inf"), Work()))
    assert thread._thread.is_alive()
    thread.stop()
    assert not thread._thread.is_alive()


def test_the_database_is_away_for_a_while(start: Callable[..., Background], caplog: pytest.LogCaptureFixture) -> None:
    away = OperationalError("no route\nto host")
    work, other = Work(away, away, away), Work()
    thread = start((0.05, work), (0.01, other))
    assert thread.trouble == "OperationalError: no route"
    wait_for(lambda: work.rounds > 3)
    wait_for(lambda: thread.trouble == "")
    thread.stop()
    assert caplog.text.count("no route") == 1, "said once"
    assert "works again" in caplog.text
    assert other.rounds > 3


@pytest.mark.parametrize("fault", [OSError("disk"), DatabaseError("x"), ValueError("a bug"), OverflowError("x")])
def test_no_fault_ends_the_thread(start: Callable[..., Background], fault: Exception) -> None:
    work = Work(fault, fault)
    thread = start((0.01, work))
    wait_for(lambda: work.rounds > 3)
    thread.stop()


def test_an_end_that_fails(start: Callable[..., Background]) -> None:
    thread = start((0.01, Work()), last=Work(OSError("disk")))
    thread.stop()
    assert "disk" in thread.trouble


def test_the_end_of_one_that_never_began() -> None:
    Background("test", []).stop()


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tables(db: None) -> Tables:
    found = Tables()
    assert not found.loaded
    found.refresh()
    return found


def test_tables_are_loaded(tables: Tables) -> None:
    assert tables.loaded > 0
    assert tables.keys.by_digest == {}


def test_a_key_is_made_disabled_and_deleted(tables: Tables) -> None:
    key, text = keys.issue(Account.objects.create(name="a"), name="k")
    digest = keys.digest(text.encode())
    tables.refresh()
    assert tables.keys.by_digest[digest].is_active
    key.is_active = False
    key.save(update_fields=["is_active"])
    tables.refresh()
    assert not tables.keys.by_digest[digest].is_active
    key.delete()
    tables.refresh()
    assert digest not in tables.keys.by_digest


def test_an_account_is_switched_off(tables: Tables) -> None:
    account = Account.objects.create(name="a")
    _, text = keys.issue(account)
    account.is_active = False
    account.save(update_fields=["is_active"])
    tables.refresh()
    assert not tables.keys.by_digest[keys.digest(text.encode())].is_active


def test_an_expired_key_is_not_loaded(tables: Tables) -> None:
    key, text = keys.issue(Account.objects.create(name="a"))
    ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    Account.objects.get().save(update_fields=["notes"])
    tables.refresh()
    assert keys.digest(text.encode()) not in tables.keys.by_digest


def test_a_model_appears(tables: Tables) -> None:
    maker = Provider.objects.create(slug="p", dialect="openai", base_url="http://127.0.0.1:9/v1", api_key="k")
    model = Model.objects.create(slug="m", vendor=Vendor.objects.create(slug="v", name="V"))
    Route.objects.create(model=model, provider=maker, upstream_model="x")
    before = tables.catalog
    tables.refresh()
    assert tables.catalog is not before
    assert [route.model for route in tables.catalog.models["m"].routes] == ["x"]


def test_nothing_changed_is_nothing_loaded(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr(background.keys, "load", never)
    monkeypatch.setattr(background.snapshot, "load", never)
    tables.refresh()


def test_what_was_loaded_stays(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> int:
        raise OperationalError("away")

    known = tables.keys
    monkeypatch.setattr(background.keys, "version", away)
    with pytest.raises(OperationalError):
        tables.refresh()
    assert tables.keys is known


def test_the_data_plane(tmp_path: Path) -> None:
    found = data_plane(Tables(), Journal(tmp_path, Memory(), rotate_at=1000, most=1_000_000))
    assert [thread.trouble for thread in found] == ["", "", ""]
    for thread in found:
        thread.stop()


@pytest.mark.django_db
def test_tables_are_fresh_while_the_journal_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is revoked while a long journal moves to a database that is slow."""
    release, fresh = threading.Event(), threading.Event()
    journal = Journal(tmp_path, Memory(), rotate_at=1000, most=1_000_000)
    monkeypatch.setattr(journal, "flush", lambda: release.wait(10))
    found = Tables()
    monkeypatch.setattr(found, "refresh", fresh.set)
    threads = data_plane(found, journal)
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            fresh.clear()
            assert fresh.wait(2)
    finally:
        release.set()
        for thread in reversed(threads):
            thread.stop()
