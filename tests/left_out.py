"""What the run had to leave out (no browser, no node) is named at its end; on CI that is a failure: all of it must run.

A pytest plugin; `conftest` registers it.
"""

from typing import Any

import pytest


class LeftOut:
    def __init__(self, *, fail: bool) -> None:
        self.fail = fail
        self.reasons: dict[str, list[str]] = {}

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.reasons.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)

    pytest_runtest_logreport = pytest_collectreport = _note

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.fail and self.reasons and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.reasons:
            return
        terminalreporter.section("left out" + (", which is a failure on CI" if self.fail else ""))
        for reason, tests in sorted(self.reasons.items()):
            terminalreporter.write_line(f"{reason}: {len(tests)} ({tests[0]}{', …' if len(tests) > 1 else ''})")
