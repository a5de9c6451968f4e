"""The gateway's periodic jobs, each by what it leaves in the database."""

from datetime import timedelta

import pytest
from django.conf import settings as configured
from django.utils import timezone

from proxy import jobs, tasks
from proxy.models import Hold, UsageQuarter, UsageRecord

pytestmark = pytest.mark.django_db


def row(request_id: str, *, hours: float = 0.0, days: float = 0.0) -> UsageRecord:
    """Of so long ago."""
    moment = timezone.now() - timedelta(hours=hours, days=days)
    fields = {"status": 200, "outcome": "complete", "model": "m", "prompt_tokens": 10}
    return UsageRecord.objects.create(request_id=request_id, created_at=moment, **fields)


def test_it_works(settings):
    settings.JOBS = {"reap-holds": ("proxy.tasks.reap_holds", 60)}
    tasks.run_job("reap-holds", 60)
    assert [(status.state, status.result) for status in jobs.statuses()] == [("done", "0 holds taken away")]
    tasks.run_job("reap-holds", 60)
    assert tasks.run_job.name == "proxy.tasks.run_job"


@pytest.mark.parametrize("name", list(configured.JOBS))
def test_every_job_runs_where_there_is_nothing_to_do(name):
    done = jobs.run(name)
    assert done is not None
    assert not done.failed, done.result


def test_holds_of_dead_processes():
    now, minute = timezone.now(), timedelta(minutes=1)
    for name, expires in (("dead", now - minute), ("alive", now + minute), ("landing", None)):
        Hold.objects.create(request_id=name, fund="a1", amount=5, worker="w", expires_at=expires)
    assert tasks.reap_holds() == "1 holds taken away"
    assert sorted(Hold.objects.values_list("request_id", flat=True)) == ["alive", "landing"]


@pytest.mark.parametrize(("job", "made"), [(tasks.roll_up_hours, {1}), (tasks.roll_up_days, {1, 30})])
def test_sums_that_were_lost(job, made):
    """Neither the hourly nor the daily job looks at what is older than its span."""
    for hours in (70, 30, 1):
        row(f"r{hours}", hours=hours)
    assert job() == f"{len(made)} sums differed from their rows and were made anew"
    assert UsageQuarter.objects.count() == len(made)
    assert job() == "0 sums differed from their rows and were made anew"


def test_rows_that_are_too_old(settings):
    settings.USAGE_DAYS = 30
    row("old", days=31)
    row("new", days=29)
    assert tasks.retain() == "1 requests and 0 hours of uptime deleted"
    assert UsageRecord.objects.get().request_id == "new"
