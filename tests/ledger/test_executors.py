"""Slots are shared: a flood leaves some on every executor, on both databases."""

from __future__ import annotations

from sqlalchemy import text

from ledger import Ledger
from ledger.claims import ClaimedRun, Later, present
from ledger.executors import Executor
from ledger.rules import Rules
from tests.invited import due
from tests.ledger.conftest import Handler, Queued, claimed

RULES = Rules(lease_s=60.0, invited_per_owner=100, reinvite_after_s=60.0)


def there(ledger: Ledger, boot: str, slots: int, *runtimes: str) -> None:
    with ledger.write() as session:
        present(session, boot, Executor(boot, slots, runtimes or ("py3.11",)))


def claim_all(ledger: Ledger, boot: str, run_ids: list[str], rules: Rules = RULES) -> int:
    """How many of them the executor gets."""
    answers = [claimed(ledger, run_id, boot, f"{boot} {run_id}", rules) for run_id in run_ids]
    assert all(isinstance(answer, (ClaimedRun, Later)) for answer in answers)
    return sum(isinstance(answer, ClaimedRun) for answer in answers)


def test_one_owner_gets_three_quarters_of_an_executor_and_another_the_rest(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    flood = [run.run_id for run in queued(8, handler("flood"))]
    calm = [run.run_id for run in queued(2, handler("calm", owner="bob"))]
    there(ledger, "one", 8)

    assert claim_all(ledger, "one", flood) == 6
    assert claim_all(ledger, "one", calm) == 2


def test_a_flood_fills_no_executor_while_another_is_idle(ledger: Ledger, queued: Queued) -> None:
    flood = [run.run_id for run in queued(8)]
    there(ledger, "one", 4)
    there(ledger, "two", 4)

    assert claim_all(ledger, "one", flood[:4]) == 3
    assert claim_all(ledger, "two", flood[4:]) == 3


def test_two_floods_leave_a_slot_for_a_third(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    first = [run.run_id for run in queued(8, handler("a", owner="alice"))]
    second = [run.run_id for run in queued(8, handler("b", owner="bob"))]
    there(ledger, "one", 8)
    got = [0, 0]
    for one, other in zip(first, second, strict=True):
        got[0] += claim_all(ledger, "one", [one])
        got[1] += claim_all(ledger, "one", [other])

    assert sum(got) == 7 and min(got) >= 3
    (third,) = queued(1, handler("c", owner="carol"))
    assert claim_all(ledger, "one", [third.run_id]) == 1


def test_a_few_slots_are_all_there_for_one_owner_and_a_share_of_one_keeps_nothing(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    there(ledger, "small", 3, "py3.9")
    assert claim_all(ledger, "small", [run.run_id for run in queued(3, handler("s", runtime="py3.9"))]) == 3
    four = [run.run_id for run in queued(4, handler("l"))]
    there(ledger, "large", 4)
    assert claim_all(ledger, "large", four, Rules(lease_s=60.0, owner_share=1.0)) == 4


def test_only_as_many_are_invited_as_the_share_leaves_slots_for(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    there(ledger, "one", 8)
    queued(20, handler("flood"))
    queued(1, handler("calm", owner="bob"))
    with ledger.write() as session:
        session.execute(text("UPDATE run SET invited_at_ms = NULL"))
        found = due(session, RULES, 100)

    assert [invitation.owner for invitation in found.invitations].count("alice") == 6
    assert len(found.invitations) == 7 and found.waiting


def test_an_executor_that_is_not_heard_of_has_no_slots(ledger: Ledger, queued: Queued) -> None:
    runs = [run.run_id for run in queued(4)]
    there(ledger, "gone", 100)
    there(ledger, "here", 4)
    with ledger.write() as session:
        session.execute(text("UPDATE executor SET seen_at_ms = seen_at_ms - 31000 WHERE name = 'gone'"))

    assert claim_all(ledger, "here", runs) == 3
