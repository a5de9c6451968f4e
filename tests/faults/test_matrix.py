"""Every fault, in every format, before and after the first token, streamed and plain, with a second route and without.

Real sockets, gateways in processes of their own, the official SDKs. With a second route the client gets its whole
answer where no token had come; else its SDK raises. Never a silent normal end, never a token twice, never a wait beyond
the deadline. All cells run at the same time, half of each fault's and of each format's on Daphne, half on uvicorn; the
tests look at what came of them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import GATEWAYS, MakeGateway
from tests.faults.clients import RAISED, Clients, Told
from tests.faults.faults import (
    ALL,
    CELLS,
    FAULTS,
    FIRST,
    HEALTHY,
    SECOND,
    TIMEOUT,
    WORD,
    Cell,
    Faults,
    FullBacklog,
)
from tests.faults.table import PROPERTY, table
from tests.gateway import Gateway, catalog, model
from tests.processes import wait_for
from tests.providers import DIALECTS, KEY
from tests.upstreams import RefusingUpstream

# google-genai's own session for aiohttp
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
LATE = 1  # seconds beyond the deadline, by the gateway's own clock: the SDKs of 500 requests keep a machine busy
_PATIENT = {"connect": 5, "first_byte": 20, "idle": 20, "total": 30}
_WAITING = frozenset({"connect", "stall", "drip"})
_AT_ONCE, _HUGE_AT_ONCE = 24, 4
SERVERS = ("daphne", "uvicorn")
COUNTED = {"complete": 12, "failed": 0, "incomplete": 1}  # tokens


def _server(cell: Cell) -> str:
    return SERVERS[(list(FAULTS).index(cell.fault) + DIALECTS.index(cell.dialect)) % 2]


def _provider(dialect: str, root: str, *, patient: bool = False) -> dict[str, object]:
    found: dict[str, object] = {"api_key": KEY, "timeout": _PATIENT if patient else TIMEOUT}
    if dialect in ("messages", "gemini"):
        return {**found, "dialect": "anthropic" if dialect == "messages" else "gemini", "base_url": root}
    return {**found, "dialect": "openai", "base_url": f"{root}/v1", "supports": [dialect]}


def _catalog(cells: list[Cell], server: Faults, refusing: RefusingUpstream, full: FullBacklog) -> dict[str, object]:
    elsewhere = {"refuse": refusing.base_url.removesuffix("/v1"), "connect": full.base_url.removesuffix("/v1")}
    providers = {f"healthy-{dialect}": _provider(dialect, server.root, patient=True) for dialect in DIALECTS}
    models = {}
    for cell in cells:
        root, legal = elsewhere.get(cell.fault, server.root), cell.expected == "first"
        providers[cell.provider] = _provider(cell.speaks, root, patient=legal)
        ways = [(cell.provider, cell.model), (f"healthy-{cell.second}", HEALTHY)]
        models[cell.model] = model(*ways[: 1 if cell.routes == "alone" else 2], strategy="in_order")
    return catalog(providers, models)


Gateways = dict[str, tuple[Gateway, str]]  # with a key, by their servers


async def _ask_all(gateways: Gateways) -> dict[Cell, Told]:
    """Those that wait are asked first, all at once; the others meanwhile, some at a time."""
    few, huge, found = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_HUGE_AT_ONCE), {}
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(Clients(gateway.url, key))
            for name, (gateway, key) in gateways.items()
        }

        async def ask(cell: Cell) -> None:
            client = clients[_server(cell)]
            found[cell] = await client.ask(cell.dialect, cell.model, streamed=cell.how == "streamed")

        async def wait_and_ask(cell: Cell) -> None:
            async with huge if cell.fault == "huge" else few:
                await ask(cell)

        async with asyncio.TaskGroup() as group:
            for cell in sorted(CELLS.values(), key=lambda cell: cell.fault not in _WAITING):
                group.create_task(ask(cell) if cell.fault in _WAITING else wait_and_ask(cell))
    return found


class Run:
    """What came of each cell: what its client was told, its usage row, whether its provider was asked."""

    def __init__(self, told: dict[Cell, Told], rows: list[dict[str, Any]], server: Faults) -> None:
        self.told = told
        self.rows: dict[Cell, list[dict[str, Any]]] = {cell: [] for cell in CELLS.values()}
        for row in rows:
            self.rows[CELLS[row["requested_model"], "streamed" if row["streamed"] else "plain"]].append(row)
        self.reached = frozenset(server.reached)
        self.refused = server.refused

    def fault(self, cell: Cell) -> str:
        """What is wrong with it; empty: nothing."""
        told = self.told[cell]
        if not _is_as_expected(cell, told):
            return f"the client got {told}"
        return self._row_fault(cell)

    def _row_fault(self, cell: Cell) -> str:
        rows = self.rows[cell]
        if [row["outcome"] for row in rows] != [cell.outcome]:
            return f"its usage rows say {[row['outcome'] for row in rows]}"
        counted = rows[0]["completion_tokens"]
        if counted != COUNTED[cell.outcome] and cell.speaks != "gemini":  # that one counts all with each piece
            return f"{counted} tokens are charged"
        if cell.expected != "first" and rows[0]["total_ms"] > (TIMEOUT["total"] + LATE) * 1000:
            return f"it took {rows[0]['total_ms']} ms"
        asked = [attempt["provider"] for attempt in rows[0]["attempts"]]
        last = f"healthy-{cell.second}" if cell.expected == "second" else cell.provider
        if asked[:1] != [cell.provider] or asked[-1] != last:
            return f"it was tried at {asked}"
        if FAULTS[cell.fault][1] is not None and cell not in self.reached:
            return "its provider was not asked"
        return ""


def _is_as_expected(cell: Cell, told: Told) -> bool:
    if cell.expected != "error":
        return told.text == (FIRST if cell.expected == "first" else SECOND) and told.ended and told.raised is None
    return isinstance(told.raised, RAISED) and told.text == (WORD if cell.outcome == "incomplete" else "")


@pytest.fixture(scope="module")
def gateways(_new_gateway: MakeGateway) -> list[Gateway]:
    # A comment while a provider stalls must not be taken for a token.
    return [_new_gateway("sqlite", server=server, env={"KODNA_KEEPALIVE_SECONDS": "0.7"}) for server in SERVERS]


@pytest.fixture(scope="module")
def _run(gateways: list[Gateway]) -> Iterator[Run]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Faults())
        others = stack.enter_context(RefusingUpstream()), stack.enter_context(FullBacklog())
        started: Gateways = {}
        for gateway in gateways:
            cells = [cell for cell in CELLS.values() if _server(cell) == gateway.server]
            started[gateway.server] = gateway, gateway.set_up(_catalog(cells, server, *others))
            stack.enter_context(gateway)
        told = asyncio.run(_ask_all(started))
        rows = wait_for(lambda: found if len(found := _rows(gateways)) >= len(CELLS) else None)
        yield Run(told, rows, server)


def _rows(gateways: list[Gateway]) -> list[dict[str, Any]]:
    return [row for gateway in gateways for row in gateway.usage_rows()]


@pytest.fixture
def run(gateways: list[Gateway], _run: Run, request: pytest.FixtureRequest) -> Run:
    request.node.stash[GATEWAYS] = gateways
    return _run


_MARKS = {"first": "1", "second": "2", "error": "e"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault(fault: str, dialect: str, run: Run, record_property: Callable[[str, Any], None]) -> None:
    cells = [cell for cell in ALL if (cell.fault, cell.dialect) == (fault, dialect)]
    cells.sort(key=lambda cell: cell.routes == "alone")  # else as they stand: before, after, each streamed and plain
    wrong = {str(cell): why for cell in cells if cell.is_possible and (why := run.fault(cell))}
    marks = ["!" if str(cell) in wrong else _MARKS[cell.expected] if cell.is_possible else "-" for cell in cells]
    record_property(PROPERTY, (FAULTS[fault][0], dialect, " ".join(["".join(marks[:4]), "".join(marks[4:])])))
    assert not wrong


def test_the_providers_found_nothing_wrong_with_the_requests(run: Run) -> None:
    assert not run.refused


@pytest.mark.usefixtures("run")
def test_the_gateways_take_it_calmly(gateways: list[Gateway]) -> None:
    for gateway in gateways:
        assert gateway.is_running
        assert "Traceback" not in gateway.log
        assert "Warning:" not in gateway.log


def test_the_table() -> None:
    rows = [("cut", "chat", "22e2 eeee"), ("cut", "gemini", "2!e2 eeee"), ("refuse", "chat", "22-- ee--")]
    *_, head, cut, refuse = table(rows)
    assert head == "       chat      gemini"
    assert (cut, refuse) == ("cut    22e2 eeee 2!e2 eeee", "refuse 22-- ee-- ")
