"""Children are gone when the tests are, with their own children, and say why when they die early."""

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.processes import HOST, Process, ProcessDied, clean_environment, free_port, wait_for

FAMILY = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
PARENT = """
import os, sys, time
from pathlib import Path
from tests.processes import Process, clean_environment
child = Process(["sleep", "60"], log=Path("child.log"), env=clean_environment(), cwd=Path())
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


def python(code: str, folder: Path) -> Process:
    return Process([sys.executable, "-c", code], log=folder / "log", env=clean_environment(), cwd=folder)


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_it_works(tmp_path: Path) -> None:
    process = python("print('said')", tmp_path)
    assert process.wait() == 0
    assert process.tail() == "said\n"


def test_its_children_end_with_it(tmp_path: Path) -> None:
    process = python(FAMILY, tmp_path)
    process.until_ready(process.tail)
    grandchild = int(process.tail())
    assert is_running(grandchild)
    assert process.stop() == -signal.SIGTERM
    wait_for(lambda: not is_running(grandchild))


def test_force_where_it_does_not_go(tmp_path: Path) -> None:
    process = python(STUBBORN, tmp_path)
    process.until_ready(process.tail)
    assert process.stop(seconds=0.1) == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_ends_where_its_parent_is_killed(tmp_path: Path) -> None:
    parent = python(PARENT, tmp_path)
    assert parent.wait() == -signal.SIGKILL
    child = int(parent.tail())
    wait_for(lambda: not is_running(child))


def test_an_early_death_shows_its_last_words(tmp_path: Path) -> None:
    process = python("raise SystemExit('no port')", tmp_path)
    with pytest.raises(ProcessDied, match="ended with 1:\nno port"):
        process.until_ready(lambda: False)


def test_one_that_is_never_ready(tmp_path: Path) -> None:
    process = python(STUBBORN, tmp_path)
    with pytest.raises(ProcessDied, match=r"not ready after 0.1 s"):
        process.until_ready(lambda: False, 0.1)
    process.stop(signal.SIGKILL)


def test_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    environment = clean_environment(PORT="1")
    assert "OPENAI_API_KEY" not in environment
    assert (environment["PORT"], environment["PATH"]) == ("1", os.environ["PATH"])


def test_a_free_port() -> None:
    ports = [free_port() for _ in range(200)]
    assert all(20_000 <= port < 32_000 for port in ports)
    assert len(set(ports)) == 200, "each is given once"
    assert HOST == "127.0.0.1"


def test_workers_have_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    for worker in range(3):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{worker}")
        assert {(free_port() - 20_000) % 3 for _ in range(10)} == {worker}
