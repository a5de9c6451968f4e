"""What operators hear of providers: rows while it lasts, notices of what stands."""

import threading
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from accounts.models import Account, Notice, NoticeDelivery, User
from kodna.notice_env import MailServer
from models_catalog.snapshot import Route
from proxy import tasks, troubles
from proxy.background import Background
from proxy.errors import ProviderFault
from proxy.health import ERRORS, Health
from proxy.models import RouteTrouble
from proxy.troubles import Troubles
from tests.proxy.inside import model, provider, snapshot

pytestmark = pytest.mark.django_db
SECRET = "sk-upstream-secret"
FIRST = provider("first", credential=4, credential_name="spare")
MODELS = [model(f"m{number}", FIRST, provider("second")) for number in range(5)]
ROUTE, OTHER = MODELS[0].routes


class House:
    """A process: its health, the writer beside it, and the catalog."""

    def __init__(self) -> None:
        self.catalog = snapshot(*MODELS)
        self.health = Health("", lambda: self.catalog)
        self.troubles = Troubles(self.health, lambda: self.catalog)

    def fails(self, route: Route = ROUTE, status: int = 503) -> None:
        for _ in range(5):
            assert self.health.begins(route)
            refused = status in (401, 402, 403)
            self.health.ends(route, ProviderFault("status", f"no {SECRET}", status=status, is_credential=refused))

    def write(self) -> list[RouteTrouble]:
        self.health.share()
        self.troubles.write()
        return list(RouteTrouble.objects.order_by("name"))


@pytest.fixture
def house() -> House:
    return House()


def age(**age: float) -> None:
    """As if it had been so for so long."""
    RouteTrouble.objects.update(since=timezone.now() - timedelta(**age))


def texts() -> list[str]:
    standing = Notice.objects.filter(ended_at=None).order_by("subject")
    return [notice.text.split(" since ")[0] for notice in standing]


def test_it_works(house, django_assert_num_queries):
    house.fails(status=503)
    house.fails(OTHER, status=401)
    down, refused = house.write()
    assert (down.name, down.provider, down.credential, down.model) == (ROUTE.way, "first", "spare", "m0-there")
    assert (down.why, down.status, down.times) == (ERRORS, 503, 1)
    assert down.until - down.since == timedelta(seconds=5)
    assert (refused.name, refused.provider, refused.credential, refused.model) == (
        OTHER.provider.place,
        "second",
        "",
        "",
    )
    with django_assert_num_queries(0):
        house.troubles.write()
    house.health.ends(ROUTE, None)
    assert [row.name for row in house.write()] == [OTHER.provider.place]


def test_what_is_short_is_not_written(house):
    house.health.ends(ROUTE, ProviderFault("status", "wait", status=429))
    house.health.ends(OTHER, ProviderFault("status", "wait", status=429, retry_after=60))
    assert len(house.health.out) == 2
    assert house.write() == []


def test_it_is_renewed(house):
    house.fails()
    house.write()
    now = timezone.now()
    RouteTrouble.objects.update(seen_at=now - timedelta(days=1))
    house.troubles._written = {
        name: (found, now - troubles.RENEW) for name, (found, _) in house.troubles._written.items()
    }
    [row] = house.write()
    assert row.seen_at >= now


def test_the_key_was_changed(house):
    house.fails(status=401)
    assert house.write()
    house.catalog = snapshot(model("m0", provider("first", api_key="sk-new"), provider("second")))
    assert house.write() == []


def test_two_processes(house):
    """Of the same mind; and one of them ends."""
    other = House()
    house.fails()
    other.fails()
    house.write()
    [row] = other.write()
    house.health.ends(ROUTE, None)
    assert house.write() == []
    other.health._set(ROUTE.way, other.health.out[ROUTE.way]._replace(times=2))
    [row] = other.write()
    assert row.times == 2


def test_the_database_is_away(house, monkeypatch, caplog):
    house.fails()
    work = Background("a test's", [])

    def refuse(*_: object, **__: object) -> None:
        raise DatabaseError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(RouteTrouble.objects, "bulk_create", refuse)
        patch.setattr(connection, "close", lambda: None)
        work._do(house.troubles.write)
        work._do(house.troubles.write)
    assert caplog.text.count("gone") == 1
    assert house.health.is_out(ROUTE, house.health.out[ROUTE.way].since) is not None
    assert len(house.write()) == 1


# --- notices ---------------------------------------------------------------------------------------------------------


