"""An answer in one format, for a client of each other format: its SDK reads what the provider's own SDK reads.

Part (b) of the suite. Each recording comes both ways: plain, and as a stream through the client SDK's streaming helper.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from proxy.formats.base import BadField, NotAnAnswer
from tests.conformance import corpus, known, through
from tests.conformance.compare import Difference, differences, unexplained
from tests.conformance.corpus import FAMILIES, PAIRS, Family
from tests.conformance.matrix import EQUAL, FAILED, NAMED, Cell, report
from tests.conformance.reading import Reading, Unread
from tests.recordings import Exchange


def _as_events(exchange: Exchange) -> bytes:
    """As the provider sends it to the gateway, which always asks for server-sent events."""
    if exchange.framing != "json-array":
        return exchange.body
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in json.loads(exchange.body))


def _both_ways(source: Family, target: Family, exchange: Exchange) -> list[tuple[str, Reading, set[str]]]:
    """How it came, what the SDK reads, and the losses that were named."""
    stream = corpus.is_stream(exchange)
    theirs, ours, body = source.form, target.form, _as_events(exchange)
    out = []
    for how, read in (("plain", target.plain), ("stream", target.helped)):
        asked = through.ask(theirs, ours, exchange)
        if how == "plain":
            came = (through.collected if stream else through.plain)(theirs, ours, body, asked)
        elif stream:
            came = through.streamed(theirs, ours, [body], asked)
        else:
            came = through.played(theirs, ours, body, asked)
        if not came.whole:
            raise Unread(f"{how}: not whole: {came.why}")
        try:
            out.append((how, read(came.body), set(asked.losses.names)))
        except Unread as unread:
            raise Unread(f"{how}: the SDK: {unread}") from unread
    return out


def _check(source: Family, target: Family, exchange: Exchange, truth: Reading) -> tuple[str, str]:
    """The outcome, and why."""
    outcome = EQUAL
    try:
        ways = _both_ways(source, target, exchange)
    except (BadField, NotAnAnswer, Unread) as fault:
        return FAILED, f"{type(fault).__name__}: {fault}"
    for how, found, losses in ways:
        differing: list[Difference] = differences(truth, found, target.name)
        if left := unexplained(differing, losses):
            return FAILED, f"{how}: {'; '.join(map(str, left))}"
        if differing:
            outcome = NAMED
    return outcome, ""


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_answers(source: str, target: str, record_property: Callable[[str, Any], None]) -> None:
    cell = Cell("b", f"{source} → {target}")
    for exchange in corpus.answered(source):
        truth = corpus.truth(source, exchange)
        if truth is not None:
            cell.add(exchange.id, *_check(FAMILIES[source], FAMILIES[target], exchange, truth))
    record_property(*report(cell))
    known.settle(cell)
