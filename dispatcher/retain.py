"""What is too old goes, and how much room the rest takes is told. One process does it at a time."""

from __future__ import annotations

import threading

import structlog

from dispatcher.lead import give_back
from dispatcher.settings import SweeperSettings
from ledger import Ledger, sweeper
from ledger.retain import KINDS, remove_some
from ledger.rules import KeepRules
from ledger.sizes import sizes
from schemas.errors import TryLater
from telemetry import metrics

log = structlog.get_logger()

FIRST_S = 10.0
ROLE = "retain"


class Retainer:
    """In a thread of its own, for it may have much to do; in small transactions, so that it is in nobody's way."""

    def __init__(self, ledger: Ledger, rules: KeepRules, settings: SweeperSettings, boot_id: str) -> None:
        """boot_id: of this process, its name in the election."""
        self._ledger = ledger
        self._rules = rules
        self._settings = settings
        self._boot_id = boot_id

    def run(self, stop: threading.Event) -> None:
        """Removes until stop is set; blocks. A ledger that is away is waited for. Gives its lead back at the end."""
        wait = min(FIRST_S, self._settings.retain_every_s)
        while not stop.wait(wait):
            wait = self._settings.retain_every_s
            try:
                self.turn(stop)
            except TryLater as error:
                wait = min(wait, FIRST_S)
                log.warning("nothing was removed for its age", reason=error.reason)
        give_back(self._ledger, ROLE, self._boot_id)

    def turn(self, stop: threading.Event) -> dict[str, int] | None:
        """Removes all that is too old and sets the metrics; how many of each kind, None when another process leads.

        Blocks as long as that takes, or until stop is set. Raises TryLater; what was removed so far is.
        """
        done, kept_bytes = dict.fromkeys(KINDS, 0), metrics.kept_bytes
        for kind in KINDS:
            more = True
            while more and not stop.is_set():
                count = self._batch(kind)
                if count is None:
                    kept_bytes.clear()  # the leader's figures are the ones to look at
                    return None
                done[kind] += count
                metrics.removed_total.labels(kind=kind).inc(count)
                more = count == self._settings.retain_batch and not stop.wait(self._settings.retain_pause_s)
        with self._ledger.read() as session:
            kept = sizes(session)
        for name, size in kept.items():
            kept_bytes.labels(kind=name).set(size)
        if any(done.values()):
            log.info("removed for their age", **done)
        return done

    def _batch(self, kind: str) -> int | None:
        settings = self._settings
        with self._ledger.write() as session:
            if not sweeper.lead(session, ROLE, self._boot_id, settings.retain_every_s * 2):
                return None
        with self._ledger.write() as session:
            return remove_some(session, kind, self._rules, settings.retain_batch)
