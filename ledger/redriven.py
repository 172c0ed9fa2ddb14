"""Which dead letters were sent again, so that nobody sends one twice unawares."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.engine import now_ms
from ledger.tables import RedrivenRow


def redriven(session: Session) -> dict[int, int]:
    """When (ms) each dead letter was redriven last, by its number."""
    return dict(session.execute(select(RedrivenRow.number, RedrivenRow.at_ms)).all())


def note_redriven(session: Session, number: int, by: str) -> None:
    """The dead letter of that number has been sent again."""
    session.merge(RedrivenRow(number=number, at_ms=now_ms(session), by=by[:200]))
    session.flush()
