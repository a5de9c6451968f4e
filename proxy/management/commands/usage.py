"""`manage.py usage report`: who used what, by model, key, account, provider and day. The console shows the same."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from proxy import reports
from proxy.reports import DIMENSIONS, Question, Report, Unreadable

WRITERS: dict[str, Callable[[Report], str]] = {
    "table": reports.as_table,
    "csv": reports.as_csv,
    "json": lambda report: reports.as_json(report).decode(),
}


class Command(BaseCommand):
    help = "Report what was used, and what it cost."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="report")
        report = verbs.add_parser("report", help="Requests, errors, tokens and cost, summed.")
        report.add_argument("--by", default="model", metavar="A,B", help=f"A row for each of: {', '.join(DIMENSIONS)}.")
        report.add_argument("--since", default="", metavar="D", help="A date or a moment. Without: from the beginning.")
        report.add_argument("--until", default="", metavar="D", help="A date (with that day) or a moment.")
        report.add_argument("--tz", default="UTC", metavar="ZONE", help="Whose days they are, as Europe/Berlin.")
        report.add_argument("--account", metavar="NAME", help="Of this account only.")
        report.add_argument("--key", metavar="PREFIX", help="Of this key only: the start of it.")
        report.add_argument("--format", default="table", metavar="table|csv|json")

    def handle(self, *_: Any, **options: Any) -> None:
        asked = Namespace(**options)
        if asked.format not in WRITERS:
            raise CommandError(f"--format: {asked.format!r} is none of {', '.join(WRITERS)}.")
        try:
            question = self._question(asked)
        except Unreadable as wrong:
            raise CommandError(f"--{wrong.name}: {wrong.message}") from None
        self.stdout.write(WRITERS[asked.format](reports.answer(question)).rstrip("\n"))

    def _question(self, asked: Namespace) -> Question:
        question = reports.read(asked.by, asked.since, asked.until, asked.tz)
        accounts = None if asked.account is None else reports.account_ids(asked.account)
        keys = None if asked.key is None else reports.key_ids(asked.key)
        if accounts is not None and not accounts:
            self.stderr.write(f"Nothing was used by an account of the name {asked.account!r}.")
        if keys is not None and not keys:
            self.stderr.write("Nothing was used with a key that starts so.")
        return replace(question, accounts=accounts, keys=keys)
