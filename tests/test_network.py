"""The guard refuses what would leave the machine, and only that."""

import asyncio
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests import network
from tests.network import NetworkRefused
from tests.upstreams import Upstream

ELSEWHERE = ("192.0.2.1", 80)  # RFC 5737: an address for documentation


@pytest.fixture(autouse=True)
def _forgive() -> Iterator[None]:
    """These tests try on purpose."""
    yield
    network.attempts.clear()


def test_it_works(upstream: Upstream) -> None:
    assert httpx.get(upstream.base_url).status_code == 200
    assert socket.getaddrinfo("localhost", 80)
    assert network.attempts == []


def test_an_address_elsewhere() -> None:
    with pytest.raises(NetworkRefused):
        socket.create_connection(ELSEWHERE, timeout=1)
    assert network.attempts == ["socket.connect 192.0.2.1:80"]


def test_a_name_elsewhere() -> None:
    with pytest.raises(NetworkRefused):
        socket.create_connection(("example.com", 80), timeout=1)
    assert network.attempts == ["socket.getaddrinfo 'example.com'"]


def test_on_an_event_loop() -> None:
    async def connect() -> None:
        await asyncio.open_connection(*ELSEWHERE)

    with pytest.raises(NetworkRefused):
        asyncio.run(connect())


def test_a_datagram() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sender, pytest.raises(NetworkRefused):
        sender.sendto(b"", ELSEWHERE)


def test_what_a_library_swallows_is_noted() -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://example.com/")
    assert network.attempts
