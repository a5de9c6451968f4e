"""Usage rows on their way to the database: written to a journal before an answer ends, moved in batches afterwards.

Each process appends to a file of its own in `<data dir>/journal`; a line that is written survives `kill -9`. The
background thread moves lines to `UsageRecord`, keyed by request id, so that a replay changes nothing. The file is the
only queue: what a process did not move, the next one finds (`Journal.adopt`). Called by `relay` and `background`.
"""

import errno
import fcntl
import functools
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from django.db import DataError, IntegrityError, connection, transaction

from accounts import keys
from models_catalog.pricing import usd
from proxy.models import UsageRecord

logger = logging.getLogger(__name__)

BATCH_BYTES = 1024 * 1024
MOST_LOSSES = 1000  # characters: some of the names are fields that a client has made up
_MOST = 2**31 - 1  # that an integer column holds
# That this row can never be stored: an overflow in Python's adapters, a value that the column does not take.
_REFUSED = (DataError, IntegrityError, ValueError, OverflowError, ArithmeticError)


class Attempt(msgspec.Struct, omit_defaults=True):
    """One try at one provider. `reason` as in `ProviderFault`; empty: it answered."""

    provider: str
    model: str
    ms: float = 0.0
    status: int = 0
    reason: str = ""


class Record(msgspec.Struct, omit_defaults=True):
    """A line of the journal: `UsageRecord`'s columns. `created` in seconds since the epoch, `cost` in picodollars.

    `losses` as `listed` writes them.
    """

    request_id: str
    created: float
    status: int = 0
    outcome: str = UsageRecord.Outcome.REFUSED.value
    endpoint: str = "chat"
    key_id: int | None = None
    key_prefix: str = ""
    key_name: str = ""
    account_id: int | None = None
    account: str = ""
    requested_model: str = ""
    alias: str = ""
    model: str = ""
    provider: str = ""
    upstream_model: str = ""
    provider_format: str = ""
    losses: str = ""
    error_code: str = ""
    streamed: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cost: int | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0
    client: str = ""
    attempts: list[Attempt] = []


class Line(Record, omit_defaults=True):
    """A record read back: what is not looked at stays as it is."""

    attempts: msgspec.Raw = msgspec.Raw(b"[]")  # type: ignore[assignment]


def listed(losses: Iterable[str]) -> str:
    """The names of losses between commas; where they are too many for a row, as many as it has room for, and “…”."""
    text = ",".join(losses).encode(errors="replace").decode()  # half a surrogate pair is no text for the journal
    if len(text) <= MOST_LOSSES:
        return text
    whole = text[: MOST_LOSSES - 1].rpartition(",")[0]
    return f"{whole},…" if whole else f"{text[: MOST_LOSSES - 1]}…"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode
_COLUMNS = (
    "request_id", "created_at", "endpoint", "key_id", "key_prefix", "key_name", "account_id", "account",
    "requested_model", "alias", "model", "provider", "upstream_model", "provider_format", "losses", "status",
    "error_code", "outcome", "streamed", "prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens",
    "reasoning_tokens", "estimated", "cost", "first_token_ms", "total_ms", "attempts", "client",
)  # fmt: skip
_INSERT = (
    f"INSERT INTO {UsageRecord._meta.db_table} ({', '.join(_COLUMNS)}) "  # noqa: S608, SLF001  # names of our own
    f"VALUES ({', '.join(['%s'] * len(_COLUMNS))}) ON CONFLICT (request_id) DO NOTHING"
)


class _File:
    """A journal file of this process, locked while the process lives. `moved`: how many bytes are in the database."""

    __slots__ = ("_lock", "fd", "moved", "path")

    def __init__(self, folder: Path) -> None:
        name = f"{time.time_ns()}-{os.getpid()}-{secrets.token_hex(4)}"
        draft, self.path = folder / f"{name}.new", folder / f"{name}.jsonl"
        self.fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        self.moved = 0
        self._lock = threading.Lock()
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        draft.rename(self.path)  # it appears under its name when it is locked

    def write(self, line: bytes) -> None:
        """All of it or none. Raises `OSError` where the disk is full."""
        with self._lock:  # the event loop writes, and the thread that brings up what had found no room
            done = os.write(self.fd, line)
            if done != len(line):  # the disk's last bytes: do not leave half a line in front of the next
                os.ftruncate(self.fd, os.fstat(self.fd).st_size - done)
                raise OSError(errno.ENOSPC, "no room for a whole line")

    def move(self) -> int:
        count, self.moved = _move(self.path, self.moved)
        return count

    @property
    def is_moved(self) -> bool:
        return self.moved >= os.fstat(self.fd).st_size

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


