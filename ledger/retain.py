"""What is old enough goes, a small batch at a time; how many there were stays in the tally, for the books."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, or_, select, tuple_, update
from sqlalchemy import Table as SqlTable
from sqlalchemy.orm import Session, aliased

from ledger.bulk import of_events
from ledger.engine import is_postgresql, now_ms
from ledger.rules import KeepRules
from ledger.tables import (
    AuditRow,
    BlobRow,
    EventRow,
    FileRow,
    HandlerRow,
    HandlerVersionRow,
    NotificationRow,
    NotificationRunRow,
    RedrivenRow,
    RevisionRow,
    RunRow,
    Table,
    TallyRow,
)
from schemas.topics import DAY_MS

KINDS = ("texts", "emails", "runs", "events", "handler_versions", "redriven", "audit")
"""In the order in which they go: a run after its texts and its email, an event after its runs, a version after its runs."""

Rows = Select[*tuple[Any, ...]]

EVENT, EXPECTED, RUN, REPLAYED, EMAIL = "event", "expected", "run", "replayed", "email"


def remove_some(session: Session, kind: str, rules: KeepRules, limit: int) -> int:
    """Removes at most limit of a kind (one of KINDS, else ValueError) that are too old, the oldest first; returns how many.

    Fewer than limit: there are no more for now. A run goes once its texts are gone, its email has been sent or given up, and the
    bytes of its files are gone (who keeps them removes them); an event once it has no run; a version of a handler when it is
    not the present one and has no run, with its pickle when no other version has it.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
    before = _before(rules, kind, now_ms(session))
    return _WORK[kind](session, before, limit) if before is not None else 0


def too_old(session: Session, rules: KeepRules) -> dict[str, int]:
    """How many of each kind would go now, as far as nothing else has to go before them. Reads all of them."""
    now = now_ms(session)
    found = {}
    for kind in KINDS:
        before = _before(rules, kind, now)
        query = _OLD[kind](before) if before is not None else None
        found[kind] = 0 if query is None else session.scalar(select(func.count()).select_from(query.subquery())) or 0
    return found


def removed(session: Session, since_ms: int) -> dict[tuple[str, str], int]:
    """How many were removed of those made since then, by (kind, word); of the day in which since_ms lies none."""
    query = (
        select(TallyRow.kind, TallyRow.word, func.sum(TallyRow.count))
        .where(TallyRow.day_ms >= since_ms)
        .group_by(TallyRow.kind, TallyRow.word)
    )
    return {(kind, word): int(count) for kind, word, count in session.execute(query)}


def _before(rules: KeepRules, kind: str, now: int) -> int | None:
    age: int | None = getattr(rules, f"{kind}_ms")
    if kind == "texts" and rules.runs_ms is not None:  # a run's texts go before it
        age = rules.runs_ms if age is None else min(age, rules.runs_ms)
    return None if age is None else now - age


def _locked(session: Session, query: Rows, of: type[Table], limit: int) -> Sequence[Any]:
    """At most limit rows of it, locked; those that somebody else has locked are left for the next time."""
    query = query.limit(limit)
    if is_postgresql(session):
        query = query.with_for_update(skip_locked=True, of=of)
    return session.execute(query).all()


def _old_texts(before: int) -> Rows:
    which = (RunRow.ended_at_ms < before, RunRow.texts_removed_at_ms.is_(None))
    return select(RunRow.id).where(*which).order_by(RunRow.ended_at_ms)


def _texts(session: Session, before: int, limit: int) -> int:
    ids = [row.id for row in _locked(session, _old_texts(before), RunRow, limit)]
    gone = {
        "text": "",
        "log": "",
        "error_message": None,
        "error_traceback": None,
        "texts_removed_at_ms": now_ms(session),
    }
    session.execute(update(RunRow).where(RunRow.id.in_(ids)).values(**gone))
    return len(ids)


def _old_emails(before: int) -> Rows:
    row = NotificationRow
    return select(row.id, row.state, row.created_at_ms).where(row.ended_at_ms < before).order_by(row.ended_at_ms)


