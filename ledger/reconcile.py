"""Do the books add up? Events against their runs, runs against their emails; every one that does not is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Select, and_, case, func, select, tuple_
from sqlalchemy.orm import Session

from ledger.engine import now_ms
from ledger.fair import CHUNK
from ledger.tables import (
    PENDING,
    QUEUED,
    REPORTED,
    RUNNING,
    SENDING,
    EventRow,
    HandlerVersionRow,
    NotificationRow,
    NotificationRunRow,
    RunRow,
)
from schemas.events import run_id
from schemas.records import Outcome

EXAMPLES = 20
KINDS = (
    "event_without_run",
    "run_without_event",
    "run_without_email",
    "email_without_run",
    "lease_overdue",
    "email_overdue",
)


@dataclass(frozen=True)
class Problem:
    """Something that does not add up. kind: one of KINDS; what: in words; count; names: some of them, by id."""

    kind: str
    what: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Books:
    """Counts since since_ms, and what does not add up. expected: runs that follow from the frozen matches; replayed: runs
    made by replays; oldest_queued_s: how long the run that has waited longest has been due."""

    since_ms: int
    events: int
    expected: int
    replayed: int
    runs: dict[str, int]
    emails: dict[str, int]
    oldest_queued_s: float
    problems: tuple[Problem, ...]


def reconcile(session: Session, since_ms: int, overdue_s: float = 600.0) -> Books:
    """The books of all events received since since_ms. Reads everything since then: for a command, or now and then.

    overdue_s: how long after its time a lease that ended, or an email, may still be unsettled without being named.
    """
    now = now_ms(session)
    overdue = now - int(overdue_s * 1000)
    events, expected, missing = _against_matches(session, since_ms)
    mine = RunRow.queued_at_ms >= since_ms
    emails_since = NotificationRow.created_at_ms >= since_ms
    problems = [
        Problem(
            "event_without_run", "matches of events that no run stands for", len(missing), tuple(missing[:EXAMPLES])
        ),
        _problem(session, "run_without_event", "runs whose event is not in the ledger", _orphans(mine)),
        _problem(session, "run_without_email", "ended runs that are due an email and are in none", _unmailed(mine)),
        _problem(session, "email_without_run", "emails that account for no run", _empty_mails(emails_since)),
        _problem(
            session,
            "lease_overdue",
            f"runs whose lease ended more than {overdue_s:.0f} s ago and that nobody has freed",
            select(RunRow.id).where(mine, RunRow.state.in_((RUNNING, REPORTED)), RunRow.lease_until_ms < overdue),
        ),
        _problem(
            session,
            "email_overdue",
            f"emails that have been due for more than {overdue_s:.0f} s and are neither sent nor given up",
            select(NotificationRow.message_id).where(
                emails_since, NotificationRow.state.in_((PENDING, SENDING)), NotificationRow.not_before_ms < overdue
            ),
        ),
    ]
    oldest = session.scalar(
        select(func.min(RunRow.not_before_ms)).where(RunRow.state == QUEUED, RunRow.not_before_ms <= now)
    )
    return Books(
        since_ms,
        events,
        expected,
        session.scalar(select(func.count()).select_from(RunRow).where(mine, RunRow.replay_id != "")) or 0,
        _counted(session, select(RunRow.state, func.count()).where(mine).group_by(RunRow.state)),
        _counted(
            session, select(NotificationRow.state, func.count()).where(emails_since).group_by(NotificationRow.state)
        ),
        (now - oldest) / 1000 if oldest is not None else 0.0,
        tuple(problem for problem in problems if problem.count),
    )


def unknown_events(session: Session, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the (hook, RequestID) pairs that the ledger has no event for."""
    known: set[tuple[str, str]] = set()
    for start in range(0, len(keys), CHUNK):
        query = select(EventRow.hook, EventRow.request_id).where(
            tuple_(EventRow.hook, EventRow.request_id).in_(keys[start : start + CHUNK])
        )
        known.update((hook, request_id) for hook, request_id in session.execute(query))
    return [key for key in keys if key not in known]


def _against_matches(session: Session, since_ms: int) -> tuple[int, int, list[str]]:
    events = expected = 0
    missing: list[str] = []
    for rows in _pages(session, since_ms):
        wanted = {
            run_id(hook, request_id, handler_id): f"event {request_id}, handler {handler_id} version {version}"
            for hook, request_id, matches in rows
            for handler_id, version in json.loads(matches)
        }
        there: set[str] = set()
        ids = list(wanted)
        for start in range(0, len(ids), CHUNK):
            there.update(session.scalars(select(RunRow.id).where(RunRow.id.in_(ids[start : start + CHUNK]))))
        events += len(rows)
        expected += len(wanted)
        missing.extend(what for run, what in wanted.items() if run not in there)
    return events, expected, missing


def _pages(session: Session, since_ms: int) -> Iterator[list[tuple[str, str, str]]]:
    after = (since_ms - 1, "")
    while True:
        query = (
            select(EventRow.received_at_ms, EventRow.hook, EventRow.request_id, EventRow.matches)
            .where(tuple_(EventRow.received_at_ms, EventRow.request_id) > after)
            .order_by(EventRow.received_at_ms, EventRow.request_id)
            .limit(CHUNK)
        )
        rows = session.execute(query).all()
        if rows:
            yield [(hook, request_id, matches) for _, hook, request_id, matches in rows]
        if len(rows) < CHUNK:
            return
        after = (rows[-1][0], rows[-1][2])


def _orphans(mine: object) -> Select[str]:
    event = and_(EventRow.hook == RunRow.hook, EventRow.request_id == RunRow.request_id)
    return select(RunRow.id).outerjoin(EventRow, event).where(mine, EventRow.request_id.is_(None))  # type: ignore[arg-type]


def _unmailed(mine: object) -> Select[str]:
    version = and_(
        HandlerVersionRow.handler_id == RunRow.handler_id, HandlerVersionRow.version == RunRow.handler_version
    )
    recipient = case(
        (RunRow.state == Outcome.SUCCEEDED.value, HandlerVersionRow.notify_on_success),
        else_=HandlerVersionRow.notify_on_failure,
    )
    return (
        select(RunRow.id)
        .join(HandlerVersionRow, version)
        .outerjoin(NotificationRunRow, NotificationRunRow.run_id == RunRow.id)
        .where(
            mine,  # type: ignore[arg-type]
            RunRow.ended_at_ms.is_not(None),
            RunRow.state != Outcome.CANCELLED.value,
            recipient != "",
            NotificationRunRow.run_id.is_(None),
        )
    )


def _empty_mails(since: object) -> Select[str]:
    there = NotificationRunRow.notification_id == NotificationRow.id
    return (
        select(NotificationRow.message_id)
        .outerjoin(NotificationRunRow, there)
        .where(since, NotificationRunRow.run_id.is_(None))  # type: ignore[arg-type]
    )


def _problem(session: Session, kind: str, what: str, query: Select[str]) -> Problem:
    count = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    names = session.scalars(query.limit(EXAMPLES)).all() if count else ()
    return Problem(kind, what, count, tuple(names))


def _counted(session: Session, query: Select[str, int]) -> dict[str, int]:
    return dict(session.execute(query).tuples().all())
