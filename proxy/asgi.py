"""The table of the gateway's own endpoints, on raw ASGI. `kodna.asgi` mounts it beside Django.

Each endpoint for models names its wire format and calls `relay`; what a key holder asks of the own account goes to
Django's views (`api.Handover`). Everything under /v1 and /v1beta is answered here, unknown paths and wrong methods too,
in the error shape of whoever asks there.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from django.conf import settings

from proxy import api, errors, replies, request_ids, responses
from proxy.counting import count
from proxy.demo import demo_chat, demo_models
from proxy.formats import anthropic_messages, gemini, openai_chat, openai_completions, openai_responses
from proxy.gateway import Gateway
from proxy.ingress import Asked, Receive, Scope, Send
from proxy.listing import Listing
from proxy.relay import relay
from proxy.responses import HeldResponses
from proxy.standing import StandingEndpoints
from proxy.status import Status

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]
Methods = Mapping[str, Endpoint]
PREFIXES = ("/v1/", "/v1beta/", "/health", "/demo/")
_FORMATS = {
    "/v1/chat/completions": openai_chat,
    "/v1/completions": openai_completions,
    "/v1/responses": openai_responses,
    "/v1/messages": anthropic_messages,
}
_GEMINI = ("/v1beta/models/", "/v1/models/")


class Application:
    """The ASGI callable for every path under `PREFIXES`."""

    def __init__(self, gateway: Gateway, status: Status) -> None:
        listing, standing = Listing(gateway.tables), StandingEndpoints(gateway)
        self._gateway = gateway
        self._model = listing.one
        self._responses = HeldResponses(gateway.tables, gateway.held)
        self._django = api.Handover(gateway)
        self._table: dict[str, Methods] = {
            **{path: {"POST": partial(relay, gateway, Asked(form))} for path, form in _FORMATS.items()},
            "/v1/messages/count_tokens": {"POST": partial(count, gateway, anthropic_messages, "")},
            "/v1/models": {"GET": listing.all},
            "/v1/models/uptime": {"GET": standing.uptime},
            "/v1/status": {"GET": standing.status},
            **{path: {"GET": self._django} for path in api.PATHS},
            "/health": {"GET": status.whole},
            "/health/live": {"GET": status.live},
            "/health/ready": {"GET": status.ready},
        }
        if settings.DEMO:
            self._table["/demo/v1/chat/completions"] = {"POST": demo_chat}
            self._table["/demo/v1/models"] = {"GET": demo_models}

    async def close(self) -> None:
        """At the orderly end: no request runs any more."""
        await self._gateway.pool.close()
        self._gateway.sessions.close()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path, asked = scope["path"], scope["method"]
        methods = self._table.get(path) or self._find(path, scope)
        if not methods:
            return _refuse(scope, send, errors.NotFound(f"There is nothing at {path[:200]}.", retry=False))
        endpoint = methods.get("GET" if asked == "HEAD" else asked)
        if endpoint is not None:
            return endpoint(scope, receive, send)
        if asked == "OPTIONS":
            return replies.answer(send, 204, replies.preflight(request_ids.new(), scope), b"")
        allowed = ", ".join(methods)
        refusal = errors.MethodNotAllowed(f"{asked} is not allowed at {path[:200]}: use {allowed}.", retry=False)
        return _refuse(scope, send, refusal, (b"allow", f"{allowed}, OPTIONS".encode()))

    def _find(self, path: str, scope: Scope) -> Methods:
        """Paths that hold a name."""
        if path.startswith(responses.PREFIX):
            return self._responses.at(path)
        if path.startswith(api.RECEIPTS) and path != api.RECEIPTS and "/" not in path[len(api.RECEIPTS) :]:
            return {"GET": self._django}
        if path.startswith(_GEMINI) and (found := self._of_gemini(path, scope)) is not None:
            return {"POST": found}
        return {"GET": self._model} if path.startswith("/v1/models/") else {}

    def _of_gemini(self, path: str, scope: Scope) -> Endpoint | None:
        """`…/models/{model}:{method}`; the model's ID may hold slashes and colons itself."""
        name, _, verb = path.partition("/models/")[2].rpartition(":")
        if not name:
            return None
        if verb == "generateContent":
            return partial(relay, self._gateway, Asked(gemini, name, stream=False))
        if verb == "streamGenerateContent":
            query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
            framing = "sse" if query.get("alt") == ["sse"] else "array"
            return partial(relay, self._gateway, Asked(gemini, name, stream=True, framing=framing))
        return partial(count, self._gateway, gemini, name) if verb == "countTokens" else None


async def _refuse(scope: Scope, send: Send, refusal: errors.Refusal, *more: tuple[bytes, bytes]) -> None:
    request_id, client = request_ids.new(), replies.spoken_at(scope["path"])
    headers = [*replies.error_headers(refusal), *replies.common(request_id, scope, client), *more]
    await replies.answer(send, refusal.status, headers, replies.error_body(refusal, request_id, client))


def serves(scope: dict[str, Any]) -> bool:
    path = scope["path"]
    return bool(path.startswith(PREFIXES)) or path in {"/v1", "/v1beta"}
