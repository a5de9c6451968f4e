import pytest
from cryptography.fernet import Fernet
from django.contrib.sessions.backends.signed_cookies import SessionStore

from accounts import show_once


@pytest.fixture
def session() -> SessionStore:
    return SessionStore()


def test_it_works(session):
    show_once.keep(session, 7, "sk-kodna-x")
    assert show_once.take(session, 7) == "sk-kodna-x"
    assert show_once.take(session, 7) is None


def test_the_session_holds_no_readable_key(session):
    show_once.keep(session, 7, "sk-kodna-x")
    assert "sk-kodna-x" not in str(dict(session))


def test_each_key_is_kept_for_itself(session):
    show_once.keep(session, 7, "seven")
    show_once.keep(session, 8, "eight")
    assert show_once.take(session, 9) is None
    assert show_once.take(session, 8) == "eight"
    assert show_once.take(session, 7) == "seven"


def test_after_ten_minutes_it_is_gone(session, monkeypatch):
    encrypt = Fernet.encrypt_at_time
    monkeypatch.setattr(Fernet, "encrypt", lambda self, data: encrypt(self, data, 1_000_000))
    show_once.keep(session, 7, "sk-kodna-x")
    assert show_once.take(session, 7) is None
