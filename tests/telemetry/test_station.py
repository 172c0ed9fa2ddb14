"""A station that serves is ready once it listens, not before, and no more once it is told to end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from telemetry.health import Health
from telemetry.station import begin, listening


@pytest.fixture
def own_signals() -> Iterator[None]:
    """What the signals did before."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_signal_to_end_makes_it_not_ready_and_sets_the_event(own_signals: None) -> None:
    stop, health = begin("test", needs=())
    health.ready("kafka", True)
    assert health.ready_answer()[0] == 200

    os.kill(os.getpid(), signal.SIGTERM)

    assert stop.wait(10)
    assert health.ready_answer()[0] == 503
    health.close()


def test_it_is_ready_once_the_server_listens() -> None:
    health, starts, ends = Health("test", needs=("http",)), threading.Event(), threading.Event()
    server = threading.Thread(target=ends.wait)
    server.start()
    waits = threading.Thread(target=listening, args=(server, starts.is_set, health, threading.Event()))
    waits.start()
    assert health.ready_answer()[0] == 503

    starts.set()
    waits.join(10)

    assert health.ready_answer()[0] == 200
    ends.set()
    server.join()


def test_it_is_not_ready_when_the_server_ends_without_listening() -> None:
    health = Health("test", needs=("http",))
    server = threading.Thread(target=lambda: None)
    server.start()

    listening(server, lambda: False, health, threading.Event())

    assert health.ready_answer()[1]["checks"]["http"] == {"ok": False, "why": "it does not listen"}
