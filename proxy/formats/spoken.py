"""Text that stands for what a model has generated, for a count of our own: where it was not said in plain words.

Called by the formats' relays and by `translate`. A provider bills all that its model generates, whether or not it shows
it, and a stream that is cut, or left by its client, has no count of the provider's.
"""

from typing import Any

# Google bills 1,290 tokens for an image: https://ai.google.dev/gemini-api/docs/pricing. A word of one token each.
_IMAGE = " image" * 1290
# Google bills 25 tokens for a second of speech, which is 16-bit PCM of 24 kHz: https://ai.google.dev/gemini-api/docs/tokens.
_OF_AUDIO = 24_000 * 2 * 4 // 3 // 25  # characters of its base64 to a token
# What recorded answers have for each token of thoughts: 5 to 8 characters of base64, behind as many as 1,000 that are
# always there. A token of base64 is 1.5 characters: every fifth of them makes a count that is rather too small.
_ENVELOPE, _EVERY = 1000, 5
_OPEN = 2  # characters of base64 to one of the text that it encrypts

# Members that hold no words of the model's: names and kinds, data, what tools of the provider's own found.
_BESIDE = frozenset(
    {
        *("background", "caller", "channel", "environment", "fingerprint", "format", "from", "id", "index", "jsonPath"),
        *("language", "model", "name", "object", "output_format", "phase", "quality", "role", "server_label", "size"),
        *("annotations", "citation", "citations", "error", "output", "outputs", "results", "sources", "status", "to"),
        *("container", "context_management", "finishMessage", "safetyRatings", "stop_details", "tools"),
        *("b64_json", "continuationToken", "data", "encrypted_content", "padding", "signature"),
        *("thoughtSignature", "uri", "url", "usage.server_tool_use"),
    }
)
_ENDS_BESIDE = (
    *("_id", "Id", "type", "Type", "metadata", "Metadata"),
    *("result", "Result", "Response", "_output", "_results"),
)


_NAMES = frozenset({"channel", "encrypted_content", "format", "id", "index", "phase", "role", "status", "type"})


def has_words(found: Any) -> bool:
    """Whether this piece of an answer holds any of it, and does not only say what is about to come."""
    left = [found]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left += [more for name, more in one.items() if name not in _NAMES]
        elif isinstance(one, list):
            left += one
        elif isinstance(one, str) and one:
            return True
    return False


def unknown(found: Any) -> str:
    """All strings in what a vendor has invented, each once: some say the same under two names."""
    said: dict[str, None] = {}
    left = [found]
    while left:
        one = left.pop()
        if isinstance(one, str):
            said[one] = None
        elif isinstance(one, dict):
            left += [more for name, more in one.items() if name not in _BESIDE and not name.endswith(_ENDS_BESIDE)]
        elif isinstance(one, list):
            left += one
    return "".join(said)


def sealed(data: Any, said: int) -> str:
    """A part of thoughts that only the provider can read. `said`: characters of them that were said openly, too."""
    return data[_ENVELOPE + _OPEN * said :: _EVERY] if isinstance(data, str) else ""


def media(kind: str, data: Any) -> str:
    """Of an image or speech, whole, as base64. `kind`: its MIME type, or how that begins."""
    if not data or not isinstance(data, str):
        return ""
    if kind.startswith("image"):
        return _IMAGE
    return " audio" * (len(data) // _OF_AUDIO) if kind.startswith("audio") else ""
