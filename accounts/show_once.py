"""A new key on its way from the form that made it to the page that shows it, once: encrypted, in the session.

Only the console calls this. What was not shown within ten minutes cannot be opened any more.
"""

import base64
import hmac

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase

SHELF = "new_keys"
SECONDS = 600


def _box() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hmac.digest(settings.SECRET_KEY.encode(), b"show-once", "sha256")))


def _open(token: str) -> str | None:
    try:
        return _box().decrypt(token.encode(), ttl=SECONDS).decode()
    except InvalidToken:
        return None


def keep(session: SessionBase, key_id: int, text: str) -> None:
    shelf = {number: token for number, token in session.get(SHELF, {}).items() if _open(token)}
    session[SHELF] = {**shelf, str(key_id): _box().encrypt(text.encode()).decode()}


def take(session: SessionBase, key_id: int) -> str | None:
    """The key's text, the first time; None ever after."""
    shelf = dict(session.get(SHELF, {}))
    token = shelf.pop(str(key_id), None)
    if token is None:
        return None
    session[SHELF] = shelf
    return _open(token)