class Journal:
    """This process's part of the journal. `append` on the event loop; the rest in the background thread.

    `failing`: a line could not be written. It waits in memory, and new requests are refused until it is on the disk.
    """

    def __init__(self, folder: Path, rotate_at: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._rotate_at = rotate_at
        self._file = _File(folder)
        self._retired: list[_File] = []
        self._waiting: deque[bytes] = deque()
        self._dirty = False

    @property
    def failing(self) -> bool:
        return bool(self._waiting)

    def append(self, record: Record) -> None:
        line = _encode(record) + b"\n"
        try:
            self._file.write(line)
        except OSError as error:
            logger.critical("the usage journal cannot be written: %s", error)
            self._waiting.append(line)
        self._dirty = True

    def sync(self) -> None:
        """Bring to the disk what a power cut could take, and what had found no room. Raises `OSError`."""
        while self._waiting:
            self._file.write(self._waiting[0])
            self._waiting.popleft()
        if self._dirty:
            self._dirty = False
            os.fdatasync(self._file.fd)

    def flush(self) -> int:
        """Move new lines to the database; returns how many. A large file gives way to a new one."""
        count = self._file.move()
        # One round later than it was replaced: an `append` that had begun on it has long ended.
        while self._retired:
            old = self._retired[0]
            count += old.move()
            old.remove()
            self._retired.pop(0)
        if self._file.moved >= self._rotate_at:
            fresh = _File(self._folder)  # where there is no room for it, the old one stays in use
            self._retired.append(self._file)
            self._file = fresh
        return count

    def adopt(self) -> int:
        """Move what dead processes left; returns how many lines. A living process holds a lock on its file."""
        count = 0
        for path in sorted(self._folder.glob("*.jsonl")):
            if path == self._file.path or any(path == old.path for old in self._retired):
                continue
            with suppress(FileNotFoundError), path.open("rb") as file:  # another process may have adopted it
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                count += _move(path, 0)[0]
                path.unlink()
        return count

    def close(self) -> None:
        """At the end of a process: what is not in the database stays in the file for the next."""
        try:
            self.sync()
        except OSError as error:  # the disk is full: what waits in memory has only the database left
            logger.critical("the usage journal cannot be written: %s", error)
            _store([_decode(line) for line in self._waiting])
        self.flush()
        for file in [*self._retired, self._file]:
            if file.is_moved:
                file.remove()
            else:
                os.close(file.fd)


def _move(path: Path, start: int) -> tuple[int, int]:
    """Put the whole lines from `start` on into the database. Returns how many, and where the moved part ends."""
    total = 0
    for records, end in _batches(path, start):
        _store(records)
        total, start = total + len(records), end
    return total, start


def _batches(path: Path, start: int) -> Iterator[tuple[list[Line], int]]:
    with path.open("rb") as file:
        while True:
            file.seek(start)
            data = file.read(BATCH_BYTES)
            end = data.rfind(b"\n") + 1
            if not end:
                return  # nothing, or half a line that a power cut left
            yield [record for line in data[:end].splitlines() if (record := _read(path, line))], start + end
            start += end


def _read(path: Path, line: bytes) -> Line | None:
    try:
        return _decode(line)
    except msgspec.DecodeError as error:  # a power cut can leave such a line; it must not hold up the others
        logger.error("%s: a line of the journal cannot be read and is skipped: %s", path.name, error)
        return None


def _store(records: list[Line]) -> None:
    """One row that the database refuses must not hold up the others: it is reported in full and left out."""
    try:
        store(records)
    except _REFUSED:
        for record in records:
            try:
                store([record])
            except _REFUSED as error:
                logger.critical("a usage row was refused by the database: %s: %s", error, _encode(record).decode())


def store(records: list[Line]) -> None:
    """Insert rows that are not there yet, in one transaction, and note when keys were used."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            zone = "" if connection.vendor == "sqlite" else "+00"
            cursor.executemany(_INSERT, [_row(record, zone) for record in records])
        used = {r.key_id: datetime.fromtimestamp(r.created, UTC) for r in records if r.key_id}
        keys.touch(dict(sorted(used.items())))  # in one order in every process: no deadlock


def _row(record: Line, zone: str) -> tuple[Any, ...]:
    """The row's values as both databases take them: SQLite keeps text, in Django's way of writing it."""
    return (
        record.request_id,
        _moment(record.created, zone),
        record.endpoint,
        record.key_id,
        record.key_prefix,
        record.key_name,
        record.account_id,
        record.account,
        _text(record.requested_model),
        record.alias,
        record.model,
        record.provider,
        record.upstream_model,
        record.provider_format,
        _text(record.losses),
        record.status,
        _text(record.error_code),
        record.outcome,
        record.streamed,
        min(record.prompt_tokens, _MOST),
        min(record.completion_tokens, _MOST),
        min(record.cached_tokens, _MOST),
        min(record.cache_write_tokens, _MOST),
        min(record.reasoning_tokens, _MOST),
        record.estimated,
        None if record.cost is None else f"{usd(record.cost):.12f}",
        record.first_token_ms,
        record.total_ms,
        bytes(record.attempts).decode(),
        _text(record.client),
    )


def _moment(seconds: float, zone: str) -> str:
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1e6):06d}{zone}"


@functools.lru_cache(64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _text(words: str) -> str:
    """What strangers wrote: PostgreSQL takes no NUL."""
    return words.replace("\x00", "\ufffd")
