"""The tree of refusals: what a client is told once every provider has failed."""

import pytest

from proxy import errors
from proxy.errors import ProviderFault, ProviderRefusal, after_all


def fault(status: int | None = None, reason: str = "status", retry_after: float | None = None) -> ProviderFault:
    return ProviderFault(reason, "it is so.", status=status, retry_after=retry_after)


def test_it_works() -> None:
    found = after_all([fault(500)], "m")
    assert (found.status, found.type, found.code) == (502, "api_error", "provider_error")
    assert found.message == "The provider failed for model 'm': it is so."


def test_the_last_fault_decides() -> None:
    assert after_all([fault(429), fault(reason="timeout")], "m").status == 504
    assert after_all([fault(reason="timeout"), fault(500)], "m").status == 502
    assert after_all([fault(500), fault(429)], "m").status == 502, "not every one of them is busy"


def test_all_are_busy() -> None:
    found = after_all([fault(429, retry_after=9), fault(429, retry_after=4), fault(429)], "m")
    assert (found.status, found.code, found.retry_after) == (429, "rate_limit_exceeded", 4)
    assert "not yours" in found.message
    assert after_all([fault(429)], "m").retry_after == 1


@pytest.mark.parametrize(
    ("kind", "status", "type_", "code"),
    [
        (errors.BadRequest, 400, "invalid_request_error", None),
        (errors.InvalidJson, 400, "invalid_request_error", "invalid_json"),
        (errors.BadKey, 401, "authentication_error", "invalid_api_key"),
        (errors.Forbidden, 403, "permission_error", None),
        (errors.NotFound, 404, "invalid_request_error", "not_found_error"),
        (errors.ModelNotFound, 404, "invalid_request_error", "model_not_found"),
        (errors.MethodNotAllowed, 405, "invalid_request_error", "method_not_allowed"),
        (errors.BodyTimeout, 408, "invalid_request_error", "request_timeout"),
        (errors.TooLarge, 413, "invalid_request_error", "request_too_large"),
        (errors.RateLimited, 429, "rate_limit_error", "rate_limit_exceeded"),
        (errors.AllFailed, 502, "api_error", "provider_error"),
        (errors.Unavailable, 503, "api_error", "provider_unavailable"),
        (errors.AllTimedOut, 504, "api_error", "provider_timeout"),
    ],
)
def test_the_table(kind: type[errors.Refusal], status: int, type_: str, code: str | None) -> None:
    found = kind("words")
    assert (found.status, found.type, found.code, found.message) == (status, type_, code, "words")


def test_a_bug_of_ours_says_nothing_of_itself() -> None:
    found = errors.Internal()
    assert (found.status, found.type, found.code) == (500, "server_error", "internal_error")
    assert "request id" in found.message


def test_a_strict_request_names_what_would_get_lost() -> None:
    found = errors.Lossy(["seed", "n"], "m")
    assert (found.status, found.code, found.param, found.retry) == (400, "unsupported_parameter", "seed", False)
    assert "seed, n" in found.message


NO_WORDS = "the provider refused the request"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({}, (NO_WORDS, "invalid_request_error", None, None)),
        ({"message": "m", "type": "t", "param": "p", "code": "c"}, ("m", "t", "p", "c")),
        ({"message": 5, "type": None, "param": [1], "code": 400}, (NO_WORDS, "invalid_request_error", None, "400")),
    ],
)
def test_a_providers_refusal(error: dict[str, object], expected: tuple[object, ...]) -> None:
    found = ProviderRefusal(422, error)
    assert found.status == 422
    assert (found.message, found.type, found.param, found.code) == expected
