"""Children made ready ahead, and the zygote behind them: started anew when it dies."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

import structlog

from executor.sandbox.job import SandboxLost, SandboxUnavailable
from executor.sandbox.zygote import Child, Zygote

log = structlog.get_logger()

AGAIN_S = (0.1, 30.0)
"""Waits between attempts to start a zygote: the first and the longest."""


class Pool:
    """Keeps `size` children ready. One thread fills it; take() makes a child itself when there is none."""

    def __init__(
        self, start_zygote: Callable[[], Zygote], admit: Callable[[Child], None], size: int, scratch_bytes: int
    ) -> None:
        """start_zygote: blocks until one is warm. admit: lets a new child out to BTrDB; returns at once.

        scratch_bytes: of the children made ahead, until a job asks for others.
        """
        self._start_zygote = start_zygote
        self._admit = admit
        self._size = size
        self._scratch_bytes = scratch_bytes
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._ready: deque[tuple[Zygote, Child]] = deque()
        self._zygote: Zygote | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._fill_for_ever, name="warm-pool", daemon=True)

    def start(self, zygote: Zygote) -> None:
        """Takes over a started zygote and begins to fill."""
        self._zygote = zygote
        self._thread.start()

    def ready(self) -> int:
        """How many children wait."""
        return len(self._ready)

    def take(self, scratch_bytes: int) -> Child:
        """A child for one run; blocks while one is made. Raises SandboxLost."""
        with self._changed:
            self._scratch_bytes = scratch_bytes
            found = None
            while self._ready and found is None:
                zygote, child = self._ready.popleft()
                fits = zygote.alive and child.death is None and child.scratch_bytes == scratch_bytes
                if fits:
                    found = child
                else:
                    _discard(child)
            self._changed.notify_all()
        if found is not None:
            return found
        try:
            return self._make(self._alive_zygote(), scratch_bytes)
        except SandboxUnavailable as error:
            raise SandboxLost(str(error)) from error

    def close(self) -> None:
        """Ends the filling, the children that wait and the zygote with all its children."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(30)
        while self._ready:
            _discard(self._ready.popleft()[1])
        if self._zygote is not None:
            self._zygote.close()

    def _make(self, zygote: Zygote, scratch_bytes: int) -> Child:
        child = zygote.spawn(scratch_bytes)
        self._admit(child)
        return child

    def _alive_zygote(self) -> Zygote:
        with self._starting:
            if self._closed:
                raise SandboxLost("the sandbox is closed")
            if self._zygote is None or not self._zygote.alive:
                if self._zygote is not None:
                    log.warning("the zygote died; starting another")
                    self._zygote.close()
                    self._zygote = None
                self._zygote = self._start_zygote()
            return self._zygote

    def _fill_for_ever(self) -> None:
        wait = AGAIN_S[0]
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._lacking(), 1.0)
                if self._closed:
                    return
                if not self._lacking():
                    continue
                scratch_bytes = self._scratch_bytes
            try:
                zygote = self._alive_zygote()
                child = self._make(zygote, scratch_bytes)
                wait = AGAIN_S[0]
            except (SandboxLost, SandboxUnavailable) as error:
                log.warning("no child could be made ready", reason=str(error), again_in_s=wait)
                deadline = time.monotonic() + wait
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, deadline - time.monotonic())
                wait = min(wait * 2, AGAIN_S[1])
                continue
            with self._changed:
                self._ready.append((zygote, child))
                self._changed.notify_all()

    def _lacking(self) -> bool:
        """Whether a child should be made; the dead are thrown out first."""
        for pair in list(self._ready):
            zygote, child = pair
            if not zygote.alive or child.death is not None:
                self._ready.remove(pair)
                _discard(child)
        return len(self._ready) < self._size


def _discard(child: Child) -> None:
    child.kill()
    with contextlib.suppress(SandboxLost):
        child.buried(5)
    child.close()
