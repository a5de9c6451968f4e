"""Whether a process can serve, in the shape that monitors know."""

from pathlib import Path

import pytest
from django.conf import settings

from proxy.asgi import Application
from proxy.status import Status
from proxy.upstream import Pool
from tests.proxy.inside import Answer, Inside, model, provider, snapshot
from tests.upstreams import MockUpstream


@pytest.fixture
def house(tmp_path: Path) -> Inside:
    return Inside(tmp_path, snapshot(model("m", provider()), model("dead")), Pool(MockUpstream().transport))


async def test_it_works(house: Inside) -> None:
    answer = await house.get("/health")
    assert answer.status == 200
    assert answer.json == {
        "status": "healthy",
        "services": {
            "config": {"name": "config", "status": "healthy", "message": "keys and catalog are up to date"},
            "models": {"name": "models", "status": "healthy", "message": "1 of 2 models have a provider"},
            "usage": {"name": "usage", "status": "healthy", "message": "limits, credit and usage are exact"},
        },
        "version": settings.VERSION,
    }
    assert answer.headers["cache-control"] == "no-store"


async def test_before_the_tables_are_loaded(house: Inside) -> None:
    house.tables.loaded = 0
    assert [(await house.get(path)).status for path in ("/health", "/health/live", "/health/ready")] == [503, 200, 503]
    assert (await house.get("/health")).json["status"] == "unhealthy"


async def test_usage_cannot_be_recorded(house: Inside) -> None:
    house.journal._waiting.append(b"a line")
    answer = await house.get("/health")
    assert (answer.status, answer.json["services"]["usage"]["status"]) == (503, "unhealthy")


async def test_redis_is_away(house: Inside) -> None:
    house.application = Application(house.gateway, Status(house.tables, house.journal, [], lambda: "Redis is away"))
    answer = await house.get("/health")
    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert answer.json["services"]["usage"]["message"] == "Redis is away"


async def test_the_database_is_away(house: Inside) -> None:
    house.background.trouble = "OperationalError: password=secret"
    answer = await house.get("/health")
    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert b"secret" not in answer.body
    assert (await house.get("/health/ready")).status == 200, "known keys work on"


async def test_no_model_has_a_provider(house: Inside) -> None:
    house.tables.catalog = snapshot(model("dead"))
    assert (await house.get("/health")).json["services"]["models"]["status"] == "degraded"


async def test_head(house: Inside) -> None:
    answer: Answer = await house.get("/health/live", method="HEAD")
    assert answer.status == 200
