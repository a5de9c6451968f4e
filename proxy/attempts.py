"""What a request's row says of the routes that were tried for it, in words for people. Called by `admin`."""

from typing import Any, NamedTuple

from proxy.models import UsageRecord

ANSWERED = "answered"
# Of `usage.Attempt.reason`: what the provider did, or why it was not asked.
REASONS = {
    "": ANSWERED,
    "connect": "could not be reached",
    "timeout": "did not answer in time",
    "broken": "broke the connection off",
    "status": "answered with an error",
    "malformed": "sent what is no whole answer",
    "error": "sent an error in place of an answer",
    "busy": "no place free",
    "lossy": "not asked: its format cannot say the request",
    "not_allowed": "not asked: limits or credit do not allow this model",
    "skipped": "not asked: it was out",
    "rests": "not asked: it had asked to wait",
    "refused": "refused the request",
    "cancelled": "the client left",
    "incomplete": "broke off after it had begun",
}
# Of an answer with an error, by its status, where that says more.
STATUSES = {
    401: "refused the gateway's credential",
    402: "wants to be paid",
    403: "refused the gateway's credential",
    404: "does not have this model",
    408: "did not answer in time",
    429: "its rate limit is reached",
    503: "is not available",
    529: "is overloaded",
}
_NO_FAULT = frozenset({"", "cancelled"})


class Tried(NamedTuple):
    """A line of the table. `after`: since the request came. `of`: the catalog's model, where it is not the row's."""

    after: str
    provider: str
    credential: str
    model: str
    of: str
    status: str
    words: str
    took: str
    is_answer: bool


def tried(row: UsageRecord) -> list[Tried]:
    """Whatever the recorder noted: rows of older releases have less."""
    return [_line(each, row.model) for each in row.attempts if isinstance(each, dict)]


def mark(row: UsageRecord) -> str:
    """That there is something to see: more than one try, or one that failed. Else empty."""
    reasons = [str(each.get("reason") or "") for each in row.attempts if isinstance(each, dict)]
    if len(reasons) > 1:
        return f"{len(reasons)} tries"
    return "1 try" if reasons and reasons[0] not in _NO_FAULT else ""


def in_words(reason: str, status: int = 0) -> str:
    if reason == "status" and status in STATUSES:
        return STATUSES[status]
    return REASONS.get(reason) or reason.replace("_", " ")


def duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:,.2f} s"


def _line(each: dict[str, Any], model: str) -> Tried:
    reason, status, of = str(each.get("reason") or ""), each.get("status") or 0, str(each.get("of") or "")
    return Tried(
        after=f"+{duration(each['at'])}" if each.get("at") else "",
        provider=str(each.get("provider") or ""),
        credential=str(each.get("credential") or ""),
        model=str(each.get("model") or ""),
        of=of if of != model else "",
        status=str(status) if status else "",
        words=in_words(reason, status),
        took=duration(each.get("ms") or 0.0),
        is_answer=not reason,
    )
