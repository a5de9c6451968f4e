"""Who asks, at the endpoints that Django answers: the key of a request, checked as the hot path does.

`proxy.ingress` finds keys in a table of the process, this in the database; words and rules are those of
`accounts.keys`. A database that is away is an error of its own (503), never a 401. Named by `settings.REST_FRAMEWORK`.
"""

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
        row, key = _find(keys.credential(request.scope["headers"]))  # type: ignore[attr-defined]
        if trouble := key.trouble():
            raise AuthenticationFailed(trouble)
        if key.networks and not key.admits(_address(request)):
            raise PermissionDenied(keys.ELSEWHERE, code="ip_not_allowed")
        return row, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"  # without one, DRF would make each 401 a 403


def _find(text: bytes) -> tuple[ApiKey | None, Key]:
    if not text:
        anonymous = keys.anonymous()
        if anonymous is None:
            raise AuthenticationFailed(keys.NO_KEY)
        return None, anonymous
    if not keys.well_formed(text.decode("latin-1")):
        raise AuthenticationFailed(keys.NOT_A_KEY)
    row = ApiKey.objects.select_related("account").filter(digest=keys.digest(text)).first()
    if row is None:
        raise AuthenticationFailed(keys.UNKNOWN)
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
