"""The headers and error bodies of answers under /v1. Called by `exchange` and `asgi`."""

import functools
import math
from datetime import UTC, datetime
from urllib.parse import quote

from django.conf import settings

from proxy.counters.base import Grant, Left
from proxy.errors import Refusal
from proxy.formats import anthropic_messages, gemini, openai_chat, openai_responses
from proxy.formats.base import Client, Error
from proxy.ingress import Scope, Send, header
from proxy.routing import Attempt

Headers = list[tuple[bytes, bytes]]

_UNBUFFERED: Headers = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx in front must not collect the stream
]
_STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), *_UNBUFFERED]
_ARRAY: Headers = [(b"content-type", b"application/json; charset=utf-8"), *_UNBUFFERED]
_LIMIT = b"x-ratelimit-limit-%b x-ratelimit-remaining-%b x-ratelimit-reset-%b".split()  # and Anthropic's
_LIMIT += b"anthropic-ratelimit-%b-limit anthropic-ratelimit-%b-remaining anthropic-ratelimit-%b-reset".split()
_REQUESTS, _TOKENS = (tuple(name % of for name in _LIMIT) for of in (b"requests", b"tokens"))
_LONGEST, _LONGEST_NAME = 1000, 100  # bytes of a header, characters of a name in it
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_IN_A_LIST = _PRINTABLE.translate({ord(sign): None for sign in " ,%"})
_EXPOSED = (
    b"x-request-id, request-id, x-kodna-model, x-kodna-provider, x-kodna-alias, x-kodna-fallback, "
    b"x-kodna-fallback-layer, x-kodna-previous, x-kodna-max-tokens, x-kodna-losses, x-ratelimit-limit-requests, "
    b"x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    b"retry-after, retry-after-ms, x-should-retry, server-timing, "
    b"anthropic-ratelimit-requests-limit, anthropic-ratelimit-requests-remaining, anthropic-ratelimit-requests-reset, "
    b"anthropic-ratelimit-tokens-limit, anthropic-ratelimit-tokens-remaining, anthropic-ratelimit-tokens-reset"
)
_ANYONE: Headers = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]


def stream_headers(framing: str) -> Headers:
    return _ARRAY if framing == "array" else _STREAM


def common(request_id: str, scope: Scope, client: Client = openai_chat) -> Headers:
    """On every answer. Anthropic's SDKs look for the request's id under its own name."""
    named = request_id.encode()
    if client is anthropic_messages:
        return [(b"x-request-id", named), (b"request-id", named), *cors(scope)]
    return [(b"x-request-id", named), *cors(scope)]


def limits(grant: Grant, client: Client, now: float) -> Headers:
    """What is left of the limits, in the client's own names too: Anthropic's tell the time of the reset."""
    headers: Headers = []
    if grant.requests is not None:
        headers += _limit(grant.requests, _REQUESTS, client, now)
    if grant.tokens is not None:
        headers += _limit(grant.tokens, _TOKENS, client, now)
    return headers


def _limit(left: Left, names: tuple[bytes, ...], client: Client, now: float) -> Headers:
    limit, remaining = b"%d" % left.limit, b"%d" % left.remaining
    reset = duration(left.reset).encode()
    headers: Headers = [(names[0], limit), (names[1], remaining), (names[2], reset)]
    if client is anthropic_messages:
        moment = datetime.fromtimestamp(math.ceil(now + left.reset), UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
        headers += [(names[3], limit), (names[4], remaining), (names[5], moment)]
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`."""
    return _duration(max(0, round(seconds * 1000)))


@functools.lru_cache(1024)
def _duration(milliseconds: int) -> str:
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{milliseconds // 60_000}m{milliseconds % 60_000 // 1000}s"


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
        (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
        (b"access-control-allow-headers", asked),
        (b"access-control-max-age", b"86400"),
    ]


def routed(attempt: Attempt, alias: str, max_tokens: int | None, previous: str = "") -> Headers:
    """Who answers. `previous`: what became of the wish for an earlier request's route: kept, moved or ignored."""
    headers: Headers = [
        (b"x-kodna-model", _value(attempt.model.id)),
        (b"x-kodna-provider", _value(attempt.route.provider.name)),
        (b"x-kodna-fallback", b"true" if attempt.layer else b"false"),
    ]
    if alias:
        headers.append((b"x-kodna-alias", _value(alias)))
    if attempt.layer:
        headers.append((b"x-kodna-fallback-layer", b"%d" % attempt.layer))
    if previous:
        headers.append((b"x-kodna-previous", previous.encode()))
    if max_tokens is not None:
        headers.append((b"x-kodna-max-tokens", b"%d" % max_tokens))
    return headers


def losses(names: list[str]) -> Headers:
    """What the formats could not say to each other. A client may have made the names up."""
    if not names:
        return []
    value, more = b"", b", ..."
    for name in names:
        part = quote(name[:_LONGEST_NAME], safe=_IN_A_LIST, errors="surrogatepass").encode()
        if len(value) + len(part) > _LONGEST:
            value += more
            break
        value += b", " + part if value else part
    return [(b"x-kodna-losses", value)]


def spoken_at(path: str) -> Client:
    """The format of whoever asks at this path, for errors that come before anything else is known."""
    if path.startswith("/v1/messages"):
        return anthropic_messages
    if path.startswith("/v1beta") or path.endswith((":generateContent", ":streamGenerateContent", ":countTokens")):
        return gemini
    return openai_responses if path.startswith("/v1/responses") else openai_chat


def error(refusal: Refusal, request_id: str) -> Error:
    named = refusal.type, refusal.code, refusal.param
    return Error(refusal.status, refusal.message, *named, request_id, refusal.retry_after)


def error_body(refusal: Refusal, request_id: str = "", client: Client = openai_chat) -> bytes:
    return client.error_body(error(refusal, request_id))


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


def whole(refusal: Refusal, request_id: str, path: str) -> bytes:
    """The answer on the wire, for servers that refuse before the application knows of the request."""
    client = spoken_at(path)
    body = error_body(refusal, request_id, client)
    headers = [
        *error_headers(refusal),
        (b"x-request-id", request_id.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    lines = b"".join(b"%s: %s\r\n" % pair for pair in headers)
    return b"HTTP/1.1 %d Refused\r\n%s\r\n%s" % (refusal.status, lines, body)


def _value(text: str) -> bytes:
    """Names of the catalog may hold any letter, a header printable ASCII: the rest is percent-encoded as UTF-8."""
    if text.isascii() and text.isprintable():
        return text.encode()
    return quote(text, safe=_PRINTABLE, errors="surrogatepass").encode()


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer that is not a model's."""
    length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers + length})
    await send({"type": "http.response.body", "body": body})
