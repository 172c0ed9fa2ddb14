"""How much room what is kept takes, by kind."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from ledger.archives import PUBLISHED
from ledger.engine import is_postgresql
from ledger.tables import ArchiveRow, FileRow, Table

KINDS = ("runs", "events", "emails", "handlers", "archives", "audit", "other", "uploaded_archives", "files")
"""The last two lie in object stores."""

_KIND_OF = {
    "run": "runs", "attempt": "runs", "run_log": "runs", "event": "events", "notification": "emails",
    "notification_run": "emails", "handler": "handlers", "handler_version": "handlers", "blob": "handlers",
    "archive": "archives", "audit": "audit",
}  # fmt: skip

_POSTGRESQL = text(
    "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
    "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
)
_SQLITE = text(
    "SELECT m.tbl_name, sum(d.pgsize) FROM dbstat d JOIN sqlite_master m ON m.name = d.name "
    "WHERE d.aggregate = 1 GROUP BY m.tbl_name"
)


def sizes(session: Session) -> dict[str, int]:
    """Bytes by kind, indexes among them. In SQLite it reads every page; where it was built without dbstat all counts as other."""
    found: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    for table, size in _tables(session):
        if table in Table.metadata.tables or table == "alembic_version":
            found[_KIND_OF.get(table, "other")] += int(size)
    kept = select(func.sum(FileRow.size)).where(FileRow.removed_at_ms.is_(None))
    found["files"] = int(session.scalar(kept) or 0)
    stored = select(func.sum(ArchiveRow.size)).where(
        ArchiveRow.state != PUBLISHED
    )  # a published one's bytes are in BTrDB
    found["uploaded_archives"] = int(session.scalar(stored) or 0)
    return dict(found)


def _tables(session: Session) -> list[tuple[str, int]]:
    if is_postgresql(session):
        return [(name, size) for name, size in session.execute(_POSTGRESQL)]
    if session.scalar(text("SELECT count(*) FROM pragma_module_list WHERE name = 'dbstat'")):
        return [(name, size) for name, size in session.execute(_SQLITE)]
    pages = session.scalar(text("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"))
    return [("alembic_version", int(pages or 0))]
