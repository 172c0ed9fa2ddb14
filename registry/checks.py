"""Handlers that are being registered, on their way to an executor that loads them in its sandbox and says whether they load.

In this process's memory: a check lives for the few seconds in which a registration waits for it. Where several registries stand
behind one address and the executors of a runtime ask others, a check goes through the ledger, by Elsewhere.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from threading import Condition

from ledger import Ledger, load_checks
from ledger.executors import served
from ledger.load_checks import Verdict
from ledger.rules import Rules
from schemas.errors import TryLater

POLL_S = 25.0
"""An executor's question is answered after so long, with nothing if need be."""
BETWEEN_S = 5.0
"""One whose poll ended so long ago still counts as there: it is about to ask again, or at work on another check."""
BUSY_S = 2.0
LOOK_S = 0.5
"""Between two looks into the ledger for checks that were asked at another registry."""


@dataclass(eq=False)
class Asked:
    """One check. taken: an executor has it."""

    runtime: str
    hook: str
    blob: bytes = field(repr=False)
    requirements: tuple[str, ...] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    taken: bool = False
    told: Verdict | None = None


class Elsewhere:
    """The way to executors that ask other registries: the ledger."""

    def __init__(self, ledger: Ledger, rules: Rules) -> None:
        self._ledger = ledger
        self._rules = rules
        self._next_look = 0.0

    def ask(self, asked: Asked, wait_s: float) -> Verdict:
        """As Checks.ask; polls the ledger meanwhile. Blocks."""
        with self._ledger.read() as session:
            if not served(session, asked.runtime, self._rules):
                return Verdict(None, f"no executor of {asked.runtime} is there now")
        check = load_checks.LoadCheck(asked.id, asked.runtime, asked.hook, asked.blob, asked.requirements)
        with self._ledger.write() as session:
            load_checks.ask(session, check)
        found = None
        until = time.monotonic() + wait_s
        while found is None and time.monotonic() < until:
            time.sleep(LOOK_S / 2)
            with self._ledger.read() as session:
                found = load_checks.verdict(session, asked.id)
        with self._ledger.write() as session:
            load_checks.withdraw(session, asked.id)
        return found or Verdict(None, f"no executor answered within {wait_s:g} s")

    def take(self, runtimes: Collection[str]) -> Asked | None:
        """One that was asked at another registry; looks every LOOK_S, however many executors poll. Raises TryLater."""
        if time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + LOOK_S
        with self._ledger.read() as session:
            if not load_checks.waiting(session, runtimes):
                return None
        with self._ledger.write() as session:
            check = load_checks.take(session, runtimes)
        if check is None:
            return None
        return Asked(check.runtime, check.hook, check.blob, check.requirements, check.id, taken=True)

    def answer(self, check_id: str, told: Verdict) -> None:
        """What an executor found for another registry. Raises TryLater."""
        with self._ledger.write() as session:
            load_checks.answer(session, check_id, told)


class Checks:
    """Between the threads of users' calls, which ask, and those of executors' calls, which answer."""

    def __init__(self, wait_s: float, at_once: int, elsewhere: Elsewhere | None = None) -> None:
        """wait_s: the longest that a registration waits, 0: it never does; at_once: threads that may wait, on either side.

        elsewhere: the way to other registries' executors, where there may be others.
        """
        self._elsewhere = elsewhere
        self._wait_s = wait_s
        self._at_once = at_once
        self._changed = Condition()
        self._asked: dict[str, Asked] = {}
        self._polls = 0
        self._seen: dict[str, float] = {}  # runtime -> until when an executor of it counts as there
        self._closed = False

    def ask(self, runtime: str, hook: str, blob: bytes, requirements: tuple[str, ...] = ()) -> Verdict:
        """Whether it loads in that runtime; blocks for wait_s at most."""
        if not self._wait_s:
            return Verdict(None, "this installation does not check")
        if not self._has(runtime) and self._elsewhere is not None:
            try:
                return self._elsewhere.ask(Asked(runtime, hook, blob, requirements), self._wait_s)
            except TryLater as error:
                return Verdict(None, error.reason)
        with self._changed:
            if not self._has(runtime):
                return Verdict(None, f"no executor of {runtime} is there now")
            if len(self._asked) >= self._at_once:
                return Verdict(None, "too many handlers are being registered")
            asked = Asked(runtime, hook, blob, requirements)
            self._asked[asked.id] = asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: asked.told is not None or self._closed, self._wait_s)
            del self._asked[asked.id]
        return asked.told or Verdict(None, f"no executor answered within {self._wait_s:g} s")

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
                return self._wait(runtimes, time.monotonic() + wait_s), 0.0
            finally:
                self._polls -= 1
                self._present(runtimes, BETWEEN_S)

    def answer(self, check_id: str, told: Verdict) -> None:
        """What an executor found; nothing happens when the registration waits no more."""
        with self._changed:
            asked = self._asked.get(check_id)
            if asked is not None:
                asked.told = told
                self._changed.notify_all()
        if asked is None and self._elsewhere is not None:
            self._elsewhere.answer(check_id, told)

    def close(self) -> None:
        """Lets all go who wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has(self, runtime: str) -> bool:
        """Whether an executor of the runtime asks here."""
        return self._seen.get(runtime, 0.0) >= time.monotonic()

    def _wait(self, runtimes: Collection[str], until: float) -> Asked | None:
        """The next check of these runtimes, of ours or another registry; None when the time is over. Called under the lock."""
        while True:
            left = until - time.monotonic()
            pause = left if self._elsewhere is None else min(left, LOOK_S)
            self._changed.wait_for(lambda: self._closed or self._waiting(runtimes) is not None, max(0.0, pause))
            mine = self._next(runtimes)
            if mine is not None or self._closed or left <= 0:
                return mine
            if self._elsewhere is not None:
                self._changed.release()
                try:
                    theirs = self._elsewhere.take(runtimes)
                finally:
                    self._changed.acquire()
                if theirs is not None:
                    return theirs

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
