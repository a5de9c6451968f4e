"""What the gateway keeps of Responses conversations for the key that made them: `store` and `previous_response_id`.

So clients go on from an ID on providers that hold nothing. In memory, or in Redis where there is one, with a lifetime
and a size bound; never on the disk or in the database. Called by `relay` and `responses`.
https://platform.openai.com/docs/guides/conversation-state
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from django.conf import settings
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from accounts.keys import Key
from proxy import errors
from proxy.formats.splice import Members

logger = logging.getLogger(__name__)

CONNECTIONS = 16  # to Redis, of one process
WAIT = 2.0  # seconds for Redis to answer
PAUSE = 5.0  # seconds in which a Redis that kept a request waiting is not asked again
_LONGEST_ID = 200
_OVERHEAD = 1000  # bytes of memory beside what is held, about
_UNFINISHED = frozenset({"queued", "in_progress"})
_PREVIOUS = frozenset({"previous_response_id"})
# How OpenAI's item IDs begin.
PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


class Entry(msgspec.Struct, frozen=True):
    """One response as its client got it, and its own input items: what was said before is in `previous`, another entry.

    `owner`: the key's ID.
    """

    id: str
    owner: int
    response: bytes
    input: list[bytes]
    previous: str = ""

    @property
    def size(self) -> int:
        return len(self.response) + sum(map(len, self.input))


@dataclass(slots=True)
class Conversation:
    """A request with all that it refers to. `members`: the whole conversation in its `input`, and no other reference.

    `input`: the request's own items, references replaced: what an `Entry` keeps. `before`: how many items of `members`
    come from `previous`.
    """

    members: Members
    input: list[bytes]
    previous: str = ""
    before: int = 0


# --- items -----------------------------------------------------------------------------------------------------------


class _Item(msgspec.Struct):
    """Any type of value: the format's reader judges them."""

    type: Any = None
    id: Any = None
    role: Any = None

    @property
    def reference(self) -> str:
        """The ID of the item that this one stands for: clients leave the type out, too."""
        if self.type == "item_reference" or (self.type is None and self.role is None):
            return self.id if isinstance(self.id, str) else ""
        return ""


class _Response(msgspec.Struct):
    output: list[msgspec.Raw] = []
    status: Any = None
    background: Any = None


_read_item = msgspec.json.Decoder(_Item).decode
_read_response = msgspec.json.Decoder(_Response).decode
_read_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_read_items = msgspec.json.Decoder(list[_Item]).decode
_read_string = msgspec.json.Decoder(str | None).decode


def is_background(entry: Entry) -> bool:
    return _read_response(entry.response).background is True


def named_input(entry: Entry) -> list[tuple[str, bytes]]:
    """The entry's own input items with their IDs; one that came without an ID always has the same."""
    return _with_ids(entry, entry.input, 0)


def named_output(entry: Entry) -> list[tuple[str, bytes]]:
    return _with_ids(entry, output_items(entry), len(entry.input))


def _with_ids(entry: Entry, items: list[bytes], first: int) -> list[tuple[str, bytes]]:
    tail = entry.id.removeprefix("resp_")
    named = []
    for place, raw in enumerate(items, first):
        item = _read_item(raw)
        if isinstance(item.id, str) and item.id:
            named.append((item.id, raw))
        else:
            kind = "message" if item.type is None else str(item.type)
            named.append((f"{PREFIXES.get(kind, 'item')}_{tail}_{place}", raw))
    return named


def named_items(entry: Entry) -> list[tuple[str, bytes]]:
    return [*named_input(entry), *named_output(entry)]


def _spoken(entries: list[Entry]) -> list[bytes]:
    """A conversation's items as a request's input."""
    return [item for entry in entries for item in (*entry.input, *output_items(entry))]


def output_items(entry: Entry) -> list[bytes]:
    """They are input items as they are."""
    return [bytes(raw) for raw in _read_response(entry.response).output]


