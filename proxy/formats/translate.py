"""An answer on its way from a provider's format to a client's other one. Called by `outgoing`.

Plain: the whole answer is read, and written anew. Streamed: each piece becomes events, each event the client's bytes.
"""

from io import StringIO
from typing import Any

from proxy.formats.base import Ask, Client, Error, Format, Relayed, StreamReader, StreamWriter
from proxy.formats.canonical import (
    Answer,
    End,
    Event,
    Failure,
    Media,
    Opaque,
    Part,
    PartDelta,
    PartStart,
    Start,
    ToolCall,
    Usage,
    UsageSeen,
    body,
)


def translate_answer(theirs: Format, ours: Client, data: bytes, ask: Ask) -> Relayed:
    """Raises `NotAnAnswer`."""
    answer = theirs.read_answer(data, ask.id)
    for choice in answer.choices:
        for part in choice.parts:
            _name_again(part, ask)
    said = _said(answer) if answer.usage is None else ""
    return Relayed(ours.write_answer(answer, ask), answer.usage, said)


def _name_again(part: Part, ask: Ask) -> None:
    """The client's name of the tool, where the provider's format could not say it."""
    if isinstance(part, ToolCall) and ask.renamed:
        part.name = ask.renamed.get(part.name, part.name)


def _said(answer: Answer) -> str:
    return "".join(_words(part) for choice in answer.choices for part in choice.parts)


def _words(part: Part) -> str:
    if isinstance(part, Media):
        return part.transcript
    if isinstance(part, Opaque):
        return ""
    return getattr(part, "name", "") + body(part)


class TranslatedStream:
    """A `base.Stream` between two formats.

    What opens the stream is held until there is content: until then another route can still answer.
    """

    __slots__ = (
        "_ask",
        "_closed",
        "_disorder",
        "_ended",
        "_media",
        "_reader",
        "_text",
        "_writer",
        "error",
        "events",
        "usage",
    )

    def __init__(self, reader: StreamReader, writer: StreamWriter, ask: Ask) -> None:
        self._reader = reader
        self._writer = writer
        self._ask = ask
        self._disorder = ""
        self._text = StringIO()
        self._media: set[tuple[int, int]] = set()
        self._closed = False
        self._ended = False
        self.events = 0
        self.usage: Usage | None = None
        self.error: dict[str, Any] | None = None

    @property
    def broken(self) -> str:
        return self._reader.broken or self._disorder

    @property
    def finished(self) -> bool:
        return self._reader.finished

    @property
    def over(self) -> bool:
        return self._ended or self._closed or self.error is not None or bool(self.broken)

    @property
    def complete(self) -> bool:
        return self._ended and self.error is None and not self.broken

    @property
    def response(self) -> bytes:
        """The whole answer as the client's format keeps it; empty where it keeps none."""
        found: bytes = getattr(self._writer, "response", b"")
        return found

    def text(self) -> str:
        return self._text.getvalue()

    def feed(self, data: bytes) -> bytes:
        return self._write(self._reader.feed(data))

    def close(self) -> bytes:
        self._closed = True
        return self._write(self._reader.close())

    def fail(self, error: Error) -> bytes:
        return self._writer.fail(error)

    def _write(self, events: list[Event]) -> bytes:
        pieces: list[bytes] = []
        try:
            pieces.extend(self._pass(event) for event in events)
        except ValueError as error:  # from `Sequencer`: parts that no order can be given to
            self._disorder = str(error)
        return b"".join(pieces)

    def _pass(self, event: Event) -> bytes:
        match event:
            case PartDelta():
                self._text.write(event.transcript if (event.choice, event.index) in self._media else event.text)
            case PartStart():
                self._begin(event)
            case UsageSeen():
                self.usage = event.usage
            case Failure():  # whoever feeds this says in the client's words that it has failed: `fail`
                self.error = event.error
                return b""
            case End():
                self._ended = True
        self.events += not isinstance(event, Start | UsageSeen | End)  # an answer without any content is none
        return self._writer.send(event)

    def _begin(self, event: PartStart) -> None:
        _name_again(event.part, self._ask)
        self._text.write(_words(event.part))
        if isinstance(event.part, Media):
            self._media.add((event.choice, event.index))
