"""The operator's webhook, signed as standardwebhooks.com specifies. `accounts.notices` is the only caller."""

import base64
import hmac
import time
import urllib.error
import urllib.request
from typing import Any

from django.conf import settings

SECONDS = 15.0  # for the receiver to accept the connection, and to answer


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is signed for one receiver is not carried to another: a redirect is a failure, as any status but 2xx."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def post(message_id: str, body: bytes) -> None:
    """`message_id` is the same for every try, so that the receiver can drop doubles.

    Raises `OSError` or `http.client.HTTPException` where it was not taken with a 2xx.
    """
    moment = str(int(time.time()))
    headers = {
        "content-type": "application/json",
        "user-agent": f"kodna/{settings.VERSION}",
        "webhook-id": message_id,
        "webhook-timestamp": moment,
        "webhook-signature": signature(settings.WEBHOOK_SECRET, message_id, moment, body),
    }
    request = urllib.request.Request(settings.WEBHOOK_URL, body, headers, method="POST")  # noqa: S310  # http(s) only
    try:
        _opener.open(request, timeout=SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        raise


def signature(secret: bytes, message_id: str, moment: str, body: bytes) -> str:
    signed = hmac.digest(secret, b".".join([message_id.encode(), moment.encode(), body]), "sha256")
    return f"v1,{base64.b64encode(signed).decode()}"
