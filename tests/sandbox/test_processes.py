"""What a handler can see, signal and outlive: its own processes, and nothing of theirs remains."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from executor.sandbox.job import Ended
from schemas.records import Outcome

from .conftest import Stands
from .sandboxes import Attack, everywhere, weaknesses

FENCE = ("fence with Landlock",)
FILTER = ("filter system calls",)
KEEPERS_FENCE = "fence the keeper's signals"


def lists_all_processes(**kwargs: Any) -> str:
    import os

    strangers = [int(n) for n in os.listdir("/proc") if n.isdigit() and int(n) != os.getpid()]
    return f"reached {strangers[:3]}" if strangers else "none"


def signals_the_executor(File: str) -> str:
    import json
    import os

    os.kill(json.loads(File)["executor"], 0)
    return "reached"


def signals_its_parent(**kwargs: Any) -> str:
    import os

    if os.getppid() == 0:
        raise ProcessLookupError
    os.kill(os.getppid(), 0)
    return "reached"


def signals_the_executor_by_descriptor(File: str) -> str:
    import ctypes
    import json
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(434, json.loads(File)["executor"], 0)
    if descriptor < 0 or libc.syscall(424, descriptor, 0, None, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "reached"


def limits_the_executor(File: str) -> str:
    """Reads a limit here; it could set one."""
    import json
    import resource

    resource.prlimit(json.loads(File)["executor"], resource.RLIMIT_NOFILE)
    return "reached"


def slows_down_the_executor(File: str) -> str:
    """To a niceness that it has already here."""
    import json
    import os

    executor = json.loads(File)["executor"]
    os.setpriority(os.PRIO_PROCESS, executor, os.getpriority(os.PRIO_PROCESS, executor))
    return "reached"


def pins_the_executor(File: str) -> str:
    """To the processors that it has already here."""
    import json
    import os

    executor = json.loads(File)["executor"]
    os.sched_setaffinity(executor, os.sched_getaffinity(executor))
    return "reached"


def comes_before_others(File: str) -> str:
    import json
    import os

    executors = json.loads(File)["niceness"]
    if os.getpriority(os.PRIO_PROCESS, 0) > executors:
        os.setpriority(os.PRIO_PROCESS, 0, executors)
    return "reached"


ATTACKS = [
    Attack(lists_all_processes, ("mount a fresh proc", "fence with Landlock"), FENCE),
    Attack(signals_the_executor, None, (*FENCE, KEEPERS_FENCE)),
    Attack(signals_its_parent, None, (*FENCE, KEEPERS_FENCE)),
    Attack(signals_the_executor_by_descriptor, None, (*FENCE, KEEPERS_FENCE)),
    Attack(limits_the_executor, None, FILTER),
    Attack(slows_down_the_executor, None, FILTER),
    Attack(pins_the_executor, None, FILTER),
    Attack(comes_before_others, ("begin a session",), ("begin a session",)),
]


@pytest.mark.parametrize("attack, level", everywhere(ATTACKS))
def test_no_process_but_its_own_can_be_seen_or_touched(stands: Stands, attack: Attack, level: str) -> None:
    stands.holds(attack, level)


@pytest.mark.parametrize("attack, level, without", weaknesses(ATTACKS))
def test_other_processes_are_open_without_the_step(
    stands: Stands, attack: Attack, level: str, without: tuple[str, ...]
) -> None:
    stands.lets_through(attack, level, without)


def named(marker: str) -> list[int]:
    """The processes of this machine that bear a name. Zombies are dead."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
            text = file.read()
            if f"({marker})" in text and text.rpartition(")")[2].split()[0] != "Z":
                found.append(int(pid))
    return found


@pytest.fixture
def marker() -> Iterator[str]:
    """A name for the processes that a test's attack leaves; what still bears it at the end is ended."""
    name = f"left-{os.getpid()}-{time.monotonic_ns() % 10000}"[:15]
    yield name
    for pid in named(name):
        os.kill(pid, signal.SIGKILL)


def leaving(marker: str, how: str) -> Callable[..., str]:
    """A handler that leaves a process of that name behind, in one of the ways of daemons."""

    def handler(**kwargs: Any) -> str:
        import ctypes
        import os
        import signal
        import threading
        import time

        asks, asked = os.pipe()

        def stay() -> None:
            ctypes.CDLL(None).prctl(15, marker.encode(), 0, 0, 0)
            os.write(asked, b"x")
            while True:
                time.sleep(0.01)

        if how == "a thread":
            threading.Thread(target=stay, daemon=True).start()
        elif os.fork() == 0:
            if how != "a child":
                os.setsid()
                if os.fork():
                    os._exit(0)
            if how == "deaf to signals":
                for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                    signal.signal(number, signal.SIG_IGN)
            if how == "stopped":
                os.write(asked, b"x")
                ctypes.CDLL(None).prctl(15, marker.encode(), 0, 0, 0)
                os.kill(os.getpid(), signal.SIGSTOP)
            stay()
        os.read(asks, 1)
        if how not in ("a child", "a thread"):
            os.wait()
        return "left one behind"

    return handler


