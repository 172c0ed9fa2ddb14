"""What runs that are going on have printed so far, told by their executors piece by piece; kept until the attempt ends."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ledger.claims import Lease, lease_counts, locked
from ledger.engine import storable
from ledger.tables import REPORTED, RUNNING, RunLogRow, RunRow
from schemas.records import Outcome

LEFT_OUT = "\n... "
"""How a log goes on where its middle was left out (executor/sandbox/output.py)."""
LOST = -1
MOST = 1 << 20
"""Characters of a run that is going on that are kept; of more, its end is told with its result."""


@dataclass(frozen=True)
class Piece:
    """A part of an attempt's log. at: where the next one begins, in characters; ended: the run has, and there is no more."""

    text: str
    attempt: int
    at: int
    state: str
    ended: bool


def append(session: Session, lease: Lease, at: int, text: str) -> int:
    """Adds what was printed after the first `at` characters; returns how many there are now. LOST: the lease is not the present one.

    A piece that does not begin where the last one ended (told twice, or one before it was lost) changes nothing; nor does one
    that is more than MOST.
    """
    row = locked(session, [lease.run_id]).get(lease.run_id)
    if row is None or row.state != RUNNING or not lease_counts(row, lease.lease_id):
        return LOST
    told = _told(session, row)
    if at != told or not text or told + len(text) > MOST:
        return told
    body = storable(text)
    session.add(RunLogRow(run_id=row.id, attempt=row.claims, at=at, until=at + len(body), body=body))
    session.flush()
    return at + len(body)


def read(session: Session, row: RunRow, attempt: int, at: int) -> Piece:
    """The run's log from `at` characters of that attempt on; of the present or last attempt when that is another, from its beginning."""
    if attempt != row.claims:
        at = 0
    at = max(at, 0)
    if row.state in (RUNNING, REPORTED):
        query = (
            select(RunLogRow.at, RunLogRow.body)
            .where(RunLogRow.run_id == row.id, RunLogRow.attempt == row.claims, RunLogRow.until > at)
            .order_by(RunLogRow.at)
        )
        text = "".join(body[max(at - start, 0) :] for start, body in session.execute(query))
        return Piece(text, row.claims, at + len(text), RUNNING, False)
    cut = row.log.find(LEFT_OUT) if row.log_truncated else -1
    rest = row.log[at:] if cut < 0 or at <= cut else row.log[cut:]
    ended = row.state in set(Outcome)
    return Piece(rest, row.claims, max(at, len(row.log)), row.state, ended)


def _told(session: Session, row: RunRow) -> int:
    query = select(func.max(RunLogRow.until)).where(RunLogRow.run_id == row.id, RunLogRow.attempt == row.claims)
    return session.scalar(query) or 0
