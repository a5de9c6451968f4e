"""Usage on its way to the database: journaled before an answer ends, moved in batches afterwards.

Each process has a folder of its own in `<data dir>/journal`: numbered files of lines, and its `marks`. A request is a
mark, made before a provider is asked, with the line that opens it and how far it has come; and a line that closes it,
before its last byte goes out. What opens it again, when more is known, is a line in the file. All of that survives
`kill -9`. A background thread moves closing lines to the database, keyed by request id, so that a replay changes
nothing. The files are the only queue: what a process did not move, another one finds (`Journal.adopt`). Called by
`exchange`, `background` and `counters.failover`.
"""

import errno
import logging
import os
import secrets
import shutil
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from proxy.counters.base import Store
from proxy.marks import Mark, Marks
from proxy.remains import Remains, batches, dead
from proxy.usage import OPENS, Record, decode, encode, land

logger = logging.getLogger(__name__)

MEASURE_SECONDS = 0.5


class _File:
    """A journal file of this process. `moved`: how many bytes are in the database."""

    __slots__ = ("fd", "moved", "number", "path")

    def __init__(self, folder: Path, number: int) -> None:
        self.path, self.number, self.moved = folder / f"{number}.jsonl", number, 0
        self.fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)

    def write(self, lines: bytes) -> None:
        """All of it or none. Raises `OSError` where the disk is full."""
        done = os.write(self.fd, lines)
        if done != len(lines):  # the disk's last bytes: do not leave half a line in front of the next
            os.ftruncate(self.fd, os.fstat(self.fd).st_size - done)
            raise OSError(errno.ENOSPC, "no room for a whole line")

    @property
    def is_moved(self) -> bool:
        return self.moved >= os.fstat(self.fd).st_size

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


