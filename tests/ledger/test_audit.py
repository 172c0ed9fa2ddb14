"""Who did what to whose: written with the act or not at all, told in the log after it, found again, kept for its time."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from ledger import Ledger
from ledger.audit import ADMIN, HANDLER, OWNER, RUN, USER, Act, Actor, Entry, Wanted, entries, note, note_reading
from ledger.engine import now_ms
from ledger.retain import remove_some
from ledger.rules import KeepRules
from ledger.sizes import sizes
from schemas.topics import DAY_MS

ALICE, ROOT = Actor("alice", USER, "192.0.2.7"), Actor("root", ADMIN)


def acts(ledger: Ledger, limit: int = 100, **wanted: Any) -> list[Entry]:
    with ledger.read() as session:
        return entries(session, Wanted(**wanted), limit)


def audited(logs: list[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [line for line in logs if line["event"] == "audit"]


def test_an_act_is_noted_with_who_what_when_and_from_where(ledger: Ledger) -> None:
    with ledger.write() as session:
        before = now_ms(session)
        note(session, ALICE, Act.REGISTER, HANDLER, 7, name="Ü\0", version=2)

    (entry,) = acts(ledger)

    assert before <= entry.at_ms <= before + 60_000
    assert (entry.who, entry.role, entry.peer) == ("alice", "user", "192.0.2.7")
    assert (entry.act, entry.kind, entry.thing) == ("register", "handler", "7")
    assert entry.detail == {"name": "Ü\0", "version": 2}


def test_an_act_is_told_in_the_log_once_it_has_happened(ledger: Ledger) -> None:
    with capture_logs() as logs, ledger.write() as session:
        note(session, ALICE, Act.REGISTER, HANDLER, 7, version=2)
        note(session, ALICE, Act.REKEY, OWNER, "alice")
        assert not audited(logs)

    first, second = audited(logs)
    assert (first["who"], first["act"], first["thing"], first["detail"]) == ("alice", "register", "7", {"version": 2})
    assert (second["act"], second["peer"]) == ("rekey", "192.0.2.7")


def test_an_act_that_does_not_happen_is_neither_noted_nor_told(ledger: Ledger) -> None:
    with capture_logs() as logs, pytest.raises(ZeroDivisionError), ledger.write() as session:
        note(session, ALICE, Act.REMOVE, HANDLER, 7)
        raise ZeroDivisionError

    assert acts(ledger) == [] and not audited(logs)


def test_who_reads_the_same_again_is_noted_once_for_a_while(ledger: Ledger) -> None:
    def read(actor: Actor, act: Act, run_id: str) -> None:
        with ledger.write() as session:
            note_reading(session, actor, act, RUN, run_id)

    for actor, act, run_id in (
        (ROOT, Act.READ_LOG, "a"),
        (ROOT, Act.READ_RUN, "a"),
        (ROOT, Act.READ_LOG, "b"),
        (ALICE, Act.READ_LOG, "a"),
    ):
        read(actor, act, run_id)
        read(actor, act, run_id)
    assert len(acts(ledger)) == 4

    with ledger.write() as session:
        session.execute(text("UPDATE audit SET at_ms = at_ms - 700000"))
    read(ROOT, Act.READ_LOG, "a")

    assert len(acts(ledger)) == 5


def test_acts_are_found_by_who_what_on_which_and_when_the_newest_first(ledger: Ledger) -> None:
    with ledger.write() as session:
        note(session, ALICE, Act.REGISTER, HANDLER, 7)
        note(session, ALICE, Act.PAUSE, HANDLER, 7)
        note(session, ROOT, Act.PAUSE, HANDLER, 8)
        note(session, ROOT, Act.PURGE, OWNER, "7")
        session.execute(text("UPDATE audit SET at_ms = 1000 * id"))

    def found(limit: int = 100, **wanted: Any) -> list[tuple[str, str]]:
        return [(one.act, one.thing) for one in acts(ledger, limit, **wanted)]

    assert found() == [("purge", "7"), ("pause", "8"), ("pause", "7"), ("register", "7")]
    assert found(who="alice") == [("pause", "7"), ("register", "7")]
    assert found(act="pause") == [("pause", "8"), ("pause", "7")]
    assert found(kind="handler", thing="7") == [("pause", "7"), ("register", "7")]
    assert found(since_ms=2000, until_ms=4000) == [("pause", "8"), ("pause", "7")]
    assert found(limit=2) == [("purge", "7"), ("pause", "8")]
    assert found(before=acts(ledger)[1].id) == [("pause", "7"), ("register", "7")]


def test_acts_go_when_they_are_too_old_and_not_before(ledger: Ledger) -> None:
    with ledger.write() as session:
        for number in range(3):
            note(session, ALICE, Act.REGISTER, HANDLER, number)
        session.execute(text(f"UPDATE audit SET at_ms = at_ms - {5 * DAY_MS} WHERE thing <> '2'"))

    for rules, limit, gone in (
        (KeepRules(), 10, 0),
        (KeepRules(audit_ms=4 * DAY_MS), 1, 1),
        (KeepRules(audit_ms=4 * DAY_MS), 10, 1),
    ):
        with ledger.write() as session:
            assert remove_some(session, "audit", rules, limit) == gone

    assert [one.thing for one in acts(ledger)] == ["2"]
    with ledger.read() as session:
        assert sizes(session)["audit"] > 0
