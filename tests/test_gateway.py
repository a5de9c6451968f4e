"""The gateway of the tests starts, stops, keeps its data, and says what it wrote."""

import signal

import httpx
import pytest

from tests.conftest import MakeGateway
from tests.gateway import CommandFailed, Gateway, catalog, model, provider
from tests.upstreams import Upstream, completion

ASKED = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def with_model(gateway: Gateway, upstream: Upstream) -> str:
    """Gives it the model `m`; a key."""
    upstream.answers(completion(prompt=5, completion=2))
    served = catalog({"fake": provider(upstream.base_url)}, {"m": model(("fake", "upstream-model"))})
    return gateway.set_up(served, name="mine")


def ask(gateway: Gateway, key: str) -> httpx.Response:
    with gateway.client(key) as client:
        return client.post("/v1/chat/completions", json=ASKED)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_it_works(make_gateway: MakeGateway, upstream: Upstream, database: str) -> None:
    gateway = make_gateway(database)
    key = with_model(gateway, upstream)
    with gateway.start():
        answer = ask(gateway, key)
        assert (answer.status_code, answer.json()["model"]) == (200, "m")
        row = gateway.usage_row(answer.headers["x-request-id"])
    assert (row["prompt_tokens"], row["completion_tokens"], row["key_name"]) == (5, 2, "mine")
    assert not gateway.is_live()


def test_a_restart_keeps_keys_and_rows(make_gateway: MakeGateway, upstream: Upstream) -> None:
    gateway = make_gateway()
    key = with_model(gateway, upstream)
    gateway.start()
    first = ask(gateway, key)
    gateway.restart()
    assert ask(gateway, key).status_code == 200
    assert gateway.usage_row(first.headers["x-request-id"])["status"] == 200


def test_a_kill(make_gateway: MakeGateway) -> None:
    gateway = make_gateway().start()
    assert gateway.kill() == -signal.SIGKILL
    assert not gateway.is_live()


def test_a_command_that_fails(make_gateway: MakeGateway) -> None:
    with pytest.raises(CommandFailed) as caught:
        make_gateway().manage("keys", "revoke", "sk-kodna-none")
    assert caught.value.code == 1
