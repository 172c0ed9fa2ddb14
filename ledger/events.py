"""Events with their frozen matches, and the runs that follow from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.bulk import insert_rows, of_events
from ledger.engine import now_ms, storable
from ledger.fair import CHUNK, Invitation, at_once, is_out, note_invited
from ledger.rules import Rules
from ledger.tables import QUEUED, EventRow, RunRow
from schemas.events import Event, run_id

DEFAULT = Rules()


@dataclass(frozen=True)
class Match:
    """A handler that an event met, in the version it had then."""

    handler_id: int
    version: int
    owner: str
    runtime: str


@dataclass(frozen=True)
class Recorded:
    """new: the event was not here before. runs: how many it made just now. invitations: its runs that are to be invited at once.

    differs: how another event, which came first under the same RequestID, differs from this one, in words; '' when it is the same.
    """

    new: bool
    runs: int
    invitations: tuple[Invitation, ...]
    differs: str = ""


def record_events(
    session: Session, dispatches: Sequence[tuple[Event, Sequence[Match]]], rules: Rules = DEFAULT
) -> list[Recorded]:
    """Keeps each event that is new with its matches, and makes their runs; one Recorded each, in order.

    No more are invited at once than ledger/fair.py has room for; the sweeper invites the others in their turn.
    An event that was here before, or comes twice in one call, changes nothing: its matches were frozen the first time. It may
    have been submitted again (another SubmittedAt, other streams), but of another archive or with other tags it is another event.
    """
    now = now_ms(session)
    keys = [(event.hook, event.request_id) for event, _ in dispatches]
    known = _known(session, list(dict.fromkeys(keys)))
    fresh: dict[tuple[str, str], tuple[Event, Sequence[Match]]] = {}
    for key, dispatch in zip(keys, dispatches, strict=True):
        if key not in known:
            fresh.setdefault(key, dispatch)
    first_of = known | {key: _content(event) for key, (event, _) in fresh.items()}
    runs = {key: [run_row(event, match, now) for match in matches] for key, (event, matches) in fresh.items()}
    insert_rows(session, EventRow, [_event(event, matches, now) for event, matches in fresh.values()])
    invited = add_runs(session, [row for made in runs.values() for row in made], rules, now)
    recorded = []
    first = set(fresh)
    for key, (event, _) in zip(keys, dispatches, strict=True):
        if key in first:
            first.discard(key)
            ids = [str(row["id"]) for row in runs[key]]
            recorded.append(Recorded(True, len(ids), tuple(invited[i] for i in ids if i in invited)))
        elif _content(event) != first_of[key]:
            subject, tags = first_of[key]
            recorded.append(Recorded(False, 0, (), f"was of {subject[:200]!r} with the tags {tags[:1000]}"))
        else:
            recorded.append(Recorded(False, 0, _waiting(session, key, rules, now)))
    return recorded


def _content(event: Event) -> tuple[str, str]:
    """What is the same however often an event is sent, and another in another event; as the ledger keeps it."""
    return storable(event.subject), json.dumps(event.tags)


def add_runs(session: Session, rows: Sequence[dict[str, Any]], rules: Rules | None, now: int) -> dict[str, Invitation]:
    """Puts new runs into the queue; returns, by run id, the invitations of those that may be invited at once (noted as such).

    rules: None leaves all of them to the sweeper.
    """
    made = [(Invitation(r["id"], r["owner"], r["runtime"], r["hook"]), int(r["handler_id"])) for r in rows]
    chosen = at_once(session, rules, made, now) if made and rules is not None else set()
    insert_rows(session, RunRow, [{**row, "invited_at_ms": now if row["id"] in chosen else None} for row in rows])
    return {invitation.run_id: invitation for invitation, _ in made if invitation.run_id in chosen}


def not_sent(session: Session, run_ids: Sequence[str]) -> None:
    """The invitations of these runs did not reach Kafka: the sweeper sends them in its next turn."""
    note_invited(session, run_ids, None)


def get_event(session: Session, hook: str, request_id: str) -> EventRow | None:
    """The event as it was kept, or None."""
    return session.get(EventRow, (hook, request_id))


def _known(session: Session, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, str]]:
    """The content of those events that are here."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for start in range(0, len(keys), CHUNK):
        part = keys[start : start + CHUNK]
        query = select(EventRow.hook, EventRow.request_id, EventRow.subject, EventRow.tags).where(
            of_events(EventRow, part)
        )
        found.update(
            ((hook, request_id), (subject, tags)) for hook, request_id, subject, tags in session.execute(query)
        )
    return found


def _waiting(session: Session, key: tuple[str, str], rules: Rules, now: int) -> tuple[Invitation, ...]:
    hook, request_id = key
    due = (
        RunRow.hook == hook, RunRow.request_id == request_id, RunRow.not_before_ms <= now,
        is_out(rules, now),  # the others wait for their turn, or had theirs: the sweeper's
    )  # fmt: skip
    query = select(RunRow.id, RunRow.owner, RunRow.runtime, RunRow.hook).where(*due).order_by(RunRow.handler_id)
    found = tuple(Invitation(*row) for row in session.execute(query))
    note_invited(session, [invitation.run_id for invitation in found], now)
    return found


def _event(event: Event, matches: Sequence[Match], now: int) -> dict[str, object]:
    return {
        "hook": event.hook,
        "request_id": event.request_id,
        "subject": storable(event.subject),
        "submitted_at": event.submitted_at,
        "tags": json.dumps(event.tags),
        "body": event.body(),
        "matches": json.dumps([[match.handler_id, match.version] for match in matches]),
        "received_at_ms": now,
    }


def run_row(event: Event, match: Match, now: int, replay_id: str = "", replay_of: str | None = None) -> dict[str, Any]:
    """A new run, as add_runs takes it; replay_id: of the replay that makes it; replay_of: the run that it does again."""
    return {
        "id": run_id(event.hook, event.request_id, match.handler_id, replay_id),
        "hook": event.hook,
        "request_id": event.request_id,
        "handler_id": match.handler_id,
        "handler_version": match.version,
        "owner": match.owner,
        "runtime": match.runtime,
        "state": QUEUED,
        "queued_at_ms": now,
        "not_before_ms": now,
        "replay_id": replay_id,
        "replay_of": replay_of,
        "traceparent": event.trace,
    }
