"""What is known to fail, and why: `known.toml`. Any other failure is a fault, and so is one of these that passes."""

import tomllib
from functools import cache
from pathlib import Path

from tests.conformance.matrix import Cell

LEAST = 0.995  # of each cell of (b) and (c)


@cache
def listed() -> dict[tuple[str, str], dict[str, str]]:
    """Part and pair → exchange id → reason."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for entry in tomllib.loads((Path(__file__).parent / "known.toml").read_text())["failure"]:
        assert entry["reason"], f"{entry['id']}: a known failure has a reason"
        for pair in entry["pairs"]:
            found.setdefault((entry["part"], pair), {})[entry["id"]] = entry["reason"]
    return found


def settle(cell: Cell) -> None:
    """Fails the test for what is new, for what is mended, and for a cell that is under the mark."""
    known = listed().get((cell.part, cell.pair), {})
    new = {exchange: why for exchange, why in cell.failures.items() if exchange not in known}
    assert not new, f"{len(new)} of {cell.exchanges} failed: {dict(list(new.items())[:20])}"
    mended = sorted(cell.passed & known.keys())
    assert not mended, f"these pass, so take them out of known.toml: {mended}"
    assert cell.exchanges, "nothing was tried"
    assert cell.share >= LEAST, f"{cell.share:.2%} is under {LEAST:.1%}"
