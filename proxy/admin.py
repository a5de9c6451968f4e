"""The console's page of requests: to look at only, and quick with millions of rows: nothing here counts them all.

The page of one request is its receipt. The usage report hangs here too (`pages`).
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from accounts.credits import entry_of
from accounts.read_only import ReadOnlyAdmin
from proxy import (  # some pages register themselves
    attempts,
    explain_admin,  # noqa: F401
    job_admin,  # noqa: F401
    pages,
    request_ids,
    trouble_admin,  # noqa: F401
)
from proxy.models import UsageQuarter, UsageRecord

RECENT = 5_000  # the newest requests, among which a filter looks for names to offer
CHOICES = 50
SUMMED = 100_000  # sums run over at most this many requests, the newest

OUTCOME_COLOURS = {
    "complete": "success",
    "incomplete": "warning",
    "cancelled": "info",
    "failed": "danger",
    "refused": "warning",
}


def usd(amount: Decimal | None) -> str:
    """Dollars and cents; below ten cents, six decimals."""
    if amount is None:
        return "—"
    return f"${amount:,.2f}" if amount >= Decimal("0.1") or not amount else f"${amount:.6f}"


class RecentValueFilter(admin.SimpleListFilter):
    """Offers what the newest requests have in this column: to ask the whole table for its values would read it all."""

    field: ClassVar[str]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        newest = UsageRecord.objects.order_by("-created_at", "-pk").values_list(self.field, flat=True)
        found = dict.fromkeys(value for value in newest[:RECENT] if value)
        names = sorted(list(found)[:CHOICES])
        chosen = request.GET.get(str(self.parameter_name))
        if chosen and chosen not in names:
            names.insert(0, chosen)
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UsageRecord]) -> QuerySet[UsageRecord]:
        return queryset.filter(**{self.field: self.value()}) if self.value() else queryset


class ModelFilter(RecentValueFilter):
    title = "model"
    field, parameter_name = "model", "model__exact"


class ProviderFilter(RecentValueFilter):
    title = "provider"
    field, parameter_name = "provider", "provider__exact"


class KeyFilter(RecentValueFilter):
    title = "key"
    field, parameter_name = "key_prefix", "key_prefix__exact"


class AccountFilter(RecentValueFilter):
    title = "account"
    field, parameter_name = "account", "account__exact"


class LossesFilter(admin.SimpleListFilter):
    title = "lost something"
    parameter_name = "lost"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "Yes")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UsageRecord]) -> QuerySet[UsageRecord]:
        return queryset.filter(losses__gt="") if self.value() else queryset  # as the index usage_with_losses has it


@admin.register(UsageQuarter)
class UsageQuarterAdmin(ReadOnlyAdmin):
    """Where other models have their list, the quarters have the usage report, and no pages of their own."""

    def get_urls(self) -> list[URLPattern]:
        report = self.admin_site.admin_view(self.changelist_view)
        return [path("", report, name="proxy_usagequarter_changelist")]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if not self.has_view_permission(request):
            raise PermissionDenied
        request.current_app = self.admin_site.name
        return pages.usage_report(request, self.admin_site.each_context(request))


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    list_display = (*("time", "key", "models_used", "answered", "result", "tokens", "charged", "total", "is_stream"),)
    list_display_links = ("time",)
    list_filter = (
        "outcome",
        ("created_at", admin.DateFieldListFilter),
        ModelFilter,
        ProviderFilter,
        KeyFilter,
        AccountFilter,
        "endpoint",
        "streamed",
        LossesFilter,
    )
    list_before_template: Any = "admin/proxy/usagerecord/sums.html"
    list_fullwidth = True
    list_per_page = 100
    list_max_show_all = 0
    show_full_result_count = False
    paginator = InfinitePaginator
    search_fields = ("request_id__exact",)
    search_help_text = "Request ID"
    sortable_by = ()
    actions = None
    fieldsets = (
        (None, {"fields": ("full_id", "created_at", "endpoint", "outcome", "status", "error_code")}),
        ("Who", {"fields": ("key_link", "account_link", "client")}),
        ("What", {"fields": ("requested_model", "alias", "model", "streamed")}),
        ("Where", {"fields": ("provider", "upstream_model", "provider_format", "lost")}),
        (
            "Used",
            {
                "fields": (
                    ("prompt_tokens", "completion_tokens"),
                    ("cached_tokens", "cache_write_tokens"),
                    ("reasoning_tokens", "estimated"),
                )
            },
        ),
        ("Paid", {"fields": ("price_used", ("exact_cost", "most_held"), ("not_charged", "settled"))}),
        ("Time", {"fields": (("first_token", "whole"),)}),
        ("Attempts", {"fields": ("attempts_table",)}),
    )

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        answer = super().changelist_view(request, extra_context)
        context = getattr(answer, "context_data", None)
        if context and "cl" in context:
            context["sums"] = sums(context["cl"].queryset)
            for row in context["cl"].result_list:
                row.tried = attempts.tried(row) if attempts.mark(row) else []
        return answer

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UsageRecord], search_term: str
    ) -> tuple[QuerySet[UsageRecord], bool]:
        """By the id as a client was told it, too: that one has its route behind it."""
        return super().get_search_results(request, queryset, request_ids.internal(search_term.strip()))

    # --- columns ---

    @display(description="time, UTC")
    def time(self, row: UsageRecord) -> SafeString:
        full = f"{row.created_at:%Y-%m-%d %H:%M:%S}"
        return format_html('<span class="kd-number" title="{}">{}</span>', full, full[5:])

    @display(description="key")
    def key(self, row: UsageRecord) -> SafeString | str:
        if not row.key_prefix:
            return row.key_name or "—"
        prefix = f"{row.key_prefix}…"
        return format_html('<span title="{}, {}">{}</span>', prefix, row.account, row.key_name or prefix)

    @display(description="model")
    def models_used(self, row: UsageRecord) -> str:
        if row.requested_model in ("", row.model) or not row.model:
            return row.model or row.requested_model or "—"
        return f"{row.requested_model} → {row.model}"

    @display(description="provider")
    def answered(self, row: UsageRecord) -> SafeString | str:
        """And whether there is more to see of how it came to that: the row beneath is open as long as this is."""
        if not (words := attempts.mark(row)):
            return row.provider or "—"
        unfolds = '<span class="kd-who">{}<details class="kd-tries"><summary>{}</summary></details></span>'
        return format_html(unfolds, row.provider, words)

    @display(description="result", label=OUTCOME_COLOURS)
    def result(self, row: UsageRecord) -> tuple[str, str]:
        return row.outcome, f"{row.status} {row.outcome}"

    @display(description="tokens in → out")
    def tokens(self, row: UsageRecord) -> SafeString:
        counts = f"{row.prompt_tokens:,} → {row.completion_tokens:,}"
        return format_html('<span class="kd-number">{}{}</span>', "~" if row.estimated else "", counts)

    @display(description="cost")
    def charged(self, row: UsageRecord) -> SafeString:
        """Not `price`: the list would show the model's field of that name."""
        return format_html('<span class="kd-number">{}</span>', usd(row.cost))

    @display(description="total")
    def total(self, row: UsageRecord) -> SafeString:
        return format_html('<span class="kd-number">{}</span>', attempts.duration(row.total_ms))

    @display(description="stream")
    def is_stream(self, row: UsageRecord) -> str:
        return "yes" if row.streamed else ""

    # --- the page of one request ---

    @display(description="key")
    def key_link(self, row: UsageRecord) -> SafeString | str:
        words = f"{row.key_name or 'no name'} ({row.key_prefix}…)" if row.key_prefix else row.key_name
        if not row.key_id:
            return words or "—"
        url = reverse("admin:accounts_apikey_change", args=[row.key_id])
        return format_html('<a href="{}" class="text-link">{}</a>', url, words)

    @display(description="request ID")
    def full_id(self, row: UsageRecord) -> str:
        return row.request_id

    @display(description="account")
    def account_link(self, row: UsageRecord) -> SafeString | str:
        if not row.account_id:
            return row.account or "—"
        url = reverse("admin:accounts_account_change", args=[row.account_id])
        return format_html('<a href="{}" class="text-link">{}</a>', url, row.account or row.account_id)

    @display(description="cost, USD")
    def exact_cost(self, row: UsageRecord) -> str:
        return "no price is known" if row.cost is None else f"{row.cost:f}"

    @display(description="price, USD per million tokens")
    def price_used(self, row: UsageRecord) -> str:
        known = {kind: amount for kind, amount in (row.price or {}).items() if amount is not None}
        return ", ".join(f"{kind.replace('_', ' ')} {amount}" for kind, amount in known.items()) or "none is known"

    @display(description="held, USD")
    def most_held(self, row: UsageRecord) -> str:
        return "nothing" if row.held is None else f"{row.held:f}"

    @display(description="not charged, USD")
    def not_charged(self, row: UsageRecord) -> str:
        return f"{row.shortfall:f}"

    @display(description="in the ledger")
    def settled(self, row: UsageRecord) -> SafeString | str:
        entry = entry_of(row.request_id)
        if entry is None:
            return "nothing was charged" if row.metered else "no: the account was unmetered"
        url = reverse("admin:accounts_ledgerentry_change", args=[entry.pk])
        return format_html('<a href="{}" class="text-link">entry {}: {} USD</a>', url, entry.pk, f"{entry.amount:f}")

    @display(description="first token")
    def first_token(self, row: UsageRecord) -> str:
        return "—" if row.first_token_ms is None else f"{row.first_token_ms:,.1f} ms"

    @display(description="total")
    def whole(self, row: UsageRecord) -> str:
        return f"{row.total_ms:,.1f} ms"

    @display(description="lost")
    def lost(self, row: UsageRecord) -> SafeString | str:
        """Client's fields, by their paths, that the other format could not say."""
        names = format_html_join(", ", "<code>{}</code>", ((name,) for name in row.losses.split(",") if name))
        return names or "nothing"

    @display(description="attempts")
    def attempts_table(self, row: UsageRecord) -> SafeString | str:
        """One line per route tried."""
        tried = attempts.tried(row)
        return render_to_string("admin/proxy/usagerecord/attempts.html", {"tried": tried}) if tried else "none"


def sums(queryset: QuerySet[UsageRecord]) -> dict[str, Any]:
    """Over the newest `SUMMED` of these requests: more would make the page wait for a walk through the whole table."""
    newest = queryset.order_by("-created_at", "-pk").values("prompt_tokens", "completion_tokens", "cost")[:SUMMED]
    found = newest.aggregate(
        requests=Count("*"), tokens_in=Sum("prompt_tokens"), tokens_out=Sum("completion_tokens"), cost=Sum("cost")
    )
    return {
        "requests": f"{found['requests']:,}",
        "tokens_in": f"{found['tokens_in'] or 0:,}",
        "tokens_out": f"{found['tokens_out'] or 0:,}",
        "cost": usd(found["cost"]),
        "bound": f"{SUMMED:,}" if found["requests"] == SUMMED else "",
    }
