"""What the named aliases stand for, of models made for the case. `test_builtin` shows it for the built-in catalog."""

from typing import Any

import pytest

from models_catalog.aliases import NAMES, Candidate, choose

ALL = {"tools", "reasoning", "structured_outputs"}
USD = 10**6  # per million tokens, in picodollars per token


def model(name: str, usd: float = 1, *supports: str, **more: Any) -> Candidate:
    """Priced alike in and out."""
    return Candidate(name, int(usd * USD), int(usd * USD), supports=frozenset(supports), **more)


def chosen(name: str, *models: Candidate) -> str | None:
    return choose(models, ()).get(name)


def test_it_works() -> None:
    assert NAMES == ("best", "fast", "code", "cheap", "long-context", "vision", "reasoning", "agent", "balanced")
    large, small = model("large", 10, *ALL, context=200_000), model("small-mini", 1, "tools", context=128_000)
    assert choose([large, small], ()) == {
        "best": "large",
        "fast": "small-mini",
        "code": "large",
        "cheap": "small-mini",
        "long-context": "large",
        "reasoning": "large",
        "agent": "large",
        "balanced": "large",
    }


def test_what_is_taken_is_left_alone() -> None:
    assert set(choose([model("a")], {"best", "cheap"})) == {"fast", "code", "balanced"}


def test_without_models_there_are_none() -> None:
    assert choose([], ()) == {}


def test_the_best_can_most_and_costs_most() -> None:
    assert chosen("best", model("old", 90, "tools"), model("new", 20, *ALL), model("lesser", 10, *ALL)) == "new"


def test_of_equals_the_first_is_taken_but_not_a_preview() -> None:
    assert chosen("best", model("x-preview"), model("a"), model("b")) == "a"


@pytest.mark.parametrize("name", ["code", "agent", "vision"])
def test_work_that_takes_many_tokens_goes_to_the_best_below_a_price(name: str) -> None:
    models = [model(each, usd, *ALL, sees=True) for each, usd in (("top", 75), ("middle", 15), ("low", 1))]
    assert chosen(name, *models) == "middle"
    assert chosen(name, models[0]) == "top"


def test_an_agent_needs_tools_and_code_does_better_with_them() -> None:
    assert chosen("agent", model("a", 5)) is None
    assert chosen("code", model("a", 5)) == "a"
    assert chosen("code", model("a", 5), model("b", 1, "tools")) == "b"


def test_a_coder_among_equals() -> None:
    assert chosen("code", Candidate("llama3.2"), Candidate("qwen2.5-coder:7b")) == "qwen2.5-coder:7b"


def test_the_quick_ones_go_by_name_and_do_not_think_first() -> None:
    models = [model("minimax", 0.1, "tools"), model("a-flash", 1, *ALL), model("b-mini", 2, "tools")]
    assert chosen("fast", *models) == "b-mini"
    assert chosen("fast", *models[:2]) == "a-flash"
    assert chosen("fast", models[0], model("gemini", 0.2, "tools")) == "minimax"  # neither name says so


@pytest.mark.parametrize("name", ["vision", "reasoning", "long-context"])
def test_no_alias_where_no_model_fits(name: str) -> None:
    assert chosen(name, model("a", 1, "tools")) is None


def test_the_longest_context_then_the_abler_then_the_cheaper() -> None:
    long, longer = model("long", 1, context=100), model("longer", 9, context=101)
    assert chosen("long-context", long, longer) == "longer"
    assert chosen("long-context", long, model("able", 5, "tools", context=100)) == "able"
    assert chosen("long-context", model("dear", 2, context=100), long) == "long"


def test_balanced_is_the_middle_of_the_ablest() -> None:
    models = [model(f"m{usd}", usd, *ALL) for usd in (40, 1, 8)]
    assert chosen("balanced", model("plain", 7), *models) == "m8"
    assert chosen("balanced", model("x", 5), model("first", 8), model("second", 8), model("y", 9)) == "first"


@pytest.mark.parametrize("price", [(None, None), (0, 0), (USD, None), (USD, 0)])
def test_a_model_whose_price_nobody_knows_comes_last(price: tuple[int | None, int | None]) -> None:
    unknown = Candidate("local", *price, supports=frozenset(ALL), sees=True)
    found = choose([unknown, model("priced")], ())
    assert (found["best"], found["cheap"]) == ("priced", "priced")
    assert found["vision"] == "local"  # nothing else sees
    assert chosen("best", unknown) == "local"


def test_so_does_one_that_is_retired() -> None:
    retired = model("old", 0.1, *ALL, description="Retired at its maker.")
    assert (chosen("cheap", retired, model("new")), chosen("cheap", retired)) == ("new", "old")


def test_the_demonstration_only_where_there_is_nothing_else() -> None:
    demo = Candidate("kodna-demo", 0, 0, is_demo=True, supports=frozenset(ALL))
    assert set(choose([demo, Candidate("local")], ()).values()) == {"local"}
    assert chosen("agent", demo, Candidate("local")) is None
    assert chosen("agent", demo) == "kodna-demo"


@pytest.mark.parametrize("name", ["nomic-embed-text", "whisper-1", "gpt-4o-mini-tts", "dall-e-3", "llama-guard-4"])
def test_a_model_that_does_not_chat_is_never_chosen(name: str) -> None:
    assert choose([model(name, 0.01, *ALL)], ()) == {}
