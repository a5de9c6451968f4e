"""The price list, for everyone."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from models_catalog import signals
from models_catalog.models import Model, Price, Provider, Route, Vendor
from tests.own_api import ask

PRICING = "/v1/credits/pricing"
pytestmark = pytest.mark.django_db


@pytest.fixture
def model() -> Model:
    model = Model.objects.create(slug="v/m", vendor=Vendor.objects.create(slug="v", name="V"))
    provider = Provider.objects.create(slug="p", base_url="http://127.0.0.1:1/v1")
    Route.objects.create(model=model, provider=provider, upstream_model="m")
    return model


def priced(model: Model, days: int, **amounts: str) -> None:
    values = {name: Decimal(amount) for name, amount in amounts.items()}
    Price.objects.create(model=model, valid_from=timezone.now() + timedelta(days=days), **values)


def test_it_works(model):
    priced(model, -2, input="9", output="9")
    priced(model, -1, input="0.15", output="0.6", cached_input="0.075")
    priced(model, 1, input="8", output="8")
    answer = ask(PRICING)
    assert answer.status == 200
    prices = {"input_per_1m": 0.15, "output_per_1m": 0.6, "cached_input_per_1m": 0.075, "cache_write_per_1m": None}
    assert answer.json == {"object": "list", "currency": "USD", "data": [{"id": "v/m", **prices}]}


def test_without_a_price(model):
    (told,) = ask(PRICING).json["data"]
    assert (told["input_per_1m"], told["output_per_1m"]) == (None, None)


def test_a_change_is_seen_at_once(model):
    assert ask(PRICING).json["data"]
    Provider.objects.update(is_active=False)
    signals.bump()
    assert ask(PRICING).json["data"] == []
