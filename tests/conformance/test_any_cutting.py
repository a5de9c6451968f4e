"""Any cutting of a stream's bytes gives the same: the relay's bytes, the reader's events, another format's bytes.

Part (d) of the suite. Bodies of up to 1,600 bytes are fed byte by byte from end to end; longer ones at both ends, and
in random small pieces between.
"""

from collections.abc import Callable, Iterable
from itertools import cycle
from typing import Any

import pytest

from tests.conformance import corpus, cutting, same, through
from tests.conformance.corpus import FAMILIES, Family
from tests.conformance.matrix import EQUAL, FAILED, Cell, report
from tests.conformance.through import members
from tests.recordings import Exchange

SEED = "1a2b3c"


def _cuttings(exchange: Exchange) -> Iterable[tuple[str, list[bytes]]]:
    return (
        ("byte by byte", list(cutting.one_by_one(exchange.body))),
        ("three cuts", list(cutting.at_random(exchange.body, exchange.id))),
    )


def _check(family: Family, target: Family, exchange: Exchange) -> None:
    form, framing = family.form, corpus.framing(exchange)
    client = members(exchange.asked or {})
    relayed = same.relayed(form, iter([exchange.body]), client, framing)
    events = through.read(form.reader(SEED), [exchange.body]) if framing == "sse" else []
    for how, pieces in _cuttings(exchange):
        assert same.relayed(form, iter(pieces), client, framing) == relayed, f"relay, {how}"
        if framing == "sse":
            assert through.read(form.reader(SEED), pieces) == events, f"reader, {how}"
    if framing == "sse":
        ask = through.ask(form, target.form, exchange)
        whole = through.streamed(form, target.form, [exchange.body], ask)
        ask = through.ask(form, target.form, exchange)
        assert through.streamed(form, target.form, pieces, ask) == whole, f"as {target.name}, {how}"


@pytest.mark.parametrize("name", FAMILIES)
def test_any_cutting(name: str, record_property: Callable[[str, Any], None]) -> None:
    family, cell = FAMILIES[name], Cell("d", name)
    targets = cycle(other for other in FAMILIES.values() if other is not family)
    for exchange, target in zip(corpus.streams(name), targets, strict=False):
        try:
            _check(family, target, exchange)
            cell.add(exchange.id, EQUAL)
        except AssertionError as fault:
            cell.add(exchange.id, FAILED, str(fault).splitlines()[0])
    record_property(*report(cell))
    assert cell.exchanges
    assert not cell.failures
