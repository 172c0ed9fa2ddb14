"""python -m dispatcher: reads settings, wires, runs."""

from __future__ import annotations

import contextlib
import sys
import time
import uuid

from dispatcher.dispatch import Dispatch
from dispatcher.reconcile import Reconciler
from dispatcher.retain import Retainer
from dispatcher.settings import DispatcherSettings, SweeperSettings
from dispatcher.sweep import Sweeper
from ledger import Ledger
from ledger.settings import KeepSettings, LeaseSettings
from schemas.contracts import hook_names
from schemas.errors import TryLater
from schemas.topics import DEAD_LETTERS, tasks_topic, topics
from stream import loop
from stream.broker import Admin
from stream.connect import open_book, open_broker
from stream.settings import StreamSettings
from telemetry import traces
from telemetry.settings import from_environment
from telemetry.station import begin
from telemetry.threads import Threads

LEADS_BACK_S = 10.0


def main() -> int:
    """Runs until SIGTERM or SIGINT; 1 when one of its threads broke down."""
    settings, sweeping = from_environment(DispatcherSettings), from_environment(SweeperSettings)
    keeping = from_environment(KeepSettings)
    stop, health = begin("dispatcher", needs=("ledger", "kafka"))
    ledger = Ledger.open(settings.ledger_url)
    stream_settings = from_environment(StreamSettings)
    broker = open_broker(stream_settings)
    loop.until_ready(ledger.migrate, health, "ledger", stop)
    admin = broker.admin()
    if stream_settings.make_topics:
        loop.until_ready(lambda: _make_topics(admin, sweeping, stream_settings, keeping), health, "kafka", stop)
    producer = broker.producer()
    book = open_book(stream_settings, admin, producer)
    written = [("task", tasks_topic(name)) for name in sweeping.runtime_names()]
    loop.until_ready(lambda: book.publish([*written, ("dead_letter", DEAD_LETTERS)]), health, "schemas", stop)
    rules = from_environment(LeaseSettings).rules()
    boot_id = uuid.uuid4().hex
    sweeper = Sweeper(ledger, broker.producer(), admin, rules, sweeping, boot_id)
    desk = broker.admin()
    notes = open_book(stream_settings, desk, producer)
    reconciler = Reconciler(ledger, desk, notes, settings.group, sweeping, boot_id)
    retainer = Retainer(ledger, keeping.rules(), sweeping, boot_id)
    threads = Threads(stop)
    threads.start("reconciler", reconciler.run, stop)
    leading = [
        threads.start("sweeper", sweeper.run, stop, health),
        threads.start("looker", reconciler.keep_looking, stop),
        threads.start("retainer", retainer.run, stop),
    ]
    consumer = broker.consumer(hook_names(), settings.group, instance=settings.instance)
    step = Dispatch(ledger, producer, rules, settings.flush_timeout_s, settings.event_bytes)
    loop.run(
        consumer,
        step,
        dead_letters=producer,
        group=settings.group,
        health=health,
        stop=stop,
        max_records=settings.max_records,
        book=book,
        limits=stream_settings.limits(),
    )
    with contextlib.suppress(TryLater):
        step.settle()
    consumer.close()
    until = time.monotonic() + LEADS_BACK_S
    for thread in leading:  # each gives its lead back; whoever reads for longer lets it run out
        thread.join(max(0.0, until - time.monotonic()))
    broker.close()
    ledger.close()
    traces.close()
    return 1 if threads.failed else 0


def _make_topics(admin: Admin, sweeping: SweeperSettings, belt: StreamSettings, keeping: KeepSettings) -> None:
    admin.ensure_topics(topics(sweeping.runtime_names()), belt.replication, belt.max_message_bytes)
    admin.keep(DEAD_LETTERS, keeping.dead_letters_ms())


if __name__ == "__main__":
    sys.exit(main())
