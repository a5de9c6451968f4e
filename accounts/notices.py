"""Notices: what stands now is noted once, and brought to people by mail and to a program by webhook.

`accounts.tasks` and `proxy.troubles` say what holds (`stand`); the former lets the deliveries go (`deliver`). Each is
delivered at least once by every channel that was set up as it was made: a process that is killed between the sending
and the note of it sends again, with the same id. Without a channel a notice stands in the console. No secret is in it:
a key goes by its prefix, a provider's credential by its name.
"""

import json
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from email.utils import parseaddr
from http.client import HTTPException
from typing import NamedTuple

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts import webhooks
from accounts.models import Account, Notice, NoticeDelivery

logger = logging.getLogger(__name__)

Channel = NoticeDelivery.Channel
Kind = Notice.Kind
FIRST_WAIT, LONGEST_WAIT = timedelta(minutes=1), timedelta(hours=6)  # between tries: each four times the one before
GIVE_UP = timedelta(days=1)
MOST = 100  # deliveries of a channel in a round
KEPT = timedelta(days=90)  # after it is over
# What a mail server or a receiver can do to us (SMTPException is an OSError), and a text that makes no message.
_TROUBLE = (OSError, HTTPException, ValueError)


class Case(NamedTuple):
    """What holds now of an account, or of the gateway itself (None), for people and for programs."""

    account: Account | None
    text: str
    data: Mapping[str, str | int]


def stand(kind: Notice.Kind, cases: Mapping[str, Case]) -> str:
    """These, by their subjects, are all cases of this kind: new ones are noted, those that no longer hold are over."""
    standing = set(Notice.objects.filter(kind=kind, ended_at=None).values_list("subject", flat=True))
    over = standing - cases.keys()
    Notice.objects.filter(kind=kind, ended_at=None, subject__in=over).update(ended_at=timezone.now())
    new = [subject for subject in cases if subject not in standing]
    for subject in new:
        _note(kind, subject, cases[subject])
    return f"{len(new)} new, {len(over)} resolved, {len(cases)} open"


def _note(kind: Notice.Kind, subject: str, case: Case) -> None:
    now = timezone.now()
    of = {} if case.account is None else {"account": case.account.name, "account_id": case.account.pk}
    data = {**of, **case.data}
    notice = Notice(kind=kind, subject=subject, account=case.account, text=case.text, data=data, created_at=now)
    try:
        with transaction.atomic():
            notice.save(force_insert=True)
            NoticeDelivery.objects.bulk_create(
                NoticeDelivery(notice=notice, channel=channel, due_at=now) for channel in _channels(notice)
            )
    except IntegrityError:
        if not Notice.objects.filter(kind=kind, subject=subject, ended_at=None).exists():
            raise
        # Else another runner, whose lease had lapsed, was quicker.


def _channels(notice: Notice) -> list[Channel]:
    found = [Channel.MAIL] if settings.MAIL_SERVER.host and _people(notice) else []
    return [*found, Channel.WEBHOOK] if settings.WEBHOOK_URL else found


def _people(notice: Notice) -> list[str]:
    """The operators; and the people of the account, where it is about one."""
    if notice.account is None:
        return list(settings.OPERATOR_MAIL)
    users = notice.account.users.filter(is_active=True).exclude(email="").values_list("email", flat=True)
    return list(dict.fromkeys([*settings.OPERATOR_MAIL, *users.order_by("pk")]))


# --- on their way ----------------------------------------------------------------------------------------------------


def deliver() -> str:
    """What is due, the oldest first. What fails ends its channel's round: the next would wait for the same receiver."""
    counts = [_deliver(channel, send) for channel, send in _senders().items()]
    return f"{sum(sent for sent, _ in counts)} sent, {sum(failed for _, failed in counts)} failed"


def _senders() -> dict[Channel, Callable[[Notice], None]]:
    senders: dict[Channel, Callable[[Notice], None]] = {}
    if settings.MAIL_SERVER.host:
        senders[Channel.MAIL] = _mail
    if settings.WEBHOOK_URL:
        senders[Channel.WEBHOOK] = _post
    return senders


def _deliver(channel: Channel, send: Callable[[Notice], None]) -> tuple[int, int]:
    due: QuerySet[NoticeDelivery] = NoticeDelivery.objects.filter(channel=channel, due_at__lte=timezone.now())
    sent = 0
    for delivery in due.select_related("notice__account").order_by("notice__created_at", "pk")[:MOST]:
        try:
            send(delivery.notice)
        except _TROUBLE as error:
            _put_off(delivery, f"{type(error).__name__}: {error}")
            return sent, 1
        _save(delivery, due_at=None, delivered_at=timezone.now(), tries=delivery.tries + 1, trouble="")
        sent += 1
    return sent, 0


def _put_off(delivery: NoticeDelivery, trouble: str) -> None:
    now = timezone.now()
    wait = min(FIRST_WAIT * 4 ** min(delivery.tries, 10), LONGEST_WAIT)
    gives_up = now - delivery.notice.created_at >= GIVE_UP
    words = one_line(trouble, 300)
    logger.warning(
        "notice %s was not sent by %s: %s; %s",
        *(delivery.notice_id, delivery.channel, words, "given up" if gives_up else f"next try in {wait}"),
    )
    _save(delivery, due_at=None if gives_up else now + wait, tries=delivery.tries + 1, trouble=words)


def one_line(text: str, most: int) -> str:
    """What the database takes, so many characters at most, whatever strangers have put into an error."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:most]


def _save(delivery: NoticeDelivery, **fields: object) -> None:
    NoticeDelivery.objects.filter(pk=delivery.pk).update(**fields)


def _mail(notice: Notice) -> None:
    """One message to all, who do not see each other: that one address is refused keeps it from nobody else."""
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    headers = {
        "To": "undisclosed-recipients:;",
        "Message-ID": f"<{notice.pk}@{domain}>",
        "Auto-Submitted": "auto-generated",
    }
    of = "" if notice.account is None else f"{notice.account.name}: "
    title = " ".join(f"[{settings.SERVICE_NAME}] {of}{notice.get_kind_display()}".split())
    EmailMessage(title, f"{notice.text}\n", bcc=_people(notice), headers=headers).send()


def _post(notice: Notice) -> None:
    body = {"type": notice.kind, "timestamp": notice.created_at.isoformat(), "data": notice.data}
    webhooks.post(f"msg_{notice.pk.hex}", json.dumps(body, ensure_ascii=False).encode())


def forget() -> str:
    count, _ = Notice.objects.filter(ended_at__lt=timezone.now() - KEPT).delete()
    return f"{count} rows deleted"
