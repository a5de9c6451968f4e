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


# --- what another model or provider may do better --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [  # OpenAI, Anthropic, Gemini, Vertex, Azure, DeepSeek, Cohere, Ollama, Venice, Mistral, OpenRouter
        (404, "The model `x` does not exist or you do not have access to it.", "model_not_found"),
        (400, "The requested model 'x' does not exist.", "model_not_found"),
        (404, "The model `x` has been deprecated, learn more here", "model_not_found"),
        (404, "model: claude-x", None),
        (404, "models/x is not found for API version v1beta, or is not supported for generateContent.", "404"),
        (404, "Publisher Model `projects/p/models/x` not found.", None),
        (404, "The API deployment for this resource does not exist.", "DeploymentNotFound"),
        (400, "The supported API model names are a or b, but you passed x.", "invalid_request_error"),
        (404, "model 'x' was removed on September 15, 2025.", None),
        (404, "model 'x:latest' not found", None),
        (404, "Specified model not found: x. Did you mean: y?", None),
        (400, "Invalid model: x", "1500"),
        (400, "x is not a valid model ID", "400"),
        (400, "Model Not Exist", "invalid_request_error"),
    ],
)
def test_a_provider_that_does_not_have_the_model(status: int, message: str, code: str | None) -> None:
    found = fault(status, error(message, code=code))
    assert isinstance(found, ProviderFault)
    assert (found.status, found.is_credential) == (status, False)
    assert to_client(found)[0] == 502


@pytest.mark.parametrize(
    "message",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "This model does not support effort level 'xhigh'.",
        "Logprobs are not enabled for this model",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        "No tool output found for tool call call-a.",
    ],
)
def test_a_model_that_is_there_but_cannot_do_it(message: str) -> None:
    assert isinstance(fault(400, error(message)), ProviderRefusal)


def test_words_that_a_client_may_have_put_there_say_nothing_of_health() -> None:
    """Or a few requests with an odd role would take a route, or a credential, away from everybody."""
    for message in ("Invalid value: 'model x not found'.", "Invalid value: 'api key'."):
        found = fault(400, error(message, code="invalid_value"))
        assert isinstance(found, ProviderFault)
        assert not found.is_sure
    for sure in (fault(400, error("no", code="API_KEY_INVALID")), fault(404, error("model: x")), fault(401)):
        assert isinstance(sure, ProviderFault)
        assert sure.is_sure


@pytest.mark.parametrize(
    "said",
    [
        error("File 'file-1' not found.", param="file_id"),
        error("Item with id 'rs_1' not found."),
        error("No such thing.", param="input[0].file_id"),
    ],
)
def test_a_404_about_what_the_request_names(said: dict[str, Any]) -> None:
    assert to_client(fault(404, said))[0] == 404


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [  # OpenAI, DeepSeek and OpenRouter, Anthropic, Vertex, Cohere, Perplexity, llama.cpp
        (400, "Your input exceeds the context window of this model.", "context_length_exceeded"),
        (400, "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens", "400"),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", None),
        (400, "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).", None),
        (400, "too many tokens: size limit exceeded by 5 tokens.", "TOO_MANY_TOKENS"),
        (400, "The total length of all messages is too long.", "too_many_prompt_tokens"),
        (400, "the request exceeds the available context size. try increasing it", "exceed_context_size_error"),
    ],
)
def test_a_prompt_that_is_too_long(status: int, message: str, code: str | None) -> None:
    found = fault(status, error(message, code=code))
    assert isinstance(found, ProviderRefusal)
    assert found.is_too_long
    assert to_client(found)[1]["message"] == message


def test_what_was_moderated_is_the_requests_own_fault() -> None:
    words = "Your chosen model requires moderation and your input was flagged."
    assert to_client(fault(403, error(words, code=403)))[0] == 403
    assert to_client(fault(403, error("Forbidden")))[0] == 502


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, error("No endpoints found that support tool use.", code=404)),  # OpenRouter
        (404, error("No allowed providers are available for the selected model.", code=404)),
        (400, error("The model `x` does not exist.", code="model_not_found", param="tools[0].model")),
        (402, error("This request requires more credits, or fewer max_tokens.", code=402)),
        (429, error("Request too large for gpt-x: Limit 30000, Requested 46097.", code="rate_limit_exceeded")),
        (403, None),  # a firewall's page
    ],
)
def test_what_another_request_would_not_have_had(status: int, said: object) -> None:
    """Another provider may do; but it must not take this one away from everybody."""
    found = fault(status, said)
    assert isinstance(found, ProviderFault)
    assert not found.is_sure


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, error("Prompt with id 'pmpt_1' not found.")),
        (403, error("You do not have permission to access the File abc or it may not exist.")),
        (424, error("Error retrieving tool list from MCP server.")),
    ],
)
def test_more_that_is_the_requests_own_fault(status: int, said: object) -> None:
    assert isinstance(fault(status, said), ProviderRefusal)


def test_an_address_where_nothing_is_counts_against_the_route() -> None:
    found = fault(404)
    assert isinstance(found, ProviderFault)
    assert found.is_sure


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_prompt", 400),
        ("invalid_image_url", 400),
        ("image_too_large", 400),
        ("failed_to_download_image", 400),
        ("rate_limit_exceeded", 429),
        ("server_error", 502),
        ("vector_store_timeout", 502),
    ],
)
def test_a_response_that_failed(code: str, status: int) -> None:
    assert to_client(fault_in_200({"code": code, "message": "It failed."}, PROVIDER))[0] == status


def test_a_response_whose_prompt_was_too_long() -> None:
    found = fault_in_200({"code": "context_length_exceeded", "message": "Too long."}, PROVIDER)
    assert isinstance(found, ProviderRefusal)
    assert found.is_too_long


def test_an_account_without_credit_there() -> None:
    """It is the gateway's: the client is not to be told of a rate limit, and need not try again."""
    found = fault(429, error("You exceeded your current quota.", code="insufficient_quota"), retry="3")
    assert isinstance(found, ProviderFault)
    assert (found.is_credential, found.may_be_repeated) == (True, False)
    assert to_client(found)[0] == 502


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
