"""A request whose history another format's model has answered: what of it goes to a provider that speaks Messages."""

import json
from typing import Any

import pytest

from proxy.formats import anthropic_messages
from proxy.formats.anthropic_messages.models import UNSIGNED_THINKING
from proxy.formats.base import Edits
from proxy.formats.canonical import seal
from proxy.formats.splice import Members
from tests.proxy.formats import messages as wire

SEALED = seal("gemini", "c2ln")
HELLO = {"role": "user", "content": "Hi"}
TEXT = {"type": "text", "text": "Ho"}
CALL = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}


def thought(signature: str) -> dict[str, str]:
    return {"type": "thinking", "thinking": "Hm", "signature": signature}


def redacted(data: str) -> dict[str, str]:
    return {"type": "redacted_thinking", "data": data}


def passed(*messages: dict[str, Any], quirks: frozenset[str] = frozenset(), **more: Any) -> dict[str, Any]:
    members = wire.members(model="m", max_tokens=4000, messages=list(messages), **more)
    edits = Edits("m", frozenset(), stream=False, quirks=quirks)
    found = anthropic_messages.own_body(members, edits)
    assert anthropic_messages.count_body(members, edits) == found
    body: dict[str, Any] = json.loads(found)
    return body


def said(*blocks: dict[str, Any], quirks: frozenset[str] = frozenset()) -> Any:
    return passed(HELLO, {"role": "assistant", "content": list(blocks)}, HELLO, quirks=quirks)["messages"][1]["content"]


@pytest.mark.parametrize("foreign", [thought(SEALED), redacted(SEALED), thought(seal("", ""))])
def test_what_another_model_thought_is_left_out(foreign: dict[str, str]) -> None:
    assert said(foreign, TEXT) == [TEXT]


def test_its_own_come_back_as_they_were() -> None:
    own = seal(anthropic_messages.NAME, "sig")
    assert said(thought(own), redacted(own), TEXT) == [thought("sig"), redacted("sig"), TEXT]
    assert said(thought("sig"), redacted(SEALED), TEXT) == [thought("sig"), TEXT]


def test_a_message_of_nothing_else_is_left_out() -> None:
    messages = passed(HELLO, {"role": "assistant", "content": [redacted(SEALED)]}, HELLO)["messages"]
    assert messages == [HELLO, HELLO]


def test_vendors_that_sign_nothing_get_the_thought_without_the_seal() -> None:
    quirks = frozenset({UNSIGNED_THINKING})
    assert said(thought(SEALED), redacted(SEALED), TEXT, quirks=quirks) == [thought(""), TEXT]


@pytest.mark.parametrize(
    ("asked", "signature", "sent"),
    [
        ({"type": "enabled", "budget_tokens": 2000}, SEALED, {"type": "disabled"}),
        ({"type": "enabled", "budget_tokens": 2000}, "sig", {"type": "enabled", "budget_tokens": 2000}),
        ({"type": "adaptive"}, SEALED, {"type": "adaptive"}),
    ],
)
def test_no_budget_for_a_tool_loop_that_lost_its_thought(
    asked: dict[str, Any], signature: str, sent: dict[str, Any]
) -> None:
    earlier = {"role": "assistant", "content": [redacted(SEALED), TEXT]}
    loop = {"role": "assistant", "content": [thought(signature), CALL]}
    assert passed(HELLO, earlier, HELLO, loop, RESULT, thinking=asked)["thinking"] == sent


def test_every_other_byte_stays() -> None:
    messages = json.dumps([HELLO, {"role": "assistant", "content": [redacted(SEALED), TEXT]}])
    text = '{ "model":"m" , "x":1.50, "messages": %s }'
    edits = Edits("m", frozenset(), stream=False)
    found = anthropic_messages.own_body(Members((text % messages).encode()), edits)
    assert found.startswith(b'{ "model":"m" , "x":1.50, "messages": [')
    quoted = text % json.dumps([{"role": "user", "content": f"What is {SEALED}?"}])
    assert anthropic_messages.own_body(Members(quoted.encode()), edits) == quoted.encode()
