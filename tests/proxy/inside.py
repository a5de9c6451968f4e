"""The gateway's ASGI application inside the test's own process: no server, no database, a catalog made by hand.

For what needs thousands of requests, or a look at what one request leaves behind. `tests/gateway.py` is the real thing.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from accounts import keys
from accounts.keys import Key, KeyTable
from models_catalog.pricing import Price
from models_catalog.snapshot import Model, Provider, Route, Snapshot, Vendor
from proxy.admission import Admission
from proxy.asgi import Application
from proxy.background import Background, Tables
from proxy.counters.memory import Memory as Counters
from proxy.gateway import Gateway
from proxy.health import Health
from proxy.held import Held, Memory
from proxy.journal import Journal
from proxy.sessions import Sessions
from proxy.status import Status
from proxy.upstream import Pool
from proxy.usage import Record

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
TEXT = keys.make()
VENDOR = Vendor("tests", "Tests", 0)
_NOBODY: frozenset[str] = frozenset()
KEY = Key(7, "mine", TEXT[: keys.SHOWN], 3, "tests", True, 0, _NOBODY, _NOBODY, (), 0, 0, 0)
PROVIDER = Provider(
    id=1,
    name="first",
    dialect="openai",
    base_url="http://127.0.0.1:9/v1",
    api_key="sk-upstream-secret",
    groups=frozenset({"one"}),
    headers=(),
    supports=frozenset({"chat"}),
    quirks=_NOBODY,
    connect_timeout=1,
    first_byte_timeout=2,
    idle_timeout=1,
    total_timeout=5,
    max_concurrency=0,
)


def provider(name: str = "first", base_url: str = PROVIDER.base_url, **changes: Any) -> Provider:
    return replace(PROVIDER, name=name, base_url=base_url, **{"id": _number(name), **changes})


def _number(name: str) -> int:
    """Another one for another provider."""
    return 1 if name == "first" else 2 + crc32(name.encode()) % 1_000_000


def model(name: str, *providers: Provider, **changes: Any) -> Model:
    routes = tuple(Route(each, f"{name}-there", place, 1) for place, each in enumerate(providers))
    found = Model(
        id=name,
        vendor=VENDOR,
        name=name,
        description="",
        context=8192,
        output=100,
        enforce=False,
        input_modalities=("text",),
        output_modalities=("text",),
        supports=_NOBODY,
        fallbacks=(),
        routes=routes,
        prices=(Price(0, 1_000_000, 2_000_000, 500_000, None),),  # 1, 2 and 0.5 USD per million
        created=1_700_000_000,
    )
    return replace(found, **changes)


def snapshot(*models: Model, default: str = "", **aliases: str) -> Snapshot:
    return Snapshot(1, {each.id: each for each in models}, aliases, default)


def tables(catalog: Snapshot, *known: tuple[str, Key], anonymous: Key | None = None) -> Tables:
    found = Tables()
    found.keys = KeyTable(1, {keys.digest(text.encode()): key for text, key in known}, anonymous)
    found.catalog = catalog
    found.loaded = float("inf")  # never stale
    return found


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    whole: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found


class Inside:
    """`await inside.post({...})`; then `inside.records()` is what the journal holds."""

    def __init__(
        self, folder: Path, catalog: Snapshot, pool: Pool, *known: tuple[str, Key], anonymous: Key | None = None
    ) -> None:
        self.counters = Counters()
        self.journal = Journal(folder / "journal", self.counters, rotate_at=1_000_000, most=100_000_000)
        self.tables = tables(catalog, *(known or ((TEXT, KEY),)), anonymous=anonymous)
        self.held = Held(Memory(1_000_000, 60), 100_000)
        self.background = Background("never started", [])
        self.health, self.sessions = Health(), Sessions("")
        self.gateway = Gateway(
            *(self.tables, self.journal, Admission(self.counters), pool, self.held), self.health, self.sessions
        )
        self.application = Application(self.gateway, Status(self.tables, self.journal, [self.background], lambda: ""))

    async def post(self, body: Any = None, path: str = CHAT, key: str = TEXT, **more: Any) -> Answer:
        asked = {"messages": HELLO, "model": "m"} if body is None else body
        data = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        return await self.ask("POST", path, [*headers, *more.pop("headers", [])], [data], **more)

    async def get(self, path: str, headers: Sequence[tuple[bytes, bytes]] = (), method: str = "GET") -> Answer:
        return await self.ask(method, path, headers, [b""])

    async def ask(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        pieces: Iterable[bytes],
        *,
        leave: asyncio.Event | None = None,
        client: tuple[str, int] = ("127.0.0.1", 5),
        unfinished: bool = False,
        answer: Answer | None = None,
        query: str = "",
    ) -> Answer:
        """`leave`: when set, the client closes the connection. `unfinished`: after the pieces nothing more comes."""
        asked = {"method": method, "path": path, "query_string": query.encode(), "headers": list(headers)}
        scope = {"type": "http", "client": client, **asked}
        body, answer = list(pieces), answer or Answer()
        waiting = [
            {"type": "http.request", "body": piece, "more_body": unfinished or place + 1 < len(body)}
            for place, piece in enumerate(body)
        ]

        async def receive() -> Mapping[str, Any]:
            if waiting:
                return waiting.pop(0)
            await (leave or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            assert not answer.whole, f"after the end: {message}"
            if message["type"] == "http.response.start":
                assert not answer.status, "a second status"
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
            else:
                assert answer.status, "a body before the status"
                answer.pieces.append(message.get("body", b""))
                answer.whole = not message.get("more_body", False)

        await self.application(scope, receive, send)
        return answer

    def records(self) -> list[Record]:
        """What the journal of this process holds of requests that have ended, oldest first."""
        lines = self.journal._file.path.read_bytes().splitlines()
        found = [msgspec.json.decode(line, type=Record) for line in lines]
        return [record for record in found if record.opened is None]

    @property
    def places(self) -> int:
        """How many requests have a place in a limit, or hold credit, that have not ended."""
        return sum(not request.is_settled for request in self.counters._requests.values())

    @property
    def record(self) -> Record:
        (found,) = self.records()
        return found
