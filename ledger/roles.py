"""Which rights on the ledger's tables each station needs, and no more: roles.json, in PostgreSQL's words.

A right is an operation, on all of a table, on some columns (SELECT (owner)) or on all but some (SELECT BUT (sealed)). An UPDATE of
a column that is never written is there for the rows' locks (SELECT ... FOR UPDATE wants the right to update one column). "admin" is
eventproc-admin at its daily work; migrations are made by the tables' owner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sqlalchemy import text

from ledger.engine import Ledger, alone_in_migrating
from ledger.tables import Table

FILE = Path(__file__).with_name("roles.json")
VERSIONS = "alembic_version"
USUAL = "eventproc_{station}"
_RIGHT = re.compile(r"(SELECT|INSERT|UPDATE|DELETE)(?: (BUT )?\(([a-z_0-9, ]+)\))?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,62}")


@dataclass(frozen=True)
class Right:
    """operation: as PostgreSQL names it; columns: of the table, none for all."""

    table: str
    operation: str
    columns: tuple[str, ...] = ()

    def sql(self, schema: str) -> str:
        """As it stands between GRANT and TO, or REVOKE and FROM."""
        of = f" ({', '.join(self.columns)})" if self.columns else ""
        return f'{self.operation}{of} ON "{schema}".{self.table}'


@cache
def roles() -> Mapping[str, tuple[Right, ...]]:
    """By station, the rights that it needs. All may read which migration the tables are of."""
    listed = json.loads(FILE.read_text())
    return {
        station: (
            Right(VERSIONS, "SELECT"),
            *(_right(table, one) for table, rights in tables.items() for one in rights),
        )
        for station, tables in listed.items()
    }


def role_names(pattern: str) -> dict[str, str]:
    """By station, its role's name: the pattern with the station in it. Raises ValueError for one that is no name of a role."""
    names = {station: pattern.replace("{station}", station) for station in roles()}
    if "{station}" not in pattern or not all(_NAME.fullmatch(name) for name in names.values()):
        raise ValueError(f"{pattern!r} should be the name of a role with {{station}} in it, as in {USUAL}")
    return names


def statements(station: str, role: str, schema: str) -> list[str]:
    """SQL that makes the role when there is none, without a login, and gives it the station's rights and no others."""
    tables = ", ".join(f'"{schema}".{name}' for name in (*sorted(Table.metadata.tables), VERSIONS))
    counters = ", ".join(f'"{schema}".{name}' for name in sorted(filter(None, map(_counter, Table.metadata.tables))))
    rights = roles()[station]
    counted = sorted(filter(None, (_counter(right.table) for right in rights if right.operation == "INSERT")))
    return [
        f"DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE \"{role}\"; END IF; END$$",
        f'REVOKE ALL ON {tables} FROM "{role}"',
        f'REVOKE ALL ON SEQUENCE {counters} FROM "{role}"',
        f'GRANT USAGE ON SCHEMA "{schema}" TO "{role}"',
        *(f'GRANT {right.sql(schema)} TO "{role}"' for right in rights),
        *(f'GRANT USAGE ON SEQUENCE "{schema}".{counter} TO "{role}"' for counter in counted),
    ]


def grant(ledger: Ledger, pattern: str) -> dict[str, str]:
    """Gives every station's role its rights and no others, in one transaction; their names by station. Blocks.

    Stations at work notice nothing but what was taken from them. Raises ValueError when the ledger has no roles, or for a bad
    pattern; NotAllowed when we may not; TryLater.
    """
    names = role_names(pattern)
    if ledger.engine.dialect.name != "postgresql":
        raise ValueError("only PostgreSQL has roles; this ledger is a file, whose rights are the file system's")
    with ledger.write() as session:
        alone_in_migrating(session.connection())
        schema = str(session.scalar(text("SELECT current_schema()")))
        for station, role in names.items():
            for statement in statements(station, role, schema):
                session.execute(text(statement))
    return names


def _right(table: str, words: str) -> Right:
    found = _RIGHT.fullmatch(words)
    known = Table.metadata.tables.get(table)
    if found is None or known is None:
        raise ValueError(f"{FILE.name}: {table}: {words!r} is no right on a table of the ledger")
    operation, but, listed = found.groups()
    columns = tuple(column.strip() for column in listed.split(",")) if listed else ()
    unknown = set(columns) - set(known.columns.keys())
    if unknown:
        raise ValueError(f"{FILE.name}: {table} has no column {', '.join(sorted(unknown))}")
    if but:
        columns = tuple(column.name for column in known.columns if column.name not in columns)
    return Right(table, operation, columns)


def _counter(table: str) -> str | None:
    """The sequence that numbers the table's rows, as PostgreSQL names one that it makes for a column."""
    known = Table.metadata.tables.get(table)
    column = known.autoincrement_column if known is not None else None
    return f"{table}_{column.name}_seq" if column is not None else None