def own_items(members: Members) -> list[bytes]:
    """A request's `input` as items; a plain text is a message of the user. Raises `BadRequest`."""
    text = members.get("input", b"null")
    if text.startswith(b'"'):
        return [b'{"type":"message","role":"user","content":%s}' % text]
    try:
        items = [] if text == b"null" else [bytes(raw) for raw in _read_raw(text)]
    except msgspec.ValidationError:
        items = [b"null"]
    for place, raw in enumerate(items):
        if not raw.startswith(b"{"):
            at = f"input[{place}]" if text.startswith(b"[") else "input"
            words = "expected an object" if text.startswith(b"[") else "expected a string or an array of items"
            raise errors.BadRequest(f"Invalid '{at}': {words}.", param=at, code="invalid_type", retry=False)
    return items


def _references(members: Members) -> list[str]:
    """Of each of `own_items`, the ID of the item that it stands for; empty: it is an item itself."""
    text = members.get("input", b"null")
    return [item.reference for item in _read_items(text)] if text.startswith(b"[") else []


def _previous(members: Members) -> str:
    try:
        return _read_string(members.get("previous_response_id", b"null")) or ""
    except msgspec.ValidationError:
        words = "Invalid 'previous_response_id': expected a string."
        raise errors.BadRequest(words, param="previous_response_id", code="invalid_type", retry=False) from None


# --- where they are kept ---------------------------------------------------------------------------------------------


