"""How models stand, and what strangers are told of it: by live health, by the figures, while the database is away."""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from channels import db
from django.conf import settings
from django.utils import timezone

from models_catalog.snapshot import Announcement, Model
from proxy import standing, uptime
from proxy.health import ERRORS, REFUSED, RESTS, THROTTLED, Out
from proxy.models import UptimeHour
from proxy.standing import DEGRADED, DOWN, OPERATIONAL
from proxy.upstream import Pool
from proxy.uptime import Count, Week
from tests.proxy.inside import Inside, model, provider, snapshot
from tests.upstreams import MockUpstream

NOW = 1_800_000_000.0
START = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=6)
ONE, TWO = provider("secret-one"), provider("secret-two")
M = model("m", ONE, TWO)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(db, "close_old_connections", lambda: None)  # the test's transaction is in one
    uptime.latest.forget()
    yield
    uptime.latest.forget()


@pytest.fixture
def house(tmp_path: Path) -> Inside:
    catalog = snapshot(M, model("vendor/quiet", ONE), model("gone"), model("never"))
    return Inside(tmp_path, catalog, Pool(MockUpstream().transport))


@sync_to_async
def saw(name: str, good: int, bad: int, hours: float = 0.0, provider: str = "") -> None:
    start = timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours)
    UptimeHour.objects.create(start=start, model=name, provider=provider, good=good, bad=bad)


def out(why: str, until: float = NOW + 5) -> Out:
    return Out(until, why, 500, NOW - 5, 1)


def lately(good: int, bad: int) -> Week:
    """In this hour, which has just begun."""
    start = datetime.fromtimestamp(NOW - NOW % 3600, UTC)
    return Week(start, {"m": {0: Count(good, bad)}}, {}, {"m": Count(good, bad)})


# --- the state of a model --------------------------------------------------------------------------------------------

FIRST, SECOND = (route.way for route in M.routes)


@pytest.mark.parametrize(
    ("health", "state"),
    [
        ({}, OPERATIONAL),
        ({FIRST: out(ERRORS)}, OPERATIONAL),
        ({FIRST: out(ERRORS), SECOND: out(RESTS)}, DOWN),
        ({ONE.place: out(REFUSED), TWO.place: out(ERRORS)}, DOWN),
        ({FIRST: out(THROTTLED), SECOND: out(RESTS)}, DOWN),
        ({FIRST: out(ERRORS, NOW - 1), TWO.place: out(REFUSED, NOW - 1)}, DOWN),  # neither has answered since
        ({FIRST: out(ERRORS), SECOND: out(RESTS, NOW - 1)}, OPERATIONAL),
        ({FIRST: out(ERRORS), SECOND: out(THROTTLED, NOW - 1)}, OPERATIONAL),
        ({"another/way": out(ERRORS)}, OPERATIONAL),
    ],
)
def test_by_the_health_of_its_routes(health: Mapping[str, Out], state: str) -> None:
    assert standing.state(M, health, None, NOW) == state
    assert standing.state(M, health, lately(100, 0), NOW) == state


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [
        *((0, 0, OPERATIONAL), (0, 1, OPERATIONAL), (1, 1, OPERATIONAL), (0, 2, DEGRADED), (0, 3, DOWN)),
        *((10, 2, DEGRADED), (100, 5, OPERATIONAL), (100, 6, DEGRADED), (1, 99, DEGRADED)),
    ],
)
def test_by_what_its_clients_saw_lately(good: int, bad: int, state: str) -> None:
    assert standing.state(M, {}, lately(good, bad), NOW) == state


@pytest.mark.parametrize(
    ("models", "status"),
    [
        ([M], OPERATIONAL),
        ([M, model("n", TWO)], OPERATIONAL),
        ([M, model("n", provider("down"))], DEGRADED),
        ([model("n", provider("down"))], DOWN),
        ([model("without-a-route")], DEGRADED),  # there is none to be asked
        ([], DEGRADED),
    ],
)
def test_of_all_together(models: list[Model], status: str) -> None:
    health = {provider("down").place: out(ERRORS)}
    assert standing.standing(snapshot(*models), health, None, NOW).status == status
    assert standing.standing(snapshot(*models), health, None, NOW, is_refusing=True).status == DOWN


def test_a_model_that_has_just_lost_its_routes_is_down() -> None:
    """One that never had any is not shown."""
    catalog = snapshot(replace(M, routes=()), model("never"))
    assert standing.standing(catalog, {}, lately(5, 0), NOW).states == (("m", DOWN),)


# --- the endpoints ---------------------------------------------------------------------------------------------------


