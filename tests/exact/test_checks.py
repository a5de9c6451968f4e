"""The checks find what is wrong: a proof that cannot fail is none."""

from dataclasses import replace
from typing import Any

import pytest

from tests.exact import checks, limits
from tests.exact.books import Row
from tests.exact.checks import Verdict
from tests.exact.client import Ask, Seen
from tests.exact.provider import Entry

ENTRY = Entry("chatcmpl-1", "one", "m-there", None, 10, 0, 100.0, 3, "whole", 200, 101.0)
PRICE = {"input": "1", "output": "2", "cached_input": "0.5"}
ROW = Row(
    *("one", "req_1", 100.0, 7, 3, "m", "m-there", "one", "", 200, "complete", "", True, 10, 3, 0, 0, False),
    *(16_000_000, 0, 20_000_000, True, PRICE),
)
BODY = (
    b'data: {"object": "chat.completion.chunk", "choices": [{"delta": {"content": " a b c"}}]}\n\n'
    b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'
)


def seen(**changes: Any) -> Seen:
    found = Seen(Ask("one", "k"), 1, 100.0, 200, {"x-request-id": "req_1"}, bytearray(BODY), True)
    return replace(found, **changes)


def cut(status: int = 200) -> Seen:
    return seen(
        body=bytearray(BODY[: BODY.index(b'data: {"choices": [{')]), received=False, trouble="closed", status=status
    )


KILLED = replace(ROW, outcome="incomplete", error_code="process_killed")


def problems(rows: list[Row], entries: list[Entry], clients: list[Seen]) -> list[str]:
    verdict = Verdict()
    checks.compare(rows, entries, clients, verdict)
    return verdict.problems


@pytest.mark.parametrize(
    ("rows", "entries", "client"),
    [
        pytest.param([ROW], [ENTRY], seen(), id="whole"),
        pytest.param([KILLED], [ENTRY], cut(), id="killed"),
        pytest.param([], [], seen(status=0, headers={}, body=bytearray(), received=False), id="nobody was reached"),
        pytest.param([ROW], [ENTRY], cut(), id="killed as the last bytes went out"),
    ],
)
def test_what_is_right(rows: list[Row], entries: list[Entry], client: Seen) -> None:
    assert problems(rows, entries, [client]) == []


@pytest.mark.parametrize(
    ("rows", "entries", "client", "found"),
    [
        ([], [ENTRY], seen(), "no row"),
        ([], [ENTRY], seen(status=0, body=bytearray(), received=False), "no row"),
        ([ROW, replace(ROW, request_id="req_2")], [ENTRY], seen(), "2 rows"),
        ([KILLED], [ENTRY], seen(), "the row says incomplete"),
        ([replace(ROW, completion=4)], [ENTRY], seen(), "the client has 3 tokens, the row 4"),
        ([replace(ROW, prompt=11)], [ENTRY], seen(), "the answer's usage says 10"),
        ([ROW], [replace(ENTRY, prompt=9)], seen(), "the provider counts (9, 3)"),
        ([ROW], [replace(ENTRY, cached=5)], seen(), "cached: 5"),
        ([ROW], [replace(ENTRY, end="lost")], seen(), "ended by the gateway with 'stop'"),
        ([ROW], [], seen(), "that no provider gave"),
        ([replace(ROW, request_id="req_2")], [ENTRY], seen(), "has the id req_2"),
        ([replace(KILLED, completion=4)], [ENTRY], cut(), "the row has 4 tokens, the provider wrote 3"),
        ([replace(KILLED, prompt=11)], [ENTRY], cut(), "a prompt of 11"),
        ([replace(ROW, completion=2)], [ENTRY], cut(), "complete with 2 tokens"),
        ([ROW], [], seen(status=429, body=bytearray(b'{"error": {"code": "x"}}')), "and charged"),
        ([ROW], [replace(ENTRY, marker="two")], seen(), "by no client"),
    ],
)
def test_what_is_wrong(rows: list[Row], entries: list[Entry], client: Seen, found: str) -> None:
    assert found in " ".join(problems(rows, entries, [client]))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, ""),
        ({"cost": 15_000_000}, "15000000 + 0 is not 16000000"),
        ({"cost": 15_000_000, "shortfall": 1_000_000}, ""),
        ({"cached": 4}, "is not 14000000"),
        ({"held": 15_999_999}, "with 15999999 held"),
    ],
)
def test_prices(change: dict[str, Any], found: str) -> None:
    verdict = Verdict()
    checks.prices([replace(ROW, **change)], verdict)
    assert found in " ".join(verdict.problems)
    assert bool(verdict.problems) == bool(found)


def at(marker: str, come: float, sent: float, tokens: int) -> tuple[Row, Entry]:
    row = replace(ROW, marker=marker, created=come, prompt=0, completion=tokens)
    return row, replace(ENTRY, marker=marker, begun=sent)


def test_a_window_holds_what_is_surely_in_it() -> None:
    pairs = [at("a", 0, 0.1, 5), at("b", 59, 59.5, 7), at("c", 59.9, 60.2, 11), at("d", 61, 61, 13)]
    rows, entries = [row for row, _ in pairs], [entry for _, entry in pairs]
    assert limits.most_in_a_window(rows[:3], entries) == 18  # b and c; of a and c it is not sure
    assert limits.most_in_a_window(rows, entries) == 31


def test_a_verdict_says_it() -> None:
    verdict = Verdict()
    assert str(verdict) == "ok"
    verdict.check(1 > 2, "one is less")
    assert str(verdict) == "FAILED\n  ! one is less"
