"""What can be asked for (`Model`, `Alias`), who answers (`Provider`, `Route`) and what it costs (`Price`)."""

import re
from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.utils import timezone

from models_catalog.crypto import EncryptedTextField
from models_catalog.quirks import validate_quirks

validate_id = RegexValidator(r"^[^\s\x00-\x1f\x7f]+\Z", "No spaces or control characters.")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")  # ${NAME}, ${NAME:-default}
positive = MinValueValidator(0.001)
at_least_one = MinValueValidator(1)
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.1
# Names of headers whose values are neither shown nor exported.
SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|password|credential|signature", re.IGNORECASE)


def validate_names(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValidationError("Expected a list of names.")


def validate_headers(value: object) -> None:
    if not isinstance(value, dict) or not all(
        isinstance(name, str)
        and HEADER_NAME.fullmatch(name)
        and isinstance(text, str)
        and text.isascii()
        and text.isprintable()
        for name, text in value.items()
    ):
        raise ValidationError("Expected an object of header names and values.")


def validate_base_url(value: str) -> None:
    plain = VARIABLE.sub("variable", value)
    if "${" in plain:
        raise ValidationError("expected ${NAME} or ${NAME:-default}")
    if not value.startswith("${") and not re.match(r"https?://[^/?#\s]", plain):
        raise ValidationError("expected http://… or https://…")
    if "@" in plain.partition("://")[2].partition("/")[0]:
        raise ValidationError("holds a user name or password: the credential has a field of its own")


def text_only() -> list[str]:
    return ["text"]


def chat_only() -> list[str]:
    return ["chat"]


class Catalog(models.Model):
    """One row: the catalog's own settings, and a number that rises with every change of the catalog."""

    version = models.BigIntegerField(default=0, editable=False)
    default_model = models.CharField(
        max_length=200, blank=True, help_text="The model of a request that names none. A model ID or an alias."
    )

    class Meta:
        verbose_name = verbose_name_plural = "settings"

    def __str__(self) -> str:
        return "Catalog settings"


class Vendor(models.Model):
    """Who made a model."""

    slug = models.CharField(max_length=100, unique=True, validators=[validate_id])
    name = models.CharField(max_length=100)
    position = models.PositiveIntegerField(default=0, help_text="Order on the docs page.")

    class Meta:
        ordering = ("position", "name")

    def __str__(self) -> str:
        return self.name


class Provider(models.Model):
    """An API that answers: a URL, a credential, and how long to wait for it."""

    class Dialect(models.TextChoices):
        OPENAI = "openai", "OpenAI"
        ANTHROPIC = "anthropic", "Anthropic"
        GEMINI = "gemini", "Gemini"
        FAL = "fal", "fal"

    slug = models.CharField("name", max_length=100, unique=True, validators=[validate_id])
    dialect = models.CharField(max_length=20, choices=Dialect, default=Dialect.OPENAI)
    base_url = models.CharField(
        "base URL",
        max_length=500,
        validators=[validate_base_url],
        help_text="As this dialect's SDK takes it: OpenAI with /v1. May hold ${NAME:-default} from the environment.",
    )
    api_key = EncryptedTextField(
        "credential", blank=True, default="", help_text="The key itself, or env:NAME. Stored encrypted, never shown."
    )
    is_active = models.BooleanField("active", default=True)
    groups = models.JSONField(
        default=list, blank=True, validators=[validate_names], help_text='What a client names in "group".'
    )
    headers = models.JSONField(default=dict, blank=True, validators=[validate_headers], help_text="Sent every time.")
    supports = models.JSONField(
        default=chat_only, blank=True, validators=[validate_names], help_text="Endpoints that it has."
    )
    quirks = models.JSONField(
        default=list, blank=True, validators=[validate_names, validate_quirks], help_text="Departures from the dialect."
    )
    discovers = models.BooleanField(
        "add its models by itself",
        default=False,
        help_text="Ask this provider for its models while it runs and keep them in the catalog (Ollama, llama.cpp).",
    )
    reachable = models.BooleanField(default=True, editable=False, help_text="Of providers that are asked for models.")
    connect_timeout = models.FloatField("connect, seconds", default=5, validators=[positive])
    first_byte_timeout = models.FloatField("first byte, seconds", default=60, validators=[positive])
    idle_timeout = models.FloatField("idle, seconds", default=60, validators=[positive])
    total_timeout = models.FloatField("total, seconds", default=600, validators=[positive])
    max_concurrency = models.PositiveIntegerField(default=0, help_text="0: no bound.")

    class Meta:
        ordering = ("slug",)

    def __str__(self) -> str:
        return self.slug


class Credential(models.Model):
    """One more credential of a provider, beside the provider's own field: requests go to all of them by weight."""

    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="credentials")
    name = models.CharField(max_length=100, validators=[validate_id])
    api_key = EncryptedTextField(
        "credential", blank=True, default="", help_text="The key itself, or env:NAME. Stored encrypted, never shown."
    )
    weight = models.PositiveIntegerField(
        default=1, validators=[at_least_one], help_text="Share of the requests. The provider's own credential has 1."
    )
    is_active = models.BooleanField("active", default=True)

    class Meta:
        ordering = ("pk",)
        constraints = [models.UniqueConstraint(fields=["provider", "name"], name="credential_once")]

    def __str__(self) -> str:
        return f"{self.provider}: {self.name}"


def rate_field(name: str) -> "models.PositiveIntegerField[Any, Any]":
    return models.PositiveIntegerField(
        name, default=0, db_default=0, validators=[MinValueValidator(0)], help_text="Of all keys together. 0: no limit."
    )


