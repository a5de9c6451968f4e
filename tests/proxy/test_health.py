"""Who is not to be asked, and who may try again: by a clock of the tests' own, in one process and over several."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from models_catalog.snapshot import Route
from proxy.errors import ProviderFault
from proxy.health import ERRORS, PASSES, PAUSES, REFUSED, RESTS, THROTTLED, TRIAL, Health, Out
from proxy.health_window import FAILURES, OTHERS
from tests.processes import free_port
from tests.proxy.inside import model, provider, snapshot

MODEL = model("m", provider(), provider("second"))
ROUTE, OTHER = MODEL.routes
SAME_PLACE = Route(ROUTE.provider, "another-model")
EPOCH = 1_800_000_000.0


class Clock:
    def __init__(self, now: float = EPOCH) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class World:
    """A process, and its time."""

    def __init__(self, clock: Clock | None = None, redis_url: str = "") -> None:
        self.clock = clock or Clock()
        self.health = Health(redis_url, clock=self.clock)

    def out(self, route: Route = ROUTE) -> Out | None:
        return self.health.is_out(route, self.clock.now)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.health.share()

    def answers(self, times: int = 1, route: Route = ROUTE, account: int = 0) -> None:
        for _ in range(times):
            assert self.health.begins(route, last_resort=True)
            self.health.answers(route, 1.0, stream=False, account=account)
            self.health.ends(route, None, account=account)

    def begins_well(self, times: int = 1) -> None:
        """Streams whose clients leave after the first word."""
        for _ in range(times):
            assert self.health.begins(ROUTE, last_resort=True)
            self.health.answers(ROUTE, 1.0, stream=True)
            self.health.leaves(ROUTE)

    def fails(self, times: int = 1, fault: ProviderFault | None = None, route: Route = ROUTE, account: int = 0) -> None:
        for _ in range(times):
            assert self.health.begins(route, last_resort=True)
            self.health.ends(route, fault or failure(), account=account)

    def passes(self, times: int = 1) -> None:
        for _ in range(times):
            self.health.passes([ROUTE])

    def opens(self) -> None:
        """The way is out, and then half-open."""
        self.fails(FAILURES)
        self.passes(PASSES)
        self.wait(PAUSES[0])


@pytest.fixture
def world() -> World:
    return World()


def failure(status: int | None = 503, retry_after: float | None = None, reason: str = "status") -> ProviderFault:
    return ProviderFault(reason, "it failed", status=status, retry_after=retry_after)


def near(moment: float) -> object:
    return pytest.approx(moment, rel=0, abs=0.001)


def refusal(status: int) -> ProviderFault:
    return ProviderFault("status", "it refuses", status=status, is_credential=True)


def test_it_works(world):
    world.fails(4)
    assert world.out() is None
    world.fails(1, failure(529))
    assert world.out() == (EPOCH + 5, ERRORS, 529, EPOCH, 1)
    assert world.out(OTHER) is None
    assert world.out(SAME_PLACE) is None
    world.opens()
    assert world.out() is None
    world.answers()
    assert world.health.out == {}


# --- the window ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("good", "bad", "is_out"), [(0, 4, False), (5, 5, True), (6, 5, False), (30, 29, False)])
def test_five_failures_that_are_half_of_all(world, good, bad, is_out):
    world.answers(max(0, good - bad))
    for _ in range(bad):
        world.answers(min(1, good))
        world.fails(1)
    assert (world.out() is not None) is is_out
    if not is_out:
        assert world.health.window(ROUTE.way) == (bad, good + bad)


@pytest.mark.parametrize(
    "fault",
    [
        failure(None, reason="connect"),
        failure(None, reason="timeout"),
        failure(None, reason="broken"),
        failure(None, reason="malformed"),
        failure(None, reason="error"),
        failure(500),
        failure(404),
        failure(400),
        failure(503, retry_after=0),
        failure(500, retry_after=9),
        failure(404, retry_after=9),
        ProviderFault("status", "too many in flight", status=402, retry_after=9, is_credential=True),
    ],
    ids=lambda fault: f"{fault.reason}-{fault.status}",
)
def test_what_counts_as_a_failure(world, fault):
    world.fails(5, fault)
    assert world.out() == (EPOCH + 5, ERRORS, fault.status or 0, EPOCH, 1)


def test_five_failures_one_after_the_other(world):
    world.answers(1000)
    world.fails(4)
    world.answers(1)
    world.fails(4)
    assert world.out() is None
    world.fails(1)
    assert world.out() is not None
    world.answers(1)
    world.fails(4)
    assert world.out() is None


def test_streams_that_break_after_the_first_word(world):
    for _ in range(5):
        assert world.health.begins(ROUTE)
        world.health.answers(ROUTE, 1.0, stream=True)
        world.health.ends(ROUTE, failure(None, reason="broken"))
    assert world.out() is not None


def test_a_good_route_whose_clients_do_not_hear_it_out(world):
    for _ in range(20):
        world.begins_well(10)
        world.fails(1)
        world.clock.now += 1
    assert world.health.window(ROUTE.way) == (20, 200)
    assert world.out() is None
    world.fails(4)
    world.begins_well()
    world.fails(4)
    assert world.out() is None


def test_an_old_stream_does_not_end_a_row_of_failures(world):
    world.answers(100)
    for _ in range(8):
        assert world.health.begins(ROUTE)
    world.fails(2)
    world.clock.now += 3
    for _ in range(3):
        world.health.ends(ROUTE, None, took=8)
        world.fails(1)
    assert world.out() is not None


# --- one account -----------------------------------------------------------------------------------------------------


def test_one_account_does_not_take_it_from_the_others(world):
    """What it asks may be what fails."""
    for _ in range(20):
        world.answers(account=2)
        world.fails(50, account=1)
        world.clock.now += OTHERS - 0.1
    assert world.out() is None
    world.answers(account=1)
    world.fails(50, account=1)
    assert world.out() is None, "it was answered itself since"
    world.clock.now += 0.1
    world.fails(1, account=1)
    assert world.out() is not None


def test_the_only_account(world):
    world.answers(1, account=1)
    world.fails(5, account=1)
    assert world.out() is not None


def test_account_0_is_one_too(world):
    world.answers(account=0)
    world.fails(50, account=1)
    assert world.out() is None
    world.fails(4, account=0)
    assert world.out() is not None, "two fail"


def test_several_accounts_fail(world):
    world.answers(100, account=3)
    world.fails(4, account=1)
    world.answers(1, account=3)
    world.fails(4, account=1)
    assert world.out() is None
    world.fails(1, account=2)
    assert world.out() is not None


def test_one_failure_of_another_account_does_not_tip_it_for_all(world):
    """Its own answers since say that it is well."""
    world.answers(100, account=2)
    world.fails(1, account=2)
    world.answers(1, account=2)
    world.fails(50, account=1)
    assert world.out() is None


def test_one_account_may_be_told_that_the_key_is_wrong(world):
    world.answers(account=2)
    world.fails(1, refusal(401), account=1)
    assert world.out() is not None


def test_failures_of_another_minute_are_not_counted_on(world):
    world.answers(20)
    world.fails(4)
    world.wait(70)
    world.fails(1)
    assert world.out() is None


def test_the_window_is_a_minute(world):
    world.fails(4)
    world.wait(49)
    assert world.health.window(ROUTE.way) == (4, 4)
    world.wait(12)
    assert world.health.window(ROUTE.way) == (0, 0)
    world.fails(4)
    assert world.out() is None


def test_after_a_long_pause_nothing_is_left_of_it(world):
    world.answers(1000)
    world.wait(86400)
    world.fails(5)
    assert world.out() is not None


def test_a_clock_that_is_put_back(world):
    world.fails(4)
    world.clock.now -= 3600
    world.fails(4)
    assert world.health.window(ROUTE.way) == (4, 4)
    world.fails(1)
    assert world.out() is not None
    world.clock.now -= 3600
    world.health.share()
    assert world.health.out[ROUTE.way].until == world.clock.now


def test_nothing_is_said_by_who_left(world):
    for _ in range(10):
        assert world.health.begins(ROUTE)
        world.health.leaves(ROUTE)
    world.fails(10, failure(None, reason="busy"))
    assert world.health.window(ROUTE.way) == (0, 0)
    assert world.health.busy(ROUTE.way) == 0


# --- out, and back ---------------------------------------------------------------------------------------------------


def test_out_for_longer_each_time(world):
    world.opens()
    for times, pause in ((2, 10), (3, 20), (4, 40), (5, 60), (6, 60)):
        world.fails()
        assert world.health.out[ROUTE.way] == (world.clock.now + pause, ERRORS, 503, EPOCH, times)
        world.passes(PASSES)
        world.wait(pause - 0.1)
        assert world.out() is not None
        world.wait(0.1)
        assert world.out() is None
    world.answers()
    world.fails(5)
    assert world.health.out[ROUTE.way].times == 1, "not in a row any more"


def test_a_trial_after_a_hundred_others_or_a_minute(world):
    world.fails(5)
    world.wait(6)
    world.passes(99)
    assert world.out() is not None
    world.passes(1)
    assert world.out() is None
    world.fails(1)
    assert world.health.out[ROUTE.way].times == 2
    world.wait(TRIAL - 0.1)
    assert world.out() is not None
    world.wait(0.1)
    assert world.out() is None


def test_plans_change_nothing(world):
    world.fails(5)
    world.wait(6)
    for _ in range(1000):
        assert world.out() is not None


def test_one_trial_at_a_time(world):
    world.opens()
    assert world.health.begins(ROUTE)
    assert world.out() is not None
    assert not world.health.begins(ROUTE)
    assert world.health.begins(ROUTE, last_resort=True), "nothing else is left"
    world.health.leaves(ROUTE)
    world.wait(TRIAL - 1)
    assert not world.health.begins(ROUTE)
    world.wait(1)
    assert world.health.begins(ROUTE), "it was lost"


def test_the_client_of_a_trial_leaves(world):
    """Else the impatient clients of a provider that is silent would all be its trials."""
    world.opens()
    assert world.health.begins(ROUTE)
    world.clock.now += 3
    world.health.leaves(ROUTE, took=3.1)
    assert world.out() is not None
    world.passes(PASSES - 1)
    assert world.out() is not None
    world.passes(1)
    assert world.out() is None


def test_a_trial_is_won_by_the_first_word(world):
    world.opens()
    assert world.health.begins(ROUTE)
    world.health.answers(ROUTE, 1.0, stream=True, took=1.0)
    assert world.health.out == {}
    assert world.out() is None
    world.fails(4)
    world.health.ends(ROUTE, failure(None, reason="broken"), took=9.0)
    assert world.out().times == 1, "it is one failure of five"


def test_a_first_word_of_what_began_before_it_went_out(world):
    assert world.health.begins(ROUTE)
    world.fails(5)
    world.clock.now += 3
    world.health.answers(ROUTE, 4.0, stream=True, took=4.0)
    assert world.out() is not None


def test_streams_that_began_before_say_nothing_of_now(world):
    for _ in range(8):
        assert world.health.begins(ROUTE)
    world.fails(5)
    world.clock.now += 3
    world.health.ends(ROUTE, None, took=10)
    assert world.out() is not None
    world.wait(2)
    world.passes(PASSES)
    assert world.health.begins(ROUTE)
    world.health.ends(ROUTE, failure(), took=10)
    world.health.leaves(ROUTE, took=10)
    assert world.health.out[ROUTE.way].times == 1
    assert not world.health.begins(ROUTE), "the trial still runs"
    world.health.ends(ROUTE, None, took=0.1)
    assert world.out() is None


def test_it_is_asked_as_the_last_resort(world):
    """Until its time has passed, a failure is no news; an answer is."""
    world.fails(5 + 3)
    assert world.health.out[ROUTE.way] == (EPOCH + 5, ERRORS, 503, EPOCH, 1)
    world.answers()
    assert world.out() is None


def test_what_nobody_wants_to_try_is_in_again(world):
    world.fails(5)
    world.wait(5 + 599)
    assert world.health.out
    world.wait(1)
    assert not world.health.out


# --- 429 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503, 529])
def test_it_rests_for_as_long_as_the_provider_has_said(world, status):
    world.fails(1, failure(status, retry_after=20))
    assert world.out() == (EPOCH + 20, RESTS, status, EPOCH, 1)
    assert world.out(SAME_PLACE) is None
    world.wait(19.9)
    assert world.out() is not None
    world.wait(0.1)
    assert world.out() is None
    assert not world.health.out
    assert world.health.window(ROUTE.way) == (0, 0), "neither good nor bad"


@pytest.mark.parametrize(("status", "most"), [(429, 3600), (503, 60), (529, 60)])
def test_at_most_for_so_long(world, status, most):
    world.fails(1, failure(status, retry_after=10**9))
    assert world.out()[:2] == (EPOCH + most, RESTS)
    world.fails(1, failure(status, retry_after=10**9))
    assert world.out()[:2] == (EPOCH + most, RESTS)


def test_429_without_a_time(world):
    for pause in (1, 2, 4, 8, 16, 30, 30):
        world.fails(1, failure(429))
        assert world.out()[:2] == (world.clock.now + pause, THROTTLED)
        world.wait(pause)
        assert world.out() is None
    world.answers()
    world.fails(1, failure(429))
    assert world.out().until == world.clock.now + 1


def test_a_storm_of_429_counts_as_one(world):
    world.fails(100, failure(429))
    assert world.out()[:2] == (EPOCH + 1, THROTTLED)
    world.fails(1, failure(429, retry_after=7))
    world.fails(1, failure(429, retry_after=5))
    assert world.out()[:2] == (EPOCH + 7, RESTS)
    world.fails(20)
    assert world.out()[:2] == (EPOCH + 7, RESTS), "errors do not bring it back sooner"


def test_a_provider_that_promises_the_next_moment_for_ever(world):
    waits = []
    for _ in range(7):
        world.fails(1, failure(503, retry_after=1))
        waits.append(world.out().until - world.clock.now)
        world.wait(waits[-1])
    assert waits == [1, 1, 1, 8, 16, 30, 30]


def test_a_trial_that_is_told_to_wait(world):
    world.opens()
    world.fails(1, failure(429, retry_after=3))
    assert world.out()[:2] == (world.clock.now + 3, RESTS)
    world.wait(3)
    assert world.out() is None


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "whole_place"),
    [
        (refusal(401), True),
        (refusal(400), True),
        (ProviderFault("error", "it refuses", is_credential=True), True),
        (failure(401), True),
        (refusal(402), False),
        (refusal(403), False),
    ],
    ids=["401", "400", "in a 200", "bare 401", "402", "403"],
)
def test_a_credential_that_is_refused(world, fault, whole_place):
    if not whole_place:
        world.answers(10)
        world.fails(4, fault)
        assert world.out() is None, "it may be the request's fault"
    world.fails(1, fault)
    assert world.out() == (EPOCH + 60, REFUSED, fault.status or 0, EPOCH, 1)
    assert (world.out(SAME_PLACE) is not None) is whole_place
    assert world.out(OTHER) is None


def test_refused_and_failing_by_turns(world):
    """It is not the credential, then."""
    world.fails(4, refusal(403))
    world.fails(1)
    assert world.out()[1] == ERRORS


def test_refused_once_more_after_errors(world):
    world.answers(account=2)
    world.fails(4, refusal(403), account=1)
    world.fails(3, account=1)
    world.clock.now += OTHERS
    world.fails(1, refusal(403), account=1)
    assert world.out()[1] == ERRORS


def test_some_are_refused(world):
    """By what they ask, it seems."""
    for _ in range(5):
        world.answers()
        world.fails(1, refusal(403))
    assert world.out()[1] == ERRORS


def test_a_way_that_is_refused_again(world):
    world.fails(5, refusal(402))
    for status in (402, 500):
        world.wait(TRIAL + world.health.out[ROUTE.way].until - world.clock.now)
        world.fails(1, refusal(402) if status == 402 else failure(status))
    assert world.out()[1:3] == (REFUSED, 500)
    assert world.out().times == 3


def test_it_is_out_for_twice_as_long_each_time(world):
    for times, pause in enumerate((60, 120, 240, 480, 960, 1920, 3600, 3600), 1):
        world.fails(1, refusal(401))
        assert world.out() == (world.clock.now + pause, REFUSED, 401, EPOCH, times)
        world.wait(pause)
        assert world.out() is None
    world.answers(1, SAME_PLACE)
    assert not world.health.out


def test_refused_while_others_are_under_way(world):
    for _ in range(30):
        assert world.health.begins(ROUTE)
    world.clock.now += 5
    for _ in range(10):
        world.health.ends(ROUTE, refusal(401), took=0.1)
    for _ in range(10):
        world.health.ends(ROUTE, None, took=5)
    for _ in range(10):
        world.health.ends(ROUTE, failure(None, reason="broken"), took=5)
    assert world.health.out[ROUTE.provider.place] == (world.clock.now + 60, REFUSED, 401, world.clock.now, 1)
    assert world.health.busy(ROUTE.way) == 0


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (failure(429), 1),
        (failure(503, retry_after=3), 2),
        (refusal(403), 1),
        (failure(404), 1),
        (failure(None, reason="error"), 1),
        (failure(500), 2),
        (failure(None, reason="connect"), 2),
        (refusal(401), 2),
    ],
    ids=["429", "503", "403", "404", "error in a 200", "500", "connect", "401"],
)
def test_what_a_failed_trial_says_of_a_refused_credential(world, fault, times):
    """Nothing, where it is there but has not answered: another request may try later."""
    world.fails(1, refusal(401))
    world.wait(60)
    assert world.health.begins(ROUTE)
    world.health.ends(ROUTE, fault)
    place = world.health.out[ROUTE.provider.place]
    assert (place.why, place.status, place.times) == (REFUSED, 401, times)
    assert world.out(SAME_PLACE) is not None
    world.wait(60 * times)
    assert world.health.begins(SAME_PLACE), "the trial was given back"
    world.health.answers(SAME_PLACE, 1.0, stream=True)
    assert ROUTE.provider.place not in world.health.out


@pytest.mark.parametrize("status", [429, 404, 403, 500])
def test_what_a_failed_trial_says_of_a_provider_that_was_away(world, status):
    world.health.is_away(ROUTE.provider.place, 0)
    world.wait(60)
    world.fails(1, failure(status))
    assert (ROUTE.provider.place in world.health.out) is (status == 500)


def test_the_clients_own_faults_bring_nothing_back(world):
    """`relay` says `leaves` of a 400."""
    world.opens()
    for _ in range(3):
        assert world.health.begins(ROUTE)
        world.health.leaves(ROUTE)
        assert world.out() is not None
        world.passes(PASSES)
        assert world.out() is None
    world.fails(1)
    assert world.out().times == 2


def test_another_key_is_another_place(world):
    world.fails(1, refusal(401))
    assert world.out(replace(ROUTE, provider=replace(ROUTE.provider, api_key="sk-another"))) is None


# --- speed, and what is forgotten ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_speed(world, stream):
    """Of streams by their first word, of the others by the whole."""
    assert world.health.speed(ROUTE.way, stream) is None
    for seconds in (1.0, 2.0):
        assert world.health.begins(ROUTE)
        world.health.answers(ROUTE, seconds, stream=stream)
        assert world.health.busy(ROUTE.way) == 1
        world.health.ends(ROUTE, None)
    assert world.health.speed(ROUTE.way, stream) == pytest.approx(1.2)
    assert world.health.speed(ROUTE.way, not stream) is None
    world.wait(300)
    assert world.health.speed(ROUTE.way, stream) is None
    world.health.answers(ROUTE, 3.0, stream=stream)
    assert world.health.speed(ROUTE.way, stream) == 3.0


def test_heard(world):
    world.answers()
    world.wait(9)
    world.fails()
    world.fails(1, route=SAME_PLACE)
    world.fails(1, route=OTHER)
    places = {ROUTE.provider.place, OTHER.provider.place, "unknown"}
    assert world.health.heard(places) == dict.fromkeys(places, 0) | {ROUTE.provider.place: EPOCH}


def test_ways_that_the_catalog_no_longer_has():
    clock, catalog = Clock(), [snapshot(MODEL)]
    health = Health("", lambda: catalog[0], clock)
    world = World(clock)
    world.health = health
    for route in (ROUTE, OTHER):
        world.fails(5, route=route)
    world.fails(1, refusal(401))
    assert health.begins(ROUTE)
    health.share()
    assert len(health.out) == 3
    catalog[0] = snapshot(model("m", provider("second")))
    health.share()
    assert list(health.out) == [OTHER.way]
    assert health.busy(ROUTE.way) == 1, "it still runs"
    health.leaves(ROUTE)
    health.share()
    assert list(health._ways) == [OTHER.way]
    assert list(health._trials) in ([], [OTHER.way])


def test_without_circuits_nobody_is_out(redis_url):
    world = World()
    world.health = Health(redis_url, clock=world.clock, circuits=False)
    for fault in (failure(), refusal(401), failure(429), failure(429, retry_after=9)):
        world.fails(5, fault)
        world.wait(1)
    world.health.is_away(ROUTE.provider.place, 0)
    assert world.health.out == {}
    assert world.health.window(ROUTE.way) == (5, 5)
    with Redis.from_url(redis_url) as redis:
        assert not redis.keys()


# --- invariants ------------------------------------------------------------------------------------------------------

OUTCOMES = st.sampled_from(["good", "bad", "leaves", "wait"])


@given(st.lists(OUTCOMES, max_size=60))
def test_never_out_by_fewer_than_five_failures(outcomes):
    world, bad = World(), 0
    for outcome in outcomes:
        if outcome == "wait":
            world.wait(4)
        elif world.health.begins(ROUTE):
            if outcome == "leaves":
                world.health.leaves(ROUTE)
            else:
                world.health.ends(ROUTE, failure() if outcome == "bad" else None)
        bad += outcome == "bad"
        assert bad >= FAILURES or not world.health.out


def run(world: World, seconds: float, rate: float, works: Callable[[], bool]) -> tuple[int, int]:
    """Requests that prefer `ROUTE`: how many came, and how many were tried there and failed."""
    came = failed = 0
    for _ in range(round(seconds * rate)):
        world.wait(1 / rate)
        came += 1
        if world.out() is None and world.health.begins(ROUTE):
            fine = works()
            failed += not fine
            world.health.ends(ROUTE, None if fine else failure())
        else:
            world.health.passes([ROUTE])
    return came, failed


@settings(max_examples=20)
@given(st.sampled_from([0.2, 1, 7, 30]), st.integers(60, 600))
def test_a_dead_route_costs_one_in_a_hundred_or_one_a_minute(rate, seconds):
    world = World()
    run(world, 20 / rate, rate, lambda: False)
    came, failed = run(world, seconds, rate, lambda: False)
    assert failed <= max(came / 100, seconds / 60) + 1


@settings(max_examples=20)
@given(st.sampled_from([0.2, 1, 7, 30]), st.integers(1, 300))
def test_it_is_back_within_its_window(rate, dead):
    world = World()
    run(world, dead, rate, lambda: False)
    run(world, 60 + 2 / rate, rate, lambda: True)
    assert not world.health.out


def test_a_third_of_errors_is_borne():
    chance = random.Random(5)
    world = World()
    came, failed = run(world, 600, 5, lambda: chance.random() > 0.3)
    assert failed > 0.15 * came, "it goes on being asked"


# --- several processes -----------------------------------------------------------------------------------------------


class Fleet:
    """Processes with one Redis, and clocks that differ. Redis's own goes with the first one."""

    def __init__(self, url: str, count: int = 2, skew: float = 7.0) -> None:
        self.now = EPOCH
        self.worlds = [World(Clock(EPOCH + skew * number), url) for number in range(count)]
        self.redis = Redis.from_url(url)
        for world in self.worlds:
            world.health._board._ahead = lambda clock=world.clock: self.now - clock.now
        self.share()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for world in self.worlds:
            world.clock.now += seconds
        self.share()

    def share(self) -> None:
        for world in self.worlds * 2:
            world.health.share()

    def trials(self) -> int:
        """How many may try, all asking at once."""
        return sum(world.out() is None and world.health.begins(ROUTE) for world in self.worlds)

    def close(self) -> None:
        self.redis.close()
        for world in self.worlds:
            world.health.close()


