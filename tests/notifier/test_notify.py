"""The station as it is wired: a result in the topic becomes an email."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP

from devstack.mail import Sink
from ledger.rules import MailRules
from notifier.close import Close
from notifier.send import Sender
from notifier.settings import NotifierSettings
from schemas.encoding import encode
from schemas.records import to_plain
from schemas.topics import DEAD_LETTERS, RESULTS, topics
from stream import loop
from stream.memory import MemoryBroker
from telemetry.health import Health

GROUP = "eventproc-notifier"


class Arrivals(Sink):
    """Keeps mail and says when one has come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.arrived = threading.Event()

    def keep(self, recipient: str, content: bytes) -> Path:
        path = super().keep(recipient, content)
        self.arrived.set()
        return path


def test_a_result_becomes_an_email_and_rubbish_beside_it_a_dead_letter(
    tmp_path: Path, book: Any, smtp: Callable[..., Any], settings: Callable[..., NotifierSettings]
) -> None:
    # given a claimed run, its result in the topic, and rubbish
    result = book.claimed()
    broker = MemoryBroker()
    broker.admin().ensure_topics(topics(()), 1, 8 * 1024 * 1024)
    producer = broker.producer()
    producer.send(RESULTS, b"rubbish", key=b"k")
    producer.send(RESULTS, encode("result", to_plain(result)), key=result.run_id.encode())
    producer.flush(5)
    sink, health, stop = Arrivals(tmp_path / "mail"), Health("notifier"), threading.Event()
    # when the station runs
    with smtp(lambda: SMTP(sink)) as port:
        sender = Sender(book.ledger, settings(port, every_s=3600.0), health)
        sending = threading.Thread(target=sender.run)
        closing = threading.Thread(
            target=loop.run,
            args=(broker.consumer([RESULTS], GROUP), Close(book.ledger, MailRules(), sender.wake)),
            kwargs={"dead_letters": producer, "group": GROUP, "health": health, "stop": stop},
        )
        sending.start()
        closing.start()
        came = sink.arrived.wait(60)
        while sum(broker.admin().committed(GROUP, RESULTS).values()) < 2 and closing.is_alive():
            pass
        stop.set()
        sender.stop()
        closing.join(30)
        sending.join(30)
    # then the email is there, the rubbish kept with its reason, and all of it committed
    assert came
    (letter,) = broker.messages(DEAD_LETTERS)
    assert b"neither Avro" in (letter.value or b"")
    assert broker.admin().lag(GROUP, RESULTS) == 0
