"""What a registration asks for, on both databases: attempts after one that failed, caps, and which ends are emailed."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from sqlalchemy import text

from ledger import Ledger
from ledger.claims import Answer, ClaimedRun, Later
from ledger.engine import now_ms
from ledger.handlers import Options
from ledger.listing import Wanted, newest
from ledger.notify import FAILURE, SUCCESS
from ledger.reconcile import reconcile
from ledger.runs import run_view
from schemas.errors import TryLater
from schemas.records import Outcome, RunError, Upload
from tests.invited import due
from tests.ledger.conftest import RULES, Handler, Queued, claimed, ended, leased, mails

FAULT = RunError("ValueError", "no IA\nin that file", "Traceback ...")


def no_problems(ledger: Ledger) -> None:
    with ledger.read() as session:
        assert [problem for problem in reconcile(session, 0).problems if problem.count] == []


def test_a_run_that_failed_is_tried_again_and_ends_once(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    (run,) = queued(1, handler(options=Options(retries=2)))

    first = ended(ledger, leased(ledger, run.run_id, nonce="1"), Outcome.FAILED, error=FAULT, log="one\n")
    with ledger.read() as session:
        between = run_view(session, run.run_id)
    second = ended(ledger, leased(ledger, run.run_id, nonce="2"), Outcome.TIMED_OUT, error=FAULT)
    assert mails(ledger) == []
    last = ended(ledger, leased(ledger, run.run_id, nonce="3"), Outcome.SUCCEEDED, text="well")

    assert between is not None and (between.state, between.error, between.log) == ("queued", FAULT, "one\n")
    assert (first.counted, first.state, second.state, last.state) == (True, None, None, Outcome.SUCCEEDED)
    (mail,) = mails(ledger)
    assert (mail.kind, mail.recipient) == (SUCCESS, "ok@example.com")
    (view,) = mail.runs
    assert view.error is None and view.text == "well"
    assert [attempt.reason for attempt in view.attempts] == [
        "failed: ValueError: no IA",
        "timed_out: ValueError: no IA",
        "succeeded",
    ]
    no_problems(ledger)


def test_when_all_attempts_failed_one_email_tells_all(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    (run,) = queued(1, handler(options=Options(retries=1)))
    uploads = [(Upload("0" * 31 + str(n), f"{n}.csv", n),) for n in (1, 2)]

    ended(ledger, leased(ledger, run.run_id, nonce="1"), Outcome.CRASHED, error=FAULT, uploads=uploads[0])
    ended(ledger, leased(ledger, run.run_id, nonce="2"), Outcome.OUT_OF_MEMORY, error=FAULT, uploads=uploads[1])

    (mail,) = mails(ledger)
    assert mail.kind == FAILURE and len(mail.runs[0].attempts) == 2
    assert mail.runs[0].state == Outcome.OUT_OF_MEMORY
    assert [upload.name for upload in mail.runs[0].uploads] == ["1.csv", "2.csv"]
    no_problems(ledger)


def test_the_next_attempt_waits_for_its_time_by_the_ledgers_clock(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    (run,) = queued(1, handler(options=Options(retries=1, retry_delay_s=3600.0)))

    ended(ledger, leased(ledger, run.run_id, nonce="1"), Outcome.FAILED, error=FAULT)

    later = claimed(ledger, run.run_id, nonce="2")
    assert isinstance(later, Later) and 3500 < later.after_s <= 3600
    with ledger.write() as session:
        assert due(session, RULES, 10).invitations == ()
        session.execute(text(f"UPDATE run SET not_before_ms = {now_ms(session)}"))
        assert [one.run_id for one in due(session, RULES, 10).invitations] == [run.run_id]


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.SUCCEEDED])
def test_what_succeeded_or_could_not_be_loaded_is_not_tried_again(
    ledger: Ledger, handler: Handler, queued: Queued, outcome: Outcome
) -> None:
    (run,) = queued(1, handler(options=Options(retries=5)))

    assert ended(ledger, leased(ledger, run.run_id), outcome).state == outcome


def test_an_attempt_whose_result_comes_twice_is_retried_once(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    (run,) = queued(1, handler(options=Options(retries=1)))
    lease = leased(ledger, run.run_id)

    assert ended(ledger, lease, Outcome.FAILED, error=FAULT).counted
    assert not ended(ledger, lease, Outcome.FAILED, error=FAULT).counted

    leased(ledger, run.run_id, nonce="2")


def test_a_run_is_retried_as_its_own_version_asks(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    (run,) = queued(1, handler(options=Options(retries=1)))
    handler()  # registered anew, without retries

    assert ended(ledger, leased(ledger, run.run_id), Outcome.FAILED, error=FAULT).state is None


def test_a_handlers_own_cap_holds_over_all_executors(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    capped, free = handler("capped", options=Options(max_concurrency=2)), handler("free")
    queued(3, capped), queued(3, free)
    with ledger.read() as session:
        of_capped, of_free = (newest(session, Wanted(handler_id=view.id), 10).runs for view in (capped, free))

    answers = [claimed(ledger, run.run_id, run.run_id) for run in of_capped]

    assert [type(answer) for answer in answers] == [ClaimedRun, ClaimedRun, Later]
    assert isinstance(answers[2], Later) and "2 runs going, which is its own cap" in answers[2].reason
    assert all(isinstance(claimed(ledger, run.run_id, run.run_id), ClaimedRun) for run in of_free)


def test_a_handlers_own_cap_holds_when_many_claim_at_once(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    view = handler(options=Options(max_concurrency=2))
    queued(8, view)
    with ledger.read() as session:
        runs = newest(session, Wanted(handler_id=view.id), 10).runs
    answers: list[Answer] = []

    def ask(run_id: str) -> None:
        while True:
            try:
                answers.append(claimed(ledger, run_id, run_id))
                return
            except TryLater:
                continue

    threads = [threading.Thread(target=ask, args=(run.run_id,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Counter(type(answer) for answer in answers) == {ClaimedRun: 2, Later: 6}


def test_no_more_runs_of_a_capped_handler_are_invited_than_may_run(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    capped = handler(options=Options(max_concurrency=2))
    queued(5, capped)
    with ledger.write() as session:
        session.execute(text("UPDATE run SET invited_at_ms = NULL"))

    with ledger.write() as session:
        assert len(due(session, RULES, 10).invitations) == 2


def test_a_claim_carries_what_the_version_asks_of_the_sandbox(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    (run,) = queued(1, handler(options=Options(timeout_s=2.5, memory_bytes=300_000_000)))

    answer = claimed(ledger, run.run_id)

    assert isinstance(answer, ClaimedRun) and (answer.wall_s, answer.memory_bytes) == (2.5, 300_000_000)


@pytest.mark.parametrize(
    ("notify", "told"),
    [("each", {SUCCESS, FAILURE}), ("digest", {SUCCESS, FAILURE}), ("failures", {FAILURE}), ("none", set())],
)
def test_notify_says_which_ends_are_emailed(
    ledger: Ledger, handler: Handler, queued: Queued, notify: str, told: set[str]
) -> None:
    view = handler(options=Options(notify=notify))
    runs = queued(4, view)
    for number, run in enumerate(runs):
        outcome = Outcome.SUCCEEDED if number % 2 else Outcome.FAILED
        ended(ledger, leased(ledger, run.run_id, nonce=str(number)), outcome, error=None if number % 2 else FAULT)

    at_once = mails(ledger)
    with ledger.write() as session:
        session.execute(text("UPDATE notification SET not_before_ms = 0 WHERE state = 'pending'"))
    later = mails(ledger)

    assert {mail.kind for mail in [*at_once, *later]} == told
    assert len(at_once) == 2 * len(told) * (notify != "digest")
    assert [len(mail.lines) for mail in later] == [2, 2] * (notify == "digest")
    no_problems(ledger)