@pytest.fixture
def fleet(redis_url):
    found = Fleet(redis_url)
    yield found
    found.close()


def test_shared(fleet):
    """What is out in one is out in all, by the clock of each."""
    first, second = fleet.worlds
    first.fails(5)
    second.fails(1, refusal(401), OTHER)
    fleet.share()
    assert second.health.out[ROUTE.way] == (near(EPOCH + 12), ERRORS, 503, near(EPOCH + 7), 1)
    assert first.health.out[OTHER.provider.place] == (near(EPOCH + 60), REFUSED, 401, near(EPOCH), 1)
    first.answers()
    fleet.share()
    assert list(second.health.out) == [OTHER.provider.place]


def test_heard_by_others(fleet):
    """About: it is told every ten seconds."""
    first, second = fleet.worlds
    place = ROUTE.provider.place
    first.answers()
    fleet.share()
    assert second.health.heard([place, "x"]) == {place: 0, "x": 0}
    fleet.wait(10)
    assert second.health.heard([place, "x"]) == {place: near(EPOCH + 7), "x": 0}
    first.answers()
    fleet.wait(1)
    assert second.health.heard([place])[place] == near(EPOCH + 7)
    fleet.wait(9)
    assert second.health.heard([place])[place] == near(EPOCH + 17)
    assert 800 < fleet.redis.ttl(f"kodna:heard:{place}") <= 900


