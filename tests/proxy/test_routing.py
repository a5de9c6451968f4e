"""From a name to the attempts to make."""

from dataclasses import replace

import pytest

from accounts.keys import Key
from models_catalog.snapshot import Snapshot
from proxy.errors import BadRequest, Forbidden, ModelNotFound, Refusal, Unavailable
from proxy.formats import openai_chat
from proxy.formats.splice import Members
from proxy.ingress import Envelope
from proxy.routing import Attempt, plan, resolve
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


def attempts(name: str = "m", key: Key = KEY, catalog: Snapshot = CATALOG, **asked: tuple[str, ...]) -> list[str]:
    target = resolve(name, catalog, key)
    found = plan(target, Envelope(openai_chat, Members(b"{}"), **asked), catalog, key)  # type: ignore[arg-type]
    return [f"{each.model.id}@{each.route.provider.name}:{each.layer}" for each in found]


def refusal(name: str = "m", key: Key = KEY, catalog: Snapshot = CATALOG, **asked: tuple[str, ...]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        attempts(name, key, catalog, **asked)
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


def test_attempts_compare_by_what_they_say() -> None:
    route = CATALOG.models["m"].routes[0]
    assert Attempt(CATALOG.models["m"], route, 0) == Attempt(CATALOG.models["m"], route, 0)
