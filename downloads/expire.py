"""Files that are too old go, in small batches."""

from __future__ import annotations

from ledger import Ledger
from ledger.files import expired, note_removed
from objectstore import ObjectStore
from schemas.records import stored_name

AT_ONCE = 100


def expire(ledger: Ledger, store: ObjectStore, max_age_s: float) -> int:
    """Removes what is older than max_age_s; returns how many files. Blocks; raises TryLater. Several may do so at once."""
    removed = 0
    while True:
        with ledger.read() as session:
            old = expired(session, max_age_s, AT_ONCE)
        if not old:
            return removed
        for file in old:
            store.remove(stored_name(file.run_id, file.code))
        with ledger.write() as session:
            note_removed(session, [file.code for file in old])
        removed += len(old)
