"""What admission costs: CPU time of this process per request that is let in and settled, 32 at a time.

Once with the counters of a single process, once with those in a Redis of its own. Called by `bench.__main__`.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench import tools
from bench.processes import told_by

REQUESTS = 20_000
AT_ONCE = 32
ROUNDS = 20
BODY = b'{"model":"mock","messages":[{"role":"user","content":"Say hello, please."}],"max_tokens":64}'
MICROSECONDS = 1e6


def measure(quick: bool) -> dict[str, float]:
    """CPU µs per request, by place: "memory", and "redis" where there is one."""
    requests = REQUESTS // 10 if quick else REQUESTS
    found = {"memory": float(told_by("bench.admission", "", requests))}
    with contextlib.suppress(tools.MissingError), _redis() as url:
        found["redis"] = float(told_by("bench.admission", url, requests))
    return found


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise tools.MissingError("redis-server is not installed")
    port = tools.free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise tools.MissingError("redis-server does not answer")


async def _run(url: str, requests: int) -> float:
    from models_catalog.pricing import Price
    from models_catalog.snapshot import Model, Vendor
    from proxy.admission import Admission
    from proxy.counters.memory import Memory
    from proxy.counters.shared import Shared
    from proxy.formats import openai_chat
    from proxy.ingress import Asked, read_envelope

    store: Any = Memory()
    if url:
        store = Shared(url)
        store.epoch = 1
        store.begin(1)
    store.learn({"a1": (1, 10**15), "k1:total": (1, 0)})
    admission = Admission(store)
    nothing: frozenset[str] = frozenset()
    model = Model(
        *("mock", Vendor("bench", "Benchmark", 0), "mock", "", 8192, 4096, False, ("text",), ("text",)),
        *(nothing, (), (), (Price(0, 150_000, 600_000, 75_000, None),), 0),
    )
    key, numbers = _key(), itertools.count()
    envelope = read_envelope(BODY, Asked(openai_chat))

    async def client(times: int, *, admitted: bool = True) -> None:
        for _ in range(times):
            request_id = f"req_{next(numbers):032x}"
            if admitted:
                reservation = await admission.admit(request_id, key, envelope, model, time.time())
            await asyncio.sleep(0)
            if admitted:
                reservation.settle(9_000_000, 20)
                ended.append(request_id)

    async def spent(*, admitted: bool) -> float:
        begun = time.process_time()
        for _ in range(ROUNDS):
            each = requests // AT_ONCE // ROUNDS
            await asyncio.gather(*(client(each, admitted=admitted) for _ in range(AT_ONCE)))
            store.landed(ended, {})  # as the journal's thread does
            ended.clear()
        return (time.process_time() - begun) / (requests // AT_ONCE // ROUNDS * ROUNDS * AT_ONCE)

    ended: list[str] = []
    gc.collect()  # as `kodna.asgi` does
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    await asyncio.gather(*(client(20) for _ in range(AT_ONCE)))
    found = await spent(admitted=True) - await spent(admitted=False)
    store.close()
    return found * MICROSECONDS


def _key() -> Any:
    """Every limit is on, and credit and a budget."""
    from accounts.keys import Key, Rates

    nothing: frozenset[str] = frozenset()
    return Key(
        *(1, "bench", "sk-kodna-", 1, "bench", True, 0, nothing, nothing, (), 10**7, 10**8, 10**5),
        tpm=10**9,
        budget=10**15,
        billing="prepaid",
        account_rates=Rates(rpm=10**8),
    )


if __name__ == "__main__":
    import django

    django.setup()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(asyncio.run(_run(sys.argv[1], int(sys.argv[2]))))
