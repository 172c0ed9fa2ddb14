"""Runs as lists, on both databases: the newest first, by what is wanted, a page at a time, without a walk through all."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, select, text

from ledger import Ledger
from ledger.claims import report
from ledger.handlers import remove
from ledger.listing import Wanted, listed, newest
from ledger.tables import RunRow
from schemas.records import Outcome, RunError
from tests.ledger.conftest import HOOK, Handler, Queued, ended, leased


def ids(ledger: Ledger, wanted: Wanted, limit: int = 100) -> list[str]:
    with ledger.read() as session:
        return [run.run_id for run in newest(session, wanted, limit).runs]


def spread(ledger: Ledger) -> None:
    """Puts the runs' times a second apart, in the order in which they were made."""
    with ledger.write() as session:
        made = session.scalars(select(RunRow.id).order_by(RunRow.queued_at_ms, RunRow.id)).all()
        for number, run_id in enumerate(made):
            session.execute(text("UPDATE run SET queued_at_ms = :at WHERE id = :id"), {"at": number, "id": run_id})


def test_runs_are_listed_by_what_is_wanted(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    one, two, bobs = handler("one"), handler("two"), handler("bobs", owner="bob")
    first, second = queued(2, one)
    (third,) = queued(1, two)
    (fourth,) = queued(1, bobs)
    lease = leased(ledger, first.run_id, nonce="1")
    ended(
        ledger,
        lease,
        Outcome.FAILED,
        error=RunError("ValueError", "first line\nsecond"),
        started_at_ns=5,
        ended_at_ns=9,
    )
    lease = leased(ledger, third.run_id, nonce="2")
    with ledger.write() as session:
        assert report(session, lease)

    assert set(ids(ledger, Wanted())) == {first.run_id, second.run_id, third.run_id, fourth.run_id}
    assert set(ids(ledger, Wanted(owner="alice"))) == {first.run_id, second.run_id, third.run_id}
    assert ids(ledger, Wanted(handler_id=two.id)) == [third.run_id]
    assert ids(ledger, Wanted(handler_id=two.id, owner="bob")) == []
    assert ids(ledger, Wanted(state="failed")) == [first.run_id]
    assert ids(ledger, Wanted(state="running", owner="alice")) == [third.run_id]  # reported, to users, is running
    assert ids(ledger, Wanted(hook="another.hook")) == [] and len(ids(ledger, Wanted(hook=HOOK))) == 4
    with ledger.read() as session:
        failed, reported = listed(session, first.run_id), listed(session, third.run_id)
    assert failed is not None and reported is not None
    assert (failed.error, failed.started_at_ns, failed.ended_at_ns) == ("ValueError: first line", 5, 9)
    assert (failed.handler_name, failed.subject, failed.attempts, failed.owner) == ("one", "a.zip", 1, "alice")
    assert (reported.state, reported.ended_at_ns) == ("running", 0) and reported.started_at_ns > 0


def test_pages_follow_each_other_without_gap_or_overlap_also_at_the_same_time(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    queued(25, handler())
    with ledger.write() as session:
        session.execute(text("UPDATE run SET queued_at_ms = 7"))

    found: list[str] = []
    after = None
    with ledger.read() as session:
        while True:
            page = newest(session, Wanted(owner="alice"), 10, after)
            found += [run.run_id for run in page.runs]
            after = page.after
            if after is None:
                break

    assert len(found) == len(set(found)) == 25 and found == sorted(found, reverse=True)


def test_since_takes_in_what_was_queued_at_that_very_moment(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    queued(5, handler())
    spread(ledger)

    assert len(ids(ledger, Wanted(since_ms=3))) == 2


def test_a_removed_handlers_runs_are_listed_still(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    view = handler()
    (run,) = queued(1, view)
    with ledger.write() as session:
        remove(session, view.id, "alice", False)

    with ledger.read() as session:
        (one,) = newest(session, Wanted(handler_id=view.id), 10).runs
    assert (one.run_id, one.state) == (run.run_id, "cancelled") and one.ended_at_ns > 0


def plans_of(ledger: Ledger, wanted: Wanted) -> list[str]:
    """How SQLite finds a page: the steps of its statements."""
    said: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        said.append((statement, parameters))

    with ledger.read() as session:
        event.listen(ledger.engine, "before_cursor_execute", note)
        newest(session, wanted, 10, (5, "x"))
        event.remove(ledger.engine, "before_cursor_execute", note)
        explained = (session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {s}", given) for s, given in said)
        return [row[3] for rows in explained for row in rows]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Wanted(), "run_newest"),
        (Wanted(owner="alice"), "run_of_owner"),
        (Wanted(state="failed"), "run_newest"),
        (Wanted(handler_id=1, owner="alice", hook="h"), "run_of_handler"),
    ],
)
def test_a_page_is_read_in_the_order_of_an_index(ledger: Ledger, wanted: Wanted, index: str) -> None:
    plan = plans_of(ledger, wanted)

    assert any(f"run USING INDEX {index}" in step for step in plan), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Wanted(owner="alice", state="crashed"), "run_owner_state"),
        (Wanted(handler_id=1, owner="alice", state="failed"), "run_handler_state"),
        (Wanted(state="queued"), "run_due"),
        (Wanted(state="running"), "run_held"),
    ],
)
def test_runs_in_a_state_that_is_rare_are_found_without_a_walk_through_all(
    ledger: Ledger, handler: Handler, queued: Queued, wanted: Wanted, index: str
) -> None:
    view = handler()
    queued(1, view)
    crashed, failed, running = (run.run_id for run in queued(3, view))
    with ledger.write() as session:
        session.execute(text(f"UPDATE run SET state = 'crashed' WHERE id = '{crashed}'"))
        session.execute(text(f"UPDATE run SET state = 'failed' WHERE id = '{failed}'"))
    leased(ledger, running)

    plan = plans_of(ledger, wanted)

    assert any("run USING INDEX sqlite_autoindex_run_1 (id=?)" in step for step in plan), plan
    assert any(index in step for step in plan), plan
    assert not any(walk in step for step in plan for walk in ("run_newest", "run_of_owner", "run_of_handler")), plan


def test_runs_in_a_state_are_the_same_however_many_they_are(
    ledger: Ledger, handler: Handler, queued: Queued, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = handler()
    runs = queued(4, view)
    spread(ledger)
    leased(ledger, runs[0].run_id)
    asked = [
        Wanted(state=state, **by)
        for state in ("queued", "running")
        for by in ({}, {"owner": "alice"}, {"handler_id": view.id})
    ]

    few = [ids(ledger, wanted, 2) for wanted in asked]
    monkeypatch.setattr("ledger.listing.FEW", 0)
    many = [ids(ledger, wanted, 2) for wanted in asked]

    assert few == many
    assert few[3:] == [[runs[0].run_id]] * 3 and len(few[0]) == 2
