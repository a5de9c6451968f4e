"""The provider gets the client's bytes but for the permitted edits."""

import json
from dataclasses import replace

import pytest

from proxy.errors import BadRequest
from proxy.formats import openai_chat
from proxy.formats.openai_chat import NO_STREAM_OPTIONS
from proxy.ingress import Asked, Envelope, read_envelope
from proxy.meter import pricer
from proxy.outgoing import Passage, clamped
from proxy.routing import Attempt
from tests.proxy.inside import model, provider

ASKED = '"stream_options":{"include_usage":true}'


def attempt(*, there: str = "there", quirks: frozenset[str] = frozenset(), enforce: bool = False) -> Attempt:
    """To a model whose output limit is 100 tokens."""
    found = model("ours", provider(quirks=quirks), enforce=enforce)
    return Attempt(found, replace(found.routes[0], model=there), 0)


def envelope(body: str) -> Envelope:
    return read_envelope(body.encode(), Asked(openai_chat))


def sent(body: str, to: Attempt | None = None) -> str:
    return Passage(envelope(body), to or attempt(), pricer(None), "id", 0).question.body.decode()


def test_it_works() -> None:
    body = '{"model":"ours","messages":[{"role":"user","content":"Hi"}]}'
    assert sent(body) == body.replace('"ours"', '"there"')


# What no JSON writer would write again as it stands: spacing, order, escapes, numbers, fields that nobody knows.
CURIOUS = """ {
  "temperature" : 1.0,\t"top_p":1e0, "top_k": 40, "min_p":-0.0, "n":1E+2,
  "seed":18446744073709551615, "big":123456789012345678901234567890, "tiny":1e-400,
  "reasoning_effort":"high", "enable_thinking":true, "extra_body":{"model":"ours", "group":[1]},
  "messages":[{"role":"user" ,"content":"\\u00e9 \\ud83d\\ude00 é 😀 \\/ \\u0000 \u2028 \\"model\\": \\"ours\\""}],
  "m\\u006fdel":"ours" , "user":null
}
"""


def test_every_other_byte_stays() -> None:
    assert sent(CURIOUS) == CURIOUS.replace('"ours" , "user"', '"there" , "user"')


def test_the_name_at_the_provider_is_written_as_json() -> None:
    body = '{"messages":[{}],"model":"ours"}'
    assert json.loads(sent(body, attempt(there='a "b"\\é/c')))["model"] == 'a "b"\\é/c'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"messages":[{}]}', '{"messages":[{}],"model":"there"}'),
        ('{ "messages" : [{}] }', '{ "messages" : [{}],"model":"there" }'),
    ],
)
def test_a_model_that_was_not_named(body: str, expected: str) -> None:
    assert sent(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"group":"a","model":"ours","messages":[{}]}', '{"model":"there","messages":[{}]}'),
        (
            '{ "model": "ours", "models": ["x"], "messages": [{}], "previous_request_id": "r" }',
            '{ "model": "there", "messages": [{}] }',
        ),
    ],
)
def test_the_gateways_own_fields_are_taken_out(body: str, expected: str) -> None:
    assert sent(body) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "," + ASKED),
        (',"stream_options":null', "," + ASKED),
        (',"stream_options":{}', "," + ASKED),
        (',"stream_options":{ }', ',"stream_options":{"include_usage":true }'),
        (',"stream_options":{"include_usage":false}', "," + ASKED),
        (',"stream_options":{"include_usage":null}', "," + ASKED),
        (',"stream_options":{"include_usage":true}', "," + ASKED),
        (
            ',"stream_options": {"include_obfuscation" : false, "include_usage" : false}',
            ',"stream_options": {"include_obfuscation" : false, "include_usage" : true}',
        ),
        (',"stream_options":{"x":1e0}', ',"stream_options":{"x":1e0,"include_usage":true}'),
    ],
)
def test_usage_is_asked_for_on_a_stream(options: str, expected: str) -> None:
    body = '{"model":"ours","messages":[{}],"stream":true%s}'
    assert sent(body % options) == (body % expected).replace("ours", "there")


@pytest.mark.parametrize("rest", ['"stream":false', '"stream":null', '"stream":false,"stream_options":{"a":1}'])
def test_usage_is_not_asked_for_where_it_comes_anyway(rest: str) -> None:
    body = '{"model":"ours","messages":[{}],' + rest + "}"
    assert sent(body) == body.replace("ours", "there")


def test_usage_is_not_asked_of_a_provider_that_refuses_the_question() -> None:
    body = '{"model":"ours","messages":[{}],"stream":true}'
    assert sent(body, attempt(quirks=frozenset({NO_STREAM_OPTIONS}))) == body.replace("ours", "there")


@pytest.mark.parametrize("options", ['{"include_usage":false,"include_usage":false}', '{"a":1,"a":2}'])
def test_stream_options_that_name_a_field_twice_are_refused(options: str) -> None:
    with pytest.raises(BadRequest, match="twice") as caught:
        sent('{"model":"ours","messages":[{}],"stream":true,"stream_options":' + options + "}")
    assert (caught.value.status, caught.value.param) == (400, "stream_options")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("asked", "given"), [(100, 100), (101, 100), (99, 99)])
def test_an_enforced_output_limit(name: str, asked: int, given: int) -> None:
    body = '{"model":"ours","messages":[{}],"%s": %d}'
    to = attempt(enforce=True)
    assert sent(body % (name, asked), to) == (body % (name, given)).replace("ours", "there")
    assert clamped(envelope(body % (name, asked)), to) == (100 if asked > 100 else None)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ('"max_completion_tokens":50,"max_tokens":500', '"max_completion_tokens":50,"max_tokens":100'),
        ('"max_tokens":500,"max_completion_tokens":500', '"max_tokens":100,"max_completion_tokens":100'),
        ('"max_tokens":null,"max_completion_tokens":null', '"max_tokens":null,"max_completion_tokens":null'),
    ],
)
def test_an_enforced_limit_holds_for_both_fields(asked: str, given: str) -> None:
    body = '{"model":"ours","messages":[{}],' + asked + "}"
    assert sent(body, attempt(enforce=True)) == body.replace("ours", "there").replace(asked, given)


def test_an_output_limit_that_is_not_enforced() -> None:
    body = '{"model":"ours","messages":[{}],"max_tokens":1000000}'
    assert sent(body) == body.replace("ours", "there")


def test_all_edits_at_once() -> None:
    body = '{"group":"a", "messages":[{}], "max_tokens":500, "stream":true, "x":1.0}'
    expected = '{"messages":[{}], "max_tokens":100, "stream":true, "x":1.0,"model":"there",' + ASKED + "}"
    assert sent(body, attempt(enforce=True)) == expected
