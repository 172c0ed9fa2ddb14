"""Emails, as an operator meets them."""

from sqlalchemy import text

from ledger import Ledger

from .conftest import call, told


def an_email(
    ledger: Ledger, recipient: str = "bob@example.com", state: str = "given_up", reason: str = "550 no"
) -> int:
    with ledger.write() as session:
        session.execute(
            text(
                "INSERT INTO notification (message_id, recipient, kind, state, created_at_ms, not_before_ms, tries, reason,"
                " ended_at_ms) SELECT 'm' || count(*), :recipient, 'failure', :state, 1, 1, 250, :reason, 2 FROM notification"
            ),
            {"recipient": recipient, "state": state, "reason": reason},
        )
        return int(session.scalar(text("SELECT max(id) FROM notification")) or 0)


def test_emails_that_were_given_up_are_listed_with_the_reason_and_can_be_tried_again(ledger: Ledger) -> None:
    number = an_email(ledger, reason="550 no such user")
    (one,) = told("emails", "list", "--state", "given_up")
    assert (one["recipient"], one["tries"], one["reason"]) == ("bob@example.com", 250, "550 no such user")

    assert "1 will be tried again" in call("emails", "retry", str(number))
    assert [mail["state"] for mail in told("emails", "list")] == ["pending"]
    assert f"not given up, or not there, or not fitting: {number}" in call("emails", "retry", str(number), code=1)


def test_all_that_were_given_up_for_one_reason_are_tried_again_after_a_look(ledger: Ledger) -> None:
    first = an_email(ledger, reason="the recipient's domain is not among those of EVENTPROC_MAIL_DOMAINS")
    second = an_email(ledger, "carol@example.com", reason="550 no such user")

    assert "which ones?" in call("emails", "retry", code=2)
    dry = told("emails", "retry", "--reason", "MAIL_DOMAINS", "--dry-run")
    assert [one["id"] for one in dry["emails"]] == [first]
    call("emails", "retry", "--reason", "MAIL_DOMAINS")
    assert [one["id"] for one in told("emails", "list", "--state", "given_up")] == [second]
    assert [one["id"] for one in told("emails", "list", "--recipient", "carol@example.com")] == [second]


def test_they_come_in_pages_the_newest_first(ledger: Ledger) -> None:
    numbers = [an_email(ledger) for _ in range(3)]

    assert [one["id"] for one in told("emails", "list", "--limit", "2")] == numbers[:0:-1]
    assert f"--before {numbers[1]}" in call("emails", "list", "--limit", "2")
    assert [one["id"] for one in told("emails", "list", "--before", str(numbers[1]))] == numbers[:1]
    assert "is not one of 'pending', 'sending', 'sent', 'given_up'" in call("emails", "list", "--state", "lost", code=2)


def test_one_is_shown_with_the_runs_that_it_accounts_for(ledger: Ledger) -> None:
    number = an_email(ledger)

    assert "550 no" in call("emails", "show", str(number))
    assert told("emails", "show", str(number))["run_list"] == []
    assert "there is no email 99" in call("emails", "show", "99", code=1)
