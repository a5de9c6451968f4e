"""`/health`, `/health/live`, `/health/ready`: whether this process can serve. No key, no database. Called by `asgi`."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from django.conf import settings

from proxy import replies, request_ids
from proxy.background import Background, Tables
from proxy.ingress import Receive, Scope, Send
from proxy.journal import Journal


class Status:
    """`degraded`: why the counters are not where they should be; empty: they are."""

    def __init__(
        self, tables: Tables, journal: Journal, threads: Sequence[Background], degraded: Callable[[], str]
    ) -> None:
        self._tables = tables
        self._journal = journal
        self._threads = threads
        self._degraded = degraded

    async def whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = {"config": self._config(), "models": self._models(), "usage": self._usage()}
        states = {service["status"] for service in services.values()}
        status = next(word for word in ("unhealthy", "degraded", "healthy") if word in states)
        body = {"status": status, "services": services, "version": settings.VERSION}
        await _answer(scope, send, 503 if status == "unhealthy" else 200, body)

    async def live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The process runs: restart it if this does not answer."""
        await _answer(scope, send, 200, {"status": "live"})

    async def ready(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keys and catalog are loaded: requests may be sent here. A database that goes away later changes nothing."""
        ready = bool(self._tables.loaded)
        await _answer(scope, send, 200 if ready else 503, {"status": "ready" if ready else "starting"})

    def _config(self) -> dict[str, str]:
        if not self._tables.loaded:
            return _service("config", "unhealthy", "keys and catalog are not loaded yet")
        if any(thread.trouble for thread in self._threads):
            return _service("config", "degraded", "the database or the disk is away: known keys and models work on")
        return _service("config", "healthy", "keys and catalog are up to date")

    def _usage(self) -> dict[str, str]:
        if self._journal.failing:
            return _service("usage", "unhealthy", "usage cannot be recorded: requests are refused")
        if why := self._degraded():
            return _service("usage", "degraded", why)
        return _service("usage", "healthy", "limits, credit and usage are exact")

    def _models(self) -> dict[str, str]:
        catalog = self._tables.catalog
        live = sum(1 for model in catalog.models.values() if model.routes)
        message = f"{live} of {len(catalog.models)} models have a provider"
        return _service("models", "healthy" if live else "degraded", message)


def _service(name: str, status: str, message: str) -> dict[str, str]:
    return {"name": name, "status": status, "message": message}


async def _answer(scope: Scope, send: Send, status: int, body: Mapping[str, object]) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        *replies.common(request_ids.new(), scope),
    ]
    await replies.answer(send, status, headers, msgspec.json.encode(body))
