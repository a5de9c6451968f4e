"""A stream in another spelling is the same stream to the reader, and keeps its spelling through the relay.

Part (d) of the suite, too. Each recording comes in one of the spellings.
"""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest

from tests.conformance import corpus, same, through
from tests.conformance.corpus import FAMILIES, Family
from tests.conformance.matrix import EQUAL, FAILED, Cell, report
from tests.conformance.spelling import SPELLINGS
from tests.conformance.through import members
from tests.proxy.formats.oracle import events
from tests.recordings import Exchange

SEED = "1a2b3c"
UNREAD = ("comments", "tight")  # Google's SDKs read neither: their clients get events as Google spells them


def _check(family: Family, spelling: str, exchange: Exchange) -> None:
    respelled = SPELLINGS[spelling](family.name, exchange.body)
    reader = family.form.reader(SEED)
    read = through.read(family.form.reader(SEED), [exchange.body])
    assert through.read(reader, [respelled]) == read, f"{spelling}: other events"
    assert reader.complete, f"{spelling}: not complete"
    wants_usage = {**(exchange.asked or {}), "stream_options": {"include_usage": True}}
    out, whole = same.relayed(family.form, iter([respelled]), members(wants_usage), "sse")
    assert whole, f"{spelling}: the relay does not take it to be whole"
    if family.name == "generateContent" and spelling in UNREAD:
        respelled, out = exchange.body, b"".join(raw for raw, data in events(out) if data)
        assert all(line.startswith(b"data: ") for line in out.splitlines() if line), f"{spelling}: not readable"
    same.check_stream(family.name, respelled, out, asked=True, counted=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_spelling(name: str, record_property: Callable[[str, Any], None]) -> None:
    family, cell = FAMILIES[name], Cell("d", f"{name} spelt otherwise")
    for exchange, spelling in zip(corpus.streams(name), cycle(SPELLINGS), strict=False):
        if exchange.framing != "sse" or corpus.truth(name, exchange) is None:
            continue
        try:
            _check(family, spelling, exchange)
            cell.add(exchange.id, EQUAL)
        except AssertionError as fault:
            cell.add(exchange.id, FAILED, str(fault).splitlines()[0])
    record_property(*report(cell))
    assert cell.exchanges
    assert not cell.failures
