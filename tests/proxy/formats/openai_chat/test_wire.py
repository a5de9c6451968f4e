"""Errors in any shape, usage in any vendor's words, JSON of strangers, and why an answer ended."""

import json
from decimal import Decimal

import pytest

from proxy.formats import canonical
from proxy.formats.base import Error
from proxy.formats.canonical import Usage
from proxy.formats.openai_chat.wire import (
    error_body,
    error_event,
    read_error,
    read_reason,
    read_usage,
    write_reason,
    write_usage,
)

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def test_it_works() -> None:
    assert read_usage(USAGE) == Usage(7, 3)
    assert read_error(b'{"error": {"message": "Bad"}}') == {"message": "Bad"}
    assert read_reason("stop", None, called=False) == canonical.STOP


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "usage"),
    [
        (USAGE, Usage(7, 3)),
        ({"input_tokens": 7, "output_tokens": 3}, Usage(7, 3)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}}, Usage(7, 3, 4, 2)),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}, Usage(7, 3, reasoning=2)),
        ({**USAGE, "prompt_cache_hit_tokens": 4}, Usage(7, 3, 4)),
        ({**USAGE, "cached_tokens": 4}, Usage(7, 3, 4)),
        ({**USAGE, "num_cached_tokens": 4, "prompt_tokens_details": None}, Usage(7, 3, 4)),
        ({**USAGE, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2}, Usage(7, 3, 4, 2)),
        # beyond prompt and completion: xAI's reasoning, Gemini's thoughts, Mistral's audio
        ({**USAGE, "total_tokens": 15, "completion_tokens_details": {"reasoning_tokens": 5}}, Usage(7, 8, reasoning=5)),
        ({**USAGE, "total_tokens": 15}, Usage(7, 8)),
        ({**USAGE, "total_tokens": 15, "prompt_tokens_details": {"audio_tokens": 5}}, Usage(12, 3, audio_in=5)),
        ({**USAGE, "completion_tokens_details": {"audio_tokens": 2}}, Usage(7, 3, audio_out=2)),
        ({**USAGE, "total_tokens": 15, "completion_tokens_details": {"reasoning_tokens": 1}}, Usage(7, 3, reasoning=1)),
        ({**USAGE, "total_tokens": 2}, Usage(7, 3)),
        ({"prompt_tokens": 7.0, "completion_tokens": 3.5}, Usage(7, 3)),
        ({"prompt_tokens": 7, "completion_tokens": -3}, Usage(7)),
        ({"prompt_tokens": 10**30, "completion_tokens": 3}, Usage(0, 3)),
        ({"prompt_tokens": 2**31, "completion_tokens": 2**31 - 1}, Usage(0, 2**31 - 1)),
        ({"prompt_tokens": "7", "completion_tokens": True}, None),
        ({"prompt_tokens": 7, "completion_tokens": None}, None),  # Databricks: not counted yet
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({**USAGE, "prompt_tokens_details": [], "completion_tokens_details": 5}, Usage(7, 3)),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage(found: object, usage: Usage | None) -> None:
    assert read_usage(found) == usage


def test_a_usage_object_has_all_details_and_the_price() -> None:
    usage = Usage(10, 7, cached=4, written=2, reasoning=3, audio_in=1, audio_out=5)
    written = json.loads(write_usage(usage, lambda _: {"cost": b"0.5", "cached_tokens": b"4"}), parse_float=Decimal)
    assert written == {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 1},
        "completion_tokens_details": {
            "reasoning_tokens": 3,
            "audio_tokens": 5,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "cost": Decimal("0.5"),
        "cached_tokens": 4,
    }
    assert read_usage(written) == usage


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "Bad", "code": "x"}}, "Bad"),
        ({"error": "Bad"}, "Bad"),
        ({"error": ["Bad"]}, "Bad"),
        ({"error": [{"message": "Bad"}]}, "Bad"),
        ({"errors": [{"message": "Bad", "code": 7}], "success": False}, "Bad"),
        ({"object": "error", "message": "Bad", "code": "3051"}, "Bad"),
        ({"object": "error", "message": {"detail": [1]}}, '{"detail": [1]}'),
        ({"detail": "Bad"}, "Bad"),
        ({"detail": [{"loc": ["n"], "msg": "Bäd"}]}, '[{"loc": ["n"], "msg": "Bäd"}]'),
        ([{"error": {"message": "Bad", "status": "INVALID_ARGUMENT"}}], "Bad"),
        ({"error": {"detail": "Bad"}}, "Bad"),
        ({"error": {}, "message": "Bad"}, "Bad"),
        ({"error": 5}, None),
        ([], None),
        ("Bad", None),
        (None, None),
    ],
)
def test_an_error_in_any_shape(body: object, message: str | None) -> None:
    assert read_error(json.dumps(body).encode()).get("message") == message


