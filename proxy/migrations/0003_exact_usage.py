import accounts.usd
from django.db import migrations, models

TABLE = "proxy_usagerecord"


def to_picodollars(apps, schema_editor):
    """Where it is: a new column, or Django's copy of the table, takes several times as long."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("SET LOCAL maintenance_work_mem = '128MB'")  # the indexes are built anew
        schema_editor.execute(
            f"ALTER TABLE {TABLE} ALTER COLUMN cost TYPE bigint USING round(cost * 1000000000000)::bigint"
        )
    else:
        # The column is declared "decimal": of NUMERIC affinity, it keeps integers as they are. What is floating point
        # there is rounded to the right picodollar up to 2,251 USD (2**51 picodollars).
        schema_editor.execute(
            f"UPDATE {TABLE} SET cost = CAST(round(cost * 1000000000000) AS integer) WHERE cost IS NOT NULL"
        )


def to_usd(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            f"ALTER TABLE {TABLE} ALTER COLUMN cost TYPE numeric(24, 12) USING cost * 0.000000000001"
        )
    else:
        schema_editor.execute(f"UPDATE {TABLE} SET cost = cost / 1000000000000.0 WHERE cost IS NOT NULL")


def added(column, definition, field):
    """In SQLite too without a copy of the table, which Django makes for every column that is not null."""
    return migrations.SeparateDatabaseAndState(
        database_operations=[
            migrations.RunSQL(
                f"ALTER TABLE {TABLE} ADD COLUMN {column} {definition}", f"ALTER TABLE {TABLE} DROP COLUMN {column}"
            )
        ],
        state_operations=[migrations.AddField(model_name="usagerecord", name=column, field=field)],
    )


class Migration(migrations.Migration):

    dependencies = [
        ('proxy', '0002_losses_and_formats'),
    ]

    operations = [
        migrations.CreateModel(
            name='CounterEpoch',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.BigIntegerField(default=0)),
                ('store', models.CharField(choices=[('redis', 'Redis'), ('database', 'Database')], default='redis', max_length=10)),
            ],
        ),
        migrations.CreateModel(
            name='CounterWorker',
            fields=[
                ('name', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('epoch', models.BigIntegerField(default=0)),
                ('seen_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Job',
            fields=[
                ('name', models.CharField(max_length=60, primary_key=True, serialize=False)),
                ('runner', models.CharField(blank=True, default='', max_length=64)),
                ('until', models.DateTimeField(null=True)),
                ('started_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('result', models.TextField(blank=True, default='')),
                ('failed', models.BooleanField(default=False)),
            ],
            options={
                'ordering': ('name',),
            },
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='held',
            field=accounts.usd.UsdField(help_text='The most that was held for the request.', null=True, verbose_name='held, USD'),
        ),
        added(
            "metered",
            "bool DEFAULT false NOT NULL",
            models.BooleanField(db_default=False, default=False, help_text="Charged to the account's balance."),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='price',
            field=models.JSONField(help_text='USD per million tokens: input, output, cached_input, cache_write.', null=True),
        ),
        added(
            "shortfall",
            "bigint DEFAULT 0 NOT NULL",
            accounts.usd.UsdField(db_default=0, default=0, help_text='What the request used beyond its hold, where no more credit was left: nobody was charged for it.', verbose_name='not charged, USD'),
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(to_picodollars, to_usd)],
            state_operations=[
                migrations.AlterField(
                    model_name='usagerecord',
                    name='cost',
                    field=accounts.usd.UsdField(help_text='What was charged, or would be where the account is unmetered.', null=True, verbose_name='cost, USD'),
                ),
            ],
        ),
        migrations.CreateModel(
            name='Hold',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('request_id', models.CharField(max_length=64)),
                ('fund', models.CharField(max_length=64)),
                ('amount', models.BigIntegerField(help_text='Nanodollars.')),
                ('worker', models.CharField(max_length=64)),
                ('expires_at', models.DateTimeField(help_text='Empty: settled, it waits for its charge to land.', null=True)),
            ],
            options={
                'indexes': [models.Index(fields=['fund'], name='holds_of_a_fund')],
                'constraints': [models.UniqueConstraint(fields=('request_id', 'fund'), name='hold_once')],
            },
        ),
        migrations.CreateModel(
            name='UsageQuarter',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('start', models.DateTimeField()),
                ('account_id', models.BigIntegerField(default=0)),
                ('account', models.CharField(blank=True, max_length=100)),
                ('key_id', models.BigIntegerField(default=0)),
                ('key_prefix', models.CharField(blank=True, max_length=24)),
                ('key_name', models.CharField(blank=True, max_length=100)),
                ('model', models.CharField(blank=True, max_length=200)),
                ('provider', models.CharField(blank=True, max_length=100)),
                ('requests', models.BigIntegerField(default=0)),
                ('errors', models.BigIntegerField(default=0)),
                ('prompt_tokens', models.BigIntegerField(default=0)),
                ('completion_tokens', models.BigIntegerField(default=0)),
                ('cached_tokens', models.BigIntegerField(default=0)),
                ('cache_write_tokens', models.BigIntegerField(default=0)),
                ('reasoning_tokens', models.BigIntegerField(default=0)),
                ('cost', accounts.usd.UsdField(default=0)),
                ('shortfall', accounts.usd.UsdField(default=0)),
            ],
            options={
                'indexes': [models.Index(fields=['account_id', 'start'], name='quarter_by_account')],
                'constraints': [models.UniqueConstraint(fields=('start', 'account_id', 'key_id', 'model', 'provider'), name='quarter_once')],
            },
        ),
    ]
