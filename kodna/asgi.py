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

from models_catalog.tasks import discover_models
from proxy import asgi, background, held, meter
from proxy.background import Tables
from proxy.exchange import Gateway
from proxy.limits import Limiter
from proxy.status import Status
from proxy.upstream import Pool
from proxy.usage import Journal

DISCOVER_SECONDS = 30.0


_threads: list[background.Background] = []


def _start() -> asgi.Application:
    tables = Tables()
    journal = Journal(settings.DATA_DIR / "journal", settings.JOURNAL_BYTES)
    threads = background.data_plane(tables, journal)
    # With Redis, Celery's beat has the periodic jobs: see `kodna.celery`.
    periodic: background.Rounds = [] if settings.REDIS_URL else [(DISCOVER_SECONDS, discover_models)]
    jobs = background.Background("kodna-jobs", [(float("inf"), meter.encoding), *periodic])
    _threads.extend([*threads, jobs])
    for thread in _threads:
        thread.start()
    atexit.register(_stop)
    threads[0].settled.wait(10)  # a request before that would find no key
    return asgi.Application(Gateway(tables, journal, Limiter(), Pool(), held.from_settings()), Status(tables, threads))


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
    await asyncio.to_thread(_stop)
    await send({"type": "lifespan.shutdown.complete"})


application = ProtocolTypeRouter({"http": _http, "websocket": _websocket, "lifespan": _lifespan})

# What is loaded by now stays: the collector need not look at it again, and less often at the rest.
gc.collect()
gc.freeze()
gc.set_threshold(20_000, 20, 50)
