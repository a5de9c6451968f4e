"""This gateway as an operator sets it up: migrated, a catalog with a price, a key with limits; and its usage rows."""

import importlib.metadata
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench import tools
from bench.gateways import FailedError, Gateway, folder
from bench.processes import CLEAN_ENV

ROOT = Path(__file__).resolve().parent.parent
# Limits are on, and wide enough never to refuse: what they cost is to be measured.
KEY_LIMITS = [
    "--rpm",
    "100000000",
    "--rps",
    "10000000",
    "--concurrency",
    "100000",
    "--tpm",
    "900000000",
    "--budget",
    "1000000",
]
CREDIT = "1000000"  # USD
LEAVE_MODEL = "mock-leave"
ROWS_SECONDS = 15
COMMAND_SECONDS = 120


@dataclass(frozen=True)
class Rows:
    """Usage rows of requests that a provider took, and how many of the complete ones have no price."""

    complete: int
    cancelled: int
    other: int
    unpriced: int


def _home(server: str) -> Path:
    return folder(server)


def _env(server: str) -> dict[str, str]:
    return {"KODNA_DATA_DIR": str(_home(server) / "data"), "KODNA_DEMO": "off", "PYTHONPATH": str(ROOT)}


def _manage(server: str, *words: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *words],
            env=CLEAN_ENV | _env(server),
            cwd=_home(server),  # not the project's folder, whose .env is the operator's
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise FailedError(f"manage.py {words[0]}: not done after {COMMAND_SECONDS} s") from None
    if done.returncode:
        raise FailedError(f"manage.py {words[0]}: {(done.stderr.strip() or done.stdout.strip())[-300:]}")
    return done.stdout.strip()


def _catalog(upstream: int, leave_upstream: int) -> dict[str, object]:
    def provider(port: int) -> dict[str, object]:
        return {"dialect": "openai", "base_url": f"http://127.0.0.1:{port}/v1", "api_key": "upstream"}

    def model(name: str) -> dict[str, object]:
        price = {"input": 0.15, "cached_input": 0.075, "output": 0.60}
        return {"vendor": "bench", "price": price, "routes": [{"provider": name, "model": "mock-model"}]}

    return {
        "version": 1,
        "providers": {"bench": provider(upstream), "leave": provider(leave_upstream)},
        "vendors": {"bench": {"name": "Benchmark"}},
        "models": {"mock": model("bench"), LEAVE_MODEL: model("leave")},
    }


def prepare(server: str, upstream: int, leave_upstream: int) -> Gateway:
    """A fresh data folder: the rows found later are those of this run."""
    home, port = _home(server), tools.free_port()
    shutil.rmtree(home / "data", ignore_errors=True)
    catalog = home / "catalog.yaml"  # JSON is YAML
    catalog.write_text(json.dumps(_catalog(upstream, leave_upstream)), encoding="utf-8")
    _manage(server, "migrate", "--verbosity", "0")
    _manage(server, "catalog", "load", str(catalog))
    key = _manage(server, "keys", "create", "--account", "bench", *KEY_LIMITS)
    _manage(server, "credits", "grant", "bench", CREDIT)  # prepaid: every request is held and charged
    return Gateway(
        server,
        importlib.metadata.version(server),
        port,
        [sys.executable, "-m", "kodna.serve", server],
        _env(server) | {"HOST": "127.0.0.1", "PORT": str(port), "WORKERS": "1"},
        {"Authorization": f"Bearer {key}"},
    )


QUERY = """
    SELECT count(*) FILTER (WHERE outcome = 'complete'),
           count(*) FILTER (WHERE outcome = 'cancelled'),
           count(*) FILTER (WHERE outcome NOT IN ('complete', 'cancelled')),
           count(*) FILTER (WHERE outcome = 'complete' AND cost IS NULL)
    FROM proxy_usagerecord WHERE status IN (200, 499)
"""


def rows(server: str) -> Rows:
    with closing(sqlite3.connect(_home(server) / "data/kodna.sqlite3", timeout=20)) as database:
        return Rows(*database.execute(QUERY).fetchone())


def wait_for_rows(server: str, complete: int, cancelled: int) -> None:
    """Until there are as many as there should be, or waiting any longer would be vain. The server must be running."""
    deadline = time.monotonic() + ROWS_SECONDS
    while time.monotonic() < deadline:
        found = rows(server)
        if found.complete >= complete and found.cancelled >= cancelled:
            return
        time.sleep(0.2)
