"""A request whose history another format's model has answered: what of it goes to a provider that speaks Gemini."""

import json
from typing import Any

import pytest

from proxy.formats import gemini
from proxy.formats.base import Edits
from proxy.formats.canonical import Thinking
from proxy.formats.gemini.parts import UNSIGNED, keep
from proxy.formats.splice import Members

SEALED = keep([Thinking("Hm", signature="sig", origin="anthropic_messages")])
HELLO = {"role": "user", "parts": [{"text": "Hi"}]}
CALL = {"functionCall": {"name": "f", "args": {}}}
RESULT = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]}


def model(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "model", "parts": list(parts)}


def passed(*contents: dict[str, Any], name: str = "gemini-3-pro") -> list[dict[str, Any]]:
    edits = Edits(name, frozenset(), stream=False)
    body = {"contents": list(contents)}
    found: dict[str, Any] = json.loads(gemini.own_body(Members(json.dumps(body).encode()), edits))
    inner = {"generateContentRequest": body}
    counted = json.loads(gemini.count_body(Members(json.dumps(inner).encode()), edits))
    assert counted == {"generateContentRequest": found}
    return list(found["contents"])


@pytest.mark.parametrize("member", ["thoughtSignature", "thought_signature"])
@pytest.mark.parametrize("signature", [SEALED, SEALED.replace("+", "-").replace("/", "_").rstrip("=")])
def test_what_another_model_signed_is_left_out(member: str, signature: str) -> None:
    found = passed(HELLO, model({"text": "Ho", member: signature}, {"text": "", member: signature}), HELLO)
    assert found == [HELLO, model({"text": "Ho"}), HELLO]


def test_a_content_of_nothing_else_is_left_out() -> None:
    assert passed(HELLO, model({"text": "", "thoughtSignature": SEALED}), HELLO) == [HELLO, HELLO]


def test_its_own_signatures_stay() -> None:
    own = keep([Thinking(signature="Z2Vt", origin="gemini")])
    signed = model({"text": "Ho", "thoughtSignature": "c2ln"}, {"text": "!", "thoughtSignature": own})
    found = passed(HELLO, signed, model({"text": "?", "thoughtSignature": SEALED}), HELLO)
    assert found[1] == model({"text": "Ho", "thoughtSignature": "c2ln"}, {"text": "!", "thoughtSignature": "Z2Vt"})


@pytest.mark.parametrize(("name", "word"), [("gemini-3-pro", UNSIGNED), ("own", UNSIGNED), ("gemini-2.5-pro", None)])
def test_the_first_call_of_a_step_says_that_no_gemini_made_it(name: str, word: str | None) -> None:
    earlier = [HELLO, model({**CALL, "thoughtSignature": SEALED}), RESULT]
    step = model({"text": "Ho", "thoughtSignature": SEALED}, CALL, CALL)
    found = passed(*earlier, HELLO, step, RESULT, model(CALL), RESULT, name=name)
    calls = [[part.get("thoughtSignature") for part in content["parts"] if "functionCall" in part] for content in found]
    assert [each for each in calls if each] == [[None], [word, None], [word]]


def test_a_request_without_seals_passes_byte_for_byte() -> None:
    text = json.dumps({"contents": [HELLO, model(CALL), RESULT, {"role": "user", "parts": [{"text": SEALED}]}]})
    edits = Edits("gemini-3-pro", frozenset(), stream=False)
    assert gemini.own_body(Members(text.encode()), edits) == text.encode()
