import asyncio
import threading
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connections, transaction
from django.utils import timezone

from accounts import credits
from accounts.credits import Charge, Fund
from accounts.keys import Limit
from accounts.models import Account
from proxy.counters import database
from proxy.counters.base import EpochLost, Holding, LimitReached, NotAffordable, Unreachable, Wish
from proxy.counters.database import Holds
from proxy.models import CounterEpoch, CounterWorker, Hold
from tests.processes import wait_for

# Threads see what is written; only these apps' tables are emptied afterwards, which is quicker.
pytestmark = pytest.mark.django_db(
    transaction=True, available_apps=["django.contrib.auth", "django.contrib.contenttypes", "accounts", "proxy"]
)
USD = 10**9  # nanodollars
run = asyncio.run


@pytest.fixture
def fund(transactional_db):
    """Of an account with one USD."""
    account = Account.objects.create(name="tests", billing="prepaid")
    credits.grant(account, Decimal(1))
    return Fund(f"a{account.pk}", 0)


@pytest.fixture
def make_holds(transactional_db):
    made = []

    def make(worker="one"):
        number, _ = database.join(worker)
        made.append(Holds(worker))
        made[-1].epoch = number
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def holds(make_holds):
    return make_holds()


def wish(fund, amount, least=None, name="r", **more):
    return Wish(name, funds=(fund,), amount=amount, least=amount if least is None else least, **more)


def rows():
    return {(row.request_id, row.fund): (row.amount, row.expires_at is None) for row in Hold.objects.all()}


def all_done(holds):
    """What `settle` left to the threads."""
    holds.close()


def refused(store, asked):
    with pytest.raises(NotAffordable) as caught:
        run(store.admit(asked))
    return caught.value.available, caught.value.held


# --- holds -----------------------------------------------------------------------------------------------------------


