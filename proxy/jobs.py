"""The periodic jobs of `settings.JOBS`: each run by one runner at a time, over all processes and hosts.

With Redis, Celery's beat asks for each (`proxy.tasks.run_job`); without, the web process's scheduler does (`run_due`).
Both only ask: the table `Job` says what is due and who has it, by the database's clock. Times that were missed while
nobody asked are made up by one run. `manage.py jobs` and the console show the list.

No job resets budgets: a new period is a new fund (`accounts.credits.Fund`), with nothing spent.
"""

import logging
import math
import os
import secrets
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.module_loading import import_string

from accounts.notices import one_line
from proxy.models import Job

logger = logging.getLogger(__name__)

TICK = 5.0  # seconds between two looks of the web process's scheduler
LEASE = timedelta(seconds=60)  # a runner that has not renewed it for so long has died
RENEW_SECONDS = 20.0
MOST_RESULT = 300  # characters


class Done(NamedTuple):
    failed: bool
    result: str


class Status(NamedTuple):
    """A job of the list. `state`: never, due, running, failed or done. `again`: when it is due; None: now."""

    name: str
    seconds: float
    state: str
    runner: str = ""
    finished: datetime | None = None
    took: timedelta | None = None
    result: str = ""
    again: datetime | None = None


def every(seconds: float) -> str:
    """For people, in the largest unit of which it is so many: `90 s`, `1 h`, `2 days`."""
    for unit, size in (("day", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and not seconds % size:
            count = int(seconds // size)
            return f"{count} {unit}s" if unit == "day" and count > 1 else f"{count} {unit}"
    return f"{seconds:g} s"


def statuses() -> list[Status]:
    rows = {row.name: row for row in Job.objects.annotate(now=Now())}
    never = {name: Status(name, seconds, "never") for name, (_, seconds) in settings.JOBS.items()}
    return [status(rows[name]) if name in rows else never[name] for name in settings.JOBS]


def status(row: Job) -> Status:
    """Of a row that is annotated with `now`, the database's time."""
    name, seconds = row.name, settings.JOBS[row.name][1]
    now: datetime = row.now  # type: ignore[attr-defined]
    if row.until is not None and row.until > now:
        return Status(name, seconds, "running", row.runner)
    again = row.started_at and row.started_at + timedelta(seconds=seconds)
    due = again is None or again <= now
    if due:
        again = None
    if row.until is not None:
        return Status(name, seconds, "due" if due else "failed", result="its runner has died", again=again)
    took = row.finished_at - row.started_at if row.finished_at and row.started_at else None
    state = "due" if due else "failed" if row.failed else "done"
    return Status(name, seconds, state, "", row.finished_at, took, row.result, again)


def run_due() -> None:
    """A round of the web process's scheduler, every `TICK` seconds. Raises `DatabaseError`."""
    for job in statuses():
        if job.state in ("never", "due"):
            run(job.name, TICK)


def ask(names: Iterable[str]) -> None:
    """Let them run as soon as a scheduler looks."""
    Job.objects.filter(pk__in=names).update(started_at=None)


def run(name: str, tick: float = math.inf) -> Done | None:
    """Run the job where its time has come; None: it has not, or another runner has it. Raises `DatabaseError`.

    `tick`: seconds until it is asked for again: it runs now where that would be further from its time than now is.
    """
    path, seconds = settings.JOBS[name]
    runner = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(4)}"
    if not _claim(name, runner, seconds - min(tick / 2, seconds)):
        return None
    done = Done(True, "broken off")
    try:
        with _lease(name, runner):
            done = _work(name, path)
    finally:
        ours = Job.objects.filter(pk=name, runner=runner)
        ours.update(runner="", until=None, finished_at=Now(), failed=done.failed, result=done.result)
    return done


def _claim(name: str, runner: str, seconds: float) -> bool:
    """One UPDATE decides: of two runners that come at once, the second finds the row taken."""
    Job.objects.bulk_create([Job(name=name)], ignore_conflicts=True)
    free = Q(until=None) | Q(until__lt=Now())
    due = Q(started_at=None) | Q(started_at__lte=Now() - timedelta(seconds=seconds))
    return bool(Job.objects.filter(free, due, pk=name).update(runner=runner, until=Now() + LEASE, started_at=Now()))


@contextmanager
def _lease(name: str, runner: str) -> Iterator[None]:
    """Renewed while the job runs, however long that is; a runner that is killed leaves it to expire."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            try:
                Job.objects.filter(pk=name, runner=runner).update(until=Now() + LEASE)
            except DatabaseError as error:
                logger.warning("job %s: its lease was not renewed: %s", name, error)
                connection.close()  # the next try connects anew
        connection.close()

    thread = threading.Thread(target=renew, name=f"kodna-job-{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _work(name: str, path: str) -> Done:
    try:
        result = import_string(path)() or "done"
    except Exception as error:  # whatever it is, it is this job's trouble, and not the scheduler's
        logger.exception("job %s failed", name)
        if connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()  # so that the failure can be noted
        return Done(True, one_line(f"{type(error).__name__}: {error}", MOST_RESULT))
    return Done(False, one_line(str(result), MOST_RESULT))
