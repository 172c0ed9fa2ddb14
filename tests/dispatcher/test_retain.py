"""Of several dispatchers one removes what is too old, in small transactions, and tells what room the rest takes."""

from __future__ import annotations

import threading

from prometheus_client import REGISTRY
from sqlalchemy import text

from dispatcher.retain import Retainer
from dispatcher.settings import SweeperSettings
from ledger import Ledger
from ledger.rules import KeepRules
from schemas.topics import DAY_MS

RULES = KeepRules(texts_ms=DAY_MS, runs_ms=DAY_MS, events_ms=30 * DAY_MS, emails_ms=DAY_MS)


def old_runs(ledger: Ledger, count: int) -> None:
    """So many runs of one event, long ended, of a handler that is there."""
    with ledger.write() as session:
        session.execute(
            text(
                "INSERT INTO handler (id, hook, name, owner, version, paused, created_by, created_at_ms, updated_by, updated_at_ms) "
                "VALUES (1, 'h', 'n', 'alice', 0, false, 'alice', 0, 'alice', 0)"
            )
        )
        for number in range(count):
            session.execute(
                text(
                    "INSERT INTO run (id, hook, request_id, handler_id, handler_version, owner, runtime, state, queued_at_ms, "
                    "not_before_ms, claims, lost, lost_together, hand_backs, ended_at_ms, text, log, log_truncated, uploads, "
                    "started_at_ns, ended_at_ns, cpu_s, peak_memory_bytes) VALUES (:id, 'h', 'e', 1, 0, 'alice', 'py3.11', "
                    "'succeeded', 1, 1, 1, 0, 0, 0, 2, 'text', 'log', false, '[]', 0, 0, 0, 0)"
                ),
                {"id": f"run-{number}"},
            )


def retainer(ledger: Ledger, name: str) -> Retainer:
    return Retainer(ledger, RULES, SweeperSettings(retain_batch=4, retain_pause_s=0), name)


def left(ledger: Ledger) -> int:
    with ledger.read() as session:
        return int(session.scalar(text("SELECT count(*) FROM run")) or 0)


class AfterTheFirst(threading.Event):
    """Set by who waits on it for the first time: between two transactions."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return super().wait(timeout)


def test_the_one_that_leads_removes_and_the_other_does_nothing(ledger: Ledger) -> None:
    old_runs(ledger, 10)

    done = retainer(ledger, "first").turn(threading.Event())

    assert done is not None and (done["texts"], done["runs"], left(ledger)) == (10, 10, 0)
    assert retainer(ledger, "second").turn(threading.Event()) is None
    assert (REGISTRY.get_sample_value("eventproc_removed_total", {"kind": "runs"}) or 0) >= 10


def test_it_stops_after_the_transaction_in_hand_when_it_is_told_to(ledger: Ledger) -> None:
    old_runs(ledger, 10)
    stop = AfterTheFirst()

    done = retainer(ledger, "first").turn(stop)

    assert done is not None and sum(done.values()) == done["texts"] == 4
    assert left(ledger) == 10


def test_the_room_that_each_kind_takes_is_a_metric(ledger: Ledger) -> None:
    old_runs(ledger, 1)

    retainer(ledger, "first").turn(threading.Event())

    assert (REGISTRY.get_sample_value("eventproc_kept_bytes", {"kind": "events"}) or 0) > 0
