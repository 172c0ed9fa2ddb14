"""Uploaded archives in the book of record, on both databases."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from sqlalchemy import text

from ledger import Ledger, archives
from ledger.archives import FAILED, PUBLISHED, WAITING, WORKING, ArchiveView, NewArchive


def an_archive(**changed: Any) -> NewArchive:
    new = NewArchive(
        str(uuid.uuid4()), "alice", "ALICE'S KEY", "fault.zip", "stored.zip", 10, "ab" * 32, ("/a.cfg", "/b.cfg"),
        ("north",), "", None, "2026-01-01T00:00:00Z", None,
    )  # fmt: skip
    return dataclasses.replace(new, **changed)


def added(ledger: Ledger, **changed: Any) -> tuple[ArchiveView, bool]:
    with ledger.write() as session:
        return archives.add(session, ledger, an_archive(**changed))


def taken(ledger: Ledger, worker: str = "w1", lease_s: float = 60.0) -> tuple[ArchiveView, str | None] | None:
    with ledger.write() as session:
        return archives.take(session, ledger, worker, lease_s)


def lapse(ledger: Ledger) -> None:
    """Lets the leases end and the waits be over."""
    with ledger.write() as session:
        session.execute(text("UPDATE archive SET lease_until_ms = lease_until_ms - 1000000"))
        session.execute(text("UPDATE archive SET not_before_ms = not_before_ms - 1000000"))


def test_an_archive_is_taken_by_one_worker_with_its_uploaders_key(ledger: Ledger) -> None:
    view, new = added(ledger)
    assert (view.state, new) == (WAITING, True)
    first = taken(ledger)
    assert first is not None
    assert (first[0].request_id, first[0].state, first[1]) == (view.request_id, WORKING, "ALICE'S KEY")
    assert taken(ledger, "w2") is None


def test_the_oldest_comes_first(ledger: Ledger) -> None:
    ids = [added(ledger)[0].request_id for _ in range(2)]
    with ledger.write() as session:
        session.execute(text("UPDATE archive SET created_at_ms = 5 WHERE request_id = :id"), {"id": ids[1]})
    found = taken(ledger)
    assert found is not None
    assert found[0].request_id == ids[1]


def test_a_worker_that_died_loses_the_archive_to_the_next(ledger: Ledger) -> None:
    view, _ = added(ledger)
    taken(ledger, "w1")
    lapse(ledger)
    again = taken(ledger, "w2")
    assert again is not None and again[0].tries == 2
    with ledger.write() as session:
        assert not archives.progress(session, view.request_id, "w1", [], 60.0)
        assert not archives.end(session, view.request_id, "w1", "", [])
        assert not archives.put_off(session, view.request_id, "w1", "", 1.0)
        assert archives.end(session, view.request_id, "w2", "", [])


def test_an_archive_that_ended_is_not_taken_again_and_its_key_is_forgotten(ledger: Ledger) -> None:
    view, _ = added(ledger)
    other, _ = added(ledger)
    for error in ("", "broken"):
        found = taken(ledger)
        assert found is not None
        with ledger.write() as session:
            assert archives.end(
                session, found[0].request_id, "w1", error, [{"Name": "/a.cfg", "Success": True, "Error": ""}]
            )
    lapse(ledger)
    assert taken(ledger) is None
    with ledger.read() as session:
        assert archives.counts(session) == {PUBLISHED: 1, FAILED: 1}
        assert set(session.scalars(text("SELECT length(sealed) FROM archive"))) == {0}
        states = [archives.get(session, one.request_id) for one in (view, other)]
    assert {state.error for state in states if state} == {"", "broken"}


def test_what_is_put_off_waits_and_says_why(ledger: Ledger) -> None:
    view, _ = added(ledger)
    taken(ledger)
    with ledger.write() as session:
        assert archives.put_off(session, view.request_id, "w1", "BTrDB is away", 100.0)
    assert taken(ledger) is None
    with ledger.read() as session:
        seen = archives.get(session, view.request_id)
    assert seen is not None and (seen.state, seen.error) == (WAITING, "BTrDB is away")
    lapse(ledger)
    assert taken(ledger) is not None


def test_the_same_upload_again_is_the_first_one_for_its_owner_only(ledger: Ledger) -> None:
    first, _ = added(ledger, once="key 1")
    again, new = added(ledger, once="key 1")
    others, others_new = added(ledger, once="key 1", owner="bob")
    assert (again.request_id, new) == (first.request_id, False)
    assert others_new and others.request_id != first.request_id


def test_progress_is_seen_while_it_is_worked_on(ledger: Ledger) -> None:
    view, _ = added(ledger)
    assert [d["Success"] for d in view.data_sets] == [None, None]
    taken(ledger)
    done = [{"Name": "/a.cfg", "Success": True, "Error": ""}, archives.undone("/b.cfg")]
    with ledger.write() as session:
        assert archives.progress(session, view.request_id, "w1", done, 60.0)
    with ledger.read() as session:
        seen = archives.get(session, view.request_id)
    assert seen is not None and [d["Success"] for d in seen.data_sets] == [True, None]


def test_tries_that_end_without_a_word_are_counted_and_those_put_off_are_not(ledger: Ledger) -> None:
    added(ledger)
    seen = []
    for worker in ("w1", "w2", "w3"):
        found = taken(ledger, worker)
        assert found is not None
        seen.append(found[0].lost)
        if worker == "w1":
            with ledger.write() as session:
                assert archives.put_off(session, found[0].request_id, worker, "BTrDB is away", 1.0)
        lapse(ledger)
    assert seen == [0, 0, 1]


def test_an_archive_that_failed_may_be_uploaded_again_by_its_digest_and_not_by_its_key(ledger: Ledger) -> None:
    for once, new_again in ((archives.BY_DIGEST + "ab", True), ("key 1", False)):
        first, _ = added(ledger, once=once)
        assert taken(ledger) is not None
        with ledger.write() as session:
            assert archives.end(session, first.request_id, "w1", "BTrDB refuses the key", [])
        again, new = added(ledger, once=once)
        assert (again.request_id != first.request_id, new) == (new_again, new_again)
        if new:
            assert added(ledger, once=once)[0].request_id == again.request_id
            assert taken(ledger) is not None
