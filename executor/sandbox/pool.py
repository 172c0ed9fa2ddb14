"""Children made ready ahead, and the zygote behind them: started anew when it dies, and when it has served long enough."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

import structlog

from executor.sandbox.job import SandboxLost, SandboxUnavailable
from executor.sandbox.recycle import Lifetime
from executor.sandbox.zygote import Child, Zygote

log = structlog.get_logger()

LOOK_S = 1.0
"""Between looks at the zygote's age."""
AGAIN_S = (0.1, 30.0)
"""Waits between attempts to start a zygote: the first and the longest."""


class Pool:
    """Keeps `size` children ready. One thread fills it; take() makes a child itself when there is none."""

    def __init__(
        self,
        start_zygote: Callable[[], Zygote],
        admit: Callable[[Child], None],
        size: int,
        scratch_bytes: int,
        lifetime: Lifetime,
    ) -> None:
        """start_zygote: blocks until one is warm. admit: lets a new child out to BTrDB; returns at once.

        scratch_bytes: of the children made ahead, until a job asks for others. lifetime: of a zygote.
        """
        self._start_zygote = start_zygote
        self._admit = admit
        self._size = size
        self._scratch_bytes = scratch_bytes
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._ready: deque[tuple[Zygote, Child]] = deque()
        self._zygote: Zygote | None = None
        self._lifetime = lifetime
        self._look_at = 0.0
        self._retired: list[Zygote] = []
        self.replaced = 0
        """Zygotes that had served long enough."""
        self._successor: threading.Thread | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._fill_for_ever, name="warm-pool", daemon=True)

    def start(self, zygote: Zygote) -> None:
        """Takes over a started zygote and begins to fill."""
        self._zygote = zygote
        self._thread.start()

    def ready(self) -> int:
        """How many children wait."""
        return len(self._ready)

    def zygote_bytes(self) -> int:
        """Private memory of the zygote; 0 when there is none."""
        zygote = self._zygote
        return 0 if zygote is None or not zygote.alive else zygote.age.held_bytes()

    def take(self, scratch_bytes: int, packages: str = "") -> Child:
        """A child for one run; blocks while one is made. Raises SandboxLost.

        packages: the folder of requirements that it sees; such a child is made for its run alone.
        """
        if packages:
            return self._made(scratch_bytes, packages)
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
        return self._made(scratch_bytes, "")

    def _made(self, scratch_bytes: int, packages: str) -> Child:
        try:
            return self._make(self._alive_zygote(), scratch_bytes, packages)
        except SandboxUnavailable as error:
            raise SandboxLost(str(error)) from error

    def close(self) -> None:
        """Ends the filling, the children that wait and the zygote with all its children."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(30)
        if self._successor is not None:
            self._successor.join(30)
        while self._ready:
            _discard(self._ready.popleft()[1])
        for zygote in [*self._retired, *([] if self._zygote is None else [self._zygote])]:
            zygote.close()

    def _recycle(self) -> None:
        """Has an old zygote replaced by another that is warm before it is used; its children finish, then it ends."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        for zygote in [one for one in self._retired if not one.busy()]:
            self._retired.remove(zygote)
            zygote.close()
        old = self._zygote
        if old is None or not old.alive or (self._successor is not None and self._successor.is_alive()):
            return
        if why := old.age.over(self._lifetime):
            self._successor = threading.Thread(target=self._succeed, args=(old, why), name="successor", daemon=True)
            self._successor.start()

    def _succeed(self, old: Zygote, why: str) -> None:
        try:
            young = self._start_zygote()
        except SandboxUnavailable as error:
            log.warning("an old zygote stays: no other could be started", reason=str(error))
            self._look_at = time.monotonic() + AGAIN_S[1]
            return
        with self._starting:
            if self._zygote is not old:  # it died meanwhile, and has been replaced
                young.close()
                return
            self._zygote = young
        self.replaced += 1
        log.info("zygote replaced", reason=why)
        with self._changed:
            self._retired.append(old)
            self._changed.notify_all()

    def _make(self, zygote: Zygote, scratch_bytes: int, packages: str = "") -> Child:
        child = zygote.spawn(scratch_bytes, packages)
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
                self._changed.wait_for(lambda: self._closed or self._lacking(), LOOK_S)
                if self._closed:
                    return
                lacking = self._lacking()
                scratch_bytes = self._scratch_bytes
            self._recycle()
            if not lacking:
                continue
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
        """Whether a child should be made; the dead are thrown out first, and those of an old zygote when others are there."""
        self._throw_out(lambda zygote, child: not zygote.alive or child.death is not None)
        lacking = sum(zygote is self._zygote for zygote, _ in self._ready) < self._size
        if not lacking:
            self._throw_out(lambda zygote, _: zygote is not self._zygote)
        return lacking

    def _throw_out(self, useless: Callable[[Zygote, Child], bool]) -> None:
        for pair in list(self._ready):
            if useless(*pair):
                self._ready.remove(pair)
                _discard(pair[1])


def _discard(child: Child) -> None:
    child.kill()
    with contextlib.suppress(SandboxLost):
        child.buried(5)
    child.close()
