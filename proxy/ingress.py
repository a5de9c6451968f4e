"""From the client's bytes to a question that can be routed: key, body, envelope. Each function refuses in its own way.

Called by `relay` only.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from django.conf import settings

from accounts import addresses, keys
from accounts.keys import Key, KeyTable
from proxy import errors
from proxy.formats.splice import Malformed, Members
from proxy.timer import Timer

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

OWN_FIELDS = frozenset({"group", "models", "previous_request_id"})
_TOKENS = ("max_completion_tokens", "max_tokens")


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


def header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


def authenticate(scope: Scope, table: KeyTable) -> Key:
    """The key of a request: `Authorization: Bearer` or `x-api-key`. Raises `BadKey` (401)."""
    text = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, credential = value.partition(b" ")
            if scheme.lower() == b"bearer":
                text = credential.strip()
                break
        elif name == b"x-api-key":
            text = value.strip()
    if not text:
        if table.anonymous is not None:
            return table.anonymous
        raise errors.BadKey("No API key. Send it as `Authorization: Bearer sk-kodna-…`.", retry=False)
    key = table.find(text)
    if key is None:
        if not keys.well_formed(text.decode("latin-1")):
            raise errors.BadKey("This is not a key of this service: check that it was copied whole.", retry=False)
        raise errors.BadKey("This API key is not known or was revoked.", retry=False)
    return key


def check_usable(key: Key, scope: Scope) -> None:
    """Raises `BadKey` (401: switched off, expired), `Forbidden` (403: not from this address)."""
    if not key.is_active:
        raise errors.BadKey("This API key is switched off.", retry=False)
    if key.expires and key.expires <= time.time():
        raise errors.BadKey("This API key has expired.", retry=False)
    if key.networks and not key.admits(client_address(scope)):
        raise errors.Forbidden("This API key may not be used from this address.", code="ip_not_allowed", retry=False)


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


@dataclass(slots=True)
class Envelope:
    """What routing and metering need of a chat request; everything else stays in `members` as it came."""

    members: Members
    model: str = ""
    stream: bool = False
    usage_asked: bool = False
    max_tokens: dict[str, float] = field(default_factory=dict)  # the fields that bound the output
    groups: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


def read_envelope(body: bytes) -> Envelope:
    """Raises `BadRequest` (400) that names the field."""
    try:
        members = Members(body)
        members.check()
    except Malformed as error:
        raise errors.InvalidJson(f"The body is not a JSON object: {error}.", retry=False) from None
    envelope = Envelope(members)
    if "model" in members:
        envelope.model = _read(members, "model", _STRING, "a string")
        if not envelope.model:
            raise _wrong("model", "a model's ID", "an empty string")
    if "stream" in members:
        envelope.stream = bool(_read(members, "stream", _FLAG, "true or false"))
    if envelope.stream and "stream_options" in members:
        envelope.usage_asked = _usage_asked(members)
    _check_messages(members)
    for name in _TOKENS:
        if name in members:
            envelope.max_tokens[name] = _read(members, name, _NUMBER, "a number") or 0
    if not OWN_FIELDS.isdisjoint(members):
        _read_own(envelope, members)
    return envelope


def _usage_asked(members: Members) -> bool:
    options = _read(members, "stream_options", _OBJECT, "an object") or {}
    asked = options.get("include_usage")
    if asked is not None and not isinstance(asked, bool):
        raise _wrong("stream_options.include_usage", "true or false", "something else")
    if options:
        try:
            Members(members["stream_options"]).check()
        except Malformed as error:
            raise _wrong("stream_options", "each field once", str(error)) from None
    return bool(asked)


def _check_messages(members: Members) -> None:
    if "messages" not in members:
        code = "missing_required_parameter"
        raise errors.BadRequest("'messages' is missing.", param="messages", code=code, retry=False)
    if not _read(members, "messages", _MESSAGES, "an array of messages"):
        raise _wrong("messages", "at least one message", "an empty array")


def _read_own(envelope: Envelope, members: Members) -> None:
    if "group" in members:
        group = _read(members, "group", _STRING_OR_STRINGS, "a string or an array of strings")
        envelope.groups = (group,) if isinstance(group, str) else tuple(group or ())
    if "models" in members:
        envelope.models = tuple(_read(members, "models", _STRINGS, "an array of model IDs") or ())
        if len(envelope.models) > 16:
            raise _wrong("models", "at most 16 model IDs", f"{len(envelope.models)} of them")
    if "previous_request_id" in members:
        _read(members, "previous_request_id", _STRING_OR_NULL, "a string")


class _Message(msgspec.Struct):
    """An object; what is in it is the provider's to judge."""


_STRING = msgspec.json.Decoder(str)
_STRING_OR_NULL = msgspec.json.Decoder(str | None)
_FLAG = msgspec.json.Decoder(bool | None)
_NUMBER = msgspec.json.Decoder(int | float | None)
_OBJECT = msgspec.json.Decoder(dict[str, Any] | None)
_STRINGS = msgspec.json.Decoder(list[str] | None)
_STRING_OR_STRINGS = msgspec.json.Decoder(str | list[str] | None)
_MESSAGES = msgspec.json.Decoder(list[_Message])
_ELEMENT = re.compile(r"Expected `object`, got `(.*)` - at `\$\[(\d+)\]`")


def _read(members: Members, name: str, decoder: msgspec.json.Decoder[Any], words: str) -> Any:
    try:
        return decoder.decode(members[name])
    except msgspec.ValidationError as error:
        if element := _ELEMENT.fullmatch(str(error)):
            raise _wrong(f"{name}[{element[2]}]", "an object", f"{element[1]}") from None
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
