"""Gemini's answers read: each mapping, and the laws that hold for every recorded answer."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from proxy.formats import canonical
from proxy.formats.base import NotAnAnswer
from proxy.formats.canonical import (
    Answer,
    Choice,
    Collector,
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
    Start,
    Text,
    Thinking,
    ToolCall,
    Usage,
    UsageSeen,
)
from proxy.formats.gemini.answer_reader import GeminiReader, read_answer
from tests.proxy.formats.gemini.test_byte_relay import data, said, streams
from tests.recordings import files, name
from tests.upstreams import cut

every_file = pytest.mark.parametrize("path", files("generateContent"), ids=name)


def events(*pieces: bytes) -> tuple[list[Event], GeminiReader]:
    reader, out = GeminiReader("seed"), []
    for piece in pieces:
        out += reader.feed(piece)
    return out + reader.close(), reader


def collected(found: list[Event]) -> Answer:
    collector = Collector()
    for event in found:
        collector.add(event)
    return collector.answer


def answered(*candidates: dict[str, Any], **more: object) -> Answer:
    return read_answer(json.dumps({"candidates": list(candidates), **more}).encode(), "seed")


def candidate(*parts: dict[str, Any], finish: str = "STOP", **more: object) -> dict[str, Any]:
    return {"content": {"parts": list(parts), "role": "model"}, "finishReason": finish, **more}


def test_it_works() -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    found, reader = events(data(said("Hi", responseId="r"), said("!", "STOP", usageMetadata=usage)))
    assert found == [
        Start("r", "gemini-test"),
        PartStart(0, Text("")),
        PartDelta(0, "Hi"),
        PartDelta(0, "!"),
        UsageSeen(Usage(5, 2)),
        PartEnd(0),
        Finish("stop", "STOP"),
        End(),
    ]
    assert reader.complete


# --- laws ------------------------------------------------------------------------------------------------------------


@every_file
def test_any_cut_gives_the_same_events(path: Path) -> None:
    for exchange in streams(path):
        body, dice = exchange.body, random.Random(exchange.id)
        whole, reader = events(body)
        assert reader.complete, exchange.id
        assert isinstance(whole[0], Start), exchange.id
        assert isinstance(whole[-1], End), exchange.id
        for pieces in (2, 5, 40):
            places = sorted(dice.sample(range(1, len(body)), min(pieces, len(body) - 1)))
            assert events(*cut(body, *places))[0] == whole, exchange.id


@every_file
def test_a_cut_stream_never_ends(path: Path) -> None:
    for exchange in streams(path):
        end = exchange.body.find(b'"finishReason"')
        dice = random.Random(exchange.id)
        for place in dice.sample(range(end), min(end, 8)) if end > 0 else ():
            found, reader = events(exchange.body[:place])
            assert not reader.complete, (exchange.id, place)
            assert not any(isinstance(event, End | Finish) for event in found), (exchange.id, place)


# --- reading: parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([{"text": "a"}, {"text": "b"}], [Text("ab")]),
        ([{"text": ""}], []),
        ([{"text": "hm", "thought": True}, {"text": "a"}], [Thinking("hm"), Text("a")]),
        ([{"text": "a", "thoughtSignature": "s"}], [Text("a", signature="s", origin="gemini")]),
        (
            [{"text": "a"}, {"text": "", "thoughtSignature": "s"}, {"text": "b"}],
            [Text("a", signature="s", origin="gemini"), Text("b")],
        ),
        ([{"text": "", "thoughtSignature": "s"}], [Thinking(redacted=True, signature="s", origin="gemini")]),
        (
            [{"text": "hm", "thought": True, "thoughtSignature": "s"}],
            [Thinking("hm", signature="s", origin="gemini")],
        ),
        (
            [{"functionCall": {"name": "f", "args": {"a": [1]}}, "thoughtSignature": "s"}],
            [ToolCall("call_seed_1", "f", '{"a":[1]}', signature="s", origin="gemini")],
        ),
        ([{"functionCall": {"id": "x", "name": "f"}}], [ToolCall("x", "f", "{}")]),
        ([{"inlineData": {"mimeType": "image/png", "data": "aa=="}}], [Media("image", "image/png", "aa==")]),
        (
            [{"fileData": {"mimeType": "video/mp4", "fileUri": "https://a.example/v"}}],
            [Media("video", "video/mp4", url="https://a.example/v")],
        ),
        (
            [{"executableCode": {"language": "PYTHON", "code": "1"}}],
            [Opaque("executableCode", {"executableCode": {"language": "PYTHON", "code": "1"}}, origin="gemini")],
        ),
        (
            [{"thoughtSignature": "s", "newThing": {"a": 1}}],
            [Opaque("newThing", {"thoughtSignature": "s", "newThing": {"a": 1}}, origin="gemini")],
        ),
        ([{}, {"functionCall": {}}, {"thought": True}], []),
    ],
)
def test_parts(parts: list[dict[str, Any]], expected: list[object]) -> None:
    assert answered(candidate(*parts)).choices[0].parts == expected


def test_arguments_in_pieces() -> None:
    """https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling#streaming-fc"""
    pieces: list[dict[str, Any]] = [
        {"jsonPath": "$.a.list[1]", "numberValue": 2.0},
        {"jsonPath": "$.a.list[0]", "stringValue": "x", "willContinue": True},
        {"jsonPath": "$.a.list[0]", "stringValue": "y"},
        {"jsonPath": "$['odd key'].b", "boolValue": False},
        {"jsonPath": '$["null"]', "nullValue": "NULL_VALUE"},
        {"jsonPath": "$.half", "numberValue": 0.5},
        {"jsonPath": "$.a[0].wrong", "stringValue": "fits nowhere"},
        {"jsonPath": "nonsense", "stringValue": "x"},
        {"jsonPath": "$.a.list.b", "stringValue": "x"},
    ]
    calls: list[dict[str, Any]] = [{"name": "f", "willContinue": True}]
    calls += [{"partialArgs": [piece], "willContinue": True} for piece in pieces]
    calls += [{}, {"name": "g"}]
    [choice] = answered(candidate(*({"functionCall": call} for call in calls))).choices
    first, second = choice.parts
    assert isinstance(first, ToolCall)
    assert json.loads(first.arguments) == {"a": {"list": ["xy", 2]}, "odd key": {"b": False}, "null": None, "half": 0.5}
    assert second == ToolCall("call_seed_2", "g", "{}")


