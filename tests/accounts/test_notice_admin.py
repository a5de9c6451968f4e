"""The console's page of the notices."""

import pytest
from django.test import Client
from django.utils import timezone

from accounts import notices
from accounts.models import Account, Notice, NoticeDelivery, User
from accounts.notices import Case

PAGE = "/admin/accounts/notice/"


@pytest.fixture
def operator(db, client) -> Client:
    client.force_login(User.objects.create_superuser("admin"))
    account = Account.objects.create(name="acme")
    notices.stand(
        Notice.Kind.LOW_BALANCE, {"1": Case(account, "an <old> one", {}), "2": Case(account, "a new one", {})}
    )
    Notice.objects.filter(subject="1").update(ended_at=timezone.now())
    notice = Notice.objects.get(subject="2")
    NoticeDelivery.objects.create(notice=notice, channel="webhook", due_at=timezone.now(), trouble="refused <it>")
    NoticeDelivery.objects.create(notice=notice, channel="mail")
    return client


def test_it_works(operator):
    answer = operator.get(PAGE)
    text = answer.content.decode()
    assert answer.status_code == 200
    assert text.index("a new one") < text.index("an &lt;old&gt; one"), "what stands comes first"
    assert '<span title="refused &lt;it&gt;">webhook: waiting</span><br><span title="">mail: given up</span>' in text


@pytest.mark.parametrize(("state", "shown"), [("open", "a new one"), ("resolved", "an <old> one")])
def test_filter(operator, state, shown):
    rows = operator.get(PAGE, {"state": state}).context_data["cl"].queryset
    assert [notice.text for notice in rows] == [shown]


def test_about_the_gateway_itself(operator):
    notices.stand(Notice.Kind.CREDENTIAL_REFUSED, {"3.0.ab": Case(None, "a key is refused", {})})
    assert "a key is refused" in operator.get(PAGE).content.decode()
    account = Account.objects.get()
    shown = operator.get(PAGE, {"account__id__exact": account.pk}).context_data["cl"].queryset
    assert shown.count() == 2
    shown = operator.get(PAGE, {"account__isnull": "True"}).context_data["cl"].queryset
    assert [notice.text for notice in shown] == ["a key is refused"]


def test_nothing_is_changed_here(operator):
    notice = Notice.objects.get(subject="2")
    assert operator.get(f"{PAGE}add/").status_code == 403
    assert operator.post(f"{PAGE}{notice.pk}/delete/", {"post": "yes"}).status_code == 403
    operator.post(f"{PAGE}{notice.pk}/change/", {"text": "other"})
    assert Notice.objects.get(subject="2").text == "a new one"


def test_an_empty_list_asks_for_nothing_that_cannot_be_done(operator):
    found = operator.get(PAGE, {"q": "x" * 9}).content.decode()
    assert "Nothing matches." in found
    assert "Reset filters" in found
    Notice.objects.all().delete()
    empty = operator.get(PAGE).content.decode()
    assert "There is nothing here yet." in empty
    assert "Reset filters" not in empty
    assert "Create" not in empty
