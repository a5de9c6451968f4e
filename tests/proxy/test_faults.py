"""What a provider's refusal becomes, and that the gateway's credential never leaves with it."""

import json
from typing import Any

import pytest

from proxy.errors import ProviderFault, ProviderRefusal, Refusal, after_all
from proxy.faults import CREDENTIAL_FAULTS, REQUEST_FAULTS, fault_in_200, fault_of_status, scrub
from proxy.formats import openai_chat
from proxy.replies import error_body
from tests.proxy.inside import provider

SECRET = "sk-upstream-secret"
HEADER = "Basic aGVhZGVyLXNlY3JldA=="
PROVIDER = provider(headers=(("authorization", HEADER), ("x-title", "Kodna")))


def fault(status: int, body: object = None, retry: str = "") -> ProviderFault | Refusal:
    return fault_of_status(status, json.dumps(body).encode() if body is not None else b"", retry, PROVIDER, openai_chat)


def error(message: object = "Bad", **more: object) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def to_client(found: ProviderFault | Refusal) -> tuple[int, dict[str, Any]]:
    """What the client gets where this was the only route."""
    refusal = found if isinstance(found, Refusal) else after_all([found], "m")
    return refusal.status, json.loads(error_body(refusal))["error"]


def test_it_works() -> None:
    found = fault(400, error("Unknown parameter: 'foo'.", type="invalid_request_error", param="foo", code="unknown"))
    expected = {
        "message": "Unknown parameter: 'foo'.",
        "type": "invalid_request_error",
        "param": "foo",
        "code": "unknown",
    }
    assert to_client(found) == (400, expected)


@pytest.mark.parametrize("status", sorted(REQUEST_FAULTS))
def test_the_requests_own_fault_reaches_the_client(status: int) -> None:
    found = fault(status, error("Bad", code=1261))
    assert isinstance(found, ProviderRefusal)
    assert to_client(found)[0] == status
    assert to_client(found)[1] == {"message": "Bad", "type": "invalid_request_error", "param": None, "code": "1261"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"error":{}}', b'{"error":{"message":null}}'])
def test_a_refusal_without_words(body: bytes) -> None:
    status, found = to_client(fault_of_status(400, body, "", PROVIDER, openai_chat))
    assert (status, found["message"]) == (400, "The provider refused the request with status 400.")


@pytest.mark.parametrize("status", sorted(CREDENTIAL_FAULTS))
def test_a_refused_credential_is_the_gateways_trouble(status: int) -> None:
    found = fault(status, error("Incorrect API key provided: sk-up***ret", code="invalid_api_key"))
    assert isinstance(found, ProviderFault)
    assert found.status == status
    sent, told = to_client(found)
    assert (sent, told["type"], told["code"]) == (502, "api_error", "provider_error")
    assert "sk-up" not in told["message"]


@pytest.mark.parametrize(
    "body",
    [
        [error("API key not valid. Please pass a valid API key.", status="INVALID_ARGUMENT", code=400)],
        error("API key expired. Please renew the API key.", code=400),
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: sk-***t."},
        error("no", code="invalid_api_key"),
        error("no", type="authentication_error"),
    ],
)
def test_a_credential_refused_with_400(body: object) -> None:
    assert isinstance(fault(400, body), ProviderFault)
    assert to_client(fault(400, body))[0] == 502


@pytest.mark.parametrize("message", ["Unrecognized request argument supplied: api_key", "Unknown name 'apiKey'"])
def test_a_field_of_the_client_is_no_credential(message: str) -> None:
    assert to_client(fault(400, error(message)))[0] == 400


@pytest.mark.parametrize(
    ("status", "expected", "kind"),
    [
        (429, 429, "rate_limit_error"),
        (500, 502, "api_error"),
        (502, 502, "api_error"),
        (503, 502, "api_error"),
        (529, 502, "api_error"),
        (404, 502, "api_error"),
        (405, 502, "api_error"),
        (408, 502, "api_error"),
        (409, 502, "api_error"),
        (201, 502, "api_error"),
        (204, 502, "api_error"),
        (302, 502, "api_error"),
    ],
)
def test_the_providers_own_trouble(status: int, expected: int, kind: str) -> None:
    found = fault(status, error("Overloaded"))
    assert isinstance(found, ProviderFault)
    assert found.status == status
    sent, told = to_client(found)
    assert (sent, told["type"]) == (expected, kind)
    assert "Overloaded" in told["message"]


