"""Agents from the package registries, each version once, in a folder outside the tree: `KODNA_AGENTS_DIR` names it."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.agents.roster import Agent

SECONDS = 900
_PYTHONS = (sys.executable, "python3.12", "python3.11", "python3.10")  # aider runs on none later


class MissingError(Exception):
    """An agent that cannot be installed here; the run leaves it out and says so."""


def everything() -> Path:
    """The folder of all agents."""
    chosen = os.environ.get("KODNA_AGENTS_DIR")
    if chosen:
        return Path(chosen).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "kodna" / "agents"


def install(agent: Agent) -> Path:
    """The agent's program. Raises `MissingError`."""
    folder = everything() / f"{agent.program}-{agent.version}"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / ".installed"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be at it
        if not done.exists():
            print(f"agents: installing {agent.package} {agent.version}", file=sys.stderr)
            _install_python(agent, folder) if agent.python else _install_javascript(agent, folder)
            done.touch()
    program = folder / ("bin" if agent.python else "node_modules/.bin") / agent.program
    if not program.exists():
        raise MissingError(f"{agent.package} {agent.version} has no program {agent.program}")
    return program


def _install_javascript(agent: Agent, folder: Path) -> None:
    (folder / "package.json").write_text('{"private": true}', encoding="utf-8")  # else npm looks for one further up
    _run(["npm", "install", "--no-audit", "--no-fund", f"{agent.package}@{agent.version}"], folder)


def _install_python(agent: Agent, folder: Path) -> None:
    _run([_old_python(), "-m", "venv", "."], folder)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, f"{agent.package}=={agent.version}"], folder)


def _old_python() -> str:
    fits = "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))"
    for python in filter(shutil.which, _PYTHONS):
        if subprocess.run([python, "-c", fits], capture_output=True, check=False).returncode == 0:
            return python
    raise MissingError("no Python from 3.10 to 3.12")


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise MissingError(f"{command[0]} is not installed")
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as fault:
        raise MissingError(f"{command[0]} was not done after {SECONDS} s") from fault
    if done.returncode:
        raise MissingError(f"{' '.join(command)} failed: {(done.stderr.strip() or done.stdout.strip())[-300:]}")
