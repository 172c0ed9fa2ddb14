"""python -m downloads: reads settings, wires, runs."""

from __future__ import annotations

import sys
import threading

import structlog

from callers import ApiKeys
from downloads.expire import expire
from downloads.serve import Desk, make_app
from downloads.settings import DownloadsSettings
from ledger import Ledger
from objectstore import ObjectStore
from schemas.errors import TryLater
from stream import loop
from telemetry import metrics
from telemetry.health import Health
from telemetry.https import make_server
from telemetry.settings import from_environment
from telemetry.station import begin, listening
from telemetry.threads import Threads

log = structlog.get_logger()

TURN_S = 1.0


def main() -> int:
    """Runs until SIGTERM or SIGINT; 1 when the server broke down."""
    settings = from_environment(DownloadsSettings)
    stop, health = begin("downloads", needs=("ledger", "http"))
    ledger = Ledger.open(settings.ledger_url)
    loop.until_ready(ledger.migrate, health, "ledger", stop)
    store = ObjectStore(settings.files)
    desk = Desk(ledger, ApiKeys(settings.keys_file), store, settings.for_whom == "owner", settings.max_age_s)
    server = make_server(make_app(desk), settings.listen, settings.cert, settings.key)
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    threads = Threads(stop)
    threads.start("remover", _remove, ledger, store, settings, health, stop)
    listening(thread, lambda: server.started, health, stop)
    while thread.is_alive() and not stop.wait(TURN_S):
        health.turn()
    broke = not stop.is_set() or bool(threads.failed)
    server.should_exit = True
    thread.join(timeout=10)
    ledger.close()
    return 1 if broke else 0


def _remove(
    ledger: Ledger, store: ObjectStore, settings: DownloadsSettings, health: Health, stop: threading.Event
) -> None:
    """Old files, every now and then; not in the main loop, whose age is the liveness, for an object store may be slow."""
    while not stop.is_set():
        try:
            metrics.files_removed_total.inc(expire(ledger, store, settings.max_age_s))
            health.ready("ledger", True)
        except TryLater as error:
            health.ready("ledger", False, error.reason)
            log.warning("old files not removed", reason=error.reason)
        stop.wait(settings.sweep_every_s)


if __name__ == "__main__":
    sys.exit(main())
