"""Ten thousand requests that nobody should send: none is a 500, none hangs, none harms the next one."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.upstream import Pool
from tests.proxy.inside import CHAT, KEY, TEXT, Answer, Inside, model, provider, snapshot
from tests.upstreams import MockUpstream, Received, Reply, chat_events, chat_stream, json_reply

# Providers that send no usage: the gateway must count whatever the client sent.
_PLAIN = json_reply({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes"}}]})
_STREAMED = Reply([*chat_events(["Yes"])[:-2], b"data: [DONE]\n\n"])


def _answer(request: Received) -> Reply:
    return _STREAMED if re.search(rb'"include_usage": *true', request.body) else _PLAIN


@dataclass
class House:
    """One application for all examples; `ask` gives each of them five seconds."""

    inside: Inside
    runner: asyncio.Runner

    def ask(self, body: bytes, headers: list[tuple[bytes, bytes]] | None = None, path: str = CHAT) -> Answer:
        known = [(b"authorization", f"Bearer {TEXT}".encode())] if headers is None else headers
        asked = self.inside.ask("POST", path, known, [body])
        return self.runner.run(asyncio.wait_for(asked, 5))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    upstream = MockUpstream(_answer)
    catalog = snapshot(model("m", provider("a"), provider("b")), default="m", fast="m")
    inside = Inside(tmp_path_factory.mktemp("fuzz"), catalog, Pool(upstream.transport), (TEXT, KEY))
    with asyncio.Runner() as runner:
        yield House(inside, runner)
        assert inside.limiter.active(KEY) == 0, "a request kept its place"


def check(answer: Answer) -> None:
    assert answer.whole
    assert answer.status in {200, 400, 401, 403, 404, 413}, answer.body
    assert answer.headers["x-request-id"].startswith("req_")
    if answer.status != 200:
        assert set(answer.error) == {"message", "type", "param", "code"}


FIELDS = [
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "group", "models",
    "previous_request_id", "temperature", "tools", "user", "", "\x00", "é",
]  # fmt: skip
_leaves = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        1.5,
        1e308,
        10**30,
        -(10**30),
        "",
        "m",
        "fast",
        "nobody",
        "\x00",
        "\U0001f600",
        "x" * 300,
    ]
)
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "text"]), inner),
    max_leaves=4,
)
_message = st.fixed_dictionaries(
    {}, optional={"role": _leaves, "content": _values, "tool_calls": _values, "name": _leaves}
)
_near = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(_message, max_size=3) | _values,
        "model": st.sampled_from(["m", "fast", "nobody", ""]) | _leaves,
        "stream": st.booleans() | _leaves,
        "stream_options": st.fixed_dictionaries({}, optional={"include_usage": _leaves}) | _values,
        "max_tokens": _leaves,
        "max_completion_tokens": _leaves,
        "group": _values,
        "models": _values,
        "previous_request_id": _leaves,
        "tools": _values,
    },
)


@given(_near)
@settings(max_examples=2500)
def test_bodies_that_are_nearly_right(house: House, body: dict[str, Any]) -> None:
    check(house.ask(json.dumps(body).encode()))


_bits = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u0000", b"\\ud800", b"\\udc00", b"\x00", b"\xff",
     b"\xef\xbb\xbf", b"NaN", b"Infinity", b"-", b"1e400", b"9" * 40, b"null", b"true", b"\n", b"\r\n", b" ",
     b'"messages":', b"\xf0\x9f", b'"model":"m",', b'"stream":true,', b"//", b"/*"]
)  # fmt: skip
_WHOLE = b'{"model":"m","messages":[{"role":"user","content":"Hello"}],"max_tokens":5,"stream":true,"x":{"y":[1,2]}}'


@given(st.lists(st.tuples(st.integers(0, len(_WHOLE)), st.integers(0, 9), _bits), min_size=1, max_size=4))
@settings(max_examples=3000)
def test_bodies_with_something_broken_in_them(house: House, edits: list[tuple[int, int, bytes]]) -> None:
    body = _WHOLE
    for place, length, instead in edits:
        body = body[:place] + instead + body[place + length :]
    check(house.ask(body))


@given(st.binary(max_size=60))
@settings(max_examples=3000)
def test_bodies_of_bytes(house: House, body: bytes) -> None:
    check(house.ask(body))


_name = st.sampled_from(
    [b"authorization", b"x-api-key", b"content-length", b"content-type", b"origin", b"user-agent", b"x-forwarded-for",
     b"accept", b"cookie", b"access-control-request-headers", b"expect"]
)  # fmt: skip
_header = st.tuples(
    _name, st.binary(max_size=40) | st.sampled_from([b"Bearer", b"Bearer " + TEXT.encode(), b"-1", b"1e9"])
)


@given(
    st.lists(_header, max_size=5),
    st.sampled_from([CHAT, "/v1/models", "/v1/models/m", "/v1/\x00", "/v1/models/\ufffd"]),
)
@settings(max_examples=1500)
def test_headers_of_bytes(house: House, headers: list[tuple[bytes, bytes]], path: str) -> None:
    answer = house.ask(_WHOLE, headers, path)
    assert answer.whole
    assert answer.status in {200, 401, 403, 404, 405, 413}, answer.body


_DEEP = [
    b"[" * depth + b"]" * depth for depth in (100, 400, 900, 940, 960, 970, 980, 985, 990, 995, 1000, 2000, 50_000)
]
_NUMBERS = [b"1e400", b"-1e400", b"9" * 5000, b"-" + b"9" * 5000, b"0." + b"1" * 5000, b"1e-9999"]
_STRINGS = [
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u0000"',
    b'"' + b"\\ud83d\\ude00" * 3 + b'"',
    b'"\\x"',
    b'"\x00"',
    b'"\xff"',
]


@pytest.mark.parametrize("value", [*_DEEP, *_NUMBERS, *_STRINGS, b"NaN", b"Infinity", b"01", b"+1", b"1.", b"nul"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":@}]}',
        b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":@}]}],"stream":true}',
        b'{"model":"m","messages":@}',
        b'{"model":"m","messages":[@]}',
        b'{"model":@,"messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":@,"x":@}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":@}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream_options":@,"stream":true}',
        b"@",
    ],
)
def test_values_that_break_readers(house: House, body: bytes, value: bytes) -> None:
    check(house.ask(body.replace(b"@", value)))


def test_content_nested_in_parts(house: House) -> None:
    """Each level is a call of ours where the text is counted."""
    for depth in (10, 150, 300, 450):
        content = '[{"text":' * depth + '"x"' + "}]" * depth
        check(house.ask(b'{"model":"m","messages":[{"role":"user","content":%s}]}' % content.encode()))


def test_the_gateway_still_works(house: House) -> None:
    answer = house.ask(_WHOLE)
    assert answer.status == 200
    assert b"Yes" in answer.body
    assert chat_stream().pieces[-1] in answer.body
