"""Coding agents finish a task through a gateway, on models behind other dialects than their own.

    python -m tests.agents.run [AGENT …] [--behind DIALECT …]

Each agent is installed once (`install`), and run headless as its users would, with a home and a project of its own:
the model has it write two files by its own tools, at once, and then says a last sentence. Asked for: both files to
the byte, the sentence on its standard output, exit code 0. Then once more with a key that was mistyped: it must say so.
Exit code 1 on a failure; with `CI=true` also where an agent could not be installed.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.agents.install import MissingError, install
from tests.agents.roster import AGENTS, Agent, Command, Work
from tests.agents.scripted import FILES, FINAL, Scripted
from tests.gateway import Gateway
from tests.processes import clean_environment
from tests.providers import DIALECTS
from tests.sdk.any_provider.door import model_name, providers_catalog

TASK_SECONDS, REFUSED_SECONDS = 120, 30  # one that tries a refused key again and again is not fit for its user
SCENARIO = "thinking"  # the model under which the providers look after the signatures of their thoughts
WRONG_KEY = "a wrong key"
CI = os.environ.get("CI") == "true"


@dataclass(frozen=True)
class Ran:
    """What an agent left behind. `code` None: it did not come to an end."""

    code: int | None
    seconds: float
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Row:
    agent: Agent
    behind: str
    faults: list[str]
    seconds: float


@dataclass
class House:
    """What is running: one gateway, in front of one scripted provider that speaks every dialect."""

    folder: Path
    gateway: Gateway
    providers: Scripted
    key: str

    def work(self, agent: Agent, dialect: str, key: str) -> Work:
        name = f"{agent.name}-{dialect}" if key == self.key else f"{agent.name}-refused"
        work = Work(self.folder / name, self.gateway.url, key, _model(agent, dialect))
        for folder in (work.home, work.project, work.folder / "tmp"):
            folder.mkdir(parents=True)
        self.providers.begin(work.project)
        return work

    def wrong_key(self) -> tuple[str, str]:
        """A mistyped one, and what the gateway says of it."""
        key = self.key[:-1] + ("a" if self.key[-1] != "a" else "b")
        with self.gateway.client(key) as client:
            answer = client.post("/v1/chat/completions", json={})
        assert answer.status_code == 401, f"a wrong key is answered with {answer.status_code}"
        return key, answer.json()["error"]["message"]

    def complaints(self) -> list[str]:
        """What the gateway should not have said since it was last asked."""
        said = self.gateway.new_log()
        return [f"the gateway's log: {said[-2000:]}"] if "Traceback" in said or not self.gateway.is_running else []


def _model(agent: Agent, dialect: str) -> str:
    return f"{agent.model}-{dialect}" if agent.model else model_name(dialect, SCENARIO)


def _catalog(providers: Scripted) -> dict[str, object]:
    """Names that an agent knows are aliases."""
    named = {_model(agent, dialect): dialect for agent in AGENTS.values() if agent.model for dialect in DIALECTS}
    aliases = {name: model_name(dialect, SCENARIO) for name, dialect in named.items()}
    return {**providers_catalog(providers), "aliases": aliases}


@contextlib.contextmanager
def open_house() -> Iterator[House]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kodna-agents-"))).resolve()
        providers = stack.enter_context(Scripted())
        (folder / "data").mkdir()
        gateway = Gateway(folder / "data")
        gateway.migrate()
        key = gateway.set_up(_catalog(providers))
        yield House(folder, stack.enter_context(gateway), providers, key)


def run(program: Path, command: Command, work: Work, seconds: float) -> Ran:
    """The agent, from its start to the end of all that it started."""
    chosen = {"HOME": str(work.home), "TMPDIR": str(work.folder / "tmp"), "LANG": "C.UTF-8", "TERM": "dumb"}
    environment = {**clean_environment(), **chosen, **command.variables}
    del environment["PYTHONPATH"]  # an agent in Python would take our packages for its own
    out, err = work.folder / "stdout", work.folder / "stderr"  # files: what it leaves running cannot hold them up
    began = time.monotonic()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [program, *command.arguments],
            cwd=work.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        code = _end(process, seconds)
    took = time.monotonic() - began
    return Ran(code, took, *(path.read_text(encoding="utf-8", errors="replace") for path in (out, err)))


def _end(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it left nothing behind
        process.wait()


def finish_task(agent: Agent, program: Path, house: House, dialect: str) -> Row:
    work = house.work(agent, dialect, house.key)
    ran = run(program, agent.command(work), work, TASK_SECONDS)
    faults = [f"the provider refused: {refused.message}" for refused in house.providers.refused]
    spoken = {asked.dialect for asked in house.providers.asked}
    if spoken != {dialect}:
        faults.append(f"the provider was asked in {sorted(spoken) or 'no dialect'}")
    faults += [fault for name, text in FILES.items() if (fault := _file_fault(work.project / name, text))]
    if FINAL not in ran.stdout:
        faults.append("it did not print the last sentence")
    return _row(agent, dialect, ran, 0, faults + house.complaints())


def _file_fault(path: Path, text: str) -> str:
    if not path.exists():
        return f"{path.name} is not there"
    found = path.read_text(encoding="utf-8", errors="replace")
    return "" if found == text else f"{path.name} holds {found!r}"


def report_wrong_key(agent: Agent, program: Path, house: House) -> Row:
    key, message = house.wrong_key()
    work = house.work(agent, agent.dialect, key)
    ran = run(program, agent.command(work), work, REFUSED_SECONDS)
    faults = ["the provider was asked"] if house.providers.requests else []
    if _one_line(message) not in _one_line(ran.stdout + ran.stderr):
        faults.append(f"it did not say: {message}")
    return _row(agent, WRONG_KEY, ran, agent.code_when_refused, faults + house.complaints())


def _one_line(text: str) -> str:
    """Some wrap their lines; some show the error's JSON as a string in JSON."""
    return re.sub(r"[\s\\]+", " ", text)


