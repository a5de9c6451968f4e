"""Who asks, at the endpoints that Django answers: the key of a request, checked as the hot path does.

`proxy.ingress` finds keys in a table of the process, this in the database; the words and the rules are the same. A
database that is away is an error of its own (503), never a 401. Named by `settings.REST_FRAMEWORK`.
"""

import time
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request

from accounts import addresses, keys
from accounts.keys import Key
from accounts.models import ApiKey


class KeyRequest(Request):
    """A request as the views see it: `user` is None where requests without a key are allowed, and there was none."""

    auth: Key
    user: ApiKey | None  # type: ignore[assignment]


class KeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[ApiKey | None, Key]:
        """Raises `AuthenticationFailed` (401), `PermissionDenied` (403: not from this address)."""
        row, key = _find(_credential(request))
        if not key.is_active:
            raise AuthenticationFailed("This API key is switched off.")
        if key.expires and key.expires <= time.time():
            raise AuthenticationFailed("This API key has expired.")
        if key.networks and not key.admits(_address(request)):
            raise PermissionDenied("This API key may not be used from this address.", code="ip_not_allowed")
        return row, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"  # without one, DRF would make each 401 a 403


def _credential(request: Request) -> str:
    """`Authorization: Bearer`, `x-api-key` or `x-goog-api-key`."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return text.strip()
    return (request.headers.get("x-api-key") or request.headers.get("x-goog-api-key") or "").strip()


def _find(text: str) -> tuple[ApiKey | None, Key]:
    if not text:
        anonymous = keys.anonymous()
        if anonymous is None:
            raise AuthenticationFailed(
                "No API key. Send it as `Authorization: Bearer sk-kodna-…`, `x-api-key` or `x-goog-api-key`."
            )
        return None, anonymous
    if not keys.well_formed(text):
        raise AuthenticationFailed("This is not a key of this service: check that it was copied whole.")
    row = ApiKey.objects.select_related("account").filter(digest=keys.digest(text.encode())).first()
    if row is None:
        raise AuthenticationFailed("This API key is not known or was revoked.")
    return row, keys.freeze(row)


def _address(request: Request) -> str:
    peer, forwarded = request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_X_FORWARDED_FOR", "")
    return addresses.client_address(peer, forwarded)


class AnyAccept(BaseContentNegotiation):
    """JSON, whatever a client says that it accepts."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0] if parsers else None

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