def test_who_has_only_failed_is_not_heard(redis_url):
    world = World(redis_url=redis_url)
    world.fails()
    world.health.share()
    with Redis.from_url(redis_url) as redis:
        assert not redis.keys("kodna:heard:*")
    world.health.close()


def test_heard_while_redis_is_away(fleet):
    first, _ = fleet.worlds
    first.answers()
    first.health._board._redis.connection_pool = Redis.from_url(f"redis://127.0.0.1:{free_port()}").connection_pool
    assert first.health.heard([ROUTE.provider.place]) == {ROUTE.provider.place: EPOCH}


def test_one_trial_over_all(fleet):
    first, second = fleet.worlds
    first.fails(5)
    fleet.wait(TRIAL)
    assert fleet.trials() == 0, "it must be claimed first"
    second.passes()
    fleet.share()
    assert first.out() is not None
    assert second.out() is None
    first.passes()
    fleet.share()
    assert fleet.trials() == 1
    fleet.share()
    assert fleet.trials() == 0
    second.health.ends(ROUTE, failure())
    fleet.share()
    assert [round(world.health.out[ROUTE.way].until - world.clock.now) for world in fleet.worlds] == [10, 10]
    assert first.health.out[ROUTE.way].times == 2
    fleet.wait(TRIAL)
    first.passes()
    fleet.share()
    assert first.health.begins(ROUTE)
    first.health.ends(ROUTE, None)
    fleet.share()
    assert [world.health.out for world in fleet.worlds] == [{}, {}]
    assert not fleet.redis.keys("kodna:trial:*")


