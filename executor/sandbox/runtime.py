"""The sandbox's front door: a runtime that is started once, runs jobs from many threads, and is closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import structlog

from executor.sandbox import filesystem, outcome, plan
from executor.sandbox.cgroup import Cgroups, NoCgroups, find
from executor.sandbox.index import IndexProxy
from executor.sandbox.job import (
    MIB,
    Access,
    BtrdbAway,
    Ended,
    Job,
    Limits,
    Runtime,
    SandboxLost,
    SandboxUnavailable,
)
from executor.sandbox.levels import LAYERS, LEFT_OUT, Level, at_least, lower, needed, reached
from executor.sandbox.pool import Pool
from executor.sandbox.recycle import Lifetime
from executor.sandbox.relay import Relay
from executor.sandbox.supervise import Supervision
from executor.sandbox.zygote import Child, Zygote

__all__ = [
    "Access",
    "BtrdbAway",
    "Ended",
    "Job",
    "Limits",
    "Runtime",
    "SandboxLost",
    "SandboxUnavailable",
    "SandboxedRuntime",
]

log = structlog.get_logger()

LIFETIME = Lifetime()
DOOMED_S = 60.0
"""How long a kill is remembered for a run that has not come yet."""


class SandboxedRuntime:
    """One runtime with its zygote, its warm children and its relay."""

    def __init__(
        self,
        runtime: Runtime,
        access: Access,
        *,
        warm: int = 2,
        scratch_bytes: int = 512 * MIB,
        lowest: Level = Level.NAMESPACES,
        required: Collection[str] = (),
        scratch_dir: Path | None = None,
        spool: Path | None = None,
        lifetime: Lifetime = LIFETIME,
        cgroups: bool = True,
    ) -> None:
        """warm: children made ready ahead. scratch_bytes: of those, until a job's limits say otherwise.

        lowest: the level below which start() refuses; it takes the strongest that can be had. required: further layers (of
        levels.LAYERS) without which it refuses. scratch_dir: where runs have their folders at level pod. spool: a directory of
        the executor's own for uploaded files, which the caller then deletes; None: only their names and sizes are kept.
        lifetime: of a zygote, after which another takes its place. cgroups: whether the kernel's own limit on memory is sought.
        """
        self.runtime = runtime
        self._access = access
        self._lowest = lowest
        self._required = frozenset(required)
        self._scratch_dir = scratch_dir
        self._tried = Level.NAMESPACES
        self._cgroups: Cgroups | None = None
        self._no_cgroups = "" if cgroups else "switched off by EXECUTOR_CGROUPS"
        self.level = Level.NAMESPACES
        self._spool = spool
        self._relay: Relay | IndexProxy | None = None
        self._pool = Pool(self._start_zygote, self._admit, warm, scratch_bytes, lifetime)
        self._lock = threading.Lock()
        self._running: dict[str, Supervision] = {}
        self._doomed: dict[str, tuple[float, str]] = {}
        self._layers: dict[str, str] = {}
        self._scratch_bytes = scratch_bytes

    @property
    def layers(self) -> Mapping[str, str]:
        """Layer -> 'on', or 'off: ' or 'left out: ' (by the level) and why; filled by start()."""
        return self._layers

    def warm(self) -> int:
        """How many children are ready."""
        return self._pool.ready()

    def zygote_bytes(self) -> int:
        """Private memory of the zygote, in bytes."""
        return self._pool.zygote_bytes()

    def replaced(self) -> int:
        """How many zygotes have been replaced because of their age or growth."""
        return self._pool.replaced

    def start(self) -> None:
        """Starts relay and zygote, tries every layer in a first child, begins to fill the pool; blocks for seconds.

        Raises SandboxUnavailable when the level or a required layer cannot be had, ValueError for an endpoint that is none.
        """
        if unknown := self._required - set(LAYERS):
            raise ValueError(f"no such layers: {', '.join(sorted(unknown))}; there are {', '.join(LAYERS)}")
        if self._access.endpoint is not None:
            host, port = filesystem.split_endpoint(self._access.endpoint)
            self._relay = Relay(host, port) if self._access.index is None else IndexProxy(self._access.index)
            self._relay.start()
        if not self._no_cgroups:
            try:
                self._cgroups = Cgroups(find())
            except NoCgroups as error:
                self._no_cgroups = str(error)
        zygote = self._best_level()
        log.info(
            "sandbox ready",
            runtime=self.runtime.name,
            sandbox_level=str(self.level),
            python=zygote.version,
            imported=zygote.imported,
            huge_mib=zygote.huge_bytes // MIB,
            **self._layers,
        )
        self._pool.start(zygote)

    def _best_level(self) -> Zygote:
        """A zygote at the strongest level that can be had and is not below the lowest allowed."""
        levels = at_least(self._lowest)
        for level in levels:
            try:
                return self._at(level)
            except SandboxUnavailable as error:
                if level is levels[-1]:
                    raise
                log.warning("a stronger level of the sandbox cannot be had", tried=str(level), reason=str(error))
        raise AssertionError("there is at least one level")

    def _at(self, level: Level) -> Zygote:
        """A zygote whose first child stands at the level, with all that is required."""
        self._tried = level
        zygote = Zygote(self.runtime, self._access, level, self._scratch_dir)
        try:
            zygote.start()
            off = {**zygote.off, **self._try_out(zygote)}
            off |= {"cgroup": self._no_cgroups} if self._no_cgroups else {}
            for name in LAYERS:
                if name in off and name in self._required | needed(level, self._lowest):
                    raise SandboxUnavailable(name, off[name], zygote.setting_for(name))
        except SandboxUnavailable as error:
            zygote.close()
            if error.layer in self._required:
                how = f". EXECUTOR_REQUIRED_LAYERS names {error.layer}"
            else:
                how = f". {lower(self._lowest, error.layer)}" if error.layer in LAYERS else ""
            raise SandboxUnavailable(error.layer, error.why, error.setting.rstrip(".") + how) from error
        left_out = LEFT_OUT[level]
        self._layers = {name: f"left out: {left_out[name]}" for name in left_out}
        self._layers |= {name: f"off: {off[name]}" if name in off else "on" for name in LAYERS if name not in left_out}
        self.level = reached(level, [name for name, state in self._layers.items() if state == "on"])
        return zygote

    def _try_out(self, zygote: Zygote) -> Mapping[str, str]:
        """Makes a child as a run would have it. Returns the layers that it could not have, and why."""
        try:
            child = zygote.spawn(self._scratch_bytes)
            self._admit(child)
            child.kill()
            child.buried(10)
            child.close()
        except SandboxLost as error:
            raise SandboxUnavailable(zygote.base, str(error), plan.KERNEL) from error
        return child.off

    def run(
        self,
        job: Job,
        *,
        on_started: Callable[[], None] | None = None,
        on_output: Callable[[str], bool] | None = None,
    ) -> Ended:
        """Runs a job in a child of its own; blocks until all its processes are dead. Many threads may call it at once.

        on_started: called just before the handler's first line. on_output: called with whole lines as they are printed, the key
        masked; says whether it wants more. Neither may block. Raises BtrdbAway, and SandboxLost when it was killed by kill()
        or lost with its zygote; both mean that the run is to be handed back.
        """
        child = self._pool.take(job.limits.scratch_bytes, job.packages)
        supervision = Supervision(child, job, self._access, on_output)
        try:
            with self._lock:
                self._running[job.run_id] = supervision
                at, why = self._doomed.pop(job.run_id, (0.0, ""))
            if why and time.monotonic() - at < DOOMED_S:
                raise SandboxLost(why)
            death = supervision.watch(on_started)
            return outcome.conclude(supervision, death, self._spool)
        finally:
            child.kill()
            with self._lock:
                self._running.pop(job.run_id, None)
            supervision.close()

    def kill(self, run_id: str, why: str) -> None:
        """Ends a run: its run() raises SandboxLost(why). Remembered for a minute when it has not begun; returns at once."""
        with self._lock:
            supervision = self._running.get(run_id)
            if supervision is None:
                now = time.monotonic()
                self._doomed = {k: v for k, v in self._doomed.items() if now - v[0] < DOOMED_S}
                self._doomed[run_id] = (now, why)
                return
        supervision.doom(why)

    def index_away(self) -> str:
        """Why the package index could not be reached by a sandbox for pip; '' when it could."""
        return self._relay.away if isinstance(self._relay, IndexProxy) else ""

    def close(self) -> None:
        """Ends everything: runs that are going on raise SandboxLost; blocks for a moment."""
        with self._lock:
            running = list(self._running.values())
        for supervision in running:
            supervision.doom("the sandbox was closed")
        self._pool.close()
        if self._relay is not None:
            self._relay.close()
        if self._cgroups is not None:
            self._cgroups.close()

    def _admit(self, child: Child) -> None:
        """From now on the child reaches BTrDB: it opens its channel while it waits."""
        if self._relay is not None and child.listener is not None:
            listener, child.listener = child.listener, None
            child.leave.append(self._relay.serve(listener))
        if self._cgroups is not None and child.watch is not None:
            groups, group = self._cgroups, self._cgroups.take()
            child.leave.append(lambda: groups.give_back(group))
            child.watch.join(group)

    def _start_zygote(self) -> Zygote:
        zygote = Zygote(self.runtime, self._access, self._tried, self._scratch_dir)
        zygote.start()
        return zygote
