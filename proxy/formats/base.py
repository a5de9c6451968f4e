"""What every wire format brings, and what it is given. `FORMATS` in `registry.py` lists them; `translate` pairs them.

A format is a module with the names of `Format`: reading and writing of requests and answers, plain and streamed, to and
from the canonical form; and the relay of an answer whose client speaks the same format, byte for byte. One that only
clients speak has the names of `Client`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.formats.canonical import Answer, Event, Finish, Request, Usage
from proxy.formats.splice import Members

Pricer = Callable[[Usage], dict[str, bytes]]
"""The members that an answer's `usage` gains: name → JSON."""


MOST_HELD = 512 * 1024  # bytes of events that open a stream: of Responses they hold the client's instructions, twice
MOST_CHOICES = 1_000_000  # more than any provider gives, and few enough to reckon with


class BadField(Exception):
    """A request that its own format does not allow. `param`: the field's path, as the client wrote it."""

    def __init__(self, param: str, message: str, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.message = message
        self.code = code


def wrong(param: str, expected: str, found: str) -> BadField:
    return BadField(param, f"Invalid '{param}': expected {expected}, found {found}.")


def missing(param: str) -> BadField:
    return BadField(param, f"'{param}' is missing.", "missing_required_parameter")


class NotAnAnswer(Exception):
    """A 200 that is no answer; `error` is the provider's error object where it sent one."""

    def __init__(self, message: str, error: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.error = error


# Without effect on what is answered: they are named where they get lost, and never a reason to refuse.
HARMLESS = frozenset(
    {
        *("cache", "cache_control", "cache_key", "prompt_cache_options", "prompt_cache_retention"),
        *("anthropic_version", "client_metadata", "diagnostics", "metadata", "phase", "safety_identifier", "user"),
        *("block_binding", "caller", "toolset_name"),
        *("include", "max_tool_calls", "service_tier", "store", "stream_options", "truncation"),
    }
)


class Losses:
    """What a writer could not say: paths in the client's own request, or `answer.…`. `grave`: those that matter."""

    __slots__ = ("_fields", "_found")

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields
        self._found: dict[str, bool] = {}

    def field(self, name: str) -> None:
        """A field of `Request` or one of its `extra`, which may be a path: named as the client's format has it."""
        self._found.setdefault(self._fields.get(name, name), name.rpartition(".")[2] not in HARMLESS)

    def at(self, path: str, *, harmless: bool = False) -> None:
        """A message, part or tool: by its `at`, with what of it got lost (`tools[0].strict`)."""
        self._found.setdefault(path, not harmless)

    def of_answer(self, name: str) -> None:
        self._found.setdefault(f"answer.{name}", False)

    @property
    def names(self) -> list[str]:
        return list(self._found)

    @property
    def grave(self) -> list[str]:
        return [name for name, grave in self._found.items() if grave]


@dataclass(slots=True)
class Target:
    """For whom a request is written: the provider's name of the model, the model's output limit, the row's quirks.

    `renamed`: what a writer had to call a tool because its format takes fewer letters → the client's name of it.
    """

    model: str
    losses: Losses
    max_output: int | None = None
    quirks: frozenset[str] = frozenset()
    renamed: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Ask:
    """For whom an answer is written. `id`: letters and digits that no other answer has; writers put their prefix on it.

    `model`: the catalog's ID. `created`: seconds since the epoch. `members`: the client's own request, for formats that
    echo it. `framing`: "sse", or "array" for Gemini's JSON array. `losses`: for what the answer held and the client's
    format cannot say (`of_answer`).
    """

    id: str
    model: str
    created: int
    request: Request
    members: Members
    pricer: Pricer
    losses: Losses
    include_usage: bool = False
    framing: str = "sse"
    renamed: Mapping[str, str] = field(default_factory=dict)  # as in `Target`


@dataclass(slots=True)
class Relayed:
    """A plain answer as it goes to the client, and what the meter needs of it. `text` only where `usage` is None."""

    body: bytes
    usage: Usage | None
    text: str


def prompt_side(usage: Usage | None) -> Usage | None:
    """What of it was counted before the answer began."""
    if usage is None:
        return None
    return Usage(usage.prompt, cached=usage.cached, written=usage.written, audio_in=usage.audio_in)


class Stream(Protocol):
    """One streamed answer on its way to the client: `feed` the provider's bytes, send what comes back, then `close`.

    `begun`: something of the answer itself has been given out: what the model said, thought or called, or why it ended.
    Until then another route can still answer, and what opens a stream is held back, up to `MOST_HELD`: with more than
    that it has begun, too. `over`: nothing more is to be fed. `finished`: only the format's goodbye is missing.
    `complete`: the answer came to its end. `error`: the provider's error object; its event is in what `feed` gave.
    `broken`: why no further byte can be trusted. `fail`: the end, where the gateway must give up.

    `usage`: the provider's count of what it has said; None until it counts more than the prompt. `prompt_usage`: the
    prompt's side of it, as far as it is known; its completion is 0. `said`: how many characters `text` has by now.
    `cut`: the gateway ends the answer here, for its length, in the format's own way: behind all that `feed` gave, with
    this `usage`, which is the stream's own from then on. The answer is `complete`.
    """

    @property
    def begun(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    @property
    def usage(self) -> Usage | None: ...
    @property
    def prompt_usage(self) -> Usage | None: ...
    @property
    def said(self) -> int: ...
    @property
    def error(self) -> dict[str, Any] | None: ...
    @property
    def broken(self) -> str: ...
    @property
    def over(self) -> bool: ...
    @property
    def complete(self) -> bool: ...
    def text(self) -> str: ...
    def feed(self, data: bytes, /) -> bytes: ...
    def close(self) -> bytes: ...
    def cut(self, usage: Usage, /) -> bytes: ...
    def fail(self, error: "Error", /) -> bytes: ...


@dataclass(slots=True)
class Error:
    """The gateway's word to a client. `type` and `code` as OpenAI has them; formats put their own in their place.

    `retry_after`: seconds, for formats that say it in the body too.
    """

    status: int
    message: str
    type: str
    code: str | None = None
    param: str | None = None
    request_id: str = ""
    retry_after: float | None = None


@dataclass(slots=True)
class Edits:
    """The permitted edits of a request that keeps its format.

    `limit`: the most output that the provider is told: takes the place of greater bounds, and of none.
    """

    model: str
    drop: frozenset[str]
    stream: bool
    limit: int | None = None
    quirks: frozenset[str] = frozenset()


@dataclass(slots=True)
class Prompt:
    """What counting needs of a request: its text run together, how many messages and images."""

    text: str = ""
    messages: int = 0
    images: int = 0


class StreamReader(Protocol):
    """A provider's streamed answer → events. `broken`, `complete` and `finished` as in `Stream`.

    `reasons`: of choices that have ended, where the format's own end must come before the event.
    """

    @property
    def broken(self) -> str: ...
    @property
    def complete(self) -> bool: ...
    @property
    def finished(self) -> bool: ...
    def reasons(self) -> list[Finish]: ...
    def feed(self, data: bytes, /) -> list[Event]: ...
    def close(self) -> list[Event]: ...


class StreamWriter(Protocol):
    """Events → the client's stream. `send` gives bytes, perhaps none; of `Failure` and `fail`, the last ones."""

    def send(self, event: Event, /) -> bytes: ...
    def fail(self, error: Error, /) -> bytes: ...


class Client(Protocol):
    """What a format's module has for clients that speak it.

    `NAME`: "openai_chat". `ENDPOINT`: the usage row's word for it. `FIELDS`: `Request`'s field → the format's own name,
    where they differ. `KEEPALIVE`: bytes of a stream that clients skip.
    """

    @property
    def NAME(self) -> str: ...  # noqa: N802  # a module's constants
    @property
    def ENDPOINT(self) -> str: ...  # noqa: N802
    @property
    def FIELDS(self) -> Mapping[str, str]: ...  # noqa: N802
    @property
    def KEEPALIVE(self) -> bytes: ...  # noqa: N802
    def check(self, members: Members, /) -> None:
        """Raises `BadField` where what routing and metering need is missing or of another type."""

    def bounds(self, members: Members, /) -> dict[str, float]:
        """The fields that bound the output: name → tokens. Raises `BadField`.

        One that bounds nothing is left out: null, or less than 1 where some servers take that for no bound.
        """

    def least_output(self, members: Members, /) -> int:
        """The least bound of the output that goes with the request's other fields: with less it would be refused."""

    def choices(self, members: Members, /) -> int:
        """How many answers it asks for: each may be as long as the bound. Raises `BadField`, as `check` does then."""

    def prompt(self, members: Members, /) -> Prompt: ...
    def read_request(self, members: Members, /) -> Request:
        """Raises `BadField`. Unknown fields are kept in `extra`."""

    def write_answer(self, answer: Answer, ask: Ask, /) -> bytes: ...
    def writer(self, ask: Ask, /) -> StreamWriter: ...
    def error_body(self, error: Error, /) -> bytes: ...
    def error_event(self, error: Error, /) -> bytes:
        """A stream in which nothing but keep-alives has been sent ends so."""


class Format(Client, Protocol):
    """What it has beside that for providers: being asked, answering, and bytes that pass.

    `LEAST_OUTPUT`: providers refuse a smaller bound of the output; `write_request` writes none.
    """

    @property
    def LEAST_OUTPUT(self) -> int: ...  # noqa: N802
    def path(self, model: str, /, *, stream: bool) -> str:
        """Behind the provider's base URL, with its query."""

    def write_request(self, request: Request, target: Target, /) -> bytes: ...
    def read_answer(self, body: bytes, seed: str, /) -> Answer:
        """Raises `NotAnAnswer`. `seed`: makes IDs that the provider leaves out."""

    def reader(self, seed: str, /) -> StreamReader: ...
    def read_error(self, body: bytes, /) -> dict[str, Any]:
        """A provider's error in OpenAI's names (message, type, param, code); empty where there is none."""

    # --- for a client of the same format
    def own_body(self, members: Members, edits: Edits, /) -> bytes:
        """The client's bytes but for the permitted edits."""

    def edit_answer(self, body: bytes, model: str, pricer: Pricer, /) -> Relayed:
        """The provider's bytes but for `model` and the price. Raises `NotAnAnswer`."""

    def relay(self, model: str, pricer: Pricer, members: Members, /, *, framing: str) -> Stream:
        """The same, streamed. `members`: the client's request."""
