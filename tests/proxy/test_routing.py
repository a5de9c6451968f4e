"""From a name to the attempts to make."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from accounts.keys import Key
from models_catalog.snapshot import Model, Route, Snapshot
from proxy.errors import BadRequest, Forbidden, ModelNotFound, RateLimited, Refusal, Unavailable
from proxy.formats import openai_chat
from proxy.formats.splice import Members
from proxy.health import Health, Out
from proxy.ingress import Envelope
from proxy.routing import LAST_RESORT, Attempt, Plan, plan, resolve
from proxy.sessions import Home
from tests.proxy.inside import KEY, model, provider, snapshot

A, B = provider("a", groups=frozenset({"one"})), provider("b", groups=frozenset({"two"}))
CATALOG = snapshot(
    model("m", A, B, fallbacks=("spare", "gone", "quick")),
    model("spare", B),
    model("dead"),
    model("mute", provider("c", supports=frozenset({"embeddings"}))),
    default="m",
    quick="spare",
)


def planned(
    name: str = "m",
    key: Key = KEY,
    catalog: Snapshot = CATALOG,
    health: Health | None = None,
    turn: int = 0,
    home: Home | None = None,
    **asked: tuple[str, ...],
) -> Plan:
    envelope = Envelope(openai_chat, Members(b"{}"), **asked)  # type: ignore[arg-type]
    return plan(resolve(name, catalog, key), envelope, catalog, key, health or Health(), turn, home)


def attempts(name: str = "m", key: Key = KEY, catalog: Snapshot = CATALOG, **asked: Any) -> list[str]:
    """As they are numbered once the first has failed."""
    first, *others = planned(name, key, catalog, **asked).attempts
    found = [first, *(attempt.as_fallback() for attempt in others)]
    return [f"{each.model.id}@{each.route.provider.name}:{each.layer}" for each in found]


def refusal(name: str = "m", key: Key = KEY, catalog: Snapshot = CATALOG, **asked: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        raise planned(name, key, catalog, **asked).refusal or AssertionError("it is not refused")
    return caught.value


def test_it_works() -> None:
    assert attempts("spare") == ["spare@b:0"]


def test_the_order() -> None:
    """The model's own routes, the request's list, the catalog's fallbacks; a name that nobody has is passed over."""
    found = attempts("m", models=("dead", "none", "quick"))
    assert found == ["m@a:0", "m@b:1", "spare@b:2"]


def test_names() -> None:
    assert resolve("m", CATALOG, KEY).alias == ""
    found = resolve("quick", CATALOG, KEY)
    assert (found.model.id, found.alias) == ("spare", "quick")
    assert resolve("", CATALOG, KEY).model.id == "m"


def test_a_default_that_is_an_alias() -> None:
    assert resolve("", replace(CATALOG, default_model="quick"), KEY).model.id == "spare"


def test_no_name_and_no_default() -> None:
    found = refusal("", catalog=replace(CATALOG, default_model=""))
    assert isinstance(found, BadRequest)
    assert (found.status, found.param, found.code) == (400, "model", "missing_required_parameter")


def test_an_unknown_name() -> None:
    found = refusal("x" * 500)
    assert isinstance(found, ModelNotFound)
    assert (found.status, found.code, found.param, found.retry) == (404, "model_not_found", "model", False)
    assert len(found.message) < 300


@pytest.mark.parametrize("allowed", [{"m"}, {"m", "other"}])
def test_models_of_a_key(allowed: set[str]) -> None:
    key = replace(KEY, models=frozenset(allowed))
    assert attempts("m", key) == ["m@a:0", "m@b:1"], "its fallbacks are not among them"
    found = refusal("spare", key)
    assert isinstance(found, Forbidden)
    assert (found.status, found.code) == (403, "model_not_allowed")


def test_an_alias_of_a_key() -> None:
    key = replace(KEY, models=frozenset({"quick"}))
    assert attempts("quick", key) == ["spare@b:0"]
    assert refusal("spare", key).status == 403


def test_groups_of_a_key() -> None:
    assert attempts("m", replace(KEY, groups=frozenset({"two"})))[0] == "m@b:0"
    found = refusal("spare", replace(KEY, groups=frozenset({"one"})))
    assert isinstance(found, Forbidden)
    assert (found.code, found.param) == ("model_not_allowed", "model")
    assert isinstance(refusal("dead", replace(KEY, groups=frozenset({"one"}))), Unavailable)


def test_groups_of_a_request() -> None:
    assert attempts("m", groups=("one",)) == ["m@a:0"]
    assert attempts("m", groups=("one", "two"))[:2] == ["m@a:0", "m@b:1"]


def test_a_group_that_does_not_serve_it() -> None:
    found = refusal("spare", groups=("one",))
    assert (found.status, found.param) == (400, "group")
    assert "It is served by: two." in found.message


