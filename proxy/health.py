"""What this process knows of the routes' health: who is not to be asked now, and who may be tried again.

`routing` reads it for its plans, `relay` tells it how each attempt went, `probes` what it has seen; a thread shares it
with the other processes (`share`). A *way* is a route (`Route.way`), a *place* a provider's credential
(`Provider.place`): each is `out` by its own name. The states of one:

    in       answers are counted in a window of a minute. Five failures in it, and the way is out, where they are half
             of all or came one after the other; but not by the failures of one account while others are answered.
    out      (errors, refused) not asked until its time has passed, but where nothing else is left
    half-open  then one real request is let through, over all processes, once a hundred others have gone elsewhere or
             a minute has passed since it went out. Answered: in. Failed: out for longer.
    resting  (rests, throttled) the provider has asked to wait: until then. It is in again without a trial.

An attempt that began before its way went out says nothing about what is now: a key that was revoked does not come back
because an old stream ends well. And what a client's own request may have brought about (400) is no verdict.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from redis.exceptions import RedisError

from models_catalog.snapshot import Route, Snapshot
from proxy.errors import ProviderFault
from proxy.health_board import ERRORS, REFUSED, RESTS, THROTTLED, Board, Out
from proxy.health_window import FAILURES, Way

__all__ = ["ERRORS", "REFUSED", "RESTS", "THROTTLED", "Health", "Out"]

logger = logging.getLogger(__name__)

PAUSES = (5.0, 10.0, 20.0, 40.0, 60.0)  # seconds out because of errors, by how often in a row
FIRST_REFUSAL, LONGEST = 60.0, 3600.0  # seconds: a refused credential, twice as long each time; and the end of that
MOST_REST = {429: LONGEST, 503: 60.0, 529: 60.0}  # seconds, whatever it says; an overload tells more than it knows
LONGEST_THROTTLE = 30.0  # seconds, after a 429 that names no time: 1, 2, 4 …
PATIENT_RESTS = 3  # in a row: a provider that says a short time again and again is asked as rarely as if it said none
PASSES = 100  # requests that go elsewhere, for one that tries
TRIAL = 60.0  # seconds after which it is tried, however few went elsewhere; and in which a trial must come to an end
UNUSED = 5.0  # seconds in which a trial that was claimed for this process must begin
IDLE = {ERRORS: 600.0, REFUSED: 86400.0}  # seconds after which one is in again that nobody has wanted to try
SLACK = 1.0  # seconds: `took` is counted from a little before `begins`
TELL = 10.0  # seconds between two times that the others are told who has answered here
_CIRCUITS = frozenset({ERRORS, REFUSED})
_ONE_MODEL = frozenset({402, 403})  # a refused credential may be good for other models
_ANSWERED = frozenset({"malformed", "error"})  # faults inside an answer that said 200


@dataclass(slots=True)
class _Trials:
    """Of a name that is out. `passed`: requests that went elsewhere since; `given_back`: when a trial ended undecided.

    `since`: of the trial that runs. `wanted`, `granted`: it is to be claimed for this process, and was.
    """

    passed: int = 0
    given_back: float = 0.0
    since: float | None = None
    wanted: bool = False
    granted: float | None = None


def _pause(why: str, times: int) -> float:
    if why == REFUSED:
        return min(FIRST_REFUSAL * 2.0 ** min(times - 1, 10), LONGEST)
    return PAUSES[min(times, len(PAUSES)) - 1]


def _put_out_at(found: Out) -> float:
    return found.until - _pause(found.why, found.times)


class Health:
    """`out`: by way or place. It is replaced, never changed: read it without a lock. Without `circuits` nobody is out.

    `begins`, `answers`, `ends` and `leaves` are called on the event loop; the others on any thread.
    """

    def __init__(
        self,
        redis_url: str = "",
        catalog: Callable[[], Snapshot] | None = None,
        clock: Callable[[], float] = time.time,
        *,
        circuits: bool = True,
    ) -> None:
        self.out: dict[str, Out] = {}
        self._circuits = circuits
        self._clock = clock
        self._catalog = catalog
        self._read: Snapshot | None = None
        self._known: frozenset[str] = frozenset()  # ways and places of `_read`; empty: there is no catalog to go by
        self._ways: dict[str, Way] = {}
        self._trials: dict[str, _Trials] = {}
        self._lock = threading.Lock()  # held for microseconds, and only where something is out
        self._board = Board(redis_url, clock) if redis_url and circuits else None
        self._is_shared = False  # Redis has the say
        self._away = ""
        self._changes: dict[str, Out | None] = {}  # that the others have not been told
        self._released: set[str] = set()
        self._told = 0.0  # when the others were told who has answered here

    # --- for plans: changes nothing ----------------------------------------------------------------------------------

    def is_out(self, route: Route, now: float) -> Out | None:
        """Why it is not to be asked; None: it may be, also where this request may try whether it is back."""
        out = self.out
        for name in (route.provider.place, route.way):
            found = out.get(name)
            if found is not None and not self._may_be_asked(name, found, now):
                return found
        return None

    def _may_be_asked(self, name: str, found: Out, now: float) -> bool:
        if now < found.until:
            return False
        return found.why not in _CIRCUITS or (self._is_due(name, found, now) and self._is_free(name, now))

    def _is_due(self, name: str, found: Out, now: float) -> bool:
        trials = self._trials.get(name)
        if trials is None:
            return now >= _put_out_at(found) + TRIAL
        return trials.passed >= PASSES or now >= max(_put_out_at(found), trials.given_back) + TRIAL

    def _is_free(self, name: str, now: float) -> bool:
        """Whether nobody else is trying it."""
        trials = self._trials.get(name)
        if trials is not None and trials.since is not None and now - trials.since < TRIAL:
            return False
        return not self._is_shared or (trials is not None and trials.granted is not None)

    def speed(self, way: str, stream: bool) -> float | None:
        """Seconds to a stream's first token, or to a whole answer: a moving average; None: not measured lately."""
        found = self._ways.get(way)
        return None if found is None else found.speed(stream, self._clock())

    def busy(self, way: str) -> int:
        found = self._ways.get(way)
        return 0 if found is None else found.busy

    def window(self, way: str) -> tuple[int, int]:
        """Failures and outcomes of the last minute, in this process."""
        found = self._ways.get(way)
        return (0, 0) if found is None else found.window(self._clock())

    def heard(self, places: Iterable[str]) -> dict[str, float]:
        """By place: when it last answered a request, of this process or, as far as one knows, of another."""
        here = self._heard()
        try:
            there = self._board.heard([*places]) if self._board is not None else {}
        except RedisError:  # `share` says so in the log
            there = {}
        return {place: max(here.get(place, 0.0), there.get(place, 0.0)) for place in places}

    def _heard(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, way in list(self._ways.items()):  # a copy at once: the event loop adds to it
            place = name.partition("/")[0]
            found[place] = max(found.get(place, 0.0), way.heard)
        return found

    # --- on the event loop -------------------------------------------------------------------------------------------

    def passes(self, routes: Iterable[Route]) -> None:
        """A request has gone elsewhere because these are out."""
        out, now = self.out, self._clock()
        for name in {name for route in routes for name in (route.provider.place, route.way)}:
            found = out.get(name)
            if found is None or found.why not in _CIRCUITS:
                continue
            trials = self._trials_of(name)
            trials.passed += 1
            if self._is_shared and trials.granted is None and now >= found.until and self._is_due(name, found, now):
                trials.wanted = True

    def _trials_of(self, name: str) -> _Trials:
        return self._trials.setdefault(name, _Trials())

    def begins(self, route: Route, *, last_resort: bool = False) -> bool:
        """Right before an attempt. False: another request is just trying whether it is back, do not ask it.

        `last_resort`: nothing else is left, it is asked even so. After True, `ends` or `leaves` must follow; `answers`
        may come before.
        """
        if self.out and not self._tries(route, last_resort) and not last_resort:
            return False
        self._way(route).busy += 1
        return True

    def _tries(self, route: Route, last_resort: bool) -> bool:
        """Whether it is in, or still out, or this request is its trial."""
        now = self._clock()
        with self._lock:
            half_open = {
                name: found for name, found in self._outs(route) if found.why in _CIRCUITS and found.until <= now
            }
            for name, found in half_open.items():
                if not (self._is_free(name, now) and (last_resort or self._is_due(name, found, now))):
                    return False
            for name in half_open:
                trials = self._trials_of(name)
                trials.since, trials.granted, trials.wanted = now, None, False
        return True

    def _outs(self, route: Route) -> Iterator[tuple[str, Out]]:
        for name in (route.provider.place, route.way):
            found = self.out.get(name)
            if found is not None:
                yield name, found

    def answers(self, route: Route, seconds: float, *, stream: bool, took: float = 0.0, account: int = 0) -> None:
        """The first word of a stream is there, or a plain answer is whole: after so many `seconds`.

        `took`, here and below: seconds since the attempt began. `account`: whose request it is.
        """
        way, now = self._way(route), self._clock()
        way.measure(seconds, stream, now)
        way.bucket(now).answered += 1
        way.answers(account, now)
        if self.out:
            self._is_well(route, now - took)

    def ends(self, route: Route, fault: ProviderFault | None, *, took: float = 0.0, account: int = 0) -> None:
        """The attempt has said something about the provider. `fault` None: it has answered as a whole."""
        way, now = self._ended(route), self._clock()
        if fault is None:
            way.bucket(now).good += 1
            if not way.streak or now - took >= way.streak_at:  # else it says nothing of what has failed since
                way.answers(account, now)
            if self.out:
                self._is_well(route, now - took)
        elif fault.reason == "busy":
            self._give_back(route, now, now - took)
        else:
            self._failed(route, way, fault, now, now - took, account)
            self._give_back(route, now, now - took)  # what has not become a verdict

    def leaves(self, route: Route, *, took: float = 0.0) -> None:
        """The attempt has said nothing: the client left, its request was refused, it was not even asked, ..."""
        self._ended(route)
        if self.out:
            now = self._clock()
            self._give_back(route, now, now - took)

    def _way(self, route: Route) -> Way:
        way = self._ways.get(route.way)
        if way is None:
            way = self._ways[route.way] = Way()
        return way

    def _ended(self, route: Route) -> Way:
        way = self._way(route)
        if way.busy:
            way.busy -= 1
        return way

    def _give_back(self, route: Route, now: float, began: float) -> None:
        """Another may try, but not at once: clients that give up on a silent provider would all be its trials."""
        with self._lock:
            for name, _ in self._outs(route):
                trials = self._trials.get(name)
                if trials is not None and trials.since is not None and began >= trials.since - SLACK:
                    self._trials[name] = _Trials(given_back=now)
                    if self._board is not None:
                        self._released.add(name)

    def _is_well(self, route: Route, began: float) -> None:
        for name, found in self._outs(route):
            self._has_answered(name, found, began)

    def _has_answered(self, name: str, found: Out, began: float) -> None:
        if found.why in _CIRCUITS and began >= _put_out_at(found):
            self._set(name, None)

    # --- failures ----------------------------------------------------------------------------------------------------

    def _failed(self, route: Route, way: Way, fault: ProviderFault, now: float, began: float, account: int) -> None:
        place, status = route.provider.place, fault.status or 0
        if status == 401 or (fault.is_credential and status not in _ONE_MODEL):
            self._put_out(place, REFUSED, status, now, began)
            return
        found = self.out.get(place)
        if found is not None:
            self._place_failed(place, found, fault, now, began)
        if status == 429 or (fault.retry_after and status in MOST_REST):
            self._rests(route.way, way, fault, now, began)
        else:
            self._errs(route.way, way, fault, now, began, account)

    def _place_failed(self, place: str, found: Out, fault: ProviderFault, now: float, began: float) -> None:
        """It is out as a whole, and was tried. That it is there does not say that it takes the credential."""
        status = fault.status or 0
        if not (fault.reason in _ANSWERED or 0 < status < 500):
            self._put_out(place, found.why, found.status if found.why == REFUSED else status, now, began)
        elif found.why != REFUSED:
            self._has_answered(place, found, began)

    def _errs(self, name: str, way: Way, fault: ProviderFault, now: float, began: float, account: int) -> None:
        found, status = self.out.get(name), fault.status or 0
        if found is not None and found.why in _CIRCUITS:
            self._put_out(name, found.why, status, now, began)
        elif found is None or found.until <= now:
            way.fails(account, now, is_refusal=fault.is_credential and not fault.retry_after)
            if way.is_failing(now):
                self._put_out(name, REFUSED if way.refusals >= FAILURES else ERRORS, status, now, began)
                if name in self.out:
                    way.starts_anew()

    def _put_out(self, name: str, why: str, status: int, now: float, began: float) -> None:
        """Or, where it is out and its time has passed, out again for longer."""
        found = self.out.get(name)
        if found is None or found.why != why:
            times, since = 1, now
        elif now < found.until or began < _put_out_at(found):
            return  # that is known already
        else:
            times, since = found.times + 1, found.since
        self._set(name, Out(now + _pause(why, times), why, status, since, times))

    def _rests(self, name: str, way: Way, fault: ProviderFault, now: float, began: float) -> None:
        """Many at once are told to wait: it counts as one."""
        found, said = self.out.get(name), min(fault.retry_after or 0.0, MOST_REST.get(fault.status or 0, LONGEST))
        if found is not None and found.why in _CIRCUITS and began < _put_out_at(found):
            return
        if found is not None and found.why not in _CIRCUITS and now < found.until:
            if now + said > found.until:
                self._set(name, found._replace(until=now + said, why=RESTS, status=fault.status or 0))
            return
        way.throttled += 1
        pause = min(2.0 ** min(way.throttled - 1, 10), LONGEST_THROTTLE)
        wait = max(said, pause) if not said or way.throttled > PATIENT_RESTS else said
        self._set(name, Out(now + wait, RESTS if said else THROTTLED, fault.status or 0, now, way.throttled))

    def _set(self, name: str, found: Out | None, instead_of: Out | None = None) -> None:
        """None: it is in. Whatever trial there was has come to its end. `instead_of`: else nothing is done."""
        if not self._circuits:
            return
        with self._lock:
            if instead_of is not None and self.out.get(name) is not instead_of:
                return
            out = {**self.out}
            if found is None:
                out.pop(name, None)
            else:
                out[name] = found
            self.out = out
            self._trials.pop(name, None)
            if self._board is not None:
                self._changes[name] = found
                self._released.add(name)

    # --- what the probes have seen -----------------------------------------------------------------------------------

    def refuses(self, place: str, status: int) -> None:
        """The provider refuses the credential also for what costs nothing."""
        now = self._clock()
        self._put_out(place, REFUSED, status, now, now)

    def is_away(self, place: str, status: int) -> None:
        if place not in self.out or self.out[place].why == ERRORS:
            now = self._clock()
            self._put_out(place, ERRORS, status, now, now)

    def is_back(self, place: str) -> None:
        """After it was away, or had refused: its ways that are out by errors are half-open."""
        now = self._clock()
        for name, found in self.out.items():
            if name == place:
                self._set(name, None, found)
            elif name.startswith(f"{place}/") and found.why == ERRORS and found.until > now - TRIAL:
                self._set(name, found._replace(until=now - TRIAL), found)

    # --- the thread --------------------------------------------------------------------------------------------------

    def share(self) -> None:
        """A round: forget what is over, tell the other processes what is new here, learn what is new there."""
        self._learn_names()
        self._forget(self._clock())
        if self._board is not None:
            try:
                self._exchange(self._board)
            except RedisError as error:
                self._is_shared = False
                if not self._away:
                    logger.warning("the routes' health is not shared with other processes: %s", error)
                self._away = str(error) or type(error).__name__
            else:
                if self._away:
                    logger.warning("the routes' health is shared again")
                    self._away = ""

    def leads(self, work: str, seconds: float) -> bool:
        """Whether this process has the work that one does for all; for so long after it last asked."""
        if self._board is None:
            return True
        try:
            return self._board.leads(work, seconds)
        except RedisError:  # `share` says so in the log; such work can wait
            return False

    def close(self) -> None:
        """The last round: another process may make the trials of this one."""
        if self._board is None:
            return
        with self._lock:
            self._released.update(self._trials)
        self.share()
        self._board.close()

    def _learn_names(self) -> None:
        catalog = self._catalog() if self._catalog is not None else None
        if catalog is not None and catalog is not self._read and catalog.version >= 0:
            routes = [route for model in catalog.models.values() for route in model.routes]
            self._known = frozenset(name for route in routes for name in (route.provider.place, route.way))
            self._read = catalog
        if self._read is not None:
            for name in set(self._ways) - self._known:
                if not self._ways[name].busy:
                    del self._ways[name]

    def _is_known(self, name: str) -> bool:
        return self._read is None or name in self._known

    def _forget(self, now: float) -> None:
        for name, found in self.out.items():
            if not self._is_known(name):
                with self._lock:
                    self.out = {each: kept for each, kept in self.out.items() if each != name}
            elif now >= found.until + IDLE.get(found.why, 0.0):
                self._set(name, None, found)
            elif found.until - now > SLACK + (LONGEST if found.why in {RESTS, REFUSED} else TRIAL):
                self._set(name, found._replace(until=now), found)  # the clock was put back
        with self._lock:
            for name in self._trials.keys() - self.out.keys():
                del self._trials[name]

    def _exchange(self, board: Board) -> None:
        with self._lock:
            changes, self._changes = self._changes, {}
            released, self._released = self._released, set()
            kept = {} if self._is_shared else self.out
        try:
            theirs = board.exchange(changes, released, kept)
        except RedisError:
            with self._lock:
                self._changes = {**changes, **self._changes}
                self._released |= released
            raise
        strange = [name for name in theirs if not self._is_known(name)]  # of another catalog, or of a former one
        with self._lock:
            for name in strange:
                if self._clock() > theirs.pop(name).until + LONGEST:
                    self._changes[name] = None
        self._adopt(theirs)
        self._is_shared = True
        self._tell_heard(board)
        self._claim(board)

    def _tell_heard(self, board: Board) -> None:
        now = self._clock()
        if 0 <= now - self._told < TELL:
            return
        if new := {place: at for place, at in self._heard().items() if at and at >= self._told}:
            board.hears(new)
        self._told = now

    def _adopt(self, theirs: dict[str, Out]) -> None:
        with self._lock:
            before = self.out
            for name, change in self._changes.items():  # since they were told
                if change is None:
                    theirs.pop(name, None)
                else:
                    theirs[name] = change
            for name, found in theirs.items():
                trials = self._trials.get(name)
                if trials is not None and before.get(name) is not found:
                    trials.passed = 0
            self.out = theirs

    def _claim(self, board: Board) -> None:
        now = self._clock()
        for name, trials in list(self._trials.items()):
            if trials.wanted:
                trials.wanted = False
                if board.claim(name, TRIAL):
                    trials.granted = now
            elif trials.granted is not None and now - trials.granted > UNUSED:
                with self._lock:
                    if trials.granted is not None:  # else it has begun just now
                        trials.granted = None
                        self._released.add(name)
