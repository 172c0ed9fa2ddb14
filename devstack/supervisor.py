"""Starts processes in order, starts each again when it dies or hangs, ends them all with itself, however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

READY_S = 90.0
GRACE_S = 15.0
LONGEST_WAIT_S = 5.0
LIVED_WELL_S = 10.0
LOOK_S = 0.05
PROBE_S = 5.0  # between two questions whether a process is alive; as Kubernetes asks, three bad answers in a row end it
BAD_ANSWERS = 3
LOG_LINES = 15

PR_SET_PDEATHSIG = 1  # prctl(2)
_libc = ctypes.CDLL(None, use_errno=True)

Progress = Callable[[str], None]


class StartFailed(Exception):
    """A process did not become ready; the text has its name, what became of it and the end of its log."""


@dataclass(frozen=True)
class Process:
    """One process to keep running. env: all of its environment; ready(): whether it answers by now; cheap, does not raise.

    alive(): whether it is well, asked every few seconds; blocks shortly, does not raise. One that is not, three times in a row,
    is killed and started again. None: whoever runs is well.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: Callable[[], bool] = lambda: True
    cwd: Path | None = None
    alive: Callable[[], bool] | None = None


class _Kept:
    def __init__(self, process: Process) -> None:
        self.process = process
        self.child: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.wait_s = 0.0
        self.start_after = 0.0
        self.down = False


