"""The words that every store speaks: what they say of themselves when they go up as an error."""

from accounts.credits import Fund
from accounts.keys import Limit
from proxy.counters.base import LimitReached, NotAffordable, UnknownFunds


def test_a_limit_says_which() -> None:
    reached = LimitReached(Limit("key:7", "rpm", 40), 1.5)
    assert (reached.limit.value, reached.wait, reached.left) == (40, 1.5, None)
    assert "rpm" in str(reached)


def test_a_fund_says_how_much() -> None:
    short = NotAffordable(Fund("a3", 0), -5, 7)
    assert (short.fund.name, short.available, short.held) == ("a3", -5, 7)
    assert "a3" in str(short)


def test_unknown_funds_are_named() -> None:
    assert UnknownFunds(["a3", "k7:total"]).names == ["a3", "k7:total"]
