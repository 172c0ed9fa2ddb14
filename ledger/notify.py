"""The end of a run: its outcome, written once, and the row of the outbox that accounts for it, in one transaction."""

from __future__ import annotations

import uuid

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ledger.engine import is_postgresql
from ledger.handlers import DIGEST, FAILURES, NONE, PRESENT
from ledger.rules import MailRules
from ledger.tables import (
    PENDING,
    AttemptRow,
    HandlerRow,
    HandlerVersionRow,
    NotificationRow,
    NotificationRunRow,
    RunRow,
)
from schemas.records import KEY_REFUSED, Outcome, RunError

SUCCESS, FAILURE, KEY = "success", "failure", "key"
KEY_MAIL_WAIT_MS = 5000  # so that the runs that are refused at the same time are in the same email


def close_run(
    session: Session,
    row: RunRow,
    outcome: Outcome,
    now: int,
    mail: MailRules,
    error: RunError | None = None,
    key_refused: bool = False,
) -> None:
    """Gives the run its outcome and, unless it was cancelled or nobody is to be told, its email.

    row: a run that has not ended, locked by this transaction; now: ms; mail: the storm guard; key_refused: its email is the one
    that tells the owner that BTrDB refuses the key, whatever the handler says of emails. Raises ValueError when it has
    ended already.
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
    well = outcome is Outcome.SUCCEEDED
    version = session.execute(
        select(
            HandlerVersionRow.notify_on_success, HandlerVersionRow.notify_on_failure, HandlerVersionRow.notify
        ).where(HandlerVersionRow.handler_id == row.handler_id, HandlerVersionRow.version == row.handler_version)
    ).one()
    recipient = version.notify_on_success if well else version.notify_on_failure
    told_of_key = error is not None and error.type == KEY_REFUSED
    if told_of_key:
        to = (
            (version.notify_on_failure or version.notify_on_success or _some_address(session, row))
            if key_refused
            else ""
        )
        if to:
            _put_key_mail(session, row, to, now)
            return
        if _join_key_mail(session, row):
            return
    if not recipient or version.notify == NONE or (well and version.notify == FAILURES):
        return
    _put(session, row, recipient, SUCCESS if well else FAILURE, now, mail, told_of_key or version.notify == DIGEST)


def _put(session: Session, row: RunRow, recipient: str, kind: str, now: int, rules: MailRules, together: bool) -> None:
    """Into an email of its own, or into the recipient's open digest while there is a storm, or when the handler wants it."""
    storm = together or (bool(rules.storm_after) and _recent(session, recipient, kind, now, rules) >= rules.storm_after)
    mail = _open_digest(session, recipient, kind, now, rules) if storm else None
    if mail is None:
        wait_ms = int(rules.digest_every_s * 1000) if storm else 0
        mail = NotificationRow(
            message_id=str(uuid.uuid5(uuid.UUID(row.id), "digest" if storm else "notification")),
            recipient=recipient,
            kind=kind,
            digest=storm,
            state=PENDING,
            created_at_ms=now,
            not_before_ms=now + wait_ms,
            tries=0,
            reason="",
        )
        session.add(mail)
        session.flush()
    session.add(NotificationRunRow(run_id=row.id, notification_id=mail.id))
    session.flush()


def _some_address(session: Session, row: RunRow) -> str:
    """Where the owner is told of something when this run's handler tells nobody: an address of another living handler; or ''."""
    query = (
        select(HandlerVersionRow.notify_on_failure, HandlerVersionRow.notify_on_success)
        .join(HandlerRow, PRESENT)
        .where(HandlerRow.owner == row.owner, HandlerRow.removed_at_ms.is_(None))
        .order_by(HandlerRow.id)
    )
    return next((bad or good for bad, good in session.execute(query) if bad or good), "")


def _put_key_mail(session: Session, row: RunRow, recipient: str, now: int) -> None:
    mail = NotificationRow(
        message_id=str(uuid.uuid5(uuid.UUID(row.id), "key")), recipient=recipient, kind=KEY, digest=True, state=PENDING,
        created_at_ms=now, not_before_ms=now + KEY_MAIL_WAIT_MS, tries=0, reason="",
    )  # fmt: skip
    session.add(mail)
    session.flush()
    session.add(NotificationRunRow(run_id=row.id, notification_id=mail.id))
    session.flush()


def _join_key_mail(session: Session, row: RunRow) -> bool:
    """Puts the run into the email about its owner's key, whomever that goes to, also when it has been sent: they have been told.

    That email is younger than the claim of each run that met the same key, for while a key is refused nothing is claimed under it.
    """
    claimed = select(AttemptRow.claimed_at_ms).where(AttemptRow.run_id == row.id, AttemptRow.number == row.claims)
    query = (
        select(NotificationRow.id)
        .join(NotificationRunRow, NotificationRunRow.notification_id == NotificationRow.id)
        .join(RunRow, RunRow.id == NotificationRunRow.run_id)
        .where(
            RunRow.owner == row.owner,
            RunRow.state == Outcome.REFUSED.value,
            NotificationRow.kind == KEY,
            NotificationRow.created_at_ms >= (session.scalar(claimed) or 0),
        )
        .order_by(NotificationRow.id.desc())
        .limit(1)
    )
    mail_id = session.scalar(query)
    if mail_id is None:
        return False
    session.add(NotificationRunRow(run_id=row.id, notification_id=mail_id))
    session.flush()
    return True


def _recent(session: Session, recipient: str, kind: str, now: int, rules: MailRules) -> int:
    """Emails about a single run that the recipient has been due within the window, counted up to storm_after."""
    some = (
        select(NotificationRow.id)
        .where(
            NotificationRow.recipient == recipient,
            NotificationRow.kind == kind,
            NotificationRow.created_at_ms > now - int(rules.storm_window_s * 1000),
            NotificationRow.digest.is_(False),
        )
        .limit(rules.storm_after)
        .subquery()
    )
    return session.scalar(select(func.count()).select_from(some)) or 0


def _open_digest(session: Session, recipient: str, kind: str, now: int, rules: MailRules) -> NotificationRow | None:
    """The recipient's digest that still takes runs: its time has not come, nobody has tried to send it, it is not full."""
    query = (
        select(NotificationRow)
        .where(
            NotificationRow.recipient == recipient,
            NotificationRow.kind == kind,
            NotificationRow.digest.is_(True),
            NotificationRow.created_at_ms > now - int(rules.digest_every_s * 1000),
            NotificationRow.state == PENDING,
            NotificationRow.tries == 0,
            NotificationRow.not_before_ms > now,
        )
        .order_by(NotificationRow.id.desc())
        .limit(1)
    )
    if is_postgresql(session):  # who is about to send it, or another run that goes into it, comes before or after us
        query = query.with_for_update()
    mail = session.scalar(query.execution_options(populate_existing=True))
    if mail is None:
        return None
    runs = select(func.count()).where(NotificationRunRow.notification_id == mail.id)
    return mail if (session.scalar(runs) or 0) < rules.digest_most else None
