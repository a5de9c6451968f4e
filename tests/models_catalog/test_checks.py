import pytest
from django.utils.module_loading import import_string

from models_catalog import checks
from models_catalog.models import Catalog, Model, Provider, Route, Vendor

pytestmark = pytest.mark.django_db


def provider(slug: str, **fields: object) -> Provider:
    return Provider.objects.create(slug=slug, base_url="http://127.0.0.1:1", **fields)


def model(slug: str, *providers: Provider) -> Model:
    vendor, _ = Vendor.objects.get_or_create(slug="v", defaults={"name": "V"})
    model = Model.objects.create(slug=slug, vendor=vendor)
    for row in providers:
        Route.objects.create(model=model, provider=row, upstream_model=slug)
    return model


def test_it_works():
    off, unset = provider("off", is_active=False), provider("unset", api_key="env:NOT_SET_HERE")
    dead = model("dead", off, unset)
    assert checks.why_dead(dead) == ["off: switched off", "unset: NOT_SET_HERE is not set in the environment"]


def test_one_live_route_is_enough():
    row = model("m", provider("off", is_active=False), provider("live"))
    assert checks.why_dead(row) == []
    assert checks.live_routes(Model.objects.all()).get().live == 1


def test_one_credential_is_enough():
    row = provider("p", api_key="env:NOT_SET_HERE")
    assert checks.credential_faults(row) == []  # it cannot be asked at all: the provider's own fault says so
    row.credentials.create(name="second", api_key="sk-2")
    row.credentials.create(name="off", is_active=False)
    assert checks.why_dead(model("m", row)) == []
    assert checks.live_routes(Model.objects.all()).get().live == 1
    assert checks.credential_faults(row) == ["its own credential: NOT_SET_HERE is not set in the environment"]


def test_a_route_that_is_off_is_not_live():
    row = model("m", provider("live"))
    Route.objects.update(is_active=False)
    assert checks.why_dead(row) == ["live: this route is switched off"]
    assert checks.live_routes(Model.objects.all()).get().live == 0


def test_a_model_without_routes():
    assert checks.why_dead(model("m")) == ["It has no route: add one below."]


def test_the_example_is_a_model_that_answers():
    model("a", provider("off", is_active=False))
    model("b", provider("live"))
    assert checks.example_model_id() == "b"


def test_the_example_is_the_default_model_where_that_answers():
    live = provider("live")
    model("a", live)
    model("b", live)
    Catalog.objects.update_or_create(pk=1, defaults={"default_model": "b"})
    assert checks.example_model_id() == "b"


def test_an_empty_catalog_has_no_example():
    assert checks.example_model_id() == ""


def test_the_page_of_a_new_key_asks_here(settings):
    assert import_string(settings.SNIPPET_MODEL) is checks.example_model_id
