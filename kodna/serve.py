"""The servers: `python -m kodna.serve run | daphne | uvicorn`. All serve `kodna.asgi:application` on HOST and PORT.

run      what `make run` starts: sets up what is missing, then Daphne, then says where everything is
daphne   one process, on uvloop
uvicorn  WORKERS processes, for heavy traffic; more than one need PostgreSQL and Redis
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import django
import uvloop
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

BACKLOG = 4096


def main(arguments: list[str]) -> int:
    servers: dict[str, Callable[[], int]] = {"run": run, "daphne": daphne, "uvicorn": uvicorn}
    if len(arguments) != 1 or arguments[0] not in servers:
        sys.stderr.write(f"usage: python -m kodna.serve {' | '.join(servers)}\n")
        return 2
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kodna.settings")
    if arguments[0] == "run":
        os.environ.setdefault("KODNA_DEMO", "on")
    try:
        django.setup()
    except ImproperlyConfigured as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if taken := _why_taken(settings.HOST, settings.PORT):  # before `run` makes secrets that nobody would be shown
        sys.stderr.write(f"Cannot listen on {settings.HOST}:{settings.PORT}: {taken}\n")
        sys.stderr.write("Another HOST or PORT can be set in the environment.\n")
        return 1
    return servers[arguments[0]]()


def run() -> int:
    from kodna import first_run

    try:
        report = first_run.prepare()
    except OperationalError as error:
        sys.stderr.write(f"The database cannot be used: {str(error).splitlines()[0]}\n")
        return 1
    threading.Thread(target=_announce, args=[report], daemon=True).start()
    return daphne()


def _why_taken(host: str, port: int) -> str:
    """Why the address cannot be listened on; empty where it can."""
    host = host.strip("[]")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _announce(report: str) -> None:
    """Print where everything is, once the server answers."""
    url = f"http://{settings.PROVIDER_ENV['KODNA_LOOPBACK']}/health/live"
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5):
                sys.stdout.write(report)
                sys.stdout.flush()
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)


def daphne() -> int:
    if settings.WORKERS > 1:
        sys.stderr.write("Daphne runs one process: unset WORKERS, or use `python -m kodna.serve uvicorn`.\n")
        return 2
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    from kodna import daphne_server  # it makes its event loop on import
    from kodna.asgi import application

    return daphne_server.serve(application, settings.HOST, settings.PORT, BACKLOG)


def uvicorn() -> int:
    if settings.WORKERS > 1 and not (settings.REDIS_URL and _is_postgresql()):
        sys.stderr.write(
            f"WORKERS={settings.WORKERS} needs DATABASE_URL of PostgreSQL and REDIS_URL: "
            "several processes share their data and their counters there. With one worker neither is needed.\n"
        )
        return 2
    import uvicorn as server

    # uvicorn raises the signal that ended it once more: end by it in order, with what is to be done at exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server.run(
        "kodna.uvicorn_server:application",
        host=settings.HOST,
        port=settings.PORT,
        workers=settings.WORKERS,
        loop="uvloop",
        http="kodna.uvicorn_server:Protocol",
        lifespan="on",  # its end stops the background threads: a worker does nothing at exit
        access_log=False,
        log_level="warning",
        backlog=BACKLOG,
        server_header=False,
        proxy_headers=False,  # `proxy.ingress` reads them itself, from trusted proxies only
        timeout_graceful_shutdown=30,
    )
    return 0


def _is_postgresql() -> bool:
    engine: Any = settings.DATABASES["default"]["ENGINE"]
    return "postgresql" in str(engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
