"""The threads beside the event loop: they do for the data plane what touches the database and the disk.

They keep the key table and the catalog fresh (each process learns of a change within `settings.REFRESH_SECONDS`) and
bring the journal to the disk and into the database. Threads and not tasks: they work alike under Daphne, which knows no
start-up event, and uvicorn; and each has a database connection of its own. `kodna.asgi` starts them.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from django.conf import settings
from django.db import DatabaseError, connection

from accounts import keys
from accounts.credits import known
from models_catalog import snapshot
from proxy.journal import Journal

logger = logging.getLogger(__name__)

SYNC_SECONDS = 0.05
ADOPT_SECONDS = 5.0
_LONGEST_WAIT = 3600.0  # `wait` takes no infinity


Learn = Callable[[Mapping[str, tuple[int, int]]], None]


def _to_nobody(_: Mapping[str, tuple[int, int]]) -> None:
    """Of tables that decide nothing about money."""


class Tables:
    """What a request is decided by: swapped whole, read without a lock. `loaded`: when they were last fresh.

    `learn`: who is told what the ledger says of the keys' funds. `first`: what is to be done before it is asked at all.
    """

    def __init__(self, learn: Learn = _to_nobody, first: Callable[[], object] | None = None) -> None:
        self.keys = keys.KeyTable(-1, {}, None)
        self.catalog = snapshot.EMPTY
        self.loaded = 0.0
        self._learn = learn
        self._first = first

    @property
    def age(self) -> float:
        """Seconds since the database last said that they are fresh."""
        return time.monotonic() - self.loaded

    def refresh(self) -> None:
        """Load what has changed. Raises `DatabaseError`; what was loaded before stays in force."""
        if self._first is not None:
            self._first()
            self._first = None
        if keys.version() != self.keys.version:
            table = keys.load()
            self._learn(known(table.all(), time.time()))
            self.keys = table
        if snapshot.version() != self.catalog.version:
            self.catalog = snapshot.load()
        self.loaded = time.monotonic()


Rounds = list[tuple[float, Callable[[], object]]]
"""Pieces of work, as (seconds between, function). The first round comes at once; infinity: once."""


class Background:
    """A thread that does its rounds until `stop`, and then `last`."""

    def __init__(self, name: str, rounds: Rounds, last: Callable[[], object] | None = None) -> None:
        self._troubled: Callable[[], object] | None = None
        self.trouble = ""  # why the database or the disk could not be used, for /health
        self.settled = threading.Event()  # every piece of work has been tried once
        self._rounds = rounds
        self._last = last
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait for the round that runs, and for the last piece of work."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        due = [0.0] * len(self._rounds)
        while not self._stop.is_set():
            now = time.monotonic()
            for number, (seconds, work) in enumerate(self._rounds):
                if now >= due[number]:
                    due[number] = now + seconds
                    self._do(work)
            self.settled.set()
            self._stop.wait(min(max(0.0, min(due) - time.monotonic()), _LONGEST_WAIT))
        if self._last is not None:
            self._do(self._last)
        connection.close()

    def _do(self, work: Callable[[], object]) -> None:
        """One piece of work; a database or a disk that is away is reported once and tried again."""
        try:
            work()
        except (DatabaseError, OSError) as error:
            trouble = f"{type(error).__name__}: {error}".splitlines()[0]
            if trouble != self.trouble:
                logger.error("%s: %s", getattr(work, "__qualname__", work), trouble)
            self.trouble, self._troubled = trouble, work
            connection.close()  # the next try connects anew
        except Exception as error:  # the thread must outlive a bug in one piece of work; it is logged in full
            logger.exception("background work failed")
            self.trouble, self._troubled = type(error).__name__, work
        else:
            if self.trouble and work == self._troubled:
                logger.warning("%s works again", getattr(work, "__qualname__", work))
                self.trouble = ""


def data_plane(tables: Tables, journal: Journal) -> list[Background]:
    """What keeps a process's tables fresh and its journal moving. The first says when a request can be served.

    Three threads, because none may wait for another: a revoked key stops while a long journal moves, and a line reaches
    the disk while the database does not answer.
    """
    moves: Rounds = [(settings.REFRESH_SECONDS, journal.flush), (ADOPT_SECONDS, journal.adopt)]
    return [
        Background("kodna-tables", [(settings.REFRESH_SECONDS, tables.refresh)]),
        Background("kodna-journal", moves, journal.close),
        Background("kodna-sync", [(SYNC_SECONDS, journal.sync)]),  # to be stopped before the journal is closed
    ]