def _emails(session: Session, before: int, limit: int) -> int:
    rows = _locked(session, _old_emails(before), NotificationRow, limit)
    ids = [row.id for row in rows]
    links = NotificationRunRow.notification_id.in_(ids)
    runs = session.scalars(select(NotificationRunRow.run_id).where(links)).all()
    session.execute(update(RunRow).where(RunRow.id.in_(runs)).values(mail_removed=True))
    session.execute(delete(NotificationRunRow).where(links))
    session.execute(delete(NotificationRow).where(NotificationRow.id.in_(ids)))
    _tally(session, Counter((_day(row.created_at_ms), EMAIL, row.state) for row in rows))
    return len(rows)


def _old_runs(before: int) -> Rows:
    unsent = exists().where(
        NotificationRunRow.run_id == RunRow.id,
        NotificationRow.id == NotificationRunRow.notification_id,
        NotificationRow.ended_at_ms.is_(None),
    )
    kept = exists().where(FileRow.run_id == RunRow.id, FileRow.removed_at_ms.is_(None))
    return (
        select(RunRow.id, RunRow.hook, RunRow.request_id, RunRow.state, RunRow.queued_at_ms, RunRow.replay_id)
        .where(RunRow.texts_removed_at_ms.is_not(None), RunRow.ended_at_ms < before, ~unsent, ~kept)
        .order_by(RunRow.ended_at_ms)
    )


def _runs(session: Session, before: int, limit: int) -> int:
    rows = _locked(session, _old_runs(before), RunRow, limit)
    ids = [row.id for row in rows]
    mails = select(NotificationRunRow.notification_id).where(NotificationRunRow.run_id.in_(ids)).distinct()
    told = session.scalars(mails).all()
    for column in _referring(RunRow.__table__):  # type: ignore[arg-type]
        session.execute(delete(column.table).where(column.in_(ids)))
    session.execute(delete(RunRow).where(RunRow.id.in_(ids)))
    _without_runs(session, told)
    firsts = Counter((row.hook, row.request_id) for row in rows if not row.replay_id)
    for (hook, request_id), count in sorted(firsts.items()):
        mine = (EventRow.hook == hook, EventRow.request_id == request_id)
        session.execute(update(EventRow).where(*mine).values(runs_removed=EventRow.runs_removed + count))
    counts = Counter((_day(row.queued_at_ms), RUN, row.state) for row in rows)
    counts.update((_day(row.queued_at_ms), REPLAYED, "") for row in rows if row.replay_id)
    _tally(session, counts)
    return len(rows)


def _without_runs(session: Session, mail_ids: Sequence[int]) -> None:
    """Emails whose last run has gone go with it."""
    told = exists().where(NotificationRunRow.notification_id == NotificationRow.id)
    row = NotificationRow
    rows = session.execute(select(row.id, row.state, row.created_at_ms).where(row.id.in_(mail_ids), ~told)).all()
    session.execute(delete(row).where(row.id.in_([one.id for one in rows])))
    _tally(session, Counter((_day(one.created_at_ms), EMAIL, one.state) for one in rows))


def _referring(table: SqlTable) -> list[ColumnElement[Any]]:
    """The columns of other tables that refer to it: rows there are a part of its rows."""
    return [
        key.parent for other in Table.metadata.sorted_tables for key in other.foreign_keys if key.column.table is table
    ]


_HAS_RUNS = exists().where(RunRow.hook == EventRow.hook, RunRow.request_id == EventRow.request_id)


def _old_events(before: int) -> Rows:
    row = EventRow
    query = select(row.hook, row.request_id, row.received_at_ms, row.matches).where(
        row.received_at_ms < before, ~_HAS_RUNS
    )
    return query.order_by(row.received_at_ms, row.request_id)


