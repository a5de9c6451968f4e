"""Whose turn it is among a model's routes: the number from which `routing` draws. Called by `exchange` and `explain`.

Requests that stand alone take turns. A conversation keeps its place, for the sake of its prompt cache: by its name,
where it has one (until `sessions` knows its home), and else by how it began, once it has gone on.
"""

import hashlib
from collections import OrderedDict
from typing import Any, NamedTuple

import msgspec

from models_catalog.snapshot import Model
from proxy.ingress import Envelope

MOST = 20_000  # openings that are remembered
LONGEST = 2 * 1024 * 1024  # bytes of a conversation that is looked at
_DIGITS = 8  # of a conversation's name
_BRACE = ord("{")
# Where a format has the conversation, and beside it what the system says.
_SPOKEN = {
    "openai_chat": ("messages", ()),
    "openai_responses": ("input", ("instructions",)),
    "anthropic_messages": ("messages", ("system",)),
    "gemini": ("contents", ("systemInstruction", "system_instruction")),
}


class _Said(msgspec.Struct):
    role: Any = None


_read_said = msgspec.json.Decoder(_Said).decode
_read_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Opening(NamedTuple):
    """How a conversation began, as a number, and how many messages it has come to."""

    number: int
    length: int


class Turn(NamedTuple):
    number: int
    opening: Opening | None = None


class Turns:
    """Of one process."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}  # by model
        self._lengths: OrderedDict[int, int] = OrderedDict()  # of openings, as they were last seen

    def of(self, envelope: Envelope, model: Model, session: str) -> Turn:
        """The next request's; it changes nothing. `session`: the conversation's name, as `ingress` hashes it."""
        if session:
            return Turn(int(session[:_DIGITS], 16))
        opening = _opening(envelope, model) if len(model.routes) > 1 else None
        # Many prompts that begin with the same examples are no conversation: none is longer than the one before.
        if opening is not None and opening.length > self._lengths.get(opening.number, 0):
            return Turn(opening.number, opening)
        return Turn(self._next.get(model.id, 0), opening)

    def taken(self, model: Model, turn: Turn) -> None:
        self._next[model.id] = self._next.get(model.id, 0) + 1
        if turn.opening is not None:
            self._lengths[turn.opening.number] = turn.opening.length
            self._lengths.move_to_end(turn.opening.number)
            if len(self._lengths) > MOST:
                self._lengths.popitem(last=False)


def _opening(envelope: Envelope, model: Model) -> Opening | None:
    """The system's and the first words, the same in every turn; None: nothing has been said since."""
    name, beside = _SPOKEN.get(envelope.format.NAME, ("", ()))
    members = envelope.members
    spoken = members.get(name, b"")
    if not spoken.startswith(b"[") or len(spoken) > LONGEST:
        return None
    items = _read_list(spoken)  # which `Members` has found to be JSON
    for place, item in enumerate(items[:-1]):
        if memoryview(item)[0] != _BRACE or _read_said(item).role not in ("system", "developer"):
            said = [model.id.encode(), *(members.get(each, b"") for each in beside), *map(bytes, items[: place + 1])]
            digest = hashlib.blake2b(b"\n".join(said), digest_size=_DIGITS // 2).digest()
            return Opening(int.from_bytes(digest), len(items))
    return None
