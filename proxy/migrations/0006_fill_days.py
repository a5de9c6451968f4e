"""Sums of the quarters that are there, as `proxy.rollups` keeps them from now on."""

from django.db import migrations

START = {
    "postgresql": "date_bin('1 day', start, timestamptz '2000-01-01 00:00:00+00')",
    "sqlite": "substr(start, 1, 10) || ' 00:00:00'",
}
# Of the latest quarter.
LATEST = {"postgresql": "(array_agg({0} ORDER BY start DESC))[1]", "sqlite": "substr(MAX(start || {0}), 20)"}

DAYS = """
INSERT INTO proxy_usageday (
    start, account_id, key_id, model, provider, account, key_prefix, key_name, requests, errors, prompt_tokens,
    completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, cost, shortfall, seen
)
SELECT {start}, account_id, key_id, model, provider, {names}, SUM(requests), SUM(errors), SUM(prompt_tokens),
    SUM(completion_tokens), SUM(cached_tokens), SUM(cache_write_tokens), SUM(reasoning_tokens), SUM(cost),
    SUM(shortfall), MAX(start)
FROM proxy_usagequarter GROUP BY 1, 2, 3, 4, 5
"""


def fill(apps, schema_editor):
    vendor = schema_editor.connection.vendor
    if vendor == "postgresql":
        schema_editor.execute("SET LOCAL work_mem = '128MB'")
    names = ", ".join(LATEST[vendor].format(name) for name in ("account", "key_prefix", "key_name"))
    schema_editor.execute(DAYS.format(start=START[vendor], names=names))


def empty(apps, schema_editor):
    schema_editor.execute("DELETE FROM proxy_usageday")


class Migration(migrations.Migration):

    dependencies = [
        ("proxy", "0005_usage_days"),
    ]

    operations = [migrations.RunPython(fill, empty)]