def test_a_group_beyond_the_keys() -> None:
    assert refusal("m", replace(KEY, groups=frozenset({"one"})), groups=("two",)).status == 400


@pytest.mark.parametrize("name", ["dead", "mute"])
def test_no_live_route(name: str) -> None:
    found = refusal(name)
    assert isinstance(found, Unavailable)
    assert (found.status, found.code, found.retry_after) == (503, "provider_unavailable", 30)


def test_a_model_is_no_fallback_of_itself() -> None:
    assert attempts("spare", models=("spare", "quick")) == ["spare@b:0"]


# --- strategies ------------------------------------------------------------------------------------------------------


def routed(strategy: str, *weights: float, **changes: Any) -> Model:
    """Routes of one priority at the providers p0, p1, …"""
    found = model("m", strategy=strategy, **changes)
    routes = tuple(Route(provider(f"p{place}"), "there", 1, weight) for place, weight in enumerate(weights))
    return replace(found, routes=routes)


def names(found: Model, **asked: Any) -> list[str]:
    return [each.route.provider.name for each in planned(catalog=snapshot(found), **asked).attempts]


def health_of(found: Model, **out: Out) -> Health:
    health = Health()
    for route in found.routes:
        if route.provider.name in out:
            health.out[route.way] = out[route.provider.name]
    return health


def out(why: str, seconds: float = 60, status: int = 0) -> Out:
    now = time.time()
    return Out(now + seconds, why, status, now, 1)


def test_weights_are_shared_out_exactly() -> None:
    found = routed("weighted", 5, 3, 2)
    firsts = Counter(names(found, turn=turn)[0] for turn in range(1000))
    assert firsts.keys() == {"p0", "p1", "p2"}
    assert all(abs(firsts[name] - share) <= 3 for name, share in (("p0", 500), ("p1", 300), ("p2", 200)))
    some = Counter(names(found, turn=turn)[0] for turn in range(700, 720))
    assert all(abs(some[name] - share) <= 2 for name, share in (("p0", 10), ("p1", 6), ("p2", 4)))


def test_what_a_failed_route_leaves_is_shared_out_too() -> None:
    found = routed("weighted", 8, 1, 1)
    seconds = Counter(names(found, turn=turn)[1] for turn in range(1000) if names(found, turn=turn)[0] == "p0")
    assert abs(seconds["p1"] - seconds["p2"]) < 0.5 * sum(seconds.values())


def test_every_route_comes_once() -> None:
    found = routed("weighted", 5, 0, 2, 7)
    for turn in range(200):
        ordered = names(found, turn=turn)
        assert sorted(ordered) == ["p0", "p1", "p2", "p3"]
        assert ordered[-1] == "p1", "without a weight it is the last"


def test_no_weights_at_all() -> None:
    assert sorted(names(routed("weighted", 0, 0))) == ["p0", "p1"]


def test_in_order() -> None:
    found = routed("in_order", 1, 100, 5)
    assert {tuple(names(found, turn=turn)) for turn in range(20)} == {("p0", "p1", "p2")}


def test_cheapest() -> None:
    found = routed("cheapest", 1, 1, 1)
    costs = (7, None, 3)
    routes = tuple(replace(route, cost=cost) for route, cost in zip(found.routes, costs, strict=True))
    assert names(replace(found, routes=routes), turn=3) == ["p2", "p0", "p1"]


def test_fastest() -> None:
    """Who has not been measured comes first."""
    found = routed("fastest", 1, 1, 1)
    health = health_of(found)
    for route, seconds in zip(found.routes, (0.5, 0.1), strict=False):
        assert health.begins(route)
        health.answers(route, seconds, stream=False)
        health.ends(route, None)
    assert names(found, health=health) == ["p2", "p1", "p0"]
    health.begins(found.routes[2])
    assert names(found, health=health) == ["p1", "p2", "p0"], "it is being measured: as fast as they are on average"


def test_least_busy() -> None:
    found = routed("least_busy", 1, 2, 1)
    health = health_of(found)
    for place in (0, 1, 1, 2, 2):
        health.begins(found.routes[place])
    assert names(found, health=health) == ["p1", "p0", "p2"], "2 of 1, 3 of 2, 3 of 1"


def test_priority_goes_before_strategy() -> None:
    found = routed("cheapest", 1, 1)
    routes = (replace(found.routes[0], cost=9), replace(found.routes[1], cost=1, priority=2))
    assert names(replace(found, routes=routes)) == ["p0", "p1"]


# --- a conversation's home -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["weighted", "in_order", "cheapest", "fastest", "least_busy"])
def test_a_home_comes_first(strategy: str) -> None:
    found = routed(strategy, 1, 1, 1)
    home = found.routes[1].provider
    for turn in range(10):
        ordered = names(found, home=(home.id, home.credential), turn=turn)
        assert ordered[0] == "p1"
        assert sorted(ordered) == ["p0", "p1", "p2"]


