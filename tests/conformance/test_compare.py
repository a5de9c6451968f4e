"""The comparer sees what it is to see: each kind of difference, and only the losses that explain it."""

from copy import deepcopy

import pytest

from tests.conformance.compare import differences, unexplained
from tests.conformance.google_sdk import OTHER
from tests.conformance.reading import FILTERED, LENGTH, PAUSE, STOP, TOOL_CALLS, Call, Counted, Reading, Said


def reading() -> Reading:
    said = Said("Hi", "", "Two and two.", [Call("add", {"a": 1})], TOOL_CALLS, citations=1, logprobs=True, media=1)
    return Reading([said], Counted(20, 9, 16, 2, 4))


def kinds(truth: Reading, found: Reading, target: str = "chat") -> list[str]:
    return [one.kind for one in differences(truth, found, target)]


def test_it_works() -> None:
    assert kinds(reading(), reading()) == []


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("text", "Ha", "text"),
        ("refusal", "No.", "refusal"),
        ("reasoning", "Two and three.", "reasoning"),
        ("calls", [], "calls"),
        ("calls", [Call("add", {"a": 2})], "calls"),
        ("calls", [Call("sub", {"a": 1})], "calls"),
        ("reason", LENGTH, "reason"),
        ("citations", 2, "citations"),
        ("logprobs", False, "logprobs"),
        ("media", 0, "media"),
    ],
)
def test_each_difference_of_a_choice(name: str, value: object, kind: str) -> None:
    found = reading()
    setattr(found.choices[0], name, value)
    assert kinds(reading(), found) == [kind]


@pytest.mark.parametrize("name", ["prompt", "completion", "cached", "written", "reasoning"])
def test_each_difference_of_usage(name: str) -> None:
    found = reading()
    assert found.usage is not None
    setattr(found.usage, name, 1)
    assert kinds(reading(), found) == [f"usage.{name}"]


def test_usage_that_is_missing() -> None:
    found = reading()
    found.usage = None
    assert kinds(reading(), found) == ["usage"]
    assert kinds(found, reading()) == []  # the gateway counts where the provider does not


def test_a_choice_that_is_missing() -> None:
    truth = reading()
    truth.choices.append(deepcopy(truth.choices[0]))
    assert kinds(truth, reading()) == ["choices"]


def test_a_loss_explains_its_own_difference_only() -> None:
    found = reading()
    found.choices[0].citations = 0
    found.choices[0].text = ""
    left = unexplained(differences(reading(), found, "chat"), ["answer.citations", "answer.logprobs"])
    assert [one.kind for one in left] == ["text"]


def test_what_only_one_format_knows_must_be_named() -> None:
    truth = reading()
    truth.choices[0].others = {"web_search_call"}
    found = differences(truth, reading(), "chat")
    assert [one.kind for one in unexplained(found, [])] == ["web_search_call"]
    assert unexplained(found, ["answer.web_search_call"]) == []


def test_arguments_that_are_no_json_are_named_where_they_are_wrapped() -> None:
    truth, found = reading(), reading()
    truth.choices[0].calls = [Call("add", '{"a": ')]
    found.choices[0].calls = [Call("add", {"input": '{"a": '})]
    assert kinds(truth, found, "messages") == ["arguments"]
    found.choices[0].calls = [Call("add", {"input": "{"})]
    assert kinds(truth, found, "messages") == ["calls", "arguments"][:1]


@pytest.mark.parametrize(
    ("truth", "target", "same"),
    [
        (Said(reason=STOP, refusal="No."), "messages", FILTERED),
        (Said(reason=PAUSE), "chat", STOP),
        (Said(reason=OTHER), "chat", STOP),
        (Said(reason=OTHER), "messages", FILTERED),
    ],
)
def test_stop_reasons_that_say_the_same(truth: Said, target: str, same: str) -> None:
    found = deepcopy(truth)
    found.reason, found.refusal, found.text = same, "", truth.refusal
    assert kinds(Reading([truth]), Reading([found]), target) == []
    found.reason = LENGTH
    assert kinds(Reading([truth]), Reading([found]), target) == ["reason"]
