"""The Celery application: `make worker` and `make beat`. Tasks are `shared_task`s of the apps."""

import os
import sys

from celery import Celery
from celery.signals import beat_init, celeryd_init
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kodna.settings")

app = Celery("kodna")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
ASK_SECONDS = 60.0  # beat asks so often for the rarer jobs too: one that was missed is made up soon


def _entry(name: str, seconds: float) -> dict[str, object]:
    every = min(seconds, ASK_SECONDS)
    # What no worker took is not worth doing when the next one comes: else they pile up while none runs.
    options = {"expires": every * 0.8}
    return {"task": "proxy.tasks.run_job", "args": (name, every), "schedule": every, "options": options}


app.conf.beat_schedule = {name: _entry(name, seconds) for name, (_, seconds) in settings.JOBS.items()}


def _refuse_without_redis(**_: object) -> None:
    """Worker and beat would wait for ever, each for its own memory. `SystemExit`: Celery only logs other errors."""
    if not settings.REDIS_URL:
        sys.stderr.write(
            "Celery needs REDIS_URL: a Redis that the gateway, the worker and beat share. "
            "Without it the gateway does the periodic jobs itself, and neither worker nor beat is needed.\n"
        )
        raise SystemExit(2)


celeryd_init.connect(_refuse_without_redis)
beat_init.connect(_refuse_without_redis)
