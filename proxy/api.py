"""What Django answers under /v1: usage, receipts, limits; and for all of it the hand-over, the errors, the headers.

`asgi` hands requests for a fixed set of paths to `Handover`; `kodna/urls.py` has the views of all apps.
"""

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from asgiref.sync import async_to_sync
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import convert_exception_to_response
from django.db import InterfaceError, OperationalError
from django.http import HttpResponse, QueryDict
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.drf_auth import KeyRequest
from accounts.keys import Key
from proxy import errors, replies, reports, request_ids
from proxy.counters.base import Left
from proxy.errors import Refusal
from proxy.gateway import Gateway
from proxy.ingress import Receive, Scope, Send
from proxy.models import UsageRecord
from proxy.reports import Question, Unreadable
from proxy.serializers import ReceiptSerializer

logger = logging.getLogger(__name__)

PATHS = frozenset(
    {
        *("/v1/usage", "/v1/credits/balance", "/v1/credits/pricing"),
        *("/v1/auth/me", "/v1/auth/keys", "/v1/auth/limits"),
    }
)
RECEIPTS = "/v1/requests/"
REQUEST_ID = re.compile(r"req_([0-9a-f]{12})[0-9a-f]{20}")
# A row lands half a second after its answer. An id tells when its request began: of one from this long ago (seconds)
# the answer may have ended just now.
RECENT, LANDS, AGAIN = 900.0, 2.0, 0.25
WAITING = 5  # receipts of an account that are waited for at a time
AT_ONCE = 5  # of the ten connections that a process may have
PARAMETERS = ("by", "since", "until", "tz", "key", "model", "provider", "format")
KINDS = ("rps", "rpm", "tpm", "concurrency")


# --- the hand-over ---------------------------------------------------------------------------------------------------


