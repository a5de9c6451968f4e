"""The console's forms for the catalog: lists and headers as text, credentials that go in and never come out."""

import re
from decimal import Decimal
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from unfold.forms import PaginationInlineFormSet
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminExpandableTextareaWidget,
    UnfoldAdminPasswordToggleWidget,
    UnfoldAdminSelectWidget,
    UnfoldBooleanWidget,
)

from models_catalog.aliases import NAMES
from models_catalog.models import HEADER_NAME, SECRET_HEADER, Alias, Catalog, Credential, Model, Provider, validate_id
from models_catalog.quirks import QUIRKS

MASK = "(stored)"  # stands for a header value that is not shown; sent back, it keeps what is stored


class NamesField(forms.CharField):
    """A list of names (JSON in the model) as lines of text."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminExpandableTextareaWidget(), **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        names = (name.strip() for name in re.split(r"[,\n\r]", value or ""))
        return list(dict.fromkeys(name for name in names if name))


class HeadersField(forms.CharField):
    """Headers (a JSON object in the model) as lines `Name: value`. Values that look like secrets are not shown."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminExpandableTextareaWidget(), **kwargs)

    @staticmethod
    def masked(headers: dict[str, str]) -> dict[str, str]:
        return {name: MASK if SECRET_HEADER.search(name) else text for name, text in headers.items()}

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        # By name: PostgreSQL keeps no order.
        return "\n".join(f"{name}: {text}" for name, text in sorted(self.masked(value).items()))

    def to_python(self, value: Any) -> Any:
        headers: dict[str, str] = {}
        for line in filter(str.strip, (value or "").splitlines()):
            name, colon, text = line.partition(":")
            name, text = name.strip(), text.strip()
            if not colon or not HEADER_NAME.fullmatch(name) or not (text.isascii() and text.isprintable()):
                raise ValidationError(f"Expected Name: value, in ASCII, not {name[:60]!r}.")
            if name.lower() in map(str.lower, headers):
                raise ValidationError(f"{name} is there twice.")
            headers[name] = text
        return headers

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.masked(initial or {}) != self.to_python(data))
        except ValidationError:
            return True


class AmountField(forms.DecimalField):
    """A price without the zeros that the column's six decimals add."""

    def prepare_value(self, value: Any) -> Any:
        return f"{value.normalize():f}" if isinstance(value, Decimal) else value


def _origin(url: str) -> str:
    """Scheme, host and port as written; the whole of a URL with variables, which may hold any of these."""
    if "${" in url:
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}".lower()


def _moves(stored_url: str, url: str) -> bool:
    return bool(stored_url and url) and _origin(url) != _origin(stored_url)


def _is_secret(stored: str | None) -> bool:
    """A reference `env:NAME` is none: whoever edits providers can write any such name."""
    return bool(stored) and not str(stored).startswith("env:")


def _carried_over(stored_url: str) -> str:
    return f"was stored for {stored_url}, and the host has changed: enter it again, for the new one."