def test_a_credential_is_refused(house):
    house.fails(status=401)
    house.write()
    assert tasks.notice_providers() == "credentials: 1 new, 0 resolved, 1 open; routes: 0 new, 0 resolved, 0 open"
    notice = Notice.objects.get()
    assert (notice.kind, notice.account) == ("provider.credential_refused", None)
    assert texts() == ["The provider first refuses its credential 'spare' with status 401 for all of its models"]
    since = RouteTrouble.objects.get().since.isoformat()
    assert notice.data == {"provider": "first", "credential": "spare", "model": "", "status": 401, "since": since}
    assert tasks.notice_providers().startswith("credentials: 0 new, 0 resolved, 1 open")
    house.health.ends(ROUTE, None)
    house.write()
    assert tasks.notice_providers().startswith("credentials: 0 new, 1 resolved, 0 open")


def test_a_route_is_down_for_long(house):
    house.fails()
    house.write()
    age(minutes=4)
    RouteTrouble.objects.update(times=troubles.DOWN_TIMES)
    troubles.notice()
    assert texts() == []
    age(minutes=6)
    troubles.notice()
    assert texts() == ["The provider first (its credential 'spare') fails for m0-there"]
    assert Notice.objects.get().text.endswith(" UTC: its last answer had status 503.")


def test_a_burst_that_nobody_has_tried_again_since_is_no_news(house):
    house.fails()
    house.write()
    age(minutes=9)
    for times in (1, 2):
        RouteTrouble.objects.update(times=times)
        troubles.notice()
        assert texts() == []


def test_a_credential_without_a_name(house):
    house.fails(OTHER)
    house.write()
    age(minutes=6)
    RouteTrouble.objects.update(times=troubles.DOWN_TIMES)
    troubles.notice()
    assert texts() == ["The provider second fails for m0-there"]


def test_an_account_without_credit(house):
    house.fails(status=402)
    house.fails(OTHER, status=402)
    house.write()
    troubles.notice()
    said = "says that the account of its credential"
    assert texts() == [
        f"The provider first {said} 'spare' has nothing left to pay with, for m0-there",
        f"The provider second {said} has nothing left to pay with, for m0-there",
    ]


def test_many_routes_of_one_credential_are_one_notice(house):
    for each in MODELS[:3]:
        house.fails(each.routes[0], status=403)
    house.write()
    troubles.notice()
    assert len(texts()) == 3
    house.fails(MODELS[3].routes[0], status=403)
    house.write()
    assert "1 new, 3 resolved, 1 open" in troubles.notice()
    assert texts() == ["The provider first refuses its credential 'spare' with status 403 for 4 of its models"]
    house.fails(status=401)
    house.write()
    assert "1 new, 1 resolved, 1 open" in troubles.notice()
    assert "all of its models" in texts()[0]


def test_names_as_long_as_the_catalog_takes(house):
    long = model("long", provider("p" * 100, id=2**63 - 1, credential=2**63 - 1, credential_name="c" * 100))
    routes = [Route(long.routes[0].provider, f"{letter * 199}x") for letter in "äb"]
    house.catalog = snapshot(model("long", long.routes[0].provider, routes=tuple(routes)))
    for route in routes:
        house.fails(route, status=403)
    assert len(house.write()) == 2
    troubles.notice()
    assert len({notice.subject for notice in Notice.objects.all()}) == 2


def test_nobody_renews_it(house):
    """All processes have ended, or been killed."""
    house.fails(status=401)
    house.write()
    troubles.notice()
    RouteTrouble.objects.update(seen_at=timezone.now() - timedelta(minutes=3))
    assert troubles.notice().startswith("credentials: 0 new, 1 resolved, 0 open")
    assert not RouteTrouble.objects.exists()


def test_only_operators_hear_of_it(house, settings, mailoutbox):
    settings.MAIL_SERVER, settings.OPERATOR_MAIL = MailServer("mail.example"), ["ops@example.com"]
    settings.DEFAULT_FROM_EMAIL = "Kodna <kodna@example.com>"
    Account.objects.create(name="acme").users.add(User.objects.create(username="ann", email="ann@example.com"))
    house.fails(status=401)
    house.write()
    troubles.notice()
    assert tasks.jobs.run("deliver-notices").result == "1 sent, 0 failed"
    (sent,) = mailoutbox
    assert sent.subject == "[Kodna] a provider refuses its credential"
    assert sent.recipients() == ["ops@example.com"]
    assert SECRET not in sent.body


def test_without_anybody_to_tell_it_stands_in_the_console(house, settings):
    settings.MAIL_SERVER = MailServer("mail.example")
    settings.OPERATOR_MAIL = []
    house.fails(status=401)
    house.write()
    troubles.notice()
    assert Notice.objects.exists()
    assert not NoticeDelivery.objects.exists()


def test_the_writer_does_not_disturb_the_event_loop(house):
    """`out` is replaced, never changed, while it is read."""
    stop = threading.Event()

    def flap() -> None:
        while not stop.is_set():
            house.fails()
            house.health.ends(ROUTE, None)

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        for _ in range(200):
            house.health.share()
            house.troubles._named()
            dict(house.health.out.items())
    finally:
        stop.set()
        thread.join()
