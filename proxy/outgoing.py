"""The request as a provider gets it: the client's bytes but for the permitted edits. Called by `relay`."""

import msgspec

from proxy.formats.splice import Members
from proxy.ingress import OWN_FIELDS, Envelope
from proxy.quirks import NO_STREAM_OPTIONS
from proxy.routing import Attempt

_ASK = b'{"include_usage":true}'
_NONE: frozenset[str] = frozenset()


def provider_body(envelope: Envelope, attempt: Attempt) -> bytes:
    """The permitted edits: `model`, the gateway's own fields taken out, usage asked for, the output limit enforced."""
    members, provider = envelope.members, attempt.route.provider
    values: dict[str, bytes] = {}
    add: dict[str, bytes] = {}
    (values if "model" in members else add)["model"] = msgspec.json.encode(attempt.route.model)
    if envelope.stream and not envelope.usage_asked and NO_STREAM_OPTIONS not in provider.quirks:
        (values if "stream_options" in members else add)["stream_options"] = _ask_for_usage(members)
    values.update(dict.fromkeys(_over(envelope, attempt), b"%d" % (attempt.model.output or 0)))
    drop = _NONE if OWN_FIELDS.isdisjoint(members) else OWN_FIELDS
    return members.edit(values, drop, add)


def _ask_for_usage(members: Members) -> bytes:
    raw = members.get("stream_options", b"null")
    if raw == b"null":
        return _ASK
    options = Members(raw)
    if "include_usage" in options:
        return options.edit({"include_usage": b"true"})
    return options.edit({}, add={"include_usage": b"true"})


def clamped(envelope: Envelope, attempt: Attempt) -> int | None:
    """The output limit in place of the client's, where the model's limits are enforced and the client asks for more."""
    return attempt.model.output if _over(envelope, attempt) else None


def _over(envelope: Envelope, attempt: Attempt) -> list[str]:
    """The fields that ask for more than an enforced limit: which of the two a provider reads is not known."""
    model = attempt.model
    if not model.enforce or not model.output:
        return []
    return [name for name, value in envelope.max_tokens.items() if value > model.output]
