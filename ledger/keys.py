"""A key that BTrDB refuses: its owner's handlers pause, their runs wait, one email says so; and a new key, which ends that."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from ledger.bulk import change_queued
from ledger.credentials import refused_owners, seal
from ledger.engine import Ledger, is_postgresql, now_ms
from ledger.handlers import HandlerView, bump
from ledger.tables import AttemptRow, CredentialRow, HandlerRow, RunRow
from ledger.versions import pause_for_key, resume_after_key
from schemas.records import KEY_REFUSED, Outcome, Result


@dataclass(frozen=True)
class Rekeyed:
    """handlers: how many of the owner run under the key now; resumed: those that had been paused because of the one before."""

    handlers: int
    resumed: tuple[HandlerView, ...]


def note_refused(session: Session, row: RunRow, result: Result, now: int) -> bool:
    """Pauses the owner's handlers if the result tells that BTrDB refuses their present key; whether this run is the first to tell.

    row: the run, locked by this transaction; now: ms.
    """
    told = result.error
    if result.outcome is not Outcome.REFUSED or told is None or told.type != KEY_REFUSED:
        return False
    if refused_owners(session, {row.owner}):
        return False
    bump(session)  # first, as registrations do, against deadlocks
    # not the key itself, which whoever closes runs has no right to
    query = select(CredentialRow.refused_at_ms, CredentialRow.updated_at_ms).where(CredentialRow.owner == row.owner)
    if is_postgresql(session):
        query = query.with_for_update()
    credential = session.execute(query).first()
    attempt = select(AttemptRow.claimed_at_ms).where(AttemptRow.run_id == row.id, AttemptRow.number == row.claims)
    claimed = session.scalar(attempt) or 0
    if credential is None or credential.refused_at_ms is not None or claimed < credential.updated_at_ms:
        return False
    session.execute(update(CredentialRow).where(CredentialRow.owner == row.owner).values(refused_at_ms=now))
    pause_for_key(session, row.owner)
    return True


def rekey(session: Session, ledger: Ledger, owner: str, api_key: str) -> Rekeyed:
    """Seals the key for all handlers of the owner; what was paused, or waits, because the one before was refused, goes on.

    Bumps the revision.
    """
    bump(session)  # first, as in note_refused(): of a refusal and a new key at the same time one comes after the other
    refused = bool(refused_owners(session, {owner}))
    seal(session, ledger, owner, api_key)
    if refused:
        change_queued(session, RunRow.owner == owner, not_before_ms=now_ms(session), invited_at_ms=None)
    resumed = tuple(resume_after_key(session, owner))
    theirs = select(func.count()).select_from(HandlerRow)
    count = session.scalar(theirs.where(HandlerRow.owner == owner, HandlerRow.removed_at_ms.is_(None))) or 0
    return Rekeyed(count, resumed)
