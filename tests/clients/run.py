"""Runs the SDKs for JavaScript (`*.test.mjs` beside this) through a gateway in front of the scripted providers.

`make test-clients` calls it. Arguments go to node: `python -m tests.clients.run --test-name-pattern thinking`.
Without node 20 it fails: it is asked for by name.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.gateway import Gateway
from tests.processes import clean_environment
from tests.providers import DIALECTS, KEY, Providers, scenario
from tests.sdk.any_provider import cases
from tests.sdk.any_provider.door import Door, providers_catalog

FOLDER = Path(__file__).resolve().parent


def _install() -> None:
    installed, lock = FOLDER / "node_modules" / ".package-lock.json", FOLDER / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    subprocess.run([_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=FOLDER, check=True)


def _program(name: str) -> str:
    found = shutil.which(name)
    if not found:
        sys.exit(f"{name} is not installed: the SDKs for JavaScript need it")
    return found


def _doors(server: Providers, gateway: Gateway, key: str) -> list[dict[str, Any]]:
    direct = [Door(dialect, server.root, KEY, direct=True) for dialect in DIALECTS]
    through = [Door(dialect, gateway.url, key, direct=False) for dialect in DIALECTS]
    return [asdict(door) for door in [*direct, *through]]


def _cases() -> dict[str, Any]:
    """What `cases` says, for JavaScript."""
    return {
        "system": cases.SYSTEM,
        "hello": cases.HELLO,
        "text": cases.TEXT,
        "thought": scenario.THOUGHT,
        "tools": cases.TOOLS,
        "calls": [{"name": name, "arguments": arguments} for name, arguments in cases.CALLS],
        "results": cases.RESULTS,
        "saidAfter": cases.SAID_AFTER,
        "saidAfterThoughts": {
            "true": cases.said_after_thoughts(signed=True),
            "false": cases.said_after_thoughts(signed=False),
        },
        "schema": cases.Guest.model_json_schema(),
        "guest": cases.GUEST.model_dump(),
        "image": cases.IMAGE_BASE64,
        "seen": cases.SEEN,
        "tokens": dict(zip(("prompt", "completion", "cached"), cases.TOKENS, strict=True)),
    }


def main(arguments: list[str]) -> int:
    _install()
    tests = sorted(str(path) for path in FOLDER.glob("*.test.mjs"))
    with tempfile.TemporaryDirectory() as folder, Providers() as server:
        gateway = Gateway(Path(folder) / "data")
        gateway.data_dir.mkdir()
        gateway.migrate()
        key = gateway.set_up(providers_catalog(server))
        with gateway:
            given = {"DOORS": json.dumps(_doors(server, gateway, key)), "CASES": json.dumps(_cases())}
            command = [_program("node"), "--test", "--test-reporter=spec", *arguments, *tests]
            done = subprocess.run(command, env=clean_environment(**given), cwd=FOLDER, check=False)
        if "Traceback" in gateway.log:
            print(gateway.log, file=sys.stderr)
            return 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
