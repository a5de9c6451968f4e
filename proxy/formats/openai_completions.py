"""OpenAI's legacy completions, for clients only: a prompt in, one text out. Providers are asked in another format.

https://platform.openai.com/docs/api-reference/completions. The prompt becomes one message of the user. Called by
`asgi`, through `relay`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.formats.base import Ask, BadField, Error, Prompt, missing, wrong
from proxy.formats.canonical import (
    REASONS,
    Answer,
    Choice,
    End,
    Event,
    Failure,
    Finish,
    Message,
    Part,
    PartDelta,
    PartStart,
    Refusal,
    Request,
    Text,
    Usage,
    UsageSeen,
)
from proxy.formats.lenient import encode, value
from proxy.formats.openai_chat import KEEPALIVE, bounds, check_stream_options, choices, least_output
from proxy.formats.openai_chat.request_reader import decode, kind_of, read_plain
from proxy.formats.openai_chat.wire import DONE, error_body, error_chunks, error_event, write_reason, write_usage
from proxy.formats.splice import Members

__all__ = [
    "ENDPOINT",
    "FIELDS",
    "KEEPALIVE",
    "NAME",
    "bounds",
    "check",
    "choices",
    "error_body",
    "error_event",
    "least_output",
    "prompt",
    "read_request",
    "write_answer",
    "writer",
]

NAME = "openai_completions"
ENDPOINT = "completions"
FIELDS: Mapping[str, str] = {"messages": "prompt", "top_logprobs": "logprobs", "cache_key": "prompt_cache_key"}
_IGNORED = frozenset({"model", "prompt", "stream_options"})
_MOST_LOGPROBS = 20  # chat's most; here the most is 5


def check(members: Members, /) -> None:
    """Raises `BadField`."""
    if "prompt" not in members:
        raise missing("prompt")
    _read_prompt(members)
    check_stream_options(members)
    choices(members)


def _read_prompt(members: Members) -> str:
    """One string, which may stand in a list. Of several, each would be a conversation of its own; tokens are the

    tokens of one vocabulary, which the provider's model need not share.
    """
    found = decode(members, "prompt")
    if isinstance(found, str):
        return found
    if isinstance(found, list):
        if len(found) == 1 and isinstance(found[0], str):
            return found[0]
        if found and all(isinstance(each, str) for each in found):
            raise BadField("prompt", "Several prompts in one request are not supported: send one request for each.")
        if found and all(isinstance(each, int | list) and not isinstance(each, bool) for each in found):
            raise BadField("prompt", "A prompt of tokens is not supported: send it as text.")
    raise wrong("prompt", "a string", "an empty array" if found == [] else kind_of(found))


def prompt(members: Members, /) -> Prompt:
    found = value(members.get("prompt", b'""'))
    said = found if isinstance(found, str) else "".join(each for each in found or () if isinstance(each, str))
    return Prompt(said, 1)


def read_request(members: Members, /) -> Request:
    """`suffix`, `echo`, `best_of` have no place in a conversation: they are kept in `extra`. Raises `BadField`."""
    fields = {name: decode(members, name) for name in members if name not in _IGNORED}
    request = Request([Message("user", [Text(_read_prompt(members), at="prompt")], at="prompt")])
    wanted = fields.pop("logprobs", None)
    if wanted is not None:
        if type(wanted) is not int:
            raise wrong("logprobs", "an integer", kind_of(wanted))
        request.logprobs, request.top_logprobs = True, min(max(wanted, 0), _MOST_LOGPROBS)
    if fields.get("echo") is False:
        del fields["echo"]
    if fields.get("best_of") == (fields.get("n") or 1):
        fields.pop("best_of", None)
    read_plain(request, fields)
    request.extra = {name: found for name, found in fields.items() if found is not None and found != ""}
    return request


# --- answers ---------------------------------------------------------------------------------------------------------


def write_answer(answer: Answer, ask: Ask, /) -> bytes:
    found: dict[str, Any] = {
        **_common(ask),
        "choices": [_choice(choice, place, ask) for place, choice in enumerate(answer.choices)],
    }
    body = encode(found)
    if answer.usage is None:
        return body
    return body[:-1] + b',"usage":' + write_usage(answer.usage, ask.pricer) + b"}"


def _common(ask: Ask) -> dict[str, Any]:
    return {"id": f"cmpl-{ask.id}", "object": "text_completion", "created": ask.created, "model": ask.model}


def _choice(choice: Choice, place: int, ask: Ask) -> dict[str, Any]:
    text = "".join(_text(part, ask) for part in choice.parts)
    return {
        "text": text,
        "index": place,
        "logprobs": _logprobs(choice.logprobs, 0),
        **_reason(choice.reason, choice.raw_reason),
    }


def _text(part: Part, ask: Ask) -> str:
    """Completions have text only: what else the model gave is named as lost."""
    if isinstance(part, Text | Refusal):
        return part.text
    ask.losses.of_answer(_kind(part))
    return ""


def _kind(part: Part) -> str:
    names = {"Thinking": "reasoning", "ToolCall": "tool_calls"}
    return names.get(type(part).__name__, type(part).__name__.lower())


def _reason(reason: str, raw: str) -> dict[str, Any]:
    assert reason in REASONS
    word, native = write_reason(reason, raw)
    if word == "tool_calls":  # there are none here
        word, native = "stop", native or "tool_calls"
    return {"finish_reason": word, "native_finish_reason": native} if native else {"finish_reason": word}


def _logprobs(found: list[dict[str, Any]] | None, offset: int) -> dict[str, Any] | None:
    """Chat's list of tokens in the four lists that completions have. `offset`: characters of text before them."""
    if not found:
        return None
    tokens = [str(each.get("token", "")) for each in found]
    places = []
    for token in tokens:
        places.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [each.get("logprob") for each in found],
        "top_logprobs": [
            {str(top.get("token", "")): top.get("logprob") for top in each.get("top_logprobs") or ()} for each in found
        ],
        "text_offset": places,
    }


