"""How each running request has begun, and how far it has come: slots of a file that is mapped into memory.

To fill one, or to change its numbers, costs no system call, and it survives `kill -9`. `journal` makes and keeps them,
`exchange` sets them, and `remains` reads those of a dead process.
"""

import fcntl
import logging
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

NAME = "marks"  # of the file
SLOTS = 4096  # requests at once for which there are marks from the start
SLOT = 1024  # bytes: numbers, then the line that opens the request
_NUMBERS = SLOT // 8  # of 8 bytes in a slot; used: tokens, held, the line's length
_LINE = 24  # where it begins


_Map = bytearray | mmap.mmap


class _Slots:
    """As many as the map holds. Those that are in use keep theirs, of the same file, when there is a larger one."""

    __slots__ = ("count", "numbers", "text")

    def __init__(self, text: _Map) -> None:
        self.text = text
        self.numbers = memoryview(text).cast("Q")
        self.count = len(text) // SLOT


_NOWHERE = _Slots(bytearray(SLOT))


class Mark:
    """Of one request. Each number is stored by one instruction, so that none is ever half written."""

    __slots__ = ("_at", "_slots")

    def __init__(self, slots: _Slots = _NOWHERE, slot: int = 0) -> None:
        self._slots = slots
        self._at = slot * _NUMBERS

    def tell(self, line: bytes) -> bool:
        """How the request begins, once. False: there is no room for it."""
        if not self._at or len(line) > SLOT - _LINE:
            return False
        start = self._at * 8 + _LINE
        self._slots.text[start : start + len(line)] = line
        self._slots.numbers[self._at + 2] = len(line)  # last: until then there is none
        return True

    def set(self, tokens: int, held: int) -> None:
        """`tokens` have been delivered so far, `held` nanodollars are held for them. Of a closed request: nothing."""
        numbers = self._slots.numbers
        numbers[self._at + 1] = held  # first: what is delivered is never more than what is held
        numbers[self._at] = tokens

    @property
    def slot(self) -> int:
        return self._at // _NUMBERS

    def close(self) -> int:
        """Returns the slot: it is free when the closing line is on the disk."""
        slot = self.slot
        self._slots, self._at = _NOWHERE, 0
        return slot


class Marks:
    """The file of marks, locked while its process lives. Slot 0: the file that is being moved, and how far it is."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        size = os.fstat(fd).st_size // SLOT * SLOT
        self._slots = self._mapped(size) if size else _Slots(bytearray(SLOT))  # a power cut can leave it empty
        self._free = list(range(self._slots.count - 1, 0, -1))

    @classmethod
    def make(cls, folder: Path) -> "Marks":
        """Raises `OSError` where there is no room. A later write to the map must not find none: it ends the process."""
        draft = folder / f"{NAME}.new"
        fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(fd, 0, SLOTS * SLOT)
            fcntl.flock(fd, fcntl.LOCK_EX)
            marks = cls(fd)
            draft.rename(folder / NAME)  # it appears under its name when it is locked
        except OSError:
            draft.unlink()
            os.close(fd)
            raise
        return marks

    def _mapped(self, size: int) -> _Slots:
        return _Slots(mmap.mmap(self.fd, size))

    def new(self) -> Mark:
        if not self._free:
            try:
                self._grow()
            except OSError as error:
                logger.critical("there is no room for more marks: %s", error)
                return Mark()
        return Mark(self._slots, self._free.pop())

    def _grow(self) -> None:
        """Twice as many."""
        count = self._slots.count
        os.posix_fallocate(self.fd, 0, 2 * count * SLOT)
        self._slots = self._mapped(2 * count * SLOT)
        self._free = list(range(2 * count - 1, count - 1, -1))

    def free(self, slot: int) -> None:
        if slot:
            self._slots.numbers[slot * _NUMBERS + 2] = 0
            self._free.append(slot)

    def begun(self) -> Iterator[bytes]:
        """The lines that open requests which are not closed."""
        numbers, text = self._slots.numbers, self._slots.text
        for slot in range(1, self._slots.count):
            length = numbers[slot * _NUMBERS + 2]
            if 0 < length <= SLOT - _LINE:
                start = slot * SLOT + _LINE
                yield bytes(text[start : start + length])

    def read(self, slot: int) -> tuple[int, int]:
        """(tokens, held)"""
        if not 0 < slot < self._slots.count:
            return 0, 0
        return self._slots.numbers[slot * _NUMBERS], self._slots.numbers[slot * _NUMBERS + 1]

    def moved(self, number: int, path: Path) -> int:
        """How many bytes of this file are in the database."""
        numbers = self._slots.numbers
        if number < numbers[0]:
            return path.stat().st_size
        return numbers[1] if number == numbers[0] else 0

    def move(self, number: int, end: int) -> None:
        numbers = self._slots.numbers
        if number != numbers[0]:
            numbers[1] = 0
            numbers[0] = number
        numbers[1] = end

    def sync(self) -> None:
        """To the disk: for a power cut. Raises `OSError`."""
        os.fdatasync(self.fd)

    def release(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_UN)  # the map has a descriptor of its own, which would keep the lock
        os.close(self.fd)
