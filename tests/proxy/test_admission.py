"""What a request is let in with, what it holds, and the words of a refusal."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from accounts.keys import Key
from models_catalog.pricing import Price
from proxy import errors
from proxy.admission import FIRST_STEP, UNKNOWN_OUTPUT, Admission, Reservation
from proxy.counters.base import Unreachable
from proxy.counters.memory import Memory
from proxy.formats import anthropic_messages, openai_chat, openai_responses
from proxy.ingress import Asked, read_envelope
from proxy.upstream import Pool
from tests.proxy.inside import HELLO, KEY, PROVIDER, TEXT, Answer, Inside, model, provider, snapshot
from tests.upstreams import MockUpstream, Received, Reply, chat_events, chat_stream, completion, error_reply, refuse

DOLLAR = 10**9  # nanodollars
PREPAID = replace(KEY, billing="prepaid")
PRICED = model("m", PROVIDER)  # 1 and 2 USD per million tokens, at most 100 tokens of output
ENVELOPE = read_envelope(json.dumps({"model": "m", "messages": HELLO}).encode(), Asked(openai_chat))
CALLS = iter(range(10**6))


def store(amount: float = 1, **funds: int) -> Memory:
    memory = Memory()
    memory.learn({"a3": (1, int(amount * DOLLAR)), **{name: (1, value) for name, value in funds.items()}})
    return memory


async def admit(
    memory: Memory, key: Key = PREPAID, of: Any = PRICED, form: Any = openai_chat, **body: Any
) -> Reservation:
    asked = json.dumps({"model": "m", "messages": HELLO, **body}).encode()
    envelope = read_envelope(asked, Asked(form))
    return await Admission(memory).admit(f"req_{next(CALLS)}", key, envelope, of, time.time())


async def test_it_works() -> None:
    memory = store()
    reservation = await admit(memory, max_tokens=10)
    assert reservation.held >= 10 * 2000, "ten tokens of output, and the prompt"
    assert reservation.bound is None, "the provider is told what the client says"
    assert reservation.charge(15_000_000) == 15_000_000
    reservation.settle(15_000_000, 8)
    reservation.settle()


async def test_an_unmetered_account_holds_nothing() -> None:
    reservation = await admit(Memory(), KEY)
    assert reservation.held == 0
    assert reservation.funds == ()
    assert reservation.charge(10**15) == 10**15


async def test_a_plain_answer_holds_the_models_whole_output() -> None:
    reservation = await admit(store())
    assert reservation.held >= 100 * 2000
    assert reservation.bound is None, "it is the model's own limit"


async def test_where_credit_affords_less_the_bound_is_lowered() -> None:
    reservation = await admit(store(0.0001))  # 50 tokens of output, less the prompt
    assert reservation.bound is not None
    assert 20 <= reservation.bound < 50
    assert reservation.held <= 0.0001 * DOLLAR


async def test_nobody_can_have_what_another_request_holds() -> None:
    memory = store(0.0001)
    first = await admit(memory)
    with pytest.raises(errors.Insufficient, match="is held by requests that still run") as caught:
        await admit(memory)
    assert caught.value.retry_after
    first.settle()
    assert (await admit(memory)).held == first.held


async def test_where_not_one_token_fits() -> None:
    words = (
        r"The credit of this account does not suffice for this request: 0\.000001 USD are left, it needs at least 0\."
    )
    with pytest.raises(errors.Insufficient, match=words) as caught:
        await admit(store(0.000001))
    assert caught.value.retry is False
    assert caught.value.status == 402


async def test_a_budget_of_the_key() -> None:
    key = replace(PREPAID, budget=DOLLAR // 10, period="total")
    with pytest.raises(errors.Insufficient, match=r"The budget of this API key, 0\.1 USD,"):
        await admit(store(5, **{"k7:total": -DOLLAR // 10}), key)


async def test_a_fund_that_is_not_known_is_read_from_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.admission.read", lambda names: dict.fromkeys(names, (1, DOLLAR)))
    assert (await admit(Memory(), max_tokens=1)).held


async def test_a_postpaid_account_may_go_below_zero() -> None:
    key = replace(KEY, billing="postpaid", ceiling=DOLLAR)
    assert (await admit(store(-0.5), key)).held
    with pytest.raises(errors.Insufficient):
        await admit(store(-1), key)


async def test_a_model_without_a_price_is_refused_where_somebody_pays() -> None:
    unpriced = model("m", PROVIDER, prices=(Price(0, 1, None, None, None),))
    with pytest.raises(errors.Insufficient, match="'m' has no price"):
        await admit(store(), of=unpriced)
    assert (await admit(store(), KEY, of=unpriced)).held == 0


async def test_a_model_priced_zero_is_never_blocked() -> None:
    free = model("m", PROVIDER, prices=(Price(0, 0, 0, None, None),))
    assert (await admit(store(-3), of=free)).held == 0


async def test_a_free_model_with_a_priced_fallback_is_charged_for_that() -> None:
    free = model("free", PROVIDER, prices=(Price(0, 0, 0, None, None),))
    memory = store()
    admission = Admission(memory)
    reservation = await admission.admit("req_free", PREPAID, ENVELOPE, free, time.time())
    await admission.reprice(reservation, PREPAID, ENVELOPE, PRICED, time.time())
    assert reservation.held >= 100 * 2000
    assert [fund.name for fund in reservation.funds] == ["a3"]


async def test_a_dearer_fallback_that_does_not_fit_leaves_the_hold_as_it_was() -> None:
    dear = model("dear", PROVIDER, prices=(Price(0, 10**9, 10**12, None, None),))
    memory = store()
    admission = Admission(memory)
    reservation = await admission.admit("req_dear", PREPAID, ENVELOPE, PRICED, time.time())
    held = reservation.held
    with pytest.raises(errors.Insufficient):
        await admission.reprice(reservation, PREPAID, ENVELOPE, dear, time.time())
    assert reservation.held == held


@pytest.mark.parametrize("trouble", [Unreachable, asyncio.CancelledError])
async def test_of_a_hold_that_nobody_confirms_the_smaller_one_counts(
    monkeypatch: pytest.MonkeyPatch, trouble: type[BaseException]
) -> None:
    cheap = model("cheap", PROVIDER, prices=(Price(0, 1, 1, None, None),))
    memory = store()
    admission = Admission(memory)
    reservation = await admission.admit("req_cheap", PREPAID, ENVELOPE, PRICED, time.time())

    async def adjust(_: object) -> None:
        raise trouble

    monkeypatch.setattr(memory, "adjust", adjust)
    with pytest.raises((errors.Unavailable, asyncio.CancelledError)):
        await admission.reprice(reservation, PREPAID, ENVELOPE, cheap, time.time())
    assert reservation.charge(10**12) <= 1000


async def test_a_stream_begins_with_less_than_its_bound() -> None:
    long = model("m", PROVIDER, output=100_000)
    reservation = await admit(store(), of=long, stream=True)
    assert reservation.held < 2 * FIRST_STEP * 2000
    assert reservation.next_check == 0


async def test_a_stream_of_a_model_that_thinks_in_secret_holds_all() -> None:
    thinking = model("m", PROVIDER, output=10_000, supports=frozenset({"reasoning"}))
    assert (await admit(store(), of=thinking, stream=True)).held >= 10_000 * 2000


async def test_several_choices_are_held_for() -> None:
    one, three = await admit(store(), max_tokens=10), await admit(store(), max_tokens=10, n=3)
    assert three.held - one.held >= 20 * 2000 - 100


async def test_a_bound_that_nobody_has_named_is_held_for_and_not_told() -> None:
    """Nobody knows whether the provider takes as much; what credit cannot carry, it is told."""
    open_ended = model("m", PROVIDER, output=None, context=None)
    reservation = await admit(store(), of=open_ended)
    assert reservation.held >= UNKNOWN_OUTPUT * 2000
    assert reservation.bound is None
    assert (await admit(store(0.01), of=open_ended)).bound is not None


@pytest.mark.parametrize("prices", [PRICED.prices, (Price(0, 0, 0, None, None),), ()])
async def test_nobody_is_told_a_bound_where_nobody_pays(tmp_path: Path, prices: Any) -> None:
    upstream = MockUpstream(completion())
    house = Inside(tmp_path, snapshot(model("m", provider(), output=None, prices=prices)), Pool(upstream.transport))
    answer = await house.post(asked())
    assert "max_tokens" not in upstream.last.json
    assert "x-kodna-max-tokens" not in answer.headers


async def test_a_request_can_cap_itself() -> None:
    reservation = await admit(Memory(), KEY, max_cost_usd=0.0003)
    assert reservation.bound is None, "all 100 tokens are within it"
    reservation = await admit(Memory(), KEY, max_cost_usd=0.0002)
    assert reservation.bound is not None
    assert reservation.bound * 2 * 10**6 <= Decimal("0.0002") * 10**12


async def test_a_cap_is_on_what_the_prompt_costs_not_on_its_bytes() -> None:
    messages = [{"role": "user", "content": "hello there my friend " * 400}]  # 8,800 bytes, 1,600 tokens
    reservation = await admit(Memory(), KEY, messages=messages, max_cost_usd=0.0025, max_tokens=100)
    assert reservation.bound is None


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "less than this prompt"),
        (-1, "not less than 0"),
        ("x", "a number of USD"),
        ("nan", "a number"),
        ([], "array"),
    ],
)
async def test_a_cap_that_cannot_be_kept_is_named(amount: Any, words: str) -> None:
    with pytest.raises(errors.BadRequest, match=words) as caught:
        await admit(Memory(), KEY, max_cost_usd=amount)
    assert caught.value.param == "max_cost_usd"


async def test_a_cap_on_a_model_without_a_price() -> None:
    with pytest.raises(errors.BadRequest, match="has no price"):
        await admit(Memory(), KEY, of=model("m", PROVIDER, prices=()), max_cost_usd=1)


async def test_thoughts_need_a_bound_above_their_budget() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with pytest.raises(errors.Insufficient):
        await admit(store(0.001), form=anthropic_messages, max_tokens=2000, thinking=thinking)


async def test_the_least_that_a_format_can_say() -> None:
    answering = model("m", replace(PROVIDER, supports=frozenset({"responses"})))
    with pytest.raises(errors.Insufficient):
        await admit(store(0.00003), of=answering, form=openai_responses, input="Hi")


@pytest.mark.parametrize(
    ("limits", "words", "code"),
    [
        ({"rpm": 1}, "Your key's limit of 1 request per minute is reached. Try again in", "rate_limit_exceeded"),
        ({"rps": 1}, "Your key's limit of 1 request per second is reached", "rate_limit_exceeded"),
        ({"concurrency": 1}, "Your key's limit of 1 concurrent request is reached", "concurrency_exceeded"),
        ({"tpm": 130}, "Your key's limit of 130 tokens per minute is reached", "rate_limit_exceeded"),
    ],
)
async def test_a_limit_is_named(limits: dict[str, int], words: str, code: str) -> None:
    memory, key = Memory(), replace(KEY, **limits)
    await admit(memory, key)
    with pytest.raises(errors.RateLimited, match=words) as caught:
        await admit(memory, key)
    assert caught.value.code == code
    assert caught.value.retry_after


async def test_the_models_limit_holds_for_all_keys() -> None:
    memory, busy = Memory(), model("m", PROVIDER, rpm=1)
    await admit(memory, KEY, of=busy)
    with pytest.raises(errors.RateLimited, match="The limit of the model 'm', for all keys together, of 1 request per"):
        await admit(memory, replace(KEY, id=8), of=busy)


async def test_a_request_larger_than_its_limit_is_not_worth_another_try() -> None:
    with pytest.raises(errors.RateLimited, match=r"this request alone may use more\. Ask for fewer with") as caught:
        await admit(Memory(), replace(KEY, tpm=50), max_tokens=100)
    assert caught.value.retry is False


LONG_WORDS = [{"role": "user", "content": "extraordinarily " * 100}]  # 1,690 bytes as it is sent, some 110 tokens


async def test_a_limit_of_tokens_is_not_reached_by_bytes() -> None:
    """What a prompt may use is known by its bytes; what it does use, where that is too much."""
    memory, key = Memory(), replace(KEY, tpm=300)
    for _ in range(2):
        await admit(memory, key, messages=LONG_WORDS, max_tokens=1)
    with pytest.raises(errors.RateLimited):
        await admit(memory, key, messages=LONG_WORDS, max_tokens=1)


@pytest.mark.parametrize("form", [openai_chat, anthropic_messages])
async def test_at_most_half_of_a_limit_of_tokens_is_reserved_by_bytes(form: Any) -> None:
    """Ten requests at once reserve all of it by their bytes: 40 of them use a third of it."""
    memory, key = Memory(), replace(KEY, tpm=16_000)
    admission, body = Admission(memory), {"model": "m", "messages": LONG_WORDS, "max_tokens": 1}
    envelope = read_envelope(json.dumps(body).encode(), Asked(form))
    for number in range(40):
        await admission.admit(f"req_{number}", key, envelope, PRICED, time.time())


async def test_who_leaves_while_the_prompt_is_counted_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, counting = store(0.05), asyncio.Event()

    async def count(_: object) -> int:
        counting.set()
        return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr("proxy.admission.prompt_of", count)
    asking = asyncio.create_task(admit(memory, of=LONG, stream=True))
    await counting.wait()
    assert memory._funds["a3"].held
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert memory._funds["a3"].held == 0


async def test_a_cap_that_is_refused_once_the_prompt_is_counted_holds_nothing() -> None:
    """A small image's bytes are fewer than its tokens."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}}
    messages, memory = [{"role": "user", "content": [image, image]}], store(0.001)
    for cap in (0.0008, 0.0012):
        with pytest.raises(errors.BadRequest):
            await admit(memory, form=anthropic_messages, messages=messages, max_cost_usd=cap, stream=True, max_tokens=9)
    assert memory._funds["a3"].held == 0


