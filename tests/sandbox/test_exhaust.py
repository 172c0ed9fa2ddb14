"""What a handler can use up: its own share of files, processes, descriptors, output and time; and the cause is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executor.sandbox.job import MIB, Ended
from executor.sandbox.plan import NICENESS
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome

from .conftest import Stands, in_thread, make_job

Run = Callable[..., Ended]


def test_a_scratch_is_full_at_its_limit(run: Run) -> None:
    def handler(**kwargs: Any) -> None:
        for number in range(100):
            with open(f"/tmp/{number}", "wb") as file:
                file.write(b"x" * (1 << 20))

    ended = run(handler, scratch_bytes=16 * MIB)

    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None and ended.error.type == "OSError" and "No space" in ended.error.message
    assert run(handler, scratch_bytes=128 * MIB).outcome is Outcome.SUCCEEDED


def test_there_are_only_so_many_files(run: Run) -> None:
    def handler(**kwargs: Any) -> int:
        number = 0
        try:
            while number < 100_000:
                os.mkdir(f"/tmp/{number}")
                number += 1
        except OSError:
            pass
        return number

    few, more = run(handler, scratch_bytes=16 * MIB).text, run(handler, scratch_bytes=64 * MIB).text

    assert 1000 < int(few) <= 2048 < int(more) <= 8192


def test_processes_are_limited(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import os
        import time

        children = 0
        try:
            for _ in range(40):
                if os.fork() == 0:
                    time.sleep(3600)
                    os._exit(0)
                children += 1
        except BlockingIOError:
            return str(children)
        return "no limit"

    assert run(handler, processes=16, memory_bytes=2048 * MIB).text == "15"
    assert run(handler, processes=64, memory_bytes=2048 * MIB).text == "no limit"


def test_without_a_namespace_processes_are_counted_from_outside(stands: Stands) -> None:
    def handler(**kwargs: Any) -> None:
        import os
        import time

        for _ in range(24):
            if os.fork() == 0:
                time.sleep(3600)
        time.sleep(3600)

    ended = stands.run("pod", handler, processes=16, memory_bytes=2048 * MIB)

    assert ended.outcome is Outcome.CRASHED
    assert ended.error is not None and "more than 16 processes and threads" in ended.error.message


def test_descriptors_are_limited(stands: Stands, level: str) -> None:
    ended = stands.run(level, lambda **kwargs: [open("/dev/null") for _ in range(1000)])  # noqa: SIM115

    assert ended.error is not None and "Too many open files" in ended.error.message


def test_a_flood_of_output_is_cut_to_head_and_tail(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> str:
        print("the beginning")
        for _ in range(4000):
            print("x" * 1000)
        print("the end")
        return "done"

    ended = stands.run(level, handler, output_bytes=64 * 1024)

    assert (ended.outcome, ended.text) == (Outcome.SUCCEEDED, "done")
    assert ended.log_truncated and "bytes left out" in ended.log
    assert ended.log.startswith("the beginning\n") and ended.log.endswith("the end\n")
    assert len(ended.log) < 70 * 1024


def test_an_endless_flood_ends_with_its_time(stands: Stands) -> None:
    def handler(**kwargs: Any) -> None:
        while True:
            os.write(1, b"x" * 65536)

    ended = stands.run("full", handler, wall_s=1.5, warning_s=0.0)

    assert ended.outcome is Outcome.TIMED_OUT
    assert len(ended.log) < 70 * 1024


def test_a_long_text_is_cut(run: Run) -> None:
    ended = run(lambda **kwargs: "é" * 1_000_000, text_bytes=1001)

    assert ended.text == "é" * 500


def test_processors_are_left_to_others(stands: Stands, sandbox: SandboxedRuntime) -> None:
    # given: a run that computes in as many processes as it may have
    def hog(**kwargs: Any) -> None:
        import os

        for _ in range(12):
            if os.fork() == 0:
                break
        while True:
            pass

    thread, results = in_thread(lambda: sandbox.run(make_job(hog, wall_s=4.0, warning_s=0.0, memory_bytes=1024 * MIB)))

    # when: others run meanwhile
    texts = [sandbox.run(make_job(lambda **kwargs: os.nice(0))).text for _ in range(3)]
    thread.join(60)

    # then: they get their turn, the hog its end, and all stand behind the executor
    assert texts == [str(stands.facts["niceness"] + NICENESS)] * 3
    assert results[0].outcome is Outcome.TIMED_OUT


def crowds_out(File: str) -> str:
    """Computes in many sessions on one processor, each of which a kernel may take for somebody else; the seconds that it got."""
    import json
    import os
    import time

    os.sched_setaffinity(0, {json.loads(File)["processor"]})
    until = time.monotonic() + 1.5
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os.setsid()
            while time.monotonic() < until:
                pass
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return str(os.times().children_user + os.times().children_system)


def left_to_another(stands: Stands, without: tuple[str, ...] = ()) -> float:
    """The share of one processor that a process of the host's has beside crowds_out."""
    processor = min(os.sched_getaffinity(0))
    burn = f"import os; os.sched_setaffinity(0, {{{processor}}}); print(flush=True)\nwhile True: pass"
    other = subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert other.stdout is not None and other.stdout.readline()
        stands.facts["processor"] = processor
        before = seconds_of(other.pid)
        ended = stands.run("full", crowds_out, without)
        its = seconds_of(other.pid) - before
    finally:
        other.kill()
        other.wait()
    return its / (its + float(ended.text))


