"""Media in a URL of their own, `data:image/png;base64,…`: https://www.rfc-editor.org/rfc/rfc2397.

Called by the formats that have media so: OpenAI's.
"""

import base64
from urllib.parse import unquote_to_bytes

from proxy.formats.canonical import Media

_SCHEME, _BASE64 = "data:", ";base64"


def read_url(kind: str, url: str) -> Media:
    """What a `data:` URL holds; of another, the URL."""
    if url[: len(_SCHEME)].lower() != _SCHEME:
        return Media(kind, url=url)
    head, _, data = url[len(_SCHEME) :].partition(",")
    if head[-len(_BASE64) :].lower() != _BASE64:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return Media(kind, head.partition(";")[0], data)


def write_url(part: Media, media_type: str = "") -> str:
    """`media_type`: of data that does not say its own."""
    return f"{_SCHEME}{part.media_type or media_type}{_BASE64},{part.data}" if part.data else part.url
