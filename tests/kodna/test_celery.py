"""The Celery application: it knows the apps' tasks, and beat asks for tasks that there are."""

import subprocess
import sys
from pathlib import Path

import pytest

from kodna.celery import app
from tests.processes import ROOT, clean_environment


def test_it_works() -> None:
    app.loader.import_default_modules()
    assert "models_catalog.tasks.discover_models" in app.tasks


def test_beat_asks_for_tasks_that_there_are() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)


def test_what_no_worker_took_expires_before_the_next() -> None:
    for entry in app.conf.beat_schedule.values():
        assert 0 < entry["options"]["expires"] < entry["schedule"]


@pytest.mark.parametrize("command", ["worker", "beat"])
def test_without_redis_it_refuses(tmp_path: Path, command: str) -> None:
    """It would wait for ever on a broker in its own memory."""
    env = clean_environment(KODNA_DATA_DIR=str(tmp_path / "data"), PYTHONPATH=str(ROOT))
    words = [sys.executable, "-m", "celery", "--app", "kodna.celery", command]
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "Celery needs REDIS_URL" in done.stdout + done.stderr
