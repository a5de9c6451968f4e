"""Who is asked next, and when."""

from dataclasses import replace

import pytest

from models_catalog.snapshot import Model, Route
from proxy.errors import BadRequest, ProviderFault, RateLimited, Refusal
from proxy.failover import BACK_OFF, MOST, Tries
from proxy.routing import PATIENCE, Attempt, Plan
from tests.proxy.inside import model, provider

A, B = provider("a"), provider("b")
DOWN = ProviderFault("connect", "it cannot be reached.")
SLOW = ProviderFault("timeout", "it did not answer in time.")


def tries(*models: Model, last: bool = False) -> Tries:
    return Tries(Plan([Attempt(each, route, 0) for each in models for route in each.routes], [], last))


def told(found: Tries, fault: ProviderFault = SLOW) -> list[str]:
    """All that is tried where each attempt ends with this fault."""
    said = []
    while (attempt := found.next()) is not None:
        said.append(f"{attempt.model.id}@{attempt.route.provider.name}:{attempt.layer}+{found.wait:g}")
        found.failed(attempt, fault)
    return said


def status(number: int, retry_after: float | None = None) -> ProviderFault:
    return ProviderFault("status", f"it answered with status {number}.", status=number, retry_after=retry_after)


def test_it_works() -> None:
    assert told(tries(model("m", A, B))) == ["m@a:0+0", "m@b:1+0"]


def test_a_transient_fault_is_repeated_where_nothing_else_is_left() -> None:
    assert told(tries(model("m", A)), DOWN) == ["m@a:0+0", "m@a:0+0.25", "m@a:0+0.5"]
    both = told(tries(model("m", A, B)), DOWN)
    assert both == ["m@a:0+0", "m@b:1+0", "m@a:0+0.25", "m@b:1+0.5"]


def test_before_another_model_is_asked() -> None:
    found = told(tries(model("m", A), model("n", B)), DOWN)
    assert found == ["m@a:0+0", f"m@a:0+{BACK_OFF:g}", "n@b:1+0"], "and only once"


@pytest.mark.parametrize("number", [408, 409, 425, 500, 502, 503, 529])
def test_statuses_that_are_repeated(number: int) -> None:
    assert len(told(tries(model("m", A)), status(number))) == 3


@pytest.mark.parametrize(
    "fault",
    [
        SLOW,
        ProviderFault("broken", "it broke off."),
        ProviderFault("malformed", "it is no JSON."),
        ProviderFault("error", "it said an error.", status=500),
        ProviderFault("busy", "it is busy."),
        status(429),
        status(401),
        status(404),
        status(503, PATIENCE + 1),
        status(429, 60),
    ],
    ids=str,
)
def test_what_is_not_repeated(fault: ProviderFault) -> None:
    """It may have been worked on; or it will not be better in a moment; or the provider asks to wait for too long."""
    assert len(told(tries(model("m", A)), fault)) == 1


@pytest.mark.parametrize("number", [429, 503])
def test_a_wait_that_the_provider_asks_for(number: int) -> None:
    assert told(tries(model("m", A)), status(number, 1.5)) == ["m@a:0+0", "m@a:0+1.5", "m@a:0+1.5"]


def test_what_is_out_is_not_repeated() -> None:
    assert told(tries(model("m", A), last=True), DOWN) == ["m@a:0+0"]


def test_never_more_than_the_model_allows() -> None:
    assert told(tries(model("m", A, B, attempts=1))) == ["m@a:0+0"]
    assert len(told(tries(model("m", A, B, attempts=3)), DOWN)) == 3


def keyed(*credentials: tuple[str, int]) -> Model:
    """Routes of one priority: (provider, credential)."""
    numbers = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in credentials), 1)}
    found = [provider(name, id=numbers[name], credential=each) for name, each in credentials]
    return replace(model("m"), routes=tuple(Route(each, "there") for each in found))


def order(found: Tries, *faults: ProviderFault) -> list[str]:
    """Who is asked, where each attempt ends with the next of these faults, and then with a time-out."""
    said, left = [], list(faults)
    while (attempt := found.next()) is not None:
        said.append(f"{attempt.route.provider.name}{attempt.route.provider.credential}:{attempt.layer}")
        found.failed(attempt, left.pop(0) if left else SLOW)
    return said


MANY = keyed(*(("a", number) for number in range(8)), ("b", 0))


@pytest.mark.parametrize("fault", [SLOW, DOWN, status(500), ProviderFault("malformed", "no JSON.")], ids=str)
def test_a_providers_failure_lets_others_come_before_its_other_credentials(fault: ProviderFault) -> None:
    assert order(tries(MANY), fault)[:3] == ["a0:0", "b0:1", "a1:0"]


@pytest.mark.parametrize("number", [401, 429])
def test_a_credentials_failure_does_not(number: int) -> None:
    fault = ProviderFault("status", "no.", status=number, is_credential=number == 401)
    assert order(tries(MANY), fault)[:3] == ["a0:0", "a1:0", "b0:1"]


def test_who_has_no_place_has_none_for_another_credential() -> None:
    assert order(tries(MANY), ProviderFault("busy", "full.")) == ["a0:0", "b0:1"]
    found = tries(MANY)
    first = found.next()
    assert first is not None
    assert found.has_other(first)
    alone = tries(keyed(("a", 0), ("a", 1)))
    first = alone.next()
    assert first is not None
    assert alone.has_more
    assert not alone.has_other(first)


def test_all_models_together_are_bounded() -> None:
    models = [model(f"m{number}", *(provider(f"p{each}") for each in range(6))) for number in range(5)]
    assert len(told(tries(*models))) == MOST


def test_whether_another_can_follow() -> None:
    found = tries(model("m", A, B))
    found.next()
    assert found.has_more
    found.next()
    assert not found.has_more


def test_a_prompt_that_does_not_fit() -> None:
    """On only where the window is larger; the refusal is the answer where that fails too."""
    small, same, large = (model(name, A, B, context=size) for name, size in (("s", 8), ("t", 8), ("l", 100)))
    found, refusal = tries(small, same, large), BadRequest("too long", code="context_length_exceeded")
    attempt = found.next()
    assert attempt is not None
    found.too_small(attempt.model, refusal)
    assert told(found) == ["l@a:1+0", "l@b:1+0"]
    assert found.outcome() is refusal


def test_a_window_that_nobody_knows() -> None:
    unknown, large = model("u", A, B, context=None), model("l", A, context=100)
    found = tries(unknown, large)
    attempt = found.next()
    assert attempt is not None
    found.too_small(attempt.model, BadRequest("too long"))
    assert told(found) == ["l@a:1+0"]


def test_the_answer_after_all() -> None:
    found = tries(model("m", A, B))
    told(found, status(429, 9))
    assert isinstance(found.outcome(), RateLimited)
    assert found.outcome().retry_after == 9
    refused, refusal = tries(model("m", A)), BadRequest("lossy")
    refused.refused(refusal)
    assert refused.outcome() is refusal, "nobody was asked"
    told(refused)
    assert isinstance(refused.outcome(), Refusal)
    assert refused.outcome() is not refusal, "the provider's failure says more"
