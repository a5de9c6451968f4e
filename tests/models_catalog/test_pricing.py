"""What an answer costs, to the picodollar."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.usd import usd
from models_catalog import pricing
from models_catalog.pricing import Price

PRICE = Price(since=0, input=150_000, output=600_000, cached_input=75_000, cache_write=200_000)
ONLY = Price(since=0, input=150_000, output=600_000, cached_input=None, cache_write=None)


def test_it_works() -> None:
    assert pricing.cost(PRICE, 1_000_000, 1_000_000) == 750_000_000_000  # 0.15 + 0.60 USD
    assert usd(750_000_000_000) == Decimal("0.75")


@pytest.mark.parametrize(
    ("price", "prompt", "completion", "cached", "written", "picodollars"),
    [
        (PRICE, 0, 0, 0, 0, 0),
        (PRICE, 10, 2, 4, 0, 6 * 150_000 + 4 * 75_000 + 2 * 600_000),
        (PRICE, 10, 0, 4, 3, 3 * 150_000 + 4 * 75_000 + 3 * 200_000),
        (ONLY, 10, 0, 4, 3, 10 * 150_000),
        (PRICE, 10, 0, 99, 99, 10 * 75_000),  # a provider that counts wrong
    ],
)
def test_cost(price: Price, prompt: int, completion: int, cached: int, written: int, picodollars: int) -> None:
    assert pricing.cost(price, prompt, completion, cached, written) == picodollars


@pytest.mark.parametrize("price", [None, Price(0, None, 1, None, None), Price(0, 1, None, None, None)])
def test_without_a_price_there_is_no_cost(price: Price | None) -> None:
    assert pricing.cost(price, 10, 10) is None


def test_free_is_a_price() -> None:
    assert pricing.cost(Price(0, 0, 0, None, None), 10, 10) == 0


@pytest.mark.parametrize(
    ("price", "picodollars"),
    [("0.15", 150_000), ("0.000001", 1), ("99999999.999999", 99_999_999_999_999), (None, None)],
)
def test_per_token(price: str | None, picodollars: int | None) -> None:
    assert pricing.per_token(None if price is None else Decimal(price)) == picodollars


def test_the_newest_price_that_holds_is_in_force() -> None:
    new, old = Price(200, 2, 2, None, None), Price(100, 1, 1, None, None)
    assert pricing.in_force([new, old], 250) is new
    assert pricing.in_force([new, old], 200) is new
    assert pricing.in_force([new, old], 199) is old
    assert pricing.in_force([new, old], 99) is None
    assert pricing.in_force([], 99) is None


def test_discount() -> None:
    assert pricing.discount(PRICE, 4) == 4 * 75_000
    assert pricing.discount(ONLY, 4) == 0
    assert pricing.discount(None, 4) == 0


tokens = st.integers(0, 10**7)


@given(prompt=tokens, completion=tokens, cached=tokens, written=tokens)
def test_no_count_costs_less_than_nothing_or_more_than_the_dearest(
    prompt: int, completion: int, cached: int, written: int
) -> None:
    cost = pricing.cost(PRICE, prompt, completion, cached, written)
    assert prompt * 75_000 + completion * 600_000 <= cost <= prompt * 200_000 + completion * 600_000
    assert usd(cost) * pricing.PICODOLLARS == cost
