"""Which events had all their runs started in time, on both databases."""

from __future__ import annotations

from sqlalchemy import text

from ledger import Ledger, now_ms
from ledger.promises import Started, started

from .conftest import Queued, leased

MINUTE_MS = 60_000


def age(ledger: Ledger, ms: int) -> None:
    """Moves all that was queued and received that far into the past."""
    with ledger.write() as session:
        session.execute(text(f"UPDATE event SET received_at_ms = received_at_ms - {ms}"))
        session.execute(
            text(f"UPDATE run SET queued_at_ms = queued_at_ms - {ms}, not_before_ms = not_before_ms - {ms}")
        )


def judged(ledger: Ledger, since_ms: int = 0, within_s: float = 60.0) -> Started:
    with ledger.read() as session:
        return started(session, since_ms, within_s)


def test_runs_that_were_claimed_soon_are_in_time(ledger: Ledger, queued: Queued) -> None:
    for number, run in enumerate(queued(3)):
        leased(ledger, run.run_id, nonce=str(number))
    with ledger.write() as session:
        session.execute(text("UPDATE attempt SET claimed_at_ms = claimed_at_ms - 120000"))
    age(ledger, 2 * MINUTE_MS)
    found = judged(ledger)
    assert (found.in_time, found.late) == (3, 0)


def test_a_run_that_waits_or_started_too_late_makes_its_event_late(ledger: Ledger, queued: Queued) -> None:
    waits, late, soon = queued(3)
    age(ledger, 3 * MINUTE_MS)
    leased(ledger, late.run_id, nonce="1")
    leased(ledger, soon.run_id, nonce="2")
    with ledger.write() as session:
        session.execute(
            text("UPDATE attempt SET claimed_at_ms = claimed_at_ms - 170000 WHERE run_id = :id"), {"id": soon.run_id}
        )
    found = judged(ledger)
    assert (found.in_time, found.late) == (1, 2), waits


def test_time_under_a_cap_does_not_count(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued(1)
    age(ledger, 10 * MINUTE_MS)
    with ledger.write() as session:
        session.execute(text(f"UPDATE run SET not_before_ms = {now_ms(session) - 1000}"))
    leased(ledger, run.run_id)
    assert (judged(ledger).in_time, judged(ledger).late) == (1, 0)


def test_events_are_judged_once_and_only_when_they_have_had_their_time(ledger: Ledger, queued: Queued) -> None:
    queued(1)
    with ledger.read() as session:
        begin = started(session, None, 60.0)
    assert (begin.in_time, begin.late) == (0, 0)
    assert (judged(ledger, begin.until_ms).in_time, judged(ledger, begin.until_ms).late) == (0, 0)
    age(ledger, 61_000)
    first = judged(ledger, begin.until_ms - MINUTE_MS)
    again = judged(ledger, first.until_ms)
    assert first.in_time + first.late == 1
    assert again.in_time + again.late == 0


def test_an_event_without_runs_is_in_time(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued(1)
    age(ledger, 5 * MINUTE_MS)
    with ledger.write() as session:
        session.execute(text("DELETE FROM run WHERE id = :id"), {"id": run.run_id})
    assert (judged(ledger).in_time, judged(ledger).late) == (1, 0)
