from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0004_notices'),
    ]

    operations = [
        migrations.AddField(
            model_name='apikey',
            name='spends_as',
            field=models.BigIntegerField(editable=False, help_text='Of a rotated key, the first of its chain: their budget is one.', null=True),
        ),
        migrations.AddField(
            model_name='keyspend',
            name='spender',
            field=models.BigIntegerField(db_default=0),
        ),
        migrations.RunSQL('UPDATE accounts_keyspend SET spender = key_id', migrations.RunSQL.noop),
        migrations.RemoveConstraint(
            model_name='keyspend',
            name='spend_once_a_day',
        ),
        migrations.AddConstraint(
            model_name='keyspend',
            constraint=models.UniqueConstraint(fields=('spender', 'day', 'key_id'), name='spend_once_a_day'),
        ),
    ]
