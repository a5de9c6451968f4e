"""How far each running request has come: pairs of numbers in a file that is mapped into memory.

To set one costs no system call, and it survives `kill -9`. `journal` makes and keeps them, `exchange` sets them, and
`remains` reads those of a dead process.
"""

import fcntl
import logging
import mmap
import os
from pathlib import Path

logger = logging.getLogger(__name__)

NAME = "marks"  # of the file
SLOTS = 4096  # requests at once for which there are marks from the start
_PAIR = 16  # bytes


def _pairs(buffer: bytearray | mmap.mmap) -> memoryview:
    return memoryview(buffer).cast("Q")


_NOWHERE = _pairs(bytearray(_PAIR))


class Mark:
    """How far one request has come. Each number is stored by one instruction, so that none is ever half written."""

    __slots__ = ("_at", "_values")

    def __init__(self, values: memoryview = _NOWHERE, slot: int = 0) -> None:
        self._values = values
        self._at = 2 * slot

    def set(self, tokens: int, held: int) -> None:
        """`tokens` have been delivered so far, `held` nanodollars are held for them. Of a closed request: nothing."""
        self._values[self._at + 1] = held  # first: what is delivered is never more than what is held
        self._values[self._at] = tokens

    @property
    def slot(self) -> int:
        return self._at // 2

    def close(self) -> int:
        """Returns the slot: it is free when the closing line is on the disk."""
        slot = self.slot
        self._values, self._at = _NOWHERE, 0
        return slot


class Marks:
    """The file of marks, locked while its process lives. Pair 0: the file that is being moved, and how far it is."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        size = os.fstat(fd).st_size // _PAIR * _PAIR
        self._values = self._mapped(size) if size else _pairs(bytearray(_PAIR))  # a power cut can leave it empty
        self._free = list(range(size // _PAIR - 1, 0, -1))

    @classmethod
    def make(cls, folder: Path) -> "Marks":
        """Raises `OSError` where there is no room. A later write to the map must not find none: it ends the process."""
        draft = folder / f"{NAME}.new"
        fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(fd, 0, SLOTS * _PAIR)
            fcntl.flock(fd, fcntl.LOCK_EX)
            marks = cls(fd)
            draft.rename(folder / NAME)  # it appears under its name when it is locked
        except OSError:
            draft.unlink()
            os.close(fd)
            raise
        return marks

    def _mapped(self, size: int) -> memoryview:
        return _pairs(mmap.mmap(self.fd, size))

    def new(self) -> Mark:
        if not self._free:
            try:
                self._grow()
            except OSError as error:
                logger.critical("there is no room for more marks: %s", error)
                return Mark()
        return Mark(self._values, self._free.pop())

    def _grow(self) -> None:
        """Twice as many; the marks that are in use keep the map they have, of the same file."""
        slots = len(self._values) // 2
        os.posix_fallocate(self.fd, 0, 2 * slots * _PAIR)
        self._values = self._mapped(2 * slots * _PAIR)
        self._free = list(range(2 * slots - 1, slots - 1, -1))

    def free(self, slot: int) -> None:
        if slot:
            self._free.append(slot)

    def read(self, slot: int) -> tuple[int, int]:
        """(tokens, held)"""
        if not 0 < slot < len(self._values) // 2:
            return 0, 0
        return self._values[2 * slot], self._values[2 * slot + 1]

    def moved(self, number: int, path: Path) -> int:
        """How many bytes of this file are in the database."""
        if number < self._values[0]:
            return path.stat().st_size
        return self._values[1] if number == self._values[0] else 0

    def move(self, number: int, end: int) -> None:
        if number != self._values[0]:
            self._values[1] = 0
            self._values[0] = number
        self._values[1] = end

    def release(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)  # the map has a descriptor of its own, which would keep the lock
        os.close(self.fd)