class SecretField(forms.CharField):
    """A credential: what is stored is never sent to the browser, and an empty answer keeps it."""

    def __init__(self, **kwargs: Any) -> None:
        widget = UnfoldAdminPasswordToggleWidget(attrs={"autocomplete": "new-password", "spellcheck": "false"})
        super().__init__(label="Credential", required=False, max_length=5000, widget=widget, **kwargs)

    def clean(self, value: Any) -> str:
        typed: str = super().clean(value)
        if typed and not re.fullmatch(r"[\x21-\x7e]+", typed):
            raise ValidationError("A credential has no spaces and no letters outside ASCII.")
        if typed.startswith("env:") and not re.fullmatch(r"env:[A-Za-z_][A-Za-z0-9_]*", typed):
            raise ValidationError("After env: comes the name of an environment variable.")
        return typed


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    api_key = SecretField()
    clear_api_key = forms.BooleanField(
        label="Forget the stored credential", required=False, widget=UnfoldBooleanWidget()
    )
    groups = NamesField(help_text="What a client names in “group”. One a line or between commas.")
    supports = NamesField(
        help_text="Endpoints that it has: chat, responses, embeddings, images, audio.", initial=["chat"]
    )
    quirks = forms.MultipleChoiceField(
        label="",
        required=False,
        choices=[(name, f"{name}: {words}") for name, words in QUIRKS.items()],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
    )
    headers = HeadersField(
        help_text=f"Name: value, one a line; sent with every request. {MASK} stands for a value that is kept."
    )

    class Meta:
        model = Provider
        fields: ClassVar[list[str]] = [
            *("slug", "dialect", "base_url", "api_key", "is_active", "discovers"),
            *("groups", "supports", "headers", "quirks"),
            *("connect_timeout", "first_byte_timeout", "idle_timeout", "total_timeout", "max_concurrency"),
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored_key: str | None = self.instance.api_key
        self.stored_url: str = self.instance.base_url
        self.stored_headers: dict[str, str] = dict(self.instance.headers)
        self.kept_headers: list[str] = []  # names sent back masked
        self.initial["api_key"] = ""  # never sent to the browser; empty in the answer keeps what is stored
        field = self.fields.get("api_key")
        if field is not None:
            field.help_text = f"{self._what_is_stored()} The key itself, or env:NAME. Stored encrypted, never shown."

    def _what_is_stored(self) -> str:
        if self.stored_key is None:
            return "What is stored cannot be decrypted with KODNA_ENCRYPTION_KEYS: enter it again."
        if self.stored_key == "":
            return "None is stored."
        if self.stored_key.startswith("env:"):
            return f"Now {self.stored_key}: leave empty to keep."
        return "One is stored: leave empty to keep."

    def clean_base_url(self) -> str:
        url: str = self.cleaned_data["base_url"]
        if not re.fullmatch(r"(?:https?://|\$\{)[\x21-\x7e]+", url):
            raise ValidationError("Expected a URL that begins with http:// or https://, or ${NAME}.")
        return url

    def clean_api_key(self) -> str | None:
        return self.cleaned_data["api_key"] or self.stored_key

    def clean_headers(self) -> dict[str, str]:
        headers: dict[str, str] = self.cleaned_data["headers"]
        stored = {name.lower(): text for name, text in self.stored_headers.items()}
        for name, text in headers.items():
            if text != MASK:
                continue
            if name.lower() not in stored:
                raise ValidationError(f"No value of {name} is stored: write one.")
            headers[name] = stored[name.lower()]
            self.kept_headers.append(name)
        return headers

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        typed = self.data.get(self.add_prefix("api_key"))
        if self.cleaned_data.get("clear_api_key"):
            if typed:
                self.add_error("clear_api_key", "Either forget the credential or enter another, not both.")
            self.cleaned_data["api_key"] = ""
        url = self.cleaned_data.get("base_url")
        if _moves(self.stored_url, url or ""):
            self._refuse_to_carry_secrets_over(keeps_key=not typed and not self.cleaned_data.get("clear_api_key"))
        return cleaned

    def _refuse_to_carry_secrets_over(self, *, keeps_key: bool) -> None:
        """Who may edit a provider must not learn its secrets by pointing it at a host of their own."""
        words = _carried_over(self.stored_url)
        if keeps_key and _is_secret(self.stored_key):
            self.add_error("api_key", f"The credential {words}")
        if self.kept_headers:
            self.add_error("headers", f"The value of {', '.join(self.kept_headers)} {words}")


class CredentialForm(forms.ModelForm):  # type: ignore[type-arg]
    api_key = SecretField(help_text="The key itself, or env:NAME. Stored encrypted, never shown; empty keeps it.")

    class Meta:
        model = Credential
        fields: ClassVar[list[str]] = ["name", "api_key", "weight", "is_active"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stored_key: str | None = self.instance.api_key
        self.initial["api_key"] = ""
        if field := self.fields.get("api_key"):
            field.widget.attrs["placeholder"] = self._placeholder()

    def _placeholder(self) -> str:
        if self.stored_key is None:
            return "(unreadable)"
        return self.stored_key if self.stored_key.startswith("env:") else MASK if self.stored_key else ""

    def clean_api_key(self) -> str | None:
        kept = self.cleaned_data["api_key"] or self.stored_key
        if kept == "":
            raise ValidationError("Enter the key itself, or env:NAME.")
        return kept


class CredentialFormSet(PaginationInlineFormSet):
    """A provider's credentials, none of which follows it to another host."""

    def clean(self) -> None:
        super().clean()
        stored = Provider.objects.filter(pk=self.instance.pk).prefetch_related("credentials").first()
        if stored is None or not _moves(stored.base_url, self.instance.base_url):
            return
        entered = {form.instance.pk for form in self.initial_forms}
        entered -= {form.instance.pk for form in self.initial_forms if not self._is_entered_again(form)}
        for row in stored.credentials.all():
            if _is_secret(row.api_key) and row.pk not in entered:
                raise ValidationError(f"The credential {row.name} {_carried_over(stored.base_url)}")

    def _is_entered_again(self, form: Any) -> bool:
        cleaned = getattr(form, "cleaned_data", {})
        return bool(cleaned.get("DELETE") or form.data.get(form.add_prefix("api_key")))


class ModelForm(forms.ModelForm):  # type: ignore[type-arg]
    input_modalities = NamesField(initial=["text"], help_text="text, image, audio, video, file")
    output_modalities = NamesField(initial=["text"], help_text="text, image, audio")
    supports = NamesField(help_text="tools, vision, reasoning, structured_outputs")
    fallbacks = NamesField(help_text="Other model IDs, tried once every route has failed. One a line, in order.")

    class Meta:
        model = Model
        fields: ClassVar[list[str]] = [
            *("slug", "vendor", "name", "description", "is_active", "context", "output", "limits"),
            *("rps", "rpm", "tpm", "concurrency", "strategy", "attempts"),
            *("input_modalities", "output_modalities", "supports", "fallbacks", "position"),
        ]

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if Alias.objects.filter(slug=slug).exists():
            raise ValidationError("An alias has this name.")
        return slug

    def clean_fallbacks(self) -> list[str]:
        names: list[str] = self.cleaned_data["fallbacks"]
        known = set(Model.objects.filter(slug__in=names).values_list("slug", flat=True))
        if unknown := [name for name in names if name not in known]:
            raise ValidationError(f"No such model: {', '.join(unknown)}.")
        if self.cleaned_data.get("slug") in names:
            raise ValidationError("A model cannot be its own fallback.")
        return names


class CatalogForm(forms.ModelForm):  # type: ignore[type-arg]
    default_model = forms.ChoiceField(
        required=False,
        widget=UnfoldAdminSelectWidget(),
        help_text="The model of a request that names none. None: such a request is refused.",
    )

    class Meta:
        model = Catalog
        fields: ClassVar[list[str]] = ["default_model"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = [(slug, slug) for slug in Model.objects.order_by("slug").values_list("slug", flat=True)]
        aliases = [
            (alias.slug, f"{alias.slug} → {alias.model.slug}") for alias in Alias.objects.select_related("model")
        ]
        set_by_operator = {slug for slug, _ in models + aliases}
        named = [(name, f"{name} (chosen from the catalog)") for name in NAMES if name not in set_by_operator]
        known = {*set_by_operator, *NAMES}
        gone = self.instance.default_model
        lost = [(gone, f"{gone} (no longer in the catalog)")] if gone and gone not in known else []
        field = self.fields["default_model"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "none"), *lost, ("Models", models), ("Aliases", aliases + named)]

    def clean_default_model(self) -> str:
        name: str = self.cleaned_data["default_model"]
        known = Model.objects.filter(slug=name).exists() or Alias.objects.filter(slug=name).exists()
        if name and not known and name not in NAMES:
            raise ValidationError("Neither a model nor an alias has this name.")
        return name


class UpstreamNames(forms.MultipleChoiceField):
    """Names that a provider listed a moment ago: whatever a route's own form would take."""

    def valid_value(self, value: str) -> bool:
        try:
            validate_id(value)
        except ValidationError:
            return False
        return len(value) <= 200


class PickForm(forms.Form):
    """Which of a provider's models to add."""

    names = UpstreamNames(error_messages={"required": "Choose at least one model."})
