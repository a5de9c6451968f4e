"""What stands for the words that a model has generated and nobody can read as they are."""

import base64
import random

import pytest

from proxy import meter
from proxy.formats.spoken import has_words, media, sealed, unknown


def test_it_works() -> None:
    assert unknown({"type": "new", "thought": [{"words": "Hm"}, {"again": "Hm"}], "id": "x_1"}) == "Hm"


@pytest.mark.parametrize(
    "found",
    [
        {"role": "assistant", "call_id": "c", "toolType": "T", "name": "f", "index": 0, "status": None},
        {"web_search_tool_result": {"content": [{"text": "found"}]}, "codeExecutionResult": {"output": "found"}},
        {"citations": [{"cited_text": "found"}], "providerMetadata": {"x": "y"}, "mcp_call": {"output": "found"}},
        {"data": "AAAA", "signature": "AAAA", "thoughtSignature": "AAAA", "image_url": {"url": "data:AAAA"}},
        None,
        7,
    ],
)
def test_what_no_model_has_said(found: object) -> None:
    assert unknown(found) == ""


def test_any_depth() -> None:
    found: object = "deep"
    for _ in range(100_000):
        found = [found]
    assert unknown(found) == "deep"
    assert has_words(found)


@pytest.mark.parametrize(
    ("found", "has"),
    [
        ({"text": "", "parts": [{"text": "a"}]}, True),
        ({"id": "c", "function": {"name": "f", "arguments": ""}}, True),
        ({"id": "m", "type": "message", "role": "assistant", "status": "in_progress", "content": [], "at": 5}, False),
        ({"type": "reasoning", "encrypted_content": "gAAAA", "summary": []}, False),
        (" ", True),
        ("", False),
        (None, False),
        (True, False),
    ],
)
def test_whether_a_piece_says_anything(found: object, has: bool) -> None:
    assert has_words(found) is has


@pytest.mark.parametrize(
    ("size", "least", "most"), [(900, 0, 0), (2000, 100, 192), (8000, 800, 1088), (18276, 2000, 2560)]
)
def test_sealed_thoughts_count_no_more_than_recorded_ones(size: int, least: int, most: int) -> None:
    """`most`: the reasoning tokens that OpenAI counted for a thought of this size."""
    data = base64.b64encode(random.Random(1).randbytes(size)).decode()[:size]
    assert least <= meter.count(sealed(data, 0)) <= most


def test_what_was_said_openly_is_not_counted_again() -> None:
    assert len(sealed("A" * 5000, 1500)) == 200
    assert sealed("A" * 5000, 9999) == sealed(None, 0) == sealed({"a": 1}, 0) == ""


@pytest.mark.parametrize(
    ("kind", "data", "tokens"),
    [
        ("image/png", "AAAA", 1290),
        ("image", "", 0),
        ("image", None, 0),
        ("audio/L16;codec=pcm;rate=24000", "A" * 284_864, 111),  # as Google counted these
        ("video/mp4", "AAAA", 0),
    ],
)
def test_media(kind: str, data: object, tokens: int) -> None:
    assert meter.count(media(kind, data)) == tokens
