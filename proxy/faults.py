"""What a provider's refusal means: the client's own fault, or the provider's, so that another route may help.

Called by `relay`. Nothing that leaves here holds the provider's credential.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from models_catalog.snapshot import Provider
from proxy.errors import ProviderFault, ProviderRefusal, Refusal
from proxy.formats.base import Format
from proxy.upstream import retry_after

# About the body that the client sent: no other provider would take it either.
REQUEST_FAULTS = frozenset({400, 406, 411, 413, 414, 415, 422, 424, 431, 451})
_NO_MODEL = frozenset({400, 404, 422})  # statuses of those that do not have a model
# About the gateway's credential. Its words stay here: they may quote it.
CREDENTIAL_FAULTS = frozenset({401, 402, 403})
# Gemini and xAI refuse a bad credential with 400. (`api_key` is a field that a client may have sent.)
_CREDENTIAL_WORDS = re.compile(r"\bapi[ -]key\b", re.IGNORECASE)
_CREDENTIAL_CODES = frozenset({"invalid_api_key", "authentication_error", "API_KEY_INVALID", "UNAUTHENTICATED"})
# OpenAI's 429 for an account without credit: https://platform.openai.com/docs/guides/error-codes
_NO_CREDIT_CODES = frozenset(
    {
        *("insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded"),
        *("project_spend_limit_exceeded", "organization_usage_limit_exceeded"),
    }
)
_REQUEST_TYPES = frozenset({"invalid_request_error", "BadRequestError"})
# The catalog's mistake, or a model that was withdrawn there. How they say it: tests/proxy/test_faults.py has examples.
_NO_MODEL_CODES = frozenset({"model_not_found", "DeploymentNotFound"})
_NO_MODEL_WORDS = re.compile(
    r"^model: |\b(?:invalid|unknown|no such) model\b|\bnot a valid model\b|\bsupported api model names are\b"
    r"|\bmodels?\b.{0,200}\b(?:not found|not exist|was removed|has been deprecated)\b",
    re.IGNORECASE | re.DOTALL,
)
# What a request may name that is not there: of a 404 that says nothing of the kind, the address is to blame.
_NOT_THERE = re.compile(
    r"\b(?:file|item|prompt|response|image|container|conversation|vector store|skill|url)s?\b.{0,200}"
    r"\b(?:not found|not exist|no longer exists?|expired)\b",
    re.IGNORECASE | re.DOTALL,
)
_TOO_LONG_CODES = frozenset(
    {"context_length_exceeded", "too_many_prompt_tokens", "TOO_MANY_TOKENS", "exceed_context_size_error"}
)
_TOO_LONG_WORDS = re.compile(
    r"context (?:length|window|size)|(?:prompt|input|messages?) (?:is|are) too long|too many tokens"
    r"|token count.{0,40}exceeds|maximum prompt length|exceeded model token limit",
    re.IGNORECASE,
)
_LONG_STATUSES = frozenset({400, 413, 422})
# A 403 about the request: OpenRouter's, https://openrouter.ai/docs/api-reference/errors, and Gemini's for a file.
_FORBIDDEN = re.compile(r"\bmoderation\b|\bflagged\b|\bor it may not exist\b", re.IGNORECASE)
# A 402 or 429 that a smaller request would not have had.
_TOO_MUCH = re.compile(r"\bfewer max_tokens\b|\brequest too large\b|\brequested \d", re.IGNORECASE)
# Of an error inside a 200, as Responses' `response.failed` has them:
# https://platform.openai.com/docs/api-reference/responses/object
_REQUEST_CODES = re.compile(
    r"invalid_\w+|image_\w+|unsupported_image_media_type|empty_image_file|failed_to_download_image"
    r"|context_length_exceeded"
)
_RATE_CODE = "rate_limit_exceeded"
_UNPAID = frozenset({402, 429})  # statuses of a credential whose account has run out
_LONGEST = 1000
_SECRET = 8  # characters; what is shorter is no secret but a word: local servers take any key


def fault_of_status(
    status: int, body: bytes, retry: str, provider: Provider, spoken: Format
) -> ProviderFault | Refusal:
    """The exception for a provider's answer other than 200, in the format that it speaks."""
    error = spoken.read_error(body)
    wait = _wait(retry, error)
    if (refused := _refused(status, error, provider, wait)) is not None:
        return refused
    said = _clean(error.get("message"), provider)
    words = f"it answered with status {status}" + (f": {said}" if said else ".")
    return ProviderFault("status", words, status=status, retry_after=wait)


