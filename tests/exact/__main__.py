"""`python -m tests.exact SCENARIO`: runs it so many times, prints a verdict for each run, ends with 1 if one failed."""

import argparse
import faulthandler
import resource
import signal
import sys
import time
import traceback
from dataclasses import replace

from tests.exact import hard_cap, limits, nothing_lost, reports, revocation, routing
from tests.exact.checks import Verdict
from tests.exact.fleet import House, Variant, own_house

SCENARIOS = {
    "hard-cap": hard_cap.SCENARIO,
    "nothing-lost": nothing_lost.SCENARIO,
    "limits": limits.SCENARIO,
    "revocation": revocation.SCENARIO,
    "reports": reports.SCENARIO,
    "routing": routing.SCENARIO,
}


def main() -> int:
    options = _options()
    faulthandler.register(signal.SIGUSR1)
    _allow_many_files()
    failed = 0
    with own_house() as house:
        for name in [*SCENARIOS] if options.scenario == "all" else [options.scenario]:
            for variant, plan in SCENARIOS[name].items():
                if options.variant in {"", variant}:
                    failed += _runs(house, f"{name} {variant}", plan, options)
    print(f"{failed} runs failed" if failed else "all runs passed", flush=True)
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.exact", description=__doc__)
    parser.add_argument("scenario", choices=[*SCENARIOS, "all"])
    parser.add_argument("variant", nargs="?", default="", help="one of its variants; default all")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; each next one has the next")
    parser.add_argument("--quick", action="store_true", help="fewer kills and rounds, as the tests have it")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--processes", type=int, help="of the variants with several")
    parser.add_argument("--streams", type=int, help="requests at once")
    return parser.parse_args()


def _runs(house: House, name: str, variant: Variant, options: argparse.Namespace) -> int:
    failed = 0
    for number in range(options.runs):
        plan = replace(variant.plan, seed=options.seed + number, quick=options.quick)
        if options.seconds:
            plan = replace(plan, seconds=options.seconds)
        if options.streams:
            plan = replace(plan, streams=options.streams)
        if options.processes and plan.processes > 1:
            plan = replace(plan, processes=options.processes)
        print(f"{name}, run {number + 1} of {options.runs} ({plan}) …", flush=True)
        begun = time.monotonic()
        verdict = Verdict()
        try:
            variant.run(house, plan, verdict)
        except Exception as error:  # noqa: BLE001  # a run that breaks off has failed; the next ones go on
            traceback.print_exc()
            verdict.problems.append(f"the run broke off: {type(error).__name__}: {error}")
        verdict.problems += _complaints(house)
        print(f"{name}, run {number + 1}: {verdict}\n  {time.monotonic() - begun:.0f} s", flush=True)
        failed += bool(verdict.problems)
    return failed


def _complaints(house: House) -> list[str]:
    """A traceback in the gateways' log is a fault, whatever came of it."""
    log = house.last.log if house.last else ""
    place = log.find("Traceback")
    return [f"a traceback in the gateways' log: …{log[max(0, place - 300) : place + 3000]}"] if place >= 0 else []


def _allow_many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
