"""Credentials are encrypted in the database, keys can be rotated, and what cannot be read is not lost."""

from typing import Any

import pytest
from django.db import connection

from models_catalog import crypto
from models_catalog.models import Provider


def stored() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_key FROM models_catalog_provider")
        return str(cursor.fetchone()[0])


def store(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE models_catalog_provider SET api_key = %s", [text])


@pytest.fixture
def provider(db: None) -> Provider:
    return Provider.objects.create(slug="p", base_url="http://127.0.0.1/v1", api_key="sk-secret")


@pytest.mark.usefixtures("provider")
def test_it_works() -> None:
    assert Provider.objects.get().api_key == "sk-secret"
    assert "sk-secret" not in stored()


def test_equal_credentials_look_different() -> None:
    assert crypto.encrypt("a") != crypto.encrypt("a")
    assert crypto.decrypt(crypto.encrypt("naïve …")) == "naïve …"


def test_no_credential_stays_empty(provider: Provider) -> None:
    provider.api_key = ""
    provider.save()
    assert stored() == ""
    assert Provider.objects.get().api_key == ""


@pytest.mark.usefixtures("provider")
def test_a_new_key_in_front_still_reads_the_old(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ["new", *settings.ENCRYPTION_KEYS]
    row = Provider.objects.get()
    assert row.api_key == "sk-secret"
    row.save()
    settings.ENCRYPTION_KEYS = ["new"]
    assert Provider.objects.get().api_key == "sk-secret"


@pytest.mark.parametrize("text", ["plain text", "gAAAAA", "späß"])
def test_what_was_never_encrypted_cannot_be_read(provider: Provider, text: str) -> None:
    store(text)
    assert Provider.objects.get().api_key is None
    with pytest.raises(crypto.Unreadable):
        crypto.decrypt(text)


@pytest.mark.usefixtures("provider")
def test_what_cannot_be_read_is_left_as_it_is(settings: Any) -> None:
    right = settings.ENCRYPTION_KEYS
    settings.ENCRYPTION_KEYS = ["another"]
    row = Provider.objects.get()
    assert row.api_key is None
    row.groups = ["g"]
    row.save()
    settings.ENCRYPTION_KEYS = right
    assert Provider.objects.get().api_key == "sk-secret"
    assert Provider.objects.get().groups == ["g"]


@pytest.mark.usefixtures("provider")
def test_what_cannot_be_read_can_be_replaced(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ["another"]
    row = Provider.objects.get()
    row.api_key = "sk-new"
    row.save()
    assert Provider.objects.get().api_key == "sk-new"
