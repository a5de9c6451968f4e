"""From the client's bytes to a question that can be routed: key, body, envelope. Each function refuses in its own way.

Called by `relay` only.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
from django.conf import settings

from accounts import addresses, keys
from accounts.keys import Key
from proxy import errors
from proxy.background import Tables
from proxy.formats import anthropic_messages
from proxy.formats.base import BadField, Client
from proxy.formats.canonical import Request
from proxy.formats.splice import Malformed, Members
from proxy.held import Conversation
from proxy.timer import Timer

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_MOST_NAMES, _LONGEST_NAME = 16, 100  # of groups, and of models
OWN_FIELDS = frozenset({"group", "max_cost_usd", "models", "previous_request_id"})
# What a client's headers say of its request, and a provider of the same format is to hear.
_FORWARDED = {
    "anthropic_messages": (b"anthropic-version", b"anthropic-beta"),
    "openai_chat": (b"openai-beta",),
    "openai_responses": (b"openai-beta",),
}
# Headers in which a client names its conversation, the first that is there counts: OpenRouter's, which coding agents
# send to anybody (https://openrouter.ai/docs/guides/best-practices/prompt-caching), opencode's, and what only Claude
# Code (https://code.claude.com/docs/en/llm-gateway-protocol), Codex (once with an underscore, which Daphne drops:
# openai/codex#22193), LiteLLM's clients and Open WebUI send.
_SESSION_HEADERS = (
    b"x-session-id",
    b"x-session-affinity",
    b"x-claude-code-session-id",
    b"session-id",
    b"session_id",
    b"x-litellm-session-id",
    b"x-openwebui-chat-id",
)
_SAYS = frozenset({b"x-kodna-strict", b"x-kodna-explain", *_SESSION_HEADERS})
_NAMING = frozenset({"session_id", "litellm_session_id", "prompt_cache_key", "metadata"})
_SESSION_SECRET = hmac.digest(settings.SECRET_KEY.encode(), b"sessions", "sha256")

_STALE = 5 * settings.REFRESH_SECONDS  # tables that are older: the database is away


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


def header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


def authenticate(scope: Scope, tables: Tables) -> Key:
    """The key of a request: `Authorization: Bearer`, `x-api-key` or `x-goog-api-key`.

    Raises `BadKey` (401), and `Unavailable` (503) while no key is known yet: never a false 401.
    """
    if not tables.loaded:
        raise errors.Unavailable("The gateway is starting.", code="starting", retry_after=1)
    if tables.age > settings.DATABASE_GRACE:
        raise _away("The database has been away for too long.")
    table = tables.keys
    text = keys.credential(scope["headers"])
    if not text:
        if table.anonymous is not None:
            return table.anonymous
        raise errors.BadKey(keys.NO_KEY, retry=False)
    key = table.find(text)
    if key is None:
        if not keys.well_formed(text.decode("latin-1")):
            raise errors.BadKey(keys.NOT_A_KEY, retry=False)
        if tables.age > _STALE:  # it may be new
            raise _away("This API key cannot be looked up at the moment.")
        raise errors.BadKey(keys.UNKNOWN, retry=False)
    return key


def _away(words: str) -> errors.Unavailable:
    return errors.Unavailable(words, code="database_unavailable", retry_after=2)


def check_usable(key: Key, scope: Scope) -> None:
    """Raises `BadKey` (401: switched off, expired), `Forbidden` (403: not from this address)."""
    if trouble := key.trouble():
        raise errors.BadKey(trouble, retry=False)
    if key.networks and not key.admits(client_address(scope)):
        raise errors.Forbidden(keys.ELSEWHERE, code="ip_not_allowed", retry=False)


def client_address(scope: Scope) -> str:
    """The client's IP address: the connection's own, or what a trusted proxy says in `x-forwarded-for`."""
    peer = str(scope["client"][0]) if scope.get("client") else ""
    # Some proxies add a line of their own instead of adding to the client's: all lines are one list.
    lines = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return addresses.client_address(peer, lines.decode("latin-1"))


async def read_body(scope: Scope, receive: Receive, timer: Timer) -> bytes:
    """The whole body. Raises `TooLarge` (413), `BodyTimeout` (408), `ClientGone`.

    What is somewhat too large is read and thrown away first: many clients see an answer only once they have sent.
    """
    most = settings.MAX_BODY_BYTES
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > 2 * most:
        raise too_large()
    pieces, size = [], 0
    timer.wait(settings.BODY_TIMEOUT)
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            size += len(piece)
            if size <= most:
                pieces.append(piece)
            elif size > 2 * most or not message.get("more_body"):
                raise too_large()
            if not message.get("more_body"):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    except asyncio.CancelledError:
        if timer.spent():
            raise too_slow() from None
        raise
    finally:
        timer.rest()


def too_large() -> errors.TooLarge:
    megabytes = f"{settings.MAX_BODY_BYTES / 1024 / 1024:g}"
    return errors.TooLarge(f"The request body is larger than {megabytes} MB.", retry=False)


def too_slow() -> errors.BodyTimeout:
    return errors.BodyTimeout(f"The request body did not arrive within {settings.BODY_TIMEOUT:g} seconds.")


@dataclass(frozen=True, slots=True)
class Asked:
    """What an endpoint's path says of a request: its format and, for Gemini's clients, the model and how to answer."""

    format: Client
    model: str = ""
    stream: bool | None = None
    framing: str = "sse"


@dataclass(slots=True)
class Envelope:
    """What routing and metering need of a request; everything else stays in `members` as it came.

    `bounds`: the fields that bound the output, in tokens; `bound`: the largest of them, 0: none. `choices`: how many
    answers are asked for. `max_cost`: picodollars. `forwarded`, `query`: what a provider of the same format is to hear
    of the headers and the query. `session`: what names the conversation; `previous`: the ID of the request whose route
    is to be taken; `explain`: the plan is asked for, no answer. `conversation`: of a Responses request, with all that
    it goes on from. `kept`: its answer is to be held. `request`: the canonical form, once a provider needs it.
    """

    format: Client
    members: Members
    model: str = ""
    stream: bool = False
    framing: str = "sse"
    strict: bool = False
    choices: int = 1
    bounds: dict[str, float] = field(default_factory=dict)
    bound: float = 0.0
    groups: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    max_cost: int | None = None
    forwarded: tuple[tuple[str, str], ...] = ()
    query: str = ""
    session: bytes = b""
    previous: str = ""
    explain: bool = False
    conversation: Conversation | None = None
    kept: bool = False
    request: Request | None = None

    @property
    def whole(self) -> Members:
        """What providers are told: `members`, and the conversation before it."""
        return self.conversation.members if self.conversation is not None else self.members


def read_envelope(body: bytes, asked: Asked, check: Callable[[Members], None] | None = None) -> Envelope:
    """Raises `BadRequest` (400) that names the field. `check`: in place of the format's own."""
    try:
        members = Members(body)
        members.check()
    except Malformed as error:
        raise errors.InvalidJson(f"The body is not a JSON object: {error}.", retry=False) from None
    envelope = Envelope(asked.format, members, asked.model, bool(asked.stream), asked.framing)
    if not asked.model and "model" in members:
        envelope.model = _read(members, "model", _STRING, "a string")
        if not envelope.model:
            raise _wrong("model", "a model's ID", "an empty string")
    if asked.stream is None and "stream" in members:
        envelope.stream = bool(_read(members, "stream", _FLAG, "true or false"))
    try:
        (check or asked.format.check)(members)
        envelope.bounds = bounds = asked.format.bounds(members)
        if bounds:
            envelope.bound = max(bounds.values())
        envelope.choices = asked.format.choices(members)
    except BadField as bad:
        raise bad_field(bad) from None
    if not OWN_FIELDS.isdisjoint(members):
        _read_own(envelope, members)
    return envelope