class Model(models.Model):
    class Limits(models.TextChoices):
        PASS = "pass", "pass on what the client asks"
        ENFORCE = "enforce", "enforce context and output"

    class Strategy(models.TextChoices):
        WEIGHTED = "weighted", "weighted: shared out by the routes' weights"
        IN_ORDER = "in_order", "in order: always the first that works, as listed"
        CHEAPEST = "cheapest", "cheapest: by what the routes' providers charge"
        FASTEST = "fastest", "fastest: by the time to the first token, as measured lately"
        LEAST_BUSY = "least_busy", "least busy: where the fewest requests run now"

    slug = models.CharField("model ID", max_length=200, unique=True, validators=[validate_id])
    vendor = models.ForeignKey(Vendor, on_delete=models.PROTECT, related_name="models")
    name = models.CharField(max_length=200, blank=True, help_text="For people; empty: the ID.")
    description = models.TextField(blank=True)
    is_active = models.BooleanField("active", default=True)
    context = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens in: the context window.")
    output = models.PositiveIntegerField(null=True, blank=True, help_text="Tokens out, at most.")
    limits = models.CharField(max_length=10, choices=Limits, default=Limits.PASS)
    rps = rate_field("requests per second")
    rpm = rate_field("requests per minute")
    tpm = rate_field("tokens per minute")
    concurrency = rate_field("concurrent requests")
    strategy = models.CharField(
        max_length=20,
        choices=Strategy,
        default=Strategy.WEIGHTED,
        db_default=Strategy.WEIGHTED,
        help_text="Which route of one priority is tried first.",
    )
    attempts = models.PositiveIntegerField(
        default=6, db_default=6, validators=[at_least_one], help_text="Tries for one request, over all routes, at most."
    )
    input_modalities = models.JSONField(default=text_only, blank=True, validators=[validate_names])
    output_modalities = models.JSONField(default=text_only, blank=True, validators=[validate_names])
    supports = models.JSONField(
        default=list, blank=True, validators=[validate_names], help_text="tools, vision, reasoning, structured_outputs"
    )
    fallbacks = models.JSONField(
        default=list, blank=True, validators=[validate_names], help_text="Other models, once every route has failed."
    )
    position = models.PositiveIntegerField(default=0, help_text="Order on the docs page.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("vendor__position", "position", "slug")

    def __str__(self) -> str:
        return self.slug


def price_field(name: str) -> "models.DecimalField[Any, Any]":
    return models.DecimalField(
        name, max_digits=14, decimal_places=6, null=True, blank=True, validators=[MinValueValidator(Decimal(0))]
    )


class Route(models.Model):
    """One way to a model: a provider, and the provider's own name for it."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="routes")
    provider = models.ForeignKey(Provider, on_delete=models.CASCADE, related_name="routes")
    upstream_model = models.CharField("model ID there", max_length=200, validators=[validate_id])
    priority = models.PositiveIntegerField(default=1, help_text="Lower is tried first.")
    weight = models.PositiveIntegerField(default=1, help_text="Share among routes of one priority.")
    is_active = models.BooleanField("active", default=True)
    # What this provider charges, per million tokens, for "cheapest"; `Price` is what the model costs here.
    price_input = price_field("USD in")
    price_output = price_field("USD out")
    discovered = models.BooleanField(default=False, editable=False)

    class Meta:
        ordering = ("priority", "pk")
        constraints = [models.UniqueConstraint(fields=["model", "provider", "upstream_model"], name="route_once")]

    def __str__(self) -> str:
        return f"{self.model} → {self.provider}: {self.upstream_model}"


class Alias(models.Model):
    slug = models.CharField("alias", max_length=200, unique=True, validators=[validate_id])
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="aliases")

    class Meta:
        ordering = ("slug",)
        verbose_name_plural = "aliases"

    def __str__(self) -> str:
        return self.slug

    def clean(self) -> None:
        if Model.objects.filter(slug=self.slug).exists():
            raise ValidationError({"slug": "A model has this ID."})


class Price(models.Model):
    """USD per million tokens, from a date on. An empty kind: cached input costs what input costs."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="prices")
    valid_from = models.DateTimeField(default=timezone.now, help_text="UTC.")
    input = price_field("input")
    output = price_field("output")
    cached_input = price_field("cached input")
    cache_write = price_field("cache write")
    source = models.CharField(max_length=300, blank=True, help_text="Where this figure was published.")

    class Meta:
        ordering = ("-valid_from",)
        constraints = [models.UniqueConstraint(fields=["model", "valid_from"], name="price_once")]

    def __str__(self) -> str:
        return f"{self.model} from {self.valid_from:%Y-%m-%d}"


class Announcement(models.Model):
    """What the operator tells the service's users, on the docs page and the status page."""

    class Kind(models.TextChoices):
        INFO = "info", "information"
        WARNING = "warning", "warning"
        INCIDENT = "incident", "incident"
        MAINTENANCE = "maintenance", "maintenance"

    kind = models.CharField(max_length=20, choices=Kind, default=Kind.INFO)
    title = models.CharField(max_length=200)
    text = models.TextField(blank=True, help_text="Plain text.")
    begins_at = models.DateTimeField("begins", default=timezone.now, help_text="UTC. Not shown before.")
    ends_at = models.DateTimeField("ends", null=True, blank=True, help_text="UTC. Empty: until it is switched off.")
    is_active = models.BooleanField("active", default=True)

    class Meta:
        ordering = ("-begins_at", "-pk")

    def __str__(self) -> str:
        return self.title

    def clean(self) -> None:
        if self.begins_at and self.ends_at and self.ends_at <= self.begins_at:
            raise ValidationError({"ends_at": "It ends before it begins."})
