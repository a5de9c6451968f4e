"""The settings as a process reads them from its environment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import clean_environment

_PRINT = """
import json, sys
from django.conf import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""


def read(folder: Path, *names: str, **env: str) -> dict[str, object]:
    """These settings of a process of its own. Raises `CalledProcessError`."""
    known = {"DJANGO_SETTINGS_MODULE": "kodna.settings", "KODNA_DATA_DIR": str(folder / "data"), **env}
    command = [sys.executable, "-c", _PRINT, *names]
    done = subprocess.run(
        command, env=clean_environment(**known), cwd=folder, capture_output=True, text=True, check=False, timeout=30
    )
    assert not done.returncode, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_it_works(tmp_path: Path) -> None:
    found = read(
        tmp_path, "DEBUG", "DEMO", "ALLOW_NO_AUTH", "MAX_BODY_BYTES", "HOST", "PORT", "CORS_ORIGINS", "REGISTRATION"
    )
    assert found == {
        "DEBUG": False,
        "DEMO": False,
        "ALLOW_NO_AUTH": False,
        "MAX_BODY_BYTES": 64 * 1024 * 1024,
        "HOST": "127.0.0.1",
        "PORT": 8000,
        "CORS_ORIGINS": ["*"],
        "REGISTRATION": "closed",
    }
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["encryption_keys", "secret_key"]


def test_from_the_environment_and_a_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nKODNA_MAX_BODY_MB=1\n")
    found = read(
        tmp_path,
        "PORT",
        "MAX_BODY_BYTES",
        "SESSION_COOKIE_SECURE",
        PORT="9000",
        KODNA_PUBLIC_BASE_URL="https://x.example/v1",
    )
    assert found == {"PORT": 9000, "MAX_BODY_BYTES": 1024 * 1024, "SESSION_COOKIE_SECURE": True}


def test_what_is_held_of_conversations(tmp_path: Path) -> None:
    names = ("RESPONSES_TTL", "RESPONSES_ENTRY_BYTES", "RESPONSES_BYTES")
    found = read(tmp_path, *names, KODNA_RESPONSES_TTL="0", KODNA_RESPONSES_MB="0.5")
    assert found == {"RESPONSES_TTL": 0, "RESPONSES_ENTRY_BYTES": 16 * 1024 * 1024, "RESPONSES_BYTES": 512 * 1024}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1"])
def test_the_loopback_address(tmp_path: Path, host: str) -> None:
    found = read(tmp_path, "PROVIDER_ENV", HOST=host, PORT="81")["PROVIDER_ENV"]
    assert isinstance(found, dict)
    assert found["KODNA_LOOPBACK"] == "127.0.0.1:81"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("WORKERS", "0"),
        ("KODNA_DEMO", "maybe"),
        ("KODNA_REGISTRATION", "perhaps"),
        ("DATABASE_URL", "oracle://x"),
        ("KODNA_BODY_TIMEOUT", "0"),
        ("KODNA_TRUSTED_PROXIES", "127.0.0.1/8"),
        ("KODNA_RESPONSES_TTL", "a day"),
    ],
)
def test_values_that_are_wrong(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(AssertionError, match=f"ImproperlyConfigured: {name}"):
        read(tmp_path, "PORT", **{name: value})
