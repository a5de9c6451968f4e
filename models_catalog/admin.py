"""The console's pages for the catalog: vendors, providers with their credentials, models, aliases, announcements."""

from typing import Any, ClassVar

from django.apps import apps
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.core.exceptions import PermissionDenied
from django.db.models import Count, DecimalField, Exists, OuterRef, Q, QuerySet, Subquery, TextField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminExpandableTextareaWidget

from models_catalog import checks, discovery, pages, snapshot
from models_catalog import models as rows
from models_catalog.forms import (
    AmountField,
    CatalogForm,
    CredentialForm,
    CredentialFormSet,
    ModelForm,
    PickForm,
    ProviderForm,
)


class CatalogModelAdmin(ModelAdmin):
    """What the pages share: own style, and writing only what the form changed, for other processes write here too."""

    formfield_overrides = {TextField: {"widget": UnfoldAdminExpandableTextareaWidget}}  # type: ignore[assignment, misc]

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}
        js = ("admin_kodna/console.js",)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.save()
        elif columns := self.changed_columns(form):
            obj.save(update_fields=columns)

    def changed_columns(self, form: Any) -> list[str]:
        columns = {field.name for field in self.opts.concrete_fields}
        return [name for name in form.changed_data if name in columns]


class Switchable(CatalogModelAdmin):
    """A row with `is_active`: switched by one click, from the list and from its own page."""

    list_before_template: Any = "admin/row_form.html"

    def _name(self, view: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.switch_view)
        return [path("<int:pk>/switch/", view, name=self._name("switch")), *super().get_urls()]

    def get_list_display(self, request: HttpRequest) -> Any:
        """The button is for those who may press it."""
        return [name for name in self.list_display if name != "switch" or self.has_change_permission(request)]

    def permitted(self, request: HttpRequest, pk: int) -> Any:
        row = self.get_queryset(request).filter(pk=pk).first()
        if row is None:
            raise Http404("No such row.")
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        return row

    def switch_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = self.permitted(request, pk)
        row.is_active = request.POST.get("to") == "1"
        row.save(update_fields=["is_active"])
        words = "Switched on" if row.is_active else "Switched off"
        self.log_change(request, row, f"{words}.")
        messages.success(request, f"{words}: {row}.")
        if request.POST.get("from") == "page":
            return HttpResponseRedirect(reverse(f"admin:{self._name('change')}", args=[pk]))
        kept = request.POST.get("filters", "")
        return HttpResponseRedirect(reverse(f"admin:{self._name('changelist')}") + (f"?{kept}" if kept else ""))

    @display(description="")
    def switch(self, row: Any) -> SafeString:
        to, word = (0, "Switch off") if row.is_active else (1, "Switch on")
        return format_html(
            '<button type="submit" form="kd-row-form" formaction="{}" name="to" value="{}" class="kd-row-button"'
            ' aria-label="{}: {}">{}</button>',
            *(reverse(f"admin:{self._name('switch')}", args=[row.pk]), to, word, row, word),
        )


@admin.register(rows.Vendor)
class VendorAdmin(CatalogModelAdmin):
    list_display = ("name", "slug", "model_count", "position")
    search_fields = ("name", "slug")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).annotate(model_count=Count("models"))

    @display(description="models", ordering="model_count")
    def model_count(self, vendor: Any) -> SafeString:
        url = f"{reverse('admin:models_catalog_model_changelist')}?vendor__id__exact={vendor.pk}"
        return format_html('<a href="{}" class="text-link">{}</a>', url, vendor.model_count)


class CredentialInline(TabularInline):
    """Whoever may change a provider may change its credentials: so the form that guards them is always there."""

    model = rows.Credential
    form = CredentialForm
    formset = CredentialFormSet
    hide_title = True
    fields = ("name", "api_key", "weight", "is_active", "state")
    readonly_fields = ("state",)
    extra = 0
    verbose_name_plural = "more credentials: requests go to all of them, by weight"

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("models_catalog.view_provider"))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(f"models_catalog.{'change' if obj else 'add'}_provider"))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)

    @display(description="state")
    def state(self, row: rows.Credential) -> str:
        if row.pk is None:
            return "new"
        found = (each for each in snapshot.freeze_provider(row.provider) if each.name == row.name)
        return next((each.fault for each in found), "") or "live"


