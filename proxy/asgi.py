"""The table of the gateway's own endpoints, on raw ASGI. `kodna.asgi` mounts it beside Django.

Everything under /v1 is answered here, unknown paths and wrong methods too, in OpenAI's error shape.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings

from proxy import errors, replies
from proxy.demo import demo_chat, demo_models
from proxy.exchange import Gateway, new_request_id
from proxy.ingress import Receive, Scope, Send
from proxy.listing import Listing
from proxy.relay import relay
from proxy.status import Status

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]
PREFIXES = ("/v1/", "/v1beta/", "/health", "/demo/")


class Application:
    """The ASGI callable for every path under `PREFIXES`."""

    def __init__(self, gateway: Gateway, status: Status) -> None:
        self._gateway = gateway
        listing = Listing(gateway.tables)
        self._model = listing.one
        self._table: dict[str, tuple[str, Endpoint]] = {
            "/v1/chat/completions": ("POST", self._chat),
            "/v1/models": ("GET", listing.all),
            "/health": ("GET", status.whole),
            "/health/live": ("GET", status.live),
            "/health/ready": ("GET", status.ready),
        }
        if settings.DEMO:
            self._table["/demo/v1/chat/completions"] = ("POST", demo_chat)
            self._table["/demo/v1/models"] = ("GET", demo_models)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, asked = scope["path"], scope["method"]
        listed = self._table.get(path)
        if listed is None and path.startswith("/v1/models/"):
            listed = ("GET", self._model)
        if listed is None:
            await _refuse(scope, send, errors.NotFound(f"There is nothing at {path[:200]}.", retry=False))
            return
        method, endpoint = listed
        if asked == method or (asked == "HEAD" and method == "GET"):
            await endpoint(scope, receive, send)
        elif asked == "OPTIONS":
            await replies.answer(send, 204, replies.preflight(scope), b"")
        else:
            refusal = errors.MethodNotAllowed(f"{asked} is not allowed at {path}: use {method}.", retry=False)
            await _refuse(scope, send, refusal, (b"allow", f"{method}, OPTIONS".encode()))

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        await relay(self._gateway, scope, receive, send)


async def _refuse(scope: Scope, send: Send, refusal: errors.Refusal, *more: tuple[bytes, bytes]) -> None:
    headers = [*replies.error_headers(refusal), *replies.common(new_request_id(), scope), *more]
    await replies.answer(send, refusal.status, headers, replies.error_body(refusal))


def serves(scope: dict[str, Any]) -> bool:
    return bool(scope["path"].startswith(PREFIXES))
