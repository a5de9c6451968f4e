"""Keeps the test process off the network: a connection or a look-up beyond this machine is refused, and noted.

An audit hook sees what any Python code does with sockets, and a library that swallows the refusal is still found out:
`conftest` fails the test in which it happened. Programs in C (libpq) and child processes are out of its sight.
"""

import ipaddress
import sys

attempts: list[str] = []


class NetworkRefused(OSError):
    """A test tried to leave this machine."""


def _address(host: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None: a name, which somebody would have to be asked about."""
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address("127.0.0.1" if text in {"", "None", "localhost"} else text.split("%")[0])
    except ValueError:
        return None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.sendto"}:
        target = arguments[1]
        if isinstance(target, tuple):  # else a UNIX socket's path
            address = _address(target[0])
            if address is None or not address.is_loopback:
                _refuse(f"{event} {target[0]}:{target[1]}")
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"} and _address(arguments[0]) is None:
        _refuse(f"{event} {arguments[0]!r}")


def _refuse(what: str) -> None:
    attempts.append(what)
    raise NetworkRefused(f"tests stay on this machine: {what}")


def refuse_the_rest() -> None:
    """For the whole life of the process: an audit hook cannot be taken away."""
    sys.addaudithook(_audit)
