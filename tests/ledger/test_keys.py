"""A key that BTrDB refuses, on both databases: its owner's handlers pause, their runs wait, one email says so; a new key ends it."""

from __future__ import annotations

import threading

from sqlalchemy import text

from ledger import Ledger
from ledger.claims import ClaimedRun, Later
from ledger.credentials import seal, unseal
from ledger.engine import now_ms
from ledger.handlers import Options, list_handlers, matchable
from ledger.keys import Rekeyed, rekey
from ledger.notify import KEY, KEY_MAIL_WAIT_MS
from ledger.outbox import Wanted, recent, sent
from ledger.reconcile import reconcile
from ledger.versions import set_paused
from schemas.errors import TryLater
from schemas.records import KEY_REFUSED, Outcome, RunError
from tests.invited import due
from tests.ledger.conftest import RULES, Handler, Queued, claimed, ended, leased, mails

REFUSAL = RunError(KEY_REFUSED, "BTrDB refuses the API key: expired")


def sealed(ledger: Ledger, owner: str, key: str = "old") -> None:
    with ledger.write() as session:
        seal(session, ledger, owner, key)


def rekeyed(ledger: Ledger, owner: str, key: str = "new") -> Rekeyed:
    with ledger.write() as session:
        return rekey(session, ledger, owner, key)


def refuse(ledger: Ledger, run_id: str, boot: str = "boot") -> None:
    ended(ledger, leased(ledger, run_id, boot), Outcome.REFUSED, error=REFUSAL)


def paused(ledger: Ledger) -> dict[str, bool]:
    with ledger.read() as session:
        return {view.name: view.paused for view in list_handlers(session)}


def in_time(ledger: Ledger) -> None:
    """Lets the emails' time come."""
    with ledger.write() as session:
        session.execute(text(f"UPDATE notification SET not_before_ms = not_before_ms - {KEY_MAIL_WAIT_MS}"))


