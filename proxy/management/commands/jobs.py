"""`manage.py jobs list|run NAME`: the periodic jobs, when they ran last, and one of them now."""

from argparse import Namespace
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from proxy import jobs

COLUMNS = ("job", "every", "state", "finished, UTC", "took", "next, UTC", "result")


class Command(BaseCommand):
    help = "List the periodic jobs, or run one now."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|run")
        verbs.add_parser("list", help="All jobs: when they ran last, and what came of it.")
        run = verbs.add_parser("run", help="Run a job now, whether it is due or not.")
        run.add_argument("name", metavar="NAME", help="As `jobs list` shows it.")

    def handle(self, *_: Any, **options: Any) -> None:
        {"list": self.show, "run": self.run_now}[options["verb"]](Namespace(**options))

    def show(self, _: Namespace) -> None:
        lines = [COLUMNS, *(_row(status) for status in jobs.statuses())]
        widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self.stdout.write("  ".join(cells).rstrip())

    def run_now(self, options: Namespace) -> None:
        if options.name not in settings.JOBS:
            raise CommandError(f"NAME: no job {options.name!r}; there are {', '.join(settings.JOBS)}.")
        done = jobs.run(options.name)
        if done is None:
            raise CommandError(f"{options.name} is being run by another process: see `jobs list`.")
        if done.failed:
            raise CommandError(f"{options.name} failed: {done.result}")
        self.stdout.write(f"{options.name}: {done.result}")


def _row(status: jobs.Status) -> tuple[str, ...]:
    state = f"running at {status.runner}" if status.runner else status.state
    finished = f"{status.finished:%Y-%m-%d %H:%M:%S}" if status.finished else "-"
    took = f"{status.took.total_seconds():.1f} s" if status.took is not None else "-"
    again = f"{status.again:%Y-%m-%d %H:%M:%S}" if status.again else "-" if status.runner else "now"
    return status.name, jobs.every(status.seconds), state, finished, took, again, status.result or "-"