def seconds_of(pid: int) -> float:
    """What a process has computed (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_handler_with_many_sessions_leaves_the_processor_to_others(stands: Stands) -> None:
    assert left_to_another(stands) > 0.6


def sessions_count() -> bool:
    """Whether processors are shared out by sessions here: not where control groups do it (sched(7), "The autogroup feature")."""
    switch = Path("/proc/sys/kernel/sched_autogroup_enabled")
    if not switch.exists() or switch.read_text().strip() == "0":
        return False
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if "cpu" in controllers.split(",") and group != "/":
            return False
        if not controllers and Path(f"/sys/fs/cgroup{group}/cpu.weight").exists():
            return False
    return True


@pytest.mark.skipif(not sessions_count(), reason="processors are not shared out by sessions here")
def test_a_handler_with_many_sessions_crowds_others_out_without_the_filter(stands: Stands) -> None:
    assert left_to_another(stands, ("filter system calls",)) < 0.5


def test_the_time_that_a_whole_tree_computed_is_told(stands: Stands, level: str) -> None:
    # given: children that are waited for, that are not, and that are killed with their run
    def handler(**kwargs: Any) -> None:
        import os
        import signal
        import time

        def compute() -> None:
            while time.process_time() < 0.4:
                pass

        for kind in ("waited for", "not waited for", "alive"):
            if os.fork() == 0:
                compute()
                if kind == "alive":
                    time.sleep(3600)
                os._exit(0)
        os.wait()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while time.process_time() < 0.2:
            pass
        time.sleep(1.5)

    ended = stands.run(level, handler)

    assert ended.outcome is Outcome.SUCCEEDED, ended
    assert ended.cpu_s > 0.9, ended.cpu_s


def test_a_handler_is_warned_before_its_time_limit(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> None:
        import time

        try:
            time.sleep(3600)
        finally:
            print("cleaned up")

    ended = stands.run(level, handler, wall_s=3.0, warning_s=2.0)

    assert ended.outcome is Outcome.TIMED_OUT
    assert ended.error is not None and ended.error.type == "TimeLimit" and "3 s" in ended.error.message
    assert ended.log == "cleaned up\n"


def test_a_handler_that_returns_in_time_after_the_warning_has_succeeded(run: Run) -> None:
    def handler(**kwargs: Any) -> str:
        import time

        try:
            time.sleep(3600)
        except Exception:
            return "half of it"
        return "all"

    ended = run(handler, wall_s=3.0, warning_s=2.5)

    assert (ended.outcome, ended.text) == (Outcome.SUCCEEDED, "half of it")


def test_a_handler_that_ignores_the_warning_is_killed(stands: Stands, level: str) -> None:
    def handler(**kwargs: Any) -> None:
        import signal
        import time

        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
        while True:
            try:
                time.sleep(3600)
            except BaseException:
                print("no")

    ended = stands.run(level, handler, wall_s=1.0, warning_s=0.4)

    assert ended.outcome is Outcome.TIMED_OUT
    assert ended.error is not None and "killed at its time limit" in ended.error.message


def test_a_result_whose_str_never_ends_is_timed_out(run: Run) -> None:
    def handler(**kwargs: Any) -> object:
        class Endless:
            def __str__(self) -> str:
                while True:
                    pass

        return Endless()

    assert run(handler, wall_s=1.0, warning_s=0.2).outcome is Outcome.TIMED_OUT
