"""The console's page of the jobs."""

from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.test import Client, RequestFactory
from django.utils import timezone

from accounts.models import User
from proxy import jobs
from proxy.job_admin import WHAT, JobAdmin
from proxy.models import Job

PAGE = "/admin/proxy/job/"


@pytest.fixture
def operator(db, client, settings) -> Client:
    settings.JOBS = dict.fromkeys(("first", "second", "other"), (f"{__name__}.work", 90))
    client.force_login(User.objects.create_superuser("admin"))
    return client


def work() -> str:
    return "3 <counted>"


def test_it_works(operator):
    jobs.run("first")
    Job.objects.create(name="second", runner="elsewhere", until=timezone.now() + timedelta(minutes=1))
    Job.objects.create(name="of an older release")
    answer = operator.get(PAGE)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert "3 &lt;counted&gt;" in text
    assert "90 s" in text
    assert "running" in text
    assert "of an older release" not in text


def test_every_job_says_what_it_does():
    assert WHAT.keys() == settings.JOBS.keys()


def test_when_it_runs_next(operator):
    jobs.run("first")
    row = Job.objects.get(name="first")
    Job.objects.create(name="second")
    text = operator.get(PAGE).content.decode()
    assert f"{row.started_at + timedelta(seconds=90):%Y-%m-%d %H:%M:%S}" in text
    assert '<span class="kd-number" title="">now</span>' in text


def test_run_now(operator):
    jobs.run_due()
    assert f'formaction="{PAGE}second/run/"' in operator.get(PAGE).content.decode()
    answer = operator.post(f"{PAGE}second/run/", {"filters": ""}, follow=True)
    assert "The next round of the scheduler runs second." in answer.content.decode()
    assert [status.state for status in jobs.statuses()] == ["done", "due", "done"]


@pytest.mark.parametrize(("name", "status"), [("third", 404), ("of-an-older-release", 404)])
def test_no_such_job(operator, name, status):
    Job.objects.create(name="of-an-older-release")
    assert operator.post(f"{PAGE}{name}/run/").status_code == status


def test_a_link_alone_runs_nothing(operator):
    jobs.run("first")
    assert operator.get(f"{PAGE}first/run/").status_code == 405
    assert jobs.statuses()[0].state == "done"


def test_an_onlooker_runs_nothing(operator):
    jobs.run("first")
    user = User.objects.create_user("onlooker", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_job"))
    operator.force_login(user)
    assert "/run/" not in operator.get(PAGE).content.decode()
    assert operator.post(f"{PAGE}first/run/").status_code == 403


def test_nothing_is_made_or_deleted_here(operator):
    request = RequestFactory().get(PAGE)
    request.user = User.objects.get()
    page = JobAdmin(Job, admin.site)
    assert not page.has_add_permission(request)
    assert not page.has_delete_permission(request)
