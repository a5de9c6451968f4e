"""Periodic jobs of the catalog, for Celery's worker. Without Redis the web process runs them by its own scheduler."""

from celery import shared_task

from models_catalog import discovery


@shared_task  # type: ignore[untyped-decorator]
def discover_models() -> None:
    discovery.discover_all()
