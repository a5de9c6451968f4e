"""What Explain says of a request is what happens to it, and it leaves no trace but in the limits of its key."""

import asyncio
import json
import threading
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_catalog.snapshot import Absent, Model, Route, Snapshot
from proxy import explain, ingress, request_ids, routing
from proxy.errors import Refusal
from proxy.explain import Conversation, Cost, encode, out_words, refused
from proxy.failover import MOST
from proxy.formats import openai_chat
from proxy.health import ERRORS, REFUSED, RESTS, THROTTLED, Out
from proxy.upstream import Pool
from tests.proxy.inside import CHAT, HELLO, KEY, TEXT, Answer, Inside, model, provider, snapshot
from tests.upstreams import MockUpstream, completion

EXPLAIN = (b"x-kodna-explain", b"true")
STRATEGIES = ("weighted", "in_order", "cheapest", "fastest", "least_busy")


def ways(*names: str, weights: tuple[float, ...] = (), costs: tuple[int, ...] = ()) -> tuple[Route, ...]:
    """Of one priority."""
    return tuple(
        Route(provider(name), "m-there", 1, (weights or (1,) * 9)[place], (costs or (None,) * 9)[place])
        for place, name in enumerate(names)
    )


def house(folder: Path, *models: Model, **changes: Any) -> Inside:
    found = snapshot(*(models or (model("m", provider("first"), provider("second"), **changes),)), fast="m")
    return Inside(folder, found, Pool(MockUpstream(completion(model="m-there")).transport))


async def ask(inside: Inside, expected: int = 200, **body: Any) -> Any:
    answer = await inside.post({"model": "m", "messages": HELLO, **body}, headers=[EXPLAIN])
    assert answer.status == expected, answer.body
    return answer.json


def names(found: Any) -> list[str]:
    return [each["provider"] for each in found["candidates"]]


def whys(found: Any) -> dict[str, tuple[str, str]]:
    return {each["provider"] or each["model"]: (each["reason"], each["why"]) for each in found["dropped"]}


async def test_it_works(tmp_path: Path) -> None:
    found = await ask(house(tmp_path), model="fast", max_tokens=10)
    assert found["object"] == "kodna.explanation"
    assert found["asked"]["alias"] == "fast"
    assert found["asked"]["resolved"] == "m"
    assert found["estimate"] == {
        "model": "m", "prompt_tokens": 8, "most_output_tokens": 10, "cost": {"least": 0.000006, "most": 0.00003},
    }  # fmt: skip
    assert names(found) == ["first", "second"]
    assert [each["place"] for each in found["candidates"]] == [1, 2]
    assert [each["layer"] for each in found["candidates"]] == [0, 1]
    assert found["candidates"][0]["why"] == "the only one of priority 0"
    assert found["dropped"] == []


async def test_it_leaves_no_trace(tmp_path: Path) -> None:
    upstream = MockUpstream()
    inside = Inside(tmp_path, snapshot(model("m", *map(provider, ("first", "second")))), Pool(upstream.transport))
    turns = {(await ask(inside, stream=stream))["turn"] for stream in (False, True, False)}
    assert (upstream.requests, inside.records(), inside.places, turns) == ([], [], 0, {0})


async def test_it_counts_as_a_request(tmp_path: Path) -> None:
    upstream, key = MockUpstream(), replace(KEY, rpm=2, concurrency=1)
    inside = Inside(tmp_path, snapshot(model("m", provider("first"))), Pool(upstream.transport), (TEXT, key))
    for _ in range(2):
        await ask(inside)
        assert inside.places == 0
    refused = await inside.post(headers=[EXPLAIN])
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert float(refused.headers["retry-after"]) > 50
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert (await inside.post()).status == 429
    assert upstream.requests == []


