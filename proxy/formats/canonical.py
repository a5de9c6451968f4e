"""What a conversation with a model holds, whatever wire it came by: the one form between any two formats.

A request that changes its format is read into a `Request` and written from it; an answer into an `Answer` or, streamed,
into events. Same format in and out never comes here: its bytes pass. Where a mapping narrows, the raw value stays
beside it. No I/O, no clock. Called by the formats and by `translate`.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

# --- parts of a message ----------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Part:
    """`at`: where the client wrote it (`messages[3].content[0]`): losses are named so.

    `cache`: a prompt-cache breakpoint stands behind this part; its lifetime ("5m", "1h"), empty for none.
    `signature`: what the provider wants back unchanged with this part; `origin`: the format whose provider made it.
    """

    at: str = ""
    cache: str = ""
    signature: str = ""
    origin: str = ""


@dataclass(slots=True)
class Text(Part):
    text: str
    citations: list["Citation"] = field(default_factory=list)


@dataclass(slots=True)
class Refusal(Part):
    """The model's own words of refusal, where its format tells them from text."""

    text: str


@dataclass(slots=True)
class Thinking(Part):
    """`redacted`: the provider keeps the text to itself; `signature` is all there is.

    `summary`: the text is a summary, not the thoughts. `id`: the item's, where its format has one.
    """

    text: str = ""
    redacted: bool = False
    summary: bool = False
    id: str = ""


@dataclass(slots=True)
class Media(Part):
    """`kind`: image, audio, video or file. One of `data` (base64), `url`, `file_id` (the provider's) or `text` is set.

    `media_type`: MIME. `detail`: OpenAI's for images. `transcript`: of audio, what is said in it.
    """

    kind: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    text: str = ""
    name: str = ""
    context: str = ""
    detail: str = ""
    transcript: str = ""
    id: str = ""
    cite: bool | None = None  # Anthropic: citations of this document are wanted


@dataclass(slots=True)
class ToolCall(Part):
    """`arguments`: JSON as the model wrote it, which may be broken; of a custom tool, plain text."""

    id: str
    name: str
    arguments: str = ""
    custom: bool = False


@dataclass(slots=True)
class ToolResult(Part):
    """Stands in a message of the user. `parts`: Text and Media. `name`: the tool's, where the format says it."""

    call_id: str
    parts: list[Part]
    name: str = ""
    is_error: bool = False
    custom: bool = False


@dataclass(slots=True)
class Opaque(Part):
    """What only its own format can say (a server tool's call or result, say): `value` is its JSON, `kind` its type."""

    kind: str
    value: dict[str, Any]


@dataclass(slots=True)
class Citation:
    """A place that a text rests on. `start`, `end`: characters of the text that carries it; None where not said.

    `raw`: the citation in its own format (`origin`), for a writer of the same format.
    """

    url: str = ""
    title: str = ""
    quote: str = ""
    file_id: str = ""
    start: int | None = None
    end: int | None = None
    origin: str = ""
    raw: dict[str, Any] = field(default_factory=dict)


# --- a request -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Message:
    """`role`: system, developer, user or assistant. Tool results stand in messages of the user."""

    role: str
    parts: list[Part]
    name: str = ""
    at: str = ""


@dataclass(slots=True)
class Tool:
    """`kind`: function, custom (free text in; `grammar` as Responses' `format`) or server (run by the provider).

    Of a server tool only `raw` counts, and only for its own format (`origin`). `schema`: JSON Schema of the arguments.
    """

    name: str
    description: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    kind: str = "function"
    grammar: dict[str, Any] | None = None
    cache: str = ""
    origin: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    at: str = ""


@dataclass(slots=True)
class ToolChoice:
    """`mode`: auto, none, required (any of them), or tool: that one. `allowed`: the only ones it may choose from."""

    mode: str
    name: str = ""
    allowed: tuple[str, ...] = ()


@dataclass(slots=True)
class Reasoning:
    """`effort`: none, minimal, low, medium, high, xhigh or max. `budget`: tokens. `reasoning.py` maps the two.

    `enabled`: said without a measure. `adaptive`: the model decides. `visible`: whether its text is wanted in the
    answer; `summary`: auto, concise or detailed. `encrypted`: it is wanted in a form that can be sent back.
    """

    effort: str = ""
    budget: int | None = None
    enabled: bool | None = None
    adaptive: bool = False
    visible: bool | None = None
    summary: str = ""
    encrypted: bool = False


