"""The provider keeps its promises: the other proofs rest on its account."""

from collections.abc import Iterator

import pytest

from proxy import meter
from proxy.formats import openai_chat
from proxy.formats.splice import Members
from tests.exact import provider
from tests.exact.client import Ask, Seen
from tests.exact.provider import Entry, Provider, Script
from tests.exact.traffic import at_once
from tests.processes import wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with Provider(tmp_path_factory.mktemp("provider")) as found:
        yield found


def asked(server: Provider, what: Ask) -> tuple[Seen, Entry]:
    (seen,) = at_once([(server.port, what)])
    (entry,) = [entry for entry in server.account() if entry.marker == what.marker]
    return seen, entry


def test_a_word_is_a_token() -> None:
    assert meter.count(provider.said(0, 1000)) == 1000
    assert meter.count(provider.said(990, 20)) == 20


def test_it_works(server: Provider) -> None:
    seen, entry = asked(server, Ask("stream", "k", script=Script(tokens=7, burst=3, cached=4), words=10))
    assert seen.whole
    assert (seen.tokens, seen.finish) == (7, "stop")
    assert (entry.written, entry.prompt, entry.cached, entry.end) == (7, 17, 4, "whole")
    assert seen.usage == {
        "prompt_tokens": 17,
        "completion_tokens": 7,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


def test_it_counts_a_prompt_as_the_gateway_does(server: Provider) -> None:
    _, entry = asked(server, Ask("prompt", "k", words=25))
    members = Members(b'{"messages": [{"role": "user", "content": "%b"}]}' % provider.said(0, 25).encode())
    assert entry.prompt == meter.prompt_tokens(openai_chat, members) == 25 + 4 + 3


def test_a_plain_answer_keeps_to_its_bound(server: Provider) -> None:
    seen, entry = asked(server, Ask("plain", "k", script=Script(tokens=9), stream=False, max_tokens=4))
    assert seen.whole
    assert (seen.tokens, seen.finish, entry.written, entry.most) == (4, "length", 4, 4)


def test_it_breaks_off(server: Provider) -> None:
    seen, entry = asked(server, Ask("cut", "k", script=Script(tokens=9, cut=5)))
    assert not seen.whole
    assert (seen.tokens, entry.written, entry.end) == (5, 5, "cut")


def test_it_notices_who_leaves(server: Provider) -> None:
    what = Ask("left", "k", script=Script(tokens=1000, pace=0.01), leave=0.2)
    (seen,) = at_once([(server.port, what)])
    (entry,) = wait_for(lambda: [entry for entry in server.account() if entry.marker == "left" and entry.end])
    assert seen.left
    assert not seen.whole
    assert entry.end == "lost"
    assert 0 < seen.tokens <= entry.written < 1000


def test_it_fails_as_told(server: Provider) -> None:
    seen, entry = asked(server, Ask("fail", "k", model="a", script=Script(fail={"a": 503})))
    assert (seen.status, entry.status, entry.end, entry.written) == (503, 503, "error", 0)
