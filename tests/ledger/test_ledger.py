"""The ledger on both databases: registrations, frozen matches, ends, emails."""

from __future__ import annotations

import dataclasses
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from ledger import Ledger, now_ms, outbox
from ledger.claims import (
    ClaimedRun,
    Drop,
    event_bodies,
    report,
)
from ledger.credentials import seal, unseal
from ledger.events import record_events
from ledger.handlers import (
    NoSuchHandler,
    NotOwner,
    blob,
    get_handler,
    list_handlers,
    matchable,
    remove,
    revision,
)
from ledger.runs import counts, runs
from ledger.tables import Table
from schemas.errors import TryLater
from schemas.records import Outcome, RunError, Upload
from tests.ledger.conftest import (
    HOOK,
    Handler,
    Queued,
    an_event,
    claimed,
    ended,
    leased,
    mails,
    match_of,
)


def test_migrations_make_what_the_tables_say_and_may_be_run_again(ledger: Ledger) -> None:
    ledger.migrate()

    with ledger.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_the_clock_is_the_database_s_in_milliseconds(ledger: Ledger) -> None:

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


def test_a_request_id_that_another_event_uses_makes_nothing_and_is_told(ledger: Ledger, handler: Handler) -> None:
    match, event = match_of(handler()), an_event()
    again = dataclasses.replace(event, submitted_at="2021-01-01T00:00:00Z")
    other = dataclasses.replace(event, subject="b.zip")
    with ledger.write() as session:
        _, twice, differs = record_events(session, [(event, [match]), (again, [match]), (other, [match])])
    with ledger.write() as session:
        (later,) = record_events(session, [(dataclasses.replace(event, tags=("south",)), [match])])

    assert twice.differs == "" and twice.invitations
    assert differs.differs == later.differs == """was of 'a.zip' with the tags ["north"]"""
    assert not differs.invitations and not later.invitations
    with ledger.read() as session:
        assert counts(session) == {"queued": 1}


def test_names_may_hold_any_sign(ledger: Ledger, handler: Handler) -> None:
    event = an_event(subject="a\0b \U0001f4a1.zip", tags=("a\0b",))
    with ledger.write() as session:
        (recorded,) = record_events(session, [(event, [match_of(handler())])])
    with ledger.write() as session:
        (again,) = record_events(session, [(event, [])])

    assert recorded.runs == 1 and again.differs == ""
    with ledger.read() as session:
        (run,) = runs(session, event.request_id)
        assert run.event_tags == ("a\0b",)


def test_a_great_batch_is_recorded_whole(ledger: Ledger, handler: Handler) -> None:
    matches = [match_of(handler(f"h{number}")) for number in range(10)]

    with ledger.write() as session:
        recorded = record_events(session, [(an_event(), matches) for _ in range(200)])

    assert sum(record.runs for record in recorded) == 2000
    with ledger.read() as session:
        assert counts(session) == {"queued": 2000}


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


def test_an_email_is_one_sender_s_until_it_is_settled_or_its_lease_ends(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    ended(ledger, leased(ledger, run.run_id))
    (mail,) = mails(ledger)
    assert mails(ledger) == []
    with ledger.write() as session:
        outbox.postpone(session, mail, "greylisted", 0.0)
    (again,) = mails(ledger)
    assert (again.message_id, again.tries) == (mail.message_id, 2)
    with ledger.write() as session:
        session.execute(text("UPDATE notification SET not_before_ms = 0"))
    (after,) = mails(ledger)
    assert after.message_id == mail.message_id
    with ledger.write() as session:
        outbox.sent(session, mail)
        outbox.give_up(session, mail, "too late")
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