@dataclass(slots=True)
class Output:
    """`kind`: text, json_object or json_schema."""

    kind: str
    schema: dict[str, Any] | None = None
    name: str = ""
    description: str = ""
    strict: bool | None = None


@dataclass(slots=True)
class Request:
    """None, empty: the client did not say. `extra`: its other fields, by name, which have no place here: each of them

    is a loss for every other format. Names of losses are the names of these fields; a format's `FIELDS` has its own.
    """

    messages: list[Message]
    tools: list[Tool] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: dict[str, float] | None = None
    reasoning: Reasoning | None = None
    output: Output | None = None
    verbosity: str = ""
    modalities: list[str] = field(default_factory=list)  # that are wanted: text, audio, image
    audio: dict[str, Any] | None = None  # voice and format of spoken answers, as OpenAI chat has them
    service_tier: str = ""
    user: str = ""
    metadata: dict[str, Any] | None = None
    cache_key: str = ""
    store: bool | None = None
    stream: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


# --- an answer -------------------------------------------------------------------------------------------------------

STOP, STOP_SEQUENCE, LENGTH, TOOL_CALLS = "stop", "stop_sequence", "length", "tool_calls"
CONTENT_FILTER, REFUSAL, PAUSE = "content_filter", "refusal", "pause"
REASONS = frozenset({STOP, STOP_SEQUENCE, LENGTH, TOOL_CALLS, CONTENT_FILTER, REFUSAL, PAUSE})


@dataclass(slots=True)
class Usage:
    """Tokens. `prompt` holds `cached`, `written` and `audio_in`; `completion` holds `reasoning` and `audio_out`:

    OpenAI's way of counting. (Anthropic's `input_tokens` does not hold what was cached or written.)
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    written: int = 0
    reasoning: int = 0
    audio_in: int = 0
    audio_out: int = 0


@dataclass(slots=True)
class Choice:
    """`reason`: one of `REASONS`; `raw_reason`: the provider's own word. `logprobs`: as OpenAI chat's `content`."""

    parts: list[Part]
    reason: str = STOP
    raw_reason: str = ""
    stop_sequence: str = ""
    logprobs: list[dict[str, Any]] | None = None


@dataclass(slots=True)
class Answer:
    """`id` and `model`: the provider's own."""

    choices: list[Choice]
    id: str = ""
    model: str = ""
    usage: Usage | None = None
    service_tier: str = ""


# --- the events of a streamed answer ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Start:
    """The first event, once."""

    id: str = ""
    model: str = ""


@dataclass(slots=True)
class PartStart:
    """A part begins. `index` counts the parts of a choice from 0 and never comes again. `part`: what is known of it;

    its text, arguments or data are empty, or the beginning. Parts may overlap: `Sequencer` puts them in order.
    """

    index: int
    part: Part
    choice: int = 0


@dataclass(slots=True)
class PartDelta:
    """More of a part's text (Text, Refusal, Thinking), arguments (ToolCall) or base64 data (Media).

    `transcript`: more of what is said in a Media of audio. `citation`: one more of a Text's. `logprobs`: of this text.
    """

    index: int
    text: str = ""
    choice: int = 0
    transcript: str = ""
    citation: Citation | None = None
    logprobs: list[dict[str, Any]] | None = None


@dataclass(slots=True)
class PartEnd:
    """`signature` comes last in some formats: it is the part's, with `origin`."""

    index: int
    choice: int = 0
    signature: str = ""
    origin: str = ""


@dataclass(slots=True)
class UsageSeen:
    """What is counted so far; a later one stands for all before it. `early`: nothing of what is said is in it yet."""

    usage: Usage
    early: bool = False


@dataclass(slots=True)
class Finish:
    """A choice has its reason to end. All its parts have ended before."""

    reason: str
    raw_reason: str = ""
    stop_sequence: str = ""
    choice: int = 0


@dataclass(slots=True)
class Failure:
    """The provider's error in the stream, as `read_error` gives it. Nothing follows."""

    error: dict[str, Any]


