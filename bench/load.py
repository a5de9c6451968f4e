"""What is asked of a gateway, step by step, and what that cost it. Called by `__main__`, `streams` and `profile`."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import tools
from bench.gateways import MESSAGES, PATH, PLAIN_BODY, PROMPT, FailedError, Gateway
from bench.processes import LOAD_CORE, Tree, pinned

SAMPLE_SECONDS = 0.2  # between two looks at the memory
WARM_UP_CHUNKS, WARM_UP_PACE_MS = 10, 5


@dataclass(frozen=True)
class Step:
    """`chunks` 0: plain answers for `seconds`; else one stream on each connection, with a chunk every `pace_ms`."""

    name: str
    connections: int
    seconds: float
    chunks: int = 0
    pace_ms: int = 50
    grace: float = 20  # seconds for what is on the way when the time is over
    translated: bool = False  # the client speaks Anthropic's Messages, the provider OpenAI's chat

    def request(self, gateway: Gateway) -> bytes:
        path, body = PATH, dict[str, Any](PLAIN_BODY)
        if self.translated:  # Messages has no seed: the upstream keeps its own pace
            path, body = MESSAGES, {"model": "mock", "messages": PROMPT[1:], "system": PROMPT[0]["content"]}
            body |= {"stream": True, "max_tokens": self.chunks}
        elif self.chunks:
            ask = {"stream": True, "stream_options": {"include_usage": True}}
            body = body | ask | {"max_tokens": self.chunks, "seed": self.pace_ms * 1000}
        data = json.dumps(body, separators=(",", ":")).encode()
        headers = {"Host": f"127.0.0.1:{gateway.port}", "Content-Type": "application/json", **gateway.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {path} HTTP/1.1\r\n{head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    def warm_up(self) -> "Step":
        if self.chunks:
            few = min(self.connections, 50)
            return replace(self, connections=few, chunks=WARM_UP_CHUNKS, pace_ms=WARM_UP_PACE_MS)
        return replace(self, seconds=self.seconds / 4)


def stream_step(connections: int, chunks: int) -> Step:
    # Connections open a millisecond apart. An overloaded gateway may take minutes for what it was asked in seconds.
    return Step(f"streams{connections}", connections, connections / 1000 + 1, chunks, grace=180)


def translated_step(connections: int, chunks: int) -> Step:
    step = stream_step(connections, chunks)
    return replace(step, name=f"translated{connections}", translated=True)


def steps(quick: bool) -> list[Step]:
    if quick:
        return [Step("plain1", 1, 1), Step("plain32", 32, 1), stream_step(500, 20)]
    return [Step("plain1", 1, 2), Step("plain32", 32, 4), stream_step(500, 100)]


@contextmanager
def upstream(port: int) -> Iterator[None]:
    log = tools.OUT / "upstream.log"
    tree = Tree([str(tools.build("upstream")), str(port)], env={}, cwd=tools.OUT, log=log, core=LOAD_CORE)
    try:
        time.sleep(0.2)
        if not tree.alive():
            raise tools.MissingError(f"the upstream did not start: {tree.last_words()}")
        yield
    finally:
        tree.stop()


def start(step: Step, gateway: Gateway) -> "subprocess.Popen[str]":
    """The load generator, at work on a core that is not the gateway's."""
    request = tools.OUT / "request"
    request.write_bytes(step.request(gateway))
    each = 1 if step.chunks else 0
    words = [gateway.port, step.connections, step.seconds, each, step.grace, step.chunks, request]
    with pinned(LOAD_CORE):
        return subprocess.Popen(
            [str(tools.build("load")), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


def finish(step: Step, load: "subprocess.Popen[str]") -> dict[str, Any]:
    try:
        output, complaint = load.communicate(timeout=step.seconds + step.grace + 10)
    except subprocess.TimeoutExpired:
        load.kill()
        raise tools.MissingError("the load generator does not end") from None
    if load.returncode:
        raise tools.MissingError(f"the load generator failed: {complaint.strip()[-300:]}")
    figures: dict[str, Any] = json.loads(output)
    if complaint:
        figures["complaint"] = complaint.strip()
    return figures


class Bench:
    """One running gateway: runs steps on it, and keeps count of every answer that it has delivered."""

    def __init__(self, gateway: Gateway, tree: Tree | None) -> None:
        self.gateway, self._tree = gateway, tree
        self.counted: Counter[str] = Counter()

    def _run(self, step: Step) -> dict[str, Any]:
        load, peak = start(step, self.gateway), 0
        while load.poll() is None:
            peak = max(peak, self._tree.rss() if self._tree else 0)
            time.sleep(SAMPLE_SECONDS)
        figures = finish(step, load)
        if self._tree and not self._tree.alive():
            ended = f"ended during {step.name}, exit status {self._tree.exit_status}"
            raise FailedError(f"{ended}: {self._tree.last_words()}")
        self.counted.update({name: figures[name] for name in ("answers", "bad", "broken", "unfinished")})
        return figures | {"rss_peak": peak}

    def measure(self, step: Step) -> dict[str, Any]:
        """Warm up, wait until idle, load, wait until idle: what the gateway put off belongs to the step."""
        self._run(step.warm_up())
        if self._tree is None:
            return self._run(step)
        before = self._tree.settle()
        rss = self._tree.rss()
        figures = self._run(step)
        cpu = self._tree.settle() - before
        done = figures["chunks"] if step.chunks else figures["answers"]
        return figures | {
            "rss_before": rss,
            "cpu_seconds": cpu,
            "cpu_us": 1e6 * cpu / done if done else None,
            "per_second": done / figures["seconds"],
        }


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
