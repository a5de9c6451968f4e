"""Departures from the dialect, by name."""

from pathlib import Path

from proxy import quirks
from proxy.upstream import Pool
from tests.proxy.inside import HELLO, Inside, model, provider, snapshot
from tests.upstreams import MockUpstream, chat_stream


def test_it_works() -> None:
    assert quirks.NO_STREAM_OPTIONS in quirks.KNOWN


async def test_a_provider_that_refuses_stream_options(tmp_path: Path) -> None:
    mock = MockUpstream(chat_stream())
    found = provider(quirks=frozenset({quirks.NO_STREAM_OPTIONS}))
    house = Inside(tmp_path, snapshot(model("m", found)), Pool(mock.transport))
    await house.post({"model": "m", "messages": HELLO, "stream": True})
    assert "stream_options" not in mock.last.json
    assert house.record.prompt_tokens == 7
