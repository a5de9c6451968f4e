"""A scripted provider that fails on request: what can go wrong, when, and what its client must see of it.

The model's name names the cell of the matrix, `cut.after.chat.alone`. Built on `tests.providers`, so a request
that the vendor would refuse gets the vendor's 400, and what comes before and after the fault is what vendors send.
"""

import json
import re
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

from tests.processes import HOST
from tests.providers import DIALECTS, Providers, anthropic_messages, gemini, openai_chat, scenario
from tests.providers.scenario import Asked, Refused, Said
from tests.upstreams import JSON_HEADERS, SSE_HEADERS, Received, Reply, json_reply

FIRST, SECOND = "Alpha beta gamma delta.", "One two three four."
WORD = "Alpha"  # the first thing said
HEALTHY = "healthy"  # the second route's model
# Of what the faulty provider has sent before its fault: it must have been passed on when the fault comes.
PAUSE = 0.3  # seconds
TIMEOUT = {"connect": 0.3, "first_byte": 1.5, "idle": 1, "total": 3}
STATUSES = {"401": 401, "429-after": 429, "429": 429, "500": 500, "503": 503, "529": 529}
LEGAL = frozenset({"http10", "gzip"})
_AT_ONCE_OUT = frozenset({"401", "429", "429-after"})
_UNREACHED = frozenset({"refuse", "connect"})
_HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>\r\n</html>\r\n"
_MEGABYTES = 16


@dataclass(frozen=True)
class Cell:
    fault: str
    when: str  # before, after: the first token
    how: str  # streamed, plain
    dialect: str  # the client's
    routes: str  # two: the second is healthy; alone

    def __str__(self) -> str:
        return ".".join([self.fault, self.when, self.how, self.dialect, self.routes])

    @property
    def model(self) -> str:
        """Streamed and plain have one, but where a single fault makes the gateway leave the route alone."""
        words = [self.fault, self.when, self.dialect, self.routes]
        return ".".join([*words, self.how] if self.fault in _AT_ONCE_OUT else words)

    @property
    def speaks(self) -> str:
        """The faulty provider's dialect: with a second route the client's own, alone another."""
        return self.dialect if self.routes == "two" else self._other(0)

    @property
    def provider(self) -> str:
        """A credential that is refused is refused for all models: that one has a provider of its own."""
        return self.model if self.fault == "401" else f"{self.fault}-{self.speaks}"

    @property
    def second(self) -> str:
        """The second route's dialect: never the client's."""
        return self._other(1)

    def _other(self, step: int) -> str:
        others = [dialect for dialect in DIALECTS if dialect != self.dialect]
        return others[(list(FAULTS).index(self.fault) + step) % len(others)]

    @property
    def is_possible(self) -> bool:
        if self.when == "before":
            return self.fault != "huge" or self.how == "streamed"  # a plain answer has no lines
        if self.how == "plain":  # its body has begun
            return self.fault not in {*_UNREACHED, *STATUSES, "error", "huge", "type"}
        return self.fault not in _UNREACHED

    @property
    def expected(self) -> str:
        """Whose whole answer the client gets; or `error`: its SDK raises."""
        if self.fault in LEGAL:
            return "first"
        if self.routes == "alone" or (self.when == "after" and self.how == "streamed"):
            return "error"
        return "second"

    @property
    def outcome(self) -> str:
        """The usage row's."""
        if self.expected != "error":
            return "complete"
        return "incomplete" if self.when == "after" and self.how == "streamed" else "failed"


@dataclass(frozen=True)
class Script:
    """An answer as it would be whole: what has come of it when the fault comes, and the rest."""

    cell: Cell
    given: bytes
    rest: bytes

    @property
    def headers(self) -> dict[str, str]:
        return dict(SSE_HEADERS if self.cell.how == "streamed" else JSON_HEADERS)

    def reply(self, *more: bytes, **options: Any) -> Reply:
        """What came, and after a moment what the fault makes of the rest."""
        pieces = [piece for piece in (self.given, *more) if piece]
        return Reply(pieces, **{"headers": self.headers, "pause": PAUSE, **options})


# --- the faults ------------------------------------------------------------------------------------------------------


def _status(script: Script) -> Reply:
    """After the first token: the vendor's event that stands for it."""
    fault, dialect = script.cell.fault, script.cell.speaks
    status = STATUSES.get(fault, 500)
    body = _error(dialect, status)
    if script.cell.when == "after" or (fault == "error" and script.cell.how == "streamed"):
        return script.reply(_event(dialect, body))
    wait = {"retry-after": "2"} if fault == "429-after" else {}
    return json_reply(body, 200 if fault == "error" else status, wait)


def _error(dialect: str, status: int) -> dict[str, Any]:
    refused = Refused(status, scenario.ERRORS[status])
    vendor = {"messages": anthropic_messages, "gemini": gemini}.get(dialect, openai_chat)
    found = vendor.error(refused)
    found["error"].pop("details", None)  # Gemini's way to say when to come back
    return found


