"""Rows are locked in one order by all who lock several, so that nobody ends in a deadlock (which costs a second and a retry)."""

from __future__ import annotations

import threading

import pytest

from ledger import Ledger
from ledger.claims import locked
from ledger.engine import is_postgresql, now_ms
from ledger.fair import note_invited
from tests.ledger.conftest import Queued


def test_noting_invitations_does_not_wait_for_a_claim_that_is_under_way(ledger: Ledger, queued: Queued) -> None:
    ids = sorted(invitation.run_id for invitation in queued(3))
    done = threading.Event()

    def note() -> None:
        with ledger.write() as session:
            note_invited(session, list(reversed(ids)), now_ms(session))
        done.set()

    with ledger.write() as session:
        if not is_postgresql(session):
            pytest.skip("in SQLite a writing transaction is alone")
        locked(session, ids[:1])
        thread = threading.Thread(target=note)
        thread.start()
        assert done.wait(30), "it waits for the row that the claim holds"
    thread.join()
