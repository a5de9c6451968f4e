"""The small versions run on the services that the other tests have."""

from pathlib import Path

import pytest

from tests.exact.fleet import House
from tests.services import Postgres


@pytest.fixture(scope="session")
def house(
    postgres: Postgres, migrated_postgres: str, migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> House:
    return House(tmp_path_factory.mktemp("exact"), postgres, migrated_postgres, migrated)
