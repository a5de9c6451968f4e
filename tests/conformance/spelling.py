"""The same stream as another server would write it: other line ends, comments, other JSON, unknown events."""

import json
from collections.abc import Callable

from tests.proxy.formats.oracle import events

_UNKNOWN = {
    "chat": b'data: {"object":"chat.completion.chunk","choices":[],"prompt_filter_results":[]}\n\n',
    "responses": b'event: response.novel.thing\ndata: {"type":"response.novel.thing","output_index":0}\n\n',
    "messages": b'event: novel_thing\ndata: {"type":"novel_thing","index":0}\n\n',
    "generateContent": b'data: {"novelThing":{"a":1}}\n\n',
}


def crlf(_: str, body: bytes) -> bytes:
    return body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def comments(_: str, body: bytes) -> bytes:
    return b"".join(b": waiting\n\n" + raw for raw, _ in events(body))


def tight(_: str, body: bytes) -> bytes:
    """No space behind the colon, and fields that nobody asks for."""
    return _by_line(body, lambda line: b"id: 7\nretry: 10\n" + line.replace(b"data: ", b"data:", 1))


def loose(_: str, body: bytes) -> bytes:
    """Spaces in the JSON, letters as escapes, members in another order, and one that nobody knows."""
    return _by_line(body, _loosened)


def unknown(name: str, body: bytes) -> bytes:
    """An event that is new behind each but the last two: those may be the end."""
    found = [raw for raw, _ in events(body)]
    return b"".join(raw + _UNKNOWN[name] for raw in found[:-2]) + b"".join(found[-2:])


SPELLINGS: dict[str, Callable[[str, bytes], bytes]] = {
    "crlf": crlf,
    "comments": comments,
    "tight": tight,
    "loose": loose,
    "unknown": unknown,
}


def _by_line(body: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    lines = body.splitlines(keepends=True)
    return b"".join(edit(line) if line.startswith(b"data:") else line for line in lines)


def _loosened(line: bytes) -> bytes:
    try:
        found = json.loads(line[5:], strict=False)
    except ValueError:
        return line
    if not isinstance(found, dict):
        return line
    members = {"x_novel": {"a": [1, None, "ü"]}, **dict(reversed(found.items()))}
    return b"data: " + json.dumps(members, separators=(" , ", " : ")).encode() + b"\n"
