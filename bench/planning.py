"""What planning costs: time per request from a model's name to the attempts to make, by strategy and number of routes.

Where it costs most: routes measured, busy or out. Called by `bench.__main__`.
"""

import json
import os
import sys
import time

from bench.processes import told_by

PLANS, ROUNDS = 5_000, 7
SIZES = (5, 50)  # routes
STRATEGIES = ("weighted", "in_order", "cheapest", "fastest", "least_busy")
OUT = "weighted, a fifth out"
MICROSECONDS = 1e6


def measure(quick: bool) -> dict[str, dict[str, float]]:
    """Number of routes → strategy → µs per plan."""
    found: dict[str, dict[str, float]] = json.loads(told_by("bench.planning", PLANS // 10 if quick else PLANS))
    return found


def _planned(routes: int, strategy: str, plans: int) -> float:
    """µs, of the quickest round."""
    from accounts.keys import Key
    from models_catalog.snapshot import Model, Provider, Route, Snapshot, Vendor
    from proxy.formats import openai_chat
    from proxy.formats.splice import Members
    from proxy.health import ERRORS, Health, Out
    from proxy.ingress import Envelope
    from proxy.routing import plan, resolve

    nothing: frozenset[str] = frozenset()
    providers = [
        Provider(
            *(number, f"p{number}", "openai", "http://127.0.0.1:9/v1", "sk-bench", nothing, ()),
            *(frozenset({"chat"}), nothing, 5, 60, 60, 600, 0),
        )
        for number in range(routes)
    ]
    ways = tuple(Route(each, "there", 1, 1 + each.id % 3, each.id) for each in providers)
    model = Model(
        *("mock", Vendor("bench", "Benchmark", 0), "mock", "", 8192, 4096, False, ("text",), ("text",)),
        *(nothing, (), ways, (), 0),
        strategy="weighted" if strategy == OUT else strategy,
    )
    catalog, health = Snapshot(1, {"mock": model}, {}, ""), Health()
    for way in ways:
        health.begins(way)
        health.answers(way, 0.5, stream=False)
        health.ends(way, None)
    if strategy == OUT:
        now = time.time()
        health.out = {way.way: Out(now + 3600, ERRORS, 500, now, 1) for way in ways[::5]}
    key = Key(1, "bench", "sk-kodna-", 1, "bench", True, 0, nothing, nothing, (), 0, 0, 0)
    envelope, target = Envelope(openai_chat, Members(b'{"model":"mock"}')), resolve("mock", catalog, key)
    quickest = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for turn in range(plans):
            plan(target, envelope, catalog, key, health, turn)
        quickest = min(quickest, (time.perf_counter() - begun) / plans)
    return quickest * MICROSECONDS


def main() -> None:
    """The process that `measure` starts."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kodna.settings")
    django.setup()
    plans = int(sys.argv[1])
    found = {size: {name: _planned(size, name, plans) for name in (*STRATEGIES, OUT)} for size in SIZES}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