class Handover(ASGIHandler):
    """Django's views without the console's middleware: an API's client has no session, and may call the host anything.

    Every answer has its request id, and the headers for pages of other origins. A few run at once: each holds a
    connection to the database, and what moves usage and keys must find one too.
    """

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting: Counter[int] = Counter()  # by account

    def load_middleware(self, is_async: bool = False) -> None:
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._middleware_chain = convert_exception_to_response(self._get_response_async)  # type: ignore[attr-defined]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_ids.new()
        more = [*replies.common(request_id, scope), (b"cache-control", b"no-store")]

        async def answer(message: Mapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        own = {"kodna.request_id": request_id, "kodna.gateway": self._gateway}
        answering = self._receipt if scope["path"].startswith(RECEIPTS) else self._run
        await answering({**scope, **own}, receive, answer)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._places:
            await super().__call__({**scope}, _without_body(receive), send)

    async def _receipt(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Looked for again while its row may not have landed. Meanwhile it has no place, and shuts nobody out."""
        until = time.monotonic() + LANDS
        said, account = await self._look(scope, receive)
        if account is not None and self._waiting[account] < WAITING:
            self._waiting[account] += 1
            missing: int | None = account
            try:
                while missing is not None and time.monotonic() < until:
                    await asyncio.sleep(AGAIN)
                    said, missing = await self._look(scope, receive)
            finally:
                self._waiting[account] -= 1
        for message in said:
            await send(message)

    async def _look(self, scope: Scope, receive: Receive) -> tuple[list[Mapping[str, Any]], int | None]:
        """What is answered (nothing: the client has left), and the account whose request may land any moment."""
        said: list[Mapping[str, Any]] = []
        missing: list[int] = []

        async def keep(message: Mapping[str, Any]) -> None:
            said.append(message)

        await self._run({**scope, "kodna.missing": missing}, receive, keep)
        return said, missing[0] if said and missing else None


def _without_body(receive: Receive) -> Receive:
    """None of these requests has a body; Django would keep on the disk whatever a stranger sends."""
    nothing = [{"type": "http.request", "body": b"", "more_body": False}]

    async def received() -> Mapping[str, Any]:
        if nothing:
            return nothing.pop()
        while (message := await receive())["type"] != "http.disconnect":
            pass
        return message

    return received


def refuse(error: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """DRF's exception handler: every error in OpenAI's shape."""
    request_id = context["request"].scope["kodna.request_id"]
    refusal = _refusal(error)
    if isinstance(refusal, errors.Internal):  # a bug of ours
        logger.error("request %s failed", request_id, exc_info=error)
    headers = {name.decode(): value.decode() for name, value in replies.error_headers(refusal)}
    return HttpResponse(replies.error_body(refusal, request_id), status=refusal.status, headers=headers)


def _refusal(error: Exception) -> Refusal:
    match error:
        case Refusal():
            return error
        case AuthenticationFailed():
            return errors.BadKey(str(error.detail), retry=False)
        case PermissionDenied():
            return errors.Forbidden(str(error.detail), code=str(error.get_codes()), retry=False)
        case OperationalError() | InterfaceError():  # it is away, or too busy
            words = "The database does not answer at the moment."
            return errors.Unavailable(words, code="database_unavailable", retry_after=2)
        case SuspiciousOperation():  # thousands of parameters
            return errors.BadRequest("The request cannot be read.", retry=False)
    return errors.Internal()


# --- the views -------------------------------------------------------------------------------------------------------


class UsageView(APIView):
    """GET /v1/usage: the report of the key's own account."""

    def get(self, request: KeyRequest) -> HttpResponse:
        try:
            question, form = _asked(request.query_params, request.auth)
        except Unreadable as wrong:
            raise errors.BadRequest(wrong.message, param=wrong.name, code="invalid_value", retry=False) from None
        report = reports.answer(question)
        if form == "csv":
            named = {"content-disposition": 'attachment; filename="usage.csv"'}
            return HttpResponse(reports.as_csv(report), "text/csv; charset=utf-8", headers=named)
        return HttpResponse(reports.as_json(report), "application/json")


def _asked(query: QueryDict, key: Key) -> tuple[Question, str]:
    """The question, and the format of the answer. Raises `Unreadable`."""
    words = {name: ",".join(query.getlist(name)) for name in query}
    for name in words:
        if name not in PARAMETERS:
            raise Unreadable(name[:60], f"There is no parameter {name[:60]!r}: there are {', '.join(PARAMETERS)}.")
    form = words.get("format") or "json"
    if form not in {"json", "csv"}:
        raise Unreadable("format", f"{form[:60]!r} is none of json, csv.")
    question = reports.read(*(words.get(name, "") for name in ("by", "since", "until", "tz")))
    own = frozenset({key.account_id})
    return replace(
        question,
        accounts=own,
        keys=reports.key_ids(words["key"], own) if words.get("key") else None,
        models=reports.only("model", words.get("model", "")),
        providers=reports.only("provider", words.get("provider", "")),
    ), form


class RequestView(APIView):
    """GET /v1/requests/{x-request-id}: the receipt of a request of the key's own account."""

    def get(self, request: KeyRequest, request_id: str) -> Response:
        named, account = REQUEST_ID.fullmatch(request_ids.internal(request_id)), request.auth.account_id
        row = named and UsageRecord.objects.filter(request_id=named[0], account_id=account).first()
        if row:
            return Response(ReceiptSerializer(row).data)
        if named and abs(time.time() - int(named[1], 16) / 1000) < RECENT:
            request.scope["kodna.missing"].append(account)  # type: ignore[attr-defined]
        raise errors.NotFound("There is no request of this ID here.", param="id", retry=False)


class LimitsView(APIView):
    """GET /v1/auth/limits: what the key and its account may, and what is left of it now. Null: no limit."""

    def get(self, request: KeyRequest) -> Response:
        key = request.auth
        gateway: Gateway = request.scope["kodna.gateway"]  # type: ignore[attr-defined]
        grant = async_to_sync(gateway.admission.left)(key)  # on the event loop, where the counters are
        return Response(
            {
                "object": "limits",
                "key": {kind: getattr(key, kind) or None for kind in KINDS},
                "account": {kind: getattr(key.account_rates, kind) or None for kind in KINDS},
                "left": {"requests": _left(grant.requests), "tokens": _left(grant.tokens)},
            }
        )


def _left(left: Left | None) -> dict[str, int | str] | None:
    """Of the limit that has the least left, as the headers `x-ratelimit-…` say it."""
    if left is None:
        return None
    return {"limit": left.limit, "remaining": left.remaining, "reset": replies.duration(left.reset)}
