"""Many rows into a table by few statements: what the ledger, the rows of usage and their sums are stored with.

Value by value, a driver takes longer than its database. PostgreSQL gets all rows as one JSON text; SQLite gets some
hundreds at a time, by a statement that its driver keeps prepared. Inside the caller's transaction, in the order of the
rows, which is the order of their locks. `columns`: their types in PostgreSQL, by name. Values are what both take:
numbers, text, None; of a date, a `moment` and JSON: the text. Callers: `credits`, `proxy.usage` and `proxy.rollups`.
"""

import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import msgspec
from django.db import connection

_PARTS = (400, 40, 4, 1)  # rows in a statement of SQLite, which takes 32,766 values

Rows = Sequence[Sequence[Any]]

_encode = msgspec.json.Encoder().encode


def moment(seconds: float) -> str:
    """In UTC, in Django's way of writing it into SQLite."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1e6):06d}"


@functools.lru_cache(64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def insert(table: str, columns: Mapping[str, str], rows: Rows, then: str) -> None:
    """`then`: what becomes of a row that is there already: `ON CONFLICT …`."""
    if not rows:
        return
    if connection.vendor == "postgresql":
        _as_json(table, columns, rows, then)
    else:
        _in_parts(table, columns, rows, then)


def insert_new(table: str, columns: Mapping[str, str], rows: Rows) -> set[Any]:
    """Insert what is not there yet, by the first column, which is unique; returns what that is in the new rows."""
    if not rows:
        return set()
    unique = next(iter(columns))
    once = f"ON CONFLICT ({unique}) DO NOTHING"
    if connection.vendor == "postgresql":
        return {value for (value,) in _as_json(table, columns, rows, f"{once} RETURNING {unique}")}
    count = _in_parts(table, columns, rows, once)
    if count == len(rows):
        return {row[0] for row in rows}
    with connection.cursor() as cursor:  # nobody else writes meanwhile, and ids rise: the last ones are the new ones
        cursor.execute(f"SELECT {unique} FROM {table} ORDER BY id DESC LIMIT %s", [count])  # noqa: S608  # our own names
        return {value for (value,) in cursor.fetchall()}


def _as_json(table: str, columns: Mapping[str, str], rows: Rows, then: str) -> list[tuple[Any, ...]]:
    values = ", ".join(_read(f"row ->> {number}", kind) for number, kind in enumerate(columns.values()))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) "  # noqa: S608
            f"SELECT {values} FROM jsonb_array_elements(%s) AS rows (row) {then}",
            [_encode(rows).decode()],
        )
        return cursor.fetchall() if cursor.description else []


def _read(value: str, kind: str) -> str:
    return f"({value})::timestamp AT TIME ZONE 'UTC'" if kind == "timestamptz" else f"({value})::{kind}"


def _in_parts(table: str, columns: Mapping[str, str], rows: Rows, then: str) -> int:
    """Returns how many rows were inserted or changed. Django's cursor would translate all places, each time."""
    names, start, count = tuple(columns), 0, 0
    with connection.wrap_database_errors:
        for size in _PARTS:
            statement = _statement(table, names, size, then)
            while len(rows) - start >= size:
                values = [*chain.from_iterable(rows[start : start + size])]
                count += connection.connection.execute(statement, values).rowcount
                start += size
    return count


@functools.lru_cache(50)
def _statement(table: str, names: Sequence[str], count: int, then: str) -> str:
    row = f"({', '.join('?' * len(names))})"
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES {', '.join([row] * count)} {then}"  # noqa: S608
