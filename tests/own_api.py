"""What key holders ask of their own account, in the test's own process: from the ASGI scope through Django and back."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from asgiref.sync import async_to_sync
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.utils import timezone

from accounts import keys
from accounts.models import Account, ApiKey
from proxy.admission import Admission
from proxy.api import Handover
from proxy.counters.memory import Memory
from proxy.models import UsageRecord
from tests.proxy.inside import Answer


class Gateway:
    """The part of one that the views ask."""

    def __init__(self) -> None:
        self.admission = Admission(Memory())


def new_key(account: str = "acme", **fields: object) -> tuple[ApiKey, str]:
    owner, _ = Account.objects.get_or_create(name=account)
    return keys.issue(owner, **fields)


def ask(
    path: str,
    text: str = "",
    /,
    *,
    headers: Mapping[str, str] | None = None,
    client: str = "127.0.0.1",
    gateway: Any = None,
    body: Sequence[bytes] = (b"",),
    lines: Sequence[tuple[str, str]] = (),
    **query: str,
) -> Answer:
    """GET, with a key as a bearer's. `lines`: more headers, also of a name that is there already."""
    sent = {"host": "what.ever", **({"authorization": f"Bearer {text}"} if text else {}), **(headers or {})}
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": urlencode(query).encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in (*sent.items(), *lines)],
        "client": (client, 5),
    }
    with connections_kept():
        return async_to_sync(carry)(Handover(gateway or Gateway()), scope, body)


async def carry(handover: Handover, scope: Mapping[str, Any], body: Sequence[bytes] = (b"",)) -> Answer:
    answer, pieces = Answer(), list(body)

    async def receive() -> Mapping[str, Any]:
        if not pieces:
            await asyncio.Future()  # the client stays
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): text.decode() for name, text in message["headers"]}
        else:
            answer.pieces.append(message["body"])

    await handover(scope, receive, send)
    return answer


@contextmanager
def connections_kept() -> Iterator[None]:
    """As Django's own test client has it: the test's transaction must not be closed with the request."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    try:
        yield
    finally:
        for signal in signals:
            signal.connect(close_old_connections)


def request_id(moment: float = 0, number: int = 1) -> str:
    return f"req_{int(moment * 1000):012x}{number:020x}"


def row(key: ApiKey, **fields: object) -> UsageRecord:
    """Of a request that this key made long ago."""
    values = {
        "request_id": request_id(),
        "created_at": timezone.now(),
        "key_id": key.pk,
        "key_prefix": key.prefix,
        "account_id": key.account_id,
        "account": key.account.name,
        "status": 200,
        "outcome": "complete",
    }
    return UsageRecord.objects.create(**{**values, **fields})
