"""Uptime by the hour: what of a row counts, for whom, and that it is as exact as the rows."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from django.db import OperationalError

from accounts import credits
from proxy import uptime, usage
from proxy.models import UptimeHour, UsageRecord
from proxy.uptime import Count, Latest
from proxy.usage import Attempt, Record
from tests import gateway as gateways
from tests.conftest import MakeGateway
from tests.processes import wait_for
from tests.proxy.told import Told, ids, record
from tests.upstreams import Received, Reply, Upstream, chat_stream, completion, error_reply, json_reply

pytestmark = pytest.mark.django_db

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
MIDNIGHT = HOUR.replace(hour=0)
DAY = timedelta(days=1)
NOTHING = [Count()] * 7


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    uptime.latest.forget()
    yield
    uptime.latest.forget()


def tried(reason: str = "", provider: str = "p", of: str = "") -> Attempt:
    return Attempt(provider, "there", 1.5, 0, reason, of=of)


def asked(number: int, *attempts: Attempt, moment: datetime = HOUR, **values: Any) -> Record:
    return record(number, created=moment.timestamp(), model="m", attempts=list(attempts), **values)


def store(*records: Record) -> None:
    usage.land([usage.decode(usage.encode(each)) for each in records], Told())


def entries() -> dict[tuple[str, str], tuple[int, int]]:
    rows = UptimeHour.objects.values_list("model", "provider", "good", "bad")
    return {(model, provider): (good, bad) for model, provider, good, bad in rows}


def test_it_works() -> None:
    store(asked(1, tried()), asked(2, tried("status", "q"), tried()), asked(3, tried(), moment=HOUR - DAY))
    assert sorted(UptimeHour.objects.values_list("start", "model", "provider", "good", "bad")) == [
        (HOUR - DAY, "m", "", 1, 0),
        (HOUR - DAY, "m", "p", 1, 0),
        (HOUR, "m", "", 2, 0),
        (HOUR, "m", "p", 2, 0),
        (HOUR, "m", "q", 0, 1),
    ]


@pytest.mark.parametrize("reason", ["connect", "timeout", "broken", "status", "malformed", "error"])
def test_a_fault(reason: str) -> None:
    store(asked(1, tried(reason), outcome="failed"))
    assert entries() == {("m", "p"): (0, 1), ("m", ""): (0, 1)}


@pytest.mark.parametrize(
    ("reason", "outcome", "code"),
    [
        *(("refused", "refused", ""), ("cancelled", "cancelled", "client_gone")),
        *(("lossy", "refused", ""), ("not_allowed", "refused", "")),
        *(("incomplete", "incomplete", "server_stopped"), ("incomplete", "incomplete", "internal_error")),
    ],
)
def test_what_is_nobodys_fault(reason: str, outcome: str, code: str) -> None:
    store(asked(1, tried(reason), outcome=outcome, error_code=code))
    store(asked(2, outcome="refused"))
    assert entries() == {}


@pytest.mark.parametrize("reason", ["busy", "rests", "skipped"])
def test_that_nobody_could_be_asked_has_failed_for_the_clients(reason: str) -> None:
    store(asked(1, tried(reason), outcome="failed"))
    store(asked(2, tried(reason), tried("", "q"), outcome="complete"))
    assert entries() == {("m", "q"): (1, 0), ("m", ""): (1, 1)}


def test_an_answer_that_broke_off() -> None:
    store(asked(1, tried("incomplete"), outcome="incomplete", error_code="provider_error"))
    store(asked(2, tried("broken"), outcome="incomplete", error_code="provider_error"))
    assert entries() == {("m", "p"): (0, 2), ("m", ""): (0, 2)}


@pytest.mark.parametrize("last", ["refused", "cancelled", "incomplete"])
def test_what_the_client_saw_is_the_last_attempt_that_was_made(last: str) -> None:
    """Its own fault here, after one of a provider's."""
    store(asked(1, tried("status", "q"), tried(last), tried("skipped", "r"), outcome="refused"))
    assert entries() == {("m", "q"): (0, 1)}


@pytest.mark.parametrize("last", ["busy", "lossy", "not_allowed", "skipped"])
def test_an_attempt_that_was_not_made_saves_nobody(last: str) -> None:
    store(asked(1, tried("status", "q"), tried(last), outcome="failed"))
    assert entries() == {("m", "q"): (0, 1), ("m", ""): (0, 1)}


