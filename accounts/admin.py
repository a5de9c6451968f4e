"""The console's pages for keys, accounts, their credit, and people. A new key is shown once, on a page of its own."""

import time
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as BaseGroupAdmin
from django.contrib.auth.admin import UserAdmin as BaseUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Count, F, OuterRef, Q, QuerySet, Subquery, TextField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm
from unfold.paginator import InfinitePaginator
from unfold.widgets import UnfoldAdminExpandableTextareaWidget

from accounts import credits, keys, notice_admin, show_once, signals  # noqa: F401  # the notices' page registers itself
from accounts.forms import (
    ApiKeyForm,
    GrantForm,
    NewApiKeyForm,
    RotateForm,
    UsdWidget,
    UserChangeForm,
    UserCreationForm,
)
from accounts.login import bounded
from accounts.models import Account, ApiKey, LedgerEntry, User
from accounts.read_only import ReadOnlyAdmin
from accounts.snippets import base_url, example_model, snippets
from accounts.usd import UsdField, shown

COLOURS = {
    "active": "success",
    "expiring": "warning",
    "expired": "danger",
    "off": "danger",
    "account off": "danger",
}
RIGHTS = ("allowed_models", "allowed_groups", "allowed_networks")
LIMITS = (("rps", "rpm"), ("tpm", "concurrency"))
BUDGET = ("budget", "budget_period")
SPENDING = ("billing", "ceiling", "low_balance")  # as good as a grant


def ago(moment: Any) -> str:
    if moment is None:
        return "never"
    if timezone.now() - moment < timedelta(minutes=1):
        return "just now"
    return f"{timesince(moment, depth=1)} ago"


