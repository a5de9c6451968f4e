"""The console's forms for keys, credit and users: lists are written as text, one name a line."""

import re
import secrets
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from unfold.forms import UserChangeForm as BaseUserChangeForm
from unfold.forms import UserCreationForm as BaseUserCreationForm
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminExpandableTextareaWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminTextInputWidget,
)

from accounts.models import Account, ApiKey, User


def split_names(text: str) -> list[str]:
    """Names between commas and line breaks, each once, in the order given."""
    return list(dict.fromkeys(name.strip() for name in re.split(r"[,\n\r]", text) if name.strip()))


class UsdWidget(UnfoldAdminDecimalFieldWidget):
    """Any number of decimals: a browser takes whole numbers only where nothing is said."""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        super().__init__({"step": "any", **(attrs or {})})

    def format_value(self, value: Any) -> Any:
        return f"{value:f}" if isinstance(value, Decimal) else super().format_value(value)

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        """`1_000` is a number to Python, and a slip of the hand here."""
        text = super().value_from_datadict(data, files, name)
        return text.replace("_", " ") if isinstance(text, str) else text


class NamesField(forms.CharField):
    """A list of names (JSON in the model) as lines of text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminExpandableTextareaWidget(), **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return split_names(value or "")


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """An existing key; the account it belongs to is fixed."""

    allowed_models = NamesField(
        label="Models", help_text="Model IDs or aliases, one a line or between commas. Empty: all."
    )
    allowed_groups = NamesField(label="Provider groups", help_text="As in “group”. Empty: all.")
    allowed_networks = NamesField(
        label="Networks", help_text="Addresses or networks, such as 10.0.0.0/8 or 2001:db8::/32. Empty: anywhere."
    )

    class Meta:
        model = ApiKey
        fields: ClassVar[list[str]] = [
            *("name", "is_active", "expires_at", "notes"),
            *("allowed_models", "allowed_groups", "allowed_networks", "strict"),
            *("rps", "rpm", "tpm", "concurrency", "budget", "budget_period"),
        ]


class NewApiKeyForm(ApiKeyForm):
    """A new key, for an account that there is or for one that is made with it."""

    new_account = forms.CharField(
        label="or a new account",
        required=False,
        max_length=100,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "Name of the new account", "autocomplete": "off"}),
        help_text="A person, a team or a program that the use is counted for.",
    )

    class Meta(ApiKeyForm.Meta):
        fields: ClassVar[list[str]] = ["account", *ApiKeyForm.Meta.fields]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["account"].required = False

    def clean_expires_at(self) -> datetime | None:
        end: datetime | None = self.cleaned_data["expires_at"]
        if end is not None and end <= timezone.now():
            raise ValidationError("This moment is past: the key would never work.")
        return end

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        chosen, typed = self.cleaned_data.get("account"), self.cleaned_data.get("new_account")
        if chosen and typed:
            self.add_error("new_account", "Choose an account above or name a new one here, not both.")
        if not chosen and not typed and not self.has_error("account") and not self.has_error("new_account"):
            self.add_error("account", "Choose an account, or name a new one below.")
        return cleaned

    def payer(self) -> Account:
        """The account chosen, or the one of the name typed, made where there is none."""
        if chosen := self.cleaned_data.get("account"):
            return chosen  # type: ignore[no-any-return]
        return Account.objects.get_or_create(name=self.cleaned_data["new_account"])[0]


class RotateForm(forms.Form):
    CHOICES: ClassVar[list[tuple[str, str]]] = [
        ("0", "not at all: it ends now"),
        ("1", "one hour"),
        ("24", "24 hours"),
        ("168", "7 days"),
    ]
    grace = forms.ChoiceField(
        label="The old key goes on working for",
        choices=CHOICES,
        initial="24",
        widget=UnfoldAdminRadioSelectWidget(),
    )

    def duration(self) -> timedelta:
        return timedelta(hours=int(self.cleaned_data["grace"]))


class GrantForm(forms.Form):
    """`once` makes the form's second sending, by a double click or a reload, no second grant."""

    amount = forms.DecimalField(
        label="Amount, USD",
        decimal_places=12,
        widget=UsdWidget(attrs={"autofocus": True, "autocomplete": "off"}),
        help_text="Negative: take from the balance.",
    )
    note = forms.CharField(
        required=False,
        max_length=300,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off"}),
        help_text="An invoice, a reason: kept with the entry.",
    )
    once = forms.CharField(max_length=40, widget=forms.HiddenInput(), initial=lambda: f"grant-{secrets.token_hex(16)}")

    def clean_once(self) -> str:
        once: str = self.cleaned_data["once"]
        if not re.fullmatch(r"grant-[0-9a-f]{32}", once):
            raise ValidationError("This form is not one of ours: load the page again.")
        return once


class UserCreationForm(BaseUserCreationForm):
    class Meta:
        model = User
        fields = ("username",)


class UserChangeForm(BaseUserChangeForm):
    class Meta:
        model = User
        fields = "__all__"  # the admin's fieldsets choose