async def test_it_takes_a_place_while_it_is_worked_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = replace(KEY, concurrency=1)
    inside = Inside(tmp_path, snapshot(model("m", provider("first"))), Pool(MockUpstream().transport), (TEXT, key))
    loop, begun, done, found = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), explain.explain

    def slow(*args: Any) -> explain.Explanation:
        loop.call_soon_threadsafe(begun.set)
        assert done.wait(9)
        return found(*args)

    monkeypatch.setattr(explain, "explain", slow)
    first = asyncio.create_task(inside.post(headers=[EXPLAIN]))
    await begun.wait()
    assert (await inside.post(headers=[EXPLAIN])).error["code"] == "concurrency_exceeded"
    done.set()
    assert ((await first).status, inside.places) == (200, 0)


@pytest.mark.parametrize("bug", [StopIteration, ValueError])
async def test_a_bug_of_ours_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: type[Exception]) -> None:
    def fails(*_: object, **__: object) -> None:
        raise bug

    inside = house(tmp_path)
    monkeypatch.setattr(explain, "explain", fails)
    async with asyncio.timeout(5):
        assert (await inside.post(headers=[EXPLAIN])).status == 500


async def test_a_plan_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, done, found = house(tmp_path), threading.Event(), explain.explain
    monkeypatch.setattr(explain, "explain", lambda *_, **__: done.wait(9))
    monkeypatch.setattr(explain, "LONGEST", 0.01)
    late = await inside.post(headers=[EXPLAIN])
    done.set()
    assert (late.status, late.error["code"]) == (503, "provider_unavailable")
    monkeypatch.undo()
    assert explain.explain is found
    assert names(await ask(inside)) == ["first", "second"]


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_it_names_the_route_that_the_next_request_takes(tmp_path: Path, strategy: str) -> None:
    routes = ways("first", "second", "third", weights=(5, 3, 1), costs=(4, 3, 8))
    inside = house(tmp_path, replace(model("m"), routes=routes, strategy=strategy))
    taken = []
    for _ in range(12):
        said = await ask(inside)
        answer = await inside.post()
        assert answer.headers["x-kodna-provider"] == names(said)[0]
        taken.append(names(said)[0])
    if strategy == "weighted":
        assert set(taken) == {"first", "second", "third"}


async def test_why_it_has_its_place(tmp_path: Path) -> None:
    routes = ways("first", "second", weights=(1, 0), costs=(1_050_000, 2_100_000))
    last = Route(provider("third"), "m-there", 2)
    words = {
        "weighted": ["turn 0 of weighted", "weight 0: after the others"],
        "in_order": ["in order: as listed", "in order: as listed"],
        "cheapest": ["cheapest: 0.2625 USD per million tokens", "cheapest: 0.525 USD per million tokens"],
        "fastest": ["fastest: not measured yet", "fastest: not measured yet"],
        "least_busy": ["least busy: 0 running there, weight 1", "least busy: 0 running there, weight 0"],
    }
    for strategy, expected in words.items():
        inside = house(tmp_path / strategy, replace(model("m"), routes=(*routes, last), strategy=strategy))
        found = await ask(inside)
        assert [each["why"] for each in found["candidates"]] == [*expected, "the only one of priority 2"]


async def test_the_previous_request_and_a_named_conversation(tmp_path: Path) -> None:
    second = provider("second")
    inside = house(tmp_path)
    found = await ask(inside, previous_request_id=request_ids.carrying(request_ids.new(), second.id, 0))
    assert names(found) == ["second", "first"]
    assert found["candidates"][0]["why"] == "it answered the previous request"
    assert found["asked"]["conversation"] == "previous_request_id"
    found = await ask(inside, prompt_cache_key="mine")
    assert (found["asked"]["conversation"], found["asked"]["home"]) == ("session", "")
    assert names(found) == ["first", "second"]


async def test_a_conversation_that_is_at_home(tmp_path: Path) -> None:
    inside = house(tmp_path, replace(model("m"), routes=ways("first", "second")))
    home = (await inside.post({"model": "m", "messages": HELLO, "prompt_cache_key": "mine"})).headers
    found = await ask(inside, prompt_cache_key="mine")
    assert names(found)[0] == found["asked"]["home"] == home["x-kodna-provider"]
    assert found["candidates"][0]["why"] == "home of the conversation"


