"""Do the books add up? Events against their runs, runs against their emails; every one that does not is named."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, and_, case, func, not_, or_, select, tuple_
from sqlalchemy.orm import Session

from ledger.bulk import of_events
from ledger.engine import now_ms
from ledger.fair import CHUNK
from ledger.handlers import FAILURES, NONE
from ledger.notify import KEY
from ledger.retain import EMAIL, EVENT, EXPECTED, REPLAYED, RUN, removed
from ledger.tables import (
    GIVEN_UP,
    PENDING,
    QUEUED,
    REPORTED,
    RUNNING,
    SENDING,
    SENT,
    EventRow,
    HandlerVersionRow,
    NotificationRow,
    NotificationRunRow,
    RunRow,
)
from ledger.waiting import OTHER, oldest_queued_s
from schemas.events import run_id
from schemas.records import Outcome

EXAMPLES = 20
EVENT_LOST = "event_lost"  # found by who reads the topics too: stream/seen.py
KINDS = (
    EVENT_LOST,
    "event_without_run",
    "run_without_match",
    "run_without_event",
    "run_state_unsound",
    "lease_overdue",
    "run_without_email",
    "email_without_run",
    "email_not_due",
    "email_state_unsound",
    "email_overdue",
)
RUN_STATES = (QUEUED, RUNNING, REPORTED, *(outcome.value for outcome in Outcome))
EMAIL_STATES = (PENDING, SENDING, SENT, GIVEN_UP)


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
    made by replays; invited: queued runs whose task is out; oldest_queued_s: how long the run that has waited longest has
    been due. All count what was removed for its age since the first whole day (UTC) too; removed: how much of them that is, by kind."""

    since_ms: int
    events: int
    expected: int
    replayed: int
    invited: int
    runs: dict[str, int]
    emails: dict[str, int]
    oldest_queued_s: float
    problems: tuple[Problem, ...]
    removed: dict[str, int] = field(default_factory=dict)


def reconcile(session: Session, since_ms: int, overdue_s: float = 600.0) -> Books:
    """The books of all events received since since_ms. Reads everything since then: for a command, or now and then.

    overdue_s: how long after its time a lease that ended, or an email, may still be unsettled without being named.
    """
    now = now_ms(session)
    overdue = now - int(overdue_s * 1000)
    events, expected, problems = _against_matches(session, since_ms)
    mine = RunRow.queued_at_ms >= since_ms
    emails_since = NotificationRow.created_at_ms >= since_ms
    for kind, what, query in (
        ("run_without_event", "runs whose event is not in the ledger", _orphans(mine)),
        ("run_state_unsound", "runs whose state does not go with their end or their lease", _unsound_runs(mine)),
        (
            "lease_overdue",
            f"runs whose lease ended more than {overdue_s:.0f} s ago and that nobody has freed",
            select(RunRow.id).where(mine, RunRow.state.in_((RUNNING, REPORTED)), RunRow.lease_until_ms < overdue),
        ),
        ("run_without_email", "ended runs that are due an email and are in none", _unmailed(mine)),
        ("email_without_run", "emails that account for no run", _empty_mails(emails_since)),
        (
            "email_not_due",
            "runs in an email that is not due: not ended, cancelled, or to another",
            _early_mails(emails_since),
        ),
        ("email_state_unsound", "emails whose state does not go with their end", _unsound_mails(emails_since)),
        (
            "email_overdue",
            f"emails that have been due for more than {overdue_s:.0f} s and are neither sent nor given up",
            select(NotificationRow.message_id).where(
                emails_since, NotificationRow.state.in_((PENDING, SENDING)), NotificationRow.not_before_ms < overdue
            ),
        ),
    ):
        problems.append(_problem(session, kind, what, query))
    gone = removed(session, since_ms)
    return Books(
        since_ms,
        events + gone.get((EVENT, ""), 0),
        expected + gone.get((EXPECTED, ""), 0),
        _count(session, select(RunRow.id).where(mine, RunRow.replay_id != "")) + gone.get((REPLAYED, ""), 0),
        _count(session, select(RunRow.id).where(mine, RunRow.state == QUEUED, RunRow.invited_at_ms.is_not(None))),
        _with_gone(select(RunRow.state, func.count()).where(mine).group_by(RunRow.state), session, gone, RUN),
        _with_gone(
            select(NotificationRow.state, func.count()).where(emails_since).group_by(NotificationRow.state),
            session, gone, EMAIL,
        ),
        oldest_queued_s(session, ())[OTHER],
        tuple(one for one in problems if one.count),
        {kind: sum(n for (k, _), n in gone.items() if k == kind) for kind in (EVENT, RUN, EMAIL)} if gone else {},
    )  # fmt: skip


