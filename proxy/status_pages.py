"""The page `/status`: how the models stand, and how often they have answered in the last days. `urls.py` routes here.

In the gateway's own process it knows the health of the routes (`kodna.asgi` puts the gateway into the scope). It does
not need the database for that, and shows while it is away what was known before.
"""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.formats import date_format, number_format
from django.utils.text import slugify
from django.utils.translation import get_language, gettext, ngettext
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import conditional_page, require_safe

from models_catalog import snapshot
from models_catalog.snapshot import Model, Vendor
from proxy import standing, uptime
from proxy.standing import Standing
from proxy.uptime import DAY, DAYS, HOUR, Count, Week

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SPAN = 3  # hours of a cell
_CELLS = 24 // SPAN  # of a day
# The part that failed, up to which a cell is of a colour.
_KINDS = ((0.01, "good"), (0.05, "some"), (0.5, "many"), (1.0, "most"))


@dataclass(frozen=True, slots=True)
class Cell:
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Row:
    """`percent` empty: there was nothing. `strip`: by day."""

    id: str
    state: str
    percent: str
    requests: str
    label: str
    strip: list[list[Cell]]


@dataclass(frozen=True, slots=True)
class Group:
    anchor: str
    name: str
    rows: list[Row]

    @property
    def is_busy(self) -> bool:
        return any(row.strip for row in self.rows)


@gzip_page
@conditional_page
@require_safe
def status(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(render(_standing(request), get_language() or settings.LANGUAGE_CODE))
    response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response["Cache-Control"] = "no-cache"
    return response


def _standing(request: HttpRequest) -> Standing:
    gateway = getattr(request, "scope", {}).get("kodna.gateway")
    if gateway is None:  # a server of Django's pages alone: what other processes have noted
        return standing.standing(snapshot.load(), {}, uptime.latest.read(), time.time())
    if standing.has_database(gateway):
        uptime.latest.read()
    return standing.now(gateway)


@lru_cache(maxsize=8)
def render(stands: Standing, language: str) -> bytes:
    """`language` is the active one, which the words follow."""
    page = {
        "service": settings.SERVICE_NAME,
        "version": settings.VERSION,
        "status": stands.status,
        "announcements": [(each, each.ends and _moment(each.ends)) for each in stands.announcements],
        "updated": _moment(stands.updated),
        "known": stands.week is not None,
        "groups": (groups := _groups(stands)),
        "troubled": [(row, group) for group in groups for row in group.rows if row.state != standing.OPERATIONAL],
        "is_busy": any(group.is_busy for group in groups),
        "dates": _dates(stands.week, "D j"),
    }
    return render_to_string("status/status.html", page).encode()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _groups(stands: Standing) -> list[Group]:
    """By vendor, in the catalog's order."""
    times, of = _times(stands), defaultdict[Vendor, list[Row]](list)
    for name, state in stands.states:
        model = stands.models[name]
        of[model.vendor].append(_row(model, state, stands.week, times))
    return [
        Group(f"vendor-{number}-{slugify(vendor.slug)}".rstrip("-"), vendor.name, rows)
        for number, (vendor, rows) in enumerate(of.items(), 1)
    ]


def _row(model: Model, state: str, week: Week | None, times: Sequence[str]) -> Row:
    count = week.of(model.id) if week else Count()
    if week is None or not count.requests:
        return Row(model.id, state, "", "", "", [])
    words = ngettext("%(count)s request", "%(count)s requests", count.requests) % {"count": _number(count.requests)}
    cells = list(map(_cell, times, uptime.summed(week.hours[model.id], SPAN)))
    strip = [cells[first : first + _CELLS] for first in range(0, len(cells), _CELLS)]
    return Row(model.id, state, percent(count), words, _label(model.id, week), strip)


def percent(count: Count) -> str:
    """Rounded down: whole only where nothing failed."""
    if count.uptime is None:
        return ""
    part = math.floor(count.uptime * 10_000) / 100
    return f"{number_format(part, decimal_pos=2) if count.bad else '100'}%"


def _number(value: int) -> str:
    return number_format(value, force_grouping=True)


def _dates(week: Week | None, form: str) -> list[str]:
    return [date_format(week.start + day * DAY, form) for day in range(DAYS)] if week else []


def _label(model: str, week: Week) -> str:
    """The strip for those who cannot see it."""
    days = zip(_dates(week, "j E"), week.days[model], strict=True)
    return "; ".join(f"{date}: {percent(count) or gettext('no requests')}" for date, count in days)


def _times(stands: Standing) -> list[str]:
    """Of each cell of a strip; empty: it is still to come."""
    if stands.week is None:
        return []
    starts = [stands.week.start + number * SPAN * HOUR for number in range(DAYS * _CELLS)]
    return [
        f"{date_format(start, 'j E')}, {start:%H:%M}–{start + SPAN * HOUR:%H:%M} UTC"
        if start.timestamp() <= stands.updated
        else ""
        for start in starts
    ]


def _cell(time: str, count: Count) -> Cell:
    if not time:
        return Cell("ahead", "")
    if not count.requests:
        return Cell("none", f"{time}: {gettext('no requests')}")
    kind = next(kind for most, kind in _KINDS if count.bad <= most * count.requests)
    figures = {"failed": _number(count.bad), "count": _number(count.requests)}
    words = ngettext(
        "%(failed)s of %(count)s request failed", "%(failed)s of %(count)s requests failed", count.requests
    )
    return Cell(kind, f"{time}: {words % figures}")
