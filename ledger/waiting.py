"""How long what is due has been waiting: runs for an executor, emails for a server. By indexes alone, however much waits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from ledger.conditions import WAITING
from ledger.engine import now_ms
from ledger.tables import PENDING, SENDING, NotificationRow, RunRow

OTHER = "other"


def oldest_queued_s(session: Session, runtimes: Iterable[str]) -> dict[str, float]:
    """Since when the run that waits longest has been due, in seconds, 0 when none is: for each runtime, and for OTHER, all else."""
    now, served = now_ms(session), sorted(set(runtimes))
    oldest = {name: _since(session, now, RunRow.runtime == name) for name in served}
    oldest[OTHER] = max(_since(session, now, *between) for between in _besides(served))
    return oldest


def oldest_email_s(session: Session) -> float:
    """The same of emails. One that waits to be tried again, or that a sender has, is not due."""
    now = now_ms(session)
    query = select(func.min(NotificationRow.not_before_ms))
    found = [session.scalar(query.where(NotificationRow.state == state)) for state in (PENDING, SENDING)]
    return max(_age_s(now, since) for since in found)


def _besides(served: list[str]) -> Iterator[list[ColumnElement[bool]]]:
    """The ranges between the names: NOT IN would walk through every run that waits."""
    for below, above in zip([None, *served], [*served, None], strict=True):
        bounds = []
        if below is not None:
            bounds.append(RunRow.runtime > below)
        if above is not None:
            bounds.append(RunRow.runtime < above)
        yield bounds


def _since(session: Session, now: int, *of: ColumnElement[bool]) -> float:
    return _age_s(now, session.scalar(select(func.min(RunRow.not_before_ms)).where(WAITING, *of)))


def _age_s(now: int, since_ms: int | None) -> float:
    return 0.0 if since_ms is None else max(0, now - since_ms) / 1000
