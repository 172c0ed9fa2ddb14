"""The sweeper: invites again what is due, frees runs whose lease has ended, closes what nobody can run. One is active."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import structlog

from dispatcher.invite import invite
from dispatcher.lead import give_back
from dispatcher.settings import SweeperSettings
from ledger import Ledger, sweeper
from ledger.engine import now_ms
from ledger.fair import plan, take_up
from ledger.rules import Rules
from schemas.errors import TryLater
from schemas.topics import RESULTS
from stream.broker import Admin, Producer
from telemetry import metrics
from telemetry.health import Health

log = structlog.get_logger()

Offsets = Mapping[int, int]
ROLE = "sweeper"


class Sweeper:
    """One turn after another, each a few short transactions. Safe to run in every dispatcher: a database lock elects one."""

    def __init__(
        self, ledger: Ledger, producer: Producer, admin: Admin, rules: Rules, settings: SweeperSettings, boot_id: str
    ) -> None:
        """rules: as the registry has them; boot_id: of this process, the sweeper's name in the election."""
        self._ledger = ledger
        self._producer = producer
        self._admin = admin
        self._rules = rules
        self._settings = settings
        self._boot_id = boot_id
        self._invited = 0  # in the last turn
        self._leads_until = 0.0  # by our own clock
        self._seen: dict[str, Offsets] = {}  # run whose lease has ended -> the results topic's end, read after that

    def run(self, stop: threading.Event, health: Health) -> None:
        """Turns until stop is set; blocks. A dependency that is away is waited for; anything else is raised.

        Gives its lead back at the end.
        """
        wait = self._settings.every_s
        while not stop.wait(wait):
            try:
                busy = self.turn()
                health.ready("sweeper", True)
                wait = self._wait(wait, busy)
            except TryLater as error:
                health.ready("sweeper", False, error.reason)
                wait = max(min(wait * 2, 10.0), error.after_s)
        give_back(self._ledger, ROLE, self._boot_id)

    def _wait(self, last: float, busy: bool) -> float:
        """Soon while slots come free for what waits; less and less often while none does."""
        settings = self._settings
        if not busy:
            return settings.every_s
        return (
            settings.soon_s
            if self._invited
            else min(max(last, settings.soon_s) * 1.5, settings.soon_s * 10, settings.every_s)
        )

    def turn(self) -> bool:
        """One turn; does nothing when another sweeper leads. Returns whether more is due than may be out. Raises TryLater."""
        self._invited = 0
        if not self._leads():
            return False
        self._free_ended()
        with self._ledger.read() as session:  # a plan takes a while: nobody who writes should have to wait for it
            found = plan(session, self._rules, self._settings.at_most, now_ms(session))
        if not found.invitations:
            return found.waiting
        with self._ledger.write() as session:
            invitations = take_up(session, self._rules, found.invitations)
        self._invited = len(invitations)
        invite(self._producer, invitations, {})
        self._producer.flush(self._settings.flush_timeout_s)
        log.info("invited", runs=self._invited, more=found.waiting)
        return found.waiting

    def _leads(self) -> bool:
        """Whether this sweeper leads. Asked once in every_s, when it also closes what nobody serves: a lead lasts for longer."""
        if time.monotonic() < self._leads_until:
            return True
        settings = self._settings
        with self._ledger.write() as session:
            if not sweeper.lead(session, ROLE, self._boot_id, settings.lead_s):
                self._seen.clear()
                return False
            closed = sweeper.unserved(
                session, set(settings.runtime_names()), settings.unserved_after_s, self._rules.mail
            )
        if closed:
            log.warning("refused: no executor serves their runtime", runs=closed)
        self._leads_until = time.monotonic() + settings.every_s
        return True

    def _free_ended(self) -> None:
        with self._ledger.read() as session:
            ended = set(sweeper.ended_leases(session))
            answering_since = sweeper.answering_since_ms(session, self._rules)
            now = now_ms(session)
        self._seen = {run_id: ends for run_id, ends in self._seen.items() if run_id in ended}
        if not ended:
            return
        fresh = ended - self._seen.keys()
        if fresh:
            ends = self._admin.end_offsets(RESULTS)
            self._seen.update((run_id, ends) for run_id in fresh)
        if answering_since is None or now - answering_since < self._rules.lease_s * 1000:
            return  # executors could not have renewed: nobody's lease counts as ended yet
        consumed = self._admin.committed(self._settings.notifier_group, RESULTS)
        free = [run_id for run_id, ends in self._seen.items() if _reached(consumed, ends)]
        if not free:
            return  # a result of theirs may still be on its way to the notifier
        with self._ledger.write() as session:
            freed = sweeper.free_ended(session, free, self._rules)
        metrics.leases_lost_total.inc(freed)
        log.warning("freed runs whose lease had ended", runs=freed)


def _reached(consumed: Offsets, ends: Offsets) -> bool:
    return all(consumed.get(partition, 0) >= end for partition, end in ends.items())
