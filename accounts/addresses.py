"""Where a request comes from: the connection's own address, or what a trusted proxy says in `x-forwarded-for`.

One rule for both doors: `proxy.ingress` asks for API requests, `accounts.admin` for the login page.
"""

import ipaddress

from django.conf import settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(peer: str, forwarded: str) -> str:
    """The client's IP address, in its plain form where it is one. `forwarded`: all lines of the header, as one list."""
    hops = [hop.strip() for hop in forwarded.split(",") if hop.strip()]
    while is_trusted(peer) and hops:
        peer = hops.pop()
    address = parse(peer)
    return str(address) if address else peer


def is_trusted(text: str) -> bool:
    """Whether this is the address of a proxy of `settings.TRUSTED_PROXIES`."""
    if not settings.TRUSTED_PROXIES:
        return False
    address = parse(text)
    return address is not None and any(address in network for network in settings.TRUSTED_PROXIES)


def parse(text: str) -> Address | None:
    """An IP address, with or without a port; None for anything else. IPv4 in an IPv6 socket's form is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
