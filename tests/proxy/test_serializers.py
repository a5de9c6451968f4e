"""The receipt of a request."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from accounts import credits
from proxy.serializers import ReceiptSerializer
from tests.own_api import new_key, row

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
pytestmark = pytest.mark.django_db


def test_it_works():
    key, _ = new_key(name="laptop")
    attempts = [{"provider": "first", "model": "a", "ms": 5.0, "status": 503, "reason": "status"}]
    used = row(
        key,
        created_at=NOON,
        requested_model="fast",
        alias="fast",
        model="m",
        provider="second",
        prompt_tokens=10,
        completion_tokens=2,
        cached_tokens=4,
        streamed=True,
        attempts=attempts,
        price={"input": "0.15", "output": "0.6"},
        cost=Decimal("0.0000027"),
        held=Decimal("0.01"),
        metered=True,
        shortfall=Decimal("0.000000000001"),
        first_token_ms=3.5,
        total_ms=9.0,
        losses="top_k,seed",
        key_name="laptop",
    )
    credits.charge([credits.Charge(used.request_id, key.account_id, key.pk, 2_700_000, NOON.timestamp(), True)], ())
    told = ReceiptSerializer(used).data
    entry = credits.entry_of(used.request_id)
    assert told.pop("settlement") == {
        "metered": True,
        "charged": "0.0000027",
        "shortfall": "0.000000000001",
        "ledger_entry": entry.pk,
    }
    assert told == {
        "id": used.request_id,
        "object": "request",
        "created_at": "2026-11-20T12:00:00Z",
        "endpoint": "chat",
        "stream": True,
        "status": 200,
        "outcome": "complete",
        "error_code": None,
        "key": key.prefix,
        "key_name": "laptop",
        "requested_model": "fast",
        "alias": "fast",
        "model": "m",
        "provider": "second",
        "attempts": attempts,
        "losses": ["top_k", "seed"],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "cached_tokens": 4,
            "cache_write_tokens": 0,
            "reasoning_tokens": 0,
            "estimated": False,
        },
        "price": {"input": "0.15", "output": "0.6"},
        "cost": "0.0000027",
        "held": "0.01",
        "timings": {"first_token_ms": 3.5, "total_ms": 9.0},
    }


def test_of_a_request_that_nobody_paid_for():
    told = ReceiptSerializer(row(new_key()[0], outcome="refused", status=404, error_code="model_not_found")).data
    assert (told["cost"], told["held"], told["price"], told["model"]) == (None,) * 4
    assert told["error_code"] == "model_not_found"
    assert told["settlement"] == {
        "metered": False,
        "charged": "0",
        "shortfall": "0",
        "ledger_entry": None,
    }
