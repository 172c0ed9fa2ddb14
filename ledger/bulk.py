"""Many rows of one table at once, past the ORM: what it does for each row costs more than the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy.orm import Session

from ledger.engine import is_postgresql
from ledger.tables import Table


def insert_rows(session: Session, kind: type[Table], rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts the rows, all with the same columns (two at least); a column that is not given gets its default, else NULL."""
    if not rows:
        return
    given = tuple(rows[0])
    defaults = _defaults(kind, given)
    mark = "%s" if is_postgresql(session) else "?"
    columns = (*given, *(name for name, _ in defaults))
    statement = f"INSERT INTO {kind.__tablename__} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"
    pick, rest = itemgetter(*given), tuple(value for _, value in defaults)
    session.connection().exec_driver_sql(statement, [(*pick(row), *rest) for row in rows])


@cache
def _defaults(kind: type[Table], given: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    found = []
    for column in kind.__table__.columns:
        if column.name not in given and column.default is not None and column.default.is_scalar:
            found.append((column.name, column.default.arg))
    return tuple(found)
