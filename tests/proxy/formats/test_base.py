"""Losses: named as the client names things, grave or harmless. Usage: the prompt's side."""

from proxy.formats.base import Losses, prompt_side
from proxy.formats.canonical import Usage


def test_it_works() -> None:
    losses = Losses({"seed": "generationConfig.seed"})
    losses.field("seed")
    losses.at("contents[0].parts[1]")
    losses.field("metadata")
    losses.at("contents[0].parts[0].cache_control", harmless=True)
    losses.of_answer("logprobs")
    assert losses.names == [
        "generationConfig.seed",
        "contents[0].parts[1]",
        "metadata",
        "contents[0].parts[0].cache_control",
        "answer.logprobs",
    ]
    assert losses.grave == ["generationConfig.seed", "contents[0].parts[1]"]


def test_each_is_named_once() -> None:
    losses = Losses({})
    losses.field("seed")
    losses.field("seed")
    assert losses.names == ["seed"]


def test_a_path_is_as_harmless_as_its_last_name() -> None:
    losses = Losses({})
    losses.field("input[3].phase")
    losses.field("tools[0].defer_loading")
    assert losses.grave == ["tools[0].defer_loading"]


def test_the_prompts_side_of_usage() -> None:
    assert prompt_side(Usage(9, 5, 3, 1, 4, 2, 6)) == Usage(9, 0, 3, 1, 0, 2, 0)
    assert prompt_side(None) is None
