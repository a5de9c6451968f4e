"""The accounts' periodic jobs, as `settings.JOBS` names them: what should be heard of, and the sending of it.

A job takes no arguments, may be repeated and broken off at any time, and says in a short sentence what it did.
"""

from datetime import date, datetime, timedelta
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal

from django.db.models import F, QuerySet
from django.utils import timezone

from accounts import notices
from accounts.credits import begin, spent_by
from accounts.models import Account, ApiKey, Notice
from accounts.notices import Case
from accounts.usd import shown

DAYS_BEFORE = (1, 7)  # a key expires
PERCENTS = (100, 80)  # of a budget


def notice_expiring_keys() -> str:
    now = timezone.now()
    end = now + timedelta(days=max(DAYS_BEFORE))
    rows = _keys().filter(expires_at__gt=now, expires_at__lte=end)
    return notices.stand(Notice.Kind.KEY_EXPIRING, dict(found for key in rows if (found := _expiring(key, now))))


def _keys() -> QuerySet[ApiKey]:
    return ApiKey.objects.filter(is_active=True, account__is_active=True).select_related("account")


def _expiring(key: ApiKey, now: datetime) -> tuple[str, Case] | None:
    """None also for a key that was made to live no longer than this: its owner knows."""
    assert key.expires_at is not None
    days = next(days for days in DAYS_BEFORE if key.expires_at <= now + timedelta(days=days))
    if key.created_at > key.expires_at - timedelta(days=days):
        return None
    text = f"The API key {key} of {key.account} expires on {key.expires_at:%Y-%m-%d at %H:%M} UTC."
    expires = key.expires_at.isoformat()
    return f"{key.pk}:{days}d:{expires}", Case(key.account, text, {**_named(key), "expires_at": expires})


def _named(key: ApiKey) -> dict[str, str | int]:
    return {"key_id": key.pk, "key_prefix": key.prefix, "key_name": key.name}


def notice_low_balances() -> str:
    metered = Account.objects.filter(is_active=True, low_balance__isnull=False).exclude(billing="unmetered")
    rows = metered.annotate(amount=F("balance__amount"))
    return notices.stand(Notice.Kind.LOW_BALANCE, dict(found for account in rows if (found := _low(account))))


def _low(account: Account) -> tuple[str, Case] | None:
    balance: Decimal = account.amount or Decimal(0)  # type: ignore[attr-defined]  # annotated; no entry yet: no balance
    left = balance + (account.ceiling if account.billing == "postpaid" else 0)
    if left >= account.low_balance:
        return None
    text = f"{account} has {_dollars(left)} USD left, less than {_dollars(account.low_balance)} USD."
    data = {"balance": f"{balance:f}", "left": f"{left:f}", "low_balance": f"{account.low_balance:f}"}
    return str(account.pk), Case(account, text, {"billing": str(account.billing), **data})


def notice_budgets() -> str:
    now = timezone.now()
    rows = list(_keys().filter(budget__gt=0))
    spent = spent_by(rows, now.timestamp())
    found = (_budget(key, spent[key.pk], now.date()) for key in rows)
    return notices.stand(Notice.Kind.KEY_BUDGET, dict(case for case in found if case))


def _budget(key: ApiKey, spent: Decimal, day: date) -> tuple[str, Case] | None:
    """To the whole percent: a request gets no more than is left, so that the last of a budget is hardly ever spent."""
    percent = (100 * spent / key.budget).to_integral_value(ROUND_HALF_UP)
    reached = next((each for each in PERCENTS if percent >= each), None)
    if reached is None:
        return None
    budget = f"{_dollars(key.budget)} USD {key.get_budget_period_display()}"
    text = f"The API key {key} of {key.account} has spent {_dollars(spent)} of its budget of {budget}."
    amounts = {"spent": f"{spent:f}", "budget": f"{key.budget:f}", "period": str(key.budget_period)}
    since = "" if key.budget_period == "total" else begin(key.budget_period, day)  # of a new period it is news again
    return f"{key.pk}:{since}:{reached}", Case(key.account, text, {**_named(key), "percent": reached, **amounts})


def _dollars(amount: Decimal) -> str:
    """Down to the cent; less than ten cents, to the millionth."""
    unit = Decimal("0.01") if abs(amount) >= Decimal("0.1") or not amount else Decimal("0.000001")
    return shown(amount.quantize(unit, ROUND_FLOOR).normalize())


def deliver_notices() -> str:
    return notices.deliver()


def forget_notices() -> str:
    return notices.forget()
