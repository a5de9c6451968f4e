"""Who pays (`Account`), with which key (`ApiKey`), and what was paid (`LedgerEntry`, `Balance`, `KeySpend`)."""

import ipaddress
import uuid
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

from accounts.usd import UsdField


class User(AbstractUser):
    """An operator of the console, or a person behind an account."""


def limit_field(name: str, **more: Any) -> "models.PositiveIntegerField[Any, Any]":
    words = {"default": 0, "validators": [MinValueValidator(0)], "help_text": "0: no limit.", **more}
    return models.PositiveIntegerField(name, **words)


class Account(models.Model):
    """Its limits hold for all its keys together. Its balance is the sum of its `LedgerEntry`s: `accounts.credits`."""

    class Billing(models.TextChoices):
        UNMETERED = "unmetered", "unmetered: nothing is charged"
        PREPAID = "prepaid", "prepaid: what has been granted may be spent"
        POSTPAID = "postpaid", "postpaid: up to the ceiling below zero"

    name = models.CharField(max_length=100, unique=True)
    users = models.ManyToManyField(User, blank=True, related_name="accounts")
    is_active = models.BooleanField("active", default=True, help_text="Off: every key of this account is refused.")
    billing = models.CharField(max_length=10, choices=Billing, default=Billing.UNMETERED)
    ceiling = UsdField(
        "ceiling, USD",
        default=0,
        validators=[MinValueValidator(0)],
        help_text="Of a postpaid account: how far its balance may fall below zero.",
    )
    low_balance = UsdField(
        "low balance, USD",
        null=True,
        blank=True,
        help_text="A notice goes out when what is left falls below this. Empty: none.",
    )
    rps = limit_field("requests per second")
    rpm = limit_field("requests per minute")
    tpm = limit_field("tokens per minute")
    concurrency = limit_field("concurrent requests")
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


def default_tpm() -> int:
    return settings.DEFAULT_TPM


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


class BudgetPeriod(models.TextChoices):
    TOTAL = "total", "in all"
    DAY = "day", "a day"
    WEEK = "week", "a week, from Monday"
    MONTH = "month", "a month"


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
    rps = limit_field("requests per second", default=default_rps)
    rpm = limit_field("requests per minute", default=default_rpm)
    tpm = limit_field("tokens per minute", default=default_tpm)
    concurrency = limit_field("concurrent requests", default=default_concurrency)
    budget = UsdField(
        "budget, USD",
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="What this key may spend in its period, whatever its account could pay. Empty: no bound.",
    )
    budget_period = models.CharField(
        max_length=5, choices=BudgetPeriod, default=BudgetPeriod.TOTAL, help_text="Periods begin at midnight UTC."
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
    spends_as = models.BigIntegerField(
        null=True, editable=False, help_text="Of a rotated key, the first of its chain: their budget is one."
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


class LedgerEntry(models.Model):
    """Append-only: what was granted to an account (positive) and charged (negative). Only `accounts.credits` adds."""

    class Kind(models.TextChoices):
        GRANT = "grant", "granted"
        CHARGE = "charge", "charged for a request"

    # An account with entries is not deleted; a charge that comes late is kept whatever has become of its account.
    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_constraint=False, related_name="entries")
    kind = models.CharField(max_length=10, choices=Kind)
    amount = UsdField("amount, USD")
    created_at = models.DateTimeField()
    request_id = models.CharField(max_length=64, null=True, unique=True)
    note = models.CharField(max_length=300, blank=True, default="", db_default="")
    by = models.CharField(max_length=150, blank=True, default="", db_default="", help_text="Which operator.")

    class Meta:
        ordering = ("-created_at", "-pk")
        verbose_name_plural = "ledger entries"
        indexes = [models.Index(fields=["account", "created_at"], name="ledger_by_account")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.amount} USD"


class Balance(models.Model):
    """The sum of an account's entries, moved in the same transaction as they. `seq` rises with every move."""

    account = models.OneToOneField(
        Account, on_delete=models.PROTECT, db_constraint=False, primary_key=True, related_name="balance"
    )
    amount = UsdField("balance, USD", default=0, db_default=0)
    seq = models.BigIntegerField(default=0, db_default=0)

    def __str__(self) -> str:
        return f"{self.amount} USD"


class KeySpend(models.Model):
    """What a key has spent on one day (UTC), whatever its account's billing: budgets are sums of it.

    `spender`: whose budget it is, the key's own or of a rotated key the first one's. The spender's row of the day
    0001-01-01 (`credits.EVER`) is the sum of all; its `seq` orders all of the spender's charges: a sum over days would
    not (two transactions on two days see the same sum, each without the other's amount).
    """

    spender = models.BigIntegerField(db_default=0)
    key_id = models.BigIntegerField()
    day = models.DateField()
    amount = UsdField("spent, USD", default=0, db_default=0)
    seq = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["spender", "day", "key_id"], name="spend_once_a_day")]

    def __str__(self) -> str:
        return f"{self.amount} USD on {self.day}"


class Notice(models.Model):
    """What an operator and an account's people should hear of. Made and ended by `accounts.notices`.

    While it stands (`ended_at` is empty), the same is not said again.
    """

    class Kind(models.TextChoices):
        """The `type` of a webhook."""

        KEY_EXPIRING = "key.expiring", "API key expires soon"
        KEY_BUDGET = "key.budget", "budget of an API key"
        LOW_BALANCE = "account.low_balance", "low balance"
        CREDENTIAL_REFUSED = "provider.credential_refused", "a provider refuses its credential"
        ROUTE_DOWN = "provider.route_down", "a provider fails"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    kind = models.CharField(max_length=40, choices=Kind)
    subject = models.CharField(max_length=150, help_text="What exactly it is about: of one subject, one stands.")
    account = models.ForeignKey(
        Account,
        on_delete=models.CASCADE,
        related_name="notices",
        null=True,
        help_text="Empty: it is about the gateway itself, for its operator alone.",
    )
    text = models.TextField()
    data = models.JSONField(default=dict)
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField("over since", null=True, help_text="Empty: it still is so.")

    class Meta:
        ordering = ("-created_at",)
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "subject"], condition=models.Q(ended_at=None), name="notice_stands_once"
            )
        ]

    def __str__(self) -> str:
        return self.text


class NoticeDelivery(models.Model):
    """A notice on its way out by one channel. `due_at`: the next try; empty: it is delivered, or given up."""

    class Channel(models.TextChoices):
        MAIL = "mail"
        WEBHOOK = "webhook"

    notice = models.ForeignKey(Notice, on_delete=models.CASCADE, related_name="deliveries")
    channel = models.CharField(max_length=10, choices=Channel)
    due_at = models.DateTimeField(null=True)
    tries = models.PositiveSmallIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True)
    trouble = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        verbose_name_plural = "notice deliveries"
        constraints = [models.UniqueConstraint(fields=["notice", "channel"], name="delivery_once_a_channel")]
        indexes = [models.Index(fields=["due_at"], name="deliveries_due", condition=models.Q(due_at__isnull=False))]

    def __str__(self) -> str:
        if self.delivered_at:
            return f"{self.channel}: delivered"
        return f"{self.channel}: {'waiting' if self.due_at else 'given up'}"
