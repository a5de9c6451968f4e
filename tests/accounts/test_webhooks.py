"""The webhook as a receiver sees it: signed, one address, and any answer but 2xx is a failure."""

import urllib.error

import pytest

from accounts import webhooks
from tests.accounts.receiver import SECRET, Receiver


def test_it_works(receiver: Receiver) -> None:
    webhooks.post("msg_1", b'{"a": 1}')
    (said,) = receiver.requests
    assert (said.path, said.body) == ("/hook?x=1", b'{"a": 1}')
    assert (said.headers["content-type"], said.headers["webhook-id"]) == ("application/json", "msg_1")
    assert receiver.verifies(said)


def test_the_signature_is_that_of_the_specification() -> None:
    """The example of the reference libraries."""
    found = webhooks.signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [301, 307, 308, 400, 410, 500])
def test_an_answer_that_is_none(receiver: Receiver, status: int) -> None:
    receiver.status = status
    with pytest.raises(urllib.error.HTTPError):
        webhooks.post("msg_1", b"{}")
    assert len(receiver.requests) == 1, "a redirect is not followed"


def test_nobody_listens(receiver: Receiver) -> None:
    receiver.stop()
    with pytest.raises(OSError, match="refused"):
        webhooks.post("msg_1", b"{}")


def test_no_answer_in_time(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "SECONDS", 0.1)
    receiver.answers.clear()
    with pytest.raises(OSError, match="timed out"):
        webhooks.post("msg_1", b"{}")