def test_the_process_of_a_trial_dies(fleet):
    first, second = fleet.worlds
    first.fails(5)
    fleet.wait(TRIAL)
    first.passes()
    fleet.share()
    assert first.health.begins(ROUTE)
    second.passes()
    fleet.share()
    assert second.out() is not None
    [lease] = fleet.redis.keys("kodna:trial:*")
    assert 50_000 < fleet.redis.pttl(lease) <= 60_000
    fleet.redis.delete(lease)  # as its time has passed
    second.passes()
    second.health.share()
    assert second.health.begins(ROUTE)


def test_a_process_that_ends_in_order_gives_its_trial_back(fleet):
    first, _ = fleet.worlds
    first.fails(5)
    fleet.wait(TRIAL)
    first.passes()
    fleet.share()
    assert first.health.begins(ROUTE)
    first.health.close()
    assert not fleet.redis.keys("kodna:trial:*")


def test_a_trial_that_is_not_used_is_given_back(fleet):
    first, second = fleet.worlds
    first.fails(5)
    fleet.wait(TRIAL)
    first.passes()
    fleet.share()
    fleet.wait(6)
    second.passes()
    fleet.share()
    assert first.out() is not None
    assert second.out() is None


def test_a_trial_whose_client_left_is_given_back(fleet):
    first, second = fleet.worlds
    first.fails(5)
    fleet.wait(TRIAL)
    first.passes()
    fleet.share()
    assert first.health.begins(ROUTE)
    first.health.leaves(ROUTE)
    second.passes()
    fleet.share()
    fleet.share()
    assert second.out() is None


