import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models import ProtectedError

from accounts import credits, keys
from accounts.credits import Charge, Difference, Fund
from accounts.models import Account, ApiKey, Balance, KeySpend, LedgerEntry

DAY = 86400.0
FRIDAY = datetime(2026, 11, 20, tzinfo=UTC).timestamp()
USD = 10**12


@pytest.fixture(autouse=True)
def _usage(settings):
    settings.KEY_SPENDING = f"{__name__}.spending"


def spending() -> Iterable[tuple[int, date, int]]:
    """What the usage rows would say: here, that the days are right."""
    rows = KeySpend.objects.exclude(day=credits.EVER).values_list("key_id", "day", "amount")
    return [(key, day, int(amount * USD)) for key, day, amount in rows]


@pytest.fixture
def account(db) -> Account:
    return Account.objects.create(name="acme", billing="prepaid")


@pytest.fixture
def key(account) -> ApiKey:
    return keys.issue(account, name="laptop", budget=Decimal(10), budget_period="month")[0]


def cost(name: str, key: ApiKey, amount: int, moment: float = FRIDAY, metered: bool = True) -> Charge:
    return Charge(name, key.account_id, key.pk, amount, moment, metered)


def charge(*charges: Charge) -> None:
    with transaction.atomic():
        credits.charge(charges, [])


