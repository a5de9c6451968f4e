"""Processes under measurement: started on a core of their own, their CPU time and memory read from the kernel."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

if sys.platform != "linux":
    sys.stderr.write("bench: needs Linux: it pins processes to cores and reads their CPU clocks.\n")
    sys.exit(2)

CORES = sorted(os.sched_getaffinity(0))
GATEWAY_CORE, LOAD_CORE = CORES[0], CORES[-1]
# Nothing of the caller's environment reaches a gateway: no provider keys, no DATABASE_URL, no proxies.
CLEAN_ENV = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
IDLE_SHARE, IDLE_WINDOW, SETTLE_SECONDS = 0.05, 0.3, 30.0


def told_by(module: str, *words: object) -> str:
    """What a module of ours prints in a process of its own: Django's settings are read once."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            env=CLEAN_ENV | {"KODNA_DATA_DIR": folder, "DJANGO_SETTINGS_MODULE": "kodna.settings"},
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
    return done.stdout


def raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started inside inherits the core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cpu_clock(pid: int) -> float:
    """Seconds of CPU of one process with all its threads, in nanosecond steps: what clock_getcpuclockid(3) gives."""
    return time.clock_gettime((~pid << 3) | 2)


class Tree:
    """A process and its children."""

    def __init__(self, argv: list[str], *, env: dict[str, str], cwd: Path, log: Path, core: int) -> None:
        self._log = log
        with pinned(core), log.open("ab") as output:
            self._popen = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._process = psutil.Process(self._popen.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def exit_status(self) -> int | None:
        """Negative: the signal that ended it."""
        return self._popen.poll()

    def last_words(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace").strip()[-300:]

    def members(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu(self) -> float:
        total = 0.0
        for process in self.members():
            try:
                total += _cpu_clock(process.pid)
            except OSError:  # it ended between the listing and the reading
                continue
        return total

    def rss(self) -> int:
        total = 0
        for process in self.members():
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total

    def settle(self) -> float:
        """Wait until the tree is idle; its CPU seconds then, with the work that it had put off (logs, rows)."""
        deadline = time.monotonic() + SETTLE_SECONDS
        before = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(IDLE_WINDOW)
            after = self.cpu()
            if after - before < IDLE_SHARE * IDLE_WINDOW:
                return before
            before = after
        return before

    def stop(self, patience: float = 15) -> None:
        members = self.members()
        self._popen.terminate()
        try:
            self._popen.wait(patience)
        except subprocess.TimeoutExpired:
            pass  # killed below
        for process in members:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._popen.wait(patience)
