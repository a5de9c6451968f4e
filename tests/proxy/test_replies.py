"""Headers and bodies of answers: what every one has, what errors have, and what pages of other origins may see."""

from typing import Any

import pytest
from pytest_django import Settings

from proxy import replies
from proxy.errors import BadRequest, Refusal, TooLarge, Unavailable
from proxy.routing import Attempt
from tests.proxy.inside import model, provider


def scope(**headers: str) -> dict[str, Any]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def test_it_works() -> None:
    assert replies.common("req_1", scope()) == [(b"x-request-id", b"req_1")]


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (BadRequest("x"), {}),
        (BadRequest("x", retry=False), {b"x-should-retry": b"false"}),
        (Unavailable("x"), {b"retry-after": b"1", b"retry-after-ms": b"1000"}),
        (Unavailable("x", retry_after=2.2), {b"retry-after": b"3", b"retry-after-ms": b"2200"}),
        (Unavailable("x", retry_after=0.0), {b"retry-after": b"1", b"retry-after-ms": b"1"}),
        (TooLarge("x"), {b"connection": b"close"}),
    ],
)
def test_headers_of_an_error(refusal: Refusal, expected: dict[bytes, bytes]) -> None:
    assert dict(replies.error_headers(refusal)) == {b"content-type": b"application/json", **expected}


def test_the_body_of_an_error() -> None:
    found = replies.error_body(BadRequest('a "quoted" wörd', param="p", code="c"))
    assert (
        found
        == '{"error":{"message":"a \\"quoted\\" wörd","type":"invalid_request_error","param":"p","code":"c"}}'.encode()
    )


def test_any_origin() -> None:
    found = dict(replies.cors(scope(origin="https://a.example")))
    assert found[b"access-control-allow-origin"] == b"*"
    assert b"x-request-id" in found[b"access-control-expose-headers"]
    assert replies.cors(scope()) == []


def test_some_origins(settings: Settings) -> None:
    settings.CORS_ORIGINS = ["https://a.example"]
    assert dict(replies.cors(scope(origin="https://a.example")))[b"access-control-allow-origin"] == b"https://a.example"
    assert replies.cors(scope(origin="https://b.example")) == [(b"vary", b"origin")]
    assert replies.cors(scope(origin="null")) == [(b"vary", b"origin")]


def test_who_answers() -> None:
    found = model("ünï", provider("p"))
    headers = dict(replies.routed(Attempt(found, found.routes[0], 2), "the alias", 5, "moved"))
    assert headers == {
        b"x-kodna-model": b"%C3%BCn%C3%AF",
        b"x-kodna-provider": b"p",
        b"x-kodna-fallback": b"true",
        b"x-kodna-alias": b"the alias",
        b"x-kodna-fallback-layer": b"2",
        b"x-kodna-previous": b"moved",
        b"x-kodna-max-tokens": b"5",
    }
    assert set(headers) <= set(dict(replies.cors(scope(origin="x")))[b"access-control-expose-headers"].split(b", "))
    plain = dict(replies.routed(Attempt(found, found.routes[0], 0), "", None))
    assert plain.keys().isdisjoint({b"x-kodna-fallback-layer", b"x-kodna-previous"})


async def test_an_answer_without_content() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await replies.answer(send, 204, [], b"")
    assert sent[0]["headers"] == []


# --- losses ----------------------------------------------------------------------------------------------------------


def lost(*names: str) -> str:
    ((name, value),) = replies.losses(list(names))
    assert name == b"x-kodna-losses"
    return value.decode()


def test_losses() -> None:
    assert replies.losses([]) == []
    assert lost("seed", "messages[0].content[1]") == "seed, messages[0].content[1]"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a\r\nset-cookie: x=1", "a%0D%0Aset-cookie:%20x=1"),
        ("a\x00b", "a%00b"),
        ("a, b", "a%2C%20b"),
        ("100%", "100%25"),
        ("é😀", "%C3%A9%F0%9F%98%80"),
        ("\ud800", "%ED%A0%80"),
        ("", ""),
    ],
)
def test_a_name_that_a_client_made_up(name: str, written: str) -> None:
    assert lost(name) == written


def test_losses_without_end() -> None:
    assert len(lost("x" * 10_000)) == 100
    many = lost(*(f"field{number}" for number in range(1000)))
    assert len(many) < 1100
    assert many.endswith(", ...")
    assert many.startswith("field0, field1, ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0ms"),
        (-1, "0ms"),
        (0.02, "20ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9, "59.9s"),
        (0.9999, "1s"),
        (59.9999, "1m0s"),
        (360, "6m0s"),
    ],
)
def test_durations_as_openai_writes_them(seconds: float, words: str) -> None:
    assert replies.duration(seconds) == words