def _event(dialect: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    if dialect == "messages":
        return b"event: error\ndata: %b\n\n" % data
    if dialect != "responses":
        return b"data: %b\n\n" % data
    error = json.dumps({"type": "error", "sequence_number": 90, **body}).encode()
    failed = {"id": "resp_1", "object": "response", "status": "failed", "output": [], **body}
    last = json.dumps({"type": "response.failed", "sequence_number": 91, "response": failed}).encode()
    return b"event: error\ndata: %b\n\nevent: response.failed\ndata: %b\n\n" % (error, last)


def _drip(script: Script) -> Reply:
    """Often enough for the idle time-out, and never done."""
    if script.cell.how == "streamed" and script.cell.when == "before":
        return script.reply(*[b": still here\n\n"] * 20)
    return script.reply(*[script.rest[at : at + 1] for at in range(20)])


def _malformed(script: Script) -> Reply:
    if script.cell.how == "streamed":
        return script.reply(b'data: {"oops\n\n' + script.rest)
    return script.reply(b'"oops' + script.rest)


def _huge(script: Script) -> Reply:
    return script.reply(b"data: ", *[b"x" * (_MEGABYTES << 20)] * (64 // _MEGABYTES))


def _http10(script: Script) -> Reply:
    """The end of the connection is that of the answer."""
    kind = script.headers["content-type"].encode()
    head = b"HTTP/1.0 200 OK\r\ncontent-type: %b\r\n\r\n" % kind
    rest = [script.rest] if script.cell.fault == "http10" else []
    return Reply([head + script.given, *rest], wire=True, pause=PAUSE)


def _type(script: Script) -> Reply:
    return script.reply(_HTML, headers={"content-type": "text/html"})


def _gzip(script: Script) -> Reply:
    """Although nobody has asked for it."""
    packer = zlib.compressobj(wbits=31)
    given = packer.compress(script.given) + packer.flush(zlib.Z_SYNC_FLUSH)
    pieces = [given, packer.compress(script.rest) + packer.flush()]
    return Reply(pieces, headers={**script.headers, "content-encoding": "gzip"}, pause=PAUSE)


FAULTS: dict[str, tuple[str, Callable[[Script], Reply] | None]] = {
    "refuse": ("refuses the connection", None),
    "connect": ("connect time-out", None),
    "401": ("401", _status),
    "429-after": ("429 with retry-after", _status),
    "429": ("429 without", _status),
    "500": ("500", _status),
    "503": ("503", _status),
    "529": ("529", _status),
    "error": ("error inside 200", _status),
    "cut": ("cut (FIN)", lambda script: script.reply(end="cut")),
    "reset": ("cut (RST)", lambda script: script.reply(end="reset")),
    "http10-cut": ("cut (HTTP/1.0)", _http10),
    "stall": ("stall", lambda script: script.reply(end="hang")),
    "drip": ("slow drip", _drip),
    "malformed": ("malformed line", _malformed),
    "end": ("missing terminator", lambda script: script.reply()),
    "huge": ("huge line (64 MB)", _huge),
    "type": ("wrong content type", _type),
    "http10": ("HTTP/1.0 close", _http10),
    "gzip": ("gzip", _gzip),
}
ALL = [
    Cell(*words) for words in product(FAULTS, ("before", "after"), ("streamed", "plain"), DIALECTS, ("two", "alone"))
]
CELLS = {(cell.model, cell.how): cell for cell in ALL if cell.is_possible}


# --- the providers ---------------------------------------------------------------------------------------------------


class Faults(Providers):
    """`reached`: the cells of the requests that came, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: list[Cell] = []

    def says(self, asked: Asked) -> Said:
        return Said(SECOND if asked.model == HEALTHY else FIRST)

    def _answer(self, received: Received) -> Reply:
        reply = super()._answer(received)
        asked = self.asked[-1]
        if reply.status != 200 or asked.model == HEALTHY:
            return reply
        cell = CELLS[asked.model, "streamed" if asked.stream else "plain"]
        self.reached.append(cell)
        script, play = _script(cell, b"".join(reply.pieces)), FAULTS[cell.fault][1]
        assert play is not None
        return play(script)


def _script(cell: Cell, body: bytes) -> Script:
    if cell.how == "plain":
        at = len(body) // 2 if cell.when == "after" else 0
        return Script(cell, body[:at], body[at:])
    events = list(_events(body))
    place = next(number for number, event in enumerate(events) if WORD.encode() in event)
    if cell.speaks == "gemini":  # the others open an answer with events of their own
        events.insert(0, b'data: {"usageMetadata": {"promptTokenCount": 5}, "modelVersion": "up"}\r\n\r\n')
        place += 1
    place += cell.when == "after"
    return Script(cell, b"".join(events[:place]), b"".join(events[place:]))


def _events(body: bytes) -> Iterator[bytes]:
    yield from (found[0] for found in re.finditer(rb".+?(?:\n\n|\r\n\r\n)", body, re.DOTALL))


class FullBacklog:
    """An address at which somebody listens and never accepts: the next who comes waits until he gives up."""

    def __init__(self) -> None:
        self._sockets = [socket.socket()]
        self._sockets[0].bind((HOST, 0))
        self._sockets[0].listen(0)
        self._address = self._sockets[0].getsockname()
        self.base_url = f"http://{HOST}:{self._address[1]}/v1"

    def __enter__(self) -> Self:
        for _ in range(6):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(self._address)
            self._sockets.append(waiting)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            each.close()