class CarefulAdmin(ModelAdmin):
    """Writes only what the form changed: other processes write the same rows."""

    formfield_overrides = {  # type: ignore[assignment, misc]
        TextField: {"widget": UnfoldAdminExpandableTextareaWidget},
        UsdField: {"widget": UsdWidget},
    }

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        columns = {field.name for field in self.opts.concrete_fields}
        changed = [name for name in form.changed_data if name in columns]
        if not change:
            obj.save()
        elif changed:
            obj.save(update_fields=changed)


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in ("active", "expiring", "expired", "off")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        now = timezone.now()
        on = Q(is_active=True, account__is_active=True)
        match self.value():
            case "active":
                return queryset.filter(on).filter(Q(expires_at=None) | Q(expires_at__gt=now))
            case "expiring":
                return queryset.filter(on, expires_at__gt=now, expires_at__lte=now + keys.SOON)
            case "expired":
                return queryset.filter(on, expires_at__lte=now)
            case "off":
                return queryset.exclude(on)
        return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(CarefulAdmin):
    list_display = ("title", "shown_prefix", "account", "state", "limits", "spending", "used", "created", "switch")
    list_display_links = ("title",)
    list_select_related = ("account",)
    list_filter = (StateFilter, ("account", admin.RelatedOnlyFieldListFilter))
    list_before_template: Any = "admin/row_form.html"
    list_per_page = 50
    search_fields = ("name", "prefix", "account__name")
    search_help_text = "Name, prefix or account"
    autocomplete_fields = ("account",)
    readonly_fields = ("shown_prefix", "account_link", "spending", "rotation", "created_at", "used")
    actions = ("disable", "enable", "rotate")
    change_form_outer_before_template: Any = "admin/accounts/apikey/toolbar.html"
    fieldsets = (
        (None, {"fields": ("shown_prefix", "account_link", "name", "is_active", "expires_at")}),
        ("May use", {"fields": RIGHTS}),
        ("Limits", {"fields": LIMITS}),
        ("Budget", {"fields": (BUDGET, "spending")}),
        ("Translation", {"fields": ("strict",)}),
        ("Notes", {"fields": ("notes", "rotation", "created_at", "used")}),
    )
    add_fieldsets: Any = (
        (None, {"fields": ("account", "new_account", "name", "expires_at")}),
        ("May use", {"fields": RIGHTS}),
        ("Limits", {"fields": LIMITS}),
        ("Budget", {"fields": (BUDGET,)}),
        ("Translation", {"fields": ("strict",)}),
        ("Notes", {"fields": ("notes",)}),
    )

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}
        js = ("admin_kodna/console.js",)

    # --- columns and read-only fields ---

    @display(description="name", ordering="name")
    def title(self, key: ApiKey) -> str:
        return key.name or "no name"

    @display(description="key", ordering="prefix")
    def shown_prefix(self, key: ApiKey) -> SafeString:
        return format_html('<code class="kd-mono kd-nowrap">{}…</code>', key.prefix)

    @display(description="state", label=COLOURS)
    def state(self, key: ApiKey) -> str:
        return keys.state(key)

    @display(description="limits")
    def limits(self, key: ApiKey) -> str:
        gap = "\N{NO-BREAK SPACE}"
        parts = [
            (key.rps, "/s"),
            (key.rpm, "/min"),
            (key.tpm, f"{gap}tokens/min"),
            (key.concurrency, f"{gap}at{gap}once"),
        ]
        return ", ".join(f"{number}{unit}" for number, unit in parts if number) or "none"

    @display(description="spent, USD")
    def spending(self, key: Any) -> SafeString:
        """`spent` is read for a whole page of the list at once."""
        spent = key.spent if hasattr(key, "spent") else credits.spent(key.pk, key.budget_period, time.time())
        words = [shown(spent)]
        if key.budget is not None:
            words += [f"of {shown(key.budget)}", key.get_budget_period_display()]
        return format_html_join(" ", '<span class="kd-nowrap">{}</span>', ([word] for word in words))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        page = super().get_changelist_instance(request)
        spent = credits.spent_by(page.result_list, time.time())
        for key in page.result_list:
            key.spent = spent[key.pk]
        return page

    @display(description="last used", ordering="last_used_at")
    def used(self, key: ApiKey) -> SafeString:
        return format_html(
            '<span title="{}" class="kd-nowrap">{}</span>', key.last_used_at or "", ago(key.last_used_at)
        )

    @display(description="created", ordering="created_at")
    def created(self, key: ApiKey) -> SafeString:
        return _moment(key.created_at, f"{key.created_at:%Y-%m-%d}")

    @display(description="")
    def switch(self, key: ApiKey) -> SafeString:
        url = reverse("admin:accounts_apikey_switch", args=[key.pk])
        to, word = (0, "Disable") if key.is_active else (1, "Enable")
        return format_html(
            '<button type="submit" form="kd-row-form" formaction="{}" name="to" value="{}" class="kd-row-button"'
            ' aria-label="{} {}">{}</button>',
            *(url, to, word, key, word),
        )

    @display(description="account")
    def account_link(self, key: ApiKey) -> SafeString:
        return _link("admin:accounts_account_change", key.account_id, key.account.name)

    @display(description="rotation")
    def rotation(self, key: ApiKey) -> SafeString | str:
        links = []
        if key.rotated_from:
            links.append(
                ("Made in place of ", _link("admin:accounts_apikey_change", key.rotated_from.pk, key.rotated_from))
            )
        links += [("Replaced by ", _link("admin:accounts_apikey_change", new.pk, new)) for new in key.rotated_to.all()]
        return format_html_join(SafeString("<br>"), "{} {}", links) or "none"

    def get_list_display(self, request: HttpRequest) -> Any:
        """The button is for those who may press it."""
        return [name for name in self.list_display if name != "switch" or self.has_change_permission(request)]

    # --- the form ---

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, form=ApiKeyForm if obj else NewApiKeyForm, **kwargs)
        if "account" in form.base_fields:
            wrapper = form.base_fields["account"].widget
            wrapper.can_add_related = wrapper.can_change_related = wrapper.can_view_related = False
        return form

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        only_save = {"show_save_and_add_another": False, "show_save_and_continue": False, "title": "New API key"}
        return super().add_view(request, form_url, {**(extra_context or {}), **only_save})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        key = self.get_object(request, object_id)
        extra = {"state": keys.state(key), "usage_url": _usage_url(key)} if key else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **extra})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        obj.account = form.payer()
        show_once.keep(request.session, *_sealed(obj))

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:accounts_apikey_new", args=[obj.pk]))

    # --- own pages ---

    def get_urls(self) -> list[URLPattern]:
        guard = self.admin_site.admin_view
        return [
            path("<int:key_id>/new/", guard(self.new_view), name="accounts_apikey_new"),
            path("<int:key_id>/rotate/", guard(self.rotate_view), name="accounts_apikey_rotate"),
            path("<int:key_id>/switch/", guard(self.switch_view), name="accounts_apikey_switch"),
            *super().get_urls(),
        ]

    def _permitted(self, request: HttpRequest, key_id: int, permission: str) -> ApiKey:
        key: ApiKey | None = self.get_queryset(request).select_related("account").filter(pk=key_id).first()
        if key is None:
            raise Http404("No such key.")
        if not getattr(self, f"has_{permission}_permission")(request, key):
            raise PermissionDenied
        return key

    def _page(self, request: HttpRequest, template: str, key: ApiKey, **context: Any) -> HttpResponse:
        request.current_app = self.admin_site.name
        common = {**self.admin_site.each_context(request), "opts": self.opts, "original": key, "media": self.media}
        return TemplateResponse(request, f"admin/accounts/apikey/{template}", {**common, **context})

    def new_view(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """The only page that ever holds a key. Taken out of the session as it is shown: a reload has none."""
        key = self._permitted(request, key_id, "view")
        text = show_once.take(request.session, key_id) if request.method == "GET" else None
        url = base_url(request)
        ready = snippets(text, url, example_model(key)) if text else []
        title = "Your new key" if text else "This key was shown already"
        answer = self._page(request, "new.html", key, title=title, text=text, base_url=url, snippets=ready)
        answer["Cache-Control"] = "no-store"
        return answer

    def rotate_view(self, request: HttpRequest, key_id: int) -> HttpResponse:
        key = self._permitted(request, key_id, "change")
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = RotateForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                new, text = keys.rotate(key, form.duration())
            except ValidationError as error:
                form.add_error(None, error)
            else:
                self.log_change(request, key, f"Rotated: replaced by {new.prefix}….")
                show_once.keep(request.session, new.pk, text)
                return HttpResponseRedirect(reverse("admin:accounts_apikey_new", args=[new.pk]))
        return self._page(request, "rotate.html", key, title="Rotate this key", form=form)

    def switch_view(self, request: HttpRequest, key_id: int) -> HttpResponse:
        """On or off by one click, from the list and from the key's page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        key = self._permitted(request, key_id, "change")
        key.is_active = request.POST.get("to") == "1"
        key.save(update_fields=["is_active"])
        word = "Enabled" if key.is_active else "Disabled"
        self.log_change(request, key, f"{word}.")
        messages.success(request, f"{word}: {key}.")
        return HttpResponseRedirect(self._back(request, key))

    def _back(self, request: HttpRequest, key: ApiKey) -> str:
        if request.POST.get("from") == "page":
            return reverse("admin:accounts_apikey_change", args=[key.pk])
        kept = request.POST.get("filters", "")
        return reverse("admin:accounts_apikey_changelist") + (f"?{kept}" if kept else "")

    # --- actions of the list ---

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self._set_active(request, queryset, False, "Disabled")

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        self._set_active(request, queryset, True, "Enabled")

    def _set_active(self, request: HttpRequest, queryset: QuerySet[ApiKey], to: bool, word: str) -> None:
        with transaction.atomic():
            chosen = list(queryset)
            ApiKey.objects.filter(pk__in=[key.pk for key in chosen]).update(is_active=to)
            signals.bump()
            for key in chosen:
                self.log_change(request, key, f"{word}.")
        messages.success(request, f"{word}: {len(chosen)} key{'' if len(chosen) == 1 else 's'}.")

    @admin.action(description="Rotate…", permissions=["change"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        chosen = list(queryset[:2])
        if len(chosen) != 1:
            messages.error(request, "Rotate one key at a time: each new key is shown once.")
            return None
        return HttpResponseRedirect(reverse("admin:accounts_apikey_rotate", args=[chosen[0].pk]))


def _sealed(key: ApiKey) -> tuple[int, str]:
    text = keys.seal(key)
    return key.pk, text


def _link(name: str, pk: int, text: object) -> SafeString:
    return format_html('<a href="{}" class="text-link">{}</a>', reverse(name, args=[pk]), text)


def _moment(moment: object, words: str) -> SafeString:
    return format_html('<span title="{}" class="kd-nowrap">{}</span>', moment or "", words)


def _usage_url(key: ApiKey) -> str:
    return f"{reverse('admin:proxy_usagerecord_changelist')}?key_prefix__exact={key.prefix}"


class KeysInline(TabularInline):
    """The account's keys, to look at: they are changed on their own pages."""

    model = ApiKey
    fields = readonly_fields = ("key_link", "state", "expires_at", "last_used_at")
    per_page: Any = 20
    hide_title = True
    max_num = 0
    extra = 0
    can_delete = False
    verbose_name_plural = "keys"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).select_related("account")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @display(description="key")
    def key_link(self, key: ApiKey) -> SafeString:
        return _link("admin:accounts_apikey_change", key.pk, key)

    @display(description="state")
    def state(self, key: ApiKey) -> str:
        return keys.state(key)


