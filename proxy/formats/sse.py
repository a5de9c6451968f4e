"""Server-sent events in a provider's bytes, cut anywhere: whole events come out, each with its data in one piece.

https://html.spec.whatwg.org/multipage/server-sent-events.html. Called by the formats.
"""

import re
from typing import NamedTuple

MAX_EVENT = 32 * 1024 * 1024  # bytes; an image comes as one event
# A line's end and an empty line, each as LF, CRLF or CR; whether a CR stands alone shows in the next byte.
_BOUNDARY = re.compile(rb"(?:\n|\r\n|\r(?=[^\n]))(?:\n|\r\n|\r(?=[^\n]))")
_TAIL = 4  # bytes: a boundary that is not whole is shorter
_BOM = b"\xef\xbb\xbf"


class Frame(NamedTuple):
    """One event. `raw`: its bytes as they came. `data`: its data `lines` as one; empty for a comment."""

    raw: bytes
    data: bytes
    lines: int = 1

    @property
    def name(self) -> bytes:
        """What its `event:` line says."""
        for line in self.raw.splitlines():
            if line.startswith(b"event:"):
                return line[6:].strip()
        return b""

    def with_data(self, data: bytes) -> bytes:
        """The event's bytes with other data."""
        if data == self.data:
            return self.raw
        if self.lines == 1:
            return self.raw.replace(self.data, data, 1)
        return self.on_one_line().replace(self.data, data, 1)

    def on_one_line(self) -> bytes:
        """The event's bytes with its data in one line."""
        others = [line + b"\n" for line in _lines(self.raw) if line and not line.startswith(b"data:")]
        return b"%bdata: %b\n\n" % (b"".join(others), self.data)


class Splitter:
    """`feed` bytes, get the events that are whole by now; `close` gives the last one, where its blank line is missing.

    `pieces`: of an event whose end has not come. `too_large`: an event is longer than `MAX_EVENT`, and nothing more
    comes.
    """

    __slots__ = ("_size", "_tail", "pieces", "too_large")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self._size = 0
        self._tail = b""  # the last bytes of the pieces
        self.too_large = False

    def feed(self, data: bytes) -> list[Frame]:
        if not self.pieces:
            if (frame := _single(data)) is not None:
                return [frame]
        else:
            self.pieces.append(data)
            self._size += len(data)
            seam = self._tail + data
            if not _ends(seam):
                self._tail = seam[-_TAIL:]
                self.too_large = self._size > MAX_EVENT
                return []
            data = b"".join(self.pieces)
        frames, start = [], 0
        for end in _ends(data):
            frames.append(_frame(data[start:end]))
            start = end
        self.pieces = [data[start:]] if start < len(data) else []
        self._size = len(data) - start
        self._tail = data[max(start, len(data) - _TAIL) :]
        return frames

    def close(self) -> list[Frame]:
        rest, self.pieces, self._size = b"".join(self.pieces), [], 0
        return [_frame(rest)] if rest else []


def _lines(raw: bytes) -> list[bytes]:
    return raw.removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def _single(data: bytes) -> Frame | None:
    """Nearly every piece is one whole event in its plainest form: a line of data, perhaps behind its name."""
    if data.startswith(b"data: {"):
        end = data.find(b"\n")
        if end == len(data) - 2 and data[-1] == 10:
            return Frame(data, data[6:-2])
        if end == len(data) - 3 and data.endswith(b"\r\n\r\n") and data.count(b"\r") == 2:
            return Frame(data, data[6:-4])
    elif data.startswith(b"event: "):
        at = data.find(b"\n") + 1
        if data.startswith(b"data: {", at) and data.find(b"\n", at) == len(data) - 2 and b"\r" not in data:
            return Frame(data, data[at + 6 : -2].strip()) if data[-1] == 10 else None
    return None


def _ends(data: bytes) -> list[int]:
    """Where events end. Where all lines end alike, an empty one is quickly found."""
    empty = b"\n\n"
    if b"\r" in data:
        if not data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n"):
            return [boundary.end() for boundary in _BOUNDARY.finditer(data)]
        empty = b"\r\n\r\n"
    ends, at = [], data.find(empty)
    while at >= 0:
        at += len(empty)
        ends.append(at)
        at = data.find(empty, at)
    return ends


def _frame(raw: bytes) -> Frame:
    # Nearly every event is one line of data, perhaps behind its name.
    at = raw.find(b"\n") + 1 if raw.startswith(b"event: ") else 0
    end = raw.find(b"\n", at)
    if raw.startswith(b"data: ", at) and end >= 0 and not raw[end:].strip() and raw.count(b"\r") == raw.count(b"\r\n"):
        return Frame(raw, raw[at + 6 : end].strip())
    return _any_frame(raw)


def _any_frame(raw: bytes) -> Frame:
    """Comments, data without a space or over several lines, every line end."""
    found = [line[6:] if line.startswith(b"data: ") else line[5:] for line in _lines(raw) if line.startswith(b"data:")]
    return Frame(raw, b" ".join(found).strip(), len(found))  # in JSON, a line's end is a space


def event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