def _events(session: Session, before: int, limit: int) -> int:
    rows = _locked(session, _old_events(before), EventRow, limit)
    keys = [(row.hook, row.request_id) for row in rows]
    # asked once more under the lock: a replay that held it before has made runs
    gone = set(_keys_gone(session, keys))
    counts: Counter[tuple[int, str, str]] = Counter()
    for row in rows:
        if (row.hook, row.request_id) in gone:
            counts[(_day(row.received_at_ms), EVENT, "")] += 1
            counts[(_day(row.received_at_ms), EXPECTED, "")] += len(json.loads(row.matches))
    _tally(session, counts)
    return len(rows)


def _keys_gone(session: Session, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    if not keys:
        return []
    these = of_events(EventRow, keys)
    found = session.execute(delete(EventRow).where(these, ~_HAS_RUNS).returning(EventRow.hook, EventRow.request_id))
    return [(hook, request_id) for hook, request_id in found]


def _old_versions(before: int) -> Rows:
    version, later = HandlerVersionRow, aliased(HandlerVersionRow)
    superseded = and_(
        version.version != HandlerRow.version,
        exists(later.version).where(
            later.handler_id == version.handler_id, later.version > version.version, later.created_at_ms < before
        ),
    )
    used = exists().where(RunRow.handler_id == version.handler_id, RunRow.handler_version == version.version)
    return (
        select(version.handler_id, version.version, version.digest)
        .join(HandlerRow, HandlerRow.id == version.handler_id)
        .where(or_(superseded, HandlerRow.removed_at_ms < before), ~used)
        .order_by(version.handler_id, version.version)
    )


def _versions(session: Session, before: int, limit: int) -> int:
    # first, as a registration does: none is about to refer to a pickle that goes
    session.execute(update(RevisionRow).values(number=RevisionRow.number))
    rows = _locked(session, _old_versions(before), HandlerVersionRow, limit)
    keys = [(row.handler_id, row.version) for row in rows]
    if keys:
        these = tuple_(HandlerVersionRow.handler_id, HandlerVersionRow.version).in_(keys)
        session.execute(delete(HandlerVersionRow).where(these))
    unused = ~exists(HandlerVersionRow.digest).where(HandlerVersionRow.digest == BlobRow.digest)
    session.execute(delete(BlobRow).where(BlobRow.digest.in_({row.digest for row in rows}), unused))
    return len(rows)


def _old_redriven(before: int) -> Rows:
    return select(RedrivenRow.number).where(RedrivenRow.at_ms < before)


def _redriven(session: Session, before: int, limit: int) -> int:
    numbers = [row.number for row in _locked(session, _old_redriven(before), RedrivenRow, limit)]
    session.execute(delete(RedrivenRow).where(RedrivenRow.number.in_(numbers)))
    return len(numbers)


def _old_audit(before: int) -> Rows:
    return select(AuditRow.id).where(AuditRow.at_ms < before).order_by(AuditRow.at_ms)


def _audit(session: Session, before: int, limit: int) -> int:
    # without locks, for which one would need the right to change an act: who comes second finds them gone
    ids = session.scalars(_old_audit(before).limit(limit)).all()
    session.execute(delete(AuditRow).where(AuditRow.id.in_(ids)))
    return len(ids)


_OLD: dict[str, Callable[[int], Rows]] = {
    "texts": _old_texts, "emails": _old_emails, "runs": _old_runs, "events": _old_events,
    "handler_versions": _old_versions, "redriven": _old_redriven, "audit": _old_audit,
}  # fmt: skip
_WORK: dict[str, Callable[[Session, int, int], int]] = {
    "texts": _texts, "emails": _emails, "runs": _runs, "events": _events, "handler_versions": _versions,
    "redriven": _redriven, "audit": _audit,
}  # fmt: skip


def _day(ms: int) -> int:
    return ms - ms % DAY_MS


def _tally(session: Session, counts: Counter[tuple[int, str, str]]) -> None:
    for (day, kind, word), count in sorted(counts.items()):
        mine = (TallyRow.day_ms == day, TallyRow.kind == kind, TallyRow.word == word)
        done = session.execute(update(TallyRow).where(*mine).values(count=TallyRow.count + count))
        if done.rowcount == 0:  # type: ignore[attr-defined]
            session.add(TallyRow(day_ms=day, kind=kind, word=word, count=count))
            session.flush()
