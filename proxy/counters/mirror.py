"""What the requests of one process hold, until their charges have landed. Caller: `failover`.

After a move, a store is made anew of all processes' mirrors.
"""

import threading
from collections.abc import Iterable, Sequence

from proxy.counters.base import Amounts, Holding, Wish
from proxy.counters.database import Holds
from proxy.counters.shared import Shared

Keeper = Shared | Holds


class Mirror:
    """`direct`: the store that knows all of it; what changes is to be told there too. None: that is `tell`'s part."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holds: dict[str, Holding] = {}
        self._untold: set[str] = set()
        self._amounts: dict[str, tuple[int, int]] = {}
        self.direct: Keeper | None = None

    def hold(self, wish: Wish, amount: int) -> None:
        """As the store has just granted."""
        with self._lock:
            found = self._holds.get(wish.id)
            if found is None or not found.settled:
                self._holds[wish.id] = Holding(tuple(fund.name for fund in wish.funds), amount, settled=False)

    def settle(self, request_id: str, charge: int | None) -> None:
        with self._lock:
            found = self._holds.get(request_id)
            if found is None or found.settled:  # it holds nothing, or the charge has landed already
                return
            if charge:
                self._holds[request_id] = Holding(found.funds, charge, settled=True)
            else:
                del self._holds[request_id]
            self._note([request_id])

    # These two return `direct`.

    def held(self, request_id: str, charge: int, funds: Sequence[str]) -> Keeper | None:
        with self._lock:
            self._holds[request_id] = Holding(tuple(funds), charge, settled=True)
            return self._note([request_id])

    def landed(self, request_ids: Iterable[str], amounts: Amounts) -> Keeper | None:
        with self._lock:
            for request_id in request_ids:
                self._holds.pop(request_id, None)
            return self._note(request_ids, amounts)

    def _note(self, request_ids: Iterable[str], amounts: Amounts | None = None) -> Keeper | None:
        if self.direct is None:
            self._untold.update(request_ids)
            for name, found in (amounts or {}).items():
                self._amounts[name] = max(found, self._amounts.get(name, found))
        return self.direct

    def missed(self, request_ids: Iterable[str] = (), amounts: Amounts | None = None) -> None:
        """The store could not be told of these, and perhaps not of others."""
        with self._lock:
            self.direct = None
            self._note(request_ids, amounts)

    def tell(self, store: Keeper) -> None:
        """Tell of everything, and of what changes meanwhile. Raises what the store raises."""
        with self._lock:
            self.direct = None
            self._untold.update(self._holds)
        while True:
            with self._lock:
                ids, amounts = self._untold, self._amounts
                self._untold, self._amounts = set(), {}
                holds = {request_id: self._holds.get(request_id) for request_id in ids}
            try:
                store.landed((), amounts)  # first: what has landed must not be missing in both for a moment
                store.register(holds)
            except BaseException:
                self.missed(ids, amounts)
                raise
            with self._lock:
                if not self._untold and not self._amounts:
                    self.direct = store
                    return