@dataclass(slots=True)
class End:
    """The format's own end has come: the answer is whole. Nothing follows."""


Event = Start | PartStart | PartDelta | PartEnd | UsageSeen | Finish | Failure | End


# --- between events and answers --------------------------------------------------------------------------------------


def play(answer: Answer) -> Iterator[Event]:
    """The events of a plain answer."""
    yield Start(answer.id, answer.model)
    for number, choice in enumerate(answer.choices):
        for index, part in enumerate(choice.parts):
            yield PartStart(index, part, number)
            if choice.logprobs and isinstance(part, Text):
                yield PartDelta(index, "", number, logprobs=choice.logprobs)
            yield PartEnd(index, number)
        yield Finish(choice.reason, choice.raw_reason, choice.stop_sequence, number)
    if answer.usage is not None:
        yield UsageSeen(answer.usage)
    yield End()


class Collector:
    """Events back to an `Answer`, for whoever must keep it. `add` each event; `answer` is what has come so far."""

    __slots__ = ("_open", "answer")

    def __init__(self) -> None:
        self.answer = Answer([])
        self._open: dict[tuple[int, int], tuple[Part, list[str], list[str]]] = {}

    def add(self, event: Event) -> None:
        match event:
            case Start():
                self.answer.id, self.answer.model = event.id, event.model
            case PartStart():
                self._choice(event.choice).parts.append(event.part)
                self._open[event.choice, event.index] = (event.part, [body(event.part)], [])
            case PartDelta():
                self._more(event)
            case PartEnd():
                self._close(event)
            case UsageSeen():
                self.answer.usage = event.usage
            case Finish():
                choice = self._choice(event.choice)
                choice.reason, choice.raw_reason = event.reason, event.raw_reason
                choice.stop_sequence = event.stop_sequence

    def _choice(self, number: int) -> Choice:
        while len(self.answer.choices) <= number:
            self.answer.choices.append(Choice([]))
        return self.answer.choices[number]

    def _more(self, event: PartDelta) -> None:
        part, pieces, said = self._open[event.choice, event.index]
        pieces.append(event.text)
        said.append(event.transcript)
        if event.citation is not None and isinstance(part, Text):
            part.citations.append(event.citation)
        if event.logprobs:
            choice = self._choice(event.choice)
            choice.logprobs = [*(choice.logprobs or []), *event.logprobs]

    def _close(self, event: PartEnd) -> None:
        part, pieces, said = self._open.pop((event.choice, event.index))
        fill(part, "".join(pieces))
        if isinstance(part, Media):
            part.transcript += "".join(said)
        if event.signature:
            part.signature, part.origin = event.signature, event.origin


def body(part: Part) -> str:
    """The one text of a part that deltas add to."""
    match part:
        case Text() | Refusal() | Thinking():
            return part.text
        case ToolCall():
            return part.arguments
        case Media():
            return part.data
    return ""


def fill(part: Part, text: str) -> None:
    match part:
        case Text() | Refusal() | Thinking():
            part.text = text
        case ToolCall():
            part.arguments = text
        case Media():
            part.data = text


class Sequencer:
    """Puts the parts of each choice one after another, for formats in which they cannot overlap.

    The part that began first goes on at once. What comes of a later one waits for its end, but for text and thoughts:
    those end where another part begins, and go on as a new part. Indices are given anew. Arguments that are whole JSON
    when another part begins are taken to be at their end.
    """

    __slots__ = ("_choices",)

    def __init__(self) -> None:
        self._choices: dict[int, _Line] = {}

    def put(self, event: Event) -> Iterable[Event]:
        if not isinstance(event, PartStart | PartDelta | PartEnd | Finish):
            return (event,)
        line = self._choices.get(event.choice)
        if line is None:
            line = self._choices[event.choice] = _Line(event.choice)
        return line.put(event)


@dataclass(slots=True)
class _Waiting:
    part: Part
    events: list[PartDelta] = field(default_factory=list)
    end: PartEnd | None = None


