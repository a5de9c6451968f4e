"""Several `Counters` in one process stand for the workers; their journals are played."""

import asyncio
import os
import random
import signal
import threading
import time
from contextlib import suppress
from decimal import Decimal

import pytest
from django.db import OperationalError, connection, transaction

from accounts import credits
from accounts.credits import Charge, Fund
from accounts.keys import Limit
from accounts.models import Account
from proxy.counters import database, failover
from proxy.counters.base import Grant, LimitReached, NotAffordable, Unreachable, Wish
from proxy.counters.database import in_database
from proxy.counters.failover import Counters, Times, worker_name
from proxy.models import CounterEpoch, CounterWorker, Hold
from tests.processes import free_port, wait_for
from tests.services import Redis

# Threads see what is written; only these apps' tables are emptied afterwards, which is quicker.
pytestmark = pytest.mark.django_db(
    transaction=True, available_apps=["django.contrib.auth", "django.contrib.contenttypes", "accounts", "proxy"]
)
USD = 10**9  # nanodollars
AT_ONCE = Times(away=0, back=0, short=0, begun=0, quiet=100, patience=5, hope=0)


class Machine:
    """Where the workers run: who lives, and what the killed ones have left in their journals."""

    def __init__(self):
        self.alive = set()
        self.left = {}  # name → [(request id, nanodollars, funds)]
        self._adopting = threading.Lock()

    def remains(self, name):
        return name in self.alive or name in self.left

    def adopt(self, worker):
        if not self._adopting.acquire(blocking=False):
            return  # another is at it
        try:
            for name, requests in list(self.left.items()):
                for request in requests:
                    worker.counters.held(*request)
                for request in requests:
                    in_database(worker.land, *request)
                del self.left[name]
        finally:
            self._adopting.release()