def test_it_works(account, key):
    credits.grant(account, Decimal("1.5"), "welcome", "ann")
    account_fund, budget = f"a{account.pk}", f"k{key.pk}:month:2026-11-01"
    with transaction.atomic():
        amounts = credits.charge([cost("r1", key, USD), cost("r2", key, USD // 10)], [account_fund, budget])
    assert amounts == {account_fund: (2, 400_000_000), budget: (1, -1_100_000_000)}
    entries = LedgerEntry.objects.order_by("pk").values_list("kind", "amount", "request_id", "note", "by")
    assert list(entries) == [
        ("grant", Decimal("1.5"), None, "welcome", "ann"),
        ("charge", Decimal(-1), "r1", "", ""),
        ("charge", Decimal("-0.1"), "r2", "", ""),
    ]
    assert credits.balance(account.pk) == Decimal("0.4")
    assert credits.audit() == []


# --- charges ---------------------------------------------------------------------------------------------------------


def test_a_request_is_charged_once(account, key):
    charge(cost("r1", key, 5), cost("r1", key, 5))
    charge(cost("r1", key, 5), cost("r2", key, 2))
    assert credits.read([f"a{account.pk}", f"k{key.pk}:total"]) == {
        f"a{account.pk}": (2, -1),
        f"k{key.pk}:total": (2, -1),
    }
    assert credits.balance(account.pk) == Decimal("-0.000000000007")
    assert LedgerEntry.objects.count() == 2


def test_what_is_not_metered_counts_for_the_key_alone(account, key):
    charge(cost("r1", key, USD, metered=False))
    assert not LedgerEntry.objects.exists()
    assert not Balance.objects.exists()
    assert credits.spent(key.pk, "month", FRIDAY) == 1


def test_a_request_without_a_key_is_charged_to_its_account(account):
    charge(Charge("r1", account.pk, 0, USD, FRIDAY, True))
    assert credits.balance(account.pk) == -1
    assert not KeySpend.objects.exists()


def test_the_charges_of_a_deleted_account_and_key_are_kept(account, key):
    other = keys.issue(Account.objects.create(name="other"))[0]
    late = [cost("r1", key, USD), cost("r2", other, USD)]
    account.delete()
    charge(*late)
    assert credits.balance(late[0].account_id) == credits.balance(late[1].account_id) == -1
    assert credits.spent(late[0].key_id, "total", FRIDAY) == 1
    assert credits.audit() == []


def test_an_account_with_entries_is_not_deleted(account):
    credits.grant(account, Decimal(1))
    with pytest.raises(ProtectedError):
        account.delete()


def test_nothing_is_charged_where_the_callers_transaction_fails(account, key):
    with pytest.raises(KeyError), transaction.atomic():
        print(credits.charge([cost("r1", key, USD)], [])["a0"])
    assert credits.balance(account.pk) == credits.spent(key.pk, "total", FRIDAY) == 0


def test_more_charges_than_a_statement_holds(account, key):
    charge(*(cost(f"r{number}", key, 1, FRIDAY + number) for number in range(2500)))
    assert credits.balance(account.pk) == Decimal("-0.000000002500")
    assert credits.audit() == []


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_key_may_spend_more_than_an_integer_holds(account, key, at_once):
    charges = [cost(f"r{day}", key, 4_000_000 * USD, FRIDAY + day * DAY, metered=False) for day in range(3)]
    for start in range(0, 3, at_once):
        charge(*charges[start : start + at_once])
    assert credits.spent(key.pk, "total", FRIDAY) == 9_000_000
    assert credits.spent(key.pk, "day", FRIDAY) == 4_000_000
    assert credits.audit() == []


def test_rotated_keys_have_one_budget(key):
    second, _ = keys.rotate(key, timedelta(hours=1))
    third, _ = keys.rotate(second, timedelta(hours=1))
    charge(cost("r1", key, USD), cost("r2", third, USD // 2))
    chain = [key, second, third]
    fund = f"k{key.pk}:month:2026-11-01"
    assert {credits.funds_of(keys.freeze(each), FRIDAY)[-1].name for each in chain} == {fund}
    assert credits.read([fund]) == {fund: (1, -1_500_000_000)}
    assert {credits.spent(each.pk, "month", FRIDAY) for each in chain} == {Decimal("1.5")}
    assert set(credits.spent_by(chain, FRIDAY).values()) == {Decimal("1.5")}
    assert credits.audit() == []


def test_a_deleted_key_has_spent_what_it_has_spent(key):
    second, _ = keys.rotate(key, timedelta(hours=1))
    late = [cost(name, second, USD) for name in ("r1", "r2")]
    charge(late[0])
    key.delete()
    second.delete()
    charge(late[1])
    assert credits.spent(late[0].key_id, "total", FRIDAY) == 2
    assert credits.audit() == []


def test_the_entry_of_a_request(account, key):
    charge(cost("r1", key, USD))
    entry = credits.entry_of("r1")
    assert entry is not None
    assert (entry.account, entry.amount, entry.created_at.timestamp()) == (account, -1, FRIDAY)
    assert credits.entry_of("r2") is None


def test_many_flushers_at_once(transactional_db):
    """They meet on the same requests, accounts and keys, each in an order of its own."""
    found = [keys.issue(Account.objects.create(name=name, billing="prepaid"))[0] for name in "abc"]
    found.append(keys.rotate(found[0], timedelta(hours=1))[0])
    charges = [cost(f"r{n}", found[n % 4], n + 1, FRIDAY + n % 2 * DAY) for n in range(120)]
    month = f"k{found[0].pk}:month:2026-11-01"

    def flush(seed: int) -> list[tuple[int, int]]:
        mine = random.Random(seed).sample(charges, 120)
        try:
            return [_flush(mine[start : start + 12], month) for start in range(0, 120, 12)]
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        said = {pair for pairs in pool.map(flush, range(8)) for pair in pairs}
    assert credits.audit() == []
    assert sum(credits.balance(key.account_id) for key in found[:3]) * USD == -sum(range(121))
    assert len({seq for seq, _ in said}) == len(said)  # a number stands for one amount


def _flush(charges: list[Charge], fund: str) -> tuple[int, int]:
    with transaction.atomic():
        return credits.charge(charges, [fund])[fund]


# --- grants ----------------------------------------------------------------------------------------------------------


def test_a_grant_tells_the_processes_and_may_be_taken_back(account):
    before = keys.version()
    credits.grant(account, Decimal("0.000000000001"))
    credits.grant(account, Decimal("-2.5"))
    assert credits.balance(account.pk) == Decimal("-2.499999999999")
    assert keys.version() == before + 2


@pytest.mark.parametrize(("amount", "billing"), [(1, "prepaid"), (-1, "unmetered")])
def test_who_is_given_credit_is_metered(account, amount, billing):
    account.billing = "unmetered"
    account.save()
    credits.grant(account, Decimal(amount))
    account.refresh_from_db()
    assert account.billing == billing


@pytest.mark.parametrize("amount", [
    "0", "NaN", "Infinity", "9000001", "-9000001", "0.0000000000001", f"1.{'0' * 30}1", "1e-400", "1e400",
])  # fmt: skip
def test_an_amount_that_is_refused_leaves_nothing(account, amount):
    before = keys.version()
    with pytest.raises(ValidationError) as refusal:
        credits.grant(account, Decimal(amount))
    assert list(refusal.value.message_dict) == ["amount"]
    assert not LedgerEntry.objects.exists()
    assert keys.version() == before


def test_a_balance_stays_within_what_can_be_kept(account):
    credits.grant(account, Decimal(9_000_000))
    with pytest.raises(ValidationError, match=r"9000000\.000000000001 USD"):
        credits.grant(account, Decimal("0.000000000001"))
    assert credits.balance(account.pk) == 9_000_000
    assert credits.audit() == []


def test_a_long_note_is_refused(account):
    with pytest.raises(ValidationError) as refusal:
        credits.grant(account, Decimal(1), "x" * 301)
    assert list(refusal.value.message_dict) == ["note"]


def test_grants_at_once(transactional_db):
    account = Account.objects.create(name="acme")

    def grant(_: int) -> None:
        try:
            credits.grant(account, Decimal("0.1"))
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(grant, range(24)))
    assert credits.read([f"a{account.pk}"]) == {f"a{account.pk}": (24, 2_400_000_000)}


# --- funds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("billing", "budget", "funds"), [
    ("unmetered", None, []),
    ("unmetered", Decimal("0.5"), [("k", 500_000_000)]),
    ("prepaid", None, [("a", 0)]),
    ("postpaid", None, [("a", 2_000_000_000)]),
    ("postpaid", Decimal("0.0000000019"), [("a", 2_000_000_000), ("k", 1)]),
])  # fmt: skip
def test_what_a_request_is_paid_from(db, billing, budget, funds):
    account = Account.objects.create(name="acme", billing=billing, ceiling=2)
    row = keys.issue(account, budget=budget)[0]
    names = {"a": f"a{account.pk}", "k": f"k{row.pk}:total"}
    assert credits.funds_of(keys.freeze(row), FRIDAY) == tuple(Fund(names[whose], room) for whose, room in funds)


@pytest.mark.parametrize(("period", "first", "next_first"), [
    ("day", date(2026, 11, 20), date(2026, 11, 21)),
    ("week", date(2026, 11, 16), date(2026, 11, 23)),
    ("month", date(2026, 11, 1), date(2026, 12, 1)),
])  # fmt: skip
def test_a_period_begins_and_ends(key, period, first, next_first):
    for moment in (FRIDAY, FRIDAY + DAY - 0.001):
        key.budget_period = period
        assert credits.funds_of(keys.freeze(key), moment)[-1].name == f"k{key.pk}:{period}:{first}"
    assert credits.end(period, first) == next_first
    before, at_the_end = (datetime.combine(day, datetime.min.time(), UTC).timestamp() for day in (first, next_first))
    charge(cost("1", key, 1, before - 0.001), cost("2", key, 10, before), cost("3", key, 100, at_the_end - 0.001))
    charge(cost("4", key, 1000, at_the_end))
    assert credits.spent(key.pk, period, FRIDAY) * USD == 110
    assert credits.spent(key.pk, "total", FRIDAY) * USD == 1111


@pytest.mark.parametrize(("first", "next_first"), [
    (date(2026, 1, 1), date(2026, 2, 1)),
    (date(2028, 2, 1), date(2028, 3, 1)),
    (date(2026, 12, 1), date(2027, 1, 1)),
])  # fmt: skip
def test_months_end(first, next_first):
    assert credits.end("month", first) == next_first
    assert credits.begin("month", next_first - timedelta(days=1)) == first


def test_amounts_are_rounded_against_the_spender(account, key):
    credits.grant(account, Decimal("0.000000001999"))
    charge(cost("r1", key, 1, metered=False))
    assert credits.known([keys.freeze(key)], FRIDAY) == {
        f"a{account.pk}": (1, 1),
        f"k{key.pk}:month:2026-11-01": (1, -1),
    }


def test_a_later_period_begins_with_nothing_and_a_number_that_goes_on(key):
    charge(cost("r1", key, USD))
    assert credits.read([f"k{key.pk}:day:2026-11-21", "a999", "k999:total"]) == {
        f"k{key.pk}:day:2026-11-21": (1, 0),
        "a999": (0, 0),
        "k999:total": (0, 0),
    }


def test_all_funds_are_read_in_a_few_queries(db, django_assert_max_num_queries):
    accounts = [Account(name=f"a{number}", billing="prepaid") for number in range(100)]
    Account.objects.bulk_create(accounts)
    periods = ("total", "day", "week", "month")
    rows = [
        ApiKey(account=account, prefix=f"{n}", digest=f"{n}".encode(), budget=1, budget_period=periods[n % 4])
        for n, account in enumerate(accounts)
    ]
    ApiKey.objects.bulk_create(rows)
    charge(*(cost(f"r{row.pk}", row, USD // 4) for row in rows))
    with django_assert_max_num_queries(5):
        known = credits.known(map(keys.freeze, rows), FRIDAY)
    assert len(known) == 200
    assert set(known.values()) == {(1, -250_000_000)}


# --- audit -----------------------------------------------------------------------------------------------------------


def test_the_audit_names_each_difference(account, key, settings):
    credits.grant(account, Decimal(1))
    charge(cost("r1", key, 1))
    LedgerEntry.objects.filter(request_id="r1").update(amount=Decimal("-0.000000000002"))
    KeySpend.objects.filter(day=credits.EVER).update(amount=Decimal(3))
    settings.KEY_SPENDING = f"{__name__}.no_spending"
    pico = Decimal("0.000000000001")
    assert credits.audit() == [
        Difference("account acme", 1 - pico, 1 - 2 * pico),
        Difference(f"key {key.prefix} in all", Decimal(3), pico),
        Difference(f"key {key.prefix} on 2026-11-20", pico, Decimal(0)),
        Difference("key 999 on 2026-11-20", Decimal(0), Decimal(1)),
    ]


def no_spending() -> Iterable[tuple[int, date, int]]:
    return [(999, date(2026, 11, 20), USD)]


@pytest.mark.parametrize("lost", [LedgerEntry, Balance])
def test_the_audit_misses_what_is_gone(account, lost):
    credits.grant(account, Decimal(1))
    lost.objects.all().delete()
    assert [each.subject for each in credits.audit()] == ["account acme"]


def test_the_audit_reads_one_moment(transactional_db, settings):
    account = Account.objects.create(name="acme", billing="prepaid")
    key = keys.issue(account)[0]
    charge(cost("r1", key, 1))
    settings.KEY_SPENDING = f"{__name__}.spending_while_another_charges"
    assert credits.audit() == []


def spending_while_another_charges() -> Iterable[tuple[int, date, int]]:
    before = spending()
    if connection.vendor == "postgresql":  # SQLite lets nobody write meanwhile
        row = ApiKey.objects.get()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_charge_and_close, cost("r2", row, 1)).result()
    return before


def _charge_and_close(each: Charge) -> None:
    try:
        charge(each)
    finally:
        connection.close()
