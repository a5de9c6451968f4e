"""The console's page of the notices, open ones first. `accounts.admin` imports it."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display

from accounts.models import Notice
from accounts.read_only import ReadOnlyAdmin


class OpenFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "open"), ("resolved", "resolved")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Notice]) -> QuerySet[Notice]:
        return queryset.filter(ended_at__isnull=self.value() == "open") if self.value() else queryset


@admin.register(Notice)
class NoticeAdmin(ReadOnlyAdmin):
    list_display = ("time", "words", "state", "sent")
    list_display_links = None
    list_filter = (OpenFilter, "kind", ("account", admin.RelatedOnlyFieldListFilter))
    list_per_page = 50
    ordering = (F("ended_at").desc(nulls_first=True), "-created_at")
    sortable_by = ()
    search_fields = ("text",)
    actions = None

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Notice]:
        found: QuerySet[Notice] = super().get_queryset(request)
        return found.prefetch_related("deliveries")

    @display(description="since, UTC")
    def time(self, notice: Notice) -> SafeString:
        return format_html('<span class="kd-number">{}</span>', f"{notice.created_at:%Y-%m-%d %H:%M}")

    @display(description="notice")
    def words(self, notice: Notice) -> str:
        return notice.text

    @display(description="state", label={"open": "warning", "resolved": "success"})
    def state(self, notice: Notice) -> str:
        return "resolved" if notice.ended_at else "open"

    @display(description="sent")
    def sent(self, notice: Notice) -> SafeString | str:
        rows = ((each.trouble, each) for each in notice.deliveries.all())
        return format_html_join(SafeString("<br>"), '<span title="{}">{}</span>', rows) or "—"
