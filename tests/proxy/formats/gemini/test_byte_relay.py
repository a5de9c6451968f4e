"""Gemini's answers on their way to a Gemini client: what may change in them, and what shows that they are whole."""

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.formats.base import Error, NotAnAnswer
from proxy.formats.canonical import Usage
from proxy.formats.gemini.byte_relay import GeminiStream, edit_answer
from proxy.formats.gemini.wire import ARRAY, read_error
from tests.recordings import Exchange, files, name, read
from tests.upstreams import cut

MODEL = "vendor/modèle"
GAINS = {"cost": b"0.25", "cached_tokens": b"3"}
every_file = pytest.mark.parametrize("path", files("generateContent"), ids=name)


def relayed(pieces: Iterable[bytes], framing: str = "sse") -> tuple[bytes, GeminiStream]:
    """As `relay` does it."""
    stream = GeminiStream(MODEL, lambda _: GAINS, framing)
    out = b""
    for piece in pieces:
        if not stream.over:
            out += stream.feed(piece)
    return (out if stream.over else out + stream.close()), stream


def streams(path: Path) -> Iterator[Exchange]:
    return (exchange for exchange in read(path) if exchange.stream and exchange.status == 200)


def chunks(body: bytes) -> list[dict[str, Any]]:
    """Read without the code that is tested."""
    if body.lstrip().startswith(b"["):
        return list(json.loads(body))
    lines = body.decode().replace("\r\n", "\n").split("\n")
    return [json.loads(line[5:]) for line in lines if line.startswith("data:")]


def unedited(chunk: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in chunk.items() if key not in ("modelVersion", "usageMetadata")}
    usage = chunk.get("usageMetadata", {})
    return kept | {"usage": {key: value for key, value in usage.items() if key not in GAINS}}


def data(*found: object) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(each).encode() for each in found)


def said(text: str, finish: str = "", **more: object) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}} | ({"finishReason": finish} if finish else {})
    return {"candidates": [candidate], "modelVersion": "gemini-test", **more}


def test_it_works() -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    out, stream = relayed([data(said("Hi"), said("!", "STOP", usageMetadata=usage))])
    first, last = chunks(out)
    assert first == said("Hi", modelVersion=MODEL)
    assert last == said("!", "STOP", modelVersion=MODEL, usageMetadata={**usage, "cost": 0.25, "cached_tokens": 3})
    assert stream.complete
    assert (stream.usage, stream.text(), stream.begun) == (Usage(5, 2), "Hi!", True)


@pytest.mark.parametrize(
    "sent",
    [
        {"usageMetadata": {"promptTokenCount": 5}, "modelVersion": "m", "responseId": "r"},
        {"candidates": [{"index": 0}]},
        {"candidates": [{"content": {"role": "model"}}]},
        {"candidates": [{"content": {"role": "model", "parts": []}}]},
        said(""),
        {"candidates": [{"content": {"parts": [{"text": "", "thought": True}]}}]},
        {"promptFeedback": {"safetyRatings": [{"category": "a"}]}},
    ],
)
@pytest.mark.parametrize("framing", ["sse", ARRAY])
def test_what_only_opens_an_answer(sent: dict[str, Any], framing: str) -> None:
    _, stream = relayed([data(sent)], framing)
    assert not stream.begun


@pytest.mark.parametrize(
    "part",
    [
        {"text": "a"},
        {"text": "a", "thought": True},
        {"text": "", "thoughtSignature": "abc"},
        {"functionCall": {"name": "f", "args": {}}},
        {"inlineData": {"mimeType": "audio/pcm", "data": "AAAA"}},
        {"executableCode": {"language": "PYTHON", "code": "1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK"}},
    ],
)
def test_what_an_answer_begins_with(part: dict[str, Any]) -> None:
    _, stream = relayed([data({"candidates": [{"content": {"parts": [{"text": ""}, part]}}]})])
    assert stream.begun


@pytest.mark.parametrize("sent", [said("", "STOP"), {"promptFeedback": {"blockReason": "SAFETY"}}])
def test_an_empty_answer_begins_with_its_end(sent: dict[str, Any]) -> None:
    _, stream = relayed([data(sent)])
    assert stream.begun


def test_no_more_is_held_back_than_half_a_megabyte_of_events() -> None:
    stream, opening = GeminiStream("m", lambda _: {}, "sse"), data({"modelVersion": "x" * 300_000, "candidates": [{}]})
    stream.feed(opening)
    assert not stream.begun
    stream.feed(opening)
    assert stream.begun


