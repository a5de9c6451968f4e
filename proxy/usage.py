"""Rows of usage: what the journal's lines are made of, and how they get into the database.

A row, its part of the sums and of the uptime, and its charge are stored in one transaction, keyed by request id, so
that a replay changes nothing. Called by `journal`; `exchange` fills the records.
"""

import functools
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

import msgspec
from django.db import DataError, IntegrityError, transaction

from accounts import bulk, credits, keys
from accounts.credits import Charge
from accounts.usd import PICO, usd
from proxy import rollups, uptime
from proxy.counters import database
from proxy.counters.base import Amounts, Store
from proxy.models import UsageRecord

logger = logging.getLogger(__name__)

MOST_LOSSES = 1000  # characters: some of the names are fields that a client has made up
_MOST = 2**31 - 1  # that an integer column holds
# That this row can never be stored: an overflow in Python's adapters, a value that the column does not take.
_REFUSED = (DataError, IntegrityError, ValueError, OverflowError, ArithmeticError, msgspec.MsgspecError)


class Attempt(msgspec.Struct, omit_defaults=True):
    """One try at one provider. `reason` as in `ProviderFault`; empty: it answered. `at`, `ms`: when, how long.

    `credential`: its name, where the provider has several. `of`: the catalog's model, where it is not the row's.
    """

    provider: str
    model: str
    ms: float = 0.0
    status: int = 0
    reason: str = ""
    at: float = 0.0
    credential: str = ""
    of: str = ""


class Record(msgspec.Struct, omit_defaults=True):
    """A line of the journal: `UsageRecord`'s columns. `created` in seconds since the epoch.

    `cost`, `shortfall`: picodollars; `held`: nanodollars; `price`: picodollars per token of input, output, cached input
    and cache writes. `funds`: names of those it is paid from. `losses` as `listed` writes them. `opened`: the slot of
    the request's mark, in lines that open it only; 0: it has none.
    """

    request_id: str
    created: float
    status: int = 0
    outcome: str = UsageRecord.Outcome.REFUSED.value
    endpoint: str = "chat"
    key_id: int | None = None
    key_prefix: str = ""
    key_name: str = ""
    account_id: int | None = None
    account: str = ""
    requested_model: str = ""
    alias: str = ""
    model: str = ""
    provider: str = ""
    upstream_model: str = ""
    provider_format: str = ""
    losses: str = ""
    error_code: str = ""
    streamed: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    cost: int | None = None
    shortfall: int = 0
    held: int | None = None
    metered: bool = False
    price: tuple[int | None, ...] | None = None
    funds: tuple[str, ...] = ()
    opened: int | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0
    client: str = ""
    attempts: list[Attempt] = []


class Line(Record, omit_defaults=True, gc=False):
    """A record read back: what is not looked at stays as it is. It is in no cycle, which spares the collector."""

    attempts: msgspec.Raw = msgspec.Raw(b"[]")  # type: ignore[assignment]


def listed(losses: Iterable[str]) -> str:
    """The names of losses between commas; where they are too many for a row, as many as it has room for, and “…”."""
    text = ",".join(losses).encode(errors="replace").decode()  # half a surrogate pair is no text for the journal
    if len(text) <= MOST_LOSSES:
        return text
    whole = text[: MOST_LOSSES - 1].rpartition(",")[0]
    return f"{whole},…" if whole else f"{text[: MOST_LOSSES - 1]}…"


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Line).decode
# In a line that opens a request, and in no other: inside a JSON string, whoever wrote it, a quote follows a backslash.
OPENS = b',"opened":'

_TABLE = UsageRecord._meta.db_table  # noqa: SLF001
_COLUMNS = {  # and PostgreSQL's types
    "request_id": "text",
    "created_at": "timestamptz",
    "endpoint": "text",
    "key_id": "bigint",
    "key_prefix": "text",
    "key_name": "text",
    "account_id": "bigint",
    "account": "text",
    "requested_model": "text",
    "alias": "text",
    "model": "text",
    "provider": "text",
    "upstream_model": "text",
    "provider_format": "text",
    "losses": "text",
    "status": "bigint",
    "error_code": "text",
    "outcome": "text",
    "streamed": "boolean",
    "prompt_tokens": "bigint",
    "completion_tokens": "bigint",
    "cached_tokens": "bigint",
    "cache_write_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "estimated": "boolean",
    "cost": "bigint",
    "shortfall": "bigint",
    "held": "bigint",
    "metered": "boolean",
    "price": "jsonb",
    "first_token_ms": "float8",
    "total_ms": "float8",
    "attempts": "jsonb",
    "client": "text",
}
_SUMMED, _TRIED = (
    itemgetter(*(list(_COLUMNS).index(name) for name in names)) for names in (rollups.COLUMNS, uptime.COLUMNS)
)


