"""What may a request use? One decision over limits and credit together, and what every place that decides offers.

A `Store` counts requests, tokens and places, and holds credit. `memory` is one for a single process, `shared` one for
many that have a Redis, `database` keeps the holds while Redis is away; `admission` asks, on behalf of one request.

Credit is counted in whole nanodollars (1e-9 USD), rounded against the spender: exact in Lua's numbers up to 9 million
USD. The ledger, in picodollars, is the truth; a `Fund`'s amount is what the ledger says, with the number (`seq`) of the
move that made it so: of two, the later holds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from accounts.credits import Fund
from accounts.keys import Limit

HOLD_SECONDS = 90.0  # a hold and a place that nobody renews are free after this
RENEW_SECONDS = 20.0


@dataclass(slots=True)
class Wish:
    """What a request asks for. `tokens`: the estimate that limits of tokens reserve.

    `amount`: nanodollars to hold in each of `funds`; where they have less, `least` will do.
    """

    id: str
    limits: tuple[Limit, ...] = ()
    tokens: int = 0
    funds: tuple[Fund, ...] = ()
    amount: int = 0
    least: int = 0


class Left(NamedTuple):
    """What is left of a limit. `reset`: seconds until all of it is there again."""

    limit: int
    remaining: int
    reset: float


class Grant(NamedTuple):
    """`held`: nanodollars, `least` to `amount`. `spare`: what could still be held beyond it, in all funds.

    `requests`, `tokens`: of the limits per minute (else per second), the one with the least left.
    """

    held: int = 0
    spare: int = 0
    requests: Left | None = None
    tokens: Left | None = None


class LimitReached(Exception):
    """`wait`: seconds until it may pass; infinity: never, for it alone is more than the limit."""

    def __init__(self, limit: Limit, wait: float, left: Left | None = None) -> None:
        super().__init__(limit, wait)
        self.limit, self.wait, self.left = limit, wait, left


class NotAffordable(Exception):
    """`fund` has `available` nanodollars (perhaps fewer than none), and `held` more that other requests hold."""

    def __init__(self, fund: Fund, available: int, held: int) -> None:
        super().__init__(fund.name, available, held)
        self.fund, self.available, self.held = fund, available, held


class UnknownFunds(Exception):
    """Their amounts must be read from the ledger first: `learn`, then ask again."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(*names)
        self.names = names


class Unreachable(Exception):
    """Nobody can say at the moment what may be spent: neither Redis nor the database answers."""


class EpochLost(Exception):
    """The store's holds are not those of the epoch that was named: it was emptied, or others have moved on."""


class Holding(NamedTuple):
    """What a request holds in each of its funds, in nanodollars. `settled`: it will be charged so much, it stays."""

    funds: tuple[str, ...]
    amount: int
    settled: bool


Amounts = Mapping[str, tuple[int, int]]
"""Fund's name → (seq, nanodollars), as `accounts.credits` reads them."""


class Store(Protocol):
    """`admit`, `adjust`, `settle`, `forget` on the event loop; the rest from any thread.

    All are atomic, over all processes that share the store.
    """

    async def admit(self, wish: Wish, /) -> Grant:
        """Count the request, take its places, hold its credit: all of it, or nothing with the first reason.

        In the order of `limits`, then `funds`. Raises `LimitReached`, `NotAffordable`, `UnknownFunds`, `Unreachable`.
        """

    async def adjust(self, wish: Wish, /) -> Grant:
        """Make the hold of a request that was admitted `amount`, at least `least`, and count it in `limits` too.

        For more tokens of a stream (no limits), and another model's price and limits. Where it raises (as `admit`), the
        hold is what it was. A hold that has expired meanwhile is taken anew.
        """

    def settle(self, request_id: str, charge: int | None, tokens: int | None, /) -> None:
        """The end: places are free, limits of tokens count `tokens` (None: as estimated), the hold becomes `charge`.

        It then stays until its charge has landed in the ledger; None: there is no charge, it goes at once. Does not
        wait. A second call does nothing, nor one for a request that is not known.
        """

    def held(self, request_id: str, charge: int, funds: Sequence[str], /) -> None:
        """From any thread: what a dead process's request will be charged, until that lands: the hold becomes it."""

    def landed(self, request_ids: Iterable[str], amounts: Amounts, /) -> None:
        """Their charges are in the ledger: their holds go. `amounts`: what the ledger says since, of funds it knows."""

    def learn(self, amounts: Amounts, /) -> None:
        """What the ledger says: after a start, a grant, a change of a budget. Only this makes a fund known."""

    def renew(self) -> None:
        """Every `RENEW_SECONDS`: this process's requests still run. Also takes away what has expired."""

    async def left(self, limits: tuple[Limit, ...], /) -> Grant:
        """What is left, for an answer that counted nothing."""

    def close(self) -> None: ...
