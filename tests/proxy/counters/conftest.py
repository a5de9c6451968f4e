"""A Redis for the tests of the counters."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import redis as client

from tests.services import Redis

if TYPE_CHECKING:
    from tests.proxy.counters.stores import Clock


@pytest.fixture(scope="module")
def url(redis: Redis) -> str:
    """Redis has few databases: the tests of a file share one."""
    return redis.new_database()


@pytest.fixture
def database(url: str) -> Iterator["client.Redis[bytes]"]:
    """What is in it; empty at the start."""
    with client.Redis.from_url(url) as found:
        found.flushdb()
        yield found


@pytest.fixture
def clock(database: "client.Redis[bytes]", monkeypatch: pytest.MonkeyPatch) -> "Clock":
    from tests.proxy.counters.stores import Clock  # needs Django, which is set up after the conftests are read

    return Clock(database, monkeypatch)