def test_it_works(holds, fund):
    grant = run(holds.admit(wish(fund, USD // 4)))
    assert (grant.held, grant.spare) == (USD // 4, USD - USD // 4)
    assert rows() == {("r", fund.name): (USD // 4, False)}
    holds.settle("r", 5, None)
    all_done(holds)
    assert rows() == {("r", fund.name): (5, True)}


def test_what_others_hold_is_not_there(holds, fund):
    run(holds.admit(wish(fund, USD // 4 * 3, name="first")))
    assert (run(holds.admit(wish(fund, USD, least=1)))).held == USD // 4
    assert refused(holds, wish(fund, 1, name="third")) == (0, USD)


def test_the_ceiling_of_an_account_is_room(holds, fund):
    assert (run(holds.admit(wish(fund._replace(room=USD), 2 * USD)))).held == 2 * USD


def test_every_fund_must_have_it(holds, fund):
    budget = Fund("k7:total", 100)
    grant = run(holds.admit(Wish("r", funds=(fund, budget), amount=USD, least=1)))
    assert (grant.held, grant.spare) == (100, 0)
    assert rows() == {("r", fund.name): (100, False), ("r", budget.name): (100, False)}
    with pytest.raises(NotAffordable) as caught:
        run(holds.admit(Wish("s", funds=(fund, budget), amount=1, least=1)))
    assert caught.value.fund == budget


def test_a_hold_grows_and_shrinks(holds, fund):
    run(holds.admit(wish(fund, 100)))
    assert (run(holds.adjust(wish(fund, 2 * USD, least=101)))).held == USD
    assert (run(holds.adjust(wish(fund, 7)))).held == 7
    with pytest.raises(NotAffordable):
        run(holds.adjust(wish(fund, 2 * USD)))
    assert rows() == {("r", fund.name): (7, False)}


def test_without_a_charge_the_hold_goes(holds, fund):
    run(holds.admit(wish(fund, 100)))
    holds.settle("r", None, None)
    all_done(holds)
    assert rows() == {}


def test_a_hold_that_nobody_renews_counts_no_more(holds, fund):
    run(holds.admit(wish(fund, USD)))
    Hold.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert (run(holds.admit(wish(fund, USD, name="second")))).held == USD
    assert database.reap() == 1
    assert list(rows()) == [("second", fund.name)]


def test_a_renewed_hold_stays(holds, fund):
    run(holds.admit(wish(fund, USD)))
    Hold.objects.update(expires_at=timezone.now() + timedelta(seconds=1))
    holds.renew()
    all_done(holds)
    assert Hold.objects.get().expires_at > timezone.now() + timedelta(seconds=60)


def test_a_settlement_comes_after_a_growth_that_nobody_waits_for(holds, fund, monkeypatch):
    """Its task was cancelled, its thread goes on."""
    go_on, hold = threading.Event(), database._hold

    def slow(*words):
        go_on.wait(5)
        return hold(*words)

    async def grow_and_settle():
        growing = asyncio.create_task(holds.adjust(wish(fund, 100)))
        await asyncio.sleep(0.01)
        growing.cancel()
        holds.settle("r", 5, None)

    run(holds.admit(wish(fund, 10)))
    monkeypatch.setattr(database, "_hold", slow)
    run(grow_and_settle())
    go_on.set()
    wait_for(lambda: rows() == {("r", fund.name): (5, True)})
    all_done(holds)
    assert rows() == {("r", fund.name): (5, True)}


def test_limits_are_counted_in_this_process(holds, fund):
    limits = (Limit("key:7", "rpm", 1),)
    refused(holds, wish(fund, 2 * USD, limits=limits))  # uses nothing up
    assert (run(holds.admit(wish(fund, 1, limits=limits)))).requests.remaining == 0
    with pytest.raises(LimitReached):
        run(holds.admit(wish(fund, 1, name="second", limits=limits)))
    assert list(rows()) == [("r", fund.name)]
    assert (run(holds.left(limits))).requests.remaining == 0


def test_two_processes_do_not_admit_to_the_same_credit(make_holds, fund):
    """Each of two asks ten times at once for a quarter."""
    processes = [make_holds("one"), make_holds("two")]

    async def ask():
        asked = [
            each.admit(wish(fund, USD // 4, name=f"{place}-{n}"))
            for place, each in enumerate(processes)
            for n in range(10)
        ]
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = run(ask())
    assert [type(answer) for answer in answers].count(NotAffordable) == 16
    assert sum(amount for amount, _ in rows().values()) == USD


def test_a_charge_that_lands_takes_its_hold_with_it(holds, fund, settings):
    settings.REDIS_URL = "redis://somewhere"
    run(holds.admit(wish(fund, 300)))
    holds.register({"r": Holding((fund.name,), 250, settled=True)})
    charge = Charge("r", int(fund.name[1:]), 0, 250_000, timezone.now().timestamp(), metered=True)
    with transaction.atomic():
        credits.charge([charge], [fund.name])
        database.release(["r", "another"])
    assert rows() == {}
    assert (run(holds.admit(wish(fund, USD, least=1, name="s")))).held == USD - 250


def test_nothing_is_released_where_there_is_no_redis(holds, fund, django_assert_num_queries):
    with django_assert_num_queries(0):
        database.release(["r"])


def test_what_is_registered_is_what_is_held(holds, fund):
    run(holds.admit(wish(fund, 100)))
    run(holds.admit(wish(fund, 100, name="s")))
    holds.register(
        {"r": None, "s": Holding((fund.name,), 70, settled=True), "t": Holding((fund.name,), 30, settled=False)}
    )
    assert rows() == {("s", fund.name): (70, True), ("t", fund.name): (30, False)}
    holds.held("t", 20, [fund.name])
    holds.landed(["s"], {})
    assert rows() == {("t", fund.name): (20, True)}


def test_where_others_have_moved_on_nothing_is_held(holds, fund):
    assert database.move(holds.epoch, holds.epoch + 1, "redis")
    with pytest.raises(EpochLost):
        run(holds.admit(wish(fund, 1)))
    for holding in (Holding((fund.name,), 1, settled=True), None):
        with pytest.raises(EpochLost):
            holds.register({"r": holding})
    with pytest.raises(EpochLost):
        holds.register({})
    assert rows() == {}


def test_a_database_that_is_away_is_said_so(holds, fund, monkeypatch):
    run(holds.admit(wish(fund, 10)))
    monkeypatch.setattr(database, "_stand_in_epoch", _no_database)
    with pytest.raises(Unreachable):
        run(holds.adjust(wish(fund, 20)))
    monkeypatch.setattr(database, "_settle", _no_database)
    holds.settle("r", 5, None)
    all_done(holds)
    assert holds.breaks == 1


def _no_database(*_):
    raise database.DatabaseError("away")


def test_threads_give_their_connections_back(holds, fund):
    run(holds.admit(wish(fund, 1)))
    left = holds.threads.submit(lambda: connections["default"].connection).result()
    assert left is None


# --- epochs ----------------------------------------------------------------------------------------------------------


def test_only_one_of_two_moves():
    number, where = database.join("one")
    assert (number, where) == (0, "redis")
    assert database.move(0, 1, "database")
    assert not database.move(0, 1, "redis")
    assert database.current() == (1, "database")
    assert CounterEpoch.objects.count() == 1


def test_a_move_to_the_database_begins_with_no_holds(holds, fund):
    run(holds.admit(wish(fund, 1)))
    database.move(holds.epoch, 7, "redis")
    assert rows()
    database.move(7, 8, "database")
    assert not rows()


def test_who_has_come_how_far():
    database.join("one")
    database.move(0, 1, "redis")
    database.join("two")
    assert {name: epoch for name, (epoch, _) in database.others("three").items()} == {"one": 0, "two": 1}
    assert database.acknowledge("one", 1)
    CounterWorker.objects.filter(name="two").update(seen_at=timezone.now() - timedelta(seconds=100))
    heard = database.others("three")
    assert heard["one"] == (1, pytest.approx(0, abs=5))
    assert heard["two"] == (1, pytest.approx(100, abs=5))
    assert list(database.others("one")) == ["two"]
    database.forget(["one"])
    assert not database.acknowledge("one", 1)


def test_a_move_waits_for_an_admission(holds, fund):
    """Else it could take place after the new store was told of everything."""
    moved = threading.Event()

    def move():
        database.in_database(database.move, 0, 1, "redis")
        moved.set()

    mover = threading.Thread(target=move)
    with transaction.atomic():
        database._must_be(0)
        mover.start()
        assert not moved.wait(0.2)
    mover.join(5)
    assert moved.is_set()
