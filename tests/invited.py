"""What the sweeper does in one of its turns, in one transaction."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ledger.engine import now_ms
from ledger.fair import Due, plan, take_up
from ledger.rules import Rules


def due(session: Session, rules: Rules, limit: int) -> Due:
    """What plan() finds, noted as invited."""
    found = plan(session, rules, limit, now_ms(session))
    return Due(take_up(session, rules, found.invitations), found.waiting)
