from typing import Any

import pytest

from accounts.credits import Fund
from proxy.counters.base import Holding, Unreachable, Wish
from proxy.counters.mirror import Mirror


class Told:
    """A store that only listens. `meanwhile`: what happens while it is told."""

    def __init__(self) -> None:
        self.holds: dict[str, Holding | None] = {}
        self.amounts: dict[str, tuple[int, int]] = {}
        self.is_away = False
        self.meanwhile: Any = lambda: None

    def landed(self, _, amounts):
        self.amounts |= amounts

    def register(self, holds):
        if self.is_away:
            raise Unreachable
        self.holds |= holds
        self.meanwhile()


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def mirror():
    found = Mirror()
    found.hold(Wish("r", funds=(Fund("a1", 0), Fund("k1:total", 0))), 10)
    return found


def held(amount, settled=False):
    return Holding(("a1", "k1:total"), amount, settled)


def test_it_works(mirror, told):
    mirror.tell(told)
    assert told.holds == {"r": held(10)}
    assert mirror.direct is told


def test_without_a_store_that_knows_changes_wait(mirror, told):
    mirror.settle("r", 7)
    assert mirror.held("s", 3, ["a1"]) is None
    assert mirror.landed(["t"], {"a1": (5, 50)}) is None
    assert mirror.landed([], {"a1": (4, 40)}) is None
    mirror.tell(told)
    assert told.holds == {"r": held(7, settled=True), "s": Holding(("a1",), 3, True), "t": None}
    assert told.amounts == {"a1": (5, 50)}


def test_a_store_that_knows_is_told_directly(mirror, told):
    mirror.tell(told)
    assert mirror.held("s", 3, ["a1"]) is told
    assert mirror.landed(["s"], {}) is told


def test_what_changes_while_it_tells_is_told_too(mirror, told):
    def land():
        told.meanwhile = lambda: None
        mirror.landed(["r"], {"a1": (9, 90)})

    told.meanwhile = land
    mirror.tell(told)
    assert told.holds == {"r": None}
    assert told.amounts == {"a1": (9, 90)}
    assert mirror.direct is told


def test_what_could_not_be_told_is_told_the_next_time(mirror, told):
    mirror.landed(["gone"], {"a1": (9, 90)})
    told.is_away = True
    with pytest.raises(Unreachable):
        mirror.tell(told)
    assert mirror.direct is None
    told.is_away = False
    told.amounts.clear()
    mirror.tell(told)
    assert told.holds == {"r": held(10), "gone": None}
    assert told.amounts == {"a1": (9, 90)}


def test_what_was_missed_is_told_again_with_all_the_rest(mirror, told):
    mirror.tell(told)
    told.holds.clear()
    mirror.missed(["s"])
    assert mirror.direct is None
    mirror.tell(told)
    assert told.holds == {"r": held(10), "s": None}


def test_a_settlement_is_final(mirror, told):
    mirror.settle("r", 7)
    mirror.settle("r", None)
    mirror.hold(Wish("r", funds=(Fund("a1", 0),)), 100)
    mirror.tell(told)
    assert told.holds == {"r": held(7, settled=True)}


def test_a_settlement_after_the_charge_has_landed_holds_nothing(mirror, told):
    mirror.landed(["r"], {})
    mirror.settle("r", 7)
    mirror.tell(told)
    assert told.holds == {"r": None}


def test_an_empty_one_is_told_too(told):
    """The store says then whether it is of this epoch."""
    told.is_away = True
    with pytest.raises(Unreachable):
        Mirror().tell(told)
