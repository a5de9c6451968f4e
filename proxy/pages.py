"""The console's usage report: a form that asks, the answer as a table, and the same as CSV. Called by `proxy.admin`."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Max
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.response import TemplateResponse

from proxy import reports
from proxy.reports import DIMENSIONS, FIGURES, MONEY, Question, Report, Unreadable

SHOWN = 500  # rows on the page; the CSV has all
TEMPLATE = "admin/proxy/usagequarter/report.html"
# Money first: of a wide table a narrow window shows the beginning.
ORDER = sorted(range(len(FIGURES)), key=lambda place: FIGURES[place] not in {"requests", "errors", *MONEY})
CHOICES = ("account", "key", "model", "provider")
_TOLD_APART = ("account_id", "account", "key_id", "key_prefix", "key_name", "model", "provider")


class Choice(NamedTuple):
    value: str
    words: str
    is_chosen: bool


def usage_report(request: HttpRequest, context: Mapping[str, Any]) -> HttpResponse:
    """`context`: the console's own."""
    asked = request.GET.copy()
    asked["tz"] = asked.get("tz") or "UTC"
    today = _today(asked.get("tz", ""))
    if "since" not in asked:
        asked["since"] = str(today.replace(day=1))
    question, wrong = Question(), None
    try:
        question = _question(asked)
    except Unreadable as unreadable:
        wrong = unreadable
    if wrong is None and asked.get("format") == "csv":
        return _csv(reports.answer(question))
    page = {
        "asked": asked.dict(),
        "wrong": wrong,
        "dimensions": [Choice(name, name, name in question.by) for name in DIMENSIONS],
        "filters": _filters(question, asked),
        "zones": sorted(reports.zones()),
        "periods": _periods(asked, today),
        "csv": _query(asked, format="csv"),
        "table": None if wrong else _table(reports.answer(question)),
    }
    return TemplateResponse(
        request, TEMPLATE, {**context, "title": "Usage report", "content_title": "Usage report", **page}
    )


def _today(zone: str) -> date:
    try:
        return datetime.now(reports.read_zone(zone)).date()
    except Unreadable:
        return datetime.now(UTC).date()


def _question(asked: QueryDict) -> Question:
    """Raises `Unreadable`."""
    period = (asked.get(name, "") for name in ("since", "until", "tz"))
    question = reports.read(",".join(asked.getlist("by")), *period)
    return replace(
        question,
        accounts=_numbers(asked, "account"),
        keys=_numbers(asked, "key"),
        models=reports.only("model", asked.get("model", "")),
        providers=reports.only("provider", asked.get("provider", "")),
    )


def _numbers(asked: QueryDict, name: str) -> frozenset[int] | None:
    text = asked.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Unreadable(name, f"{text[:60]!r} is not the number of one.")
    return frozenset({int(text)})


def _csv(report: Report) -> HttpResponse:
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    return HttpResponse(reports.as_csv(report, for_spreadsheets=True), "text/csv; charset=utf-8", headers=headers)


def _query(asked: QueryDict, **changes: str) -> str:
    changed = asked.copy()
    for name, text in changes.items():
        changed[name] = text
    return f"?{changed.urlencode()}"


def _periods(asked: QueryDict, today: date) -> list[Choice]:
    """Links to what is asked most. `today` is the zone's."""
    first = today.replace(day=1)
    before = first - timedelta(days=1)
    spans = {
        "Today": (today, today),
        "7 days": (today - timedelta(days=6), today),
        "This month": (first, ""),
        "Last month": (before.replace(day=1), before),
        "All": ("", ""),
    }
    now = (asked.get("since", ""), asked.get("until", ""))
    return [
        Choice(_query(asked, since=str(since), until=str(until)), words, now == (str(since), str(until)))
        for words, (since, until) in spans.items()
    ]


def _filters(question: Question, asked: QueryDict) -> list[tuple[str, list[Choice]]]:
    """What was used in the period, whatever else is chosen; what is chosen is among it."""
    period = reports.days(Question(since=question.since, until=question.until))
    offered: dict[str, dict[str, str]] = {name: {} for name in CHOICES}
    found = period.values_list(*_TOLD_APART).annotate(last=Max("seen")).order_by("last")
    for account_id, account, key_id, prefix, name, model, provider, _ in found:
        offered["account"][str(account_id)] = account
        offered["key"][str(key_id)] = f"{name or 'no name'} ({prefix}…)" if prefix else name
        offered["model"][model] = model
        offered["provider"][provider] = provider
    choices = []
    for title, names in offered.items():
        chosen = asked.get(title, "")
        shown = {**({chosen: chosen} if chosen else {}), **names}
        ordered = sorted((words, value) for value, words in shown.items() if words)
        choices.append((title, [Choice(value, words, value == chosen) for words, value in ordered]))
    return choices


def _table(report: Report) -> dict[str, Any]:
    return {
        "names": [name.replace("_", " ") for name in report.columns],
        "figures": [FIGURES[place].replace("_tokens", "").replace("_", " ") for place in ORDER],
        "rows": [([*row.names.items()], _ordered(row.figures)) for row in report.rows[:SHOWN]],
        "total": _ordered(report.total),
        "left_out": max(0, len(report.rows) - SHOWN),
        "count": len(report.rows),
    }


def _ordered(figures: tuple[int, ...]) -> list[str]:
    shown = reports.shown(figures)
    return [shown[place] for place in ORDER]
