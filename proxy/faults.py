"""What a provider's refusal means: the client's own fault, or the provider's, so that another route may help.

Called by `relay`. Nothing that leaves here holds the provider's credential.
"""

import re
from typing import Any

from models_catalog.snapshot import Provider
from proxy.errors import ProviderFault, ProviderRefusal, Refusal
from proxy.formats.openai_chat import read_error
from proxy.upstream import retry_after

# About the body that the client sent: no other provider would take it either.
REQUEST_FAULTS = frozenset({400, 406, 411, 413, 414, 415, 422, 431, 451})
# About the gateway's credential. Its words stay here: they may quote it.
CREDENTIAL_FAULTS = frozenset({401, 402, 403})
# Gemini and xAI refuse a bad credential with 400.
_CREDENTIAL_WORDS = re.compile(r"\bapi[ _-]?key\b", re.IGNORECASE)
_LONGEST = 1000


def fault_of_status(status: int, body: bytes, retry: str, provider: Provider) -> ProviderFault | Refusal:
    """The exception for a provider's answer other than 200."""
    error = read_error(body)
    message = str(error.get("message") or "")
    if status in CREDENTIAL_FAULTS or (status == 400 and _CREDENTIAL_WORDS.search(message)):
        return ProviderFault("status", "the provider refuses this gateway's credential.", status=status)
    if status in REQUEST_FAULTS:
        words = _clean(message, provider) or f"The provider refused the request with status {status}."
        return ProviderRefusal(status, {**error, "message": words})
    said = _clean(message, provider)
    words = f"it answered with status {status}" + (f": {said}" if said else ".")
    return ProviderFault("status", words, status=status, retry_after=retry_after(retry))


def fault_in_200(error: dict[str, Any], provider: Provider) -> ProviderFault | Refusal:
    """The exception for an error object inside an answer that said 200, as OpenRouter sends it."""
    code = error.get("code")
    if isinstance(code, int) and 400 <= code < 600:
        return fault_of_status(code, b"", "", provider) if code in CREDENTIAL_FAULTS else _coded(code, error, provider)
    return ProviderFault("error", f"it answered with an error: {_clean(str(error.get('message') or ''), provider)}")


def _coded(code: int, error: dict[str, Any], provider: Provider) -> ProviderFault | Refusal:
    message = _clean(str(error.get("message") or ""), provider)
    if code in REQUEST_FAULTS:
        return ProviderRefusal(code, {**error, "message": message})
    return ProviderFault("error", f"it answered with an error: {message}", status=code)


def scrub(data: bytes, provider: Provider) -> bytes:
    """The bytes without the provider's credential."""
    return data.replace(provider.api_key.encode(), b"...") if provider.api_key else data


def _clean(message: str, provider: Provider) -> str:
    return scrub(message.encode(), provider).decode()[:_LONGEST]
