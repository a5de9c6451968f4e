"""The receipt of one request, as its key holder and the console see it. No content: none is kept. Called by `api`."""

from typing import Any

from rest_framework import serializers

from accounts.credits import entry_of
from proxy.models import UsageRecord

USED = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "estimated")


class ReceiptSerializer(serializers.BaseSerializer[UsageRecord]):
    """Money as strings of exact decimals, in USD; of `price`, per million tokens. Times in milliseconds."""

    def to_representation(self, instance: UsageRecord) -> dict[str, Any]:
        row = instance
        return {
            "id": row.request_id,
            "object": "request",
            "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
            "endpoint": row.endpoint,
            "stream": row.streamed,
            "status": row.status,
            "outcome": row.outcome,
            "error_code": row.error_code or None,
            "key": row.key_prefix or None,
            "key_name": row.key_name,
            "requested_model": row.requested_model,
            "alias": row.alias or None,
            "model": row.model or None,
            "provider": row.provider or None,
            "attempts": row.attempts,
            "losses": [name for name in row.losses.split(",") if name],
            "usage": {name: getattr(row, name) for name in USED},
            "price": row.price,
            "cost": _money(row.cost),
            "held": _money(row.held),
            "settlement": settlement(row),
            "timings": {"first_token_ms": row.first_token_ms, "total_ms": row.total_ms},
        }


def settlement(row: UsageRecord) -> dict[str, Any]:
    """What the ledger says of it. Without an entry nothing was charged to the account's balance."""
    entry = entry_of(row.request_id)
    return {
        "metered": row.metered,
        "charged": _money(-entry.amount) if entry else "0",
        "shortfall": _money(row.shortfall),
        "ledger_entry": entry.pk if entry else None,
    }


def _money(amount: Any) -> str | None:
    return None if amount is None else f"{amount:f}"
