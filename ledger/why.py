"""Which handlers an event meets, and why; those it met when it came, and those it would meet now."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.handlers import list_handlers
from ledger.tables import EventRow, HandlerRow, RunRow

NAMED = 20  # of very many tags


@dataclass(frozen=True)
class Verdict:
    """A living handler and an event: whether it matches, and why or why not, in words."""

    handler_id: int
    name: str
    version: int
    owner: str
    tags: tuple[str, ...]
    matches: bool
    why: str


@dataclass(frozen=True)
class Frozen:
    """A handler that the event met when it came, in the version of then. state: its run's."""

    handler_id: int
    name: str
    version: int
    run_id: str
    state: str


def verdicts(session: Session, hook: str, tags: tuple[str, ...]) -> list[Verdict]:
    """Every living handler of the hook against an event with these tags; those that match first."""
    event = set(tags)
    found = []
    for view in list_handlers(session, hook):
        shared = sorted(event & set(view.tags))
        if view.paused:
            matches, why = False, "is paused"
        elif not view.tags:
            matches, why = True, "has no tags, so it takes every event"
        elif shared:
            matches, why = True, f"shares {', '.join(shared)}"
        elif not event:
            matches, why = False, f"wants one of {_named(view.tags)}; the event has no tags"
        else:
            matches, why = (
                False,
                f"wants one of {_named(view.tags)}; the event has {_named(event)}",
            )
        found.append(Verdict(view.id, view.name, view.version, view.owner, tuple(view.tags), matches, why))
    return sorted(found, key=lambda verdict: (not verdict.matches, verdict.handler_id))


def _named(tags: Collection[str]) -> str:
    shown = ", ".join(sorted(tags)[:NAMED])
    return shown if len(tags) <= NAMED else f"{shown} and {len(tags) - NAMED} more"


def event_tags(session: Session, hook: str, request_id: str) -> tuple[str, ...] | None:
    """The tags of an event that is in the ledger; None when it is not."""
    tags = session.scalar(select(EventRow.tags).where(EventRow.hook == hook, EventRow.request_id == request_id))
    return None if tags is None else tuple(json.loads(tags))


def frozen(session: Session, hook: str, request_id: str) -> list[Frozen]:
    """The handlers that the event met when it came, by id."""
    query = (
        select(RunRow.handler_id, HandlerRow.name, RunRow.handler_version, RunRow.id, RunRow.state)
        .join(HandlerRow, HandlerRow.id == RunRow.handler_id)
        .where(RunRow.hook == hook, RunRow.request_id == request_id, RunRow.replay_id == "")
        .order_by(RunRow.handler_id)
    )
    return [Frozen(*row) for row in session.execute(query)]
