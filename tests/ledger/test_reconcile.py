"""The books add up, or what does not is named; on both databases."""

from sqlalchemy import text

from ledger import Ledger
from ledger.reconcile import Books, reconcile, unknown_events
from ledger.replay import Selection, replay
from schemas.records import Outcome
from tests.ledger.conftest import HOOK, Queued, an_event, ended, leased


def books(ledger: Ledger) -> Books:
    with ledger.read() as session:
        return reconcile(session, 0)


def spoil(ledger: Ledger, statement: str) -> None:
    with ledger.write() as session:
        session.execute(text(statement))


def kinds(ledger: Ledger) -> dict[str, int]:
    return {problem.kind: problem.count for problem in books(ledger).problems}


def test_books_that_add_up_have_counts_and_no_problems(ledger: Ledger, queued: Queued) -> None:
    first, _second = queued(2)
    ended(ledger, leased(ledger, first.run_id))
    with ledger.write() as session:
        request_id = session.scalar(text("SELECT request_id FROM run WHERE id = :id"), {"id": first.run_id})
        replay(session, Selection(HOOK, str(request_id)), "again")

    found = books(ledger)

    assert (found.events, found.expected, found.replayed) == (2, 2, 1)
    assert found.runs == {Outcome.SUCCEEDED.value: 1, "queued": 2}
    assert found.emails == {"pending": 1}
    assert found.problems == ()


def test_each_thing_that_does_not_add_up_is_named(ledger: Ledger, queued: Queued) -> None:
    first, second, third = queued(3)
    ended(ledger, leased(ledger, first.run_id))
    leased(ledger, second.run_id, nonce="b")

    spoil(ledger, f"DELETE FROM notification_run WHERE run_id = '{first.run_id}'")
    spoil(ledger, f"UPDATE run SET lease_until_ms = lease_until_ms - 10000000 WHERE id = '{second.run_id}'")
    spoil(ledger, "UPDATE notification SET not_before_ms = not_before_ms - 10000000")
    spoil(ledger, f"DELETE FROM run WHERE id = '{third.run_id}'")

    assert kinds(ledger) == {
        "event_without_run": 1,
        "run_without_email": 1,
        "email_without_run": 1,
        "lease_overdue": 1,
        "email_overdue": 1,
    }
    named = {problem.kind: problem.names for problem in books(ledger).problems}
    assert named["run_without_email"] == (first.run_id,)
    assert named["lease_overdue"] == (second.run_id,)


def test_events_that_the_ledger_has_not_seen_are_told(ledger: Ledger, queued: Queued) -> None:
    queued(1)
    with ledger.read() as session:
        known = str(session.scalar(text("SELECT request_id FROM event")))
        assert unknown_events(session, [(HOOK, known), (HOOK, "nobody's")]) == [(HOOK, "nobody's")]
    assert an_event().request_id != known
