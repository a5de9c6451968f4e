"""Where a request is to be answered if it can be."""

from pathlib import Path

import pytest

from proxy.gateway import home_of
from proxy.upstream import Pool
from tests.proxy.inside import Inside, model, provider, snapshot
from tests.upstreams import MockUpstream

FIRST = provider("first")


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    return Inside(tmp_path, snapshot(model("m", FIRST)), Pool(MockUpstream().transport))


async def test_it_works(inside: Inside) -> None:
    assert await home_of(inside.gateway, None, "") is None
    inside.sessions.keep("a", FIRST)
    assert await home_of(inside.gateway, None, "a") == (FIRST.id, 0)
    assert await home_of(inside.gateway, None, "b") is None


async def test_the_request_that_is_named_goes_before_the_conversation(inside: Inside) -> None:
    inside.sessions.keep("a", FIRST)
    assert await home_of(inside.gateway, (9, 1), "a") == (9, 1)