def test_a_fallback_models_answer_is_its_own() -> None:
    """The row's model is the one that has answered."""
    store(asked(1, tried("status", of="first"), tried("timeout", "q", "first"), tried(of="m")))
    first = {("first", "p"): (0, 1), ("first", "q"): (0, 1), ("first", ""): (0, 1)}
    assert entries() == first | {("m", "p"): (1, 0), ("m", ""): (1, 0)}


def test_a_replay_changes_nothing() -> None:
    for _ in range(2):
        store(asked(1, tried()), asked(2, tried("status"), tried("status")))
    assert entries() == {("m", "p"): (1, 2), ("m", ""): (1, 1)}


def test_it_lands_with_its_row_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("the database is away")

    with monkeypatch.context() as broken:
        broken.setattr(credits, "charge", away)
        with pytest.raises(OperationalError):
            store(asked(1, tried()))
    assert (ids(), entries()) == ([], {})
    store(asked(1, tried()))
    assert (ids(), entries()) == (["req_1"], {("m", "p"): (1, 0), ("m", ""): (1, 0)})


def test_attempts_that_nobody_can_read_hold_nobody_up() -> None:
    lines = [
        usage.encode(asked(1, tried())),
        usage.encode(asked(2, tried())).replace(b'[{"provider"', b'[7,{"provider"'),
    ]
    usage.land([usage.decode(line) for line in lines], Told())
    assert entries() == {("m", "p"): (1, 0), ("m", ""): (1, 0)}


def test_old_hours_are_neither_begun_nor_kept() -> None:
    store(asked(1, tried(), moment=HOUR - 9 * DAY), asked(2, tried(), moment=HOUR - 7 * DAY))
    assert list(UptimeHour.objects.values_list("start", flat=True).distinct()) == [HOUR - 7 * DAY]
    assert uptime.forget() == 0
    UptimeHour.objects.update(start=HOUR - 8 * DAY - 2 * timedelta(hours=1))
    assert uptime.forget() == 2
    assert UsageRecord.objects.count() == 2


# --- reading ---------------------------------------------------------------------------------------------------------


def test_days_end_at_midnight() -> None:
    """UTC's, whichever zone is asked in: of three days, the last and the first request, and one that is too old."""
    moments = [MIDNIGHT - 6 * DAY - timedelta(seconds=1), MIDNIGHT - 6 * DAY]
    moments += [midnight + timedelta(seconds=1) * side for midnight in (MIDNIGHT - DAY, MIDNIGHT) for side in (-1, 0)]
    store(*(asked(number, tried("" if number % 2 else "error"), moment=each) for number, each in enumerate(moments)))
    week = uptime.week(MIDNIGHT + timedelta(hours=23))
    assert week.start == MIDNIGHT - 6 * DAY
    assert list(week.days["m"]) == [Count(1, 0), *NOTHING[:3], Count(0, 1), Count(1, 1), Count(1, 0)]
    assert (week.of("m"), week.of("other")) == (Count(3, 2), Count())
    assert week.of("m").uptime == 3 / 5
    assert week.of("other").uptime is None


def test_the_last_hour_is_made_of_two() -> None:
    """A quarter past: all of this one, three quarters of the one before."""
    week = uptime.Week(MIDNIGHT, {"m": {0: Count(100, 100), 1: Count(8, 4), 2: Count(1, 2)}}, {}, {})
    assert week.recent("m", (MIDNIGHT + timedelta(hours=2.25)).timestamp()) == (7, 5)
    assert week.recent("m", (MIDNIGHT + timedelta(hours=9)).timestamp()) == (0, 0)
    assert week.recent("other", MIDNIGHT.timestamp()) == (0, 0)


def test_it_is_read_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    latest = Latest()
    store(asked(1, tried()))
    assert latest.known is None
    first = latest.read()
    assert first is not None
    assert first.of("m") == Count(1, 0)
    store(asked(2, tried()))
    assert latest.read() is first
    monkeypatch.setattr(uptime, "FRESH_SECONDS", 0.0)
    latest.forget()
    again = latest.read()
    assert again is not None
    assert again.of("m") == Count(2, 0)


def test_while_the_database_is_away_what_is_known_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(_: datetime) -> None:
        raise OperationalError("gone\nfor good")

    monkeypatch.setattr(uptime, "FRESH_SECONDS", 0.0)
    latest = Latest()
    known = latest.read()
    monkeypatch.setattr(uptime, "week", away)
    assert latest.read() is latest.read() is known is not None
    assert [each.message for each in caplog.records] == ["uptime cannot be read: OperationalError: gone"]


