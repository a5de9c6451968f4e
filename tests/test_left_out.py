"""What was skipped is named at the end of a run; on CI it fails the run."""

import pytest

from tests.left_out import LeftOut
from tests.processes import ROOT

TESTS = """
import pytest

def test_it_works():
    pass

@pytest.mark.skipif(True, reason="no browser")
def test_page():
    pass

@pytest.mark.parametrize("case", [1, 2])
def test_script(case):
    pytest.skip("no node")

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""

WITH_WORKERS = """
from tests.left_out import LeftOut

def pytest_configure(config):
    config.pluginmanager.register(LeftOut(fail=True))
"""


def run(pytester: pytest.Pytester, tests: str, *, fail: bool) -> pytest.RunResult:
    pytester.makepyfile(tests)
    return pytester.runpytest_inprocess("-p", "no:django", plugins=[LeftOut(fail=fail)])


def test_it_works(pytester: pytest.Pytester) -> None:
    result = run(pytester, TESTS, fail=False)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*left out*", "no browser: 1 (*::test_page)", "no node: 2 (*::test_script[[]1], …)"])
    result.stdout.no_fnmatch_line("*known: *")


def test_on_ci_it_is_a_failure(pytester: pytest.Pytester) -> None:
    result = run(pytester, TESTS, fail=True)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*left out, which is a failure on CI*", "no browser: 1 (*)"])


def test_a_whole_file_left_out(pytester: pytest.Pytester) -> None:
    result = run(pytester, "import pytest\npytest.skip('no node', allow_module_level=True)", fail=False)
    result.stdout.fnmatch_lines(["no node: 1 (*)"])


def test_it_works_with_workers(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they left out is told once, by the process that started them, which also ends with the failure."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(WITH_WORKERS)
    pytester.makepyfile(TESTS, test_whole="import pytest\npytest.skip('no browser', allow_module_level=True)")
    result = pytester.runpytest_subprocess("-n", "2", "-p", "no:django", "-p", "no:langsmith_plugin")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*which is a failure on CI*", "no browser: 2 (*, …)", "no node: 2 (*, …)"])
    result.stdout.no_fnmatch_line("*known: *")


def test_nothing_left_out(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_it_works(): pass", fail=True)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*left out*")