def read_headers(envelope: Envelope, scope: Scope, *, strict: bool) -> None:
    """What the headers and the query say of the request. `strict`: its key is. Raises `BadRequest` (400)."""
    forwarded = _FORWARDED.get(envelope.format.NAME, ())
    found: dict[str, str] = {}
    says: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in forwarded:
            text = _sendable(name.decode(), value.decode("latin-1"))
            found[name.decode()] = f"{found[name.decode()]}, {text}" if name.decode() in found else text
        elif name in _SAYS:
            says[name] = value.strip()
    envelope.forwarded = tuple(found.items())
    envelope.strict = strict or _is_on(says.get(b"x-kodna-strict", b""))
    envelope.explain = _is_on(says.get(b"x-kodna-explain", b""))
    envelope.session = _session(envelope, says)
    if envelope.format is anthropic_messages and b"beta=true" in scope.get("query_string", b"").split(b"&"):
        envelope.query = "?beta=true"


def _is_on(value: bytes) -> bool:
    return value.lower() not in (b"", b"0", b"false", b"no", b"off")


def _session(envelope: Envelope, says: Mapping[bytes, bytes]) -> bytes:
    """What names the conversation; empty: nothing.

    First what says so itself, in the body (of this request alone) before the headers (which a client may send with all
    it asks); then OpenAI's hint for its cache, which conversations of one sort may share; then whatever is in the
    metadata, where Anthropic has its clients' users: Claude Code puts its session there. All of it goes on untouched,
    and what is no text is the provider's to judge.
    """
    members = envelope.members
    if _NAMING.isdisjoint(members):
        return _first(says, _SESSION_HEADERS) if says else b""
    return (
        _text(members.get("session_id"))
        or _text(members.get("litellm_session_id"))  # Cline's, where it is told that this is LiteLLM
        or _first(says, _SESSION_HEADERS)
        or _text(members.get("prompt_cache_key"))
        or _of_metadata(members.get("metadata", b""), envelope.format)
    )


