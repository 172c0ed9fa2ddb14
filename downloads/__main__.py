"""python -m downloads: reads settings, wires, runs."""

from __future__ import annotations

import sys
import threading

from callers import ApiKeys
from downloads.serve import Desk, make_app
from downloads.settings import DownloadsSettings
from ledger import Ledger
from ledger.engine import now_ms
from ledger.settings import KeepSettings
from objectstore import ObjectStore
from schemas.errors import TryLater
from stream import loop
from telemetry import metrics
from telemetry.health import Health
from telemetry.https import make_server
from telemetry.settings import from_environment
from telemetry.station import begin, listening
from telemetry.threads import Threads

TURN_S = 1.0
LOOK_S = 10.0


def main() -> int:
    """Runs until SIGTERM or SIGINT; 1 when the server broke down."""
    settings = from_environment(DownloadsSettings)
    stop, health = begin("downloads", needs=("ledger", "http"))
    ledger = Ledger.open(settings.ledger_url)
    loop.until_ready(ledger.migrate, health, "ledger", stop)
    store, kept_s = ObjectStore(settings.files), from_environment(KeepSettings).files_s()
    keys = ApiKeys(settings.keys_file)
    metrics.api_keys_unreadable.set_function(lambda: not keys.readable())
    desk = Desk(ledger, keys, store, settings.for_whom == "owner", kept_s)
    server = make_server(make_app(desk), settings.listen, settings.cert, settings.key)
    thread = threading.Thread(target=server.run, name="http", daemon=True)
    thread.start()
    threads = Threads(stop)
    threads.start("looker", _look, ledger, health, stop)
    listening(thread, lambda: server.started, health, stop)
    while thread.is_alive() and not stop.wait(TURN_S):
        health.turn()
    broke = not stop.is_set() or bool(threads.failed)
    server.should_exit = True
    thread.join(timeout=10)
    ledger.close()
    return 1 if broke else 0


def _look(ledger: Ledger, health: Health, stop: threading.Event) -> None:
    """Whether the ledger answers; not in the main loop, whose age is the liveness."""
    while not stop.is_set():
        try:
            with ledger.read() as session:
                now_ms(session)
            health.ready("ledger", True)
        except TryLater as error:
            health.ready("ledger", False, error.reason)
        stop.wait(LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
