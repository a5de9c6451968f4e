"""Answers written for Gemini's clients: each mapping, and that what was read of Gemini is written the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.formats.base import Ask, Error, Losses
from proxy.formats.canonical import (
    Answer,
    Choice,
    Citation,
    End,
    Event,
    Failure,
    Finish,
    Media,
    Opaque,
    PartDelta,
    PartEnd,
    PartStart,
    Refusal,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    play,
)
from proxy.formats.gemini.answer_reader import read_answer
from proxy.formats.gemini.answer_writer import GeminiWriter, write_answer
from proxy.formats.gemini.parts import kept
from proxy.formats.splice import Members
from tests.proxy.formats.gemini.test_answer_reader import collected, events
from tests.proxy.formats.gemini.test_byte_relay import chunks, data, said, streams
from tests.recordings import files, name, read

every_file = pytest.mark.parametrize("path", files("generateContent"), ids=name)


def ask(framing: str = "sse") -> Ask:
    gains = {"cost": b"0.5"}
    losses = Losses({})
    return Ask("abc", "vendor/m", 1, Request([]), Members(b"{}"), lambda _: gains, losses, framing=framing)


def written(*found: Event, framing: str = "sse") -> list[dict[str, Any]]:
    writer = GeminiWriter(ask(framing))
    return chunks(b"".join(writer.send(event) for event in found))


def parts_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for chunk in found for each in chunk["candidates"] for part in each["content"]["parts"]]


def test_it_works() -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    found, _ = events(data(said("Hi", responseId="r"), said("!", "STOP", usageMetadata=usage)))
    first, second, last = written(*found)
    assert first["candidates"] == [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}]
    assert (first["modelVersion"], first["responseId"]) == ("vendor/m", "abc")
    assert parts_of([second, last]) == [{"text": "!"}, {"text": ""}]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"] == {**usage, "cost": 0.5}


@every_file
@pytest.mark.parametrize("framing", ["sse", "array"])
def test_what_was_read_is_written_the_same(path: Path, framing: str) -> None:
    """Text, thoughts, calls and usage, through the canonical form and back."""
    for exchange in streams(path):
        first = collected(events(exchange.body)[0])
        writer = GeminiWriter(ask(framing))
        again = collected(events(b"".join(writer.send(event) for event in play(first)))[0])
        assert gist(again) == gist(first), exchange.id
        assert again.usage == first.usage, exchange.id


@every_file
def test_plain_answers_are_written_the_same(path: Path) -> None:
    for exchange in read(path):
        if exchange.framing == "json" and exchange.status == 200 and b'"candidates"' in exchange.body:
            first = read_answer(exchange.body, "seed")
            again = read_answer(write_answer(first, ask()), "seed")
            assert gist(again) == gist(first), exchange.id


def gist(answer: Answer) -> list[object]:
    found: list[object] = []
    for choice in answer.choices:
        text = "".join(part.text for part in choice.parts if isinstance(part, Text | Refusal))
        thoughts = "".join(part.text for part in choice.parts if isinstance(part, Thinking))
        calls = [(part.name, part.id, part.arguments) for part in choice.parts if isinstance(part, ToolCall)]
        others = [part.value for part in choice.parts if isinstance(part, Opaque)]
        media = [(part.media_type, part.data) for part in choice.parts if isinstance(part, Media)]
        signed = sorted(part.signature for part in choice.parts if part.signature)
        found.append((text, thoughts, calls, others, media, signed, choice.reason))
    return found


# --- writing ---------------------------------------------------------------------------------------------------------


def plain(choice: Choice, usage: Usage | None = None) -> tuple[dict[str, Any], Ask]:
    asked = ask()
    found = json.loads(write_answer(Answer([choice], usage=usage), asked))
    return found["candidates"][0] | {"usage": found.get("usageMetadata")}, asked


def test_arguments_that_are_no_object() -> None:
    calls = [
        ToolCall("1", "f", '{"a":1}'),
        ToolCall("2", "f", ""),
        ToolCall("3", "f", '{"brok'),
        ToolCall("4", "f", "[1]"),
    ]
    found, asked = plain(Choice([*calls], "tool_calls"))
    args = [part["functionCall"]["args"] for part in found["content"]["parts"]]
    assert args == [{"a": 1}, {}, {"input": '{"brok'}, {"input": [1]}]
    assert asked.losses.names == ["answer.tool_calls.arguments"]
    assert found["finishReason"] == "STOP"


def test_calls_go_out_whole() -> None:
    found = written(
        Start(),
        PartStart(0, ToolCall("1", "f")),
        PartDelta(0, '{"a":'),
        PartStart(1, ToolCall("2", "g")),
        PartDelta(1, "{}"),
        PartDelta(0, '"b"}'),
        PartEnd(1),
        PartEnd(0),
        Finish("tool_calls"),
        End(),
    )
    assert parts_of(found) == [
        {"functionCall": {"id": "2", "name": "g", "args": {}}},
        {"functionCall": {"id": "1", "name": "f", "args": {"a": "b"}}},
        {"text": ""},
    ]


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        (Finish("stop", "end_turn"), {"finishReason": "STOP"}),
        (Finish("length", "max_tokens"), {"finishReason": "MAX_TOKENS"}),
        (Finish("tool_calls", "tool_use"), {"finishReason": "STOP"}),
        (Finish("content_filter", "content_filter"), {"finishReason": "SAFETY", "finishMessage": "content_filter"}),
        (Finish("content_filter", "SPII"), {"finishReason": "SPII"}),
        (Finish("stop", "MALFORMED_FUNCTION_CALL"), {"finishReason": "MALFORMED_FUNCTION_CALL"}),
        (Finish("refusal", "refusal"), {"finishReason": "SAFETY", "finishMessage": "refusal"}),
        (Finish("pause", "pause_turn"), {"finishReason": "OTHER", "finishMessage": "pause_turn"}),
        (
            Finish("stop_sequence", "stop_sequence", "END"),
            {"finishReason": "STOP", "finishMessage": "stop_sequence: END"},
        ),
    ],
)
def test_ends_for_clients(finish: Finish, expected: dict[str, str]) -> None:
    [last] = written(Start(), finish, End())
    said = {key: value for key, value in last["candidates"][0].items() if key.startswith("finish")}
    assert said == expected
    [choice] = [Choice([], finish.reason, finish.raw_reason, finish.stop_sequence)]
    assert {key: value for key, value in plain(choice)[0].items() if key.startswith("finish")} == expected


def test_usage_in_geminis_sense() -> None:
    found, _ = plain(Choice([]), Usage(100, 50, cached=40, written=3, reasoning=30, audio_in=10, audio_out=5))
    assert found["usage"] == {
        "promptTokenCount": 100,
        "candidatesTokenCount": 20,
        "totalTokenCount": 150,
        "cachedContentTokenCount": 40,
        "thoughtsTokenCount": 30,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 90}, {"modality": "AUDIO", "tokenCount": 10}],
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 15}, {"modality": "AUDIO", "tokenCount": 5}],
        "cost": 0.5,
    }


def test_citations_of_others_become_grounding() -> None:
    text = Text("Föhn today.", [Citation("https://a", "A", start=0, end=4), Citation("https://b", "B")])
    found, _ = plain(Choice([Text("ü"), text]))
    assert found["groundingMetadata"] == {
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}, {"web": {"uri": "https://b", "title": "B"}}],
        "groundingSupports": [
            {"segment": {"startIndex": 2, "endIndex": 7, "text": "Föhn"}, "groundingChunkIndices": [0]},
            {"groundingChunkIndices": [1]},
        ],
    }


def test_logprobs_for_clients() -> None:
    rows = [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]}]
    found, _ = plain(Choice([Text("a")], logprobs=rows))
    chosen = [{"token": "a", "logProbability": -1.0}]
    assert found["logprobsResult"] == {"chosenCandidates": chosen, "topCandidates": [{"candidates": chosen}]}


def test_media_for_clients() -> None:
    audio = Media("audio", "audio/wav", "AAA=", transcript="Hi")
    image = Media("image", "image/png", url="https://a/x.png")
    assert plain(Choice([audio, image, Media("image")]))[0]["content"]["parts"] == [
        {"text": "Hi"},
        {"inlineData": {"mimeType": "audio/wav", "data": "AAA="}},
        {"fileData": {"mimeType": "image/png", "fileUri": "https://a/x.png"}},
    ]


def test_what_others_alone_can_say_is_named() -> None:
    found, asked = plain(Choice([Opaque("web_search_call", {"type": "web_search_call"}, origin="openai_responses")]))
    assert found["content"]["parts"] == [{"text": ""}]
    assert asked.losses.names == ["answer.web_search_call"]


def test_lines_stay_whole_for_googles_python_client() -> None:
    """It parts lines by `str.splitlines`."""
    writer = GeminiWriter(ask())
    odd = "a\u2028b\u2029c\u0085d\u000be"
    out = writer.send(PartStart(0, Text(""))) + writer.send(PartDelta(0, odd))
    assert len(out.decode().splitlines()) == 2
    assert parts_of(chunks(out)) == [{"text": odd}]


def test_a_stream_that_fails() -> None:
    for framing in ("sse", "array"):
        writer = GeminiWriter(ask(framing))
        begun = writer.send(PartStart(0, Text(""))) + writer.send(PartDelta(0, "a"))
        end = writer.fail(Error(502, "It broke.", "api_error", "provider_error"))
        error = json.loads(begun + end)[-1] if framing == "array" else json.loads(end.split(b"\r\n\r\n")[1])
        assert error["error"]["status"] == "UNAVAILABLE"


def test_a_providers_failure_ends_the_stream() -> None:
    for status, code in ((429, 429), ("odd", 500)):
        writer = GeminiWriter(ask("array"))
        end = writer.send(Failure({"message": "busy", "status": status, "code": "rate_limit_exceeded"}))
        assert json.loads(end)[0]["error"]["code"] == code


# --- thoughts of other formats ---------------------------------------------------------------------------------------

CLAUDES = Thinking("I look.", signature="sig+/", origin="anthropic_messages")


def test_thoughts_are_kept_by_the_part_behind_them() -> None:
    """gemini-cli sends no thoughts back, but the signatures of texts and calls."""
    call = ToolCall("1", "f", "{}")
    found, _ = plain(Choice([CLAUDES, Text("So:"), call], "tool_calls"))
    thought, text, function = found["content"]["parts"]
    assert thought == {"text": "I look.", "thought": True}
    assert kept(text["thoughtSignature"]) == [CLAUDES]
    assert "thoughtSignature" not in function
    streamed = parts_of(written(*play(Answer([Choice([CLAUDES, Text("So:"), call], "tool_calls")]))))
    assert streamed[:3] == [thought, text, function]


def test_unsigned_thoughts_are_kept_by_calls_only() -> None:
    thought = Thinking("I look.")
    with_call, _ = plain(Choice([thought, ToolCall("1", "f", "{}")]))
    assert kept(with_call["content"]["parts"][1]["thoughtSignature"]) == [thought]
    with_text, _ = plain(Choice([thought, Text("So")]))
    assert with_text["content"]["parts"][1] == {"text": "So"}


def test_a_redacted_thought_at_the_end_stands_alone() -> None:
    redacted = Thinking(redacted=True, signature="x", origin="anthropic_messages")
    found, _ = plain(Choice([Text("a"), redacted]))
    assert found["content"]["parts"][1]["text"] == ""
    assert kept(found["content"]["parts"][1]["thoughtSignature"]) == [redacted]


def test_geminis_own_signatures_stay_as_they_are() -> None:
    thought = Thinking(redacted=True, signature="s1", origin="gemini")
    call = ToolCall("1", "f", "{}", signature="s2", origin="gemini")
    text = Text("a", signature="s3", origin="gemini")
    found, _ = plain(Choice([thought, call, text]))
    assert [part["thoughtSignature"] for part in found["content"]["parts"]] == ["s1", "s2", "s3"]
    streamed = parts_of(written(PartStart(0, Text("")), PartDelta(0, "a"), PartEnd(0, 0, "s3", "gemini"), End()))
    assert {"text": "", "thoughtSignature": "s3"} in streamed