# --- laws ------------------------------------------------------------------------------------------------------------


@every_file
@pytest.mark.parametrize("framing", ["sse", ARRAY])
def test_the_client_gets_what_the_provider_said_but_for_the_permitted_edits(path: Path, framing: str) -> None:
    for exchange in streams(path):
        out, stream = relayed([exchange.body], framing)
        before, after = chunks(exchange.body), chunks(out)
        assert [unedited(chunk) for chunk in after] == [unedited(chunk) for chunk in before], exchange.id
        assert {chunk["modelVersion"] for chunk in after if "modelVersion" in chunk} <= {MODEL}, exchange.id
        assert ("cost" in after[-1].get("usageMetadata", {})) == (stream.usage is not None), exchange.id
        assert stream.complete, exchange.id
        assert out.startswith(b"[" if framing == ARRAY else b"data: "), exchange.id


@every_file
def test_events_keep_their_bytes(path: Path) -> None:
    for exchange in streams(path):
        if exchange.framing == "sse":
            same = GeminiStream(chunks(exchange.body)[0].get("modelVersion", ""), lambda _: {}, "sse")
            assert same.feed(exchange.body) + same.close() == exchange.body, exchange.id


@every_file
def test_any_cut_gives_the_same_as_the_whole(path: Path) -> None:
    for exchange in streams(path):
        dice = random.Random(exchange.id)
        for framing in ("sse", ARRAY):
            whole, stream = relayed([exchange.body], framing)
            for pieces in _cuts(exchange.body, dice):
                out, other = relayed(pieces, framing)
                assert (out, other.usage, other.begun) == (whole, stream.usage, stream.begun), exchange.id
                assert (other.complete, other.text()) == (True, stream.text()), exchange.id


def _cuts(body: bytes, dice: random.Random) -> Iterator[list[bytes]]:
    if len(body) < 6000:
        yield cut(body)  # byte by byte
    for pieces in (2, 5, 40):
        yield cut(body, *sorted(dice.sample(range(1, len(body)), min(pieces, len(body) - 1))))


@every_file
def test_a_stream_that_stops_early_is_not_complete(path: Path) -> None:
    for exchange in streams(path):
        end = exchange.body.find(b'"finishReason"')
        dice = random.Random(exchange.id)
        for place in dice.sample(range(end), min(end, 12)) if end > 0 else ():
            assert not relayed([exchange.body[:place]])[1].complete, (exchange.id, place)


def test_nothing_in_nothing_out() -> None:
    assert relayed([])[0] == b""
    assert not relayed([b""])[1].complete


# --- the end ---------------------------------------------------------------------------------------------------------


def test_a_candidate_may_go_on_after_a_reason_to_end() -> None:
    """As answers with code execution do."""
    out, stream = relayed([data(said("a", "STOP"), said("b"))])
    assert len(chunks(out)) == 2
    assert not stream.finished
    assert relayed([data(said("a", "STOP"), said("b"), said("c", "STOP"))])[1].complete


