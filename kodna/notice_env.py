"""Readers for the variables by which notices leave: a mail server and a webhook. `settings.py` is their only caller."""

import base64
import binascii
import os
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

PORTS = {"starttls": 587, "implicit": 465, "off": 25}
LEAST_SECRET, MOST_SECRET = 24, 64  # bytes, as Standard Webhooks has it


class MailServer(NamedTuple):
    """An empty host: there is none."""

    host: str = ""
    port: int = 25
    user: str = ""
    password: str = ""
    starttls: bool = False
    implicit_tls: bool = False


def mail_server(name: str) -> MailServer:
    """smtp://user:password@host:port?tls=starttls|implicit|off; smtps:// is implicit. No refusal repeats the URL."""
    text = os.environ.get(name, "")
    if not text:
        return MailServer()
    shape = "expected smtp://user:password@host:port?tls=starttls|implicit|off"
    parts, port = _split(name, text)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    tls = options.pop("tls", "implicit" if parts.scheme == "smtps" else "starttls")
    if parts.scheme not in {"smtp", "smtps"} or not parts.hostname or options or tls not in PORTS:
        raise ImproperlyConfigured(f"{name}: {shape}")
    secret = (unquote(parts.username or ""), unquote(parts.password or ""))
    return MailServer(parts.hostname, port or PORTS[tls], *secret, tls == "starttls", tls == "implicit")


def webhook(url_name: str, secret_name: str) -> tuple[str, bytes]:
    """The URL and the bytes of its secret (standardwebhooks.com: `whsec_` and base64). Empty: there is none.

    A webhook that nobody signs can be forged, so that a URL without a secret is refused.
    """
    url, text = os.environ.get(url_name, ""), os.environ.get(secret_name, "")
    if not url:
        return "", b""
    parts, _ = _split(url_name, url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise ImproperlyConfigured(f"{url_name}: expected https://host/path, without a user's name")
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        secret = b""
    if not LEAST_SECRET <= len(secret) <= MOST_SECRET:
        raise ImproperlyConfigured(
            f"{url_name} needs {secret_name}: whsec_ and the base64 of {LEAST_SECRET} to {MOST_SECRET} random bytes, "
            'as `echo "whsec_$(openssl rand -base64 32)"` prints it'
        )
    return url, secret


def _split(name: str, text: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(text)
        return parts, parts.port
    except ValueError:
        raise ImproperlyConfigured(f"{name}: not a URL") from None