async def test_it_works(house: Inside) -> None:
    await saw("m", 8, 1)
    await saw("m", 7, 0, hours=24)
    await saw("m", 90, 90, provider="secret-one")
    answer = await house.get("/v1/models/uptime")
    assert answer.status == 200
    assert answer.json["object"] == "list"
    assert abs(answer.json["updated"] - time.time()) < 5
    busy, quiet = answer.json["data"]
    days = [((START + timedelta(days=day)).date().isoformat(), None, 0, 0) for day in range(7)]
    days[5:] = [(days[5][0], 1.0, 7, 0), (days[6][0], 8 / 9, 9, 1)]
    assert [tuple(day[name] for name in ("date", "uptime", "requests", "failed")) for day in busy["days"]] == days
    of_all = {"id": "m", "object": "model.uptime", "uptime": 15 / 16, "requests": 16, "failed": 1}
    assert busy == {**of_all, "days": busy["days"]}
    assert (quiet["id"], quiet["uptime"], quiet["requests"], quiet["failed"]) == ("vendor/quiet", None, 0, 0)
    assert {(day["uptime"], day["requests"], day["failed"]) for day in quiet["days"]} == {(None, 0, 0)}
    assert b"secret" not in answer.body


async def test_the_status(house: Inside) -> None:
    now = time.time()
    house.tables.catalog = replace(
        house.tables.catalog,
        announcements=(
            Announcement("incident", "Now", "Slow.", now - 5, None),
            Announcement("maintenance", "Soon", "", now + 5, None),
            Announcement("info", "Ends", "", now - 9, now + 60),
            Announcement("info", "Over", "", now - 9, now - 1),
        ),
    )
    await saw("gone", 3, 1)
    house.gateway.health.out = {ONE.place: Out(now + 60, REFUSED, 401, now, 1)}
    answer = await house.get("/v1/status")
    assert answer.status == 200
    assert answer.json == {
        "object": "status",
        "status": "degraded",
        "models": [
            {"id": "m", "status": "operational", "uptime": None},
            {"id": "vendor/quiet", "status": "down", "uptime": None},
            {"id": "gone", "status": "down", "uptime": 0.75},
        ],
        "announcements": [
            {"kind": "incident", "title": "Now", "text": "Slow.", "begins": int(now - 5), "ends": None},
            {"kind": "info", "title": "Ends", "text": "", "begins": int(now - 9), "ends": int(now + 60)},
        ],
        "updated": answer.json["updated"],
        "version": settings.VERSION,
    }
    assert b"secret" not in answer.body


@pytest.mark.parametrize("path", ["/v1/models/uptime", "/v1/status"])
async def test_no_key_and_any_page_may_ask(house: Inside, path: str) -> None:
    answer = await house.get(path, [(b"origin", b"https://x.example")])
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-request-id"].startswith("req_")
    assert (await house.get(path, method="HEAD")).status == 200
    assert (await house.post({}, path)).headers["allow"] == "GET, OPTIONS"


async def test_an_answer_is_kept_for_a_moment(house: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await house.get("/v1/status")
    await saw("m", 5, 5)
    house.tables.catalog = snapshot()
    assert (await house.get("/v1/status")).body == first.body
    monkeypatch.setattr(standing, "FRESH_SECONDS", 0.0)
    house.application._table["/v1/status"]["GET"].__self__._kept.clear()
    assert (await house.get("/v1/status")).json["models"] == []


async def test_the_gateway_takes_no_requests(house: Inside) -> None:
    house.journal._waiting.append(b"a line")
    answer = (await house.get("/v1/status")).json
    assert (answer["status"], {each["status"] for each in answer["models"]}) == ("down", {"down"})


async def test_the_database_does_not_answer(house: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """The present state is known without it. All who ask wait for the same look at it, and not for long."""
    hangs, looks = threading.Event(), []

    def hang() -> None:
        looks.append(1)
        hangs.wait(10)

    monkeypatch.setattr(uptime, "PATIENCE", 0.05)
    monkeypatch.setattr(standing, "database_sync_to_async", lambda work: lambda: asyncio.to_thread(hang))
    try:
        answers = await asyncio.gather(*(house.get("/v1/status") for _ in range(5)))
        assert {answer.json["status"] for answer in answers} == {"operational"}
        refused = await house.get("/v1/models/uptime")
    finally:
        hangs.set()
    assert (refused.status, refused.error["code"]) == (503, "database_unavailable")
    assert refused.headers["retry-after"] == "2"
    assert looks == [1]


async def test_a_database_that_is_away_is_not_asked(house: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(uptime.latest, "read", lambda: looks.append(1))
    house.tables.loaded = time.monotonic() - 60
    assert (await house.get("/v1/status")).json["status"] == "operational"
    assert looks == []
    house.tables.loaded = time.monotonic()
    assert (await house.get("/v1/models/uptime")).status == 503
    assert looks == [1]
