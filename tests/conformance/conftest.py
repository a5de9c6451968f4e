"""The table at the end, where this folder alone is run; `tests/conftest.py` sees to it where all of the suite is."""

import pytest

from tests.conformance.matrix import NAME, Matrix


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin(NAME):
        config.pluginmanager.register(Matrix(), NAME)
