"""Every email of the outbox is sent, tried again or given up, and the outbox says which."""

from __future__ import annotations

import dataclasses
import email
import email.policy
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from devstack.mail import Sink
from ledger import Ledger, outbox, results
from ledger.outbox import Mail
from ledger.rules import MailRules
from notifier.send import Sender
from notifier.settings import NotifierSettings
from schemas.errors import TryLater
from schemas.records import Outcome
from telemetry import metrics
from telemetry.health import Health

Book = Any  # the fixture's class is conftest's
Serve = Callable[..., Any]
Settings = Callable[..., NotifierSettings]


class Picky(Sink):
    """Keeps mail, but answers some recipients as told."""

    def __init__(self, folder: Path, answers: dict[str, str]) -> None:
        super().__init__(folder)
        self.answers = answers
        self.arrived = threading.Event()

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        answer = self.answers.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        self.arrived.set()
        return answer

    def kept(self) -> list[str]:
        return [path.name.split("-", 2)[2].removesuffix(".eml") for path in sorted(self._folder.glob("*.eml"))]


def close(ledger: Ledger, result: Any) -> None:
    with ledger.write() as session:
        assert results.close(session, result).counted


def due(ledger: Ledger) -> list[Mail]:
    """What may be sent now; taken for no time, so that it stays due."""
    with ledger.write() as session:
        return outbox.take(session, "test", 100, 0.0)


@pytest.fixture
def sink(tmp_path: Path) -> Picky:
    return Picky(tmp_path / "mail", {})


@pytest.fixture
def sender(sink: Picky, smtp: Serve, settings: Settings, book: Book) -> Iterator[Sender]:
    with smtp(lambda: SMTP(sink, hostname="mail.example.com")) as port:
        yield Sender(book.ledger, settings(port, first_wait_s=1000.0), Health("notifier"))


@contextmanager
def running(sender: Sender) -> Iterator[None]:
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        yield
    finally:
        sender.stop()
        thread.join(30)
        assert not thread.is_alive()


def test_an_email_is_sent_once_and_then_gone_from_the_outbox(sender: Sender, sink: Picky, book: Book) -> None:
    result = book.claimed()
    close(book.ledger, result)
    assert sender.turn() == 1
    assert sender.turn() == 0
    (path,) = sink._folder.glob("*.eml")
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert message["Subject"] == "[eventproc] fault_report succeeded on feeder7.zip"
    assert message["X-Eventproc-Run"] == result.run_id
    assert due(book.ledger) == []


def test_an_email_that_is_put_off_waits_while_the_others_go_out(sender: Sender, sink: Picky, book: Book) -> None:
    sink.answers = {"bob@example.com": "450 4.2.1 mailbox busy"}
    for recipient in ("bob@example.com", "alice@example.com"):
        close(book.ledger, book.claimed(name=recipient.partition("@")[0], success=recipient))
    sender.turn()
    assert sink.kept() == ["alice@example.com"]
    assert sender.turn() == 0, "it is not due before its wait is over"


def test_an_email_that_waited_is_sent_with_the_same_message_id(
    sink: Picky, smtp: Serve, settings: Settings, book: Book
) -> None:
    sink.answers = {"alice@example.com": "451 4.7.1 greylisted"}
    close(book.ledger, book.claimed())
    (before,) = due(book.ledger)
    with smtp(lambda: SMTP(sink)) as port:
        sender = Sender(book.ledger, settings(port, first_wait_s=0.001), Health("notifier"))
        sender.turn()
        sink.answers = {}
        while sender.turn() == 0:
            pass
    (path,) = sink._folder.glob("*.eml")
    assert email.message_from_bytes(path.read_bytes())["Message-ID"] == f"<{before.message_id}@example.com>"


def test_a_refused_recipient_is_given_up(sender: Sender, sink: Picky, book: Book) -> None:
    sink.answers = {"alice@example.com": "550 5.1.1 no such user"}
    close(book.ledger, book.claimed())
    assert sender.turn() == 1
    sink.answers = {}
    assert sender.turn() == 0 and sink.kept() == []
    with book.ledger.read() as session:
        assert outbox.counts(session) == {"given_up": 1}


def test_an_email_that_is_put_off_too_often_is_given_up(
    sink: Picky, smtp: Serve, settings: Settings, book: Book
) -> None:
    sink.answers = {"alice@example.com": "450 4.2.1 mailbox busy"}
    close(book.ledger, book.claimed())
    with smtp(lambda: SMTP(sink)) as port:
        sender = Sender(book.ledger, settings(port, first_wait_s=0.001, most_tries=1), Health("notifier"))
        sender.turn()
    assert due(book.ledger) == []


