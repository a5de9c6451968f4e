"""`manage.py jobs`: what an operator reads, and what a failure looks like to a script."""

from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from proxy import jobs
from proxy.models import Job
from tests import commands

pytestmark = pytest.mark.django_db
run = partial(commands.run, "jobs")
refusal = partial(commands.refusal, "jobs")


@pytest.fixture(autouse=True)
def _jobs(settings) -> None:
    settings.JOBS = {"count": (f"{__name__}.count", 90), "fail": (f"{__name__}.fail", 86400)}


def count() -> str:
    return "3 counted"


def fail() -> str:
    raise ValueError("no such thing")


def test_it_works():
    assert run("run", "count") == ("count: 3 counted\n", "")
    head, first, second = run("list")[0].splitlines()
    assert head.split("  ")[0] == "job"
    assert first.split()[:3] == ["count", "90", "s"]
    assert first.endswith("3 counted")
    assert second.split() == ["fail", "1", "day", "never", "-", "-", "now", "-"]


def test_a_failure():
    assert refusal("run", "fail") == "fail failed: ValueError: no such thing"
    assert "failed" in run("list")[0]


def test_no_such_job():
    assert refusal("run", "nothing") == "NAME: no job 'nothing'; there are count, fail."


def test_another_runs_it():
    Job.objects.create(name="count", runner="elsewhere:1", until=timezone.now() + timedelta(minutes=1))
    assert refusal("run", "count").startswith("count is being run by another process")
    assert "running at elsewhere:1" in run("list")[0]


def test_it_runs_whether_it_is_due_or_not():
    jobs.run_due()
    assert run("run", "count") == ("count: 3 counted\n", "")
