"""What every station's process begins with."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence

from telemetry import logs, traces
from telemetry.health import Health
from telemetry.settings import TelemetrySettings, from_environment

LOOK_S = 0.02
SWITCH_S = 0.0005
"""After so long a thread that computes makes way for one that waits: with Python's own 5 ms each answer from a broker or a database
waits for that, several times over on an event's way."""
PYTHONS_OWN_S = 0.005
"""For as long as many messages are at hand: threads that hand work on and on then get a sixth less done with a shorter one
(make bench-dispatch)."""
MANY = 20


def make_way(messages: int) -> None:
    """Sets how soon a thread that computes makes way, by the messages that are at hand: for one the wait counts, for many the sum."""
    sys.setswitchinterval(PYTHONS_OWN_S if messages > MANY else SWITCH_S)


def begin(station: str, needs: Sequence[str]) -> tuple[threading.Event, Health]:
    """Sets up logs and traces, serves health and metrics; the event is set by SIGTERM and SIGINT. For the main thread.

    From then on the process is not ready. needs: what its readiness depends on. Ends the process with exit code 2 when the
    environment is not right.
    """
    make_way(1)
    logs.setup(station)
    traces.setup(station)
    stop = threading.Event()
    health = Health(station, needs=needs)

    def end(*_: object) -> None:
        health.stopping()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    from_environment(TelemetrySettings).serve(health)
    return stop, health


def listening(server: threading.Thread, started: Callable[[], bool], health: Health, stop: threading.Event) -> None:
    """Blocks until the server in that thread listens, or will not; only then is the station ready, as far as "http" goes."""
    while not started() and server.is_alive() and not stop.wait(LOOK_S):
        health.turn()
    health.ready("http", started(), "it does not listen")
