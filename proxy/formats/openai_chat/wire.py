"""What OpenAI's chat API and its many cousins put on the wire, whatever is done with it: errors, usage, reasons to end.

Called by the modules of the chat format.
"""

import json
from typing import Any

import msgspec

from proxy.formats.base import Error, Pricer
from proxy.formats.canonical import (
    CONTENT_FILTER,
    LENGTH,
    PAUSE,
    REFUSAL,
    STOP,
    STOP_SEQUENCE,
    TOOL_CALLS,
    Usage,
)
from proxy.formats.lenient import count, encode, lax
from proxy.formats.splice import append

NAME = "openai_chat"
DONE = b"data: [DONE]\n\n"

# --- errors ----------------------------------------------------------------------------------------------------------


def read_error(body: bytes) -> dict[str, Any]:
    """The error object of a provider's answer, in whichever of the usual shapes; empty where there is none.

    OpenAI and most: `{"error": {…}}`; Ollama: `{"error": "…"}`, xAI with a `code` beside it; Mistral: `{"message",
    "type", "code"}`; Gemini: a list of one; Cloudflare: `{"errors": […]}`; FastAPI servers: `{"detail": …}`. What is
    there of `message` is text.
    """
    try:
        found = _one(lax(body))
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    error = _one(found.get("error") or found.get("errors") or found)
    if isinstance(error, str):
        error = {**found, "message": error}
    if not isinstance(error, dict):
        return {}
    message = error.get("message") or error.get("detail")
    if message is None or isinstance(message, str):
        return {**error, "message": message} if message else error
    return {**error, "message": json.dumps(message, ensure_ascii=False)}


def _one(found: Any) -> Any:
    return found[0] if isinstance(found, list) and found else found


def as_error(error: Any) -> dict[str, Any]:
    return error if isinstance(error, dict) else {"message": str(error)}


def failure_of(word: Any, error: Any) -> dict[str, Any] | None:
    """Why the provider gave a choice up: its reason to end says so, or an error in the choice (OpenRouter)."""
    if error:
        return as_error(error)
    if not isinstance(word, str) or word not in FAILURES:
        return None
    return {"message": f"The provider gave the answer up: {word}.", "type": "api_error", "code": word}


def error_body(error: Error) -> bytes:
    return msgspec.json.encode({"error": _members(error)})


def error_event(error: Error) -> bytes:
    """The end of a stream that failed after its first byte."""
    return error_chunks(_members(error))


def error_chunks(error: dict[str, Any]) -> bytes:
    """OpenAI's SDKs raise on the first. @ai-sdk/openai takes that for a chunk like any, and raises on the second."""
    choice = {"index": 0, "delta": {}, "finish_reason": "error"}
    first, second = encode({"error": error, "choices": [choice]}), encode({"error": error})
    return b"data: %b\n\ndata: %b\n\n" % (first, second)


def _members(error: Error) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "param": error.param, "code": error.code}


# --- usage -----------------------------------------------------------------------------------------------------------


def read_usage(found: Any) -> Usage | None:
    """A provider's decoded `usage` object. None where it is none, or counts nothing."""
    if not isinstance(found, dict):
        return None
    get = found.get
    if "completion_tokens" in found and get("completion_tokens") is None:
        return None  # Databricks, in every chunk but the last: not counted yet
    usage = Usage(
        count(get("prompt_tokens")) or count(get("input_tokens")),
        count(get("completion_tokens")) or count(get("output_tokens")),
    )
    details = get("prompt_tokens_details") or get("input_tokens_details")
    inside = details if isinstance(details, dict) else {}
    usage.cached = count(inside.get("cached_tokens")) or _first(found, _CACHED)
    usage.written = _first(inside, _WRITTEN) or count(get("cache_creation_input_tokens"))
    usage.audio_in = count(inside.get("audio_tokens"))
    details = get("completion_tokens_details") or get("output_tokens_details")
    if isinstance(details, dict):
        usage.reasoning = count(details.get("reasoning_tokens"))
        usage.audio_out = count(details.get("audio_tokens"))
    if (beyond := count(get("total_tokens")) - usage.prompt - usage.completion) > 0:
        _add_beyond(usage, beyond, counted=isinstance(details, dict))
    return usage if usage.prompt or usage.completion else None


# Names for cached tokens beside OpenAI's: DeepSeek's, Moonshot's, Mistral's, Databricks'.
_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens")
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens")


