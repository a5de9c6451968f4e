"""A request in one format, for a provider of each other: valid by its SDK's types, and back again the same.

Part (c) of the suite. What is not the same has been named as a loss.
"""

from collections.abc import Callable
from typing import Any

import pytest

from proxy.formats.base import BadField
from tests.conformance import corpus, known
from tests.conformance.corpus import FAMILIES, PAIRS
from tests.conformance.matrix import EQUAL, FAILED, NAMED, Cell, report
from tests.conformance.requests import there_and_back
from tests.recordings import Exchange

# What only the provider that keeps it can make sense of: a request with it is refused, and the field is named.
KEPT_ELSEWHERE = {"background", "conversation", "previous_response_id", "prompt"}


def _check(source: str, target: str, exchange: Exchange) -> tuple[str, str]:
    assert exchange.asked is not None
    try:
        trip = there_and_back(FAMILIES[source].form, FAMILIES[target].form, target, exchange.asked)
    except BadField as bad:
        return (NAMED if bad.param in KEPT_ELSEWHERE else FAILED), f"BadField: {bad.param}: {bad.message}"
    if trip.invalid:
        return FAILED, f"invalid: {trip.invalid}"
    if left := trip.unexplained:
        return FAILED, f"{'; '.join(map(str, left[:3]))} (losses: {', '.join(trip.losses)})"
    return (NAMED if trip.differences else EQUAL), ""


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_requests(source: str, target: str, record_property: Callable[[str, Any], None]) -> None:
    cell = Cell("c", f"{source} → {target}")
    for exchange in corpus.answered(source):
        if exchange.asked is not None:
            cell.add(exchange.id, *_check(source, target, exchange))
    record_property(*report(cell))
    known.settle(cell)