def _row(agent: Agent, behind: str, ran: Ran, code: int, faults: list[str]) -> Row:
    if ran.code is None:
        faults = ["it did not come to an end", *faults]
    elif ran.code != code:
        faults = [f"it ended with {ran.code}", *faults]
    if faults:
        faults += [f"its {name}: {text[-1500:]}" for name in ("stdout", "stderr") if (text := getattr(ran, name))]
    row = Row(agent, behind, faults, ran.seconds)
    print(f"agents: {_words(row)}", file=sys.stderr, flush=True)
    return row


def _words(row: Row) -> str:
    good = "said so" if row.behind == WRONG_KEY else "finished"
    cells = (row.agent.name, row.agent.version, row.agent.dialect, row.behind, "FAILED" if row.faults else good)
    widths = (14, 9, 10, 12, 9)
    padded = [text.ljust(width) for text, width in zip(cells, widths, strict=True)]
    return " ".join([*padded, f"{row.seconds:6.1f} s"])


def report(rows: list[Row], left_out: dict[str, str]) -> str:
    lines = ["agent          version   speaks     behind       result      time"]
    lines += [_words(row) for row in rows]
    for row in rows:
        lines += [f"\n{row.agent.name}, {row.behind}: {fault}" for fault in row.faults]
    lines += [f"\nleft out: {name}: {reason}" for name, reason in left_out.items()]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.agents.run")
    parser.add_argument("agents", nargs="*", metavar="AGENT", help=f"of {', '.join(AGENTS)}")
    parser.add_argument("--behind", nargs="+", choices=DIALECTS, help="default: all but the agent's own")
    options = parser.parse_args()
    if unknown := set(options.agents) - set(AGENTS):
        parser.error(f"no such agent: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that what was started is stopped
    programs, left_out = {}, {}
    for name in options.agents or AGENTS:
        try:
            programs[name] = install(AGENTS[name])
        except MissingError as reason:
            left_out[name] = str(reason)
    rows = []
    with open_house() as house:
        for name, program in programs.items():
            agent = AGENTS[name]
            behind = options.behind or [dialect for dialect in DIALECTS if dialect != agent.dialect]
            rows += [finish_task(agent, program, house, dialect) for dialect in behind]
            if not agent.model:  # a model's name changes nothing there
                rows.append(report_wrong_key(agent, program, house))
    print(report(rows, left_out))
    return 1 if any(row.faults for row in rows) or (CI and left_out) else 0


if __name__ == "__main__":
    sys.exit(main())
