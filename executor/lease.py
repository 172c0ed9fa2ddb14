"""The leases that this process holds: renewed together, and lost by our own clock before they can end in the ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from executor.ask import Registry
from schemas.errors import TryLater

log = structlog.get_logger()


@dataclass
class Held:
    """One lease: valid_until by this process's monotonic clock, reckoned from before the question was sent."""

    run_id: str
    lease_id: str
    valid_until: float


class Leases:
    """Holds, renews, gives up. lost(run_id, why) is called once for a lease that is gone: what runs under it must be killed."""

    def __init__(
        self,
        registry: Registry,
        boot_id: str,
        executor: str,
        renew_s: float,
        lost: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._boot_id = boot_id
        self._executor = executor
        self._renew_s = renew_s
        self._lost = lost
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._lock = threading.Lock()
        self.lease_s = 0.0  # as the last claim said

    def hold(self, run_id: str, lease_id: str, asked_at: float, lease_s: float) -> bool:
        """Takes a lease into care; False when this process holds it already (a claim that was answered twice)."""
        with self._lock:
            self.lease_s = lease_s
            held = self._held.get(run_id)
            if held is not None and held.lease_id == lease_id:
                return False
            self._held[run_id] = Held(run_id, lease_id, asked_at + lease_s)
            return True

    def holds(self, run_id: str, lease_id: str) -> bool:
        """Whether the lease is still ours, by our own clock."""
        with self._lock:
            held = self._held.get(run_id)
            return held is not None and held.lease_id == lease_id and held.valid_until > self._clock()

    def release(self, run_id: str, lease_id: str) -> None:
        """Forgets a lease: its run is reported or handed back."""
        with self._lock:
            if run_id in self._held and self._held[run_id].lease_id == lease_id:
                del self._held[run_id]

    def run(self, stop: threading.Event) -> None:
        """Renews until stop is set; blocks."""
        self.turn()
        while not stop.wait(min(self._renew_s, max(self.lease_s / 4, 0.1)) if self.lease_s else self._renew_s):
            self.turn()

    def turn(self) -> None:
        """Renews all once, and is heard of even without any; then gives up those that are lost or could end before the next turn."""
        with self._lock:
            held = list(self._held.values())
        asked_at = self._clock()
        try:
            gone: Iterable[str] = self._registry.renew(
                self._boot_id, self._executor, [(h.run_id, h.lease_id) for h in held]
            )
        except TryLater as error:
            log.warning("leases not renewed", reason=error.reason, leases=len(held))
            self._drop(
                [h for h in held if h.valid_until - self._clock() < self._margin()], "its lease could not be renewed"
            )
            return
        lost = set(gone)
        with self._lock:
            for lease in held:
                if lease.run_id not in lost:
                    lease.valid_until = asked_at + self.lease_s
        self._drop([h for h in held if h.run_id in lost], "its lease was lost")

    def _margin(self) -> float:
        """Time in which a child is surely killed and the next turn comes round."""
        return min(self.lease_s / 4, self._renew_s) + 1.0

    def _drop(self, leases: Iterable[Held], why: str) -> None:
        for lease in leases:
            with self._lock:
                if self._held.get(lease.run_id) is not lease:
                    continue
                del self._held[lease.run_id]
            log.warning("lease lost", run_id=lease.run_id, why=why)
            self._lost(lease.run_id, why)