def test_citations_count_characters() -> None:
    """Gemini counts bytes."""
    grounding = {
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}, {"web": {"uri": "https://b", "title": "B"}}],
        "groundingSupports": [
            {"segment": {"endIndex": 12, "text": "Föhn today."}, "groundingChunkIndices": [0, 9]},
            {"segment": {"startIndex": 1, "endIndex": 5, "text": "Rain."}, "groundingChunkIndices": [1]},
            {"segment": {"startIndex": 1, "endIndex": 5, "text": "not there"}, "groundingChunkIndices": [1]},
        ],
    }
    [choice] = answered(candidate({"text": "Föhn today. Rain."}, groundingMetadata=grounding)).choices
    text, beside = choice.parts
    assert isinstance(text, Text)
    assert [(each.url, each.start, each.end) for each in text.citations] == [
        ("https://a", 0, 11),
        ("https://b", 12, 17),
        ("https://b", None, None),
    ]
    assert beside == Opaque("groundingMetadata", {"groundingMetadata": grounding}, origin="gemini")


def test_citations_without_places() -> None:
    grounding = {"groundingChunks": [{"retrievedContext": {"uri": "gs://a", "title": "A", "text": "said"}}]}
    cited = {"citations": [{"uri": "https://c", "startIndex": 0, "endIndex": 2}, {}]}
    [choice] = answered(candidate({"text": "abc"}, groundingMetadata=grounding, citationMetadata=cited)).choices
    text = choice.parts[0]
    assert isinstance(text, Text)
    found = [(each.url, each.quote, each.start, each.end) for each in text.citations]
    assert found == [("gs://a", "said", None, None), ("https://c", "", 0, 2)]


