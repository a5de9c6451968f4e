"""What the tests of the journal share: records, and a store that notes what it is told."""

from collections.abc import Iterable, Sequence
from typing import Any

from accounts.models import Account
from proxy.counters.base import Amounts
from proxy.counters.memory import Memory
from proxy.models import UsageRecord
from proxy.usage import Record

PRICE = (1_000_000, 2_000_000, None, None)  # picodollars per token


def record(number: int = 1, **values: Any) -> Record:
    fields = {"created": 1_700_000_000.5, "status": 200, "outcome": "complete", **values}
    return Record(request_id=f"req_{number}", **fields)


def charged(account: Account, number: int = 1, **values: Any) -> Record:
    """Of a metered account."""
    whose = {"account_id": account.pk, "account": account.name, "metered": True, "funds": (f"a{account.pk}",)}
    return record(number, **{**whose, "price": PRICE, **values})


def ids() -> list[str]:
    return sorted(UsageRecord.objects.values_list("request_id", flat=True))


class Told(Memory):
    """`events`: what it was told, and how many rows there were then."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[Any, ...]] = []
        self.amounts: dict[str, tuple[int, int]] = {}

    def held(self, request_id: str, charge: int, funds: Sequence[str], /) -> None:
        self.events.append(("held", request_id, charge, tuple(funds)))
        super().held(request_id, charge, funds)

    def landed(self, request_ids: Iterable[str], amounts: Amounts, /) -> None:
        found = list(request_ids)
        self.events.append(("landed", *found))
        self.amounts.update(amounts)
        super().landed(found, amounts)
