"""Whose address counts: the connection's, or the one that a trusted proxy names."""

from ipaddress import ip_network

import pytest
from pytest_django import Settings

from accounts import addresses


@pytest.fixture(autouse=True)
def _trusted(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = [ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"), ip_network("2001:db8:9::/48")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "198.51.100.7, 192.0.2.1, 10.1.1.1", "192.0.2.1"),  # who comes first is the client's own word
        ("127.0.0.1", "192.0.2.1:4711, 10.1.1.1:80", "192.0.2.1"),
        ("127.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1],[2001:db8:9::2]", "2001:db8::1"),
        ("::ffff:127.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "unknown", "unknown"),
        ("127.0.0.1", " , ,", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("", "192.0.2.1", ""),  # a Unix socket
        ("192.0.2.9", "10.1.1.1", "192.0.2.9"),
        ("::ffff:192.0.2.9", "", "192.0.2.9"),
    ],
)
def test_it_works(peer: str, forwarded: str, client: str) -> None:
    assert addresses.client_address(peer, forwarded) == client


def test_nobody_is_trusted_by_default(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = []
    assert addresses.client_address("127.0.0.1", "192.0.2.1") == "127.0.0.1"


@pytest.mark.parametrize("text", ["", "x", "1.2.3", "1.2.3.4.5:6", "[", "[]", "::ffff:1.2.3.4:5:6"])
def test_what_is_no_address(text: str) -> None:
    assert addresses.parse(text) is None
