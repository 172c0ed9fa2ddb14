"""Results close runs, once, with their emails in the outbox; what cannot be read is a dead letter."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ledger import Ledger, now_ms, outbox
from ledger.handlers import Options
from ledger.outbox import Mail
from ledger.rules import MailRules
from ledger.runs import run_view
from notifier.close import Close
from notifier.render import render
from schemas.encoding import encode
from schemas.errors import TryLater
from schemas.records import KEY_REFUSED, Outcome, Result, RunError, to_plain
from schemas.topics import RESULTS
from stream.messages import Message
from telemetry import metrics

Book = Any  # the fixture's class is conftest's


def message(value: bytes | None, offset: int = 0) -> Message:
    return Message(RESULTS, 0, offset, b"key", value, (("content-type", b"application/avro"),), 0)


def told(result: Result) -> Message:
    return message(encode("result", to_plain(result)))


def pending(ledger: Ledger) -> list[Mail]:
    with ledger.write() as session:
        return outbox.take(session, "test", 100, 1000.0)


def state_of(ledger: Ledger, run_id: str) -> str:
    with ledger.read() as session:
        run = run_view(session, run_id)
    assert run is not None
    return str(run.state)


def count(outcome: str) -> float:
    return float(metrics.results_total.labels(outcome=outcome)._value.get())


def test_a_result_closes_its_run_and_leaves_the_email_to_send(book: Book) -> None:
    result = book.claimed()
    woken: list[bool] = []
    assert Close(book.ledger, MailRules(), lambda: woken.append(True)).handle([told(result)]) == []
    (mail,) = pending(book.ledger)
    assert (mail.recipient, mail.kind) == ("alice@example.com", "success")
    assert mail.runs[0].run_id == result.run_id
    assert mail.runs[0].text == "Fault current 4.21 kA"
    assert state_of(book.ledger, result.run_id) == "succeeded"
    assert woken == [True]


@pytest.mark.parametrize(
    "outcome", [Outcome.FAILED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY, Outcome.CRASHED, Outcome.REFUSED]
)
def test_a_failure_goes_to_the_failure_address(outcome: Outcome, book: Book) -> None:
    error = RunError("ValueError", "no streams", "Traceback ...")
    result = dataclasses.replace(book.claimed(), outcome=outcome, error=error)
    Close(book.ledger, MailRules(), lambda: None).handle([told(result)])
    (mail,) = pending(book.ledger)
    assert (mail.recipient, mail.kind) == ("bob@example.com", "failure")
    assert (mail.runs[0].state, mail.runs[0].error) == (outcome, error)


def test_nobody_is_written_to_where_no_address_was_given(book: Book) -> None:
    result = book.claimed(success="")
    Close(book.ledger, MailRules(), lambda: None).handle([told(result)])
    assert pending(book.ledger) == []
    assert state_of(book.ledger, result.run_id) == "succeeded"


def test_a_result_that_comes_twice_makes_one_email(book: Book) -> None:
    result = book.claimed()
    stale = count("stale")
    step = Close(book.ledger, MailRules(), lambda: None)
    step.handle([told(result), told(result)])
    step.handle([told(result)])
    assert len(pending(book.ledger)) == 1
    assert count("stale") == stale + 2


def test_a_result_of_another_lease_closes_nothing_and_wakes_nobody(book: Book) -> None:
    result = book.claimed()
    woken: list[bool] = []
    other = dataclasses.replace(result, lease_id="0" * 32, text="not mine")
    assert Close(book.ledger, MailRules(), lambda: woken.append(True)).handle([told(other)]) == []
    assert state_of(book.ledger, result.run_id) == "running"
    assert pending(book.ledger) == [] and woken == []


def test_a_result_of_an_unknown_run_closes_nothing(book: Book) -> None:
    result = dataclasses.replace(book.claimed(), run_id="5f0c2c55-55cb-5a1e-9a1c-0d6f9f3d2b10")
    assert Close(book.ledger, MailRules(), lambda: None).handle([told(result)]) == []
    assert pending(book.ledger) == []


def test_what_cannot_be_read_is_rejected_with_its_reason_and_the_rest_is_closed(book: Book) -> None:
    result = book.claimed()
    good = told(result)
    abandoned = encode("result", {**to_plain(result), "outcome": "abandoned"})
    broken = [
        message(None, 1),
        message(b"nonsense", 2),
        message(good.value and good.value[:-3], 3),
        message(abandoned, 4),
    ]
    rejected = Close(book.ledger, MailRules(), lambda: None).handle([*broken, good])
    assert [one.message for one in rejected] == broken
    assert ["empty" in rejected[0].reason, "abandoned" in rejected[3].reason] == [True, True]
    assert state_of(book.ledger, result.run_id) == "succeeded"


def test_a_ledger_that_is_busy_leaves_the_whole_batch_for_later(
    book: Book, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.engine.BUSY_S", 0.2)
    result = book.claimed()
    step = Close(book.ledger, MailRules(), lambda: None)
    other = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    with other.write() as session:
        now_ms(session)  # a transaction begins with its first statement
        with pytest.raises(TryLater):
            step.handle([told(result)])
    assert step.handle([told(result)]) == []
    other.close()
    assert len(pending(book.ledger)) == 1


def test_a_run_that_is_tried_again_is_told_of_once_with_all_its_attempts(book: Book) -> None:
    result = book.claimed(options=Options(retries=2))
    step, retried = Close(book.ledger, MailRules(), lambda: None), count("retried")
    for number in (1, 2):
        error = RunError("ValueError", f"no IA, {number}", "Traceback ...")
        step.handle([told(dataclasses.replace(result, outcome=Outcome.FAILED, error=error))])
        assert pending(book.ledger) == [] and state_of(book.ledger, result.run_id) == "queued"
        result = book.claimed_again(result)
    step.handle([told(result)])

    (mail,) = pending(book.ledger)
    text = render(mail, "eventproc@example.com").get_body(("plain",))
    assert count("retried") == retried + 2 and mail.kind == "success" and text is not None
    shown = [line.partition("executor-a: ")[2] for line in text.get_content().splitlines() if "executor-a: " in line]
    assert shown == ["failed: ValueError: no IA, 1", "failed: ValueError: no IA, 2", "succeeded"]


def test_a_key_that_is_refused_is_told_to_its_owner_once_with_what_to_do(book: Book) -> None:
    first, second = book.claimed("one"), book.claimed("two", failure="")
    error = RunError(KEY_REFUSED, "BTrDB refuses the API key: it has expired")
    for result in (first, second):
        refused = dataclasses.replace(result, outcome=Outcome.REFUSED, error=error, started_at_ns=0)
        Close(book.ledger, MailRules(), lambda: None).handle([told(refused)])

    book.set_back_mails()
    (mail,) = pending(book.ledger)
    message = render(mail, "eventproc@example.com")
    parts = [message.get_body((kind,)) for kind in ("plain", "html")]
    assert message["Subject"] == "[eventproc] BTrDB refuses your API key: your handlers are paused"
    assert message["To"] == "bob@example.com"
    for part in parts:
        text = " ".join(part.get_content().split()) if part is not None else ""
        assert "call rekey(conn) of btrdbextras.eventproc once" in text and "it has expired" in text
        assert first.run_id in text and second.run_id in text


def test_what_is_told_in_a_digest_waits_for_it_and_says_why(book: Book) -> None:
    results = [book.claimed("often", options=Options(notify="digest")) for _ in range(3)]
    Close(book.ledger, MailRules(), lambda: None).handle([told(result) for result in results])
    assert pending(book.ledger) == []

    book.set_back_mails()
    (mail,) = pending(book.ledger)
    message = render(mail, "eventproc@example.com")
    text = message.get_body(("plain",))
    assert message["Subject"] == "[eventproc] 3 runs: 3 succeeded (often)" and text is not None
    assert "These runs are told of together: their handlers ask for that" in " ".join(text.get_content().split())
    assert all(result.run_id in text.get_content() for result in results)
