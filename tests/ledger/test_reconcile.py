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
    assert found.invited == 1, "the replayed one waits for the sweeper"
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


SPOILS = [
    (
        "run_without_match",
        "INSERT INTO run (id, hook, request_id, handler_id, handler_version, owner, runtime, state, queued_at_ms, not_before_ms,"
        " claims, lost, lost_together, hand_backs, text, log, log_truncated, uploads, started_at_ns, ended_at_ns, cpu_s,"
        " peak_memory_bytes) SELECT 'stray', hook, request_id, handler_id, handler_version + 1, owner, runtime, 'queued',"
        " queued_at_ms, not_before_ms, 0, 0, 0, 0, '', '', log_truncated, '[]', 0, 0, 0, 0 FROM run WHERE id = '{waiting}'",
        "run stray: event {event}, handler 1 version 1",
    ),
    (
        "run_without_match",
        "UPDATE run SET handler_version = 7 WHERE id = '{waiting}'",
        "run {waiting}: event {event}, handler 1 version 7",
    ),
    ("run_without_event", "UPDATE run SET request_id = 'gone' WHERE id = '{done}'", "{done}"),
    ("run_state_unsound", "UPDATE run SET ended_at_ms = NULL WHERE id = '{done}'", "{done}"),
    ("run_state_unsound", "UPDATE run SET lease_hash = NULL WHERE id = '{running}'", "{running}"),
    ("run_state_unsound", "UPDATE run SET state = 'finished' WHERE id = '{done}'", "{done}"),
    ("run_state_unsound", "UPDATE run SET ended_at_ms = 1 WHERE id = '{waiting}'", "{waiting}"),
    ("run_without_email", "DELETE FROM notification_run", "{done}"),
    ("email_without_run", "DELETE FROM notification_run", "{mail}"),
    ("email_not_due", "UPDATE notification_run SET run_id = '{waiting}'", "{waiting}"),
    ("email_not_due", "UPDATE run SET state = 'cancelled' WHERE id = '{done}'", "{done}"),
    ("email_not_due", "UPDATE notification SET recipient = 'eve@example.com'", "{done}"),
    ("email_not_due", "UPDATE handler_version SET notify_on_success = ''", "{done}"),
    ("email_state_unsound", "UPDATE notification SET state = 'lost'", "{mail}"),
    ("email_state_unsound", "UPDATE notification SET state = 'sent'", "{mail}"),
    ("email_overdue", "UPDATE notification SET not_before_ms = 1", "{mail}"),
    ("lease_overdue", "UPDATE run SET lease_until_ms = 1 WHERE id = '{running}'", "{running}"),
]


def test_books_made_wrong_by_hand_are_named_for_what_is_wrong(ledger: Ledger, queued: Queued) -> None:
    done, running, waiting = (run.run_id for run in queued(3))
    ended(ledger, leased(ledger, done))
    leased(ledger, running, nonce="b")
    assert kinds(ledger) == {}
    with ledger.read() as session:
        mail = session.scalar(text("SELECT message_id FROM notification"))
        event = session.scalar(text("SELECT request_id FROM run WHERE id = :id"), {"id": waiting})
    known = {"done": done, "running": running, "waiting": waiting, "mail": mail, "event": event}

    for kind, statement, name in SPOILS:
        with ledger.write() as session:
            session.execute(text(statement.format(**known)))
            named = {problem.kind: problem.names for problem in reconcile(session, 0).problems}
            assert name.format(**known) in named[kind], (statement, named)
            session.rollback()  # the next is spoiled by itself
    assert kinds(ledger) == {}


def test_events_that_the_ledger_has_not_seen_are_told(ledger: Ledger, queued: Queued) -> None:
    queued(1)
    with ledger.read() as session:
        known = str(session.scalar(text("SELECT request_id FROM event")))
        assert unknown_events(session, [(HOOK, known), (HOOK, "nobody's")]) == [(HOOK, "nobody's")]
    assert an_event().request_id != known
