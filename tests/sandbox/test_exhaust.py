"""What a handler can use up: its own share of memory, files, processes, descriptors, output and time; and the cause is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from executor.sandbox.job import MIB, Ended
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome

from .conftest import Stands, in_thread, make_job

Run = Callable[..., Ended]

TAKE = 192 * MIB
LIMIT = 96 * MIB


def in_one_piece(size: int) -> Any:
    return b"x" * size


def in_small_pieces(size: int) -> Any:
    return [b"x" * 65536 for _ in range(size // 65536)]


def by_a_private_mapping(size: int) -> Any:
    import mmap

    area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for place in range(0, size, 4096):
        area[place] = 1
    return area


def by_a_copied_file(size: int) -> Any:
    """Pages of a file that are written privately."""
    import mmap
    import os

    file = os.open(os.environ["TMPDIR"] + "/f", os.O_RDWR | os.O_CREAT)
    os.truncate(file, size)
    area = mmap.mmap(file, size, mmap.MAP_PRIVATE)
    for place in range(0, size, 4096):
        area[place] = 1
    return area


def in_children(size: int) -> Any:
    """Each of which stays far below the limit."""
    import os
    import time

    for _ in range(8):
        if os.fork() == 0:
            held = b"x" * (size // 8)
            time.sleep(3600)
            print(len(held))
    time.sleep(3600)


def in_orphans(size: int) -> Any:
    """Children whose parent is gone."""
    import os
    import time

    for _ in range(8):
        if os.fork() == 0:
            if os.fork() == 0:
                held = b"x" * (size // 8)
                time.sleep(3600)
                print(len(held))
            os._exit(0)
    time.sleep(3600)


def in_threads(size: int) -> Any:
    import threading
    import time

    def take() -> None:
        held = b"x" * (size // 8)
        time.sleep(3600)
        print(len(held))

    for _ in range(8):
        threading.Thread(target=take, daemon=True).start()
    time.sleep(3600)


def on_the_stack(size: int) -> Any:
    """The stack of a thread that asks for a large one, filled by a call of C's."""
    import ctypes
    import threading
    import time

    threading.stack_size(size + (1 << 20))

    def fill() -> None:
        here = ctypes.c_char()
        ctypes.memset(ctypes.addressof(here) - 0, 0, 1)
        with open("/proc/self/maps") as file:
            stacks = [line.split()[0].split("-") for line in file if "rw-p" in line]
        spans = [(int(first, 16), int(last, 16)) for first, last in stacks]
        first, last = max(spans, key=lambda span: span[1] - span[0])
        ctypes.memset(first + 65536, 1, min(size, last - first - (1 << 20)))
        time.sleep(3600)

    threading.Thread(target=fill, daemon=True).start()
    time.sleep(3600)


def in_page_tables(size: int) -> Any:
    """One page of one file, mapped at so many places that the tables are what is large: a table of 4 KiB for each."""
    import ctypes
    import os
    import time

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    file = os.open(os.environ["TMPDIR"] + "/f", os.O_RDWR | os.O_CREAT)
    os.truncate(file, 4096)
    base = 0x100000000000
    for number in range(size // 4096):
        place = libc.mmap(base + number * (2 << 20), 4096, 1, 0x100000 | 1, file, 0)
        if place in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        ctypes.string_at(place, 1)
    time.sleep(3600)


def in_sockets(size: int) -> Any:
    """Unread bytes between processes' own sockets are the kernel's memory."""
    import os
    import socket
    import time

    def fill(left: int) -> None:
        pairs: list[Any] = []
        while left > 0 and len(pairs) < 100:
            pairs.append(socket.socketpair())
            pairs[-1][0].setblocking(False)
            try:
                while left > 0:
                    left -= pairs[-1][0].send(b"x" * 65536)
            except BlockingIOError:
                continue
        time.sleep(3600)

    for _ in range(8):
        if os.fork() == 0:
            fill(size // 4)
    time.sleep(3600)


def in_files(size: int) -> Any:
    import os
    import time

    for number in range(8):
        with open(f"{os.environ['TMPDIR']}/{number}", "wb") as file:
            file.write(b"x" * (size // 8))
    time.sleep(3600)


def in_files_without_a_name(size: int) -> Any:
    import os
    import time

    held = []
    for number in range(8):
        path = f"{os.environ['TMPDIR']}/{number}"
        held.append(open(path, "wb"))  # noqa: SIM115
        os.remove(path)
        held[-1].write(b"x" * (size // 8))
        held[-1].flush()
    time.sleep(3600)


def in_shared_memory(size: int) -> Any:
    import time

    with open("/dev/shm/x", "wb") as file:
        file.write(b"x" * size)
    time.sleep(3600)


ROUTES = [
    in_one_piece,
    in_small_pieces,
    by_a_private_mapping,
    by_a_copied_file,
    in_children,
    in_orphans,
    in_threads,
    on_the_stack,
    in_page_tables,
    in_sockets,
]
FILES = [in_files, in_files_without_a_name]


def taking(route: Callable[[int], Any], size: int) -> Callable[..., str]:
    """A handler that takes memory by a route, and comes back only where that is no waiting."""
    route.__module__ = "__main__"  # pickled with it

    def handler(**kwargs: Any) -> str:
        held = route(size)
        return f"reached {type(held).__name__}"

    return handler


@pytest.mark.parametrize("route", ROUTES)
def test_memory_by_any_route_is_out_of_memory_with_peak_and_limit(
    stands: Stands, level: str, route: Callable[[int], Any]
) -> None:
    ended = stands.run(level, taking(route, TAKE), memory_bytes=LIMIT, scratch_bytes=TAKE * 2, wall_s=20.0)

    assert ended.outcome is Outcome.OUT_OF_MEMORY, ended
    assert ended.error is not None and "its limit is 96 MiB" in ended.error.message
    assert ended.peak_memory_bytes > 0


@pytest.mark.parametrize("route", ROUTES)
def test_the_same_memory_can_be_had_under_a_higher_limit(stands: Stands, route: Callable[[int], Any]) -> None:
    given: dict[str, Any] = {
        "memory_bytes": 3 * TAKE,
        "scratch_bytes": TAKE * 2,
        "wall_s": 3.0,
        "warning_s": 0.0,
        "processes": 64,
    }
    ended = stands.run("full", taking(route, TAKE), **given)

    assert ended.text.startswith("reached") or ended.outcome is Outcome.TIMED_OUT, ended
    assert ended.peak_memory_bytes > 0.6 * TAKE, ended.peak_memory_bytes / MIB


@pytest.mark.parametrize("route", [*FILES, in_shared_memory])
def test_files_of_the_scratch_count_as_memory(stands: Stands, route: Callable[[int], Any]) -> None:
    ended = stands.run("full", taking(route, TAKE), memory_bytes=LIMIT, scratch_bytes=TAKE * 2)

    assert ended.outcome is Outcome.OUT_OF_MEMORY, ended
    assert ended.error is not None and "of files" in ended.error.message


@pytest.mark.parametrize("route", FILES)
def test_files_of_a_folder_are_held_to_its_limit(stands: Stands, route: Callable[[int], Any]) -> None:
    ended = stands.run("pod", taking(route, 128 * MIB), scratch_bytes=64 * MIB)

    assert ended.outcome in (Outcome.CRASHED, Outcome.OUT_OF_MEMORY), ended
    assert ended.error is not None and "of files" in ended.error.message


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
    assert texts == [str(stands.facts["niceness"] + 5)] * 3
    assert results[0].outcome is Outcome.TIMED_OUT


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
