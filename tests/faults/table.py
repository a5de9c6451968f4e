"""The table at the end of a run: each fault, in each format, before and after the first token, streamed and plain.

`tests/conftest.py` registers the plugin, so that the table also comes where workers ran the tests.
"""

import pytest

NAME = PROPERTY = "faults"
_HEAD = """\
For each format four marks with a second route, then four without one: before the first token streamed and plain, after
it streamed and plain. 1: the whole answer of the first route; 2: of the second; e: the official SDK raises, and what it
had given before is a beginning of the first's answer; -: cannot be; !: anything else. With a second route the first
speaks the client's own format and the second another, without one the only route speaks another."""


def table(rows: list[tuple[str, str, str]]) -> list[str]:
    """`rows`: fault, format, marks."""
    formats = list(dict.fromkeys(form for _, form, _ in rows))
    found = {(fault, form): marks for fault, form, marks in rows}
    faults = list(dict.fromkeys(fault for fault, _, _ in rows))
    width = max(map(len, faults))
    head = " ".join([" " * width, *(form.ljust(9) for form in formats)]).rstrip()
    lines = [" ".join([fault.ljust(width), *(found.get((fault, form), "") for form in formats)]) for fault in faults]
    return [*_HEAD.splitlines(), "", head, *lines]


class Table:
    """The plugin."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        rows = [
            tuple(value)
            for reports in terminalreporter.stats.values()
            for report in reports
            for name, value in getattr(report, "user_properties", ())
            if name == PROPERTY and report.when == "call"
        ]
        if rows:
            terminalreporter.section("faults")
            for line in table(rows):
                terminalreporter.write_line(line)
