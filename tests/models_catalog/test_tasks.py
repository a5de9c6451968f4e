"""The periodic jobs are known to Celery by stable names."""

import pytest

from models_catalog import discovery, tasks


def test_discover_models(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(discovery, "discover_all", lambda: calls.append("asked"))
    assert tasks.discover_models.name == "models_catalog.tasks.discover_models"
    tasks.discover_models.apply(throw=True)
    assert calls == ["asked"]
