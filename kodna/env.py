"""Readers for environment variables. `settings.py` is their only caller."""

import ipaddress
import math
import os
import secrets
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off", ""}


def load_dotenv(path: Path) -> None:
    """Put the `NAME=value` lines of a `.env` file into the environment; what is set already wins."""
    if not path.is_file():
        return
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = text.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator:
            raise ImproperlyConfigured(f"{path}:{number}: expected NAME=value")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        else:
            value = value.split(" #")[0].rstrip()
        os.environ.setdefault(name.strip(), value)


def flag(name: str, default: bool) -> bool:
    value = os.environ.get(name)
    if value is None:
        return default
    if value.strip().lower() in TRUE:
        return True
    if value.strip().lower() in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={value!r}: expected on or off")


def number(name: str, default: float, *, least: float = 0) -> float:
    value = os.environ.get(name)
    if not value:
        return default
    try:
        parsed = float(value)
        if not math.isfinite(parsed):
            raise ValueError
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r}: expected a number") from None
    if parsed < least:
        raise ImproperlyConfigured(f"{name}={value!r}: expected {least:g} or more")
    return parsed


def port(name: str, default: int) -> int:
    value = number(name, default, least=1)
    if value > 65535 or value != int(value):
        raise ImproperlyConfigured(f"{name}={value:g}: expected a whole number up to 65535")
    return int(value)


def words(name: str, default: str = "") -> list[str]:
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def networks(name: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """IP addresses and networks."""
    try:
        return [ipaddress.ip_network(word) for word in words(name)]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: {error}; expected addresses and networks like 10.0.0.0/8") from None


def secret(name: str, path: Path, length: int = 50) -> str:
    """The variable's value, else the secret kept in the data dir, made there at the first start (mode 0600)."""
    value = os.environ.get(name)
    if value:
        return value
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(length), encoding="ascii")
        try:
            os.link(draft, path)  # atomic: of two processes that start at once, one wins and both read its secret
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii").strip()


def database(url: str) -> dict[str, object]:
    """Django's settings for `postgresql://user:password@host:port/name?option=value` or `sqlite:///path`."""
    parts = urlsplit(url)
    options: dict[str, object] = dict(parse_qsl(parts.query))
    if parts.scheme in {"postgres", "postgresql"}:
        host = options.pop("host", None) or unquote(parts.hostname or "")  # ?host= names a socket's folder, as in libpq
        most = int(str(options.pop("pool", 10)))
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": host,
            "PORT": parts.port or "",
            # Not CONN_MAX_AGE: it leaks a connection per thread under ASGI.
            "OPTIONS": {"pool": {"min_size": 1, "max_size": most, "timeout": 10}, **options},
        }
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path[1:]) if parts.path.startswith("//") else unquote(parts.path.lstrip("/")),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
        }
    raise ImproperlyConfigured(f"DATABASE_URL: unknown scheme {parts.scheme!r}; expected postgresql or sqlite")