def test_a_trial_is_not_claimed_for_what_has_changed(fleet):
    """The other one has just put it out again."""
    first, second = fleet.worlds
    first.fails(5)
    fleet.wait(TRIAL)
    second.passes()
    board = second.health._board
    exchange = board.exchange

    def late(*words: object) -> object:
        found = exchange(*words)
        first.fails(1)
        first.health.share()
        return found

    board.exchange = late
    second.health.share()
    assert second.out() is not None
    assert not fleet.redis.keys("kodna:trial:*")


def test_redis_goes_away_and_comes_back(fleet, caplog):
    first, second = fleet.worlds
    first.fails(5)
    fleet.share()
    away = f"redis://127.0.0.1:{free_port()}"
    pools = [world.health._board._redis.connection_pool for world in fleet.worlds]
    for world in fleet.worlds:
        world.health._board._redis.connection_pool = Redis.from_url(away).connection_pool
    fleet.wait(TRIAL)
    assert fleet.trials() == 2, "each by itself"
    first.health.ends(ROUTE, failure())
    second.health.ends(ROUTE, None)
    second.fails(1, refusal(401), OTHER)
    fleet.share()
    assert [len(world.health.out) for world in fleet.worlds] == [1, 1]
    fleet.redis.flushdb()
    for world, pool in zip(fleet.worlds, pools, strict=True):
        world.health._board._redis.connection_pool = pool
    fleet.share()
    names = {ROUTE.way, OTHER.provider.place}
    assert [set(world.health.out) <= names and OTHER.provider.place in world.health.out for world in fleet.worlds]
    assert set(first.health.out) == set(second.health.out)
    said = [record.message for record in caplog.records]
    assert sum("not shared" in words for words in said) == 2, "one line of each"
    assert sum("shared again" in words for words in said) == 2


