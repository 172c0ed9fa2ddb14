"""A handler's versions and the way back to one; pausing and resuming."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ledger.engine import now_ms
from ledger.handlers import HandlerView, Options, bump, changeable, living, options_of
from ledger.tables import HandlerRow, HandlerVersionRow

KEY_REFUSED = "BTrDB refuses the API key"


class NoSuchVersion(Exception):
    """The handler has no such version; the text says which there are."""


class WaitsForKey(Exception):
    """The handler is paused because BTrDB refuses its owner's key; a new key resumes it."""


@dataclass(frozen=True)
class VersionView:
    """A version as it was registered. created_at_ms: ms since the epoch; digest: of its pickle, for blob()."""

    handler_id: int
    version: int
    present: bool
    created_at_ms: int
    created_by: str
    runtime: str
    python_version: str
    tags: tuple[str, ...]
    notify_on_success: str
    notify_on_failure: str
    options: Options
    digest: str
    source: str
    file_name: str
    first_line: int
    requirements: tuple[str, ...]


def versions(session: Session, handler_id: int) -> list[VersionView]:
    """The versions of a living handler, the newest first. Raises NoSuchHandler."""
    view = living(session, handler_id)
    query = select(HandlerVersionRow).where(HandlerVersionRow.handler_id == handler_id)
    return [_view(row, view.version) for row in session.scalars(query.order_by(HandlerVersionRow.version.desc()))]


def version(session: Session, handler_id: int, number: int | None) -> VersionView:
    """That version; None: the present one. Raises NoSuchHandler, NoSuchVersion."""
    view = living(session, handler_id)
    row = session.get(HandlerVersionRow, (handler_id, view.version if number is None else number))
    if row is None:
        raise NoSuchVersion(f"handler {view.name!r} has no version {number}; it has 0 to {view.version}")
    return _view(row, view.version)


def rollback(session: Session, handler_id: int, number: int, by: str, admin: bool) -> HandlerView:
    """Makes the next version, with all that the old one had; the id stays. Bumps the revision.

    Raises NoSuchHandler, NoSuchVersion; NotOwner unless by is its owner or admin is True.
    """
    bump(session)
    view = changeable(session, handler_id, by, admin)
    old = session.get(HandlerVersionRow, (handler_id, number))
    if old is None:
        raise NoSuchVersion(f"handler {view.name!r} has no version {number}; it has 0 to {view.version}")
    now = now_ms(session)
    kept = {column.name: getattr(old, column.name) for column in HandlerVersionRow.__table__.columns}
    session.add(HandlerVersionRow(**{**kept, "version": view.version + 1, "created_by": by, "created_at_ms": now}))
    _change(session, handler_id, version=view.version + 1, updated_by=by, updated_at_ms=now)
    return living(session, handler_id)


def set_paused(session: Session, handler_id: int, paused: bool, by: str, admin: bool) -> HandlerView:
    """Events that come meanwhile do not meet a paused handler; its runs that wait go on. Bumps the revision.

    Raises NoSuchHandler; NotOwner unless by is its owner or admin is True; WaitsForKey for resuming one that rekey() resumes.
    """
    bump(session)
    view = changeable(session, handler_id, by, admin)
    if not paused and view.pause_reason:
        raise WaitsForKey(f"handler {view.name!r} is paused because {view.pause_reason} of {view.owner}")
    if view.paused != paused or view.pause_reason:
        _change(session, handler_id, paused=paused, pause_reason="", updated_by=by, updated_at_ms=now_ms(session))
    return living(session, handler_id)


def pause_for_key(session: Session, owner: str) -> int:
    """Pauses the owner's living handlers, as BTrDB refuses the key; returns how many it paused.

    Who calls it has bumped the revision.
    """
    done = session.execute(
        update(HandlerRow)
        .where(HandlerRow.owner == owner, HandlerRow.removed_at_ms.is_(None), HandlerRow.paused.is_(False))
        .values(paused=True, pause_reason=KEY_REFUSED)
    )
    return int(done.rowcount)  # type: ignore[attr-defined]


def resume_after_key(session: Session, owner: str) -> list[HandlerView]:
    """Resumes the owner's handlers that pause_for_key() paused; returns them. Who calls it has bumped the revision."""
    theirs = (HandlerRow.owner == owner, HandlerRow.removed_at_ms.is_(None), HandlerRow.pause_reason == KEY_REFUSED)
    ids = list(session.scalars(select(HandlerRow.id).where(*theirs).order_by(HandlerRow.id)))
    if ids:
        session.execute(update(HandlerRow).where(*theirs).values(paused=False, pause_reason=""))
        session.expire_all()
    return [living(session, handler_id) for handler_id in ids]


def _change(session: Session, handler_id: int, **values: object) -> None:
    session.execute(update(HandlerRow).where(HandlerRow.id == handler_id).values(**values))
    session.flush()
    session.expire_all()


def _view(row: HandlerVersionRow, present: int) -> VersionView:
    return VersionView(
        row.handler_id, row.version, row.version == present, row.created_at_ms, row.created_by, row.runtime,
        row.python_version, tuple(json.loads(row.tags)), row.notify_on_success, row.notify_on_failure, options_of(row),
        row.digest, row.source, row.file_name, row.first_line, tuple(json.loads(row.requirements)),
    )  # fmt: skip
