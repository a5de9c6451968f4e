"""What is out for long, in the database, so that operators see it: refused credentials and open circuits.

A thread of each gateway process writes what that process knows (`Troubles.write`); the job `notice-providers` makes
notices of it (`notice`). No secret is in it: a credential goes by its name.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby

from django.utils import timezone

from accounts import notices
from accounts.notices import Case
from models_catalog.snapshot import EMPTY, Provider, Snapshot
from proxy.health import ERRORS, REFUSED, Health, Out
from proxy.models import RouteTrouble

SECONDS = 2.0  # between two looks
RENEW = timedelta(seconds=30)
SILENT = timedelta(minutes=2)  # after which nobody says so any more: its process has died
DOWN = timedelta(minutes=5)  # what is shorter is no news
DOWN_TIMES = 3  # in a row: a burst of errors that nobody has tried again since is none either
NO_CREDIT = 402
FEW = 3  # routes of one credential that are told of one by one
_LONGEST_SUBJECT = 100


class Troubles:
    """Of one process. Only its thread calls it."""

    def __init__(self, health: Health, catalog: Callable[[], Snapshot]) -> None:
        self._health = health
        self._catalog = catalog
        self._read = EMPTY
        self._names: dict[str, tuple[Provider, str]] = {}
        self._written: dict[str, tuple[Out, datetime]] = {}

    def write(self) -> None:
        """Raises `DatabaseError`; it is made up for by the next round."""
        now, names = timezone.now(), self._named()
        out = {name: found for name, found in self._health.out.items() if found.why in {ERRORS, REFUSED}}
        here = {name: found for name, found in out.items() if name in names}
        new = {name: found for name, found in here.items() if self._is_news(name, found, now)}
        if new:
            RouteTrouble.objects.bulk_create(
                [_row(name, found, *names[name], now) for name, found in new.items()],
                update_conflicts=True,
                unique_fields=["name"],
                update_fields=["provider", "credential", "why", "status", "times", "since", "until", "seen_at"],
            )
        self._written |= {name: (found, now) for name, found in new.items()}
        over = self._written.keys() - here.keys()
        if over:
            RouteTrouble.objects.filter(name__in=over).delete()
            for name in over:
                del self._written[name]

    def _is_news(self, name: str, found: Out, now: datetime) -> bool:
        before = self._written.get(name)
        return before is None or before[0] is not found or now - before[1] >= RENEW

    def _named(self) -> dict[str, tuple[Provider, str]]:
        """Of the catalog's ways and places: the provider, and its name for the model."""
        catalog = self._catalog()
        if catalog is not self._read:
            routes = [route for model in catalog.models.values() for route in model.routes]
            self._names = {route.provider.place: (route.provider, "") for route in routes}
            self._names |= {route.way: (route.provider, route.model) for route in routes}
            self._read = catalog
        return self._names


def _row(name: str, found: Out, provider: Provider, model: str, now: datetime) -> RouteTrouble:
    return RouteTrouble(
        name=name,
        provider=provider.name,
        credential=provider.credential_name,
        model=model,
        why=found.why,
        status=found.status,
        times=found.times,
        since=datetime.fromtimestamp(found.since, UTC),
        until=datetime.fromtimestamp(found.until, UTC),
        seen_at=now,
    )


# --- notices ---------------------------------------------------------------------------------------------------------


def notice() -> str:
    """The job: what stands is told to the operator once."""
    now = timezone.now()
    RouteTrouble.objects.filter(seen_at__lt=now - SILENT).delete()
    refused = RouteTrouble.objects.filter(why=REFUSED)
    down = RouteTrouble.objects.filter(why=ERRORS, since__lte=now - DOWN, times__gte=DOWN_TIMES)
    told = [
        notices.stand(notices.Kind.CREDENTIAL_REFUSED, dict(_cases(refused, _refused))),
        notices.stand(notices.Kind.ROUTE_DOWN, dict(_cases(down, _down))),
    ]
    return f"credentials: {told[0]}; routes: {told[1]}"


def _cases(rows: Iterable[RouteTrouble], words: Callable[[RouteTrouble, str], str]) -> Iterator[tuple[str, Case]]:
    """One for each; one for all of a credential's, where it is out as a whole or there are many."""
    for place, group in groupby(sorted(rows, key=_place), key=_place):
        mine = list(group)
        first = min(mine, key=lambda row: row.since)
        whole = next((row for row in mine if not row.model), None)
        if whole is not None:
            yield place, _case(whole, words(whole, "all of its models"), "")
        elif len(mine) > FEW:
            yield f"{place}/", _case(first, words(first, f"{len(mine)} of its models"), "")
        else:
            for row in mine:
                yield _subject(row.name), _case(row, words(row, row.model), row.model)


def _place(row: RouteTrouble) -> str:
    return row.name.partition("/")[0]


def _subject(name: str) -> str:
    if len(name) <= _LONGEST_SUBJECT:
        return name
    return f"{name[:_LONGEST_SUBJECT]}…{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def _case(row: RouteTrouble, text: str, model: str) -> Case:
    named = {"provider": row.provider, "credential": row.credential, "model": model}
    return Case(None, text, {**named, "status": row.status, "since": row.since.isoformat()})


def _refused(row: RouteTrouble, models: str) -> str:
    who = f"its credential {row.credential!r}" if row.credential else "its credential"
    if row.status == NO_CREDIT:
        words = f"says that the account of {who} has nothing left to pay with,"
    else:
        words = f"refuses {who}" + (f" with status {row.status}" if row.status else "")
    return f"The provider {row.provider} {words} for {models} since {row.since:%Y-%m-%d %H:%M} UTC."


def _down(row: RouteTrouble, models: str) -> str:
    said = f"its last answer had status {row.status}" if row.status else "it gives no answer"
    who = f" (its credential {row.credential!r})" if row.credential else ""
    return f"The provider {row.provider}{who} fails for {models} since {row.since:%Y-%m-%d %H:%M} UTC: {said}."