def _first(found: dict[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        if name in found and (tokens := count(found[name])):
            return tokens
    return 0


def _add_beyond(usage: Usage, beyond: int, *, counted: bool) -> None:
    """What `total_tokens` holds beyond prompt and completion. `counted`: the completion's details are there.

    xAI leaves reasoning out of `completion_tokens`, Mistral audio out of `prompt_tokens`; Gemini, which gives no
    details, leaves thoughts out of `completion_tokens`. All of them charge for it.
    """
    if beyond == usage.reasoning or not (counted or beyond == usage.audio_in):
        usage.completion += beyond
    elif beyond == usage.audio_in:
        usage.prompt += beyond


def write_usage(usage: Usage, pricer: Pricer) -> bytes:
    """OpenAI's `usage` object with all its details, and with what the pricer adds."""
    text = msgspec.json.encode(
        {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {
                "cached_tokens": usage.cached,
                "cache_write_tokens": usage.written,
                "audio_tokens": usage.audio_in,
            },
            "completion_tokens_details": {
                "reasoning_tokens": usage.reasoning,
                "audio_tokens": usage.audio_out,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
    )
    return append(text, pricer(usage))


# --- why an answer ended ---------------------------------------------------------------------------------------------

# https://platform.openai.com/docs/api-reference/chat/object, and the words of those that nearly speak it:
# https://docs.mistral.ai/api (model_length), https://huggingface.co/docs/text-generation-inference (eos_token),
# https://docs.z.ai/api-reference/llm/chat-completion (sensitive), https://openrouter.ai/docs/api-reference/overview
# (native_finish_reason: the words of Anthropic, Gemini, Responses)
_REASONS = {
    "stop": STOP,
    "eos": STOP,
    "eos_token": STOP,
    "end_turn": STOP,
    "completed": STOP,
    "complete": STOP,
    "stop_sequence": STOP_SEQUENCE,
    "length": LENGTH,
    "max_tokens": LENGTH,
    "max_output_tokens": LENGTH,
    "model_length": LENGTH,
    "model_context_window_exceeded": LENGTH,
    "tool_calls": TOOL_CALLS,
    "tool_call": TOOL_CALLS,
    "tool_use": TOOL_CALLS,
    "function_call": TOOL_CALLS,
    "content_filter": CONTENT_FILTER,
    "safety": CONTENT_FILTER,
    "recitation": CONTENT_FILTER,
    "prohibited_content": CONTENT_FILTER,
    "blocklist": CONTENT_FILTER,
    "spii": CONTENT_FILTER,
    "sensitive": CONTENT_FILTER,
    "refusal": REFUSAL,
    "pause_turn": PAUSE,
}
# The provider gave up: DeepSeek (https://api-docs.deepseek.com/api/create-chat-completion), Z.ai, OpenRouter, vLLM.
FAILURES = frozenset({"error", "network_error", "insufficient_system_resource", "abort", "cancelled"})
_WORDS = {
    STOP: "stop",
    STOP_SEQUENCE: "stop",
    LENGTH: "length",
    TOOL_CALLS: "tool_calls",
    CONTENT_FILTER: "content_filter",
    REFUSAL: "content_filter",
    PAUSE: "stop",
}
# Words that say no more than chat's own.
_PLAIN = {
    "stop": frozenset({"", "stop", "eos", "eos_token", "end_turn", "completed", "complete"}),
    "length": frozenset({"", "length", "max_tokens", "max_output_tokens"}),
    "tool_calls": frozenset({"", "tool_calls", "tool_call", "tool_use", "function_call", "stop", "completed"}),
    "content_filter": frozenset({"", "content_filter"}),
}


def read_reason(word: Any, native: Any, *, called: bool) -> str:
    """`native`: OpenRouter's `native_finish_reason`, which says more where chat has one word for two things."""
    found = _REASONS.get(str(word or "").lower(), STOP)
    finer = _REASONS.get(native.lower()) if isinstance(native, str) else None
    if finer is not None and _WORDS[finer] == _WORDS[found]:
        found = finer
    return TOOL_CALLS if called and found in (STOP, STOP_SEQUENCE) else found


def write_reason(reason: str, raw: str) -> tuple[str, str]:
    """`finish_reason`, and `native_finish_reason` where the first says less than was known; else empty."""
    word = _WORDS[reason]
    said_less = raw.lower() not in _PLAIN[word] or reason in (STOP_SEQUENCE, REFUSAL, PAUSE)
    return word, (raw or reason) if said_less else ""
