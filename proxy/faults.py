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
REQUEST_FAULTS = frozenset({400, 406, 411, 413, 414, 415, 422, 431, 451})
# About the gateway's credential. Its words stay here: they may quote it.
CREDENTIAL_FAULTS = frozenset({401, 402, 403})
# Gemini and xAI refuse a bad credential with 400. (`api_key` is a field that a client may have sent.)
_CREDENTIAL_WORDS = re.compile(r"\bapi[ -]key\b", re.IGNORECASE)
_CREDENTIAL_CODES = frozenset({"invalid_api_key", "authentication_error", "API_KEY_INVALID", "UNAUTHENTICATED"})
_REQUEST_TYPES = frozenset({"invalid_request_error", "BadRequestError"})
_LONGEST = 1000
_SECRET = 8  # characters; what is shorter is no secret but a word: local servers take any key


def fault_of_status(
    status: int, body: bytes, retry: str, provider: Provider, spoken: Format
) -> ProviderFault | Refusal:
    """The exception for a provider's answer other than 200, in the format that it speaks."""
    error = spoken.read_error(body)
    if (refused := _refused(status, error, provider)) is not None:
        return refused
    said = _clean(error.get("message"), provider)
    words = f"it answered with status {status}" + (f": {said}" if said else ".")
    return ProviderFault("status", words, status=status, retry_after=_wait(retry, error))


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
    return 400 if str(error.get("type")) in _REQUEST_TYPES else None


def _refused(status: int, error: dict[str, Any], provider: Provider) -> ProviderFault | Refusal | None:
    """What the gateway's credential or the client's request is to blame for; None: it is the provider's own trouble."""
    if status in CREDENTIAL_FAULTS or (status == 400 and _about_credential(error)):
        return ProviderFault("status", "the provider refuses this gateway's credential.", status=status)
    if status not in REQUEST_FAULTS:
        return None
    kept: dict[str, object] = {name: _clean(error.get(name), provider) or None for name in ("type", "param", "code")}
    words = _clean(error.get("message"), provider) or f"The provider refused the request with status {status}."
    return ProviderRefusal(status, {**kept, "message": words})


def _about_credential(error: dict[str, Any]) -> bool:
    named = {str(error.get(name)) for name in ("code", "type", "status")}
    return bool(named & _CREDENTIAL_CODES or _CREDENTIAL_WORDS.search(str(error.get("message") or "")))


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