def test_every_candidate_must_end() -> None:
    second = {"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}]}
    assert not relayed([data(second, said("a", "STOP"))])[1].complete
    ended = {"candidates": [{"index": 1, "finishReason": "STOP"}]}
    assert relayed([data(second, said("a", "STOP"), ended)])[1].complete


def test_what_comes_behind_the_end_does_not_open_it_again() -> None:
    grounded = {"candidates": [{"groundingMetadata": {}}]}
    assert relayed([data(said("a", "STOP"), grounded)])[1].complete


def test_a_blocked_prompt_is_a_whole_answer() -> None:
    assert relayed([data({"promptFeedback": {"blockReason": "SAFETY"}})])[1].complete


def test_it_is_finished_before_the_bytes_end_and_complete_after() -> None:
    stream = GeminiStream(MODEL, lambda _: {}, "sse")
    stream.feed(data(said("a", "STOP")))
    assert (stream.finished, stream.complete, stream.over) == (True, False, False)
    stream.close()
    assert (stream.complete, stream.over) == (True, True)


def test_a_count_of_the_prompt_alone_is_no_usage() -> None:
    only = {"promptTokenCount": 5, "totalTokenCount": 5}
    assert relayed([data(said("Hi", usageMetadata=only))])[1].usage is None
    assert relayed([data(said("Hi", "STOP", usageMetadata=only))])[1].usage == Usage(5)


# --- what providers send ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        data(said("a", "STOP")).replace(b"\r\n", b"\n"),
        b": ping\n\n" + data(said("a", "STOP")),
        b"event: message\nid: 7\n" + data(said("a", "STOP")),
        data(said("a", "STOP")).replace(b"data: ", b"data:"),
        data(said("a", "STOP"))[:-4],
        data(said("a", "STOP")) + b"data: [DONE]\n\n",
        b"\xef\xbb\xbf" + data(said("a", "STOP")),
        b"\n\n" + data(said("a", "STOP")),
        json.dumps(said("a", "STOP"), indent=2).encode(),
        json.dumps([said("a", "STOP")], indent=2).encode(),
        json.dumps([said("a"), said("", "STOP")]).encode()[:-1],
    ],
    ids=["LF", "comment", "named", "no space", "no end", "done", "BOM", "blank", "plain", "array", "open array"],
)
def test_every_framing_passes(body: bytes) -> None:
    for pieces in ([body], cut(body)):
        out, stream = relayed(pieces)
        assert stream.complete
        assert chunks(out)[0]["modelVersion"] == MODEL
        assert stream.text() == "a"
        # Google's SDKs take every other line for an answer of its own
        assert all(line.startswith(b"data: ") for line in out.splitlines() if line)


def test_white_space_before_the_stream_is_not_kept() -> None:
    assert relayed([b"\n \n", b"\xef\xbb", b"\xbf\n", data(said("a", "STOP"))])[0].startswith(b"data: ")


def test_strings_may_hold_whatever_parts_an_array() -> None:
    odd = 'a"}]{[,\\\n\\"'
    body = json.dumps([said(odd), said("b", "STOP")]).encode()
    for pieces in ([body], cut(body)):
        assert relayed(pieces)[1].text() == odd + "b"


def test_an_event_over_several_lines() -> None:
    text = json.dumps(said("a", "STOP"), indent=1).replace("\n", "\ndata: ")
    out, stream = relayed([f"data: {text}\n\n".encode()])
    assert stream.complete
    assert chunks(out) == [said("a", "STOP", modelVersion=MODEL)]


def test_half_a_character_passes() -> None:
    body = rb'data: {"candidates":[{"content":{"parts":[{"text":"\ud83d"}]},"finishReason":"STOP"}]}' + b"\r\n\r\n"
    assert relayed([body])[0] == body


@pytest.mark.parametrize(
    "body",
    [
        data(said("a")) + b"data: {oops\n\n",
        b'[{"candidates":[]}, nonsense]',
        b'{"candidates": 5}',
        b'{"candidates": [{"content": {"pa',
        b'data: {"candidates":[{"content":{"parts":[{"te',
        b'{"hello": "world"}',
    ],
)
def test_what_cannot_be_trusted_breaks_the_stream(body: bytes) -> None:
    _, stream = relayed([body])
    assert stream.broken
    assert not stream.complete


def test_the_price_takes_the_place_of_the_providers() -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "cost": 99}
    out, _ = relayed([data(said("!", "STOP", usageMetadata=usage))])
    assert chunks(out)[0]["usageMetadata"] == {**usage, "cost": 0.25, "cached_tokens": 3}


def test_the_models_name_is_only_changed_where_it_is_meant() -> None:
    tricky = said('"modelVersion":"gemini-test"', responseId="x")
    out, _ = relayed([data(said("a", responseId="x"), tricky, said(".", "STOP", responseId="x"))])
    assert [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks(out)][1] == tricky["candidates"][
        0
    ]["content"]["parts"][0]["text"]
    assert [chunk["modelVersion"] for chunk in chunks(out)] == [MODEL] * 3


def test_the_text_to_count_holds_thoughts_and_calls() -> None:
    call = {"functionCall": {"name": "f", "args": {"a": 1}}}
    parts = [{"text": "hm", "thought": True}, call, {"text": "so"}]
    _, stream = relayed([data({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})])
    assert stream.text() == 'hmf{"a": 1}so'


