"""The ledger on both databases: registrations, frozen matches, leases, ends, emails."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from ledger import Ledger, now_ms, outbox, sweeper
from ledger.claims import (
    Answer,
    Claimant,
    ClaimedRun,
    Drop,
    Later,
    Lease,
    Rules,
    claim,
    event_bodies,
    hand_back,
    renew,
    report,
)
from ledger.credentials import seal, unseal
from ledger.events import Invitation, record_events
from ledger.handlers import (
    HandlerView,
    NoSuchHandler,
    NotOwner,
    blob,
    get_handler,
    list_handlers,
    matchable,
    remove,
    revision,
)
from ledger.results import close
from ledger.runs import counts, run_view, runs
from ledger.tables import Table
from schemas.errors import TryLater
from schemas.records import Outcome, Result, RunError, Upload
from tests.ledger.conftest import HOOK, an_event, match_of, set_back

RULES = Rules(lease_s=60.0, first_wait_s=0.0)
Handler = Callable[..., HandlerView]
Queued = Callable[..., list[Invitation]]


def claimed(ledger: Ledger, run_id: str, boot: str = "boot", nonce: str = "nonce", rules: Rules = RULES) -> Answer:
    with ledger.write() as session:
        ((_, answer),) = claim(session, Claimant(boot, nonce, "executor"), [run_id], rules)
    return answer


def leased(ledger: Ledger, run_id: str, boot: str = "boot", nonce: str = "nonce") -> Lease:
    answer = claimed(ledger, run_id, boot, nonce)
    assert isinstance(answer, ClaimedRun), answer
    return Lease(run_id, answer.lease_id)


def ended(ledger: Ledger, lease: Lease, outcome: Outcome = Outcome.SUCCEEDED, **more: Any) -> Any:
    with ledger.write() as session:
        return close(session, Result(lease.run_id, lease.lease_id, outcome, "executor", **more))


def lose(ledger: Ledger, *run_ids: str, rules: Rules = RULES) -> int:
    """Lets the leases end, and the sweeper free the runs."""
    with ledger.write() as session:
        for run_id in run_ids:
            set_back(session, "lease_until_ms", run_id, 10_000_000)
    with ledger.write() as session:
        assert set(run_ids) <= set(sweeper.ended_leases(session))
        return sweeper.free_ended(session, list(run_ids), rules)


def mails(ledger: Ledger) -> list[outbox.Mail]:
    with ledger.write() as session:
        return outbox.take(session, "sender", 100, 60.0)


def test_migrations_make_what_the_tables_say_and_may_be_run_again(ledger: Ledger) -> None:
    ledger.migrate()

    with ledger.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_the_clock_is_the_database_s_in_milliseconds(ledger: Ledger) -> None:
    import time

    with ledger.read() as session:
        assert abs(now_ms(session) - time.time() * 1000) < 5000


def test_a_name_registered_again_is_the_next_version_of_the_same_handler(ledger: Ledger, handler: Handler) -> None:
    first, second = handler(tags=("b", "a", "b")), handler(blob=b"other")

    assert (first.version, second.version, second.id) == (0, 1, first.id)
    assert first.tags == ("a", "b")
    with ledger.read() as session:
        assert list_handlers(session) == [second]
        assert list_handlers(session, HOOK) == [second]
        assert list_handlers(session, "other") == []


def test_somebody_else_s_handler_is_not_replaced(ledger: Ledger, handler: Handler) -> None:
    handler(owner="alice")

    with pytest.raises(NotOwner, match="belongs to alice"):
        handler(owner="bob")


def test_only_its_owner_or_an_admin_removes_a_handler_and_its_id_is_not_used_again(
    ledger: Ledger, handler: Handler
) -> None:
    view = handler()
    with pytest.raises(NotOwner), ledger.write() as session:
        remove(session, view.id, "bob", admin=False)
    with ledger.write() as session:
        remove(session, view.id, "bob", admin=True)
    with pytest.raises(NoSuchHandler), ledger.write() as session:
        remove(session, view.id, "alice", admin=False)

    again = handler()

    assert again.id > view.id and again.version == 0
    with ledger.read() as session:
        assert get_handler(session, view.id) is None


def test_every_change_of_what_can_match_bumps_the_revision(ledger: Ledger, handler: Handler) -> None:
    def now() -> int:
        with ledger.read() as session:
            return revision(session)

    numbers = [now()]
    view = handler()
    numbers.append(now())
    handler()
    numbers.append(now())
    with ledger.write() as session:
        remove(session, view.id, "alice", admin=False)
    numbers.append(now())

    assert numbers == sorted(set(numbers))
    with ledger.read() as session:
        assert matchable(session) == []


def test_a_pickle_is_found_by_its_digest(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    answer = claimed(ledger, run.run_id)

    assert isinstance(answer, ClaimedRun)
    with ledger.read() as session:
        assert blob(session, answer.blob_digest) == b"pickle of h"
        assert blob(session, "0" * 64) is None
        assert event_bodies(session, [answer.event_key, answer.event_key]) == {answer.event_key: b'{"File":"a.zip"}'}


def test_keys_are_sealed_and_the_last_one_counts(ledger: Ledger) -> None:
    with ledger.write() as session:
        seal(session, ledger, "alice", "key-1")
        seal(session, ledger, "alice", "key-2")

    with ledger.read() as session:
        assert unseal(session, ledger, "alice") == "key-2"
        assert unseal(session, ledger, "bob") is None
        assert b"key-2" not in session.execute(text("SELECT sealed FROM credential")).scalar_one()


def test_the_first_dispatch_freezes_the_matches(ledger: Ledger, handler: Handler) -> None:
    first, event = handler("first"), an_event()
    with ledger.write() as session:
        (new,) = record_events(session, [(event, [match_of(first)])])
    renewed, late = handler("first"), handler("late")

    with ledger.write() as session:
        (again,) = record_events(session, [(event, [match_of(renewed), match_of(late)])])

    assert new.new and not again.new
    assert again.invitations == new.invitations
    with ledger.read() as session:
        assert [(run.handler_name, run.handler_version) for run in runs(session, event.request_id)] == [("first", 0)]


def test_an_event_twice_in_one_batch_makes_its_runs_once(ledger: Ledger, handler: Handler) -> None:
    event, match = an_event(), match_of(handler())

    with ledger.write() as session:
        first, second = record_events(session, [(event, [match]), (event, [match])])

    assert (first.new, second.new) == (True, False)
    assert first.invitations == second.invitations


def test_a_great_batch_is_recorded_whole(ledger: Ledger, handler: Handler) -> None:
    matches = [match_of(handler(f"h{number}")) for number in range(10)]

    with ledger.write() as session:
        recorded = record_events(session, [(an_event(), matches) for _ in range(200)])

    assert sum(len(record.invitations) for record in recorded) == 2000
    with ledger.read() as session:
        assert counts(session) == {"queued": 2000}


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


def test_a_run_ends_once_and_is_mailed_once(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    lease = leased(ledger, run.run_id)
    with ledger.write() as session:
        assert report(session, lease)
        assert report(session, lease)

    first = ended(ledger, lease, text="one")
    second = ended(ledger, lease, Outcome.FAILED, text="two")

    assert first.counted and not second.counted
    (mail,) = mails(ledger)
    assert (mail.recipient, mail.kind, mail.runs[0].text, mail.tries) == ("ok@example.com", "success", "one", 1)
    with ledger.write() as session:
        assert report(session, lease)  # late, and harmless


def test_a_failure_is_mailed_to_the_failure_address_with_all_that_is_known(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    error = RunError("ValueError", "nul \0 in it", "Traceback ...")
    uploads = (Upload("c" * 32, "a.png", 5),)
    ended(
        ledger,
        leased(ledger, run.run_id),
        Outcome.FAILED,
        error=error,
        log="said\0",
        uploads=uploads,
        cpu_s=1.5,
        peak_memory_bytes=7,
    )

    (mail,) = mails(ledger)
    (view,) = mail.runs

    assert (mail.recipient, mail.kind) == ("bad@example.com", "failure")
    assert view.error == RunError("ValueError", "nul � in it", "Traceback ...")
    assert (view.log, view.uploads, view.cpu_s, view.peak_memory_bytes, view.state) == (
        "said�",
        uploads,
        1.5,
        7,
        Outcome.FAILED,
    )
    assert (view.event_subject, view.event_tags, view.attempt) == ("a.zip", ("north",), 1)


def test_nobody_is_mailed_at_an_empty_address(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    (run,) = queued(1, handler(notify_on_success=""))
    ended(ledger, leased(ledger, run.run_id))

    assert mails(ledger) == []


def test_a_removed_handler_s_waiting_runs_are_cancelled_without_a_word_and_its_running_ones_go_on(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    view = handler()
    waiting, running = queued(2, view)
    lease = leased(ledger, running.run_id)

    with ledger.write() as session:
        remove(session, view.id, "alice", admin=False)

    assert claimed(ledger, waiting.run_id) == Drop("it has ended: cancelled")
    assert mails(ledger) == []
    assert ended(ledger, lease).counted


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


def leased_in(session: Any, run_id: str, number: int) -> Lease:
    ((_, answer),) = claim(session, Claimant("boot", f"n{number}", "e"), [run_id], RULES)
    assert isinstance(answer, ClaimedRun), answer
    return Lease(run_id, answer.lease_id)


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


def test_invitations_go_round_the_owners_and_no_owner_has_more_than_its_share_out(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    queued(20, handler("flood", owner="alice"))
    queued(2, handler("calm", owner="bob"))
    with ledger.write() as session:
        session.execute(text("UPDATE run SET invited_at_ms = NULL"))
        first = sweeper.due(session, per_owner=5, limit=6, reinvite_after_s=60)
        second = sweeper.due(session, per_owner=5, limit=100, reinvite_after_s=60)
        third = sweeper.due(session, per_owner=5, limit=100, reinvite_after_s=60)

    assert [invitation.owner for invitation in first].count("bob") == 2
    assert len({invitation.run_id for invitation in first + second}) == len(first) + len(second)
    assert [invitation.owner for invitation in second] == ["alice"]
    assert third == []


def test_an_invitation_that_nobody_took_up_is_said_again(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    with ledger.write() as session:
        assert sweeper.due(session, 10, 10, reinvite_after_s=60) == []
        set_back(session, "invited_at_ms", run.run_id, 61_000)
        assert sweeper.due(session, 10, 10, reinvite_after_s=60) == [run]


def test_one_leads_until_its_time_is_over(ledger: Ledger) -> None:
    def leads(name: str, for_s: float = 60.0) -> bool:
        with ledger.write() as session:
            return sweeper.lead(session, "sweeper", name, for_s)

    assert [leads("a"), leads("b"), leads("a", for_s=-1.0), leads("b"), leads("a")] == [True, False, True, True, False]


def test_the_registry_counts_as_answering_since_its_last_gap(ledger: Ledger) -> None:
    with ledger.write() as session:
        assert sweeper.answering_since_ms(session) is None
        sweeper.heartbeat(session, "boot")
        since = sweeper.answering_since_ms(session)
        session.execute(text("UPDATE heartbeat SET since_ms = since_ms - 100000, last_ms = last_ms - 5000"))
        sweeper.heartbeat(session, "boot")
        assert since is not None and sweeper.answering_since_ms(session) == since - 100_000
        session.execute(text("UPDATE heartbeat SET last_ms = last_ms - 20000"))
        assert sweeper.answering_since_ms(session) is None
        sweeper.heartbeat(session, "boot")
        fresh = sweeper.answering_since_ms(session)
        assert fresh is not None and fresh >= since


def test_a_run_that_waits_for_a_runtime_nobody_serves_is_refused_naming_those_there_are(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    (old,) = queued(1, handler("old", runtime="py2.7"))
    queued(1, handler("new"))
    with ledger.write() as session:
        assert sweeper.unserved(session, {"py3.11"}, 60) == 0
        set_back(session, "queued_at_ms", old.run_id, 61_000)
        assert sweeper.unserved(session, {"py3.11"}, 60) == 1

    (mail,) = mails(ledger)
    assert (mail.runs[0].run_id, mail.runs[0].state) == (old.run_id, Outcome.REFUSED)
    assert (
        mail.runs[0].error is not None and "no executor serves py2.7; there are: py3.11" in mail.runs[0].error.message
    )


def test_an_email_is_one_sender_s_until_it_is_settled_or_its_lease_ends(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    ended(ledger, leased(ledger, run.run_id))
    (mail,) = mails(ledger)
    assert mails(ledger) == []
    with ledger.write() as session:
        outbox.postpone(session, mail.id, "greylisted", 0.0)
    (again,) = mails(ledger)
    assert (again.message_id, again.tries) == (mail.message_id, 2)
    with ledger.write() as session:
        session.execute(text("UPDATE notification SET not_before_ms = 0"))
    (after,) = mails(ledger)
    assert after.message_id == mail.message_id
    with ledger.write() as session:
        outbox.sent(session, mail.id)
        outbox.give_up(session, mail.id, "too late")
        assert outbox.counts(session) == {"sent": 1}
        assert outbox.take(session, "sender", 10, 60.0) == []


def test_nothing_of_a_transaction_that_fails_is_kept(ledger: Ledger, handler: Handler) -> None:
    view = handler()
    with pytest.raises(ZeroDivisionError), ledger.write() as session:
        record_events(session, [(an_event(), [match_of(view)])])
        raise ZeroDivisionError

    with ledger.read() as session:
        assert counts(session) == {}


def test_a_ledger_that_cannot_be_reached_is_to_be_tried_later() -> None:
    for url in ("sqlite:////no/such/folder/ledger.db", "postgresql+psycopg://nobody@127.0.0.1:1/none"):
        away = Ledger.open(url)
        with pytest.raises(TryLater, match="ledger: "), away.read() as session:
            now_ms(session)
        away.close()
