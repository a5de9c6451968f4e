"""Recorded exchanges with providers, read for tests that play them back.

A small set of our own lies beside the tests of the formats. A large one of real traffic may lie outside the project, in
the folder that `KODNA_RECORDINGS` names (relative to the project): one JSON object a line, in `<provider>.<api>.jsonl`
or `.jsonl.gz`, with `id`, `stream`, `framing`, `features`, `request` (`body`: parsed JSON) and `response` (`status`,
`body`: text).
"""

import gzip
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.processes import ROOT

OWN = ROOT / "tests" / "proxy" / "formats" / "fixtures"


@dataclass(frozen=True)
class Exchange:
    id: str
    stream: bool
    framing: str
    features: frozenset[str]
    asked: dict[str, Any] | None  # the request's body; None where only the response was recorded
    status: int
    body: bytes

    @property
    def is_chat_stream(self) -> bool:
        return self.stream and self.framing == "sse" and self.status == 200


def files(api: str) -> list[Path]:
    """Our own, then the large ones. A folder that is named and holds none is a mistake, not an empty set."""
    found = sorted(OWN.glob(f"*.{api}.jsonl"))
    if named := os.environ.get("KODNA_RECORDINGS"):
        large = sorted((ROOT / named).glob(f"*.{api}.jsonl*"))
        assert large, f"KODNA_RECORDINGS names {named}, which holds no recordings of {api!r}"
        found += large
    return found


@cache
def read(path: Path) -> tuple[Exchange, ...]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return tuple(_exchange(json.loads(line)) for line in text.splitlines())


def _exchange(found: dict[str, Any]) -> Exchange:
    asked = (found["request"] or {}).get("body")
    response = found["response"]
    return Exchange(
        id=found["id"],
        stream=found["stream"],
        framing=found["framing"],
        features=frozenset(found["features"]),
        asked=asked if isinstance(asked, dict) else None,
        status=response["status"],
        body=response["body"].encode(),
    )


def name(path: Path) -> str:
    """For the test's ID."""
    return path.name.partition(".")[0]
