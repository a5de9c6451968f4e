"""Each of the proofs, small: that the scripts work, and that what they show at full size still holds.

At full size they are run by hand: `make test-exact`.
"""

from dataclasses import replace
from typing import Any

import pytest

from tests.exact import hard_cap, limits, nothing_lost, revocation, routing
from tests.exact.checks import Verdict
from tests.exact.fleet import House, Plan, Variant

_CLOSED = Variant(Plan(), lambda *words: nothing_lost.database_away(nothing_lost.closed, *words))


@pytest.mark.parametrize(
    ("variant", "size"),
    [
        pytest.param(hard_cap.SCENARIO["redis-killed"], {"streams": 30, "seconds": 4}, id="hard cap"),
        pytest.param(_CLOSED, {"streams": 8, "seconds": 1.5}, id="database away"),
        pytest.param(limits.SCENARIO["requests"], {"streams": 200}, id="requests a minute"),
        pytest.param(routing.SCENARIO["redis"], {}, id="routes that fail"),
        pytest.param(revocation.SCENARIO["redis"], {"streams": 8, "seconds": 0.5}, id="revocation"),
    ],
)
def test_it_holds(variant: Variant, size: dict[str, Any], house: House) -> None:
    verdict = Verdict()
    processes = min(variant.plan.processes, 2)
    variant.run(house, replace(variant.plan, processes=processes, quick=True, **size), verdict)
    assert house.last
    assert not verdict.problems, f"{verdict}\n{house.last.log[-4000:]}"
    assert "Traceback" not in house.last.log, house.last.log