async def test_a_conversation_has_its_own_turn(tmp_path: Path) -> None:
    inside = house(tmp_path, replace(model("m"), routes=ways("first", "second", "third")))
    for name in "abcdef":
        found = await ask(inside, prompt_cache_key=name)
        answer = await inside.post({"model": "m", "messages": HELLO, "prompt_cache_key": name})
        assert names(found)[0] == answer.headers["x-kodna-provider"]
        assert found["candidates"][0]["why"] == "the conversation's own turn of weighted"


async def test_a_conversation_that_has_gone_on_has_one_too(tmp_path: Path) -> None:
    inside = house(tmp_path, replace(model("m"), routes=ways("first", "second", "third")))
    said = [*HELLO, {"role": "assistant", "content": "Hello"}, *HELLO]
    found = await ask(inside, messages=said)
    assert found["candidates"][0]["why"] == "the conversation's own turn of weighted"
    assert (await inside.post({"model": "m", "messages": said})).headers["x-kodna-provider"] == names(found)[0]


async def test_how_fast_it_was(tmp_path: Path) -> None:
    """Streams by their first token, plain answers by their end."""
    inside = house(tmp_path, replace(model("m"), routes=ways("first", "second"), strategy="fastest"))
    taken = (await inside.post()).headers["x-kodna-provider"]
    plain, streamed = [
        {each["provider"]: each for each in (await ask(inside, stream=it))["candidates"]} for it in (False, True)
    ]
    assert plain[taken]["speed"] > 0
    assert plain[taken]["why"].startswith("fastest: answer after 0.")
    assert (streamed[taken]["speed"], streamed[taken]["why"]) == (None, "fastest: not measured yet")


async def test_why_a_route_is_not_asked(tmp_path: Path) -> None:
    routes = (
        *(Route(provider("first"), "x"), Route(provider("other", groups=frozenset({"two"})), "x")),
        *(Route(provider("foreign", dialect="fal"), "x"), Route(provider("more"), "x", 2)),
    )
    found = await ask(house(tmp_path, replace(model("m"), routes=routes, attempts=1)), group="one")
    assert names(found) == ["first"]
    assert whys(found) == {
        "other": ("group", "it is in none of the groups that were asked for"),
        "foreign": ("format", "its provider speaks no format in which this request can be asked"),
        "more": ("attempts", "the model allows 1 attempts for a request"),
    }


async def test_what_is_not_the_key_holder_s_business(tmp_path: Path) -> None:
    """Credentials, what is not set up, and providers that the key may not use."""
    twice = {"id": 5, "groups": frozenset({"one"})}
    providers = [provider("first", **twice, credential=each, credential_name=f"secret {each}") for each in (1, 2)]
    hidden = [provider("far", groups=frozenset({"two"})), provider("hidden", dialect="fal", groups=frozenset())]
    of = replace(model("m", *providers, *hidden), attempts=1, absent=(Absent("off", "x", "X_KEY is not set"),))
    key = replace(KEY, groups=frozenset({"one"}))
    inside = Inside(tmp_path, snapshot(of), Pool(MockUpstream().transport), (TEXT, key))
    previous = request_ids.carrying(request_ids.new(), 5, 1)
    found = await ask(inside, previous_request_id=previous)
    assert (found["asked"]["home"], names(found), list(whys(found))) == ("first", ["first"], ["first"])
    for secret in ("secret", "credential", "far", "hidden", "off", "X_KEY"):
        assert secret not in json.dumps(found)


async def test_no_more_than_a_request_is_tried(tmp_path: Path) -> None:
    many = [provider(f"p{number}") for number in range(MOST + 2)]
    found = await ask(house(tmp_path, model("m", *many, attempts=99)))
    assert len(names(found)) == MOST
    assert set(whys(found).values()) == {("attempts", f"a request is tried at most {MOST} times")}


async def test_the_fallbacks(tmp_path: Path) -> None:
    models = [
        model("m", provider("first"), fallbacks=("far", "gone")),
        *(model("far", provider("third")), model("near", provider("second"))),
    ]
    found = await ask(house(tmp_path, *models), models=["near", "nothing"])
    assert [(each["provider"], each["layer"]) for each in found["candidates"]] == [
        *(("first", 0), ("second", 2), ("third", 3))
    ]
    assert found["candidates"][1]["why"].startswith("the request's own fallback; ")
    assert found["candidates"][2]["why"].startswith("the catalog's fallback; ")
    assert whys(found) == dict.fromkeys(("nothing", "gone"), ("model", "there is no such model"))


async def test_a_prompt_that_is_too_long(tmp_path: Path) -> None:
    small, large = (model(name, provider(name), enforce=True, context=size) for name, size in (("m", 9), ("l", 999)))
    words = [{"role": "user", "content": "word " * 20}]
    found = await ask(house(tmp_path, replace(small, fallbacks=("l",)), large), messages=words)
    assert (names(found), found["estimate"]["model"]) == (["l"], "l")
    assert found["candidates"][0]["layer"] == 3
    assert whys(found)["m"] == ("context", "the prompt has 27 tokens, the context window 9")


async def test_what_would_be_lost(tmp_path: Path) -> None:
    claude = provider("claude", dialect="anthropic")
    inside = house(tmp_path, model("m", claude, provider("first")))
    found = await ask(inside, logit_bias={"1": 2})
    assert [each["losses"] for each in found["candidates"]] == [["logit_bias"], []]
    answer = await inside.post(
        {"model": "m", "messages": HELLO, "logit_bias": {"1": 2}}, headers=[EXPLAIN, (b"x-kodna-strict", b"true")]
    )
    assert names(answer.json) == ["first"]
    assert whys(answer.json)["claude"][0] == "lossy"


async def test_what_another_format_cannot_read(tmp_path: Path) -> None:
    """Who is asked first takes it as it is."""
    wrong: dict[str, Any] = {"tools": [{"type": "function", "function": 5}]}
    claude, own = provider("claude", dialect="anthropic"), provider("first")
    found = await ask(house(tmp_path / "own", model("m", own, claude)), **wrong)
    assert (names(found), whys(found)["claude"][0]) == (["first"], "request")
    refused = await ask(house(tmp_path / "other", model("m", claude, own)), 400, **wrong)
    assert refused["error"]["param"].startswith("tools")


def put_out(inside: Inside, why: str, name: str = "first", **more: Any) -> Out:
    (route,) = [each for each in inside.tables.catalog.models["m"].routes if each.provider.name == name]
    out = Out(time.time() + more.get("seconds", 60), why, *(more.get("status", 503), time.time(), 1))
    inside.health.out = {**inside.health.out, route.way: out}
    return out


async def test_a_route_that_is_out(tmp_path: Path) -> None:
    inside = house(tmp_path)
    out = put_out(inside, ERRORS)
    found = await ask(inside)
    assert names(found) == ["second"]
    assert found["candidates"][0]["layer"] == 1
    assert whys(found) == {"first": ("out", out_words(out))}
    put_out(inside, ERRORS, "second")
    found = await ask(inside)
    assert found["is_last_resort"]
    assert names(found) == ["first", "second"]
    assert found["candidates"][0]["why"].startswith("nothing else is left, and it was out: circuit open until ")


async def test_the_last_resort_is_a_fallback(tmp_path: Path) -> None:
    """What comes before it is left alone: its provider has asked to wait."""
    inside = house(tmp_path)
    put_out(inside, RESTS, "first", status=429)
    out = put_out(inside, ERRORS, "second")
    found = await ask(inside)
    assert (names(found), found["candidates"][0]["layer"], found["wait"]) == (["second"], 1, 0)
    assert found["candidates"][0]["why"] == f"nothing else is left, and it was out: {out_words(out)}"
    assert whys(found)["first"][0] == "out"
    assert (await inside.post()).headers["x-kodna-fallback-layer"] == "1"


