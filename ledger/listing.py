"""Runs as lists: the newest first, by what is wanted of them, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session, load_only

from ledger.conditions import WAITING
from ledger.runs import one_line
from ledger.tables import QUEUED, REPORTED, RUNNING, AttemptRow, EventRow, HandlerRow, RunRow
from schemas.records import Outcome

FEW = 1000
STATES = (QUEUED, RUNNING, *(outcome.value for outcome in Outcome))
"""As they are told to users: a run whose result is on its way is running still."""


@dataclass(frozen=True)
class Wanted:
    """Which runs; '', 0 and None for any. state: one of STATES; since_ms: queued since then, ms since the epoch."""

    owner: str = ""
    handler_id: int | None = None
    hook: str = ""
    state: str = ""
    since_ms: int = 0


@dataclass(frozen=True)
class Listed:
    """A run in short. state: one of STATES; started_at_ns, ended_at_ns: 0 for not yet; error: one line; attempts: begun so far."""

    run_id: str
    handler_id: int
    handler_name: str
    handler_version: int
    hook: str
    request_id: str
    subject: str
    owner: str
    state: str
    queued_at_ms: int
    started_at_ns: int
    ended_at_ns: int
    error: str
    attempts: int


@dataclass(frozen=True)
class Page:
    """after: where the next one begins; None after the last."""

    runs: tuple[Listed, ...]
    after: tuple[int, str] | None


def newest(session: Session, wanted: Wanted, limit: int, after: tuple[int, str] | None = None) -> Page:
    """At most limit of the wanted runs, from `after` (of the page before) on."""
    few = _few(session, wanted) if wanted.state else None
    if few is not None and not few:
        return Page((), None)
    by_id = few is not None  # coalesce(): the one index to use is that of what is asked for most exactly
    handler_id, queued = (
        (func.coalesce(column, 0) if by_id else column) for column in (RunRow.handler_id, RunRow.queued_at_ms)
    )
    query = _SHORT.order_by(queued.desc(), RunRow.id.desc()).limit(limit)
    if few is not None:
        query = query.where(RunRow.id.in_(few))
    if wanted.handler_id is not None:
        query = query.where(handler_id == wanted.handler_id)
    if wanted.owner:
        by_owner = not by_id and wanted.handler_id is None
        query = query.where((RunRow.owner if by_owner else func.coalesce(RunRow.owner, "")) == wanted.owner)
    if wanted.hook:
        query = query.where(func.coalesce(RunRow.hook, "") == wanted.hook)
    if wanted.state:  # an index by state would bring up all, in any order
        query = query.where(func.lower(RunRow.state).in_(_states(wanted)))
    if wanted.since_ms:
        query = query.where(queued >= wanted.since_ms)
    if after is not None:
        at_ms, run_id = after
        query = query.where(queued <= at_ms, or_(queued < at_ms, RunRow.id < run_id))
    found = tuple(_listed(*row) for row in session.execute(query))
    return Page(found, (found[-1].queued_at_ms, found[-1].run_id) if len(found) == limit else None)


def _few(session: Session, wanted: Wanted) -> Sequence[str] | None:
    """The runs in a state when they are at most FEW, found without looking at those in others; None when they are more.

    A walk from the newest on finds soon what there is much of, and what there is little of at the end of all runs only.
    """
    query = select(RunRow.id).where(RunRow.state.in_(_states(wanted))).limit(FEW + 1)
    if wanted.handler_id is not None:
        query = query.where(RunRow.handler_id == wanted.handler_id)
    elif wanted.owner:
        query = query.where(RunRow.owner == wanted.owner)
    elif wanted.state == QUEUED:
        query = select(RunRow.id).where(WAITING).limit(FEW + 1)
    elif wanted.state == RUNNING:
        query = select(RunRow.id).where(RunRow.lease_until_ms > 0).limit(FEW + 1)
    else:
        return None  # of everybody's there is no index by state
    found = session.scalars(query).all()
    return found if len(found) <= FEW else None


def _states(wanted: Wanted) -> tuple[str, ...]:
    return (RUNNING, REPORTED) if wanted.state == RUNNING else (wanted.state,)


def listed(session: Session, run_id: str) -> Listed | None:
    """The run of that id in short, or None."""
    row = session.execute(_SHORT.where(RunRow.id == run_id)).first()
    return None if row is None else _listed(*row)


_SHORT = (
    select(RunRow, HandlerRow.name, EventRow.subject, AttemptRow.claimed_at_ms)
    .join(HandlerRow, HandlerRow.id == RunRow.handler_id)
    .outerjoin(EventRow, and_(EventRow.hook == RunRow.hook, EventRow.request_id == RunRow.request_id))
    .outerjoin(AttemptRow, and_(AttemptRow.run_id == RunRow.id, AttemptRow.number == RunRow.claims))
    .options(
        load_only(
            RunRow.id, RunRow.handler_id, RunRow.handler_version, RunRow.hook, RunRow.request_id, RunRow.owner, RunRow.state,
            RunRow.queued_at_ms, RunRow.started_at_ns, RunRow.ended_at_ns, RunRow.ended_at_ms, RunRow.error_type,
            RunRow.error_message, RunRow.claims,
        )
    )
    .execution_options(populate_existing=True)
)  # fmt: skip


def _listed(run: RunRow, name: str, subject: str | None, claimed_at_ms: int | None) -> Listed:
    started = run.started_at_ns
    if run.state in (RUNNING, REPORTED):
        started = (claimed_at_ms or 0) * 1_000_000
    ended = (run.ended_at_ns or run.ended_at_ms * 1_000_000) if run.ended_at_ms is not None else 0
    return Listed(
        run.id, run.handler_id, name, run.handler_version, run.hook, run.request_id, subject or "", run.owner,
        RUNNING if run.state == REPORTED else run.state, run.queued_at_ms, started, ended,
        one_line(run.error_type, run.error_message), run.claims,
    )  # fmt: skip
