"""The ledger: the only module that moves a balance. Callers: the admin, `manage.py credits`, and `proxy`.

A balance is the sum of its entries, and a key's spending the sum of its charges; both are kept beside the entries and
moved in the same transaction, so that they can be read at once and audited. Amounts: picodollars in the ledger,
nanodollars (rounded against the spender) in a `Fund`.
"""

import functools
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from accounts.keys import Key
from accounts.models import Account, LedgerEntry

DAY = 86400


class Fund(NamedTuple):
    """What a request is paid from: an account (`a3`), or a key's budget in a period (`k7:month:2026-11-01`).

    `room`: nanodollars that may be spent beyond the fund's amount: an account's ceiling, a key's budget.
    """

    name: str
    room: int


def funds_of(key: Key, now: float) -> tuple[Fund, ...]:
    """Of what a request at this moment (seconds since the epoch) is paid; empty: of nothing that could run out."""
    if key.billing == "unmetered":
        return () if key.budget is None else (_budget(key.id, key.period, int(now // DAY), key.budget),)
    account = Fund(f"a{key.account_id}", key.ceiling if key.billing == "postpaid" else 0)
    if key.budget is None:
        return (account,)
    return account, _budget(key.id, key.period, int(now // DAY), key.budget)


@functools.lru_cache(10_000)
def _budget(key_id: int, period: str, day: int, budget: int) -> Fund:
    if period == "total":
        return Fund(f"k{key_id}:total", budget)
    begun = begin(period, datetime.fromtimestamp(day * DAY, UTC).date())
    return Fund(f"k{key_id}:{period}:{begun}", budget)


def begin(period: str, day: date) -> date:
    """The first day of the period (UTC)."""
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


class Charge(NamedTuple):
    """What a request cost, in picodollars. `metered`: it goes to the account's balance, not only to the key's sums."""

    request_id: str
    account_id: int
    key_id: int  # 0: none
    amount: int
    created: float  # seconds since the epoch
    metered: bool


def grant(account: Account, amount: Decimal, note: str = "", by: str = "") -> LedgerEntry:
    """Add to (or, negative, take from) an account's balance. Raises `ValidationError`."""
    raise NotImplementedError


def charge(charges: Sequence[Charge], funds: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Enter charges that are not entered yet; inside the caller's transaction. Returns these funds as `read` does."""
    raise NotImplementedError


def read(funds: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Each fund's (seq, amount in nanodollars) by the ledger: a balance, or what a key has spent, negative."""
    raise NotImplementedError


class Difference(NamedTuple):
    """A sum that is kept and the sum of the entries, in USD."""

    subject: str
    kept: Decimal
    entries: Decimal


def audit() -> list[Difference]:
    """Recompute every balance from its entries."""
    raise NotImplementedError
