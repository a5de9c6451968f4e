"""What the official OpenAI SDK for Python reads from chat completions and from the Responses API, without a network.

The bytes go into the SDK's own stream decoder, into the classes that it makes of plain answers, and into its streaming
helpers: what `client.chat.completions.stream` and `client.responses.stream` hand out at the end.
"""

import json
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import httpx
import openai
from openai.lib.streaming.chat._completions import ChatCompletionStream
from openai.lib.streaming.responses._responses import ResponseStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from tests.conformance.reading import (
    FILTERED,
    LENGTH,
    STOP,
    TOOL_CALLS,
    Call,
    Counted,
    Reading,
    Said,
    Unread,
    arguments,
    custom_input,
    settled,
)

HELPED = 120  # chunks: the chat helper makes the whole message anew for each, so longer streams take too long
REASONS = {
    "stop": STOP,
    "length": LENGTH,
    "tool_calls": TOOL_CALLS,
    "function_call": TOOL_CALLS,
    "content_filter": FILTERED,
}
_REQUEST = httpx.Request("POST", "http://127.0.0.1/v1")


@cache
def client() -> openai.OpenAI:
    return openai.OpenAI(api_key="sk-none", base_url="http://127.0.0.1/v1")


def error(status: int, body: bytes) -> openai.APIStatusError:
    """What the SDK raises for such an answer."""
    response = httpx.Response(status, content=body, request=_REQUEST, headers={"content-type": "application/json"})
    return client()._make_status_error_from_response(response)


class _Again:
    """Events that were decoded already, for a helper that wants a raw stream."""

    def __init__(self, events: Iterable[Any]) -> None:
        self._events = list(events)
        self.response = _response(b"")

    def __iter__(self) -> Iterator[Any]:
        return iter(self._events)


def _response(body: bytes) -> httpx.Response:
    return httpx.Response(200, content=body, request=_REQUEST)


def _plain(body: bytes, cast_to: Any) -> Any:
    response = _response(body)
    try:
        return client()._process_response_data(data=response.json(), cast_to=cast_to, response=response)
    except ValueError as fault:
        raise Unread(f"not JSON: {fault}") from fault


def _events(body: bytes, cast_to: Any) -> list[Any]:
    """Raises `Unread` where the SDK raises."""
    try:
        return list(openai.Stream(cast_to=cast_to, response=_response(body), client=client()))
    except openai.APIError as fault:
        raise Unread(f"{type(fault).__name__}: {fault.message}") from fault
    except (ValueError, TypeError, AttributeError) as fault:
        raise Unread(f"{type(fault).__name__}: {fault}") from fault


# --- chat completions ------------------------------------------------------------------------------------------------


def chat(body: bytes) -> Reading:
    answer = _plain(body, ChatCompletion)
    if not isinstance(answer, ChatCompletion) or not answer.choices:
        raise Unread("no choices")
    said = []
    for choice in answer.choices:
        one = _message(choice.message)
        one.raw = choice.finish_reason or ""
        one.reason = REASONS.get(one.raw, one.raw or STOP)
        one.citations = one.citations or len(_extra(answer, "citations") or ())
        one.logprobs = bool(choice.logprobs and choice.logprobs.content)
        said.append(settled(one))
    return Reading(said, chat_usage(answer.usage))


def chat_stream(body: bytes) -> Reading:
    """What a user adds up from the chunks."""
    return chat_sum(_events(body, ChatCompletionChunk))


def chat_helped(body: bytes) -> Reading:
    """What the streaming helper hands out, checked against what the chunks add up to."""
    chunks = _events(body, ChatCompletionChunk)
    summed = chat_sum(chunks)
    if len(chunks) > HELPED:
        return summed
    stream = ChatCompletionStream(raw_stream=_Again(chunks), response_format=openai.omit, input_tools=openai.omit)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic's, about content in parts
            stream.until_done()
        final = stream.current_completion_snapshot  # `get_final_completion` raises for `length`: it asks for the whole
    except (AssertionError, ValueError, TypeError, AttributeError, RuntimeError, IndexError, KeyError) as fault:
        raise Unread(f"the streaming helper: {type(fault).__name__}: {fault}") from fault
    helped = chat(json.dumps(final.to_dict(mode="json", exclude_unset=False, warnings=False)).encode())
    for one, other in zip(helped.choices, summed.choices, strict=False):
        one.logprobs = one.logprobs or other.logprobs
    if helped != summed:
        raise Unread(f"the streaming helper and the chunks differ: {helped} / {summed}")
    return summed


