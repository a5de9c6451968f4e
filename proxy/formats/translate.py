"""An answer on its way from a provider's format to a client's other one. Called by `outgoing`.

Plain: the whole answer is read, and written anew. Streamed: each piece becomes events, each event the client's bytes.
"""

from io import StringIO
from typing import Any

from proxy.formats.base import MOST_HELD, Ask, Client, Error, Format, Relayed, StreamReader, StreamWriter, prompt_side
from proxy.formats.canonical import (
    LENGTH,
    Answer,
    End,
    Event,
    Failure,
    Finish,
    Media,
    Opaque,
    Part,
    PartDelta,
    PartEnd,
    PartStart,
    Refusal,
    Text,
    Thinking,
    ToolCall,
    Usage,
    UsageSeen,
    body,
)
from proxy.formats.spoken import has_words, media, sealed, unknown


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
    text = StringIO()
    for choice in answer.choices:
        for part in choice.parts:
            text.write(said := _words(part))
            text.write(sealed(part.signature, len(said)))
    return text.getvalue()


def _words(part: Part) -> str:
    """What the model has generated of it, but for what is sealed."""
    if isinstance(part, Media):
        return part.transcript or ("" if part.origin in _DRAWN_ELSEWHERE else media(part.media_type, part.data))
    if isinstance(part, Opaque):
        return unknown({part.kind: part.value})
    return getattr(part, "name", "") + body(part)


def _has_content(event: Event) -> bool:
    match event:
        case PartStart(part=Text() | Refusal() | Thinking() | Media() as part):
            return bool(part.signature or has_words([getattr(part, name, "") for name in _SAID]))
        case PartDelta():
            return bool(event.text or event.transcript or event.citation)
        case PartEnd():
            return bool(event.signature)
    return isinstance(event, PartStart | Finish)


_SAID = ("text", "data", "url", "file_id", "transcript")
_DRAWN_ELSEWHERE = frozenset({"openai_responses"})  # by a model that is billed by itself


class TranslatedStream:
    """A `base.Stream` between two formats."""

    __slots__ = (
        "_ask",
        "_began",
        "_choices",
        "_closed",
        "_disorder",
        "_ended",
        "_media",
        "_open",
        "_opening",
        "_prompt",
        "_reader",
        "_says",
        "_text",
        "_writer",
        "begun",
        "error",
        "usage",
    )

    def __init__(self, reader: StreamReader, writer: StreamWriter, ask: Ask) -> None:
        self._reader = reader
        self._writer = writer
        self._ask = ask
        self._disorder = ""
        self._text = StringIO()
        self._choices: dict[int, bool] = {}  # that have begun; whether they have ended
        self._open: dict[tuple[int, int], Part] = {}
        self._began: dict[tuple[int, int], int] = {}  # parts: how long the text was then
        self._media: set[tuple[int, int]] = set()
        self._closed = False
        self._ended = False
        self._opening = 0  # bytes before the answer has begun
        self._says = False  # there is something of the answer, which the writer may not have given out yet
        self.begun = False
        self._prompt: Usage | None = None
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

    @property
    def prompt_usage(self) -> Usage | None:
        return prompt_side(self._prompt)

    @property
    def said(self) -> int:
        return self._text.tell()

    def text(self) -> str:
        return self._text.getvalue()

    def feed(self, data: bytes) -> bytes:
        return self._write(self._reader.feed(data))

    def close(self) -> bytes:
        self._closed = True
        return self._write(self._reader.close())

    def cut(self, usage: Usage) -> bytes:
        """A call that is cut off is not ended: nobody may take it for whole."""
        if self.over:
            return b""
        ended = {finish.choice: finish for finish in self._reader.reasons()}
        events: list[Event] = [
            PartEnd(index, choice)
            for (choice, index), part in self._open.items()
            if choice in ended or isinstance(part, Text | Refusal | Thinking)
        ]
        choices = [choice for choice, over in self._choices.items() if not over] if self._choices else [0]
        events += [ended.get(choice) or Finish(LENGTH, choice=choice) for choice in sorted(choices)]
        return self._write([*events, UsageSeen(usage), End()])

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
            case PartEnd():
                self._end(event)
            case UsageSeen():
                self._prompt = event.usage
                if event.early:  # no writer can make use of it
                    return b""
                self.usage = event.usage
            case Finish():
                self._choices[event.choice] = True
            case Failure():  # whoever feeds this says in the client's words that it has failed: `fail`
                self.error = event.error
                return b""
            case End():
                self._ended = True
        out = self._writer.send(event)
        if not self.begun:
            self._look(event, out)
        return out

    def _look(self, event: Event, out: bytes) -> None:
        """For the answer's beginning: what the client's format cannot say is none."""
        self._opening += len(out)
        self._says = self._says or _has_content(event)
        self.begun = bool(out) and (self._says or self._opening > MOST_HELD)

    def _end(self, event: PartEnd) -> None:
        part, began = self._open.pop((event.choice, event.index), None), self._began.pop((event.choice, event.index), 0)
        if signature := event.signature or (part and part.signature):
            self._text.write(sealed(signature, self._text.tell() - began))

    def _begin(self, event: PartStart) -> None:
        _name_again(event.part, self._ask)
        self._choices.setdefault(event.choice, False)
        self._open[event.choice, event.index] = event.part
        self._began[event.choice, event.index] = self._text.tell()
        self._text.write(_words(event.part))
        if isinstance(event.part, Media):
            self._media.add((event.choice, event.index))
