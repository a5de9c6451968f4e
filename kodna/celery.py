"""The Celery application: `make worker` and `make beat`. Tasks are `shared_task`s of the apps."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kodna.settings")

app = Celery("kodna")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {"discover-models": {"task": "models_catalog.tasks.discover_models", "schedule": 30.0}}
