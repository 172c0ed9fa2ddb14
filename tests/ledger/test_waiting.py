"""How long what is due has been waiting, by indexes alone."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import event, text

from ledger import Ledger, outbox
from ledger.waiting import OTHER, oldest_email_s, oldest_queued_s
from tests.ledger.conftest import Handler, Queued, ended, leased, set_back

SERVED = ("py3.11", "py3.7")


def test_it_tells_for_each_runtime_and_for_all_that_nobody_serves(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    ages = {"py3.11": 7_000, "py2.7": 50_000, "py3.12": 30_000, "py3.8": 90_000}
    with ledger.read() as session:
        assert oldest_queued_s(session, SERVED) == {"py3.11": 0.0, "py3.7": 0.0, OTHER: 0.0}
    for runtime, age_ms in ages.items():
        (one, _) = queued(2, handler(runtime, runtime=runtime))
        with ledger.write() as session:
            set_back(session, "not_before_ms", one.run_id, age_ms)
    (later,) = queued(1, handler("later", runtime="py3.7"))
    with ledger.write() as session:
        set_back(session, "not_before_ms", later.run_id, -60_000)

    with ledger.read() as session:
        found = oldest_queued_s(session, SERVED)
        alone = oldest_queued_s(session, ())

    assert 7 <= found["py3.11"] < 30, "the run of that runtime, not one of another"
    assert found["py3.7"] == 0, "not due yet"
    assert 90 <= found[OTHER] < 120
    assert alone.keys() == {OTHER} and 90 <= alone[OTHER] < 120


def test_an_email_that_waits_to_be_tried_again_is_not_due(ledger: Ledger, queued: Queued) -> None:
    with ledger.read() as session:
        assert oldest_email_s(session) == 0
    (run,) = queued()
    ended(ledger, leased(ledger, run.run_id))
    with ledger.write() as session:
        session.execute(text("UPDATE notification SET not_before_ms = not_before_ms - 1000000"))
    with ledger.write() as session:
        assert 1000 <= oldest_email_s(session) < 1030
        (mail,) = outbox.take(session, "sender", 10, 60.0)
        assert oldest_email_s(session) == 0, "somebody has it"
        outbox.postpone(session, mail, "452 mailbox full", 1800.0)
        assert oldest_email_s(session) == 0


def test_no_step_of_it_walks_through_what_waits(ledger: Ledger) -> None:
    if ledger.engine.dialect.name != "sqlite":
        return  # PostgreSQL plans by how many rows there are
    said: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if "FROM run" in statement or "FROM notification" in statement:
            said.append((statement, parameters))

    event.listen(ledger.engine, "before_cursor_execute", note)
    with ledger.read() as session:
        oldest_queued_s(session, SERVED)
        oldest_email_s(session)
    event.remove(ledger.engine, "before_cursor_execute", note)

    with ledger.read() as session:
        for statement, parameters in said:
            steps = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            for step in steps:
                assert step[3].startswith("SEARCH") and re.search("run_due|notification_due", step[3]), step[3]
    assert len(said) == len(SERVED) + len(SERVED) + 1 + 2
