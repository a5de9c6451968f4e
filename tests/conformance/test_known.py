"""A failure must be listed, a listed one must fail, and a cell must not fall under the mark."""

import pytest

from tests.conformance import corpus, known
from tests.conformance.matrix import EQUAL, FAILED, NAMED, PARTS, Cell, report, table


def cell(failed: int = 0, passed: int = 400) -> Cell:
    found = Cell("b", "chat → messages")
    for number in range(passed):
        found.add(f"passed-{number}", NAMED if number % 2 else EQUAL)
    for number in range(failed):
        found.add(f"failed-{number}", FAILED, "text: differs")
    return found


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found: dict[str, str] = {}
    monkeypatch.setattr(known, "listed", lambda: {("b", "chat → messages"): found})
    return found


def test_it_works(listed: dict[str, str]) -> None:
    listed |= {"failed-0": "recorded so", "elsewhere": "not in this folder"}
    known.settle(cell(failed=1))


def test_a_new_failure(listed: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="1 of 401 failed"):
        known.settle(cell(failed=1))


def test_one_that_is_mended(listed: dict[str, str]) -> None:
    listed["passed-3"] = "recorded so"
    with pytest.raises(AssertionError, match="take them out"):
        known.settle(cell())


def test_too_many(listed: dict[str, str]) -> None:
    listed |= {f"failed-{number}": "recorded so" for number in range(3)}
    with pytest.raises(AssertionError, match="is under"):
        known.settle(cell(failed=3))


def test_nothing_tried(listed: dict[str, str]) -> None:
    with pytest.raises(AssertionError, match="nothing was tried"):
        known.settle(cell(passed=0))


def test_the_list_names_cells_that_are_there() -> None:
    pairs = {f"{source} → {target}" for source, target in corpus.PAIRS}
    assert {pair for _, pair in known.listed()} <= pairs
    assert {part for part, _ in known.listed()} <= {"b", "c"}


def test_the_table() -> None:
    lines = table([Cell("d", "chat"), cell(failed=1)])
    assert [line.split()[0] for line in lines] == ["part", "b", "d"]
    assert lines[1].split()[-4:] == ["401", "200", "200", "1"]
    assert set(PARTS) >= {"b", "d"}


def test_a_report_can_be_sent_from_a_worker() -> None:
    _, sent = report(cell(failed=1))
    assert Cell(**sent).row() == cell(failed=1).row()