def test_the_code_beside_an_error_in_words() -> None:
    assert read_error(b'{"code": "invalid-argument", "error": "Bad"}')["code"] == "invalid-argument"


@pytest.mark.parametrize("body", [b"", b"<html>\xff</html>", b"{", b"[" * 5000, b'{"error": '])
def test_an_error_that_says_nothing(body: bytes) -> None:
    assert read_error(body) == {}


def test_an_error_body_has_all_four_fields() -> None:
    assert json.loads(error_body(Error(400, "Bäd", "t", "c", "p")))["error"] == {
        "message": "Bäd",
        "type": "t",
        "param": "p",
        "code": "c",
    }


def test_an_error_event_is_seen_by_every_client() -> None:
    """A chunk that ends with an error, and an error alone."""
    lines = error_event(Error(502, "Bäd", "t")).split(b"\n\n")
    chunk, alone = (json.loads(line.removeprefix(b"data: ")) for line in lines[:2])
    assert chunk["error"] == alone["error"] == {"message": "Bäd", "type": "t", "param": None, "code": None}
    assert chunk["choices"][0]["finish_reason"] == "error"
    assert "choices" not in alone
    assert lines[2:] == [b""]


# --- why an answer ended ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "native", "called", "reason"),
    [
        ("stop", None, False, canonical.STOP),
        ("eos", None, False, canonical.STOP),
        ("STOP", None, False, canonical.STOP),
        ("something new", None, False, canonical.STOP),
        (None, None, False, canonical.STOP),
        ("length", None, False, canonical.LENGTH),
        ("model_length", None, False, canonical.LENGTH),
        ("tool_calls", None, True, canonical.TOOL_CALLS),
        ("function_call", None, True, canonical.TOOL_CALLS),
        ("stop", None, True, canonical.TOOL_CALLS),  # Gemini's own endpoint says so
        ("", None, True, canonical.TOOL_CALLS),
        ("length", None, True, canonical.LENGTH),
        ("content_filter", None, False, canonical.CONTENT_FILTER),
        ("sensitive", None, False, canonical.CONTENT_FILTER),
        ("stop", "stop_sequence", False, canonical.STOP_SEQUENCE),
        ("stop", "pause_turn", False, canonical.PAUSE),
        ("content_filter", "refusal", False, canonical.REFUSAL),
        ("stop", "max_tokens", False, canonical.STOP),  # it contradicts: the plain word counts
        (5, 7, False, canonical.STOP),
    ],
)
def test_a_reason_in_any_words(word: object, native: object, called: bool, reason: str) -> None:
    assert read_reason(word, native, called=called) == reason


@pytest.mark.parametrize(
    ("reason", "raw", "word", "native"),
    [
        (canonical.STOP, "end_turn", "stop", ""),
        (canonical.STOP, "STOP", "stop", ""),
        (canonical.STOP, "OTHER", "stop", "OTHER"),
        (canonical.STOP_SEQUENCE, "stop_sequence", "stop", "stop_sequence"),
        (canonical.STOP_SEQUENCE, "", "stop", "stop_sequence"),
        (canonical.LENGTH, "MAX_TOKENS", "length", ""),
        (canonical.LENGTH, "model_context_window_exceeded", "length", "model_context_window_exceeded"),
        (canonical.TOOL_CALLS, "tool_use", "tool_calls", ""),
        (canonical.CONTENT_FILTER, "SAFETY", "content_filter", "SAFETY"),
        (canonical.REFUSAL, "refusal", "content_filter", "refusal"),
        (canonical.PAUSE, "pause_turn", "stop", "pause_turn"),
    ],
)
def test_a_reason_in_chats_words(reason: str, raw: str, word: str, native: str) -> None:
    assert write_reason(reason, raw) == (word, native)
    assert read_reason(word, native, called=reason == canonical.TOOL_CALLS) == reason
