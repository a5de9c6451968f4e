"""The headers and error bodies of answers under /v1. Called by `exchange` and `asgi`."""

import math

from django.conf import settings

from proxy.errors import Refusal
from proxy.formats import openai_chat
from proxy.ingress import Scope, Send, header
from proxy.routing import Attempt

Headers = list[tuple[bytes, bytes]]

STREAM_HEADERS: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx in front must not collect the stream
]
_EXPOSED = (
    b"x-request-id, x-kodna-model, x-kodna-provider, x-kodna-alias, x-kodna-fallback, x-kodna-fallback-layer, "
    b"x-kodna-max-tokens, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"retry-after, retry-after-ms, x-should-retry, server-timing"
)
_ANYONE: Headers = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]


def common(request_id: str, scope: Scope) -> Headers:
    """On every answer."""
    return [(b"x-request-id", request_id.encode()), *cors(scope)]


def cors(scope: Scope) -> Headers:
    """Pages of `settings.CORS_ORIGINS` may read the answer; never with credentials. Only browsers send an origin."""
    origin = header(scope, b"origin")
    if not origin:
        return []
    allowed = settings.CORS_ORIGINS
    if "*" in allowed:
        return _ANYONE
    if origin.decode("latin-1") not in allowed:
        return [(b"vary", b"origin")]
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _EXPOSED),
        (b"vary", b"origin"),
    ]


def preflight(request_id: str, scope: Scope) -> Headers:
    asked = header(scope, b"access-control-request-headers") or b"authorization, content-type"
    return [
        *common(request_id, scope),
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", b"86400"),
    ]


def routed(attempt: Attempt, alias: str, max_tokens: int | None) -> Headers:
    """Who answers."""
    headers: Headers = [
        (b"x-kodna-model", _value(attempt.model.id)),
        (b"x-kodna-provider", _value(attempt.route.provider.name)),
        (b"x-kodna-fallback", b"true" if attempt.layer else b"false"),
    ]
    if alias:
        headers.append((b"x-kodna-alias", _value(alias)))
    if attempt.layer:
        headers.append((b"x-kodna-fallback-layer", b"%d" % attempt.layer))
    if max_tokens is not None:
        headers.append((b"x-kodna-max-tokens", b"%d" % max_tokens))
    return headers


def error_body(refusal: Refusal) -> bytes:
    return openai_chat.error_body(refusal.message, refusal.type, refusal.param, refusal.code)


def error_headers(refusal: Refusal) -> Headers:
    headers: Headers = [(b"content-type", b"application/json")]
    wait = refusal.retry_after
    if wait is None and refusal.status in {429, 503}:
        wait = 1.0
    if wait is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(wait))))
        headers.append((b"retry-after-ms", b"%d" % max(1, math.ceil(wait * 1000))))
    if refusal.retry is False:
        headers.append((b"x-should-retry", b"false"))
    if refusal.hangs_up:
        headers.append((b"connection", b"close"))
    return headers


def _value(text: str) -> bytes:
    """Names of the catalog may hold any letter; a header holds ASCII: the rest is percent-encoded as UTF-8."""
    if text.isascii():
        return text.encode()
    return b"".join(bytes([byte]) if byte < 128 else b"%%%02X" % byte for byte in text.encode())


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer that is not a model's."""
    length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers + length})
    await send({"type": "http.response.body", "body": body})
