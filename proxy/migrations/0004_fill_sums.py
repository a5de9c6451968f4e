"""Sums of the rows that are there, as `proxy.rollups` and `accounts.credits` keep them from now on."""

from django.db import migrations

START = {
    "postgresql": "date_bin('15 minutes', created_at, timestamptz '2000-01-01 00:00:00+00')",
    "sqlite": "substr(created_at, 1, 14) || CASE WHEN substr(created_at, 15, 2) < '15' THEN '00:00' "
    "WHEN substr(created_at, 15, 2) < '30' THEN '15:00' WHEN substr(created_at, 15, 2) < '45' THEN '30:00' "
    "ELSE '45:00' END",
}
DAY = {"postgresql": "CAST(start AT TIME ZONE 'UTC' AS date)", "sqlite": "substr(start, 1, 10)"}

QUARTERS = """
INSERT INTO proxy_usagequarter (
    start, account_id, key_id, model, provider, account, key_prefix, key_name, requests, errors, prompt_tokens,
    completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, cost, shortfall
)
SELECT {start}, COALESCE(account_id, 0), COALESCE(key_id, 0), model, provider,
    MAX(account), MAX(key_prefix), MAX(key_name), COUNT(*),
    SUM(CASE WHEN outcome IN ('complete', 'cancelled') THEN 0 ELSE 1 END),
    SUM(prompt_tokens), SUM(completion_tokens), SUM(cached_tokens), SUM(cache_write_tokens), SUM(reasoning_tokens),
    COALESCE(SUM(cost), 0), SUM(shortfall)
FROM proxy_usagerecord GROUP BY 1, 2, 3, 4, 5
"""
DAYS = """
INSERT INTO accounts_keyspend (key_id, day, amount, seq)
SELECT key_id, {day}, SUM(cost), 1 FROM proxy_usagequarter WHERE key_id > 0 AND cost > 0 GROUP BY 1, 2
"""
# Beside its days, a key has a row for all of them together: `accounts.credits.EVER`.
EVER = """
INSERT INTO accounts_keyspend (key_id, day, amount, seq)
SELECT key_id, {ever}, SUM(amount), 1 FROM accounts_keyspend GROUP BY 1
"""


def fill(apps, schema_editor):
    vendor = schema_editor.connection.vendor
    if vendor == "postgresql":
        schema_editor.execute("SET LOCAL work_mem = '128MB'")
    ever = {"postgresql": "date '0001-01-01'", "sqlite": "'0001-01-01'"}
    schema_editor.execute(QUARTERS.format(start=START[vendor]))
    schema_editor.execute(DAYS.format(day=DAY[vendor]))
    schema_editor.execute(EVER.format(ever=ever[vendor]))


def empty(apps, schema_editor):
    schema_editor.execute("DELETE FROM proxy_usagequarter")
    schema_editor.execute("DELETE FROM accounts_keyspend")


class Migration(migrations.Migration):

    dependencies = [
        ("accounts", "0003_ledger"),
        ("proxy", "0003_exact_usage"),
    ]

    operations = [migrations.RunPython(fill, empty)]
