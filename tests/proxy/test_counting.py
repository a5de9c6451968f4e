"""`count_tokens` and `countTokens`: asked of a provider of the same format, counted here for the others."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models_catalog.snapshot import Snapshot
from proxy import counting
from proxy.upstream import Pool
from tests.proxy.inside import KEY, TEXT, Inside, model, provider, snapshot
from tests.upstreams import JSON_HEADERS, MockUpstream, Reply, error_reply, json_reply

MESSAGES, GEMINI = "/v1/messages/count_tokens", "/v1beta/models/m:countTokens"
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}
CONTENTS: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Hello there"}]}]}
CLAUDE = provider("claude", "http://127.0.0.1:9", dialect="anthropic")
GOOGLE = provider("google", "http://127.0.0.1:9", dialect="gemini")


def house(folder: Path, catalog: Snapshot, *replies: Any) -> tuple[Inside, MockUpstream]:
    mock = MockUpstream()
    mock.answers(*replies)
    return Inside(folder, catalog, Pool(mock.transport)), mock


async def test_it_works(tmp_path: Path) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply({"input_tokens": 17}))
    answer = await inside.post({**ASKED, "group": "one"}, MESSAGES)
    assert (answer.status, answer.json) == (200, {"input_tokens": 17})
    assert mock.last.path == MESSAGES
    assert mock.last.json == {**ASKED, "model": "m-there"}
    assert mock.last.headers["x-api-key"] == "sk-upstream-secret"
    assert inside.records() == [], "nothing was generated"


async def test_gemini(tmp_path: Path) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", GOOGLE)), json_reply({"totalTokens": 5}))
    answer = await inside.post(CONTENTS, GEMINI)
    assert (answer.status, answer.json) == (200, {"totalTokens": 5})
    assert mock.last.path == "/v1beta/models/m-there:countTokens"
    assert mock.last.headers["x-goog-api-key"] == "sk-upstream-secret"


@pytest.mark.parametrize(
    ("path", "body", "field"), [(MESSAGES, ASKED, "input_tokens"), (GEMINI, CONTENTS, "totalTokens")]
)
async def test_another_format_is_counted_here(tmp_path: Path, path: str, body: dict[str, Any], field: str) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", provider())))
    answer = await inside.post(body, path)
    assert answer.status == 200
    assert 2 <= answer.json[field] <= 20
    assert mock.requests == []


async def test_the_next_route_counts(tmp_path: Path) -> None:
    other = provider("other", "http://127.0.0.1:9", dialect="anthropic", id=2)
    replies = [error_reply(500, "down"), json_reply({"input_tokens": 3})]
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE, other)), *replies)
    assert (await inside.post(ASKED, MESSAGES)).json == {"input_tokens": 3}
    assert len(mock.requests) == 2


async def test_all_fail(tmp_path: Path) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE)), error_reply(500, "down"))
    answer = await inside.post(ASKED, MESSAGES)
    assert (answer.status, answer.json["type"], answer.json["error"]["type"]) == (502, "error", "api_error")


async def test_a_providers_refusal(tmp_path: Path) -> None:
    said = {"type": "error", "error": {"type": "invalid_request_error", "message": "messages: too few"}}
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE)), json_reply(said, 400))
    answer = await inside.post(ASKED, MESSAGES)
    assert (answer.status, answer.json["error"]["message"]) == (400, "messages: too few")


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [({"model": "m"}, True, 400), ({**ASKED, "model": "nobody"}, True, 404), (b"{", True, 400), (ASKED, False, 401)],
)
async def test_refusals(tmp_path: Path, body: Any, key: bool, status: int) -> None:
    inside, mock = house(tmp_path, snapshot(model("m", CLAUDE)))
    answer = await (inside.post(body, MESSAGES) if key else inside.post(body, MESSAGES, key=""))
    assert (answer.status, answer.json["type"]) == (status, "error")
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == answer.json["request_id"]
    assert mock.requests == []


async def test_gemini_refuses_in_its_own_words(tmp_path: Path) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", GOOGLE)))
    answer = await inside.post(CONTENTS, "/v1beta/models/nobody:countTokens")
    assert (answer.status, answer.json["error"]["code"], answer.json["error"]["status"]) == (404, 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "reply",
    [
        Reply([b"<html>sk-upstream-secret"], headers=JSON_HEADERS),
        json_reply({"error": {"message": "bad key sk-upstream-secret"}}),
        json_reply({"input_tokens": 3, "x": "sk-upstream-secret"}),
    ],
)
async def test_what_is_no_count(tmp_path: Path, reply: Reply) -> None:
    inside, _ = house(tmp_path, snapshot(model("m", CLAUDE)), reply)
    answer = await inside.post(ASKED, MESSAGES)
    assert (answer.status, answer.json.get("input_tokens")) in {(502, None), (200, 3)}
    assert b"sk-upstream-secret" not in answer.body


async def test_a_busy_provider_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = replace(CLAUDE, max_concurrency=1)
    inside, mock = house(tmp_path, snapshot(model("m", busy)), json_reply({"input_tokens": 17}))
    await inside.gateway.pool.enter(busy, 0, 1)
    monkeypatch.setattr(counting, "PATIENCE", 0.01)
    assert (await inside.post(ASKED, MESSAGES)).status == 503
    inside.gateway.pool.leave(busy)
    assert (await inside.post(ASKED, MESSAGES)).status == 200
    assert len(mock.requests) == 1


@pytest.mark.parametrize("path", [MESSAGES, GEMINI])
async def test_it_counts_as_a_request_and_says_what_is_left(tmp_path: Path, path: str) -> None:
    mock = MockUpstream(json_reply({"input_tokens": 1, "totalTokens": 1}))
    catalog = snapshot(model("m", CLAUDE if path == MESSAGES else GOOGLE))
    inside = Inside(tmp_path, catalog, Pool(mock.transport), (TEXT, replace(KEY, rpm=1)))
    answers = [await inside.post(ASKED if path == MESSAGES else CONTENTS, path) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["0", "0"]
    assert inside.places == 0


async def test_all_providers_together_have_as_long_as_one(tmp_path: Path) -> None:
    slow = [provider(name, dialect="anthropic", first_byte_timeout=0.2, total_timeout=0.5) for name in "abcdef"]
    inside, mock = house(tmp_path, snapshot(model("m", *slow)), Reply([], wait=5))
    begun = time.monotonic()
    assert (await inside.post(ASKED, MESSAGES)).status == 504
    assert len(mock.requests) == 3
    assert time.monotonic() - begun < 2
