"""A process's own threads: one that ends by an error ends the process, and its supervisor starts it again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()


class Threads:
    """Starts them; an error in one is logged, named in `failed`, and sets `stop`."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self.failed: list[str] = []

    def start(self, name: str, work: Callable[..., None], *given: object) -> threading.Thread:
        """Calls work(*given) in a thread of that name, which does not keep the process alive; returns at once."""

        def target() -> None:
            try:
                work(*given)
            except BaseException:
                log.exception("a thread ended by an error; the process stops", thread=name)
                self.failed.append(name)
                self._stop.set()

        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread
