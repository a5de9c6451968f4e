"""Readers of environment variables: what they take, and what they refuse in words."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from kodna import env

NAME = "KODNA_TEST_VALUE"


def test_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, " a, b ,,c ")
    assert env.words(NAME) == ["a", "b", "c"]
    assert env.words("KODNA_TEST_NONE", "x,y") == ["x", "y"]


@pytest.mark.parametrize(
    ("value", "found"),
    [("1", True), ("TRUE", True), (" on ", True), ("yes", True), ("0", False), ("off", False), ("", False)],
)
def test_flags(monkeypatch: pytest.MonkeyPatch, value: str, found: bool) -> None:
    monkeypatch.setenv(NAME, value)
    assert env.flag(NAME, not found) is found


def test_a_flag_that_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "perhaps")
    with pytest.raises(ImproperlyConfigured, match="KODNA_TEST_VALUE='perhaps': expected on or off"):
        env.flag(NAME, True)


def test_flags_that_are_not_set() -> None:
    assert env.flag("KODNA_TEST_NONE", True) is True
    assert env.flag("KODNA_TEST_NONE", False) is False


def test_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "2.5")
    assert env.number(NAME, 1) == 2.5
    monkeypatch.setenv(NAME, "")
    assert env.number(NAME, 7) == 7


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", "expected a number"),
        ("-1", "expected 0 or more"),
        ("nan", "expected a number"),
        ("inf", "expected a number"),
    ],
)
def test_wrong_numbers(monkeypatch: pytest.MonkeyPatch, value: str, words: str) -> None:
    monkeypatch.setenv(NAME, value)
    with pytest.raises(ImproperlyConfigured, match=words):
        env.number(NAME, 1)


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret"
    first = env.secret("KODNA_TEST_NONE", path)
    assert len(first) >= 50
    assert env.secret("KODNA_TEST_NONE", path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret"]


def test_a_secret_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "given")
    assert env.secret(NAME, tmp_path / "secret") == "given"
    assert not (tmp_path / "secret").exists()


def test_processes_that_start_at_once_share_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(range(100))
    monkeypatch.setattr(env.os, "getpid", lambda: next(ids))
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: env.secret("KODNA_TEST_NONE", tmp_path / "secret"), range(8)))
    assert len(found) == 1


# --- .env ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("KODNA_TEST_VALUE=a", "a"),
        ("export KODNA_TEST_VALUE = a b ", "a b"),
        ('KODNA_TEST_VALUE="a # b"', "a # b"),
        ("KODNA_TEST_VALUE='x=y'", "x=y"),
        ("KODNA_TEST_VALUE=a # a comment", "a"),
        ("KODNA_TEST_VALUE=", ""),
    ],
)
def test_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, value: str) -> None:
    monkeypatch.setattr(env.os, "environ", found := {})
    (tmp_path / ".env").write_text(f"# a comment\n\n{line}\n")
    env.load_dotenv(tmp_path / ".env")
    assert found == {NAME: value}


def test_dotenv_yields_to_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "set")
    (tmp_path / ".env").write_text(f"{NAME}=other\n")
    env.load_dotenv(tmp_path / ".env")
    assert os.environ[NAME] == "set"


def test_a_line_that_is_none(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nnonsense\n".replace("A=1", f"{NAME}_X="))
    with pytest.raises(ImproperlyConfigured, match=r"\.env:2: expected NAME=value"):
        env.load_dotenv(tmp_path / ".env")
    os.environ.pop(f"{NAME}_X")


def test_no_dotenv(tmp_path: Path) -> None:
    env.load_dotenv(tmp_path / ".env")


# --- networks ------------------------------------------------------------------------------------------------------


def test_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "127.0.0.1, 10.0.0.0/8,2001:db8::/32")
    assert [str(network) for network in env.networks(NAME)] == ["127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32"]
    assert env.networks("KODNA_TEST_NONE") == []


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "127.0.0.1:80", "10.0.0.0 10.0.0.1"])
def test_what_is_no_network(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(NAME, f"127.0.0.1,{value}")
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}: .*{value.split('/')[0]}"):
        env.networks(NAME)


# --- databases -------------------------------------------------------------------------------------------------------


def test_postgresql() -> None:
    found = env.database("postgresql://me:p%40ss@db.example:5433/na%20me?sslmode=require&pool=4")
    assert found["ENGINE"] == "django.db.backends.postgresql"
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"]) == ("me", "p@ss", "db.example", 5433)
    assert found["NAME"] == "na me"
    assert found["OPTIONS"] == {"pool": {"min_size": 1, "max_size": 4, "timeout": 10}, "sslmode": "require"}


def test_postgresql_on_a_socket() -> None:
    found = env.database("postgres://me@/name?host=/run/pg")
    assert (found["HOST"], found["PORT"]) == ("/run/pg", "")


@pytest.mark.parametrize(
    ("url", "name"), [("sqlite:////data/x.sqlite3", "/data/x.sqlite3"), ("sqlite:///x.db", "x.db")]
)
def test_sqlite(url: str, name: str) -> None:
    found = env.database(url)
    assert (found["ENGINE"], found["NAME"]) == ("django.db.backends.sqlite3", name)


def test_another_database() -> None:
    with pytest.raises(ImproperlyConfigured, match="unknown scheme 'mysql'"):
        env.database("mysql://x/y")


@pytest.mark.parametrize("value", ["abc", "0", "99999", "80.5", "-1", "nan"])
def test_a_port_is_a_port(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PORT", value)
    with pytest.raises(ImproperlyConfigured, match="PORT="):
        env.port("PORT", 8000)


def test_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "8555")
    assert env.port("PORT", 8000) == 8555
    monkeypatch.delenv("PORT")
    assert env.port("PORT", 8000) == 8000
