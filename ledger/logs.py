"""What runs that are going on have printed so far, told by their executors piece by piece; kept until the attempt ends."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ledger.claims import Lease, lease_counts, locked
from ledger.engine import storable
from ledger.tables import REPORTED, RUNNING, AttemptRow, RunLogRow, RunRow
from schemas.records import Outcome

LEFT_OUT = "\n... "
"""How a log goes on where its middle was left out (executor/sandbox/output.py)."""
LOST = -1
MOST = 1 << 20
"""Characters of a run that is going on that are kept; of more, its end is told with its result."""
NOTE = 1 << 10
"""Characters beyond MOST in which the executor says that it tells no more."""


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
    that is more than MOST and NOTE.
    """
    row = locked(session, [lease.run_id]).get(lease.run_id)
    if row is None or row.state != RUNNING or not lease_counts(row, lease.lease_id):
        return LOST
    told = _told(session, row)
    if at != told or not text or told + len(text) > MOST + NOTE:
        return told
    body = storable(text)
    session.add(RunLogRow(run_id=row.id, attempt=row.claims, at=at, until=at + len(body), body=body))
    session.flush()
    return at + len(body)


def read(session: Session, row: RunRow, attempt: int, at: int) -> Piece:
    """The run's log from `at` characters of that attempt on; of the present or last attempt when that is another, from its beginning.

    Of the attempt before the present one, what has not been read yet comes first.
    """
    at = max(at, 0)
    kept_of = _with_result(session, row) if row.state not in set(Outcome) else row.claims
    if 0 < attempt == kept_of < row.claims and at < len(row.log):
        return Piece(_rest(row, at), attempt, len(row.log), RUNNING if row.state == REPORTED else row.state, False)
    if attempt != row.claims:
        at = 0
    if row.state in (RUNNING, REPORTED):
        query = (
            select(RunLogRow.at, RunLogRow.body)
            .where(RunLogRow.run_id == row.id, RunLogRow.attempt == row.claims, RunLogRow.until > at)
            .order_by(RunLogRow.at)
        )
        text = "".join(body[max(at - start, 0) :] for start, body in session.execute(query))
        return Piece(text, row.claims, at + len(text), RUNNING, False)
    if kept_of != row.claims:  # it waits, and its last attempt was lost or handed back
        return Piece("", row.claims, at, row.state, False)
    return Piece(_rest(row, at), row.claims, max(at, len(row.log)), row.state, row.state in set(Outcome))


def _rest(row: RunRow, at: int) -> str:
    at = min(at, MOST)  # what was read beyond it is none of the log
    cut = row.log.find(LEFT_OUT) if row.log_truncated else -1
    return row.log[at:] if cut < 0 or at <= cut else row.log[cut:]


def _with_result(session: Session, row: RunRow) -> int:
    """The last attempt that ended with a result, whose log the run has; 0 for none."""
    query = select(AttemptRow.number, AttemptRow.reason).where(AttemptRow.run_id == row.id)
    for number, reason in session.execute(query.order_by(AttemptRow.number.desc())):
        if reason.partition(":")[0] in set(Outcome):
            return int(number)
    return 0


def _told(session: Session, row: RunRow) -> int:
    query = select(func.max(RunLogRow.until)).where(RunLogRow.run_id == row.id, RunLogRow.attempt == row.claims)
    return session.scalar(query) or 0
