"""The console's page of the jobs."""

from datetime import timedelta

import pytest
from django.contrib import admin
from django.test import Client, RequestFactory
from django.utils import timezone

from accounts.models import User
from proxy import jobs
from proxy.job_admin import JobAdmin
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
    assert "0:01:30" in text
    assert "running" in text
    assert "of an older release" not in text


def test_run_now(operator):
    jobs.run_due()
    answer = operator.post(PAGE, {"action": "run_soon", "_selected_action": ["first", "second"]}, follow=True)
    assert "Asked for: first, second." in answer.content.decode()
    assert [status.state for status in jobs.statuses()] == ["due", "due", "done"]


def test_nothing_is_made_or_deleted_here(operator):
    request = RequestFactory().get(PAGE)
    request.user = User.objects.get()
    page = JobAdmin(Job, admin.site)
    assert not page.has_add_permission(request)
    assert not page.has_delete_permission(request)
