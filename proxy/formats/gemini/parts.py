"""What Gemini's requests and answers share: media, arguments, reasons to end, and signatures of other formats.

Called by the format's readers and writers.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from proxy.formats import canonical
from proxy.formats.canonical import (
    Media,
    Thinking,
)
from proxy.formats.gemini.wire import NAME

# https://ai.google.dev/api/generate-content#FinishReason. Others: the model went wrong, and no other format has a word.
REASONS = {
    "STOP": canonical.STOP,
    "MAX_TOKENS": canonical.LENGTH,
    "SAFETY": canonical.CONTENT_FILTER,
    "RECITATION": canonical.CONTENT_FILTER,
    "LANGUAGE": canonical.CONTENT_FILTER,
    "BLOCKLIST": canonical.CONTENT_FILTER,
    "PROHIBITED_CONTENT": canonical.CONTENT_FILTER,
    "SPII": canonical.CONTENT_FILTER,
    "MODEL_ARMOR": canonical.CONTENT_FILTER,
    "JAILBREAK": canonical.CONTENT_FILTER,
    "IMAGE_SAFETY": canonical.CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": canonical.CONTENT_FILTER,
    "IMAGE_RECITATION": canonical.CONTENT_FILTER,
    "ESCALATION": canonical.CONTENT_FILTER,
    "PUP_LIMITED_DISABLED": canonical.CONTENT_FILTER,
    "CONTINUATION": canonical.PAUSE,
    "OTHER": canonical.STOP,
    "IMAGE_OTHER": canonical.STOP,
    "NO_IMAGE": canonical.STOP,
    "MALFORMED_FUNCTION_CALL": canonical.STOP,
    "MALFORMED_RESPONSE": canonical.STOP,
    "MISSING_THOUGHT_SIGNATURE": canonical.STOP,
    "UNEXPECTED_TOOL_CALL": canonical.STOP,
    "TOO_MANY_TOOL_CALLS": canonical.STOP,
}
# Members of a candidate that have no other place: kept as parts.
BESIDE = (
    "groundingMetadata",
    "urlContextMetadata",
    "avgLogprobs",
    "safetyRatings",
    "finishMessage",
    "continuationToken",
)
# Signs calls that no Gemini model made: https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
UNSIGNED = "skip_thought_signature_validator"
_GOOGLES = re.compile(r"^(?:gs:|files/|https://generativelanguage\.googleapis\.com/)")


# --- parts that requests and answers share ---------------------------------------------------------------------------


def kind_of(media_type: str) -> str:
    kind = media_type.partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "file"


def read_media(blob: dict[str, Any], at: str = "") -> Media:
    """`inlineData` or `fileData`. Google's own files are of use to nobody else."""
    kind = str(blob.get("mimeType") or "")
    media = Media(kind_of(kind), kind, name=str(blob.get("displayName") or ""), at=at)
    uri = str(blob.get("fileUri") or "")
    if not uri:
        media.data = str(blob.get("data") or "").replace("-", "+").replace("_", "/")
    elif _GOOGLES.match(uri):
        media.file_id, media.origin = uri, NAME
    else:
        media.url = uri
    return media


def object_of(arguments: str) -> tuple[dict[str, Any], bool]:
    """A call's arguments as the object that Gemini needs. False: they are none, and stand in its one member."""
    if not arguments.strip():
        return {}, True
    try:
        found = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return {"input": arguments}, False
    if found is None:
        return {}, True
    return (found, True) if isinstance(found, dict) else ({"input": found}, False)


# --- signatures of other formats, kept by Gemini's clients -----------------------------------------------------------


class _Kept(msgspec.Struct, omit_defaults=True):
    origin: str = ""
    signature: str = ""
    text: str = ""
    redacted: bool = False
    summary: bool = False
    id: str = ""


SEALED = base64.b64encode(canonical.SEAL.encode()[:6]).decode()  # how sealed text begins in base64: whole groups
_read_kept = msgspec.json.Decoder(list[_Kept]).decode


def keep(thoughts: Iterable[Thinking]) -> str:
    """A `thoughtSignature` that holds thoughts of another format's model, with their text.

    Gemini's clients send signatures back with the part that they stand on, and some (gemini-cli) leave out thoughts.
    """
    kept = [_Kept(t.origin, t.signature, t.text, t.redacted, t.summary, t.id) for t in thoughts]
    return base64.b64encode(canonical.seal(NAME, msgspec.json.encode(kept).decode()).encode()).decode()


def kept(signature: str) -> list[Thinking] | None:
    """The thoughts in such a signature; None where Gemini made it."""
    if not signature.startswith(SEALED):
        return None
    padded = signature.replace("-", "+").replace("_", "/")
    try:
        sealed = canonical.unseal(base64.b64decode(padded + "=" * (-len(padded) % 4)).decode())
        found = _read_kept(sealed[1]) if sealed is not None and sealed[0] == NAME else None
    except (binascii.Error, ValueError):
        return None
    if found is None:
        return None if sealed is None else [Thinking(redacted=True, signature=sealed[1], origin=sealed[0])]
    return [
        Thinking(t.text, redacted=t.redacted, summary=t.summary, id=t.id, signature=t.signature, origin=t.origin)
        for t in found
    ]