def unknown_events(session: Session, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the (hook, RequestID) pairs that the ledger has no event for."""
    known: set[tuple[str, str]] = set()
    for start in range(0, len(keys), CHUNK):
        query = select(EventRow.hook, EventRow.request_id).where(of_events(EventRow, keys[start : start + CHUNK]))
        known.update((hook, request_id) for hook, request_id in session.execute(query))
    return [key for key in keys if key not in known]


def problem(kind: str, what: str, names: Sequence[str]) -> Problem:
    """A problem with all its names, of which some are kept."""
    return Problem(kind, what, len(names), tuple(names[:EXAMPLES]))


def _against_matches(session: Session, since_ms: int) -> tuple[int, int, list[Problem]]:
    events = expected = 0
    missing: list[str] = []
    unfounded: list[str] = []
    for rows in _pages(session, since_ms):
        wanted = {
            run_id(hook, request_id, handler_id): (request_id, handler_id, version)
            for hook, request_id, matches, _ in rows
            for handler_id, version in json.loads(matches)
        }
        there = _first_runs(session, [(hook, request_id) for hook, request_id, _, _ in rows])
        events += len(rows)
        expected += len(wanted)
        absent = [one for run, one in wanted.items() if run not in there]
        lacking = Counter(request_id for request_id, _, _ in absent)
        aged = {request_id for _, request_id, _, gone in rows if gone and lacking[request_id] == gone}
        missing.extend(f"event {e}, handler {h} version {v}" for e, h, v in absent if e not in aged)
        unfounded.extend(
            f"run {run}: event {e}, handler {h} version {v}"
            for run, (e, h, v) in there.items()
            if wanted.get(run) != (e, h, v)
        )
    return (
        events,
        expected,
        [
            problem("event_without_run", "matches of events that no run stands for", missing),
            problem("run_without_match", "runs of handlers, or versions, that their event did not meet", unfounded),
        ],
    )


def _first_runs(session: Session, events: Sequence[tuple[str, str]]) -> dict[str, tuple[str, int, int]]:
    """By id, the runs of these events that no replay made: RequestID, handler, version."""
    found: dict[str, tuple[str, int, int]] = {}
    query = select(RunRow.id, RunRow.request_id, RunRow.handler_id, RunRow.handler_version).where(
        of_events(RunRow, events), RunRow.replay_id == ""
    )
    for run, request_id, handler_id, version in session.execute(query):
        found[run] = (request_id, handler_id, version)
    return found


def _pages(session: Session, since_ms: int) -> Iterator[list[tuple[str, str, str, int]]]:
    after = (since_ms - 1, "")
    while True:
        query = (
            select(EventRow.received_at_ms, EventRow.hook, EventRow.request_id, EventRow.matches, EventRow.runs_removed)
            .where(tuple_(EventRow.received_at_ms, EventRow.request_id) > after)
            .order_by(EventRow.received_at_ms, EventRow.request_id)
            .limit(CHUNK)
        )
        rows = session.execute(query).all()
        if rows:
            yield [(hook, request_id, matches, gone) for _, hook, request_id, matches, gone in rows]
        if len(rows) < CHUNK:
            return
        after = (rows[-1][0], rows[-1][2])


def _orphans(mine: object) -> Select[str]:
    event = and_(EventRow.hook == RunRow.hook, EventRow.request_id == RunRow.request_id)
    return select(RunRow.id).outerjoin(EventRow, event).where(mine, EventRow.request_id.is_(None))  # type: ignore[arg-type]


_VERSION = and_(HandlerVersionRow.handler_id == RunRow.handler_id, HandlerVersionRow.version == RunRow.handler_version)
_RECIPIENT = case(
    (RunRow.state == Outcome.SUCCEEDED.value, HandlerVersionRow.notify_on_success),
    else_=HandlerVersionRow.notify_on_failure,
)


_WANTED = and_(
    HandlerVersionRow.notify != NONE,
    or_(HandlerVersionRow.notify != FAILURES, RunRow.state != Outcome.SUCCEEDED.value),
)


def _unmailed(mine: object) -> Select[str]:
    return (
        select(RunRow.id)
        .join(HandlerVersionRow, _VERSION)
        .outerjoin(NotificationRunRow, NotificationRunRow.run_id == RunRow.id)
        .where(
            mine,  # type: ignore[arg-type]
            RunRow.ended_at_ms.is_not(None),
            RunRow.state != Outcome.CANCELLED.value,
            _RECIPIENT != "",
            _WANTED,
            NotificationRunRow.run_id.is_(None),
            RunRow.mail_removed.is_(False),
        )
    )


def _empty_mails(since: object) -> Select[str]:
    there = NotificationRunRow.notification_id == NotificationRow.id
    return (
        select(NotificationRow.message_id)
        .outerjoin(NotificationRunRow, there)
        .where(since, NotificationRunRow.run_id.is_(None))  # type: ignore[arg-type]
    )


def _unsound_runs(mine: object) -> Select[str]:
    leased = and_(RunRow.lease_hash.is_not(None), RunRow.lease_until_ms.is_not(None))
    sound = or_(
        and_(RunRow.state == QUEUED, RunRow.ended_at_ms.is_(None), RunRow.lease_until_ms.is_(None)),
        and_(RunRow.state.in_((RUNNING, REPORTED)), RunRow.ended_at_ms.is_(None), leased),
        and_(RunRow.state.in_(list(Outcome)), RunRow.ended_at_ms.is_not(None), RunRow.lease_until_ms.is_(None)),
    )
    return select(RunRow.id).where(mine, not_(sound))  # type: ignore[arg-type]


def _early_mails(since: object) -> Select[str]:
    wrong = or_(
        RunRow.ended_at_ms.is_(None),
        RunRow.state == Outcome.CANCELLED.value,
        and_(NotificationRow.recipient != _RECIPIENT, NotificationRow.kind != KEY),
    )
    return (
        select(RunRow.id)
        .join(HandlerVersionRow, _VERSION)
        .join(NotificationRunRow, NotificationRunRow.run_id == RunRow.id)
        .join(NotificationRow, NotificationRow.id == NotificationRunRow.notification_id)
        .where(since, wrong)  # type: ignore[arg-type]
    )


def _unsound_mails(since: object) -> Select[str]:
    sound = or_(
        and_(NotificationRow.state.in_((PENDING, SENDING)), NotificationRow.ended_at_ms.is_(None)),
        and_(NotificationRow.state.in_((SENT, GIVEN_UP)), NotificationRow.ended_at_ms.is_not(None)),
    )
    return select(NotificationRow.message_id).where(since, not_(sound))  # type: ignore[arg-type]


def _problem(session: Session, kind: str, what: str, query: Select[str]) -> Problem:
    count = _count(session, query)
    names = session.scalars(query.limit(EXAMPLES)).all() if count else ()
    return Problem(kind, what, count, tuple(names))


def _count(session: Session, query: Select[str]) -> int:
    return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def _with_gone(
    query: Select[str, int], session: Session, gone: Mapping[tuple[str, str], int], kind: str
) -> dict[str, int]:
    """What the query counts by word, and those of the kind that were removed."""
    counts = Counter(dict(session.execute(query).all()))
    counts.update({word: count for (of, word), count in gone.items() if of == kind})
    return dict(counts)
