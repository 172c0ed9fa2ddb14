"""A thread that ends by an exception ends its process."""

from __future__ import annotations

import threading

from structlog.testing import capture_logs

from telemetry.threads import Threads


def test_an_error_in_a_thread_is_logged_and_stops_the_process() -> None:
    stop, done = threading.Event(), threading.Event()
    threads = Threads(stop)

    def broken(until: threading.Event) -> None:
        raise KeyError("nobody expected this")

    with capture_logs() as said:
        threads.start("checker", broken, done).join(10)

    assert stop.is_set()
    assert not done.is_set()
    assert threads.failed == ["checker"]
    assert [(line["thread"], line["log_level"]) for line in said] == [("checker", "error")]


def test_a_thread_that_is_told_to_end_stops_nobody() -> None:
    stop, done = threading.Event(), threading.Event()
    threads = Threads(stop)

    def patient(until: threading.Event) -> None:
        until.wait()

    thread = threads.start("checker", patient, done)
    done.set()
    thread.join(10)

    assert not thread.is_alive()
    assert (threads.failed, stop.is_set()) == ([], False)
