"""python -m notifier: reads settings, wires, runs."""

from __future__ import annotations

import sys

import structlog

from ledger import Ledger
from ledger.settings import KeepSettings, LeaseSettings
from notifier.close import Close
from notifier.expire import keep_expiring
from notifier.send import Sender
from notifier.settings import NotifierSettings
from objectstore import ObjectStore
from schemas.topics import DEAD_LETTERS, RESULTS, topics
from stream import loop
from stream.connect import open_book, open_broker
from stream.settings import StreamSettings
from telemetry import traces
from telemetry.settings import from_environment
from telemetry.station import begin
from telemetry.threads import Threads


def main() -> int:
    """Closes runs in this thread, sends emails in a second one; until SIGTERM or SIGINT. 1 when the sender broke down."""
    settings, belt = from_environment(NotifierSettings), from_environment(StreamSettings)
    stop, health = begin("notifier", needs=("kafka", "ledger", "smtp"))
    if not settings.mail_domains:
        structlog.get_logger().warning("EVENTPROC_MAIL_DOMAINS is empty: no email will be sent; '*' allows all domains")
    ledger = Ledger.open(settings.ledger_url)
    loop.until_ready(ledger.migrate, health, "ledger", stop)
    broker = open_broker(belt)
    admin = broker.admin()
    wanted = topics(()) if belt.make_topics else ()  # of no runtime: the tasks' topics are the dispatcher's to make
    loop.until_ready(
        lambda: admin.ensure_topics(wanted, belt.replication, belt.max_message_bytes), health, "kafka", stop
    )
    producer = broker.producer()
    book = open_book(belt, admin, producer)
    loop.until_ready(lambda: book.publish([("dead_letter", DEAD_LETTERS)]), health, "schemas", stop)
    sender = Sender(ledger, settings, health)
    threads = Threads(stop)
    thread = threads.start("sender", sender.run)
    kept_s = from_environment(KeepSettings).files_s()
    if settings.files and kept_s is not None:
        store = ObjectStore(settings.files)
        threads.start("remover", keep_expiring, ledger, store, kept_s, settings.expire_every_s, stop)
    consumer = broker.consumer([RESULTS], settings.group, instance=settings.instance)
    try:
        loop.run(
            consumer,
            Close(ledger, from_environment(LeaseSettings).mail(), sender.wake),
            dead_letters=producer,
            group=settings.group,
            health=health,
            stop=stop,
            max_records=settings.max_records,
            book=book,
            limits=belt.limits(),
        )
    finally:
        sender.stop()
        thread.join(settings.mail_s)
    consumer.close()
    broker.close()
    ledger.close()
    traces.close()
    return 1 if threads.failed else 0


if __name__ == "__main__":
    sys.exit(main())
