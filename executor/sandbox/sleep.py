"""A runtime that costs memory only while it is used: started by its first run, ended when it has had none for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from executor.sandbox.job import Ended, Job, SandboxLost, SandboxUnavailable
from executor.sandbox.runtime import SandboxedRuntime

log = structlog.get_logger()


class SleepingRuntime:
    """Looks like a SandboxedRuntime to those who run jobs; a first run waits for its zygote's imports."""

    def __init__(self, name: str, make: Callable[[], SandboxedRuntime], idle_s: float) -> None:
        """make: gives a runtime that is not started. idle_s: without a run for so long, it is ended."""
        self._name = name
        self._make = make
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._runtime = make()
        self._started = False
        self._users = 0
        self._closed = False
        self._timer: threading.Timer | None = None

    @property
    def awake(self) -> bool:
        """Whether there is a zygote."""
        return self._started

    def warm(self) -> int:
        """How many children are ready."""
        return self._runtime.warm() if self._started else 0

    def zygote_bytes(self) -> int:
        """Private memory of the zygote, in bytes; 0 while there is none."""
        return self._runtime.zygote_bytes()

    def run(
        self,
        job: Job,
        *,
        on_started: Callable[[], None] | None = None,
        on_output: Callable[[str], bool] | None = None,
    ) -> Ended:
        """As SandboxedRuntime.run; blocks for seconds longer when it has to be started. Raises the same."""
        with self._awake() as runtime:
            return runtime.run(job, on_started=on_started, on_output=on_output)

    def kill(self, run_id: str, why: str) -> None:
        """As SandboxedRuntime.kill, also for a run that waits for the start."""
        self._runtime.kill(run_id, why)

    def close(self) -> None:
        """Ends it for good; blocks for a moment."""
        with self._lock:
            self._closed = True
            self._cancel()
            self._end()

    @contextmanager
    def _awake(self) -> Iterator[SandboxedRuntime]:
        with self._lock:
            if self._closed:
                raise SandboxLost("the sandbox was closed")
            self._cancel()
            if not self._started:
                try:
                    self._runtime.start()
                except SandboxUnavailable as error:
                    self._runtime = self._make()
                    raise SandboxLost(str(error)) from error
                self._started = True
            self._users += 1
            runtime = self._runtime
        try:
            yield runtime
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and not self._closed:
                    self._timer = threading.Timer(self._idle_s, self._doze)
                    self._timer.daemon = True
                    self._timer.start()

    def _doze(self) -> None:
        with self._lock:
            if self._users or self._closed:
                return
            log.info("runtime put to sleep", runtime=self._name, idle_s=self._idle_s)
            self._end()
            self._runtime = self._make()

    def _end(self) -> None:
        if self._started:
            self._runtime.close()
        self._started = False

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
