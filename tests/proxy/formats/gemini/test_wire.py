"""What is read of Gemini's answers: errors in OpenAI's names, usage as OpenAI counts it."""

import json

import pytest

from proxy.formats.base import Error
from proxy.formats.canonical import Usage
from proxy.formats.gemini.wire import Unpacker, error_object, read_chunk, read_error, read_usage


def test_it_works() -> None:
    unpacker = Unpacker()
    [frame] = unpacker.feed(b'data: {"candidates": [{"finishReason": "STOP"}]}\r\n\r\n')
    chunk = read_chunk(frame.data)
    assert chunk.candidates is not None
    assert chunk.candidates[0].finish_reason == "STOP"
    assert not unpacker.broken


def test_an_event_that_does_not_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.formats.gemini.wire.MAX_EVENT", 1000)
    unpacker = Unpacker()
    unpacker.feed(b'[{"candidates": "')
    for _ in range(11):
        unpacker.feed(b"x" * 100)
    assert unpacker.broken == "an event is too large"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            {"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}},
            ("no", "invalid_request_error", "INVALID_ARGUMENT", 400),
        ),
        (
            {"error": {"code": 404, "message": "no such", "status": "NOT_FOUND"}},
            ("no such", "invalid_request_error", "model_not_found", 404),
        ),
        ([{"error": {"code": 500, "message": "oh", "status": "INTERNAL"}}], ("oh", "api_error", "INTERNAL", 500)),
        (
            {"error": {"status": "PERMISSION_DENIED"}},
            ("PERMISSION_DENIED", "permission_error", "PERMISSION_DENIED", 403),
        ),
        ({"error": {"message": "x", "type": "odd", "code": "strange"}}, ("x", "odd", "strange", None)),
        ({"error": "plain words"}, ("plain words", None, None, None)),
        ({"message": "alone"}, ("alone", "api_error", None, None)),
    ],
)
def test_errors_in_openais_names(found: object, expected: tuple[object, ...]) -> None:
    error = read_error(json.dumps(found).encode())
    assert tuple(error.get(key) for key in ("message", "type", "code", "status")) == expected


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"candidates": []}', b"17"])
def test_what_is_no_error(body: bytes) -> None:
    assert read_error(body) == {}


def test_details_of_errors() -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"},
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{}]},
    ]
    error = {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": details}
    found = read_error(json.dumps({"error": error}).encode())
    assert (found["retry_after"], found["code"], found["type"]) == (34.4, "rate_limit_exceeded", "rate_limit_error")


def test_a_bad_key_comes_with_status_400() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": details}
    assert read_error(json.dumps({"error": error}).encode())["code"] == "invalid_api_key"


def test_a_field_is_named() -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "contents[0].role"}]}
    ]
    error = {"code": 400, "message": "bad", "status": "INVALID_ARGUMENT", "details": details}
    assert read_error(json.dumps({"error": error}).encode())["param"] == "contents[0].role"


def test_a_prompt_that_is_too_long_has_openais_code() -> None:
    words = "The input token count (1250074) exceeds the maximum number of tokens allowed (1048576)."
    found = read_error(json.dumps({"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}).encode())
    assert found["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (418, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (499, "CANCELLED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
        (599, "INTERNAL"),
    ],
)
def test_errors_for_clients(status: int, word: str) -> None:
    body = error_object(Error(status, "no", "x", "some_code", "contents[0]"))
    assert body.startswith(b'{"error":')  # google-genai looks for it there
    error = json.loads(body)["error"]
    assert (error["code"], error["status"], error["message"]) == (status, word, "no")
    assert error["details"][0]["reason"] == "some_code"
    assert error["details"][1]["fieldViolations"][0]["field"] == "contents[0]"


@pytest.mark.parametrize(("wait", "said"), [(59.0, "59s"), (0.25, "0.25s"), (0.0, "0s"), (12.3456, "12.346s")])
def test_how_long_to_wait_stands_in_the_error(wait: float, said: str) -> None:
    body = error_object(Error(429, "no", "x", retry_after=wait))
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": said}
    assert json.loads(body)["error"]["details"] == [info]
    assert read_error(body)["retry_after"] == pytest.approx(wait, abs=0.001)


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}, Usage(5, 2)),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 9, "totalTokenCount": 16},
            Usage(5, 11, reasoning=9),
        ),
        (
            {"promptTokenCount": 5, "candidatesTokenCount": 10, "thoughtsTokenCount": 9, "totalTokenCount": 15},
            Usage(5, 10, reasoning=9),  # the thoughts are among the candidates' tokens
        ),
        ({"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 20}, Usage(5, 15)),
        (
            {"promptTokenCount": 5, "toolUsePromptTokenCount": 40, "candidatesTokenCount": 2, "totalTokenCount": 47},
            Usage(45, 2),
        ),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 4, "totalTokenCount": 5}, Usage(5, 0, cached=4)),
        (
            {
                "promptTokenCount": 5,
                "candidatesTokenCount": 9,
                "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}, {"modality": "TEXT", "tokenCount": 2}],
                "candidatesTokensDetails": [{"modality": 4, "tokenCount": 8}, {"modality": 1, "tokenCount": 1}],
            },
            Usage(5, 9, audio_in=3, audio_out=8),
        ),
        ({"trafficType": "ON_DEMAND"}, None),
        ({"promptTokenCount": None, "candidatesTokenCount": -3, "totalTokenCount": "x"}, None),
        ({"promptTokenCount": 10**12, "candidatesTokenCount": True}, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_as_openai_counts(found: object, expected: Usage | None) -> None:
    assert read_usage(found) == expected


def test_bytes_that_are_no_text_are_no_answer() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        read_chunk(b'{"candidates": [], "na\xebme": 1}')


def test_counts_as_strings() -> None:
    assert read_usage({"promptTokenCount": "12", "candidatesTokenCount": "3"}) == Usage(12, 3)
