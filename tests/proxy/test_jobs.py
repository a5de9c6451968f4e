"""Who runs a job and when: one runner at a time, no sooner than its time, whatever becomes of the runner."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from proxy import jobs
from proxy.models import Job
from tests.processes import wait_for

pytestmark = pytest.mark.django_db
CALLS: list[str] = []
STARTED, GO_ON = threading.Event(), threading.Event()


def work() -> str:
    CALLS.append("work")
    return "two  things\ndone"


def fail() -> str:
    CALLS.append("fail")
    raise OperationalError("the database\nhas\0gone")


def slow() -> None:
    CALLS.append("slow")
    STARTED.set()
    assert GO_ON.wait(10)


def leave() -> None:
    raise SystemExit(1)


def refuse(**_: object) -> int:
    CALLS.append("renewal")
    raise OperationalError("away")


@pytest.fixture(autouse=True)
def _jobs(settings) -> Iterator[None]:
    CALLS.clear()
    STARTED.clear()
    GO_ON.clear()
    settings.JOBS = {name: (f"{__name__}.{name}", 30) for name in ("work", "fail")}
    yield
    GO_ON.set()


def ago(name: str, seconds: float, **more: object) -> None:
    """As if it had begun so long ago."""
    Job.objects.filter(pk=name).update(started_at=timezone.now() - timedelta(seconds=seconds), **more)


def of(name: str) -> jobs.Status:
    return {status.name: status for status in jobs.statuses()}[name]


def test_it_works():
    assert of("work").state == "never"
    assert jobs.run("work") == (False, "two things done")
    found = of("work")
    assert (found.state, found.result, found.runner) == ("done", "two things done", "")
    assert found.took is not None
    assert timedelta(0) <= found.took < timedelta(seconds=5)
    assert Job.objects.get(pk="work").until is None


def test_not_before_its_time():
    jobs.run("work", 5)
    assert jobs.run("work", 5) is None
    ago("work", 27)
    assert jobs.run("work", 5) is None
    ago("work", 28)
    assert jobs.run("work", 5) is not None
    assert CALLS == ["work", "work"]


def test_by_hand_at_any_time():
    jobs.run("work")
    assert jobs.run("work") is not None


def test_what_is_due_runs_and_what_was_missed_runs_once(settings):
    jobs.run_due()
    jobs.run_due()
    assert sorted(CALLS) == ["fail", "work"]
    ago("work", 29)
    jobs.run_due()
    assert len(CALLS) == 2
    ago("work", 3000)
    jobs.run_due()
    jobs.run_due()
    assert CALLS[2:] == ["work"]


def test_a_job_that_raises(caplog):
    """It is noted in one line and logged in full; the others run, and it does not until its next time."""
    jobs.run_due()
    found = of("fail")
    assert (found.state, found.result) == ("failed", "OperationalError: the database has gone")
    assert "job fail failed" in caplog.text
    assert "Traceback" in caplog.text
    jobs.run_due()
    assert CALLS.count("fail") == 1


def test_a_runner_that_is_ended(settings):
    settings.JOBS = {"leave": (f"{__name__}.leave", 30)}
    with pytest.raises(SystemExit):
        jobs.run("leave")
    assert (of("leave").state, of("leave").result) == ("failed", "broken off")


def test_a_runner_that_was_killed():
    """It left its lease: until that is over nobody can know, then the job runs again at its next time."""
    jobs.run("work")
    ago("work", 50, runner="elsewhere", until=timezone.now() + timedelta(seconds=10))
    assert jobs.run("work") is None
    assert (of("work").state, of("work").runner) == ("running", "elsewhere")
    ago("work", 20, until=timezone.now() - timedelta(seconds=1))
    assert (of("work").state, of("work").result) == ("failed", "its runner has died")
    assert jobs.run("work", 5) is None
    ago("work", 50)
    assert jobs.run("work", 5) is not None


def test_one_that_is_asked_for():
    jobs.run_due()
    jobs.ask(["work"])
    assert of("work").state == "due"
    jobs.run_due()
    assert CALLS.count("work") == 2


# --- two at once -----------------------------------------------------------------------------------------------------


def started(name: str) -> threading.Thread:
    def run() -> None:
        jobs.run(name)
        connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.django_db(transaction=True)
def test_one_runner_at_a_time(settings):
    settings.JOBS = {"slow": (f"{__name__}.slow", 30)}
    threads = [started("slow") for _ in range(8)]
    assert STARTED.wait(10)
    wait_for(lambda: sum(thread.is_alive() for thread in threads) == 1)
    GO_ON.set()
    for thread in threads:
        thread.join(10)
    assert CALLS == ["slow"]
    assert of("slow").result == "done"


@pytest.mark.django_db(transaction=True)
def test_the_lease_of_a_long_job_is_renewed(settings, monkeypatch, caplog):
    """Also after the database was away for a moment."""
    monkeypatch.setattr(jobs, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(jobs, "LEASE", timedelta(seconds=20))
    settings.JOBS = {"slow": (f"{__name__}.slow", 30)}
    thread = started("slow")
    assert STARTED.wait(10)
    ago("slow", 100, until=timezone.now() - timedelta(seconds=1))
    wait_for(lambda: of("slow").state == "running")
    with monkeypatch.context() as patch:
        patch.setattr("django.db.models.query.QuerySet.update", lambda _, **words: refuse(**words))
        wait_for(lambda: "renewal" in CALLS)
    ago("slow", 100, until=timezone.now() - timedelta(seconds=1))
    wait_for(lambda: of("slow").state == "running")
    GO_ON.set()
    thread.join(10)
    assert "its lease was not renewed: away" in caplog.text


@pytest.mark.parametrize(("seconds", "words"), [
    (30, "30 s"), (90, "90 s"), (60, "1 min"), (3600, "1 h"), (5400, "90 min"), (86400, "1 day"), (172800, "2 days"),
    (0.5, "0.5 s"),
])  # fmt: skip
def test_every(seconds, words):
    assert jobs.every(seconds) == words