def fault_in_200(error: dict[str, Any], provider: Provider) -> ProviderFault | Refusal:
    """The exception for an error object inside an answer that said 200, as OpenRouter sends it."""
    status = _status(error)
    if status is not None and (refused := _refused(status, error, provider)) is not None:
        return refused
    said = _clean(error.get("message"), provider)
    words = "it answered with an error" + (f": {said}" if said else ".")
    return ProviderFault("error", words, status=status)


def _wait(retry: str, error: dict[str, Any]) -> float | None:
    """Seconds: the header's, else what the error itself says (Gemini's `RetryInfo`)."""
    said = error.get("retry_after")
    return retry_after(retry or (str(said) if isinstance(said, int | float) else ""))


def _status(error: dict[str, Any]) -> int | None:
    """The status that an error inside a 200 stands for, where it says one."""
    code = error.get("status") if isinstance(error.get("status"), int) else error.get("code")
    if isinstance(code, str) and code.isdecimal() and len(code) == 3:
        code = int(code)
    if isinstance(code, int) and 400 <= code < 600:
        return code
    if isinstance(code, str) and (code == _RATE_CODE or _REQUEST_CODES.fullmatch(code)):
        return 429 if code == _RATE_CODE else 400
    return 400 if str(error.get("type")) in _REQUEST_TYPES else None


def _refused(
    status: int, error: dict[str, Any], provider: Provider, wait: float | None = None
) -> ProviderFault | Refusal | None:
    """What the gateway's credential or the client's request is to blame for; None: it is the provider's own trouble."""
    message, param = str(error.get("message") or ""), error.get("param")
    named = {str(error.get(name)) for name in ("code", "type", "status")}
    is_forbidden = status == 403 and bool(_FORBIDDEN.search(message))
    if status in (402, 429) and _TOO_MUCH.search(message):  # of this request: a smaller one would pass
        words = f"it answered with status {status}: {_clean(message, provider)}"
        return ProviderFault("status", words, status=status, retry_after=wait, is_sure=False)
    if (status in CREDENTIAL_FAULTS and not is_forbidden) or (status == 429 and named & _NO_CREDIT_CODES):
        sure = status != 403 or bool(error)  # a page that forbids is a firewall's: it may have read the prompt
        return _credential_refused(status, sure=sure, wait=wait)
    if status == 400 and (named & _CREDENTIAL_CODES or _CREDENTIAL_WORDS.search(message)):
        return _credential_refused(status, sure=bool(named & _CREDENTIAL_CODES))
    is_missing = status == 404 and bool(_NOT_THERE.search(message) or (param and param != "model"))
    if status in _NO_MODEL and not is_missing and (named & _NO_MODEL_CODES or _NO_MODEL_WORDS.search(message)):
        sure = param in (None, "", "model") and (status == 404 or bool(named & _NO_MODEL_CODES))
        return ProviderFault("status", "it does not have this model.", status=status, is_sure=sure)
    if not (status in REQUEST_FAULTS or is_forbidden or is_missing):
        if status == 404 and message:  # of this request, perhaps: "no endpoint that supports tools"
            words = f"it answered with status 404: {_clean(message, provider)}"
            return ProviderFault("status", words, status=status, is_sure=False)
        return None
    kept: dict[str, object] = {name: _clean(error.get(name), provider) or None for name in ("type", "param", "code")}
    words = _clean(message, provider) or f"The provider refused the request with status {status}."
    too_long = status in _LONG_STATUSES and bool(named & _TOO_LONG_CODES or _TOO_LONG_WORDS.search(message))
    return ProviderRefusal(status, {**kept, "message": words}, is_too_long=too_long)


def _credential_refused(status: int, *, sure: bool, wait: float | None = None) -> ProviderFault:
    words = "the provider refuses this gateway's credential."
    if status in _UNPAID:
        words = "this gateway's account at the provider has nothing left to pay with."
    return ProviderFault("status", words, status=status, retry_after=wait, is_sure=sure, is_credential=True)


def scrub(data: bytes, provider: Provider) -> bytes:
    """The bytes without the provider's credential."""
    for secret in _secrets(provider):
        written = msgspec.json.encode(secret)[1:-1]  # as it stands in JSON
        for form in {secret.encode(), written, written.replace(b"/", rb"\/")}:
            data = data.replace(form, b"...")
    return data


def _secrets(provider: Provider) -> Iterator[str]:
    """The credential, and what the provider's own headers say: one of them may be another credential."""
    for value in (provider.api_key, *(value for _, value in provider.headers)):
        for word in value.split():  # "Bearer …"
            if len(word) >= _SECRET:
                yield word


def _clean(said: object, provider: Provider) -> str:
    """Text for the client; empty for what is neither text nor a number."""
    text = said if isinstance(said, str) else str(said) if isinstance(said, int) else ""
    return scrub(text.encode(errors="replace"), provider).decode()[:_LONGEST]