def test_a_home_of_a_lower_priority_is_no_fallback() -> None:
    assert attempts(home=(B.id, 0))[:2] == ["m@b:0", "m@a:1"]


def test_the_same_credential_of_several() -> None:
    first, second, other = (provider("p", id=5, credential=each, api_key=f"k{each}") for each in (0, 1, 2))
    found = replace(model("m"), routes=tuple(Route(each, "there") for each in (first, second, other)))
    for turn in range(5):
        ordered = planned(catalog=snapshot(found), home=(5, 1), turn=turn).attempts
        assert ordered[0].route.provider.credential == 1
    gone = planned(catalog=snapshot(found), home=(5, 9)).attempts[0]
    assert gone.route.provider.id == 5, "another credential of its provider"


def test_a_home_that_is_gone_or_out_or_not_allowed() -> None:
    assert attempts(home=(99, 0))[0] == "m@a:0"
    health = Health()
    health.out[CATALOG.models["m"].routes[1].way] = out("errors")
    assert attempts(home=(B.id, 0), health=health)[0] == "m@a:0"
    assert attempts(home=(B.id, 0), groups=("one",)) == ["m@a:0"]


# --- what is out -----------------------------------------------------------------------------------------------------


def test_what_is_out_is_left_out() -> None:
    found = routed("weighted", 1, 1, 1)
    health = health_of(found, p1=out("errors"))
    plans = [planned(catalog=snapshot(found), health=health, turn=turn) for turn in range(10)]
    assert {each.route.provider.name for plan in plans for each in plan.attempts} == {"p0", "p2"}
    assert [attempt.route.provider.name for attempt, _ in plans[0].out] == ["p1"]
    assert not plans[0].is_last_resort


def test_a_place_that_is_out_takes_its_routes_with_it() -> None:
    found = routed("in_order", 1, 1)
    health = Health()
    health.out[found.routes[0].provider.place] = out("refused")
    assert names(found, health=health) == ["p1"]


def test_the_next_priority_is_a_fallback_then() -> None:
    health = Health()
    health.out[CATALOG.models["m"].routes[0].way] = out("errors")
    assert attempts(health=health)[0] == "m@b:1"


def test_all_are_out() -> None:
    """They are tried all the same, but not all of them."""
    found = routed("in_order", 1, 1, 1, 1)
    away = out("errors")
    last = planned(catalog=snapshot(found), health=health_of(found, p0=away, p1=away, p2=away, p3=out("rests")))
    assert [each.route.provider.name for each in last.attempts] == ["p0", "p1"]
    assert len(last.attempts) == LAST_RESORT
    assert last.is_last_resort


def test_a_short_rest_is_waited_for() -> None:
    found = routed("in_order", 1, 1)
    last = planned(catalog=snapshot(found), health=health_of(found, p0=out("rests", 20, 429), p1=out("rests", 2, 429)))
    assert [each.route.provider.name for each in last.attempts] == ["p1"]
    assert 1.9 < last.wait <= 2


def test_all_rest_as_their_providers_said() -> None:
    found = routed("in_order", 1, 1)
    limited = health_of(found, p0=out("rests", 20, 429), p1=out("rests", 7, 429))
    refused = refusal(catalog=snapshot(found), health=limited)
    assert isinstance(refused, RateLimited)
    assert 6 < (refused.retry_after or 0) <= 7
    assert "not yours" in refused.message
    busy = refusal(catalog=snapshot(found), health=health_of(found, p0=out("rests", 20, 503), p1=out("rests", 30, 429)))
    assert isinstance(busy, Unavailable)


def test_what_is_out_gives_way_to_another_model() -> None:
    found, spare = routed("in_order", 1, fallbacks=("spare",)), model("spare", A)
    health = health_of(found, p0=out("errors"))
    assert attempts(catalog=snapshot(found, spare), health=health) == ["spare@a:3"]


def test_what_has_been_worked_out_is_not_mixed_up() -> None:
    """Plans of different kinds of requests, from one snapshot."""
    catalog = snapshot(model("m", A, B))
    assert attempts(catalog=catalog) == ["m@a:0", "m@b:1"]
    assert attempts(catalog=catalog, groups=("two",)) == ["m@b:0"]
    assert attempts(catalog=catalog, key=replace(KEY, groups=frozenset({"one"}))) == ["m@a:0"]
    assert attempts(catalog=catalog) == ["m@a:0", "m@b:1"]
    first = planned(catalog=catalog)
    first.attempts.clear()
    assert attempts(catalog=catalog) == ["m@a:0", "m@b:1"], "a plan is its request's own"


def test_an_attempt_as_a_fallback() -> None:
    route = CATALOG.models["m"].routes[0]
    assert Attempt(CATALOG.models["m"], route, 0).as_fallback().layer == 1
    assert Attempt(CATALOG.models["m"], route, 3).as_fallback().layer == 3
