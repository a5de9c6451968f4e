"""What the data plane leaves in the database: a row per request and sums of them; and how processes share the counters.

A row says who asked what, which provider answered, what it used and cost. Never content.
"""

from django.db import models

from accounts.usd import UsdField


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
    cost = UsdField("cost, USD", null=True, help_text="What was charged, or would be where the account is unmetered.")
    shortfall = UsdField(
        "not charged, USD",
        default=0,
        db_default=0,
        help_text="What the request used beyond its hold, where no more credit was left: nobody was charged for it.",
    )
    held = UsdField("held, USD", null=True, help_text="The most that was held for the request.")
    metered = models.BooleanField(default=False, db_default=False, help_text="Charged to the account's balance.")
    price = models.JSONField(null=True, help_text="USD per million tokens: input, output, cached_input, cache_write.")
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


class UsageSum(models.Model):
    """Sums of the rows of a span of time that begins at `start`, by account, key, model and provider.

    Moved in the same transaction as the rows; `proxy.rollups` makes them anew. Names are the latest that were seen.
    """

    start = models.DateTimeField()
    account_id = models.BigIntegerField(default=0)
    account = models.CharField(max_length=100, blank=True)
    key_id = models.BigIntegerField(default=0)
    key_prefix = models.CharField(max_length=24, blank=True)
    key_name = models.CharField(max_length=100, blank=True)
    model = models.CharField(max_length=200, blank=True)
    provider = models.CharField(max_length=100, blank=True)
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cost = UsdField(default=0)
    shortfall = UsdField(default=0)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} {self.account} {self.model}"


class UsageQuarter(UsageSum):
    """Of a quarter of an hour: whole days of any time zone are made of them."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["start", "account_id", "key_id", "model", "provider"], name="quarter_once")
        ]
        indexes = [models.Index(fields=["account_id", "start"], name="quarter_by_account")]


class UsageDay(UsageSum):
    """Of a day, in UTC: the sum of its quarters. Long reports read these, and quarters where a day is not whole.

    `seen`: when the names were. A key that is renamed has both names on that day, one for each model.
    """

    seen = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["start", "account_id", "key_id", "model", "provider"], name="day_once")
        ]
        indexes = [models.Index(fields=["account_id", "start"], name="day_by_account")]


class CounterEpoch(models.Model):
    """One row: where all processes keep their counters and holds now. The number rises with every move."""

    class Store(models.TextChoices):
        REDIS = "redis"
        DATABASE = "database"

    number = models.BigIntegerField(default=0)
    store = models.CharField(max_length=10, choices=Store, default=Store.REDIS)

    def __str__(self) -> str:
        return f"{self.number}: {self.store}"


class CounterWorker(models.Model):
    """A gateway process that counts with the others. `epoch`: the last move that it has made."""

    name = models.CharField(max_length=64, primary_key=True)
    epoch = models.BigIntegerField(default=0)
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class Hold(models.Model):
    """Credit that a request may still use, while the database keeps the holds: deleted as its charge lands."""

    request_id = models.CharField(max_length=64)
    fund = models.CharField(max_length=64)
    amount = models.BigIntegerField(help_text="Nanodollars.")
    worker = models.CharField(max_length=64)
    expires_at = models.DateTimeField(null=True, help_text="Empty: settled, it waits for its charge to land.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["request_id", "fund"], name="hold_once")]
        indexes = [models.Index(fields=["fund"], name="holds_of_a_fund")]

    def __str__(self) -> str:
        return f"{self.request_id} {self.fund}"


class Job(models.Model):
    """A periodic job: when it ran last, and who runs it now. `until`: then the runner has died."""

    name = models.CharField(max_length=60, primary_key=True)
    runner = models.CharField(max_length=64, blank=True, default="")
    until = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    result = models.TextField(blank=True, default="")
    failed = models.BooleanField(default=False)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class RouteTrouble(models.Model):
    """A credential that is refused, or a route whose circuit is open, as gateway processes see it (`proxy.troubles`).

    `name`: `snapshot.Route.way`, or `snapshot.Provider.place` where it is about all of a credential's models (`model`,
    the provider's name for it, is empty then). `seen_at`: a process still says so. It is deleted when it is over.
    """

    name = models.CharField(max_length=300, unique=True)
    provider = models.CharField(max_length=100)
    credential = models.CharField(max_length=100, blank=True, default="")
    model = models.CharField(max_length=200, blank=True, default="")
    why = models.CharField(max_length=20)
    status = models.PositiveSmallIntegerField(default=0, help_text="That the provider answered with; 0: with none.")
    times = models.PositiveIntegerField(default=1)
    since = models.DateTimeField()
    until = models.DateTimeField()
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class UptimeHour(models.Model):
    """How often a model's providers answered in the hour that begins at `start`, and how often they failed.

    `provider` empty: the model as its clients saw it. Moved in the same transaction as the rows (`proxy.uptime`).
    """

    start = models.DateTimeField()
    model = models.CharField(max_length=200)
    provider = models.CharField(max_length=100, blank=True)
    good = models.BigIntegerField(default=0)
    bad = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["provider", "start", "model"], name="uptime_once")]

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:00} {self.model}"
