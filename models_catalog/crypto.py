"""Provider credentials at rest: `EncryptedTextField`, on cryptography's MultiFernet with `settings.ENCRYPTION_KEYS`."""

import base64
import hashlib
from functools import cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models


@cache
def _box(keys: tuple[str, ...]) -> MultiFernet:
    # Any text serves as a key: Fernet itself takes 32 bytes in base64 only.
    return MultiFernet([Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest())) for key in keys])


def encrypt(text: str) -> str:
    return _box(tuple(settings.ENCRYPTION_KEYS)).encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """Raises `Unreadable` where none of the keys opens it."""
    try:
        return _box(tuple(settings.ENCRYPTION_KEYS)).decrypt(token).decode()
    except (InvalidToken, ValueError):  # ValueError: letters beyond ASCII, so nothing that was encrypted here
        raise Unreadable("a stored credential opens with none of KODNA_ENCRYPTION_KEYS") from None


class Unreadable(Exception):
    pass


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]  # not generic at run time
    """Text that is encrypted in the database. An unreadable value reads as None and is left as it is until replaced."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = super().pre_save(model_instance, add)
        return models.F(self.attname) if value is None and not add else value

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return encrypt(value) if value else value

    def from_db_value(self, value: str | None, *_: object) -> str | None:
        if not value:
            return value
        try:
            return decrypt(value)
        except Unreadable:
            return None