class Worker:
    """A process with an event loop. `watch` is called by the test, or by itself after `start`."""

    def __init__(self, machine, url, times=AT_ONCE):
        self.machine = machine
        self.name = worker_name()
        machine.alive.add(self.name)
        self.counters = Counters(url, self.name, lambda: machine.adopt(self), machine.remains, times)
        self.loop = asyncio.new_event_loop()
        self._begin_loop()
        self._stop = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def start(self):
        self._watching.start()

    def _watch(self):
        while not self._stop.wait(0.05):
            self.counters.watch()
        connection.close()

    def stop_watching(self):
        self._stop.set()
        if self._watching.is_alive():
            self._watching.join()

    def _begin_loop(self):
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def _end_loop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def kill(self, journal=list):
        """As by kill -9: what it has begun in the database and in Redis is done, it does nothing more."""
        self.stop_watching()
        self._end_loop()
        if left := list(journal()):
            self.machine.left[self.name] = left
        self.machine.alive.discard(self.name)

    def close(self):
        self.stop_watching()
        if not self.loop.is_running():
            self._begin_loop()
        self.do(self._close())
        self._end_loop()
        self.loop.close()

    async def _close(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.counters.close()
        await self.loop.shutdown_default_executor()

    def begin(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def do(self, coroutine):
        return self.begin(coroutine).result(15)

    def admit(self, fund, amount, name="r", **more):
        return self.do(self.counters.admit(wish(fund, amount, name, **more)))

    def settle(self, name, charge):
        self.do(self._settle(name, charge))

    async def _settle(self, name, charge):
        self.counters.settle(name, charge, None)

    def land(self, request_id, charge, funds):
        """As the journal does."""
        with transaction.atomic():
            entry = Charge(request_id, int(funds[0][1:]), 0, charge * 1000, time.time(), metered=True)
            amounts = credits.charge([entry], funds)
            database._release([request_id])
        self.counters.landed([request_id], amounts)


def wish(fund, amount, name="r", least=None, **more):
    return Wish(name, funds=(fund,), amount=amount, least=amount if least is None else least, **more)


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def own_redis(tmp_path):
    """One to be broken."""
    redis = OwnRedis(tmp_path)
    redis.start()
    yield redis
    redis.stop()


class OwnRedis(Redis):
    def stop(self):
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self._process.stop(signal.SIGKILL)
            self._process = None

    def restart(self):
        self.stop()
        self.start()

    def signal(self, number):
        os.kill(self._process.pid, number)


@pytest.fixture
def make_worker(machine, own_redis, transactional_db):
    made = []

    def make(url=own_redis.url, **options):
        made.append(Worker(machine, url, **options))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def fund(transactional_db):
    """Of an account with one USD."""
    account = Account.objects.create(name="tests", billing="prepaid")
    credits.grant(account, Decimal(1))
    return Fund(f"a{account.pk}", 0)


def turn(*workers, times=3):
    """Everybody's watch, in turn: so often that a move comes to its end."""
    for _ in range(times):
        for worker in workers:
            worker.counters.watch()


@pytest.fixture
def two(make_worker):
    workers = make_worker(), make_worker()
    turn(*workers)
    return workers


def refuses(worker, fund, amount, name="refused"):
    """What is available, and held by others."""
    with pytest.raises(NotAffordable) as caught:
        worker.admit(fund, amount, name)
    return caught.value.available, caught.value.held


def store():
    return CounterEpoch.objects.get().store


# --- in Redis --------------------------------------------------------------------------------------------------------


def test_it_works(two, fund):
    one, other = two
    assert one.counters.degraded == other.counters.degraded == ""
    assert one.admit(fund, USD // 4 * 3).held == USD // 4 * 3
    assert refuses(other, fund, USD) == (USD // 4, USD // 4 * 3)
    assert one.do(one.counters.adjust(wish(fund, USD // 2))).held == USD // 2
    one.settle("r", USD // 10)
    assert refuses(other, fund, USD) == (USD - USD // 10, USD // 10)
    one.land("r", USD // 10, [fund.name])
    assert refuses(other, fund, USD) == (USD - USD // 10, 0)


def test_without_funds_nobody_waits(make_worker, fund):
    """Nothing is known yet: not even where the counters are."""
    worker = make_worker()
    limits = (Limit("key:7", "rpm", 1),)
    assert worker.do(worker.counters.admit(Wish("r", limits))).requests.remaining == 0
    with pytest.raises(LimitReached):
        worker.do(worker.counters.admit(Wish("s", limits)))
    assert worker.do(worker.counters.left(limits)).requests.remaining == 0
    assert worker.do(worker.counters.admit(Wish("t"))) == Grant()


def test_a_process_that_joins_goes_on_where_the_others_are(two, make_worker, fund):
    two[0].admit(fund, USD)
    late = make_worker()
    turn(late, times=1)
    assert refuses(late, fund, 1) == (0, USD)
    assert CounterEpoch.objects.get().number == 1


def test_a_mover_that_died_before_it_began(two, fund):
    """The row is set, Redis is as it was."""
    two[0].admit(fund, USD // 2)
    database.move(1, 2, "redis")
    turn(*two, times=4)
    assert CounterEpoch.objects.get().number == 3
    assert refuses(two[1], fund, USD) == (USD // 2, USD // 2)


# --- Redis goes, and comes -------------------------------------------------------------------------------------------


def test_redis_is_killed(two, fund, own_redis):
    one, other = two
    one.admit(fund, USD // 2)
    one.settle("r", USD // 4)
    other.admit(fund, USD // 4, "s")
    own_redis.stop()
    turn(*two)
    assert "Redis is away" in one.counters.degraded
    assert refuses(one, fund, USD) == (USD // 2, USD // 2)
    assert other.admit(fund, USD // 2, "t").held == USD // 2
    other.settle("s", None)
    one.land("r", USD // 4, [fund.name])
    wait_for(lambda: list(Hold.objects.values_list("request_id", "amount")) == [("t", USD // 2)])


def test_redis_comes_back(two, fund, own_redis):
    one, other = two
    one.admit(fund, USD // 2)
    own_redis.stop()
    turn(*two)
    other.admit(fund, USD // 4, "s")
    own_redis.start()
    turn(*two)
    assert store() == "redis"
    assert one.counters.degraded == other.counters.degraded == ""
    assert refuses(one, fund, USD) == (USD // 4, USD // 4 * 3)
    one.settle("r", None)
    other.settle("s", None)
    turn(*two)
    assert one.admit(fund, USD, "t").held == USD


@pytest.mark.parametrize("how", ["restarted", "emptied"])
def test_redis_has_forgotten_everything(two, fund, own_redis, how):
    one, other = two
    one.admit(fund, USD // 2)
    if how == "restarted":
        own_redis.restart()
    else:
        one.counters._shared._line.call(lambda _: ("FLUSHALL",))
    asked = other.begin(other.counters.admit(wish(fund, USD, "s", least=1)))
    turn(*two, times=4)
    assert asked.result(5).held == USD // 2
    assert store() == "redis"


def test_what_it_knew_before_is_no_truth_any_more(two, fund, own_redis):
    """It slept while the others moved on; what has landed meanwhile would be spent twice."""
    one, other = two
    one.admit(fund, USD // 2)
    own_redis.signal(signal.SIGSTOP)
    turn(one, other, one, times=1)
    assert store() == "database"
    one.settle("r", USD // 2)
    one.land("r", USD // 2, [fund.name])
    own_redis.signal(signal.SIGCONT)
    turn(*two)
    assert store() == "redis"
    assert refuses(other, fund, USD) == (USD // 2, 0)


def test_redis_sleeps_and_nobody_could_move(two, fund, own_redis, monkeypatch):
    """The database is away too: it goes on with what it knew."""
    one, _other = two
    one.admit(fund, USD // 2)
    with monkeypatch.context() as patch:
        patch.setattr(database, "current", _away)
        own_redis.signal(signal.SIGSTOP)
        asked = one.begin(one.counters.admit(wish(fund, 1, "s")))
        with pytest.raises(TimeoutError):
            asked.result(0.1)
        turn(one, times=2)
        with pytest.raises(Unreachable):
            asked.result(1)
        assert "database" in one.counters.degraded
        own_redis.signal(signal.SIGCONT)
        turn(*two)
        assert refuses(one, fund, USD) == (USD // 2, USD // 2)
    turn(*two)
    assert CounterEpoch.objects.get().number == 1
    assert one.counters.degraded == ""


def test_a_request_just_as_redis_falls_silent(make_worker, fund, own_redis):
    """As in production: no time is shortened."""
    worker = make_worker(times=Times())
    worker.start()
    worker.admit(fund, USD // 2)
    own_redis.signal(signal.SIGSTOP)
    begun = time.monotonic()
    limited = worker.begin(worker.counters.admit(Wish("l", (Limit("key:7", "rpm", 9),))))
    assert worker.admit(fund, USD, "s", least=1).held == USD // 2
    assert limited.result(5).requests.remaining == 8
    assert time.monotonic() - begun < 3
    assert Hold.objects.count() == 2


def test_a_redis_that_answers_and_takes_nothing(two, fund, own_redis):
    one, _ = two
    for worker in two:
        worker.counters._times = AT_ONCE._replace(back=100)
    one.admit(fund, USD // 2)
    one.counters._shared._line.call(lambda _: ("CONFIG", "SET", "maxmemory", "1"))
    asked = one.begin(one.counters.admit(wish(fund, USD, "s", least=1)))
    wait_for(lambda: turn(*two, times=1) or asked.done(), 5)
    assert asked.result().held == USD // 2
    assert Hold.objects.count() == 2


def test_two_that_see_different_things(two, make_worker, fund):
    """One has no way to Redis: all stay in the database, and ask Redis ever more seldom."""
    blind = make_worker(f"redis://127.0.0.1:{free_port()}/0", times=AT_ONCE._replace(short=100, back=0.4, patience=60))
    for worker in two:
        worker.counters._times = blind.counters._times
    two[0].admit(fund, USD // 2)
    turn(blind, *two)
    assert store() == "database"
    assert refuses(blind, fund, USD) == (USD // 2, USD // 2)
    wait_for(lambda: turn(blind, *two, times=1) or two[0].counters._short_epochs >= 2)
    asked = two[1].begin(two[1].counters.admit(wish(fund, USD, "s")))
    wait_for(lambda: turn(blind, *two, times=1) or asked.done())
    with pytest.raises(NotAffordable):
        asked.result()


def test_what_the_ledger_said_before_an_epoch_is_not_its_beginning(two, fund, own_redis):
    """It may lack what has been charged since, and is held nowhere any more."""
    one, other = two
    before = credits.read([fund.name])
    one.admit(fund, USD // 2)
    one.settle("r", USD // 2)
    one.land("r", USD // 2, [fund.name])
    own_redis.restart()
    turn(*two)
    other.counters.learn(before)
    assert refuses(other, fund, USD) == (USD // 2, 0)


def test_a_charge_that_lands_while_the_ledger_is_being_read(two, fund, own_redis, monkeypatch):
    """What was read is too old then: it is read again."""
    one, other = two
    one.admit(fund, USD // 2)
    one.settle("r", USD // 2)
    own_redis.restart()
    turn(*two)
    first = []

    def read(names):
        found = credits.read(names)
        if not first:
            first.append(found)
            one.land("r", USD // 2, [fund.name])
        return found

    monkeypatch.setattr(failover, "read", read)
    assert refuses(other, fund, USD) == (USD // 2, 0)


# --- workers come and go ---------------------------------------------------------------------------------------------


def test_a_process_killed_in_the_middle_of_a_move(two, fund, machine, own_redis):
    one, other = two
    other.admit(fund, USD // 2, "s")
    other.kill(lambda: [("s", USD // 4, [fund.name])])
    own_redis.stop()
    turn(one)
    assert machine.left == {}
    assert refuses(one, fund, USD) == (USD - USD // 4, 0)
    assert list(CounterWorker.objects.values_list("name", flat=True)) == [one.name]


def test_a_process_that_stands_still_is_waited_for(two, fund, own_redis):
    """It may go on at any moment, with what it holds."""
    one, other = two
    other.admit(fund, USD, "s")
    own_redis.stop()
    turn(one)
    assert other.name in one.counters.degraded
    asked = one.begin(one.counters.admit(wish(fund, 1)))
    turn(one)
    assert not asked.done()
    turn(other, one, times=1)
    with pytest.raises(NotAffordable):
        asked.result(5)


def test_who_was_not_told_of_a_move_does_no_harm(two, fund, own_redis):
    """It stands still while the others are written in the database; Redis is there again when it goes on."""
    one, other = two
    own_redis.stop()
    turn(one)
    own_redis.start()
    asked = other.begin(other.counters.admit(wish(fund, USD, "s")))
    waits = one.begin(one.counters.admit(wish(fund, USD, "r")))
    with pytest.raises(TimeoutError):
        asked.result(0.2)
    turn(*two, times=5)
    answers = sorted(type(each.exception(5)).__name__ for each in (asked, waits))
    assert answers == ["NoneType", "NotAffordable"]


def test_a_process_that_joins_in_the_middle_of_a_move(two, make_worker, fund, own_redis):
    two[0].admit(fund, USD)
    own_redis.stop()
    turn(two[1], times=2)
    late = make_worker()
    turn(late, times=2)
    assert two[0].name in late.counters.degraded
    turn(two[0], late, times=1)
    assert refuses(late, fund, 1) == (0, USD)


def test_who_is_beyond_an_epoch_was_perhaps_never_in_it(two, fund):
    """It has told the next store what it holds, and not this one."""
    one, other = two
    other.admit(fund, USD)
    database.move(1, 2, "redis")
    one.counters._shared.begin(2)
    turn(one)
    database.move(2, 3, "database")
    turn(other)
    one.counters._open()  # it had looked at the number just before
    assert other.name in one.counters.degraded
    turn(*two)
    assert refuses(one, fund, 1) == (0, USD)


def test_who_was_written_off_has_everybody_begin_anew(two, fund):
    one, other = two
    one.admit(fund, USD // 2)
    database.forget([one.name])
    one.counters._beat = 0
    turn(*two, times=4)
    assert CounterEpoch.objects.get().number == 2
    assert refuses(other, fund, USD) == (USD // 2, USD // 2)


def test_rows_of_who_has_gone_are_forgotten(two):
    one, other = two
    other.kill()
    CounterWorker.objects.filter(name=other.name).update(seen_at="2020-01-01T00:00Z")
    CounterWorker.objects.create(name="elsewhere-1-1", seen_at="2020-01-01T00:00Z")
    one.counters.renew()
    assert list(CounterWorker.objects.values_list("name", flat=True)) == [one.name]


# --- the database ----------------------------------------------------------------------------------------------------


def _away(*_):
    raise OperationalError("away")


def test_the_database_is_away(two, fund, monkeypatch):
    one, _ = two
    one.admit(fund, USD // 2)
    with monkeypatch.context() as patch:
        patch.setattr(database, "current", _away)
        turn(*two)
        assert one.admit(fund, USD // 4, "s").held == USD // 4
        assert "database" in one.counters.degraded
    turn(*two)
    assert one.counters.degraded == ""


def test_both_are_away(two, fund, own_redis, monkeypatch):
    one, _ = two
    one.admit(fund, USD // 2)
    limits = (Limit("key:7", "rpm", 1),)
    with monkeypatch.context() as patch:
        patch.setattr(database, "current", _away)
        own_redis.stop()
        asked = one.begin(one.counters.admit(wish(fund, 1, "s")))
        turn(*two)
        with pytest.raises(Unreachable):
            asked.result(1)
        assert one.do(one.counters.admit(Wish("l", limits))).requests.remaining == 0
    turn(*two)
    assert one.admit(fund, USD, "s", least=1).held == USD // 2


def test_a_database_that_does_not_answer_holds_nobody_up(two, fund, monkeypatch):
    one, _other = two
    one.counters._times = AT_ONCE._replace(answer=0.05)
    come = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(database, "current", lambda: come.wait(5) and _away())
        begun = time.monotonic()
        turn(one)
        assert time.monotonic() - begun < 1
        assert one.admit(fund, 1).held == 1
        come.set()
    turn(*two)
    wait_for(lambda: turn(one, times=1) or one.counters.degraded == "")


def test_what_could_not_be_told_is_told_later(two, fund, monkeypatch):
    """A charge lands just as Redis does not take it."""
    one, other = two
    one.admit(fund, USD // 2)
    one.settle("r", USD // 2)
    with monkeypatch.context() as patch:
        patch.setattr(one.counters._shared, "landed", _nothing)
        one.land("r", USD // 2, [fund.name])
    one.counters.held("s", 7, [fund.name])
    turn(*two)
    assert refuses(other, fund, USD) == (USD // 2 - 7, 7)


def _nothing(*_):
    raise Unreachable


def test_a_name_says_where_it_lives():
    one, other = worker_name(), worker_name()
    assert one != other
    assert one.split("-")[0] == other.split("-")[0]
    assert len(one) <= CounterWorker._meta.get_field("name").max_length


# --- all at once -----------------------------------------------------------------------------------------------------


class Traffic:
    """Requests of one worker, one after the other in several tasks: what they were charged."""

    def __init__(self, worker, fund, seed):
        self._worker = worker
        self._fund = fund
        self.funds = [fund.name]
        self._chance = random.Random(seed)
        self.charged = {}
        self.running = {}  # id → what it is charged if the process is killed
        self.over = False

    @property
    def journal(self):
        return {**self.charged, **self.running}

    async def run(self, tasks):
        await asyncio.gather(*(self._serve(task) for task in range(tasks)))

    async def _serve(self, task):
        for number in range(10_000):
            if self.over:
                return
            with suppress(NotAffordable, Unreachable):
                await self._request(f"{self._worker.name}-{task}-{number}")
            await asyncio.sleep(0.002)

    async def _request(self, name):
        worker, amount = self._worker, self._chance.randrange(1, USD // 100)
        held = (await worker.counters.admit(wish(self._fund, amount, name, least=1))).held
        self.running[name] = held
        for _ in range(self._chance.randrange(3)):
            await asyncio.sleep(0.01)
            with suppress(NotAffordable, Unreachable):
                asked = wish(self._fund, held + USD // 250, name, least=held + 1)
                held = self.running[name] = (await worker.counters.adjust(asked)).held
        charge = self._chance.randrange(held + 1)
        self.charged[name] = charge
        del self.running[name]
        worker.counters.settle(name, charge, None)
        if charge:
            await asyncio.to_thread(in_database, worker.land, name, charge, self.funds)


def test_no_fund_is_overspent_whatever_happens(make_worker, own_redis, machine, fund):
    """Redis is killed, emptied and stopped, and a process is killed, while four ask for more than there is."""
    times = Times(away=0.1, back=0.2, short=0, begun=0.3, quiet=1, beat=0.2)
    workers = [make_worker(times=times) for _ in range(4)]
    traffics = [Traffic(worker, fund, place) for place, worker in enumerate(workers)]
    for worker in workers:
        worker.start()
    running = [worker.begin(traffic.run(6)) for worker, traffic in zip(workers, traffics, strict=True)]
    _break_everything(own_redis, workers[0], traffics[0])
    for traffic in traffics:
        traffic.over = True
    for each in running[1:]:
        each.result(60)
    wait_for(lambda: not machine.left and not workers[1].counters.degraded)
    charges = {name: charge for traffic in traffics for name, charge in traffic.journal.items()}
    spent = USD - credits.read([fund.name])[fund.name][1]
    assert spent == sum(charges.values())
    assert len(charges) > 20, "there was traffic"
    assert spent <= USD
    assert refuses(workers[1], fund, 2 * USD) == (USD - spent, 0)  # nothing is held that nobody uses


def _break_everything(redis, victim, traffic):
    time.sleep(0.3)
    victim.counters._shared._line.call(lambda _: ("FLUSHALL",))
    time.sleep(0.3)
    redis.restart()
    time.sleep(0.3)
    redis.signal(signal.SIGSTOP)
    time.sleep(0.8)
    victim.kill(lambda: [(name, charge, traffic.funds) for name, charge in traffic.journal.items() if charge])
    time.sleep(0.2)
    redis.signal(signal.SIGCONT)
    time.sleep(0.3)
    redis.stop()
    time.sleep(0.3)
    redis.start()
    time.sleep(0.5)
