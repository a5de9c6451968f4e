"""Idle providers are asked for their lists of models, over real sockets: nothing else, no more often than needed."""

from collections import Counter

import pytest

from models_catalog import discovery
from models_catalog.snapshot import DEMO_PROVIDER, Provider, Route
from proxy.errors import ProviderFault
from proxy.health import ERRORS, REFUSED, Health
from proxy.probes import IDLE, Probes
from tests.proxy.inside import model, provider, snapshot
from tests.upstreams import RefusingUpstream, Reply, Upstream, error_reply, json_reply

LIST = json_reply({"object": "list", "data": [{"id": "m-there"}]})


def ask(asked: Provider) -> int:
    """As `kodna.asgi` does."""
    try:
        discovery.list_models(asked)
    except discovery.ProbeError as fault:
        return fault.status
    return 200


class World:
    def __init__(self, *providers: Provider, redis_url: str = "") -> None:
        self.now = 1_800_000_000.0
        self.catalog = snapshot(model("m", *providers), model("other", *providers))
        self.health = Health(redis_url, lambda: self.catalog, lambda: self.now)
        self.asked: Counter[str] = Counter()
        self.probes = Probes(self.health, lambda: self.catalog, self._ask, lambda: self.now)
        self.route = self.catalog.models["m"].routes[0]
        self.place = self.route.provider.place

    def _ask(self, asked: Provider) -> int:
        self.asked[asked.name] += 1
        return ask(asked)

    def rounds(self, seconds: float) -> None:
        """One each half a minute."""
        for _ in range(round(seconds / 30)):
            self.now += 30
            self.health.share()
            self.probes.round()

    def answers(self, route: Route | None = None) -> None:
        self.health.begins(route or self.route)
        self.health.answers(route or self.route, 1.0, stream=True)
        self.health.ends(route or self.route, None)

    def fails(self, times: int = 5, status: int = 503) -> None:
        for _ in range(times):
            self.health.begins(self.route)
            self.health.ends(self.route, ProviderFault("status", "it failed", status=status))

    def why(self) -> str:
        found = self.health.out.get(self.place)
        return "" if found is None else found.why


@pytest.fixture
def world(upstream: Upstream) -> World:
    upstream.answers(LIST)
    found = World(provider("first", upstream.base_url))
    found.probes.round()
    return found


def test_it_works(world, upstream):
    world.rounds(IDLE - 30)
    assert upstream.requests == [], "it has just come"
    world.rounds(30)
    assert [(each.method, each.path) for each in upstream.requests] == [("GET", "/v1/models")]
    assert upstream.last.headers["authorization"] == "Bearer sk-upstream-secret"
    world.rounds(4 * IDLE)
    assert len(upstream.requests) == 5
    assert world.health.out == {}


def test_who_answers_requests_is_not_asked(world, upstream):
    for _ in range(20):
        world.answers()
        world.rounds(120)
    assert upstream.requests == []


def test_away_twice_and_back(world, upstream):
    world.rounds(2 * IDLE - 30)
    upstream.answers(error_reply(502, "gone"))
    world.rounds(30)
    assert world.why() == "", "once is nothing"
    world.rounds(30)
    assert world.why() == ERRORS
    assert world.health.out[world.place].status == 502
    asked = len(upstream.requests)
    world.rounds(300)
    assert len(upstream.requests) == asked + 10, "in every round, until it is back"
    upstream.answers(LIST)
    world.rounds(30)
    assert world.health.out == {}


def test_once_away_is_nothing(world, upstream):
    world.rounds(IDLE - 30)
    for _ in range(5):
        upstream.answers(error_reply(500, "oh"))
        world.rounds(30)
        upstream.answers(LIST)
        world.rounds(30)
        assert world.why() == ""
        world.now += IDLE


@pytest.mark.parametrize(
    "reply",
    [
        Reply([b"not HTTP\r\n\r\n"], wire=True),
        Reply([b""], wire=True),
        error_reply(529, "busy"),
    ],
    ids=["not HTTP", "nothing", "529"],
)
def test_what_counts_as_away(world, upstream, reply):
    world.rounds(IDLE)
    upstream.answers(reply)
    world.rounds(IDLE + 30)
    assert world.why() == ERRORS


@pytest.mark.parametrize("status", [500, 503])
def test_a_list_that_never_was_there_says_nothing(world, upstream, status):
    """It may be that only the list is broken. It is asked no more often than others."""
    upstream.answers(error_reply(status, "oh"))
    world.rounds(4 * IDLE)
    assert len(upstream.requests) == 4
    assert world.health.out == {}
    upstream.answers(LIST)
    world.rounds(IDLE)
    upstream.answers(error_reply(status, "oh"))
    world.rounds(IDLE + 30)
    assert world.why() == ERRORS


@pytest.mark.parametrize(
    "reply", [error_reply(429, "wait"), error_reply(400, "what?"), Reply([b"<html>"]), Reply([b"", b""], 204)]
)
def test_what_counts_as_there(world, upstream, reply):
    upstream.answers(reply)
    world.rounds(IDLE + 60)
    assert len(upstream.requests) == 1
    assert world.health.out == {}


@pytest.mark.parametrize("status", [403, 404, 405])
def test_who_has_no_list_is_left_alone(world, upstream, status):
    upstream.answers(error_reply(status, "no such page"))
    world.rounds(3600)
    assert len(upstream.requests) == 1
    assert world.health.out == {}


