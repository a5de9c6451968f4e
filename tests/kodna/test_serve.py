"""The servers' way in: what they refuse in words, and how they end."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kodna import serve
from tests.conftest import MakeGateway
from tests.gateway import Gateway, catalog, internal, model, provider
from tests.processes import HOST, wait_for
from tests.upstreams import Upstream, chat_stream, completion

CHAT = "/v1/chat/completions"


def test_it_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["nonsense"]) == 2
    assert capsys.readouterr().err == "usage: python -m kodna.serve run | daphne | uvicorn\n"


@pytest.mark.parametrize("words", [[], ["run", "daphne"], ["--help"]])
def test_wrong_words(words: list[str]) -> None:
    assert serve.main(words) == 2


def ended(gateway: Gateway, code: int) -> str:
    """Start what cannot serve; what it said."""
    command = [sys.executable, "-m", "kodna.serve", gateway.server]
    env, cwd = gateway._environment(), gateway.data_dir
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_several_workers_need_what_they_share(make_gateway: MakeGateway, database: str) -> None:
    gateway = make_gateway(database, server="uvicorn", workers=2)
    assert "WORKERS=2 needs DATABASE_URL of PostgreSQL and REDIS_URL" in ended(gateway, 2)


def test_daphne_runs_one_process(make_gateway: MakeGateway) -> None:
    gateway = make_gateway(workers=2)
    assert "Daphne runs one process" in ended(gateway, 2)


@pytest.mark.parametrize("server", ["daphne", "uvicorn", "run"])
def test_a_port_that_is_taken(make_gateway: MakeGateway, server: Any) -> None:
    gateway = make_gateway(server=server)
    with socket.create_server((HOST, gateway.port)):
        said = ended(gateway, 1)
    assert f"Cannot listen on {HOST}:{gateway.port}: Address already in use" in said
    assert "API key" not in said, "no secret is made that nobody could use"


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_an_idle_server_ends_at_once(make_gateway: MakeGateway, server: Any) -> None:
    gateway = make_gateway(server=server).start()
    started = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - started < 3
    assert "Traceback" not in gateway.log


def test_workers_flush_at_their_end(make_gateway: MakeGateway) -> None:
    with Upstream(completion()) as upstream:
        # With this nothing is flushed between the start and the end.
        gateway = make_gateway(
            "postgresql", redis=True, server="uvicorn", workers=2, env={"KODNA_REFRESH_SECONDS": "600"}
        )
        key = gateway.set_up(catalog({"fake": provider(upstream.base_url)}, {"m": model(("fake", "there"))}))
        gateway.start()
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        with gateway.client(key) as client:
            request_ids = {internal(client.post(CHAT, json=body).headers["x-request-id"]) for _ in range(5)}
        assert not gateway.usage_rows()
        gateway.stop()
    assert {row["request_id"] for row in gateway.usage_rows()} == request_ids
    assert not list((gateway.data_dir / "journal").iterdir()), "all of it is in the database"
    assert "Traceback" not in gateway.log


@pytest.fixture
def streaming() -> Iterator[Upstream]:
    with Upstream(chat_stream(*["word "] * 40, pause=0.05)) as upstream:
        yield upstream


class Reader(threading.Thread):
    """A client in the middle of a stream."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        super().__init__()
        self.text = self.request_id = ""
        self._gateway, self._key = gateway, key
        self.start()

    def run(self) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        with self._gateway.client(self._key) as client, client.stream("POST", CHAT, json=body) as answer:
            self.request_id = internal(answer.headers["x-request-id"])
            try:
                for piece in answer.iter_text():
                    self.text += piece
            except httpx.TransportError:
                return


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_sigterm_in_the_middle_of_a_stream(make_gateway: MakeGateway, streaming: Upstream, server: Any) -> None:
    """Daphne ends it; uvicorn lets it come to its end. Its row is there either way, and the provider is let go."""
    gateway = make_gateway(server=server)
    served = catalog({"fake": provider(streaming.base_url)}, {"m": model(("fake", "there"))})
    key = gateway.set_up(served, name="stream")
    gateway.start()
    reader = Reader(gateway, key)
    wait_for(lambda: "word" in reader.text)
    gateway.stop()
    reader.join(5)
    row = gateway.usage_row(reader.request_id, 1)
    if server == "uvicorn":
        assert (row["outcome"], row["status"]) == ("complete", 200)
        assert reader.text.endswith("data: [DONE]\n\n")
    else:
        assert (row["outcome"], row["error_code"]) == ("incomplete", "server_stopped")
        assert streaming.last.gone.wait(1)
    assert row["completion_tokens"] > 0
    assert "Traceback" not in gateway.log
    assert not list((gateway.data_dir / "journal").iterdir()), "all of it is in the database"
    assert key not in gateway.log + json.dumps(row, default=str)