class Store(Protocol):
    """Entries by owner and ID. All but `put` raise `Unavailable` where the place cannot be reached."""

    async def put(self, entry: Entry, items: list[str], /) -> bool:
        """`items`: the IDs by which `homes` finds this entry. Whether it is kept."""

    async def get(self, owner: int, response_id: str, /) -> Entry | None: ...
    async def renew(self, entries: Iterable[Entry], /) -> None:
        """Their lifetimes begin again."""

    async def drop(self, owner: int, response_id: str, items: list[str], /) -> bool: ...
    async def homes(self, owner: int, items: list[str], /) -> list[str]:
        """Of each item, the ID of the newest response that holds it; empty: none does."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Kept:
    entry: Entry
    items: list[str]
    size: int
    until: float


class Memory:
    """In this process: at most `most` bytes; what was not used for the longest time goes first."""

    def __init__(self, most: int, lifetime: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._lifetime = lifetime
        self._clock = clock
        self._kept: OrderedDict[tuple[int, str], _Kept] = OrderedDict()  # in the order in which they end
        self._homes: dict[tuple[int, str], str] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.size = 0

    async def put(self, entry: Entry, items: list[str], /) -> bool:
        name = (entry.owner, entry.id)
        self._forget(name)
        size = entry.size + _OVERHEAD + sum(_OVERHEAD // 5 + len(item) for item in items)
        if size > self._most:
            return False
        self._kept[name] = _Kept(entry, items, size, self._clock() + self._lifetime)
        self._homes.update({(entry.owner, item): entry.id for item in items})
        self.size += size
        while self.size > self._most:
            self._forget(next(iter(self._kept)))
        self._arm()
        return True

    async def get(self, owner: int, response_id: str, /) -> Entry | None:
        self.sweep()
        kept = self._kept.get((owner, response_id))
        return None if kept is None else kept.entry

    async def renew(self, entries: Iterable[Entry], /) -> None:
        for name in ((entry.owner, entry.id) for entry in entries):
            if name in self._kept:  # one may have come to its end while the others were looked up
                self._kept[name].until = self._clock() + self._lifetime
                self._kept.move_to_end(name)

    async def drop(self, owner: int, response_id: str, items: list[str], /) -> bool:
        return self._forget((owner, response_id))

    async def homes(self, owner: int, items: list[str], /) -> list[str]:
        self.sweep()
        return [self._homes.get((owner, item), "") for item in items]

    async def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def sweep(self) -> None:
        """Let go of what has reached its end."""
        now = self._clock()
        while self._kept:
            name, kept = next(iter(self._kept.items()))
            if kept.until > now:
                return
            self._forget(name)

    def _forget(self, name: tuple[int, str]) -> bool:
        kept = self._kept.pop(name, None)
        if kept is None:
            return False
        self.size -= kept.size
        for item in kept.items:
            if self._homes.get((name[0], item)) == name[1]:
                del self._homes[name[0], item]
        return True

    def _arm(self) -> None:
        """What nobody asks for must go too: words of clients do not lie in memory for longer than was said."""
        if self._sweeper is None and self._kept:
            rest = next(iter(self._kept.values())).until - self._clock()
            self._sweeper = asyncio.get_running_loop().call_later(max(1.0, rest), self._swept)

    def _swept(self) -> None:
        self._sweeper = None
        self.sweep()
        self._arm()


class Shared:
    """In Redis, for all processes: the bound on all of it together is Redis's own (`maxmemory`)."""

    def __init__(self, url: str, lifetime: int) -> None:
        # Made without an event loop: its connections belong to the loop in which they are first used.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=WAIT,
            socket_connect_timeout=WAIT,
            socket_timeout=WAIT,
            retry=Retry(NoBackoff(), 1),  # a kept connection may be stale
        )
        self._redis = Redis.from_pool(pool)
        self._lifetime = lifetime
        self._trouble = ""
        self._again = 0.0  # when it may be asked again

    async def put(self, entry: Entry, items: list[str], /) -> bool:
        end = ("EX", self._lifetime)
        commands = [("SET", _response_name(entry.owner, entry.id), msgspec.msgpack.encode(entry), *end)]
        commands += [("SET", _item_name(entry.owner, item), entry.id.encode(), *end) for item in items]
        try:
            await self._do(commands)
        except errors.Unavailable:  # the log says why; the client has its answer
            return False
        return True

    async def get(self, owner: int, response_id: str, /) -> Entry | None:
        (data,) = await self._do([("GET", _response_name(owner, response_id))])
        try:
            return None if data is None else msgspec.msgpack.decode(data, type=Entry)
        except msgspec.DecodeError as error:  # of another release
            logger.warning("a held response cannot be read: %s", error)
            return None

    async def renew(self, entries: Iterable[Entry], /) -> None:
        names = []
        for entry in entries:
            names.append(_response_name(entry.owner, entry.id))
            names += [_item_name(entry.owner, item) for item in item_ids(entry)]
        await self._do([("EXPIRE", name, self._lifetime) for name in names])

    async def drop(self, owner: int, response_id: str, items: list[str], /) -> bool:
        found = await self.homes(owner, items)
        names = [_item_name(owner, item) for item, home in zip(items, found, strict=True) if home == response_id]
        count, *_ = await self._do([("DEL", _response_name(owner, response_id)), *(("DEL", name) for name in names)])
        return bool(count)

    async def homes(self, owner: int, items: list[str], /) -> list[str]:
        found = await self._do([("GET", _item_name(owner, item)) for item in items])
        return [home.decode() if home else "" for home in found]

    async def close(self) -> None:
        await self._redis.aclose()

    async def _do(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Redis's answers, all in one trip. Raises `Unavailable`."""
        if not commands:
            return []
        begun = time.monotonic()
        if begun < self._again:
            raise _unavailable()
        try:
            async with asyncio.timeout(WAIT), self._redis.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                answers = await pipe.execute()
        except (RedisError, OSError) as error:  # asyncio's timeout is an OSError
            self._failed(error, time.monotonic() - begun)
            raise _unavailable() from error
        if self._trouble:
            logger.warning("Redis holds responses again")
            self._trouble = ""
        return answers

    def _failed(self, error: Exception, waited: float) -> None:
        """Once in the log for each time that it goes away, and not a wait for each request."""
        if waited > WAIT / 2:
            self._again = time.monotonic() + PAUSE
        if not self._trouble:
            logger.error("Redis does not hold responses: %s: %s", type(error).__name__, error)
        self._trouble = type(error).__name__


def _response_name(owner: int, response_id: str) -> bytes:
    return b"kodna:response:%d:%s" % (owner, response_id.encode())


def _item_name(owner: int, item: str) -> bytes:
    return b"kodna:item:%d:%s" % (owner, item.encode())


def _unavailable() -> errors.Unavailable:
    words = "Held responses cannot be reached at the moment. Send the whole conversation in 'input', or try again."
    return errors.Unavailable(words, code="responses_unavailable", retry_after=1.0)


def item_ids(entry: Entry) -> list[str]:
    """By which items of an entry are found, each once."""
    return list(dict.fromkeys(name for name, _ in named_items(entry) if len(name) <= _LONGEST_ID))


# --- conversations ---------------------------------------------------------------------------------------------------


class Held:
    """`off`: nothing is held here, for nobody. Another key's ID and an unknown one look the same everywhere."""

    def __init__(self, store: Store, most: int, *, off: bool = False) -> None:
        self._store = store
        self._most = most
        self.off = off

    def wanted(self, key: Key, members: Members) -> bool:
        """Whether the answer is to be kept: `store`, which is on where a request does not say it.

        Raises `BadRequest` where it is asked for by an account with zero retention; where such a one does not say it, a
        provider that holds responses itself must be told `"store": false`.
        """
        if key.zero_retention and members.get("store") == b"true":
            raise self._nothing_held(key, "store")
        return not (self.off or key.zero_retention) and members.get("store") != b"false"

    async def keep(self, entry: Entry) -> bool:
        """Whether it is kept: not what is too large or still being made, and nothing while Redis is away."""
        if self.off or entry.size > self._most or len(entry.id) > _LONGEST_ID:
            return False
        try:
            status = _read_response(entry.response).status
            unfinished = isinstance(status, str) and status in _UNFINISHED
            items = item_ids(entry)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            logger.warning("the response %s cannot be held: %s", entry.id, error)
            return False
        return False if unfinished else await self._store.put(entry, items)

    async def get(self, owner: int, response_id: str) -> Entry | None:
        """Raises `Unavailable`, as all that follow."""
        return await self._store.get(owner, response_id) if len(response_id) <= _LONGEST_ID else None

    async def delete(self, owner: int, response_id: str) -> bool:
        """Whether it was there. A conversation that went on from it has lost a link: it cannot go on."""
        entry = await self.get(owner, response_id)
        return entry is not None and await self._store.drop(owner, response_id, item_ids(entry))

    async def chain(self, owner: int, response_id: str) -> list[Entry] | None:
        """The responses of a conversation, oldest first; None where one of them is gone. Their lifetimes begin again.

        Raises `BadRequest` where they are larger than a request may be, as all that follow.
        """
        found: dict[str, Entry] = {}
        size, wanted = 0, response_id
        while wanted:
            # An ID that came before: the provider gave it twice.
            entry = None if wanted in found else await self.get(owner, wanted)
            if entry is None:
                return None
            found[wanted] = entry
            size += entry.size
            _check_size(size)
            wanted = entry.previous
        await self._store.renew(found.values())
        return list(reversed(found.values()))

    async def history(self, owner: int, response_id: str) -> list[bytes] | None:
        """A whole conversation up to this response, as input items, oldest first; None where a link is gone."""
        entries = await self.chain(owner, response_id)
        return None if entries is None else _spoken(entries)

    async def item(self, owner: int, item_id: str) -> bytes | None:
        return (await self._items(owner, [item_id])).get(item_id)

    async def expand(self, key: Key, members: Members) -> Conversation:
        """A request without references: what they refer to stands in its `input`; every other byte is where it was.

        Raises `NotFound` for what is not held for this key. It is not passed on to a provider that may know the ID: all
        keys are one customer there. Raises `BadRequest` for an account with zero retention.
        """
        previous, own = _previous(members), own_items(members)
        references = _references(members)
        if not previous and not any(references):
            return Conversation(members, own)
        if self.off or key.zero_retention:
            raise self._nothing_held(key, "previous_response_id" if previous else _at(references))
        entries = await self.chain(key.id, previous) if previous else []
        if entries is None:
            raise _no_previous(previous)
        items = await self._resolve(key.id, own, references, entries)
        before = _spoken(entries)
        _check_size(sum(map(len, [*before, *items])))  # a request may name one large item many times
        text = b"[%s]" % b",".join([*before, *items])
        values, add = ({"input": text}, {}) if "input" in members else ({}, {"input": text})
        return Conversation(Members(members.edit(values, _PREVIOUS, add)), items, previous, len(before))

    async def _resolve(self, owner: int, own: list[bytes], references: list[str], before: list[Entry]) -> list[bytes]:
        """The own items without references. What stands in the conversation before is not said twice."""
        if not any(references):
            return own
        said = {name for entry in before for name, _ in named_items(entry)}
        held = await self._items(owner, [name for name in references if name and name not in said])
        items = []
        for place, (raw, name) in enumerate(zip(own, references, strict=True)):
            if not name:
                items.append(raw)
            elif name in held:
                items.append(held[name])
            elif name not in said:
                raise _no_item(name, place)
        return items

    async def _items(self, owner: int, names: Iterable[str]) -> dict[str, bytes]:
        """Those of the items that are held, by their IDs. The lifetimes of their responses begin again."""
        asked = {name: True for name in names if len(name) <= _LONGEST_ID}
        homes = dict.fromkeys(await self._store.homes(owner, list(asked)))
        entries: list[Entry] = []
        size = 0
        for home in homes:
            if home and (entry := await self.get(owner, home)) is not None:
                entries.append(entry)
                size += entry.size
                _check_size(size)
        await self._store.renew(entries)
        return {name: raw for entry in entries for name, raw in named_items(entry) if name in asked}

    def _nothing_held(self, key: Key, field: str) -> errors.BadRequest:
        who = f"The account {key.account!r} has zero retention" if key.zero_retention else "This gateway holds nothing"
        words = (
            f"{who}: no responses are held, so that '{field}' cannot be used. Send the whole conversation in 'input'."
        )
        return errors.BadRequest(words, param=field, code="unsupported_parameter", retry=False)


def from_settings() -> Held:
    lifetime = settings.RESPONSES_TTL
    store: Store = Memory(settings.RESPONSES_BYTES, lifetime)
    if settings.REDIS_URL:
        store = Shared(settings.REDIS_URL, lifetime)
    return Held(store, settings.RESPONSES_ENTRY_BYTES, off=not lifetime)


def not_held(response_id: str) -> errors.NotFound:
    words = f"Response with id {response_id[:_LONGEST_ID]!r} not found."
    return errors.NotFound(words, code="response_not_found", retry=False)


def _no_previous(response_id: str) -> errors.NotFound:
    words = (
        f"Previous response with id {response_id[:_LONGEST_ID]!r} not found: "
        "it, or a response before it, was not stored for this key, was deleted, or is no longer held."
    )
    return errors.NotFound(words, param="previous_response_id", code="previous_response_not_found", retry=False)


def _no_item(item_id: str, place: int) -> errors.NotFound:
    words = f"Item with id {item_id[:_LONGEST_ID]!r} not found: it was not stored for this key, or is no longer held."
    return errors.NotFound(words, param=f"input[{place}]", code="item_not_found", retry=False)


def _check_size(size: int) -> None:
    """Raises `BadRequest` where a conversation is larger than a request may be."""
    if size > settings.MAX_BODY_BYTES:
        megabytes = f"{settings.MAX_BODY_BYTES / 1024 / 1024:g}"
        words = f"The conversation that this request goes on from is larger than {megabytes} MB."
        raise errors.BadRequest(words, param="input", code="context_length_exceeded", retry=False)


def _at(references: list[str]) -> str:
    return next(f"input[{place}]" for place, name in enumerate(references) if name)
