"""What one at a time looks after: invitations that are due, leases that have ended, runtimes that nobody serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ledger.claims import end_attempt, locked, requeue
from ledger.conditions import WAITING
from ledger.engine import is_postgresql, now_ms
from ledger.notify import close_run
from ledger.rules import MailRules, Rules
from ledger.tables import REPORTED, RUNNING, HeartbeatRow, LeaderRow, RunRow
from schemas.records import Outcome, RunError

REGISTRY = "registry"
CLOSE_AT_ONCE = 500


def lead(session: Session, name: str, boot_id: str, for_s: float) -> bool:
    """Whether boot_id leads in what name names, for the next for_s seconds by the database's clock; prolongs its own lead."""
    query = select(LeaderRow).where(LeaderRow.name == name)
    if is_postgresql(session):
        query = query.with_for_update()
    now = now_ms(session)
    row = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        session.add(LeaderRow(name=name, boot_id=boot_id, until_ms=now + int(for_s * 1000)))
        session.flush()
        return True
    if row.boot_id != boot_id and row.until_ms > now:
        return False
    row.boot_id, row.until_ms = boot_id, now + int(for_s * 1000)
    session.flush()
    return True


def give_back(session: Session, name: str, boot_id: str) -> None:
    """boot_id leads no more in what name names: another may at once. Nothing happens where it does not lead."""
    mine = (LeaderRow.name == name, LeaderRow.boot_id == boot_id)
    session.execute(update(LeaderRow).where(*mine).values(until_ms=0))


def ended_leases(session: Session) -> list[str]:
    """The runs whose lease has ended: running ones, and reported ones whose result has not come in all that time."""
    now = now_ms(session)
    query = select(RunRow.id).where(RunRow.state.in_((RUNNING, REPORTED)), RunRow.lease_until_ms < now)
    return sorted(session.scalars(query))  # ORDER BY id would have SQLite walk through all runs there ever were


def free_ended(session: Session, run_ids: Sequence[str], rules: Rules) -> int:
    """Queues these runs again, or closes them as abandoned when their attempts are used up; returns how many it freed.

    Only those whose lease has still ended. A run lost alone counts towards rules.max_attempts. Runs lost together with one
    executor do not, for only one of them may be to blame: they are tried again one at a time (claims sees to it), up to
    rules.max_lost_together.
    """
    now = now_ms(session)
    ended = [
        row
        for row in locked(session, run_ids).values()
        if row.state in (RUNNING, REPORTED) and row.lease_until_ms is not None and row.lease_until_ms < now
    ]
    together = Counter(row.boot_hash for row in ended if row.state == RUNNING)
    for row in ended:
        reported = row.state == REPORTED
        if not reported and together[row.boot_hash] > 1:
            row.lost_with, row.lost_together = row.boot_hash, row.lost_together + 1
        elif not reported:
            row.lost += 1
        else:
            row.lost_together += 1
        end_attempt(session, row, now, "its result never came" if reported else "lost with its executor", None)
        if row.lost >= rules.max_attempts or row.lost_together >= rules.max_lost_together:
            close_run(session, row, Outcome.ABANDONED, now, rules.mail, RunError("Abandoned", _why_abandoned(row)))
        else:
            requeue(row, now, now + rules.wait_ms(row.lost + row.lost_together))
    session.flush()
    return len(ended)


def heartbeat(session: Session, rules: Rules) -> None:
    """Says that a registry answers; a gap of more than rules.silence_s begins a new stretch."""
    now = now_ms(session)
    row = session.get(HeartbeatRow, REGISTRY, populate_existing=True)
    if row is None:
        session.add(HeartbeatRow(name=REGISTRY, since_ms=now, last_ms=now))
    else:
        row.since_ms = now if now - row.last_ms > rules.silence_s * 1000 else row.since_ms
        row.last_ms = max(now, row.last_ms)
    session.flush()


def answering_since_ms(session: Session, rules: Rules) -> int | None:
    """Since when a registry has been answering without a gap; None when it is not answering now."""
    row = session.get(HeartbeatRow, REGISTRY, populate_existing=True)
    if row is None or now_ms(session) - row.last_ms > rules.silence_s * 1000:
        return None
    return row.since_ms


def unserved(session: Session, runtimes_served: set[str], after_s: float, mail: MailRules = MailRules()) -> int:  # noqa: B008 - frozen
    """Closes as refused the runs that have waited for after_s for a runtime that nobody serves; returns how many."""
    now = now_ms(session)
    if not runtimes_served:
        return 0
    query = (
        select(RunRow)
        .where(
            WAITING,
            RunRow.runtime.not_in(runtimes_served),
            RunRow.queued_at_ms < now - int(after_s * 1000),
        )
        .limit(CLOSE_AT_ONCE)
    )
    if is_postgresql(session):
        query = query.with_for_update(skip_locked=True)
    closed = 0
    for row in session.scalars(query).all():
        why = f"no executor serves {row.runtime}; there are: {', '.join(sorted(runtimes_served))}"
        close_run(session, row, Outcome.REFUSED, now, mail, RunError("NoRuntime", why))
        closed += 1
    return closed


def _why_abandoned(row: RunRow) -> str:
    if row.lost_together > row.lost:
        return f"its executor was lost, or its result never came, {row.lost_together} times"
    return f"its executor died under it {row.lost} times"
