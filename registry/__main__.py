"""python -m registry: reads settings, wires, runs."""

from __future__ import annotations

import signal
import sys
import threading

import structlog

from ledger import Ledger
from ledger.settings import LeaseSettings
from ledger.sweeper import heartbeat
from registry.serve import serve
from registry.settings import RegistrySettings
from schemas.errors import TryLater
from stream.loop import until_ready
from telemetry import logs, traces
from telemetry.health import Health
from telemetry.settings import TelemetrySettings, from_environment


def main() -> int:
    """Runs until SIGTERM or SIGINT; calls under way get a grace."""
    settings = from_environment(RegistrySettings)
    logs.setup("registry")
    traces.setup("registry")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    health = Health("registry", needs=("ledger",))
    from_environment(TelemetrySettings).serve(health)
    ledger = Ledger.open(settings.ledger_url, settings.sealing())
    until_ready(ledger.migrate, health, "ledger", stop)
    rules = from_environment(LeaseSettings).rules()
    servers = serve(settings, ledger, rules)
    structlog.get_logger().info("serving", public=servers.public, internal=servers.internal)
    beat_s = min(settings.beat_s, rules.silence_s / 4)
    while True:
        health.turn()
        try:
            with ledger.write() as session:
                heartbeat(session, rules)
            health.ready("ledger", True)
        except TryLater as error:
            health.ready("ledger", False, error.reason)
        if stop.wait(beat_s):
            break
    servers.stop(settings.grace_s)
    ledger.close()
    traces.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