def test_logprobs_as_openai_has_them() -> None:
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5, "tokenId": 7}],
        "topCandidates": [{"candidates": [{"token": "é", "logProbability": -0.5}, {"token": "e"}]}],
    }
    [choice] = answered(candidate({"text": "é"}, logprobsResult=result)).choices
    accented = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    top = [accented, {"token": "e", "logprob": 0.0, "bytes": [101]}]
    assert choice.logprobs == [{**accented, "top_logprobs": top}]


# --- reading: ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("LANGUAGE", "content_filter"),
        ("BLOCKLIST", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("ESCALATION", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "stop"),
        ("CONTINUATION", "pause"),
        ("SOMETHING_NEW", "stop"),
        (2, "length"),
    ],
)
def test_reasons_to_end(word: object, reason: str) -> None:
    [choice] = answered({"content": {"parts": [{"text": "a"}]}, "finishReason": word}).choices
    assert choice.reason == reason
    assert choice.raw_reason == (word if isinstance(word, str) else "MAX_TOKENS")


def test_a_call_ends_in_tool_calls() -> None:
    call = {"functionCall": {"name": "f", "args": {}}}
    assert answered(candidate(call)).choices[0].reason == canonical.TOOL_CALLS
    assert answered(candidate(call, finish="MAX_TOKENS")).choices[0].reason == canonical.LENGTH


def test_a_blocked_prompt_is_a_refusal() -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "No."}
    found, reader = events(data({"promptFeedback": feedback}))
    assert collected(found).choices == [Choice([Refusal("No.")], "content_filter", "PROHIBITED_CONTENT")]
    assert reader.complete
    plain = read_answer(b'{"promptFeedback": {"blockReason": "NEW_REASON"}}', "s")
    assert plain.choices == [Choice([], "content_filter", "NEW_REASON")]


def test_several_candidates() -> None:
    answer = answered(candidate({"text": "a"}), candidate({"text": "b"}, finish="MAX_TOKENS", index=1))
    assert [(choice.parts, choice.reason) for choice in answer.choices] == [
        ([Text("a")], "stop"),
        ([Text("b")], "length"),
    ]


@pytest.mark.parametrize("index", [10**18, -1, "1", True, None])
def test_a_number_that_is_none(index: object) -> None:
    assert len(answered(candidate({"text": "a"}, index=index)).choices) == 1


def test_the_last_count_stands() -> None:
    count = {"promptTokenCount": 5, "totalTokenCount": 5}
    more = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    found, _ = events(data(said("a", usageMetadata=count), said("b", usageMetadata=more), said("", "STOP")))
    seen = [UsageSeen(Usage(5), early=True), UsageSeen(Usage(5, 2))]
    assert [event for event in found if isinstance(event, UsageSeen)] == seen
    found, _ = events(data(said("a", usageMetadata=count), said("", "STOP", usageMetadata=count)))
    seen = [UsageSeen(Usage(5), early=True), UsageSeen(Usage(5))]
    assert [event for event in found if isinstance(event, UsageSeen)] == seen


def test_the_tier_in_openais_words() -> None:
    usage = {"promptTokenCount": 5, "serviceTier": "standard"}
    assert answered(candidate({"text": "a"}), usageMetadata=usage).service_tier == "default"


# --- reading: failures -----------------------------------------------------------------------------------------------


