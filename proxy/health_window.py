"""What the attempts of the last minute say of a way to a model: how many failed, whose they were, how quick it was.

For `health`, which decides what is to come of it. Plain counting: no locks, no clock of its own.
"""

from dataclasses import dataclass

FAILURES = 5  # in the window, that put a way out
OTHERS = 10.0  # seconds since another account was answered, in which one account's failures may be its requests' fault
BUCKET, BUCKETS = 10.0, 6  # seconds; the window
SPEED = 300.0  # seconds for which a measurement counts
_NEWEST = 0.2  # its share of the moving average
_NEVER = float("-inf")
_SEVERAL = -1  # accounts


@dataclass(slots=True)
class _Bucket:
    """Of the window. `answered`: first words, also of streams that the client did not hear out. `by`: who failed."""

    number: int
    good: int = 0
    bad: int = 0
    answered: int = 0
    by: int = _SEVERAL


class Way:
    """`buckets`: the window, the newest last. `streak`: failures in a row, since `streak_at`; `refusals`: the latest of
    them, where the credential was refused; `throttled`: 429s. `by`: of an account, or of several. `heard`: when it
    answered, and `heard_other` when an account other than `heard_by`.
    """

    __slots__ = (
        *("buckets", "busy", "heard", "heard_by", "heard_other", "refusals", "speeds"),
        *("streak", "streak_at", "streak_by", "throttled"),
    )

    def __init__(self) -> None:
        self.busy = 0
        self.buckets: list[_Bucket] = []
        self.heard = self.heard_other = 0.0
        self.heard_by = _SEVERAL
        self.streak = self.refusals = self.throttled = 0
        self.streak_at = _NEVER
        self.streak_by = _SEVERAL
        self.speeds = [(0.0, _NEVER), (0.0, _NEVER)]  # and when they were measured: whole answers, streams

    def bucket(self, now: float) -> _Bucket:
        number, buckets = int(now // BUCKET), self.buckets
        if buckets and buckets[-1].number == number:
            return buckets[-1]
        if buckets and buckets[-1].number > number:  # the clock was put back
            buckets.clear()
        buckets.append(_Bucket(number))
        del buckets[:-BUCKETS]
        return buckets[-1]

    def _window(self, now: float) -> list[_Bucket]:
        last = int(now // BUCKET)
        return [each for each in self.buckets if last - BUCKETS < each.number <= last]

    def window(self, now: float) -> tuple[int, int]:
        """Failures and outcomes."""
        rows = self._window(now)
        bad = sum(row.bad for row in rows)
        return bad, max(bad + sum(row.good for row in rows), sum(row.answered for row in rows))

    def answers(self, account: int, now: float) -> None:
        if account != self.heard_by:
            self.heard_by, self.heard_other = account, self.heard
        self.heard = now
        self.streak = self.refusals = self.throttled = 0

    def fails(self, account: int, now: float, *, is_refusal: bool) -> None:
        row = self.bucket(now)
        row.by = account if not row.bad or row.by == account else _SEVERAL
        row.bad += 1
        if not self.streak:
            self.streak_at, self.streak_by = now, account
        elif self.streak_by != account:
            self.streak_by = _SEVERAL
        self.streak += 1
        self.refusals = self.refusals + 1 if is_refusal else 0

    def is_failing(self, now: float) -> bool:
        bad, outcomes = self.window(now)
        if bad < FAILURES:
            return False
        if self.streak >= FAILURES and self._is_to_blame(self.streak_by, now):
            return True
        accounts = {row.by for row in self._window(now) if row.bad}
        by = accounts.pop() if len(accounts) == 1 else _SEVERAL
        return 2 * bad >= outcomes and self._is_to_blame(by, now)

    def _is_to_blame(self, by: int, now: float) -> bool:
        """Not where one account fails, and others are answered."""
        answered = self.heard_other if by == self.heard_by else self.heard
        return by == _SEVERAL or not answered <= now < answered + OTHERS

    def starts_anew(self) -> None:
        self.buckets.clear()
        self.streak = self.refusals = 0

    def measure(self, seconds: float, stream: bool, now: float) -> None:
        before = self.speed(stream, now)
        self.speeds[stream] = (seconds if before is None else before + _NEWEST * (seconds - before), now)

    def speed(self, stream: bool, now: float) -> float | None:
        seconds, measured = self.speeds[stream]
        return seconds if now - measured < SPEED else None
