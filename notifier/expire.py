"""Files of handlers that are too old go, in small batches; their rows stay, so that a link can say so."""

from __future__ import annotations

import threading

import structlog

from ledger import Ledger
from ledger.files import expired, note_removed
from objectstore import ObjectStore
from schemas.errors import TryLater
from schemas.records import stored_name
from telemetry import metrics

log = structlog.get_logger()

AT_ONCE = 100


def keep_expiring(ledger: Ledger, store: ObjectStore, age_s: float, every_s: float, stop: threading.Event) -> None:
    """Removes what is older than age_s, every now and then until stop is set; blocks. What is away is waited for."""
    while True:
        try:
            expire(ledger, store, age_s, stop)
        except TryLater as error:
            log.warning("old files were not removed", reason=error.reason)
        if stop.wait(every_s):
            return


def expire(ledger: Ledger, store: ObjectStore, age_s: float, stop: threading.Event) -> int:
    """Removes what is older than age_s; returns how many files. Blocks, until stop at most; raises TryLater.

    Several may do so at once.
    """
    removed = 0
    while not stop.is_set():
        with ledger.read() as session:
            old = expired(session, age_s, AT_ONCE)
        if not old:
            break
        for file in old:
            store.remove(stored_name(file.run_id, file.code))
        with ledger.write() as session:
            note_removed(session, [file.code for file in old])
        metrics.files_removed_total.inc(len(old))
        removed += len(old)
    return removed
