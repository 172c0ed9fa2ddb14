"""make up and make down: the stack in the background, found again by its pid file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from devstack import kafka, tell
from devstack.stack import ROOT, Stack

START_S = 120.0
STOP_S = 60.0


class NotUp(Exception):
    """The stack did not come up, or would not go down."""


def supervise(state: Path) -> int:
    """Runs the stack in the foreground until SIGTERM or Ctrl-C."""
    stack = Stack(state, apart=True)
    try:
        stack.start(tell.progress)
        print("ready", flush=True)
        stack.supervisor.run_forever()
    finally:
        stack.stop()
    return 0


def bring_up(state: Path) -> int:
    """Starts the stack in the background, waits until it answers, prints how to use it. Raises NotUp."""
    state.mkdir(parents=True, exist_ok=True)
    with _alone(state):
        return _bring_up(state)


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Nobody else is bringing this stack up meanwhile; the lock goes with the process, however that ends. Raises NotUp."""
    with (state / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotUp(f"another make up is starting the stack in {state} just now; wait until it is done") from None
        yield


def _bring_up(state: Path) -> int:
    pid = running(state)
    if pid is None:
        kafka.fetch(tell.progress)
        (state / "env").unlink(missing_ok=True)
        log = state / "supervisor.log"
        with log.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "devstack", "--state", str(state), "supervise"],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _follow(child, log)
        except BaseException:  # Ctrl-C too: what was begun here does not go on by itself
            child.terminate()
            child.wait(STOP_S)
            raise
    else:
        tell.progress(f"the stack is up already (supervisor pid {pid})")
        if not (state / "env").exists():
            raise NotUp(f"but it is still starting; look into {state / 'supervisor.log'}, or try again shortly")
    tell.endpoints((state / "env").read_text(), state)
    return 0


def _follow(child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    with log.open() as lines:
        while time.monotonic() < deadline:
            line = lines.readline().rstrip("\n")
            if line == "ready":
                return
            if line:
                print(line, flush=True)
            elif child.poll() is not None:
                raise NotUp(f"the stack did not start; its log is {log}\n{log.read_text()[-2000:]}")
            else:
                time.sleep(0.05)
    raise NotUp(f"the stack was not ready within {START_S:.0f} s; its log is {log}")


def bring_down(state: Path) -> int:
    """Stops the stack that runs under this folder; its data stays. Raises NotUp when it does not end."""
    pid = running(state)
    if pid is None:
        tell.progress("no stack is up")
        return 0
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while running(state) is not None:
        if time.monotonic() > deadline:
            raise NotUp(f"the supervisor (pid {pid}) did not end within {STOP_S:.0f} s")
        time.sleep(0.05)
    tell.progress("the stack is down; its data stays in " + str(state))
    return 0


def running(state: Path) -> int | None:
    """The pid of the supervisor under this folder, when it lives."""
    file = state / "pids" / "supervisor.pid"
    try:
        pid = int(file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        dead = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, ValueError):
        return None
    return pid if b"devstack" in command and not dead else None
