"""A run's way costs the same however many runs there ever were: no statement on it walks through all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from ledger import Ledger, sweeper
from ledger.claims import Claimant, ClaimedRun, Lease, claim, present, renew, report
from ledger.engine import now_ms
from ledger.executors import Executor
from ledger.fair import plan
from ledger.outbox import sent, take
from ledger.rules import MailRules, Rules
from tests.invited import due
from tests.ledger.conftest import Handler, Queued, ended, leased, lose

CAPPED = Rules(lease_s=60.0, per_owner=3, per_handler=2)
FEW = ("run_waiting", "run_due", "run_invited", "run_held")  # partial: they hold what has not ended


@pytest.fixture
def url(tmp_path: Path) -> str:
    """SQLite alone: without statistics its plans depend on the statements only. PostgreSQL plans by how many rows there are."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def plans(ledger: Ledger) -> Callable[[], dict[str, str]]:
    """What was said to the ledger since, with the steps of its plan that walk through a table."""
    said: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")) and "sqlite_master" not in statement:
            said.setdefault(statement, parameters[0] if many else parameters)

    event.listen(ledger.engine, "before_cursor_execute", note)

    def look() -> dict[str, str]:
        event.remove(ledger.engine, "before_cursor_execute", note)
        found = {}
        with ledger.read() as session:
            for statement, parameters in said.items():
                steps = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                found[statement] = "\n".join(step[3] for step in steps)
        return found

    return look


def test_no_step_of_a_run_walks_through_all_runs_or_attempts(
    ledger: Ledger, handler: Handler, queued: Queued, plans: Callable[[], dict[str, str]]
) -> None:
    one, two, three = queued(3, handler())
    with ledger.write() as session:
        present(session, "boot", Executor("executor", 4, ("py3.11",)))
        due(session, CAPPED, 10)
        assert not plan(session, CAPPED, 10, now_ms(session)).invitations
        ((_, answer),) = claim(session, Claimant("boot", "first", "executor"), [one.run_id], CAPPED)
        assert isinstance(answer, ClaimedRun)
        lease = Lease(one.run_id, answer.lease_id)
        assert renew(session, [lease], CAPPED) == []
        assert report(session, lease)
    ended(ledger, lease)
    leased(ledger, two.run_id), leased(ledger, three.run_id, nonce="other")
    assert lose(ledger, two.run_id, three.run_id) == 2
    with ledger.write() as session:
        sweeper.unserved(session, set(), 0.0, MailRules())
        for mail in take(session, "sender", 10, 60.0):
            sent(session, mail)

    said = plans()

    assert len(said) > 20
    for statement, steps in said.items():
        for step in steps.splitlines():
            walks = step.startswith(("SCAN run", "SCAN attempt", "SCAN notification", "SCAN event"))
            assert not walks or step.endswith(FEW), f"{step}\n{statement}"
