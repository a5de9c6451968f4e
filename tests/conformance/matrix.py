"""The table at the end of a run: for each part of the suite and each pair of formats, how many exchanges came out how.

`tests/conftest.py` registers the plugin, so that the table also comes where workers ran the tests: what a test records
reaches the end of the run in its report.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

NAME = PROPERTY = "conformance"
EQUAL, NAMED, FAILED = "equal", "named", "failed"
_HEAD = ("part", "pair", "exchanges", "equal", "with named losses", "failed")
PARTS = {
    "a": "same format",
    "b": "answers",
    "c": "requests",
    "d": "any cutting",
    "e": "broken off",
    "errors": "errors",
}


@dataclass
class Cell:
    """One part of the suite for one pair of formats. `failures`: exchange id → why. `passed`: the other ids."""

    part: str
    pair: str
    equal: int = 0
    named: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)

    @property
    def exchanges(self) -> int:
        return self.equal + self.named + len(self.failures)

    @property
    def share(self) -> float:
        return 1 - len(self.failures) / max(1, self.exchanges)

    def add(self, exchange: str, outcome: str, why: str = "") -> None:
        if outcome == FAILED:
            self.failures[exchange] = why
            return
        self.passed.add(exchange)
        if outcome == NAMED:
            self.named += 1
        else:
            self.equal += 1

    def row(self) -> tuple[str, ...]:
        counts = (self.exchanges, self.equal, self.named, len(self.failures))
        return f"{self.part} {PARTS[self.part]}", self.pair, *map(str, counts)


def table(cells: list[Cell]) -> list[str]:
    order = list(PARTS)
    rows = [_HEAD, *(cell.row() for cell in sorted(cells, key=lambda cell: (order.index(cell.part), cell.pair)))]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEAD))]
    return [_line(row, widths) for row in rows]


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    words = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
    return "  ".join(words + [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)])


def report(cell: Cell) -> tuple[str, dict[str, Any]]:
    """For `record_property`: it reaches the end of the run from a worker too."""
    return PROPERTY, {**asdict(cell), "passed": ()}


class Matrix:
    """The plugin."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        found = [
            Cell(**value)
            for reports in terminalreporter.stats.values()
            for report in reports
            for name, value in getattr(report, "user_properties", ())
            if name == PROPERTY and report.when == "call"
        ]
        if found:
            terminalreporter.section("conformance")
            for line in table(found):
                terminalreporter.write_line(line)
