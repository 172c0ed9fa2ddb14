"""What a run that is going on has printed, on both databases: told piece by piece under its lease, read from any place on."""

from __future__ import annotations

from ledger import Ledger
from ledger.claims import Lease, hand_back
from ledger.handlers import Options
from ledger.logs import LEFT_OUT, LOST, MOST, NOTE, Piece, append, read
from ledger.tables import RunLogRow, RunRow
from schemas.records import Outcome, RunError
from tests.ledger.conftest import RULES, Handler, Queued, ended, leased, lose


def told(ledger: Ledger, lease: Lease, at: int, text: str) -> int:
    with ledger.write() as session:
        return append(session, lease, at, text)


def piece(ledger: Ledger, run_id: str, attempt: int = 0, at: int = 0) -> Piece:
    with ledger.read() as session:
        return read(session, session.get_one(RunRow, run_id), attempt, at)


def test_a_log_is_followed_from_where_one_has_read_to_until_the_run_ends(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    assert piece(ledger, run.run_id) == Piece("", 0, 0, "queued", False)
    lease = leased(ledger, run.run_id)

    assert told(ledger, lease, 0, "één\n") == 4
    first = piece(ledger, run.run_id)
    assert told(ledger, lease, 4, "two\nthree\n") == 14
    second = piece(ledger, run.run_id, first.attempt, first.at)
    middle = piece(ledger, run.run_id, 1, 8)
    ended(ledger, lease, log="één\ntwo\nthree\nfour\n")
    last = piece(ledger, run.run_id, second.attempt, second.at)

    assert first == Piece("één\n", 1, 4, "running", False)
    assert second == Piece("two\nthree\n", 1, 14, "running", False)
    assert middle.text == "three\n"
    assert last == Piece("four\n", 1, 19, "succeeded", True)
    assert piece(ledger, run.run_id).text == "één\ntwo\nthree\nfour\n"
    assert piece(ledger, run.run_id, 1, 10_000) == Piece("", 1, 10_000, "succeeded", True)


def test_a_piece_that_is_told_twice_or_out_of_turn_changes_nothing(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    lease = leased(ledger, run.run_id)

    assert told(ledger, lease, 0, "one\n") == 4
    assert told(ledger, lease, 0, "one\n") == 4
    assert told(ledger, lease, 9, "three\n") == 4
    assert told(ledger, lease, 4, "two\0\n") == 9

    assert piece(ledger, run.run_id).text == "one\ntwo\N{REPLACEMENT CHARACTER}\n"


def test_no_more_is_kept_of_a_run_that_is_going_on_than_there_is_room_for(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    lease = leased(ledger, run.run_id)

    most = MOST + NOTE
    assert told(ledger, lease, 0, "x" * (most - 1)) == most - 1
    assert told(ledger, lease, most - 1, "yy") == most - 1
    assert piece(ledger, run.run_id, 1, most - 3).text == "xx"


def test_of_a_long_log_that_is_kept_whole_the_reader_gets_what_the_note_stood_for(
    ledger: Ledger, queued: Queued
) -> None:
    (run,) = queued()
    lease = leased(ledger, run.run_id)
    at = told(ledger, lease, 0, "x" * MOST + "... no more is told ...\n")

    ended(ledger, lease, log="x" * MOST + "the rest\n")

    assert piece(ledger, run.run_id, 1, at).text == "the rest\n"


def test_nothing_is_added_under_a_lease_that_is_not_the_present_one(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    old = leased(ledger, run.run_id, nonce="1")
    told(ledger, old, 0, "before\n")
    lose(ledger, run.run_id)
    with ledger.read() as session:
        assert session.query(RunLogRow).count() == 0

    assert told(ledger, old, 7, "late\n") == LOST
    assert told(ledger, Lease("no such run", "0" * 32), 0, "x\n") == LOST
    new = leased(ledger, run.run_id, nonce="2")
    assert told(ledger, old, 0, "late\n") == LOST
    assert told(ledger, new, 0, "after\n") == 6

    assert piece(ledger, run.run_id, 1, 7) == Piece("after\n", 2, 6, "running", False)  # another attempt: anew


def test_no_piece_is_kept_when_the_attempt_is_over(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    retried, handed = queued(1, handler("r", options=Options(retries=1))) + queued(1, handler("b"))
    lease, other = leased(ledger, retried.run_id, nonce="1"), leased(ledger, handed.run_id, nonce="2")
    told(ledger, lease, 0, "one\n"), told(ledger, other, 0, "one\n")

    ended(ledger, lease, Outcome.FAILED, error=RunError("ValueError", "no"), log="one\ntwo\n")
    with ledger.write() as session:
        assert hand_back(session, other, "SHUTTING_DOWN", "", True, RULES)

    assert piece(ledger, retried.run_id, 1, 4) == Piece("two\n", 1, 8, "queued", False)
    with ledger.read() as session:
        assert session.query(RunLogRow).count() == 0


def test_the_end_of_an_attempts_log_is_read_though_the_next_has_begun(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    (run,) = queued(1, handler("r", options=Options(retries=2)))
    first = leased(ledger, run.run_id, nonce="1")
    told(ledger, first, 0, "one\n")
    ended(ledger, first, Outcome.FAILED, error=RunError("ValueError", "no"), log="one\nthe last line\n")
    second = leased(ledger, run.run_id, nonce="2")
    told(ledger, second, 0, "again\n")

    rest = piece(ledger, run.run_id, 1, 4)
    then = piece(ledger, run.run_id, rest.attempt, rest.at)

    assert rest == Piece("the last line\n", 1, 18, "running", False)
    assert then == Piece("again\n", 2, 6, "running", False)
    lose(ledger, run.run_id)
    assert piece(ledger, run.run_id, 2, 6) == Piece("", 2, 6, "queued", False)  # not the first one's


def test_of_a_log_whose_middle_was_left_out_the_reader_gets_the_end(ledger: Ledger, queued: Queued) -> None:
    (run,) = queued()
    lease = leased(ledger, run.run_id)
    told(ledger, lease, 0, "head of it\n" + "x" * 500)

    ended(ledger, lease, log="head of it" + LEFT_OUT + "700 characters are left out ...\ntail\n", log_truncated=True)

    rest = piece(ledger, run.run_id, 1, 511)
    assert rest.text == LEFT_OUT + "700 characters are left out ...\ntail\n" and rest.ended
