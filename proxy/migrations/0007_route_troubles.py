from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('proxy', '0006_fill_days'),
    ]

    operations = [
        migrations.CreateModel(
            name='RouteTrouble',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=300, unique=True)),
                ('provider', models.CharField(max_length=100)),
                ('credential', models.CharField(blank=True, default='', max_length=100)),
                ('model', models.CharField(blank=True, default='', max_length=200)),
                ('why', models.CharField(max_length=20)),
                ('status', models.PositiveSmallIntegerField(default=0, help_text='That the provider answered with; 0: with none.')),
                ('times', models.PositiveIntegerField(default=1)),
                ('since', models.DateTimeField()),
                ('until', models.DateTimeField()),
                ('seen_at', models.DateTimeField()),
            ],
        ),
    ]
