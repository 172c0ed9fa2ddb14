"""What runs that are going on print, told to the registry every second, so that their owners can follow it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from executor.ask import Registry
from schemas.errors import TryLater

EVERY_S = 1.0
YOUNG_S = 1.0
"""A run that ends within so long tells its log with its result alone."""
MOST = 1 << 20
"""Characters of one run; its result has the beginning and the end of what was more."""
STOPPED = "\n... it has printed more than can be followed; the end of its log is here when the run has ended ...\n"
"""How a log that is followed goes on after MOST."""
AT_ONCE = 1 << 18
"""Characters of one run in one call."""


class Followed:
    """One attempt: what it has printed and the registry has not, from character `at` on."""

    def __init__(self, run_id: str, lease_id: str, since: float) -> None:
        self.run_id = run_id
        self.lease_id = lease_id
        self.since = since
        self.at = 0
        self._waiting = ""
        self._over = False
        self._lock = threading.Lock()

    def add(self, text: str) -> bool:
        """Takes whole lines, of the one that goes beyond MOST a part; False when no more are wanted."""
        with self._lock:
            if not self._over:
                room = MOST - self.at - len(self._waiting)
                self._over = len(text) > room
                self._waiting += text[:room] + STOPPED if self._over else text
            return not self._over

    def next(self) -> str:
        """What is to be told next; '' for nothing."""
        with self._lock:
            return self._waiting[:AT_ONCE]

    def told(self, asked: str, had: int) -> None:
        """The registry was told `asked` and has `had` characters now: fewer than it should mean that it takes no more."""
        with self._lock:
            taken = had - self.at
            if not 0 < taken <= len(asked):
                self._over, self._waiting = True, ""
                return
            self.at, self._waiting = had, self._waiting[taken:]


class Follow:
    """Gathers and tells. add() of what begin() gives is called by many threads, run() or turn() by one."""

    def __init__(self, registry: Registry, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._runs: dict[str, Followed] = {}
        self._lock = threading.Lock()

    def begin(self, run_id: str, lease_id: str) -> Followed:
        """An attempt begins."""
        followed = Followed(run_id, lease_id, self._clock())
        with self._lock:
            self._runs[run_id] = followed
        return followed

    def end(self, followed: Followed) -> None:
        """It is over; what has not been told comes with its result."""
        with self._lock:
            if self._runs.get(followed.run_id) is followed:
                del self._runs[followed.run_id]

    def run(self, stop: threading.Event) -> None:
        """A turn every second until stop is set; blocks."""
        while not stop.wait(EVERY_S):
            self.turn()

    def turn(self) -> None:
        """Tells what there is of runs that are older than a second. When the registry is away it stays for the next turn."""
        born_before = self._clock() - YOUNG_S
        with self._lock:
            runs = [followed for followed in self._runs.values() if followed.since <= born_before]
        printed = [(followed, text) for followed in runs if (text := followed.next())]
        if not printed:
            return
        try:
            had = self._registry.append_log([(f.run_id, f.lease_id, f.at, text) for f, text in printed])
        except TryLater:
            return
        for (followed, text), has in zip(printed, had, strict=True):
            followed.told(text, has)
