"""The executor's own threads: one that ends by an exception ends the executor, and its supervisor starts it again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Threads:
    """Starts them; an exception in one is logged, named in `failed`, and sets `stop`."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.failed: list[str] = []

    def start(self, name: str, work: Callable[[threading.Event], None], until: threading.Event) -> threading.Thread:
        """Calls work(until) in a thread of that name, which does not keep the process alive; returns at once."""

        def target() -> None:
            try:
                work(until)
            except Exception:
                log.exception("a thread of the executor ended by an error; the executor stops", thread=name)
                self.failed.append(name)
                self._stop.set()

        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread
