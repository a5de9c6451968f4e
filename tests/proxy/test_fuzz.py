"""Fifteen thousand requests and answers that nobody should send: none is a 500, none hangs, none harms the next.

Valid ones of every format (`samples`), with harm done to them (`mutate`), through the whole application; then the laws
that hold for whatever comes. Another seed: `FUZZ_SEED=2`. A failure says which case it was: `Case` asks it alone.
"""

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from proxy.asgi import Application
from proxy.held import Held, Memory
from proxy.journal import Journal
from proxy.status import Status
from proxy.upstream import Pool
from proxy.usage import Record
from tests.proxy import laws, mutate, samples
from tests.proxy.inside import CHAT, KEY, PROVIDER, TEXT, Answer, Inside, model, provider, snapshot
from tests.upstreams import JSON_HEADERS, SSE_HEADERS, MockUpstream, Reply, json_reply

SEED = os.environ.get("FUZZ_SEED", "1")
BASE = "http://127.0.0.1:9"
SECRET = PROVIDER.api_key
MOST_CPU = 0.5  # seconds for one case; nearly all take a thousandth

PROVIDERS = {
    "chat": provider("chat", f"{BASE}/v1", id=1),
    "responses": provider("responder", f"{BASE}/v1", supports=frozenset({"responses"}), id=2),
    "messages": provider("claude", BASE, dialect="anthropic", id=3),
    "gemini": provider("google", BASE, dialect="gemini", id=4),
}


@dataclass(frozen=True)
class Way:
    """How a client asks. `@` in the path: the model's ID."""

    form: str
    path: str
    stream: bool = False
    query: str = ""

    @property
    def array(self) -> bool:
        return self.stream and self.form == "gemini" and not self.query

    def __str__(self) -> str:
        return f"{self.form}{'-stream' if self.stream else ''}{'-array' if self.array else ''}"


WAYS = [
    Way("chat", CHAT),
    Way("chat", CHAT, stream=True),
    Way("completions", "/v1/completions"),
    Way("completions", "/v1/completions", stream=True),
    Way("responses", "/v1/responses"),
    Way("responses", "/v1/responses", stream=True),
    Way("messages", "/v1/messages"),
    Way("messages", "/v1/messages", stream=True),
    Way("gemini", "/v1beta/models/@:generateContent"),
    Way("gemini", "/v1beta/models/@:streamGenerateContent", stream=True, query="alt=sse"),
    Way("gemini", "/v1/models/@:streamGenerateContent", stream=True),
]
COUNTS = [Way("messages", "/v1/messages/count_tokens"), Way("gemini", "/v1beta/models/@:countTokens")]


class Kept(Journal):
    """The journal, with the last request's rows at hand."""

    def append(self, record: Record) -> None:
        super().append(record)
        self.rows.append(record)

    rows: list[Record]


@dataclass
class Case:
    """One request, and the provider's answer to it."""

    way: Way
    theirs: str
    body: bytes
    reply: Reply
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def path(self) -> str:
        return self.way.path.replace("@", f"m-{self.theirs}")


class House:
    """One application for all cases; `run` gives each of them ten seconds."""

    def __init__(self, folder: Any, runner: asyncio.Runner) -> None:
        self.mock = MockUpstream(json_reply({}))
        models = [model(f"m-{name}", where) for name, where in PROVIDERS.items()]
        catalog = snapshot(*models, default="m-chat", m="m-chat")
        self.inside = Inside(folder, catalog, Pool(self.mock.transport), (TEXT, KEY))
        self.journal = self.inside.gateway.journal = Kept(
            folder / "kept", self.inside.counters, rotate_at=10**9, most=10**10
        )
        self.journal.rows = []
        self.store = Memory(1_000_000, 60)
        self.inside.gateway.held = Held(self.store, 100_000)
        self.inside.application = Application(
            self.inside.gateway, Status(self.inside.tables, self.journal, [], lambda: "")
        )
        self.runner = runner
        self.known = True  # whether requests come with the key
        self.logged: list[str] = []

    def run(self, case: Case, method: str = "POST") -> Answer:
        self.mock.requests.clear()
        self.mock.answers(case.reply)
        self.journal.rows.clear()
        self.logged.clear()
        own = [(b"authorization", f"Bearer {TEXT}".encode())] if self.known else []
        headers = [*own, *case.headers]
        asked = self.inside.ask(method, case.path, headers, [case.body], query=case.way.query)
        begun = time.process_time()
        answer = self.runner.run(self._alone(asked))
        spent = time.process_time() - begun
        assert spent < MOST_CPU, f"{spent:.2f} s of CPU"
        return answer

    async def _alone(self, asked: Any) -> Answer:
        answer: Answer = await asyncio.wait_for(asked, 10)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # a keep-alive or a watch that was just cancelled
            await asyncio.wait(left, timeout=1)
        assert not any(not task.done() for task in left), f"left behind: {left}"
        return answer


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with asyncio.Runner() as runner:
        house = House(tmp_path_factory.mktemp("fuzz"), runner)
        watch = _Watch(house.logged)
        logging.getLogger().addHandler(watch)
        yield house
        logging.getLogger().removeHandler(watch)
        assert house.inside.places == 0, "a request kept its place"


class _Watch(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


# --- the laws --------------------------------------------------------------------------------------------------------


def check(house: House, case: Case, answer: Answer) -> None:
    """Everything that holds for whatever came."""
    form = case.way.form
    assert answer.whole
    _check_secrets(house, case, answer)
    assert not any("Traceback" in line for line in house.logged), house.logged
    (row,) = house.journal.rows
    translated = bool(row.provider_format) and row.provider_format != _OWN.get(form)
    laws.check_row(row, answer.status)
    if answer.status != 200:
        _check_refusal(house, case, answer)
    elif answer.headers["content-type"].startswith("application/json") and not case.way.array:
        assert row.outcome == "complete"
        laws.check_whole(form, answer.body, translated=translated)
    else:
        assert row.outcome in {"complete", "incomplete", "failed", "refused"}
        whole = row.outcome == "complete"
        assert not whole or laws.may_be_whole(case.theirs, b"".join(case.reply.pieces)), "the provider's was not whole"
        laws.check_stream(form, answer.body, whole=whole, array=case.way.array, translated=translated)


_OWN = {
    "chat": "openai_chat",
    "responses": "openai_responses",
    "messages": "anthropic_messages",
    "gemini": "gemini",
}


def _check_secrets(house: House, case: Case, answer: Answer) -> None:
    """The provider's credential stays with the gateway, the client's key too, and no header holds a line's end."""
    seen = answer.body + repr(answer.headers).encode()
    assert SECRET.encode() not in seen.replace(b"\\/", b"/")
    for name, value in answer.headers.items():
        assert _HEADER.fullmatch(value), (name, value)
    for request in house.mock.requests:
        assert TEXT not in request.target + repr(request.headers)
        assert TEXT.encode() not in request.body
        assert request.target in _TARGETS, request.target
    assert not any(SECRET in line or TEXT in line for line in house.logged), house.logged


_HEADER = re.compile(r"[\x20-\x7e]*")
_TARGETS = {
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages?beta=true",
    "/v1/messages/count_tokens",
    *(f"/v1beta/models/m-gemini-there:{verb}" for verb in ("generateContent", "countTokens")),
    "/v1beta/models/m-gemini-there:streamGenerateContent?alt=sse",
}


def _check_refusal(house: House, case: Case, answer: Answer) -> None:
    error = laws.check_refusal(case.way.form, answer.status, answer.body)
    ours = answer.status == 400 and not house.mock.requests
    if ours and "param" in error and error["code"] != "invalid_json":
        assert error["param"], f"no field is named: {error}"


def run(house: House, case: Case) -> Answer:
    try:
        answer = house.run(case)
        check(house, case, answer)
    except BaseException as error:
        error.add_note(f"{case.way} to {case.theirs}; FUZZ_SEED={SEED}\n{case.body!r}\n{case.reply!r}")
        raise
    return answer


# --- requests --------------------------------------------------------------------------------------------------------


def _good(random: Random, theirs: str, way: Way) -> Reply:
    given = samples.streams(theirs) if way.stream else samples.answers(theirs)
    data = random.choice([one for one in given if not samples.fails(one)])
    return Reply([data], 200, SSE_HEADERS if way.stream else JSON_HEADERS)


def _asked(way: Way, theirs: str, value: Any) -> Any:
    """A request, as this way has it."""
    if not isinstance(value, dict) or way.form == "gemini":
        return value
    return {**value, "model": f"m-{theirs}", **({"stream": True} if way.stream else {"stream": False})}


def bad_request(random: Random, way: Way, theirs: str) -> Case:
    given = samples.requests(way.form)
    kind = random.random()
    value = _asked(way, theirs, random.choice(given))
    if kind < 0.75:
        body = mutate.written(mutate.mutated(random, value, given, random.choice([1, 1, 1, 2, 4])))
    elif kind < 0.95:
        body = mutate.harmed(random, mutate.written(value), random.choice([1, 2, 5]))
    else:
        body = mutate.twice_named(random, mutate.written(value))
    return Case(way, theirs, body, _good(random, theirs, way))


COMBINATIONS = [pytest.param(way, theirs, id=f"{way}-to-{theirs}") for way in WAYS for theirs in PROVIDERS]


@pytest.mark.parametrize(("way", "theirs"), COMBINATIONS)
def test_requests(house: House, way: Way, theirs: str) -> None:
    random = Random(f"{SEED} requests {way} {theirs}")
    for _ in range(50):
        run(house, bad_request(random, way, theirs))


# --- answers ---------------------------------------------------------------------------------------------------------

_ERRORS: list[Any] = [
    {"error": {"message": f"no {SECRET}", "type": "x", "code": 500}},
    {"error": f"no {SECRET}"},
    {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}},
    {"error": {"message": 5, "type": [], "param": {}, "code": {}}},
    {"error": []},
    {"error": [{"message": "x"}]},
    [{"error": {"code": 400, "message": "x", "status": "INVALID_ARGUMENT"}}],
    {"type": "error", "error": {"type": "overloaded_error", "message": f"x {SECRET}"}},
    {"type": "error", "error": None},
    {"type": "error", "message": f"x {SECRET}", "code": "server_error", "sequence_number": 3},
    {"type": "response.failed", "response": {"id": "r", "status": "failed", "error": {"code": "x", "message": SECRET}}},
    {"type": "response.failed"},
    {"detail": f"no {SECRET}"},
    {"message": "x", "object": "error"},
    {"error": {"message": "invalid \ud800", "type": "invalid_request_error", "code": "400"}},
]


# Where the credential is quoted in what no reader of the format takes for an error, it is content like any.
_IN_STREAMS = [error for error in _ERRORS if SECRET not in str(error)] + _ERRORS[:2]


def bad_answer(random: Random, way: Way, theirs: str) -> Case:
    body = mutate.written(_asked(way, theirs, random.choice(samples.requests(way.form)[:2] + _simple(way))))
    reply = _bad_stream(random, theirs) if way.stream else _bad_plain(random, theirs)
    if random.random() < 0.08:
        status = random.choice([400, 401, 403, 404, 413, 422, 429, 500, 503, 529, 204, 302, 418])
        reply = replace(reply, status=status)
        if random.random() < 0.8:
            reply = replace(reply, pieces=[mutate.written(random.choice(_ERRORS))], headers=JSON_HEADERS)
    return Case(way, theirs, body, reply)


def _simple(way: Way) -> list[Any]:
    return samples.requests(way.form)[-1:]


def _bad_plain(random: Random, theirs: str) -> Reply:
    given, kind = samples.answers(theirs), random.random()
    data = random.choice(given)
    if kind < 0.6:
        parsed = [json.loads(one) for one in given]
        data = mutate.written(mutate.mutated(random, json.loads(data), parsed, random.choice([1, 1, 2, 5])))
    elif kind < 0.75:
        data = mutate.harmed(random, data, random.choice([1, 2, 5]))
    elif kind < 0.85:
        data = mutate.written(random.choice(_ERRORS))
    elif kind < 0.9:
        data = data[: random.randint(0, len(data))]
    else:
        data = random.choice(samples.answers(random.choice(list(PROVIDERS))) + samples.streams(theirs))
    return Reply([data], 200, JSON_HEADERS, sized=True)


def _bad_stream(random: Random, theirs: str) -> Reply:
    given, kind = samples.streams(theirs), random.random()
    data = random.choice(given)
    if kind < 0.65:
        data = _events(random, theirs, data)
    elif kind < 0.75:
        data = mutate.harmed(random, data, random.choice([1, 2, 5]))
    elif kind < 0.9:
        data = data[: random.randint(0, len(data))]
    elif kind < 0.95:
        data = random.choice(samples.streams(random.choice(list(PROVIDERS))))
    else:
        data = random.choice([*samples.answers(theirs), mutate.written(random.choice(_ERRORS[:8]))])
    end = "cut" if random.random() < 0.2 else "whole"
    return Reply(mutate.cut_anywhere(random, data), 200, SSE_HEADERS, end=end)  # type: ignore[arg-type]


def _events(random: Random, theirs: str, data: bytes) -> bytes:
    """Its events, wrong in what they say or in their order."""
    events = [(name, _value(text)) for name, text in samples.events(data)]
    others = [(name, _value(text)) for name, text in samples.events(random.choice(samples.streams(theirs)))]
    others += [("error" if random.random() < 0.5 else "", random.choice(_IN_STREAMS)), ("", "[DONE]")]
    if random.random() < 0.7:
        for _ in range(random.choice([1, 1, 3])):
            at = random.randrange(len(events))
            name, value = events[at]
            times = random.choice([1, 1, 3])
            events[at] = (name, mutate.mutated(random, value, [one for _, one in events], times))
    if random.random() < 0.6:
        events = mutate.shuffled(random, events, others)
    return mutate.framed(random, events, plainly=random.random() < 0.6)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.mark.parametrize(("way", "theirs"), COMBINATIONS)
def test_answers(house: House, way: Way, theirs: str) -> None:
    random = Random(f"{SEED} answers {way} {theirs}")
    for _ in range(50):
        run(house, bad_answer(random, way, theirs))


@pytest.mark.parametrize(("way", "theirs"), COMBINATIONS)
def test_unharmed(house: House, way: Way, theirs: str) -> None:
    """What the harm is done to is right: but for what two formats cannot say to each other, it is answered."""
    random = Random(0)
    for value in samples.requests(way.form):
        answer = run(house, Case(way, theirs, mutate.written(_asked(way, theirs, value)), _good(random, theirs, way)))
        assert answer.status == 200 or (answer.status, answer.error.get("code")) in _NOT_FOR_ALL, answer.body


_NOT_FOR_ALL = {(404, "previous_response_not_found"), (404, "item_not_found"), (400, "unsupported_parameter")}


# --- other endpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", PROVIDERS)
@pytest.mark.parametrize("way", COUNTS, ids=str)
def test_counts(house: House, way: Way, theirs: str) -> None:
    """They leave no row."""
    random = Random(f"{SEED} counts {way} {theirs}")
    for _ in range(60):
        case = bad_request(random, replace(way, stream=False), theirs)
        said = random.choice([{"input_tokens": 5}, {"totalTokens": 5}, {}, [], {"totalTokens": "x"}])
        reply = random.choice([json_reply(said), Reply([mutate.written(random.choice(_ERRORS))], 400, JSON_HEADERS)])
        answer = house.run(replace(case, reply=reply))
        assert house.journal.rows == []
        _check_secrets(house, case, answer)
        assert not any("Traceback" in line for line in house.logged), house.logged
        if answer.status != 200:
            laws.check_refusal(way.form, answer.status, answer.body)


_NAMES = ["resp_1", "msg_1", "", "..", "resp_1/input_items/..", "\x00", "é", "x" * 5000, "resp_1%2F", "\ufffd", "a:b"]
_QUERIES = [
    "",
    "limit=1",
    "limit=-1",
    "limit=1e9",
    "limit=%31",
    "limit=\u0661",
    "order=asc",
    "order=x",
    "after=msg_1",
    "after=",
    "stream=true",
    "include=a&include=b",
    "limit=1&limit=2",
    "%",
    "%ff=%fe",
    "a" * 5000,
    "&&&=",
    "limit=99&order=asc&after=%00",
]


def test_held_responses(house: House) -> None:
    """What a harmed answer or request has left there can be asked for, paged and deleted."""
    random = Random(f"{SEED} held")
    for _ in range(150):
        way = Way("responses", "/v1/responses", stream=random.random() < 0.4)
        theirs = random.choice(list(PROVIDERS))
        made = random.choice([bad_request, bad_answer])(random, way, theirs)
        answer = run(house, made)
        held = list(house.store._kept)[-1:]
        name = held[0][1] if held and answer.status == 200 else random.choice(_NAMES)
        for _ in range(4):
            tail, method = random.choice([("", "GET"), ("/input_items", "GET"), ("/cancel", "POST"), ("", "DELETE")])
            asked = Way("responses", f"/v1/responses/{name}{tail}", query=random.choice(_QUERIES))
            found = house.run(Case(asked, theirs, b"", made.reply), method)
            assert not any("Traceback" in line for line in house.logged), (house.logged, made)
            assert house.mock.requests == []
            if found.status == 200:
                assert isinstance(found.json, dict)
            else:
                laws.check_refusal("responses", found.status, found.body)


_HEADER_NAMES = [
    b"authorization",
    b"x-api-key",
    b"x-goog-api-key",
    b"content-length",
    b"content-type",
    b"origin",
    b"user-agent",
    b"x-forwarded-for",
    b"accept",
    b"cookie",
    b"access-control-request-headers",
    b"expect",
    b"anthropic-beta",
    b"anthropic-version",
    b"openai-beta",
    b"x-kodna-strict",
    b"transfer-encoding",
    b"host",
    b"traceparent",
]
_HEADER_VALUES = [
    b"Bearer",
    b"Bearer " + TEXT.encode(),
    TEXT.encode(),
    b"-1",
    b"1e9",
    b"true",
    b"*",
    b"",
    b"a,b, c",
    b"x" * 9000,
]


_FORWARDED = {b"anthropic-beta", b"anthropic-version", b"openai-beta"}


def test_headers(house: House) -> None:
    random = Random(f"{SEED} headers")
    for _ in range(600):
        way, theirs = random.choice(WAYS), random.choice(list(PROVIDERS))
        case = Case(way, theirs, mutate.written(_asked(way, theirs, _simple(way)[0])), _good(random, theirs, way))
        for _ in range(random.randrange(5)):
            value = random.choice(_HEADER_VALUES) if random.random() < 0.5 else random.randbytes(random.randrange(40))
            name = random.choice(_HEADER_NAMES)
            if name not in _FORWARDED or TEXT.encode() not in value:  # what a client puts there itself, it sends on
                case.headers.append((name, value))
        random.shuffle(case.headers)
        house.known = random.random() < 0.8
        try:
            answer = house.run(case)
        finally:
            house.known = True
        _check_secrets(house, case, answer)
        assert answer.whole
        if answer.status != 200:
            laws.check_refusal(way.form, answer.status, answer.body)


_PATHS = [
    "/v1",
    "/v1/",
    "/v1beta",
    "/v1beta/models",
    "/v1/models/",
    "/v1/models/m",
    "/v1/models/\ufffd",
    "/v1/\x00",
    "/v1/messages/",
    "/v1beta/models/:generateContent",
    "/v1beta/models/a:b:generateContent",
    "/v1beta/models/..:generateContent",
    "/v1beta/models/m-gemini/../x:generateContent",
    "/v1beta/models/m-gemini?x=:countTokens",
    "/v1/responses/",
    "/v1/responses//",
    "/v1/responses/a/b/c",
    "/v1beta/models/m-gemini:streamGenerateContent:",
    "/v1beta/models/" + "x" * 9000 + ":generateContent",
]


@pytest.mark.parametrize("path", _PATHS)
def test_paths(house: House, path: str) -> None:
    """No byte of a client's path reaches the provider's address (`_check_secrets`)."""
    for method in ("GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE"):
        case = Case(Way("gemini", path), "gemini", mutate.written(samples.GEMINI[1]), json_reply({}))
        answer = house.run(case, method)
        _check_secrets(house, case, answer)
        assert answer.status in {200, 204, 400, 404, 405, 502}, answer.body
        assert not any("Traceback" in line for line in house.logged), house.logged


# --- values that break readers ---------------------------------------------------------------------------------------

_DEEP = [b"[" * depth + b"]" * depth for depth in (100, 400, 900, 960, 985, 1000, 2000, 50_000)]
_DEEP += [b'{"a":' * depth + b"1" + b"}" * depth for depth in (300, 450, 900, 990, 5000)]
_NUMBERS = [b"1e400", b"-1e400", b"9" * 5000, b"-" + b"9" * 5000, b"0." + b"1" * 5000, b"1e-9999"]
_STRINGS = [b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'"\\x"', b'"\x00"', b'"\xff"']
_WRONG = [b"NaN", b"Infinity", b"01", b"+1", b"1.", b"nul", b""]


@pytest.mark.parametrize("value", [*_DEEP, *_NUMBERS, *_STRINGS, *_WRONG], ids=lambda value: repr(value[:12]))
def test_values_that_break_readers(house: House, value: bytes) -> None:
    """In each top-level field of each format, and one level below it."""
    random = Random(f"{SEED} {value!r}")
    for way in WAYS:
        for body in _with_a_hole(random, way):
            theirs = random.choice(list(PROVIDERS))
            text = mutate.written(_asked(way, theirs, body)).replace(b'"@@"', value)
            run(house, Case(way, theirs, text, _good(random, theirs, way)))


def _with_a_hole(random: Random, way: Way) -> Iterator[dict[str, Any]]:
    for given in samples.requests(way.form)[:2]:
        for name in random.sample(list(given), min(3, len(given))):
            below = given[name]
            yield {**given, name: "@@"}
            if isinstance(below, dict) and below:
                yield {**given, name: {**below, random.choice(list(below)): "@@"}}
            elif isinstance(below, list):
                yield {**given, name: [*below, "@@"]}


def test_bytes(house: House) -> None:
    random = Random(f"{SEED} bytes")
    for _ in range(1000):
        way, theirs = random.choice(WAYS), random.choice(list(PROVIDERS))
        body = random.choice([random.randbytes(random.randrange(60)), b"", b"{}", b"[]", b"null", b'"x"', b"{" * 900])
        run(house, Case(way, theirs, body, _good(random, theirs, way)))


def test_the_gateway_still_works(house: House) -> None:
    for way in WAYS:
        for theirs in PROVIDERS:
            answer = run(
                house,
                Case(
                    way, theirs, mutate.written(_asked(way, theirs, _SIMPLE[way.form])), _good(Random(1), theirs, way)
                ),
            )
            assert answer.status == 200, answer.body


_SIMPLE: dict[str, Any] = {
    "chat": {"messages": [{"role": "user", "content": "Hello"}]},
    "completions": {"prompt": "Hello"},
    "responses": {"input": "Hello"},
    "messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]},
    "gemini": {"contents": [{"parts": [{"text": "Hello"}]}]},
}
