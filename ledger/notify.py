"""The end of a run: its outcome, written once, and the row of the outbox that accounts for it, in one transaction."""

from __future__ import annotations

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.tables import PENDING, HandlerVersionRow, NotificationRow, NotificationRunRow, RunRow
from schemas.records import Outcome, RunError

SUCCESS, FAILURE = "success", "failure"


def close_run(session: Session, row: RunRow, outcome: Outcome, now: int, error: RunError | None = None) -> None:
    """Gives the run its outcome and, unless it was cancelled or nobody is to be told, its email.

    row: a run that has not ended, locked by this transaction; now: ms. Raises ValueError when it has ended already.
    """
    if row.state in set(Outcome):
        raise ValueError(f"run {row.id} has ended already: {row.state}")
    row.state, row.ended_at_ms = outcome.value, now
    row.lease_until_ms = row.invited_at_ms = None
    if error is not None:
        row.error_type, row.error_message, row.error_traceback = error.type, error.message, error.traceback
    session.flush()
    if outcome is Outcome.CANCELLED:
        return
    column = (
        HandlerVersionRow.notify_on_success if outcome is Outcome.SUCCEEDED else HandlerVersionRow.notify_on_failure
    )
    recipient = session.scalar(
        select(column).where(
            HandlerVersionRow.handler_id == row.handler_id, HandlerVersionRow.version == row.handler_version
        )
    )
    if not recipient:
        return
    mail = NotificationRow(
        message_id=str(uuid.uuid5(uuid.UUID(row.id), "notification")),
        recipient=recipient,
        kind=SUCCESS if outcome is Outcome.SUCCEEDED else FAILURE,
        state=PENDING,
        created_at_ms=now,
        not_before_ms=now,
        tries=0,
        reason="",
    )
    session.add(mail)
    session.flush()
    session.add(NotificationRunRow(run_id=row.id, notification_id=mail.id))
    session.flush()
