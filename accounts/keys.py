"""API keys: how they look, how they are kept, and the frozen table in which the hot path finds them.

A key is `sk-kodna-` + 37 random characters base62 + a checksum of 6: a mistyped one is refused without a look-up, and
secret scanners can tell one. Callers: the admin, `manage.py keys`, and `proxy`.
"""

import hmac
import ipaddress
import secrets
import string
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import Account, ApiKey, KeysVersion

MARK = "sk-kodna-"
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
RANDOM = 37
CHECKSUM = 6
MOST_SEEN = 10_000
SHOWN = len(MARK) + 8  # how much of a key is kept readable
SOON = timedelta(days=7)  # a key that ends within this is "expiring"

_PEPPER = settings.KEY_PEPPER

KEY_HEADERS = (b"x-api-key", b"x-goog-api-key")  # of Anthropic's clients, and of Google's
# Why a request is refused: one set of words for both doors, `proxy.ingress` and `accounts.drf_auth`.
NO_KEY = "No API key. Send it as `Authorization: Bearer sk-kodna-…`, `x-api-key` or `x-goog-api-key`."
NOT_A_KEY = "This is not a key of this service: check that it was copied whole."
UNKNOWN = "This API key is not known or was revoked."
OFF, EXPIRED = "This API key is switched off.", "This API key has expired."
ELSEWHERE = "This API key may not be used from this address."

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NANODOLLARS = 10**9


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits


def make() -> str:
    body = "".join(secrets.choice(BASE62) for _ in range(RANDOM))
    return MARK + body + _checksum(MARK + body)


def well_formed(key: str) -> bool:
    return (
        key.startswith(MARK)
        and len(key) == len(MARK) + RANDOM + CHECKSUM
        and key.isascii()
        and _checksum(key[:-CHECKSUM]) == key[-CHECKSUM:]
    )


