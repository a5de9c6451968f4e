"""`manage.py keys create|list|revoke|rotate`: API keys without the console. A new key is printed alone on stdout."""

import csv
import json
import re
import time
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from accounts import credits, keys
from accounts.forms import split_names
from accounts.models import Account, ApiKey, BudgetPeriod

OPTIONS = {
    "allowed_models": "models",
    "allowed_groups": "groups",
    "allowed_networks": "ips",
    "expires_at": "expires",
    "budget_period": "budget-period",
}
COLUMNS = (
    *("key", "name", "account", "state", "rps", "rpm", "tpm", "concurrency", "budget", "budget_period", "spent"),
    *("expires", "last_used", "created"),
)
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Command(BaseCommand):
    help = "Create, list, revoke and rotate API keys."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|list|revoke|rotate")
        create = verbs.add_parser("create", help="Make a key and print it: it is shown this once.")
        create.add_argument("--account", required=True, metavar="NAME", help="Who pays; made where it is missing.")
        create.add_argument("--name", default="", metavar="TEXT", help="What or whom the key is for.")
        create.add_argument("--rpm", metavar="N", help="Requests per minute; 0: no limit.")
        create.add_argument("--rps", metavar="N", help="Requests per second; 0: no limit.")
        create.add_argument("--tpm", metavar="N", help="Tokens per minute; 0: no limit.")
        create.add_argument("--concurrency", metavar="N", help="Requests at once; 0: no limit.")
        create.add_argument("--budget", metavar="USD", help="What it may spend, in all or in each period.")
        create.add_argument("--budget-period", metavar="|".join(BudgetPeriod.values), help="Begins at midnight UTC.")
        create.add_argument("--expires", metavar="ISO8601", help="When it ends; UTC where no zone is given.")
        create.add_argument("--models", default="", metavar="A,B", help="Only these models.")
        create.add_argument("--groups", default="", metavar="A,B", help="Only these provider groups.")
        create.add_argument("--ips", default="", metavar="CIDR,CIDR", help="Only from these addresses or networks.")
        create.add_argument(
            "--strict", action="store_true", help="Refuse what would lose a field on its way to another format."
        )
        listing = verbs.add_parser("list", help="All keys, without secrets.")
        listing.add_argument("--format", default="table", metavar="table|json|csv")
        revoke = verbs.add_parser("revoke", help="Switch a key off.")
        revoke.add_argument("prefix", metavar="PREFIX", help="The start of the key.")
        rotate = verbs.add_parser("rotate", help="Make a new key in place of one, and print it.")
        rotate.add_argument("prefix", metavar="PREFIX", help="The start of the key.")
        rotate.add_argument(
            "--grace", default="24h", metavar="24h", help="How long the old one goes on working: s, m, h, d. 0: not."
        )

    def handle(self, *_: Any, **options: Any) -> None:
        verbs = {"create": self.create, "list": self.show, "revoke": self.revoke, "rotate": self.rotate}
        verbs[options["verb"]](Namespace(**options))

    def create(self, options: Namespace) -> None:
        fields: dict[str, object] = {
            "name": options.name,
            "allowed_models": split_names(options.models),
            "allowed_groups": split_names(options.groups),
            "allowed_networks": split_names(options.ips),
            "expires_at": _moment(options.expires),
            "strict": options.strict,
            "budget": _usd(options.budget),
            "budget_period": options.budget_period,
        }
        fields |= {name: _count(name, getattr(options, name)) for name in ("rps", "rpm", "tpm", "concurrency")}
        given = {name: value for name, value in fields.items() if value is not None}
        with transaction.atomic():
            account = _account(options.account)
            try:
                _, text = keys.issue(account, **given)
            except ValidationError as error:
                raise CommandError(_explain(error)) from error
        if options.budget_period and options.budget is None:
            self.stderr.write("--budget-period: without --budget nothing is bounded.")
        if not account.is_active:
            self.stderr.write(f"The account {account.name} is switched off: its keys are refused until it is on.")
        self.stdout.write(text)

    def show(self, options: Namespace) -> None:
        found = list(ApiKey.objects.select_related("account"))
        spent = credits.spent_by(found, time.time())
        rows = [_row(key, spent[key.pk]) for key in found]
        if options.format == "json":
            self.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False))
        elif options.format == "csv":
            writer = csv.DictWriter(self.stdout, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        elif options.format == "table":
            self.stdout.write(_table(rows))
        else:
            raise CommandError(f"--format: {options.format!r} is none of table, json, csv.")

    def revoke(self, options: Namespace) -> None:
        key = _find(options.prefix)
        if not key.is_active:
            self.stdout.write(f"Was off already: {key}")
            return
        key.is_active = False
        key.save(update_fields=["is_active"])
        self.stdout.write(f"Revoked: {key}")

    def rotate(self, options: Namespace) -> None:
        old = _find(options.prefix)
        try:
            _, text = keys.rotate(old, _duration(options.grace))
        except ValidationError as error:
            raise CommandError(_explain(error)) from error
        self.stdout.write(text)
        assert old.expires_at is not None  # rotate() has set it
        self.stderr.write(f"The old key {old.prefix}… ends at {_iso(old.expires_at)}.")


def _account(name: str) -> Account:
    account = Account.objects.filter(name=name.strip()).first() or Account(name=name.strip())
    if account.pk is None:
        try:
            account.full_clean()
        except ValidationError as error:
            raise CommandError(f"--account: {' '.join(error.messages)}") from error
        account.save()
    return account


def _count(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise CommandError(f"--{option}: {text!r} is not a whole number of 0 or more.")
    return int(text)


def _usd(text: str | None) -> Decimal | None:
    try:
        return None if text is None else Decimal(text)
    except InvalidOperation:
        raise CommandError(f"--budget: {text!r} is not an amount in USD, such as 25 or 0.50.") from None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(f"--expires: {text!r} is not a date or time, such as 2030-12-31T23:59Z.") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment <= timezone.now():
        raise CommandError(f"--expires: {text} is past: the key would never work.")
    return moment


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"([0-9]{1,6})([smhd])|0", text.strip())
    if not match:
        raise CommandError(f"--grace: {text!r} is not a duration, such as 30m, 24h or 7d.")
    number, unit = match.groups()
    return timedelta(**{UNITS[unit]: int(number)}) if unit else timedelta(0)


def _explain(error: ValidationError) -> str:
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    return " ".join(f"--{OPTIONS.get(name, name)}: {' '.join(words)}" for name, words in error.message_dict.items())


def _find(text: str) -> ApiKey:
    """The one key that starts like this. A whole key is found by its digest, and never printed back."""
    if keys.well_formed(text):
        found = list(ApiKey.objects.filter(digest=keys.digest(text.encode())).select_related("account"))
        text = text[: keys.SHOWN]
    else:
        start = keys.MARK + text.removeprefix(keys.MARK).rstrip("….")
        if start == keys.MARK:
            raise CommandError("PREFIX: give the start of a key, as `keys list` shows it.")
        # Compared here too: SQLite's LIKE does not tell A from a.
        rows = ApiKey.objects.filter(prefix__startswith=start).select_related("account")
        found = [key for key in rows if key.prefix.startswith(start)]
    if not found:
        raise CommandError(f"PREFIX: no key starts with {text}.")
    if len(found) > 1:
        several = "".join(f"\n  {key.prefix}…  {key.name or 'no name'}, {key.account.name}" for key in found)
        raise CommandError(f"PREFIX: {len(found)} keys start with {text}:{several}")
    return found[0]


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _row(key: ApiKey, spent: Decimal) -> dict[str, str | int | None]:
    return {
        "key": key.prefix,
        "name": key.name,
        "account": key.account.name,
        "state": keys.state(key),
        "rps": key.rps,
        "rpm": key.rpm,
        "tpm": key.tpm,
        "concurrency": key.concurrency,
        "budget": None if key.budget is None else f"{key.budget:f}",
        "budget_period": key.budget_period,
        "spent": f"{spent:f}",
        "expires": _iso(key.expires_at),
        "last_used": _iso(key.last_used_at),
        "created": _iso(key.created_at),
    }


def _cell(value: object) -> str:
    return "-" if value in (None, "") else str(value)


def _table(rows: list[dict[str, str | int | None]]) -> str:
    lines = [
        [name.replace("_", " ") for name in COLUMNS],
        *([_cell(row[name]) for name in COLUMNS] for row in rows),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
