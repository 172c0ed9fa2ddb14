"""Runs as people look at them: for emails, the demo, queries and metrics."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ledger.tables import AttemptRow, EventRow, HandlerRow, HandlerVersionRow, RunRow
from schemas.records import Outcome, RunError, Upload


@dataclass(frozen=True)
class AttemptView:
    """One claim of a run: by whom, when (ms), whether the handler's first line was reached, why it ended ('' while it runs)."""

    executor: str
    claimed_at_ms: int
    ended_at_ms: int | None
    begun: bool
    reason: str


@dataclass(frozen=True)
class RunView:
    """A run with its handler's version, its event and its attempts. state: an Outcome, or queued, running, reported."""

    run_id: str
    handler_name: str
    handler_id: int
    handler_version: int
    hook: str
    request_id: str
    owner: str
    runtime: str
    state: str
    text: str
    error: RunError | None
    log: str
    log_truncated: bool
    uploads: tuple[Upload, ...]
    queued_at_ms: int
    started_at_ns: int
    ended_at_ns: int
    cpu_s: float
    peak_memory_bytes: int
    attempt: int
    attempts: tuple[AttemptView, ...]
    replay_of: str | None
    event_subject: str
    event_body: bytes
    event_tags: tuple[str, ...]
    source: str
    first_line: int
    traceparent: str = ""


@dataclass(frozen=True)
class RunLine:
    """A run that has ended, in short. ended_at_ms: ms since the epoch; error: the first line of what went wrong, or ''."""

    run_id: str
    handler_id: int
    handler_name: str
    outcome: Outcome
    subject: str
    ended_at_ms: int
    error: str
    traceparent: str = ""
    uploads: tuple[Upload, ...] = ()


def lines(session: Session, run_ids: Sequence[str]) -> list[RunLine]:
    """The runs of these ids that have ended, in short, by handler and end; not their events' bodies, which may be large."""
    query = (
        select(
            RunRow.id, RunRow.handler_id, HandlerRow.name, RunRow.state, EventRow.subject, RunRow.ended_at_ms,
            RunRow.error_type, RunRow.error_message, RunRow.traceparent, RunRow.uploads,
        )
        .join(HandlerRow, HandlerRow.id == RunRow.handler_id)
        .join(EventRow, (EventRow.hook == RunRow.hook) & (EventRow.request_id == RunRow.request_id))
        .where(RunRow.id.in_(run_ids), RunRow.ended_at_ms.is_not(None))
        .order_by(HandlerRow.name, RunRow.handler_id, RunRow.ended_at_ms, RunRow.id)
    )  # fmt: skip
    found = []
    for run_id, handler_id, name, state, subject, ended_at_ms, kind, message, trace, files in session.execute(query):
        told = (Outcome(state), subject, ended_at_ms or 0, one_line(kind, message), trace, _uploads(files))
        found.append(RunLine(run_id, handler_id, name, *told))
    return found


def _uploads(stored: str) -> tuple[Upload, ...]:
    return tuple(Upload(**upload) for upload in json.loads(stored))


def one_line(kind: str | None, message: str | None) -> str:
    """An error's type and the first line of its message, at most 200 characters; '' for none."""
    said = (message or "").strip().splitlines()
    return ": ".join(filter(None, (kind, said[0] if kind and said else "")))[:200]


def run_view(session: Session, run_id: str) -> RunView | None:
    """The run of that id, or None."""
    found = views(session, [run_id])
    return found[0] if found else None


def runs(session: Session, request_id: str) -> list[RunView]:
    """The runs of an event, by handler id."""
    ids = session.scalars(select(RunRow.id).where(RunRow.request_id == request_id).order_by(RunRow.handler_id)).all()
    return views(session, ids)


def counts(session: Session) -> dict[str, int]:
    """How many runs are in each state."""
    return dict(session.execute(select(RunRow.state, func.count()).group_by(RunRow.state)).all())


def views(session: Session, run_ids: Sequence[str]) -> list[RunView]:
    """The runs of these ids, in that order; unknown ids are left out."""
    query = (
        select(RunRow, HandlerRow.name, HandlerVersionRow.source, HandlerVersionRow.first_line, EventRow)
        .join(HandlerRow, HandlerRow.id == RunRow.handler_id)
        .join(
            HandlerVersionRow,
            (HandlerVersionRow.handler_id == RunRow.handler_id) & (HandlerVersionRow.version == RunRow.handler_version),
        )
        .join(EventRow, (EventRow.hook == RunRow.hook) & (EventRow.request_id == RunRow.request_id))
        .where(RunRow.id.in_(run_ids))
        .execution_options(populate_existing=True)
    )
    attempts: dict[str, list[AttemptView]] = defaultdict(list)
    for row in session.scalars(select(AttemptRow).where(AttemptRow.run_id.in_(run_ids)).order_by(AttemptRow.number)):
        attempts[row.run_id].append(
            AttemptView(row.executor, row.claimed_at_ms, row.ended_at_ms, row.begun, row.reason)
        )
    found = {
        run.id: _view(run, name, source, line, event, tuple(attempts[run.id]))
        for run, name, source, line, event in session.execute(query)
    }
    return [found[run_id] for run_id in run_ids if run_id in found]


def _view(
    run: RunRow, name: str, source: str, line: int, event: EventRow, attempts: tuple[AttemptView, ...]
) -> RunView:
    error = None
    if run.error_type is not None:
        error = RunError(run.error_type, run.error_message or "", run.error_traceback or "")
    return RunView(
        run.id,
        name,
        run.handler_id,
        run.handler_version,
        run.hook,
        run.request_id,
        run.owner,
        run.runtime,
        Outcome(run.state) if run.state in set(Outcome) else run.state,
        run.text,
        error,
        run.log,
        run.log_truncated,
        _uploads(run.uploads),
        run.queued_at_ms,
        run.started_at_ns,
        run.ended_at_ns,
        run.cpu_s,
        run.peak_memory_bytes,
        run.claims,
        attempts,
        run.replay_of,
        event.subject,
        event.body,
        tuple(json.loads(event.tags)),
        source,
        line,
        run.traceparent,
    )
