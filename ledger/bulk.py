"""Many rows of one table at once, past the ORM: what it does for each row costs more than the row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_, select, update
from sqlalchemy.orm import Session

from ledger.engine import is_postgresql
from ledger.tables import QUEUED, EventRow, RunRow, Table


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


def of_events(kind: type[EventRow] | type[RunRow], keys: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    """The condition for the rows of these events, (hook, RequestID) each. For (hook, request_id) IN (...) SQLite would walk through all."""
    ids = defaultdict(list)
    for hook, request_id in keys:
        ids[hook].append(request_id)
    return or_(false(), *(and_(kind.hook == hook, kind.request_id.in_(some)) for hook, some in ids.items()))


def change_queued(session: Session, whose: ColumnElement[bool], **values: object) -> None:
    """Changes the runs that wait, of an owner or a handler. Locked in the order of their ids, as claims do, against deadlocks."""
    queued = (whose, RunRow.state == QUEUED)
    in_order = select(RunRow.id).where(*queued).order_by(RunRow.id).with_for_update()
    session.execute(update(RunRow).where(RunRow.id.in_(in_order), *queued).values(**values))


@cache
def _defaults(kind: type[Table], given: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    found = []
    for column in kind.__table__.columns:
        if column.name not in given and column.default is not None and column.default.is_scalar:
            found.append((column.name, column.default.arg))
    return tuple(found)
