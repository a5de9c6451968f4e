"""How the catalog's models stand now: by the health of their routes, and by what their clients saw.

`GET /v1/models/uptime` and `GET /v1/status` for programs; `status_pages` draws the same for people. None of them says a
word of providers, which are the operator's business. Called by `asgi`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from channels.db import database_sync_to_async
from django.conf import settings

from models_catalog.snapshot import Announcement, Model, Route, Snapshot
from proxy import errors, replies, request_ids, uptime
from proxy.gateway import Gateway
from proxy.health import ERRORS, REFUSED, Out
from proxy.ingress import Receive, Scope, Send
from proxy.uptime import Count, Week

OPERATIONAL, DEGRADED, DOWN = "operational", "degraded", "down"
FEW = 0.05  # of the last hour's requests: up to so many failures a model has no trouble
ONCE = 1.5  # failures: fewer are none, whatever their part
ALL = 2.5  # requests that have failed, where none was answered
FRESH_SECONDS = 2.0  # for which an answer is kept
AWAY_SECONDS = 5.0  # for which the database has said nothing: it is not asked for figures

_HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"public, max-age=2")]
_UNPROVEN = frozenset({ERRORS, REFUSED})  # such a route is out until it has answered, not only for a time


@dataclass(frozen=True)
class Standing:
    """At one moment. Two that are equal look alike: their pages are drawn once.

    `states`: of the models that can be asked, and of those that could be in these days and cannot now.
    """

    status: str
    states: tuple[tuple[str, str], ...]
    announcements: tuple[Announcement, ...]
    week: Week | None  # the same only as itself
    version: int
    models: Mapping[str, Model] = field(compare=False)
    updated: float = field(compare=False)


def standing(
    catalog: Snapshot, out: Mapping[str, Out], week: Week | None, now: float, *, is_refusing: bool = False
) -> Standing:
    """`week` None: nothing is known of it. `is_refusing`: the gateway takes no requests at all."""
    shown = [model for model in catalog.models.values() if model.routes or (week and week.of(model.id).requests)]
    states = tuple((model.id, DOWN if is_refusing else state(model, out, week, now)) for model in shown)
    found = {each for _, each in states}
    status = DOWN if is_refusing or found == {DOWN} else OPERATIONAL if found == {OPERATIONAL} else DEGRADED
    announcements = tuple(each for each in catalog.announcements if each.in_force(now))
    return Standing(status, states, announcements, week, catalog.version, catalog.models, now)


def state(model: Model, out: Mapping[str, Out], week: Week | None, now: float) -> str:
    if all(_is_out(route, out, now) for route in model.routes):
        return DOWN
    good, bad = week.recent(model.id, now) if week else (0.0, 0.0)
    if not good and bad > ALL:
        return DOWN
    return DEGRADED if bad > ONCE and bad > FEW * (good + bad) else OPERATIONAL


def _is_out(route: Route, out: Mapping[str, Out], now: float) -> bool:
    found = out.get(route.provider.place) or out.get(route.way)
    return found is not None and (found.why in _UNPROVEN or found.until > now)


class StandingEndpoints:
    """The two endpoints, of one process."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._reading: asyncio.Task[Week | None] | None = None
        self._kept: dict[Callable[[Standing], Any], tuple[float, bytes]] = {}

    async def uptime(self, scope: Scope, receive: Receive, send: Send) -> None:
        if await self._week() is None:
            words = "Uptime cannot be read at the moment."
            refusal = errors.Unavailable(words, code="database_unavailable", retry_after=2)
            headers = [*replies.error_headers(refusal), *replies.common(request_ids.new(), scope)]
            await replies.answer(send, refusal.status, headers, replies.error_body(refusal))
            return
        await self._send(scope, send, uptimes)

    async def status(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._week()
        await self._send(scope, send, summary)

    async def _week(self) -> Week | None:
        """One reads the database for all who wait, and on a thread of its own."""
        if not uptime.latest.is_fresh and has_database(self._gateway):
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(database_sync_to_async(uptime.latest.read)())
            await asyncio.wait({self._reading}, timeout=uptime.PATIENCE)
        return uptime.latest.known

    async def _send(self, scope: Scope, send: Send, body_of: Callable[[Standing], Any]) -> None:
        until, body = self._kept.get(body_of, (0.0, b""))
        if time.monotonic() >= until:
            body = msgspec.json.encode(body_of(now(self._gateway)))
            self._kept[body_of] = time.monotonic() + FRESH_SECONDS, body
        await replies.answer(send, 200, [*_HEADERS, *replies.common(request_ids.new(), scope)], body)


def has_database(gateway: Gateway) -> bool:
    """As the catalog's own look at it says: whoever asked it for figures while it is away would wait for long."""
    return gateway.tables.age < settings.REFRESH_SECONDS + AWAY_SECONDS


def now(gateway: Gateway) -> Standing:
    """With the week as it was read last."""
    is_refusing = gateway.journal.failing or not gateway.tables.loaded
    return standing(
        gateway.tables.catalog, gateway.health.out, uptime.latest.known, time.time(), is_refusing=is_refusing
    )


def uptimes(stands: Standing) -> dict[str, Any]:
    """The answer of `/v1/models/uptime`: of the models that `/v1/models` lists."""
    assert stands.week is not None
    listed = [name for name, _ in stands.states if stands.models[name].routes]
    data = [{"id": name, "object": "model.uptime", **_uptime(name, stands.week)} for name in listed]
    return {"object": "list", "data": data, "updated": int(stands.updated)}


def _uptime(model: str, week: Week) -> dict[str, Any]:
    dates = [(week.start + day * uptime.DAY).date().isoformat() for day in range(uptime.DAYS)]
    counts = week.days.get(model, [Count()] * uptime.DAYS)
    days = [{"date": date, **_figures(count)} for date, count in zip(dates, counts, strict=True)]
    return {**_figures(week.of(model)), "days": days}


def _figures(count: Count) -> dict[str, float | int | None]:
    return {"uptime": count.uptime, "requests": count.requests, "failed": count.bad}


def summary(stands: Standing) -> dict[str, Any]:
    """The answer of `/v1/status`."""
    week = stands.week
    return {
        "object": "status",
        "status": stands.status,
        "models": [
            {"id": name, "status": state, "uptime": week.of(name).uptime if week else None}
            for name, state in stands.states
        ],
        "announcements": [
            {"kind": each.kind, "title": each.title, "text": each.text, "begins": int(each.begins), "ends": _ends(each)}
            for each in stands.announcements
        ],
        "updated": int(stands.updated),
        "version": settings.VERSION,
    }


def _ends(announcement: Announcement) -> int | None:
    return None if announcement.ends is None else int(announcement.ends)
