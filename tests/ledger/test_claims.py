"""Claims and leases on both databases: one has a run, the present lease alone counts, losses are counted apart."""

from __future__ import annotations

import threading

from sqlalchemy import text

from ledger import Ledger, sweeper
from ledger.claims import (
    Answer,
    ClaimedRun,
    Drop,
    Later,
    Lease,
    hand_back,
    renew,
    report,
)
from ledger.rules import Rules
from ledger.runs import counts, run_view
from schemas.errors import TryLater
from schemas.records import Outcome
from tests.ledger.conftest import (
    RULES,
    Handler,
    Queued,
    claimed,
    ended,
    leased,
    leased_in,
    lose,
    mails,
    set_back,
)


def test_a_run_is_leased_to_one(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()

    assert isinstance(claimed(ledger, run.run_id, "one"), ClaimedRun)
    assert claimed(ledger, run.run_id, "two") == Drop("it is leased by another")
    assert claimed(ledger, "no such run") == Drop("there is no such run")


def test_a_claim_asked_again_gives_the_same_lease_and_another_nonce_does_not(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    first = claimed(ledger, run.run_id, "boot", "nonce")

    assert claimed(ledger, run.run_id, "boot", "nonce") == first
    assert isinstance(claimed(ledger, run.run_id, "boot", "other"), Drop)


def test_the_ledger_does_not_hold_what_acts_on_a_lease(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    lease = leased(ledger, run.run_id, boot="a-secret-of-the-process")

    with ledger.read() as session:
        for table in ("run", "attempt"):
            row = session.execute(text(f"SELECT * FROM {table}")).one()
            assert lease.lease_id not in map(str, row) and "a-secret-of-the-process" not in map(str, row)


def test_of_many_who_claim_at_once_one_gets_the_run(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    answers: list[Answer] = []

    def ask(name: str) -> None:
        while True:
            try:
                answers.append(claimed(ledger, run.run_id, name))
                return
            except TryLater:
                continue

    threads = [threading.Thread(target=ask, args=(f"boot-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(isinstance(answer, ClaimedRun) for answer in answers) == 1
    assert len(answers) == 8


def test_caps_per_owner_and_per_handler_put_a_claim_off(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    one, two = handler("one"), handler("two")
    first, second = queued(2, one)
    (third,) = queued(1, two)
    assert isinstance(claimed(ledger, first.run_id), ClaimedRun)

    capped = claimed(ledger, second.run_id, nonce="b", rules=Rules(per_handler=1))
    assert isinstance(capped, Later) and "cap for a handler" in capped.reason
    assert isinstance(claimed(ledger, third.run_id, nonce="c", rules=Rules(per_owner=1)), Later)
    assert isinstance(claimed(ledger, third.run_id, nonce="d"), Later)  # its time has not come again yet


def test_a_renewed_lease_does_not_end(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    lease = leased(ledger, run.run_id)
    with ledger.write() as session:
        set_back(session, "lease_until_ms", run.run_id, 10_000_000)

    with ledger.write() as session:
        assert sorted(renew(session, [Lease(run.run_id, "0" * 32), Lease("none", "x")], RULES)) == sorted(
            ["none", run.run_id]
        )
        assert renew(session, [lease], RULES) == []
        assert sweeper.ended_leases(session) == []
        assert sweeper.free_ended(session, [run.run_id], RULES) == 0


def test_a_lost_lease_cannot_renew_report_hand_back_or_close(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    old = leased(ledger, run.run_id, "old")
    assert lose(ledger, run.run_id) == 1
    new = leased(ledger, run.run_id, "new")

    with ledger.write() as session:
        assert renew(session, [old], RULES) == [run.run_id]
        assert not report(session, old)
        assert not hand_back(session, old, "SHUTTING_DOWN", "", True, RULES)
    late = ended(ledger, old, text="late")
    assert (late.counted, late.why) == (False, "its lease was lost; another has the run")
    assert mails(ledger) == []
    assert ended(ledger, new, text="in time").counted
    with ledger.read() as session:
        view = run_view(session, run.run_id)
        assert view is not None and view.text == "in time"
        assert [attempt.reason for attempt in view.attempts] == ["lost with its executor", "succeeded"]


def test_a_run_handed_back_is_tried_again_and_does_not_count_as_an_attempt_lost(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    rules = Rules(max_attempts=1, max_hand_backs=3, first_wait_s=0.0)
    for number in range(2):
        with ledger.write() as session:
            assert hand_back(session, leased_in(session, run.run_id, number), "BTRDB_AWAY", "no route", False, rules)
    with ledger.read() as session:
        assert counts(session) == {"queued": 1}

    with ledger.write() as session:
        assert hand_back(session, leased_in(session, run.run_id, 9), "BTRDB_AWAY", "no route", False, rules)

    (mail,) = mails(ledger)
    assert mail.runs[0].state == Outcome.ABANDONED
    assert mail.runs[0].error is not None and "no route" in mail.runs[0].error.message


def test_a_run_whose_executors_die_under_it_is_abandoned_with_one_email(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    for number in range(3):
        leased(ledger, run.run_id, f"boot-{number}")
        lose(ledger, run.run_id)

    (mail,) = mails(ledger)
    assert mail.runs[0].state == Outcome.ABANDONED
    assert mail.runs[0].error is not None and "died under it 3 times" in mail.runs[0].error.message


def test_runs_lost_together_are_tried_one_at_a_time_and_only_a_lone_loss_counts(ledger: Ledger, queued: Queued) -> None:
    one, two = queued(2)
    for run in (one, two):
        leased(ledger, run.run_id, "doomed", f"nonce-{run.run_id}")
    lose(ledger, one.run_id, two.run_id)

    leased(ledger, one.run_id, "next", "a")
    waits = claimed(ledger, two.run_id, "next", "b")

    assert isinstance(waits, Later) and "one at a time" in waits.reason
    with ledger.read() as session:
        assert session.execute(text("SELECT sum(lost), sum(lost_together) FROM run")).one() == (0, 2)
    lose(ledger, one.run_id)
    with ledger.read() as session:
        assert session.execute(text("SELECT lost FROM run WHERE id = :id"), {"id": one.run_id}).scalar_one() == 1


def test_a_reported_run_whose_result_never_comes_is_tried_again(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    with ledger.write() as session:
        assert report(session, leased_in(session, run.run_id, 1))

    assert lose(ledger, run.run_id) == 1
    assert isinstance(claimed(ledger, run.run_id, "again"), ClaimedRun)
