"""`make bench`: this gateway on Daphne and uvicorn beside nginx, Portkey and LiteLLM, in one run on one machine.

    python -m bench [--quick] [--rounds N] [--only NAME,…] [--skip-peers] [--json FILE]

In every round each gateway is started alone on one core, the clients and the provider on another. Progress goes to
stderr, the tables to stdout, every figure to a JSON file. Exit code 2: could not measure this gateway; else 0, whatever
the figures are.
"""

import argparse
import dataclasses
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import admission, gateways, kodna, leave, load, planning, processes, report, tools
from bench.gateways import Gateway

PEERS: dict[str, Callable[[int], Gateway]] = {
    "nginx": gateways.nginx,
    "portkey": gateways.portkey,
    "litellm": gateways.litellm,
}
MANY_SERVER, MANY_STEP, QUICK_CHUNKS = "daphne", load.stream_step(1000, 200), 20
LEAVE_TRIES = 10


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="This gateway beside its peers, in one run.")
    parser.add_argument("--quick", action="store_true", help="one round of one-second steps: to see that it works")
    parser.add_argument("--rounds", type=int, help="default 3, with --quick 1")
    parser.add_argument("--only", default="", help=f"of {','.join([*report.SERVERS, *PEERS])}")
    parser.add_argument("--skip-peers", action="store_true", help="nginx alone beside this gateway")
    parser.add_argument("--json", type=Path, default=tools.OUT / "result.json", metavar="FILE")
    options = parser.parse_args()
    names = [name for name in PEERS if name == "nginx" or not options.skip_peers] + list(report.SERVERS)
    wanted = options.only.split(",") if options.only else names
    if unknown := set(wanted) - {*PEERS, *report.SERVERS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    options.names = [name for name in names if name in wanted]
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


class Run:
    """All rounds, and what was found beside the figures."""

    def __init__(self, options: argparse.Namespace, upstream: int) -> None:
        self._options, self._upstream = options, upstream
        self._leave_port = tools.free_port()
        self._prepared: dict[str, Gateway] = {}
        self.rounds: list[report.Round] = []
        self.left_out: dict[str, str] = {}
        self.answers = dict.fromkeys(report.SERVERS, 0)
        self.left = dict.fromkeys(report.SERVERS, 0)
        self.admission: dict[str, float] = {}
        self.planning: dict[str, dict[str, float]] = {}

    def prepare(self) -> None:
        for name in self._options.names:
            say(f"preparing {name}")
            try:
                if name in report.SERVERS:
                    self._prepared[name] = kodna.prepare(name, self._upstream, self._leave_port)
                else:
                    self._prepared[name] = PEERS[name](self._upstream)
            except (tools.MissingError, gateways.FailedError) as reason:
                self._leave_out(name, reason)

    def _leave_out(self, name: str, reason: Exception) -> None:
        say(f"{name} is left out: {reason}")
        self.left_out[name] = str(reason)

    def measure(self) -> None:
        if set(self._options.names) & set(report.SERVERS):
            say("admission and planning")
            self.admission = admission.measure(self._options.quick)
            self.planning = planning.measure(self._options.quick)
        for number in range(1, self._options.rounds + 1):
            found: report.Round = {}
            self.rounds.append(found)
            alone = load.steps(self._options.quick)[0]
            found["direct"] = {alone.name: load.Bench(gateways.direct(self._upstream), None).measure(alone)}
            for name, gateway in self._prepared.items():
                if name in self.left_out:
                    continue
                say(f"round {number} of {self._options.rounds}: {name}")
                found[name] = {}
                try:
                    self._one(gateway, found[name])
                except gateways.FailedError as reason:
                    self._leave_out(name, reason)

    def _one(self, gateway: Gateway, found: dict[str, Any]) -> None:
        ours = gateway.name in report.SERVERS
        with gateways.running(gateway) as tree:
            bench = load.Bench(gateway, tree)
            if ours and (status := gateways.ask(gateway, {"Authorization": "Bearer sk-wrong"})[0]) != 401:
                raise gateways.FailedError(f"a wrong key is answered with {status}: keys are not checked")
            for step in load.steps(self._options.quick):
                found[step.name] = bench.measure(step)
            if ours:
                figures = bench.measure(load.translated_step(500, QUICK_CHUNKS if self._options.quick else 100))
                found[report.TRANSLATED] = figures
                tries = 3 if self._options.quick else LEAVE_TRIES
                found[report.LEAVE] = leave.measure(gateway, kodna.LEAVE_MODEL, self._leave_port, tries)
                self.left[gateway.name] += 2 * tries
                self._count(bench)
        if gateway.name == MANY_SERVER:
            found[MANY_STEP.name] = self._many(gateway)

    def _many(self, gateway: Gateway) -> dict[str, Any]:
        """Many streams, on a fresh process: one that has served 500 would take them into memory that it has already."""
        with gateways.running(gateway) as tree:
            bench = load.Bench(gateway, tree)
            chunks = QUICK_CHUNKS if self._options.quick else MANY_STEP.chunks
            figures = bench.measure(dataclasses.replace(MANY_STEP, chunks=chunks))
            self._count(bench)
        return figures

    def _count(self, bench: load.Bench) -> None:
        name = bench.gateway.name
        self.answers[name] += bench.counted["answers"] + 1  # and the one that said that it is up
        kodna.wait_for_rows(name, self.answers[name], self.left[name])

    def measured(self) -> list[str]:
        return [server for server in report.SERVERS if any(found.get(server) for found in self.rounds)]

    def text(self) -> str:
        labels = {"direct": "none (the upstream itself)"} | {
            name: f"{'this gateway on ' if name in report.SERVERS else ''}{name} {gateway.version}"
            for name, gateway in self._prepared.items()
        }
        trial = "A quick trial, not a measurement. " if self._options.quick else ""
        parts = [
            f"{trial}{len(self.rounds)} rounds, medians. {environment()}",
            report.medians_table(self.rounds, labels),
            report.budgets_table(report.verdicts(self.rounds)),
        ]
        parts += [report.admission_line(self.admission)] if self.admission else []
        parts += [report.planning_line(self.planning)] if self.planning else []
        parts += [
            report.streams_line(MANY_SERVER, found[MANY_SERVER][MANY_STEP.name])
            for found in self.rounds
            if MANY_STEP.name in found.get(MANY_SERVER, {})
        ]
        parts += [
            report.rows_line(server, self.answers[server], self.left[server], dataclasses.asdict(kodna.rows(server)))
            for server in self.measured()
        ]
        parts += [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n\n".join(parts)

    def record(self) -> dict[str, Any]:
        return {
            "environment": environment(),
            "versions": {name: gateway.version for name, gateway in self._prepared.items()},
            "rounds": self.rounds,
            "budgets": report.verdicts(self.rounds),
            "admission": self.admission,
            "planning": self.planning,
            "answers": self.answers,
            "left": self.left,
            "rows": {server: dataclasses.asdict(kodna.rows(server)) for server in self.measured()},
            "left_out": self.left_out,
        }


def environment() -> str:
    shared = "" if len(processes.CORES) > 1 else " ONE core for gateway and load: the figures disturb each other."
    busy = " The machine had other work: take the figures with care." if LOAD_BEFORE > 0.5 else ""
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, load before {LOAD_BEFORE:.2f}.{shared}{busy}"


LOAD_BEFORE = os.getloadavg()[0]


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that what was started is stopped
    processes.raise_file_limit()
    port = tools.free_port()
    try:
        with tools.workshop(), load.upstream(port):
            run = Run(options, port)
            run.prepare()
            run.measure()
            print(run.text())
            load.write_json(options.json, run.record())
    except tools.MissingError as reason:
        say(f"could not measure: {reason}")
        return 2
    say(f"every figure: {options.json}")
    return 2 if set(options.names) & set(report.SERVERS) and not run.measured() else 0


if __name__ == "__main__":
    sys.exit(main())
