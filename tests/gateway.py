"""A real gateway in a process of its own, as operators run it: migrated, with a catalog and keys, on a free port.

`conftest` gives tests a shared one (`gateway`) and a factory for those they may break (`make_gateway`).
"""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import httpx
import psycopg
import yaml
from psycopg.rows import dict_row

from tests.processes import HOST, ROOT, Process, clean_environment, free_port, wait_for

Server = Literal["daphne", "uvicorn"]
_TABLE = "proxy_usagerecord"
UNCHECKED = "--skip-checks"  # they import all that the gateway serves, which takes as long as the command itself

_SET_UP = """
from io import StringIO
from django.core.management import call_command
call_command("catalog", "load", {path!r}, stdout=StringIO())
call_command("keys", *{words!r})
"""


class CommandFailed(Exception):
    """A management command ended with another code than 0."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"{done.args[2:]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr


def provider(base_url: str, api_key: str = "sk-upstream", **more: object) -> dict[str, object]:
    """A catalog file's entry for a provider of the openai dialect."""
    return {"dialect": "openai", "base_url": base_url, "api_key": api_key, **more}


def model(*routes: tuple[str, str], **more: object) -> dict[str, object]:
    """A catalog file's entry for a model: its routes, as (provider, model there), in the order in which to try them."""
    ways = [{"provider": name, "model": there, "priority": place} for place, (name, there) in enumerate(routes, 1)]
    return {"vendor": "tests", "routes": ways, **more}


def catalog(providers: Mapping[str, object], models: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"version": 1, "vendors": {"tests": {"name": "Tests"}}, "providers": providers, "models": models, **more}