def test_words_of_another_release_are_passed_over(fleet):
    fleet.redis.hset("kodna:health", mapping={"1.0.x/m": b"?", "1.0.y/m": b"\x91\x01"})
    fleet.share()
    assert fleet.worlds[0].health.out == {}


def test_what_another_process_has_of_an_older_catalog(redis_url):
    """It is not known here: it is nobody's to be asked. It stays for those who know it."""
    clock = Clock()
    other, health = World(clock, redis_url), Health(redis_url, lambda: snapshot(model("m", provider("second"))), clock)
    other.fails(5)
    other.fails(5, route=OTHER)
    other.health.share()
    health.share()
    other.health.share()
    assert list(health.out) == [OTHER.way]
    assert len(other.health.out) == 2
    other.health._board.close()  # it is killed
    ahead = health._board._ahead()
    health._board._ahead = lambda: ahead
    clock.now += 2 * 3600
    health.share()
    health.share()
    with Redis.from_url(redis_url) as redis:
        assert not redis.hkeys("kodna:health"), "it does not stay for ever"
    health.close()


STEPS = st.tuples(st.integers(0, 2), st.sampled_from(["ask", "good", "bad", "leaves", "share", "wait"]))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=50))
def test_never_two_trials_at_once(redis_url, steps):
    """Whatever three processes do, in whatever order."""
    fleet = Fleet(redis_url, 3)
    fleet.redis.flushdb()
    fleet.worlds[0].fails(5)
    fleet.wait(TRIAL)
    trying: list[World] = []
    for number, step in steps:
        world = fleet.worlds[number]
        if step == "wait":
            fleet.wait(5)
            continue
        if step == "share":
            world.health.share()
        elif step == "ask":
            world.passes(PASSES)
            is_out = ROUTE.way in world.health.out
            if world.out() is None and is_out and world.health.begins(ROUTE):
                trying.append(world)
        elif world in trying:
            trying.remove(world)
            if step == "leaves":
                world.health.leaves(ROUTE)
            else:
                world.health.ends(ROUTE, failure() if step == "bad" else None)
        assert len(trying) <= 1
    fleet.close()
