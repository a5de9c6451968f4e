"""From figures to tables: medians, ratios within a round, budgets. Pure: reads nothing and runs nothing.

A round is `{gateway: {step: figures}}`, the figures of a step being those that `load.Bench.measure` returns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Round = dict[str, dict[str, Any]]
PLAIN, ALONE, STREAMS, TRANSLATED, LEAVE = "plain32", "plain1", "streams500", "translated500", "leave"
FAULTS = ("bad", "broken", "unfinished")
SERVERS = ("daphne", "uvicorn")
# A peer that the load is too much for may break some streams: what it delivered still counts. Ours may break none.
PEER_FAULT_SHARE = 0.05


def faults(step: dict[str, Any]) -> int:
    return sum(step[name] for name in FAULTS)


def figure(round_: Round, gateway: str, step: str, name: str, fault_share: float = PEER_FAULT_SHARE) -> float | None:
    """None where it was not measured, or where too few answers were right for the figure to mean anything."""
    figures = round_.get(gateway, {}).get(step)
    if not figures or figures.get(name) is None:
        return None
    if faults(figures) > fault_share * (figures["answers"] + faults(figures)):
        return None
    return float(figures[name])


def middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


Measure = Callable[[Round, str], float | None]


def times_ours(step: str, peer: str) -> Measure:
    """The peer's CPU in units of ours."""
    return lambda round_, server: _ratio(
        figure(round_, peer, step, "cpu_us"), figure(round_, server, step, "cpu_us", 0)
    )


def ours_over(step: str, peer: str) -> Measure:
    return lambda round_, server: _ratio(
        figure(round_, server, step, "cpu_us", 0), figure(round_, peer, step, "cpu_us")
    )


def translated_over_passed(round_: Round, server: str) -> float | None:
    return _ratio(figure(round_, server, TRANSLATED, "cpu_us", 0), figure(round_, server, STREAMS, "cpu_us", 0))


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def added_latency(round_: Round, server: str) -> float | None:
    ours, bare = figure(round_, server, ALONE, "latency_p50", 0), figure(round_, "direct", ALONE, "latency_p50", 0)
    return None if ours is None or bare is None else ours - bare


def worst_leave(kind: str) -> Measure:
    def measure(round_: Round, server: str) -> float | None:
        tries = round_.get(server, {}).get(LEAVE, {}).get(kind)
        return max(tries) if tries else None

    return measure


@dataclass(frozen=True)
class Budget:
    """A promise about one figure: for each server the least it may be (`at_least`), or the most."""

    name: str
    measure: Measure
    daphne: float
    uvicorn: float
    at_least: bool = False
    unit: str = ""

    def verdict(self, rounds: list[Round], server: str) -> dict[str, Any]:
        """The median of what was found round by round; `met` is None where it could not be measured."""
        bound = self.daphne if server == "daphne" else self.uvicorn
        value = middle([self.measure(round_, server) for round_ in rounds])
        met = None if value is None else value >= bound if self.at_least else value <= bound
        text = f"{'≥' if self.at_least else '≤'} {bound:g}{self.unit}"
        return {"budget": self.name, "server": server, "bound": text, "value": value, "met": met}


REQUEST, CHUNK = "CPU per plain request", "CPU per chunk at 500 streams"
GONE = "client gone → provider's connection closed, worst"
BUDGETS = [
    Budget(f"{REQUEST}, LiteLLM's ÷ ours", times_ours(PLAIN, "litellm"), 20, 40, at_least=True),
    Budget(f"{REQUEST}, ours ÷ nginx's", ours_over(PLAIN, "nginx"), 28, 14),
    Budget(f"{REQUEST}, Portkey's ÷ ours", times_ours(PLAIN, "portkey"), 2, 4, at_least=True),
    Budget(f"{CHUNK}, LiteLLM's ÷ ours", times_ours(STREAMS, "litellm"), 10, 16, at_least=True),
    Budget(f"{CHUNK}, ours ÷ nginx's", ours_over(STREAMS, "nginx"), 4.5, 3),
    Budget(f"{CHUNK}, translated ÷ passed through", translated_over_passed, 3, 3),
    Budget("added latency p50 at one connection", added_latency, 0.6, 0.35, unit=" ms"),
    Budget(f"{GONE}, streamed", worst_leave("streamed"), 100, 100, unit=" ms"),
    Budget(f"{GONE}, plain", worst_leave("plain"), 100, 100, unit=" ms"),
]


ADMISSION = {"memory": 15.0, "redis": 120.0}  # CPU µs of the gateway's process per request, at most


