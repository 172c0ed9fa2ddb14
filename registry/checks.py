"""Handlers that are being registered, on their way to an executor that loads them in its sandbox and says whether they load.

In this process's memory: a check lives for the few seconds in which a registration waits for it. Where several registries stand
behind one address, a registration at one with no executor's poll is accepted unchecked.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from threading import Condition

POLL_S = 25.0
"""An executor's question is answered after so long, with nothing if need be."""
BETWEEN_S = 5.0
"""One whose poll ended so long ago still counts as there: it is about to ask again, or at work on another check."""
BUSY_S = 2.0


@dataclass(frozen=True)
class Told:
    """An executor's answer. loads: None when its sandbox could not say. lacking: modules it will miss when it is called."""

    loads: bool | None
    text: str
    lacking: tuple[str, ...] = ()


@dataclass(eq=False)
class Asked:
    """One check. taken: an executor has it."""

    runtime: str
    hook: str
    blob: bytes = field(repr=False)
    requirements: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    taken: bool = False
    told: Told | None = None


class Checks:
    """Between the threads of users' calls, which ask, and those of executors' calls, which answer."""

    def __init__(self, wait_s: float, at_once: int) -> None:
        """wait_s: the longest that a registration waits, 0: it never does; at_once: threads that may wait, on either side."""
        self._wait_s = wait_s
        self._at_once = at_once
        self._changed = Condition()
        self._asked: dict[str, Asked] = {}
        self._polls = 0
        self._seen: dict[str, float] = {}  # runtime -> until when an executor of it counts as there
        self._closed = False

    def ask(self, runtime: str, hook: str, blob: bytes, requirements: tuple[str, ...] = ()) -> Told:
        """Whether it loads in that runtime; blocks for wait_s at most."""
        if not self._wait_s:
            return Told(None, "this installation does not check")
        with self._changed:
            if self._seen.get(runtime, 0.0) < time.monotonic():
                return Told(None, f"no executor of {runtime} is there now")
            if len(self._asked) >= self._at_once:
                return Told(None, "too many handlers are being registered")
            asked = Asked(runtime, hook, blob, requirements)
            self._asked[asked.id] = asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: asked.told is not None or self._closed, self._wait_s)
            del self._asked[asked.id]
        return asked.told or Told(None, f"no executor answered within {self._wait_s:g} s")

    def take(self, runtimes: Collection[str], wait_s: float) -> tuple[Asked | None, float]:
        """The next check of these runtimes, or None and after how many seconds to ask again; blocks for wait_s at most."""
        wait_s = max(0.0, min(wait_s, POLL_S))
        with self._changed:
            if self._polls >= self._at_once or self._closed:
                self._present(runtimes, BUSY_S + BETWEEN_S)
                return self._next(runtimes), BUSY_S
            self._present(runtimes, wait_s + BETWEEN_S)
            self._polls += 1
            try:
                self._changed.wait_for(lambda: self._closed or self._waiting(runtimes) is not None, wait_s)
                return self._next(runtimes), 0.0
            finally:
                self._polls -= 1
                self._present(runtimes, BETWEEN_S)

    def answer(self, check_id: str, told: Told) -> None:
        """What an executor found; nothing happens when the registration waits no more."""
        with self._changed:
            asked = self._asked.get(check_id)
            if asked is not None:
                asked.told = told
                self._changed.notify_all()

    def close(self) -> None:
        """Lets all go who wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _present(self, runtimes: Collection[str], for_s: float) -> None:
        for runtime in runtimes:
            self._seen[runtime] = time.monotonic() + for_s

    def _waiting(self, runtimes: Collection[str]) -> Asked | None:
        return next((one for one in self._asked.values() if not one.taken and one.runtime in runtimes), None)

    def _next(self, runtimes: Collection[str]) -> Asked | None:
        asked = self._waiting(runtimes)
        if asked is not None:
            asked.taken = True
        return asked