@pytest.mark.parametrize("domains", ["", "example.org"])
def test_nobody_outside_the_allowed_domains_is_written_to(
    domains: str, sink: Picky, smtp: Serve, settings: Settings, book: Book
) -> None:
    close(book.ledger, book.claimed())
    with smtp(lambda: SMTP(sink)) as port:
        Sender(book.ledger, settings(port, mail_domains=domains), Health("notifier")).turn()
    assert sink.kept() == []
    assert due(book.ledger) == []


def test_a_server_that_breaks_off_leaves_every_email_for_later(smtp: Serve, settings: Settings, book: Book) -> None:
    class Dropping:
        async def handle_DATA(self, server: Any, _session: Any, _envelope: Any) -> str:
            server.transport.abort()
            return "250 OK"

    for name in ("one", "two", "three"):
        close(book.ledger, book.claimed(name=name))
    health = Health("notifier")
    with smtp(lambda: SMTP(Dropping())) as port:
        sender = Sender(book.ledger, settings(port, first_wait_s=1000.0), health)
        with pytest.raises(TryLater):
            sender.turn()
    assert health.ready_answer()[1]["checks"]["smtp"]["ok"] is False
    assert len(due(book.ledger)) == 2, "the one that it broke off at waits, the others are due"


class Dying(Picky):
    """Takes the email and is gone before it could say so, as often as told."""

    def __init__(self, folder: Path, times: int) -> None:
        super().__init__(folder, {})
        self.times = times

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        self.times -= 1
        if self.times >= 0:
            server.transport.abort()
        return answer


def test_an_email_that_the_server_took_and_never_confirmed_comes_again_under_the_same_message_id(
    tmp_path: Path, smtp: Serve, settings: Settings, book: Book
) -> None:
    close(book.ledger, book.claimed())
    sink = Dying(tmp_path / "mail", times=1)
    with smtp(lambda: SMTP(sink)) as port:
        sender = Sender(book.ledger, settings(port, first_wait_s=0.001), Health("notifier"))
        with pytest.raises(TryLater):
            sender.turn()
        while sender.turn() == 0:
            pass
        assert sender.turn() == 0
    one, two = (email.message_from_bytes(path.read_bytes()) for path in sorted(sink._folder.glob("*.eml")))
    assert one["Message-ID"] == two["Message-ID"] and one["X-Eventproc-Run"] == two["X-Eventproc-Run"]


def test_an_email_over_which_the_server_dies_each_time_is_given_up_with_the_reason_and_the_next_one_goes_out(
    tmp_path: Path, smtp: Serve, settings: Settings, book: Book
) -> None:
    for recipient in ("bob@example.com", "alice@example.com"):
        close(book.ledger, book.claimed(name=recipient.partition("@")[0], success=recipient))
    sink = Dying(tmp_path / "mail", times=2)
    with smtp(lambda: SMTP(sink)) as port:
        sender = Sender(book.ledger, settings(port, first_wait_s=0.001, most_tries=2), Health("notifier"))
        for _ in range(2):
            book.set_back_mails()
            with pytest.raises(TryLater):
                sender.turn()
        sender.turn()
    with book.ledger.read() as session:
        (given_up,) = outbox.recent(session, outbox.Wanted("given_up"), 10)
        (sent,) = outbox.recent(session, outbox.Wanted("sent"), 10)
    assert given_up.recipient == "bob@example.com" and given_up.reason.endswith("(tried 2 times)")
    assert sent.recipient == "alice@example.com" and sent.tries == 1, "not come to is not tried"


def test_what_a_sender_says_of_an_email_that_another_has_taken_meanwhile_does_not_make_it_go_out_twice(
    book: Book,
) -> None:
    # given an email whose first sender lost its lease, and a second sender
    close(book.ledger, book.claimed())
    (first,) = due(book.ledger)
    with book.ledger.write() as session:
        (second,) = outbox.take(session, "second", 1, 60.0)
        # when the first says that it is to be tried again: it is the second's
        outbox.postpone(session, first, "the server is away", 0.0)
        outbox.give_up(session, first, "refused")
        assert outbox.counts(session) == {"sending": 1}
        # when the second puts it off, and the first had sent it after all: it has been sent
        outbox.postpone(session, second, "greylisted", 0.0)
        outbox.sent(session, first)
        assert outbox.take(session, "third", 1, 60.0) == []
        assert outbox.counts(session) == {"sent": 1}


