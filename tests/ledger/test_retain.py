"""What is old goes in small batches, what is not stays, and the books add up all the while; on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from ledger import Ledger, outbox
from ledger.events import record_events
from ledger.files import file_of, note_removed
from ledger.handlers import HandlerView, remove
from ledger.reconcile import reconcile
from ledger.replay import Selection, replay
from ledger.retain import KINDS, remove_some, removed, too_old
from ledger.rules import KeepRules
from ledger.runs import runs, views
from ledger.settings import KeepSettings
from ledger.sizes import sizes
from schemas.records import Outcome, RunError, Upload
from schemas.topics import DAY_MS
from tests.ledger.conftest import HOOK, Handler, Queued, an_event, ended, leased, mails, match_of

ALL = KeepRules(10 * DAY_MS, 20 * DAY_MS, 30 * DAY_MS, 15 * DAY_MS, 40 * DAY_MS, 50 * DAY_MS, 60 * DAY_MS)


def older(ledger: Ledger, days: float) -> None:
    """As if so many days had gone by since all that there is."""
    ms = int(days * DAY_MS)
    times = {
        "run": ("queued_at_ms", "ended_at_ms"), "event": ("received_at_ms",), "handler": ("removed_at_ms",),
        "notification": ("created_at_ms", "ended_at_ms"), "handler_version": ("created_at_ms",), "redriven": ("at_ms",),
        "audit": ("at_ms",),
    }  # fmt: skip
    with ledger.write() as session:
        for table, columns in times.items():
            for column in columns:
                session.execute(text(f"UPDATE {table} SET {column} = {column} - {ms}"))


def retained(ledger: Ledger, rules: KeepRules = ALL, limit: int = 100) -> dict[str, int]:
    """Removes all that is too old; how many of each kind."""
    done = dict.fromkeys(KINDS, 0)
    for kind in KINDS:
        count = limit
        while count == limit:
            with ledger.write() as session:
                count = remove_some(session, kind, rules, limit)
            assert count <= limit
            done[kind] += count
    return {kind: count for kind, count in done.items() if count}


def count(ledger: Ledger, table: str) -> int:
    with ledger.read() as session:
        return int(session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


@pytest.fixture
def told(ledger: Ledger, queued: Queued) -> Callable[[int], list[str]]:
    """Makes runs that have failed and whose emails were sent; their ids."""

    def make(number: int) -> list[str]:
        made = queued(number)
        for run in made:
            lease = leased(ledger, run.run_id, nonce=run.run_id)
            ended(
                ledger,
                lease,
                Outcome.FAILED,
                text="returned",
                log="printed",
                error=RunError("ValueError", "why", "where"),
            )
        for mail in mails(ledger):
            with ledger.write() as session:
                outbox.sent(session, mail)
        return [run.run_id for run in made]

    return make


def test_nothing_goes_that_is_not_old(ledger: Ledger, told: Callable[[int], list[str]]) -> None:
    told(3)
    older(ledger, 9)

    assert retained(ledger) == {}


def test_nothing_goes_when_all_is_to_be_kept_for_ever(ledger: Ledger, told: Callable[[int], list[str]]) -> None:
    told(3)
    older(ledger, 10_000)

    assert retained(ledger, KeepRules()) == {}


def test_a_run_s_texts_go_first_and_what_became_of_it_stays(ledger: Ledger, told: Callable[[int], list[str]]) -> None:
    (run_id,) = told(1)
    older(ledger, 11)

    assert retained(ledger) == {"texts": 1}

    with ledger.read() as session:
        (view,) = views(session, [run_id])
    assert (view.text, view.log, view.state) == ("", "", Outcome.FAILED)
    assert view.error == RunError("ValueError", "")
    assert len(view.attempts) == 1


def test_an_email_goes_and_the_books_do_not_miss_it(ledger: Ledger, told: Callable[[int], list[str]]) -> None:
    told(5)
    older(ledger, 16)

    assert retained(ledger, limit=2) == {"texts": 5, "emails": 5}

    assert (count(ledger, "notification"), count(ledger, "notification_run")) == (0, 0)
    with ledger.read() as session:
        books = reconcile(session, 0)
    assert (books.problems, books.emails, books.removed["email"]) == ((), {"sent": 5}, 5)


def test_runs_and_then_their_events_go_and_the_books_count_them_still(
    ledger: Ledger, told: Callable[[int], list[str]]
) -> None:
    told(5)
    with ledger.read() as session:
        before = reconcile(session, 0)
    older(ledger, 21)

    assert retained(ledger, limit=2) == {"texts": 5, "emails": 5, "runs": 5}
    with ledger.read() as session:
        between = reconcile(session, 0)
    older(ledger, 10)
    assert retained(ledger, limit=2) == {"events": 5}

    with ledger.read() as session:
        after = reconcile(session, 0)
    for books in (between, after):
        assert (books.events, books.expected, books.runs, books.emails) == (
            before.events, before.expected, before.runs, before.emails
        )  # fmt: skip
        assert books.problems == ()
    assert {count(ledger, table) for table in ("run", "attempt", "event", "notification", "notification_run")} == {0}


def test_a_run_that_is_missing_otherwise_is_still_named(
    ledger: Ledger, handler: Handler, told: Callable[[int], list[str]]
) -> None:
    told(1)
    older(ledger, 21)
    retained(ledger)
    event = an_event()
    with ledger.write() as session:
        record_events(session, [(event, [match_of(handler("one")), match_of(handler("two"))])])
        session.execute(text("DELETE FROM run WHERE handler_version = 0 AND owner = 'alice' AND state = 'queued'"))

    with ledger.read() as session:
        assert {problem.kind: problem.count for problem in reconcile(session, 0).problems} == {"event_without_run": 2}


def test_counts_of_what_was_removed_begin_with_the_first_whole_day(
    ledger: Ledger, told: Callable[[int], list[str]]
) -> None:
    told(2)
    older(ledger, 35)
    retained(ledger)

    with ledger.read() as session:
        (day,) = session.execute(text("SELECT DISTINCT day_ms FROM tally WHERE kind = 'event'")).scalars()
        assert removed(session, day)[("event", "")] == 2
        assert ("event", "") not in removed(session, day + 1)


def test_a_run_stays_while_its_email_waits_or_a_file_of_it_is_kept(ledger: Ledger, queued: Queued) -> None:
    first, second = queued(2)
    ended(ledger, leased(ledger, first.run_id), Outcome.FAILED)
    code = "c" * 32
    ended(ledger, leased(ledger, second.run_id, nonce="b"), Outcome.FAILED, uploads=(Upload(code, "a.csv", 3),))
    with ledger.write() as session:
        session.execute(text("DELETE FROM notification_run WHERE run_id = :id"), {"id": second.run_id})
    older(ledger, 100)

    assert retained(ledger) == {"texts": 2}
    assert count(ledger, "run") == 2

    with ledger.write() as session:
        note_removed(session, [code])
        session.execute(text("UPDATE notification SET state = 'given_up', ended_at_ms = created_at_ms"))
    retained(ledger)
    assert count(ledger, "run") == 0
    with ledger.read() as session:
        assert file_of(session, code) is None


def test_a_run_that_has_not_ended_stays_however_old_it_is(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued(1)
    older(ledger, 1000)

    assert retained(ledger) == {}
    with ledger.read() as session:
        assert views(session, [run.run_id])[0].state == "queued"


def test_an_event_that_is_replayed_again_stays(ledger: Ledger, told: Callable[[int], list[str]]) -> None:
    told(1)
    older(ledger, 25)
    retained(ledger)
    with ledger.read() as session:
        request_id = str(session.scalar(text("SELECT request_id FROM event")))
    with ledger.write() as session:
        assert len(replay(session, Selection(HOOK, request_id), "again").planned) == 1
    older(ledger, 10)

    assert retained(ledger) == {}
    with ledger.read() as session:
        assert len(runs(session, request_id)) == 1
        assert reconcile(session, 0).problems == ()


def test_versions_that_were_superseded_and_that_no_run_refers_to_go_with_their_code(
    ledger: Ledger, handler: Callable[..., HandlerView], queued: Queued
) -> None:
    old = handler("h", blob=b"first")
    queued(1, old)
    handler("h", blob=b"second")
    handler("h", blob=b"third")
    shared = handler("other", blob=b"third")
    with ledger.write() as session:
        remove(session, shared.id, "alice", False)
    older(ledger, 41)

    assert retained(ledger) == {"handler_versions": 2}

    with ledger.read() as session:
        left = session.execute(text("SELECT handler_id, version FROM handler_version ORDER BY 1, 2")).all()
        blobs = set(session.scalars(text("SELECT body FROM blob")))
    assert [tuple(row) for row in left] == [(old.id, 0), (old.id, 2)]
    assert {bytes(body) for body in blobs} == {b"first", b"third"}


def test_too_old_tells_what_would_go(ledger: Ledger, told: Callable[[int], list[str]]) -> None:
    told(3)
    older(ledger, 16)

    with ledger.read() as session:
        assert too_old(session, ALL) == {**dict.fromkeys(KINDS, 0), "texts": 3, "emails": 3}
    assert count(ledger, "notification") == 3


def test_an_unknown_kind_is_refused(ledger: Ledger) -> None:
    with ledger.write() as session, pytest.raises(ValueError, match="'logs' is none of texts"):
        remove_some(session, "logs", ALL, 10)


def test_texts_go_before_their_run_even_when_they_should_be_kept_longer(
    ledger: Ledger, told: Callable[[int], list[str]]
) -> None:
    told(1)
    older(ledger, 21)

    assert retained(ledger, replace(ALL, texts_ms=None)) == {"texts": 1, "emails": 1, "runs": 1}


def test_the_sizes_are_told_by_kind(ledger: Ledger, told: Callable[[int], list[str]]) -> None:
    with ledger.read() as session:
        before = sizes(session)
    told(200)
    with ledger.read() as session:
        after = sizes(session)

    assert after["runs"] > before["runs"] > 0
    assert after["events"] > before["events"] and after["emails"] > before["emails"] and after["handlers"] > 0


def test_events_may_not_go_before_their_topic_forgets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTPROC_KEEP_EVENTS_DAYS", "7")

    with pytest.raises(ValidationError, match="EVENTPROC_KEEP_EVENTS_DAYS: should be at least 30"):
        KeepSettings()
