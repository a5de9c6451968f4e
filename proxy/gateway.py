"""What the requests of one process share. `kodna.asgi` makes it; every endpoint for models is given it."""

from dataclasses import dataclass, field

from accounts.keys import Key
from models_catalog.snapshot import Model
from proxy import request_ids
from proxy.admission import Admission
from proxy.background import Tables
from proxy.health import Health
from proxy.held import Held
from proxy.ingress import Envelope, session_name
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


def named(envelope: Envelope, key: Key, model: Model) -> tuple[Home | None, str]:
    """Where the request was answered whose route this one is to take, and the name of its conversation, if any."""
    previous = request_ids.route_of(envelope.previous) if envelope.previous else None
    return previous, session_name(envelope, key, model.id) if envelope.session else ""


async def home_of(gateway: Gateway, previous: Home | None, session: str) -> Home | None:
    """Where a request is to be answered if it can be: where the one that it names was, else its conversation."""
    return await gateway.sessions.home(session) if previous is None and session else previous