@dataclass
class Gateway:
    """Start it with `start()` or `with`. `data_dir` must be migrated already, or else call `migrate()`."""

    data_dir: Path
    server: Server = "daphne"
    database_url: str = ""  # SQLite in the data dir
    redis_url: str = ""
    workers: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: Process | None = None
    _log_read: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        """As an OpenAI SDK takes it."""
        return f"{self.url}/v1"

    @property
    def pid(self) -> int:
        assert self.process, "not started"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        return self.process.exit_code if self.process else None

    @property
    def log(self) -> str:
        path = self._log
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def new_log(self) -> str:
        """What it has said since this was last asked."""
        said = self.log[self._log_read :]
        self._log_read += len(said)
        return said

    @property
    def _log(self) -> Path:
        return self.data_dir.with_suffix(".log")

    def _environment(self) -> dict[str, str]:
        chosen = {
            "HOST": HOST,
            "PORT": str(self.port),
            "KODNA_DATA_DIR": str(self.data_dir),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "WORKERS": str(self.workers),
            "KODNA_DEMO": "off",
            "KODNA_PROBE_SECONDS": "0",  # providers of tests count who asks them
            "PYTHONWARNINGS": "default::RuntimeWarning,default::ResourceWarning",  # a coroutine never awaited, say
        }
        return clean_environment(**{**chosen, **self.env})

    # --- running it --------------------------------------------------------------------------------------------------

    def start(self, seconds: float = 30) -> "Gateway":
        assert not self.is_running, "started already"
        command = [sys.executable, "-m", "kodna.serve", self.server]
        self.process = Process(command, log=self._log, env=self._environment(), cwd=self.data_dir)
        with self.client() as client:
            self.process.until_ready(lambda: _says_live(client), seconds)
        return self

    def is_live(self) -> bool:
        with self.client() as client:
            return _says_live(client)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to it and its workers and wait for its end; its exit code."""
        assert self.process, "not started"
        return self.process.stop(number)

    def stop(self) -> int:
        return self.kill(signal.SIGTERM)

    def restart(self) -> "Gateway":
        """Orderly, on the same port with the same data."""
        self.stop()
        return self.start()

    def __enter__(self) -> "Gateway":
        return self if self.is_running else self.start()

    def __exit__(self, *_: object) -> None:
        if self.is_running:
            self.stop()

    # --- operating it ------------------------------------------------------------------------------------------------

    def manage(self, *words: str | Path, text: str | None = None) -> str:
        """A command of `manage.py` against this gateway's database; what it printed. Raises `CommandFailed`."""
        command = [sys.executable, str(ROOT / "manage.py"), *map(str, words)]
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=self.data_dir,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise CommandFailed(done)
        return done.stdout

    def migrate(self) -> None:
        self.manage("migrate", "--verbosity", "0", UNCHECKED)

    def set_up(self, content: Mapping[str, object], **options: object) -> str:
        """Load a catalog and make a `key`, in one process: it takes longer to start than both take in it."""
        path = self.data_dir / "catalog.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        script = _SET_UP.format(path=str(path), words=_key_words(**options))
        return self.manage("shell", "-v", "0", "-c", script).strip()

    def key(self, **options: object) -> str:
        """A new API key. Options as `keys create` has them: `rpm=1, models="a,b"`; without, it has no limits.

        Of a gateway that runs already, every process must know the key within a second.
        """
        key = self.manage("keys", UNCHECKED, *_key_words(**options)).strip()
        if self.is_running and self.workers > 1:
            time.sleep(1)  # nobody can ask one of them
        elif self.is_running:
            with self.client(key) as client:
                wait_for(lambda: client.post("/v1/chat/completions").status_code != 401, 1)  # 400 uses up no limit
        return key

    def client(self, key: str = "", **options: Any) -> httpx.Client:
        """A bare HTTP client of this gateway: `client.post("/v1/chat/completions", json=…)`."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        plain = {"verify": False, "trust_env": False}  # reading certificates would take longer than most requests
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **plain, **options)

    # --- what it wrote -----------------------------------------------------------------------------------------------

    def usage_rows(self) -> list[dict[str, Any]]:
        """All rows of the database, oldest first. What is still in the journal is not among them: see `usage_row`."""
        if self.database_url:
            with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
                rows = connection.execute(f"SELECT * FROM {_TABLE} ORDER BY id".encode()).fetchall()
            return [_in_usd(row) for row in rows]
        connection = sqlite3.connect(f"file:{quote(str(self.data_dir / 'kodna.sqlite3'))}?mode=ro", uri=True)
        try:
            connection.row_factory = sqlite3.Row
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {_TABLE} ORDER BY id")]
        finally:
            connection.close()
        return [_in_usd(_like_postgresql(row)) for row in rows]

    def usage_row(self, request_id: str, seconds: float = 10) -> dict[str, Any]:
        """The one row of this request, once the journal has been carried over. `request_id`: as an answer has it."""
        request_id = internal(request_id)
        found = wait_for(lambda: [row for row in self.usage_rows() if row["request_id"] == request_id], seconds)
        assert len(found) == 1, f"{len(found)} rows for {request_id}"
        return dict(found[0])


def internal(request_id: str) -> str:
    """As rows have it: what an answer shows also carries the route."""
    return "_".join(request_id.split("_")[:2])


def _key_words(**options: object) -> list[str]:
    chosen = {"account": "tests", "rpm": 0, "rps": 0, "concurrency": 0, **options}
    return ["create", *(word for name, value in chosen.items() for word in (f"--{name}", str(value)))]


def _says_live(client: httpx.Client) -> bool:
    try:
        return client.get("/health/live", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _in_usd(row: dict[str, Any]) -> dict[str, Any]:
    """Costs are kept in picodollars."""
    return {**row, "cost": None if row["cost"] is None else Decimal(row["cost"]).scaleb(-12)}


def _like_postgresql(row: dict[str, Any]) -> dict[str, Any]:
    """SQLite has no types of its own for these columns."""
    flags = {name: bool(row[name]) for name in ("streamed", "estimated")}
    created = datetime.fromisoformat(row["created_at"]).replace(tzinfo=UTC)
    return {**row, **flags, "attempts": json.loads(row["attempts"]), "created_at": created}
