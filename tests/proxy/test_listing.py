"""The list of models: OpenAI's shape, what the public API adds, and only what can answer."""

from pathlib import Path

import pytest

from models_catalog.pricing import Price
from proxy import listing
from proxy.upstream import Pool
from tests.proxy.inside import Inside, model, provider, snapshot
from tests.upstreams import MockUpstream

ONE = provider("a", groups=frozenset({"z", "b"}))


@pytest.fixture
def house(tmp_path: Path) -> Inside:
    catalog = snapshot(model("m", ONE, supports=frozenset({"tools"})), model("v/x", ONE), model("dead"), fast="m")
    return Inside(tmp_path, catalog, Pool(MockUpstream().transport))


async def test_it_works(house: Inside) -> None:
    answer = await house.get("/v1/models")
    assert answer.status == 200
    assert answer.json["object"] == "list"
    assert [each["id"] for each in answer.json["data"]] == ["m", "v/x"]
    assert answer.json["aliases"] == {"fast": "m"}


async def test_a_model(house: Inside) -> None:
    found = (await house.get("/v1/models/m")).json
    assert (found["id"], found["object"], found["created"], found["owned_by"]) == ("m", "model", 1_700_000_000, "tests")
    assert found["cost"] == {"input": 1, "output": 2}
    assert found["pricing"] == {"input_per_1m": 1, "output_per_1m": 2}
    assert (found["cost_tier"], found["available_groups"]) == ("balanced", ["b", "z"])
    assert (found["supports_tools"], "tool_choice" in found["supported_parameters"]) == (True, True)
    assert (found["max_tokens_passthrough"], found["gateway_output_limit"]) == (True, None)
    assert "sk-upstream-secret" not in str(found)
    assert "127.0.0.1" not in str(found)


@pytest.mark.parametrize(("name", "found"), [("v/x", "v/x"), ("fast", "m")])
async def test_other_names(house: Inside, name: str, found: str) -> None:
    assert (await house.get(f"/v1/models/{name}")).json["id"] == found


@pytest.mark.parametrize("name", ["nobody", "dead", "", "v", "v/x/"])
async def test_a_model_that_is_not_there(house: Inside, name: str) -> None:
    answer = await house.get(f"/v1/models/{name}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")


async def test_no_price_is_null(house: Inside) -> None:
    house.tables.catalog = snapshot(model("m", ONE, prices=()))
    found = (await house.get("/v1/models/m")).json
    assert (found["cost"], found["cost_tier"]) == ({"input": None, "output": None}, None)


async def test_limits_that_are_enforced(house: Inside) -> None:
    house.tables.catalog = snapshot(model("m", ONE, enforce=True))
    found = (await house.get("/v1/models/m")).json
    assert (found["max_tokens_passthrough"], found["gateway_output_limit"]) == (False, 100)


async def test_a_new_catalog_shows_at_once(house: Inside) -> None:
    await house.get("/v1/models")
    house.tables.catalog = snapshot(model("new", ONE))
    assert [each["id"] for each in (await house.get("/v1/models")).json["data"]] == ["new"]


async def test_a_price_comes_into_force(house: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = (Price(2000, 5_000_000, 5_000_000, None, None), Price(0, 1_000_000, 1_000_000, None, None))
    house.tables.catalog = snapshot(model("m", ONE, prices=prices))
    for now, cost in ((1000.0, 1), (1030.0, 1), (2100.0, 5)):
        monkeypatch.setattr(listing.time, "time", lambda now=now: now)
        assert (await house.get("/v1/models")).json["data"][0]["cost"]["input"] == cost


@pytest.mark.parametrize(
    ("usd", "tier"), [(None, None), (0, "cheap"), (1, "cheap"), (1.01, "balanced"), (10, "balanced"), (11, "premium")]
)
def test_tiers(usd: float | None, tier: str | None) -> None:
    assert listing._tier(usd) == tier
