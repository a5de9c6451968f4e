"""Load: so many clients at once, each with one request after another of random kind, until the time is over."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence

import uvloop

from tests.exact.client import Ask, Seen, ask
from tests.exact.provider import Script

_numbers = itertools.count()
LONGEST = 240  # seconds for one request, on a machine that is loaded on purpose
REFUSED_PAUSE = (0.2, 0.6)  # seconds before a refused client asks again
DOWN_PAUSE = (0.05, 0.2)

Maker = Callable[[random.Random, str], Ask]


def marker() -> str:
    return f"exact-{next(_numbers)}"


def mixed(longest: int, dice: random.Random, key: str) -> Ask:
    """Mostly streams of random length, half of them with a bound; some leave, some providers say no usage or break."""
    tokens = dice.randrange(1, longest)
    script = Script(tokens=tokens, pace=dice.uniform(0.05, 0.2), burst=dice.randrange(1, 5))
    script.cached = dice.choice([0, 0, 8])
    script.usage = dice.random() > 0.05
    if dice.random() < 0.05:
        script.burst = 100  # more in one event than any gateway expects
    if dice.random() < 0.03:
        script.cut = tokens // 2
    found = Ask(marker(), key, script=script, words=dice.randrange(5, 200))
    found.stream = dice.random() < 0.9
    if not found.stream:
        script.wait = dice.uniform(0, 2)
    if dice.random() < 0.5:
        found.max_tokens = dice.choice([tokens, tokens * 2, max(1, tokens // 2)])
    if dice.random() < 0.08:
        found.leave = dice.uniform(0.05, 5)
    return found


def quick(dice: random.Random, key: str) -> Ask:
    """Small whole answers, for what needs many requests."""
    script = Script(tokens=dice.randrange(1, 30), wait=dice.uniform(0, 0.05), pace=0.01)
    return Ask(marker(), key, script=script, words=dice.randrange(1, 20), stream=dice.random() < 0.5, max_tokens=30)


def brief(dice: random.Random, key: str) -> Ask:
    """Streams of about a second."""
    script = Script(tokens=dice.randrange(5, 40), pace=dice.uniform(0.02, 0.06), burst=dice.randrange(1, 4))
    return Ask(marker(), key, script=script, words=dice.randrange(1, 50), stream=dice.random() < 0.8)


async def load(
    ports: Sequence[int], key: str, clients: int, until: Callable[[], bool], make: Maker, seed: int = 0
) -> list[Seen]:
    """All that the clients saw. When `until()` is true, nobody asks anew; what runs comes to its end."""
    seen: list[Seen] = []

    async def client(number: int) -> None:
        dice = random.Random(f"{seed}-{number}")
        await asyncio.sleep(dice.uniform(0, min(2.0, clients / 100)))
        while not until():
            found = await ask(dice.choice(ports), make(dice, key), LONGEST)
            seen.append(found)
            if found.status != 200:
                await asyncio.sleep(dice.uniform(*(REFUSED_PAUSE if found.status else DOWN_PAUSE)))

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
    return seen


def run_load(
    ports: Sequence[int], key: str, clients: int, seconds: float | Callable[[], bool], make: Maker, seed: int = 0
) -> list[Seen]:
    """`seconds`, or a function that says when it is over."""
    end = time.monotonic() + seconds if not callable(seconds) else 0.0
    until = seconds if callable(seconds) else lambda: time.monotonic() >= end
    return uvloop.run(load(ports, key, clients, until, make, seed))


def at_once(port_and_asks: Sequence[tuple[int, Ask]], seconds: float = LONGEST) -> list[Seen]:
    async def everyone() -> list[Seen]:
        return list(await asyncio.gather(*(ask(port, what, seconds) for port, what in port_and_asks)))

    return uvloop.run(everyone())
