"""The console's page of the periodic jobs. `proxy.admin` imports it."""

from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from proxy import jobs
from proxy.models import Job

COLOURS = {"done": "success", "running": "info", "due": "warning", "failed": "danger"}
WHAT = {
    "discover-models": "Asks providers which models they have, each at its own interval.",
    "reap-holds": "Frees credit that was held by processes that died.",
    "notice-low-balances": "Notes accounts whose balance is low.",
    "notice-budgets": "Notes keys that have spent 80 or 100 percent of their budget.",
    "notice-expiring-keys": "Notes keys that expire within seven days.",
    "notice-providers": "Notes credentials that their provider refuses, and routes that have failed for long.",
    "deliver-notices": "Sends notices by mail and webhook.",
    "roll-up-hours": "Checks the usage sums of the last hours against the requests.",
    "roll-up-days": "Checks the usage sums of the last days against the requests.",
    "retention": "Deletes requests older than KODNA_USAGE_DAYS, where that is set. Their sums stay.",
    "forget-notices": "Deletes notices that were resolved 90 days ago.",
}


@admin.register(Job)
class JobAdmin(ModelAdmin):
    """The rows are the jobs' own: nothing to edit. One that never ran has none; `manage.py jobs list` has all."""

    list_display = ("title", "every", "state", "finished", "took", "outcome", "again", "run")
    list_display_links = None
    list_per_page = 50
    sortable_by = ()
    actions = None
    list_before_template: Any = "admin/row_form.html"

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        found: QuerySet[Job] = super().get_queryset(request)
        return found.filter(pk__in=settings.JOBS).annotate(now=Now())

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_list_display(self, request: HttpRequest) -> Any:
        """The button is for those who may press it."""
        return [name for name in self.list_display if name != "run" or self.has_change_permission(request)]

    @display(description="job")
    def title(self, job: Job) -> SafeString:
        what = WHAT.get(job.name, "")
        return format_html('<div><span class="kd-job">{}</span><small class="kd-what">{}</small></div>', job.name, what)

    @display(description="every")
    def every(self, job: Job) -> SafeString:
        return format_html('<span class="kd-nowrap">{}</span>', jobs.every(jobs.status(job).seconds))

    @display(description="state", label=COLOURS)
    def state(self, job: Job) -> str:
        return jobs.status(job).state

    @display(description="finished, UTC")
    def finished(self, job: Job) -> SafeString:
        return _moment(jobs.status(job).finished, "—")

    @display(description="next, UTC")
    def again(self, job: Job) -> SafeString:
        status = jobs.status(job)
        return _moment(status.again, "—" if status.runner else "now")

    @display(description="took")
    def took(self, job: Job) -> str:
        took = jobs.status(job).took
        return "—" if took is None else f"{took.total_seconds():.1f} s"

    @display(description="result")
    def outcome(self, job: Job) -> str:
        return jobs.status(job).result or "—"

    @display(description="")
    def run(self, job: Job) -> SafeString:
        url = reverse("admin:proxy_job_run", args=[job.name])
        return format_html(
            '<button type="submit" form="kd-row-form" formaction="{}" class="kd-row-button"'
            ' aria-label="Run {} now">Run now</button>',
            *(url, job.name),
        )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.run_view)
        return [path("<str:name>/run/", view, name="proxy_job_run"), *super().get_urls()]

    def run_view(self, request: HttpRequest, name: str) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_change_permission(request):
            raise PermissionDenied
        if name not in settings.JOBS:
            raise Http404("No such job.")
        jobs.ask([name])
        messages.success(request, f"The next round of the scheduler runs {name}.")
        return HttpResponseRedirect(reverse("admin:proxy_job_changelist"))


def _moment(moment: datetime | None, otherwise: str) -> SafeString:
    full = f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""
    return format_html('<span class="kd-number" title="{}">{}</span>', full, full[5:] or otherwise)
