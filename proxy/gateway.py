"""What the requests of one process share. `kodna.asgi` makes it; every endpoint for models is given it."""

from dataclasses import dataclass, field

from proxy.admission import Admission
from proxy.background import Tables
from proxy.health import Health
from proxy.held import Held
from proxy.journal import Journal
from proxy.sessions import Home, Sessions
from proxy.turns import Turns
from proxy.upstream import Pool


@dataclass(slots=True)
class Gateway:
    tables: Tables
    journal: Journal
    admission: Admission
    pool: Pool
    held: Held
    health: Health
    sessions: Sessions
    turns: Turns = field(default_factory=Turns)


async def home_of(gateway: Gateway, previous: Home | None, session: str) -> Home | None:
    """Where a request is to be answered if it can be: where the one that it names was, else its conversation."""
    return await gateway.sessions.home(session) if previous is None and session else previous
