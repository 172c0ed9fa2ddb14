"""The books compared now and then, for the metrics. One process does it at a time."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Mapping, Sequence

import structlog

from dispatcher.lead import give_back
from dispatcher.settings import SweeperSettings
from ledger import Ledger, promises, sweeper, waiting
from ledger.engine import now_ms
from ledger.reconcile import EMAIL_STATES, EVENT_LOST, KINDS, RUN_STATES, Books, problem, reconcile, unknown_events
from schemas.contracts import hook_names
from schemas.errors import TryLater
from stream.broker import Admin
from stream.schema_book import SchemaBook
from stream.seen import Lost, lost_events
from telemetry import metrics

log = structlog.get_logger()

FIRST_S = 10.0
ROLE = "reconcile"
LOOKS_MISSED = 3  # then whoever looked has died, and another takes over


class Reconciler:
    """In threads of its own, for it may read long. Problems are metrics and log lines; eventproc-admin reconcile names them."""

    def __init__(
        self, ledger: Ledger, admin: Admin, book: SchemaBook, group: str, settings: SweeperSettings, boot_id: str
    ) -> None:
        """admin, book: of this thread alone; group: the dispatchers'; boot_id: of this process, its name in the election."""
        self._ledger = ledger
        self._admin = admin
        self._book = book
        self._group = group
        self._settings = settings
        self._boot_id = boot_id
        self._read: dict[str, Mapping[int, int]] = {}  # hook -> up to where its topic has been read
        self._lost: list[Lost] = []
        self._judged_until_ms: int | None = None

    def run(self, stop: threading.Event) -> None:
        """Compares until stop is set; blocks. A ledger that is away is waited for."""
        wait = min(FIRST_S, self._settings.reconcile_every_s)
        while not stop.wait(wait):
            wait = self._settings.reconcile_every_s
            try:
                if self.turn() is None:
                    wait = min(wait, FIRST_S)  # whoever leads may end
            except TryLater as error:
                log.warning("the books were not compared", reason=error.reason)

    def keep_looking(self, stop: threading.Event) -> None:
        """Looks until stop is set, also while a comparison takes long; then gives the lead back. In a thread of its own; blocks."""
        while True:
            try:
                self.look()
            except TryLater as error:
                log.warning("not known how long runs and emails have been due", reason=error.reason)
            if stop.wait(self._settings.look_every_s):
                break
        give_back(self._ledger, ROLE, self._boot_id)

    def look(self) -> bool:
        """Sets the metrics of what is due, and of the promises; False when another process leads. Raises TryLater."""
        settings = self._settings
        if not self._leads():
            return False
        with self._ledger.read() as session:
            queued = waiting.oldest_queued_s(session, settings.runtime_names())
            email = waiting.oldest_email_s(session)
        for runtime, age_s in queued.items():
            metrics.oldest_queued_seconds.labels(runtime=runtime).set(age_s)
        metrics.oldest_email_seconds.set(email)
        self._judge()
        return True

    def _leads(self) -> bool:
        with self._ledger.write() as session:
            leads = sweeper.lead(session, ROLE, self._boot_id, self._settings.look_every_s * LOOKS_MISSED)
        if not leads:
            self._forget()
        return leads

    def turn(self) -> Books | None:
        """Compares once and sets the metrics; None when another process leads. Raises TryLater."""
        settings = self._settings
        if not self._leads():  # each look prolongs it, so that it is short however long this reads
            return None
        with self._ledger.read() as session:
            books = reconcile(session, now_ms(session) - int(settings.reconcile_over_s * 1000))
        if settings.reconcile_topics:
            books = self._with_topics(books)
        found = {one.kind: one for one in books.problems}
        for kind in KINDS:
            metrics.unaccounted.labels(kind=kind).set(found[kind].count if kind in found else 0)
        for state in RUN_STATES:
            metrics.runs_state.labels(state=state).set(books.runs.get(state, 0))
        for state in EMAIL_STATES:
            metrics.emails_state.labels(state=state).set(books.emails.get(state, 0))
        for one in books.problems:
            log.error("does not add up", kind=one.kind, what=one.what, count=one.count, names=one.names)
        return books

    def _judge(self) -> None:
        """Counts the events that have had their time since the last look; a new leader begins with the present."""
        with self._ledger.read() as session:
            found = promises.started(session, self._judged_until_ms, self._settings.start_within_s)
        self._judged_until_ms = found.until_ms
        metrics.events_started_total.labels(in_time="yes").inc(found.in_time)
        metrics.events_started_total.labels(in_time="no").inc(found.late)

    def _with_topics(self, books: Books) -> Books:
        """The same with the events that are lost: the topics are read on from where the last turn came to."""
        try:
            for hook in hook_names():
                new, self._read[hook] = lost_events(
                    self._admin,
                    self._book,
                    hook,
                    self._group,
                    functools.partial(self._unknown, hook),
                    0 if hook in self._read else books.since_ms,
                    self._read.get(hook, {}),
                )
                self._lost.extend(new)
        except TryLater as error:
            log.warning("the topics were not compared", reason=error.reason)
        self._lost = [one for one in self._lost if not one.request_id or self._unknown(one.topic, [one.request_id])]
        if not self._lost:
            return books
        what = "events that were consumed and are in neither the ledger nor the dead letters"
        lost = problem(EVENT_LOST, what, [str(one) for one in self._lost])
        return dataclasses.replace(books, problems=(lost, *books.problems))

    def _unknown(self, hook: str, request_ids: Sequence[str]) -> list[str]:
        with self._ledger.read() as session:
            return [request_id for _, request_id in unknown_events(session, [(hook, one) for one in request_ids])]

    def _forget(self) -> None:
        """Another process leads: its figures are the ones to look at."""
        self._judged_until_ms = None
        self._read.clear()
        self._lost.clear()
        for gauge in (metrics.unaccounted, metrics.runs_state, metrics.emails_state, metrics.oldest_queued_seconds):
            gauge.clear()
        metrics.oldest_email_seconds.set(0)
