"""The console's login page: at most so many attempts a minute. `admin` puts it in place of Django's."""

import ipaddress
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django_ratelimit.core import is_ratelimited

from accounts import addresses

LOGIN_RATE = "10/m"


def caller(group: str, request: HttpRequest) -> str:
    """The client's address; of IPv6 the /64, which one person has whole. A Unix socket tells none: then all are one."""
    peer, forwarded = request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_X_FORWARDED_FOR", "")
    address = addresses.parse(addresses.client_address(peer, forwarded))
    if address is None:
        return "unknown"
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def bounded(login: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Django's login view, at most `LOGIN_RATE` attempts per address."""

    @never_cache
    @wraps(login)
    def view(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        limited = partial(is_ratelimited, group="admin-login", key=caller, rate=LOGIN_RATE, method="POST")
        if request.method == "POST" and limited(request, increment=True):
            answer = render(request, "admin/too_many_logins.html", status=429)
            answer["Retry-After"] = "60"
            return answer
        return login(request, extra_context)

    return view
