"""The Celery application: it knows the apps' tasks, beat asks for every job, and a worker runs what it asks for."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.conf import settings
from django.utils.module_loading import import_string

from kodna.celery import ASK_SECONDS, app
from tests.gateway import Gateway
from tests.processes import ROOT, Process, clean_environment, wait_for


def test_it_works() -> None:
    app.loader.import_default_modules()
    assert {"models_catalog.tasks.discover_models", "proxy.tasks.run_job"} <= set(app.tasks)


def test_beat_asks_for_every_job_by_a_task_that_there_is() -> None:
    app.loader.import_default_modules()
    asked = {entry["args"][0]: entry for entry in app.conf.beat_schedule.values()}
    assert set(asked) == set(settings.JOBS)
    for name, (path, seconds) in settings.JOBS.items():
        assert callable(import_string(path))
        assert asked[name]["task"] in app.tasks
        assert asked[name]["schedule"] == asked[name]["args"][1] == min(seconds, ASK_SECONDS)


def test_what_no_worker_took_expires_before_the_next() -> None:
    for entry in app.conf.beat_schedule.values():
        assert 0 < entry["options"]["expires"] < entry["schedule"]


def job(gateway: Gateway, name: str) -> tuple[Any, ...] | None:
    """Of a job that has ended: failed, result."""
    with closing(sqlite3.connect(gateway.data_dir / "kodna.sqlite3")) as database:
        asked = "SELECT failed, result FROM proxy_job WHERE name = ? AND finished_at IS NOT NULL"
        return database.execute(asked, [name]).fetchone()


def test_a_worker_runs_what_beat_asks_for(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway = make_gateway(redis=True)
    words = ["celery", "--app", "kodna.celery", "worker", "--pool", "solo", "--loglevel", "INFO"]
    worker = Process(
        [sys.executable, "-m", *words], log=tmp_path / "worker.log", env=gateway._environment(), cwd=tmp_path
    )
    entry = app.conf.beat_schedule["forget-notices"]
    with Celery(broker=gateway.redis_url) as beat:
        for _ in range(2):
            beat.send_task(entry["task"], entry["args"], **entry["options"])
        assert wait_for(lambda: job(gateway, "forget-notices"), 30) == (0, "0 rows deleted")
        wait_for(lambda: worker.tail().count("succeeded") == 2)
    assert worker.stop() == 0
    assert "Traceback" not in worker.tail()


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_without_redis_it_refuses(tmp_path: Path, command: str) -> None:
    """It would wait for ever on a broker in its own memory."""
    env = clean_environment(KODNA_DATA_DIR=str(tmp_path / "data"), PYTHONPATH=str(ROOT))
    words = [sys.executable, "-m", "celery", "--app", "kodna.celery", command]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "Celery needs REDIS_URL" in done.stdout + done.stderr
