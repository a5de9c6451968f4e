"""Whose turn it is: requests that stand alone are shared out, conversations keep their place."""

import json
from typing import Any

import pytest

from proxy import turns
from proxy.formats import anthropic_messages, gemini, openai_chat, openai_completions, openai_responses
from proxy.formats.base import Client
from proxy.formats.splice import Members
from proxy.ingress import Envelope
from proxy.turns import Turns
from tests.proxy.inside import model, provider

MODEL = model("m", provider("a"), provider("b"))


def envelope(form: Client = openai_chat, **fields: object) -> Envelope:
    return Envelope(form, Members(json.dumps({"model": "m", **fields}).encode()))


def said(role: str, words: str) -> dict[str, object]:
    return {"role": role, "content": words}


RULES, FIRST, REPLY, NEXT = said("system", "be kind"), said("user", "hi"), said("assistant", "hello"), said("user", "?")


def asks(found: Turns, session: str = "", form: Client = openai_chat, **fields: object) -> int:
    turn = found.of(envelope(form, **fields), MODEL, session)
    found.taken(MODEL, turn)
    return turn.number


def test_it_works() -> None:
    found = Turns()
    assert [asks(found, messages=[FIRST]) for _ in range(3)] == [0, 1, 2]


def test_looking_changes_nothing() -> None:
    found = Turns()
    looks = [found.of(envelope(messages=[RULES, FIRST, REPLY, NEXT]), MODEL, "") for _ in range(3)]
    assert len(set(looks)) == 1
    assert asks(found, messages=[RULES, FIRST, REPLY, NEXT]) == looks[0].number


def test_a_conversation_has_its_own() -> None:
    found = Turns()
    history = [RULES, FIRST]
    numbers = set()
    for _ in range(5):
        history = [*history, REPLY, NEXT]
        numbers.add(asks(found, messages=history))
        asks(found, messages=[FIRST])  # others in between
    assert len(numbers) == 1
    assert asks(found, messages=[said("system", "be rude"), FIRST, REPLY, NEXT]) not in numbers


@pytest.mark.parametrize("messages", [[FIRST], [RULES, FIRST], [RULES], [RULES, said("developer", "x"), FIRST]])
def test_what_stands_alone_takes_turns(messages: list[object]) -> None:
    found = Turns()
    assert [asks(found, messages=messages) for _ in range(3)] == [0, 1, 2]


def test_examples_are_no_conversation() -> None:
    """Many questions after the same examples: none is longer than the one before."""
    found = Turns()
    numbers = [asks(found, messages=[RULES, FIRST, REPLY, said("user", f"question {n}")]) for n in range(6)]
    assert numbers[1:] == [1, 2, 3, 4, 5]


def test_a_name_goes_before_all() -> None:
    found = Turns()
    named = [asks(found, "00c0ffee" * 4, messages=messages) for messages in ([FIRST], [RULES, FIRST, REPLY, NEXT])]
    assert named == [0xC0FFEE] * 2


@pytest.mark.parametrize(
    ("form", "one", "other"),
    [
        (anthropic_messages, {"messages": [FIRST, REPLY, NEXT], "system": "a"}, {"system": "b"}),
        (openai_responses, {"input": [FIRST, REPLY, NEXT], "instructions": "a"}, {"instructions": "b"}),
        (gemini, {"contents": [FIRST, REPLY, NEXT], "systemInstruction": {}}, {"systemInstruction": []}),
    ],
)
def test_conversations_of_other_formats(form: Client, one: dict[str, Any], other: dict[str, Any]) -> None:
    numbers = [asks(Turns(), form=form, **fields) for fields in (one, one, one | other)]
    assert numbers[0] == numbers[1] != numbers[2]
    assert numbers[0] != 0


def test_formats_without_one() -> None:
    assert asks(Turns(), form=openai_completions, prompt="hi") == 0
    assert asks(Turns(), form=openai_responses, input="hi") == 0


def test_one_route_needs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_read_list", None)
    assert Turns().of(envelope(messages=[FIRST, REPLY, NEXT]), model("m", provider()), "").number == 0


@pytest.mark.parametrize(
    "messages", [[1, 2], [None, {}], [[], []], [{"role": 5}, {"role": []}], ["a", "b"], "x", {}, []]
)
def test_odd_conversations(messages: object) -> None:
    assert isinstance(asks(Turns(), messages=messages), int)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "MOST", 3)
    monkeypatch.setattr(turns, "LONGEST", 200)
    found = Turns()
    for number in range(10):
        asks(found, messages=[said("user", str(number)), REPLY, NEXT])
    assert len(found._lengths) == 3
    assert asks(found, messages=[said("user", "x" * 200), REPLY, NEXT]) == 10, "too long to be looked at"
