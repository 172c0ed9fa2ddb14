"""Events with their frozen matches, and the runs that follow from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import insert, select, tuple_, update
from sqlalchemy.orm import Session

from ledger.engine import now_ms
from ledger.tables import QUEUED, EventRow, RunRow
from schemas.events import Event, run_id

CHUNK = 500  # SQLite takes 32,766 parameters in a statement


@dataclass(frozen=True)
class Match:
    """A handler that an event met, in the version it had then."""

    handler_id: int
    version: int
    owner: str
    runtime: str


@dataclass(frozen=True)
class Invitation:
    """A run that may be claimed."""

    run_id: str
    owner: str
    runtime: str
    hook: str


@dataclass(frozen=True)
class Recorded:
    """new: the event was not here before. invitations: its runs that are queued and due."""

    new: bool
    invitations: tuple[Invitation, ...]


def record_events(session: Session, dispatches: Sequence[tuple[Event, Sequence[Match]]]) -> list[Recorded]:
    """Keeps each event that is new with its matches, and makes their runs; one Recorded each, in order.

    An event that was here before, or comes twice in one call, changes nothing: its matches were frozen the first time.
    """
    now = now_ms(session)
    keys = [(event.hook, event.request_id) for event, _ in dispatches]
    known = _known(session, list(dict.fromkeys(keys)))
    fresh: dict[tuple[str, str], tuple[Event, Sequence[Match]]] = {}
    for key, dispatch in zip(keys, dispatches, strict=True):
        if key not in known:
            fresh.setdefault(key, dispatch)
    runs = {key: [_run(event, match, now) for match in matches] for key, (event, matches) in fresh.items()}
    if fresh:
        session.execute(insert(EventRow), [_event(event, matches, now) for event, matches in fresh.values()])
    rows = [row for made in runs.values() for row in made]
    for start in range(0, len(rows), CHUNK):
        session.execute(insert(RunRow), rows[start : start + CHUNK])
    recorded = []
    first = set(fresh)
    for key in keys:
        if key in first:
            first.discard(key)
            made = tuple(Invitation(row["id"], row["owner"], row["runtime"], row["hook"]) for row in runs[key])
            recorded.append(Recorded(True, made))
        else:
            recorded.append(Recorded(False, _waiting(session, key, now)))
    return recorded


def get_event(session: Session, hook: str, request_id: str) -> EventRow | None:
    """The event as it was kept, or None."""
    return session.get(EventRow, (hook, request_id))


def _known(session: Session, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        query = select(EventRow.hook, EventRow.request_id).where(tuple_(EventRow.hook, EventRow.request_id).in_(part))
        found.update(session.execute(query))
    return found


def _waiting(session: Session, key: tuple[str, str], now: int) -> tuple[Invitation, ...]:
    hook, request_id = key
    due = (RunRow.hook == hook, RunRow.request_id == request_id, RunRow.state == QUEUED, RunRow.not_before_ms <= now)
    session.execute(update(RunRow).where(*due).values(invited_at_ms=now))
    query = select(RunRow.id, RunRow.owner, RunRow.runtime, RunRow.hook).where(*due).order_by(RunRow.handler_id)
    return tuple(Invitation(*row) for row in session.execute(query))


def _event(event: Event, matches: Sequence[Match], now: int) -> dict[str, object]:
    return {
        "hook": event.hook,
        "request_id": event.request_id,
        "subject": event.subject,
        "submitted_at": event.submitted_at,
        "tags": json.dumps(event.tags),
        "body": event.body(),
        "matches": json.dumps([[match.handler_id, match.version] for match in matches]),
        "received_at_ms": now,
    }


def _run(event: Event, match: Match, now: int) -> dict[str, str]:
    row: dict[str, object] = {
        "id": run_id(event.hook, event.request_id, match.handler_id),
        "hook": event.hook,
        "request_id": event.request_id,
        "handler_id": match.handler_id,
        "handler_version": match.version,
        "owner": match.owner,
        "runtime": match.runtime,
        "state": QUEUED,
        "queued_at_ms": now,
        "not_before_ms": now,
        "invited_at_ms": now,
    }
    return row  # type: ignore[return-value]
