"""The table of the gateway's own endpoints, on raw ASGI. `kodna.asgi` mounts it beside Django.

Everything under /v1 is answered here, unknown paths and wrong methods too, in OpenAI's error shape.
"""

from collections.abc import Awaitable, Callable
from functools import partial
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
        listing = Listing(gateway.tables)
        self._model = listing.one
        self._table: dict[str, tuple[str, Endpoint]] = {
            "/v1/chat/completions": ("POST", partial(relay, gateway)),
            "/v1/models": ("GET", listing.all),
            "/health": ("GET", status.whole),
            "/health/live": ("GET", status.live),
            "/health/ready": ("GET", status.ready),
        }
        if settings.DEMO:
            self._table["/demo/v1/chat/completions"] = ("POST", demo_chat)
            self._table["/demo/v1/models"] = ("GET", demo_models)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path, asked = scope["path"], scope["method"]
        listed = self._table.get(path)
        if listed is None and path.startswith("/v1/models/"):
            listed = ("GET", self._model)
        if listed is None:
            return _refuse(scope, send, errors.NotFound(f"There is nothing at {path[:200]}.", retry=False))
        method, endpoint = listed
        if asked == method or (asked == "HEAD" and method == "GET"):
            return endpoint(scope, receive, send)
        if asked == "OPTIONS":
            return replies.answer(send, 204, replies.preflight(new_request_id(), scope), b"")
        refusal = errors.MethodNotAllowed(f"{asked} is not allowed at {path[:200]}: use {method}.", retry=False)
        return _refuse(scope, send, refusal, (b"allow", f"{method}, OPTIONS".encode()))


async def _refuse(scope: Scope, send: Send, refusal: errors.Refusal, *more: tuple[bytes, bytes]) -> None:
    headers = [*replies.error_headers(refusal), *replies.common(new_request_id(), scope), *more]
    await replies.answer(send, refusal.status, headers, replies.error_body(refusal))


def serves(scope: dict[str, Any]) -> bool:
    path = scope["path"]
    return bool(path.startswith(PREFIXES)) or path == "/v1"
