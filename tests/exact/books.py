"""What the installation wrote, read past its own code: plain SQL on its tables. Money: whole picodollars."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.rows import dict_row

PICODOLLARS = 10**12


@dataclass(frozen=True)
class Row:
    """A row of `UsageRecord`, as far as the proofs look at it. `marker`: the client's, from its user agent."""

    marker: str
    request_id: str
    created: float
    key_id: int
    account_id: int
    model: str
    upstream_model: str
    provider: str
    alias: str
    status: int
    outcome: str
    error_code: str
    streamed: bool
    prompt: int
    completion: int
    cached: int
    written: int
    estimated: bool
    cost: int | None
    shortfall: int
    held: int | None
    metered: bool
    price: dict[str, Any] | None

    @property
    def worth(self) -> int | None:
        """What its tokens cost at its own price, worked out anew."""
        if self.price is None or self.price.get("input") is None or self.price.get("output") is None:
            return None
        plain = Fraction(str(self.price["input"])) * 10**6  # picodollars a token
        said = Fraction(str(self.price["output"])) * 10**6
        cached_input, cache_write = (
            plain if self.price.get(name) is None else Fraction(str(self.price[name])) * 10**6
            for name in ("cached_input", "cache_write")
        )
        cached = min(self.cached, self.prompt)
        written = min(self.written, self.prompt - cached)
        fresh = self.prompt - cached - written
        total = fresh * plain + cached * cached_input + written * cache_write + self.completion * said
        assert total.denominator == 1, total
        return int(total)


class Books:
    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        if self._url.startswith("sqlite:///"):
            path = quote(self._url.removeprefix("sqlite:///"))
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
            connection.row_factory = sqlite3.Row
            try:
                yield connection
            finally:
                connection.close()
        else:
            with psycopg.connect(self._url, row_factory=dict_row) as found:
                yield found

    def select(self, *statements: str) -> list[list[dict[str, Any]]]:
        """All of them at one moment: in one transaction."""
        with self._connection() as connection:
            snapshot = "BEGIN" if self._url.startswith("sqlite") else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
            connection.execute(snapshot)
            return [[dict(row) for row in connection.execute(text).fetchall()] for text in statements]

    def rows(self) -> list[Row]:
        (found,) = self.select("SELECT * FROM proxy_usagerecord ORDER BY id")
        return [_row(row) for row in found]

    def spent(self, account_id: int) -> int:
        """By the ledger's entries, so far."""
        query = (
            f"SELECT sum(amount) AS s FROM accounts_ledgerentry WHERE kind = 'charge' AND account_id = {account_id:d}"
        )
        ((row,),) = self.select(query)
        return -int(row["s"] or 0)

    def spent_by_key(self, key_id: int) -> int:
        ((row,),) = self.select(f"SELECT sum(cost) AS s FROM proxy_usagerecord WHERE key_id = {key_id:d}")
        return int(row["s"] or 0)


def _row(row: dict[str, Any]) -> Row:
    price = row["price"]
    return Row(
        marker=row["client"],
        request_id=row["request_id"],
        created=moment(row["created_at"]).timestamp(),
        key_id=row["key_id"] or 0,
        account_id=row["account_id"] or 0,
        model=row["model"],
        upstream_model=row["upstream_model"],
        provider=row["provider"],
        alias=row["alias"],
        status=row["status"],
        outcome=row["outcome"],
        error_code=row["error_code"],
        streamed=bool(row["streamed"]),
        prompt=row["prompt_tokens"],
        completion=row["completion_tokens"],
        cached=row["cached_tokens"],
        written=row["cache_write_tokens"],
        estimated=bool(row["estimated"]),
        cost=row["cost"] if row["cost"] is None else int(row["cost"]),
        shortfall=int(row["shortfall"]),
        held=row["held"] if row["held"] is None else int(row["held"]),
        metered=bool(row["metered"]),
        price=json.loads(price) if isinstance(price, str) else price,
    )


def moment(value: Any) -> datetime:
    """A column of time, of either database."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value).replace(tzinfo=UTC)


def usd(picodollars: int) -> str:
    return (
        f"{picodollars // PICODOLLARS}.{picodollars % PICODOLLARS:012d}"
        if picodollars >= 0
        else f"-{usd(-picodollars)}"
    )