class Journal:
    """This process's part of the journal. `open` and `append` on the event loop; the rest in background threads.

    `failing`: a line could not be written, or the journals have grown to `most` bytes. New requests are refused then;
    lines of those that run are written still, or wait in memory. It ends by itself. `process`: a name that no other
    has ever had.
    """

    def __init__(self, folder: Path, store: Store, *, rotate_at: int, most: int, process: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._process = process or f"{time.time_ns()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._store = store
        self._rotate_at = rotate_at
        self._most = most
        self._lock = threading.Lock()  # of what the event loop and the threads both touch
        self._running: dict[str, tuple[Mark, bytes]] = {}  # by request id: its mark; the last line that opens it
        self._waiting: deque[tuple[bytes, int]] = deque()  # lines, and the slots that are free once they are written
        self._own: Path | None = None
        self._retired: list[_File] = []
        self._dirty = self._told = False
        self._full = False
        self._measured = 0.0
        self._claiming, self._landing = threading.Lock(), threading.Lock()
        self._remains: list[Remains] = []
        try:
            self._begin()
        except OSError as error:
            logger.critical("the usage journal cannot be begun: %s", error)

    def _begin(self) -> None:
        own = self._folder / self._process
        own.mkdir(mode=0o700, exist_ok=True)
        file = _File(own, 1)
        try:
            self._marks = Marks.make(own)
        except OSError:
            file.remove()
            raise
        self._file = file
        self._own = own

    @property
    def failing(self) -> bool:
        return bool(self._waiting) or self._full or self._own is None

    # --- on the event loop -------------------------------------------------------------------------------------------

    def open(self, record: Record) -> Mark:
        """Before a provider is asked. Again before another model is, or when more is known: the last line counts."""
        with self._lock:
            running = self._running.get(record.request_id)
            mark = running[0] if running else self._mark(record.held or 0)
            record.opened = mark.slot
            line = encode(record)
            record.opened = None
            if running is None and mark.tell(line):
                self._running[record.request_id] = mark, b""
                self._told = True
            else:
                line += b"\n"
                self._running[record.request_id] = mark, line
                self._write(line)
        return mark

    def _mark(self, held: int) -> Mark:
        mark = Mark() if self._own is None else self._marks.new()
        mark.set(0, held)
        return mark

    def append(self, record: Record) -> None:
        """What a request has come to, before its last byte goes out."""
        line = encode(record) + b"\n"
        with self._lock:
            running = self._running.pop(record.request_id, None)
            self._write(line, running[0].close() if running else 0)

    def _write(self, line: bytes, slot: int = 0) -> None:
        """Lines keep their order: none overtakes one that waits."""
        if not self._waiting and self._own is not None:
            try:
                self._put(line, slot)
                return
            except OSError as error:
                logger.critical("the usage journal cannot be written: %s", error)
        self._waiting.append((line, slot))

    def _put(self, line: bytes, slot: int) -> None:
        self._file.write(line)
        self._dirty = True
        self._marks.free(slot)

    # --- in background threads ---------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Bring to the disk what a power cut could take, and what had found no room. Raises `OSError`."""
        self._measure()
        if self._own is None:
            self._begin()
        while self._waiting:
            with self._lock:
                self._put(*self._waiting[0])
                self._waiting.popleft()
        if self._dirty or self._told:
            dirty, told = self._dirty, self._told
            self._dirty = self._told = False  # before: a line that comes meanwhile makes it true again
            try:
                if told:
                    self._marks.sync()
                os.fdatasync(self._file.fd)
            except OSError:
                self._dirty, self._told = dirty, told
                raise

    def _measure(self) -> None:
        now = time.monotonic()
        if now < self._measured + MEASURE_SECONDS:
            return
        self._measured = now
        full = _size(self._folder) > self._most
        if full and not self._full:
            logger.critical("the usage journals have grown to %s bytes: new requests are refused", self._most)
        self._full = full

    def flush(self) -> int:
        """Move new lines to the database; returns how many. A large file gives way to a new one."""
        if self._own is None:
            return 0
        count = 0
        # One round later than it was replaced: a `sync` that had begun on it has long ended.
        while self._retired:
            old = self._retired[0]
            count += self._move(old)
            old.remove()
            self._retired.pop(0)
        count += self._move(self._file)
        if self._file.moved >= self._rotate_at or (self._full and self._file.moved and self._file.is_moved):
            self._rotate()
        return count

    def _move(self, file: _File) -> int:
        count = 0
        for lines, end in batches(file.path, file.moved):
            land(lines, self._store)
            count += len(lines)
            file.moved = end
            self._marks.move(file.number, end)
        return count

    def _rotate(self) -> None:
        """What still runs is opened in the new file too. Where there is no room for it, the old one stays in use."""
        assert self._own is not None
        fresh, old = _File(self._own, self._file.number + 1), self._file
        try:
            with self._lock:
                fresh.write(b"".join(line for _, line in self._running.values()))
                self._file = fresh
        except OSError:
            fresh.remove()
            raise
        self._retired.append(old)
        os.fdatasync(old.fd)

    def claim(self) -> None:
        """Take over what dead processes left: the store hears what their requests will be charged.

        Needs no database. A living process holds a lock on its folder.
        """
        with self._claiming:
            for path in sorted(self._folder.iterdir()):
                marks = dead(path)
                if marks is None:
                    continue
                try:
                    self._remains.append(Remains(path, marks, self._store))
                except BaseException:
                    marks.release()  # for the next try
                    raise

    def adopt(self) -> int:
        """`claim`, and move it to the database; returns how many rows. Does not wait for a thread that does it."""
        self.claim()
        if not self._landing.acquire(blocking=False):
            return 0
        try:
            count = 0
            while self._remains:
                count += self._remains[0].land(self._store)
                self._remains.pop(0)
            return count
        finally:
            self._landing.release()

    def remains(self, process: str) -> bool:
        """Whether that process lives, or has left what is not in the database yet."""
        return (self._folder / process).exists()

    def close(self) -> None:
        """At the end of a process: what is not in the database stays in its folder for another."""
        try:
            self.sync()
        except OSError as error:  # the disk is full: what waits in memory has only the database left
            logger.critical("the usage journal cannot be written: %s", error)
            land([decode(line) for line, _ in self._waiting if OPENS not in line], self._store)
        self.flush()
        for remains in self._remains:
            remains.marks.release()
        if self._own is None:
            return
        files = [*self._retired, self._file]
        if not self._running and all(file.is_moved for file in files):
            shutil.rmtree(self._own)
        for file in files:
            os.close(file.fd)
        self._marks.release()


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # it has been moved meanwhile
                total += (Path(place) / name).stat().st_size if name.endswith(".jsonl") else 0
    return total