def test_in_a_storm_every_run_is_in_exactly_one_of_the_emails_that_arrive(
    sink: Picky, smtp: Serve, settings: Settings, book: Book
) -> None:
    guard = MailRules(storm_after=3, digest_every_s=0.001, digest_most=4)
    ended = [book.claimed() for _ in range(10)]
    for result in ended:
        with book.ledger.write() as session:
            assert results.close(session, result, guard).counted
    with smtp(lambda: SMTP(sink)) as port:
        sender = Sender(book.ledger, settings(port), Health("notifier"))
        while len(outbox_states(book.ledger)) > 1:
            sender.turn()
    runs = [
        run.strip()
        for path in sink._folder.glob("*.eml")
        for run in email.message_from_bytes(path.read_bytes(), policy=email.policy.default)["X-Eventproc-Run"].split(
            ","
        )
    ]
    assert sorted(runs) == sorted(result.run_id for result in ended)


def outbox_states(ledger: Ledger) -> set[str]:
    """The states of the emails, and 'sent'."""
    with ledger.read() as session:
        return {"sent", *outbox.counts(session)}


def test_a_server_that_is_away_is_waited_for_and_shown(
    settings: Settings, smtp: Serve, sink: Picky, book: Book
) -> None:
    close(book.ledger, book.claimed())
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    health = Health("notifier")
    sender = Sender(book.ledger, settings(port, every_s=0.01), health)
    with running(sender):
        while "smtp" not in health.ready_answer()[1]["checks"]:
            pass
        assert health.ready_answer()[1]["checks"]["smtp"]["ok"] is False
        with smtp(lambda: SMTP(sink), port=port):
            assert sink.arrived.wait(60)
    assert sink.kept() == ["alice@example.com"]
    assert health.ready_answer()[1]["checks"]["smtp"]["ok"] is True


def test_a_sender_that_is_woken_looks_at_once(sink: Picky, smtp: Serve, settings: Settings, book: Book) -> None:
    health = Health("notifier")
    with smtp(lambda: SMTP(sink)) as port:
        sender = Sender(book.ledger, settings(port, every_s=3600.0), health)
        with running(sender):
            while "outbox" not in health.ready_answer()[1]["checks"]:
                pass  # it has looked once and found nothing
            close(book.ledger, book.claimed())
            sender.wake()
            assert sink.arrived.wait(60)
    assert sink.kept() == ["alice@example.com"]


def test_a_mail_of_which_no_email_can_be_made_is_given_up_and_the_next_one_goes_out(
    sender: Sender, sink: Picky, book: Book
) -> None:
    close(
        book.ledger,
        book.claimed(
            name="bad",
            Recordings=[{"Name": "/a.cfg", "SampleRates": [{"RateHz": "fast"}]}],
            DataSets=[{"Name": "/a.cfg", "Success": True}],
        ),
    )
    close(book.ledger, dataclasses.replace(book.claimed(name="good"), outcome=Outcome.FAILED))
    sender.turn()
    assert sink.kept() == ["bob@example.com"]
    assert due(book.ledger) == []


def test_a_sender_that_is_to_stop_puts_back_what_it_has_not_come_to(sender: Sender, sink: Picky, book: Book) -> None:
    for name in ("one", "two"):
        close(book.ledger, book.claimed(name=name))
    sender.stop()
    assert sender.turn() == 2
    assert sink.kept() == []
    assert len(due(book.ledger)) == 2


def test_how_many_emails_wait_is_measured_while_the_server_is_away(settings: Settings, book: Book) -> None:
    close(book.ledger, book.claimed())
    metrics.emails_pending.set(0)
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with running(Sender(book.ledger, settings(port, every_s=0.01), Health("notifier"))):
        while not metrics.emails_pending._value.get():
            pass
    assert metrics.emails_pending._value.get() == 1


def test_what_was_sent_ends_the_growth_of_the_waits(sink: Picky, smtp: Serve, settings: Settings, book: Book) -> None:
    """A server that takes one email and then is away, again and again: the others never wait for the longest."""
    for number in range(3):
        close(book.ledger, book.claimed(name=f"h{number}"))
    with smtp(lambda: SMTP(sink)) as port:
        sender = Sender(book.ledger, settings(port), Health("notifier"))
        sender._failures = 7
        sender.turn()
    assert sender._failures == 0 and len(sink.kept()) == 3


def test_how_many_emails_wait_is_measured(settings: Settings, book: Book) -> None:
    for name in ("one", "two"):
        close(book.ledger, book.claimed(name=name))
    sender = Sender(book.ledger, settings(25), Health("notifier"))
    sender.measure()
    assert metrics.emails_pending._value.get() == 2