def test_nobody_waits_for_long_while_another_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uptime, "PATIENCE", 0.01)
    latest = Latest()
    with latest._lock:
        assert latest.read() is None
    assert latest.read() is not None


# --- live ------------------------------------------------------------------------------------------------------------

PLAYS = {
    "ok": lambda request: chat_stream() if request.json.get("stream") else completion(),
    "500": lambda _: error_reply(500, "oh"),
    "error": lambda _: json_reply({"error": {"message": "overloaded", "code": 503}}),
    "nonsense": lambda _: json_reply(["what"]),
    "early": lambda _: Reply([b": hello\n\n"], end="cut"),
    "cut": lambda _: Reply(chat_stream("one", "two").pieces[:2], end="cut"),
    "wrong": lambda _: error_reply(400, "no such parameter"),
    "hang": lambda _: Reply(chat_stream("one", "two").pieces[:2], end="hang"),
}
FAILS = {"500", "error", "nonsense", "early", "cut"}
# What the first provider plays, and the second where it is asked; how often.
SCRIPT = [
    *(("ok", 11), ("500 ok", 3), ("ok", 6), ("cut", 3), ("early ok", 2), ("ok", 5)),
    *(("error ok", 2), ("wrong", 2), ("hang", 3), ("nonsense nonsense", 2), ("ok", 1)),
]
STREAMED = {"cut", "early ok", "hang"}


class Provider(Upstream):
    """Plays its word of the message; `log`: what it played, and whether the caller stayed to the end."""

    def __init__(self, place: int) -> None:
        super().__init__(self._play)
        self._place = place
        self.log: list[tuple[str, Received]] = []

    def _play(self, request: Received) -> Reply:
        word = request.json["messages"][0]["content"].split()[self._place]
        self.log.append((word, request))
        reply: Reply = PLAYS[word](request)
        return reply

    def figures(self) -> tuple[int, int]:
        played = Counter(word for word, _ in self.log)
        assert all(request.answered for word, request in self.log if word == "ok")
        return played["ok"], sum(played[word] for word in FAILS)


def ask(client: httpx.Client, words: str, streamed: bool) -> str:
    """What its client saw: ok, failed, or nothing that counts."""
    body = {"model": "m", "messages": [{"role": "user", "content": words}], "stream": streamed}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if words == "hang":
            next(answer.iter_raw())
            return ""
        text = answer.read()
    if answer.status_code == 400:
        return ""
    whole = text.endswith(b"data: [DONE]\n\n") if streamed else b'"choices"' in text
    return "ok" if answer.status_code == 200 and whole else "failed"


@pytest.mark.any_database
def test_the_figures_are_those_of_the_providers_own_log(make_gateway: MakeGateway) -> None:
    with Provider(0) as first, Provider(1) as second:
        gateway = make_gateway(env={"KODNA_CIRCUITS": "off"})  # so that the script says who is asked
        providers = {name: gateways.provider(each.base_url) for name, each in (("first", first), ("second", second))}
        key = gateway.set_up(gateways.catalog(providers, {"m": gateways.model(("first", "x"), ("second", "y"))}))
        with gateway, gateway.client(key) as client:
            asks = [words for words, times in SCRIPT for _ in range(times)]
            seen = Counter(
                ask(client, words, words in STREAMED or number % 2 == 0) for number, words in enumerate(asks)
            )
            wait_for(lambda: len(gateway.usage_rows()) == len(asks), 10)
            (model,) = client.get("/v1/models/uptime").json()["data"]
            state = client.get("/v1/status").json()
            page = client.get("/status").text
        with sqlite3.connect(gateway.data_dir / "kodna.sqlite3") as database:
            rows = database.execute("SELECT provider, SUM(good), SUM(bad) FROM proxy_uptimehour GROUP BY 1").fetchall()
        assert len(asks) == 40
        found = {provider: (good, bad) for provider, good, bad in rows}
        assert found == {"": (seen["ok"], seen["failed"]), "first": first.figures(), "second": second.figures()}
    assert (seen["ok"], seen["failed"], seen[""]) == (30, 5, 5)
    assert (model["requests"], model["failed"], model["uptime"]) == (35, 5, 30 / 35)
    assert sum(day["requests"] for day in model["days"]) == 35
    assert state["models"] == [{"id": "m", "status": "degraded", "uptime": 30 / 35}]
    assert "85.71%" in page
    assert not any(name in f"{model}{state}{page}" for name in ("first", "second"))
