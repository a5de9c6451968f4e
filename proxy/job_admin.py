"""The console's page of the periodic jobs. `proxy.admin` imports it."""

from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from proxy import jobs
from proxy.models import Job

COLOURS = {"done": "success", "running": "info", "due": "warning", "failed": "danger"}


@admin.register(Job)
class JobAdmin(ModelAdmin):
    """The rows are the jobs' own: nothing to edit. One that never ran has none; `manage.py jobs list` has all."""

    list_display = ("name", "every", "state", "finished", "took", "outcome")
    list_display_links = None
    list_per_page = 50
    sortable_by = ()
    actions = ("run_soon",)

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        found: QuerySet[Job] = super().get_queryset(request)
        return found.filter(pk__in=settings.JOBS).annotate(now=Now())

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="every")
    def every(self, job: Job) -> str:
        return str(timedelta(seconds=jobs.status(job).seconds))

    @display(description="state", label=COLOURS)
    def state(self, job: Job) -> str:
        return jobs.status(job).state

    @display(description="finished, UTC")
    def finished(self, job: Job) -> str:
        moment = jobs.status(job).finished
        return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "—"

    @display(description="took")
    def took(self, job: Job) -> str:
        took = jobs.status(job).took
        return "—" if took is None else f"{took.total_seconds():.1f} s"

    @display(description="result")
    def outcome(self, job: Job) -> str:
        return jobs.status(job).result or "—"

    @admin.action(description="Run now", permissions=["change"])
    def run_soon(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        names = [job.name for job in queryset]
        jobs.ask(names)
        messages.success(request, f"Asked for: {', '.join(names)}. The next round of the scheduler runs them.")