IMAGE = {"mimeType": "image/png", "data": "AAAA"}


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"executableCode": {"language": "PYTHON", "code": "a"}}, "a"),
        ({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "found"}}, ""),
        ({"toolCall": {"toolType": "GOOGLE_SEARCH", "args": {"queries": ["a"]}, "id": "x"}}, "a"),
        ({"toolResponse": {"toolType": "GOOGLE_SEARCH", "response": {"x": "found"}}}, ""),
        ({"functionCall": {"partialArgs": [{"jsonPath": "$.x", "stringValue": "a"}]}}, "a"),
        ({"inlineData": IMAGE}, " image" * 1290),
        ({"inlineData": IMAGE, "thought": True}, ""),
        ({"text": "", "thoughtSignature": "A" * 1010}, "AA"),
        ({"newThing": {"words": "a"}}, "a"),
    ],
)
def test_all_that_is_generated_is_counted(part: object, text: str) -> None:
    chunk = {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}
    assert relayed([data(chunk)])[1].text() == text
    assert edit_answer(json.dumps(chunk).encode(), MODEL, lambda _: GAINS).text == text


def test_a_part_that_nobody_can_read_passes() -> None:
    deep = b'{"candidates":[{"content":{"parts":[{"new":%b1%b}]},"finishReason":"STOP"}]}' % (b"[" * 900, b"]" * 900)
    out, stream = relayed([b"data: " + deep + b"\r\n\r\n"])
    assert (out, stream.text(), stream.broken) == (b"data: " + deep + b"\r\n\r\n", "", "")


# --- errors ----------------------------------------------------------------------------------------------------------

REFUSED = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}


@pytest.mark.parametrize(
    "body",
    [
        data(said("a"), REFUSED),
        data(said("a")) + json.dumps(REFUSED, indent=2).encode(),
        data(said("a"), [REFUSED]),
        json.dumps([said("a"), REFUSED]).encode(),
    ],
    ids=["event", "bare", "list", "array"],
)
def test_an_error_in_the_stream_ends_it(body: bytes) -> None:
    for pieces in ([body], cut(body)):
        out, stream = relayed(pieces)
        assert stream.error == read_error(json.dumps(REFUSED).encode())
        assert not stream.complete
        _, event, bare = out.split(b"\r\n\r\n")  # some clients raise on the one, some on the other
        assert json.loads(event.removeprefix(b"data: ")) == json.loads(bare)
        assert json.loads(bare) in (REFUSED, [REFUSED])
        array, stream = relayed(pieces, ARRAY)
        assert "error" in json.dumps(json.loads(array)[-1])


def test_an_error_instead_of_a_stream() -> None:
    _, stream = relayed([json.dumps([REFUSED]).encode()])
    assert stream.error is not None
    assert stream.error["status"] == 503


def test_an_error_does_not_stand_behind_half_a_line() -> None:
    stream = GeminiStream(MODEL, lambda _: {}, "sse")
    begun = stream.feed(data(said("a")) + b"dat") + stream.close()
    assert not stream.complete
    assert begun.endswith(b"}\r\n\r\n")


def test_the_gateways_own_end() -> None:
    error = Error(502, "It broke.", "api_error", "provider_error")
    stream = GeminiStream(MODEL, lambda _: {}, "sse")
    stream.feed(data(said("a")))
    event, bare = stream.fail(error).split(b"\r\n\r\n")
    assert json.loads(bare)["error"]["status"] == "UNAVAILABLE"
    assert event == b"data: " + bare
    for begun in (b"", data(said("a"))):
        stream = GeminiStream(MODEL, lambda _: {}, ARRAY)
        whole = stream.feed(begun) + stream.close() + stream.fail(error)
        assert json.loads(whole)[-1]["error"]["code"] == 502


# --- plain answers ---------------------------------------------------------------------------------------------------


@every_file
def test_plain_answers_keep_what_they_say(path: Path) -> None:
    for exchange in read(path):
        if exchange.framing == "json" and exchange.status == 200:
            answer = edit_answer(exchange.body, MODEL, lambda _: GAINS)
            before, after = json.loads(exchange.body), json.loads(answer.body)
            assert unedited(after) == unedited(before), exchange.id
            assert after.get("modelVersion", MODEL) == MODEL, exchange.id
            assert ("cost" in after.get("usageMetadata", {})) == (answer.usage is not None), exchange.id


