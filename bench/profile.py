"""`python -m bench.profile daphne|uvicorn [sse]`: where this gateway's time goes under load, by py-spy."""

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from bench import gateways, kodna, load, processes, report, tools

SECONDS, RATE, TOP = 5, 250, 40
PACKAGE = re.compile(r"\((?:.*site-packages/)?([\w.-]+)")


def record(server: str, streamed: bool) -> Path:
    """Samples of the loaded gateway: one line for each stack, `frame;frame;… count`."""
    py_spy = tools.install_python("tools", tools.PY_SPY) / "py-spy"
    samples, port = tools.OUT / "profile.txt", tools.free_port()
    chunks = 40 * SECONDS  # at a pace of 50 ms: twice as long as the recording
    step = load.stream_step(200, chunks) if streamed else load.Step("profile", 32, 2 * SECONDS)
    with load.upstream(port):
        gateway = kodna.prepare(server, port, tools.free_port())
        with gateways.running(gateway) as tree:
            if tree is None:
                raise gateways.FailedError("no process to look into")
            process = load.start(step, gateway)
            time.sleep(1)
            argv = [str(py_spy), "record", "--pid", str(tree.pid), "--subprocesses", "--duration", str(SECONDS)]
            argv += ["--rate", str(RATE), "--format", "raw", "--output", str(samples)]
            with processes.pinned(processes.LOAD_CORE):
                done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=SECONDS * 10)
            load.finish(step, process)
    if done.returncode:
        raise tools.MissingError(f"py-spy: {done.stderr.strip()[-300:]}")
    return samples


def tell(samples: str) -> str:
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    total = 0
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        total += int(count)
        package = PACKAGE.search(frames[-1])
        own[package[1] if package else "?"] += int(count)
        inclusive.update(dict.fromkeys(frames, int(count)))
    packages = ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in own.most_common(15))
    lines = [f"{100 * count / total:5.1f} %  {frame}" for frame, count in inclusive.most_common(TOP)]
    return "\n".join(
        [f"{total} samples. Own time by package: {packages}", "Time in a function and in what it calls:", *lines]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description="Where the time goes under load.")
    parser.add_argument("server", choices=report.SERVERS)
    parser.add_argument("load", choices=["plain", "sse"], nargs="?", default="plain")
    options = parser.parse_args()
    processes.raise_file_limit()
    try:
        with tools.workshop():
            text = record(options.server, options.load == "sse").read_text(encoding="utf-8")
    except (tools.MissingError, gateways.FailedError) as reason:
        print(f"could not measure: {reason}", file=sys.stderr)
        return 2
    print(tell(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
