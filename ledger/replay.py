"""Past events once more: which runs a replay makes, and makes them, in batches; every one by the handlers that are registered now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session, defer

from ledger.bulk import of_events
from ledger.engine import is_postgresql, now_ms
from ledger.events import Match, add_runs, run_row
from ledger.fair import CHUNK
from ledger.handlers import get_handler, matchable, revision
from ledger.match import Matched, TagIndex
from ledger.tables import EventRow, RunRow
from schemas.events import Event, run_id
from schemas.records import Outcome

MISSING, FAILED = "missing", "failed"
UNWELL = {outcome.value for outcome in Outcome} - {Outcome.SUCCEEDED.value, Outcome.CANCELLED.value}


@dataclass(frozen=True)
class Selection:
    """Which events, and for whom. request_id: that one event; else those received since (ms, included) until (ms, excluded).
    handler_id: only for that handler; None: for all that match now. only: 'missing', where the handler has no run for the event
    yet; 'failed', where its newest run ended otherwise than well; '' for both and all others."""

    hook: str
    request_id: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    handler_id: int | None = None
    only: str = ""


@dataclass(frozen=True)
class Planned:
    """A run that a replay makes. replay_of: the newest run of that handler for that event, None when there was none;
    there: this replay has made it before."""

    run_id: str
    request_id: str
    subject: str
    match: Match
    handler_name: str
    why: str
    replay_of: str | None
    there: bool


@dataclass(frozen=True)
class Page:
    """planned: of some events; events: how many; after: where the next page begins, None after the last."""

    planned: tuple[Planned, ...]
    events: int
    after: tuple[int, str] | None


class CannotReplay(ValueError):
    """The selection names an event or a handler that is not there; the text says which."""


def check(session: Session, selection: Selection) -> None:
    """Raises CannotReplay when the selection names what is not there."""
    if selection.request_id and session.get(EventRow, (selection.hook, selection.request_id)) is None:
        raise CannotReplay(f"no event of {selection.hook} has the RequestID {selection.request_id}")
    if selection.handler_id is not None:
        view = get_handler(session, selection.handler_id)
        if view is None or view.paused:
            state = "was removed or never was" if view is None else "is paused"
            raise CannotReplay(f"handler {selection.handler_id} {state}; only a living one can run again")
        if view.hook != selection.hook:
            raise CannotReplay(f"handler {selection.handler_id} is for {view.hook}, not for {selection.hook}")


def plan(
    session: Session, selection: Selection, replay_id: str, after: tuple[int, str] | None = None, limit: int = CHUNK
) -> Page:
    """The runs that the replay makes for the next limit events of the selection; changes nothing."""
    rows = _events(session, selection, after, limit)
    index = TagIndex(matchable(session), revision(session))
    found: list[tuple[Event, Matched]] = []
    for row in rows:
        event = Event(row.hook, row.request_id, tuple(json.loads(row.tags)), row.subject, row.submitted_at, {})
        for matched in index.match(event):
            if selection.handler_id in (None, matched.handler.handler_id):
                found.append((event, matched))
    before = _newest(session, [(e.hook, e.request_id, m.handler.handler_id) for e, m in found], replay_id)
    made = [run_id(e.hook, e.request_id, m.handler.handler_id, replay_id) for e, m in found]
    there = _there(session, made)
    planned = []
    for (event, matched), new in zip(found, made, strict=True):
        old = before.get((event.request_id, matched.handler.handler_id))
        if new in there:
            planned.append(_planned(session, event, matched, new, there[new], True))
        elif _wanted(selection.only, old):
            planned.append(_planned(session, event, matched, new, old.run_id if old else None, False))
    last = rows[-1] if len(rows) == limit else None
    return Page(tuple(planned), len(rows), (last.received_at_ms, last.request_id) if last is not None else None)


def replay(
    session: Session, selection: Selection, replay_id: str, after: tuple[int, str] | None = None, limit: int = CHUNK
) -> Page:
    """Makes the runs of plan(); those that this replay has made before stay as they are. The sweeper invites them in turn."""
    page = plan(session, selection, replay_id, after, limit)
    now = now_ms(session)
    rows = []
    for one in page.planned:
        if not one.there:
            event = Event(selection.hook, one.request_id, (), "", "", {})
            rows.append(run_row(event, one.match, now, replay_id, one.replay_of))
    add_runs(session, rows, None, now)
    return page


def _planned(session: Session, event: Event, matched: Matched, new: str, of: str | None, there: bool) -> Planned:
    handler = matched.handler
    view = get_handler(session, handler.handler_id)
    name = view.name if view is not None else ""
    match = Match(handler.handler_id, handler.version, handler.owner, handler.runtime)
    return Planned(new, event.request_id, event.subject, match, name, matched.why, of, there)


def _events(session: Session, selection: Selection, after: tuple[int, str] | None, limit: int) -> Sequence[EventRow]:
    query = select(EventRow).where(EventRow.hook == selection.hook)
    if selection.request_id:
        query = query.where(EventRow.request_id == selection.request_id)
    if selection.since_ms is not None:
        query = query.where(EventRow.received_at_ms >= selection.since_ms)
    if selection.until_ms is not None:
        query = query.where(EventRow.received_at_ms < selection.until_ms)
    if after is not None:
        query = query.where(tuple_(EventRow.received_at_ms, EventRow.request_id) > after)
    query = query.order_by(EventRow.received_at_ms, EventRow.request_id).limit(limit)
    if is_postgresql(session):  # none of them is removed for its age before its new runs are there
        query = query.with_for_update(read=True)
    return session.scalars(query.options(defer(EventRow.body))).all()


@dataclass(frozen=True)
class _Old:
    run_id: str
    state: str


def _wanted(only: str, old: _Old | None) -> bool:
    if only == MISSING:
        return old is None
    if only == FAILED:
        return old is not None and old.state in UNWELL
    return True


def _there(session: Session, run_ids: Sequence[str]) -> dict[str, str | None]:
    """The runs of these ids that have been made, and what each does again."""
    found: dict[str, str | None] = {}
    for start in range(0, len(run_ids), CHUNK):
        query = select(RunRow.id, RunRow.replay_of).where(RunRow.id.in_(run_ids[start : start + CHUNK]))
        found.update((run, of) for run, of in session.execute(query))
    return found


def _newest(session: Session, keys: Sequence[tuple[str, str, int]], but: str) -> dict[tuple[str, int], _Old]:
    """By (request id, handler id): the newest run that the replay called but did not make."""
    newest: dict[tuple[str, int], _Old] = {}
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        query = (
            select(RunRow.request_id, RunRow.handler_id, RunRow.id, RunRow.state)
            .where(
                of_events(RunRow, {(hook, request_id) for hook, request_id, _ in part}),
                RunRow.handler_id.in_({handler_id for _, _, handler_id in part}),
                RunRow.replay_id != but,
            )
            .order_by(RunRow.queued_at_ms, RunRow.id)
        )
        for request_id, handler_id, run, state in session.execute(query):
            newest[(request_id, handler_id)] = _Old(run, state)
    return newest