def test_a_plain_answer_without_usage_leaves_its_text_to_be_counted() -> None:
    body = json.dumps(said("Hi", "STOP")).encode()
    answer = edit_answer(body, MODEL, lambda _: GAINS)
    assert (answer.usage, answer.text) == (None, "Hi")
    assert answer.body == body.replace(b"gemini-test", json.dumps(MODEL, ensure_ascii=False).encode()[1:-1])


@pytest.mark.parametrize("body", [b"", b"no", b"{}", b"[]", b'{"candidates": "x"}', json.dumps(REFUSED).encode()])
def test_a_200_that_is_no_answer(body: bytes) -> None:
    with pytest.raises(NotAnAnswer) as caught:
        edit_answer(body, MODEL, lambda _: {})
    assert (caught.value.error is not None) == (b"error" in body)


def test_an_error_behind_an_event_without_its_empty_line_is_an_event_of_its_own() -> None:
    stream = GeminiStream("m", lambda _: {}, "sse")
    first = b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n'
    sent = stream.feed(first) + stream.close() + stream.fail(Error(502, "down", "api_error"))
    events = sent.replace(b"\r\n", b"\n").split(b"\n\n")
    assert events[0] == first.strip()
    assert events[1].lstrip().startswith(b'data: {"error":')


@pytest.mark.parametrize("framing", ["sse", ARRAY])
def test_an_error_in_a_list_of_one(framing: str) -> None:
    stream = GeminiStream("m", lambda _: {}, framing)
    sent = stream.feed(b'data: [{"error":{"code":400,"message":"x"}}]\n\n')
    assert stream.error is not None
    assert b'[{"error"' not in sent or json.loads(sent) == [{"error": {"code": 400, "message": "x"}}]


# --- ended by the gateway --------------------------------------------------------------------------------------------

TOLD = Usage(5, 3, 1, 0, 2)


def piece(text: str, index: int = 0, reason: str = "", **more: Any) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": index}
    return {"candidates": [candidate | ({"finishReason": reason} if reason else {})], "responseId": "r", **more}


def sent(*found: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(each).encode() for each in found)


@pytest.mark.parametrize("framing", ["sse", ARRAY])
def test_a_stream_is_cut(framing: str) -> None:
    stream = GeminiStream(MODEL, lambda _: GAINS, framing)
    out = stream.feed(sent(piece("a"), piece("b", 1), piece("c", 2), piece("", 1, "STOP")) + b'data: {"cand')
    out += stream.cut(TOLD)
    *_, last = chunks(out)
    assert [(each["index"], each["finishReason"]) for each in last["candidates"]] == [
        (0, "MAX_TOKENS"),
        (2, "MAX_TOKENS"),
    ]
    assert last["usageMetadata"] == {
        "promptTokenCount": 5,
        "candidatesTokenCount": 1,
        "totalTokenCount": 8,
        "cachedContentTokenCount": 1,
        "thoughtsTokenCount": 2,
        "cost": 0.25,
        "cached_tokens": 3,
    }
    assert (last["modelVersion"], last["responseId"]) == (MODEL, "r")
    assert (stream.complete, stream.over, stream.usage, stream.said) == (True, True, TOLD, 3)
    assert stream.cut(TOLD) == b""


@pytest.mark.parametrize("framing", ["sse", ARRAY])
def test_nothing_is_cut(framing: str) -> None:
    stream = GeminiStream(MODEL, lambda _: GAINS, framing)
    (only,) = chunks(stream.cut(TOLD))
    assert only["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_what_has_finished_by_itself_is_not_cut() -> None:
    for framing, end in (("sse", b""), (ARRAY, b"]")):
        stream = GeminiStream(MODEL, lambda _: GAINS, framing)
        stream.feed(sent(piece("a", reason="STOP")))
        assert (stream.cut(TOLD), stream.complete) == (end, True)


def test_a_count_of_the_prompt_alone() -> None:
    stream = GeminiStream(MODEL, lambda _: GAINS, "sse")
    counted = {"promptTokenCount": 5, "cachedContentTokenCount": 2, "totalTokenCount": 5}
    stream.feed(sent(piece("a", usageMetadata=counted)))
    assert (stream.usage, stream.prompt_usage) == (None, Usage(5, cached=2))
    stream.feed(sent(piece("b", usageMetadata={**counted, "candidatesTokenCount": 2, "totalTokenCount": 7})))
    assert stream.usage is stream.usage
    assert (stream.usage, stream.prompt_usage) == (Usage(5, 2, 2), Usage(5, cached=2))
