"""A receiver of webhooks for the tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.accounts.receiver import SECRET, Receiver


@pytest.fixture
def receiver(settings) -> Iterator[Receiver]:
    """Set up as the operator's webhook."""
    server = Receiver()
    settings.WEBHOOK_URL, settings.WEBHOOK_SECRET = server.url, SECRET
    yield server
    server.stop()
