"""Starts the peers, gives them jobs, stops them: Celery and RQ on a Redis of the bench's own, bubblewrap with a cold interpreter."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VENV = ROOT / ".cache" / "bench-peers"
WORKERS = 2
WARM_UP = 10
"""Jobs of each peer that are not counted: its workers' first."""

CELERY = (
    "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "--concurrency", str(WORKERS), "--loglevel", "ERROR",
    "--without-gossip", "--without-mingle", "--without-heartbeat",
)  # fmt: skip
CELERY_FRESH = (*CELERY, "--max-tasks-per-child", "1")


class Skipped(Exception):
    """A peer that cannot be measured here, and why."""


def prepare() -> None:
    """Makes the peers' environment when their requirements are newer; blocks for a minute the first time."""
    wanted, stamp = HERE / "requirements.txt", VENV / ".installed"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return
    print("• installing the peers into an environment of their own (a minute)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "--require-hashes", "-r", str(wanted)], check=True)
    stamp.write_text(wanted.read_text())


def program(name: str, package: str) -> str:
    """A program of a Debian package, which root installs when it is missing. Raises Skipped saying what to do."""
    if shutil.which(name) is None:
        if os.geteuid() or shutil.which("apt-get") is None:
            raise Skipped(f"{name} is missing; as root on Debian: apt-get install {package}")
        print(f"• {name} is missing: apt-get install {package}", flush=True)
        # RUNLEVEL=1: the package does not start a service of its own
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for arguments in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", package]):
            done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True)
            if done.returncode:
                raise Skipped(f"apt-get {arguments[0]} of {package} failed: {done.stderr.strip()[-200:]}")
    return shutil.which(name) or name


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A Redis that keeps nothing on disk; gives its URL. Raises Skipped."""
    server = program("redis-server", "redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [server, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            _reachable(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(10)


def _reachable(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def queue(kind: str, url: str, commands: Sequence[Sequence[str]], count: int, settings: dict[str, str]) -> float:
    """Jobs a second of workers started by these commands (arguments of the peers' python).

    The jobs are queued before the workers start; what counts is the time between the end of the last job of the warm-up and
    the end of the last of all.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "ignore",
        **settings,
        "BENCH_REDIS": url,
    }
    python = str(VENV / "bin" / "python")
    start: Callable[..., subprocess.Popen[str]] = functools.partial(
        subprocess.Popen, cwd=HERE, env=environment, text=True, start_new_session=True
    )
    client = start([python, "client.py", kind, str(WARM_UP + count)], stdout=subprocess.PIPE)
    assert client.stdout is not None
    workers: list[subprocess.Popen[str]] = []
    try:
        if client.stdout.readline() != "queued\n":
            raise SystemExit(f"the client of {kind} ended before its jobs were queued")
        workers = [start([python, *command], stdout=subprocess.DEVNULL) for command in commands]
        ended: list[float] = sorted(json.loads(client.stdout.readline() or "[]"))
        if kind == "rq":  # its workers end when there are no more jobs
            for worker in workers:
                worker.wait(30)
    finally:
        for process in (client, *workers):
            process.terminate()
        for process in (client, *workers):
            process.wait(30)
    if len(ended) != WARM_UP + count:
        raise SystemExit(f"{kind}: {len(ended)} of {WARM_UP + count} jobs ended")
    return count / (ended[-1] - ended[WARM_UP - 1])


def celery_shared(url: str, count: int, settings: dict[str, str]) -> float:
    """Celery's prefork pool as it comes: two processes that serve all tasks, nothing between one task and the next."""
    return queue("celery", url, [CELERY], count, settings)


def celery_fresh(url: str, count: int, settings: dict[str, str]) -> float:
    """The same pool with a new process for each task."""
    return queue("celery", url, [CELERY_FRESH], count, settings)


def rq(url: str, count: int, settings: dict[str, str]) -> float:
    """Two of RQ's workers, each of which forks for each job."""
    return queue("rq", url, [["rq_worker.py"]] * WORKERS, count, settings)


def bubblewrap(job: bytes, count: int, settings: dict[str, str]) -> float:
    """A cold interpreter for each job, in bubblewrap with all its namespaces; two at a time. Raises Skipped.

    job: a pickled (handler, values).
    """
    command = [
        program("bwrap", "bubblewrap"), "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/",
        "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--clearenv",
    ]  # fmt: skip
    for name, value in settings.items():
        command += ["--setenv", name, value]
    command += [str(VENV / "bin" / "python"), str(HERE / "cold.py")]

    def one(_: int) -> float:
        done = subprocess.run(command, input=job, capture_output=True)
        if done.returncode:
            raise Skipped(f"bwrap: {done.stderr.decode(errors='replace').strip()[-300:]}")
        return time.monotonic()

    with ThreadPoolExecutor(WORKERS) as pool:
        ended = sorted(pool.map(one, range(WORKERS + count)))
    return count / (ended[-1] - ended[WORKERS - 1])
