"""What is out, as the gateway's processes tell each other in Redis: one hash, a lease for each trial, who answers.

Times in it are Redis's: clocks of different hosts differ by seconds. Called by `health`.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

KEY = "kodna:health"
LEASE = "kodna:trial:"
HEARD = "kodna:heard:"
TIMEOUT = 0.5  # seconds without an answer: Redis is away
_LIFE = 7200  # seconds after the last process, for which it is kept
_HEARD_FOR = 900  # seconds: nobody asks for what is older
ERRORS, RESTS, THROTTLED, REFUSED = "errors", "rests", "throttled", "refused"

# A trial is claimed for what the claimer has seen: whoever was quicker may have put it out again since.
_CLAIM = """\
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[4]) and 1 or 0
"""
# Whoever has it keeps it for as long as it asks.
_LEAD = """\
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class Out(NamedTuple):
    """Not to be asked before `until` (since the epoch). `since`: when it was put out first, of `times` in a row.

    `why`: errors (its circuit is open), rests (for as long as the provider has said), throttled (429 without a time) or
    refused (the credential). `status`: that the provider answered with; 0: with none.
    """

    until: float
    why: str
    status: int
    since: float
    times: int


_decode = msgspec.msgpack.Decoder(Out).decode


class Board:
    """Every method raises `RedisError`."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._redis = Redis.from_url(
            url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=Retry(NoBackoff(), 0)
        )
        self._clock = clock
        self._me = secrets.token_hex(8)
        self._seen: dict[str, tuple[bytes, Out]] = {}

    def exchange(
        self, changes: Mapping[str, Out | None], released: Iterable[str], kept: Mapping[str, Out]
    ) -> dict[str, Out]:
        """All that is out, after these changes, and what was `kept` while Redis was away: that nobody else has told.

        What has not changed is the same object as the last time.
        """
        ahead = self._ahead()
        batch = self._redis.pipeline(transaction=False)
        for name, found in kept.items():
            batch.hsetnx(KEY, name, _encode(found, ahead))
        for name, change in changes.items():
            if change is None:
                batch.hdel(KEY, name)
            else:
                batch.hset(KEY, name, _encode(change, ahead))
        for name in released:
            batch.eval(_RELEASE, 1, LEASE + name, self._me)
        batch.expire(KEY, _LIFE)
        batch.hgetall(KEY)
        rows: dict[bytes, bytes] = batch.execute()[-1]
        texts = {name.decode(errors="replace"): data for name, data in rows.items()}
        read = {name: self._read(name, data, ahead) for name, data in texts.items()}
        self._seen = {name: row for name, row in read.items() if row is not None}
        return {name: found for name, (_, found) in self._seen.items()}

    def _ahead(self) -> float:
        """Seconds that Redis's clock is ahead of ours."""
        before = self._clock()
        seconds, microseconds = self._redis.time()
        return seconds + microseconds / 1e6 - (before + self._clock()) / 2

    def _read(self, name: str, data: bytes, ahead: float) -> tuple[bytes, Out] | None:
        before = self._seen.get(name)
        if before is not None and before[0] == data:
            return before
        try:
            found = _decode(data)
        except msgspec.MsgspecError:  # of another release
            return None
        return data, found._replace(until=found.until - ahead, since=found.since - ahead)

    def claim(self, name: str, seconds: float) -> bool:
        """Whether this process may try it."""
        seen = self._seen.get(name)
        if seen is None:
            return False
        words = (name, seen[0], self._me, round(seconds * 1000))
        return bool(self._redis.eval(_CLAIM, 2, KEY, LEASE + name, *words))

    def hears(self, heard: Mapping[str, float]) -> None:
        """These places have answered requests."""
        ahead = self._ahead()
        batch = self._redis.pipeline(transaction=False)
        for place, at in heard.items():
            batch.set(HEARD + place, at + ahead, ex=_HEARD_FOR)
        batch.execute()

    def heard(self, places: list[str]) -> dict[str, float]:
        """When they last did, in any process, about."""
        if not places:
            return {}
        ahead, found = self._ahead(), self._redis.mget([HEARD + place for place in places])
        return {place: float(at) - ahead for place, at in zip(places, found, strict=True) if at is not None}

    def leads(self, work: str, seconds: float) -> bool:
        return bool(self._redis.eval(_LEAD, 1, f"{KEY}:{work}", self._me, round(seconds * 1000)))

    def close(self) -> None:
        self._redis.close()


def _encode(found: Out, ahead: float) -> bytes:
    return msgspec.msgpack.encode(found._replace(until=found.until + ahead, since=found.since + ahead))