class CompletionWriter:
    """Events → chunks of text, the reason to end, usage where it was asked for, `[DONE]`."""

    __slots__ = ("_ask", "_head", "_said", "_spoken", "_tail", "_usage")

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._head = b"data: " + msgspec.json.encode(_common(ask))[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if ask.include_usage else b"]}\n\n"
        self._spoken: set[tuple[int, int]] = set()  # parts whose text goes out
        self._said: dict[int, int] = {}  # characters of each choice
        self._usage: Usage | None = None

    def send(self, event: Event, /) -> bytes:
        match event:
            case PartStart():
                said = _text(event.part, self._ask)
                if isinstance(event.part, Text | Refusal):
                    self._spoken.add((event.choice, event.index))
                return self._piece(event.choice, said, None) if said else b""
            case PartDelta() if (event.choice, event.index) in self._spoken and (event.text or event.logprobs):
                return self._piece(event.choice, event.text, event.logprobs)
            case UsageSeen():
                self._usage = event.usage
            case Finish():
                reason = _reason(event.reason, event.raw_reason)
                return self._chunk({"text": "", "index": event.choice, "logprobs": None, **reason})
            case Failure():
                return error_chunks(event.error)
            case End():
                return self._goodbye()
        return b""

    def fail(self, error: Error, /) -> bytes:
        return error_event(error)

    def _piece(self, choice: int, text: str, logprobs: list[dict[str, Any]] | None) -> bytes:
        before = self._said.get(choice, 0)
        self._said[choice] = before + len(text)
        tokens = _logprobs(logprobs, before)
        return self._chunk({"text": text, "index": choice, "logprobs": tokens, "finish_reason": None})

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return self._head + encode(choice) + self._tail

    def _goodbye(self) -> bytes:
        if self._usage is None or not self._ask.include_usage:
            return DONE
        usage = write_usage(self._usage, self._ask.pricer)
        return self._head + b'],"usage":' + usage + b"}\n\n" + DONE


def writer(ask: Ask, /) -> CompletionWriter:
    return CompletionWriter(ask)
