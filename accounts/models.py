"""Who pays (`Account`), and with which key (`ApiKey`)."""

import ipaddress

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone


class User(AbstractUser):
    """An operator of the console, or a person behind an account."""


class Account(models.Model):
    name = models.CharField(max_length=100, unique=True)
    users = models.ManyToManyField(User, blank=True, related_name="accounts")
    is_active = models.BooleanField("active", default=True, help_text="Off: every key of this account is refused.")
    zero_retention = models.BooleanField(
        default=False,
        help_text="On: nothing of this account's conversations is kept. A request with “store”: true or with "
        "“previous_response_id” is then refused with a 400.",
    )
    notes = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


def default_rps() -> int:
    return settings.DEFAULT_RPS


def default_rpm() -> int:
    return settings.DEFAULT_RPM


def default_concurrency() -> int:
    return settings.DEFAULT_CONCURRENCY


def validate_names(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        raise ValidationError("Expected a list of names.")


def validate_networks(value: object) -> None:
    validate_names(value)
    assert isinstance(value, list)
    for network in value:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValidationError(f"Not an address or network: {error}") from error


class ApiKey(models.Model):
    """A key is kept as its first characters and an HMAC; the key itself is shown once, when it is made."""

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="keys")
    name = models.CharField(max_length=100, blank=True, help_text="What or whom this key is for.")
    prefix = models.CharField(max_length=24, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, unique=True, editable=False)
    is_active = models.BooleanField("active", default=True, help_text="Off: refused within a second, everywhere.")
    expires_at = models.DateTimeField(null=True, blank=True, help_text="UTC. Empty: it does not expire.")
    allowed_models = models.JSONField(
        default=list, blank=True, validators=[validate_names], help_text="Model IDs. Empty: all."
    )
    allowed_groups = models.JSONField(
        default=list, blank=True, validators=[validate_names], help_text="Provider groups. Empty: all."
    )
    allowed_networks = models.JSONField(
        default=list, blank=True, validators=[validate_networks], help_text="Addresses or CIDR. Empty: anywhere."
    )
    rps = models.PositiveIntegerField(
        "requests per second", default=default_rps, validators=[MinValueValidator(0)], help_text="0: no limit."
    )
    rpm = models.PositiveIntegerField(
        "requests per minute", default=default_rpm, validators=[MinValueValidator(0)], help_text="0: no limit."
    )
    concurrency = models.PositiveIntegerField(
        "concurrent requests", default=default_concurrency, validators=[MinValueValidator(0)], help_text="0: no limit."
    )
    strict = models.BooleanField(
        default=False,
        help_text="On: a request that would lose something on its way to a provider of another format is refused with "
        "a 400 that names the field. Off: it is sent without, and the answer's header x-kodna-losses names the field.",
    )
    notes = models.TextField(blank=True)
    rotated_from = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="rotated_to"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ("-created_at",)
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name or 'key'} ({self.prefix}…)"

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()


class KeysVersion(models.Model):
    """One row; its number rises with every change of an account or a key."""

    version = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.version)