class _Line:
    """One choice's parts in a row. `_current`: the source's index of the part that is open in the output."""

    __slots__ = ("_choice", "_current", "_cut", "_part", "_pieces", "_place", "_waiting")

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._current: int | None = None
        self._part: Part | None = None
        self._pieces: list[str] = []  # of a tool call's arguments
        self._place = -1
        self._waiting: dict[int, _Waiting] = {}
        self._cut: dict[int, Part] = {}  # ended before their own end came

    def put(self, event: PartStart | PartDelta | PartEnd | Finish) -> Iterable[Event]:
        match event:
            case PartStart():
                return self._start(event)
            case PartDelta():
                return self._more(event)
            case PartEnd():
                return self._end(event)
        return [*self._rest(), event]

    def _start(self, event: PartStart) -> list[Event]:
        out: list[Event] = []
        if self._current is not None:
            if not self._can_end():
                self._waiting[event.index] = _Waiting(event.part)
                return out
            assert self._part is not None
            self._cut[self._current] = self._part
            out += self._close()
        return out + self._open(event.index, event.part)

    def _can_end(self) -> bool:
        if not isinstance(self._part, ToolCall):
            return True
        return not self._part.custom and _is_json("".join(self._pieces))

    def _open(self, index: int, part: Part) -> list[Event]:
        self._current, self._part, self._pieces = index, part, [body(part)]
        self._place += 1
        return [PartStart(self._place, part, self._choice)]

    def _close(self, end: PartEnd | None = None) -> list[Event]:
        self._current = None
        signature, origin = (end.signature, end.origin) if end is not None else ("", "")
        return [PartEnd(self._place, self._choice, signature, origin)]

    def _more(self, event: PartDelta) -> list[Event]:
        if event.index == self._current:
            if isinstance(self._part, ToolCall):
                self._pieces.append(event.text)
            event.index = self._place
            return [event]
        waiting = self._waiting.get(event.index)
        if waiting is not None:
            waiting.events.append(event)
            return []
        return self._go_on(event) if event.text.strip() or event.citation or event.transcript else []

    def _go_on(self, event: PartDelta) -> list[Event]:
        """More of a part that another has cut off. Raises `ValueError` where it ended of itself."""
        cut = self._cut.get(event.index)
        if cut is None:
            raise ValueError("more of a part that has ended")
        fresh = _like(cut)
        begun = self._start(PartStart(event.index, fresh, self._choice))
        return begun + self._more(event)

    def _end(self, event: PartEnd) -> list[Event]:
        if event.index in self._waiting:
            self._waiting[event.index].end = event
        elif event.index == self._current:
            return self._close(event) + self._next()
        elif event.signature and event.index in self._cut:  # it must not get lost
            bearer = Thinking(redacted=True, signature=event.signature, origin=event.origin)
            return [*self._start(PartStart(event.index, bearer, self._choice)), *self._end(PartEnd(event.index))]
        return []

    def _next(self) -> list[Event]:
        """What has waited: parts that are whole, and the first that is not."""
        out: list[Event] = []
        while self._waiting and self._current is None:
            index = next(iter(self._waiting))
            waiting = self._waiting.pop(index)
            out += self._open(index, waiting.part)
            for delta in waiting.events:
                out += self._more(delta)
            if waiting.end is not None:
                out += self._close(waiting.end)
        return out

    def _rest(self) -> list[Event]:
        out: list[Event] = []
        while self._current is not None or self._waiting:
            if self._current is not None:
                out += self._close()
            out += self._next()
        return out


def _like(part: Part) -> Part:
    """A new part of the same kind. Raises `ValueError` for a tool call: its arguments were whole."""
    match part:
        case Text():
            return Text("")
        case Refusal():
            return Refusal("")
        case Thinking():
            return Thinking(summary=part.summary)
        case Media():
            return Media(part.kind, part.media_type)
    raise ValueError("more of a tool call that has ended")


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


# --- what must come back unchanged -----------------------------------------------------------------------------------

SEAL = "kodna1."  # how sealed text begins


def seal(origin: str, value: str) -> str:
    """A signature or encrypted thought of one format as text that another format's client keeps and sends back."""
    return SEAL + base64.urlsafe_b64encode(msgspec.json.encode([origin, value])).decode().rstrip("=")


def unseal(text: str) -> tuple[str, str] | None:
    """`(origin, value)`; None for what is not sealed: the client's own format made it."""
    if not text.startswith(SEAL):
        return None
    packed = text.removeprefix(SEAL)
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)), type=tuple[str, str])
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return None
    return found