@admin.register(rows.Provider)
class ProviderAdmin(Switchable):
    form = ProviderForm
    inlines = (CredentialInline,)
    list_display = ("slug", "dialect", "address", "state", "model_count", "switch")
    list_filter = ("is_active", "dialect")
    search_fields = ("slug", "base_url")
    change_form_outer_before_template: Any = "admin/models_catalog/provider/toolbar.html"
    TIMEOUTS = ("connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout")

    def get_queryset(self, request: HttpRequest) -> Any:
        counted = super().get_queryset(request).annotate(model_count=Count("routes__model", distinct=True))
        troubles = apps.get_model(settings.ROUTE_TROUBLES).objects.filter(provider=OuterRef("slug"))
        marked = counted.annotate(refuses=Exists(troubles.filter(why="refused")), fails=Exists(troubles))
        return marked.prefetch_related("credentials")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        stored = obj is not None and obj.api_key != ""
        credential = ("api_key", "clear_api_key") if stored else ("api_key",)
        return (
            (None, {"fields": ("slug", "dialect", "base_url", *credential, "is_active", "discovers")}),
            ("What it serves", {"fields": ("groups", "supports", "headers")}),
            ("Timeouts and load", {"fields": (self.TIMEOUTS[:2], self.TIMEOUTS[2:], "max_concurrency")}),
            ("Departures from the dialect", {"fields": ("quirks",), "classes": ("collapse",)}),
        )

    def changed_columns(self, form: Any) -> list[str]:
        """Not the credential where none was typed: one that cannot be decrypted stays as it is."""
        cleared = ["api_key"] if "clear_api_key" in form.changed_data else []
        return [*super().changed_columns(form), *cleared]

    @display(description="base URL", ordering="base_url")
    def address(self, provider: rows.Provider) -> SafeString:
        return format_html('<span class="kd-address" title="{0}">{0}</span>', provider.base_url)

    @display(description="state")
    def state(self, provider: rows.Provider) -> SafeString | str:
        fault = snapshot.why_unusable(provider)
        if provider.is_active and fault:
            return fault
        kind, word = ("good", "live") if provider.is_active else ("bad", "off")
        words = "; ".join(checks.credential_faults(provider))
        if provider.is_active and (trouble := self._trouble(provider)):
            kind, word = "bad", trouble
        return format_html('<span class="kd-badge kd-badge-{}">{}</span> {}', kind, word, words)

    def _trouble(self, provider: Any) -> str:
        """What the gateway has met there lately: the page Route troubles says more."""
        if provider.refuses:
            return "refuses a credential"
        return "fails" if provider.fails else ""

    @display(description="models", ordering="model_count")
    def model_count(self, provider: Any) -> int:
        return int(provider.model_count)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        provider = self.get_object(request, object_id)
        extra: dict[str, Any] = {}
        if provider:
            extra = {"fault": snapshot.why_unusable(provider), "faults": checks.credential_faults(provider)}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **extra})

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        """A new provider's next step is its Test button: on to its page, as Django does with new users."""
        if "_addanother" not in request.POST and IS_POPUP_VAR not in request.POST:
            data = request.POST.copy()
            data["_continue"] = "1"
            request.POST = data  # type: ignore[assignment]
        return super().response_add(request, obj, post_url_continue)

    # --- asking the provider ---

    def get_urls(self) -> list[URLPattern]:
        guard = self.admin_site.admin_view
        return [
            path("<int:pk>/test/", guard(self.test_view), name="models_catalog_provider_test"),
            path("<int:pk>/models/", guard(self.models_view), name="models_catalog_provider_models"),
            *super().get_urls(),
        ]

    def _probe_page(self, request: HttpRequest, provider: rows.Provider, **context: Any) -> HttpResponse:
        """It is asked with every credential, also while it is off or did not answer last time."""
        request.current_app = self.admin_site.name
        probed = list(discovery.probe_all(provider))
        names = list(dict.fromkeys(name for each in probed for name in each.names))
        there = set(provider.routes.values_list("upstream_model", flat=True))
        listed = [{"name": name, "there": name in there} for name in names]
        common = {**self.admin_site.each_context(request), "opts": self.opts, "original": provider, "media": self.media}
        found = {"probed": probed, "listed": listed, "new": sum(not entry["there"] for entry in listed)}
        return TemplateResponse(request, "admin/models_catalog/provider/probe.html", {**common, **found, **context})

    def test_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        provider = self.permitted(request, pk)
        return self._probe_page(request, provider, title=f"Test of {provider}")

    def models_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """First the list to choose from, then, with `add`, the ones chosen."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        provider = self.permitted(request, pk)
        if not request.user.has_perm("models_catalog.add_model"):
            raise PermissionDenied
        title = f"Add models from {provider}"
        if "add" not in request.POST:
            return self._probe_page(request, provider, title=title, choosing=True)
        form = PickForm(request.POST)
        if not form.is_valid():
            return self._probe_page(request, provider, title=title, choosing=True, errors=form.errors["names"])
        count = discovery.add_models(provider, form.cleaned_data["names"])
        self.log_change(request, provider, f"Added {count} of its models.")
        messages.success(request, f"Added from {provider}: {count} model{'' if count == 1 else 's'}.")
        return HttpResponseRedirect(reverse("admin:models_catalog_model_changelist"))


class RouteInline(TabularInline):
    model = rows.Route
    hide_title = True
    verbose_name_plural = "routes; USD: what the provider charges per million tokens, for the strategy “cheapest”"
    fields = ("provider", "upstream_model", "priority", "weight", "price_input", "price_output", "is_active", "state")
    readonly_fields = ("state",)
    extra = 0
    formfield_overrides = {DecimalField: {"form_class": AmountField}}  # type: ignore[assignment, misc]

    def get_queryset(self, request: HttpRequest) -> QuerySet[rows.Route]:
        routes = super().get_queryset(request).select_related("provider", "model")
        return routes.prefetch_related("provider__credentials")

    @display(description="state")
    def state(self, route: rows.Route) -> str:
        if route.pk is None:
            return "new"
        return checks.route_fault(route) or "live"


class PriceInline(TabularInline):
    model = rows.Price
    hide_title = True
    fields = ("valid_from", "input", "output", "cached_input", "cache_write", "source")
    extra = 0
    verbose_name_plural = "prices, USD per million tokens"
    formfield_overrides = {DecimalField: {"form_class": AmountField}}  # type: ignore[assignment, misc]


class LiveFilter(admin.SimpleListFilter):
    title = "live"
    parameter_name = "live"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "has a live route"), ("no", "has none")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        match self.value():
            case "yes":
                return queryset.filter(live__gt=0)
            case "no":
                return queryset.filter(live=0)
        return queryset


def unpriced(queryset: Any) -> Any:
    """The models of which nobody can say what a request costs."""
    now = rows.Price.objects.filter(model=OuterRef("pk"), valid_from__lte=timezone.now()).order_by("-valid_from")[:1]
    prices = queryset.annotate(price_in=Subquery(now.values("input")), price_out=Subquery(now.values("output")))
    return prices.filter(Q(price_in=None) | Q(price_out=None))


class PriceFilter(admin.SimpleListFilter):
    title = "price"
    parameter_name = "price"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "has one"), ("no", "has none")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        match self.value():
            case "yes":
                return queryset.exclude(pk__in=unpriced(rows.Model.objects.all()).values("pk"))
            case "no":
                return unpriced(queryset)
        return queryset


NAMED = 10  # of the models without a price
RATE = (("rps", "rpm"), ("tpm", "concurrency"))


@admin.register(rows.Model)
class ModelAdminPage(Switchable):
    form = ModelForm
    list_display = ("slug", "vendor", "context_size", "output_size", "price", "state", "switch")
    list_before_template: Any = "admin/models_catalog/model/todo.html"
    list_filter = (LiveFilter, PriceFilter, "is_active", "vendor")
    list_select_related = ("vendor",)
    list_per_page = 50
    search_fields = ("slug", "name", "aliases__slug")
    search_help_text = "ID, name or alias"
    readonly_fields = ("created_at",)
    inlines = (RouteInline, PriceInline)
    change_form_outer_before_template: Any = "admin/models_catalog/model/warning.html"
    fieldsets = (
        (None, {"fields": ("slug", "vendor", "name", "description", "is_active")}),
        ("Routing", {"fields": ("strategy", "attempts")}),
        ("Limits", {"fields": (("context", "output"), "limits")}),
        ("Limits of all keys together", {"fields": RATE}),
        ("What it can", {"fields": (("input_modalities", "output_modalities"), ("supports", "fallbacks"))}),
        ("Listing", {"fields": ("position", "created_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return checks.live_routes(super().get_queryset(request)).prefetch_related("prices")

    @display(description="context", ordering="context")
    def context_size(self, model: rows.Model) -> str:
        return pages.compact(model.context)

    @display(description="output", ordering="output")
    def output_size(self, model: rows.Model) -> str:
        return pages.compact(model.output)

    @display(description="price, in / out")
    def price(self, model: rows.Model) -> str:
        now = timezone.now()
        price = next((price for price in model.prices.all() if price.valid_from <= now), None)
        if price is None or price.input is None or price.output is None:
            return "—"
        return f"{price.input.normalize():f} / {price.output.normalize():f}"

    @display(description="routes", label={"live": "success", "dead": "warning", "off": "danger"}, ordering="live")
    def state(self, model: Any) -> tuple[str, str]:
        if not model.is_active:
            return "off", "off"
        return ("live", f"{model.live} live") if model.live else ("dead", "no live route")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        model = self.get_object(request, object_id)
        this = rows.Model.objects.filter(pk=model.pk) if model else rows.Model.objects.none()
        extra = {"reasons": checks.why_dead(model), "unpriced": unpriced(this).exists()} if model else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **extra})

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """With what is to be done: a price for each model that answers."""
        live = checks.live_routes(unpriced(rows.Model.objects.filter(is_active=True)).order_by("slug"))
        names = [model.slug for model in live if model.live]  # type: ignore[attr-defined]
        todo: dict[str, Any] = {"unpriced": names[:NAMED], "more_unpriced": len(names[NAMED:])}
        return super().changelist_view(request, {**(extra_context or {}), **todo})


@admin.register(rows.Alias)
class AliasAdmin(CatalogModelAdmin):
    list_display = ("slug", "model")
    list_select_related = ("model",)
    search_fields = ("slug", "model__slug")
    autocomplete_fields = ("model",)
    list_before_template: Any = "admin/models_catalog/alias/named.html"

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """With what the named ones stand for that the operator has not set."""
        own = set(rows.Alias.objects.values_list("slug", flat=True))
        named = [(name, model) for name, model in snapshot.load().aliases.items() if name not in own]
        extra: dict[str, Any] = {**(extra_context or {}), "named": named}
        return super().changelist_view(request, extra)


@admin.register(rows.Announcement)
class AnnouncementAdmin(Switchable):
    list_display = ("title", "kind", "state", "begins", "ends", "switch")
    list_filter = ("kind", "is_active")
    search_fields = ("title", "text")
    fields = ("kind", "title", "text", "begins_at", "ends_at", "is_active")

    @display(description="state", label={"shown": "success", "later": "info", "over": "warning", "off": "danger"})
    def state(self, row: rows.Announcement) -> tuple[str, str]:
        now = timezone.now()
        if not row.is_active:
            return "off", "off"
        if row.ends_at and row.ends_at <= now:
            return "over", "over"
        return ("later", "later") if row.begins_at > now else ("shown", "shown")

    @display(description="begins, UTC", ordering="begins_at")
    def begins(self, row: rows.Announcement) -> SafeString:
        return format_html('<span class="kd-number">{}</span>', f"{row.begins_at:%Y-%m-%d %H:%M}")

    @display(description="ends, UTC", ordering="ends_at")
    def ends(self, row: rows.Announcement) -> SafeString | str:
        if row.ends_at is None:
            return "—"
        return format_html('<span class="kd-number">{}</span>', f"{row.ends_at:%Y-%m-%d %H:%M}")


@admin.register(rows.Catalog)
class CatalogAdmin(CatalogModelAdmin):
    """One row: its list is its page."""

    form = CatalogForm

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row, _ = rows.Catalog.objects.get_or_create(pk=1)
        return HttpResponseRedirect(reverse("admin:models_catalog_catalog_change", args=[row.pk]))