WAYS = ["a child", "a daemon", "deaf to signals", "stopped", "a thread"]


@pytest.mark.parametrize("how", WAYS)
def test_nothing_outlives_its_run(stands: Stands, level: str, how: str, marker: str) -> None:
    ended = stands.run(level, leaving(marker, how))

    assert ended.text == "left one behind", ended
    assert named(marker) == []


def test_a_daemon_outlives_its_run_without_the_keeper(stands: Stands, marker: str) -> None:
    ended = stands.run("pod", leaving(marker, "deaf to signals"), ("adopt orphans", KEEPERS_FENCE))

    assert ended.text == "left one behind"
    assert named(marker) != []


@pytest.mark.parametrize("how", ["a daemon", "deaf to signals"])
def test_nothing_outlives_a_run_that_is_killed(stands: Stands, level: str, how: str, marker: str) -> None:
    leave = leaving(marker, how)

    def handler(**kwargs: Any) -> None:
        import time

        leave()
        time.sleep(3600)

    ended = stands.run(level, handler, wall_s=1.0, warning_s=0.0)

    assert ended.outcome is Outcome.TIMED_OUT
    assert named(marker) == []


def test_a_fork_bomb_is_ended_whole(stands: Stands, level: str, marker: str) -> None:
    # given: processes that do nothing but fork, so that there are always some that were not yet seen
    def handler(**kwargs: Any) -> None:
        import ctypes
        import os
        import time

        ctypes.CDLL(None).prctl(15, marker.encode(), 0, 0, 0)
        until = time.monotonic() + 3.0  # no longer, should nothing hold it
        while time.monotonic() < until:
            try:
                if os.fork() == 0:
                    os.setsid()
            except OSError:
                time.sleep(0.01)

    ended = stands.run(level, handler, wall_s=1.5, warning_s=0.0, processes=24)

    assert ended.outcome in (Outcome.TIMED_OUT, Outcome.CRASHED), ended
    if level == "pod":
        assert ended.error is not None and "more than 24 processes" in ended.error.message
    assert named(marker) == []


def test_a_handler_can_end_the_processes_that_it_made(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> str:
        import multiprocessing
        import subprocess
        import time

        sleeper = subprocess.Popen(["/bin/sleep", "3600"])
        sleeper.terminate()
        codes: set[int | None] = {sleeper.wait()}
        for _ in range(50):  # at once: a Python handler of SIGTERM would lose what comes during the fork
            worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
            worker.start()
            worker.terminate()
            worker.join()
            codes.add(worker.exitcode)
        return str(codes)

    ended = stands.run(level, handler)

    assert ended.text == "{-15}", ended
    assert not ended.log


def test_ordinary_tools_work(stands: Stands, level: str) -> None:
    # given: a pool's locks are files of /dev/shm, which at level pod is everybody's
    processes = 2 if level == "full" else 0

    def handler(**kwargs: Any) -> str:
        import multiprocessing
        import subprocess
        import sys
        import tempfile

        import numpy
        import pandas

        with tempfile.NamedTemporaryFile("w") as file:
            file.write("x")
        out = subprocess.run(["/bin/echo", "child"], capture_output=True, text=True, check=True).stdout.strip()
        code = "import numpy; print(numpy.arange(4).sum())"
        python = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        squares = [1, 2]
        if processes:
            with multiprocessing.get_context("fork").Pool(processes) as pool:
                squares = pool.map(abs, [-1, -2])
        frame = pandas.DataFrame({"a": numpy.arange(3)}).to_csv()
        return f"{out} {python} {squares} {len(frame)}"

    ended = stands.run(level, handler)

    assert ended.text == "child 6 [1, 2] 15", ended


def test_no_capability_and_no_user_of_the_host_is_left(run: Callable[..., Ended]) -> None:
    def handler(**kwargs: Any) -> str:
        with open("/proc/self/status") as file:
            status = dict(line.rstrip("\n").split(":\t") for line in file if ":\t" in line)
        names = ("Uid", "CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
        return " ".join(status[name].split()[0] for name in names)

    zero = "0" * 16
    assert run(handler).text == f"65534 {zero} {zero} {zero} {zero} 1 2"