def test_how_long_to_wait() -> None:
    found = fault(429, error(), retry="7")
    assert isinstance(found, ProviderFault)
    assert found.retry_after == 7
    assert fault(429, error(), retry="soon").retry_after is None


@pytest.mark.parametrize(
    ("said", "status", "kind"),
    [
        ({"message": "Too long", "code": 400}, 400, "invalid_request_error"),
        ({"message": "Too long", "code": "400"}, 400, "invalid_request_error"),
        ({"message": "Too long", "type": "invalid_request_error", "code": "x"}, 400, "invalid_request_error"),
        ({"message": "Too long", "type": "BadRequestError", "code": None}, 400, "BadRequestError"),
        ({"message": "Down", "code": 502}, 502, "api_error"),
        ({"message": "Down", "code": "502"}, 502, "api_error"),
        ({"message": "Slow down", "code": 429}, 429, "rate_limit_error"),
        ({"message": "No", "code": 401}, 502, "api_error"),
        ({"message": "No", "code": 403}, 502, "api_error"),
        ({"message": "No", "type": "invalid_request_error", "code": "invalid_api_key"}, 502, "api_error"),
        ({"message": "Down", "code": "server_error"}, 502, "api_error"),
        ({"message": "Down", "code": True}, 502, "api_error"),
        ({"message": "Down", "code": 200}, 502, "api_error"),
        ({"message": "Down", "type": ["x"], "code": [1]}, 502, "api_error"),
        ({}, 502, "api_error"),
    ],
)
def test_an_error_in_a_200(said: dict[str, Any], status: int, kind: str) -> None:
    sent, told = to_client(fault_in_200(said, PROVIDER))
    assert (sent, told["type"]) == (status, kind)
    assert ("No" in told["message"]) is False
    assert told["message"]


SECRETS = [SECRET, HEADER, HEADER.partition(" ")[2]]


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404, 422, 429, 500, 503])
@pytest.mark.parametrize("secret", SECRETS)
def test_an_echo_of_the_credential_never_leaves(status: int, secret: str) -> None:
    echo = f"You sent {secret}!"
    said = {"message": echo, "type": echo, "code": echo, "param": echo, "status": echo}
    found = fault_in_200({**said, "code": 400}, PROVIDER) if status == 200 else fault(status, {"error": said})
    assert secret not in json.dumps(to_client(found))
    assert secret not in str(found)


@pytest.mark.parametrize("secret", SECRETS)
def test_a_whole_event_is_scrubbed(secret: str) -> None:
    assert secret.encode() not in scrub(f'data: {{"error":"{secret}"}}\n\n'.encode(), PROVIDER)


def test_a_credential_as_json_writes_it() -> None:
    owner = provider(api_key='ab/cd"ef\\gh')
    for written in (json.dumps(owner.api_key), json.dumps(owner.api_key).replace("/", "\\/")):
        assert scrub(b"x " + written.encode(), owner) == b'x "..."'


@pytest.mark.parametrize("word", ["", "x", "none", "ollama"])
def test_a_word_is_no_secret(word: str) -> None:
    """Local servers take any key; cutting such a word out of each message would spoil it."""
    text = f"none of the models in ollama fits {word}".encode()
    assert scrub(text, provider(api_key=word)) == text


def test_long_words_are_cut() -> None:
    status, told = to_client(fault(400, error("a" * 5000)))
    assert (status, len(told["message"])) == (400, 1000)


@pytest.mark.parametrize(
    ("message", "told"), [("half \\ud83d of it", "half ? of it"), ("a\\u0000b", "a\x00b"), ("Größe 😀", "Größe 😀")]
)
def test_odd_letters(message: str, told: str) -> None:
    body = b'{"error":{"message":"' + message.encode() + b'"}}'
    assert to_client(fault_of_status(400, body, "", PROVIDER, openai_chat))[1]["message"] == told
