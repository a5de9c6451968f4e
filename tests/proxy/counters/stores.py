"""What tests of the counters share: limits and funds, a clock for Redis, several gateways at it, and what it holds."""

import hashlib
import math
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis as client

from accounts.credits import Fund
from accounts.keys import Limit
from proxy.counters import shared
from proxy.counters.base import Grant, LimitReached, NotAffordable, UnknownFunds, Wish
from proxy.counters.shared import Script, Shared

RPS, RPM, TPM = Limit("key:7", "rps", 3), Limit("key:7", "rpm", 3), Limit("key:7", "tpm", 100)
PLACES = Limit("key:7", "concurrency", 2)
LIMITS = (PLACES, RPS, RPM, TPM)
MINE, BUDGET = Fund("a3", 0), Fund("k7:total", 50)
START = 1_763_640_000.0
SCRIPTS = ("_ADMIT", "_LEFT", "_SETTLE", "_BEGIN", "_REGISTER", "_LANDED", "_RENEW", "_REAP")


class Clock:
    """Redis' own, as the scripts see it: they read it from two keys. What they tell to expire does not."""

    def __init__(self, redis: "client.Redis[bytes]", monkeypatch: pytest.MonkeyPatch) -> None:
        for name in SCRIPTS:
            text = getattr(shared, name).text
            for old, new in (
                (b"redis.call('TIME')", b"{redis.call('GET', 'test:s'), redis.call('GET', 'test:us')}"),
                (b"redis.call('PEXPIRE', ", b"redis.call('EXISTS', "),
            ):
                assert old in text
                text = text.replace(old, new)
            monkeypatch.setattr(shared, name, Script(text, hashlib.sha1(text).hexdigest().encode()))
        self._redis = redis
        self.set(START)

    def __call__(self) -> float:
        return self.now

    def set(self, now: float) -> None:
        self.now = now
        self._redis.mset({"test:s": int(now), "test:us": round(now % 1 * 1e6)})


@asynccontextmanager
async def processes(url: str, count: int = 1, amounts: dict[str, int] | None = None) -> AsyncIterator[list[Shared]]:
    """So many gateways at one Redis."""
    stores = [Shared(url, 5) for _ in range(count)]
    try:
        stores[0].begin(1)
        for store in stores:
            store.epoch = 1
        stores[0].learn({name: (1, amount) for name, amount in (amounts or {"a3": 100, "k7:total": 0}).items()})
        yield stores
    finally:
        for store in stores:
            store.close()


async def settled(store: Shared) -> None:
    """What was told to Redis before has been done there."""
    await store.left((Limit("nobody", "rpm", 1),))


def wish(name: str, *limits: Limit, funds: tuple[Fund, ...] = (MINE,), **more: int) -> Wish:
    return Wish(name, limits, funds=funds, **more)


def dump(database: "client.Redis[bytes]") -> dict[bytes, Any]:
    found: dict[bytes, Any] = {}
    for key in database.keys("kodna:*"):
        is_hash = database.type(key) == b"hash"
        found[key] = database.hgetall(key) if is_hash else database.zrange(key, 0, -1, withscores=True)
    return found


def holds(database: "client.Redis[bytes]") -> dict[str, int]:
    """What is held, by request. Each fund's sum is what it should be."""
    found, sums = {}, dict[str, int]()
    content = {name.decode(): value.decode() for name, value in database.hgetall("kodna:funds").items()}
    for name, value in content.items():
        if name.startswith("h:"):
            amount, _, *funds = value.split()
            found[name[2:]] = int(amount)
            for fund in funds:
                sums[fund] = sums.get(fund, 0) + int(amount)
    kept = {name[2:]: int(value.split()[2]) for name, value in content.items() if name.startswith("f:")}
    assert {fund: held for fund, held in kept.items() if held} == {fund: held for fund, held in sums.items() if held}
    return found


async def outcome(asked: Awaitable[Grant]) -> tuple[Any, ...]:
    """The answer, and how long to wait, which may differ by a bucket."""
    try:
        grant = await asked
    except LimitReached as error:
        left = error.left and error.left[:2]
        return ("limit", error.limit, math.isinf(error.wait), left), error.limit.kind, error.wait
    except NotAffordable as error:
        return ("funds", error.fund, error.available, error.held), "", 0.0
    except UnknownFunds as error:
        return ("unknown", *error.names), "", 0.0
    lefts = [left and left[:2] for left in (grant.requests, grant.tokens)]
    return (grant.held, grant.spare, *lefts), "", 0.0
