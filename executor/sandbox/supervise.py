"""Watches one run from the hand-over of its job to its death: its words, its log, its memory, its time."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from executor.sandbox import protocol, rlimits
from executor.sandbox.environment import job_environment
from executor.sandbox.job import Access, Job, SandboxLost
from executor.sandbox.mask import mask_of
from executor.sandbox.output import Lines, Output
from executor.sandbox.zygote import Child, Death
from schemas.records import Outcome

CONNECT_S = 30.0
"""From the hand-over to BTrDB's answer."""
DEATH_S = 15.0
QUICK_TICK_S, TICK_S = 0.02, 0.05
CHOKED_S = 0.005
"""A handler that prints beyond its limit is read this seldom: it waits, the executor does not."""


@dataclass
class Observed:
    """What was seen of a run. ended: the child's last word (unchecked); cut: why it was killed, as outcome and text."""

    handed_over_at: float = 0.0
    handed_over_ns: int = 0
    begun_at: float | None = None
    begun_ns: int = 0
    ended_ns: int = 0
    loading: bool = False
    away: str | None = None
    key_refused: str | None = None
    warned: bool = False
    ended: Mapping[str, Any] | None = None
    cut: tuple[Outcome, str] | None = None
    broken: str | None = None
    uploads: list[tuple[Mapping[str, Any], int]] = field(default_factory=list)


