import pytest

from proxy.formats.canonical import Reasoning
from proxy.formats.reasoning import budget, effort, is_off, nearest

LEVELS = ("low", "medium", "high")


@pytest.mark.parametrize(
    ("said", "most", "word"),
    [
        (Reasoning(effort="low"), None, "low"),
        (Reasoning(effort="none"), None, "none"),
        (Reasoning(enabled=False), None, "none"),
        (Reasoning(budget=0), None, "none"),
        (Reasoning(enabled=True), None, ""),
        (Reasoning(adaptive=True), None, ""),
        (Reasoning(budget=-1), None, ""),
        (Reasoning(budget=1024), 10_240, "minimal"),
        (Reasoning(budget=5000), 10_000, "medium"),
        (Reasoning(budget=9000), 10_000, "xhigh"),
        (Reasoning(budget=40_000), 10_000, "xhigh"),
    ],
)
def test_efforts(said: Reasoning, most: int | None, word: str) -> None:
    assert effort(said, most) == word


@pytest.mark.parametrize(
    ("said", "most", "tokens"),
    [
        (Reasoning(budget=2000), None, 2000),
        (Reasoning(effort="none"), None, 0),
        (Reasoning(enabled=False), 100, 0),
        (Reasoning(effort="medium"), 10_000, 5000),
        (Reasoning(effort="high"), None, 26_214),
        (Reasoning(effort="minimal"), 2000, 1024),
        (Reasoning(enabled=True), 10_000, None),
        (Reasoning(adaptive=True), 10_000, None),
        (Reasoning(budget=-1), 10_000, None),
    ],
)
def test_budgets(said: Reasoning, most: int | None, tokens: int | None) -> None:
    assert budget(said, most) == tokens


@pytest.mark.parametrize(
    ("word", "found"), [("low", "low"), ("minimal", "low"), ("xhigh", "high"), ("max", "high"), ("new", "new")]
)
def test_the_nearest_word_that_a_format_knows(word: str, found: str) -> None:
    assert nearest(word, LEVELS) == found


def test_where_there_is_no_off_the_least_is_taken() -> None:
    assert effort(Reasoning(effort="none"), None, LEVELS) == "low"


def test_an_effort_and_a_switch() -> None:
    assert not is_off(Reasoning(effort="high", enabled=False))
    assert not is_off(Reasoning())