async def test_a_refusal_for_credit_uses_up_no_limit() -> None:
    memory, key = store(0), replace(PREPAID, rpm=1)
    for _ in range(3):
        with pytest.raises(errors.Insufficient):
            await admit(memory, key)
    memory.learn({"a3": (2, DOLLAR)})
    assert (await admit(memory, key)).grant.requests == (1, 0, pytest.approx(60, abs=1))


async def test_what_the_provider_counts_beyond_the_hold_is_charged_as_far_as_there_is_credit() -> None:
    reservation = await admit(store(0.01), max_tokens=1)
    await reservation.afford(5_000_000_000)
    assert reservation.charge(5_000_000_000) == 5_000_000_000
    await reservation.afford(50_000_000_000)
    assert reservation.charge(50_000_000_000) == 10_000_000_000, "a cent, all there is"


# --- through the whole gateway ---------------------------------------------------------------------------------------


def inside(folder: Path, upstream: MockUpstream, **bounds: int) -> Inside:
    catalog = snapshot(model("m", provider(first_byte_timeout=0.05, idle_timeout=0.05)))
    return Inside(folder, catalog, Pool(upstream.transport), (TEXT, replace(KEY, **bounds)))


@pytest.mark.parametrize(
    ("bounds", "code"),
    [
        ({"rps": 7}, "rate_limit_exceeded"),
        ({"rpm": 7}, "rate_limit_exceeded"),
        ({"concurrency": 7}, "concurrency_exceeded"),
    ],
)
async def test_fifty_at_once(tmp_path: Path, bounds: dict[str, int], code: str) -> None:
    house = inside(tmp_path, MockUpstream(completion()), **bounds)
    answers = await asyncio.gather(*(house.post() for _ in range(50)))
    assert Counter(answer.status for answer in answers) == {200: 7, 429: 43}
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.error["code"] == code
    assert int(refused.headers["retry-after"]) >= 1
    assert int(refused.headers["retry-after-ms"]) > 0
    assert "x-should-retry" not in refused.headers, "another try helps"
    assert Counter(record.error_code for record in house.records()) == {"": 7, code: 43}


