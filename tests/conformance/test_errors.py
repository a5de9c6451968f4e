"""A provider's refusal reaches the client as its SDK's exception for that status, with the provider's words."""

from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from google.genai import errors as google

from proxy.formats.base import Error
from tests.conformance import anthropic_sdk, corpus, google_sdk, openai_sdk
from tests.conformance.corpus import FAMILIES
from tests.conformance.matrix import EQUAL, FAILED, Cell, report
from tests.recordings import Exchange

_NAMES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}


def _expected(name: str, status: int) -> type[Exception]:
    if name == "generateContent":
        return google.ClientError if status < 500 else google.ServerError
    vendor: Any = anthropic if name == "messages" else openai
    kind = _NAMES.get(status, "InternalServerError" if status >= 500 else "APIStatusError")
    found: type[Exception] = getattr(vendor, kind)
    return found


def _raised(name: str, status: int, body: bytes) -> Exception:
    if name == "generateContent":
        return google_sdk.error(status, body)
    return (anthropic_sdk if name == "messages" else openai_sdk).error(status, body)


def _check(name: str, target: str, exchange: Exchange) -> None:
    found = FAMILIES[name].form.read_error(exchange.body)
    words = found.get("message")
    assert isinstance(words, str), f"no message: {found}"
    assert words, f"an empty message: {exchange.body[:200]!r}"
    kind = found.get("type")
    error = Error(
        exchange.status,
        words,
        kind if isinstance(kind, str) else "api_error",
        str(found["code"]) if found.get("code") is not None else None,
        request_id="req_1",
    )
    raised = _raised(target, exchange.status, FAMILIES[target].form.error_body(error))
    assert isinstance(raised, _expected(target, exchange.status)), f"{type(raised).__name__} for {exchange.status}"
    said = getattr(raised, "message", "")
    assert words in str(said), f"the SDK says {said!r} instead of {words!r}"


@pytest.mark.parametrize("target", FAMILIES)
@pytest.mark.parametrize("name", FAMILIES)
def test_errors(name: str, target: str, record_property: Callable[[str, Any], None]) -> None:
    cell = Cell("errors", f"{name} → {target}")
    for exchange in corpus.refused(name):
        if not exchange.body.lstrip().startswith((b"{", b"[")):
            continue  # a page of some proxy, or nothing
        try:
            _check(name, target, exchange)
            cell.add(exchange.id, EQUAL)
        except AssertionError as fault:
            cell.add(exchange.id, FAILED, str(fault).splitlines()[0])
    record_property(*report(cell))
    assert cell.exchanges
    assert not cell.failures