def test_a_refused_key_pauses_all_handlers_of_its_owner_alone(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    sealed(ledger, "alice")
    first, other, bobs = handler("first"), handler("other"), handler("bobs", owner="bob")
    (run,) = queued(1, first)

    refuse(ledger, run.run_id)

    assert paused(ledger) == {"first": True, "other": True, "bobs": False}
    with ledger.read() as session:
        assert [one.handler_id for one in matchable(session)] == [bobs.id]
        assert {view.pause_reason for view in list_handlers(session)} == {"BTrDB refuses the API key", ""}
    assert other.id != first.id


def test_runs_that_are_refused_together_are_in_one_email_whatever_their_handlers_say(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    sealed(ledger, "alice")
    quiet = handler("quiet", options=Options(notify="none"))
    loud = handler("loud", notify_on_failure="elsewhere@example.com")
    runs = [*queued(2, quiet), *queued(1, loud)]
    leases = [leased(ledger, run.run_id, nonce=str(number)) for number, run in enumerate(runs)]

    for lease in leases:
        ended(ledger, lease, Outcome.REFUSED, error=REFUSAL)

    assert mails(ledger) == []  # it waits a moment for the others
    in_time(ledger)
    (mail,) = mails(ledger)
    assert (mail.kind, mail.recipient) == (KEY, "bad@example.com")
    assert {line.run_id for line in mail.lines} == {run.run_id for run in runs}
    with ledger.read() as session:
        assert [problem for problem in reconcile(session, 0).problems if problem.count] == []


def test_a_run_that_meets_the_key_after_its_email_was_sent_is_accounted_for_by_it_and_sends_no_other(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    sealed(ledger, "alice")
    first, second = queued(2, handler())
    leases = [leased(ledger, first.run_id, nonce="1"), leased(ledger, second.run_id, nonce="2")]
    ended(ledger, leases[0], Outcome.REFUSED, error=REFUSAL)
    in_time(ledger)
    (mail,) = mails(ledger)
    with ledger.write() as session:
        sent(session, mail)

    ended(ledger, leases[1], Outcome.REFUSED, error=REFUSAL)

    with ledger.read() as session:
        assert [(one.kind, one.runs) for one in recent(session, Wanted(), 10)] == [(KEY, 2)]
        assert [problem for problem in reconcile(session, 0).problems if problem.count] == []


def test_a_key_that_is_refused_again_after_a_new_one_is_told_of_again(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    sealed(ledger, "alice")
    first, second = queued(2, handler())
    refuse(ledger, first.run_id)
    rekeyed(ledger, "alice", "no better")
    in_time(ledger)

    refuse(ledger, second.run_id, boot="another")

    with ledger.read() as session:
        assert [(one.kind, one.runs) for one in recent(session, Wanted(), 10)] == [(KEY, 1), (KEY, 1)]


def test_an_owner_whose_refused_handler_tells_nobody_is_told_at_another_handlers_address(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    sealed(ledger, "alice")
    handler("bobs", owner="bob", notify_on_failure="bob@example.com")
    handler("told", notify_on_failure="alice@example.com")
    (run,) = queued(1, handler("silent", notify_on_failure="", notify_on_success=""))

    refuse(ledger, run.run_id)

    in_time(ledger)
    assert [mail.recipient for mail in mails(ledger)] == ["alice@example.com"]


def test_waiting_runs_are_not_invited_while_the_key_is_refused_and_go_on_under_a_new_one(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    sealed(ledger, "alice")
    view = handler()
    first, second, third = queued(3, view)
    refuse(ledger, first.run_id)

    later = claimed(ledger, second.run_id)
    with ledger.write() as session:
        assert due(session, RULES, 10).invitations == ()
    told = rekeyed(ledger, "alice")

    assert isinstance(later, Later) and "rekey" in later.reason
    assert told.handlers == 1 and [one.id for one in told.resumed] == [view.id]
    with ledger.write() as session:
        assert {one.run_id for one in due(session, RULES, 10).invitations} == {second.run_id, third.run_id}
        assert unseal(session, ledger, "alice") == "new"
    assert isinstance(claimed(ledger, second.run_id), ClaimedRun)
    assert paused(ledger) == {"h": False}


def test_a_new_key_leaves_paused_what_a_person_paused(ledger: Ledger, handler: Handler, queued: Queued) -> None:
    sealed(ledger, "alice")
    by_hand, after = handler("by hand"), handler("after")
    with ledger.write() as session:
        set_paused(session, by_hand.id, True, "alice", False)
    (run,) = queued(1, after)
    refuse(ledger, run.run_id)
    with ledger.write() as session:
        set_paused(session, after.id, True, "alice", False)  # also by hand now

    told = rekeyed(ledger, "alice")

    assert told.resumed == () and paused(ledger) == {"by hand": True, "after": True}


def test_a_refusal_of_the_key_before_the_present_one_pauses_nothing(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    sealed(ledger, "alice")
    (run,) = queued(1, handler())
    lease = leased(ledger, run.run_id)
    with ledger.read() as session:
        began = now_ms(session)
    rekeyed(ledger, "alice")
    with ledger.write() as session:  # the clock may not have moved since
        session.execute(text(f"UPDATE credential SET updated_at_ms = {began + 1}"))

    ended(ledger, lease, Outcome.REFUSED, error=REFUSAL)

    assert paused(ledger) == {"h": False}
    assert isinstance(claimed(ledger, queued(1)[0].run_id), ClaimedRun)


def test_refusals_and_new_keys_at_the_same_time_come_one_after_the_other(
    ledger: Ledger, handler: Handler, queued: Queued
) -> None:
    sealed(ledger, "alice")
    view = handler()
    runs = queued(20, view)
    leases = [leased(ledger, run.run_id, nonce=str(number)) for number, run in enumerate(runs[:10])]
    errors: list[BaseException] = []

    def patiently(what: object, *given: object, **more: object) -> None:
        try:
            while True:
                try:
                    what(*given, **more)  # type: ignore[operator]
                    return
                except TryLater as error:
                    assert "deadlock" not in error.reason
        except BaseException as error:  # noqa: BLE001 - told in the test's own thread
            errors.append(error)

    threads = [
        threading.Thread(target=patiently, args=(ended, ledger, lease, Outcome.REFUSED), kwargs={"error": REFUSAL})
        for lease in leases
    ] + [threading.Thread(target=patiently, args=(rekeyed, ledger, "alice", f"key {n}")) for n in range(5)]
    threads += [threading.Thread(target=patiently, args=(handler, f"new {n}")) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    rekeyed(ledger, "alice")
    assert not any(paused(ledger).values())
