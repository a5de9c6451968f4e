"""What a key holder reads of a key."""

from decimal import Decimal

import pytest

from accounts.serializers import KeySerializer
from tests.own_api import new_key


@pytest.mark.django_db
def test_it_works():
    key, text = new_key(name="laptop", rpm=7, budget=Decimal("0.000000000001"), budget_period="day")
    told = KeySerializer(key).data
    assert (told["key"], told["name"], told["state"], told["rpm"]) == (key.prefix, "laptop", "active", 7)
    assert (told["budget"], told["budget_period"]) == ("0.000000000001", "day")
    assert text not in str(told)
    assert not {"digest", "notes", "id", "allowed_networks"} & set(told)


@pytest.mark.django_db
def test_without_a_budget():
    assert KeySerializer(new_key()[0]).data["budget"] is None
