"""The outbox: emails that are due, taken under a lease, sent or put off or given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from ledger.engine import is_postgresql, now_ms, storable
from ledger.fair import CHUNK
from ledger.runs import RunLine, RunView, lines, views
from ledger.tables import GIVEN_UP, PENDING, SENDING, SENT, NotificationRow, NotificationRunRow

__all__ = [
    "Mail", "MailLine", "RunLine", "RunView", "Wanted", "counts", "give_up", "line", "postpone", "put_back", "recent", "retry",
    "run_ids", "sent", "take",
]  # fmt: skip


@dataclass(frozen=True)
class Mail:
    """An email to send. message_id: stable, from the row; kind: success or failure; tries: this one included.

    runs: the one that it tells of; of a digest none, but lines, one for each run that it accounts for.
    """

    id: int
    message_id: str
    recipient: str
    kind: str
    runs: tuple[RunView, ...]
    tries: int
    lines: tuple[RunLine, ...] = ()


def take(session: Session, sender: str, limit: int, lease_s: float) -> list[Mail]:
    """At most limit emails that are due, the oldest first; for lease_s nobody else gets them.

    Those whose sender let its lease end are due again, with the same message_id.
    """
    now = now_ms(session)
    query = (
        select(NotificationRow)
        .where(NotificationRow.state.in_((PENDING, SENDING)), NotificationRow.not_before_ms <= now)
        .order_by(NotificationRow.not_before_ms, NotificationRow.id)
        .limit(limit)
    )
    if is_postgresql(session):
        query = query.with_for_update(skip_locked=True)
    mails = []
    for row in session.scalars(query.execution_options(populate_existing=True)).all():
        row.state, row.sender, row.tries, row.not_before_ms = SENDING, sender, row.tries + 1, now + int(lease_s * 1000)
        ids = run_ids(session, row.id)
        runs = () if row.digest else tuple(views(session, sorted(ids)))
        told = tuple(lines(session, ids)) if row.digest else ()
        mails.append(Mail(row.id, row.message_id, row.recipient, row.kind, runs, row.tries, told))
    session.flush()
    return mails


def sent(session: Session, mail: Mail) -> None:
    """The SMTP server has taken it; that counts even when the lease was lost meanwhile, or it would be sent once more."""
    query = update(NotificationRow).where(NotificationRow.id == mail.id, NotificationRow.state != SENT)
    session.execute(query.values(state=SENT, ended_at_ms=now_ms(session), reason=""))


def postpone(session: Session, mail: Mail, reason: str, after_s: float) -> None:
    """Not now: due again after after_s. Nothing happens when another sender has taken it meanwhile."""
    _settle(
        session,
        mail,
        state=PENDING,
        not_before_ms=now_ms(session) + int(after_s * 1000),
        reason=storable(reason)[:1000],
    )


def put_back(session: Session, mail: Mail) -> None:
    """Not come to: due again at once, as if it had not been taken."""
    _settle(session, mail, state=PENDING, not_before_ms=now_ms(session), tries=NotificationRow.tries - 1)


def give_up(session: Session, mail: Mail, reason: str) -> None:
    """Never: the reason stays for the operator. Nothing happens when another sender has taken it meanwhile."""
    _settle(session, mail, state=GIVEN_UP, ended_at_ms=now_ms(session), reason=storable(reason)[:1000])


@dataclass(frozen=True)
class MailLine:
    """An email in short; runs: how many it accounts for; reason: why it was put off or given up last; next_or_end_ms: when it
    is due next, or when it was sent or given up."""

    id: int
    message_id: str
    created_at_ms: int
    recipient: str
    kind: str
    state: str
    tries: int
    runs: int
    reason: str
    next_or_end_ms: int


@dataclass(frozen=True)
class Wanted:
    """Which emails; '' and 0 for any. reason: a part of it; since_ms: made since then; before: an id that theirs are below."""

    state: str = ""
    recipient: str = ""
    reason: str = ""
    since_ms: int = 0
    before: int = 0


def recent(session: Session, wanted: Wanted, limit: int) -> list[MailLine]:
    """The newest emails of those wanted, at most limit, the newest first."""
    query = _LINE.where(NotificationRow.created_at_ms >= wanted.since_ms).limit(limit)
    if wanted.state:
        query = query.where(NotificationRow.state == wanted.state)
    if wanted.recipient:
        query = query.where(NotificationRow.recipient == wanted.recipient)
    if wanted.reason:
        query = query.where(NotificationRow.reason.contains(wanted.reason, autoescape=True))
    if wanted.before:
        query = query.where(NotificationRow.id < wanted.before)
    return [_line(row, runs) for row, runs in session.execute(query.order_by(NotificationRow.id.desc()))]


def line(session: Session, mail_id: int) -> MailLine | None:
    """The email of that id in short; None when there is none."""
    found = session.execute(_LINE.where(NotificationRow.id == mail_id)).first()
    return None if found is None else _line(*found)


def run_ids(session: Session, mail_id: int) -> Sequence[str]:
    """The runs that the email accounts for."""
    return session.scalars(select(NotificationRunRow.run_id).where(NotificationRunRow.notification_id == mail_id)).all()


_RUNS = (
    select(func.count())
    .where(NotificationRunRow.notification_id == NotificationRow.id)
    .correlate(NotificationRow)
    .scalar_subquery()
)
_LINE = select(NotificationRow, _RUNS)


def _line(row: NotificationRow, runs: int) -> MailLine:
    return MailLine(
        row.id, row.message_id, row.created_at_ms, row.recipient, row.kind, row.state, row.tries, runs, row.reason,
        row.not_before_ms if row.ended_at_ms is None else row.ended_at_ms,
    )  # fmt: skip


def retry(session: Session, mail_ids: Sequence[int]) -> int:
    """Emails that were given up are due again, as if not tried yet, with their old message_id; returns how many."""
    count, now = 0, now_ms(session)
    for start in range(0, len(mail_ids), CHUNK):
        done = session.execute(
            update(NotificationRow)
            .where(NotificationRow.id.in_(mail_ids[start : start + CHUNK]), NotificationRow.state == GIVEN_UP)
            .values(state=PENDING, not_before_ms=now, tries=0, ended_at_ms=None)
        )
        count += int(done.rowcount)  # type: ignore[attr-defined]
    return count


def counts(session: Session) -> dict[str, int]:
    """How many emails are in each state."""
    return dict(session.execute(select(NotificationRow.state, func.count()).group_by(NotificationRow.state)).all())


def _settle(session: Session, mail: Mail, **values: object) -> None:
    ours = (
        NotificationRow.id == mail.id,
        NotificationRow.state == SENDING,
        NotificationRow.tries == mail.tries,  # each taking counts one up: another number is another sender's
    )
    session.execute(update(NotificationRow).where(*ours).values(**values))
