"""A station that serves is ready once it listens, and not before."""

import threading

from telemetry.health import Health
from telemetry.station import listening


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
