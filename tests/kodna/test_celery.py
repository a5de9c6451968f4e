"""The Celery application: it knows the apps' tasks, and beat asks for tasks that there are."""

from kodna.celery import app


def test_it_works() -> None:
    app.loader.import_default_modules()
    assert "models_catalog.tasks.discover_models" in app.tasks


def test_beat_asks_for_tasks_that_there_are() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)
