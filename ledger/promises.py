"""Was the promise kept: did all runs of an event start in time, unless a cap held them back?"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session

from ledger.engine import now_ms
from ledger.tables import AttemptRow, EventRow, RunRow


@dataclass(frozen=True)
class Started:
    """Events received from since_ms until until_ms (excluded, the database's clock): all whose runs started in time, and others."""

    since_ms: int
    until_ms: int
    in_time: int
    late: int


def started(session: Session, since_ms: int | None, within_s: float) -> Started:
    """Judges the events since since_ms that have had their time, within_s; None: only sets where the next call may begin.

    A run's time is reckoned from its queueing, or from when it was last allowed to start: a cap (or a retry's delay) moves that.
    An event without runs is in time.
    """
    now = now_ms(session)
    within_ms = int(within_s * 1000)
    until_ms = now - within_ms
    if since_ms is None or since_ms >= until_ms:
        return Started(since_ms or until_ms, max(since_ms or 0, until_ms), 0, 0)
    first = and_(AttemptRow.run_id == RunRow.id, AttemptRow.number == 1)
    began = func.coalesce(AttemptRow.claimed_at_ms, now)
    # a later retry has moved not_before past the first start: then the queueing counts
    allowed = case((RunRow.not_before_ms <= began, RunRow.not_before_ms), else_=RunRow.queued_at_ms)
    waited = began - case((allowed > RunRow.queued_at_ms, allowed), else_=RunRow.queued_at_ms)
    mine = and_(RunRow.hook == EventRow.hook, RunRow.request_id == EventRow.request_id, RunRow.replay_id == "")
    worst = (
        select(EventRow.hook, EventRow.request_id, func.coalesce(func.max(waited), 0).label("worst"))
        .select_from(EventRow)
        .outerjoin(RunRow, mine)
        .outerjoin(AttemptRow, first)
        .where(EventRow.received_at_ms >= since_ms, EventRow.received_at_ms < until_ms)
        .group_by(EventRow.hook, EventRow.request_id)
        .subquery()
    )
    late = func.coalesce(func.sum(case((worst.c.worst > within_ms, 1), else_=0)), 0)
    total, overdue = session.execute(select(func.count(), late).select_from(worst)).one()
    return Started(since_ms, until_ms, int(total) - int(overdue), int(overdue))
