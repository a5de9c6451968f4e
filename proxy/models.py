"""One row per request: who asked what, which provider answered, what it used and cost. Never content."""

from django.db import models


class UsageRecord(models.Model):
    """Names are copied, so that a row outlives its key and model. Times in milliseconds; cost in USD.

    A column that is added later has a `db_default`: processes of the release before go on inserting rows without it.
    """

    class Outcome(models.TextChoices):
        COMPLETE = "complete", "complete"
        INCOMPLETE = "incomplete", "the provider broke off"
        CANCELLED = "cancelled", "the client left"
        FAILED = "failed", "every provider failed"
        REFUSED = "refused", "refused"

    class Endpoint(models.TextChoices):
        """The format that the client spoke; its values are the formats' `ENDPOINT`."""

        CHAT = "chat", "OpenAI chat"
        RESPONSES = "responses", "OpenAI Responses"
        MESSAGES = "messages", "Anthropic Messages"
        GEMINI = "gemini", "Gemini"
        COMPLETIONS = "completions", "OpenAI completions"

    request_id = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(db_index=True)
    endpoint = models.CharField(max_length=40, choices=Endpoint, default=Endpoint.CHAT)
    key_id = models.BigIntegerField(null=True)
    key_prefix = models.CharField("key", max_length=24, blank=True)
    key_name = models.CharField(max_length=100, blank=True)
    account_id = models.BigIntegerField(null=True)
    account = models.CharField(max_length=100, blank=True)
    requested_model = models.CharField("asked for", max_length=200, blank=True)
    alias = models.CharField(max_length=200, blank=True)
    model = models.CharField(max_length=200, blank=True)
    provider = models.CharField(max_length=100, blank=True)
    upstream_model = models.CharField("model ID there", max_length=200, blank=True)
    provider_format = models.CharField("format there", max_length=40, blank=True, default="", db_default="")
    losses = models.TextField(
        "lost", blank=True, default="", db_default="", help_text="What could not be said in the other format."
    )
    status = models.PositiveSmallIntegerField(help_text="HTTP status the client got; 499: it had left before.")
    error_code = models.CharField("error", max_length=60, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome)
    streamed = models.BooleanField(default=False)
    prompt_tokens = models.PositiveIntegerField("tokens in", default=0)
    completion_tokens = models.PositiveIntegerField("tokens out", default=0)
    cached_tokens = models.PositiveIntegerField("cached", default=0)
    cache_write_tokens = models.PositiveIntegerField("cache writes", default=0)
    reasoning_tokens = models.PositiveIntegerField("reasoning", default=0)
    estimated = models.BooleanField(default=False, help_text="The provider sent no usage: counted by the gateway.")
    cost = models.DecimalField("cost, USD", max_digits=24, decimal_places=12, null=True)
    first_token_ms = models.FloatField("first token, ms", null=True)
    total_ms = models.FloatField("total, ms", default=0)
    attempts = models.JSONField(default=list)
    client = models.CharField(max_length=100, blank=True)

    class Meta:
        ordering = ("-created_at", "-pk")
        verbose_name = "request"
        indexes = [
            models.Index(fields=["key_id", "created_at"], name="usage_by_key"),
            models.Index(fields=["account_id", "created_at"], name="usage_by_account"),
            models.Index(fields=["model", "created_at"], name="usage_by_model"),
            models.Index(fields=["created_at"], name="usage_with_losses", condition=models.Q(losses__gt="")),
        ]

    def __str__(self) -> str:
        return self.request_id
