"""The storm guard: a run is in one email, its own or a digest; on both databases."""

import threading

from sqlalchemy import text

from ledger import Ledger, outbox
from ledger.claims import Lease
from ledger.results import close
from ledger.rules import MailRules
from schemas.records import Outcome, Result, RunError, Upload
from tests.ledger.conftest import Handler, Queued, leased

GUARD = MailRules(storm_after=3, storm_window_s=3600, digest_every_s=600, digest_most=5)


def end(ledger: Ledger, lease: Lease, outcome: Outcome = Outcome.FAILED, rules: MailRules = GUARD) -> None:
    error = RunError("ValueError", "no such stream\nsecond line") if outcome is Outcome.FAILED else None
    with ledger.write() as session:
        assert close(session, Result(lease.run_id, lease.lease_id, outcome, "executor", error=error), rules).counted


def mails(ledger: Ledger) -> list[tuple[str, str, bool, int]]:
    """(recipient, kind, digest, runs) of every email, in the order in which they were made."""
    with ledger.read() as session:
        found = session.execute(
            text(
                "SELECT recipient, kind, digest, (SELECT count(*) FROM notification_run r WHERE r.notification_id = n.id) "
                "FROM notification n ORDER BY id"
            )
        )
        return [(recipient, kind, bool(digest), runs) for recipient, kind, digest, runs in found]


def test_what_comes_after_the_first_few_goes_into_digests_and_every_run_is_in_one_email(
    ledger: Ledger, queued: Queued
) -> None:
    runs = queued(10)
    for run in runs:
        end(ledger, leased(ledger, run.run_id, nonce=run.run_id))

    own, digest = ("bad@example.com", "failure", False, 1), ("bad@example.com", "failure", True, 5)
    assert mails(ledger) == [own, own, own, digest, ("bad@example.com", "failure", True, 2)]


def test_successes_and_failures_and_recipients_are_counted_apart(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    for run in queued(3):
        end(ledger, leased(ledger, run.run_id, nonce=run.run_id))
    for run in queued(1):
        end(ledger, leased(ledger, run.run_id, nonce=run.run_id), Outcome.SUCCEEDED)
    for run in queued(1, handler("other", notify_on_failure="carol@example.com")):
        end(ledger, leased(ledger, run.run_id, nonce=run.run_id))

    assert all(not digest for _, _, digest, _ in mails(ledger))


def test_a_digest_waits_for_its_time_and_then_tells_its_runs_in_short(ledger: Ledger, queued: Queued) -> None:
    for run in queued(5):
        end(ledger, leased(ledger, run.run_id, nonce=run.run_id))
    with ledger.write() as session:
        assert len(outbox.take(session, "sender", 100, 60.0)) == 3
        session.execute(text("UPDATE notification SET not_before_ms = not_before_ms - 600000 WHERE digest"))
        (digest,) = outbox.take(session, "sender", 100, 60.0)

    assert digest.runs == () and len(digest.lines) == 2
    line = digest.lines[0]
    assert (line.handler_name, line.outcome, line.error) == ("h", Outcome.FAILED, "ValueError: no such stream")


def test_a_digests_runs_come_with_their_files(ledger: Ledger, queued: Queued) -> None:
    for run in queued(4):
        lease = leased(ledger, run.run_id, nonce=run.run_id)
        uploads = (Upload(lease.run_id.replace("-", ""), "plot.png", 2048),)
        result = Result(lease.run_id, lease.lease_id, Outcome.FAILED, "executor", uploads=uploads)
        with ledger.write() as session:
            close(session, result, GUARD)
    with ledger.write() as session:
        session.execute(text("UPDATE notification SET not_before_ms = 0 WHERE digest"))
        (line,) = (line for mail in outbox.take(session, "sender", 100, 60.0) for line in mail.lines)

    assert line.uploads == uploads


def test_a_run_that_ends_when_the_digest_is_being_sent_goes_into_the_next(ledger: Ledger, queued: Queued) -> None:
    runs = queued(5)
    for run in runs[:4]:
        end(ledger, leased(ledger, run.run_id, nonce=run.run_id))
    with ledger.write() as session:
        session.execute(
            text(
                "UPDATE notification SET not_before_ms = not_before_ms - 600000, created_at_ms = created_at_ms - 600000 WHERE digest"
            )
        )
        outbox.take(session, "sender", 100, 60.0)
    end(ledger, leased(ledger, runs[4].run_id, nonce="last"))

    assert [runs for _, _, digest, runs in mails(ledger) if digest] == [1, 1]


def test_without_a_guard_every_run_has_its_own_email(ledger: Ledger, queued: Queued) -> None:
    for run in queued(5):
        end(ledger, leased(ledger, run.run_id, nonce=run.run_id), rules=MailRules(storm_after=0))

    assert [runs for _, _, _, runs in mails(ledger)] == [1] * 5


def test_many_who_close_at_once_put_every_run_into_exactly_one_email(ledger: Ledger, queued: Queued) -> None:
    leases = [leased(ledger, run.run_id, nonce=run.run_id) for run in queued(24)]

    def end_all(some: list[Lease]) -> None:
        for one in some:
            end(ledger, one)

    threads = [threading.Thread(target=end_all, args=(leases[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(runs for _, _, _, runs in mails(ledger)) == 24
