"""Makes a warm zygote cheap to fork: its code has run once, its heap is frozen and lies in huge pages."""

import ctypes
import errno
import gc
import os
import socket
import sys
from typing import Any, Iterator, Tuple

from . import call, child, connect, trace

HUGE = 2 * 1024 * 1024
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25  # the second since Linux 6.1; source: madvise(2)


def settle(proc: int) -> int:
    """Rehearses a run, freezes the heap, gathers it in huge pages. Returns how many bytes lie in those now.

    proc: a descriptor of a /proc in which this process is 'self'. Blocks for a fraction of a second.
    """
    _rehearse()
    gc.collect()
    getattr(gc, "freeze", gc.collect)()  # 3.7 and newer: the children's collector leaves our pages alone
    gc.disable()
    return _gather(proc)


def _rehearse() -> None:
    """Goes the way of a run with a handler of ours: what is made at the first call is made here, not in each child anew."""
    dill = sys.modules.get("dill")
    if dill is None:
        return
    ours, theirs = socket.socketpair()
    for _ in range(12):  # the interpreter adapts code to its types after a few calls
        handler = call.load(dill.dumps(_sample, recurse=True))
        trace.show_source(handler, None, 0)
        given = {"DataSets": [], "name": "", "btrdb": connect.Ahead(None).connect("", "")}
        call.text_of(handler(**call.arguments(handler, given, list(given))), 100)
        child.rehearse(ours, theirs)
    ours.close()
    theirs.close()


def _sample(name: Any, **kwargs: Any) -> str:
    return "%s" % name


def _gather(proc: int) -> int:
    """Page tables are most of a fork's cost: a huge page needs one entry where small ones need 512. Source: madvise(2)."""
    gathered = 0
    libc = ctypes.CDLL(None, use_errno=True)
    for first, last in _heap(proc):
        start, end = (first + HUGE - 1) // HUGE * HUGE, last // HUGE * HUGE
        for at in range(start, end, HUGE):
            if libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(HUGE), MADV_COLLAPSE) == 0:
                gathered += HUGE
            elif ctypes.get_errno() == errno.EINVAL:  # an older kernel gathers them in the background, if at all
                libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(HUGE), MADV_HUGEPAGE)
    return gathered


def _heap(proc: int) -> Iterator[Tuple[int, int]]:
    """The private writable mappings of no file. Source: proc(5), /proc/pid/maps."""
    descriptor = os.open("self/maps", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    with os.fdopen(descriptor) as file:
        lines = file.read().splitlines()
    for line in lines:
        words = line.split()
        if words[1].startswith("rw") and words[1].endswith("p") and (len(words) == 5 or words[5] == "[heap]"):
            first, _, last = words[0].partition("-")
            yield int(first, 16), int(last, 16)