def credential(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What a request brings as its key: `Authorization: Bearer`, `x-api-key` or `x-goog-api-key`. Names are lower."""
    text = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, found = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return bytes(found.strip())
        elif name in KEY_HEADERS:
            text = bytes(value.strip())
    return text


def digest(key: bytes) -> bytes:
    return hmac.digest(_PEPPER, key, "sha256")


# --- control plane ---------------------------------------------------------------------------------------------------


def issue(account: Account, **fields: object) -> tuple[ApiKey, str]:
    """A new key and its text, which is to be shown now or never. Raises `ValidationError` that names the field."""
    key = ApiKey(account=account, **fields)
    return key, seal(key)


def seal(key: ApiKey) -> str:
    """Give an unsaved key its secret, save it, and return the secret."""
    text = make()
    key.prefix, key.digest = text[:SHOWN], digest(text.encode())
    key.full_clean()
    key.save()
    return text


def rotate(old: ApiKey, grace: timedelta) -> tuple[ApiKey, str]:
    """A new key with the old one's rights and limits; the old one works until `grace` is over. Their budget is one.

    Raises `ValidationError` for a key that no longer works: the new one would bring a refused client back, or, with
    the old one's expiry, never work.
    """
    if not old.is_active:
        raise ValidationError("This key is switched off: enable it first, or make a new one.")
    if old.is_expired:
        raise ValidationError("This key has expired: make a new one.")
    limits = ("rps", "rpm", "tpm", "concurrency", "budget", "budget_period")
    copied = ("name", "notes", "allowed_models", "allowed_groups", "allowed_networks", "strict", *limits)
    with transaction.atomic():
        fields = {name: getattr(old, name) for name in copied}
        fields |= {"expires_at": old.expires_at, "rotated_from": old, "spends_as": old.spends_as or old.pk}
        new, text = issue(old.account, **fields)
        end = timezone.now() + grace
        if old.expires_at is None or old.expires_at > end:
            old.expires_at = end
            old.save(update_fields=["expires_at"])
    return new, text


def state(key: ApiKey) -> str:
    """One of: active, expiring, expired, off, account off."""
    if not key.is_active:
        return "off"
    if not key.account.is_active:
        return "account off"
    if key.is_expired:
        return "expired"
    if key.expires_at is not None and key.expires_at <= timezone.now() + SOON:
        return "expiring"
    return "active"


def touch(used: dict[int, datetime]) -> None:
    """Note when keys (by id) were last used, at most once a minute each. Raises no version: nothing else changed."""
    latest = dict(ApiKey.objects.filter(pk__in=used).values_list("pk", "last_used_at"))
    for key_id, moment in used.items():
        before = moment - timedelta(minutes=1)
        if key_id in latest and (latest[key_id] or before) <= before:
            stale = Q(last_used_at=None) | Q(last_used_at__lte=before)
            ApiKey.objects.filter(stale, pk=key_id).update(last_used_at=moment)


# --- data plane ------------------------------------------------------------------------------------------------------


class Limit(NamedTuple):
    """`subject`: whose it is, as `key:7`, `account:3`, `model:gpt-4o`. `kind`: rps, rpm, tpm or concurrency."""

    subject: str
    kind: str
    value: int


class Rates(NamedTuple):
    """Requests per second and minute, tokens per minute, requests at once; 0: no limit."""

    rps: int = 0
    rpm: int = 0
    tpm: int = 0
    concurrency: int = 0

    def of(self, subject: str) -> tuple[Limit, ...]:
        """In the order in which they are checked."""
        kinds = (("concurrency", self.concurrency), ("rps", self.rps), ("rpm", self.rpm), ("tpm", self.tpm))
        return tuple(Limit(subject, kind, value) for kind, value in kinds if value)


NO_RATES = Rates()


def least(*limits: int) -> int:
    """The smallest of limits; 0: there is none."""
    return min(filter(None, limits), default=0)


@dataclass(frozen=True, slots=True)
class Key:
    """What a request needs to know of its key. Limits: 0 = none; `expires` in seconds since the epoch, 0 = never.

    `strict`: what would lose a field on its way is refused. `zero_retention`: nothing is kept of what is said.
    `budget`: nanodollars in its `period` (`BudgetPeriod`), None: no bound. `billing`: the account's; `ceiling`:
    nanodollars. `limits`: the key's own and its account's; `least_tpm`: the smallest of their limits of tokens.
    """

    id: int
    name: str
    prefix: str
    account_id: int
    account: str
    is_active: bool
    expires: float
    models: frozenset[str]
    groups: frozenset[str]
    networks: tuple[Network, ...]
    rps: int
    rpm: int
    concurrency: int
    strict: bool = False
    zero_retention: bool = False
    tpm: int = 0
    budget: int | None = None
    period: str = "total"
    spends_as: int | None = None
    billing: str = "unmetered"
    ceiling: int = 0
    account_rates: Rates = NO_RATES
    limits: tuple[Limit, ...] = field(init=False, compare=False)
    least_tpm: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        own = Rates(self.rps, self.rpm, self.tpm, self.concurrency).of(f"key:{self.id}")
        object.__setattr__(self, "limits", own + self.account_rates.of(f"account:{self.account_id}"))
        object.__setattr__(self, "least_tpm", least(self.tpm, self.account_rates.tpm))

    @property
    def spender(self) -> int:
        """The key, or the one that it was rotated from, whose budget it spends."""
        return self.spends_as or self.id

    @property
    def is_metered(self) -> bool:
        return self.billing != "unmetered"

    def trouble(self) -> str:
        """Why it cannot be used now, wherever from; empty: it can."""
        if not self.is_active:
            return OFF
        return EXPIRED if self.expires and self.expires <= time.time() else ""

    def admits(self, address: str) -> bool:
        """Whether the key may be used from this IP address."""
        if not self.networks:
            return True
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class KeyTable:
    """`seen`: credentials that were found in this table, so that a busy client's HMAC is made once."""

    version: int
    by_digest: dict[bytes, Key]
    anonymous: Key | None  # whose name requests without a key run under, where that is allowed
    seen: dict[bytes, Key] = field(default_factory=dict)

    def all(self) -> list[Key]:
        return [*self.by_digest.values(), *([self.anonymous] if self.anonymous else [])]

    def find(self, credential: bytes) -> Key | None:
        key = self.seen.get(credential)
        if key is None:
            key = self.by_digest.get(digest(credential))
            if key is not None and len(self.seen) < MOST_SEEN:
                self.seen[credential] = key
        return key


def version() -> int:
    return KeysVersion.objects.filter(pk=1).values_list("version", flat=True).first() or 0


def load() -> KeyTable:
    """Read all keys from the database. The version is read first, so that a change in between is seen next time."""
    current = version()
    rows = ApiKey.objects.select_related("account").exclude(expires_at__lt=timezone.now())
    return KeyTable(current, {bytes(row.digest): freeze(row) for row in rows.iterator()}, anonymous())


def freeze(row: ApiKey) -> Key:
    return Key(
        id=row.pk,
        name=row.name,
        prefix=row.prefix,
        account_id=row.account_id,
        account=row.account.name,
        is_active=row.is_active and row.account.is_active,
        expires=row.expires_at.timestamp() if row.expires_at else 0,
        models=_names(row.allowed_models),
        groups=_names(row.allowed_groups),
        networks=tuple(ipaddress.ip_network(network) for network in row.allowed_networks),
        rps=row.rps,
        rpm=row.rpm,
        concurrency=row.concurrency,
        strict=row.strict,
        zero_retention=row.account.zero_retention,
        tpm=row.tpm,
        budget=None if row.budget is None else int(row.budget * NANODOLLARS),
        period=row.budget_period,
        spends_as=row.spends_as,
        billing=row.account.billing,
        ceiling=int(row.account.ceiling * NANODOLLARS),
        account_rates=_rates(row.account),
    )


def _rates(account: Account) -> Rates:
    return Rates(account.rps, account.rpm, account.tpm, account.concurrency)


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


def anonymous() -> Key | None:
    if not settings.ALLOW_NO_AUTH:
        return None
    account, _ = Account.objects.get_or_create(name="anonymous")
    nobody: frozenset[str] = frozenset()
    return Key(
        *(0, "anonymous", "", account.pk, account.name, account.is_active, 0, nobody, nobody, (), 0, 0, 0),
        zero_retention=account.zero_retention,
        billing=account.billing,
        ceiling=int(account.ceiling * NANODOLLARS),
        account_rates=_rates(account),
    )
