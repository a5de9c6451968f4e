"""An answer's ID tells us, and nobody else, who has answered."""

import base64
import hashlib
import hmac
import string
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import request_ids
from proxy.request_ids import carrying, internal, new, route_of

BITS_32 = st.integers(0, 2**32 - 1)
URL_SAFE = string.ascii_letters + string.digits + "-_"


@given(BITS_32, BITS_32)
def test_it_works(provider_id: int, credential_id: int) -> None:
    inside = new()
    shown = carrying(inside, provider_id, credential_id)
    assert len(shown) == 57
    assert set(shown) <= set(URL_SAFE)
    assert route_of(shown) == (provider_id, credential_id)
    assert internal(shown) == inside


def test_they_sort_by_time() -> None:
    first, second = new(), new()
    assert first != second
    assert first[:16] <= second[:16]
    assert len(first) == 36


@pytest.mark.parametrize("numbers", [(2**32, 1), (1, 2**32), (-1, 1), (2**63, 2**63)])
def test_a_number_of_more_than_32_bits(numbers: tuple[int, int]) -> None:
    inside = new()
    assert carrying(inside, *numbers) == inside
    assert route_of(inside) is None


@given(st.data())
def test_one_letter_changed(data: st.DataObject) -> None:
    shown = carrying(new(), 3, 77)
    place = data.draw(st.integers(0, len(shown) - 1))
    letter = data.draw(st.sampled_from(URL_SAFE).filter(lambda letter: letter != shown[place]))
    assert route_of(shown[:place] + letter + shown[place + 1 :]) is None


@given(st.data())
def test_cut_or_longer(data: st.DataObject) -> None:
    shown = carrying(new(), 3, 77)
    length = data.draw(st.integers(0, len(shown) - 1))
    assert route_of(shown[:length]) is None
    more = data.draw(st.text(min_size=1, max_size=30))
    assert route_of(shown + more) is None
    assert route_of(more + shown) is None


@given(st.text() | st.from_regex(r"req_[0-9a-f]{32}_[A-Za-z0-9_-]{20}", fullmatch=True))
def test_what_we_have_not_signed(text: str) -> None:
    assert route_of(text) is None
    assert internal(text) in {text, text[:36]}


def test_the_end_of_another_request() -> None:
    first, second = carrying(new(), 3, 77), carrying(new(), 4, 78)
    assert route_of(first[:36] + second[36:]) is None


def forged(secret: bytes, inside: str, signed: int = 7) -> str:
    route = b"\0\0\0\3\0\0\0\x4d"
    end = route + hashlib.blake2b(inside.encode() + route, digest_size=signed, key=secret[:64]).digest()
    return f"{inside}_{base64.urlsafe_b64encode(end).decode().rstrip('=')}"


def test_another_secret(settings) -> None:
    own = hmac.digest(settings.SECRET_KEY.encode(), b"request-ids", "sha256")
    assert route_of(forged(own, new())) == (3, 77), "a secret of its own, made from Django's"
    assert route_of(forged(settings.SECRET_KEY.encode(), new())) is None
    assert route_of(forged(settings.KEY_PEPPER, new())) is None


@pytest.mark.parametrize("signed", [4, 10])
def test_another_version(settings, signed: int) -> None:
    own = hmac.digest(settings.SECRET_KEY.encode(), b"request-ids", "sha256")
    shown = forged(own, new(), signed)
    assert route_of(shown) is None
    assert internal(shown) == shown


def test_it_is_cheap() -> None:
    inside = new()
    best = min(timeit.repeat(lambda: carrying(inside, 3, 77), number=2000, repeat=5)) / 2000
    assert best < 10e-6, "2.5 µs on a quiet machine"
    endless = "req_" + "0" * 1_000_000
    assert min(timeit.repeat(lambda: request_ids.route_of(endless), number=10, repeat=3)) / 10 < 1e-3
