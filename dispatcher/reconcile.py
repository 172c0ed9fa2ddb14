"""The books compared now and then, for the metrics. One process does it at a time."""

from __future__ import annotations

import threading

import structlog

from dispatcher.settings import SweeperSettings
from ledger import Ledger, sweeper
from ledger.engine import now_ms
from ledger.reconcile import KINDS, Books, reconcile
from schemas.errors import TryLater
from telemetry import metrics

log = structlog.get_logger()

FIRST_S = 10.0


class Reconciler:
    """In a thread of its own, for it may read long. Problems are metrics and log lines; eventproc-admin reconcile names them."""

    def __init__(self, ledger: Ledger, settings: SweeperSettings, boot_id: str) -> None:
        """boot_id: of this process, its name in the election."""
        self._ledger = ledger
        self._settings = settings
        self._boot_id = boot_id

    def run(self, stop: threading.Event) -> None:
        """Compares until stop is set; blocks. A ledger that is away is waited for."""
        wait = min(FIRST_S, self._settings.reconcile_every_s)
        while not stop.wait(wait):
            wait = self._settings.reconcile_every_s
            try:
                self.turn()
            except TryLater as error:
                log.warning("the books were not compared", reason=error.reason)

    def turn(self) -> Books | None:
        """Compares once and sets the metrics; None when another process leads. Raises TryLater."""
        settings = self._settings
        with self._ledger.write() as session:
            if not sweeper.lead(session, "reconcile", self._boot_id, settings.reconcile_every_s * 2):
                return None
        with self._ledger.read() as session:
            books = reconcile(session, now_ms(session) - int(settings.reconcile_over_s * 1000))
        found = {problem.kind: problem for problem in books.problems}
        for kind in KINDS:
            metrics.unaccounted.labels(kind=kind).set(found[kind].count if kind in found else 0)
        for state, count in books.runs.items():
            metrics.runs_state.labels(state=state).set(count)
        for state, count in books.emails.items():
            metrics.emails_state.labels(state=state).set(count)
        metrics.oldest_queued_seconds.set(books.oldest_queued_s)
        for problem in books.problems:
            log.error("does not add up", kind=problem.kind, what=problem.what, count=problem.count, names=problem.names)
        return books