def chat_sum(chunks: Iterable[ChatCompletionChunk]) -> Reading:
    choices: dict[int, Said] = {}
    calls: dict[tuple[int, int], _Calling] = {}
    voices: dict[int, str] = {}  # choice → what is said in its audio
    usage, sources = None, 0
    for chunk in chunks:
        sources = len(_extra(chunk, "citations") or ()) or sources
        usage = chat_usage(chunk.usage) or chat_usage(_extra(_extra(chunk, "x_groq"), "usage")) or usage
        for choice in chunk.choices or ():
            said = choices.setdefault(choice.index or 0, Said())
            _add(said, choice.delta, calls, choice.index or 0)
            if choice.finish_reason:
                said.raw = choice.finish_reason
            said.logprobs = said.logprobs or bool(choice.logprobs and choice.logprobs.content)
            if audio := _extra(choice.delta, "audio"):
                voices[choice.index or 0] = voices.get(choice.index or 0, "") + (_extra(audio, "transcript") or "")
    if not choices:
        raise Unread("no choices")
    for number, said in choices.items():
        if not said.raw:
            raise Unread(f"choice {number} has no finish_reason")
        said.reason = REASONS.get(said.raw, said.raw)
        said.citations = said.citations or sources
        said.media += number in voices
        said.text = said.text or voices.get(number, "")
        said.calls = [call.whole() for (choice, _), call in calls.items() if choice == number]
    return Reading([settled(choices[number]) for number in sorted(choices)], usage)


class _Calling:
    def __init__(self) -> None:
        self.id, self.name, self.arguments, self.custom = "", "", "", False

    def whole(self) -> Call:
        return Call(self.name, custom_input(self.arguments) if self.custom else arguments(self.arguments))


def _add(said: Said, delta: Any, calls: dict[tuple[int, int], _Calling], choice: int) -> None:
    if delta is None:
        return
    content, thought = _contents(delta.content)
    said.text += content
    said.refusal += delta.refusal or ""
    said.reasoning += thought or _reasoning(delta)
    said.citations += len(_extra(delta, "annotations") or ())
    said.media += len(_extra(delta, "images") or ())
    for place, call in enumerate(delta.tool_calls or ()):
        _call(calls, choice, call, place)
    if delta.function_call:
        calling = calls.setdefault((choice, -1), _Calling())
        calling.name += delta.function_call.name or ""
        calling.arguments += delta.function_call.arguments or ""


def _call(calls: dict[tuple[int, int], _Calling], choice: int, call: Any, place: int) -> None:
    """Some providers leave the index out, or give every call the same one with an ID of its own."""
    index = place if call.index is None else call.index
    calling = calls.get((choice, index))
    if calling is not None and call.id and calling.id and call.id != calling.id and call.function.name:
        index = max(found for number, found in calls if number == choice) + 1
    calling = calls.setdefault((choice, index), _Calling())
    calling.id = calling.id or call.id or ""
    if custom := _extra(call, "custom"):
        calling.custom = True
        calling.name = calling.name or _extra(custom, "name") or ""
        calling.arguments += _extra(custom, "input") or ""
    elif call.function is not None:
        calling.name = calling.name or call.function.name or ""
        calling.arguments += _as_text(call.function.arguments)


def _message(message: Any) -> Said:
    content, thought = _contents(message.content)
    said = Said(content, message.refusal or "", thought or _reasoning(message))
    if not content and message.audio is not None:
        said.text = message.audio.transcript or ""
    for call in message.tool_calls or ():
        if call.type == "custom":
            said.calls.append(Call(call.custom.name, custom_input(call.custom.input)))
        elif getattr(call, "function", None) is not None:
            said.calls.append(Call(call.function.name, arguments(_as_text(call.function.arguments))))
    if message.function_call is not None and message.function_call.name and not said.calls:
        said.calls.append(Call(message.function_call.name, arguments(message.function_call.arguments)))
    said.citations = len(message.annotations or ())
    said.media = len(_extra(message, "images") or ()) + bool(message.audio is not None and message.audio.data)
    return said


