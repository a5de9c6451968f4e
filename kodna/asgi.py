"""The ASGI application: the gateway's own endpoints on the raw path, Django for everything else.

Any ASGI server may run it. Importing this module starts the background thread of this process.
"""

import asyncio
import atexit
import gc
import os
from collections.abc import Awaitable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kodna.settings")

from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.asgi import get_asgi_application

_django = get_asgi_application()

from proxy import asgi, background, held, jobs, meter
from proxy.admission import Admission
from proxy.background import Background, Tables
from proxy.counters.base import RENEW_SECONDS, Store
from proxy.counters.failover import Counters, worker_name
from proxy.counters.memory import Memory
from proxy.exchange import Gateway
from proxy.journal import Journal
from proxy.status import Status
from proxy.upstream import Pool

WATCH_SECONDS = 0.25


_threads: list[Background] = []


def _start() -> asgi.Application:
    name = worker_name()

    def adopt() -> None:
        """Before a move between stores has ended, what dead processes have used must be in the ledger."""
        journal.adopt()

    def remains(process: str) -> bool:
        return journal.remains(process)

    counters = Counters(settings.REDIS_URL, name, adopt, remains) if settings.REDIS_URL else None
    store: Store = counters or Memory()
    journal = Journal(
        settings.DATA_DIR / "journal",
        store,
        rotate_at=settings.JOURNAL_BYTES,
        most=settings.JOURNAL_MAX_BYTES,
        process=name,
    )
    # What dead processes left must be in the ledger before anybody asks it what may be spent.
    tables = Tables(learn=store.learn, first=journal.adopt)
    threads = background.data_plane(tables, journal)
    # With Redis, Celery's beat has the periodic jobs: see `kodna.celery`.
    periodic: background.Rounds = [] if settings.REDIS_URL else [(jobs.TICK, jobs.run_due)]
    counting = _counting(store, counters)  # it ends last: what the journal still moves is told to it
    _threads.extend([counting, *threads, Background("kodna-jobs", [(float("inf"), meter.encoding), *periodic])])
    for thread in _threads:
        thread.start()
    atexit.register(_stop)
    threads[0].settled.wait(10)  # a request before that would find no key
    gateway = Gateway(tables, journal, Admission(store), Pool(), held.from_settings())
    return asgi.Application(
        gateway, Status(tables, journal, [counting, *threads], lambda: counters.degraded if counters else "")
    )


def _counting(store: Store, counters: Counters | None) -> Background:
    rounds: background.Rounds = [(RENEW_SECONDS, store.renew)]
    if counters is not None:
        rounds.insert(0, (WATCH_SECONDS, counters.watch))
    return Background("kodna-counters", rounds, store.close)


def _stop() -> None:
    """The last one first. A second call does nothing."""
    for thread in reversed(_threads):
        thread.stop()


_gateway = _start()


def _http(scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
    """Signature by name: Daphne calls with keywords."""
    return (_gateway if asgi.serves(scope) else _django)(scope, receive, send)


async def _websocket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """There is none yet: refuse the handshake."""
    await receive()
    await send({"type": "websocket.close", "code": 1000})


async def _lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The orderly end, for servers that tell of it: uvicorn's workers die by their signal, without what is at exit."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _gateway.close()
    await asyncio.to_thread(_stop)
    await send({"type": "lifespan.shutdown.complete"})


application = ProtocolTypeRouter({"http": _http, "websocket": _websocket, "lifespan": _lifespan})

# What is loaded by now stays: the collector need not look at it again, and less often at the rest.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 50)
