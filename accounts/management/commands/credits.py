"""`manage.py credits grant|balance|audit`: the ledger without the console. A balance is printed alone on stdout."""

import getpass
import shlex
from argparse import Namespace
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import credits
from accounts.models import Account

OPTIONS = {"amount": "USD", "note": "--note"}


class Command(BaseCommand):
    help = "Grant credit, show a balance, and audit the ledger."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="grant|balance|audit")
        grant = verbs.add_parser("grant", help="Add to an account's balance, and print it.")
        grant.add_argument("account", metavar="ACCOUNT", help="Its name.")
        grant.add_argument("usd", metavar="USD", help="Up to 12 decimals. Negative: take from the balance.")
        grant.add_argument("--note", default="", metavar="TEXT", help="Kept with the entry.")
        balance = verbs.add_parser("balance", help="Print an account's balance in USD.")
        balance.add_argument("account", metavar="ACCOUNT", help="Its name.")
        verbs.add_parser("audit", help="Recompute every balance from its entries; exit 1 on a difference.")

    def handle(self, *_: Any, **options: Any) -> None:
        verbs = {"grant": self.grant, "balance": self.balance, "audit": self.audit}
        verbs[options["verb"]](Namespace(**options))

    def grant(self, options: Namespace) -> None:
        account = _account(options.account)
        was = account.billing
        try:
            credits.grant(account, _amount(options.usd), options.note, _operator())
        except ValidationError as error:
            words = [f"{OPTIONS[name]}: {' '.join(said)}" for name, said in error.message_dict.items()]
            raise CommandError(" ".join(words)) from error
        if account.billing != was:
            self.stderr.write(f"The account {account.name} was unmetered: it is prepaid now.")
        self.stdout.write(f"{credits.balance(account.pk):f}")

    def balance(self, options: Namespace) -> None:
        self.stdout.write(f"{credits.balance(_account(options.account).pk):f}")

    def audit(self, _: Namespace) -> None:
        found = credits.audit()
        for each in found:
            self.stderr.write(
                f"{each.subject}: kept {each.kept:f} USD, by its entries {each.entries:f} USD, "
                f"difference {each.kept - each.entries:f} USD"
            )
        if found:
            raise CommandError(f"{len(found)} difference{'' if len(found) == 1 else 's'}.")
        self.stdout.write("Every sum is that of its entries.")


def _account(name: str) -> Account:
    account = Account.objects.filter(name=name.strip()).first()
    if account is None:
        words = f"manage.py keys create --account {shlex.quote(name)}"
        raise CommandError(f"ACCOUNT: there is no account {name!r}. It is made with its first key: {words}")
    return account


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text.replace("_", " "))  # `1_000`, a slip, is a number to Python
    except InvalidOperation:
        raise CommandError(f"USD: {text!r} is not an amount, such as 25 or 0.50.") from None


def _operator() -> str:
    """Who has a shell here, as the entry names an operator of the console."""
    try:
        return f"{getpass.getuser()} (manage.py)"
    except (KeyError, OSError):  # a container's user without a name
        return "manage.py"
