"""Notices from the first word to the receiver: each once while it stands, delivered at least once, with one id."""

import json
from datetime import timedelta
from smtplib import SMTPServerDisconnected

import pytest
from django.core.mail.backends.locmem import EmailBackend
from django.utils import timezone

from accounts import notices
from accounts.models import Account, Notice, NoticeDelivery, User
from accounts.notices import Case
from kodna.notice_env import MailServer

pytestmark = pytest.mark.django_db
LOW = Notice.Kind.LOW_BALANCE


@pytest.fixture
def account() -> Account:
    return Account.objects.create(name="acme")


@pytest.fixture
def mail(settings, account: Account):
    settings.MAIL_SERVER = MailServer("mail.example")
    settings.DEFAULT_FROM_EMAIL, settings.OPERATOR_MAIL = "Kodna <kodna@example.com>", ["ops@example.com"]
    for name, more in (("ann", {}), ("bob", {"email": ""}), ("eve", {"is_active": False})):
        account.users.add(User.objects.create(**{"username": name, "email": f"{name}@example.com", **more}))


def case(account: Account, text: str = "acme is low") -> dict[str, Case]:
    return {str(account.pk): Case(account, text, {"left": "1.5"})}


def the_delivery() -> NoticeDelivery:
    return NoticeDelivery.objects.select_related("notice").get()


def later(delivery: NoticeDelivery, **age: float) -> None:
    """As if it had been due, and made, so long ago."""
    moment = timezone.now() - timedelta(**age)
    NoticeDelivery.objects.filter(pk=delivery.pk).update(due_at=moment)
    Notice.objects.filter(pk=delivery.notice_id).update(created_at=moment)


# --- what stands -----------------------------------------------------------------------------------------------------


def test_it_works(account):
    assert notices.stand(LOW, case(account)) == "1 new, 0 resolved, 1 open"
    notice = Notice.objects.get()
    assert (notice.text, notice.ended_at) == ("acme is low", None)
    assert notice.data == {"account": "acme", "account_id": account.pk, "left": "1.5"}
    assert not NoticeDelivery.objects.exists(), "there is no channel: it stands in the console"


def test_once_while_it_stands_and_again_after(account):
    notices.stand(LOW, case(account))
    assert notices.stand(LOW, case(account)) == "0 new, 0 resolved, 1 open"
    assert notices.stand(LOW, {}) == "0 new, 1 resolved, 0 open"
    assert notices.stand(LOW, case(account)) == "1 new, 0 resolved, 1 open"
    assert [notice.ended_at is None for notice in Notice.objects.all()] == [True, False]


def test_of_one_kind_only(account):
    notices.stand(LOW, case(account))
    notices.stand(Notice.Kind.KEY_BUDGET, {})
    assert Notice.objects.get().ended_at is None


def test_two_runners_at_once(account, settings, receiver):
    """The second does not see the first one's notice when it looks."""
    notices.stand(LOW, case(account))
    notices._note(LOW, str(account.pk), case(account)[str(account.pk)])
    assert NoticeDelivery.objects.count() == Notice.objects.count() == 1


def test_old_ones_are_forgotten_when_they_are_over(account):
    notices.stand(LOW, case(account))
    assert notices.forget() == "0 rows deleted"
    Notice.objects.update(created_at=timezone.now() - timedelta(days=900))
    assert notices.forget() == "0 rows deleted"
    Notice.objects.update(ended_at=timezone.now() - timedelta(days=91))
    assert notices.forget() == "1 rows deleted"


def test_about_the_gateway_itself(mail, receiver, mailoutbox):
    """There is no account: the operators' alone."""
    case = {"3.0.ab": Case(None, "it is down", {"provider": "openai"})}
    assert notices.stand(Notice.Kind.ROUTE_DOWN, case) == "1 new, 0 resolved, 1 open"
    assert notices.deliver() == "2 sent, 0 failed"
    (sent,), (said,) = mailoutbox, receiver.requests
    assert (sent.subject, sent.recipients()) == ("[Kodna] a provider fails", ["ops@example.com"])
    body = json.loads(said.body)
    assert (body["type"], body["data"]) == ("provider.route_down", {"provider": "openai"})


# --- webhook ---------------------------------------------------------------------------------------------------------


def test_a_webhook(account, receiver):
    notices.stand(LOW, case(account))
    assert notices.deliver() == "1 sent, 0 failed"
    (said,) = receiver.requests
    assert receiver.verifies(said)
    body, notice = json.loads(said.body), Notice.objects.get()
    assert body == {"type": "account.low_balance", "timestamp": notice.created_at.isoformat(), "data": notice.data}
    assert notices.deliver() == "0 sent, 0 failed"
    assert str(the_delivery()) == "webhook: delivered"


