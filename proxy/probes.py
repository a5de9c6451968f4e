"""Whether providers that nobody asks at the moment are there: their lists of models are asked for, which costs nothing.

Never a completion. A thread of `kodna.asgi` calls `round`; with Redis, that of one process at a time. Providers that
`models_catalog.discovery` asks by itself are left to it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from models_catalog.snapshot import DEMO_PROVIDER, Provider, Snapshot
from proxy.health import ERRORS, REFUSED, Health

IDLE = 300.0  # seconds without an answer to a request, after which a provider is asked
TWICE = 2  # it was away so often in a row: it is out
NO_LIST = frozenset({403, 404, 405})  # none, or none for this key: such a provider is left alone
_LEFT_ALONE = 3600.0  # seconds: it may have been a fault
_LEASE = 300.0  # seconds after which another process takes over from one that has died

Ask = Callable[[Provider], int]
"""Ask for the list of models. The status of the answer; 0: there was none."""


@dataclass(slots=True)
class _Place:
    """A provider's credential. `fails_since`: its list. `listed`: it has told its models once.

    `is_out`: because of its list. `is_mute`: its list fails, but requests are answered, or may be: the one says nothing
    of the other. Restricted keys of OpenAI, for one, may not list models.
    """

    asked: float
    failures: int = 0
    fails_since: float = 0.0
    listed: bool = False
    is_out: bool = False
    is_mute: bool = False
    alone_until: float = 0.0


class Probes:
    def __init__(
        self,
        health: Health,
        catalog: Callable[[], Snapshot],
        ask: Ask,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._health = health
        self._catalog = catalog
        self._ask = ask
        self._clock = clock
        self._places: dict[str, _Place] = {}
        self._heard: dict[str, float] = {}  # as this round began

    def round(self) -> None:
        if not self._health.leads("probes", _LEASE):
            return
        known = {provider.place: provider for provider in _providers(self._catalog())}
        self._places = {
            place: self._places.get(place) or _Place(asked=self._clock()) for place in known
        }  # what has just been added to the catalog has its first requests before it
        self._heard = self._health.heard(known)
        silent: set[str] = set()  # addresses at which nobody answers: not whatever the credential
        for place, found in self._places.items():
            provider = known[place]
            if self._is_due(place, found):
                status = 0 if provider.base_url in silent else self._ask(provider)
                if not status:
                    silent.add(provider.base_url)
                self._judge(place, found, status)

    def _is_due(self, place: str, found: _Place) -> bool:
        now, out = self._clock(), self._health.out
        if now < found.alone_until:
            return False
        if (own := out.get(place)) is not None and own.why == REFUSED:
            return now >= own.until
        if (found.failures and not found.is_mute) or own is not None:
            return True
        if any(name.startswith(f"{place}/") and each.why == ERRORS for name, each in out.items()):
            return True
        return now - max(found.asked, self._heard.get(place, 0.0)) >= IDLE

    def _judge(self, place: str, found: _Place, status: int) -> None:
        found.asked = self._clock()
        if status in NO_LIST:
            found.alone_until = found.asked + _LEFT_ALONE
        if status == 401 or not 0 < status < 500:
            self._fails(place, found, status)
        else:
            self._answers(place, found, status)

    def _fails(self, place: str, found: _Place, status: int) -> None:
        found.failures += 1
        if found.failures == 1:
            found.fails_since = found.asked
        heard, is_refused = self._heard.get(place, 0.0), status == 401
        is_contradicted = heard > found.fails_since or (found.is_out and place not in self._health.out)
        has_never_worked = not found.listed and bool(heard if is_refused else status)
        if is_contradicted or has_never_worked:
            found.is_mute = True
        if found.is_mute or not (is_refused or found.failures >= TWICE):
            return
        if is_refused:
            self._health.refuses(place, status)
        else:
            self._health.is_away(place, status)
        found.is_out = True

    def _answers(self, place: str, found: _Place, status: int) -> None:
        was_out, was_away = found.is_out, found.is_out or found.failures >= TWICE
        found.failures, found.is_out, found.is_mute = 0, False, False
        found.listed = found.listed or status == 200
        own = self._health.out.get(place)
        if own is not None and own.why == REFUSED:
            if was_out and status == 200:
                self._health.is_back(place)
        elif was_away or own is not None:  # put out by a process that has died since
            self._health.is_back(place)


def _providers(catalog: Snapshot) -> list[Provider]:
    found = (route.provider for model in catalog.models.values() for route in model.routes)
    return [provider for provider in found if not provider.discovers and provider.name != DEMO_PROVIDER]
