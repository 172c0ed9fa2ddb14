"""python -m dispatcher: reads settings, wires, runs."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import uuid

import structlog

from dispatcher.dispatch import Dispatch
from dispatcher.reconcile import Reconciler
from dispatcher.retain import Retainer
from dispatcher.settings import DispatcherSettings, SweeperSettings
from dispatcher.sweep import Sweeper, guarded
from ledger import Ledger
from ledger.settings import KeepSettings, LeaseSettings
from schemas.contracts import hook_names
from schemas.errors import TryLater
from schemas.topics import DAY_MS, DEAD_LETTERS, tasks_topic, topics
from stream import loop
from stream.connect import open_book, open_broker
from stream.settings import StreamSettings
from telemetry import logs, traces
from telemetry.health import Health
from telemetry.settings import TelemetrySettings, from_environment


def main() -> int:
    """Runs until SIGTERM or SIGINT; 1 when the sweeper broke down."""
    settings, sweeping = from_environment(DispatcherSettings), from_environment(SweeperSettings)
    keeping = from_environment(KeepSettings)
    logs.setup("dispatcher")
    traces.setup("dispatcher")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    health = Health("dispatcher", needs=("ledger", "kafka"))
    from_environment(TelemetrySettings).serve(health)
    ledger = Ledger.open(settings.ledger_url)
    stream_settings = from_environment(StreamSettings)
    broker = open_broker(stream_settings)
    loop.until_ready(ledger.migrate, health, "ledger", stop)
    admin = broker.admin()
    wanted = topics(sweeping.runtime_names())
    for work in (
        lambda: admin.ensure_topics(wanted, stream_settings.replication, stream_settings.max_message_bytes),
        lambda: admin.keep(DEAD_LETTERS, int(keeping.dead_letters_days * DAY_MS) or -1),
    ):
        if stream_settings.make_topics:
            loop.until_ready(work, health, "kafka", stop)
    producer = broker.producer()
    book = open_book(stream_settings, admin, producer)
    written = [("task", tasks_topic(name)) for name in sweeping.runtime_names()]
    loop.until_ready(lambda: book.publish([*written, ("dead_letter", DEAD_LETTERS)]), health, "schemas", stop)
    failures: list[BaseException] = []

    def broke(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    rules = from_environment(LeaseSettings).rules()
    boot_id = uuid.uuid4().hex
    sweeper = Sweeper(ledger, broker.producer(), admin, rules, sweeping, boot_id)
    desk = broker.admin()
    notes = open_book(stream_settings, desk, producer)
    reconciler = Reconciler(ledger, desk, notes, settings.group, sweeping, boot_id)
    retainer = Retainer(ledger, keeping.rules(), sweeping, boot_id)
    threads = [
        threading.Thread(target=guarded(work, broke), name=name, daemon=True)
        for name, work in (
            ("sweeper", lambda: sweeper.run(stop, health)),
            ("reconciler", lambda: reconciler.run(stop)),
            ("retainer", lambda: retainer.run(stop)),
        )
    ]
    for thread in threads:
        thread.start()
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
    threads[0].join(timeout=10)
    broker.close()
    ledger.close()
    traces.close()
    if failures:
        structlog.get_logger().error("the sweeper broke down", error=repr(failures[0]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
