"""What one dispatcher at a time does: whoever does it gives that back when it ends."""

from __future__ import annotations

import contextlib

from ledger import Ledger, sweeper
from schemas.errors import TryLater


def give_back(ledger: Ledger, role: str, boot_id: str) -> None:
    """boot_id leads no more in role; where the ledger is away its lead runs out by itself. Blocks."""
    with contextlib.suppress(TryLater), ledger.write() as session:
        sweeper.give_back(session, role, boot_id)
