"""The ASGI application: the gateway's own endpoints on the raw path, Django for everything else.

Any ASGI server may run it. Importing this module starts the background threads of this process.
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

from models_catalog import discovery
from models_catalog.snapshot import Provider, Snapshot
from proxy import asgi, background, held, jobs, meter, troubles
from proxy.admission import Admission
from proxy.background import Background, Tables
from proxy.counters.base import RENEW_SECONDS, Store
from proxy.counters.failover import Counters, worker_name
from proxy.counters.memory import Memory
from proxy.gateway import Gateway
from proxy.health import Health
from proxy.journal import Journal
from proxy.probes import Probes
from proxy.sessions import Sessions
from proxy.status import Status
from proxy.troubles import Troubles
from proxy.upstream import Pool

WATCH_SECONDS = 0.25
SHARE_SECONDS = 0.5


_threads: list[Background] = []


def _start() -> tuple[Gateway, asgi.Application]:
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
    work = Background("kodna-jobs", [(float("inf"), meter.encoding), *periodic])
    health = Health(settings.REDIS_URL, lambda: tables.catalog, circuits=settings.CIRCUITS)
    _threads.extend([counting, *threads, work, *_health(health, tables)])
    for thread in _threads:
        thread.start()
    atexit.register(_stop)
    threads[0].settled.wait(10)  # a request before that would find no key
    sessions = Sessions(settings.REDIS_URL)
    gateway = Gateway(tables, journal, Admission(store), Pool(), held.from_settings(), health, sessions)
    status = Status(tables, journal, [counting, *threads], lambda: counters.degraded if counters else "")
    return gateway, asgi.Application(gateway, status)


def _counting(store: Store, counters: Counters | None) -> Background:
    rounds: background.Rounds = [(RENEW_SECONDS, store.renew)]
    if counters is not None:
        rounds.insert(0, (WATCH_SECONDS, counters.watch))
    return Background("kodna-counters", rounds, store.close)


def _health(health: Health, tables: Tables) -> list[Background]:
    """One shares what is known with the other processes, one writes it down for people; the probes find out more."""

    def catalog() -> Snapshot:
        return tables.catalog

    if settings.CIRCUITS and settings.PROBE_SECONDS:
        # Nobody waits for its end: it may be waiting for a provider that is silent.
        Background("kodna-probes", [(settings.PROBE_SECONDS, Probes(health, catalog, _ask).round)]).start()
    return [
        Background("kodna-health", [(SHARE_SECONDS, health.share)], health.close),
        Background("kodna-troubles", [(troubles.SECONDS, Troubles(health, catalog).write)]),
    ]


def _ask(provider: Provider) -> int:
    """For its list of models: the status of the answer; 0: there was none."""
    try:
        discovery.list_models(provider)
    except discovery.ProbeError as fault:
        return fault.status
    return 200


def _stop() -> None:
    """The last one first. A second call does nothing."""
    for thread in reversed(_threads):
        thread.stop()


_gateway, _application = _start()


def _http(scope: dict[str, Any], receive: Any, send: Any) -> Awaitable[None]:
    """Signature by name: Daphne calls with keywords."""
    if asgi.serves(scope):
        return _application(scope, receive, send)
    return _django({**scope, "kodna.gateway": _gateway}, receive, send)  # for pages that show what this process knows


async def _websocket(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """There is none yet: refuse the handshake."""
    await receive()
    await send({"type": "websocket.close", "code": 1000})


async def _lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The orderly end, for servers that tell of it: uvicorn's workers die by their signal, without what is at exit."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _application.close()
    await asyncio.to_thread(_stop)
    await send({"type": "lifespan.shutdown.complete"})


application = ProtocolTypeRouter({"http": _http, "websocket": _websocket, "lifespan": _lifespan})

# What is loaded by now stays: the collector need not look at it again, and less often at the rest.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 50)