def _contents(content: Any) -> tuple[str, str]:
    """Text and thoughts: Mistral and others send parts."""
    if isinstance(content, dict):  # a server that hands out structured output as an object
        return json.dumps(content, separators=(",", ":")), ""
    if not isinstance(content, list):
        return (content if isinstance(content, str) else ""), ""
    text, thought = "", ""
    for part in content:
        text += part.get("text") or ""
        inner = part.get("thinking")
        thought += inner if isinstance(inner, str) else "".join(one.get("text") or "" for one in inner or ())
    return text, thought


def _reasoning(message: Any) -> str:
    """Not OpenAI's, so the SDK hands it out as it came: DeepSeek's name, Groq's, OpenRouter's details."""
    for name in ("reasoning_content", "reasoning"):
        found = _extra(message, name)
        if isinstance(found, str) and found:
            return found
    details = _extra(message, "reasoning_details")
    found = [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    return "".join(one.get("text") or one.get("summary") or "" for one in found)


def _as_text(value: Any) -> str:
    """Some servers send arguments as an object."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _extra(model: Any, name: str) -> Any:
    """A member, whether the SDK's type has it or not."""
    if model is None or isinstance(model, dict):
        return (model or {}).get(name)
    found = model.__dict__.get(name)
    return found if found is not None else (model.model_extra or {}).get(name)


def chat_usage(usage: Any) -> Counted | None:
    """As in `tests/proxy/formats/oracle.py`: what a provider leaves out of its parts is in its total."""
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if not prompt and not completion:
        return None
    in_, out = _extra(usage, "prompt_tokens_details"), _extra(usage, "completion_tokens_details")
    missing = _count(usage, "total_tokens") - prompt - completion
    if missing > 0 and missing == _count(in_, "audio_tokens"):
        prompt += missing
    elif missing > 0:
        completion += missing
    names = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens")
    cached = _count(in_, "cached_tokens") or next((n for name in names if (n := _count(usage, name))), 0)
    written = _count(in_, "cache_write_tokens") or _count(usage, "cache_creation_input_tokens")
    return Counted(prompt, completion, cached, written, _count(out, "reasoning_tokens"))


def _count(found: Any, name: str) -> int:
    value = _extra(found, name)
    return int(value) if isinstance(value, int | float) else 0


# --- Responses -------------------------------------------------------------------------------------------------------

_ENDED = {"max_output_tokens": LENGTH, "max_tokens": LENGTH, "content_filter": FILTERED, "incomplete": LENGTH}
_ENDS = {"response.completed", "response.incomplete", "response.failed"}


def responses(body: bytes) -> Reading:
    return _response_reading(_plain(body, Response))


def _response_reading(response: Any) -> Reading:
    if not isinstance(response, Response) or response.output is None:
        raise Unread("no output")
    if response.status in ("failed", "cancelled") or response.error:
        raise Unread(f"{response.status}: {response.error and response.error.message}")
    if response.status not in ("completed", "incomplete", None):
        raise Unread(f"its status is {response.status}")
    said = _items(response.output)
    if not said.reasoning and isinstance(_extra(response, "reasoning"), str):  # mistral.rs
        said.reasoning = _extra(response, "reasoning")
    _end(said, response)
    return Reading([settled(said)], responses_usage(response.usage))


def _end(said: Said, response: Response) -> None:
    said.raw = (response.incomplete_details.reason or "") if response.incomplete_details else response.status or ""
    said.reason = _ENDED.get(said.raw, STOP)


def _items(output: Iterable[Any]) -> Said:
    said = Said()
    for item in output:
        match item.type:
            case "message":
                for part in item.content or ():
                    if part.type == "output_text":
                        said.text += part.text or ""
                        said.citations += len(part.annotations or ())
                        said.logprobs = said.logprobs or bool(part.logprobs)
                    elif part.type == "refusal":
                        said.refusal += part.refusal or ""
            case "function_call":
                said.calls.append(Call(_name(item), arguments(item.arguments)))
            case "custom_tool_call":
                said.calls.append(Call(item.name, custom_input(item.input)))
            case "reasoning":
                said.reasoning += _thoughts(item)
            case "image_generation_call":
                said.media += bool(item.result)
            case kind:
                said.others.add(kind)
    return said


def _name(item: Any) -> str:
    """A function within a namespace has one name where there are no namespaces."""
    namespace = _extra(item, "namespace")
    return f"{namespace}__{item.name}" if namespace and namespace != item.name else item.name


def _thoughts(item: Any) -> str:
    """The summary is what a user is shown; raw thoughts come from open models, without one."""
    summary = "".join(part.text or "" for part in item.summary or ())
    return summary or "".join(part.text or "" for part in item.content or ())


def responses_usage(usage: Any) -> Counted | None:
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return None
    in_, out = usage.input_tokens_details, usage.output_tokens_details
    cached, written, reasoning = (
        _count(in_, "cached_tokens"),
        _count(in_, "cache_write_tokens"),
        _count(out, "reasoning_tokens"),
    )
    return Counted(usage.input_tokens or 0, usage.output_tokens or 0, cached, written, reasoning)


def responses_stream(body: bytes) -> Reading:
    """The items as they were done, and the end from the response that closes the stream."""
    events = _events(body, ResponseStreamEvent)
    return _stream_reading(events)


def _last(events: Iterable[Any]) -> Response:
    last = None
    for event in events:
        if event.type == "error":
            raise Unread(f"an error event: {event.message}")
        if event.type == "response.failed":
            raise Unread(f"response.failed: {event.response.error and event.response.error.message}")
        if event.type in _ENDS:
            last = event.response
    if last is None:
        raise Unread("the response has no end")
    return last


def _stream_reading(events: list[Any]) -> Reading:
    last = _last(events)
    done = [event for event in events if event.type == "response.output_item.done"]
    if all(isinstance(event.output_index, int) for event in done):
        done.sort(key=lambda event: event.output_index)
    said = _items(event.item for event in done)
    _end(said, last)
    return Reading([settled(said)], responses_usage(last.usage))


def responses_helped(body: bytes) -> Reading:
    """Three ways to read a stream agree: its deltas, its items as they are done, the response at its end.

    Its numbers run on without a gap; and the SDK's helper, which raises where an item or a part was not announced,
    gives the last of the three.
    """
    events = _events(body, ResponseStreamEvent)
    reading = _stream_reading(events)
    numbers = [event.sequence_number for event in events]
    if numbers != list(range(len(numbers))):
        raise Unread(f"sequence numbers {numbers[:6]}…")
    stream = ResponseStream(
        raw_stream=_Again(events), text_format=openai.omit, input_tools=openai.omit, starting_after=None
    )
    try:
        stream.until_done()
        final = stream.get_final_response() if events[-1].type == "response.completed" else _last(events)
    except (AssertionError, ValueError, TypeError, AttributeError, RuntimeError, IndexError, KeyError) as fault:
        raise Unread(f"the streaming helper: {type(fault).__name__}: {fault}") from fault
    whole = _response_reading(Response.construct(**final.to_dict()) if not isinstance(final, Response) else final)
    if whole != reading:
        raise Unread(f"the items and the response at the end differ: {reading} / {whole}")
    _check_deltas(events, reading.choices[0])
    return reading


def _check_deltas(events: list[Any], said: Said) -> None:
    deltas: dict[str, str] = {}
    for event in events:
        if event.type.endswith(".delta") and isinstance(event.delta, str):
            deltas[event.type] = deltas.get(event.type, "") + event.delta
    summary = deltas.get("response.reasoning_summary_text.delta", "")
    found = {
        "text": (deltas.get("response.output_text.delta", ""), said.text),
        "refusal": (deltas.get("response.refusal.delta", ""), said.refusal),
        "reasoning": (summary or deltas.get("response.reasoning_text.delta", ""), said.reasoning),
    }
    for name, (streamed, whole) in found.items():
        if streamed != whole:
            raise Unread(f"the deltas of {name} and the items differ: {streamed!r} / {whole!r}")
    called = [
        event for event in events if event.type == "response.output_item.done" and event.item.type == "function_call"
    ]
    streamed = deltas.get("response.function_call_arguments.delta", "")
    if streamed != "".join(event.item.arguments for event in called):
        raise Unread("the deltas of arguments and the items differ")
