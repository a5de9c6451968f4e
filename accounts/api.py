"""What a key holder may ask of the own account: GET /v1/auth/me, /v1/auth/keys, /v1/credits/balance.

Errors: `proxy.api.refuse`.
"""

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.credits import balance, begin, end, spent
from accounts.drf_auth import KeyRequest
from accounts.models import Account, ApiKey, BudgetPeriod
from accounts.serializers import KeySerializer


class MeView(APIView):
    def get(self, request: KeyRequest) -> Response:
        account = _account(request)
        own = KeySerializer(request.user).data if request.user else None
        return Response({"object": "account", **_balance(account), "key": own, "keys": _keys(account)})


class KeysView(APIView):
    def get(self, request: KeyRequest) -> Response:
        return Response({"object": "list", "data": _keys(_account(request))})


class BalanceView(APIView):
    def get(self, request: KeyRequest) -> Response:
        return Response({"object": "balance", **_balance(_account(request)), "budget": _budget(request.user)})


def _account(request: KeyRequest) -> Account:
    return Account.objects.get(pk=request.auth.account_id)


def _keys(account: Account) -> list[dict[str, Any]]:
    rows = ApiKey.objects.filter(account=account).select_related("account")
    return list(KeySerializer(rows, many=True).data)


def _balance(account: Account) -> dict[str, Any]:
    """`available`: what the ledger lets the account spend; requests that run may hold part of it."""
    amount = balance(account.pk)
    room = account.ceiling if account.billing == Account.Billing.POSTPAID else Decimal(0)
    metered = account.billing != Account.Billing.UNMETERED
    return {
        "account": account.name,
        "billing": account.billing,
        "currency": "USD",
        "balance": f"{amount:f}",
        "ceiling": f"{room:f}",
        "available": f"{amount + room:f}" if metered else None,
    }


def _budget(key: ApiKey | None) -> dict[str, Any] | None:
    """Of the key that asks. Periods begin at midnight UTC; one "in all" does not end."""
    if key is None or key.budget is None:
        return None
    now = time.time()
    used = spent(key.pk, key.budget_period, now)
    answer = {
        "amount": f"{key.budget:f}",
        "period": key.budget_period,
        "spent": f"{used:f}",
        "remaining": f"{key.budget - used:f}",
        "resets_at": None,
    }
    if key.budget_period != BudgetPeriod.TOTAL:
        first = begin(key.budget_period, datetime.fromtimestamp(now, UTC).date())
        answer["resets_at"] = f"{end(key.budget_period, first)}T00:00:00Z"
    return answer
