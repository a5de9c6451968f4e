"""Recorded providers played back through the whole gateway: what each side gets, and what is metered.

Our own fixtures, and the recordings that `KODNA_RECORDINGS` names. The way of most is short: the application inside
this process, the provider behind `httpx.MockTransport`. A handful goes over real sockets through both servers.
"""

import asyncio
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.formats.canonical import Usage
from proxy.upstream import Pool
from proxy.usage import Record
from tests.conftest import MakeGateway
from tests.gateway import Gateway, catalog
from tests.gateway import model as catalog_model
from tests.gateway import provider as catalog_provider
from tests.proxy.formats import oracle
from tests.proxy.inside import HELLO, Answer, Inside, model, provider, snapshot
from tests.recordings import Exchange, files, name, read
from tests.upstreams import JSON_HEADERS, SSE_HEADERS, MockUpstream, Reply, Upstream, cut

MODEL, THERE = "m", "m-there"
every_file = pytest.mark.parametrize("path", files("chat"), ids=name)


def request(exchange: Exchange) -> dict[str, Any]:
    """As a client of ours sends it: the recorded one with our model's name. Without one, any."""
    asked = exchange.asked if exchange.asked and exchange.asked.get("messages") else {"messages": HELLO}
    streams = {"stream": True} if exchange.stream and not asked.get("stream") else {}
    return {**asked, **streams, "model": MODEL}


def compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def asks_for_usage(body: dict[str, Any]) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