class Supervision:
    """One run of one child. watch() blocks until it is dead; doom() from any thread ends it early."""

    def __init__(self, child: Child, job: Job, access: Access, on_output: Callable[[str], bool] | None = None) -> None:
        """on_output: see SandboxedRuntime.run()."""
        self.child = child
        self.job = job
        self.seen = Observed()
        self.output = Output(job.limits.output_bytes)
        self._lines = Lines(mask_of(job.api_key), on_output) if on_output is not None else None
        self._doom: str | None = None
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._to_send = memoryview(_hand_over(job, access, child))
        self._poll = select.poll()
        self._reading_output = False

    def doom(self, why: str) -> None:
        """Ends the run: watch() raises SandboxLost with this reason. Returns at once."""
        with self._lock:
            if self._wake >= 0:
                self._doom = why
                os.eventfd_write(self._wake, 1)

    def watch(self, on_started: Callable[[], None] | None) -> Death:
        """Hands over the job, returns when all processes of the run are dead; never hangs.

        Raises SandboxLost when it was doomed or its zygote died.
        """
        seen, limits = self.seen, self.job.limits
        seen.handed_over_at, seen.handed_over_ns = time.monotonic(), time.time_ns()
        if self.child.watch is not None:
            self.child.watch.begin(limits.memory_bytes)
        self._poll.register(self.child.pidfd, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self.child.channel, select.POLLIN | select.POLLOUT)
        self._listen_to_output()
        kill_at = seen.handed_over_at + limits.wall_s
        warn_at = kill_at - min(limits.warning_s, limits.wall_s / 2)
        tick_at = seen.handed_over_at + QUICK_TICK_S
        try:
            while not self._over():
                now = time.monotonic()
                if now >= tick_at:
                    tick_at = now + (QUICK_TICK_S if now - seen.handed_over_at < 1 else TICK_S)
                    self._look_at_memory()
                    self._look_at_time(now, kill_at, warn_at)
                    continue
                if self._turn(min(tick_at, kill_at) - now, on_started):
                    break
        finally:
            self._look_a_last_time()
            self.child.kill()
            seen.ended_ns = time.time_ns()
        return self._bury(on_started)

    def close(self) -> None:
        """Closes what the run left open, the child too."""
        with self._lock:
            os.close(self._wake)
            self._wake = -1
        for _, descriptor in self.seen.uploads:
            os.close(descriptor)
        self.child.close()

    def _over(self) -> bool:
        seen = self.seen
        finished = seen.ended or seen.cut or seen.broken or seen.away is not None or seen.key_refused is not None
        return bool(finished) or self._doom is not None

    def _turn(self, wait_s: float, on_started: Callable[[], None] | None) -> bool:
        """One wait for events; True when the child is dead."""
        choked = self.output.total > 4 * self.output.limit
        if choked and self._reading_output:
            self._poll.unregister(self.child.output)
            self._reading_output = False
        elif not choked:
            self._listen_to_output()
        events = dict(self._poll.poll(max(0, min(wait_s, CHOKED_S) if choked else wait_s) * 1000))
        if choked or self.child.output in events:
            self._read_output()
        channel = events.get(self.child.channel.fileno(), 0)
        if channel & select.POLLOUT:
            self._send()
        if channel & ~select.POLLOUT:
            self._read_channel(on_started)
        return self.child.pidfd in events

    def _listen_to_output(self) -> None:
        if not self._reading_output:
            self._poll.register(self.child.output, select.POLLIN)
            self._reading_output = True

    def _read_output(self) -> None:
        if not select.select([self.child.output], [], [], 0)[0]:
            return
        data = os.read(self.child.output, 1 << 20)
        if data:
            self.output.add(data)
            if self._lines is not None:
                self._lines.add(data)
        elif self._reading_output:
            # closed by the handler: what is left to wait for comes by the channel
            self._poll.modify(self.child.output, 0)
            self._poll.unregister(self.child.output)
            self._reading_output = True

    def _send(self) -> None:
        try:
            sent = self.child.channel.send(self._to_send[: 1 << 20])
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._to_send)  # it is dying; its pidfd tells
        self._to_send = self._to_send[sent:]
        if not self._to_send:
            self._poll.modify(self.child.channel, select.POLLIN)

    def _read_channel(self, on_started: Callable[[], None] | None) -> None:
        try:
            for message in self.child.reader.read():
                self._take(message, on_started)
        except protocol.Malformed as error:
            self.seen.broken = f"it wrote to the executor's own channel: {error}"
        if self.child.reader.ended:
            self._poll.unregister(self.child.channel)
            if not self._over() and not select.select([self.child.pidfd], [], [], 1.0)[0]:
                self.seen.broken = "it closed the channel by which its result is told"

    def _take(self, message: Mapping[str, Any], on_started: Callable[[], None] | None) -> None:
        """One message; until 'loading' the child runs no user code, later nothing of what stands before is believed."""
        seen, kind = self.seen, message["kind"]
        if seen.ended is not None:
            raise protocol.Malformed("a message after the last")
        if kind in ("away", "key_refused") and not seen.loading:
            text = protocol.text_of(message, "why", 2000)
            if kind == "away":
                seen.away = text
            else:
                seen.key_refused = text
        elif kind == "loading" and not seen.loading:
            seen.loading = True
        elif kind == "begun" and seen.loading and seen.begun_at is None:
            seen.begun_at, seen.begun_ns = time.monotonic(), time.time_ns()
            if on_started is not None:
                on_started()
        elif kind == "upload" and seen.loading and len(seen.uploads) < self.job.limits.uploads:
            seen.uploads.append((message, self.child.reader.take_descriptor()))
        elif kind == "ended" and (seen.loading or message.get("outcome") == "out_of_memory"):
            seen.ended = message
        else:
            raise protocol.Malformed(f"an unexpected {kind[:40]!r}")

    def _look_at_memory(self) -> None:
        limits = self.job.limits
        assert self.child.watch is not None
        held = self.child.watch.sample(limits.memory_bytes, limits.processes)
        if self.seen.ended is not None or self.seen.cut is not None:
            return
        if self.child.watch.killed_by_kernel():
            self.seen.cut = (Outcome.OUT_OF_MEMORY, stopped_by_kernel())
        elif held.total > limits.memory_bytes:
            parts = [f"{_mib(held.anonymous)} in {held.processes} process{'es' if held.processes != 1 else ''}"]
            parts += [f"{_mib(held.scratch)} of files"]
            parts += [f"{_mib(held.buffers)} in sockets"] if held.buffers else []
            text = f"it held {_mib(held.total)} ({', '.join(parts)})"
            self.seen.cut = (Outcome.OUT_OF_MEMORY, text)
        elif held.disk > limits.scratch_bytes:
            text = f"it was killed: it held {_mib(held.disk)} of files; its limit is {_mib(limits.scratch_bytes)}"
            self.seen.cut = (Outcome.CRASHED, text)
        elif held.tasks > limits.processes:
            text = f"it was killed: it had more than {limits.processes} processes and threads, which is its limit"
            self.seen.cut = (Outcome.CRASHED, text)

    def _look_a_last_time(self) -> None:
        """Just before all is killed: what its processes have used until now, those too that nobody will wait for."""
        if self.child.watch is not None and self._doom is None:
            limits = self.job.limits
            self.child.watch.sample(limits.memory_bytes, limits.processes, closely=True)

    def _look_at_time(self, now: float, kill_at: float, warn_at: float) -> None:
        seen, limits = self.seen, self.job.limits
        if now >= kill_at:
            seen.cut = seen.cut or (Outcome.TIMED_OUT, f"it was killed at its time limit of {limits.wall_s:g} s")
        elif now >= warn_at and not seen.warned:
            seen.warned = True
            if limits.warning_s > 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.child.pidfd, signal.SIGXCPU)
        if not seen.loading and now - seen.handed_over_at > CONNECT_S and seen.cut is None:
            seen.away = f"BTrDB did not answer within {CONNECT_S:g} s"

    def _bury(self, on_started: Callable[[], None] | None) -> Death:
        """Waits for the death of all its processes and reads what is left in channel and log."""
        death = self.child.buried(DEATH_S)
        if self._doom is not None:
            raise SandboxLost(self._doom)
        while not self._over() and not self.child.reader.ended:
            if not select.select([self.child.channel], [], [], 0)[0]:
                break
            self._read_late(on_started)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline and select.select([self.child.output], [], [], 0)[0]:
            data = os.read(self.child.output, 1 << 20)
            if not data:
                break
            self.output.add(data)
        return death

    def _read_late(self, on_started: Callable[[], None] | None) -> None:
        try:
            for message in self.child.reader.read():
                self._take(message, on_started)
        except protocol.Malformed as error:
            self.seen.broken = f"it wrote to the executor's own channel: {error}"


def _hand_over(job: Job, access: Access, child: Child) -> bytes:
    limits = job.limits
    body = {
        "kind": "job",
        "arguments": dict(job.arguments),
        "documented": list(job.documented),
        "environment": dict(job_environment(access, job.api_key, child.scratch_path, child.ca_bundle)),
        "api_key": job.api_key,
        "traceparent": job.traceparent,
        "rlimits": dict(rlimits.of_run(limits, counted_alone=not child.kept)),
        "wall_s": limits.wall_s,
        "warning_s": min(limits.warning_s, limits.wall_s / 2),
        "text_limit": limits.text_bytes,
        "upload_limit": limits.uploads,
        "source": job.source,
        "first_line": job.first_line,
        "only_load": job.only_load,
        "packages": job.packages,
        "install": None
        if job.install is None
        else {"requirements": list(job.install.requirements), "environment": dict(job.install.environment)},
    }
    return protocol.frame(body) + protocol.raw_frame(job.blob)


def stopped_by_kernel() -> str:
    """What a run is told whose process the kernel killed."""
    return "the kernel killed one of its processes at its memory limit"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