async def test_headers_of_answers(tmp_path: Path) -> None:
    house = inside(tmp_path, MockUpstream(completion()), rpm=2)
    seen = [(await house.post()).headers for _ in range(3)]
    assert [headers["x-ratelimit-remaining-requests"] for headers in seen] == ["1", "0", "0"]
    assert {headers["x-ratelimit-limit-requests"] for headers in seen} == {"2"}
    assert "59." in seen[0]["x-ratelimit-reset-requests"] or seen[0]["x-ratelimit-reset-requests"] == "1m0s"


ENDS = {
    "answered": completion(),
    "refused": error_reply(400, "no"),
    "failed": error_reply(500, "no"),
    "nobody there": refuse,
    "late": Reply([], wait=1),
    "cut": Reply(chat_events(["x"])[:2], end="cut"),
    "stalled": Reply(chat_events(["x"])[:2], end="hang"),
    "not JSON": Reply([b"<html>"]),
    "streamed": chat_stream(),
    "never says goodbye": Reply(chat_events(["x"]), end="hang"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("end", ENDS)
async def test_every_end_gives_the_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, stream: bool
) -> None:
    monkeypatch.setattr("proxy.upstream._DRAIN_SECONDS", 0.05)
    house = inside(tmp_path, MockUpstream(ENDS[end]), concurrency=1)
    for _ in range(2):
        answer = await house.post({"model": "m", "messages": HELLO, "stream": stream})
        assert answer.status != 429
    assert house.places == 0


async def test_the_place_is_free_when_the_client_has_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only once the provider has said goodbye too: the next request may come at once."""
    monkeypatch.setattr("proxy.upstream._DRAIN_SECONDS", 0.05)
    house = inside(tmp_path, MockUpstream(Reply(chat_events(["x"]), end="hang")), concurrency=1)
    answer, seen = Answer(), []

    class Pieces(list[bytes]):
        def append(self, piece: bytes) -> None:
            seen.append((b"[DONE]" in piece, house.places))

    answer.pieces = Pieces()
    await house.post({"model": "m", "messages": HELLO, "stream": True}, answer=answer)
    assert (False, 1) in seen
    assert [active for done, active in seen if done] == [0]


async def test_a_client_that_leaves_gives_the_place_back(tmp_path: Path) -> None:
    house = inside(tmp_path, MockUpstream(Reply([], wait=5)), concurrency=1)
    leave = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, leave.set)
    await house.post(leave=leave)
    assert house.places == 0
    assert (house.record.status, house.record.outcome) == (499, "cancelled")


# --- other models, where the first cannot answer ---------------------------------------------------------------------


def falling(folder: Path, *replies: Any, key: Key = PREPAID, **fallback: Any) -> Inside:
    """The model `m` falls back on `n`."""
    first = model("m", provider("first"), fallbacks=("n",), attempts=1)
    catalog = snapshot(first, model("n", provider("second"), **fallback))
    house = Inside(folder, catalog, Pool(MockUpstream(*replies).transport), (TEXT, key))
    house.counters.learn({"a3": (1, DOLLAR)})
    return house


DEAR = (Price(0, 10**9, 10**12, None, None),)


@pytest.mark.parametrize(("fallback", "status"), [({"prices": DEAR}, 402), ({"tpm": 1}, 429)])
async def test_a_first_attempt_that_is_not_allowed_says_why(
    tmp_path: Path, fallback: dict[str, Any], status: int
) -> None:
    catalog = snapshot(model("m", fallbacks=("n",)), model("n", provider(), **fallback))
    house = Inside(tmp_path, catalog, Pool(MockUpstream(completion()).transport), (TEXT, PREPAID))
    house.counters.learn({"a3": (1, DOLLAR)})
    assert (await house.post(asked())).status == status
    assert [(each.provider, each.reason) for each in house.record.attempts] == [("first", "not_allowed")]
    assert house.counters._funds["a3"].held == 0


async def test_a_fallback_that_is_not_allowed_leaves_the_first_ones_failure(tmp_path: Path) -> None:
    house = falling(tmp_path, error_reply(500, "no"), completion(), prices=DEAR)
    assert (await house.post(asked())).status == 502
    assert [each.reason for each in house.record.attempts] == ["status", "not_allowed"]


async def test_the_fallbacks_limit_of_tokens_holds_for_requests_at_once(tmp_path: Path) -> None:
    def reply(received: Received) -> Reply:
        return error_reply(500, "no") if received.json["model"] == "m-there" else completion(prompt=50, completion=100)

    house = falling(tmp_path, reply, key=replace(PREPAID, rpm=50), tpm=300)
    answers = await asyncio.gather(*(house.post(asked(max_tokens=100)) for _ in range(10)))
    assert Counter(answer.status for answer in answers) == {200: 2, 502: 8}
    assert answers[0].headers["x-ratelimit-limit-requests"] == "50", "the key's own, as without a fallback"


# --- credit, through the whole gateway -------------------------------------------------------------------------------

LONG = model("m", provider(first_byte_timeout=1, idle_timeout=1), output=100_000)


def paying(folder: Path, upstream: MockUpstream, dollars: float, of: Any = LONG, **changes: Any) -> Inside:
    house = Inside(folder, snapshot(of), Pool(upstream.transport), (TEXT, replace(PREPAID, **changes)))
    house.counters.learn({"a3": (1, int(dollars * DOLLAR))})
    return house


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": HELLO, **more}


async def test_a_stream_ends_as_too_long_where_credit_does(tmp_path: Path) -> None:
    upstream = MockUpstream(chat_stream(*[" apple"] * 2000))
    house = paying(tmp_path, upstream, 0.001)  # some 490 tokens
    answer = await house.post(asked(stream=True))
    events = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
    assert upstream.last.gone.is_set(), "the provider goes on writing for nobody"
    record = house.record
    said = sum('" apple"' in event for event in events)
    assert (record.outcome, record.error_code, record.completion_tokens) == ("complete", "insufficient_credits", said)
    assert 400 < said < 500
    assert record.cost is not None
    assert record.held is not None
    assert record.cost <= record.held * 1000 <= 0.001 * 10**12
    assert record.shortfall == 0


async def test_a_stream_that_is_whole_when_credit_ends_is_whole(tmp_path: Path) -> None:
    """Its reason to end comes with its last words: there is nothing to cut off, and the provider's count follows."""
    events = chat_events([" apple"] * 520, prompt=9, completion=520)
    reply = Reply([b"".join(events[:401]), b"".join(events[401:522]), *events[522:]])
    house = paying(tmp_path, MockUpstream(reply), 0.001)  # some 490 tokens
    answer = await house.post(asked(stream=True))
    assert b'"finish_reason": "stop"' in answer.body
    assert (house.record.error_code, house.record.completion_tokens, house.record.estimated) == ("", 520, False)


async def test_a_stream_goes_on_while_the_counters_are_being_moved(tmp_path: Path) -> None:
    house = paying(tmp_path, MockUpstream(chat_stream(*[" apple"] * 180, prompt=9, completion=180)), 1)

    async def moving(_: Any) -> Any:
        await asyncio.sleep(30)

    house.counters.adjust = moving  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("proxy.admission.EARLY", 0.001)
        answer = await asyncio.wait_for(house.post(asked(stream=True)), 5)
    assert b"length" not in answer.body
    assert (house.record.outcome, house.record.completion_tokens) == ("complete", 180)


async def test_a_stream_that_is_affordable_is_held_for_and_charged(tmp_path: Path) -> None:
    house = paying(tmp_path, MockUpstream(chat_stream(*[" apple"] * 1000, prompt=9, completion=1000)), 1)
    await house.post(asked(stream=True))
    assert (house.record.cost, house.record.error_code) == (9_000_000 + 2_000_000_000, "")
    assert house.record.held is not None
    assert 1000 * 2000 <= house.record.held < 4000 * 2000
    assert house.counters._funds["a3"].held == 2_009_000, "until it has landed"


async def test_a_short_stream_with_just_enough_credit_is_not_cut(tmp_path: Path) -> None:
    """The provider keeps its bound, which all fits: a margin would end the stream before its first word."""
    house = paying(tmp_path, MockUpstream(chat_stream(*[" apple"] * 10, prompt=8, completion=10)), 0.00007)
    answer = await house.post(asked(stream=True, max_tokens=10))
    assert answer.body.count(b" apple") == 10
    assert (house.record.error_code, house.record.cost, house.record.shortfall) == ("", 28_000_000, 0)


@pytest.mark.parametrize("dollars", [1, 0.01])  # enough, scarce
@pytest.mark.parametrize("stream", [False, True])
async def test_headers_where_credit_is_scarce(tmp_path: Path, dollars: float, stream: bool) -> None:
    house = paying(tmp_path, MockUpstream(chat_stream() if stream else completion()), dollars, rpm=5)
    headers = (await house.post(asked(stream=stream))).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("5", "4")


CAP = 0.001 * 10**12


@pytest.mark.parametrize("dollars", [None, 1])  # nobody pays; somebody does
async def test_a_stream_that_passes_its_own_cap_is_ended(tmp_path: Path, dollars: float | None) -> None:
    upstream = MockUpstream(chat_stream(*[" apple"] * 2000, prompt=9, completion=2000))
    billing = {"billing": "unmetered"} if dollars is None else {}
    house = paying(tmp_path, upstream, dollars or 0, **billing)
    answer = await house.post(asked(stream=True, max_cost_usd=0.001))
    assert b'"finish_reason":"length"' in answer.body.replace(b": ", b":")
    assert 0.9 * CAP < (house.record.cost or 0) <= CAP
    assert house.record.error_code == "max_cost_exceeded"


@pytest.mark.parametrize("billing", ["prepaid", "unmetered"])
async def test_what_a_plain_answer_costs_beyond_its_own_cap_is_nobodys(tmp_path: Path, billing: str) -> None:
    house = paying(tmp_path, MockUpstream(completion(completion=1500)), 1, billing=billing)
    await house.post(asked(max_cost_usd=0.001))
    assert (house.record.cost, house.record.shortfall) == (CAP, 7_000_000 + 3 * 10**9 - CAP)


async def test_the_provider_is_told_how_much_can_be_paid(tmp_path: Path) -> None:
    upstream = MockUpstream(completion())
    house = paying(tmp_path, upstream, 0.001)
    answer = await house.post(asked(max_tokens=2000))
    told = upstream.last.json["max_tokens"]
    assert 400 < told < 500
    assert answer.headers["x-kodna-max-tokens"] == str(told)


async def test_a_provider_that_counts_more_than_it_was_allowed(tmp_path: Path) -> None:
    house = paying(tmp_path, MockUpstream(completion(completion=1500)), 0.001)
    await house.post(asked())
    assert house.record.cost == 10**9, "all there was, and no more"
    assert house.record.shortfall == 7_000_000 + 3 * 10**9 - 10**9


@pytest.mark.parametrize(
    ("counts", "most", "supports"),
    [
        ({"completion": 2**31 - 1}, (7, 4 * 1024), ()),
        ({"completion": 2**31 - 1}, (7, 4 * UNKNOWN_OUTPUT), ("reasoning",)),
        ({"prompt": 2**31 - 1}, (4 * 8192, 3), ()),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_number_that_cannot_be_is_believed_in_part(
    tmp_path: Path, counts: dict[str, int], most: tuple[int, int], supports: Any, stream: bool
) -> None:
    reply = chat_stream(" apple", **counts) if stream else completion(" apple", **counts)
    house = paying(tmp_path, MockUpstream(reply), 1000, model("m", provider(), supports=frozenset(supports)))
    await house.post(asked(stream=stream, max_tokens=50))
    record = house.record
    assert (record.prompt_tokens, record.completion_tokens, record.estimated) == (*most, True)
    assert (record.cost, record.shortfall) == (most[0] * 10**6 + most[1] * 2 * 10**6, 0)


async def test_no_credit(tmp_path: Path) -> None:
    house = paying(tmp_path, MockUpstream(completion()), 0)
    answer = await house.post(asked())
    assert (answer.status, answer.error["type"]) == (402, "insufficient_credits")
    assert answer.headers["x-should-retry"] == "false"
    assert house.record.error_code == "insufficient_credits"


async def test_a_failed_request_holds_nothing_and_costs_nothing(tmp_path: Path) -> None:
    house = paying(tmp_path, MockUpstream(error_reply(500, "no")), 1)
    assert (await house.post(asked())).status == 502
    assert house.counters._funds["a3"].held == 0
    assert house.record.cost is None


@pytest.mark.parametrize("ending", ["cut", "hang"])
async def test_a_stream_that_breaks_is_charged_as_far_as_it_came(tmp_path: Path, ending: Any) -> None:
    house = paying(tmp_path, MockUpstream(Reply(chat_events([" apple"] * 50)[:31], end=ending)), 1)
    await house.post(asked(stream=True))
    assert (house.record.outcome, house.record.completion_tokens) == ("incomplete", 30)
    assert house.record.cost == house.record.prompt_tokens * 10**6 + 30 * 2 * 10**6


async def test_a_request_in_the_middle_can_be_found_by_its_opening_line(tmp_path: Path) -> None:
    house = paying(tmp_path, MockUpstream(Reply(chat_events([" apple"] * 50)[:31], end="hang")), 1)
    asking = asyncio.create_task(house.post(asked(stream=True)))
    await asyncio.sleep(0.2)
    opened = json.loads(next(house.journal._marks.begun()))
    assert (opened["model"], opened["funds"], opened["opened"]) == ("m", ["a3"], opened["opened"])
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
