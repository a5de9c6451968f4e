"""What `make run` does before it serves: migrate, fill an empty catalog, make the operator and a first key.

Everything is done only where it is missing, so that a second start changes nothing.
"""

import fcntl
import secrets
import stat
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command

from accounts import keys
from accounts.models import Account, ApiKey
from models_catalog import catalog_file, checks
from models_catalog.models import Provider

OPERATOR = "admin"
DEMO = "kodna-demo"  # the provider of the demonstration
PYTHON = ".venv/bin/python"
OPEN = "Open     requests without a key are answered: KODNA_ALLOW_NO_AUTH is on\n"


def prepare() -> str:
    """Returns the lines to print once the server answers: with the secrets where they were made just now."""
    with (settings.DATA_DIR / "first_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two starts at once: the second waits, and finds everything made
        return _prepare()


def _prepare() -> str:
    call_command("migrate", verbosity=0, interactive=False)
    _close_to_others(settings.DATABASES["default"])
    _fill_catalog()
    password, key = _operator(), _first_key()
    base = settings.PUBLIC_BASE_URL.removesuffix("/v1") or f"http://{settings.PROVIDER_ENV['KODNA_LOOPBACK']}"
    shown = f"password {password}" if password else f"(forgotten? {PYTHON} manage.py changepassword {OPERATOR})"
    made = key or f"as before (another: {PYTHON} manage.py keys create --account default)"
    model = checks.example_model_id() or "MODEL"
    return (
        f"\nDocs     {base}/\n"
        f"Admin    {base}/admin/  user {OPERATOR}  {shown}\n"
        f"API key  {made}\n"
        f"{OPEN if settings.ALLOW_NO_AUTH else ''}\n"
        f'curl -N {base}/v1/chat/completions -H "Authorization: Bearer {key or "$KODNA_API_KEY"}" '
        f"-H 'Content-Type: application/json' "
        f'-d \'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}\'\n\n'
    )


def _close_to_others(database: dict[str, Any]) -> None:
    """SQLite makes its file with the rights that the umask leaves; a data dir that was there may be open to all."""
    if "sqlite3" not in database["ENGINE"]:
        return
    for ending in ("", "-wal", "-shm"):
        path = Path(f"{database['NAME']}{ending}")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)


def _fill_catalog() -> None:
    if not Provider.objects.exists():
        catalog_file.load_builtin(demo=settings.DEMO)
    elif settings.DEMO and not Provider.objects.filter(slug=DEMO).exists():
        catalog_file.load_demo()


def _operator() -> str:
    """The new operator's password; empty where there is a user already."""
    users = get_user_model()
    if users.objects.exists():
        return ""
    password = secrets.token_urlsafe(12)
    users.objects.create_superuser(OPERATOR, password=password)
    return password


def _first_key() -> str:
    """The new key; empty where there is one already."""
    if ApiKey.objects.exists():
        return ""
    account, _ = Account.objects.get_or_create(name="default")
    _, text = keys.issue(account, name="first key")
    return text
