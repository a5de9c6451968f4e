"""What the benchmark needs beside the project: two C programs and the peers, at pinned versions, all in bench/out/."""

import fcntl
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
LITELLM = "litellm[proxy]==1.106.2"
# Portkey answers every stream with 500 ("immutable") on Node 20 with a later @hono/node-server than this.
PORTKEY = {"@portkey-ai/gateway": "1.15.2", "@hono/node-server": "1.3.3"}
PY_SPY = "py-spy==0.4.1"
INSTALL_SECONDS = 900


class MissingError(Exception):
    """A tool that is not there, or could not be installed; what needs it is left out, and the report says so."""


@contextmanager
def workshop() -> Iterator[None]:
    """bench/out/, for this run alone: another would measure this one, and write over its files."""
    OUT.mkdir(exist_ok=True)
    with (OUT / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MissingError("another run of the benchmark is under way") from None
        yield


def need(tool: str) -> str:
    path = shutil.which(tool)
    if path is None:
        raise MissingError(f"{tool} is not installed")
    return path


def _run(what: str, argv: list[str], cwd: Path) -> None:
    try:
        done = subprocess.run(
            [need(argv[0]), *argv[1:]], check=False, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise MissingError(f"{what}: not done after {INSTALL_SECONDS} s") from None
    if done.returncode:
        raise MissingError(f"{what} failed: {(done.stderr.strip() or done.stdout.strip())[-300:]}")


def build(name: str) -> Path:
    """Compile `bench/<name>.c`."""
    source, program = HERE / f"{name}.c", OUT / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        _run(f"compiling {source.name}", ["gcc", "-O2", "-Wall", "-o", str(program), str(source)], OUT)
    return program


def _install(folder: Path, wanted: str, commands: list[list[str]]) -> None:
    """Run the commands, unless a note left by the last run says that just this is there already."""
    note = folder / ".installed"
    if note.exists() and note.read_text(encoding="utf-8") == wanted:
        return
    print(f"bench: installing {wanted}", file=sys.stderr)
    for argv in commands:
        _run(f"installing {wanted}", argv, folder)
    note.write_text(wanted, encoding="utf-8")


def install_python(name: str, requirement: str) -> Path:
    """A venv of its own for one requirement; the folder of its programs."""
    venv = OUT / f"venv-{name}"
    venv.mkdir(parents=True, exist_ok=True)
    pip = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    _install(venv, requirement, [[sys.executable, "-m", "venv", "."], pip])
    return venv / "bin"


def install_portkey() -> Path:
    """Portkey's gateway by npm; the script that starts it."""
    folder = OUT / "portkey"
    folder.mkdir(parents=True, exist_ok=True)
    package = {"private": True, "dependencies": PORTKEY, "overrides": {"@hono/node-server": "$@hono/node-server"}}
    (folder / "package.json").write_text(json.dumps(package), encoding="utf-8")
    npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    _install(folder, " ".join(f"{name}@{version}" for name, version in PORTKEY.items()), [npm])
    return folder / "node_modules/@portkey-ai/gateway/build/start-server.js"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