class Supervisor:
    """Keeps processes under a state folder: pids/<name>.pid, pids/supervisor.pid and logs/<name>.log.

    All children are forked by one thread that lives as long as the supervisor: the kernel sends them SIGKILL when that thread
    is gone (PR_SET_PDEATHSIG is bound to the forking thread), so not even kill -9 of this process leaves one behind.
    """

    def __init__(self, state: Path, probe_s: float = PROBE_S) -> None:
        """state: made when it is missing; probe_s: between two questions whether a process is alive."""
        self._state = state
        self._kept: list[_Kept] = []
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._probe_s = probe_s
        self._progress: Progress = lambda text: None

    def add(self, process: Process) -> None:
        """Before start(): one more process. All are started at once: each waits by itself for what it needs, as it must at any time."""
        self._kept.append(_Kept(process))

    def start(self, progress: Progress) -> None:
        """Starts all, waits until each is ready; blocks. Raises StartFailed, with all of them stopped again."""
        for folder in ("pids", "logs"):
            (self._state / folder).mkdir(parents=True, exist_ok=True)
        self._pid_file("supervisor").write_text(str(os.getpid()))
        self._progress = progress
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self._thread.start()
        self._up.wait()
        if self._failure is not None:
            self.stop()
            raise self._failure
        threading.Thread(target=self._probe, name="probe", daemon=True).start()

    def take_down(self, name: str) -> None:
        """Kills the process (SIGKILL) and leaves it down until bring_back(). Raises KeyError for a name that is none."""
        kept = {kept.process.name: kept for kept in self._kept}[name]
        kept.down = True
        if kept.child is not None:
            kept.child.kill()

    def bring_back(self, name: str) -> None:
        """Ends take_down(): it is started again soon. Raises KeyError for a name that is none."""
        kept = {kept.process.name: kept for kept in self._kept}[name]
        kept.wait_s = kept.start_after = 0.0
        kept.down = False

    def run_forever(self) -> None:
        """Blocks until SIGTERM, SIGINT or SIGHUP, then stops all. For the main thread."""
        asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: asked.set())
        while not asked.wait(1.0):
            if self._failure is not None:
                break
        self.stop()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ends every process, the last started first: SIGTERM, SIGKILL after a grace; blocks until they are gone."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._pid_file("supervisor").unlink(missing_ok=True)

    def _keep(self) -> None:
        try:
            for kept in self._kept:
                self._fork(kept)
            for kept in self._kept:
                self._await(kept)
            self._up.set()
            while not self._stopping.wait(LOOK_S):
                for kept in self._kept:
                    self._look_after(kept)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits in start() or run_forever()
            self._failure = error
        finally:
            self._up.set()
            for kept in reversed(self._kept):
                self._end(kept)

    def _await(self, kept: _Kept) -> None:
        name, began = kept.process.name, kept.started_at
        while not kept.process.ready():
            assert kept.child is not None
            if self._stopping.is_set():
                raise StartFailed("stopped while starting")
            if kept.child.poll() is not None:
                raise StartFailed(
                    f"{name} ended with exit code {kept.child.returncode} while starting.\n{self._log_end(name)}"
                )
            if time.monotonic() - began > READY_S:
                raise StartFailed(f"{name} was not ready within {READY_S:.0f} s.\n{self._log_end(name)}")
            time.sleep(LOOK_S)
        self._progress(f"{name} is up ({time.monotonic() - began:.1f} s)")

    def _look_after(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.child is None:
            if now >= kept.start_after and not kept.down:
                self._fork(kept)
            return
        if kept.child.poll() is None:
            if kept.down:  # it was just being started when it was to be taken down
                kept.child.kill()
            return
        lived_well = now - kept.started_at > LIVED_WELL_S
        kept.wait_s = 0.0 if lived_well else min(max(kept.wait_s * 2, 0.25), LONGEST_WAIT_S)
        kept.start_after = now + kept.wait_s
        _close_stdin(kept.child)
        with self._log(kept.process.name) as log:
            log.write(f"--- ended with {kept.child.returncode}; started again in {kept.wait_s:.2f} s\n".encode())
        kept.child = None
        if kept.wait_s == 0.0 and not kept.down:
            self._fork(kept)

    def _probe(self) -> None:
        """Kills what does not answer that it is alive; _look_after then starts it again."""
        bad: dict[int, int] = {}
        while not self._stopping.wait(self._probe_s):
            for kept in self._kept:
                child, alive = kept.child, kept.process.alive
                if child is None or alive is None or alive():
                    bad = {pid: count for pid, count in bad.items() if child is None or pid != child.pid}
                    continue
                bad[child.pid] = bad.get(child.pid, 0) + 1
                if bad[child.pid] >= BAD_ANSWERS and not self._stopping.is_set():
                    with self._log(kept.process.name) as log:
                        log.write(b"--- not alive; killed\n")
                    child.kill()
                    bad.pop(child.pid)

    def _fork(self, kept: _Kept) -> None:
        process = kept.process
        parent = os.getpid()

        def die_with_the_supervisor() -> None:
            signal.signal(
                signal.SIGINT, signal.SIG_IGN
            )  # drops a Ctrl-C that came before this child had its own session
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died in between
                os.kill(os.getpid(), signal.SIGKILL)

        # Else a Ctrl-C in the child between fork and setsid would be a KeyboardInterrupt in Python's own code there.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with contextlib.ExitStack() as stack:
            stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, unblocked)
            log = stack.enter_context(self._log(process.name))
            kept.child = subprocess.Popen(
                list(process.argv),
                env=dict(process.env),
                cwd=process.cwd,
                stdin=subprocess.PIPE,  # open as long as the supervisor lives: what runs in a container ends when it ends
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the supervisor
                preexec_fn=die_with_the_supervisor,
            )
        kept.started_at = time.monotonic()
        fresh = self._pid_file(process.name).with_suffix(".new")
        fresh.write_text(str(kept.child.pid))
        fresh.replace(self._pid_file(process.name))

    def _end(self, kept: _Kept) -> None:
        child = kept.child
        if child is not None and child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE_S)
            if child.poll() is None:
                child.kill()
                child.wait()
        if child is not None:
            _close_stdin(child)
        self._pid_file(kept.process.name).unlink(missing_ok=True)

    def _pid_file(self, name: str) -> Path:
        return self._state / "pids" / f"{name}.pid"

    @contextlib.contextmanager
    def _log(self, name: str) -> Iterator[BinaryIO]:
        with (self._state / "logs" / f"{name}.log").open("ab") as file:
            yield file

    def _log_end(self, name: str) -> str:
        path = self._state / "logs" / f"{name}.log"
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join([f"The end of {path}:", *("  " + line for line in lines)])


def _close_stdin(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
