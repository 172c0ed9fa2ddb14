"""Files of handlers in the book of record, on both databases."""

from __future__ import annotations

from sqlalchemy import text

from ledger import Ledger
from ledger.files import expired, file_of, note_removed
from ledger.runs import run_view
from schemas.records import Outcome, Upload

from .conftest import Queued, ended, leased

CODE = "0123456789abcdef" * 2
A = Upload(CODE, "plot.png", 100)


def test_a_runs_files_are_found_by_their_codes(ledger: Ledger, queued: Queued) -> None:
    (invited,) = queued(1)
    ended(ledger, leased(ledger, invited.run_id), uploads=(A,))
    with ledger.read() as session:
        file = file_of(session, CODE)
        assert file_of(session, "f" * 32) is None
    assert file is not None
    assert (file.run_id, file.owner, file.name, file.size, file.removed) == (
        invited.run_id, "alice", "plot.png", 100, False,
    )  # fmt: skip


def test_a_code_stays_with_the_run_that_took_it_first(ledger: Ledger, queued: Queued) -> None:
    first, second = queued(2)
    ended(ledger, leased(ledger, first.run_id, nonce="1"), uploads=(A,))
    ended(ledger, leased(ledger, second.run_id, nonce="2"), uploads=(A, Upload("b" * 32, "own.csv", 5)))
    with ledger.read() as session:
        file = file_of(session, CODE)
        views = [run_view(session, run.run_id) for run in (first, second)]
    assert file is not None and file.run_id == first.run_id
    assert [[u.name for u in view.uploads] for view in views if view] == [["plot.png"], ["own.csv"]]


def test_files_of_a_failed_run_count_too(ledger: Ledger, queued: Queued) -> None:
    (invited,) = queued(1)
    ended(ledger, leased(ledger, invited.run_id), Outcome.FAILED, uploads=(A,))
    with ledger.read() as session:
        assert file_of(session, CODE) is not None


def test_old_files_are_told_oldest_first_until_they_are_removed(ledger: Ledger, queued: Queued) -> None:
    runs = queued(3)
    for number, run in enumerate(runs):
        ended(ledger, leased(ledger, run.run_id, nonce=str(number)), uploads=(Upload(f"{number:032x}", "f", 1),))
    with ledger.write() as session:
        session.execute(text(f"UPDATE file SET created_at_ms = created_at_ms - 100000 WHERE code = '{1:032x}'"))
        session.execute(text(f"UPDATE file SET created_at_ms = created_at_ms - 200000 WHERE code = '{2:032x}'"))
    with ledger.write() as session:
        old = expired(session, 50.0, 10)
        assert [file.code for file in old] == [f"{2:032x}", f"{1:032x}"]
        assert [file.code for file in expired(session, 50.0, 1)] == [f"{2:032x}"]
        note_removed(session, [f"{2:032x}"])
    with ledger.read() as session:
        assert [file.code for file in expired(session, 50.0, 10)] == [f"{1:032x}"]
        gone = file_of(session, f"{2:032x}")
    assert gone is not None and gone.removed