@admin.register(Account)
class AccountAdmin(CarefulAdmin):
    list_display = ("name", "state", "billed", "money", "active_keys", "people", "created_at")
    list_filter = ("is_active", "billing", "zero_retention")
    search_fields = ("name",)
    autocomplete_fields = ("users",)
    readonly_fields = ("created_at",)
    change_form_outer_before_template: Any = "admin/accounts/account/toolbar.html"
    fieldsets = (
        (None, {"fields": ("name", "is_active", "users")}),
        ("Billing", {"fields": ("billing", ("ceiling", "low_balance"))}),
        ("Limits of all its keys together", {"fields": LIMITS}),
        ("Privacy", {"fields": ("zero_retention",)}),
        ("Notes", {"fields": ("notes", "created_at")}),
    )
    inlines = (KeysInline,)

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        works = Q(keys__is_active=True) & (Q(keys__expires_at=None) | Q(keys__expires_at__gt=timezone.now()))
        counts = {
            "key_count": Count("keys", filter=works, distinct=True),
            "user_count": Count("users", distinct=True),
            "credit": F("balance__amount"),
        }
        return super().get_queryset(request).annotate(**counts)  # type: ignore[no-any-return]

    def get_readonly_fields(self, request: HttpRequest, obj: Account | None = None) -> Any:
        may_grant = request.user.has_perm("accounts.add_ledgerentry")
        return self.readonly_fields if may_grant else (*self.readonly_fields, *SPENDING)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Django would name each entry, of which there may be millions, and not what to do."""
        kept = [account for account in objs if LedgerEntry.objects.filter(account=account).exists()]
        words = "{} has ledger entries, which are kept: switch the account off instead."
        if kept:
            return [], {}, set(), [words.format(account) for account in kept]
        return super().get_deleted_objects(objs, request)

    def get_inlines(self, request: HttpRequest, obj: Account | None = None) -> Any:
        return self.inlines if obj else ()

    @display(description="state", label={"active": "success", "off": "danger"}, ordering="is_active")
    def state(self, account: Account) -> str:
        return "active" if account.is_active else "off"

    @display(description="billing", ordering="billing")
    def billed(self, account: Account) -> str:
        return account.billing

    @display(description="balance, USD", ordering="credit")
    def money(self, account: Any) -> SafeString | str:
        if account.credit is None and account.billing == Account.Billing.UNMETERED:
            return "—"
        return format_html('<span class="kd-number">{}</span>', shown(account.credit or Decimal(0)))

    @display(description="active keys", ordering="key_count")
    def active_keys(self, account: Any) -> SafeString:
        url = f"{reverse('admin:accounts_apikey_changelist')}?account__id__exact={account.pk}"
        return format_html('<a href="{}" class="text-link">{}</a>', url, account.key_count)

    @display(description="users", ordering="user_count")
    def people(self, account: Any) -> int:
        return int(account.user_count)

    # --- credit ---

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.grant_view)
        return [path("<int:account_id>/grant/", view, name="accounts_account_grant"), *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        account = self.get_object(request, object_id)
        extra = self._credit(request, account) if account else {}
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **extra})

    def _credit(self, request: HttpRequest, account: Account) -> dict[str, object]:
        ledger = f"{reverse('admin:accounts_ledgerentry_changelist')}?account={account.pk}"
        return {
            "balance": shown(credits.balance(account.pk)),
            "ceiling": shown(account.ceiling),
            "ledger_url": ledger if request.user.has_perm("accounts.view_ledgerentry") else "",
            "may_grant": request.user.has_perm("accounts.add_ledgerentry"),
        }

    def grant_view(self, request: HttpRequest, account_id: int) -> HttpResponse:
        account = self.get_queryset(request).filter(pk=account_id).first()
        if account is None:
            raise Http404("No such account.")
        if not self.has_view_permission(request, account) or not request.user.has_perm("accounts.add_ledgerentry"):
            raise PermissionDenied
        form = GrantForm(request.POST or None)
        if request.method == "POST" and form.is_valid() and self._granted(request, account, form):
            return HttpResponseRedirect(reverse("admin:accounts_account_change", args=[account.pk]))
        request.current_app = self.admin_site.name
        common = {**self.admin_site.each_context(request), "opts": self.opts, "original": account, "media": self.media}
        context = {**common, **self._credit(request, account), "title": "Grant credit", "form": form}
        return TemplateResponse(request, "admin/accounts/account/grant.html", context)

    def _granted(self, request: HttpRequest, account: Account, form: GrantForm) -> bool:
        amount, note, once = (form.cleaned_data[name] for name in ("amount", "note", "once"))
        was = account.billing
        try:
            with transaction.atomic():
                credits.grant(account, amount, note, request.user.get_username(), once)
                self.log_change(request, account, f"Granted {amount:f} USD.")
        except ValidationError as error:
            form.add_error(None, error)
            return False
        except credits.GrantedAlready:
            messages.warning(request, "This form was sent twice: the credit was granted once.")
            return True
        now = "" if account.billing == was else " The account was unmetered: it is prepaid now."
        messages.success(request, f"Granted {shown(amount)} USD to {account}.{now}")
        return True


class OfAccountFilter(admin.SimpleListFilter):
    """An account's page leads here. To offer all accounts, there may be too many."""

    title = "account"
    parameter_name = "account"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get("account", "")
        account = Account.objects.filter(pk=chosen).first() if chosen.isdecimal() and len(chosen) < 19 else None
        return [(chosen, account.name)] if account else []

    def queryset(self, request: HttpRequest, queryset: QuerySet[LedgerEntry]) -> QuerySet[LedgerEntry]:
        chosen = self.value()
        return queryset.filter(account_id=chosen) if chosen else queryset


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ReadOnlyAdmin):
    """To look at only, and quick with millions of entries: nothing here counts them all."""

    list_display = ("time", "of_account", "kind", "exact_amount", "charged_for", "note", "by")
    list_display_links = ("time",)
    list_filter = (OfAccountFilter, "kind", ("created_at", admin.DateFieldListFilter))
    list_per_page = 100
    list_max_show_all = 0
    show_full_result_count = False
    paginator = InfinitePaginator
    ordering = ("-pk",)
    search_fields = ("request_id__exact",)
    empty_value_display = "—"
    search_help_text = "Request ID"
    sortable_by = ()
    actions = None
    fields = readonly_fields = ("created_at", "of_account", "kind", "exact_amount", "charged_for", "note", "by")

    class Media:
        css: ClassVar = {"all": ("admin_kodna/console.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[LedgerEntry]:
        """Not by a join: an entry may be of an account that is gone."""
        name = Account.objects.filter(pk=OuterRef("account_id")).values("name")
        return super().get_queryset(request).annotate(account_name=Subquery(name))  # type: ignore[no-any-return]

    @display(description="time, UTC")
    def time(self, entry: LedgerEntry) -> SafeString:
        return _moment(entry.created_at, f"{entry.created_at:%Y-%m-%d %H:%M:%S}")

    @display(description="account")
    def of_account(self, entry: Any) -> SafeString | str:
        if entry.account_name is None:
            return f"{entry.account_id}, deleted"
        return _link("admin:accounts_account_change", entry.account_id, entry.account_name)

    @display(description="request ID")
    def charged_for(self, entry: LedgerEntry) -> SafeString | str:
        if entry.kind != LedgerEntry.Kind.CHARGE:
            return "—"
        url = f"{reverse('admin:proxy_usagerecord_changelist')}?q={entry.request_id}"
        return format_html('<a href="{}" class="text-link kd-id">{}</a>', url, entry.request_id)

    @display(description="amount, USD")
    def exact_amount(self, entry: LedgerEntry) -> SafeString:
        return format_html('<span class="kd-number">{}</span>', shown(entry.amount))


@admin.register(User)
class UserAdmin(BaseUserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(BaseGroupAdmin, ModelAdmin):  # type: ignore[misc]
    pass


admin.site.login = bounded(admin.site.login)  # type: ignore[method-assign]
