"""`manage.py catalog load|export|import`: the catalog as a file."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from models_catalog import catalog_file, catalog_yaml, importers


class Command(BaseCommand):
    help = "Load the catalog from a file, write it as a file, or import another gateway's configuration."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        load = verbs.add_parser("load", help="make the catalog what a file says")
        load.add_argument("file", nargs="?", help="a catalog file; - for standard input")
        load.add_argument("--builtin", action="store_true", help="the catalog that comes with Kodna")
        load.add_argument("--prune", action="store_true", help="remove what the file does not name")
        load.add_argument("--dry-run", action="store_true", help="print the difference, change nothing")
        verbs.add_parser("export", help="write the catalog as such a file to standard output")
        bring = verbs.add_parser("import", help="convert another gateway's configuration into this catalog")
        bring.add_argument("file", help="its configuration; - for standard input")
        bring.add_argument("--from", dest="source", required=True, choices=sorted(importers.SOURCES))
        bring.add_argument("--dry-run", action="store_true", help="print the difference, change nothing")

    def handle(self, *_: Any, verb: str, **options: Any) -> None:
        if verb == "export":
            self.stdout.write(catalog_file.export(), ending="")
        elif verb == "load":
            self.load(**options)
        else:
            self.bring(**options)

    def load(self, file: str | None, builtin: bool, prune: bool, dry_run: bool, **_: Any) -> None:
        if builtin == bool(file):
            raise CommandError("give a FILE or --builtin")
        try:
            data = catalog_file.builtin_data(settings.DEMO) if builtin else catalog_yaml.read(_source(str(file)))
            changes = catalog_file.load(data, dry_run=dry_run, prune=prune)
        except catalog_file.Invalid as invalid:
            raise _refusal(file or "the built-in catalog", invalid) from None
        self.report(changes, dry_run)

    def bring(self, file: str, source: str, dry_run: bool, **_: Any) -> None:
        try:
            data, notes = importers.SOURCES[source](_source(file))
            changes = catalog_file.load(catalog_file.over_current(data), dry_run=dry_run)
        except catalog_file.Invalid as invalid:
            raise _refusal(file, invalid) from None
        for note in notes:
            self.stderr.write(f"not carried over: {note}")
        self.report(changes, dry_run)

    def report(self, changes: list[str], dry_run: bool) -> None:
        for line in changes:
            self.stdout.write(line)
        if not changes:
            self.stdout.write("nothing to change")
            return
        signs = [line[0] for line in changes]
        counts = f"{signs.count('+')} added, {signs.count('~')} changed, {signs.count('-')} removed"
        self.stdout.write(f"{counts}{': a dry run, nothing was written' if dry_run else ''}")


def _source(file: str) -> bytes:
    most = catalog_yaml.MAX_BYTES + 1  # one more than is allowed shows that it is too large
    try:
        if file == "-":
            return sys.stdin.buffer.read(most)
        with Path(file).open("rb") as source:
            return source.read(most)
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror or error}") from None


def _refusal(file: str, invalid: catalog_file.Invalid) -> CommandError:
    count = len(invalid.faults)
    head = f"{file}: {count} fault{'s' if count != 1 else ''}, nothing was changed"
    return CommandError("\n  ".join([head, *invalid.faults]))