def test_the_receiver_is_away(account, receiver, caplog):
    notices.stand(LOW, case(account))
    receiver.status = 503
    assert notices.deliver() == "0 sent, 1 failed"
    assert notices.deliver() == "0 sent, 0 failed", "not before its time"
    delivery = the_delivery()
    assert (delivery.tries, delivery.trouble) == (1, "HTTPError: HTTP Error 503: Service Unavailable")
    assert timedelta(seconds=50) < delivery.due_at - timezone.now() <= timedelta(minutes=1)
    assert "next try in 0:01:00" in caplog.text
    receiver.status = 200
    later(delivery, minutes=1)
    assert notices.deliver() == "1 sent, 0 failed"
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_it_waits_longer_and_longer(account, receiver):
    notices.stand(LOW, case(account))
    receiver.status = 500
    for wait in (60, 240, 960, 3840, 15360, 21600, 21600):
        notices.deliver()
        delivery = the_delivery()
        assert round((delivery.due_at - timezone.now()).total_seconds(), -1) == wait
        NoticeDelivery.objects.update(due_at=timezone.now())


def test_after_a_day_it_is_given_up(account, receiver, caplog):
    """But not without a try: the gateway itself may have been away for a day."""
    notices.stand(LOW, case(account))
    later(the_delivery(), days=2)
    receiver.status = 500
    assert notices.deliver() == "0 sent, 1 failed"
    assert str(the_delivery()) == "webhook: given up"
    assert "given up" in caplog.text


def test_one_that_fails_does_not_hold_up_the_next(account, receiver):
    other = Account.objects.create(name="other")
    notices.stand(LOW, {**case(account), **case(other)})
    receiver.status = 400
    assert notices.deliver() == "0 sent, 1 failed"
    receiver.status = 200
    assert notices.deliver() == "1 sent, 0 failed"
    assert [said.headers["webhook-id"] for said in receiver.requests] == [
        f"msg_{notice.pk.hex}" for notice in Notice.objects.order_by("created_at")
    ]


def test_a_channel_that_was_taken_away(account, receiver, settings):
    """It waits: who sets it up again gets what was due."""
    notices.stand(LOW, case(account))
    settings.WEBHOOK_URL = ""
    assert notices.deliver() == "0 sent, 0 failed"
    assert str(the_delivery()) == "webhook: waiting"


# --- mail ------------------------------------------------------------------------------------------------------------


def test_a_mail(account, mail, mailoutbox):
    notices.stand(LOW, case(account))
    assert notices.deliver() == "1 sent, 0 failed"
    (sent,) = mailoutbox
    assert (sent.subject, sent.body) == ("[Kodna] acme: low balance", "acme is low\n")
    assert sent.recipients() == ["ops@example.com", "ann@example.com"]
    message = sent.message()
    assert (message["To"], message["Bcc"], message["From"]) == (
        "undisclosed-recipients:;",
        None,
        "Kodna <kodna@example.com>",
    )
    assert message["Message-ID"] == f"<{Notice.objects.get().pk}@example.com>"


def test_nobody_to_write_to(account, mail, settings):
    account.users.clear()
    settings.OPERATOR_MAIL = []
    notices.stand(LOW, case(account))
    assert not NoticeDelivery.objects.exists()


def test_a_name_on_two_lines(account, mail, mailoutbox):
    Account.objects.filter(pk=account.pk).update(name="acme\nBcc: eve@example.com")
    account.refresh_from_db()
    notices.stand(LOW, case(account))
    assert notices.deliver() == "1 sent, 0 failed"
    assert mailoutbox[0].subject == "[Kodna] acme Bcc: eve@example.com: low balance"


def test_the_mail_server_is_away(account, mail, receiver, monkeypatch):
    """The webhook does not wait for it; and what it said is kept, as far as the database takes it."""

    def refuse(*_: object) -> None:
        raise SMTPServerDisconnected("go\0away\n" + "!" * 400)

    monkeypatch.setattr(EmailBackend, "send_messages", refuse)
    notices.stand(LOW, case(account))
    assert notices.deliver() == "1 sent, 1 failed"
    assert len(receiver.requests) == 1
    assert sorted(str(each) for each in NoticeDelivery.objects.all()) == ["mail: waiting", "webhook: delivered"]
    assert NoticeDelivery.objects.get(channel="mail").trouble.startswith("SMTPServerDisconnected: go away !!!")
