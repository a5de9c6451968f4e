"""Anthropic's Messages: what the gateway reads of them and writes, as a client's format and as a provider's.

Requests are in `request_reader` (with `unread` and, for bytes that pass, `seals`) and `request_writer` (with
`block_writer` and `tool_writer`), answers in `answer_reader` and `answer_writer`, the byte relay and errors in
`byte_relay`, what each generation of Claude takes in `models`. This package is a `base.Format`.
Fields: https://platform.claude.com/docs/en/api/messages/create
"""

from proxy.formats.anthropic_messages.answer_reader import MessagesReader, read_answer
from proxy.formats.anthropic_messages.answer_writer import MessagesWriter, write_answer
from proxy.formats.anthropic_messages.byte_relay import (
    NAME,
    MessagesStream,
    edit_answer,
    error_body,
    error_event,
    read_error,
)
from proxy.formats.anthropic_messages.request_reader import (
    FIELDS,
    bounds,
    check,
    check_count,
    least_output,
    own_body,
    prompt,
    read_request,
)
from proxy.formats.anthropic_messages.request_writer import write_request
from proxy.formats.base import Ask, Edits, Pricer, Prompt
from proxy.formats.splice import Members

__all__ = [
    "ENDPOINT",
    "FIELDS",
    "KEEPALIVE",
    "LEAST_OUTPUT",
    "NAME",
    "bounds",
    "check",
    "check_count",
    "choices",
    "count_answer",
    "count_body",
    "count_path",
    "count_prompt",
    "edit_answer",
    "error_body",
    "error_event",
    "least_output",
    "own_body",
    "path",
    "prompt",
    "read_answer",
    "read_error",
    "read_request",
    "reader",
    "relay",
    "write_answer",
    "write_request",
    "writer",
]

ENDPOINT = "messages"
LEAST_OUTPUT = 1
KEEPALIVE = b'event: ping\ndata: {"type": "ping"}\n\n'


def choices(members: Members) -> int:
    return 1


def path(model: str, *, stream: bool) -> str:
    return "/v1/messages"


def count_path(model: str) -> str:
    """https://platform.claude.com/docs/en/build-with-claude/token-counting"""
    return "/v1/messages/count_tokens"


def count_body(members: Members, edits: Edits) -> bytes:
    return own_body(members, edits)


def count_prompt(members: Members) -> Prompt:
    return prompt(members)


def count_answer(tokens: int) -> bytes:
    return b'{"input_tokens":%d}' % tokens


def relay(model: str, pricer: Pricer, ask_members: Members, *, framing: str) -> MessagesStream:
    return MessagesStream(model, pricer)


def reader(seed: str) -> "MessagesReader":
    return MessagesReader(seed)


def writer(ask: Ask) -> "MessagesWriter":
    return MessagesWriter(ask)
