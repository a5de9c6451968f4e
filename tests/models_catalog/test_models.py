"""What the catalog's rows may hold, whoever writes them."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from models_catalog.models import (
    Alias,
    Announcement,
    Credential,
    Model,
    Price,
    Provider,
    Route,
    Vendor,
    validate_headers,
    validate_names,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def model() -> Model:
    return Model.objects.create(slug="vendor/m", vendor=Vendor.objects.create(slug="v", name="V"))


@pytest.fixture
def provider() -> Provider:
    return Provider.objects.create(slug="p", base_url="http://127.0.0.1/v1")


def test_it_works(model: Model, provider: Provider) -> None:
    route = Route.objects.create(model=model, provider=provider, upstream_model="x")
    for row in (model, model.vendor, provider, route):
        row.full_clean()
    assert str(route) == "vendor/m → p: x"
    assert (provider.dialect, provider.supports, provider.connect_timeout, provider.total_timeout) == (
        "openai",
        ["chat"],
        5,
        600,
    )
    assert (model.input_modalities, model.limits, route.priority, route.weight) == (["text"], "pass", 1, 1)


@pytest.mark.parametrize("value", [None, "a", {}, [1], [""], [" "], [None]])
def test_names_are_a_list_of_texts(value: object) -> None:
    validate_names(["a", "b"])
    with pytest.raises(ValidationError):
        validate_names(value)


@pytest.mark.parametrize(
    "value", [None, [], {"": "x"}, {"a b": "x"}, {"a:": "x"}, {"a": 5}, {"a": "x\r\ny: z"}, {"a": "…"}, {"ä": "x"}]
)
def test_headers_are_what_http_can_carry(value: object) -> None:
    validate_headers({"X-Title": "Kodna 1.0", "x-empty": ""})
    with pytest.raises(ValidationError):
        validate_headers(value)


def refused(row: models.Model) -> set[str]:
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    return set(caught.value.message_dict)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slug", "a b"),
        ("slug", ""),
        ("slug", "x" * 101),
        ("dialect", "soap"),
        ("base_url", ""),
        ("groups", "a"),
        ("headers", {"a b": "c"}),
        ("idle_timeout", 0),
        ("total_timeout", -1),
    ],
)
def test_a_provider_that_cannot_be(provider: Provider, field: str, value: Any) -> None:
    setattr(provider, field, value)
    assert refused(provider) == {field}


@pytest.mark.parametrize(("field", "value"), [
    ("slug", "a\tb"), ("limits", "never"), ("fallbacks", [5]), ("strategy", "random"), ("attempts", 0),
])  # fmt: skip
def test_a_model_that_cannot_be(model: Model, field: str, value: Any) -> None:
    setattr(model, field, value)
    assert refused(model) == {field}


@pytest.mark.parametrize("value", ["-0.01", "0.0000001", "100000000"])
def test_a_price_that_cannot_be(model: Model, value: str) -> None:
    assert refused(Price(model=model, input=value)) == {"input"}


@pytest.mark.parametrize(("field", "value"), [("name", "a b"), ("name", ""), ("weight", 0)])
def test_a_credential_that_cannot_be(provider: Provider, field: str, value: Any) -> None:
    row = Credential(provider=provider, name="second", api_key="sk-2")
    row.full_clean()
    assert (row.weight, row.is_active) == (1, True)
    setattr(row, field, value)
    assert refused(row) == {field}


def test_an_announcement_ends_after_it_begins() -> None:
    now = timezone.now()
    Announcement(title="t", begins_at=now).full_clean()
    Announcement(title="t", begins_at=now, ends_at=now + timedelta(hours=1)).full_clean()
    assert refused(Announcement(title="t", begins_at=now, ends_at=now)) == {"ends_at"}


def test_an_alias_is_not_a_model(model: Model) -> None:
    assert refused(Alias(slug=model.slug, model=model)) == {"slug"}
    Alias(slug="fast", model=model).full_clean()


def test_what_is_there_once(model: Model, provider: Provider) -> None:
    route = {"model": model, "provider": provider, "upstream_model": "x"}
    Route.objects.create(**route)
    price = Price.objects.create(model=model, input=1)
    Credential.objects.create(provider=provider, name="second")
    for table, fields in (
        (Route, route),
        (Price, {"model": model, "valid_from": price.valid_from}),
        (Model, {"slug": model.slug, "vendor": model.vendor}),
        (Provider, {"slug": provider.slug}),
        (Credential, {"provider": provider, "name": "second"}),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            table.objects.create(**fields)


def test_a_vendor_with_models_is_not_deleted(model: Model) -> None:
    with pytest.raises(models.ProtectedError):
        model.vendor.delete()
