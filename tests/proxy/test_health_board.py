"""What is written into Redis: times by its own clock, leases that one process has."""

import time

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisAway

from proxy.health_board import ERRORS, KEY, Board, Out
from tests.processes import free_port

WAY = "1.0.ab/m"


@pytest.fixture
def board(redis_url):
    found = Board(redis_url)
    yield found
    found.close()


@pytest.fixture
def other(redis_url):
    """On a host whose clock is an hour ahead."""
    found = Board(redis_url, lambda: time.time() + 3600)
    yield found
    found.close()


def out(seconds: float = 5, ahead: float = 0) -> Out:
    now = time.time() + ahead
    return Out(now + seconds, ERRORS, 503, now, 1)


def test_it_works(board, other):
    mine = out()
    until, since = (pytest.approx(moment, rel=0, abs=1) for moment in (mine.until, mine.since))
    assert board.exchange({WAY: mine}, [], {}) == {WAY: (until, ERRORS, 503, since, 1)}
    found = other.exchange({}, [], {})[WAY]
    assert found.until - mine.until == pytest.approx(3600, abs=1)
    assert found.since - mine.since == pytest.approx(3600, abs=1)
    assert other.exchange({}, [], {})[WAY] is found, "it has not changed"
    assert other.exchange({WAY: None}, [], {}) == {}
    assert board.exchange({}, [], {}) == {}


def test_what_was_kept_gives_way_to_what_is_there(board, other):
    board.exchange({WAY: out(60)}, [], {})
    found = other.exchange({}, [], {WAY: out(5, ahead=3600), "new": out(5, ahead=3600)})
    assert found[WAY].until - time.time() == pytest.approx(3660, abs=2)
    assert set(found) == {WAY, "new"}


def test_it_does_not_stay_for_ever(board, redis_url):
    board.exchange({WAY: out()}, [], {})
    with Redis.from_url(redis_url) as redis:
        assert 7000 < redis.ttl(KEY) <= 7200


def test_one_claims_a_trial(board, other):
    assert not board.claim(WAY, 60), "nothing is known of it"
    board.exchange({WAY: out()}, [], {})
    other.exchange({}, [], {})
    assert board.claim(WAY, 60)
    assert not other.claim(WAY, 60)
    other.exchange({}, [WAY], {})
    assert not other.claim(WAY, 60), "only who has it gives it back"
    board.exchange({}, [WAY], {})
    assert other.claim(WAY, 60)


def test_who_has_answered(board, other):
    now = time.time()
    board.hears({"1.0.ab": now, "2.0.ab": now - 60})
    assert other.heard(["1.0.ab", "3.0.ab", "2.0.ab"]) == {
        "1.0.ab": pytest.approx(now + 3600, rel=0, abs=1),
        "2.0.ab": pytest.approx(now + 3540, rel=0, abs=1),
    }
    assert other.heard([]) == {}


def test_one_leads(board, other):
    assert board.leads("probes", 300)
    assert not other.leads("probes", 300)
    assert board.leads("probes", 0.001)
    time.sleep(0.005)
    assert other.leads("probes", 300)


def test_redis_is_away():
    board = Board(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(RedisAway):
        board.exchange({}, [], {})
    with pytest.raises(RedisAway):
        board.leads("probes", 1)
    with pytest.raises(RedisAway):
        board.hears({WAY: 1})
    with pytest.raises(RedisAway):
        board.heard([WAY])
