"""python -m registry: reads settings, wires, runs."""

from __future__ import annotations

import sys

import structlog

from ledger import Ledger
from ledger.settings import LeaseSettings
from ledger.sweeper import heartbeat
from registry.serve import serve
from registry.settings import RegistrySettings
from schemas.errors import TryLater
from stream.loop import until_ready
from telemetry import traces
from telemetry.settings import from_environment
from telemetry.station import begin


def main() -> int:
    """Runs until SIGTERM or SIGINT; calls under way get a grace."""
    settings = from_environment(RegistrySettings)
    stop, health = begin("registry", needs=("ledger",))
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
