"""Files that handlers uploaded: whose they are, until when. Their bytes lie in the object store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ledger.engine import now_ms
from ledger.tables import FileRow, RunRow
from schemas.records import Upload


@dataclass(frozen=True)
class FileView:
    """One file. name: as the handler gave it; size in bytes; age_s: since its run ended; removed: its bytes are gone."""

    code: str
    run_id: str
    owner: str
    name: str
    size: int
    age_s: float
    removed: bool


def add_files(session: Session, run: RunRow, uploads: Sequence[Upload], now: int) -> list[Upload]:
    """Books a run's files; returns those that count. A code that is taken stays with whom it has: it names their file.

    now: ms.
    """
    codes = [upload.code for upload in uploads]
    taken = set(session.scalars(select(FileRow.code).where(FileRow.code.in_(codes)))) if codes else set()
    fresh = {upload.code: upload for upload in uploads if upload.code not in taken}
    session.add_all(
        FileRow(code=upload.code, run_id=run.id, owner=run.owner, name=upload.name, size=upload.size, created_at_ms=now)
        for upload in fresh.values()
    )
    session.flush()
    return list(fresh.values())


def file_of(session: Session, code: str) -> FileView | None:
    """The file of that code, or None."""
    row = session.get(FileRow, code)
    return None if row is None else _view(row, now_ms(session))


def expired(session: Session, age_s: float, limit: int) -> list[FileView]:
    """At most limit files that are older than age_s and not yet removed, the oldest first."""
    now = now_ms(session)
    query = (
        select(FileRow)
        .where(FileRow.created_at_ms < now - int(age_s * 1000), FileRow.removed_at_ms.is_(None))
        .order_by(FileRow.created_at_ms, FileRow.code)
        .limit(limit)
    )
    return [_view(row, now) for row in session.scalars(query)]


def note_removed(session: Session, codes: Sequence[str]) -> None:
    """The bytes of these files are gone; that there was such a file stays known, so that a link can say so."""
    session.execute(update(FileRow).where(FileRow.code.in_(codes)).values(removed_at_ms=now_ms(session)))


def _view(row: FileRow, now: int) -> FileView:
    age_s = (now - row.created_at_ms) / 1000
    return FileView(row.code, row.run_id, row.owner, row.name, row.size, age_s, row.removed_at_ms is not None)
