"""When a user leaves: whose their handlers become, or that they go, with the sealed key."""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from ledger.bulk import change_queued
from ledger.engine import now_ms
from ledger.handlers import HandlerView, bump, list_handlers, remove
from ledger.tables import CredentialRow, HandlerRow, RunRow
from ledger.versions import KEY_REFUSED


class NoKey(Exception):
    """Nobody's handlers can be given to who has no sealed key, or one that BTrDB refuses."""


def check_key(session: Session, owner: str) -> None:
    """Raises NoKey unless the owner has a sealed key that BTrDB has not refused."""
    found = session.execute(select(CredentialRow.refused_at_ms).where(CredentialRow.owner == owner)).first()
    if found is None:
        raise NoKey(f"{owner} has no sealed key; registering a handler, or rekey from a notebook, seals it")
    if found.refused_at_ms is not None:
        raise NoKey(f"{KEY_REFUSED} of {owner}; a rekey from a notebook seals another one")


def transfer(session: Session, owner: str, to: str, by: str) -> list[HandlerView]:
    """Gives the owner's living handlers, and their runs that wait, to another, under whose sealed key they run from now on.

    What has begun goes on under the key that it has. One that was paused because BTrDB refused the old key is resumed. Bumps
    the revision; returns the handlers as they are then. Raises NoKey.
    """
    bump(session)  # first, as in rekey(): a key that is refused at the same time comes before or after
    check_key(session, to)
    mine = [view.id for view in list_handlers(session, owner=owner)]
    now = now_ms(session)
    session.execute(
        update(HandlerRow)
        .where(HandlerRow.id.in_(mine), HandlerRow.pause_reason == KEY_REFUSED)
        .values(paused=False, pause_reason="")
    )
    session.execute(
        update(HandlerRow).where(HandlerRow.id.in_(mine)).values(owner=to, updated_by=by, updated_at_ms=now)
    )
    change_queued(session, RunRow.handler_id.in_(mine), owner=to, not_before_ms=now, invited_at_ms=None)
    session.expire_all()
    return [view for view in list_handlers(session, owner=to) if view.id in mine]


def purge(session: Session, owner: str, by: str) -> list[HandlerView]:
    """Removes the owner's living handlers, cancels their runs that wait, forgets the sealed key; returns what was removed.

    What has begun goes on to its end; should it be handed back, nobody has a key for it any more. Bumps the revision.
    """
    bump(session)
    gone = [remove(session, view.id, by, admin=True) for view in list_handlers(session, owner=owner)]
    session.execute(delete(CredentialRow).where(CredentialRow.owner == owner))
    return gone
