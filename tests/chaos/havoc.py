"""kill -9, SIGSTOP and SIGCONT, SIGTERM at moments and for targets that a seed draws."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.stage import LEASE_S, Stage

WEIGHTS = {"kafka": 0.4, "postgresql": 0.5, "btrdb": 0.4, "mail": 0.7, "registry": 1.0}
PAUSES = (0.25, 1.75)  # times the usual pause
STOPPED_S = (0.3, 3.0)
LONG_STOP = 0.15  # of an executor's stops outlive its leases


@dataclass(frozen=True)
class Deed:
    """at_s: seconds since the epoch; how: kill, stop or term; for_s: how long it was stopped; of: its station where the name does
    not begin with it."""

    at_s: float
    name: str
    how: str
    for_s: float = 0.0
    of: str = ""

    @property
    def station(self) -> str:
        """executor, of executor-2."""
        return self.of or self.name.partition("-")[0]


class Havoc:
    """In a thread of its own until stop(); deeds: what was done.

    Every second blow kills, whom of all in turn, in an order that is drawn; the others are drawn altogether.
    """

    def __init__(self, stage: Stage, seed: int, names: Sequence[str], pause_s: float) -> None:
        """pause_s: between two blows, on average; may be changed."""
        self._stage = stage
        self.pause_s = pause_s
        self._draw = random.Random(f"{seed}/havoc")
        self._names = sorted(names)
        self._weights = [WEIGHTS.get(name, 1.0) for name in self._names]
        self._to_kill: list[str] = []
        self._stop = threading.Event()
        self._stopped: dict[str, float] = {}  # name -> when to let it go on, monotonic
        self._thread = threading.Thread(target=self._run, name="havoc", daemon=True)
        self.deeds: list[Deed] = []

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """No more; what is stopped goes on. Blocks."""
        self._stop.set()
        self._thread.join()
        for name in list(self._stopped):
            self._stage.signal(name, signal.SIGCONT)

    def _run(self) -> None:
        next_at, blows = time.monotonic(), 0
        while not self._stop.wait(0.05):
            now = time.monotonic()
            for name, until in list(self._stopped.items()):
                if until <= now:
                    self._stage.signal(name, signal.SIGCONT)
                    del self._stopped[name]
            if now >= next_at:
                next_at = now + self.pause_s * self._draw.uniform(*PAUSES)
                blows += 1
                if blows % 2:
                    self._kill_the_next()
                else:
                    self._any()

    def _kill_the_next(self) -> None:
        if not self._to_kill:
            self._to_kill = self._draw.sample(self._names, len(self._names))
        if self._to_kill[-1] not in self._stopped and self._do(self._to_kill[-1], "kill"):
            self._to_kill.pop()  # else it was down already: the next time

    def _any(self) -> None:
        (name,) = self._draw.choices(self._names, self._weights)
        how = self._draw.choices(("kill", "stop", "term"), (2, 4, 2))[0]
        long = name.startswith("executor") and self._draw.random() < LONG_STOP
        for_s = LEASE_S * 1.5 if long else self._draw.uniform(*STOPPED_S)
        if name not in self._stopped:
            self._do(name, how, for_s)

    def _do(self, name: str, how: str, for_s: float = 0.0) -> bool:
        """Whether it was there for it."""
        number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[how]
        if name == "postgresql" and how == "term":
            number = signal.SIGINT  # SIGTERM would wait until every client has gone (postgres(1), smart shutdown)
        done = self._stage.signal(name, number)
        if done:
            self.deeds.append(Deed(time.time(), name, how, for_s if how == "stop" else 0.0))
            if how == "stop":
                self._stopped[name] = time.monotonic() + for_s
        return done
