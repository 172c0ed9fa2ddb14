"""Owners' API keys, sealed; one per owner, the last that was registered."""

from __future__ import annotations

from cryptography.fernet import InvalidToken
from sqlalchemy.orm import Session

from ledger.engine import Ledger, now_ms
from ledger.tables import CredentialRow


def seal(session: Session, ledger: Ledger, owner: str, api_key: str) -> None:
    """Keeps the key for the owner's handlers, in place of the one before."""
    sealed = ledger.seals.encrypt(api_key.encode())
    session.merge(CredentialRow(owner=owner, sealed=sealed, updated_at_ms=now_ms(session)))


def unseal(session: Session, ledger: Ledger, owner: str) -> str | None:
    """The owner's key; None when there is none or no present seal key opens it."""
    row = session.get(CredentialRow, owner)
    if row is None:
        return None
    try:
        return ledger.seals.decrypt(row.sealed).decode()
    except InvalidToken:
        return None
