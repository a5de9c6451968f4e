"""The same format in and out: the bytes are kept but for the permitted edits, and the SDK reads the same.

Part (a) of the suite.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from proxy.formats.splice import Members
from tests.conformance import corpus, same
from tests.conformance.corpus import FAMILIES, Family, reading_or_fault
from tests.conformance.matrix import EQUAL, FAILED, Cell, report
from tests.conformance.reading import Reading
from tests.conformance.through import price
from tests.recordings import Exchange


def _client(family: Family, exchange: Exchange) -> tuple[Members, bool]:
    """The client's request, and whether it wants the chunk with the usage."""
    asked = exchange.asked or {}
    return Members(json.dumps(asked).encode()), bool((asked.get("stream_options") or {}).get("include_usage"))


def _check_plain(family: Family, exchange: Exchange, truth: Reading) -> None:
    out = family.form.edit_answer(exchange.body, same.MODEL, price).body
    same.check_answer(family.name, exchange.body, out, counted=truth.usage is not None)
    found = reading_or_fault(family.plain, out)
    recorded = reading_or_fault(family.plain, exchange.body) if corpus.is_vertex(exchange) else truth
    assert found == recorded, f"the SDK reads {found}"


def _check_stream(family: Family, exchange: Exchange, truth: Reading) -> None:
    asked, wants_usage = _client(family, exchange)
    out, whole = same.relayed(family.form, iter([exchange.body]), asked, corpus.framing(exchange))
    assert whole, "it is not taken to be whole"
    if exchange.framing == "json-array":
        same.check_array(family.name, exchange.body, out)
    else:
        same.check_stream(family.name, exchange.body, out, asked=wants_usage, counted=truth.usage is not None)
    found, recorded = reading_or_fault(family.helped, out), corpus.helped(family.name, exchange)
    if family.name == "chat" and not wants_usage:
        found, recorded = _uncounted(found), _uncounted(recorded)
    assert found == recorded, f"the SDK reads {found}"


def _uncounted(found: Reading | str) -> Reading | str:
    return replace(found, usage=None) if isinstance(found, Reading) else found.partition(":")[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_answers(name: str, record_property: Callable[[str, Any], None]) -> None:
    family, cell = FAMILIES[name], Cell("a", f"{name} answers")
    for exchange in corpus.answered(name):
        if corpus.is_stream(exchange):
            corpus.helped(name, exchange)  # first: it holds the truth
        truth = corpus.truth(name, exchange)
        if truth is None:
            continue
        try:
            (_check_stream if corpus.is_stream(exchange) else _check_plain)(family, exchange, truth)
            cell.add(exchange.id, EQUAL)
        except AssertionError as fault:
            cell.add(exchange.id, FAILED, str(fault).splitlines()[0])
    record_property(*report(cell))
    assert cell.exchanges
    assert not cell.failures


@pytest.mark.parametrize("name", FAMILIES)
def test_requests(name: str, record_property: Callable[[str, Any], None]) -> None:
    family, cell = FAMILIES[name], Cell("a", f"{name} requests")
    for number, exchange in enumerate(corpus.answered(name)):
        if exchange.asked is None:
            continue
        try:
            same.check_request(name, family.form, exchange.asked, spaced=bool(number % 2))
            cell.add(exchange.id, EQUAL)
        except AssertionError as fault:
            cell.add(exchange.id, FAILED, str(fault).splitlines()[0])
    record_property(*report(cell))
    assert cell.exchanges
    assert not cell.failures