def land(records: Sequence[Record], counters: Store) -> None:
    """Store rows, and tell the counters. One that the database refuses holds up neither the others nor its credit."""
    if not records:
        return
    amounts: Amounts = {}
    funded = [record.request_id for record in records if record.funds]
    try:
        amounts = store(records)
    except _REFUSED as error:
        if len(records) > 1:
            middle = len(records) // 2
            land(records[:middle], counters)
            land(records[middle:], counters)
            return
        logger.critical("a usage row was refused by the database: %s: %s", error, encode(records[0]).decode())
        database.release(funded)
    if funded:
        counters.landed(funded, amounts)


def store(records: Sequence[Record]) -> Amounts:
    """Insert rows that are not there yet, with their sums and charges, and note when keys were used.

    In one transaction, which takes its locks in the same order in every process. Returns what the ledger then says of
    their funds.
    """
    wanted = {record.request_id: record for record in reversed(records)}  # of two, the first counts
    wanted = dict(sorted(wanted.items()))
    rows = list(map(_row, wanted.values()))
    funded = [request_id for request_id, record in wanted.items() if record.funds]
    funds = sorted({name for names in {record.funds for record in wanted.values()} for name in names})
    with transaction.atomic():
        new = bulk.insert_new(_TABLE, _COLUMNS, rows)
        rollups.add(_SUMMED(row) for row in rows if row[0] in new)
        uptime.add(_TRIED(row) for row in rows if row[0] in new)
        charges = [charge for each in wanted.values() if each.request_id in new and (charge := _charge(each))]
        amounts = credits.charge(charges, funds)
        keys.touch(_used(records))
        if funded:
            database.release(funded)
    return amounts


def _used(records: Sequence[Record]) -> dict[int, datetime]:
    used = {record.key_id: record.created for record in records if record.key_id}
    return {key_id: datetime.fromtimestamp(used[key_id], UTC) for key_id in sorted(used)}


def _charge(record: Record) -> Charge | None:
    """Of a request that cost something, and has somebody to pay or a key to count for."""
    if not record.cost or not (record.metered or record.key_id):
        return None
    account_id, key_id = record.account_id or 0, record.key_id or 0
    return Charge(record.request_id, account_id, key_id, record.cost, record.created, record.metered)


def _row(record: Record) -> tuple[Any, ...]:
    """The row's values, in the order of `_COLUMNS`, as databases take them."""
    return (
        record.request_id,
        bulk.moment(record.created),
        record.endpoint,
        record.key_id,
        record.key_prefix,
        record.key_name,
        record.account_id,
        record.account,
        _text(record.requested_model),
        record.alias,
        record.model,
        record.provider,
        record.upstream_model,
        record.provider_format,
        _text(record.losses),
        record.status,
        _text(record.error_code),
        record.outcome,
        record.streamed,
        min(record.prompt_tokens, _MOST),
        min(record.completion_tokens, _MOST),
        min(record.cached_tokens, _MOST),
        min(record.cache_write_tokens, _MOST),
        min(record.reasoning_tokens, _MOST),
        record.estimated,
        record.cost,
        record.shortfall,
        None if record.held is None else record.held * PICO,
        record.metered,
        record.price and _price(record.price),
        record.first_token_ms,
        record.total_ms,
        encode(record.attempts).decode(),
        _text(record.client),
    )


@functools.lru_cache(1000)
def _price(price: tuple[int | None, ...]) -> str:
    """As a row keeps it: exact, in USD per million tokens."""
    names = ("input", "output", "cached_input", "cache_write")
    known = {name: str(usd(each * 10**6)) for name, each in zip(names, price, strict=True) if each is not None}
    return encode(known).decode()


def _text(words: str) -> str:
    """What strangers wrote: PostgreSQL takes no NUL."""
    return words.replace("\x00", "\ufffd")
