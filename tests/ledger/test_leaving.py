"""What becomes of a user's handlers when the user leaves."""

import pytest

from ledger import Ledger
from ledger.credentials import seal, unseal
from ledger.handlers import list_handlers, revision
from ledger.leaving import NoKey, purge, transfer
from ledger.runs import views
from ledger.tables import QUEUED
from schemas.records import Outcome
from tests.ledger.conftest import Handler, Queued


def test_handlers_and_what_waits_go_to_another_under_whose_key_they_run(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    mine = handler("mine")
    handler("bobs", owner="bob")
    (waiting,) = queued(1, mine)
    with ledger.write() as session:
        seal(session, ledger, "bob", "B" * 40)
        before = revision(session)
        moved = transfer(session, "alice", "bob", "admin:root")

    with ledger.read() as session:
        assert [(view.id, view.owner, view.updated_by) for view in moved] == [(mine.id, "bob", "admin:root")]
        assert list_handlers(session, owner="alice") == [] and len(list_handlers(session, owner="bob")) == 2
        assert revision(session) > before
        (run,) = views(session, [waiting.run_id])
        assert (run.owner, run.state) == ("bob", QUEUED)


@pytest.mark.parametrize("key", ["none", "refused"])
def test_nothing_goes_to_somebody_without_a_good_key(key: str, ledger: Ledger, handler: Handler) -> None:
    handler("mine")
    with ledger.write() as session:
        if key == "refused":
            seal(session, ledger, "bob", "B" * 40)
            session.connection().exec_driver_sql("UPDATE credential SET refused_at_ms = 1")

    with pytest.raises(NoKey, match="bob"), ledger.write() as session:
        transfer(session, "alice", "bob", "admin:root")

    with ledger.read() as session:
        assert len(list_handlers(session, owner="alice")) == 1


def test_purging_removes_cancels_and_forgets_the_key_and_leaves_others_alone(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    mine, bobs = handler("mine"), handler("bobs", owner="bob")
    ids = [one.run_id for view in (mine, bobs) for one in queued(1, view)]
    with ledger.write() as session:
        seal(session, ledger, "alice", "A" * 40)
        seal(session, ledger, "bob", "B" * 40)
        gone = purge(session, "alice", "admin:root")

    with ledger.read() as session:
        assert [view.name for view in gone] == ["mine"]
        assert unseal(session, ledger, "alice") is None
        assert unseal(session, ledger, "bob") == "B" * 40
        states = {run.handler_name: run.state for run in views(session, ids)}
        assert states == {"mine": Outcome.CANCELLED, "bobs": QUEUED}


def test_the_handlers_of_nobody_are_none_and_not_all(ledger: Ledger, handler: Handler) -> None:
    handler("stays")

    with ledger.write() as session:
        assert purge(session, "", "admin") == []
        assert len(list_handlers(session)) == 1
