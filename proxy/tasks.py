"""The gateway's periodic jobs, as `settings.JOBS` names them, and the one Celery task that runs any job.

A job takes no arguments, may be repeated and broken off at any time, and says in a short sentence what it did.
"""

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from proxy import jobs, rollups, troubles, uptime
from proxy.counters import database

HOURS = timedelta(hours=3)
DAYS = timedelta(days=2)


@shared_task  # type: ignore[untyped-decorator]
def run_job(name: str, tick: float) -> None:
    """Beat asks for every job each `tick` seconds or less often; the table `Job` decides whether it runs."""
    jobs.run(name, tick)


def reap_holds() -> str:
    """Of dead processes: those that Redis or a process keeps expire there."""
    return f"{database.reap()} holds taken away"


def roll_up_hours() -> str:
    return _rebuild(HOURS)


def roll_up_days() -> str:
    return _rebuild(DAYS)


def _rebuild(span: timedelta) -> str:
    now = timezone.now()
    return f"{rollups.rebuild(now - span, now)} sums differed from their rows and were made anew"


def notice_providers() -> str:
    return troubles.notice()


def retain() -> str:
    return f"{rollups.retain()} requests and {uptime.forget()} hours of uptime deleted"
