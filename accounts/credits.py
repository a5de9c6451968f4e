"""The ledger: the only module that moves a balance. Callers: the admin, `manage.py credits`, and `proxy`.

A balance is the sum of its entries, and a key's spending the sum of its charges; both are kept beside the entries and
moved in the same transaction, so that they can be read at once and audited. Amounts: picodollars in the ledger,
nanodollars (rounded against the spender) in a `Fund`.

Many processes charge at once. Each takes its locks in one order (entries by request id, balances by account, spending
by key and day), so that none waits for one that waits for it.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from accounts import bulk, signals
from accounts.keys import Key
from accounts.models import Account, ApiKey, Balance, KeySpend, LedgerEntry
from accounts.usd import MOST, PICO, picodollars, usd

DAY = 86400
EVER = date.min  # the row of a key's sum over all days; its `seq` numbers all moves of the key
_EPOCH = date(1970, 1, 1)
_NAMES = 5000  # in a statement: SQLite takes 32,766 values

_KEY, _ENTRY, _BALANCE, _SPEND = (model._meta.db_table for model in (ApiKey, LedgerEntry, Balance, KeySpend))  # noqa: SLF001
_ENTRY_COLUMNS = {
    "request_id": "text",
    "account_id": "bigint",
    "kind": "text",
    "amount": "bigint",
    "created_at": "timestamptz",
}

_SUM = "{table}.amount + excluded.amount"
# A key may live to spend more than an integer holds; no budget is as large.
_FULL = picodollars(MOST)
_UP_TO = f"CASE WHEN {{table}}.amount > {_FULL} - excluded.amount THEN {_FULL} ELSE {_SUM} END"


class Fund(NamedTuple):
    """What a request is paid from: an account (`a3`), or a key's budget in a period (`k7:month:2026-11-01`).

    `room`: nanodollars that may be spent beyond the fund's amount: an account's ceiling, a key's budget.
    """

    name: str
    room: int


def funds_of(key: Key, now: float) -> tuple[Fund, ...]:
    """Of what a request at this moment (seconds since the epoch) is paid; empty: of nothing that could run out."""
    if key.billing == "unmetered":
        return () if key.budget is None else (_budget(key.spender, key.period, int(now // DAY), key.budget),)
    account = _account(key.account_id, key.ceiling if key.billing == "postpaid" else 0)
    if key.budget is None:
        return (account,)
    return account, _budget(key.spender, key.period, int(now // DAY), key.budget)


@functools.lru_cache(10_000)
def _account(account_id: int, ceiling: int) -> Fund:
    return Fund(f"a{account_id}", ceiling)


@functools.lru_cache(10_000)
def _budget(key_id: int, period: str, day: int, budget: int) -> Fund:
    if period == "total":
        return Fund(f"k{key_id}:total", budget)
    return Fund(f"k{key_id}:{period}:{begin(period, _EPOCH + timedelta(days=day))}", budget)


def begin(period: str, day: date) -> date:
    """The first day of the period (UTC)."""
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def end(period: str, first: date) -> date:
    """The first day after the period that begins with this one."""
    if period == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if period == "week" else 1)


class Charge(NamedTuple):
    """What a request cost, in picodollars. `metered`: it goes to the account's balance, not only to the key's sums."""

    request_id: str
    account_id: int
    key_id: int  # 0: none
    amount: int
    created: float  # seconds since the epoch
    metered: bool


class GrantedAlready(ValueError):
    """A second grant with the same `once`."""


def grant(account: Account, amount: Decimal, note: str = "", by: str = "", once: str | None = None) -> LedgerEntry:
    """Add to (or, negative, take from) an account's balance. An unmetered account that is given credit becomes prepaid.

    `once`: what tells this grant from all others, so that a form that is sent twice grants once. Raises
    `ValidationError` and `GrantedAlready`.
    """
    words = {"kind": LedgerEntry.Kind.GRANT, "request_id": once, "note": note, "by": by}
    entry = LedgerEntry(account=account, amount=amount, created_at=timezone.now(), **words)
    entry.full_clean(exclude={"request_id"})
    if not entry.amount:
        raise ValidationError({"amount": "Nothing would change."})
    with transaction.atomic():
        unmetered = Account.objects.filter(pk=account.pk, billing=Account.Billing.UNMETERED)
        if entry.amount > 0 and unmetered.update(billing=Account.Billing.PREPAID):
            account.billing = Account.Billing.PREPAID
        try:
            with transaction.atomic():
                entry.save(force_insert=True)
        except IntegrityError:
            raise GrantedAlready(once) from None
        _add(_BALANCE, {"account_id": "bigint"}, {(account.pk,): picodollars(entry.amount)})
        if abs(now := balance(account.pk)) > MOST:
            raise ValidationError({"amount": f"The balance would be {now:f} USD: more than can be kept."})
        signals.bump()  # the gateway's processes learn of it as of a change of the account; last, as everywhere
    return entry


def charge(charges: Sequence[Charge], funds: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Enter charges that are not entered yet; inside the caller's transaction. Returns these funds as `read` does.

    Those of metered accounts are known again by their entries; of the others the caller passes each once.
    """
    wanted = {each.request_id: each for each in sorted(charges)}
    entered = _enter([each for each in wanted.values() if each.metered])
    accounts: dict[tuple[int], int] = defaultdict(int)
    spent: dict[tuple[int, float], int] = defaultdict(int)
    for each in wanted.values():
        if each.metered:
            if each.request_id not in entered:
                continue
            accounts[each.account_id,] -= each.amount
        if each.key_id:
            spent[each.key_id, each.created // DAY] += each.amount
    _add(_BALANCE, {"account_id": "bigint"}, accounts)
    _spend(spent)
    return read(funds)


def _enter(charges: Sequence[Charge]) -> set[str]:
    """Of these, by their request ids in ascending order, the ones that were not in the ledger."""
    rows = [(c.request_id, c.account_id, "charge", -c.amount, bulk.moment(c.created)) for c in charges]
    return bulk.insert_new(_ENTRY, _ENTRY_COLUMNS, rows)


def _spend(amounts: Mapping[tuple[int, float], int]) -> None:
    """What each key has spent on each day (since 1970)."""
    spenders = _spenders({key for key, _ in amounts})
    spent: dict[tuple[int, str, int], int] = defaultdict(int)
    for (key, day), amount in amounts.items():
        spender = spenders[key]
        spent[spender, EVER.isoformat(), spender] += amount
        spent[spender, (_EPOCH + timedelta(days=day)).isoformat(), key] += amount
    by = {"spender": "bigint", "day": "date", "key_id": "bigint"}  # first EVER: who has it has the spender to himself
    _add(_SPEND, by, {row: min(sum_, _FULL) for row, sum_ in spent.items()}, _UP_TO)


def _spenders(keys: Collection[int]) -> dict[int, int]:
    """By key, whose budget it spends. A key that was deleted meanwhile spends what it spent before."""
    found: dict[int, int] = {}
    for part in _in_parts(list(keys), _NAMES):
        found.update(_rows(_SPENDERS.format(_places(part)), part))
    if gone := [key for key in keys if key not in found]:
        found |= dict(KeySpend.objects.filter(key_id__in=gone).values_list("key_id", "spender"))
    return {key: found.get(key, key) for key in keys}


def _add(table: str, by: dict[str, str], amounts: Mapping[Any, int], sum_: str = _SUM) -> None:
    """Move these sums (by primary or unique columns), in ascending order."""
    rows = [(*values, amount, 1) for values, amount in sorted(amounts.items())]
    then = f"DO UPDATE SET amount = {sum_.format(table=table)}, seq = {table}.seq + 1"
    bulk.insert(table, {**by, "amount": "bigint", "seq": "bigint"}, rows, f"ON CONFLICT ({', '.join(by)}) {then}")


def read(funds: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Each fund's (seq, amount in nanodollars) by the ledger: a balance, or what a key has spent, negative."""
    return {name: (seq, amount // PICO) for name, (seq, amount) in _read(list(funds)).items()}


def known(keys: Iterable[Key], now: float) -> dict[str, tuple[int, int]]:
    """Every fund of these keys, as `read` has it: for a process that begins."""
    return read({fund.name for key in keys for fund in funds_of(key, now)})


def balance(account_id: int) -> Decimal:
    name = f"a{account_id}"
    return usd(_read([name])[name][1])


def spent(key_id: int, period: str, now: float) -> Decimal:
    """USD that a key, with those that it was rotated from, has spent in the period that holds this moment."""
    name = _budget(_spenders([key_id])[key_id], period, int(now // DAY), 0).name
    return usd(-_read([name])[name][1])


def spent_by(keys: Iterable[ApiKey], now: float) -> dict[int, Decimal]:
    """By their ids: what each of these keys has spent in the period of its budget that holds this moment."""
    names = {key.pk: _budget(key.spends_as or key.pk, key.budget_period, int(now // DAY), 0).name for key in keys}
    found = _read(list(set(names.values())))
    return {pk: usd(-found[name][1]) for pk, name in names.items()}


def entry_of(request_id: str) -> LedgerEntry | None:
    """The charge of a request: its account's balance has moved by it."""
    return LedgerEntry.objects.filter(request_id=request_id).first()


def _read(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Each fund's (seq, picodollars); of what the ledger has not heard of: zeros."""
    accounts: dict[int, str] = {}
    periods: dict[tuple[date, date], dict[int, str]] = defaultdict(dict)
    for name in names:
        whose, *period = name.split(":")
        if whose[0] == "a":
            accounts[int(whose[1:])] = name
        else:
            periods[_span(*period)][int(whose[1:])] = name
    found = dict.fromkeys(names, (0, 0))
    for part in _in_parts(list(accounts), _NAMES):
        for account, seq, amount in _rows(_BALANCES.format(_places(part)), part):
            found[accounts[account]] = (seq, amount)
    for span, keys in periods.items():
        days = [day.isoformat() for day in (*span, EVER)]
        for part in _in_parts(list(keys), _NAMES):
            for key, seq, amount in _rows(_SPENT.format(_places(part)), [*days, *part]):
                found[keys[key]] = (seq, -int(amount))
    return found


def _span(period: str, first: str = "") -> tuple[date, date]:
    if period == "total":
        return EVER, EVER + timedelta(days=1)
    begun = date.fromisoformat(first)
    return begun, end(period, begun)


_SPENDERS = f"SELECT id, COALESCE(spends_as, id) FROM {_KEY} WHERE id IN ({{}})"  # noqa: S608  # our own names
_BALANCES = f"SELECT account_id, seq, amount FROM {_BALANCE} WHERE account_id IN ({{}})"  # noqa: S608
# In one statement: `seq` must not be newer or older than the days.
_SPENT = (
    f"SELECT ever.spender, ever.seq, COALESCE(SUM(days.amount), 0) FROM {_SPEND} ever "  # noqa: S608
    f"LEFT JOIN {_SPEND} days ON days.spender = ever.spender AND days.day >= %s AND days.day < %s "
    "WHERE ever.day = %s AND ever.spender IN ({}) GROUP BY ever.spender, ever.seq"
)


class Difference(NamedTuple):
    """A sum that is kept and the sum of the entries, in USD."""

    subject: str
    kept: Decimal
    entries: Decimal


def audit() -> list[Difference]:
    """Recompute every balance from its entries, and what each key has spent from its days and its usage."""
    with _one_moment():
        return [*_wrong_balances(), *_wrong_spending()]


@contextmanager
def _one_moment() -> Iterator[None]:
    """Everything is read as it stood at one moment, whatever is charged meanwhile."""
    is_first = not connection.in_atomic_block
    with transaction.atomic():
        if is_first and connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


def _wrong_balances() -> list[Difference]:
    rows = _rows(
        "SELECT account_id, SUM(kept), SUM(entries) FROM ("  # noqa: S608
        f"SELECT account_id, amount AS kept, 0 AS entries FROM {_BALANCE} "
        f"UNION ALL SELECT account_id, 0, amount FROM {_ENTRY}) both_of_them "
        "GROUP BY account_id HAVING SUM(kept) <> SUM(entries) ORDER BY account_id"
    )
    names = dict(Account.objects.filter(pk__in=[pk for pk, *_ in rows]).values_list("pk", "name"))
    return [_difference(f"account {names.get(pk, pk)}", kept, entries) for pk, kept, entries in rows]


def _wrong_spending() -> list[Difference]:
    """Sums beside their days, and the days beside the usage: charges of unmetered accounts have no entries."""
    spending: Callable[[], Iterable[tuple[int, date, int]]] = import_string(settings.KEY_SPENDING)
    entries: dict[tuple[int, date], int] = defaultdict(int)
    kept: dict[tuple[int, date], int] = defaultdict(int)
    for key, day, amount in spending():
        entries[key, day] += amount
    for spender, key, day, spent in KeySpend.objects.values_list("spender", "key_id", "day", "amount"):
        kept[key, day] += picodollars(spent)
        if day != EVER:
            entries[spender, EVER] = min(entries[spender, EVER] + picodollars(spent), _FULL)
    wrong = sorted(each for each in {*kept, *entries} if kept[each] != entries[each])
    return [_difference(_subject(*each), kept[each], entries[each]) for each in wrong]


def _subject(key: int, day: date) -> str:
    name = ApiKey.objects.filter(pk=key).values_list("prefix", flat=True).first() or key
    return f"key {name} {'in all' if day == EVER else f'on {day}'}"


def _difference(subject: str, kept: Any, entries: Any) -> Difference:
    return Difference(subject, usd(int(kept)), usd(int(entries)))


def _rows(statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def _places(values: Collection[object]) -> str:
    return ", ".join(["%s"] * len(values))


def _in_parts(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + most] for start in range(0, len(items), most))
