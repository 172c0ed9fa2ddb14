"""Memory by every route that is known: each is counted, ends the run at its limit, and is told with peak and limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from executor.sandbox.job import MIB, Access
from executor.sandbox.runtime import SandboxedRuntime
from schemas.records import Outcome
from tests.executor.sandbox.conftest import RUNTIME

from .conftest import Stands, make_job

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
WAITING = [in_children, in_orphans, in_threads, on_the_stack, in_page_tables, in_sockets]
"""Those that hold what they took until their time is over."""
FILES = [in_files, in_files_without_a_name]


def taking(route: Callable[[int], Any], size: int) -> Callable[..., str]:
    """A handler that takes memory by a route, and comes back only where that is no waiting."""
    route.__module__ = "__main__"  # pickled with it

    def handler(**kwargs: Any) -> str:
        held = route(size)
        return f"reached {type(held).__name__}"

    return handler


@pytest.fixture(scope="module")
def watched() -> Iterator[SandboxedRuntime]:
    """A whole sandbox without control groups: here it is the watch that must see it. The kernel's count: test_cgroup.py."""
    one = SandboxedRuntime(RUNTIME, Access(None), warm=1, scratch_bytes=TAKE * 2, cgroups=False)
    one.start()
    yield one
    one.close()


@pytest.mark.parametrize("route", ROUTES)
def test_memory_by_any_route_is_out_of_memory_with_peak_and_limit(
    stands: Stands, watched: SandboxedRuntime, level: str, route: Callable[[int], Any]
) -> None:
    given: dict[str, Any] = {"memory_bytes": LIMIT, "scratch_bytes": TAKE * 2, "wall_s": 20.0}
    handler = taking(route, TAKE)

    ended = stands.run(level, handler, **given) if level == "pod" else watched.run(make_job(handler, **given))

    assert ended.outcome is Outcome.OUT_OF_MEMORY, ended
    assert ended.error is not None and "its limit is 96 MiB" in ended.error.message
    assert ended.peak_memory_bytes > 0


@pytest.mark.parametrize(
    "route", [pytest.param(one, marks=[pytest.mark.slow] if one in WAITING else []) for one in ROUTES]
)
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
def test_files_of_the_scratch_count_as_memory(watched: SandboxedRuntime, route: Callable[[int], Any]) -> None:
    ended = watched.run(make_job(taking(route, TAKE), memory_bytes=LIMIT, scratch_bytes=TAKE * 2))

    assert ended.outcome is Outcome.OUT_OF_MEMORY, ended
    assert ended.error is not None and "of files" in ended.error.message


@pytest.mark.parametrize("route", FILES)
def test_files_of_a_folder_are_held_to_its_limit(stands: Stands, route: Callable[[int], Any]) -> None:
    ended = stands.run("pod", taking(route, 128 * MIB), scratch_bytes=64 * MIB)

    assert ended.outcome in (Outcome.CRASHED, Outcome.OUT_OF_MEMORY), ended
    assert ended.error is not None and "of files" in ended.error.message