def test_an_error_in_the_stream() -> None:
    error = {"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}
    found, reader = events(data(said("a"), error, said("b", "STOP")))
    assert isinstance(found[-1], Failure)
    assert (found[-1].error["message"], found[-1].error["status"]) == ("busy", 503)
    assert not reader.complete
    assert not reader.finished


def test_an_error_instead_of_a_stream() -> None:
    found, _ = events(b'[{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}]')
    assert isinstance(found[0], Failure)


@pytest.mark.parametrize("body", [data(said("a")) + b"data: {x\n\n", b'{"hello": 1}', b'[{"candidates": 5}]', b"[17]"])
def test_what_cannot_be_trusted(body: bytes) -> None:
    found, reader = events(body)
    assert reader.broken
    assert not any(isinstance(event, End | Finish) for event in found)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"usageMetadata": {"totalTokenCount": 5}}', b'{"error": {"code": 5}}']
)
def test_a_200_that_is_no_answer(body: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        read_answer(body, "s")


def test_half_a_character_can_be_written_again() -> None:
    body = rb'{"candidates":[{"content":{"parts":[{"text":"a\ud83d"},{"newThing":"\ud83d"}]},"finishReason":"STOP"}]}'
    text, opaque = read_answer(body, "s").choices[0].parts
    assert text == Text("a?")
    assert opaque == Opaque("newThing", {"newThing": "?"}, origin="gemini")


def test_odd_types_do_no_harm() -> None:
    odd = {"text": 5, "functionCall": [1], "inlineData": "x", "thoughtSignature": 7}
    grounding = {"groundingChunks": [7], "groundingSupports": [{"groundingChunkIndices": [0, "x"], "segment": 5}]}
    more = {"groundingMetadata": grounding, "logprobsResult": [1], "citationMetadata": {"citations": [5]}}
    answer = answered(candidate(odd, {"text": "a"}, index="x", **more), usageMetadata=[], responseId=5)
    assert Text("a") in answer.choices[0].parts


def test_what_only_gemini_tells_of_an_answer_is_kept_beside_it() -> None:
    ratings = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]
    told = {"avgLogprobs": -0.1, "safetyRatings": ratings, "finishMessage": "Model tried to call f."}
    kinds = ["avgLogprobs", "safetyRatings", "finishMessage"]
    expected = [Opaque(name, {name: told[name]}, origin="gemini") for name in kinds]
    assert answered(candidate({"text": "Hi"}, finish="OTHER", **told)).choices[0].parts == [Text("Hi"), *expected]
    found, _ = events(data(said("Hi", safetyRatings=None), said("", "OTHER")))
    assert [event.part for event in found if isinstance(event, PartStart)] == [Text("")]
    plain = candidate({"text": "Hi"}, finishMessage="Model generated function call(s).")
    assert answered(plain).choices[0].parts == [Text("Hi")]


def test_a_blocked_prompts_ratings() -> None:
    feedback = {"blockReason": "SAFETY", "safetyRatings": [{"blocked": True}]}
    parts = read_answer(json.dumps({"promptFeedback": feedback}).encode(), "seed").choices[0].parts
    assert parts == [Opaque("safetyRatings", {"safetyRatings": [{"blocked": True}]}, origin="gemini")]


def test_a_draft_of_an_image_is_no_part_of_the_answer() -> None:
    draft = {"inlineData": {"mimeType": "image/png", "data": "aaaa"}, "thought": True}
    assert answered(candidate(draft)).choices[0].parts == [Opaque("thought", draft, origin="gemini")]


def test_a_call_beside_an_empty_text() -> None:
    [call] = answered(candidate({"text": "", "functionCall": {"name": "f", "id": "1"}})).choices[0].parts
    assert call == ToolCall("1", "f", "{}")


def test_what_goes_on_behind_a_blocked_prompt_is_a_part_of_its_own() -> None:
    def content(text: str, **more: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}]}

    blocked = {"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "No."}}
    chunks = [content("a"), blocked, content("b"), content("c", finishReason="STOP")]
    found, _ = events(*(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks))
    ended: set[int] = set()
    for event in found:
        if isinstance(event, canonical.PartDelta):
            assert event.index not in ended
        elif isinstance(event, canonical.PartEnd):
            ended.add(event.index)
    parts = collected(found).choices[0].parts
    assert [canonical.body(part) for part in parts if isinstance(part, canonical.Text)] == ["a", "bc"]
