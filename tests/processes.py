"""Child processes of the tests: each in a group of its own, logged to a file, and gone when the tests are.

Callers: `services`, `gateway`, `tiny_model`, and tests that start a program of their own.
"""

import atexit
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_running: set["Process"] = set()
_given: set[int] = set()


class ProcessDied(Exception):
    """A child that should serve has ended; the text holds the end of its log."""


def _die_with_parent() -> None:
    """Runs in the child. Else a `kill -9` of pytest would leave its servers behind."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def clean_environment(**extra: str) -> dict[str, str]:
    """What a child needs of the tester's environment and no more: no credential, no proxy, no setting of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def free_port() -> int:
    """Below the ports that systems give to outgoing connections: it stays free while a server starts or restarts.

    No other caller gets it: each is given once, and each of pytest-xdist's workers has ports of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.SystemRandom().randrange(20_000 + worker, 32_000, workers)
        if port in _given:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            _given.add(port)
            return port


class Process:
    """A running child. `user` names whom it runs as where the tests themselves run as root."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path,
        user: int | None = None,
        group: int | None = None,
    ) -> None:
        self.log = log
        self.name = Path(command[0]).name
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                start_new_session=True,
                preexec_fn=_die_with_parent,  # one system call, bound before the fork
            )
        self.pid = self._popen.pid
        _running.add(self)

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def wait(self, seconds: float = 10) -> int:
        return self._popen.wait(seconds)

    def send(self, number: int) -> None:
        """To the whole group: workers too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 10) -> int:
        """End it and its children, with force where it does not go; its exit code."""
        self.send(number)
        try:
            code = self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            code = self.wait()
        self.send(signal.SIGKILL)  # what a dead parent may have left in its group
        _running.discard(self)
        return code

    def tail(self, characters: int = 4000) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-characters:]

    def until_ready(self, ready: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until `ready()` is true. Raises `ProcessDied` where the child ends before, or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.exit_code is not None:
                raise ProcessDied(f"{self.name} ended with {self.exit_code}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ProcessDied(f"{self.name} was not ready after {seconds:g} s:\n{self.tail()}")
            time.sleep(0.02)


def wait_for(ready: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true answer of `ready()`, for what another process does in its own time (a row, a file, a close)."""
    deadline = time.monotonic() + seconds
    while not (answer := ready()):
        assert time.monotonic() < deadline, f"not seen after {seconds:g} s"
        time.sleep(0.02)
    return answer


@atexit.register
def stop_all() -> None:
    for process in list(_running):
        process.stop(seconds=3)