def expected_upstream(body: dict[str, Any]) -> bytes:
    """The client's body but for the permitted edits."""
    sent = {key: value for key, value in body.items() if key not in {"group", "models", "previous_request_id"}}
    if body.get("stream"):
        sent["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return compact({**sent, "model": THERE})


def reply(exchange: Exchange) -> Reply:
    """Cut anywhere; the same with each run."""
    body, dice = exchange.body, random.Random(exchange.id)
    places = sorted(dice.sample(range(1, len(body)), min(9, len(body) - 1))) if len(body) > 1 else []
    headers = SSE_HEADERS if exchange.framing == "sse" else JSON_HEADERS
    return Reply(cut(body, *places) if places else [body], exchange.status, headers)


async def play(folder: Path, exchanges: list[Exchange]) -> tuple[list[Answer], list[Record], MockUpstream]:
    upstream = MockUpstream()
    inside = Inside(folder, snapshot(model(MODEL, provider(), attempts=1)), Pool(upstream.transport))
    answers = []
    for exchange in exchanges:
        upstream.answers(reply(exchange))
        answers.append(await asyncio.wait_for(inside.post(compact(request(exchange))), 20))
    return answers, inside.records(), upstream


@every_file
async def test_both_sides_get_the_bytes_but_for_the_permitted_edits(path: Path, tmp_path: Path) -> None:
    exchanges = list(read(path))
    answers, records, upstream = await play(tmp_path, exchanges)
    assert len(upstream.requests) == len(records) == len(exchanges)
    for exchange, answer, record, received in zip(exchanges, answers, records, upstream.requests, strict=True):
        assert received.body == expected_upstream(request(exchange)), exchange.id
        assert answer.whole, exchange.id
        if exchange.status == 200:
            check_answer(exchange, answer)
            check_metered(exchange, record)
        else:
            check_error(exchange, answer, record)


def expected(exchange: Exchange) -> oracle.Expected:
    if exchange.is_chat_stream:
        return oracle.stream(exchange.body, MODEL, asked=asks_for_usage(request(exchange)))
    return oracle.answer(exchange.body, MODEL)


def check_answer(exchange: Exchange, answer: Answer) -> None:
    assert answer.status == 200, (exchange.id, answer.body)
    assert answer.body == expected(exchange).body, exchange.id
    kind = "text/event-stream" if exchange.is_chat_stream else "application/json"
    assert answer.headers["content-type"].startswith(kind), exchange.id
    assert answer.headers["x-kodna-model"] == MODEL


def check_metered(exchange: Exchange, record: Record) -> None:
    assert (record.outcome, record.status, record.upstream_model) == ("complete", 200, THERE), exchange.id
    assert record.streamed is exchange.is_chat_stream, exchange.id
    usage = expected(exchange).usage
    assert record.estimated is (usage is None), exchange.id
    if usage is None:
        assert record.prompt_tokens > 0, exchange.id
        return
    counted = (record.prompt_tokens, record.completion_tokens, record.cached_tokens)
    cached, reasoning = _possible(usage)
    written = min(usage.written, usage.prompt - cached)
    in_the_row = replace(usage, cached=cached, written=written, reasoning=reasoning, audio_in=0, audio_out=0)
    assert Usage(*counted, record.cache_write_tokens, record.reasoning_tokens) == in_the_row, exchange.id
    assert record.cost == oracle.cost(usage) * 10**12, exchange.id


# Of the request: the gateway's credential, or a model that the catalog has and the provider does not.
_NOT_ITS_FAULT = ("API key", "supported API model names are")


def check_error(exchange: Exchange, answer: Answer, record: Record) -> None:
    """Its word about the request reaches the client; about the gateway's credential, or its own trouble, it is ours."""
    said = _message(exchange.body)
    status = exchange.status
    error = answer.error
    assert set(error) == {"message", "type", "param", "code"}
    if status in {400, 422} and not any(words in said for words in _NOT_ITS_FAULT):
        assert (answer.status, error["message"]) == (status, said[:1000] or error["message"]), exchange.id
        assert error["code"] == _code(exchange.body), exchange.id
        assert record.outcome == "refused", exchange.id
        return
    assert answer.status == (429 if status == 429 else 502), exchange.id
    assert error["code"] == ("rate_limit_exceeded" if status == 429 else "provider_error"), exchange.id
    assert record.outcome == "failed", exchange.id
    assert record.prompt_tokens == record.completion_tokens == 0
    if status in {400, 401, 402, 403} and said:
        assert said not in error["message"], exchange.id


def _error(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    found = found[0] if isinstance(found, list) else found
    error = found.get("error", found)
    return {"message": error} if isinstance(error, str) else error


def _message(body: bytes) -> str:
    error = _error(body)
    message = error.get("message") or error.get("detail") or ""
    return message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)


def _code(body: bytes) -> str | None:
    code = _error(body).get("code")
    return None if code is None else str(code)


# --- over real sockets ------------------------------------------------------------------------------------------------


def handful() -> list[Exchange]:
    """The longest of each of the first files, streamed and plain: what is cut by real sockets."""
    found = []
    for path in files("chat")[:6]:
        answered = [exchange for exchange in read(path) if exchange.status == 200]
        for kind in (True, False):
            found += sorted(
                (each for each in answered if each.is_chat_stream is kind), key=lambda each: len(each.body)
            )[-1:]
    return found


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_over_real_sockets(server: str, make_gateway: MakeGateway, upstream: Upstream) -> None:
    gateway = make_gateway(server=server)
    price = {"input": 1, "output": 2, "cached_input": 0.5}
    entry = catalog_model(("recorded", THERE), price=price)
    key = gateway.set_up(catalog({"recorded": catalog_provider(upstream.base_url)}, {MODEL: entry}))
    with gateway, gateway.client(key) as client:
        answers = []
        for exchange in handful():
            upstream.answers(reply(exchange))
            answers.append(client.post("/v1/chat/completions", content=compact(request(exchange))))
            assert answers[-1].content == expected(exchange).body, exchange.id
            assert upstream.last.body == expected_upstream(request(exchange)), exchange.id
        for exchange, answer in zip(handful(), answers, strict=True):
            check_row(exchange, gateway, answer)


def check_row(exchange: Exchange, gateway: Gateway, answer: httpx.Response) -> None:
    row, usage = gateway.usage_row(answer.headers["x-request-id"]), expected(exchange).usage
    assert bool(row["estimated"]) is (usage is None), exchange.id
    if usage is not None:
        assert (row["prompt_tokens"], row["completion_tokens"]) == (usage.prompt, usage.completion), exchange.id
        assert (row["cached_tokens"], row["reasoning_tokens"]) == _possible(usage), exchange.id
        assert row["cost"] == oracle.cost(usage), exchange.id


def _possible(usage: Usage) -> tuple[int, int]:
    """Some vendors count more cached tokens than the prompt has, and more of reasoning than the answer."""
    return min(usage.cached, usage.prompt), min(usage.reasoning, usage.completion)
