"""Owners' API keys, sealed; one per owner, the last that was registered."""

from __future__ import annotations

from collections.abc import Collection

from cryptography.fernet import InvalidToken
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.engine import Ledger, now_ms
from ledger.tables import ArchiveRow, CredentialRow


def seal(session: Session, ledger: Ledger, owner: str, api_key: str) -> None:
    """Keeps the key for the owner's handlers, in place of the one before."""
    sealed = ledger.seals.encrypt(api_key.encode())
    session.merge(CredentialRow(owner=owner, sealed=sealed, updated_at_ms=now_ms(session), refused_at_ms=None))
    session.flush()


def refused_owners(session: Session, owners: Collection[str]) -> set[str]:
    """Those of them whose key BTrDB has refused since they registered it."""
    query = select(CredentialRow.owner).where(CredentialRow.owner.in_(owners), CredentialRow.refused_at_ms.is_not(None))
    return set(session.scalars(query)) if owners else set()


def unseal(session: Session, ledger: Ledger, owner: str) -> str | None:
    """The owner's key; None when there is none or no present seal key opens it."""
    row = session.get(CredentialRow, owner)
    if row is None:
        return None
    try:
        return ledger.seals.decrypt(row.sealed).decode()
    except InvalidToken:
        return None


def reseal(session: Session, ledger: Ledger) -> tuple[int, list[str]]:
    """Seals everything that is sealed with the newest seal key, so that older ones can go.

    How many keys of owners and of archives were sealed anew, and whose no present seal key opens: those stay as they are.
    """
    count, lost = 0, []
    credentials = select(CredentialRow).order_by(CredentialRow.owner).with_for_update()
    archives = select(ArchiveRow).where(ArchiveRow.ended_at_ms.is_(None)).with_for_update()
    rows: list[CredentialRow | ArchiveRow] = [*session.scalars(credentials), *session.scalars(archives)]
    for row in rows:
        try:
            row.sealed = ledger.seals.rotate(row.sealed)
        except InvalidToken:
            lost.append(row.owner)
        else:
            count += 1
    session.flush()
    return count, lost
