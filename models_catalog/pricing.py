"""What an answer costs, in whole picodollars (1e-12 USD), so that no figure is ever rounded.

A price of 0.15 USD per million tokens is 150,000 picodollars a token: every price with six decimals is a whole number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

PICODOLLARS = 10**12
_PER_TOKEN = 10**6  # USD per million tokens → picodollars per token


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars per token, from `since` (seconds since the epoch) on. None: no such price is known."""

    since: float
    input: int | None
    output: int | None
    cached_input: int | None
    cache_write: int | None


def per_token(usd_per_million: Decimal | None) -> int | None:
    return None if usd_per_million is None else int(usd_per_million * _PER_TOKEN)


def in_force(prices: Sequence[Price], now: float) -> Price | None:
    """The price that holds now; `prices` has the newest first."""
    for price in prices:
        if price.since <= now:
            return price
    return None


def cost(price: Price | None, prompt: int, completion: int, cached: int = 0, written: int = 0) -> int | None:
    """Picodollars for an answer. `prompt` holds cached and cache-written tokens, as OpenAI has it. None: no price."""
    if price is None or price.input is None or price.output is None:
        return None
    cached = min(cached, prompt)
    written = min(written, prompt - cached)
    cached_input = price.input if price.cached_input is None else price.cached_input
    cache_write = price.input if price.cache_write is None else price.cache_write
    fresh = prompt - cached - written
    return fresh * price.input + cached * cached_input + written * cache_write + completion * price.output


def discount(price: Price | None, cached: int) -> int:
    """Picodollars saved by the provider's prompt cache."""
    if price is None or price.input is None or price.cached_input is None:
        return 0
    return cached * (price.input - price.cached_input)