def test_nobody_listens_at_an_address_of_many_credentials():
    with RefusingUpstream() as nobody:
        world = World(*(provider(f"p{number}", nobody.base_url, api_key=f"sk-{number}") for number in range(5)))
        world.probes.round()
        world.rounds(IDLE + 30)
        assert sum(world.asked.values()) == 2, "one of them stands for all"
        assert [found.why for found in world.health.out.values()] == [ERRORS] * 5


# --- refused ---------------------------------------------------------------------------------------------------------


def test_a_key_that_is_refused(world, upstream):
    world.rounds(IDLE)
    upstream.answers(error_reply(401, "no"))
    world.rounds(IDLE)
    assert world.why() == REFUSED
    asked = len(upstream.requests)
    world.rounds(30)
    assert len(upstream.requests) == asked, "not before its time"
    world.rounds(30)
    assert world.health.out[world.place].times == 2
    upstream.answers(LIST)
    world.rounds(150)
    assert world.health.out == {}


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_may_not_list_models(world, upstream, status):
    """But its requests are answered."""
    world.answers()
    upstream.answers(error_reply(status, "missing scope"))
    world.rounds(3 * IDLE)
    assert world.health.out == {}


def test_a_key_that_may_no_longer_list_models(world, upstream):
    world.rounds(IDLE)
    upstream.answers(error_reply(403, "missing scope"))
    world.rounds(3 * IDLE)
    assert world.health.out == {}


@pytest.mark.parametrize("status", [403, 404, 429])
def test_a_refused_key_does_not_come_back_by_what_is_no_list(world, upstream, status):
    upstream.answers(error_reply(401, "no"))
    world.rounds(IDLE)
    assert world.why() == REFUSED
    upstream.answers(error_reply(status, "?"))
    world.rounds(120)
    assert world.why() == REFUSED


def test_a_key_that_turns_out_to_work(world, upstream):
    upstream.answers(error_reply(401, "missing scope"))
    world.rounds(IDLE)
    assert world.why() == REFUSED
    world.now += 61
    world.answers()
    assert world.why() == ""
    world.rounds(3 * IDLE)
    assert world.why() == "", "the list says nothing of it"


def test_a_list_that_is_broken_while_requests_are_answered(world, upstream):
    world.rounds(IDLE)
    upstream.answers(error_reply(500, "oh"))
    world.rounds(IDLE + 30)
    assert world.why() == ERRORS
    world.answers()
    world.rounds(3 * IDLE)
    assert world.why() == ""


# --- what requests have found out ------------------------------------------------------------------------------------


def test_a_way_that_is_out_by_errors_is_tried_at_once(world, upstream):
    upstream.answers(error_reply(503, "gone"))
    for _ in range(4):
        world.now += 6
        world.fails()
    world.rounds(60)
    assert {found.why for found in world.health.out.values()} == {ERRORS}
    upstream.answers(LIST)
    world.rounds(30)
    assert list(world.health.out) == [world.route.way]
    assert world.health.is_out(world.route, world.now) is None, "it is half-open"
    assert world.health.begins(world.route)
    world.fails(1)
    world.rounds(30)
    assert world.health.is_out(world.route, world.now) is not None, "that it lists its models is no news"


def test_a_refused_key_does_not_come_back_by_a_list_for_all(world, upstream):
    """Some providers tell their models to whoever asks."""
    world.rounds(IDLE)
    world.fails(1, status=401)
    world.rounds(60 * 20)
    assert world.why() == REFUSED


# --- whom not to ask -------------------------------------------------------------------------------------------------


def test_who_is_asked_by_discovery_and_the_demonstration(upstream):
    world = World(
        provider("local", upstream.base_url, discovers=True), provider(DEMO_PROVIDER, upstream.base_url, api_key="x")
    )
    world.probes.round()
    world.rounds(2 * IDLE)
    assert upstream.requests == []


def test_what_the_catalog_no_longer_has(world, upstream):
    world.catalog = snapshot(model("m", provider("second", upstream.base_url)))
    world.rounds(2 * IDLE)
    assert world.asked == {"second": 1}
    assert len(world.probes._places) == 1


def test_one_process_asks_for_all(redis_url: str, upstream: Upstream):
    upstream.answers(LIST)
    worlds = [World(provider("first", upstream.base_url), redis_url=redis_url) for _ in range(3)]
    for world in worlds:
        world.probes.round()
        world.rounds(IDLE)
    assert len(upstream.requests) == 1
    for world in worlds:
        world.health.close()


def test_what_other_processes_hear_counts(redis_url: str, upstream: Upstream):
    upstream.answers(LIST)
    leader, other = (World(provider("first", upstream.base_url), redis_url=redis_url) for _ in range(2))
    for world in (leader, other):
        world.health._board._ahead = lambda: 0.0  # Redis's clock goes with theirs
    leader.probes.round()
    for _ in range(2 * round(IDLE / 30)):
        other.now += 30
        other.answers()
        other.health.share()
        leader.rounds(30)
    assert upstream.requests == []
    leader.rounds(IDLE)
    assert len(upstream.requests) == 1
    upstream.answers(error_reply(500, "only the list"))
    leader.rounds(IDLE)
    assert len(upstream.requests) == 2
    other.now = leader.now + 1
    other.answers()
    other.health.share()
    leader.rounds(30)
    assert len(upstream.requests) == 3
    assert leader.why() == ""
    for world in (leader, other):
        world.health.close()


def test_redis_is_away(upstream):
    with RefusingUpstream() as nobody:
        url = nobody.base_url.replace("http://", "redis://").removesuffix("/v1")
        world = World(provider("first", upstream.base_url), redis_url=url)
        world.probes.round()
        world.rounds(IDLE)
    assert upstream.requests == []
