"""The IDs of requests: how they are made, and how an answer's ID tells, to us alone, who has answered.

A request has one ID inside, in the journal, the ledger and the usage rows. Its answer shows it with an end that names
the provider's credential, signed: whoever sends it back as `previous_request_id` is understood by every process, also
after a restart, without a store. The end is no secret; the signature keeps clients from choosing their own routes.
Called by `exchange`, `relay`, `api`, and whatever else answers requests.
"""

import binascii
import hashlib
import hmac
import random
import re
import struct
import time

from django.conf import settings

_SECRET = hmac.digest(settings.SECRET_KEY.encode(), b"request-ids", "sha256")
_ROUTE = struct.Struct(">II")
_SIGNED = 7  # bytes of the signature: with the route 15, which base64 writes without a rest
_LONG = re.compile(r"(req_[0-9a-f]{32})_([A-Za-z0-9_-]{20})")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_random = random.Random().getrandbits  # noqa: S311  # seeded by the operating system in each process


def new() -> str:
    """Sorts by time: milliseconds, then 80 random bits. It is no secret."""
    return f"req_{time.time_ns() // 1_000_000:012x}{_random(80):020x}"


def carrying(request_id: str, provider_id: int, credential_id: int) -> str:
    """The ID that an answer of this provider's credential shows."""
    try:
        route = _ROUTE.pack(provider_id, credential_id)
    except struct.error:  # more than 32 bits: such a request cannot be gone on from
        return request_id
    end = binascii.b2a_base64(route + _signature(request_id, route), newline=False)
    return f"{request_id}_{end.translate(_URL_SAFE).decode()}"


def route_of(text: str) -> tuple[int, int] | None:
    """The numbers of the provider and its credential; None: it carries none, or not one that we have signed."""
    found = _LONG.fullmatch(text)
    if found is None:
        return None
    end = binascii.a2b_base64(found[2].encode().translate(_STANDARD))
    route = end[: _ROUTE.size]
    if not hmac.compare_digest(end[_ROUTE.size :], _signature(found[1], route)):
        return None
    provider_id, credential_id = _ROUTE.unpack(route)
    return provider_id, credential_id


def internal(text: str) -> str:
    """The ID inside of one that an answer has shown; anything else is left as it is."""
    found = _LONG.fullmatch(text)
    return found[1] if found is not None else text


def _signature(request_id: str, route: bytes) -> bytes:
    return hashlib.blake2b(request_id.encode() + route, digest_size=_SIGNED, key=_SECRET).digest()
