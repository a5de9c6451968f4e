"""The console's page of route troubles: credentials that are refused, circuits that are open. `proxy.admin` imports it.

The rows are `proxy.troubles`' own: they go away when it is over.
"""

from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from accounts.read_only import ReadOnlyAdmin
from proxy.health import ERRORS, REFUSED
from proxy.models import RouteTrouble

COLOURS = {"circuit open": "warning", "credential refused": "danger"}
_WORDS = {ERRORS: "circuit open", REFUSED: "credential refused"}


@admin.register(RouteTrouble)
class RouteTroubleAdmin(ReadOnlyAdmin):
    list_display = ("who", "what", "trouble", "status_said", "times", "since_when", "until_when")
    list_display_links = None
    list_filter = ("why", "provider")
    list_before_template: Any = "admin/proxy/routetrouble/about.html"
    list_per_page = 100
    ordering = ("since", "name")
    search_fields = ("provider", "credential", "model")
    sortable_by = ()
    actions = None

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}

    @display(description="provider")
    def who(self, row: RouteTrouble) -> SafeString:
        """A name of a place or way begins with the provider's number."""
        number = row.name.partition(".")[0]
        name = format_html("{} <small>{}</small>", row.provider, row.credential) if row.credential else row.provider
        if not number.isdecimal():
            return format_html("{}", name)
        return format_html(
            '<a href="{}" class="text-link">{}</a>',
            reverse("admin:models_catalog_provider_change", args=[number]),
            name,
        )

    @display(description="model there")
    def what(self, row: RouteTrouble) -> str:
        return row.model or "all of its models"

    @display(description="trouble", label=COLOURS)
    def trouble(self, row: RouteTrouble) -> str:
        return _WORDS.get(row.why, row.why)

    @display(description="status")
    def status_said(self, row: RouteTrouble) -> str:
        return str(row.status or "none")

    @display(description="since, UTC")
    def since_when(self, row: RouteTrouble) -> SafeString:
        return _moment(row.since)

    @display(description="tried again, UTC")
    def until_when(self, row: RouteTrouble) -> SafeString:
        if row.until <= timezone.now():
            return format_html('<span class="kd-nowrap">{}</span>', "from now on, now and then")
        return _moment(row.until)


def _moment(moment: datetime) -> SafeString:
    full = f"{moment:%Y-%m-%d %H:%M:%S}"
    return format_html('<span class="kd-number" title="{}">{}</span>', full, full[5:])