async def test_all_rest_for_a_moment(tmp_path: Path) -> None:
    inside = house(tmp_path)
    put_out(inside, RESTS, "first", status=429)
    out = put_out(inside, RESTS, "second", status=429, seconds=2.5)
    found = await ask(inside)
    assert (names(found), found["is_last_resort"]) == (["second"], True)
    assert 0 < found["wait"] <= 2.5
    assert found["candidates"][0]["why"] == f"nothing else is left, and it is waited for: {out_words(out)}"


async def test_it_is_refused_as_the_request_would_be(tmp_path: Path) -> None:
    inside = house(tmp_path)

    async def status(**more: Any) -> tuple[int, str]:
        body = {"model": "m", "messages": HELLO, **more.pop("body", {})}
        answer: Answer = await inside.post(body, headers=[EXPLAIN], **more)
        return answer.status, answer.error["code"]

    assert await status(key="sk-kodna-wrong") == (401, "invalid_api_key")
    assert await status(body={"model": "none"}) == (404, "model_not_found")
    assert (await status(body={"group": "three"}))[0] == 400
    assert (await status(body={"messages": 5}))[0] == 400
    assert await status(body={"max_cost_usd": 0}) == (400, "max_cost_exceeded")
    for name in ("first", "second"):
        put_out(inside, RESTS, name, status=429)
    assert await status() == (429, "rate_limit_exceeded")


async def test_a_model_without_a_price(tmp_path: Path) -> None:
    found = await ask(house(tmp_path, prices=()))
    assert found["estimate"]["cost"] is None
    assert found["estimate"]["most_output_tokens"] == 100