def _first(says: Mapping[bytes, bytes], names: tuple[bytes, ...]) -> bytes:
    return next((says[name] for name in names if says.get(name)), b"")


def _text(value: bytes | None) -> bytes:
    """A JSON string as it is written, without its quotation marks."""
    return value[1:-1] if value and value.startswith(b'"') else b""


class _Metadata(msgspec.Struct):
    session_id: msgspec.Raw = msgspec.Raw()
    user_id: msgspec.Raw = msgspec.Raw()


_read_metadata = msgspec.json.Decoder(_Metadata).decode


def _of_metadata(value: bytes, client: Client) -> bytes:
    if not value.startswith(b"{"):
        return b""
    metadata = _read_metadata(value)  # which `Members` has found to be JSON, and not too deep
    session = _text(bytes(metadata.session_id))
    if client is anthropic_messages:
        return session or _text(bytes(metadata.user_id))
    return session


def session_name(envelope: Envelope, key: Key, model_id: str) -> str:
    """What the conversation is called among all of the gateway's, for `sessions`; empty: nothing names it.

    Hashed with a secret: a store of these tells nothing, and no account can find another's.
    """
    if not envelope.session:
        return ""
    told = b"%d\n%b\n%b" % (key.account_id, model_id.encode(), envelope.session)
    return hashlib.blake2b(told, digest_size=16, key=_SESSION_SECRET).hexdigest()


def _sendable(name: str, value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    words = f"The header {name!r} holds characters that cannot be sent on."
    raise errors.BadRequest(words, param=name, code="invalid_value", retry=False)


def bad_field(bad: BadField) -> errors.BadRequest:
    return errors.BadRequest(bad.message, param=bad.param, code=bad.code, retry=False)


def _read_own(envelope: Envelope, members: Members) -> None:
    if "group" in members:
        group = _read(members, "group", _STRING_OR_STRINGS, "a string or an array of strings")
        envelope.groups = (group,) if isinstance(group, str) else tuple(group or ())
        if len(envelope.groups) > _MOST_NAMES or any(len(name) > _LONGEST_NAME for name in envelope.groups):
            words = f"at most {_MOST_NAMES} names of at most {_LONGEST_NAME} characters"
            raise _wrong("group", words, "more")
    if "models" in members:
        envelope.models = tuple(_read(members, "models", _STRINGS, "an array of model IDs") or ())
        if len(envelope.models) > _MOST_NAMES:
            raise _wrong("models", f"at most {_MOST_NAMES} model IDs", f"{len(envelope.models)} of them")
    if "max_cost_usd" in members:
        envelope.max_cost = _picodollars(_read(members, "max_cost_usd", _AMOUNT, "a number of USD"))
    if "previous_request_id" in members:
        envelope.previous = _read(members, "previous_request_id", _STRING_OR_NULL, "a string") or ""


def _picodollars(amount: Decimal | None) -> int | None:
    if amount is None:
        return None
    if not amount.is_finite() or amount < 0 or amount.adjusted() > 9:
        raise _wrong("max_cost_usd", "a number of USD, not less than 0", str(amount)[:40])
    return int(amount.scaleb(12))


_STRING = msgspec.json.Decoder(str)
_AMOUNT = msgspec.json.Decoder(Decimal | None)
_STRING_OR_NULL = msgspec.json.Decoder(str | None)
_FLAG = msgspec.json.Decoder(bool | None)
_STRINGS = msgspec.json.Decoder(list[str] | None)
_STRING_OR_STRINGS = msgspec.json.Decoder(str | list[str] | None)


def _read(members: Members, name: str, decoder: msgspec.json.Decoder[Any], words: str) -> Any:
    try:
        return decoder.decode(members[name])
    except msgspec.ValidationError:
        raise _wrong(name, words, _kind(members[name][:1])) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.InvalidJson(f"'{name}' cannot be read: {error}.", param=name, retry=False) from None


_KINDS = {b"{": "an object", b"[": "an array", b'"': "a string", b"t": "true", b"f": "false", b"n": "null"}


def _kind(first: bytes) -> str:
    return _KINDS.get(first, "a number")


def _wrong(name: str, expected: str, found: str) -> errors.BadRequest:
    return errors.BadRequest(
        f"Invalid '{name}': expected {expected}, found {found}.", param=name, code="invalid_value", retry=False
    )
