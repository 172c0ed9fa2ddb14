"""An email's headers are those that are meant, whatever the names in them hold."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Callable

import pytest

import notifier.render
from ledger.outbox import Mail
from ledger.runs import RunView
from notifier.render import CannotRender, render
from tests.notifier.test_render import received

MakeRun = Callable[..., RunView]
MakeMail = Callable[..., Mail]


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x00"])
def test_no_name_can_add_a_header(end: str, mail: MakeMail, run: MakeRun) -> None:
    evil = f"x{end}Bcc: bob@example.com{end}{end}body"
    message = received(mail(run(handler_name=evil, event_subject=evil, owner=evil)))
    assert message["Bcc"] is None
    assert message["Subject"].startswith("[eventproc]")
    words = "[eventproc] x Bcc: bob@example.com body succeeded on x Bcc: bob@example.com body"
    assert message["Subject"].replace(" ", "") == words.replace(" ", "")


ENCODED = [
    "=?utf-8?q?x=0D=0ABcc:_bob@example.com=0D=0A=0D=0Abody?=",
    "=?utf-8?b?eA0KQmNjOiBib2JAZXhhbXBsZS5jb20NCg0KYm9keQ==?=",
]


@pytest.mark.parametrize("evil", ENCODED)
def test_no_encoded_word_in_a_name_can_add_a_header(evil: str, mail: MakeMail, run: MakeRun) -> None:
    wire = render(mail(run(handler_name=evil, event_subject=evil, owner=evil)), "eventproc@example.com").as_bytes()
    message = email.message_from_bytes(wire, policy=email.policy.default)

    names = [
        line.partition(b":")[0] for line in wire.partition(b"\r\n\r\n")[0].split(b"\r\n") if line[:1] not in b" \t"
    ]
    assert names == [
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"X-Auto-Response-Suppress",
        b"X-Eventproc-Run", b"MIME-Version", b"Content-Type",
    ]  # fmt: skip
    assert message["Bcc"] is None
    assert message["Subject"].replace(" ", "").startswith(f"[eventproc]{evil[:20]}".replace(" ", ""))


def test_a_header_that_would_be_two_makes_no_email(
    mail: MakeMail, run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier.render._Policy, "fold_binary", lambda self, name, value: b"Subject: x\r\nBcc: bob\r\n")
    with pytest.raises(CannotRender, match="would be more than one header"):
        render(mail(run()), "eventproc@example.com")


def test_a_recipient_or_sender_with_a_line_end_makes_no_email(mail: MakeMail) -> None:
    with pytest.raises(CannotRender):
        render(mail(recipient="alice@example.com\r\nBcc: bob@example.com"), "eventproc@example.com")
