"""Every change of the catalog raises its version."""

from collections.abc import Callable

import pytest

from models_catalog import signals, snapshot
from models_catalog.models import Alias, Announcement, Catalog, Model, Price, Provider, Route, Vendor

pytestmark = pytest.mark.django_db


@pytest.fixture
def model() -> Model:
    return Model.objects.create(slug="m", vendor=Vendor.objects.create(slug="v", name="V"))


MAKERS: dict[str, Callable[[Model], object]] = {
    "alias": lambda model: Alias.objects.create(slug="a", model=model),
    "announcement": lambda _: Announcement.objects.create(title="t"),
    "model": lambda model: Model.objects.create(slug="n", vendor=model.vendor),
    "price": lambda model: Price.objects.create(model=model, input=1, output=1),
    "provider": lambda _: Provider.objects.create(slug="p", base_url="http://127.0.0.1/v1"),
    "vendor": lambda _: Vendor.objects.create(slug="w", name="W"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_it_works(model: Model, kind: str) -> None:
    versions = [snapshot.version()]
    row = MAKERS[kind](model)
    versions.append(snapshot.version())
    row.save()
    versions.append(snapshot.version())
    row.delete()
    versions.append(snapshot.version())
    assert versions == sorted(set(versions)), versions


def test_a_route_too(model: Model) -> None:
    provider = Provider.objects.create(slug="p", base_url="http://127.0.0.1/v1")
    before = snapshot.version()
    Route.objects.create(model=model, provider=provider, upstream_model="x")
    assert snapshot.version() > before
    before = snapshot.version()
    provider.credentials.create(name="second", api_key="sk-2")
    assert snapshot.version() > before
    before = snapshot.version()
    provider.delete()
    assert snapshot.version() > before


def test_the_default_model(model: Model) -> None:
    row = Catalog.objects.get(pk=1)
    before = snapshot.version()
    row.default_model = model.slug
    row.save(update_fields=["default_model"])
    assert snapshot.version() == before + 1


def test_the_first_change_of_an_empty_catalog() -> None:
    assert snapshot.version() == 0
    signals.bump()
    first = snapshot.version()
    assert first > 0
    signals.bump()
    assert snapshot.version() == first + 1


def test_after_an_update_it_is_called_by_hand(model: Model) -> None:
    before = snapshot.version()
    Model.objects.update(name="N")
    assert snapshot.version() == before
    signals.bump()
    assert snapshot.version() == before + 1
