"""The floor: the zygote as the sandbox has it, forked for each run with nothing else: no isolation, no job, no result.

python -m bench.fork, in the zygote's environment: reads 'call COUNT' or 'load COUNT' lines, answers with the seconds it took.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable

from bench.peers.handler import rms
from executor.inside import settle
from executor.sandbox.plan import WARM

WORKERS = 2
VALUES = [index % 50 / 7 for index in range(200)]


def timed(work: Callable[[], object], count: int) -> float:
    """Seconds for so many forks, two children at a time; each does the work and ends, and is waited for."""
    began, started, ended = time.monotonic(), 0, 0
    while ended < count:
        while started - ended < WORKERS and started < count:
            if os.fork() == 0:
                status = 1
                try:
                    str(work())
                    status = 0
                finally:
                    os._exit(status)
            started += 1
        _, status = os.wait()
        assert status == 0
        ended += 1
    return time.monotonic() - began


def main() -> None:
    """Serves until its standard input ends."""
    for name in WARM:
        importlib.import_module(name)
    dill = importlib.import_module("dill")
    blob = pickled()
    settle.settle(os.open("/proc", os.O_RDONLY))
    works: dict[str, Callable[[], object]] = {
        "call": lambda: rms(VALUES),
        "load": lambda: dill.loads(blob)(VALUES),
    }
    print("ready", flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        print(timed(works[kind], int(count)), flush=True)


def pickled() -> bytes:
    """The handler by value, as a notebook's function is registered."""
    dill = importlib.import_module("dill")
    rms.__module__ = "__main__"
    blob: bytes = dill.dumps(rms, recurse=True)
    return blob


if __name__ == "__main__":
    main()
