"""Where notices go, as the environment says it: what is taken, and what is refused without repeating a secret."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from kodna import notice_env
from kodna.notice_env import MailServer
from tests.kodna.test_settings import read

NAME, SECRET = "KODNA_TEST_URL", "KODNA_TEST_SECRET"
GOOD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://hooks.example/kodna?x=1"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("smtp://me%40x:p%2Fw@mail.example", MailServer("mail.example", 587, "me@x", "p/w", starttls=True)),
        ("smtp://mail.example:2525?tls=off", MailServer("mail.example", 2525)),
        ("smtps://mail.example", MailServer("mail.example", 465, implicit_tls=True)),
        ("smtp://mail.example?tls=implicit", MailServer("mail.example", 465, implicit_tls=True)),
        ("", MailServer()),
    ],
)
def test_it_works(monkeypatch: pytest.MonkeyPatch, url: str, found: MailServer) -> None:
    monkeypatch.setenv(NAME, url)
    assert notice_env.mail_server(NAME) == found


@pytest.mark.parametrize(
    "url",
    ["mail.example", "http://u:hunter2@x", "smtp://u:hunter2@", "smtp://u:hunter2@x?tls=maybe", "smtp://u:hunter2@x?a=b",
     "smtp://u:hunter2@x:port"],
)  # fmt: skip
def test_no_mail_server(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(NAME, url)
    with pytest.raises(ImproperlyConfigured) as refusal:
        notice_env.mail_server(NAME)
    assert NAME in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


def test_the_settings_of_mail(tmp_path: Path) -> None:
    """Mail that comes from nobody is refused at the start."""
    names = ("EMAIL_HOST", "EMAIL_PORT", "EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD", "EMAIL_USE_TLS", "EMAIL_USE_SSL")
    url = {"KODNA_SMTP_URL": "smtp://u:hunter2@mail.example"}
    found = read(tmp_path, *names, **url, KODNA_MAIL_FROM="kodna@example.com")
    assert list(found.values()) == ["mail.example", 587, "u", "hunter2", True, False]
    with pytest.raises(AssertionError, match="KODNA_SMTP_URL needs KODNA_MAIL_FROM") as refusal:
        read(tmp_path, *names, **url)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("secret", [GOOD, GOOD.removeprefix("whsec_")])
def test_a_webhook(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv(NAME, URL)
    monkeypatch.setenv(SECRET, secret)
    url, found = notice_env.webhook(NAME, SECRET)
    assert (url, found.hex()) == (URL, "31f290f6bf06298aab4f08d43c3f082cf648a362da2da4b0")


def test_no_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    monkeypatch.setenv(SECRET, "unused")
    assert notice_env.webhook(NAME, SECRET) == ("", b"")


@pytest.mark.parametrize("secret", ["", "whsec_", "hunter2", "whsec_aHVudGVyMg==", "whsec_" + "aaaa" * 22])
def test_a_webhook_that_anybody_could_sign(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    """Empty, no base64, too short, too long."""
    monkeypatch.setenv(NAME, URL)
    monkeypatch.setenv(SECRET, secret)
    with pytest.raises(ImproperlyConfigured, match=f"{NAME} needs {SECRET}") as refusal:
        notice_env.webhook(NAME, SECRET)
    assert not secret.removeprefix("whsec_") or secret not in str(refusal.value)


@pytest.mark.parametrize("url", ["hooks.example", "file:///etc/passwd", "ftp://x/y", "https://u:p@x/", "http://x:p/"])
def test_no_url_of_a_webhook(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(NAME, url)
    monkeypatch.setenv(SECRET, GOOD)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        notice_env.webhook(NAME, SECRET)
