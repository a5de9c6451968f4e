"""What a dead process left in the journal: its lines and, of requests that were still open, rows made by their marks.

Called by `journal`.
"""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from accounts.usd import PICO, nanodollars
from models_catalog import pricing
from models_catalog.pricing import Price
from proxy.counters.base import Store
from proxy.marks import NAME, Marks
from proxy.models import UsageRecord
from proxy.usage import OPENS, Line, decode, land

logger = logging.getLogger(__name__)

BATCH_BYTES = 1024 * 1024
ABANDONED_SECONDS = 60  # a folder that has no marks by then belongs to a process that died as it began


class Remains:
    """Whoever has claimed them keeps them until they are in the database, or dies too."""

    def __init__(self, path: Path, marks: Marks, store: Store) -> None:
        self.marks = marks
        self._path = path
        self._files = _numbered(path)
        self._killed = self._read(store)

    def _read(self, store: Store) -> list[Line]:
        """Rows of requests that were still open. All charges that may not have landed are made known."""
        begun = [line for text in self.marks.begun() if (line := _read(self._path, text))]
        running = {line.request_id: line for line in begun}
        for line, has_landed in self._lines():
            if line.opened is not None:
                running[line.request_id] = line
                continue
            running.pop(line.request_id, None)
            if not has_landed:
                _announce(line, store)
        killed = [_killed(line, *self.marks.read(line.opened or 0)) for line in running.values()]
        for line in killed:
            _announce(line, store)
        return killed

    def _lines(self) -> Iterator[tuple[Line, bool]]:
        for number, path in self._files:
            moved = self.marks.moved(number, path)
            for lines, _ in batches(path, 0, moved, opening=True):
                yield from ((line, True) for line in lines)
            for lines, _ in batches(path, moved, opening=True):
                yield from ((line, False) for line in lines)

    def land(self, store: Store) -> int:
        count = 0
        for number, path in self._files:
            for lines, end in batches(path, self.marks.moved(number, path)):
                land(lines, store)
                count += len(lines)
                self.marks.move(number, end)
        land(self._killed, store)
        count += len(self._killed)
        if self._killed:
            logger.warning("%s: %s requests had been cut off with their process", self._path.name, len(self._killed))
        shutil.rmtree(self._path)
        self.marks.release()
        return count


def _announce(line: Line, store: Store) -> None:
    if line.funds:
        store.held(line.request_id, nanodollars(line.cost or 0), line.funds)


def _killed(line: Line, tokens: int, held: int) -> Line:
    """What had been delivered is what was used; charged is at most what was held."""
    price = None if line.price is None else Price(0, *line.price)
    cost = pricing.cost(price, line.prompt_tokens, tokens, line.cached_tokens, line.cache_write_tokens)
    changes: dict[str, object] = {"cost": cost}
    if line.funds:
        held = max(held, line.held or 0)
        charged = min(cost or 0, held * PICO)
        changes = {"cost": charged, "shortfall": (cost or 0) - charged, "held": held}
    return msgspec.structs.replace(
        line,
        opened=None,
        outcome=UsageRecord.Outcome.INCOMPLETE.value,
        status=200 if tokens else 503,
        error_code="process_killed",
        completion_tokens=tokens,
        estimated=True,
        **changes,
    )


def dead(path: Path) -> Marks | None:
    """The marks of a dead process, locked; None: it lives, or another process has claimed them."""
    if not path.is_dir():
        return None
    try:
        fd = os.open(path / NAME, os.O_RDWR)
    except FileNotFoundError:
        _forget(path)
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:  # else another process has just moved it
            return Marks(fd)
    except BlockingIOError:
        pass  # it lives
    os.close(fd)
    return None


def _forget(path: Path) -> None:
    """A folder without marks, if its process died as it made or removed it: there is nothing in it to be moved."""
    with suppress(FileNotFoundError):
        if time.time() > path.stat().st_mtime + ABANDONED_SECONDS:
            shutil.rmtree(path)


def _numbered(path: Path) -> list[tuple[int, Path]]:
    return sorted((int(file.stem), file) for file in path.glob("*.jsonl") if file.stem.isdigit())


def batches(
    path: Path, start: int, end: int | None = None, *, opening: bool = False
) -> Iterator[tuple[list[Line], int]]:
    """The whole lines from `start` to `end`, and where each batch of them ends. `opening`: those that open too."""
    with path.open("rb") as file:
        while True:
            file.seek(start)
            data = file.read(BATCH_BYTES if end is None else min(BATCH_BYTES, end - start))
            whole = data.rfind(b"\n") + 1
            if not whole:
                return  # nothing, or half a line that a power cut left
            lines = [text for text in data[:whole].splitlines() if opening or OPENS not in text]
            yield [line for text in lines if (line := _read(path, text))], start + whole
            start += whole


def _read(path: Path, line: bytes) -> Line | None:
    try:
        return decode(line)
    except msgspec.DecodeError as error:  # a power cut can leave such a line; it must not hold up the others
        logger.error("%s: a line of the journal cannot be read and is skipped: %s", path.name, error)
        return None