def admission_line(found: dict[str, float]) -> str:
    """Of `admission.measure`."""
    parts = [
        f"{place} {number(found[place])} µs (≤ {most:g}: {'met' if found[place] <= most else 'MISSED'})"
        for place, most in ADMISSION.items()
        if place in found
    ]
    return f"Admission with every limit, credit and a budget, CPU per request: {', '.join(parts)}"


PLANNING = {"5": 10.0, "50": 50.0}  # number of routes → µs per request, at most


def planning_line(found: dict[str, dict[str, float]]) -> str:
    """Of `planning.measure`."""
    parts = []
    for routes, most in PLANNING.items():
        slowest, spent = max(found[routes].items(), key=lambda item: item[1])
        met = "met" if spent < most else "MISSED"
        parts.append(f"{routes} routes {number(spent)} µs (< {most:g}: {met}; slowest: {slowest})")
    return f"Planning, by the slowest strategy: {', '.join(parts)}"


def verdicts(rounds: list[Round]) -> list[dict[str, Any]]:
    return [budget.verdict(rounds, server) for budget in BUDGETS for server in SERVERS]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """So many digits that count; never fewer than a whole number has."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _broken(rounds: list[Round], gateway: str, step: str) -> str:
    found = [round_[gateway][step] for round_ in rounds if step in round_.get(gateway, {})]
    wrong = sum(faults(figures) for figures in found)
    return f"{wrong:,} of {wrong + sum(figures['answers'] for figures in found):,}" if found else "–"


def _mib(rounds: list[Round], gateway: str, step: str, name: str) -> str:
    value = middle([round_.get(gateway, {}).get(step, {}).get(name) for round_ in rounds])
    return number(value / 2**20) if value else "–"


COLUMNS = {
    "CPU µs/request": (PLAIN, "cpu_us"),
    "requests/s": (PLAIN, "per_second"),
    "p50 ms, one connection": (ALONE, "latency_p50"),
    "CPU µs/chunk, 500 streams": (STREAMS, "cpu_us"),
    "chunk's age ms, p50": (STREAMS, "age_p50"),
}


def medians_table(rounds: list[Round], labels: dict[str, str]) -> str:
    """Absolute figures: only ever to be compared within one run."""
    head = ["gateway", *COLUMNS, "requests failed", "streams broken", "RSS MiB idle", "RSS MiB, 500 streams"]
    rows = []
    for gateway, label in labels.items():
        cells = [
            number(middle([figure(found, gateway, *column, 1) for found in rounds])) for column in COLUMNS.values()
        ]
        cells += [_broken(rounds, gateway, step) for step in (PLAIN, STREAMS)]
        cells += [_mib(rounds, gateway, STREAMS, name) for name in ("rss_before", "rss_peak")]
        rows.append([label, *cells])
    return table(head, rows)


def _cell(entry: dict[str, Any]) -> str:
    if entry["met"] is None:
        return f"not measured ({entry['bound']})"
    return f"{number(entry['value'])} ({entry['bound']}) {'met' if entry['met'] else '**MISSED**'}"


def budgets_table(found: list[dict[str, Any]]) -> str:
    rows: dict[str, list[str]] = {}
    for entry in found:
        rows.setdefault(entry["budget"], []).append(_cell(entry))
    return table(["budget", *SERVERS], [[name, *cells] for name, cells in rows.items()])


def rows_line(server: str, answers: int, cancelled: int, rows: dict[str, int]) -> str:
    """Whether every answer that a client received has its priced usage row, and every client that left its own."""
    right = (
        rows["complete"] == answers and rows["cancelled"] == cancelled and not rows["other"] and not rows["unpriced"]
    )
    return (
        f"{server}: {answers:,} answers received, {rows['complete']:,} usage rows; {cancelled:,} left early, "
        f"{rows['cancelled']:,} rows; other outcomes {rows['other']:,}, without a price {rows['unpriced']:,}"
        f" → {'all accounted for' if right else '**NOT EQUAL**'}"
    )


def streams_line(name: str, figures: dict[str, Any]) -> str:
    count = figures["opened"]
    each = (figures["rss_peak"] - figures["rss_before"]) / count / 1024
    return (
        f"{name}: {count:,} streams at once: {figures['answers']:,} complete, {faults(figures):,} broken; "
        f"{figures['chunks']:,} chunks in {figures['seconds']:.1f} s, median age {number(figures.get('age_p50'))} ms; "
        f"memory per stream {each:.0f} KiB"
    )