CONTENTS = [{"role": "user", "parts": [{"text": "Hello"}]}]


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/completions", {"model": "m", "prompt": "Hello"}),
    ("/v1/responses", {"model": "m", "input": "Hello", "stream": True}),
    ("/v1/messages", {"model": "m", "messages": HELLO, "max_tokens": 9}),
    ("/v1beta/models/m:generateContent", {"contents": CONTENTS}),
    ("/v1beta/models/m:streamGenerateContent", {"contents": CONTENTS}),
])  # fmt: skip
async def test_every_endpoint(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    answer = await house(tmp_path).post(body, path, headers=[EXPLAIN])
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["x-request-id"].startswith("req_")
    assert names(json.loads(answer.body)) == ["first", "second"]


async def test_without_the_header_it_is_a_request(tmp_path: Path) -> None:
    answer = await house(tmp_path).post(path=CHAT, headers=[(b"x-kodna-explain", b"false")])
    assert answer.json["object"] == "chat.completion"


@pytest.mark.parametrize(("why", "seconds", "times", "words"), [
    (RESTS, 60, 1, "rests until 00:01:00 UTC, as the provider has asked (429)"),
    (THROTTLED, 60, 1, "rests until 00:01:00 UTC: the provider's rate limit is reached (429)"),
    (ERRORS, 60, 3, "circuit open until 00:01:00 UTC: too many of its requests failed (429), 3 times in a row"),
    (REFUSED, 60, 1, "circuit open until 00:01:00 UTC: the provider refuses its credential (429)"),
    (REFUSED, -1, 1, "circuit half-open, one request now and then tries it: the provider refuses its credential (429)"),
])  # fmt: skip
def test_why_it_is_out(monkeypatch, why, seconds, times, words) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert out_words(Out(seconds, why, 429, 0.0, times)) == words


def test_money_is_exact() -> None:
    assert encode(Cost(Decimal("0.000000000001"), Decimal("1.10"))) == b'{"least":1E-12,"most":1.10}'


# --- whatever the catalog is, and whoever is out ---------------------------------------------------------------------

GROUPS = st.frozensets(st.sampled_from("xyz"))
SOME = st.sampled_from(["m", "n", "o", "none"])
DIALECTS = st.sampled_from(["openai", "openai", "anthropic", "gemini", "fal"])
OUTS = st.builds(
    lambda away, why, status, times: Out(time.time() + away, why, status, time.time() - 300, times),
    *(st.sampled_from([-200, 2, 50]), st.sampled_from([ERRORS, RESTS, THROTTLED, REFUSED])),
    *(st.sampled_from([0, 429, 503]), st.integers(1, 9)),
)


@st.composite
def catalogs(draw: st.DrawFn) -> Snapshot:
    """Of three models and three providers, with two credentials each."""
    named = [provider(f"p{number}", id=number, groups=draw(GROUPS), dialect=draw(DIALECTS)) for number in range(3)]
    providers = [
        replace(each, credential=number, credential_name=f"secret-{number}", api_key=f"sk-{number}")
        for each in named
        for number in (1, 2)
    ]
    route = st.builds(
        Route,
        *(st.sampled_from(providers), st.just("there"), st.integers(1, 3)),
        *(st.sampled_from([0, 1, 2.5]), st.sampled_from([None, 1, 5])),
    )
    routes = st.lists(route, max_size=5, unique_by=lambda each: each.way)
    return snapshot(
        *(
            model(
                name,
                routes=tuple(sorted(draw(routes), key=lambda each: each.priority)),
                strategy=draw(st.sampled_from(STRATEGIES)),
                attempts=draw(st.integers(1, 6)),
                fallbacks=tuple(draw(st.lists(SOME, max_size=2))),
                absent=(Absent("off", "x", "X_KEY is not set"),),
            )
            for name in "mno"
        )
    )


def names_of(catalog: Snapshot) -> list[str]:
    """Of all that can be out: ways and places."""
    routes = [route for each in catalog.models.values() for route in each.routes]
    return sorted({name for route in routes for name in (route.way, route.provider.place)}) or ["nothing"]


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Inside:
    return house(tmp_path_factory.mktemp("anywhere"))


@given(data=st.data(), catalog=catalogs(), allowed=GROUPS, asked=GROUPS, models=st.lists(SOME, max_size=2))
def test_the_first_is_the_plan_s_first(
    anywhere: Inside,
    data: st.DataObject,
    catalog: Snapshot,
    allowed: frozenset[str],
    asked: frozenset[str],
    models: Any,
) -> None:
    gateway, key = anywhere.gateway, replace(KEY, groups=allowed)
    anywhere.tables.catalog = catalog
    anywhere.health.out = data.draw(st.dictionaries(st.sampled_from(names_of(catalog)), OUTS))
    body = {"model": "m", "messages": HELLO, "models": models, **({"group": sorted(asked)} if asked else {})}
    envelope = ingress.read_envelope(json.dumps(body).encode(), ingress.Asked(openai_chat))
    target = routing.resolve("m", catalog, key)
    home = data.draw(st.none() | st.tuples(st.integers(0, 3), st.integers(1, 3)))
    scene = gateway, envelope, target, key
    try:
        plan = routing.plan(target, envelope, catalog, key, gateway.health, 0, home)
        if plan.refusal is not None:
            raise plan.refusal
    except Refusal as refusal:
        with pytest.raises(type(refusal)):
            explain.explain(*scene, Conversation("session", home))
        assert len(refused(*scene, tells=True)) >= len(target.model.routes) + 1
        return
    told = explain.explain(*scene, Conversation("session", home), tells=True)
    first, candidate = plan.attempts[0], told.candidates[0]
    there = first.route.provider
    assert (candidate.provider, candidate.credential) == (there.name, there.credential_name)
    assert (candidate.model, candidate.layer) == (first.model.id, first.layer)
    own = [each for each in (*told.candidates, *told.dropped) if each.model == "m"]
    assert len(own) == len(target.model.routes) + 1, "each route once, and what is absent"

    less = explain.explain(*scene, Conversation("session", home))
    assert [each.why for each in less.candidates] == [each.why for each in told.candidates]
    assert b"secret-" not in encode(less)
    seen = {each.provider for each in (*less.candidates, *less.dropped)}
    everyone = {route.provider for each in catalog.models.values() for route in each.routes}
    assert not seen & {"off", *(each.name for each in everyone if allowed and allowed.isdisjoint(each.groups))}
