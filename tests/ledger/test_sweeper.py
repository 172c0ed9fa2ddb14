"""What one at a time looks after: leadership, the registry's heartbeat, runtimes nobody serves."""

from __future__ import annotations

from sqlalchemy import text

from ledger import Ledger, sweeper
from schemas.records import Outcome
from tests.ledger.conftest import (
    RULES,
    Handler,
    Queued,
    mails,
    set_back,
)


def test_one_leads_until_its_time_is_over(ledger: Ledger) -> None:
    def leads(name: str, for_s: float = 60.0) -> bool:
        with ledger.write() as session:
            return sweeper.lead(session, "sweeper", name, for_s)

    assert [leads("a"), leads("b"), leads("a", for_s=-1.0), leads("b"), leads("a")] == [True, False, True, True, False]


def test_a_lead_that_is_given_back_is_another_s_at_once_and_nobody_gives_back_another_s(ledger: Ledger) -> None:
    with ledger.write() as session:
        assert sweeper.lead(session, "sweeper", "a", 60.0)
        assert sweeper.lead(session, "reconcile", "a", 60.0)
        sweeper.give_back(session, "sweeper", "b")
        assert not sweeper.lead(session, "sweeper", "b", 60.0)
        sweeper.give_back(session, "sweeper", "a")
    with ledger.write() as session:
        assert sweeper.lead(session, "sweeper", "b", 60.0)
        assert not sweeper.lead(session, "reconcile", "b", 60.0)


def test_the_registry_counts_as_answering_since_its_last_gap(ledger: Ledger) -> None:
    with ledger.write() as session:
        assert sweeper.answering_since_ms(session, RULES) is None
        sweeper.heartbeat(session, RULES)
        since = sweeper.answering_since_ms(session, RULES)
        session.execute(text("UPDATE heartbeat SET since_ms = since_ms - 100000, last_ms = last_ms - 5000"))
        sweeper.heartbeat(session, RULES)
        assert since is not None and sweeper.answering_since_ms(session, RULES) == since - 100_000
        session.execute(text("UPDATE heartbeat SET last_ms = last_ms - 20000"))
        assert sweeper.answering_since_ms(session, RULES) is None
        sweeper.heartbeat(session, RULES)
        fresh = sweeper.answering_since_ms(session, RULES)
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
