"""What a minute's attempts say: counted by hand here, by a clock of the tests' own."""

import pytest

from proxy.health_window import BUCKET, BUCKETS, FAILURES, OTHERS, SPEED, Way

EPOCH = 1_800_000_005.0  # in the middle of a bucket


def fails(way: Way, times: int = 1, account: int = 1, now: float = EPOCH) -> None:
    for _ in range(times):
        way.fails(account, now, is_refusal=False)


def test_it_works():
    way = Way()
    fails(way, FAILURES - 1)
    assert not way.is_failing(EPOCH)
    fails(way)
    assert way.is_failing(EPOCH)
    assert way.window(EPOCH) == (FAILURES, FAILURES)
    way.starts_anew()
    assert not way.is_failing(EPOCH)
    assert way.window(EPOCH) == (0, 0)


@pytest.mark.parametrize(
    ("good", "answered", "bad", "outcomes"), [(3, 3, 2, 5), (0, 9, 2, 9), (2, 9, 2, 9), (9, 9, 9, 18)]
)
def test_outcomes(good, answered, bad, outcomes):
    """A first word is one too, where its client did not wait for the end."""
    way = Way()
    fails(way, bad)
    way.bucket(EPOCH).good += good
    way.bucket(EPOCH + BUCKET).answered += answered
    assert way.window(EPOCH + BUCKET) == (bad, outcomes)


def test_a_minute():
    way = Way()
    for number in range(3 * BUCKETS):
        fails(way, now=EPOCH + number * BUCKET)
        assert way.window(EPOCH + number * BUCKET)[0] == min(number + 1, BUCKETS)
    assert len(way.buckets) == BUCKETS
    assert way.window(EPOCH) == (0, 0), "the clock was put back"


@pytest.mark.parametrize(
    ("answered", "failing", "expected"),
    [
        ([], [1] * 5, True),
        ([1], [1] * 5, True),
        ([2], [1] * 5, False),
        ([2, 1], [1] * 5, False),
        ([1, 2], [1] * 5, False),
        ([2, 1, 1], [1] * 5, False),
        ([2], [1, 1, 1, 1, 3], True),
        ([2], [1, 1, 1, 1, 2], True),
        ([0], [1] * 5, False),
        ([1], [0] * 5, False),
    ],
)
def test_who_fails_and_who_is_answered(answered, failing, expected):
    way = Way()
    for account in answered:
        way.answers(account, EPOCH)
    for account in failing:
        fails(way, account=account)
    assert way.is_failing(EPOCH) is expected
    assert way.is_failing(EPOCH + OTHERS - 0.1) is expected
    assert way.is_failing(EPOCH + OTHERS)
    assert way.is_failing(EPOCH - 1), "the clock was put back"


def test_half_of_all_by_one_account():
    way = Way()
    for _ in range(FAILURES):
        fails(way)
        way.bucket(EPOCH).answered += 1
        way.answers(2, EPOCH)
    assert not way.is_failing(EPOCH)
    fails(way, account=2)
    assert way.is_failing(EPOCH), "two fail"


def test_half_of_all_by_two_accounts_in_turn():
    way = Way()
    for account in (1, 2, 1, 2, 1):
        fails(way, account=account)
        way.bucket(EPOCH).answered += 1
        way.answers(3, EPOCH)
    assert way.is_failing(EPOCH)


def test_speed():
    way = Way()
    assert (way.speed(True, EPOCH), way.speed(False, EPOCH)) == (None, None)
    way.measure(1.0, True, EPOCH)
    way.measure(2.0, True, EPOCH)
    way.measure(30.0, False, EPOCH)
    assert (way.speed(True, EPOCH), way.speed(False, EPOCH)) == (pytest.approx(1.2), 30)
    assert way.speed(True, EPOCH + SPEED) is None
